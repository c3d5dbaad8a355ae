"""The threads that run a handler, and the handler's possible answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import orjson
from psycopg2.errorcodes import CONNECTION_FAILURE, READ_ONLY_SQL_TRANSACTION

from myloware_store.core.arguments import as_seconds
from myloware_store.core.errors import ConnectionFailed, DatabaseFault, StoreError
from myloware_store.core.values import dump_json
from myloware_store.db.tenancy import tenant_scope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from myloware_store.core.results import Claim
    from myloware_store.store import Store

__all__ = ["Handled", "Handler", "NeedsApproval", "PermanentFailure", "RetryLater", "Threads"]

Handler: TypeAlias = "Callable[[Claim], Any]"
"""A function that works on a claim and returns the result, any JSON. An exception fails the attempt."""


@attrs.frozen
class NeedsApproval:
    """Returned by a handler to park its result until somebody decides on it.

    Attributes:
        result: The result, any JSON.
    """

    result: Any


class PermanentFailure(Exception):
    """Raised by a handler if trying again is of no use: the item becomes a dead letter at once."""


class RetryLater(Exception):
    """Raised by a handler to be tried again after a certain time, such as a remote service's Retry-After.

    Args:
        message: Why.
        delay: The delay in seconds; by default the backoff of any failure.
    """

    def __init__(self, message: str, *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = None if delay is None else as_seconds(delay, "delay")


@attrs.frozen
class Handled:
    """A claim whose handler has ended.

    Attributes:
        claim: The claim.
        result: The handler's result, as JSON.
        gate: Whether the result waits for a decision.
        error: The handler's exception.
        released: Whether to release the item without using up a try.
        retry: Whether a failed item may be tried again.
        delay: Seconds until then, if the handler set them.
    """

    claim: Claim
    result: Any = None
    gate: bool = False
    error: BaseException | None = None
    released: bool = False
    retry: bool = True
    delay: float | None = None


class Threads:
    """Threads that run the handler, each under the tenant of its claim and with the agent as the actor.

    They are daemons: a handler that never returns does not keep the process from ending.

    Args:
        store: The open store.
        handler: Called with each claim.
        agent_id: The actor.
        size: How many threads to start.
        wake: Called whenever a handler has ended.

    Attributes:
        role: The database role under which handlers run; None for that of the login.
    """

    def __init__(self, store: Store, handler: Handler, agent_id: str, size: int, wake: Callable[[], None]) -> None:
        self._store = store
        self._handler = handler
        self._agent_id = agent_id
        self.role: str | None = None
        self._wake = wake
        self._waiting: SimpleQueue[Claim | None] = SimpleQueue()
        self._handled: SimpleQueue[Handled] = SimpleQueue()
        self._begun: dict[UUID, float] = {}
        self._lost: set[UUID] = set()
        self._threads = [
            threading.Thread(target=self._work, name=f"{agent_id}-{number}", daemon=True) for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, claim: Claim) -> None:
        """Queue a claim for the next free thread."""
        self._waiting.put(claim)

    def handled(self) -> Iterator[Handled]:
        """Yield the claims whose handlers have ended since the last call."""
        return _drain(self._handled)

    def unbegun(self) -> list[Claim]:
        """Take back the claims that no thread has started."""
        return [claim for claim in _drain(self._waiting) if claim is not None]

    def take_back(self) -> list[Claim]:
        """Take back the claims that no thread has started, and let every thread end after its current one."""
        left = self.unbegun()
        for _ in self._threads:
            self._waiting.put(None)
        return left

    def skip(self, attempt_ids: set[UUID]) -> None:
        """Do not start these claims, which were lost in the meantime."""
        self._lost |= attempt_ids

    def running(self) -> dict[UUID, float]:
        """Return the attempts that threads are working on, with the `time.monotonic()` of their start."""
        return self._begun.copy()

    def _work(self) -> None:
        while (claim := self._waiting.get()) is not None:
            if claim.attempt_id in self._lost:
                self._handled.put(Handled(claim, error=TimeoutError("the lease expired before a thread was free")))
            else:
                self._begun[claim.attempt_id] = time.monotonic()
                try:
                    handled = self._handle(claim)
                except BaseException as error:  # noqa: BLE001  such as one of an exception built wrongly
                    handled = Handled(claim, error=error)
                self._handled.put(handled)
                del self._begun[claim.attempt_id]
            self._lost.discard(claim.attempt_id)
            self._wake()

    def _handle(self, claim: Claim) -> Handled:
        try:
            with tenant_scope(claim.tenant_id, self._agent_id, role=self.role):
                result = self._handler(claim)
            if isinstance(result, BaseException):
                raise TypeError(f"the handler returned {type(result).__name__}: raise it")  # noqa: TRY301
            gate = isinstance(result, NeedsApproval)
            result = result.result if isinstance(result, NeedsApproval) else result
            # A result that cannot be stored fails only this attempt. Later changes to the object do not matter.
            stored = orjson.Fragment(dump_json(result, "the handler's result"))
        except RetryLater as error:
            delay = None if error.delay is None else as_seconds(error.delay, "delay")
            return Handled(claim, error=error, delay=delay)
        except PermanentFailure as error:
            return Handled(claim, error=error, retry=False)
        except DatabaseFault as error:
            return Handled(claim, error=error, released=_out_of_reach(error))
        except BaseException as error:  # noqa: BLE001  also SystemExit: every exception fails the attempt
            return Handled(claim, error=error)
        else:
            return Handled(claim, result=stored, gate=gate)
        finally:
            self._tidy()

    def _tidy(self) -> None:
        """Return a connection that the handler left open, and roll back a transaction that it began by hand."""
        try:
            if self._store.db.transaction_open():
                self._store.db.rollback()
            self._store.db.close()
        except StoreError:  # the store was closed under a handler that took too long
            pass


def _out_of_reach(error: DatabaseFault) -> bool:
    """Return whether the database could not be used, through no fault of the item.

    A connection that broke during a statement does not count: a statement that crashes its server must use up tries.
    """
    if isinstance(error, ConnectionFailed):
        return error.sqlstate != CONNECTION_FAILURE
    return error.sqlstate == READ_ONLY_SQL_TRANSACTION


def _drain(queue: SimpleQueue[Any]) -> Iterator[Any]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return

"""The threads that run a handler, and what a handler can answer."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from myloware_store.core.results import Claim
    from myloware_store.store import Store

__all__ = ["Crew", "Handled", "Handler", "NeedsApproval", "PermanentFailure", "RetryLater"]

Handler: TypeAlias = "Callable[[Claim], Any]"
"""Works on a claim and returns the result, any JSON; what it raises fails the attempt."""


@attrs.frozen
class NeedsApproval:
    """What a handler returns to park its result until somebody decides on it.

    Attributes:
        result: The result, any JSON.
    """

    result: Any


class PermanentFailure(Exception):
    """What a handler raises where trying again is of no use: the item becomes a dead letter at once."""


class RetryLater(Exception):
    """What a handler raises to be tried again at a time of its own, such as a remote service's Retry-After.

    Args:
        message: Why.
        delay: In how many seconds; by default with the backoff of any failure.
    """

    def __init__(self, message: str, *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = None if delay is None else as_seconds(delay, "delay")


@attrs.frozen
class Handled:
    """A claim whose handler has ended.

    Attributes:
        claim: The claim.
        result: What it returned, as JSON.
        gate: Whether the result waits for a decision.
        error: What it raised.
        released: Whether the item is given back without using up a try.
        retry: Whether a failed item may be tried again.
        delay: Seconds until then, where the handler said so.
    """

    claim: Claim
    result: Any = None
    gate: bool = False
    error: BaseException | None = None
    released: bool = False
    retry: bool = True
    delay: float | None = None


class Crew:
    """Threads that run the handler, each under the tenant of its claim and with the agent as the actor.

    They are daemons: a handler that never returns does not keep the process from ending.

    Args:
        store: The open store.
        handler: Runs on every claim.
        agent_id: Who works.
        size: How many threads.
        wake: Called after each handler's end.
    """

    def __init__(self, store: Store, handler: Handler, agent_id: str, size: int, wake: Callable[[], None]) -> None:
        self._store = store
        self._handler = handler
        self._agent_id = agent_id
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
        """Have a claim worked on as soon as a thread is free."""
        self._waiting.put(claim)

    def handled(self) -> Iterator[Handled]:
        """Give what has ended since the last call."""
        return _drain(self._handled)

    def unbegun(self) -> list[Claim]:
        """Take back the claims that no thread has begun with."""
        return [claim for claim in _drain(self._waiting) if claim is not None]

    def take_back(self) -> list[Claim]:
        """Take back the claims that no thread has begun with, and let every thread end after the one it is at."""
        left = self.unbegun()
        for _ in self._threads:
            self._waiting.put(None)
        return left

    def skip(self, attempt_ids: set[UUID]) -> None:
        """Have claims that were lost meanwhile not be begun with."""
        self._lost |= attempt_ids

    def running(self) -> dict[UUID, float]:
        """Give the attempts that threads are at, and the `time.monotonic()` of their beginning."""
        return self._begun.copy()

    def _work(self) -> None:
        while (claim := self._waiting.get()) is not None:
            if claim.attempt_id in self._lost:
                self._handled.put(Handled(claim, error=TimeoutError("the lease ran out before a thread was free")))
            else:
                self._begun[claim.attempt_id] = time.monotonic()
                try:
                    handled = self._handle(claim)
                except BaseException as error:  # noqa: BLE001  such as that of an error that was made in a wrong way
                    handled = Handled(claim, error=error)
                self._handled.put(handled)
                del self._begun[claim.attempt_id]
            self._lost.discard(claim.attempt_id)
            self._wake()

    def _handle(self, claim: Claim) -> Handled:
        try:
            with self._store.tenant(claim.tenant_id, actor=self._agent_id):
                result = self._handler(claim)
            if isinstance(result, BaseException):
                raise TypeError(f"the handler returned {type(result).__name__}: raise it")  # noqa: TRY301
            gate = isinstance(result, NeedsApproval)
            result = result.result if isinstance(result, NeedsApproval) else result
            # One that cannot be stored fails this attempt, and no other. What becomes of it later does not matter.
            stored = orjson.Fragment(dump_json(result, "the handler's result"))
        except RetryLater as error:
            delay = None if error.delay is None else as_seconds(error.delay, "delay")
            return Handled(claim, error=error, delay=delay)
        except PermanentFailure as error:
            return Handled(claim, error=error, retry=False)
        except DatabaseFault as error:
            return Handled(claim, error=error, released=_out_of_reach(error))
        except BaseException as error:  # noqa: BLE001  also SystemExit: whatever ends a handler has failed the attempt
            return Handled(claim, error=error)
        else:
            return Handled(claim, result=stored, gate=gate)
        finally:
            self._tidy()

    def _tidy(self) -> None:
        """Return the connection that the handler may have left open, and roll back what it began by hand."""
        try:
            if self._store.db.transaction_open():
                self._store.db.rollback()
            self._store.db.close()
        except StoreError:  # the store was closed under a handler that took too long
            pass


def _out_of_reach(error: DatabaseFault) -> bool:
    """Tell whether the database could not be used, through no fault of the item.

    A connection that broke while it was used is no such case: a statement that crashes its server must use up tries.
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

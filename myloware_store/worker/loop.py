"""The worker's loop: claim items, store results, wait, and stop in good order.

The loop runs in a thread of its own. `run()` only waits for it, so it can return even if a statement, a connection
attempt or the wait for a pooled connection does not end. Python runs signal handlers in a main thread that waits so.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from myloware_store.core.arguments import as_count, as_flag, as_name, as_seconds
from myloware_store.core.errors import ConnectionFailed, InvalidInput, SettingsError, StoreError
from myloware_store.db import deadlines
from myloware_store.db.listening import Listener
from myloware_store.db.transactions import require_plain
from myloware_store.memory.index.upkeep import Upkeep
from myloware_store.store import Store
from myloware_store.work.rows import LARGEST_BATCH, give_up, wanted
from myloware_store.worker.leases import Leases
from myloware_store.worker.results import WorkerReport, hand_in, tolerate
from myloware_store.worker.threads import Handled, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from uuid import UUID

    from myloware_store.core.enums import WorkItemType
    from myloware_store.core.results import Claim
    from myloware_store.worker.threads import Handler

__all__ = ["Worker"]

_SHORTEST_LEASE = 1.0
_LONGEST_WAIT = 60.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 30.0  # while the server cannot be reached, each pause doubles
_LONGEST_LOOK = 1.0  # if items seem ready but cannot be claimed, such as rows that somebody has locked
_ROLE_SECONDS = 10.0  # until a worker notices that tenancy is enforced
_HURRIED = 2
_LAST_CALL = 2.0  # seconds for the last releases
_CALL_TIMEOUT = 30.0  # half of the default lease: a heartbeat that gets no reply is repeated in time
_TICK = 0.1  # seconds until Python notices a signal that was delivered to another thread
_FEWEST_CONNECTIONS = 2  # one for the leases, one for everything else
_STOPS = (signal.SIGTERM, signal.SIGINT)
_logger = logging.getLogger("myloware_store.worker")


class Worker:
    """Claims items and runs a handler on each, in threads, until it is stopped.

    It claims as many items as it has threads (plus `prefetch`), extends their leases, stores results in batches, takes
    back items of dead workers, and waits while the server cannot be reached. Any number of workers on any number of
    machines share the work.

    Items are executed at least once: if a worker is killed, or paused for longer than its lease, other workers take
    over its items. If a handler's effects must not happen twice, let it write them in one transaction with
    `store.work.finish([claim], [...])` and return the same result; the worker's own finish then changes nothing.

    Where tenancy is enforced (`myloware-store tenancy enforce`) and this role is not bound by it, each handler runs
    under the role that is; not so a thread that a handler starts, nor a `db.cursor()`.

    Args:
        store: The open store.
        handler: A function that works on a claim and returns the result, any JSON, or `NeedsApproval(result)`. An
            exception fails the attempt: `PermanentFailure` for good, `RetryLater` with its own delay, others with
            backoff. The handler runs under the tenant of the claim, with `agent_id` as the actor.
        agent_id: The name of the worker; by default the host's name and the process id.
        threads: How many items to work on at once (1 to 1000).
        prefetch: How many more items to claim, which then wait for a thread; useful if handlers take milliseconds.
        types: Only items of these types.
        tenants: Only items of these tenants.
        fair: Share the claims among the tenants, so that a tenant with many items does not starve the others.
        lease: Seconds until other workers take over the items of a worker that died; at least 1.
        timeout: Seconds that a handler may take; by default there is no limit. After that the attempt fails with a
            TimeoutError and the handler's later result is ignored. A thread cannot be stopped, so it takes no other
            item until the handler returns.
        reap_every: Seconds between two calls of `reap`, which takes back items of dead workers, of `index`, which puts
            ended items into the full-text index, and of `memory.prune`, which deletes expired documents; six times as
            long between two calls of `audit.seal`. None to call none of them. Unless it is None, a thread of the worker
            also builds and tunes the vector index when the memory needs it (`Settings.upkeep`).
        look_every: Seconds between two polls of the queue, in case a NOTIFY was lost; by default 5, or 0.25 if it
            cannot listen (behind PgBouncer).
        grace: Seconds that `run` waits for running handlers after a stop; items still in work are then released. If
            the database does not answer, `run` returns 2 seconds later, and they stay until their leases expire.

    Raises:
        InvalidInput: An argument is out of its bounds.
    """

    def __init__(
        self,
        store: Store,
        handler: Handler,
        *,
        agent_id: str | None = None,
        threads: int = 4,
        prefetch: int = 0,
        types: Iterable[WorkItemType | str] | None = None,
        tenants: Iterable[str] | None = None,
        fair: bool = False,
        lease: float = 60.0,
        timeout: float | None = None,
        reap_every: float | None = 10.0,
        look_every: float | None = None,
        grace: float = 30.0,
    ) -> None:
        require_plain(handler, "handler")
        if not isinstance(store, Store):
            raise InvalidInput(f"store: {type(store).__name__} is not a Store")
        self.agent_id = f"{os.uname().nodename}:{os.getpid()}" if agent_id is None else as_name(agent_id, "agent_id")
        self._store = store
        self._handler = handler
        self._thread_count = as_count(threads, "threads", most=1000)
        self._most = self._thread_count + as_count(prefetch, "prefetch", least=0, most=1000)
        self._wanted = wanted(types, tenants)
        self._fair = as_flag(fair, "fair")
        self._lease = as_seconds(lease, "lease", least=_SHORTEST_LEASE)
        self._timeout = None if timeout is None else as_seconds(timeout, "timeout")
        self._reap_every = None if reap_every is None else as_seconds(reap_every, "reap_every", least=0.01)
        self._look_every = None if look_every is None else as_seconds(look_every, "look_every", least=0.01)
        self._longest_wait = max(_LONGEST_WAIT, self._look_every or 0.0)
        self._grace = as_seconds(grace, "grace")
        self._held: dict[UUID, Claim] = {}
        self._left: list[Handled] = []
        self._finishing: set[UUID] = set()
        self._stops = 0  # no Event: a signal handler must not wait for a lock
        self._listener: Listener | None = None
        self._pause = 0.0
        self._role_due = 0.0
        self._running = threading.Lock()

    def run(self, *, drain: bool = False, signals: bool = True) -> WorkerReport:
        """Work until `stop()`, SIGTERM or SIGINT.

        After that it claims no more items, releases those that no thread has started, gives running handlers `grace`
        seconds to end, and stores their results. After a second signal it does not wait for handlers. Neither does it
        wait for a database that does not answer: it returns at most 2 seconds after `grace` or the second signal.

        Args:
            drain: Return as soon as no item can be claimed and all results are stored, or if every thread is stuck in
                a handler that has exceeded `timeout` by `grace`.
            signals: Stop on SIGTERM and SIGINT; this works only in the main thread.

        Returns:
            The outcomes of the claims.

        Raises:
            InvalidInput: The worker is running already, or a transaction is open.
            SettingsError: `connection_limit` is less than 2; the leases need a connection of their own. Or tenancy is
                enforced, and this role may not take the role that it binds.
            StoreError: The database cannot be used, for example because it is not migrated. If it cannot be reached
                (`ConnectionFailed`), is out of resources, or cancels statements, the worker waits.
        """
        if self._store.db.transaction_open():
            raise InvalidInput(
                "run: a worker cannot run inside a transaction; commit first (in a test, don't use the mode rollback)"
            )
        if self._store.settings.connection_limit < _FEWEST_CONNECTIONS:
            raise SettingsError(f"connection_limit: a worker needs at least {_FEWEST_CONNECTIONS} connections")
        if not self._running.acquire(blocking=False):
            raise InvalidInput("run: this worker is running already; make another Worker")
        try:
            return self._run(drain=as_flag(drain, "drain"), signals=as_flag(signals, "signals"))
        finally:
            if self._listener is None:  # otherwise the loop is still running
                self._running.release()

    def stop(self) -> None:
        """Stop `run()`, or the next one, in good order; after a second call it does not wait for handlers."""
        self._stops += 1
        if (listener := self._listener) is not None:  # read once: `run()` may be ending
            listener.wake()

    def _run(self, *, drain: bool, signals: bool) -> WorkerReport:
        """Run the loop in a thread, and wait for it."""
        settled = WorkerReport()
        errors: list[BaseException] = []
        # Not `Thread.join()`: after a KeyboardInterrupt in it, Python 3.11 takes a running thread for ended.
        over = threading.Event()
        told = ", ".join(f"{of}: {'all' if these is None else ', '.join(these)}" for of, these in self._wanted.items())
        _logger.info("%s starts: %d threads, %s", self.agent_id, self._thread_count, told)
        listener = Listener(self._store.db)
        threads = Threads(self._store, self._handler, self.agent_id, self._thread_count, listener.wake)
        settings = self._store.settings
        call_timeout = settings.call_timeout or _CALL_TIMEOUT
        leases = Leases(
            self._store,
            self._claims,
            threads.skip,
            lease=self._lease,
            reap_every=self._reap_every,
            call_timeout=call_timeout,
        )
        # A store on the embedded server does this by itself.
        tends = settings.upkeep and not settings.embedded and self._reap_every is not None
        upkeep = Upkeep(settings) if tends else None

        @deadlines.call_timeout(call_timeout)
        def loop() -> None:
            try:
                self._loop(threads, leases, listener, settled, drain=drain)
            except BaseException as error:  # noqa: BLE001  raised below
                errors.append(error)
            finally:
                over.set()

        # A daemon does not keep the process from ending. The copied context has the tenant in force.
        thread = threading.Thread(target=copy_context().run, args=(loop,), name=f"{self.agent_id}-loop", daemon=True)
        with self._heard_signals(wanted=signals):
            self._listener = listener
            thread.start()
            try:
                self._wait_for(over)
            except BaseException:  # such as a KeyboardInterrupt
                self.stop()
                self._wait_for(over)
                raise
            finally:
                if upkeep is not None:
                    upkeep.stop()
                if not over.is_set():
                    self.stop()
                    leases.stop(lambda: False)
                    threads.take_back()
                    left = "%s ends although the database does not answer: %d items are left until their leases expire"
                    _logger.warning(left, self.agent_id, len(self._held))
                else:
                    self._listener = None
                    self._stops = 0
                _logger.info("%s has ended: %s", self.agent_id, settled)
        for error in errors:
            raise error
        return settled

    def _wait_for(self, over: threading.Event) -> None:
        """Wait until the loop has ended; after `grace` or a second stop, only for the last releases."""
        while not (over.is_set() or self._stops):
            over.wait(_TICK)
        deadline = time.monotonic() + self._grace
        while not over.is_set() and self._stops < _HURRIED:
            over.wait(_TICK)
            if time.monotonic() >= deadline:
                self.stop()
        over.wait(_LAST_CALL)

    def _loop(
        self, threads: Threads, leases: Leases, listener: Listener, settled: WorkerReport, *, drain: bool
    ) -> None:
        with listener:
            try:
                while not self._stops and not self._step(threads, listener, settled, drain=drain):
                    pass
            finally:
                self._stops = self._stops or 1  # `grace` begins
                try:
                    self._wind_up(threads, listener, settled)
                finally:
                    leases.stop(lambda: self._stops < _HURRIED)

    def _step(self, threads: Threads, listener: Listener, settled: WorkerReport, *, drain: bool) -> bool:
        """Store results, claim, and wait for something to do; return True if nothing is left to drain."""
        try:
            if time.monotonic() >= self._role_due:
                threads.role = self._store.work.handler_role()
                self._role_due = time.monotonic() + _ROLE_SECONDS
            with self._store.db.unit():
                claims = self._hand_in(threads, settled, claims_too=True)
                room = self._room(threads)
                if claims is None:
                    claims = self._claim(threads, settled, room)
            for claim in claims:
                self._held[claim.attempt_id] = claim
                threads.put(claim)
            if claims:
                self._pause = 0.0
            elif self._left:
                self._rest(listener, _LONGEST_PAUSE)
            elif drain and not self._held and (room > 0 or self._stuck(threads, self._grace)):
                return True
            elif room <= 0:
                listener.wait(self._until_overdue(threads))  # or until a handler has ended
            elif self._store.work.wait_for_work(
                self._until_overdue(threads), listener=listener, look_every=self._look_every, **self._wanted
            ):
                self._rest(listener, _LONGEST_LOOK)
            else:
                self._pause = 0.0
        except StoreError as error:
            tolerate(error, "waiting for the database")
            self._rest(listener, _LONGEST_PAUSE)
        return False

    def _claim(self, threads: Threads, settled: WorkerReport, room: int) -> list[Claim]:
        """Claim items for free threads; if all threads are stuck, release the items that wait for them."""
        if room > 0:
            work, most = self._store.work, min(room, LARGEST_BATCH)
            return work.claim(self.agent_id, most, lease=self._lease, fair=self._fair, **self._wanted)
        if self._stuck(threads):
            self._release(threads.unbegun(), settled)
        return []

    def _room(self, threads: Threads) -> int:
        """Return how many items may be claimed; a thread that is still at a timed-out attempt takes no other."""
        stuck = threads.running().keys() - self._held.keys()
        return 0 if self._stuck(threads) else self._most - len(self._held) - len(stuck)

    def _hand_in(self, threads: Threads, settled: WorkerReport, *, claims_too: bool = False) -> list[Claim] | None:
        """Store results; if that is all there is to store, claim the next items in the same statement.

        Returns:
            The new claims, or None if nothing was claimed together with results.
        """
        # A result that comes after the time-out is ignored, even if the time-out itself could not be stored yet.
        open_attempts = self._held.keys() - {one.claim.attempt_id for one in self._left}
        handled = [*self._left, *(one for one in threads.handled() if one.claim.attempt_id in open_attempts)]
        done = {one.claim.attempt_id for one in handled}
        overdue = [one for one in self._overdue(threads) if one.claim.attempt_id not in done]
        give_up(one.claim for one in overdue)
        handled += overdue
        fresh: list[Claim] | None = None

        def finish(claims: list[Claim], results: list[Any]) -> set[UUID]:
            nonlocal claims_too, fresh
            work, most = self._store.work, min(self._room(threads) + len(claims), LARGEST_BATCH)
            # The statement locks these attempts, maybe for long: it may wait for an order that somebody has locked.
            # Extending their leases would wait as long, and with them the leases of all others.
            self._finishing = {claim.attempt_id for claim in claims}
            try:
                if claims_too and most > 0:
                    claims_too = False
                    try:
                        accepted, fresh = work.finish_and_claim(
                            claims,
                            results,
                            self.agent_id,
                            most,
                            gate=False,
                            lease=self._lease,
                            fair=self._fair,
                            **self._wanted,
                        )
                    except ConnectionFailed:
                        raise
                    except StoreError as error:  # the claim may be at fault, or may have waited for too long
                        _logger.debug("finishing without a claim: %s", error)
                    else:
                        return accepted
                return work.finish(claims, results)
            finally:
                self._finishing = set()

        # Failed items may be claimable at once: they are stored before a claim.
        claims_too = claims_too and all(one.error is None and not one.gate for one in handled)
        self._left = hand_in(self._store.work, handled, settled, finish)
        for attempt_id in {one.claim.attempt_id for one in handled} - {one.claim.attempt_id for one in self._left}:
            del self._held[attempt_id]
        return fresh

    def _overdue(self, threads: Threads) -> list[Handled]:
        """Return failures for the attempts whose handlers take too long."""
        if self._timeout is None:
            return []
        since, error = time.monotonic() - self._timeout, TimeoutError(f"the handler took over {self._timeout:g} s")
        late = [attempt_id for attempt_id, begun in threads.running().items() if begun <= since]
        return [Handled(self._held[attempt_id], error=error) for attempt_id in late if attempt_id in self._held]

    def _stuck(self, threads: Threads, seconds: float = 0.0) -> bool:
        """Return whether every thread is at an attempt that timed out at least so many seconds ago."""
        begun = [begun for attempt_id, begun in threads.running().items() if attempt_id not in self._held]
        return len(begun) >= self._thread_count and max(begun) + (self._timeout or 0.0) + seconds <= time.monotonic()

    def _until_overdue(self, threads: Threads) -> float:
        """Return the seconds until the next handler times out, at most a minute or `look_every`."""
        begun = [begun for attempt_id, begun in threads.running().items() if attempt_id in self._held]
        if self._timeout is None or not begun:
            return min(self._longest_wait, self._timeout or self._longest_wait)
        return min(self._longest_wait, max(0.0, min(begun) + self._timeout - time.monotonic()))

    def _rest(self, listener: Listener, most: float) -> None:
        """Wait for a moment, longer each time, until something is claimed again."""
        listener.wait(min(self._pause, most) * random.uniform(0.5, 1.0))  # noqa: S311  only to spread the workers
        self._pause = min(max(self._pause * 2, _SHORTEST_PAUSE), most)

    def _wind_up(self, threads: Threads, listener: Listener, settled: WorkerReport) -> None:
        """Release items that were not started, wait for the others, and release those that do not end."""
        not_begun = threads.take_back()
        try:
            while self._wait_for_more(threads, not_begun, settled) and self._stops < _HURRIED:
                listener.wait(1.0)
            unsaved = {one.claim.attempt_id for one in self._left}
            self._release([claim for claim in self._held.values() if claim.attempt_id not in unsaved], settled)
        except StoreError as error:
            _logger.warning("%d items are left until their leases expire: %s", len(self._held), error)
        self._held.clear()
        self._left.clear()

    def _wait_for_more(self, threads: Threads, not_begun: list[Claim], settled: WorkerReport) -> bool:
        """Release items that were not started, store results, and return whether any item is still held."""
        try:
            self._release(not_begun, settled)
            not_begun.clear()
            self._hand_in(threads, settled)
        except StoreError as error:
            tolerate(error, "stopping; waiting for the database")
        return bool(self._held)

    def _release(self, claims: list[Claim], settled: WorkerReport) -> None:
        if claims:
            give_up(claims)
            released = self._store.work.release(claims)
            settled.released += len(released)
            settled.lost += len(claims) - len(released)
        for claim in claims:
            del self._held[claim.attempt_id]

    def _claims(self) -> list[Claim]:
        """Return the claims whose leases to extend."""
        # An item that was lost can be claimed again while a thread is still at it: the newest claim holds it.
        held = self._held.copy().values()
        newest = {claim.item_id: claim for claim in held}
        give_up(claim for claim in held if claim is not newest[claim.item_id])
        return [claim for claim in newest.values() if claim.attempt_id not in self._finishing]

    @contextmanager
    def _heard_signals(self, *, wanted: bool) -> Iterator[None]:
        if not wanted or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            self.stop()

        outer = len(_undo)  # a signal handler can run another worker
        try:
            for number in _STOPS:
                before = signal.signal(number, stop)
                _undo.append(partial(signal.signal, number, signal.SIG_DFL if before is None else before))
            yield
        finally:
            _hear_as_before(outer)


_undo: list[Callable[[], object]] = []
"""Calls that restore the signal handlers from before the worker."""


def _hear_as_before(outer: int = 0) -> None:
    while len(_undo) > outer:
        _undo.pop()()


# So that SIGTERM ends processes that a handler forks, such as a multiprocessing.Pool.
os.register_at_fork(after_in_child=_hear_as_before)

"""The worker's loop: claim what there is room for, hand in what is done, wait, and stop in good order."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from myloware_store.core.arguments import as_count, as_flag, as_name, as_seconds
from myloware_store.core.errors import InvalidInput, SettingsError, StoreError
from myloware_store.db.interrupts import expect_return
from myloware_store.db.listening import Listener
from myloware_store.db.transactions import require_plain
from myloware_store.store import Store
from myloware_store.work.rows import wanted
from myloware_store.worker.handling import Crew, Handled
from myloware_store.worker.heart import Heart
from myloware_store.worker.settling import WorkerReport, hand_in, tolerate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from uuid import UUID

    from myloware_store.core.enums import WorkItemType
    from myloware_store.core.results import Claim
    from myloware_store.worker.handling import Handler

__all__ = ["Worker"]

_SHORTEST_LEASE = 1.0
_LONGEST_WAIT = 60.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 30.0  # while the server is away, each pause doubles
_LONGEST_LOOK = 1.0  # where there seems to be work that cannot be claimed, such as rows that somebody has locked
_HURRIED = 2
_FEWEST_CONNECTIONS = 2  # of the leases, and of all others in turn
_STOPS = (signal.SIGTERM, signal.SIGINT)
_logger = logging.getLogger("myloware_store.worker")


class Worker:
    """Claims items and runs a handler on each, in threads, until it is told to stop.

    It claims no more than it has threads for (and `prefetch` more), extends the leases of what it holds, hands in
    results in batches, takes back what dead workers left, and rides out a server that is away. Any number of workers
    on any number of machines share the work.

    Execution is at least once: a worker that is killed, or stopped past its lease, leaves its items to the next one. A
    handler whose effects must not come twice writes them in one transaction with `store.work.finish([claim], [...])`,
    and returns the same result; finishing again then changes nothing.

    Args:
        store: The open store.
        handler: Works on a claim and returns the result, any JSON, or `NeedsApproval(result)`. What it raises fails
            the attempt: `PermanentFailure` for good, `RetryLater` with a delay of its own, anything else to be tried
            again with backoff. It runs under the tenant of the claim, with `agent_id` as the actor.
        agent_id: Who works; by default the host's name and the process id.
        threads: How many items are worked on at once (1 to 1000).
        prefetch: How many more are claimed, to wait for a thread: for handlers that take milliseconds.
        types: Only items of these types.
        tenants: Only items of these tenants.
        fair: Share what is claimed among the tenants, so that one that submits a flood does not starve the others.
        lease: Seconds until others take over the items of a worker that is gone; at least 1.
        timeout: Seconds that a handler may take; then its attempt fails with a TimeoutError, to be tried again or
            buried, and what it gives later is dropped. Its thread cannot be stopped, and takes on nothing until it
            returns. By default there is no limit.
        reap_every: Seconds between two looks for items that dead workers hold; None leaves that to others.
        look_every: Seconds between two looks for work that no NOTIFY announced: by default 5, or 0.25 if it cannot
            listen (behind PgBouncer).
        grace: Seconds that `run` waits for running handlers when it is told to stop; what has not ended then is given
            back.

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
        self._threads = as_count(threads, "threads", most=1000)
        self._most = self._threads + as_count(prefetch, "prefetch", least=0, most=1000)
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
        self._stops = 0  # no Event: a signal handler must not wait for a lock
        self._listener: Listener | None = None
        self._pause = 0.0
        self._running = threading.Lock()

    def run(self, *, drain: bool = False, signals: bool = True) -> WorkerReport:
        """Work until `stop()`, SIGTERM or SIGINT.

        Then nothing more is claimed, what no thread has begun with is given back, running handlers have `grace`
        seconds to end, and what they gave is handed in. A second signal does not wait for them.

        Args:
            drain: Return as soon as nothing can be claimed and all that was claimed is handed in, or when every thread
                is stuck in a handler that has exceeded `timeout` by `grace`.
            signals: Stop on SIGTERM and SIGINT; only where this is the main thread.

        Returns:
            What became of the claims.

        Raises:
            InvalidInput: It runs already, or inside a transaction.
            SettingsError: `connection_limit` is less than 2: the leases take one connection.
            StoreError: The database cannot be worked with, such as one that is not migrated. While it is only away
                (`ConnectionFailed`), out of resources, or cancels statements, the worker waits for it.
        """
        if self._store.db.transaction_open():
            raise InvalidInput("run: commit first; the threads cannot see what this transaction has not committed")
        if self._store.settings.connection_limit < _FEWEST_CONNECTIONS:
            raise SettingsError(f"connection_limit: a worker needs {_FEWEST_CONNECTIONS} connections at least")
        if not self._running.acquire(blocking=False):
            raise InvalidInput("run: it is running already; make another Worker")
        try:
            return self._run(drain=as_flag(drain, "drain"), signals=as_flag(signals, "signals"))
        finally:
            self._running.release()

    def stop(self) -> None:
        """Tell `run()`, or the next one, to end in good order; a second call tells it not to wait for handlers."""
        self._stops += 1
        if (listener := self._listener) is not None:  # read once: `run()` may be ending
            listener.wake()

    def _run(self, *, drain: bool, signals: bool) -> WorkerReport:
        settled = WorkerReport()
        told = ", ".join(f"{of}: {'all' if these is None else ', '.join(these)}" for of, these in self._wanted.items())
        _logger.info("%s begins: %d threads, %s", self.agent_id, self._threads, told)
        with Listener(self._store.db) as listener, self._heard_signals(listener, wanted=signals):
            self._listener = listener
            crew = Crew(self._store, self._handler, self.agent_id, self._threads, listener.wake)
            heart = Heart(self._store, self._claims, crew.skip, lease=self._lease, reap_every=self._reap_every)
            try:
                while not self._stops and not self._step(crew, listener, settled, drain=drain):
                    pass
            finally:
                try:
                    self._wind_up(crew, listener, settled)
                finally:
                    deadline = time.monotonic() + self._grace
                    heart.stop(lambda: self._stops < _HURRIED and time.monotonic() < deadline)
                    self._listener = None
                    self._stops = 0
                    _logger.info("%s has ended: %s", self.agent_id, settled)
        return settled

    def _step(self, crew: Crew, listener: Listener, settled: WorkerReport, *, drain: bool) -> bool:
        """Hand in, claim, and wait for something to do; True where there is nothing left to drain."""
        try:
            with self._store.db.unit():
                self._hand_in(crew, settled)
                room, claims = self._claim(crew, settled)
            for claim in claims:
                self._held[claim.attempt_id] = claim
                crew.put(claim)
            if claims:
                self._pause = 0.0
            elif self._left:
                self._rest(listener, _LONGEST_PAUSE)
            elif drain and not self._held and (room > 0 or self._stuck(crew, self._grace)):
                return True
            elif room <= 0:
                listener.wait(self._until_overdue(crew))  # or until a handler has ended
            elif self._store.work.wait_for_work(
                self._until_overdue(crew), listener=listener, look_every=self._look_every, **self._wanted
            ):
                self._rest(listener, _LONGEST_LOOK)
            else:
                self._pause = 0.0
        except StoreError as error:
            tolerate(error, "waiting for the database")
            self._rest(listener, _LONGEST_PAUSE)
        return False

    def _claim(self, crew: Crew, settled: WorkerReport) -> tuple[int, list[Claim]]:
        """Claim what there is room for; what waits for threads that are all stuck is given back."""
        room = self._room(crew)
        if room > 0:
            work, most = self._store.work, min(room, 1000)
            return room, work.claim(self.agent_id, most, lease=self._lease, fair=self._fair, **self._wanted)
        if self._stuck(crew):
            self._release(crew.unbegun(), settled)
        return room, []

    def _room(self, crew: Crew) -> int:
        """Count what may be claimed: a thread that is still at an attempt which timed out has no room for another."""
        stuck = crew.running().keys() - self._held.keys()
        return 0 if self._stuck(crew) else self._most - len(self._held) - len(stuck)

    def _hand_in(self, crew: Crew, settled: WorkerReport) -> None:
        # What ends after its time was up is dropped, also where that could not be handed in as yet.
        open_attempts = self._held.keys() - {one.claim.attempt_id for one in self._left}
        handled = [*self._left, *(one for one in crew.handled() if one.claim.attempt_id in open_attempts)]
        done = {one.claim.attempt_id for one in handled}
        handled += [one for one in self._overdue(crew) if one.claim.attempt_id not in done]
        self._left = hand_in(self._store.work, handled, settled)
        for attempt_id in {one.claim.attempt_id for one in handled} - {one.claim.attempt_id for one in self._left}:
            del self._held[attempt_id]

    def _overdue(self, crew: Crew) -> list[Handled]:
        """End the attempts whose handlers take too long."""
        if self._timeout is None:
            return []
        since, error = time.monotonic() - self._timeout, TimeoutError(f"the handler took over {self._timeout:g} s")
        late = [attempt_id for attempt_id, begun in crew.running().items() if begun <= since]
        return [Handled(self._held[attempt_id], error=error) for attempt_id in late if attempt_id in self._held]

    def _stuck(self, crew: Crew, seconds: float = 0.0) -> bool:
        """Tell whether every thread is at an attempt that timed out, so many seconds ago."""
        begun = [begun for attempt_id, begun in crew.running().items() if attempt_id not in self._held]
        return len(begun) >= self._threads and max(begun) + (self._timeout or 0.0) + seconds <= time.monotonic()

    def _until_overdue(self, crew: Crew) -> float:
        """Return the seconds until the next handler takes too long, a minute or `look_every` at most."""
        begun = [begun for attempt_id, begun in crew.running().items() if attempt_id in self._held]
        if self._timeout is None or not begun:
            return min(self._longest_wait, self._timeout or self._longest_wait)
        return min(self._longest_wait, max(0.0, min(begun) + self._timeout - time.monotonic()))

    def _rest(self, listener: Listener, most: float) -> None:
        """Wait for a moment, each time for longer, until something was claimed again."""
        listener.wait(min(self._pause, most) * random.uniform(0.5, 1.0))  # noqa: S311  only to part the workers
        self._pause = min(max(self._pause * 2, _SHORTEST_PAUSE), most)

    def _wind_up(self, crew: Crew, listener: Listener, settled: WorkerReport) -> None:
        """Give back what was not begun, wait for what was, and give back what does not end."""
        deadline = time.monotonic() + self._grace
        not_begun = crew.take_back()
        try:
            while self._wait_for_more(crew, not_begun, settled) and self._stops < _HURRIED:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                listener.wait(min(left, 1.0))
            unsaved = {one.claim.attempt_id for one in self._left}
            self._release([claim for claim in self._held.values() if claim.attempt_id not in unsaved], settled)
        except StoreError as error:
            _logger.warning("%d items are left to the end of their leases: %s", len(self._held), error)
        self._held.clear()
        self._left.clear()

    def _wait_for_more(self, crew: Crew, not_begun: list[Claim], settled: WorkerReport) -> bool:
        """Give back what was not begun, hand in what has ended, and tell whether anything is held still."""
        try:
            self._release(not_begun, settled)
            not_begun.clear()
            self._hand_in(crew, settled)
        except StoreError as error:
            tolerate(error, "stopping; waiting for the database")
        return bool(self._held)

    def _release(self, claims: list[Claim], settled: WorkerReport) -> None:
        if claims:
            released = self._store.work.release(claims)
            settled.released += len(released)
            settled.lost += len(claims) - len(released)
        for claim in claims:
            del self._held[claim.attempt_id]

    def _claims(self) -> list[Claim]:
        """List the claims whose leases to extend."""
        # A thread can still be at an item that was lost and came back to another one: the newest claim holds it.
        return [*{claim.item_id: claim for claim in self._held.copy().values()}.values()]

    @contextmanager
    def _heard_signals(self, listener: Listener, *, wanted: bool) -> Iterator[None]:
        if not wanted or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            self.stop()

        try:
            for number in _STOPS:
                before = signal.signal(number, stop)
                _undo.append(partial(signal.signal, number, signal.SIG_DFL if before is None else before))
                expect_return(number, stop)
            # Python calls `stop` only when `wait()` has ended, which a signal that came just before it does not end.
            others = signal.set_wakeup_fd(listener.mouth, warn_on_full_buffer=False)
            _undo.append(partial(signal.set_wakeup_fd, others, warn_on_full_buffer=False))
            yield
        finally:
            _hear_as_before()


_undo: list[Callable[[], object]] = []
"""What gives the signals that a worker hears now back to whoever heard them before."""


def _hear_as_before() -> None:
    while _undo:
        _undo.pop()()


# What a handler forks, such as a multiprocessing.Pool, is ended by SIGTERM.
os.register_at_fork(after_in_child=_hear_as_before)

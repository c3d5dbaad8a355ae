"""The threads that extend a worker's leases, take back expired ones, and index, prune and seal beside the work."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from myloware_store.core.errors import StoreError
from myloware_store.db import deadlines

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from myloware_store.core.results import Claim
    from myloware_store.store import Store

__all__ = ["Leases"]

_BEATS_A_LEASE = 3
_REAPS_A_SEAL = 6
_RESTS = 3  # how many times as long as a batch took upkeep rests while the worker holds items
_logger = logging.getLogger("myloware_store.worker")


class Leases:
    """Extends leases after a third of their duration, on a connection of its own; does upkeep from time to time.

    Args:
        store: The open store.
        held: Returns the claims whose leases to extend.
        lost: Called with the attempts that no longer hold their items.
        lease: The duration of a lease in seconds.
        reap_every: Seconds between two calls of `reap`, and after everything is indexed and pruned; the audit trail is
            sealed after six times as long. None for no upkeep.
        call_timeout: How many seconds each call waits for the server.
    """

    def __init__(
        self,
        store: Store,
        held: Callable[[], list[Claim]],
        lost: Callable[[set[UUID]], None],
        *,
        lease: float,
        reap_every: float | None,
        call_timeout: float,
    ) -> None:
        self._store = store
        self._held = held
        self._lost = lost
        self._lease = lease
        self._stopped = threading.Event()
        bounded = deadlines.call_timeout(call_timeout)
        self._threads = [threading.Thread(target=bounded(self._keep), daemon=True)]
        if reap_every is not None:
            batches = (
                (store.work.index, "ended items are not indexed"),
                (store.memory.prune, "expired documents are not pruned"),
            )
            seal_every = reap_every * _REAPS_A_SEAL
            self._threads.append(threading.Thread(target=bounded(self._reap), args=(reap_every,), daemon=True))
            self._threads.append(threading.Thread(target=bounded(self._seal), args=(seal_every,), daemon=True))
            self._threads += [
                threading.Thread(target=bounded(self._in_batches), args=(reap_every, *one), daemon=True)
                for one in batches
            ]
        for thread in self._threads:
            thread.start()

    def stop(self, waits: Callable[[], bool]) -> None:
        """Stop after the running statements, or as soon as `waits()` is False: the threads are daemons."""
        self._stopped.set()
        for thread in self._threads:
            while thread.is_alive() and waits():
                thread.join(0.1)

    def _keep(self) -> None:
        """Extend the leases regularly on one connection, on a new one after an error."""
        every = self._lease / _BEATS_A_LEASE
        while not self._stopped.is_set():
            try:
                with self._store.db.unit():
                    while not self._stopped.wait(_about(every)):
                        self._beat()
            except StoreError as error:
                _logger.warning("leases are not extended: %s", error)
                self._stopped.wait(min(every, 1.0))

    def _reap(self, every: float) -> None:
        """Reap regularly, each time on a connection from the pool."""
        while not self._stopped.wait(_about(every)):
            try:
                for outcome in self._store.work.reap().values():
                    _logger.warning("item %s: its lease had expired: %s", outcome.item_id, outcome.status)
            except StoreError as error:
                _logger.warning("expired leases are not reaped: %s", error)

    def _seal(self, every: float) -> None:
        """Seal the audit trail regularly, unless another worker did."""
        while not self._stopped.wait(_about(every)):
            try:
                self._store.audit.seal(every=every / 2)
            except StoreError as error:
                _logger.warning("the audit trail is not sealed: %s", error)

    def _in_batches(self, every: float, batch: Callable[[], int], problem: str) -> None:
        """Call `batch` until nothing is left; rest after each as long as it took, longer beside other work."""
        pause = _about(every)
        while not self._stopped.wait(pause):
            begin, done = time.monotonic(), 0
            try:
                done = batch()
            except StoreError as error:
                _logger.warning("%s: %s", problem, error)
            took = time.monotonic() - begin
            pause = took * (_RESTS if self._held() else 1) if done else _about(every)

    def _beat(self) -> None:
        claims = self._held()
        if claims:
            kept = self._store.work.heartbeat(claims, self._lease)
            self._lost({claim.attempt_id for claim in claims if claim.item_id not in kept})


def _about(seconds: float) -> float:
    """Return a slightly shorter time at random, to spread workers that started together."""
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311  not a secret

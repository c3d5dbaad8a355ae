"""The thread that keeps a worker's leases alive, and takes back those that other workers left."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from myloware_store.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from myloware_store.core.results import Claim
    from myloware_store.store import Store

__all__ = ["Heart"]

_BEATS_A_LEASE = 3
_logger = logging.getLogger("myloware_store.worker")


class Heart:
    """Extends leases three times a lease, on a connection that it holds; now and then it reaps.

    Args:
        store: The open store.
        held: Gives the claims whose leases to extend.
        lost: Called with the attempts that no longer hold their items.
        lease: Seconds.
        reap_every: Seconds between two looks for leases that ran out; None never looks.
    """

    def __init__(
        self,
        store: Store,
        held: Callable[[], list[Claim]],
        lost: Callable[[set[UUID]], None],
        *,
        lease: float,
        reap_every: float | None,
    ) -> None:
        self._store = store
        self._held = held
        self._lost = lost
        self._lease = lease
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._keep, daemon=True)]
        if reap_every is not None:
            self._threads.append(threading.Thread(target=self._reap, args=(reap_every,), daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, waits: Callable[[], bool]) -> None:
        """Stop once the statements under way have ended, or `waits()` is False: their threads are daemons."""
        self._stopped.set()
        for thread in self._threads:
            while thread.is_alive() and waits():
                thread.join(0.1)

    def _keep(self) -> None:
        """Beat again and again on one connection, on a new one after an error."""
        every = self._lease / _BEATS_A_LEASE
        while not self._stopped.is_set():
            try:
                with self._store.db.unit():
                    while not self._stopped.wait(_about(every)):
                        self._beat()
            except StoreError as error:
                _logger.warning("leases are not looked after: %s", error)
                self._stopped.wait(min(every, 1.0))

    def _reap(self, every: float) -> None:
        """Reap again and again, each time on a connection from the pool."""
        while not self._stopped.wait(_about(every)):
            try:
                for outcome in self._store.work.reap().values():
                    _logger.warning("item %s: its lease had run out: %s", outcome.item_id, outcome.status)
            except StoreError as error:
                _logger.warning("leases that ran out are not looked for: %s", error)

    def _beat(self) -> None:
        claims = self._held()
        if claims:
            kept = self._store.work.heartbeat(claims, self._lease)
            self._lost({claim.attempt_id for claim in claims if claim.item_id not in kept})


def _about(seconds: float) -> float:
    """Give a somewhat shorter time, so that workers that began together part."""
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311  nothing is kept secret by it

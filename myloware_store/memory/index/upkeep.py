"""A thread that keeps the vector index good by itself, beside a worker or an open store."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.sql import queries_beside
from myloware_store.db.database import StoreDatabase
from myloware_store.memory.index import MemoryIndex
from myloware_store.memory.index.session import IndexBusy, find_writers, may_build
from myloware_store.memory.index.state import IndexStates

if TYPE_CHECKING:
    from myloware_store.settings import Settings

__all__ = ["Upkeep"]

_sql = queries_beside(__file__)

LOOK_EVERY = 20.0
"""Seconds between two looks at the index, at most: after a load of 20,000 documents it is good within a minute."""

LOAD = 1.0
"""Seconds of a transaction that writes documents after which it counts as a load, whose end is waited for."""

_LONGEST_PAUSE = 3600.0  # after errors, each pause doubles
_logger = logging.getLogger("myloware_store.upkeep")


class _Stopped(Exception):
    """Ends a build whose store closes."""


class Upkeep:
    """Calls `tend` from time to time, once a memory has outgrown exact searches.

    It runs in a daemon thread, on connections of its own, which are open only while it looks or builds. It does nothing
    during a load, whose documents it could not measure yet, if somebody else is building, if the role may not, behind a
    pooler, and on a standby. Errors are logged.

    Args:
        settings: The settings of the database.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = attrs.evolve(settings, connection_limit=1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="myloware-upkeep", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 0.0) -> None:
        """Cancel what is being built, and wait so many seconds at most for its end."""
        self._stopped.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        database, pause = StoreDatabase(self._settings), LOOK_EVERY
        while not self._stopped.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311  to spread many workers
            try:
                self._look(database)
                pause = LOOK_EVERY
            except _Stopped:
                return
            except IndexBusy:
                pass
            except Exception as error:  # noqa: BLE001  nobody waits for this thread
                if not self._stopped.is_set():
                    _logger.warning("the vector index is not looked after: %s: %s", type(error).__name__, error)
                pause = min(2 * pause, _LONGEST_PAUSE)
            finally:
                database.close_all()

    def _look(self, database: StoreDatabase) -> None:
        index = MemoryIndex(database, IndexStates(database))
        (pages,) = database.execute_sql(_sql("pages")).fetchone()
        if pages < index.least_rows or database.shares_sessions() or not may_build(database):
            return
        if (writers := find_writers(database)) and not self._stopped.wait(LOAD) and writers & find_writers(database):
            return
        for action in index.tend(progress=self._go_on).actions:
            _logger.info("the vector index: %s", action)

    def _go_on(self, *_progress: object) -> None:
        if self._stopped.is_set():
            raise _Stopped

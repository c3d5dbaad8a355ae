"""A session that listens for queued work."""

from __future__ import annotations

import socket
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psycopg2

from myloware_store.core.errors import StoreError
from myloware_store.db.deadlines import watched
from myloware_store.db.pool import readable

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg2.extensions import connection

    from myloware_store.db.database import StoreDatabase

__all__ = ["LISTENERS", "Listener"]

LISTENERS = 1836674167
"""The first key of the advisory lock that listeners hold; the server sends NOTIFY only if it is held."""

_ARM = """
SELECT t.oid::text, pg_try_advisory_lock_shared(%s, t.oid::int) FROM (SELECT 'work_items'::regclass::oid) AS t (oid)
"""
_WAKE_BYTES = 4096


class Listener:
    """Waits until work is queued, with LISTEN on a connection outside of the pool.

    To miss nothing, call `arm()`, check whether there is work, and only then call `wait()`. If it cannot listen (behind
    a pooler in transaction mode, or while the server cannot be reached), `arm()` returns False and the caller must
    poll. Only one thread may use it at a time, except for `wake()`, which signal handlers may call, too.

    Args:
        database: The open database.
    """

    def __init__(self, database: StoreDatabase) -> None:
        self._database = database
        self._connection: connection | None = None
        self._table: str | None = None  # known once it listens
        # Not a pipe: eventlet makes os.read() and os.write() block even if they must not.
        self._ears, self._mouth = socket.socketpair()
        self._ears.setblocking(False)
        self._mouth.setblocking(False)
        # Closed only when nobody can call `wake()` any more, because the file number may be reused.
        weakref.finalize(self, _close, self._ears, self._mouth).atexit = False

    def arm(self) -> bool:
        """Let the next `wait()` notice work queued from now on; return False if it cannot listen."""
        if self._table is not None:
            return True
        try:
            if self._database.shares_sessions():
                return False
            if self._connection is None:
                self._connection = self._database.open_session()
            timeout = self._database.settings.call_timeout
            with watched(self._connection, timeout), self._connection.cursor() as cursor:
                cursor.execute("LISTEN myloware_work")
                cursor.execute(_ARM, (LISTENERS,))
                ((table, free),) = cursor.fetchall()
        except (psycopg2.Error, StoreError):
            self._hang_up()
            return False
        self._table = table if free else None
        return self._table is not None

    def wait(self, seconds: float) -> bool:
        """Wait until work is queued, or for some seconds at most; it may return early.

        Returns:
            False if `wake()` ended the wait.
        """
        if not self._heard():
            session = () if self._connection is None else (self._connection.fileno(),)
            readable(self._ears.fileno(), *session, seconds=max(seconds, 0.0))
            self._heard()
        with suppress(BlockingIOError):
            return not self._ears.recv(_WAKE_BYTES)
        return True

    def wake(self) -> None:
        """End the current `wait()`, or the next one, at once."""
        with suppress(BlockingIOError):  # it is full: enough is written already
            self._mouth.send(b"!")

    def close(self) -> None:
        """Close the connection."""
        self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _heard(self) -> bool:
        """Read the server's notifications, and return whether one is for this schema's table; close a lost session."""
        if self._connection is None:
            return False
        try:
            self._connection.poll()
        except psycopg2.Error:
            self._hang_up()
            return True
        said = {notice.payload for notice in self._connection.notifies}
        self._connection.notifies.clear()
        return self._table in said

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
        self._connection = self._table = None


def _close(*ends: socket.socket) -> None:
    for end in ends:
        end.close()

"""What waits for a lock in the databases of a run, and for whom, looked at while it lasts."""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg2

if TYPE_CHECKING:
    from .maintenance import Server

__all__ = ["Waits"]

_EVERY = 1.0  # seconds
_WIDTH = 160  # characters of a statement
_WAITING = """
    SELECT waiting.pid, left(regexp_replace(waiting.query, '\\s+', ' ', 'g'), %(width)s),
        blocking.pid, blocking.state, left(regexp_replace(blocking.query, '\\s+', ' ', 'g'), %(width)s)
    FROM pg_stat_activity AS waiting
    CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocked (by)
    JOIN pg_stat_activity AS blocking ON blocking.pid = blocked.by
    WHERE waiting.wait_event_type = 'Lock' AND starts_with(waiting.datname, %(prefix)s)
    """


class Waits(threading.Thread):
    """Looks once a second who waits for whom: when a test has failed for it, nobody waits any more.

    Args:
        server: The server.
        prefix: How the names of the databases begin.

    Attributes:
        seen: Lines about those that waited, since it was cleared.
    """

    def __init__(self, server: Server, prefix: str) -> None:
        super().__init__(name="myloware-waits", daemon=True)
        self.seen: dict[tuple[int, int], str] = {}
        self._server = server
        self._params = {"prefix": prefix, "width": _WIDTH}
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Look again and again."""
        with suppress(psycopg2.Error), closing(psycopg2.connect(**self._server.connect_kwargs("postgres"))) as session:
            session.autocommit = True
            with session.cursor() as cursor:
                while not self._over.wait(_EVERY):
                    cursor.execute(_WAITING, self._params)
                    for pid, query, by, state, last in cursor.fetchall():
                        line = f"session {pid}: {query}\n  waited for session {by}, {state}: {last}"
                        self.seen[pid, by] = line

    def end(self) -> None:
        """Stop looking, and close the connection."""
        self._over.set()
        self.join()

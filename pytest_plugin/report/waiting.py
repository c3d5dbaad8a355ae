"""Watch for sessions that wait for a lock in the databases of a run."""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg2

if TYPE_CHECKING:
    from ..server.maintenance import Server

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
    """Polls the lock waits once a second: when a test has failed because of one, it is over.

    Args:
        server: The server.
        prefix: The prefix of the databases' names.

    Attributes:
        seen: A description of each wait since it was cleared.
    """

    def __init__(self, server: Server, prefix: str) -> None:
        super().__init__(name="myloware-waits", daemon=True)
        self.seen: dict[tuple[int, int], str] = {}
        self._server = server
        self._params = {"prefix": prefix, "width": _WIDTH}
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Poll until `end`."""
        with suppress(psycopg2.Error), closing(psycopg2.connect(**self._server.connect_kwargs("postgres"))) as session:
            session.autocommit = True
            with session.cursor() as cursor:
                while not self._over.wait(_EVERY):
                    cursor.execute(_WAITING, self._params)
                    for pid, query, by, state, last in cursor.fetchall():
                        line = f"session {pid}: {query}\n  waited for session {by}, {state}: {last}"
                        self.seen[pid, by] = line

    def end(self) -> None:
        """Stop polling, and close the connection."""
        self._over.set()
        self.join()

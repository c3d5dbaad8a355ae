"""The two connections that outlive a test: one that no test ever uses, and one of the pool, as good as new."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg2

from myloware_store.core.errors import StoreError
from myloware_store.db.pool import as_new

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

    from myloware_store.db.pool import ConnectionPool

    from .maintenance import Server

__all__ = ["one_connection_kept", "open_control"]

_CONTROL = """
    SET session_replication_role = replica; SET lock_timeout = '5s'; SET statement_timeout = '60s';
    SET client_min_messages = error; SET myloware_test.set = %s
    """


def open_control(server: Server, name: str, setting: str) -> connection:
    """Connect to a test database as whoever puts it back: without triggers, and not waiting for ever.

    Args:
        server: The server.
        name: The database.
        setting: The one setting that the database has, as the server keeps it; empty if there is none.
    """
    control: connection = psycopg2.connect(**server.connect_kwargs(name))
    control.autocommit = True
    with control.cursor() as cursor:
        cursor.execute(_CONTROL, (setting,))
    return control


@contextmanager
def one_connection_kept(pool: ConnectionPool) -> Iterator[list[int]]:
    """Give the process id of the one connection of the pool that the next test will use too; the others are closed."""
    lease = None
    if pool.in_use < pool.limit:
        with suppress(StoreError):
            lease = pool.acquire()
    if lease is None:
        yield []
        return
    clean = False
    try:
        pool.close_idle()
        clean = as_new(lease.connection)
        yield [lease.connection.info.backend_pid] if clean else []
    finally:
        lease.give_back(reuse=clean)

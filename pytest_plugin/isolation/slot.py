"""One database that a worker's tests use one after the other, put back in between."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2

from myloware_store.core.errors import StoreError
from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings

from ..errors import SharedDatabaseAltered
from ..options import STORE_ENVIRON
from ..template.marking import mark_database, unmark_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

    from ..server.maintenance import Maintenance

__all__ = ["Slot"]

_END_SECONDS = 10.0  # to wait for a backend to end
_POLL_SECONDS = 0.001
_VACUUM_EVERY = 100  # restores: dead rows slow down the later ones
_CONTROL = """
    SET session_replication_role = replica; SET lock_timeout = '5s'; SET statement_timeout = '60s';
    SET client_min_messages = error; SET myloware_test.set = %s
    """
# DISCARD ALL, without DISCARD PLANS: planning the triggers again would cost more than all the rest.
_RESET_SESSION = """
    CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *;
    SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES
    """
_ALTERED = (
    "restoring rows does not undo a change to a shared database (DDL, a large object, a lock that was kept): give that"
    " test a database of its own, without myloware_class, myloware_module and myloware_reset"
)
_NO_SUPERUSER = (
    "myloware_class, myloware_module and myloware_reset restore rows, which needs a superuser on the test server"
)


@attrs.define
class _Level:
    """The state to return to when a level is left: its baseline (None if rows no longer suffice) and its sessions."""

    baseline: str | None
    residents: list[int]


class Slot:
    """A copy of a template, restored after each test, or replaced by a new copy if restoring rows does not suffice.

    Args:
        maintenance: The server.
        name: The database.
        template: The template.
        restorable: Whether the template is marked, so that the copy can restore itself.
        lock_timeout: Seconds that its sessions wait for a lock; 0: the server's default.

    Attributes:
        database: The Peewee database; its connection outlives a test.
        template: The template.
        restorable: Whether the database can restore itself.
        remade: How often a test made a new copy necessary.
        doubtful: Whether tests that were rolled back may have left something, such as advanced sequences.
    """

    def __init__(
        self, maintenance: Maintenance, name: str, template: str, *, restorable: bool, lock_timeout: float = 0
    ) -> None:
        self.name = name
        self.restorable = self._marked = restorable
        self.url = maintenance.server.url(name)
        self.database = self._new_database()
        self.template = template
        self.remade = 0
        self.doubtful = False
        self._maintenance = maintenance
        self._setting = f"lock_timeout={round(lock_timeout * 1000)}" if lock_timeout else ""
        self._stale = True
        self._control: connection | None = None
        self._baseline = ""
        self._restores = 0
        self._residents: list[int] = []  # sessions of the class or module, which outlive a test
        self._kept: list[int] = []  # the pool's one connection, idle between tests
        self._levels: list[_Level] = []
        self._in_transaction = False  # of the class or module, when the test began

    @property
    def shared(self) -> bool:
        """Whether a class or module uses it, so that tests are put back to the state that this made."""
        return bool(self._levels)

    def begin(self, *, exact: bool = True) -> None:
        """Make it ready for a test.

        Args:
            exact: Undo also the traces of tests that were rolled back.

        Raises:
            SharedDatabaseAltered: The data of a class or module is lost.
        """
        self._make_ready(exact=exact)
        if self.shared:
            self.accept()
            self._in_transaction = self.database.transaction_open()

    def end(self) -> None:
        """Put it back to its state before the test; if that fails, the next test gets a new copy.

        Raises:
            SharedDatabaseAltered: It cannot be put back, and a class or module has data in it.
        """
        if self._stale:
            return
        self._stale = True  # until it is put back, even if that is interrupted
        if not self.shared:
            self._take_back_connections()
        elif not self._in_transaction:
            self._end_transaction()
        if self._marked and self._restored():
            self._stale = False
            return
        self.remade += self._marked
        if self.shared:
            raise SharedDatabaseAltered(_ALTERED)

    def mark(self) -> None:
        """Mark the database itself, if its template is not marked."""
        if not self.restorable and self._maintenance.superuser:
            with self._connection() as connection, connection.cursor() as cursor:
                mark_database(cursor)
            ((self._baseline,),) = self._query("SELECT pg_current_xact_id()::xid")
            self.restorable = True

    def enter(self) -> None:
        """Begin a level: until `leave`, `end` returns to the last accepted state.

        Raises:
            SharedDatabaseAltered: The role is no superuser, so that nothing can be put back.
        """
        if not self.restorable:
            raise SharedDatabaseAltered(_NO_SUPERUSER)
        self._make_ready(exact=True)
        self._levels.append(_Level(self._baseline, self._residents))

    def accept(self) -> None:
        """Make the present state the one to return to, and leave the present sessions alone."""
        query = "SELECT myloware_test.altered(), ARRAY(SELECT pid FROM myloware_test.sessions() AS s (pid))"
        ((altered, sessions),) = self._query(query)
        kept = [] if self.database.pool.in_use else self._kept
        self._residents = [pid for pid in sessions if pid not in kept]
        if altered:
            if len(self._levels) > 1:
                raise SharedDatabaseAltered(_ALTERED)
            with self._connection() as connection, connection.cursor() as cursor:
                unmark_database(cursor)
                mark_database(cursor)
            self._levels[-1].baseline = None
        ((self._baseline,),) = self._query("SELECT myloware_test.accept(%s)", len(self._levels))

    def leave(self) -> None:
        """Return to the state at `enter`."""
        level = self._levels.pop()
        self._residents = level.residents
        if level.baseline is None or not self._marked:
            self._stale = True
        if not self._stale:
            self._stale = True
            self._query("SELECT myloware_test.leave(%s)", len(self._levels) + 1)
            self._baseline = level.baseline or self._baseline
            self._stale = False
            self.end()

    def give_away(self, name: str) -> None:
        """Rename the database, to be kept; the next test gets a new one.

        A class or module keeps its own, and gives away a copy.
        """
        self._close()
        if self.shared:
            self._maintenance.create(name, template=self.name)
        else:
            self._maintenance.rename(self.name, name)
            self._stale = True

    def copies(self) -> dict[str, str]:
        """Map each table to the copy of the rows that it returns to."""
        query = """
            SELECT format('%I.%I', n.nspname, c.relname), format('myloware_test.copy_%s', t.number)
            FROM myloware_test.tables AS t
            JOIN pg_class AS c ON c.oid = t.source JOIN pg_namespace AS n ON n.oid = c.relnamespace
            """
        return dict(self._query(query))

    def reset(self) -> None:
        """Return to the accepted state in the middle of a test.

        Raises:
            SharedDatabaseAltered: There was a change that restoring rows does not undo.
        """
        self._stale = True
        if not self._restored():
            raise SharedDatabaseAltered(_ALTERED)
        self._stale = False

    def drop(self) -> None:
        """Drop the database."""
        self._close()
        self._maintenance.drop(self.name)

    def _new_database(self) -> StoreDatabase:
        return StoreDatabase(Settings.load(self.url, environ=STORE_ENVIRON, dotenv=None))

    def _make_ready(self, *, exact: bool) -> None:
        if self.doubtful and (exact or self.shared):
            self.doubtful = False
            self.end()
        if self._stale:
            if self.shared:
                raise SharedDatabaseAltered(_ALTERED)
            self._make()

    def _make(self) -> None:
        self._close()
        self._maintenance.drop(self.name)
        self._maintenance.create(self.name, template=self.template)
        if self._setting:
            self._maintenance.configure(self.name, self._setting)
        self.restorable = self._marked
        self.doubtful = False
        if self.restorable:
            ((self._baseline,),) = self._query("SELECT pg_current_xact_id()::xid")
        self._stale = False

    def _restored(self) -> bool:
        """Undo the writes; False if that does not suffice, or fails."""
        try:
            return self._restore()
        except (psycopg2.Error, TimeoutError):
            return False

    def _restore(self) -> bool:
        deadline = time.monotonic() + _END_SECONDS
        with self._one_connection_kept() as kept:
            query = "SELECT * FROM myloware_test.restore(%s::xid, %s)"
            while True:
                ((ended, altered, self._baseline),) = self._query(query, self._baseline, [*self._residents, *kept])
                if not ended:
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError
                time.sleep(_POLL_SECONDS)
            self._kept = kept
        self._restores += 1
        if self._restores % _VACUUM_EVERY == 0 and not altered:
            self._query("VACUUM")
        return not altered

    @contextmanager
    def _one_connection_kept(self) -> Iterator[list[int]]:
        """Close the pool's idle connections but one, reset that one, and return its process id."""
        pool, lease = self.database.pool, None
        if pool.in_use < pool.limit:
            with suppress(StoreError):
                lease = pool.acquire()
        if lease is None:
            yield []
            return
        clean = False
        try:
            pool.close_idle()
            clean = _reset_session(lease.connection)
            yield [lease.connection.info.backend_pid] if clean else []
        finally:
            lease.give_back(reuse=clean)

    def _query(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        with self._connection().cursor() as cursor:
            cursor.execute(query, params or None)
            return cursor.fetchall() if cursor.description else []

    def _connection(self) -> connection:
        """Return the connection that puts the database back; tests never use it."""
        if self._control is None or self._control.closed:
            self._control = psycopg2.connect(**self._maintenance.server.connect_kwargs(self.name))
            self._control.autocommit = True
            with self._control.cursor() as cursor:
                cursor.execute(_CONTROL, (self._setting,))
        return self._control

    def _take_back_connections(self) -> None:
        """Give up the connections that a test still holds in a block or a thread."""
        self.database.close()
        if self.database.pool.in_use:
            self.database.close_all()
            self.database = self._new_database()

    def _end_transaction(self) -> None:
        """Roll back a transaction that a test left open, and give up its connection."""
        while self.database.transaction_depth():
            self.database.pop_transaction()
        self.database.rollback()
        self.database.close()

    def _close(self) -> None:
        """Close all connections of this process."""
        if not self.shared:
            self._take_back_connections()
        self.database.pool.close_all()
        if self._control is not None:
            self._control.close()
            self._control = None


def _reset_session(session: connection) -> bool:
    """Reset an idle connection to its state when it was opened; False if that fails."""
    try:
        with session.cursor() as cursor:
            cursor.execute(_RESET_SESSION)
    except psycopg2.Error:
        return False
    # psycopg2 set ISO dates when it connected, which may not be the server's default.
    return str(session.get_parameter_status("DateStyle")).startswith("ISO")

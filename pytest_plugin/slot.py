"""A database that is used by one test after the other, and put back in between."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2

from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings

from .connections import one_connection_kept, open_control
from .marking import mark_database, unmark_database

if TYPE_CHECKING:
    from psycopg2.extensions import connection

    from .maintenance import Maintenance

__all__ = ["SharedDatabaseAltered", "Slot"]

_END_SECONDS = 10.0  # what a backend may take to end when it is told to
_POLL_SECONDS = 0.001
_VACUUM_EVERY = 100  # restores, until what they left dead in the tables is cleared away: it slows later ones down
_ALTERED = (
    "the database that tests of a class or module share was changed in a way that putting back rows does not undo"
    " (DDL, a large object, a lock that was kept): give that test a database of its own, without myloware_class and"
    " myloware_module"
)
_NO_SUPERUSER = (
    "myloware_class and myloware_module put back what each test writes, for which the role on the server must be a"
    " superuser"
)


class SharedDatabaseAltered(Exception):
    """A database with the data of a class or module cannot be put back to it."""


@attrs.define
class _Level:
    """What to come back to when a level is left: rows by their baseline, if they still can be, and sessions."""

    baseline: str | None
    residents: list[int]


class Slot:
    """One database, a copy of a template, and made anew when there is no cheaper way back to that.

    Args:
        maintenance: The server.
        name: The database.
        template: What it is a copy of.
        restorable: Whether the template was marked, so that the copy can put itself back.
        lock_timeout: Seconds that its sessions wait for a lock; 0: as the server says.

    Attributes:
        database: The Peewee database on it, whose connections outlive a test.
        template: What it is a copy of.
        restorable: Whether it can put itself back.
        remade: How often it was made anew because of what a test had done.
        doubtful: Whether something may be left of tests that were only rolled back, such as advanced sequences.
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
        self._residents: list[int] = []  # sessions that are not the test's to end
        self._kept: list[int] = []  # the pool's one connection, which nobody uses between tests
        self._levels: list[_Level] = []

    @property
    def shared(self) -> bool:
        """Whether a class or a module uses it, and its tests are put back to what that has made."""
        return bool(self._levels)

    def begin(self, *, exact: bool = True) -> None:
        """Make it ready for a test.

        Args:
            exact: Put back also what tests that were rolled back may have left.

        Raises:
            SharedDatabaseAltered: What a class or module had in it is lost.
        """
        self._make_ready(exact=exact)
        if self.shared:
            self.accept()

    def end(self) -> None:
        """Put it back to how it was before the test, or see to it that the next one gets it anew.

        Raises:
            SharedDatabaseAltered: It cannot be put back, and a class or module has data in it.
        """
        if self._stale:
            return
        self._stale = True  # until it is put back, whatever comes in between
        if not self.shared:
            self._take_back_connections()
        if self._marked and self._restored():
            self._stale = False
            return
        self.remade += self._marked
        if self.shared:
            raise SharedDatabaseAltered(_ALTERED)

    def mark(self) -> None:
        """Have it able to go back to levels, though its template was not marked."""
        if not self.restorable and self._maintenance.superuser:
            with self._connection() as connection, connection.cursor() as cursor:
                mark_database(cursor)
            ((self._baseline,),) = self._query("SELECT pg_current_xact_id()::xid")
            self.restorable = True

    def enter(self) -> None:
        """Begin a level: what is accepted from now on is what `end` comes back to, until `leave`.

        Raises:
            SharedDatabaseAltered: The role is no superuser, without which nothing can be put back.
        """
        if not self.restorable:
            raise SharedDatabaseAltered(_NO_SUPERUSER)
        self._make_ready(exact=True)
        self._levels.append(_Level(self._baseline, self._residents))

    def accept(self) -> None:
        """Take the present state as the one to come back to, and the sessions there are as not to be ended."""
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
        """Go back to how it was at `enter`."""
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
        """Give the database another name, for somebody to look at; the next test gets a new one.

        A class or module goes on with what it has, and gives away a copy.
        """
        self._close()
        if self.shared:
            self._maintenance.create(name, template=self.name)
        else:
            self._maintenance.rename(self.name, name)
            self._stale = True

    def written(self) -> bool:
        """Say whether something was written since the last `accept`."""
        ((written,),) = self._query("SELECT myloware_test.written()")
        return bool(written)

    def copies(self) -> dict[str, str]:
        """Name the copies of the rows that it comes back to, by table."""
        query = """
            SELECT format('%I.%I', n.nspname, c.relname), format('myloware_test.copy_%s', t.number)
            FROM myloware_test.tables AS t
            JOIN pg_class AS c ON c.oid = t.source JOIN pg_namespace AS n ON n.oid = c.relnamespace
            """
        return dict(self._query(query))

    def reset(self) -> None:
        """Go back to what was accepted, in the middle of a test.

        Raises:
            SharedDatabaseAltered: There was a change that putting back rows does not undo.
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
        return StoreDatabase(Settings.load(self.url, environ={}, dotenv=None))

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
        """Put back what was written; False where that is not enough, or fails."""
        try:
            return self._restore()
        except (psycopg2.Error, TimeoutError):
            return False

    def _restore(self) -> bool:
        deadline = time.monotonic() + _END_SECONDS
        with one_connection_kept(self.database.pool) as kept:
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

    def _query(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        with self._connection().cursor() as cursor:
            cursor.execute(query, params or None)
            return cursor.fetchall() if cursor.description else []

    def _connection(self) -> connection:
        """Give the connection that no test ever uses."""
        if self._control is None or self._control.closed:
            self._control = open_control(self._maintenance.server, self.name, self._setting)
        return self._control

    def _take_back_connections(self) -> None:
        """See to it that no connection of the pool is in use: what a test keeps in a block or a thread is let go."""
        self.database.close()
        if self.database.pool.in_use:
            self.database.close_all()
            self.database = self._new_database()

    def _close(self) -> None:
        """Close every connection from here, whatever is open on it."""
        if not self.shared:
            self._take_back_connections()
        self.database.pool.close_all()
        if self._control is not None:
            self._control.close()
            self._control = None

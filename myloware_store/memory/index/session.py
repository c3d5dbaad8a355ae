"""The connection that builds the vector index: its own, without time-outs, under a lock."""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import attrs
import psycopg2

from myloware_store.core.errors import DatabaseFault, VectorIndexError
from myloware_store.core.sql import queries_beside
from myloware_store.db.database import StoreDatabase
from myloware_store.db.statements import LIFT_DEADLINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store.settings import Settings

__all__ = ["IndexBusy", "IndexSession", "Progress", "find_builder", "find_writers", "may_build", "open_session"]

_sql = queries_beside(__file__)

Progress: TypeAlias = "Callable[[str, int, int | None], None]"
"""Called with the current step, how many of its parts are done, and of how many (None if not known)."""

_POLL = 0.2  # seconds; waiting inside pg_advisory_lock would hold a snapshot that stalls CREATE INDEX CONCURRENTLY
_LOCK_CLASS = 0x6D796C69
"""The first half of the advisory lock's key ("myli"); the second is a hash of the table's number."""

_LOCK = f"({_LOCK_CLASS}, hashtext('mem_docs'::regclass::oid::text))"


class IndexBusy(VectorIndexError):
    """Somebody else is working on the index."""


class IndexSession(StoreDatabase):
    """One connection that holds the lock of the index until it closes, for statements that may run for an hour.

    Args:
        settings: The settings of the database; the connection must be direct, not through PgBouncer.
        watcher: The caller's database, which reads the progress of a build.
        progress: Called with the progress.
        command: The command that the owner of the table would run.
    """

    def __init__(self, settings: Settings, watcher: StoreDatabase, progress: Progress, command: str) -> None:
        super().__init__(attrs.evolve(settings, connection_limit=1, call_timeout=math.inf))
        self._command = command
        self.tell = progress
        self._watcher = watcher

    def prepare(self, *, waits: bool) -> None:
        """Connect, check the rights of the role, and take the lock or wait for it."""
        self.connect()
        allowed, owner, user, standby, read_only = self.execute_sql(_sql("rights")).fetchone()
        if standby:
            raise VectorIndexError("this is a read-only standby: its indexes are built on its primary")
        if not allowed:
            raise VectorIndexError(
                f"the role {user} does not own mem_docs: have {owner} run `{self._command}`; until then"
                " searches are right, and exact where the index is not good"
            )
        if read_only:
            raise VectorIndexError(
                f"the role {user} may only read here (default_transaction_read_only is on): connect with it off"
            )
        self.execute_sql(
            "SELECT set_config('application_name', 'myloware-store index', false),"
            " set_config('lock_timeout', '0', false)"
        )
        self.execute_sql(LIFT_DEADLINES, (False,))
        # The server ends a build whose client was killed. Some platforms cannot notice that.
        with suppress(DatabaseFault):
            self.execute_sql("SELECT set_config('client_connection_check_interval', '2s', false)")
        while self.execute_sql(f"SELECT pg_try_advisory_lock{_LOCK}").fetchone() != (True,):
            builder = find_builder(self)
            if not waits:
                raise IndexBusy(f"server process {builder} is working on the index")
            self.tell(
                f"Waiting for server process {builder}, which works on the index" if builder else "Waiting", 0, None
            )
            time.sleep(_POLL)

    def wait_for_writers(self) -> None:
        """Wait for the end of the transactions that have written documents, as a build does."""
        writers = find_writers(self)
        while writers & find_writers(self):
            self.tell("Waiting for transactions that write documents", 0, None)
            time.sleep(_POLL)

    def command(self, sql: str, what: str) -> None:
        """Run a long statement outside of a transaction; cancel it if the caller is interrupted.

        Args:
            sql: The statement, without parameters.
            what: The step to report while it runs.
        """
        connection = self._state.live()
        self._state.soiled = True  # never replaced by another connection, which would not hold the lock

        errors: list[Exception] = []
        ended = threading.Event()

        def run() -> None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql)
            except Exception as error:  # noqa: BLE001  raised below
                errors.append(error)
            finally:
                ended.set()

        # A daemon does not keep the process from ending; the server then ends the statement.
        threading.Thread(target=run, name="myloware-index", daemon=True).start()
        try:
            while not ended.wait(_POLL):
                self._tell_phase(connection.info.backend_pid, what)
        except BaseException:
            with suppress(psycopg2.Error):
                connection.cancel()
            ended.wait()
            raise
        for error in errors:
            raise self._fault(error, connection, committing=False) if isinstance(error, psycopg2.Error) else error

    def _tell_phase(self, pid: int, what: str) -> None:
        found = None
        with suppress(DatabaseFault):  # the caller's pool may be exhausted: the build goes on
            found = self._watcher.execute_sql(_sql("progress"), (pid,)).fetchone()
        phase, locker, done, total = found or (None, None, 0, None)
        told = f"{what}: {phase}" if phase else what
        if locker:
            told = f"{told} (server process {locker})"
        self.tell(told, int(done or 0), int(total) if total else None)


def find_builder(database: StoreDatabase) -> int | None:
    """Return the server process that is working on the index, or None."""
    row = database.execute_sql(_sql("builder")).fetchone()
    return row[0] if row else None


def find_writers(database: StoreDatabase) -> set[str]:
    """Return the transactions that have written documents and are open."""
    return {name for (name,) in database.execute_sql(_sql("writers")).fetchall()}


def may_build(database: StoreDatabase) -> bool:
    """Return whether the role owns the table and may write here."""
    allowed, _, _, standby, read_only = database.execute_sql(_sql("rights")).fetchone()
    return bool(allowed and not standby and not read_only)


@contextmanager
def open_session(
    database: StoreDatabase, progress: Progress, command: str = "myloware-store index ensure", *, waits: bool = True
) -> Iterator[IndexSession]:
    """Hold the lock of the index on a separate connection while the block runs.

    Args:
        database: The caller's database, with the settings of the connection.
        progress: Called with the progress.
        command: The command that the owner of the table would run.
        waits: Whether to wait for the lock.

    Raises:
        IndexBusy: Somebody else has the lock, and this does not wait.
        VectorIndexError: The role does not own the table or may only read, the server is a standby, or the connection
            goes through PgBouncer.
        MissingObject: The database is not migrated.
        ConnectionFailed: The server cannot be reached.
    """
    if database.shares_sessions():
        raise VectorIndexError(
            "an index is built through a direct connection, and this one goes through a pooler in transaction"
            " mode (PgBouncer), which cannot hold its lock: name the PostgreSQL server itself, without pgbouncer=true"
        )
    session = IndexSession(database.settings, database, progress, command)
    try:
        session.prepare(waits=waits)
        yield session
    finally:
        session.close_all()

"""The connection of migrations: a single one, unpooled, locked against other migrations, with time-outs."""

from __future__ import annotations

import math
import os
import re
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import psycopg2.errors

from myloware_store.core.errors import (
    ConnectionFailed,
    DatabaseFault,
    MigrationError,
    MissingExtension,
    SettingsError,
    StoreError,
)
from myloware_store.db.database import StoreDatabase
from myloware_store.db.driver_errors import DRIVER_ERRORS
from myloware_store.db.statements import LIFT_DEADLINES, Rows
from myloware_store.ops.concurrently import is_concurrent, run_concurrently
from myloware_store.ops.history import (
    ENCODING,
    MigrationStatus,
    available_migrations,
    file_digest,
    history_name,
    history_query,
    history_table,
    make_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from psycopg2.extensions import connection, cursor

    from myloware_store.settings import Settings

__all__ = [
    "Limits",
    "MigrationDatabase",
    "explain",
    "find_obstacles",
    "find_vector_obstacle",
    "require_direct",
    "require_supported",
]

LOCK_CLASS = 0x6D796C6F
"""The first half of the advisory lock's key ("mylo"); the second is a hash of the schema's name."""

OLDEST_SERVER = 15_00_00
"""PostgreSQL 15, in libpq's counting."""

_POLL = 0.1  # seconds; waiting inside pg_advisory_lock would hold a snapshot that stalls CREATE INDEX CONCURRENTLY
_VARIABLES = {
    "wait": "MYLOWARE_MIGRATION_WAIT",
    "lock_timeout": "MYLOWARE_LOCK_TIMEOUT",
    "statement_timeout": "MYLOWARE_STATEMENT_TIMEOUT",
}
_INSTALL = (
    "install pgvector 0.5.0 or newer on it (Debian: postgresql-15-pgvector; Docker: pgvector/pgvector:pg15), or use the"
    " embedded server"
)
_RECORD = "its objects exist already: `myloware-store validate` says whose they are, and how to record it as applied"
_HINTS = {
    "42710": _RECORD,
    "42P07": _RECORD,
    "55P03": "a table is in use: try again when it is quieter, or raise MYLOWARE_MIGRATION_WAIT or"
    " MYLOWARE_LOCK_TIMEOUT (seconds)",
    "57014": "raise MYLOWARE_STATEMENT_TIMEOUT (seconds) if it only needs more time",
    "42501": "migrate as the role that owns the database, or GRANT the role CREATE and USAGE on the schema",
    "25006": "migrate the primary of a read-only standby, or set default_transaction_read_only to off",
    "42704": "for vector, the role needs USAGE on the schema of the extension",
}
POOLED = (
    "migrations need a direct connection, but this one goes through a pooler in transaction mode (PgBouncer), which"
    " cannot hold their lock: connect to the PostgreSQL server itself, without pgbouncer=true"
)
_STANDBY = "the server is a read-only standby: migrate its primary"
_COMPATIBLE = re.compile(r"^BACKWARD_COMPATIBLE = True$", re.MULTILINE)
_EXTENSION = re.compile(r"\s*CREATE EXTENSION (?:IF NOT EXISTS )?\"?([\w-]+)", re.IGNORECASE)

_HOLDERS = """
SELECT l.pid, a.usename, a.application_name, a.client_addr, a.backend_start, 'connected'
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = %s AND l.objid = hashtext(%s)::oid
"""
_OLDEST = """
SELECT pid, usename, application_name, client_addr, xact_start, 'in a transaction'
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
ORDER BY xact_start LIMIT 1
"""
_CIRCUMSTANCES = """
SELECT current_setting('server_version_num'), current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('transaction_read_only') = 'on', has_database_privilege(current_database(), 'CREATE'),
    quote_ident(nspname), has_schema_privilege(n.oid, 'USAGE'), has_schema_privilege(n.oid, 'CREATE')
FROM (SELECT COALESCE(%s, current_schema()) AS name) AS wanted LEFT JOIN pg_namespace AS n ON nspname = name
"""
_VECTOR = """
SELECT quote_ident(n.nspname), has_schema_privilege(n.oid, 'USAGE'),
    r.rolsuper OR (v.trusted AND has_database_privilege(current_database(), 'CREATE')),
    to_regnamespace('public') IS NOT NULL AND has_schema_privilege(to_regnamespace('public'), 'CREATE')
FROM pg_available_extensions AS a
JOIN pg_available_extension_versions AS v ON v.name = a.name AND v.version = a.default_version
JOIN pg_roles AS r ON r.rolname = current_user
LEFT JOIN pg_extension AS e ON e.extname = a.name
LEFT JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE a.name = 'vector'
"""
_FIND_HISTORY = """
SELECT current_schema(), (
    SELECT nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
)
"""
# Migrations of two schemas may need the same extension: IF NOT EXISTS fails if another transaction is creating it.
_ONE_CREATOR = """
SELECT pg_advisory_xact_lock(%s, 0) WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = %s)
"""
# As peewee-migrate creates it, except that no migration can be recorded twice.
_CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS {0} (
    id serial PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    migrated_at timestamp NOT NULL,
    digest text,
    backward_compatible boolean NOT NULL DEFAULT false
)
"""
# One that peewee-migrate has made.
_COMPLETE_HISTORY = """
ALTER TABLE {0} ADD COLUMN IF NOT EXISTS digest text,
    ADD COLUMN IF NOT EXISTS backward_compatible boolean NOT NULL DEFAULT false
"""
_INCOMPLETE = """
SELECT count(*) < 2 FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attname IN ('digest', 'backward_compatible') AND NOT attisdropped
"""


def _seconds(_: object, attribute: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**31 / 1000:
        raise SettingsError(f"{_VARIABLES[attribute.name]} must be a number of seconds, 0 or more")


@attrs.frozen
class Limits:
    """How long a migration waits and runs, in seconds.

    Attributes:
        wait: For another migration of the same database to end, before giving up; and how long a migration is tried
            again that did not get a lock on a table.
        lock_timeout: For a lock on a table, for which everyone else then waits, too; 0 waits forever.
        statement_timeout: For one statement; 0 sets no limit. A migration that needs more sets its own.
    """

    wait: float = attrs.field(default=60.0, validator=_seconds)
    lock_timeout: float = attrs.field(default=2.0, validator=_seconds)
    statement_timeout: float = attrs.field(default=900.0, validator=_seconds)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Limits:
        """Read MYLOWARE_MIGRATION_WAIT, MYLOWARE_LOCK_TIMEOUT and MYLOWARE_STATEMENT_TIMEOUT.

        Raises:
            SettingsError: One of them is not a number of seconds.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, float] = {}
        for name, variable in _VARIABLES.items():
            if text := str(environ.get(variable, "")).strip():
                try:
                    values[name] = float(text)
                except ValueError:
                    raise SettingsError(f"{variable} must be a number of seconds, 0 or more") from None
        return cls(**values)


class MigrationDatabase(StoreDatabase):
    """A database on a single connection, which holds the migration lock from its first statement until it is closed.

    Every commit records the digests of the migration files that were applied in it, and whether they are backward
    compatible: whether they contain the line `BACKWARD_COMPATIBLE = True`.

    Args:
        settings: The database; the server must be reached directly, not through PgBouncer.
        directory: The folder of the migrations.
        limits: How long to wait for the migration lock, for locks on tables and for statements.
        check: Called with the status once the lock is held; its exception ends the session.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        limits: Limits | None = None,
        check: Callable[[MigrationStatus], None] = lambda _: None,
    ) -> None:
        super().__init__(attrs.evolve(settings, connection_limit=1, call_timeout=math.inf))
        self.directory = directory
        self.history = history_name(directory)
        self.limits = limits or Limits.load()
        self._check = check

    def status(self) -> MigrationStatus:
        """Return how the database's migrations compare with the folder's."""
        return make_status(self.execute_sql(history_query(self.settings, self.history)).fetchall(), self.directory)

    def oldest_transaction(self) -> str | None:
        """Return the session whose transaction has been open for the longest time, if another one has any."""
        row = self.execute_sql(_OLDEST).fetchone()
        return _session(row) if row else None

    def execute_sql(self, sql: str, params: Any = None, named_cursor: object = None, *, reads: bool = False) -> Any:
        """Run one statement; one with CONCURRENTLY outside of the transaction.

        Raises:
            MissingExtension: It creates an extension that the server does not offer or the role may not create.
            MigrationError: It has CONCURRENTLY, and is not the first of its migration.
        """
        if is_concurrent(sql):
            return self._execute_concurrently(sql, params or ())
        if (created := _EXTENSION.match(sql)) is None:
            return super().execute_sql(sql, params, named_cursor, reads=reads)
        super().execute_sql(_ONE_CREATOR, (LOCK_CLASS, created[1]))
        try:
            return super().execute_sql(sql, params, named_cursor, reads=reads)
        except DatabaseFault as fault:
            if isinstance(fault, ConnectionFailed):
                raise
            raise _missing_extension(created[1], fault, self.settings) from None

    def _execute_concurrently(self, sql: str, params: Any) -> Rows:
        # A second connection: the first keeps its transaction, which has no snapshot to wait for.
        with closing(super().open_session()) as opened, opened.cursor() as outside, self.cursor() as transaction:
            try:
                run_concurrently(sql, params, transaction, outside)
                return Rows(outside)
            except DRIVER_ERRORS as error:
                fault = self._fault(error, opened, committing=False)
        raise fault

    def commit(self) -> None:
        """Commit, with the digests of the migrations that the transaction has recorded."""
        rows = self.execute_sql(f"SELECT name FROM {self.history} WHERE digest IS NULL").fetchall()  # noqa: S608
        for name in {name for (name,) in rows}.intersection(available_migrations(self.directory)):
            file = self.directory / f"{name}.py"
            self.execute_sql(
                f"UPDATE {self.history} SET digest = %s, backward_compatible = %s WHERE name = %s",  # noqa: S608
                (file_digest(file), _COMPATIBLE.search(file.read_text(encoding="utf-8")) is not None, name),
            )
        super().commit()

    def open_session(self) -> connection:
        """Open a connection that reaches the server itself."""
        require_direct(self.settings)
        opened = super().open_session()
        if self.shares_sessions():
            opened.close()
            raise MigrationError(POOLED)
        with ExitStack() as undo:
            undo.callback(opened.close)
            try:
                with opened.cursor() as run:
                    self._prepare(opened, run)
            except psycopg2.Error as error:
                fault = self._fault(error, opened, committing=False)
            else:
                undo.pop_all()
                # Pinned until close(), because the lock belongs to the connection.
                self._state.pinned = True
                return opened
        raise fault

    def _prepare(self, opened: connection, run: cursor) -> None:
        require_supported(opened.server_version)
        run.execute("SELECT pg_is_in_recovery()")
        if run.fetchone() == (True,):
            raise MigrationError(_STANDBY)
        if self.server_encoding != "UTF8":
            raise MigrationError(ENCODING.format(self.server_encoding))
        run.execute(LIFT_DEADLINES, (False,))
        run.execute(
            "SELECT set_config('application_name', 'myloware-store migrate', false),"
            " set_config('default_transaction_isolation', 'read committed', false),"
            " set_config('standard_conforming_strings', 'on', false),"
            " set_config('quote_all_identifiers', 'off', false),"
            " set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false)",
            (f"{self.limits.lock_timeout * 1000:.0f}ms", f"{self.limits.statement_timeout * 1000:.0f}ms"),
        )
        # Servers that cannot check for vanished clients refuse this.
        with suppress(psycopg2.Error):
            run.execute("SELECT set_config('client_connection_check_interval', '2s', false)")
        self._take_lock(run)
        schema = self.settings.schema
        if schema != "public":
            run.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
            if run.fetchone() is None:
                try:
                    run.execute('CREATE SCHEMA "{}"'.format(schema.replace('"', '""')))
                except psycopg2.errors.InsufficientPrivilege:
                    raise MigrationError(_no_schema(schema)) from None
        run.execute(_FIND_HISTORY, (history_table(self.settings, self.history),))
        first, migrated = run.fetchone() or (None, None)
        home = migrated or (first if schema == "public" else schema)
        if first is None or first != home:
            raise MigrationError(
                f"the schema {home or schema} is not the first that the role may use on its search_path: put it first"
                " (ALTER ROLE ... SET search_path), or GRANT USAGE on it"
            )
        if migrated is None:
            run.execute(_CREATE_HISTORY.format(self.history))
        run.execute(_INCOMPLETE, (self.history,))
        if run.fetchone() == (True,):
            run.execute(_COMPLETE_HISTORY.format(self.history))
        run.execute(history_query(self.settings, self.history), ())
        self._check(make_status(run.fetchall(), self.directory))

    def _take_lock(self, run: cursor) -> None:
        key = (LOCK_CLASS, self.settings.schema)
        deadline = time.monotonic() + self.limits.wait
        while True:
            run.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key)
            if run.fetchone() == (True,):
                return
            if time.monotonic() >= deadline:
                run.execute(_HOLDERS, key)
                holders = "; ".join(f"{_session(row)} holds the lock" for row in run.fetchall()) or "it has just ended"
                raise MigrationError(
                    f"another migration of {self.settings.target} did not end within {self.limits.wait:g} s: {holders}."
                    " Try again, or raise MYLOWARE_MIGRATION_WAIT (seconds)"
                )
            time.sleep(_POLL)


def require_direct(settings: Settings) -> None:
    """Raise MigrationError if the settings say that connections go through PgBouncer."""
    if settings.pgbouncer:
        raise MigrationError(POOLED)


def require_supported(version: int) -> None:
    """Raise MigrationError if the server is too old, by libpq's version number."""
    if version < OLDEST_SERVER:
        raise MigrationError(f"the server is PostgreSQL {version // 10_000}: 15 or newer is needed")


def find_obstacles(database: StoreDatabase) -> list[str]:
    """Return the visible obstacles to the migrations, each with its remedy."""
    schema = database.settings.schema
    (version, encoding, standby, read_only, makes_schemas, place, usable, creates) = database.execute_sql(
        _CIRCUMSTANCES, (None if schema == "public" else schema,)
    ).fetchone()
    obstacles: list[str] = []
    try:
        require_supported(int(version))
    except MigrationError as error:
        obstacles.append(str(error))
    if encoding != "UTF8":
        obstacles.append(ENCODING.format(encoding))
    if database.shares_sessions():
        obstacles.append(POOLED)
    if standby:
        obstacles.append(_STANDBY)
    elif read_only:
        obstacles.append("the connection is read-only: set default_transaction_read_only to off for this role")
    if place is None and schema == "public":
        obstacles.append("no schema on the search_path exists, or the role may use none: GRANT USAGE and CREATE on one")
    elif place is None and not makes_schemas:
        obstacles.append(_no_schema(schema))
    elif place is not None and not (usable and creates):
        obstacles.append(f"the role may not use the schema {place}, or create in it: GRANT it USAGE and CREATE on it")
    return [*obstacles, *filter(None, [find_vector_obstacle(database)])]


def find_vector_obstacle(database: StoreDatabase) -> str | None:
    """Return the obstacle to creating or using the extension `vector`, with its remedy; else None."""
    row = database.execute_sql(_VECTOR).fetchone()
    if row is None:
        return f"the server does not offer the extension vector: {_INSTALL}"
    home, usable, creatable, fits = row
    if home is None and not creatable:
        return _no_right("vector", database.settings)
    if home is None and not fits:
        return "the role may not create the extension vector in the schema public: GRANT it CREATE on the schema"
    if home is not None and not usable:
        return f"the role may not use the schema {home} of the extension vector: GRANT it USAGE on the schema"
    return None


def explain(error: StoreError) -> StoreError:
    """Return the error to raise for an error during a migration: a MigrationError, unless its type says more."""
    if isinstance(error, ConnectionFailed) or not isinstance(error, DatabaseFault):
        return error
    # The names of the objects that prevent a DROP; other details may contain values.
    detail = getattr(error.driver_error, "diag", None) if error.sqlstate == "2BP01" else None
    hints = [detail.message_detail if detail else None, _HINTS.get(error.sqlstate)]
    return MigrationError("; ".join([str(error), *filter(None, hints)]))


def _session(row: tuple[int, str | None, str | None, str | None, Any, str]) -> str:
    pid, role, application, address, since, doing = row
    of = f" of {role}" if role else ""
    place = f" from {address}" if address else ""
    started = f", {doing} since {since:%Y-%m-%d %H:%M:%S %Z}" if since else ""
    return f"server process {pid}{of}{place} ({application or 'unnamed'}{started})"


def _no_schema(schema: str) -> str:
    return (
        f"the schema {schema} does not exist, and the role may not create it: have the database's owner create it with"
        " `CREATE SCHEMA ... AUTHORIZATION` this role, or GRANT this role CREATE ON DATABASE"
    )


def _no_right(name: str, settings: Settings) -> str:
    return (
        f"the role {settings.user or 'in use'} may not create the extension {name}: have a superuser run"
        f' `CREATE EXTENSION "{name}"` in this database, then migrate again'
    )


def _missing_extension(name: str, fault: DatabaseFault, settings: Settings) -> StoreError:
    if fault.sqlstate == "42501":
        return MissingExtension(_no_right(name, settings))
    return MissingExtension(f"the server does not offer the extension {name} ({fault}): {_INSTALL}")

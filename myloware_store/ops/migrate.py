"""Migrate, roll back and reset a database, for the command line and for `Store.open()`."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import DatabaseFault, InvalidInput, MigrationError, StoreError
from myloware_store.db.database import StoreDatabase
from myloware_store.ops.history import (
    HISTORY_TABLE,
    MigrationStatus,
    available_migrations,
    migrations_folder,
    migrations_path,
    require_current,
    require_named,
    status,
    target_settings,
)
from myloware_store.ops.migration_database import Limits, MigrationDatabase, explain, find_obstacles, require_direct
from myloware_store.ops.planning import PlannedMigration, make_migrator, read_plan, require_migrate, require_rollbacks
from myloware_store.ops.target import opened, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peewee_migrate.router import Router

    from myloware_store.settings import Settings

__all__ = [
    "HISTORY_TABLE",
    "Limits",
    "MigrationReport",
    "MigrationStatus",
    "migrate",
    "migration_session",
    "migrations_path",
    "require_current",
    "reset",
    "rollback",
    "status",
]

_LOCKED = {"55P03", "40P01"}  # lock not available in time, deadlock
_LONGEST_PAUSE = 4.0  # seconds
_logger = logging.getLogger(__name__)
_logger.addHandler(logging.NullHandler())
_logger.addFilter(lambda record: record.exc_info is None)  # peewee-migrate also logs what it raises


@attrs.frozen
class MigrationReport:
    """The result of `migrate` or `reset`.

    Attributes:
        database: The database, without secrets.
        applied: The migrations that were applied now.
        pending: Those that a plan would apply.
        planned: Their SQL.
        obstacle: The obstacles that a plan found, one per line, and how to remove them.
    """

    database: str
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    planned: tuple[PlannedMigration, ...] = ()
    obstacle: str | None = None


def migrate(
    target: Settings | StoreDatabase,
    *,
    plan: bool = False,
    to: str | None = None,
    directory: Path | str | None = None,
    limits: Limits | None = None,
) -> MigrationReport:
    """Apply the pending migrations, each in its own transaction, under a lock against other migrations.

    If nothing is pending, nothing is locked or written. An embedded server is started if necessary, and a schema that
    the settings name is created. A migration that does not get a lock on a table in time is rolled back, and tried
    again for as long as the limits say. A plan creates nothing.

    Args:
        target: The database, or its settings.
        plan: Only list the pending migrations, with their SQL.
        to: The name of the last migration to apply, by default the last one of the folder.
        directory: The folder of migrations, by default the installed one.
        limits: How long to wait, by default as the environment says.

    Returns:
        The applied and the pending migrations.

    Raises:
        MissingExtension: The server does not offer `vector`, or the role may not create it.
        MigrationError: A migration failed, an applied one was edited, a new one sorts before an applied one, the lock
            was not free in time, the server is a standby, or the connection goes through PgBouncer.
        SchemaMismatch: The database is newer than this version.
        InvalidInput: There is no migration `to`.
        ConnectionFailed: The server cannot be reached.
    """
    folder = _checked(directory, limits)
    require_named(folder, to)
    if plan:
        return _plan(target, folder, to)
    with reach(target_settings(target), create=True) as reached:
        settings = reached.settings
        # Raise it now, not only when something is pending.
        require_direct(settings)
        try:
            before = status(settings, directory=folder)
        except DatabaseFault as fault:
            raise explain(fault) from None
        before.require_sound()
        if not before.pending_to(to):
            return MigrationReport(settings.target)
        with migration_session(settings, folder, limits, MigrationStatus.require_sound) as database:
            return MigrationReport(settings.target, applied=_apply_pending(database, to))


def rollback(
    target: Settings | StoreDatabase,
    *,
    count: int = 1,
    directory: Path | str | None = None,
    limits: Limits | None = None,
) -> tuple[str, ...]:
    """Undo the last migrations, each in its own transaction; extensions and the history table stay.

    Args:
        target: The database, or its settings.
        count: How many.
        directory: The folder of migrations, by default the installed one.
        limits: How long to wait, by default as the environment says.

    Returns:
        The names of the undone migrations, the last one first.

    Raises:
        InvalidInput: `count` is not a whole number, or less than 1.
        MigrationError: There are fewer, one of them cannot be undone, or it failed.
        SchemaMismatch: The database is newer than this version.
        ConnectionFailed: The server cannot be reached.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidInput("count must be a whole number, 1 or more")
    folder = _checked(directory, limits)
    with migration_session(target, folder, limits, MigrationStatus.require_known) as database:
        applied = database.status().applied
        if count > len(applied):
            raise MigrationError(f"cannot undo {count}: {len(applied)} are applied")
        undone = tuple(reversed(applied))[:count]
        require_rollbacks(folder, undone)
        router = _router(database)
        for name in undone:
            _run(partial(_again_while_locked, database, router, name, downgrade=True), f"undoing {name}")
        return undone


def reset(
    target: Settings | StoreDatabase, *, directory: Path | str | None = None, limits: Limits | None = None
) -> MigrationReport:
    """Drop all objects of the store, with their data, and migrate again; other objects in the schema stay.

    Args:
        target: The database, or its settings.
        directory: The folder of migrations, by default the installed one.
        limits: How long to wait, by default as the environment says.

    Raises:
        MigrationError: Other objects depend on ours, or the database has tables with our names but was
            never migrated (the message names them): nothing was dropped.
        ConnectionFailed: The server cannot be reached.
    """
    from myloware_store.ops.catalog import drop_statements, taken_names

    folder = _checked(directory, limits)
    with migration_session(target, folder, limits, lambda _: None) as database:
        if not database.status().applied and (taken := taken_names(database)):
            raise MigrationError(
                f"no migration is recorded, so these may belong to someone else: {', '.join(taken)}; drop"
                " them by hand, or record the migrations first (`myloware-store baseline`)"
            )

        def drop() -> None:
            (name,) = database.execute_sql("SELECT quote_ident(current_schema())").fetchone()
            schema = name.replace("%", "%%")  # the driver would read % as a placeholder
            with database.atomic():
                for statement in drop_statements(schema):
                    database.execute_sql(statement)
                database.execute_sql(f"DELETE FROM {schema}.{HISTORY_TABLE}")  # noqa: S608  a quoted identifier

        _run(drop, "dropping the schema")
        return MigrationReport(database.settings.target, applied=_apply_pending(database))


def _plan(target: Settings | StoreDatabase, folder: Path, to: str | None) -> MigrationReport:
    from myloware_store.embedded import EmbeddedServer

    settings = target_settings(target)
    nothing = MigrationStatus((), available_migrations(folder), (), ())
    if settings.embedded and not settings.host and not EmbeddedServer.made(settings.embedded_home):
        return _planned(settings.target, nothing.pending_to(to), folder)
    with reach(settings, create=True) as reached, opened(reached.settings) as database:
        place = reached.settings.target
        try:
            found = status(database, directory=folder)
        except DatabaseFault as fault:
            if fault.sqlstate != "42501":
                raise
            reasons = find_obstacles(database) or [str(explain(fault))]
            return _planned(place, nothing.pending_to(to), folder, obstacle="\n".join(reasons))
        found.require_sound()
        pending = found.pending_to(to)
        return _planned(place, pending, folder, obstacle=_obstacle(database, found) if pending else None)


def _planned(place: str, pending: tuple[str, ...], folder: Path, *, obstacle: str | None = None) -> MigrationReport:
    planned = tuple(read_plan(folder, name) for name in pending)
    return MigrationReport(place, pending=pending, planned=planned, obstacle=obstacle)


def _obstacle(database: StoreDatabase, found: MigrationStatus) -> str | None:
    from myloware_store.ops.catalog import taken_names

    if not found.applied and (taken := taken_names(database)):
        return f"{', '.join(taken)} exist already: `myloware-store validate` says whose they are, and what to do"
    return "\n".join(find_obstacles(database)) or None


@contextmanager
def migration_session(
    target: Settings | StoreDatabase, directory: Path, limits: Limits | None, check: Callable[[MigrationStatus], None]
) -> Iterator[MigrationDatabase]:
    """Yield a database that is locked against other migrations, once a check of its status has passed."""
    with reach(target_settings(target), create=True) as reached:
        database = MigrationDatabase(reached.settings, directory, limits=limits, check=check)
        try:
            try:
                database.connect()
            except DatabaseFault as fault:
                raise explain(fault) from None
            yield database
        finally:
            database.close_all()


def _apply_pending(database: MigrationDatabase, to: str | None = None) -> tuple[str, ...]:
    router = _router(database)
    pending = database.status().pending_to(to)
    for name in pending:
        require_migrate(database.directory, name)
    applied: list[str] = []
    for name in pending:
        before = f"; {', '.join(applied)} was applied before it" if applied else ""
        _run(partial(_again_while_locked, database, router, name), name, before)
        applied.append(name)
    return tuple(applied)


def _again_while_locked(database: MigrationDatabase, router: Router, name: str, *, downgrade: bool = False) -> None:
    """Run a migration; if a table is in use, let everyone else at it for a while, and try again until the deadline."""
    deadline = time.monotonic() + database.limits.wait
    pause = 0.25  # seconds, at first
    while True:
        try:
            migrator = make_migrator(database.directory, database, database.status().applied)
            router.run_one(name, migrator, fake=False, downgrade=downgrade)
        except DatabaseFault as fault:
            if fault.sqlstate not in _LOCKED:
                raise
            if time.monotonic() + pause > deadline:
                oldest = database.oldest_transaction()
                raise MigrationError(f"{explain(fault)}{f'; the oldest is {oldest}' if oldest else ''}") from None
        else:
            return
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _run(action: Callable[[], object], what: str, before: str = "") -> None:
    try:
        action()
    except StoreError as error:
        explained = explain(error)
        if isinstance(explained, MigrationError):
            explained = MigrationError(f"{what} failed: {explained}{before}")
        raise explained from None
    except Exception as error:
        raise MigrationError(f"{what} failed: {type(error).__name__}: {error}{before}") from error


def _router(database: MigrationDatabase) -> Router:
    """Make a router without side effects on the rest of the process."""
    from peewee_migrate.models import MigrateHistory
    from peewee_migrate.router import Router

    class PrivateRouter(Router):
        """peewee-migrate's own router binds one history class to one database, and mocks Peewee during a replay.

        Both would affect every thread and a service's own migrations.
        """

        @cached_property
        def model(self) -> type[MigrateHistory]:
            class History(MigrateHistory):
                class Meta:
                    table_name = database.history

            History._meta.set_database(database)
            return History

    return PrivateRouter(database, migrate_dir=database.directory, migrate_table=database.history, logger=_logger)


def _checked(directory: Path | str | None, limits: Limits | None) -> Path:
    if not isinstance(limits, Limits | None):
        raise InvalidInput(f"limits must be Limits, not {type(limits).__name__}")
    return migrations_folder(directory)

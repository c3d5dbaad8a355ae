"""Migrate, roll back and reset a database, for the command line and for `Store.open()`."""

from __future__ import annotations

import logging
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
    status,
    target_settings,
)
from myloware_store.ops.migration_database import Limits, MigrationDatabase, explain, find_obstacles, require_direct
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
    "migrations_path",
    "require_current",
    "reset",
    "rollback",
    "status",
]

_logger = logging.getLogger(__name__)
_logger.addHandler(logging.NullHandler())


@attrs.frozen
class MigrationReport:
    """The result of `migrate` or `reset`.

    Attributes:
        database: The database, without secrets.
        applied: The migrations that were applied now.
        pending: Those that are not applied; only a plan leaves any.
        obstacle: The obstacles that a plan found, one per line, and how to remove them.
    """

    database: str
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    obstacle: str | None = None


def migrate(
    target: Settings | StoreDatabase,
    *,
    plan: bool = False,
    directory: Path | str | None = None,
    limits: Limits | None = None,
) -> MigrationReport:
    """Apply the pending migrations, each in its own transaction, under a lock against other migrations.

    If nothing is pending, nothing is locked or written. An embedded server is started if necessary, and a schema that
    the settings name is created. A plan creates nothing.

    Args:
        target: The database, or its settings.
        plan: Only list the pending migrations.
        directory: The folder of migrations, by default the installed one.
        limits: How long to wait, by default as the environment says.

    Returns:
        The applied and the pending migrations.

    Raises:
        MissingExtension: The server does not offer `vector`, or the role may not create it.
        MigrationError: A migration failed, an applied one was edited, the lock was not free in time, or the
            connection goes through PgBouncer.
        SchemaMismatch: The database is newer than this version.
        ConnectionFailed: The server cannot be reached.
    """
    folder = _checked(directory, limits)
    if plan:
        return _plan(target, folder)
    with reach(target_settings(target), create=True) as reached:
        settings = reached.settings
        # Raise it now, not only when something is pending.
        require_direct(settings)
        try:
            before = status(settings, directory=folder)
        except DatabaseFault as fault:
            raise explain(fault) from None
        before.require_sound()
        if not before.pending:
            return MigrationReport(settings.target)
        with _session(settings, folder, limits, MigrationStatus.require_sound) as database:
            return MigrationReport(settings.target, applied=_apply_pending(database))


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
    from peewee_migrate.router import void

    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidInput("count must be a whole number, 1 or more")
    folder = _checked(directory, limits)
    with _session(target, folder, limits, MigrationStatus.require_known) as database:
        applied = database.status().applied
        if count > len(applied):
            raise MigrationError(f"cannot undo {count} migrations: {len(applied)} are applied")
        router = _router(database)
        undone = tuple(reversed(applied))[:count]
        for name in undone:
            if router.read(name)[1] is void:
                raise MigrationError(f"{name} has no rollback()")
            undo = partial(router.run_one, name, router.migrator, fake=False, downgrade=True)
            _run(undo, f"undoing {name}")
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
    with _session(target, folder, limits, lambda _: None) as database:
        if not database.status().applied and (taken := taken_names(database)):
            raise MigrationError(
                f"no migration is recorded, so these may belong to someone else: {', '.join(taken)}; drop"
                " them by hand, or record the migrations first (`pw_migrate migrate --fake`)"
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


def _plan(target: Settings | StoreDatabase, folder: Path) -> MigrationReport:
    from myloware_store.embedded import EmbeddedServer

    settings = target_settings(target)
    if settings.embedded and not settings.host and not EmbeddedServer.made(settings.embedded_home):
        return MigrationReport(settings.target, pending=available_migrations(folder))
    with reach(settings, create=True) as reached, opened(reached.settings) as database:
        place = reached.settings.target
        try:
            found = status(database, directory=folder)
        except DatabaseFault as fault:
            if fault.sqlstate != "42501":
                raise
            reasons = find_obstacles(database) or [str(explain(fault))]
            return MigrationReport(place, pending=available_migrations(folder), obstacle="\n".join(reasons))
        found.require_sound()
        obstacle = _obstacle(database, found) if found.pending else None
        return MigrationReport(place, pending=found.pending, obstacle=obstacle)


def _obstacle(database: StoreDatabase, found: MigrationStatus) -> str | None:
    from myloware_store.ops.catalog import taken_names

    if not found.applied and (taken := taken_names(database)):
        return f"{', '.join(taken)} exist already: `myloware-store validate` says whose they are, and what to do"
    return "\n".join(find_obstacles(database)) or None


@contextmanager
def _session(
    target: Settings | StoreDatabase, directory: Path, limits: Limits | None, check: Callable[[MigrationStatus], None]
) -> Iterator[MigrationDatabase]:
    with reach(target_settings(target), create=True) as reached:
        database = MigrationDatabase(reached.settings, directory, limits=limits, check=check)
        try:
            _run(database.connect, "connecting")
            yield database
        finally:
            database.close_all()


def _apply_pending(database: MigrationDatabase) -> tuple[str, ...]:
    router = _router(database)
    applied: list[str] = []
    for name in database.status().pending:
        before = f"; {', '.join(applied)} was applied before it" if applied else ""
        _run(partial(router.run_one, name, router.migrator, fake=False), name, before)
        applied.append(name)
    return tuple(applied)


def _run(action: Callable[[], object], what: str, before: str = "") -> None:
    try:
        action()
    except StoreError as error:
        explained = explain(error)
        if isinstance(explained, MigrationError) and explained is not error:
            explained = MigrationError(f"{what} failed: {explained}{before}")
        raise explained from None
    except Exception as error:
        raise MigrationError(f"{what} failed: {type(error).__name__}: {error}{before}") from error


def _router(database: MigrationDatabase) -> Router:
    """Make a router without side effects on the rest of the process."""
    from peewee_migrate.migrator import Migrator
    from peewee_migrate.models import MigrateHistory
    from peewee_migrate.router import Router

    class PrivateRouter(Router):
        """peewee-migrate's own router binds one history class to one database, and mocks Peewee during a replay.

        Both would affect every thread and a service's own migrations. Our migrations are SQL, or declare their own
        models, so there is nothing to replay.
        """

        @cached_property
        def model(self) -> type[MigrateHistory]:
            class History(MigrateHistory):
                class Meta:
                    table_name = HISTORY_TABLE

            History._meta.set_database(database)
            return History

        @cached_property
        def migrator(self) -> Migrator:
            return Migrator(database)

    return PrivateRouter(database, migrate_dir=database.directory, migrate_table=HISTORY_TABLE, logger=_logger)


def _checked(directory: Path | str | None, limits: Limits | None) -> Path:
    if not isinstance(limits, Limits | None):
        raise InvalidInput(f"limits must be Limits, not {type(limits).__name__}")
    return migrations_folder(directory)

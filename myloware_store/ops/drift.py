"""Compare a database with the schema that its migrations create, and record them in one that has it already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from myloware_store.core.errors import MigrationError
from myloware_store.ops.catalog import compare, expected_catalog, read_catalog
from myloware_store.ops.history import (
    HISTORY_TABLE,
    available_migrations,
    migrations_path,
    require_database,
    require_named,
    status,
)
from myloware_store.ops.migrate import migrate, migration_session
from myloware_store.ops.scratch import scratch_database
from myloware_store.ops.target import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from myloware_store.db.database import StoreDatabase
    from myloware_store.ops.catalog import Difference
    from myloware_store.ops.migration_database import Limits
    from myloware_store.settings import Settings

__all__ = ["baseline", "drift"]

_SHOWN = 5  # names of differences


def drift(database: StoreDatabase, *, to: str | None = None, server: Settings | None = None) -> tuple[Difference, ...]:
    """Return the differences of a database's schema from what its migrations create; nothing is written to it.

    Objects of others are left out, unless they are on our tables. If the database has all migrations of this version,
    no server is needed; otherwise they are applied to a scratch database up to the last one that it has.

    Args:
        database: The database.
        to: The migration up to which its schema is expected, by default the last one that is applied, or the last one
            of all if none is recorded.
        server: A database on the server for the scratch database, where the role may create databases; by default an
            embedded server that lives as long.

    Raises:
        InvalidInput: That is not a database, or there is no migration `to`.
        SchemaMismatch: The database is newer than this version.
        EmbeddedServerError: There is no server for the scratch database.
        ConnectionFailed: The server cannot be reached.
    """
    require_database(database)
    require_named(migrations_path(), to)
    found = status(database)
    found.require_known()
    last = to or (found.applied or found.pending)[-1]
    return tuple(compare(_created_by(last, server), read_catalog(database)))


def baseline(
    target: Settings | StoreDatabase,
    *,
    to: str | None = None,
    server: Settings | None = None,
    limits: Limits | None = None,
) -> tuple[str, ...]:
    """Record migrations as applied without running them, in a database that has what they create.

    Args:
        target: The database, or its settings.
        to: The last migration to record, by default the last one.
        server: As for `drift`; needed only if `to` is not the last one.
        limits: How long to wait for other migrations.

    Returns:
        The migrations that were recorded now; none if they were before.

    Raises:
        InvalidInput: There is no migration `to`.
        MigrationError: The schema differs (the message names the first differences), or only some are
            recorded; nothing was recorded.
        EmbeddedServerError: There is no server for the scratch database.
        ConnectionFailed: The server cannot be reached.
    """
    folder = migrations_path()
    require_named(folder, to)
    names = available_migrations(folder)
    names = names[: names.index(to or names[-1]) + 1]
    expected = _created_by(names[-1], server)
    with migration_session(target, folder, limits, lambda _: None) as database:
        if set(names) <= set(applied := database.status().applied):
            return ()
        if applied:
            raise MigrationError(f"{', '.join(applied)} is recorded already: `myloware-store migrate` applies the rest")
        live = read_catalog(database)
        if different := [one.full_name for one in compare(expected, live) if not one.harmless]:
            told = ", ".join(different[:_SHOWN]) + (", ..." if len(different) > _SHOWN else "")
            raise MigrationError(
                f"the schema is not what {names[-1]} leads to: {told}; `myloware-store drift --to {names[-1]}` shows"
                " the differences. Nothing was recorded"
            )
        with database.atomic():
            for name in names:
                # Its digest is recorded with the commit.
                database.execute_sql(f"INSERT INTO {HISTORY_TABLE} (name, migrated_at) VALUES (%s, now())", (name,))  # noqa: S608
    return names


def _created_by(last: str, server: Settings | None) -> Mapping[str, str]:
    """Return the catalog that the migrations create up to one."""
    if last == available_migrations(migrations_path())[-1]:
        return expected_catalog()
    with scratch_database(server) as settings, opened(settings) as database:
        migrate(settings, to=last)
        return read_catalog(database)

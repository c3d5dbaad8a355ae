"""Bring a database up: migrate, seed and validate it, and ask its server for its state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.target import Target, opened, reach, require_made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from myloware_store.db.database import StoreDatabase
    from myloware_store.ops.validate import ValidationReport
    from myloware_store.settings import Settings

__all__ = ["Answer", "UpReport", "bring_up", "ping", "put_samples"]

_QUESTIONS = """
SELECT current_database(),
    current_setting('server_version'),
    (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
    pg_is_in_recovery()
"""


@attrs.frozen
class Answer:
    """A server's answer to `ping`.

    Attributes:
        database: The database that the connection reached.
        server_version: As PostgreSQL writes it, such as `18.4`.
        pgvector_version: The version of the extension in this database; None if it has not been created.
        standby: Whether it is a read-only standby of another server.
        milliseconds: The round trip of a query on an open connection.
    """

    database: str
    server_version: str
    pgvector_version: str | None
    standby: bool
    milliseconds: float


@attrs.frozen
class UpReport:
    """A database that was brought up.

    Attributes:
        settings: Its address.
        files: The folder of the embedded server's data; None for a configured database.
        answer: Its server's answer to `ping`.
        migrated: The migrations that were applied now.
        seeded: How many rows of sample data each table got now; None without seeding.
        validation: The differences from the expected schema, and the migrations of the database.
    """

    settings: Settings
    files: Path | None
    answer: Answer
    migrated: tuple[str, ...]
    seeded: dict[str, int] | None
    validation: ValidationReport


def bring_up(
    settings: Settings,
    *,
    migrate: bool = False,
    seed: bool | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> UpReport:
    """Start, migrate, seed and validate the embedded database, and leave its server running.

    A configured database is validated, and migrated and seeded only on request.

    Args:
        settings: The database.
        migrate: Whether to migrate a configured one.
        seed: Whether to add sample data; by default only to the embedded one, if it has no rows and MYLOWARE_ENV
            is not production.
        show: Called with the next step.

    Raises:
        ConnectionFailed: The server cannot be reached.
        EmbeddedServerError: The embedded server cannot be found or started.
        MigrationError: A migration failed.
        SchemaMismatch: The database is newer than this version, or `seed` was asked for and it is not migrated.
    """
    from myloware_store.ops import migrate as migrations
    from myloware_store.ops.validate import validate

    migrated: tuple[str, ...] = ()
    show("Starting the embedded server" if settings.embedded else "Connecting")
    with reach(settings, create=True) as target, opened(target.settings) as database:
        if migrate or settings.embedded:
            show("Migrating")
            migrated = migrations.migrate(target.settings).applied
        if seed is None:
            seed = settings.embedded and not settings.production and not _has_rows(database)
        if seed:
            show("Adding sample data")
        seeded = put_samples(target) if seed else None
        show("Validating")
        report = UpReport(
            settings=target.settings,
            files=target.server.data_dir if target.server else None,
            answer=_ask(database),
            migrated=migrated,
            seeded=seeded,
            validation=validate(database),
        )
        if target.server:
            target.server.keep()
        return report


def put_samples(target: Target) -> dict[str, int]:
    """Add sample data to a database; an embedded one is migrated first.

    Returns:
        How many rows each table got.

    Raises:
        SchemaMismatch: The database is not migrated, or is newer than this version.
    """
    from myloware_store.ops.migrate import migrate
    from myloware_store.seed import seed

    if target.server:
        migrate(target.settings)
    with opened(target.settings) as database:
        return seed(database).inserted


def ping(settings: Settings) -> tuple[Settings, Answer]:
    """Ask the server for its version and state; an embedded server is not started.

    Returns:
        The settings, with the embedded server's address filled in, and its answer.

    Raises:
        ConnectionFailed: It cannot be reached, or refuses the login.
        EmbeddedServerError: The embedded server does not run, or there is none.
    """
    if settings.embedded:
        require_made(settings)
        if not EmbeddedServer.running(settings.embedded_home):
            raise EmbeddedServerError(
                f"The embedded server in {settings.embedded_home} does not run: start it with `myloware-store up`."
            )
    with reach(settings) as target, opened(target.settings) as database:
        return target.settings, _ask(database)


def _ask(database: StoreDatabase) -> Answer:
    with database.unit():
        database.execute_sql("SELECT 1")
        begin = time.perf_counter()
        name, server, pgvector, standby = database.execute_sql(_QUESTIONS).fetchone()
        return Answer(name, server, pgvector, standby, (time.perf_counter() - begin) * 1000)


def _has_rows(database: StoreDatabase) -> bool:
    from myloware_store.models import MODELS

    return any(model.select().exists(database) for model in MODELS)

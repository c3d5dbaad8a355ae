"""Reach a database, embedded or configured, and bring it up: migrated, seeded and validated."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from myloware_store.ops.validate import ValidationReport
    from myloware_store.settings import Settings

__all__ = ["Answer", "Target", "UpReport", "bring_up", "opened", "ping", "put_samples", "reach"]

_QUESTIONS = """
SELECT current_database(),
    current_setting('server_version'),
    (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
    pg_is_in_recovery()
"""


@attrs.frozen
class Target:
    """A database whose server can be asked, with the embedded server that is held meanwhile."""

    settings: Settings
    server: EmbeddedServer | None = None


@attrs.frozen
class Answer:
    """What a server said of itself.

    Attributes:
        database: The database that the connection reached.
        server_version: As PostgreSQL writes it, such as `18.4`.
        pgvector_version: That of the extension in this database; None where it has not been created.
        standby: Whether it is read-only, being a copy of another server.
        milliseconds: How long a query took there and back, on an open connection.
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
        settings: Where it is.
        files: The folder of the embedded server's data; None for a configured database.
        answer: What its server says of itself.
        migrated: The migrations that were applied now.
        seeded: How many rows of sample data were put into each table now; None where none was to be.
        validation: What is not as the library expects it, and which migrations the database has.
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

    Of these, a configured database is migrated and seeded only as asked.

    Args:
        settings: Which database.
        migrate: Whether to migrate a configured one.
        seed: Whether to put sample data in; by default only into the embedded one, if it has no rows and MYLOWARE_ENV
            is not production.
        show: Told what is done next.

    Raises:
        ConnectionFailed: The server cannot be reached.
        EmbeddedServerError: The embedded server cannot be found or started.
        MigrationError: A migration failed.
        SchemaMismatch: The database is newer than this version, or is to be seeded and not migrated.
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
            show("Putting sample data in")
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


@contextmanager
def reach(settings: Settings, *, create: bool = False) -> Iterator[Target]:
    """Hold the embedded server, if that is meant, and give the settings with its address filled in.

    Args:
        settings: Which database.
        create: Whether to make the embedded database where there is none.

    Raises:
        EmbeddedServerError: The server cannot be found or started, or there is no such database.
    """
    if not settings.embedded:
        yield Target(settings)
        return
    if not create:
        _require_made(settings)
    with EmbeddedServer(settings.embedded_home) as server:
        server.ensure_database()
        yield Target(settings.with_server(**server.address()), server)


def put_samples(target: Target) -> dict[str, int]:
    """Put sample data into a database, which is migrated first if it is the embedded one.

    Returns:
        How many rows were put into each table.

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
    """Ask the server what it is; an embedded one that does not run is not started.

    Returns:
        The settings, with the embedded server's address filled in, and its answer.

    Raises:
        ConnectionFailed: It cannot be reached, or refuses the login.
        EmbeddedServerError: The embedded server does not run, or there is none.
    """
    if settings.embedded:
        _require_made(settings)
        if not EmbeddedServer.running(settings.embedded_home):
            raise EmbeddedServerError(
                f"The embedded server in {settings.embedded_home} does not run: `myloware-store up` starts it."
            )
    with reach(settings) as target, opened(target.settings) as database:
        return target.settings, _ask(database)


@contextmanager
def opened(settings: Settings) -> Iterator[StoreDatabase]:
    """Give the database of a server that runs, and close its connections afterwards."""
    database = StoreDatabase(settings)
    try:
        yield database
    finally:
        database.close_all()


def _ask(database: StoreDatabase) -> Answer:
    with database.unit():
        database.execute_sql("SELECT 1")
        begin = time.perf_counter()
        name, server, pgvector, standby = database.execute_sql(_QUESTIONS).fetchone()
        return Answer(name, server, pgvector, standby, (time.perf_counter() - begin) * 1000)


def _has_rows(database: StoreDatabase) -> bool:
    from myloware_store.models import MODELS

    return any(model.select().exists(database) for model in MODELS)


def _require_made(settings: Settings) -> None:
    if not EmbeddedServer.made(settings.embedded_home):
        raise EmbeddedServerError(
            f"There is no embedded database in {settings.embedded_home} yet: `myloware-store up` makes it."
        )

"""The SQL of a migration, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import attrs
import peewee
from psycopg2.extensions import QuotedString, adapt

from myloware_store.core.errors import MigrationError
from myloware_store.ops.history import available_migrations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from peewee_migrate.migrator import Migrator

__all__ = ["PlannedMigration", "has_rollback", "make_migrator", "read_plan", "require_migrate", "require_rollbacks"]


@attrs.frozen
class PlannedMigration:
    """A migration that would run.

    Attributes:
        name: Its name.
        statements: Its SQL, without semicolons at the end.
        note: Why its statements may be others: it reads rows, or could not be run without a database. Otherwise None.
    """

    name: str
    statements: tuple[str, ...]
    note: str | None = None


class _NoRows:
    """The result of a statement that was not run."""

    description = ()
    rowcount = 0

    def __init__(self, database: _Recorder) -> None:
        self._database = database

    def fetchone(self) -> None:
        self._database.read = True

    def fetchall(self) -> list[Any]:
        self._database.read = True
        return []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def close(self) -> None:
        """Do nothing."""


class _Recorder(peewee.PostgresqlDatabase):
    """Keeps statements instead of running them."""

    def __init__(self) -> None:
        super().__init__(None)
        self.statements: list[str] = []
        self.read = False

    def execute_sql(self, sql: str, params: Any = None, *_: object, **__: object) -> _NoRows:
        named = isinstance(params, Mapping)
        values = (
            {name: _literal(value) for name, value in params.items()} if named else tuple(map(_literal, params or ()))
        )
        self.statements.append(dedent(sql % values).strip().rstrip(";"))
        return _NoRows(self)

    def atomic(self, *_: object, **__: object) -> Any:
        return nullcontext()

    def begin(self, *_: object) -> None:
        """Do nothing, as commit and rollback."""

    commit = rollback = begin


def read_plan(directory: Path, name: str) -> PlannedMigration:
    """Return the SQL that a migration of a folder runs.

    Its code is run without a database, so its queries find no rows.

    Raises:
        MigrationError: The file cannot be read or compiled, or has no `migrate`.
    """
    database, note = _Recorder(), None
    migrate = require_migrate(directory, name)
    migrator = make_migrator(directory, database, [known for known in available_migrations(directory) if known < name])
    try:
        migrate(migrator, database, fake=False)
        migrator()
    except Exception as error:  # noqa: BLE001  whatever a migration does with the rows that it misses
        note = f"it cannot be shown further without a database: {type(error).__name__}: {error}"
    if database.read and note is None:
        note = "it reads the database, so that its statements may be others"
    return PlannedMigration(name, tuple(database.statements), note)


def make_migrator(directory: Path, database: peewee.Database, applied: Iterable[str]) -> Migrator:
    """Return a migrator that knows the models of applied migrations, by which later ones may call them.

    peewee-migrate would run the applied ones again on the database, with Peewee mocked in the whole process.
    """
    from peewee_migrate.migrator import Migrator

    recorder = _Recorder()
    past = Migrator(recorder)
    for name in applied:
        with suppress(Exception):  # one that needs rows; a later one that needs its models says so
            _functions(directory, name)[0](past, recorder, fake=True)
        past.__ops__ = []
    migrator = Migrator(database)
    migrator.orm = past.orm
    for model in migrator:
        model._meta.database = database
    return migrator


def require_migrate(directory: Path, name: str) -> Callable[..., Any]:
    """Return a migration's `migrate`; raise MigrationError if it has none, which peewee-migrate would record."""
    from peewee_migrate.router import void

    migrate, _ = _functions(directory, name)
    if migrate is void:
        raise MigrationError(f"{name} has no migrate()")
    return migrate


def has_rollback(directory: Path, name: str) -> bool:
    """Return whether a migration can be undone; peewee-migrate takes one that cannot for undone."""
    from peewee_migrate.router import void

    return _functions(directory, name)[1] is not void


def require_rollbacks(directory: Path, names: Iterable[str]) -> None:
    """Raise MigrationError if one of the migrations has no `rollback`, or cannot be read."""
    if without := [name for name in names if not has_rollback(directory, name)]:
        raise MigrationError(f"{', '.join(without)} has no rollback()")


def _functions(directory: Path, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    from peewee_migrate.router import Router

    try:
        migrate, rollback = Router(_Recorder(), directory).read(name)
    except Exception as error:
        raise MigrationError(f"{name} cannot be read: {type(error).__name__}: {error}") from error
    return migrate, rollback


def _literal(value: object) -> str:
    if isinstance(value, list):  # adapt() would encode its texts as Latin-1
        return f"ARRAY[{', '.join(map(_literal, value))}]" if value else "'{}'"
    adapted = adapt(value)
    if isinstance(adapted, QuotedString):
        adapted.encoding = "utf-8"
    return str(adapted.getquoted().decode())

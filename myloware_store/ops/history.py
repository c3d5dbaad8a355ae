"""The available migrations, those of a database, and whether a file changed after it was applied."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.core.errors import InvalidInput, MigrationError, MissingObject, SchemaMismatch
from myloware_store.db.database import StoreDatabase
from myloware_store.ops.target import opened
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ENCODING",
    "HISTORY_TABLE",
    "MigrationStatus",
    "available_migrations",
    "file_digest",
    "history_name",
    "history_query",
    "history_table",
    "make_status",
    "migrations_folder",
    "migrations_path",
    "require_current",
    "require_database",
    "require_named",
    "status",
    "target_settings",
]

HISTORY_TABLE = "myloware_migratehistory"
"""The table of applied migrations; not peewee-migrate's default, which a service may use for its own."""

ENCODING = (
    "the database's encoding is {}, but documents are Unicode: create a database with ENCODING 'UTF8' TEMPLATE"
    " template0, and move the data with pg_dump"
)

_THEIR_HISTORY = "migratehistory"
"""peewee-migrate's default."""

_TABLE = re.compile(r"^MIGRATE_TABLE\s*=\s*(?:[\"'](\w+)[\"']|HISTORY_TABLE\b)", re.MULTILINE)
_FILE = re.compile(r"\d{3}_[^.]+\.py")


@attrs.frozen
class MigrationStatus:
    """How a database's migrations compare with those of this version of the library.

    Attributes:
        applied: Those that the database has, in the order they were applied.
        pending: Those that it lacks.
        unknown: Those that it has but this version does not know: it is newer, or the file was deleted.
        edited: Those whose file changed after it was applied.
        compatible: Those of `unknown` that say that this version works on, by `BACKWARD_COMPATIBLE = True`.
    """

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    edited: tuple[str, ...]
    compatible: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        """Whether the database has exactly this version's migrations."""
        return not (self.pending or self.unknown or self.edited)  # late ones are pending

    @property
    def late(self) -> tuple[str, ...]:
        """The pending ones that sort before one that is applied."""
        return tuple(name for name in self.pending if name < max(self.applied, default=""))

    def pending_to(self, name: str | None) -> tuple[str, ...]:
        """Return the pending migrations up to one of them, by default all.

        Raises:
            MigrationError: Later ones than that are applied.
        """
        if name is None:
            return self.pending
        if later := [applied for applied in self.applied if applied > name]:
            raise MigrationError(f"{', '.join(later)} is applied already: `migrate` does not undo it, `rollback` does")
        return tuple(pending for pending in self.pending if pending <= name)

    def require_known(self) -> None:
        """Raise SchemaMismatch if the database has migrations that this version does not know."""
        _require_none(self.unknown)

    def require_sound(self) -> None:
        """Raise SchemaMismatch as `require_known` does, and MigrationError if a file was edited or comes too late."""
        self.require_known()
        if self.edited:
            raise MigrationError(
                f"{', '.join(self.edited)} changed after it was applied: restore the original file and write a new"
                " migration, or, if you don't need the data, run `myloware-store reset`"
            )
        if self.late:
            raise MigrationError(
                f"{', '.join(self.late)} would run after {max(self.applied)}, which sorts behind: elsewhere they ran in"
                " the other order; give the new files higher numbers"
            )


def _require_none(unknown: Sequence[str]) -> None:
    if unknown:
        raise SchemaMismatch(
            f"the database has migrations that this version of myloware-store does not know"
            f" ({', '.join(unknown)}): it was migrated by a newer version, or their files were deleted;"
            " upgrade myloware-store"
        )


def migrations_path() -> Path:
    """Return the folder of the installed migrations, for `pw_migrate migrate --directory`."""
    spec = importlib.util.find_spec("myloware_store_migrations")
    if spec is None or not spec.submodule_search_locations:
        raise MigrationError("the package myloware_store_migrations is missing: reinstall myloware-store")
    return Path(next(iter(spec.submodule_search_locations)))


def migrations_folder(directory: Path | str | None) -> Path:
    """Return a folder of migrations, by default the installed one.

    Raises:
        InvalidInput: It is not a path.
        MigrationError: It contains no migration.
    """
    if directory is not None and not isinstance(directory, Path | str):
        raise InvalidInput(f"directory must be a path, not {type(directory).__name__}")
    folder = migrations_path() if directory is None else Path(directory)
    try:
        if available_migrations(folder):
            return folder
        reason = ""
    except (OSError, ValueError) as error:
        reason = f": {error.strerror if isinstance(error, OSError) else error}"
    raise MigrationError(f"there is no migration in {str(folder)[-255:]!r}{reason}")


def require_named(directory: Path, name: object) -> None:
    """Raise InvalidInput if that is neither None nor a migration of the folder."""
    known = available_migrations(directory)
    if name is not None and name not in known:
        raise InvalidInput(f"there is no migration {name!s:.255} in {directory}; there are: {', '.join(known)}")


def target_settings(target: Settings | StoreDatabase) -> Settings:
    """Return the settings of a database or of its settings; raise InvalidInput for anything else."""
    if isinstance(target, StoreDatabase):
        return target.settings
    if not isinstance(target, Settings):
        raise InvalidInput(f"target must be Settings or a StoreDatabase, not {type(target).__name__}")
    return target


def require_database(database: object) -> None:
    """Raise InvalidInput if that is not a database but, for example, a URL."""
    if not isinstance(database, StoreDatabase):
        raise InvalidInput(f"database must be a StoreDatabase, such as store.db, not {type(database).__name__}")


def available_migrations(directory: Path) -> tuple[str, ...]:
    """Return the names of the migrations in a folder, in their order."""
    return tuple(sorted(path.stem for path in directory.glob("*.py") if _FILE.fullmatch(path.name)))


def file_digest(path: Path) -> str:
    """Return the digest of a migration's text, independent of the checkout's line endings."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()


def status(target: Settings | StoreDatabase, *, directory: Path | str | None = None) -> MigrationStatus:
    """Compare a database's migrations with those of this version, without locking or writing anything.

    Args:
        target: The database, or the settings of one whose server runs.
        directory: The folder of migrations, by default the installed one.

    Raises:
        ConnectionFailed: The server cannot be reached.
    """
    settings, folder = target_settings(target), migrations_folder(directory)
    if isinstance(target, StoreDatabase):
        return make_status(_history(target, folder), folder)
    with opened(settings) as database:
        return make_status(_history(database, folder), folder)


def require_current(database: StoreDatabase, *, directory: Path | str | None = None) -> None:
    """Raise SchemaMismatch unless the database has this version's migrations; takes one small query.

    It may also have those of newer versions that are backward compatible, so that services of this version can be
    restarted until all are of the new one.

    Args:
        database: The database.
        directory: The folder of migrations, by default the installed one.

    Raises:
        SchemaMismatch: It is not migrated, lacks migrations, has others of a newer version, or is not UTF-8.
        ConnectionFailed: The server cannot be reached.
    """
    folder = migrations_folder(directory)
    known = available_migrations(folder)
    history = _history(database, folder)
    applied = {name for name, _, _ in history}
    pending = [name for name in known if name not in applied]
    _require_none([name for name, _, compatible in history if name not in known and not compatible])
    if pending:
        lacks = f"lacks {', '.join(pending)}" if applied else "is not migrated"
        raise SchemaMismatch(f"the database {database.settings.target} {lacks}: run `myloware-store migrate`")
    if database.server_encoding not in {"UTF8", None}:
        raise SchemaMismatch(ENCODING.format(database.server_encoding))


def history_name(directory: Path) -> str:
    """Return the name of the table in which a folder's migrations are recorded.

    As for `pw_migrate`, it is the MIGRATE_TABLE of the folder's `conf.py`, by default `migratehistory`.
    """
    conf = directory / "conf.py"
    found = _TABLE.search(conf.read_text(encoding="utf-8")) if conf.is_file() else None
    return (found[1] or HISTORY_TABLE) if found else _THEIR_HISTORY


def history_table(settings: Settings, name: str = HISTORY_TABLE) -> str:
    """Return the name of a table of applied migrations, qualified if the settings name a schema."""
    # A separate schema must not count as migrated because `public`, next on its path, is.
    schema = "" if settings.schema == "public" else '"{}".'.format(settings.schema.replace('"', '""'))
    return schema + name


def history_query(settings: Settings, name: str = HISTORY_TABLE) -> str:
    """Return the SELECT of name, digest and compatibility of the applied migrations; run it with parameters."""
    table = history_table(settings, name).replace("%", "%%")  # the driver would read % as a placeholder
    # A table that peewee-migrate has made has only the name.
    return (
        "SELECT name, to_jsonb(h) ->> 'digest', COALESCE((to_jsonb(h) ->> 'backward_compatible')::boolean, false)"  # noqa: S608
        f" FROM {table} AS h ORDER BY id"
    )


def make_status(history: Iterable[tuple[str, str | None, bool]], directory: Path) -> MigrationStatus:
    """Compare the rows of `history_query` with a folder of migrations."""
    rows = list(history)
    known = available_migrations(directory)
    applied = tuple(name for name, _, _ in rows)
    return MigrationStatus(
        applied=applied,
        pending=tuple(name for name in known if name not in applied),
        unknown=tuple(name for name in applied if name not in known),
        edited=tuple(
            name
            for name, digest, _ in rows
            if digest is not None and name in known and digest != file_digest(directory / f"{name}.py")
        ),
        compatible=tuple(name for name, _, compatible in rows if compatible and name not in known),
    )


def _history(database: StoreDatabase, directory: Path) -> list[tuple[str, Any, bool]]:
    query = history_query(database.settings, history_name(directory))
    try:
        rows: list[tuple[str, Any, bool]] = database.execute_sql(query, reads=True).fetchall()
    except MissingObject as fault:
        if fault.sqlstate not in {"42P01", "3F000"}:
            raise
        return []
    return rows

"""The database for `pw_migrate` (see `migrations/conf.py`): its errors are one line, not a traceback."""

from __future__ import annotations

import atexit
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from peewee_migrate.logs import logger

from myloware_store.core.errors import MigrationError, StoreError
from myloware_store.ops.history import MigrationStatus, available_migrations, migrations_path, require_named
from myloware_store.ops.migration_database import Limits, MigrationDatabase, explain
from myloware_store.ops.planning import require_migrate, require_rollbacks
from myloware_store.ops.target import reach
from myloware_store.settings import Settings

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping

    from psycopg2.extensions import connection

__all__ = ["command_database"]


def command_database() -> MigrationDatabase:
    """Return the database for the running `pw_migrate` command, locked from its first statement on.

    peewee-migrate runs conf.py for each of its commands, so this also refuses harmful commands.

    Raises:
        click.ClickException: The command cannot run with the settings, or would do harm.
    """
    context = click.get_current_context(silent=True)
    command = (context.info_name or "") if context else ""
    options: Mapping[str, Any] = context.params if context else {}
    directory = Path(options.get("directory") or migrations_path())
    logger.addFilter(_without_traceback)
    with _told():
        _refuse_harm(command, options, directory)
        settings = Settings.load(options.get("database"))
        if command == "rollback" and settings.production:
            raise MigrationError(
                "MYLOWARE_ENV is production: a rollback drops tables with their data; unset it to continue"
            )
        return _CommandDatabase(settings, directory, limits=Limits.load(), check=_check(command, options, directory))


class _CommandDatabase(MigrationDatabase):
    """A database that starts the embedded server if the settings name it, and is open until the process ends."""

    def __init__(self, settings: Settings, directory: Path, **options: Any) -> None:
        super().__init__(settings, directory, **options)
        # `pw_migrate` prints this.
        self.database = "myloware" if settings.embedded else settings.target

    def execute_sql(self, sql: str, params: Any = None, named_cursor: object = None, *, reads: bool = False) -> Any:
        with _told():
            return super().execute_sql(sql, params, named_cursor, reads=reads)

    def begin(self, isolation_level: Any = None) -> None:
        with _told():
            super().begin(isolation_level)

    def commit(self) -> None:
        with _told():
            super().commit()

    def open_session(self) -> connection:
        held = ExitStack()
        atexit.register(held.close)
        self.settings = held.enter_context(reach(self.settings, create=True)).settings
        opened = super().open_session()
        atexit.register(self.close_all)
        return opened


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise click.ClickException(str(explain(error))) from None


def _without_traceback(record: logging.LogRecord) -> bool:
    """Let peewee-migrate log the failed migration without a traceback: the error itself says why."""
    if record.exc_info and isinstance(record.exc_info[1], click.ClickException):
        record.exc_info = None
    return True


def _refuse_harm(command: str, options: Mapping[str, Any], directory: Path) -> None:
    if command == "merge":
        raise MigrationError("`merge` replaces the migrations with others that lose types, defaults and constraints")
    if command == "create":
        if options.get("auto"):
            raise MigrationError("`--auto` loses types, defaults and constraints: use `myloware-store makemigration`")
        return
    if not available_migrations(directory):
        raise MigrationError(
            f"there is no migration in {directory}: name their folder with --directory"
            " (`myloware-store migrations-path` prints it)"
        )
    require_named(directory, options.get("name") or None)


def _check(command: str, options: Mapping[str, Any], directory: Path) -> Callable[[MigrationStatus], None]:
    def check(found: MigrationStatus) -> None:
        if command == "migrate":
            found.require_sound()
            for name in found.pending:
                require_migrate(directory, name)
        if command == "rollback":
            found.require_known()
            if not 0 < options["count"] <= len(found.applied):
                raise MigrationError(f"cannot undo {options['count']}: {len(found.applied)} are applied")
            require_rollbacks(directory, found.applied[-options["count"] :])

    return check

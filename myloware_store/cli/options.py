"""The options that the commands share: which database, and how to report and ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.settings import Settings

__all__ = [
    "Given",
    "example",
    "json_option",
    "name_option",
    "pass_given",
    "server_option",
    "server_settings",
    "where_options",
    "yes_option",
]


_CALL_TIMEOUT = 300.0  # seconds; no statement of a command takes so long, except those that lift it


@attrs.define
class Given:
    """The options for the database and the output, given before or after the command's name."""

    url: str | None = None
    env_file: str | None = None
    json: bool = False

    def settings(self) -> Settings:
        """Read the settings of the database."""
        from myloware_store.core.errors import SettingsError
        from myloware_store.settings import Settings
        from myloware_store.settings.environment import DATABASE_VARIABLES, read_file, read_variables

        if self.env_file is None:
            settings = Settings.load(self.url)
            if self.url is None:
                _note_ignored_variables()
            return _bounded(settings)
        # A file that was named takes precedence over the environment, which takes precedence over `.env`.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
        values = read_variables(environ, read_file(self.env_file), named=self.url is not None)
        if self.url is None and not any(name in values for name in DATABASE_VARIABLES):
            raise SettingsError(f"{self.env_file} names no database: set DATABASE_URL, or DATABASE_HOST and so on")
        return _bounded(Settings.load(self.url, environ=values, dotenv=None))

    def embedded(self) -> Settings | None:
        """Read the settings of the embedded server that is named, else of this folder's.

        Returns:
            The settings, or None if an option names another database.
        """
        from myloware_store.core.errors import SettingsError
        from myloware_store.settings import Settings
        from myloware_store.settings.environment import DATABASE_VARIABLES

        named = self.url is not None or self.env_file is not None
        try:
            settings = self.settings()
            if settings.embedded or named:
                return settings if settings.embedded else None
            configured = True
        except SettingsError:  # such as production without a database
            if named:
                raise
            configured = Path(".env").exists() or any(os.environ.get(name) for name in DATABASE_VARIABLES)
        if configured:
            click.echo("note: using the embedded server of this folder, not the configured database", err=True)
        return Settings.load("embedded:")


def _bounded(settings: Settings) -> Settings:
    """Give the command's calls a deadline, unless the settings have one."""
    from myloware_store.db.deadlines import call_timeout

    click.get_current_context().with_resource(call_timeout(settings.call_timeout or _CALL_TIMEOUT))
    return settings


def _note_ignored_variables() -> None:
    from myloware_store.settings.environment import DATABASE_VARIABLES, put_aside

    if names := put_aside(os.environ, ".env"):
        real = ", ".join(name for name in DATABASE_VARIABLES if os.environ.get(name, "").strip())
        click.echo(f"note: ignoring {', '.join(names)} of .env: the environment sets {real}", err=True)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value not in (None, False):
        setattr(context.ensure_object(Given), parameter.name or "", value)


json_option = click.option(
    "--json", is_flag=True, callback=_keep, expose_value=False, help="Print one JSON object instead of text."
)
_WHERE = (
    click.option(
        "--url",
        metavar="URL",
        callback=_keep,
        expose_value=False,
        help="Another database: a libpq URL, or embedded:FOLDER. Other users of this machine can read command lines:"
        " put passwords in DATABASE_URL or in a file.",
    ),
    click.option(
        "--env-file",
        type=click.Path(exists=True, dir_okay=False),
        callback=_keep,
        expose_value=False,
        help="Read DATABASE_URL and the other variables from this file, not from the environment and .env.",
    ),
)


def where_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the database and the output."""
    for option in (json_option, *reversed(_WHERE)):
        function = option(function)
    return function


def example(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)  # \b keeps click from wrapping the lines


server_option = click.option(
    "--server",
    metavar="URL",
    help="A server on which the role may create a scratch database; by default an embedded one.",
)


def server_settings(url: str | None) -> Settings | None:
    """Return the settings of the server for scratch databases, if one is named."""
    from myloware_store.settings import Settings

    return None if url is None else Settings.load(url)


pass_given = click.make_pass_decorator(Given, ensure=True)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
name_option = click.option(
    "--database", metavar="NAME", help="The database's name; required if its server is not on this machine."
)

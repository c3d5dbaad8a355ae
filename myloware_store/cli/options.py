"""The options that the commands share: which database is meant, and how to report and ask."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs
import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.settings import Settings

__all__ = ["Given", "example", "json_option", "name_option", "pass_given", "where_options", "yes_option"]


@attrs.define
class Given:
    """What was said of the database and the output, before the command's name or after it."""

    url: str | None = None
    env_file: str | None = None
    json: bool = False

    def settings(self) -> Settings:
        """Read the settings of the database that is meant."""
        from myloware_store.core.errors import SettingsError
        from myloware_store.settings import Settings
        from myloware_store.settings.environment import DATABASE_VARIABLES, read_variables

        if self.env_file is None:
            settings = Settings.load(self.url)
            if self.url is None:
                _tell_what_was_put_aside()
            return settings
        # The file was named: it goes before the environment, which otherwise goes before `.env`.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
        values = read_variables(environ, self.env_file, named=self.url is not None)
        if self.url is None and not any(name in values for name in DATABASE_VARIABLES):
            raise SettingsError(f"{self.env_file} names no database: write DATABASE_URL, or DATABASE_HOST and its kin")
        return Settings.load(self.url, environ=values, dotenv=None)

    def embedded(self) -> Settings | None:
        """Read the settings of the embedded server that is meant, or of this folder's where none is named.

        Returns:
            The settings, or None where an option names another database.
        """
        from myloware_store.core.errors import SettingsError
        from myloware_store.settings import Settings

        named = self.url is not None or self.env_file is not None
        try:
            settings = self.settings()
        except SettingsError:
            if named:
                raise
            return Settings.load("embedded:")
        return settings if settings.embedded else None if named else Settings.load("embedded:")


def _tell_what_was_put_aside() -> None:
    from myloware_store.settings.environment import DATABASE_VARIABLES, put_aside

    if names := put_aside(os.environ, ".env"):
        real = ", ".join(name for name in DATABASE_VARIABLES if os.environ.get(name, "").strip())
        click.echo(f"note: {real} of the environment puts the file's {', '.join(names)} aside (.env)", err=True)


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
        help="Another database: a libpq URL, or embedded:FOLDER. Others on this machine can read a command line: put"
        " passwords in DATABASE_URL or in a file.",
    ),
    click.option(
        "--env-file",
        type=click.Path(exists=True, dir_okay=False),
        callback=_keep,
        expose_value=False,
        help="Read DATABASE_URL and its kin from this file, not from the environment and .env.",
    ),
)


def where_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which database, and how to report."""
    for option in (json_option, *reversed(_WHERE)):
        function = option(function)
    return function


def example(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)  # \b keeps click from folding the lines


pass_given = click.make_pass_decorator(Given, ensure=True)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
name_option = click.option(
    "--database", metavar="NAME", help="Its name; needed where its server is not on this machine."
)

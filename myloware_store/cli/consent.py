"""Asks before it adds sample data to a database or destroys data, and refuses in production."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import click

from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.target import opened, reach

if TYPE_CHECKING:
    from myloware_store.settings import Settings

__all__ = [
    "DESTRUCTION",
    "PRUNING",
    "ROLLBACK",
    "SAMPLE_DATA",
    "Declined",
    "Refused",
    "refuse_production",
    "require_consent",
    "require_name",
]

SAMPLE_DATA = "add sample data to"
EMBEDDED_DATABASE = "myloware"
ROLLBACK = "undo {}, with the data in everything that it made, in"
DESTRUCTION = "destroy all of the store's data in"
PRUNING = "delete all lines of the audit trail that were sealed before {:%Y-%m-%d %H:%M %Z} from"


class Declined(click.ClickException):
    """The user declined."""

    exit_code = 1


class Refused(click.ClickException):
    """The command refused to run with these options, or on this database."""

    exit_code = 2


def refuse_production(settings: Settings, what: str) -> None:
    """Raise Refused if MYLOWARE_ENV is production."""
    if settings.production:
        raise Refused(f"MYLOWARE_ENV is production: refusing to {what} this database")


def require_consent(settings: Settings, what: str, *, yes: bool, database: str | None) -> None:
    """Ask whether to continue, and for the database's name if its server is not on this machine.

    Args:
        settings: The database; the embedded server need not run, and is not created for the question.
        what: The planned change, such as "add sample data to".
        yes: Continue without asking.
        database: The database's name, if given as an option.

    Raises:
        Declined: The answer is no, or another name.
        Refused: `yes` without the name of a remote database, or the option has another name.
        ConnectionFailed: The server cannot be reached.
    """
    refuse_production(settings, what)
    name, local = _identity(settings)
    place = f"the embedded database in {settings.embedded_home}" if settings.embedded else settings.target
    if database is not None and database != name:
        raise Refused(f"the database is {name}, not {database}: nothing was changed")
    if not local and database is None:
        if yes:
            raise Refused(f"{place} is not on this machine: add `--database {name}` to continue")
        answer = _ask(f"{what[0].upper()}{what[1:]} {place}? To continue, type the database's name")
        if answer != name:
            raise Declined(f"the database is {name}, not {answer}: nothing was changed")
    elif not yes and _ask(f"{what[0].upper()}{what[1:]} {place}? [y/N]").lower() not in {"y", "yes"}:
        raise Declined("nothing was changed")


def require_name(settings: Settings, what: str, *, yes: bool, database: str | None) -> None:
    """Ask for the database's name, wherever its server is; production is not refused.

    Args:
        settings: The database.
        what: The planned change.
        yes: Continue without asking; the name must be given as an option.
        database: The database's name, if given as an option.

    Raises:
        Declined: The answer is another name.
        Refused: `yes` without the name, or the option has another name.
        ConnectionFailed: The server cannot be reached.
    """
    name, _ = _identity(settings)
    if database is None and yes:
        raise Refused(f"add `--database {name}` to continue without a question")
    if database is not None and database != name:
        raise Refused(f"the database is {name}, not {database}: nothing was changed")
    if database is None or not yes:
        place = f"the embedded database in {settings.embedded_home}" if settings.embedded else settings.target
        answer = _ask(f"{what[0].upper()}{what[1:]} {place}? To continue, type the database's name ({name})")
        if answer != name:
            raise Declined(f"the database is {name}, not {answer}: nothing was changed")


def _ask(question: str) -> str:
    answer: str = click.prompt(question, default="", show_default=False, err=True)
    return answer.strip()


def _identity(settings: Settings) -> tuple[str, bool]:
    """Return the database's name, and whether it is on this machine, as the connection reports them.

    The settings may leave either to libpq, which reads PGHOST, PGDATABASE and service files.
    """
    if settings.embedded and not EmbeddedServer.made(settings.embedded_home):
        return EMBEDDED_DATABASE, True
    with reach(settings) as target, opened(target.settings) as database, database.unit():
        info = database.connection().info
        address = {"hostaddr": info.dsn_parameters.get("hostaddr", "")}
        return info.dbname, attrs.evolve(settings, host=info.host or "", params=address).local

"""The variables that name the database, from the environment and from a `.env` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from myloware_store.core.errors import SettingsError
from myloware_store.settings.url import check_text

__all__ = ["DATABASE_VARIABLES", "left_empty", "put_aside", "read_file", "read_variables"]

DATABASE_VARIABLES = (
    "DATABASE_URL",
    "DATABASE_HOST",
    "DATABASE_PORT",
    "DATABASE_NAME",
    "DATABASE_USER",
    "DATABASE_PASSWORD",
)
"""The variables that name the database: all of them come from the environment, or all from the file."""

_OTHER = (
    *("MYLOWARE_ENV", "MYLOWARE_TENANT", "MYLOWARE_UPKEEP", "MYLOWARE_CALL_TIMEOUT"),
    *("MYLOWARE_SECRET_KEYS", "MYLOWARE_SECRET_NAMES"),
)


def read_variables(environ: Mapping[str, str], filed: Mapping[str, str], *, named: bool = False) -> dict[str, str]:
    """Return our variables that are set; the environment overrides the file.

    Args:
        environ: The environment.
        filed: The variables of the file.
        named: Whether the database is named elsewhere, so that the file's database variables are ignored.

    Raises:
        SettingsError: A value is not text.
    """
    real = _real(environ)
    named = named or any(name in real for name in DATABASE_VARIABLES)
    group = _OTHER if named else (*DATABASE_VARIABLES, *_OTHER)
    values = {**{name: text for name in group if (text := filed.get(name, "")).strip()}, **real}
    return {name: check_text(name, value, control=name != "DATABASE_HOST") for name, value in values.items()}


def left_empty(environ: Mapping[str, str], filed: Mapping[str, str]) -> tuple[str, ...]:
    """Return the database variables that are set and empty, as a missing secret leaves them."""
    return tuple(
        name for name in DATABASE_VARIABLES if "" in {each.get(name, "-").strip() for each in (environ, filed)}
    )


def put_aside(environ: Mapping[str, str], dotenv: Path | str | None) -> tuple[str, ...]:
    """Return the file's database variables that are ignored because the environment sets others of the group."""
    real = _real(environ)
    if "DATABASE_URL" in real or not any(name in real for name in DATABASE_VARIABLES):
        return ()
    filed = read_file(dotenv)
    return tuple(name for name in DATABASE_VARIABLES if filed.get(name, "").strip() and name not in real)


def _real(environ: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(environ, Mapping):
        raise SettingsError(f"environ must be a mapping of text to text, not {type(environ).__name__}")
    found = {name: environ[name] for name in (*DATABASE_VARIABLES, *_OTHER) if environ.get(name) is not None}
    return {name: value for name, value in found.items() if not isinstance(value, str) or value.strip()}


def read_file(dotenv: Path | str | None) -> dict[str, str]:
    """Return the variables of a file, or none without one.

    Args:
        dotenv: The file, or None. A missing file or a folder counts as an empty file.

    Raises:
        SettingsError: The file cannot be read.
    """
    if dotenv is None:
        return {}
    if not isinstance(dotenv, str | Path):
        raise SettingsError(f"dotenv must be a path, not {type(dotenv).__name__}")
    from dotenv import dotenv_values

    try:
        values = dotenv_values(dotenv, encoding="utf-8-sig")
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        return {name: value for name, value in values.items() if value is not None}
    raise SettingsError(f"{dotenv} cannot be read: {reason}")

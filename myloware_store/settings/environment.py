"""The variables that name the database, from the environment and from a `.env` file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from myloware_store.core.errors import SettingsError
from myloware_store.settings.url import check_text

if TYPE_CHECKING:
    from dotenv.parser import Binding

__all__ = ["DATABASE_VARIABLES", "left_empty", "put_aside", "read_variables"]

DATABASE_VARIABLES = (
    "DATABASE_URL",
    "DATABASE_HOST",
    "DATABASE_PORT",
    "DATABASE_NAME",
    "DATABASE_USER",
    "DATABASE_PASSWORD",
)
"""The group that names the database: it is taken from the environment or from the file, never from both."""

_OTHER = ("MYLOWARE_ENV", "MYLOWARE_TENANT")
_SINGLE_QUOTED = re.compile(r"[^=]*=[^\S\r\n]*'")


def read_variables(environ: Mapping[str, str], dotenv: Path | str | None, *, named: bool = False) -> dict[str, str]:
    """Return those of our variables that are set, the environment's before the file's.

    Args:
        environ: The environment.
        dotenv: The file, or None. One that is not there is an empty one; a folder of that name is none of ours.
        named: Whether the database is named elsewhere, so that the file need not tell.

    Raises:
        SettingsError: One of them is not text, or the file cannot be read.
    """
    real = _real(environ)
    named = named or any(name in real for name in DATABASE_VARIABLES)
    group = _OTHER if named else (*DATABASE_VARIABLES, *_OTHER)
    filed = _read_file(environ, dotenv, group)
    values = {**{name: text for name in group if (text := filed.get(name, "")).strip()}, **real}
    return {name: check_text(name, value, control=name != "DATABASE_HOST") for name, value in values.items()}


def left_empty(environ: Mapping[str, str], dotenv: Path | str | None) -> tuple[str, ...]:
    """Return the variables that would name a database and are set to nothing, as a missing secret leaves them."""
    filed = _read_file(environ, dotenv, ())
    return tuple(
        name for name in DATABASE_VARIABLES if "" in {each.get(name, "-").strip() for each in (environ, filed)}
    )


def put_aside(environ: Mapping[str, str], dotenv: Path | str | None) -> tuple[str, ...]:
    """Return what the file says of the database and the environment, which names a part of it, leaves unsaid."""
    real = _real(environ)
    if "DATABASE_URL" in real or not any(name in real for name in DATABASE_VARIABLES):
        return ()
    filed = _read_file(environ, dotenv, ())
    return tuple(name for name in DATABASE_VARIABLES if filed.get(name, "").strip() and name not in real)


def _real(environ: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(environ, Mapping):
        raise SettingsError(f"environ must be a mapping of text to text, not {type(environ).__name__}")
    found = {name: environ[name] for name in (*DATABASE_VARIABLES, *_OTHER) if environ.get(name) is not None}
    return {name: value for name, value in found.items() if not isinstance(value, str) or value.strip()}


def _read_file(environ: Mapping[str, str], dotenv: Path | str | None, needed: tuple[str, ...]) -> dict[str, str]:
    if dotenv is None:
        return {}
    if not isinstance(dotenv, str | Path):
        raise SettingsError(f"dotenv must be a path, not {type(dotenv).__name__}")
    path = Path(dotenv)
    try:
        if not (path.is_file() or path.is_fifo()):
            return {}
        with path.open(encoding="utf-8-sig") as lines:
            from dotenv.parser import parse_stream

            bindings = list(parse_stream(lines))
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        _require_readable(bindings, needed, path)
        return _values(bindings, environ)
    raise SettingsError(f"{str(path)[-255:]} cannot be read: {reason}")


def _require_readable(bindings: list[Binding], needed: tuple[str, ...], path: Path) -> None:
    """Refuse what dotenv would leave out in silence: another database would be used than the one that is meant."""
    names = re.compile(rf"\b(?:{'|'.join(needed)})\b")
    for binding in bindings if needed else ():
        text, line = binding.original
        # `NAME:value` is a name to dotenv, all of it.
        mistaken = (binding.key or "").startswith(tuple(f"{name}:" for name in needed))
        if mistaken or (binding.error and names.search(text)):
            blank = len(text) - len(text.lstrip())
            line += len(re.findall(r"\r\n|\n|\r", text[:blank]))
            raise SettingsError(f"{path}, line {line}: cannot be read; write NAME='value', and a quote in it as \\'")


def _values(bindings: list[Binding], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the file's values, `${NAME}` filled in but between single quotes, as in a shell."""
    from dotenv.variables import parse_variables

    values: dict[str, str] = {}
    for key, value, original, _ in bindings:
        if key is None or value is None:
            continue
        if _SINGLE_QUOTED.match(original.string):
            values[key] = value
        else:
            known = {**environ, **values}
            values[key] = "".join(atom.resolve(known) for atom in parse_variables(value))
    return values

"""Checks of arguments of public calls. Each returns the value in one form, or raises InvalidInput."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import MAX_NAME_CHARS, is_uuid, require_text, require_uuid, shown

__all__ = [
    "as_callable",
    "as_choice",
    "as_count",
    "as_enum",
    "as_flag",
    "as_list",
    "as_name",
    "as_number",
    "as_object",
    "as_seconds",
    "as_text",
    "as_time",
    "as_uuid",
    "as_uuids",
    "known_keys",
    "require_object",
]

_Label = TypeVar("_Label", bound=StrEnum)
_MAX_COUNT = 100_000
_MAX_SECONDS = 10 * 365 * 86400.0


def as_list(values: Any, name: str, *kinds: type) -> list[Any]:
    """Return the elements, of these kinds, of an iterable as a list. A text, a mapping or else raises InvalidInput."""
    try:
        iterator = None if isinstance(values, str | bytes | Mapping) else iter(values)
    except TypeError:  # also an array without dimensions
        iterator = None
    if iterator is None:
        remedy = f"; write [{name.removesuffix('s')}]" if isinstance(values, kinds) else ""
        raise InvalidInput(f"{name}: {type(values).__name__} is not a list{remedy}")
    return list(iterator)


def as_callable(value: Any, name: str) -> Any:
    """Return what can be called unchanged; raise InvalidInput for anything else."""
    if not callable(value):
        raise InvalidInput(f"{name}: {type(value).__name__} cannot be called")
    return value


def as_flag(value: Any, name: str) -> bool:
    """Return a boolean, or raise InvalidInput."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{name}: {shown(value)} is not a boolean")
    return value


def as_name(value: Any, name: str) -> str:
    """Return a name (a text of 1 to 255 characters, not blank), or raise InvalidInput."""
    return require_text(value, name, blank=False, max_chars=MAX_NAME_CHARS)


def as_enum(value: Any, enum: type[_Label], name: str) -> _Label:
    """Return the member for a label or a member, or raise InvalidInput."""
    try:
        if isinstance(value, enum) or (isinstance(value, str) and not isinstance(value, StrEnum)):
            return enum(value)
    except ValueError:
        pass
    raise InvalidInput(f"{name}: {shown(value)} is not one of {', '.join(enum)}")


def as_choice(value: Any, choices: Iterable[str], name: str) -> str:
    """Return a text that is one of the choices, or raise InvalidInput."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(f"{name}: {shown(value)} is not one of {', '.join(known)}")
    return value


def as_uuid(value: Any, name: str) -> uuid.UUID:
    """Return the UUID for a UUID, its text, or a row with that `id`, or raise InvalidInput."""
    return require_uuid(getattr(value, "id", value), name)


def as_uuids(values: Any, name: str) -> list[str]:
    """Return the distinct ids as texts for an array parameter, or raise InvalidInput."""
    given = [values] if isinstance(values, str) or is_uuid(values) else as_list(values, name)
    return list(dict.fromkeys(str(as_uuid(value, name)) for value in given))


def as_count(value: Any, name: str, *, least: int = 1, most: int = _MAX_COUNT) -> int:
    """Return an integer within bounds, or raise InvalidInput."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInput(f"{name}: {shown(value)} is not a whole number from {least} to {most}")
    return value


def as_number(value: Any, name: str, *, least: float, most: float) -> float:
    """Return a number within bounds, or raise InvalidInput."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidInput(f"{name}: {shown(value)} is not a number from {least:,g} to {most:,.0f}")
    return float(value)


def as_seconds(value: Any, name: str, *, least: float = 0.0) -> float:
    """Return a duration in seconds, from `least` to ten years, or raise InvalidInput."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= _MAX_SECONDS:
        raise InvalidInput(f"{name}: {shown(value)} is not a number of seconds from {least:g} to {_MAX_SECONDS:g}")
    return float(value)


def as_time(value: Any, name: str) -> str:
    """Return the text in ISO 8601 of an aware time or of such a text, or raise InvalidInput."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidInput(f"{name}: {shown(value)} is not a time with an offset, such as 2026-01-31T12:00:00Z")
    return moment.isoformat()


def as_text(value: Any, name: str) -> str | None:
    """Return a text of at most 1 MiB, or None for None, or raise InvalidInput."""
    return None if value is None else require_text(value, name)


def as_object(value: Any, name: str) -> dict[str, Any]:
    """Return a mapping as a dict, or an empty one for None, or raise InvalidInput."""
    return {} if value is None else require_object(value, name)


def require_object(value: Any, name: str) -> dict[str, Any]:
    """Return a mapping as a dict, or raise InvalidInput."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name}: {type(value).__name__} is not a JSON object")
    return dict(value)


def known_keys(row: Any, allowed: Sequence[str], name: str, kind: type) -> Mapping[str, Any]:
    """Return the row, given in place of an instance, if it is a mapping of allowed keys, or raise InvalidInput."""
    if not isinstance(row, Mapping):
        raise InvalidInput(f"{name}: {type(row).__name__} is neither a {kind.__name__} nor a mapping")
    unknown = [shown(key) for key in row if key not in allowed]
    if unknown:
        raise InvalidInput(f"{name}: unknown key {', '.join(unknown)}; the keys are {', '.join(allowed)}")
    return row

"""Checks of plain values before they reach SQL: text, names and JSON, with their limits."""

from __future__ import annotations

import math
import re
import reprlib
import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

import orjson
from uuid_utils.compat import uuid7

from myloware_store.core.errors import InvalidInput, SchemaMismatch

__all__ = [
    "MAX_JSON_BYTES",
    "MAX_NAME_CHARS",
    "MAX_TEXT_BYTES",
    "dump_json",
    "is_uuid",
    "new_ids",
    "read_label",
    "require_text",
    "require_uuid",
    "shown",
    "text_array",
    "uuid_array",
]

_Label = TypeVar("_Label", bound=StrEnum)

MAX_TEXT_BYTES = 1024 * 1024
"""The largest text, in bytes of UTF-8. The limit of a PostgreSQL tsvector is 1 MB."""

MAX_JSON_BYTES = 4 * 1024 * 1024
"""The largest JSON document, in bytes of UTF-8."""

MAX_NAME_CHARS = 255
"""The longest name, identifier or key, in characters. The limit of a row of a B-tree index is 2.7 KB."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80

_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_DEPTH_TOLD = 8
_LARGE = re.compile(rb'("(?:[^"\\]+|\\.)*")|-?[\d.]+e\+\d+')
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def shown(value: Any) -> str:
    """Return a short representation of a refused value for an error message. This never raises."""
    return _short.repr(value)


def read_label(enum: type[_Label], label: str) -> _Label:
    """Return the member for a label from the database.

    Raises:
        SchemaMismatch: The label is unknown; a newer version added it.
    """
    try:
        return enum(label)
    except ValueError:
        raise SchemaMismatch(
            f"{enum.__name__}: this version of myloware_store does not know {shown(label)}, which the database has;"
            " install the version that the database was migrated with"
        ) from None


def is_uuid(value: Any) -> bool:
    """Return whether a value is a UUID of the standard library or of another one, such as uuid_utils."""
    return isinstance(getattr(value, "hex", None), str)


def require_uuid(value: Any, name: str) -> uuid.UUID:
    """Return a UUID of any library, or its text, as `uuid.UUID`, or raise InvalidInput."""
    if isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(value.hex if is_uuid(value) else value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(f"{name}: {shown(value)} is not a UUID") from None


def uuid_array(ids: Iterable[uuid.UUID]) -> str:
    """Return UUIDs as an array literal: psycopg2 writes a list as an expression, which the server has to parse."""
    return "{" + ",".join([f"{each.int:032x}" for each in ids]) + "}"


def text_array(texts: Iterable[str]) -> str:
    """Return texts as an array literal, as `uuid_array` does."""
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def new_ids(count: int) -> str:
    """Return new UUIDs of version 7 as an array literal, in ascending order: one random start, then counted on.

    RFC 9562 (6.2, method 2) has counters in the random bits for ids that are made together.
    """
    first = uuid7().int & ~0xFFFFF
    return "{" + ",".join([f"{each:032x}" for each in range(first, first + count)]) + "}"


def require_text(
    value: Any,
    name: str,
    *,
    blank: bool = True,
    max_chars: int | None = None,
    max_bytes: int | None = MAX_TEXT_BYTES,
) -> str:
    """Return the text if PostgreSQL can store it unchanged.

    Args:
        value: The text.
        name: Its name for an error message.
        blank: Whether a text without visible characters is allowed.
        max_chars: The limit in characters, or None.
        max_bytes: The limit in bytes of UTF-8, or None.

    Raises:
        InvalidInput: It is not a `str`, is blank or too long, or contains a NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{name}: {type(value).__name__} is not text")
    if not blank and not value.strip():
        raise InvalidInput(f"{name}: the text is empty")
    if max_chars is not None and len(value) > max_chars:
        raise InvalidInput(f"{name}: {len(value)} characters are more than the {max_chars} allowed")
    if "\x00" in value:
        raise InvalidInput(f"{name}: the text holds a NUL character, which PostgreSQL cannot store")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{name}: the text holds a lone surrogate, which is not valid Unicode") from None
    if max_bytes is not None and size > max_bytes:
        raise InvalidInput(f"{name}: {size} bytes are more than the {max_bytes} allowed")
    return str(value)


def dump_json(value: Any, name: str, *, max_bytes: int | None = MAX_JSON_BYTES) -> str:
    """Return a value as JSON text that `jsonb` stores without changing its meaning.

    Numbers keep their value and type, except that -0.0 loses its sign.

    Raises:
        InvalidInput: A part is not JSON (NaN, infinities, keys that are not text, bytes, sets, dates, integers beyond
            64 bits) or contains a NUL or a lone surrogate, or the whole is larger than `max_bytes`.
    """
    try:
        data = orjson.dumps(value, option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise InvalidInput(f"{name}: not JSON: {error}{_place(value)}") from None
    if b"e+" in data:
        data = _LARGE.sub(_without_exponent, data)
    if max_bytes is not None and len(data) > max_bytes:
        raise InvalidInput(f"{name}: {len(data)} bytes of JSON are more than the {max_bytes} allowed")
    if _ESCAPED_NUL.search(data):
        raise InvalidInput(f"{name}: the JSON holds a NUL character, which PostgreSQL cannot store")
    # orjson writes NaN and the infinities as null.
    if b"null" in data and not _is_finite(value):
        raise InvalidInput(f"{name}: the JSON holds NaN or an infinite number")
    return data.decode()


def _without_exponent(found: re.Match[bytes]) -> bytes:
    """Write a large float with all digits and a fraction, because `jsonb` reads 1e+16 as an integer."""
    return found[1] or f"{Decimal(found[0].decode()):f}.0".encode()


def _place(value: Any) -> str:
    """Return the keys that lead to the first part that is not JSON, up to a depth."""
    place = ""
    for _ in range(_DEPTH_TOLD):
        parts = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
        )
        wrong = next(((key, part) for key, part in parts if not _is_json(part)), None)
        if wrong is None:
            break
        place += f"[{shown(wrong[0])}]"
        value = wrong[1]
    return f", at {place}" if place else ""


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value, option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError):
        return False
    return True


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return all(map(_is_finite, value))
    return True

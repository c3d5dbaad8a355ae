"""Columns of plain values. They never convert or round a value silently."""

from __future__ import annotations

import ipaddress
import math
import operator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

import peewee

from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import MAX_NAME_CHARS, MAX_TEXT_BYTES, require_text, shown

__all__ = [
    "CheckedBooleanField",
    "CheckedField",
    "CheckedFloatField",
    "CheckedIntegerField",
    "CheckedTextField",
    "InetField",
    "NameField",
    "ServerDefault",
    "TimestampField",
    "Typed",
    "as_instant",
    "field_name",
    "passes",
]

_V = TypeVar("_V")
_S = TypeVar("_S")
_ADDRESSES = ipaddress.IPv4Address | ipaddress.IPv6Address  # interfaces are subclasses
_INT4 = range(-(2**31), 2**31)
_YEARS = range(2, 9999)


class ServerDefault(peewee.SQL):
    """A `DEFAULT` clause."""

    def __init__(self, sql: str) -> None:
        super().__init__(f"DEFAULT {sql}")


def passes(value: Any) -> bool:
    """Return whether a value needs no check: None, or an SQL expression that is not an instance of a model."""
    return value is None or (isinstance(value, peewee.Node) and not isinstance(value, peewee.Model))


def field_name(field: peewee.Field) -> str:
    """Return the name of a field for an error message."""
    model = getattr(field, "model", None)
    return f"{model.__name__}.{field.name}" if model is not None else type(field).__name__


def as_instant(value: Any, name: str) -> datetime:
    """Return an aware datetime of the years 2 to 9998 in UTC, or raise InvalidInput."""
    instant = _aware(value, name)
    # Near the ends of Python's range, some time zones could not read the value.
    if instant.year not in _YEARS:
        raise InvalidInput(f"{name}: {shown(value)} is not of the years 2 to 9998")
    return instant.astimezone(UTC)  # PostgreSQL accepts only offsets below 16 hours


class Typed(Generic[_V, _S]):
    """Type a column for type checkers: a value on an instance, the field itself on the class.

    The parameters are the type of the value and the type that can be assigned, besides SQL expressions. A field class
    whose columns may be NULL has two overloads, so that `null=True` adds `None`.
    """

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> _V: ...
        def __get__(self, instance: object | None, owner: Any) -> Any: ...
        def __set__(self, instance: object, value: _S | peewee.Node) -> None: ...


class CheckedField(Typed[_V, _S], peewee.Field):
    """A field that checks its values, except None and SQL expressions.

    Peewee calls `db_value` for a value in a condition or an expression, and `to_value` for a value to store.
    """

    deferred = False
    """Whether a plain `select()` omits the column."""
    generated = False
    """Whether the database computes the column from others."""
    bulky = False
    """Whether values are too large to be returned by every write."""
    of_one_row = False
    """Whether a value is of use in the row only that it was made for."""

    def read(self) -> Any:
        """Return the expression to select for the column."""
        return self

    def check(self, value: Any) -> Any:
        """Return the value to store, or raise InvalidInput."""
        return value

    def operand(self, value: Any) -> Any:
        """Return the value for a condition or an expression, or raise InvalidInput."""
        return self.check(value)

    def db_value(self, value: Any) -> Any:
        return value if passes(value) else self.operand(value)

    def stored_value(self, value: Any) -> Any:
        return value if passes(value) else self.check(value)

    def to_value(self, value: Any) -> Any:
        return peewee.Value(value, self.stored_value, unpack=False)


class CheckedTextField(CheckedField[_V, _V]):
    """A text of at most 1 MiB, without NUL characters or lone surrogates.

    Args:
        blank: Whether a text without visible characters is allowed (default True).
    """

    field_type = "text"
    bulky = True
    blank = True
    max_chars: int | None = None

    @overload
    def __init__(
        self: CheckedTextField[str | None], *, null: Literal[True], blank: bool = True, **options: Any
    ) -> None: ...
    @overload
    def __init__(self: CheckedTextField[str], *, blank: bool = True, **options: Any) -> None: ...
    def __init__(self, *, blank: bool | None = None, **options: Any) -> None:
        if blank is not None:
            self.blank = blank
        super().__init__(**options)

    def check(self, value: Any) -> str:
        return require_text(
            value, field_name(self), blank=self.blank, max_chars=self.max_chars, max_bytes=MAX_TEXT_BYTES
        )

    def operand(self, value: Any) -> str:
        return require_text(value, field_name(self), max_bytes=None)


class NameField(CheckedTextField[_V]):
    """A name: a text of 1 to 255 characters that is not blank."""

    field_type = "name_text"
    bulky = False
    blank = False
    max_chars = MAX_NAME_CHARS

    if TYPE_CHECKING:

        @overload
        def __init__(self: NameField[str | None], *, null: Literal[True], **options: Any) -> None: ...
        @overload
        def __init__(self: NameField[str], **options: Any) -> None: ...
        def __init__(self, **options: Any) -> None: ...


class CheckedIntegerField(CheckedField[_V, _V]):
    """A 32-bit integer. Floats and booleans are refused."""

    field_type = "int4"

    if TYPE_CHECKING:

        @overload
        def __init__(self: CheckedIntegerField[int | None], *, null: Literal[True], **options: Any) -> None: ...
        @overload
        def __init__(self: CheckedIntegerField[int], **options: Any) -> None: ...
        def __init__(self, **options: Any) -> None: ...

    def check(self, value: Any) -> int:
        try:
            number = operator.index(value)
        except TypeError:
            raise InvalidInput(f"{field_name(self)}: {shown(value)} is not an integer") from None
        if isinstance(value, bool) or number not in _INT4:
            raise InvalidInput(f"{field_name(self)}: {shown(value)} is not a 32-bit integer")
        return number

    def operand(self, value: Any) -> int | float | Decimal:
        return _number(self, value)


class CheckedFloatField(CheckedField[float, float]):
    """A finite double."""

    field_type = "float8"

    def check(self, value: Any) -> float:
        number = math.inf
        with suppress(OverflowError):
            number = float(_number(self, value))
        if not math.isfinite(number):
            raise InvalidInput(f"{field_name(self)}: {shown(value)} is not finite")
        return number

    def operand(self, value: Any) -> int | float | Decimal:
        return _number(self, value)


class CheckedBooleanField(CheckedField[bool, bool]):
    """A boolean. Other values are refused."""

    field_type = "bool"

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidInput(f"{field_name(self)}: {shown(value)} is not a boolean")
        return value


def _part_in_utc(name: str) -> Any:
    """Return a property like those of Peewee's `DateTimeField`, in UTC instead of the session's time zone."""
    return property(lambda field: peewee.fn.date_part(name, peewee.fn.timezone("UTC", field)))


class TimestampField(CheckedField[_V, _V]):
    """A time of the years 2 to 9998. It accepts aware datetimes and returns them in UTC."""

    field_type = "timestamptz"

    if TYPE_CHECKING:

        @overload
        def __init__(self: TimestampField[datetime | None], *, null: Literal[True], **options: Any) -> None: ...
        @overload
        def __init__(self: TimestampField[datetime], **options: Any) -> None: ...
        def __init__(self, **options: Any) -> None: ...

    year = _part_in_utc("year")
    month = _part_in_utc("month")
    day = _part_in_utc("day")
    hour = _part_in_utc("hour")
    minute = _part_in_utc("minute")
    second = _part_in_utc("second")

    def truncate(self, part: str) -> Any:
        return peewee.fn.date_trunc(part, self, "UTC").python_value(self.python_value)

    def to_timestamp(self) -> Any:
        return peewee.fn.date_part("epoch", self)

    def check(self, value: Any) -> datetime:
        return as_instant(value, field_name(self))

    def operand(self, value: Any) -> datetime | timedelta:
        # For `available_at + timedelta(...)`.
        return value if isinstance(value, timedelta) else _aware(value, field_name(self))

    def python_value(self, value: Any) -> Any:
        with suppress(OverflowError):  # UTC would be outside of Python's range
            return value.astimezone(UTC) if isinstance(value, datetime) else value
        return value


class InetField(CheckedField[str | None, str | _ADDRESSES | None]):
    """An IPv4 or IPv6 address, with or without a prefix length."""

    field_type = "inet"

    def check(self, value: Any) -> str:
        # `ip_interface` would accept numbers and pairs, too.
        text = str(value) if isinstance(value, str | _ADDRESSES) else ""
        try:
            ipaddress.ip_interface(text)
        except ValueError:
            raise InvalidInput(f"{field_name(self)}: {shown(value)} is not an IP address") from None
        return text


def _aware(value: Any, name: str) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidInput(f"{name}: {shown(value)} is not an aware datetime, such as datetime.now(UTC)")
    return value


def _number(field: peewee.Field, value: Any) -> int | float | Decimal:
    """Return a number as a type that psycopg2 can adapt, or raise InvalidInput."""
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, bool | str | bytes | complex):
        try:
            return operator.index(value)
        except TypeError:
            with suppress(TypeError, ValueError, OverflowError):
                return float(value)
    raise InvalidInput(f"{field_name(field)}: {shown(value)} is not a number")

"""What the repositories share: one statement a call, in the tenant in force, with checked arguments."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg2.errorcodes import SERIALIZATION_FAILURE
from psycopg2.extensions import AsIs

from myloware_store.database import current_actor, current_tenant, default_tenant
from myloware_store.errors import ConstraintViolation, InvalidInput, NotFound, TransactionConflict
from myloware_store.models.base import BaseModel, TenantEntity
from myloware_store.transaction_blocks import again_after_conflicts
from myloware_store.values import MAX_NAME_CHARS, is_uuid, require_text, require_uuid, shown

if TYPE_CHECKING:
    from myloware_store.database import StoreDatabase

__all__ = [
    "Repository",
    "as_choice",
    "as_count",
    "as_enum",
    "as_flag",
    "as_list",
    "as_name",
    "as_object",
    "as_seconds",
    "as_text",
    "as_time",
    "as_uuid",
    "as_uuids",
    "known_keys",
    "named_or_id",
    "require_object",
    "stored_row",
    "writer",
]

_Row = TypeVar("_Row", bound=TenantEntity)
_Stored = TypeVar("_Stored", bound=BaseModel)
_Label = TypeVar("_Label", bound=StrEnum)
_MAX_COUNT = 100_000
_MAX_CHARS = 250_000_000  # four bytes each at most: PostgreSQL ends a connection that sends a message of 1 GiB
_MAX_SECONDS = 10 * 365 * 86400.0

_NULL = AsIs("NULL")
"""For None in a list of nothing else: psycopg2 would write '{NULL}', which array_nulls = off reads as a text."""


class Repository:
    """Operations over one database; safe to share between threads."""

    def __init__(self, database: StoreDatabase) -> None:
        self._db = database

    def _scoped(self, query: Any, model: Any) -> Any:
        """Narrow a query to the tenant in force."""
        tenant = current_tenant()
        return query if tenant is None else query.where(model.tenant_id == tenant)

    def _find(self, model: type[_Row], row_id: Any, name: str) -> _Row:
        """Return the row of this id in the tenant in force, or raise NotFound."""
        row: _Row | None = self._scoped(model.select().where(model.id == as_uuid(row_id, name)), model).first()
        if row is None:
            raise NotFound(f"{name}: there is no {model.__name__} {row_id}")
        return row

    def _rows(self, sql: str, parameters: Mapping[str, Any], *, contested: str = "") -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        `tenant` is a parameter of every statement: the tenant in force, or None where there is none. Outside of a
        transaction the statement is run again where it met another transaction (a deadlock); a row that the unique
        index `contested` refuses has met one, too.
        """
        values = {"tenant": current_tenant(), **parameters}
        size = sum(len(text) for value in values.values() if isinstance(value, list) for text in value if text)
        if size > _MAX_CHARS:
            raise InvalidInput(f"{size} characters are more than the {_MAX_CHARS} of one call: make smaller batches")
        for name, value in values.items():
            if isinstance(value, list) and value and all(each is None for each in value):
                values[name] = [_NULL] * len(value)

        def run() -> list[tuple[Any, ...]]:
            try:
                return list(self._db.execute_sql(sql, values).fetchall())
            except ConstraintViolation as refused:
                if not contested or refused.constraint != contested:
                    raise
            raise TransactionConflict("another transaction came first; run it again", sqlstate=SERIALIZATION_FAILURE)

        return run() if self._db.transaction_open() else again_after_conflicts(run)


def stored_row(model: type[_Stored], row: tuple[Any, ...]) -> _Stored:
    """Return what a statement gave, all plain columns in the model's order, as the stored row it is."""
    fields = model.plain_fields()
    values = {field.name: field.python_value(value) for field, value in zip(fields, row, strict=True)}
    stored = model(__no_default__=True, **values)
    stored._dirty.clear()  # noqa: SLF001  as Peewee does with what it reads
    return stored


def writer() -> tuple[str, str]:
    """Return the tenant that a new row belongs to, and who writes it."""
    return current_tenant() or default_tenant(), current_actor() or "system"


def as_list(values: Any, name: str) -> list[Any]:
    """Return the elements of a list, tuple, set or generator; text and mappings are none: InvalidInput."""
    try:
        iterator = None if isinstance(values, str | bytes | Mapping) else iter(values)
    except TypeError:  # also what only looks iterable, such as an array without dimensions
        iterator = None
    if iterator is None:
        raise InvalidInput(f"{name}: {type(values).__name__} is not a list")
    return list(iterator)


def as_flag(value: Any, name: str) -> bool:
    """Return True or False as they are; nothing else is taken for one: InvalidInput."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{name}: {shown(value)} is not a boolean")
    return value


def as_name(value: Any, name: str) -> str:
    """Return a short text that names something, or raise InvalidInput."""
    return require_text(value, name, blank=False, max_chars=MAX_NAME_CHARS)


def as_enum(value: Any, enum: type[_Label], name: str) -> _Label:
    """Return the member that a label or a member stands for, or raise InvalidInput."""
    try:
        if isinstance(value, enum) or (isinstance(value, str) and not isinstance(value, StrEnum)):
            return enum(value)
    except ValueError:
        pass
    raise InvalidInput(f"{name}: {shown(value)} is not one of {', '.join(enum)}")


def as_choice(value: Any, choices: Iterable[str], name: str) -> str:
    """Return a text that is one of several, or raise InvalidInput."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(f"{name}: {shown(value)} is not one of {', '.join(known)}")
    return value


def as_uuid(value: Any, name: str) -> uuid.UUID:
    """Return a UUID given as such, as text, or by a row that has it as its `id`; else raise InvalidInput."""
    return require_uuid(getattr(value, "id", value), name)


def named_or_id(value: Any, kind: str) -> tuple[str | None, str, str | None]:
    """Tell what names a row: its id, the tenant that a name is looked for in, and its name; one of the two is None.

    Text is a name, also where it looks like a UUID. A name is one of the tenant in force, else of the settings'.
    """
    owner, _ = writer()
    if isinstance(value, str):
        return None, owner, as_name(value, kind)
    return str(as_uuid(value, kind)), owner, None


def as_uuids(values: Any, name: str) -> list[str]:
    """Return the ids, as text for an array parameter, without repetitions."""
    given = [values] if isinstance(values, str) or is_uuid(values) else as_list(values, name)
    return list(dict.fromkeys(str(as_uuid(value, name)) for value in given))


def as_count(value: Any, name: str, *, least: int = 1, most: int = _MAX_COUNT) -> int:
    """Return a whole number within bounds, or raise InvalidInput."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInput(f"{name}: {shown(value)} is not a whole number from {least} to {most}")
    return value


def as_seconds(value: Any, name: str, *, least: float = 0.0) -> float:
    """Return a duration in seconds, at least `least` and ten years at most, or raise InvalidInput."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= _MAX_SECONDS:
        raise InvalidInput(f"{name}: {shown(value)} is not a number of seconds from {least:g} to {_MAX_SECONDS:g}")
    return float(value)


def as_time(value: Any, name: str) -> str:
    """Return an aware time, or a text in ISO 8601 with an offset, as what PostgreSQL reads; else raise InvalidInput."""
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
    """Return a text of 1 MiB at most, or None for None; else raise InvalidInput."""
    return None if value is None else require_text(value, name)


def as_object(value: Any, name: str) -> dict[str, Any]:
    """Return a mapping as a JSON object, an empty one for None; else raise InvalidInput."""
    return {} if value is None else require_object(value, name)


def require_object(value: Any, name: str) -> dict[str, Any]:
    """Return a mapping as a JSON object, or raise InvalidInput."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name}: {type(value).__name__} is not a JSON object")
    return dict(value)


def known_keys(row: Any, allowed: Sequence[str], name: str) -> Mapping[str, Any]:
    """Return the row if it is a mapping that holds no other keys, or raise InvalidInput."""
    if not isinstance(row, Mapping):
        raise InvalidInput(f"{name}: {type(row).__name__} is not a mapping")
    unknown = [shown(key) for key in row if key not in allowed]
    if unknown:
        raise InvalidInput(f"{name}: unknown key {', '.join(unknown)}; there are {', '.join(allowed)}")
    return row

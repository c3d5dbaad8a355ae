"""Columns of PostgreSQL types: enums, vectors, UUIDs, JSON, and foreign keys that include the tenant."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
import peewee
from numpy.typing import ArrayLike
from pgvector.peewee import VectorField
from psycopg2.extras import Json

from myloware_store.core.arguments import as_enum
from myloware_store.core.enums import ENUM_TYPES
from myloware_store.core.errors import InvalidInput, NotFound, SchemaMismatch
from myloware_store.core.values import MAX_JSON_BYTES, dump_json, is_uuid, read_label, require_text, require_uuid
from myloware_store.core.vectors import DIMENSIONS, Embedding, as_embedding, decode_binary, decode_text, encode_text
from myloware_store.orm.scalars import CheckedField, ServerDefault, Typed, field_name, passes

__all__ = [
    "BytesField",
    "EmbeddingField",
    "EnumField",
    "JsonField",
    "ParentKey",
    "SearchField",
    "TenantForeignKey",
    "UuidField",
]

_V = TypeVar("_V")
_Enum = TypeVar("_Enum", bound=StrEnum)
_Model = TypeVar("_Model", bound=peewee.Model)


class DeferredAccessor(peewee.FieldAccessor):
    """Load a column that `select()` omitted, with one query on first access."""

    def __get__(self, instance: Any, instance_type: Any = None) -> Any:
        if instance is None:
            return self.field
        if self.name not in instance.__data__ and instance._stored:
            query = self.model.select(self.field.read()).where(instance._pk_expr())
            row = query.tuples().first()
            if row is None:
                raise NotFound(f"{self.model.__name__} {instance._pk}: no such row to read {self.name} of")
            instance.__data__[self.name] = row[0]
        return instance.__data__.get(self.name)


class JsonAccessor(peewee.FieldAccessor):
    """Remember a JSON value when it is first read, so that `save()` notices changes inside it."""

    def __get__(self, instance: Any, instance_type: Any = None) -> Any:
        if instance is None:
            return self.field
        value = instance.__data__.get(self.name)
        if isinstance(value, dict | list) and self.name not in instance._json_read:
            instance._json_read[self.name] = dump_json(value, self.name, max_bytes=None)
        return value


class FinalAccessor(peewee.FieldAccessor):
    """Convert an assigned text to an enum member or a UUID. `save()` refuses a text that is neither."""

    def __set__(self, instance: Any, value: Any) -> None:
        value = _final(self.field, value)
        # `save()` refuses a changed key, so assigning the same key again must not count as a change.
        same = isinstance(value, uuid.UUID) and value == instance.__data__.get(self.name)
        if not (same and self.field.primary_key):
            super().__set__(instance, value)


class ParentAccessor(peewee.ForeignKeyAccessor):
    """Convert an assigned text to the UUID of a parent."""

    def __set__(self, instance: Any, obj: Any) -> None:
        super().__set__(instance, _final(self.field, obj))


class EmbeddingAccessor(DeferredAccessor):
    """Check and copy an assigned vector, and return it read-only, because `save()` would miss changes inside it."""

    def __get__(self, instance: Any, instance_type: Any = None) -> Any:
        value = super().__get__(instance, instance_type)
        if isinstance(value, np.ndarray):
            _frozen(value)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        read = isinstance(value, np.ndarray) and value.flags.owndata and not value.flags.writeable
        if not (passes(value) or read):
            value = _frozen(np.array(as_embedding(value, field_name(self.field))))
        super().__set__(instance, value)


class EnumField(CheckedField[_V, _V | str]):
    """A column of a native enum type. It accepts labels and members, and returns members.

    Args:
        enum: The enum.
        default: The default, also that of the database.
    """

    accessor_class = FinalAccessor

    @overload
    def __init__(self: EnumField[_Enum | None], enum: type[_Enum], *, null: Literal[True], **options: Any) -> None: ...
    @overload
    def __init__(self: EnumField[_Enum], enum: type[_Enum], **options: Any) -> None: ...
    def __init__(self, enum: type[StrEnum], **options: Any) -> None:
        self.enum = enum
        if "default" in options:
            options.setdefault("constraints", [ServerDefault(f"'{options['default']}'::{self.field_type}")])
        super().__init__(**options)

    @property
    def field_type(self) -> str:  # type: ignore[override]  # a class variable in Peewee's stubs
        return next(name for name, known in ENUM_TYPES.items() if known is self.enum)

    def check(self, value: Any) -> str:
        return as_enum(value, self.enum, field_name(self)).value

    def python_value(self, value: Any) -> StrEnum | None:
        return None if value is None else read_label(self.enum, value)


class UuidField(CheckedField[_V, _V | str]):
    """A UUID. It accepts UUIDs of any library and their text forms, and returns `uuid.UUID`."""

    field_type = "uuid"
    accessor_class = FinalAccessor

    if TYPE_CHECKING:

        @overload
        def __init__(self: UuidField[uuid.UUID | None], *, null: Literal[True], **options: Any) -> None: ...
        @overload
        def __init__(self: UuidField[uuid.UUID], **options: Any) -> None: ...
        def __init__(self, **options: Any) -> None: ...

    def check(self, value: Any) -> str:
        return str(require_uuid(value, field_name(self)))

    def python_value(self, value: Any) -> uuid.UUID | None:
        return value if value is None or isinstance(value, uuid.UUID) else uuid.UUID(value)


class BytesField(CheckedField[bytes | None, bytes | None]):
    """A generated `bytea` column, read-only."""

    field_type = "bytea"
    deferred = True
    generated = True
    accessor_class = DeferredAccessor

    def check(self, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise InvalidInput(f"{field_name(self)}: {type(value).__name__} is not bytes")
        return value

    def python_value(self, value: Any) -> bytes | None:
        return None if value is None else bytes(value)


class SearchField(CheckedField[str | None, str | None]):
    """A generated `tsvector` column, read-only."""

    field_type = "tsvector"
    deferred = True
    generated = True
    accessor_class = DeferredAccessor

    def check(self, value: Any) -> str:
        return require_text(value, field_name(self))


class JsonField(CheckedField[_V, _V], peewee.JSONField):
    """A `jsonb` column of at most 4 MiB. Keys must be text; NaN, infinities, NUL and lone surrogates are refused.

    Args:
        kind: The type of the top level, `dict` or `list`, by default any JSON value.
        default: The function that makes the default, also that of the database.
        domain: The column's domain over `jsonb`, if any.
    """

    bulky = True
    accessor_class = JsonAccessor

    @overload
    def __init__(self: JsonField[dict[str, Any]], *, kind: type[dict[Any, Any]], **options: Any) -> None: ...
    @overload
    def __init__(self: JsonField[list[Any]], *, kind: type[list[Any]], **options: Any) -> None: ...
    @overload
    def __init__(self: JsonField[Any], **options: Any) -> None: ...
    def __init__(self, *, kind: type | None = None, domain: str | None = None, **options: Any) -> None:
        self.kind = kind
        self.domain = domain
        if "default" in options:
            options.setdefault("constraints", [ServerDefault(f"'{self.dump(options['default']())}'::jsonb")])
        super().__init__(dumps=self.dump, **options)

    @property
    def field_type(self) -> str:  # type: ignore[override]  # a class variable in Peewee's stubs
        return self.domain or ("object_jsonb" if self.kind is dict else "jsonb")

    def dump(self, value: Any) -> str:
        return dump_json(value, field_name(self), max_bytes=None)

    def operand(self, value: Any) -> Any:
        return value if isinstance(value, Json) else Json(value, dumps=self.dump)

    def check(self, value: Any) -> Any:
        if isinstance(value, Json):
            return value
        if self.kind is not None and not isinstance(value, Mapping if self.kind is dict else self.kind):
            raise InvalidInput(f"{field_name(self)}: {type(value).__name__} is not a {self.kind.__name__}")
        text = dump_json(value, field_name(self), max_bytes=MAX_JSON_BYTES)
        return Json(value, dumps=lambda _: text)


class EmbeddingField(CheckedField[Embedding | None, ArrayLike | None], VectorField):
    """A `vector(1536)` column, stored inside its row.

    A plain `select()` omits it. An instance loads it on first access, in pgvector's binary format, as a read-only
    array.
    """

    deferred = True
    bulky = True
    storage = "PLAIN"
    accessor_class = EmbeddingAccessor

    def __init__(self, **options: Any) -> None:
        super().__init__(dimensions=DIMENSIONS, **options)

    def check(self, value: Any) -> str:
        return encode_text(value, field_name(self))

    def python_value(self, value: Any) -> Any:
        return _frozen(decode_text(value)) if isinstance(value, str) else value

    def read(self) -> Any:
        """Return the expression that reads the column in binary, as a `(1536,) float32` array named like the field."""
        read = peewee.fn.vector_send(self).python_value(
            lambda data: None if data is None else _frozen(decode_binary(data))
        )
        return read.alias(self.name)

    # Peewee would expand a list on the right into one parameter per element.
    def __eq__(self, other: object) -> Any:
        return peewee.Expression(self, peewee.OP.EQ if other is not None else peewee.OP.IS, self.to_value(other))

    def __ne__(self, other: object) -> Any:
        return peewee.Expression(self, peewee.OP.NE if other is not None else peewee.OP.IS_NOT, self.to_value(other))

    __hash__ = peewee.Field.__hash__


class ParentKey(Typed[_V, _V | uuid.UUID | str], peewee.ForeignKeyField):
    """A foreign key to a row that all tenants share. It has no index of its own.

    Args:
        model: The parent.
        on_delete: The action, by default `CASCADE`.
    """

    accessor_class = ParentAccessor

    if TYPE_CHECKING:

        @overload
        def __new__(cls, model: type[_Model], *, null: Literal[True], **options: Any) -> ParentKey[_Model | None]: ...
        @overload
        def __new__(cls, model: type[_Model], **options: Any) -> ParentKey[_Model]: ...
        def __new__(cls, model: type[_Model], **options: Any) -> Any: ...

    else:

        def __init__(self, model: type[peewee.Model], *, on_delete: str = "CASCADE", **options: Any) -> None:
            super().__init__(model, on_delete=on_delete, index=False, **options)


class TenantForeignKey(ParentKey[_V]):
    """A foreign key to a row of the same tenant: `(tenant_id, parent_id) REFERENCES parent (tenant_id, id)`.

    No statement can give a row the parent of another tenant.
    """

    if TYPE_CHECKING:

        @overload
        def __new__(
            cls, model: type[_Model], *, null: Literal[True], **options: Any
        ) -> TenantForeignKey[_Model | None]: ...
        @overload
        def __new__(cls, model: type[_Model], **options: Any) -> TenantForeignKey[_Model]: ...
        def __new__(cls, model: type[_Model], **options: Any) -> Any: ...

    def foreign_key_constraint(self, explicit_name: bool = False) -> peewee.NodeList:  # noqa: FBT001, FBT002, ARG002  Peewee's signature
        table, parent = self.model._meta.table_name, self.rel_model._meta.table_name
        constraint = peewee.SQL(
            f"CONSTRAINT {table}_{self.column_name}_fkey FOREIGN KEY (tenant_id, {self.column_name})"
            f" REFERENCES {parent} (tenant_id, id) ON DELETE {self.on_delete}"
        )
        return peewee.NodeList((constraint,))


def _frozen(vector: Embedding) -> Embedding:
    vector.flags.writeable = False
    return vector


def _final(field: peewee.Field, value: Any) -> Any:
    if type(value) is str or is_uuid(value):
        with suppress(ValueError, SchemaMismatch):  # save() refuses it
            return field.python_value(str(value))
    return value

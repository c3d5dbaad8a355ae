"""Rows to write: names and values become checked values by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import peewee
from psycopg2.extras import Json

from myloware_store.core.arguments import as_list
from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import shown
from myloware_store.db.proxy import default_tenant
from myloware_store.db.tenancy import current_tenant
from myloware_store.orm.fields import TenantForeignKey
from myloware_store.orm.scalars import passes

__all__ = [
    "Row",
    "as_case",
    "as_row",
    "batches",
    "by_field",
    "checked",
    "default",
    "fields_named",
    "is_sql",
    "plain_fields",
    "with_tenant",
]

Row = dict[Any, Any]
"""Values by field. A key can also be another SQL expression that names a column."""

_T = TypeVar("_T")
_Model = type[peewee.Model]


def by_field(model: _Model, data: Any, values: Mapping[str, Any] | None = None) -> Row:
    """Return the values by field. The keys are fields, or their names or columns.

    Raises:
        InvalidInput: A field does not exist or is given twice, or `data` is not a mapping.
    """
    if not isinstance(data, Mapping):
        raise InvalidInput(f"{model.__name__}: {type(data).__name__} is not a mapping of fields to values")
    row: Row = {}
    for name, value in [*data.items(), *(values or {}).items()]:
        field = name if isinstance(name, peewee.Node) else model._meta.combined.get(name)
        if field is None or (isinstance(field, peewee.Field) and field.model is not model):
            raise InvalidInput(f"{model.__name__} has no field {shown(name)}")
        if field in row:
            raise InvalidInput(f"{model.__name__}: {shown(name)} is given twice")
        row[field] = value
    return row


def fields_named(model: _Model, names: Iterable[Any], what: str) -> list[Any]:
    """Return the fields with these names, or raise InvalidInput."""
    given = as_list(names, what)
    if not all(isinstance(name, str | peewee.Field) for name in given):
        raise InvalidInput(f"{what}: {shown(given)} must hold fields or their names")
    return list(by_field(model, dict.fromkeys(given)))


def as_row(model: _Model, row: Any, fields: Sequence[Any] | None) -> Row:
    """Return a row of `insert_many` by field. It is a mapping, or has one value for each of `fields`."""
    if fields is None or isinstance(row, Mapping | str):
        return by_field(model, row)
    try:
        pairs = list(zip(fields, row, strict=True))
    except (TypeError, ValueError):
        raise InvalidInput(f"{model.__name__}: a row does not have a value for each of the fields") from None
    return by_field(model, dict(pairs))


def with_tenant(model: _Model, row: Row) -> Row:
    """Fill in `tenant_id`: that of the parent, else the one in force, else that of the settings."""
    tenant = model._meta.fields.get("tenant_id")
    if tenant is None or row.get(tenant) is not None:
        return row
    fallback = current_tenant() or default_tenant()
    row[tenant] = fallback
    for field in model._meta.refs:
        parent = row.get(field)
        if not isinstance(field, TenantForeignKey) or parent is None:
            continue
        above: Any = field.rel_model
        if isinstance(parent, above) and parent.tenant_id is not None:
            row[tenant] = parent.tenant_id
        else:
            # The parent was given as an id: the same statement looks up its tenant.
            parent_id = above.id.db_value(getattr(parent, "id", parent))
            row[tenant] = peewee.fn.COALESCE(above.select(above.tenant_id).where(above.id == parent_id), fallback)
        break
    return row


def checked(row: Row) -> Row:
    """Wrap the values so that they are checked as values to store. Peewee would check them as operands."""
    return {
        field: field.to_value(value) if isinstance(field, peewee.Field) and not passes(value) else value
        for field, value in row.items()
    }


def is_sql(value: Any) -> bool:
    """Return whether a value is SQL, or `Json` of the caller: only the database knows the stored value."""
    return isinstance(value, Json) or (value is not None and passes(value))


def as_case(field: peewee.Field, value: Any) -> Any:
    """Return the expression for a value in a CASE. The cast gives it the column's type; PostgreSQL assumes text."""
    return value if is_sql(value) else peewee.Cast(field.to_value(value), field.field_type)


def default(field: peewee.Field) -> Any:
    """Return the value of a column that a row does not have."""
    if field.default is not None:
        return field.default() if callable(field.default) else field.default
    return peewee.SQL("DEFAULT")


def plain_fields(model: _Model) -> list[peewee.Field]:
    """Return the fields that a plain `select()` reads."""
    return [field for field in model._meta.sorted_fields if not getattr(field, "deferred", False)]


def batches(values: list[_T], size: int | None) -> list[list[_T]]:
    """Return the values in batches of this size, by default in one, or raise InvalidInput."""
    if size is None:
        return [values] if values else []
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidInput(f"batch_size: {shown(size)} is not a whole number from 1")
    return [values[start : start + size] for start in range(0, len(values), size)]

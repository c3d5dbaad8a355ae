"""The base of the repositories: one statement per call, in the tenant in force."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg2.errorcodes import SERIALIZATION_FAILURE
from psycopg2.extensions import AsIs

from myloware_store.core.arguments import as_name, as_uuid
from myloware_store.core.errors import ConstraintViolation, InvalidInput, NotFound, TransactionConflict
from myloware_store.db.proxy import default_tenant
from myloware_store.db.tenancy import current_actor, current_tenant
from myloware_store.db.transactions import again_after_conflicts
from myloware_store.orm.base import BaseModel, TenantEntity
from myloware_store.orm.queries import Select
from myloware_store.orm.rows import plain_fields

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase
    from myloware_store.db.statements import Rows

__all__ = ["Repository", "named_or_id", "stored_instance", "stored_row", "writer"]

_Row = TypeVar("_Row", bound=TenantEntity)
_Stored = TypeVar("_Stored", bound=BaseModel)
_MAX_CHARS = 250_000_000  # at most four bytes each: PostgreSQL closes a connection that sends a message of 1 GiB

_NULL = AsIs("NULL")
"""Stands for None in a list of Nones. psycopg2 would write '{NULL}', which `array_nulls = off` reads as a text."""


class Repository:
    """Operations on one database. Threads can share a repository."""

    def __init__(self, database: StoreDatabase) -> None:
        self._db = database

    def _select(self, model: type[_Stored], *fields: Any) -> Select[_Stored]:
        """Select rows of this database. In a table with tenants, select those of the tenant in force."""
        query = model.select(*fields).bind(self._db)
        tenant = current_tenant()
        if tenant is None or not issubclass(model, TenantEntity):
            return query
        return query.where(model.tenant_id == tenant)

    def _create(self, model: type[_Stored], **values: Any) -> _Stored:
        """Insert a row into this database, and return it as stored."""
        (row,) = model.insert(**values).returning(model).bind(self._db).execute()
        stored: _Stored = row
        return stored

    def _find(self, model: type[_Row], row_id: Any, name: str) -> _Row:
        """Return the row with this id in the tenant in force, or raise NotFound."""
        row = self._select(model).where(model.id == as_uuid(row_id, name)).first()
        if row is None:
            kind = re.sub(r"\B[A-Z]", r" \g<0>", model.__name__).lower()  # such as `work order`
            raise NotFound(f"{name}: there is no {kind} {row_id}")
        return row

    def _rows(
        self, sql: str, parameters: Mapping[str, Any], *, reads: bool = False, prepared: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run one statement with `_execute`, and return its rows."""
        return self._execute(sql, parameters, reads=reads, prepared=prepared).fetchall()

    def _stored(
        self, model: type[_Stored], sql: str, parameters: Mapping[str, Any], *, contested: str = ""
    ) -> list[_Stored]:
        """Run one statement, and return its rows as instances. They must have the model's plain columns."""
        return [stored_row(model, row) for row in self._named(sql, parameters, contested=contested)]

    def _named(
        self, sql: str, parameters: Mapping[str, Any], *, contested: str = "", reads: bool = False
    ) -> list[dict[str, Any]]:
        """Run one statement, and return its rows as dicts by column."""
        rows = self._execute(sql, parameters, contested=contested, reads=reads)
        names = [column.name for column in rows.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _execute(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        *,
        contested: str = "",
        reads: bool = False,
        prepared: bool = False,
    ) -> Rows:
        """Run one statement.

        Every statement can use the parameter `tenant`: the tenant in force, or None. Outside of a transaction, the
        statement is retried after a conflict with another transaction. A violation of the unique index `contested`
        counts as such a conflict.
        """
        values = _values({"tenant": current_tenant(), **parameters})

        def run() -> Rows:
            try:
                if prepared:
                    return self._db.execute_prepared(sql, values)
                rows: Rows = self._db.execute_sql(sql, values, reads=reads)
            except ConstraintViolation as refused:
                if not contested or refused.constraint != contested:
                    raise
            else:
                return rows
            raise TransactionConflict("another transaction came first; run it again", sqlstate=SERIALIZATION_FAILURE)

        return run() if self._db.transaction_open() else again_after_conflicts(run)


def _values(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters that the server accepts, or raise InvalidInput."""
    size = 0
    for name, value in parameters.items():
        if type(value) is str:
            size += len(value)
        elif type(value) is list and value:
            size += sum(len(text) for text in value if text)
            if all(each is None for each in value):
                parameters[name] = [_NULL] * len(value)
    if size > _MAX_CHARS:
        raise InvalidInput(f"{size} characters are more than one call takes ({_MAX_CHARS}); use smaller batches")
    return parameters


def stored_row(model: type[_Stored], row: Mapping[str, Any]) -> _Stored:
    """Return a stored instance from the values of its columns by name."""
    return stored_instance(model, {f.name: f.python_value(row[f.column_name]) for f in plain_fields(model)})


def stored_instance(model: type[_Stored], values: Mapping[str, Any]) -> _Stored:
    """Return a stored instance from the values of its fields by name."""
    stored = model(__no_default__=True)
    stored.__data__.update(values)
    return stored


def writer() -> tuple[str, str]:
    """Return the tenant of new rows and the actor who writes them."""
    return current_tenant() or default_tenant(), current_actor() or "system"


def named_or_id(value: Any, kind: str) -> tuple[str | None, str, str | None]:
    """Return the id of a row, the tenant to look a name up in, and the name. Either the id or the name is None.

    Text is always a name, even if it looks like a UUID. A name belongs to the tenant in force, else to that of the
    settings.
    """
    owner, _ = writer()
    if isinstance(value, str):
        return None, owner, as_name(value, kind)
    return str(as_uuid(value, kind)), owner, None

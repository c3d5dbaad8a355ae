"""The base of the models, without Peewee's silent traps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import orjson
import peewee
from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_list
from myloware_store.core.errors import InvalidInput, NotFound
from myloware_store.core.values import dump_json, shown
from myloware_store.db.proxy import proxy
from myloware_store.orm.fields import JsonField, UuidField
from myloware_store.orm.queries import Alias, Insert, Select
from myloware_store.orm.rows import (
    Row,
    as_case,
    as_row,
    batches,
    by_field,
    checked,
    default,
    fields_named,
    is_sql,
    plain_fields,
    with_tenant,
)
from myloware_store.orm.scalars import NameField, ServerDefault, TimestampField, field_name

__all__ = ["BaseModel", "Entity", "TenantEntity"]


class BaseModel(peewee.Model):
    """A Peewee model whose writes lose nothing silently.

    It differs from Peewee's in these points:

    - An unknown keyword raises.
    - `save()` inserts an instance that was made here and updates one that was read, whatever its key. It raises
      `NotFound` if there is no row to update.
    - A write reads back the columns that the server filled in.
    - Changes inside a JSON value are saved.
    - If a block is rolled back, the changes that it saved count as unsaved again.
    - `insert_many` takes rows with different keys.
    - Every update sets `updated_at`.
    - A new row takes the tenant of its parent, else the one in force, else the settings'.
    - `delete_instance(recursive=True)` is refused, because the database cascades.
    """

    if TYPE_CHECKING:
        # Missing in Peewee's stubs.
        DoesNotExist: type[peewee.DoesNotExist]
        _dirty: set[str]
        _pk: Any
        _pk_expr: Callable[[], peewee.Expression]

    class Meta:
        database = proxy
        legacy_table_names = False
        only_save_dirty = True

    def __init__(self, *args: Any, **values: Any) -> None:
        self._stored = "__no_default__" in values  # whether the row was read or saved; a rollback does not reset it
        self._json_read: dict[str, str] = {}  # JSON values as they were read or written, by field
        if args:
            raise InvalidInput(f"{type(self).__name__} takes its values by name")
        if not self._stored:
            unknown = sorted(name for name in values if name not in self._meta.combined)
            if unknown:
                raise InvalidInput(f"{type(self).__name__} has no field {', '.join(unknown)}")
        super().__init__(**values)

    def __repr__(self) -> str:
        """Show the row's id, and its status if it was read.

        Peewee gives every subclass a `__repr__` of its own. Models with a status override that with this one.
        """
        if self.__data__ is None:  # during __init__
            return f"<{type(self).__name__}>"
        status = self.__data__.get("status")
        return f"<{type(self).__name__}: {self}{'' if status is None else f' {status}'}>"

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update({name: copy.copy(value) for name, value in self.__dict__.items()})
        return twin

    @classmethod
    def select(cls, *fields: Any) -> Select[Self]:
        """Select rows, by default without the columns that are loaded on access (embeddings, tsvectors).

        Raises:
            InvalidInput: A field is neither a model nor SQL. Peewee would select a text as itself.
        """
        if not fields:
            return Select(cls, plain_fields(cls), is_default=True)
        expanded: list[Any] = []
        for field in fields:
            is_model = inspect.isclass(field) and issubclass(field, BaseModel)
            if not (is_model or isinstance(field, peewee.Node)):
                raise InvalidInput(f"{cls.__name__}: {shown(field)} is not a field; select {cls.__name__}.<field>")
            expanded.extend(plain_fields(field) if is_model else [field])
        return Select(cls, expanded)

    @classmethod
    def alias(cls, alias: str | None = None) -> Any:
        """Return the model under another name."""
        return Alias(cls, alias)

    @classmethod
    def get_or_create(cls, **values: Any) -> tuple[Self, bool]:
        """Return the row with these values, or create it with `defaults` as well.

        The row is looked up in the tenant that it would be created for.
        """
        asked = {name: values[name] for name in values if name != "defaults"}
        row = with_tenant(cls, by_field(cls, values.get("defaults", {}), asked))
        tenant = row.get(cls._meta.fields.get("tenant_id"))
        if isinstance(tenant, str):
            values.setdefault("tenant_id", tenant)
        made: tuple[Self, bool] = super().get_or_create(**values)  # type: ignore[no-untyped-call]  # not in the stubs
        return made

    @classmethod
    def insert(cls, __data: Any = None, **values: Any) -> Any:
        """Insert one row, with the tenant filled in."""
        return Insert(cls, checked(cls._completed(by_field(cls, {} if __data is None else __data, values))))

    @classmethod
    def insert_many(cls, rows: Iterable[Any], fields: Sequence[Any] | None = None) -> Any:
        """Insert rows in one statement. A row that lacks a key of another row gets the column's default.

        Raises:
            InvalidInput: A key is not a field, or a row is neither a mapping nor as long as `fields`.
        """
        named = None if fields is None else fields_named(cls, fields, "fields")
        prepared = [cls._completed(as_row(cls, row, named)) for row in as_list(rows, "rows")]
        columns = [field for field in cls._meta.sorted_fields if any(field in row for row in prepared)]
        for row in prepared:
            for field in columns:
                if field not in row:
                    row[field] = default(field)
        return Insert(cls, insert=[checked(row) for row in prepared], columns=columns)

    @classmethod
    def insert_from(cls, query: Any, fields: Sequence[Any]) -> Any:
        """Insert the rows of a query."""
        return Insert(cls, insert=query, columns=fields_named(cls, fields, "fields"))

    @classmethod
    def bulk_create(cls, model_list: Iterable[Any], batch_size: int | None = None) -> None:
        """Insert instances with `insert_many`, and read back the columns that the server filled in."""
        for batch in batches(cls._instances(model_list), batch_size):
            rows = [instance._row_to_insert() for instance in batch]
            inserted = cls._written(cls.insert_many(rows), rows, cls._meta.sorted_fields)
            # PostgreSQL returns the rows of one VALUES list in its order.
            for instance, row, written in zip(batch, inserted, rows, strict=True):
                instance._take(row, written)

    @classmethod
    def bulk_update(cls, model_list: Iterable[Any], fields: Sequence[Any], batch_size: int | None = None) -> int:
        """Update these fields of stored instances, all of them or none.

        Returns:
            The number of rows updated.

        Raises:
            NotFound: A row no longer exists; no row was updated.
            InvalidInput: A field does not exist or belongs to the key, or an instance was read without it.
        """
        instances = {id(instance): instance for instance in cls._instances(model_list)}
        changed = fields_named(cls, fields, "fields")
        if cls._meta.composite_key or not changed or any(field.primary_key for field in changed):
            raise InvalidInput(f"{cls.__name__}: bulk_update() takes one field or more, and none of the key")
        if len({instance._pk for instance in instances.values()}) < len(instances):
            raise InvalidInput(f"model_list: two instances are the same {cls.__name__}")
        with cls._meta.database.atomic():
            rows = [(instance, instance._values_of(field.name for field in changed)) for instance in instances.values()]
            for batch in batches(rows, batch_size):
                cls._update_batch(batch, changed)
        return len(instances)

    @classmethod
    def update(cls, __data: Any = None, **values: Any) -> Any:
        """Update rows, including `updated_at`."""
        data = by_field(cls, {} if __data is None else __data, values)
        if not data:
            raise InvalidInput(f"{cls.__name__}: nothing to update")
        changed = cls._meta.fields.get("updated_at")
        if changed is not None:
            data.setdefault(changed, peewee.fn.now())
        return peewee.ModelUpdate(cls, checked(data))

    def save(self, force_insert: bool = False, only: Sequence[Any] | None = None) -> Any:  # noqa: FBT001, FBT002
        """Insert the row if it was made here, or update it if it was read.

        Args:
            force_insert: Always insert the row.
            only: The fields to write, by default all that changed.

        Returns:
            1, or 0 if nothing had changed.

        Raises:
            NotFound: The row to update no longer exists.
            InvalidInput: The key of a stored row was changed.
            ConstraintViolation: The database refused the row.
        """
        names = None if only is None else [field.name for field in fields_named(type(self), only, "only")]
        if force_insert or not self._stored:
            data = self._row_to_insert(names)
            (row,) = self._written(type(self).insert(data), [data], self._meta.sorted_fields)
            self._take(row, data)
            return 1
        changed = self._values_of(self.dirty_field_names if names is None else names)
        for key in self._meta.get_primary_keys():
            if changed.pop(key.name, None) is not None and key.name in self._dirty:
                raise InvalidInput(f"{type(self).__name__}: the key of a stored row cannot be changed")
        if not changed:
            return 0
        rows = self._written(type(self).update(changed).where(self._pk_expr()), [changed], self._changing(changed))
        if not rows:
            raise NotFound(f"{type(self).__name__} {self._pk}: no such row to update")
        self._take(rows[0], changed)
        return 1

    def delete_instance(self, recursive: bool = False, delete_nullable: bool = False) -> int:  # noqa: FBT001, FBT002
        """Delete the row. The database deletes its children by cascade.

        Raises:
            InvalidInput: `recursive` or `delete_nullable` was given: Peewee would delete the children itself.
        """
        if recursive or delete_nullable:
            raise InvalidInput("the database cascades by itself: call delete_instance() without arguments")
        return super().delete_instance()

    def is_dirty(self) -> bool:
        """Return whether there are changes to save."""
        return bool(self.dirty_fields)

    @property
    def dirty_fields(self) -> list[Any]:
        """The fields to save, including those whose JSON value was changed in place."""
        for name, before in self._json_read.items():
            if name not in self._dirty and dump_json(self.__data__.get(name), self._named(name)) != before:
                self._dirty.add(name)
        return [field for field in self._meta.sorted_fields if field.name in self._dirty]

    def _row_to_insert(self, only: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the values to insert, or those of some fields and the key, with loaded parents as instances."""
        self._forget_generated()
        names = self.__data__ if only is None else {*only, *(key.name for key in self._meta.get_primary_keys())}
        parents = {name: parent for name, parent in self.__rel__.items() if parent is not None}
        return {name: parents.get(name, value) for name, value in self.__data__.items() if name in names}

    def _values_of(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of fields to write. Raise InvalidInput for a field that was not read."""
        try:
            return {name: self.__data__[name] for name in names}
        except KeyError as missing:
            raise InvalidInput(f"{self._named(missing.args[0])} was not read: select it, or assign a value") from None

    def _take(self, row: dict[str, Any], written: Iterable[str]) -> None:
        """Take over the values that the server returned, and mark the written fields as clean and the row as stored."""
        written = set(written)
        # After `save(only=...)` the other changed fields keep their values.
        row = {name: value for name, value in row.items() if name in written or name not in self._dirty}
        self.__data__.update(row)
        self._forget_generated()
        if not self._stored:
            self._stored = True
            for field in self._meta.sorted_fields:
                if not getattr(field, "generated", False):
                    self.__data__.setdefault(field.name, None)
        self._dirty -= written
        self._watch_json(written)
        keys = {key.name for key in self._meta.get_primary_keys()}
        self._meta.database.note_save(self, tuple(written - keys))

    def _watch_json(self, written: Iterable[str]) -> None:
        """Remember JSON values as they were written, in the form in which they will be read."""
        for name in written:
            value = self.__data__.get(name)
            if not isinstance(self._meta.fields.get(name), JsonField) or value is None:
                continue
            text = dump_json(value, self._named(name))
            if isinstance(value, dict | list):
                self._json_read[name] = text
            else:
                self._json_read.pop(name, None)
                self.__data__[name] = orjson.loads(text)

    def _forget_generated(self) -> None:
        for field in self._meta.sorted_fields:
            if getattr(field, "generated", False) and field.name not in self._dirty:
                self.__data__.pop(field.name, None)

    def _named(self, name: str) -> str:
        return field_name(self._meta.fields[name])

    @classmethod
    def _completed(cls, row: Row) -> Row:
        """Return the values by field to insert, with those that depend on others filled in."""
        return with_tenant(cls, row)

    @classmethod
    def _update_batch(cls, batch: Sequence[tuple[BaseModel, Row]], changed: Sequence[peewee.Field]) -> None:
        key: Any = cls._meta.primary_key
        keys = [key.to_value(instance._pk) for instance, _ in batch]
        rows = [row for _, row in batch]
        values = {
            field: peewee.Case(key, [(k, as_case(field, row[field.name])) for k, row in zip(keys, rows, strict=True)])
            for field in changed
        }
        query = cls.update(values).where(key.in_(keys))
        updated = cls._written(query, rows, [key, *cls._changing(rows[0])])
        by_key = {row[key.name]: row for row in updated}
        for instance, row in batch:
            if instance._pk not in by_key:
                raise NotFound(f"{cls.__name__} {instance._pk}: no such row to update")
            instance._take(by_key[instance._pk], row)

    @classmethod
    def _changing(cls, names: Iterable[str]) -> list[peewee.Field]:
        """Return the fields that an update of these fields changes."""
        changed = [cls._meta.fields[name] for name in (*names, "updated_at") if name in cls._meta.fields]
        return list(dict.fromkeys(changed))

    @classmethod
    def _written(cls, query: Any, rows: Sequence[Row], fields: Sequence[peewee.Field]) -> list[dict[str, Any]]:
        """Run a statement that writes, and return the new values of these fields.

        Large values are returned only if they were given as SQL.
        """
        made = {name for row in rows for name, value in row.items() if is_sql(value)}
        returned = [
            field
            for field in fields
            if field.name in made or not (getattr(field, "bulky", False) or getattr(field, "generated", False))
        ]
        return list(query.returning(*(returned or cls._meta.get_primary_keys())).dicts().execute())

    @classmethod
    def _instances(cls, model_list: Iterable[Any]) -> list[Any]:
        instances = as_list(model_list, "model_list")
        for instance in instances:
            if not isinstance(instance, cls):
                raise InvalidInput(f"model_list: {type(instance).__name__} is not a {cls.__name__}")
        return instances


class Entity(BaseModel):
    """A row with a key of its own and the time when it was made."""

    # The client makes UUIDv7, so that inserts stay close together in the index.
    id = UuidField(
        primary_key=True,
        default=uuid7,
        constraints=[ServerDefault("gen_random_uuid()")],
        help_text="The key, a UUIDv7 made by the client.",
    )
    created_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row was made.")


class TenantEntity(Entity):
    """A row that belongs to one tenant."""

    tenant_id = NameField(help_text="The tenant that owns the row.")

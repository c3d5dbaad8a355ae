"""The base of the models: what every row has, and Peewee's silent traps closed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import peewee

from myloware_store.core.arguments import as_list
from myloware_store.core.errors import InvalidInput, NotFound
from myloware_store.core.values import MAX_NAME_CHARS, shown
from myloware_store.db.proxy import proxy
from myloware_store.orm.fields import UuidField
from myloware_store.orm.queries import Alias, Insert, Select
from myloware_store.orm.row_state import RowState
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
    with_tenant,
)
from myloware_store.orm.scalars import NameField, ServerDefault, TimestampField

__all__ = ["BaseModel", "Entity", "TenantEntity", "name_checks", "object_checks"]


class BaseModel(RowState, peewee.Model):
    """A Peewee model whose writes never lose anything silently.

    Differences from Peewee's own: an unknown keyword raises; `save()` inserts a row that was made here and updates
    one that was read, whatever its key, and raises `NotFound` if there is no row to update; changes that a block rolled
    back count as changed again; a new row comes back with what the server filled in; changes inside a JSON
    value are saved; `insert_many` takes rows with different keys; every update sets `updated_at`; rows take the tenant
    of their parent, else the one in force, else the settings'; `delete_instance(recursive=True)` is refused, since the
    database cascades.
    """

    if TYPE_CHECKING:
        # What Peewee's stubs leave out.
        DoesNotExist: type[peewee.DoesNotExist]
        _dirty: set[str]
        _pk: Any
        _pk_expr: Callable[[], peewee.Expression]

    class Meta:
        database = proxy
        legacy_table_names = False
        only_save_dirty = True

    def __init__(self, *args: Any, **values: Any) -> None:
        self.stored = "__no_default__" in values
        self.json_read = {}
        if args:
            raise InvalidInput(f"{type(self).__name__} takes its values by name")
        if not self.stored:
            unknown = sorted(name for name in values if name not in self._meta.combined)
            if unknown:
                raise InvalidInput(f"{type(self).__name__} has no field {', '.join(unknown)}")
        super().__init__(**values)

    @classmethod
    def select(cls, *fields: Any) -> Select[Self]:
        """Select rows, leaving out the columns that are read when they are asked for (embeddings, tsvectors).

        Raises:
            InvalidInput: A field is given as text, which would be selected as that text, or is no SQL at all.
        """
        if not fields:
            return Select(cls, cls.plain_fields(), is_default=True)
        expanded: list[Any] = []
        for field in fields:
            is_model = inspect.isclass(field) and issubclass(field, BaseModel)
            if not (is_model or isinstance(field, peewee.Node)):
                raise InvalidInput(f"{cls.__name__}: {shown(field)} is no field; select {cls.__name__}.<field>")
            expanded.extend(field.plain_fields() if is_model else [field])
        return Select(cls, expanded)

    @classmethod
    def alias(cls, alias: str | None = None) -> Any:
        """Return the model under another name."""
        return Alias(cls, alias)

    @classmethod
    def plain_fields(cls) -> list[peewee.Field]:
        """Return the fields that a plain `select()` reads."""
        return [field for field in cls._meta.sorted_fields if not getattr(field, "deferred", False)]

    @classmethod
    def get_or_create(cls, **values: Any) -> tuple[Self, bool]:
        """Read the row with these values, or create it with `defaults` as well.

        It is looked for in the tenant that it would be created for.
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
        return Insert(cls, checked(with_tenant(cls, by_field(cls, {} if __data is None else __data, values))))

    @classmethod
    def insert_many(cls, rows: Iterable[Any], fields: Sequence[Any] | None = None) -> Any:
        """Insert rows in one statement; a key that only some rows have is a default in the others.

        Raises:
            InvalidInput: A key is not a field, or a row is neither a mapping nor as long as `fields`.
        """
        named = None if fields is None else fields_named(cls, fields, "fields")
        prepared = [with_tenant(cls, as_row(cls, row, named)) for row in as_list(rows, "rows")]
        columns = [field for field in cls._meta.sorted_fields if any(field in row for row in prepared)]
        for row in prepared:
            for field in columns:
                if field not in row:
                    row[field] = default(field)
        return Insert(cls, insert=[checked(row) for row in prepared], columns=columns)

    @classmethod
    def insert_from(cls, query: Any, fields: Sequence[Any]) -> Any:
        """Insert what a query finds."""
        return Insert(cls, insert=query, columns=fields_named(cls, fields, "fields"))

    @classmethod
    def bulk_create(cls, model_list: Iterable[Any], batch_size: int | None = None) -> None:
        """Insert instances by `insert_many`, and read back what the server filled in."""
        instances = cls._instances(model_list)
        for batch in batches(instances, batch_size):
            rows = [instance.row_to_insert() for instance in batch]
            inserted = cls._written(cls.insert_many(rows), rows, cls._meta.sorted_fields)
            # PostgreSQL returns the rows of one VALUES list in its order.
            for instance, row, written in zip(batch, inserted, rows, strict=True):
                instance.take(row, written)

    @classmethod
    def bulk_update(cls, model_list: Iterable[Any], fields: Sequence[Any], batch_size: int | None = None) -> int:
        """Update these fields of stored instances, all of them or none.

        Returns:
            How many rows were updated.

        Raises:
            NotFound: A row is gone; no row was updated.
            InvalidInput: There is no such field, it is of the key, or an instance was read without it.
        """
        instances = {id(instance): instance for instance in cls._instances(model_list)}
        changed = fields_named(cls, fields, "fields")
        if cls._meta.composite_key or not changed or any(field.primary_key for field in changed):
            raise InvalidInput(f"{cls.__name__}: bulk_update() takes one field or more, and none of the key")
        if len({instance._pk for instance in instances.values()}) < len(instances):
            raise InvalidInput(f"model_list: two instances are the same {cls.__name__}")
        rows = [(instance, instance.values_of(field.name for field in changed)) for instance in instances.values()]
        with cls._meta.database.atomic():
            for batch in batches(rows, batch_size):
                cls._update_batch(batch, changed)
        return len(instances)

    @classmethod
    def update(cls, __data: Any = None, **values: Any) -> Any:
        """Update rows, `updated_at` included."""
        data = by_field(cls, {} if __data is None else __data, values)
        if not data:
            raise InvalidInput(f"{cls.__name__}: nothing to update")
        changed = cls._meta.fields.get("updated_at")
        if changed is not None:
            data.setdefault(changed, peewee.fn.now())
        return peewee.ModelUpdate(cls, checked(data))

    def save(self, force_insert: bool = False, only: Sequence[Any] | None = None) -> Any:  # noqa: FBT001, FBT002
        """Insert the row if it was made here, update it if it was read.

        Args:
            force_insert: Insert it in either case.
            only: The fields to write, by default all that changed.

        Returns:
            1, or 0 where nothing had changed.

        Raises:
            NotFound: The row to update is gone.
            InvalidInput: The key of a stored row was changed.
            ConstraintViolation: The database refused it.
        """
        names = None if only is None else [field.name for field in fields_named(type(self), only, "only")]
        if force_insert or not self.stored:
            data = self.row_to_insert(names)
            (row,) = self._written(type(self).insert(data), [data], self._meta.sorted_fields)
            self.take(row, data)
            return 1
        changed = self.values_of(self.dirty_field_names if names is None else names)
        for key in self._meta.get_primary_keys():
            if changed.pop(key.name, None) is not None and key.name in self._dirty:
                raise InvalidInput(f"{type(self).__name__}: the key of a stored row cannot be changed")
        if not changed:
            return 0
        rows = self._written(type(self).update(changed).where(self._pk_expr()), [changed], self._changing(changed))
        if not rows:
            raise NotFound(f"{type(self).__name__} {self._pk}: no such row to update")
        self.take(rows[0], changed)
        return 1

    def delete_instance(self, recursive: bool = False, delete_nullable: bool = False) -> int:  # noqa: FBT001, FBT002
        """Delete the row; what belongs to it goes with it, by the database's cascade.

        Raises:
            InvalidInput: `recursive` or `delete_nullable` was given: Peewee would delete the children by hand.
        """
        if recursive or delete_nullable:
            raise InvalidInput("the database cascades by itself: call delete_instance() without arguments")
        return super().delete_instance()

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
            instance.take(by_key[instance._pk], row)

    @classmethod
    def _changing(cls, names: Iterable[str]) -> list[peewee.Field]:
        """The columns that an update of these fields changes, for what comes back from it."""
        changed = [cls._meta.fields[name] for name in (*names, "updated_at") if name in cls._meta.fields]
        return list(dict.fromkeys(changed))

    @classmethod
    def _written(cls, query: Any, rows: Sequence[Row], fields: Sequence[peewee.Field]) -> list[dict[str, Any]]:
        """Run a statement that writes, and return what the database has in these fields now, but for large values.

        Those come back only if they were given as SQL.
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
    """A row with a key of its own and the time it was made."""

    id = UuidField.primary()
    created_at = TimestampField(constraints=[ServerDefault("now()")])


class TenantEntity(Entity):
    """A row that belongs to one tenant."""

    tenant_id = NameField()


def name_checks(table: str, *columns: str) -> list[Any]:
    """Return the constraints that keep these columns between 1 and 255 characters."""
    return [
        peewee.Check(f"char_length({column}) BETWEEN 1 AND {MAX_NAME_CHARS}", f"{table}_{column}_check")
        for column in columns
    ]


def object_checks(table: str, *columns: str) -> list[Any]:
    """Return the constraints that keep these `jsonb` columns JSON objects."""
    return [peewee.Check(f"jsonb_typeof({column}) = 'object'", f"{table}_{column}_check") for column in columns]

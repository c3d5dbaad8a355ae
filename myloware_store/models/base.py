"""The base of the models: what every row has, and Peewee's silent traps closed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import peewee

from myloware_store.database import current_tenant, default_tenant, proxy
from myloware_store.errors import InvalidInput, NotFound
from myloware_store.fields import TenantForeignKey, UuidField
from myloware_store.models.row_state import RowState, settle
from myloware_store.models.unsettled import MARKS
from myloware_store.scalars import NameField, ServerDefault, TimestampField, passes
from myloware_store.values import MAX_NAME_CHARS

__all__ = ["BaseModel", "Entity", "TenantEntity", "name_checks", "object_checks"]

Row = dict[peewee.Field, Any]


class BaseModel(RowState, peewee.Model):
    """A Peewee model whose writes never lose anything silently.

    Differences from Peewee's own: an unknown keyword raises; `save()` inserts a row that was made here and updates
    one that was read, whatever its key, and raises `NotFound` where there is nothing to update; after a rollback it
    writes again what the database lacks; a new row comes back with what the server filled in; changes inside a JSON
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
        _prune_fields: Callable[[Mapping[str, Any], Iterable[Any]], dict[str, Any]]
        _normalize_data: Callable[..., Any]

        bulk_update: ClassVar[Callable[..., int]]
        get_or_create: ClassVar[Callable[..., tuple[Any, bool]]]

    class Meta:
        database = proxy
        legacy_table_names = False
        only_save_dirty = True

    def __init__(self, *args: Any, **values: Any) -> None:
        self.stored = "__no_default__" in values
        self.json_read = {}
        self.unsettled = {}
        if not self.stored:
            unknown = sorted(name for name in values if name not in self._meta.combined)
            if unknown:
                raise InvalidInput(f"{type(self).__name__} has no field {', '.join(unknown)}")
        super().__init__(*args, **values)

    @classmethod
    def select(cls, *fields: Any) -> Any:
        """Select rows, leaving out the columns that are read when they are asked for (embeddings, tsvectors)."""
        if not fields:
            return peewee.ModelSelect(cls, cls.plain_fields(), is_default=True)
        expanded: list[Any] = []
        for field in fields:
            is_model = inspect.isclass(field) and issubclass(field, BaseModel)
            expanded.extend(field.plain_fields() if is_model else (field,))
        return super().select(*expanded)

    @classmethod
    def plain_fields(cls) -> list[peewee.Field]:
        """Return the fields that a plain `select()` reads."""
        return [field for field in cls._meta.sorted_fields if not getattr(field, "deferred", False)]

    @classmethod
    def insert(cls, __data: Any = None, **values: Any) -> Any:
        """Insert one row, with the tenant filled in."""
        return super().insert(cls._checked(cls._with_tenant(cls._by_field(__data, values))))

    @classmethod
    def insert_many(cls, rows: Iterable[Any], fields: Sequence[Any] | None = None) -> Any:
        """Insert rows in one statement; a key that only some rows have is a default in the others.

        Raises:
            InvalidInput: A key is not a field, or a row is neither a mapping nor as long as `fields`.
        """
        prepared = [cls._with_tenant(cls._row(row, fields)) for row in rows]
        columns = [field for field in cls._meta.sorted_fields if any(field in row for row in prepared)]
        for row in prepared:
            for field in columns:
                if field not in row:
                    row[field] = cls._default(field)
        return super().insert_many([cls._checked(row) for row in prepared], fields=columns)

    @classmethod
    def bulk_create(cls, model_list: Iterable[Any], batch_size: int | None = None) -> None:
        """Insert instances by `insert_many`, and read back what the server filled in."""
        instances = list(model_list)
        settle(instances, cls._meta.database)
        size = batch_size or max(1, len(instances))
        for start in range(0, len(instances), size):
            batch = instances[start : start + size]
            rows = [instance.row_to_insert() for instance in batch]
            inserted = cls._written(cls.insert_many(rows), cls._filled_fields())
            # PostgreSQL returns the rows of one VALUES list in its order.
            for instance, row, written in zip(batch, inserted, rows, strict=True):
                instance.take(row, written)

    @classmethod
    def update(cls, __data: Any = None, **values: Any) -> Any:
        """Update rows, `updated_at` included."""
        data = cls._by_field(__data, values)
        changed = cls._meta.fields.get("updated_at")
        if changed is not None:
            data.setdefault(changed, peewee.fn.now())
        return super().update(data)

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
        settle([self], self._meta.database)
        if force_insert or not self.stored:
            data = self.row_to_insert(only)
            (row,) = self._written(type(self).insert(data), self._filled_fields())
            self.take(row, data)
            return 1
        self.find_json_changes()
        changed = self._prune_fields(self.__data__, self.dirty_fields if only is None else only)
        if not changed:
            return 0
        keys = {field.name for field in self._meta.get_primary_keys()}
        if keys & changed.keys():
            raise InvalidInput(f"{type(self).__name__}: the key of a stored row cannot be changed")
        returned = [self._meta.fields.get("updated_at", self._meta.get_primary_keys()[0])]
        rows = self._written(type(self).update(changed).where(self._pk_expr()), returned)
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
    def _written(cls, query: Any, returned: Sequence[peewee.Field]) -> list[dict[str, Any]]:
        """Run a statement that writes, and return these columns of its rows, marked where it can be rolled back."""
        # Outside of every block no connection is held, and the statement commits by itself.
        marks = () if cls._meta.database.is_closed() else MARKS
        return list(query.returning(*returned, *marks).dicts().execute())

    def row_to_insert(self, only: Sequence[Any] | None = None) -> dict[str, Any]:
        """Return the row to insert, with parents that are there as instances."""
        data = self.__data__ if only is None else self._prune_fields(self.__data__, [*only, *self._key_names()])
        parents = {name: parent for name, parent in self.__rel__.items() if parent is not None and name in data}
        return {**data, **parents}

    @classmethod
    def _filled_fields(cls) -> list[peewee.Field]:
        """The columns that the server may fill on an INSERT, the key among them."""
        return [
            field
            for field in cls.plain_fields()
            if field.primary_key or field.name in ("tenant_id", *cls._key_names()) or getattr(field, "filled", False)
        ]

    @classmethod
    def _key_names(cls) -> list[str]:
        return [field.name for field in cls._meta.get_primary_keys()]

    @classmethod
    def _by_field(cls, data: Any, values: Mapping[str, Any]) -> Any:
        try:
            return cls._normalize_data(data, values)
        except (ValueError, AttributeError) as error:
            raise InvalidInput(f"{cls.__name__}: {error}") from None

    @classmethod
    def _row(cls, row: Any, fields: Sequence[Any] | None) -> Row:
        if fields is not None and not isinstance(row, Mapping):
            try:
                row = dict(zip(fields, row, strict=True))
            except ValueError:
                raise InvalidInput(f"{cls.__name__}: a row has another length than its {len(fields)} fields") from None
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{cls.__name__}: {type(row).__name__} is not a mapping of fields to values")
        return dict(cls._by_field(row, {}))

    @classmethod
    def _checked(cls, row: Row) -> Row:
        """Have the values checked as what they are, to be stored: Peewee would take them for operands."""
        return {
            field: field.to_value(value) if isinstance(field, peewee.Field) and not passes(value) else value
            for field, value in row.items()
        }

    @classmethod
    def _default(cls, field: peewee.Field) -> Any:
        if field.default is not None:
            return field.default() if callable(field.default) else field.default
        return peewee.SQL("DEFAULT")

    @classmethod
    def _with_tenant(cls, row: Any) -> Any:
        """Fill in `tenant_id`: the parent's, else the one in force, else the settings'."""
        tenant = cls._meta.fields.get("tenant_id")
        if tenant is None or not isinstance(row, dict) or row.get(tenant) is not None:
            return row
        fallback = current_tenant() or default_tenant()
        row[tenant] = fallback
        for field in cls._meta.refs:
            parent = row.get(field)
            if not isinstance(field, TenantForeignKey) or parent is None:
                continue
            model = field.rel_model
            if isinstance(parent, model) and parent.tenant_id is not None:
                row[tenant] = parent.tenant_id
            else:
                # The parent was given by its id: the same statement looks its tenant up.
                parent_id = model.id.db_value(getattr(parent, "id", parent))
                found = model.select(model.tenant_id).where(model.id == parent_id)
                row[tenant] = peewee.fn.COALESCE(found, fallback)
            break
        return row


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

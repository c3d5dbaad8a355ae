"""Peewee's queries of models, with typed errors for unknown names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import peewee

from myloware_store.core.errors import InvalidInput
from myloware_store.orm.rows import by_field, checked, plain_fields

__all__ = ["Alias", "Insert", "Select"]


_Row = TypeVar("_Row", bound=peewee.Model)

if TYPE_CHECKING:
    _ModelSelect = peewee.ModelSelect
else:

    class _ModelSelect(peewee.ModelSelect, Generic[_Row]):  # generic in Peewee's stubs only
        pass


class Select(_ModelSelect[_Row]):
    """A SELECT of rows of a model. `filter` raises a typed error for an unknown name."""

    if TYPE_CHECKING:
        # These return no instances of the model, although Peewee's stubs say so.
        tuples: Callable[..., Any]
        dicts: Callable[..., Any]
        namedtuples: Callable[..., Any]
        objects: Callable[..., Any]

        # These do, and the stubs do not say so.
        first: Callable[..., _Row | None]
        iterator: Callable[..., Iterator[_Row]]

        @overload
        def __getitem__(self, value: int) -> _Row: ...
        @overload
        def __getitem__(self, value: slice) -> list[_Row]: ...
        def __getitem__(self, value: int | slice) -> Any: ...

    def filter(self, *args: Any, **kwargs: Any) -> Any:
        """Add conditions, as expressions or as keywords like Django's."""
        try:
            return super().filter(*args, **kwargs)
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidInput(f"{self.model.__name__}: no such condition: {error}") from None


class Insert(peewee.ModelInsert):
    """An INSERT. `on_conflict` sets `updated_at`, like every update, and raises a typed error for an unknown name."""

    def on_conflict(
        self, action: Any = None, update: Any = None, preserve: Sequence[Any] | None = None, **options: Any
    ) -> Any:
        """Choose what to do with a row that exists already.

        Raises:
            InvalidInput: A field of `update` does not exist, a field of `preserve` has values for the new row only, or
                the action is REPLACE, which PostgreSQL does not have.
        """
        if action and str(action).upper() == "REPLACE":
            raise InvalidInput("PostgreSQL has no REPLACE: use on_conflict(conflict_target=..., preserve=...)")
        kept = [preserve] if isinstance(preserve, str | peewee.Field) else list(preserve or ())
        for field in (self.model._meta.combined.get(name, name) for name in kept):
            if getattr(field, "of_one_row", False):
                raise InvalidInput(
                    f"{self.model.__name__}.{field.name} is encrypted for the new row, and could not be read in the one"
                    " that exists: use connectors.register()"
                )
        changed = self.model._meta.fields.get("updated_at")
        if update is not None or kept:
            update = checked(by_field(self.model, {} if update is None else update))
            if changed is not None and not {changed, changed.name} & set(kept):
                update.setdefault(changed, peewee.fn.now())
        given = {"action": action, "update": update, "preserve": kept or None, **options}
        return super().on_conflict(**{name: value for name, value in given.items() if value is not None})

    def on_conflict_replace(self, replace: bool = True) -> Any:  # noqa: FBT001, FBT002  Peewee's signature
        """Raise InvalidInput, because PostgreSQL has no REPLACE."""
        return self.on_conflict("REPLACE") if replace else self


class Alias(peewee.ModelAlias):
    """A model under another name. A plain `select()` omits the same columns."""

    def get_field_aliases(self) -> list[Any]:
        """Return the fields that a plain `select()` reads."""
        return [getattr(self, field.name) for field in plain_fields(self.model)]

    def select(self, *selection: Any) -> Any:
        """Select rows."""
        return Select(self, selection or self.get_field_aliases())

"""Peewee's queries of models, with names that are not known as typed errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

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
    """A SELECT of rows of a model, whose `filter` says what it does not know."""

    if TYPE_CHECKING:
        # They give no rows of the model, though Peewee's stubs say so.
        tuples: Callable[..., Any]
        dicts: Callable[..., Any]
        namedtuples: Callable[..., Any]
        objects: Callable[..., Any]

    def filter(self, *args: Any, **kwargs: Any) -> Any:
        """Add conditions, written as expressions or in Django's way."""
        try:
            return super().filter(*args, **kwargs)
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidInput(f"{self.model.__name__}: no such condition: {error}") from None


class Insert(peewee.ModelInsert):
    """An INSERT whose `on_conflict` moves `updated_at` like every update, and says what it does not know."""

    def on_conflict(
        self, action: Any = None, update: Any = None, preserve: Sequence[Any] | None = None, **options: Any
    ) -> Any:
        """Say what becomes of a row that is there already.

        Raises:
            InvalidInput: A field of `update` is not known, or REPLACE was asked for, which PostgreSQL does not have.
        """
        if action and str(action).upper() == "REPLACE":
            raise InvalidInput("PostgreSQL has no REPLACE: use on_conflict(conflict_target=..., preserve=...)")
        kept = [preserve] if isinstance(preserve, str | peewee.Field) else list(preserve or ())
        changed = self.model._meta.fields.get("updated_at")
        if update is not None or kept:
            update = checked(by_field(self.model, {} if update is None else update))
            if changed is not None and not {changed, changed.name} & set(kept):
                update.setdefault(changed, peewee.fn.now())
        given = {"action": action, "update": update, "preserve": kept or None, **options}
        return super().on_conflict(**{name: value for name, value in given.items() if value is not None})

    def on_conflict_replace(self, replace: bool = True) -> Any:  # noqa: FBT001, FBT002  Peewee's signature
        """Refuse: PostgreSQL has no REPLACE."""
        return self.on_conflict("REPLACE") if replace else self


class Alias(peewee.ModelAlias):
    """A model under another name, which leaves out the same columns as the model."""

    def get_field_aliases(self) -> list[Any]:
        """Return the fields that a plain `select()` reads."""
        return [getattr(self, field.name) for field in plain_fields(self.model)]

    def select(self, *selection: Any) -> Any:
        """Select rows."""
        return Select(self, selection or self.get_field_aliases())

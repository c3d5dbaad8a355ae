"""What an instance knows of its row: whether it is stored, and what has changed since."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import orjson

from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import dump_json
from myloware_store.orm.fields import JsonField
from myloware_store.orm.scalars import field_name

__all__ = ["RowState"]


class RowState:
    """The part of a model that follows its row through writes.

    Attributes:
        stored: Whether the row was read or saved. A rollback leaves it as it is.
        json_read: The JSON text of the values in which changes are looked for.
    """

    if TYPE_CHECKING:
        __data__: dict[str, Any]
        __rel__: dict[str, Any]
        _dirty: set[str]
        _meta: Any

    stored: bool
    json_read: dict[str, str]

    def row_to_insert(self, only: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the row to insert, or some fields and its key, with parents that are there as instances."""
        self._forget_generated()
        names = self.__data__ if only is None else {*only, *(key.name for key in self._meta.get_primary_keys())}
        parents = {name: parent for name, parent in self.__rel__.items() if parent is not None}
        return {name: parents.get(name, value) for name, value in self.__data__.items() if name in names}

    def values_of(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of fields to be written, or raise InvalidInput for one that was not read."""
        try:
            return {name: self.__data__[name] for name in names}
        except KeyError as missing:
            field = self._meta.fields[missing.args[0]]
            raise InvalidInput(f"{field_name(field)} was not read: select it, or assign a value") from None

    def take(self, row: dict[str, Any], written: Iterable[str]) -> None:
        """Take over what the server returned, and count the fields that were written as clean and stored."""
        written = set(written)
        # With `save(only=...)` some fields stay changed.
        row = {name: value for name, value in row.items() if name in written or name not in self._dirty}
        self.__data__.update(row)
        self._forget_generated()
        if not self.stored:
            self.stored = True
            for field in self._meta.sorted_fields:
                if not getattr(field, "generated", False):
                    self.__data__.setdefault(field.name, None)
        self._dirty -= written
        self._watch_json(written)
        keys = {key.name for key in self._meta.get_primary_keys()}
        self._meta.database.note_save(self, tuple(written - keys))

    def is_dirty(self) -> bool:
        """Tell whether there is something to save."""
        return bool(self.dirty_fields)

    @property
    def dirty_fields(self) -> list[Any]:
        """The fields to save, those in whose JSON value something changed among them."""
        for name, before in self.json_read.items():
            if name not in self._dirty and dump_json(self.__data__.get(name), self._named(name)) != before:
                self._dirty.add(name)
        return [field for field in self._meta.sorted_fields if field.name in self._dirty]

    def __repr__(self) -> str:
        """Name the row, and its state where it was read: for models with one. Peewee gives the others `<Model: id>`."""
        if self.__data__ is None:  # while its values are being checked
            return f"<{type(self).__name__}>"
        status = self.__data__.get("status")
        return f"<{type(self).__name__}: {self}{'' if status is None else f' {status}'}>"

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update({name: copy.copy(value) for name, value in self.__dict__.items()})
        return twin

    def _watch_json(self, written: Iterable[str]) -> None:
        """Remember JSON values as they were written, in the form that they will be read in."""
        for name in written:
            value = self.__data__.get(name)
            if not isinstance(self._meta.fields.get(name), JsonField) or value is None:
                continue
            text = dump_json(value, self._named(name))
            if isinstance(value, dict | list):
                self.json_read[name] = text
            else:
                self.json_read.pop(name, None)
                self.__data__[name] = orjson.loads(text)

    def _forget_generated(self) -> None:
        for field in self._meta.sorted_fields:
            if getattr(field, "generated", False) and field.name not in self._dirty:
                self.__data__.pop(field.name, None)

    def _named(self, name: str) -> str:
        return field_name(self._meta.fields[name])

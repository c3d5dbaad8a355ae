"""What an instance knows of its row: whether it is stored, what has changed since, and what a rollback took back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from myloware_store.models.unsettled import Write, outcomes, take_marks
from myloware_store.values import dump_json

__all__ = ["RowState", "settle"]


class RowState:
    """The part of a model that follows its row through writes and rollbacks.

    Attributes:
        stored: Whether the row is in the database, as far as is known.
        json_read: The JSON text of the values in which changes are looked for.
        unsettled: What was written in transactions that were open then, by the savepoint's id.
    """

    if TYPE_CHECKING:
        __data__: dict[str, Any]
        _dirty: set[str]
        _meta: Any

    stored: bool
    json_read: dict[str, str]
    unsettled: dict[str, Write]

    def take(self, row: dict[str, Any], written: Iterable[str]) -> None:
        """Take over what the server returned for the fields that were written; the row is stored now."""
        marks = take_marks(row)
        if marks is not None:
            top, xid = marks
            write = self.unsettled.setdefault(xid, Write(top, self.stored))
            write.names.update(written)
            for name in row:
                write.before.setdefault(name, self.__data__.get(name, ...))
        self.__data__.update(row)
        self.stored = True
        self.json_read.clear()
        self._dirty.difference_update(written, row)

    def undo(self, write: Write) -> None:
        """Be as before a write that was rolled back, but for what was assigned since."""
        self.stored = write.stored
        for name, value in write.before.items():
            if name in self._dirty:
                continue
            if value is ...:
                self.__data__.pop(name, None)
            else:
                self.__data__[name] = value
        for field in self._meta.sorted_fields:
            if getattr(field, "generated", False):
                self.__data__.pop(field.name, None)
        self._dirty.update(write.names & self.__data__.keys())

    def find_json_changes(self) -> None:
        """Count the JSON values in which something changed as changed."""
        for name, before in self.json_read.items():
            if name not in self._dirty and dump_json(self.__data__.get(name), name) != before:
                self._dirty.add(name)


def settle(instances: Sequence[RowState], database: Any) -> None:
    """Learn what became of the transactions in which these were written, and undo here what was undone there."""
    known = outcomes(database, [instance.unsettled for instance in instances])
    for instance in instances if known else ():
        for xid in reversed(list(instance.unsettled)):
            if known[xid] is None:
                continue
            write = instance.unsettled.pop(xid)
            if not known[xid]:
                instance.undo(write)

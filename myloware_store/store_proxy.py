"""What the models are bound to: a stand-in for the database of the store that is open."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import peewee
from peewee import _savepoint as _PeeweeSavepoint  # noqa: N812 - a class

from myloware_store.errors import DatabaseFault, NotOpen

__all__ = ["Savepoint", "StoreProxy", "proxy"]


class Savepoint(_PeeweeSavepoint):
    """A savepoint whose own failure never hides the error that ended its block."""

    def __exit__(self, exc_type: type[BaseException] | None, *_error: object) -> None:
        if exc_type is None:
            super().__exit__(None, None, None)
        else:
            with suppress(DatabaseFault):
                self.rollback(begin=False)


class StoreProxy(peewee.DatabaseProxy):
    """A database proxy that says what to do while no store is open."""

    def __getattr__(self, name: str) -> Any:
        if self.obj is None:
            raise NotOpen("no store is open: call Store.open() first")
        return getattr(self.obj, name)

    def savepoint(self) -> Savepoint:
        """Begin a savepoint of the open store's database."""
        return Savepoint(self)


proxy = StoreProxy()
"""The database that the models are bound to: that of the open store."""

"""What the models are bound to: a stand-in for the database of the store that is open."""

from __future__ import annotations

from typing import Any

import peewee

from myloware_store.errors import NotOpen
from myloware_store.transaction_blocks import Atomic, Savepoint

__all__ = ["StoreProxy", "proxy"]


class StoreProxy(peewee.DatabaseProxy):
    """A database proxy that says what to do while no store is open."""

    def __getattr__(self, name: str) -> Any:
        if self.obj is None:
            raise NotOpen("no store is open: call Store.open() first")
        return getattr(self.obj, name)

    def atomic(self, *args: Any, **kwargs: Any) -> Atomic:
        """Begin a transaction of the open store's database, or a savepoint inside one."""
        return Atomic(self, *args, **kwargs)

    def savepoint(self) -> Savepoint:
        """Begin a savepoint of the open store's database."""
        return Savepoint(self)


proxy = StoreProxy()
"""The database that the models are bound to: that of the open store."""

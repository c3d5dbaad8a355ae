"""What the models are bound to: a stand-in for the database of the store that is open."""

from __future__ import annotations

from typing import Any

import peewee

from myloware_store.errors import NotOpen
from myloware_store.transaction_blocks import Blocks

__all__ = ["StoreProxy", "proxy"]


class StoreProxy(Blocks, peewee.DatabaseProxy):
    """A database proxy that says what to do while no store is open."""

    def __getattr__(self, name: str) -> Any:
        if self.obj is None:
            raise NotOpen("no store is open: call Store.open() first")
        return getattr(self.obj, name)


proxy = StoreProxy()
"""The database that the models are bound to: that of the open store."""

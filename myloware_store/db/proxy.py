"""The database that the models are bound to: a proxy of the open store's."""

from __future__ import annotations

from typing import Any

import peewee

from myloware_store.core.errors import NotOpen
from myloware_store.db.database import StoreDatabase
from myloware_store.db.transactions import Blocks

__all__ = ["StoreProxy", "default_tenant", "proxy"]


class StoreProxy(Blocks, peewee.DatabaseProxy):
    """A database proxy that raises NotOpen while no store is open."""

    def __getattr__(self, name: str) -> Any:
        if self.obj is None:
            raise NotOpen("no store is open: call Store.open() first")
        return getattr(self.obj, name)


proxy = StoreProxy()
"""The database that the models are bound to."""


def default_tenant() -> str:
    """Return the tenant of the open store's settings; `default` if no store is open."""
    return proxy.obj.settings.tenant_id if isinstance(proxy.obj, StoreDatabase) else "default"

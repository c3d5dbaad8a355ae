"""The database that the models are bound to: a proxy of the open store's."""

from __future__ import annotations

from typing import Any

import peewee

from myloware_store.core.errors import NotOpen
from myloware_store.db.database import StoreDatabase
from myloware_store.db.transactions import Blocks
from myloware_store.settings.secrets import Secrets

__all__ = ["StoreProxy", "default_tenant", "proxy", "secrets_of"]


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


def secrets_of(database: Any) -> Secrets:
    """Return the keys and names for the secrets in a database, or those without settings if no store is open."""
    database = database.obj if isinstance(database, StoreProxy) else database
    return database.settings.secrets if isinstance(database, StoreDatabase) else Secrets()

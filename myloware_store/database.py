"""The way to the database: the pooled database itself, what the models are bound to, and the tenant in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from myloware_store.store_database import StoreDatabase
from myloware_store.store_proxy import proxy
from myloware_store.tenancy import current_actor, current_tenant, tenant_scope

if TYPE_CHECKING:
    from myloware_store.settings import Settings

__all__ = [
    "StoreDatabase",
    "create_database",
    "current_actor",
    "current_tenant",
    "default_tenant",
    "proxy",
    "tenant_scope",
]


def create_database(settings: Settings) -> StoreDatabase:
    """Make the database that `settings` name; nothing is connected before the first statement."""
    return StoreDatabase(settings)


def default_tenant() -> str:
    """Return the tenant that the open store's settings name, `default` where no store is open."""
    return proxy.obj.settings.tenant_id if isinstance(proxy.obj, StoreDatabase) else "default"

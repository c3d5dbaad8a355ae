"""What all writes of memory documents share: whose a document is, and whose embedder makes its vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from myloware_store.core.errors import NotFound
from myloware_store.orm.repository import Repository, writer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from myloware_store.core.embedding import Embedder
    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.rows import Row

__all__ = ["MemoryWriter"]

# Index: the primary key.
ITEMS = """
SELECT id, tenant_id FROM work_items
WHERE id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
"""


class MemoryWriter(Repository):
    """The base of the parts of the memory that write.

    Args:
        database: The open database.
        embedder: Embeds documents that come without a vector.
    """

    def __init__(self, database: StoreDatabase, embedder: Embedder | None = None) -> None:
        super().__init__(database)
        self._embedder = embedder

    def _assign_tenants(self, rows: Sequence[Row]) -> None:
        """Give each document its item's tenant, or else the writer's; NotFound where there is no such item."""
        tenant, _ = writer()
        owners = self._owners({row.item_id for row in rows if row.item_id is not None})
        for row in rows:
            owner = tenant if row.item_id is None else owners.get(row.item_id)
            if owner is None:
                raise NotFound(f"{row.place}: there is no work item {row.item_id}")
            row.tenant_id = owner

    def _owners(self, items: set[UUID]) -> dict[UUID, str]:
        """Return the tenants of the work items that there are; their text is made once for each."""
        if not items:
            return {}
        names: dict[str, str] = {}
        found = self._rows(ITEMS, {"ids": [str(item) for item in items]})
        return {item: names.setdefault(tenant, tenant) for item, tenant in found}

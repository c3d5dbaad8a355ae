"""The agents' memory: documents stored with their embeddings, and found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from myloware_store.memory.bulk import BulkLoad
from myloware_store.memory.documents import Documents
from myloware_store.memory.embeddings import Embeddings
from myloware_store.memory.fusion import HybridSearch
from myloware_store.memory.index import MemoryIndex
from myloware_store.memory.upserts import Upserts

if TYPE_CHECKING:
    from myloware_store.core.embedding import Embedder
    from myloware_store.db.database import StoreDatabase

__all__ = ["Memory"]


class Memory(Upserts, BulkLoad, Documents, Embeddings, HybridSearch):
    """Memory documents of the tenant in force.

    Args:
        database: The open database.
        embedder: Embeds documents that come without a vector, 256 texts a call.

    Attributes:
        index: The vector index that searches go through where it is good.
    """

    def __init__(self, database: StoreDatabase, embedder: Embedder | None = None) -> None:
        super().__init__(database, embedder)
        self.index = MemoryIndex(database, self._index_states)

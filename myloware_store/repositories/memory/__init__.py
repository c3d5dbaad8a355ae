"""The agents' memory: documents stored with their embeddings, and found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from myloware_store.repositories.memory.bulk import BulkLoad
from myloware_store.repositories.memory.documents import Documents
from myloware_store.repositories.memory.embeddings import Embeddings
from myloware_store.repositories.memory.fusion import HybridSearch
from myloware_store.repositories.memory.index import MemoryIndex
from myloware_store.repositories.memory.upserts import Upserts

if TYPE_CHECKING:
    from myloware_store.database import StoreDatabase
    from myloware_store.embedding import Embedder

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

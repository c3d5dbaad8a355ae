"""The agents' memory: documents stored with their embeddings, and found again."""

from __future__ import annotations

from myloware_store.repositories.memory.documents import Documents
from myloware_store.repositories.memory.search import Search
from myloware_store.repositories.memory.text import TextSearch

__all__ = ["Memory"]


class Memory(Documents, Search, TextSearch):
    """Memory documents of the tenant in force.

    Args:
        database: The open database.
        embedder: Embeds documents that come without a vector, in one call a batch.
    """

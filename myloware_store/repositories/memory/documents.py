"""Memory documents stored with their embeddings, and read by their ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any
from uuid import UUID

from myloware_store.embedding import embed
from myloware_store.enums import MemDocType
from myloware_store.errors import InvalidInput, NotFound
from myloware_store.repositories.base import (
    Repository,
    as_flag,
    as_list,
    as_uuids,
    writer,
)
from myloware_store.repositories.memory.rows import checked
from myloware_store.results import MemoryDoc
from myloware_store.vectors import decode_binary, encode_text

if TYPE_CHECKING:
    from myloware_store.database import StoreDatabase
    from myloware_store.embedding import Embedder

__all__ = ["Documents"]


# A document of another tenant is never touched: the row is then missing from what comes back.
UPSERT = """
INSERT INTO mem_docs AS m (id, tenant_id, work_item_id, type, content, embedding, metadata)
SELECT given.id, COALESCE(w.tenant_id, %(tenant_id)s), given.work_item_id, given.type, given.content,
    given.embedding::vector, given.metadata
FROM unnest(
    %(ids)s::uuid[], %(item_ids)s::uuid[], %(types)s::mem_doc_type[], %(contents)s::text[],
    %(embeddings)s::text[], %(metadata)s::jsonb[]
) AS given (id, work_item_id, type, content, embedding, metadata)
LEFT JOIN work_items AS w ON w.id = given.work_item_id AND (%(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s)
-- Always in the order of the ids: two batches with the same documents never wait for each other in a circle.
ORDER BY given.id
ON CONFLICT (id) DO UPDATE
SET work_item_id = EXCLUDED.work_item_id, type = EXCLUDED.type, content = EXCLUDED.content,
    embedding = EXCLUDED.embedding, metadata = EXCLUDED.metadata, updated_at = statement_timestamp()
WHERE m.tenant_id = EXCLUDED.tenant_id
RETURNING m.id
"""

# Index: the primary key. The embedding travels in binary, and only when it is asked for.
GET = """
SELECT m.id, m.tenant_id, m.content, m.type, m.metadata, m.work_item_id, m.created_at, m.updated_at,
    m.embedding IS NOT NULL, CASE WHEN %(with_embedding)s THEN vector_send(m.embedding) END
FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS given (id, n)
JOIN mem_docs AS m ON m.id = given.id
WHERE %(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s
ORDER BY given.n
"""


class Documents(Repository):
    """Memory documents of the tenant in force, by their ids.

    Args:
        database: The open database.
        embedder: Embeds documents that come without a vector, in one call a batch.
    """

    def __init__(self, database: StoreDatabase, embedder: Embedder | None = None) -> None:
        super().__init__(database)
        self._embedder = embedder

    def upsert(self, docs: Iterable[Mapping[str, Any]]) -> list[UUID]:
        """Store documents in one statement; one whose id is there already is replaced.

        Args:
            docs: Mappings with `type` (a `MemDocType`) and `content` (text, 1 MiB at most), and optionally `id`,
                `embedding` (`(1536,)` real numbers), `metadata` (a JSON object) and `work_item_id`. What comes
                without an embedding is embedded by the store's embedder where there is one.

        Returns:
            The ids, in the order of the documents.

        Raises:
            InvalidInput: A document cannot be stored, an id comes twice or belongs to another tenant; nothing was
                written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
            NotFound: There is no such work item, or it is another tenant's; nothing was written.
            StoreError: The embedder failed, which is this error's cause; nothing was written.
        """
        rows = [checked(doc) for doc in as_list(docs, "docs")]
        if not rows:
            return []
        ids = [row["id"] for row in rows]
        if len(set(ids)) != len(ids):
            raise InvalidInput("upsert: an id comes twice")
        self._embed(rows)
        tenant, _ = writer()
        values: dict[str, Any] = {
            "tenant_id": tenant,
            "ids": ids,
            "item_ids": [row["work_item_id"] for row in rows],
            "types": [row["type"] for row in rows],
            "contents": [row["content"] for row in rows],
            "embeddings": [row["embedding"] for row in rows],
            "metadata": [row["metadata"] for row in rows],
        }
        self._db.transact(lambda: self._store(values))
        return [UUID(row_id) for row_id in ids]

    def get(self, ids: Iterable[UUID | str] | UUID | str, *, with_embedding: bool = False) -> list[MemoryDoc]:
        """Return documents by their ids, in that order; those that do not exist are left out.

        Args:
            ids: The documents.
            with_embedding: Whether to read their vectors, 6 KB each.
        """
        values = {"ids": as_uuids(ids, "ids"), "with_embedding": as_flag(with_embedding, "with_embedding")}
        return [
            MemoryDoc(
                id=row_id,
                tenant_id=tenant_id,
                content=content,
                type=MemDocType(kind),
                metadata=metadata,
                work_item_id=item_id,
                created_at=created_at.astimezone(UTC),
                updated_at=updated_at.astimezone(UTC),
                has_embedding=has_embedding,
                embedding=None if vector is None else decode_binary(vector),
            )
            for (
                row_id,
                tenant_id,
                content,
                kind,
                metadata,
                item_id,
                created_at,
                updated_at,
                has_embedding,
                vector,
            ) in self._rows(GET, values)
        ]

    def _embed(self, rows: list[dict[str, Any]]) -> None:
        """Let the embedder make the vectors that are missing."""
        missing = [row for row in rows if row["embedding"] is None]
        if self._embedder is None or not missing:
            return
        vectors = embed(self._embedder, [row["content"] for row in missing])
        for row, vector in zip(missing, vectors, strict=True):
            row["embedding"] = encode_text(vector)

    def _store(self, values: Mapping[str, Any]) -> None:
        self._require_items(values["item_ids"])
        stored = {str(row_id) for (row_id,) in self._rows(UPSERT, values)}
        taken = [row_id for row_id in values["ids"] if row_id not in stored]
        if taken:
            raise InvalidInput(f"upsert: the id {taken[0]} is taken by another tenant's document")

    def _require_items(self, item_ids: list[str | None]) -> None:
        wanted = {item_id for item_id in item_ids if item_id is not None}
        if not wanted:
            return
        known = """
            SELECT id FROM work_items
            WHERE id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
        """
        unknown = wanted - {str(item_id) for (item_id,) in self._rows(known, {"ids": list(wanted)})}
        if unknown:
            raise NotFound(f"there is no work item {min(unknown)}")

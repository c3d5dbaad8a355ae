"""Memory documents read, changed and deleted by their ids, or deleted by a filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from myloware_store.core.arguments import as_enum, as_flag, as_object, as_time, as_uuid, as_uuids
from myloware_store.core.enums import MemDocType
from myloware_store.core.errors import ConstraintViolation, InvalidInput, MemoryConflict, NotFound
from myloware_store.core.results import MemoryDoc
from myloware_store.core.values import MAX_TEXT_BYTES, dump_json, read_label, require_text
from myloware_store.core.vectors import decode_binaries, encode_text
from myloware_store.db.tenancy import current_tenant
from myloware_store.memory.filters import Condition, compile_filter, scope
from myloware_store.memory.rows import embedded
from myloware_store.memory.writer import MemoryWriter

__all__ = ["DOC_COLUMNS", "Documents", "as_docs"]

DOC_COLUMNS = """
m.id, m.tenant_id, m.content, m.type, m.metadata, m.work_item_id, m.created_at, m.updated_at, m.embedding IS NOT NULL
"""
"""What `as_docs` reads, before the embedding in binary or NULL."""

# Index: the primary key. The embedding travels in binary, and only when it is asked for.
GET = """
SELECT {columns}, CASE WHEN %(with_embedding)s THEN vector_send(m.embedding) END
FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS given (id, n)
JOIN mem_docs AS m ON m.id = given.id
WHERE %(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s
ORDER BY given.n
"""

# Index: the primary key.
UPDATE = """
UPDATE mem_docs AS m
SET {assignments}, updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
WHERE m.id = %(id)s::uuid AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
    AND (%(since)s::timestamptz IS NULL OR m.updated_at <= %(since)s::timestamptz)
RETURNING {columns}, NULL
"""
ASSIGNMENTS = {
    "content": "content = %(content)s",
    "type": "type = %(type)s::mem_doc_type",
    "metadata": "metadata = %(metadata)s::jsonb",
    "embedding": "embedding = %(embedding)s::vector",
    "work_item_id": "work_item_id = %(work_item_id)s::uuid",
}
# An embedding describes a content.
KEPT_EMBEDDING = "embedding = CASE WHEN m.content = %(content)s THEN m.embedding END"

# The rows are locked in the order of their ids, as every batch does.
DELETE = """
WITH found AS (
    SELECT m.id FROM mem_docs AS m WHERE {condition} ORDER BY m.id FOR UPDATE
), gone AS (
    DELETE FROM mem_docs AS d USING found WHERE d.id = found.id RETURNING d.id
)
SELECT count(*) FROM gone
"""

_UNCHANGED: Any = ...


class Documents(MemoryWriter):
    """Documents of the tenant in force, by their ids."""

    def get(self, ids: Iterable[UUID | str] | UUID | str, *, with_embedding: bool = False) -> list[MemoryDoc]:
        """Return documents by their ids, in that order; those that do not exist are left out.

        Args:
            ids: The documents.
            with_embedding: Whether to read their vectors, 6 KB each.
        """
        values = {"ids": as_uuids(ids, "ids"), "with_embedding": as_flag(with_embedding, "with_embedding")}
        return as_docs(self._rows(GET.format(columns=DOC_COLUMNS), values))

    def update(
        self,
        doc_id: UUID | str | MemoryDoc,
        *,
        content: str = _UNCHANGED,
        type: MemDocType | str = _UNCHANGED,  # noqa: A002  the column's name
        metadata: Mapping[str, Any] | None = _UNCHANGED,
        embedding: Any = _UNCHANGED,
        work_item_id: UUID | str | None = _UNCHANGED,
        if_unmodified_since: datetime | None = None,
    ) -> MemoryDoc:
        """Change what is given of one document; the rest stays as it is.

        With a new content and no embedding, the store's embedder makes one; without an embedder the old one, which
        describes the old content, is removed, and `missing_embeddings` finds the document.

        Args:
            doc_id: The document.
            content: Its text, 1 MiB at most.
            type: What it is for.
            metadata: A JSON object in place of the one there; None for an empty one.
            embedding: `(1536,)` real numbers; None removes it.
            work_item_id: The item it was made for; None lets it stand alone.
            if_unmodified_since: The `updated_at` of the document as it was read; every change makes it later, so that
                of two that read the same one changes it.

        Returns:
            The document as it is now, without its vector.

        Raises:
            InvalidInput: A value cannot be stored, or none is given.
            InvalidVector: The embedding has a wrong shape, is zero, NaN or infinite.
            NotFound: There is no such document or work item, or it is another tenant's.
            MemoryConflict: The document was changed later than `if_unmodified_since`.
        """
        wanted = as_uuid(doc_id, "doc_id")
        since = None if if_unmodified_since is None else as_time(if_unmodified_since, "if_unmodified_since")
        given = {
            "content": content,
            "type": type,
            "metadata": metadata,
            "embedding": embedding,
            "work_item_id": work_item_id,
        }
        values = {name: _sent(name, value) for name, value in given.items() if value is not _UNCHANGED}
        if not values:
            raise InvalidInput("update: nothing is given that would change")
        if "content" in values and "embedding" not in values and self._embedder is not None:
            (vector,) = embedded(self._embedder, [values["content"]])
            values["embedding"] = encode_text(vector)
        parts = [ASSIGNMENTS[name] for name in values]
        if "content" in values and "embedding" not in values:
            parts.append(KEPT_EMBEDDING)
        sql = UPDATE.format(assignments=", ".join(parts), columns=DOC_COLUMNS)

        def change() -> MemoryDoc:
            item_id = values.get("work_item_id")
            if item_id and not self._owners({UUID(item_id)}):
                raise NotFound(f"work_item_id: there is no work item {item_id}")
            changed = as_docs(self._rows(sql, {**values, "id": str(wanted), "since": since}))
            if changed:
                return changed[0]
            if not self.get(wanted):
                raise NotFound(f"there is no memory document {wanted}")
            raise MemoryConflict(f"the memory document {wanted} was changed after {since}")

        try:
            return self._db.transact(change)
        except ConstraintViolation as error:
            if error.constraint != "mem_docs_work_item_id_fkey":
                raise
        raise NotFound(f"there is no work item {values['work_item_id']} of the document's tenant")

    def delete(
        self,
        ids: Iterable[UUID | str] | UUID | str | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
    ) -> int:
        """Delete documents, either those named or all that meet a filter, in one statement: all or none.

        Args:
            ids: The documents; those that do not exist are passed over.
            filter: Which documents, as in a search. One that every document meets is refused; to delete all of
                them, say `{"created_at": {"exists": True}}`.

        Returns:
            How many documents were deleted.

        Raises:
            InvalidInput: Neither or both are given, or the filter is none.
        """
        if (ids is None) == (filter is None):
            raise InvalidInput("delete: give either ids or a filter")
        if ids is not None:
            given: dict[str, Any] = {"ids": as_uuids(ids, "ids")}
            condition = scope(Condition("m.id = ANY (%(ids)s::uuid[])", given), current_tenant())
        else:
            compiled = compile_filter(filter)
            if compiled == compile_filter(None):
                raise InvalidInput('delete: the filter lets everything pass; say {"created_at": {"exists": True}}')
            condition = scope(compiled, current_tenant())
        ((deleted,),) = self._rows(DELETE.format(condition=condition.sql), condition.parameters)
        return int(deleted)


def as_docs(rows: list[tuple[Any, ...]]) -> list[MemoryDoc]:
    """Return documents from rows of `DOC_COLUMNS` and the embedding in binary."""
    sent = [row[-1] for row in rows if row[-1] is not None]
    vectors = iter(decode_binaries(sent)) if sent else iter(())
    return [
        MemoryDoc(
            id=row_id,
            tenant_id=tenant_id,
            content=content,
            type=read_label(MemDocType, kind),
            metadata=metadata,
            work_item_id=item_id,
            created_at=created_at.astimezone(UTC),
            updated_at=updated_at.astimezone(UTC),
            has_embedding=has_embedding,
            embedding=None if vector is None else next(vectors),
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
        ) in rows
    ]


def _sent(name: str, value: Any) -> Any:
    """Return a value of a document in the form in which it is sent."""
    if name == "content":
        return require_text(value, name, blank=False, max_bytes=MAX_TEXT_BYTES)
    if name == "type":
        return as_enum(value, MemDocType, name).value
    if name == "metadata":
        return dump_json(as_object(value, name), name)
    if name == "embedding":
        return None if value is None else encode_text(value)
    return None if value is None else str(as_uuid(value, name))

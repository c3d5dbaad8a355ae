"""Memory documents stored, or replaced where they are there already: whole batches, all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import attrs

from myloware_store.core.arguments import as_choice, as_list
from myloware_store.core.errors import InvalidInput, MemoryConflict
from myloware_store.memory.rows import COLUMNS, GIVEN, Batch, Row, cut, may_copy, pack, read_batch
from myloware_store.memory.writer import MemoryWriter

if TYPE_CHECKING:
    from myloware_store.core.results import NewDoc

__all__ = ["Upserts"]

COPY_ROWS = 40
"""From so many documents on, COPY into a temporary table beats parameters of the statement (measured with vectors)."""

CREATE_COPIED = """
CREATE TEMPORARY TABLE copied_mem_docs WITH (toast_tuple_target = 8160) ON COMMIT DROP
AS SELECT {columns} FROM mem_docs WITH NO DATA
"""
STORE_PLAIN = "ALTER TABLE pg_temp.copied_mem_docs ALTER COLUMN embedding SET STORAGE PLAIN"
COPY = "COPY pg_temp.copied_mem_docs FROM STDIN BINARY"
COPIED = "TABLE pg_temp.copied_mem_docs"

# The rows come in the order of their ids, from a table or from parameters: two batches with the same documents never
# wait for each other in a circle. A document of another tenant is never touched: its row is missing from what comes
# back. Where a document stays as it is, its row is locked all the same, so that it is still there when the batch is.
INSERT = """
INSERT INTO mem_docs AS m ({columns})
{source}
ON CONFLICT (id) DO UPDATE {action}
RETURNING m.id
"""
ACTIONS = {
    # An embedding describes a content: it is kept where that is the same, and none is given.
    "update": """
SET work_item_id = EXCLUDED.work_item_id, type = EXCLUDED.type, content = EXCLUDED.content,
    metadata = EXCLUDED.metadata,
    embedding = COALESCE(EXCLUDED.embedding, CASE WHEN m.content = EXCLUDED.content THEN m.embedding END),
    updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
WHERE m.tenant_id = EXCLUDED.tenant_id
""",
    "ignore": "SET metadata = EXCLUDED.metadata WHERE FALSE",
    "error": "SET metadata = EXCLUDED.metadata WHERE FALSE",
}

# Index: the primary key.
OWNERS = "SELECT id, tenant_id FROM mem_docs WHERE id = ANY (%(ids)s::uuid[])"

# Two batches of one tenant, one after the other: what the first has stored is seen by the second.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('myloware_store mem_docs ' || %(owner)s, 0))"

# Also where the role's default is a stricter level, which would not see it.
SEE_THE_LATEST = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"

# Index: mem_docs_tenant_id_content_hash_idx.
SAME_CONTENT = """
SELECT given.n, m.id
FROM unnest(%(tenants)s::text[], %(hashes)s::bytea[], %(types)s::mem_doc_type[], %(items)s::uuid[]) WITH ORDINALITY
    AS given (tenant_id, content_hash, type, work_item_id, n)
CROSS JOIN LATERAL (
    SELECT id FROM mem_docs
    WHERE tenant_id = given.tenant_id AND content_hash = given.content_hash AND type = given.type
        AND work_item_id IS NOT DISTINCT FROM given.work_item_id
    ORDER BY created_at, id
    LIMIT 1
) AS m
"""


class Upserts(MemoryWriter):
    """Storing whole batches of documents."""

    def upsert(
        self,
        docs: Iterable[Mapping[str, Any] | NewDoc],
        *,
        on_conflict: Literal["update", "ignore", "error"] = "update",
        dedupe: Literal["id", "content_hash"] = "id",
    ) -> list[UUID]:
        """Store documents in one transaction, all of them or none.

        What comes without an embedding is embedded by the store's embedder where there is one, 256 texts a call.

        Args:
            docs: `NewDoc`s, or mappings with `type` (a `MemDocType`) and `content` (text, 1 MiB at most), and
                optionally `id`, `embedding` (`(1536,)` real numbers), `metadata` (a JSON object) and `work_item_id`.
            on_conflict: What becomes of a document that is there already: `update` replaces it (its embedding stays
                where none is given and the content is the same), `ignore` leaves it as it is, `error` refuses all.
            dedupe: What makes a document one that is there already: `id`, or `content_hash`, which also takes one for
                the same that has the same tenant, type, work item and content. The same content for another item is
                another document, since it is deleted with its item. Batches of a tenant that dedupe by content wait
                for each other, to the end of the caller's transaction; inside one that is REPEATABLE READ or stricter
                they see what was there when it began.

        Returns:
            The ids that stand for the documents, in their order: of what is there already, the id it has.

        Raises:
            InvalidInput: A document cannot be stored, an id comes twice or belongs to another tenant; nothing was
                written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
            MemoryConflict: `on_conflict` is `error` and a document is there already; nothing was written.
            NotFound: There is no such work item, or it is another tenant's; nothing was written.
            StoreError: The embedder failed, which is this error's cause; nothing was written.
        """
        as_choice(on_conflict, ACTIONS, "on_conflict")
        as_choice(dedupe, ("id", "content_hash"), "dedupe")
        batch = read_batch(as_list(docs, "docs"), self._embedder)
        given = [row.id for row in batch.rows]
        own = not self._db.transaction_open()

        def store() -> list[UUID]:
            if own and dedupe == "content_hash":
                self._db.execute_sql(SEE_THE_LATEST)
            self._assign_tenants(batch.rows)
            stands = self._same_contents(batch.rows, on_conflict) if dedupe == "content_hash" else {}
            self._store(batch, stands, on_conflict)
            return [stands.get(row_id, row_id) for row_id in given]

        return self._db.transact(store) if given else []

    def _same_contents(self, rows: list[Row], on_conflict: str) -> dict[UUID, UUID]:
        """Return which ids stand for those that are there already, or come earlier in the batch, by their content."""
        for owner in sorted({row.tenant_id for row in rows}):
            self._rows(LOCK, {"owner": owner})
        values = {
            "tenants": [row.tenant_id for row in rows],
            "hashes": [hashlib.sha256(row.content.encode()).digest() for row in rows],
            "types": [row.type for row in rows],
            "items": [None if row.item_id is None else str(row.item_id) for row in rows],
        }
        stands = {rows[n - 1].id: row_id for n, row_id in self._rows(SAME_CONTENT, values)}
        first: dict[tuple[Any, ...], UUID] = {}
        for row in rows:
            stand = first.setdefault(_key(row), stands.get(row.id, row.id))
            if stand != row.id:
                stands[row.id] = stand
        if stands and on_conflict == "error":
            row = next(row for row in rows if row.id in stands)
            raise MemoryConflict(f"{row.place}: there is a document {stands[row.id]} of the same content")
        return stands

    def _store(self, batch: Batch, stands: Mapping[UUID, UUID], on_conflict: str) -> None:
        chosen: dict[UUID, Row] = {}
        for row in batch.rows:
            stand = stands.get(row.id, row.id)
            earlier = chosen.get(stand)
            if earlier is not None and _key(earlier) != _key(row):
                raise InvalidInput(f"{row.place}: the id {stand} comes with a content, and stands for another one")
            if earlier is None:
                chosen[stand] = attrs.evolve(row, id=stand)
            elif on_conflict == "update":
                vector = earlier.vector if row.vector is None else row.vector
                chosen[stand] = attrs.evolve(row, id=stand, vector=vector)
        ordered = Batch([chosen[row_id] for row_id in sorted(chosen)], batch.vectors)
        left = chosen.keys() - self._insert(ordered, ACTIONS[on_conflict])
        if not left:
            return
        owners = dict(self._rows(OWNERS, {"ids": [str(row_id) for row_id in left]}))
        foreign = [row_id for row_id in left if owners.get(row_id) != chosen[row_id].tenant_id]
        if foreign:
            place = chosen[min(foreign)].place
            raise InvalidInput(f"{place}: the id {min(foreign)} is taken by another tenant's document")
        if on_conflict == "error":
            raise MemoryConflict(f"{chosen[min(left)].place}: there is a document {min(left)} already")

    def _insert(self, batch: Batch, action: str) -> set[UUID]:
        """Insert the documents, and return the ids of those that were written."""
        if len(batch.rows) < COPY_ROWS or not may_copy() or not self._may_make_tables():
            sql = INSERT.format(columns=COLUMNS, source=GIVEN, action=action)
            return {row_id for part in cut(batch) for (row_id,) in self._rows(sql, part.arrays())}
        self._db.execute_sql(CREATE_COPIED.format(columns=COLUMNS))
        self._db.execute_sql(STORE_PLAIN)
        for part in cut(batch):
            self._db.copy(COPY, BytesIO(pack(part)))
        found = self._rows(INSERT.format(columns=COLUMNS, source=COPIED, action=action), {})
        self._db.execute_sql("DROP TABLE pg_temp.copied_mem_docs")
        return {row_id for (row_id,) in found}

    def _may_make_tables(self) -> bool:
        ((may,),) = self._rows("SELECT has_database_privilege(current_database(), 'TEMPORARY')", {})
        return bool(may)


def _key(row: Row) -> tuple[Any, ...]:
    return row.tenant_id, row.type, row.item_id, row.content

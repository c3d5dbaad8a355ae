"""How batches of memory documents are stored: all of them or none."""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from psycopg2.errorcodes import SERIALIZATION_FAILURE

from myloware_store.core.errors import (
    ConstraintViolation,
    InvalidInput,
    MemoryConflict,
    NotFound,
    TransactionConflict,
)
from myloware_store.core.sql import queries_beside
from myloware_store.memory.rows import Batch, Row, cut, may_copy, pack
from myloware_store.orm.repository import Repository, writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from myloware_store.core.results import Hit
    from myloware_store.core.vectors import Embeddings

__all__ = ["COPY_ROWS", "NearDuplicates", "Writing"]

COPY_ROWS = 40
"""From so many documents on, COPY into a temporary table beats parameters of the statement (measured with vectors)."""

_ROUNDING = 1e-12  # of the similarity of a vector to itself

_sql = queries_beside(__file__)


@attrs.frozen
class NearDuplicates:
    """How near-duplicates of new documents are found, and what becomes of them.

    Attributes:
        least: The least similarity.
        update: Whether the new document replaces the one that it is similar to; else it is not stored.
        nearest: Returns the hit that is most similar to a row with this vector, and at least so similar.
    """

    least: float
    update: bool
    nearest: Callable[[Row, Any, float], Hit | None]


class Writing(Repository):
    """Stores batches, inside the caller's transaction."""

    def load(self, batch: Batch) -> None:
        """Store new documents."""
        self._assign_tenants(batch.rows)
        columns = _sql("stored_columns")
        try:
            if may_copy() and not self._is("row_security"):  # under which a table has no COPY FROM
                self._db.copy(_sql("copy").format(table="mem_docs", stored_columns=columns), BytesIO(pack(batch)))
            elif self._copies(batch):
                self._copy(batch)
                self._execute(_sql("load").format(stored_columns=columns, source=_sql("copied")), {})
                self._db.execute_sql(_sql("drop_copied"))
            else:
                insert = _sql("load").format(stored_columns=columns, source=_sql("given"))
                for part in cut(batch):
                    self._execute(insert, part.arrays())
        except ConstraintViolation as error:
            conflicts = {
                "mem_docs_pkey": MemoryConflict(_taken(batch, error)),
                "mem_docs_work_item_id_fkey": NotFound("bulk_load: a work item was deleted meanwhile"),
            }
            if error.constraint in conflicts:
                raise conflicts[error.constraint] from None
            raise
        self._load_chunks(batch.rows, batch.chunk_vectors)

    def replace_chunks(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        """Store the chunks of documents, which are locked, in the place of those that they have."""
        self._db.execute_sql(_sql("delete_chunks"), {"ids": [str(row.id) for row in rows]})
        plain = [str(row.id) for row in rows if not row.chunks]
        if plain:
            self._db.execute_sql(_sql("not_chunked"), {"ids": plain})
        self._load_chunks(rows, vectors)

    def _load_chunks(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        chunks = [attrs.evolve(chunk, document_id=row.id) for row in rows for chunk in row.chunks]
        for part in cut(Batch(chunks, vectors)) if chunks else ():
            self._execute(_sql("load_chunks"), part.arrays())

    def upsert(
        self, batch: Batch, on_conflict: str, *, by_content: bool, near: NearDuplicates | None = None
    ) -> list[UUID]:
        """Store documents, new ones or such as exist already, and return the ids that stand for them."""
        given = [row.id for row in batch.rows]
        self._assign_tenants(batch.rows)
        if by_content or near:
            for owner in sorted({row.tenant_id for row in batch.rows}):
                self._rows(_sql("lock_contents"), {"owner": owner})
        same = self._same_contents(batch.rows) if by_content else {}
        stands = self._stands(batch.rows, same, on_conflict) if by_content else {}
        found = {same[row.id]: row.content for row in batch.rows if row.id in same}
        alike = self._alike(batch, stands, near, found) if near else {}
        if alike:
            stands = {row_id: stands.get(row_id, row_id) for row_id in given}
            if near and not near.update:
                batch = batch.part([row for row in batch.rows if stands[row.id] not in alike])
            stands = {row_id: alike.get(stand, stand) for row_id, stand in stands.items()}
        if batch.rows:
            self._store(batch, stands, on_conflict, alike.values(), found)
        return [stands.get(row_id, row_id) for row_id in given]

    def tenants_of(self, items: set[UUID]) -> dict[UUID, str]:
        """Return the tenants of those work items that exist."""
        if not items:
            return {}
        names: dict[str, str] = {}  # one text for each tenant, not for each item
        found = self._rows(_sql("item_tenants"), {"ids": [str(item) for item in items]}, reads=True)
        return {item: names.setdefault(tenant, tenant) for item, tenant in found}

    def _assign_tenants(self, rows: Sequence[Row]) -> None:
        """Give each document its item's tenant, or else the writer's; raise NotFound if the item does not exist."""
        tenant, _ = writer()
        owners = self.tenants_of({row.item_id for row in rows if row.item_id is not None})
        for row in rows:
            owner = tenant if row.item_id is None else owners.get(row.item_id)
            if owner is None:
                raise NotFound(f"{row.place}: there is no work item {row.item_id}")
            row.tenant_id = owner

    def _same_contents(self, rows: list[Row]) -> dict[UUID, UUID]:
        """Return the ids of stored documents that stand for those of the same content."""
        values = {
            "tenants": [row.tenant_id for row in rows],
            "hashes": [_hash(row.content) for row in rows],
            "types": [row.type for row in rows],
            "items": [None if row.item_id is None else str(row.item_id) for row in rows],
        }
        same = _sql("same_contents").format(visible=_sql("visible"))
        return {rows[n - 1].id: row_id for n, row_id in self._rows(same, values)}

    @staticmethod
    def _stands(rows: list[Row], same: Mapping[UUID, UUID], on_conflict: str) -> dict[UUID, UUID]:
        """Return the ids that stand for documents with a content that exists already, or comes earlier in the batch."""
        stands = dict(same)
        first: dict[tuple[Any, ...], UUID] = {}
        for row in rows:
            stand = first.setdefault(_key(row), stands.get(row.id, row.id))
            if stand != row.id:
                stands[row.id] = stand
        if stands and on_conflict == "error":
            row = next(row for row in rows if row.id in stands)
            raise MemoryConflict(f"{row.place}: there is a document {stands[row.id]} of the same content")
        return stands

    def _alike(
        self, batch: Batch, stands: Mapping[UUID, UUID], near: NearDuplicates, found: dict[UUID, str]
    ) -> dict[UUID, UUID]:
        """Return the near-duplicates of new documents: stored ones, or else such as come earlier in the batch.

        The contents of the stored ones are added to `found`.
        """
        there = dict(self._rows(_sql("doc_tenants"), {"ids": [str(row.id) for row in batch.rows]}))
        groups: dict[tuple[Any, ...], Batch] = {}
        for row in batch.rows:
            if row.vector is not None and row.id not in stands and row.id not in there:
                groups.setdefault((row.tenant_id, row.type, row.item_id), Batch([], batch.vectors)).rows.append(row)
        alike: dict[UUID, UUID] = {}
        for group in groups.values():
            rows, vectors = group.rows, group.part(group.rows).vectors
            unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            kept = np.zeros(len(rows), dtype=bool)
            for n, row in enumerate(rows):
                hit, stand = near.nearest(row, vectors[n], near.least), None
                if hit is not None and hit.id not in there:  # else the batch changes it
                    stand = hit.id
                    found[stand] = hit.content
                elif kept.any():
                    similarity = np.where(kept[:n], unit[:n] @ unit[n], -np.inf)
                    best = int(np.argmax(similarity))
                    stand = rows[best].id if similarity[best] >= near.least - _ROUNDING else None
                kept[n] = stand is None
                if stand is not None:
                    alike[row.id] = stand
        return alike

    def _store(
        self,
        batch: Batch,
        stands: Mapping[UUID, UUID],
        on_conflict: str,
        replaced: Collection[UUID],
        found: Mapping[UUID, str],
    ) -> None:
        chosen: dict[UUID, Row] = {}
        for row in batch.rows:
            stand = stands.get(row.id, row.id)
            earlier = chosen.get(stand)
            if earlier is not None and _key(earlier) != _key(row) and stand not in replaced:
                raise InvalidInput(f"{row.place}: the id {stand} comes with a content, and stands for another one")
            if earlier is None:
                chosen[stand] = attrs.evolve(row, id=stand)
            elif on_conflict == "update":
                embedded = earlier if row.vector is None else row
                chosen[stand] = attrs.evolve(row, id=stand, vector=embedded.vector, model=embedded.model)
        ordered = Batch([chosen[row_id] for row_id in sorted(chosen)], batch.vectors)
        values = {"found": [*map(str, found)], "hashes": [*map(_hash, found.values())]}
        written = self._insert(ordered, on_conflict, values)
        chunked = [row for row in ordered.rows if written.get(row.id)]
        if chunked:
            self.replace_chunks(chunked, batch.chunk_vectors)
        left = chosen.keys() - written.keys()
        if not left:
            return
        owners = dict(self._rows(_sql("doc_tenants"), {"ids": [str(row_id) for row_id in left]}))
        foreign = [row_id for row_id in left if owners.get(row_id) != chosen[row_id].tenant_id]
        if foreign:
            place = chosen[min(foreign)].place
            raise InvalidInput(f"{place}: the id {min(foreign)} is taken by another tenant's document or by a chunk")
        if on_conflict == "error":
            raise MemoryConflict(f"{chosen[min(left)].place}: there is a document {min(left)} already")
        if on_conflict == "update":
            raise TransactionConflict(
                f"the document {min(left)} stood for another one, and has another content now; run it again",
                sqlstate=SERIALIZATION_FAILURE,
            )

    def _insert(self, batch: Batch, on_conflict: str, values: dict[str, Any]) -> dict[UUID, bool]:
        """Insert or update the documents, and return which were written, and whether they have, or had, chunks."""
        action = _sql("on_conflict_update") + ("" if on_conflict == "update" else f"\n{_sql('on_conflict_keep')}")
        columns = _sql("stored_columns")
        if not self._copies(batch):
            sql = _sql("upsert").format(stored_columns=columns, source=_sql("given"), action=action)
            parts = (self._rows(sql, {**part.arrays(), **values}) for part in cut(batch))
            return {row_id: chunked for part in parts for row_id, chunked in part}
        self._copy(batch)
        sql = _sql("upsert").format(stored_columns=columns, source=_sql("copied"), action=action)
        written = self._rows(sql, values)
        self._db.execute_sql(_sql("drop_copied"))
        return dict(written)

    def _copies(self, batch: Batch) -> bool:
        """Return whether a batch goes over a temporary table."""
        return len(batch.rows) >= COPY_ROWS and may_copy() and self._is("may_create_tables")

    def _copy(self, batch: Batch) -> None:
        """Copy a batch into a temporary table, which the caller drops."""
        columns = _sql("stored_columns")
        self._db.execute_sql(_sql("create_copied").format(stored_columns=columns))
        self._db.execute_sql(_sql("store_plain"))
        copy = _sql("copy").format(table="pg_temp.copied_mem_docs", stored_columns=columns)
        for part in cut(batch):
            self._db.copy(copy, BytesIO(pack(part)))

    def _is(self, question: str) -> bool:
        ((answer,),) = self._rows(_sql(question), {})
        return bool(answer)


def _taken(batch: Batch, error: ConstraintViolation) -> str:
    """Name the document whose id is taken; the server's detail names the id to a role that may read it."""
    detail = getattr(getattr(error.driver_error, "diag", None), "message_detail", None) or ""
    taken = (row for row in batch.rows if str(row.id) in detail)
    named = (f"{row.place}: the id {row.id} is there already, or comes twice" for row in taken)
    return next(named, "bulk_load: an id is there already, or comes twice")


def _hash(content: str) -> bytes:
    return hashlib.sha256(content.encode()).digest()


def _key(row: Row) -> tuple[Any, ...]:
    return row.tenant_id, row.type, row.item_id, row.content

"""The agents' memory: documents stored with their embeddings, and found again by meaning, by words, or by both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import attrs
import numpy as np

from myloware_store.core.arguments import (
    as_choice,
    as_count,
    as_enum,
    as_flag,
    as_list,
    as_number,
    as_object,
    as_time,
    as_uuid,
    as_uuids,
)
from myloware_store.core.enums import MemDocType
from myloware_store.core.errors import ConstraintViolation, InvalidInput, MemoryConflict, NotFound
from myloware_store.core.results import MemoryDoc, NewDoc
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import MAX_TEXT_BYTES, dump_json, read_label, require_text, shown
from myloware_store.core.vectors import as_embeddings, decode_binary, encode_literal, encode_text, encode_texts
from myloware_store.db.statements import LIFT_DEADLINES
from myloware_store.db.tenancy import current_tenant
from myloware_store.memory import search, text
from myloware_store.memory.filters import Condition, compile_filter, scope
from myloware_store.memory.index import MemoryIndex
from myloware_store.memory.index.state import IndexStates
from myloware_store.memory.rows import batches, embedded, read_batch
from myloware_store.memory.writing import Writing
from myloware_store.orm.repository import Repository

if TYPE_CHECKING:
    from myloware_store.core.embedding import Embedder
    from myloware_store.core.results import Hit
    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.state import IndexState

__all__ = ["Memory"]

_ASSIGNMENTS = {
    "content": "content = %(content)s",
    "type": "type = %(type)s::mem_doc_type",
    "metadata": "metadata = %(metadata)s::jsonb",
    "embedding": "embedding = %(embedding)s::vector",
    "work_item_id": "work_item_id = %(work_item_id)s::uuid",
}
# An embedding describes a content.
_KEPT_EMBEDDING = "embedding = CASE WHEN m.content = %(content)s THEN m.embedding END"

_MAX_SHARES = 1_024
_MOST = 1_000_000
_UNCHANGED: Any = ...
_sql = queries_beside(__file__)


class Memory(Repository):
    """Memory documents of the tenant in force.

    Args:
        database: The open database.
        embedder: Embeds documents that come without a vector, 256 texts per call.

    Attributes:
        index: The vector index that searches go through if it is good enough.
    """

    def __init__(self, database: StoreDatabase, embedder: Embedder | None = None) -> None:
        super().__init__(database)
        self._embedder = embedder
        self._writing = Writing(database)
        self._index_states = IndexStates(database)
        self.index = MemoryIndex(database, self._index_states)

    def upsert(
        self,
        docs: Iterable[Mapping[str, Any] | NewDoc],
        *,
        on_conflict: Literal["update", "ignore", "error"] = "update",
        dedupe: Literal["id", "content_hash"] = "id",
    ) -> list[UUID]:
        """Store documents in one transaction, all of them or none.

        If the store has an embedder, it embeds documents that come without an embedding, 256 texts per call.

        Args:
            docs: `NewDoc`s, or mappings with `type` (a `MemDocType`) and `content` (text, 1 MiB at most), and
                optionally `id`, `embedding` (`(1536,)` real numbers), `metadata` (a JSON object) and `work_item_id`.
            on_conflict: For a document that exists already: `update` replaces it (its embedding stays if none is
                given and the content is the same), `ignore` leaves it as it is, `error` refuses the whole batch.
            dedupe: How to recognize a document that exists already: by `id`, or also by `content_hash`, that is by the
                same tenant, type, work item and content. The same content for another item is another document,
                because documents are deleted with their items. Batches of one tenant that dedupe by content wait for
                each other, until the end of the caller's transaction. In a transaction of the level REPEATABLE READ or
                SERIALIZABLE they see the documents that existed when it began.

        Returns:
            The ids of the documents, in their order; for a document that existed already, the id it has.

        Raises:
            InvalidInput: A document cannot be stored, an id comes twice or belongs to another tenant; nothing was
                written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
            MemoryConflict: `on_conflict` is `error` and a document exists already; nothing was written.
            NotFound: A work item does not exist, or is another tenant's; nothing was written.
            StoreError: The embedder failed; its error is the cause of this one. Nothing was written.
        """
        as_choice(on_conflict, ("update", "ignore", "error"), "on_conflict")
        by_content = as_choice(dedupe, ("id", "content_hash"), "dedupe") == "content_hash"
        batch = read_batch(as_list(docs, "docs", NewDoc, Mapping), self._embedder)
        own = not self._db.transaction_open()

        def store() -> list[UUID]:
            if own and by_content:
                self._db.execute_sql(_sql("read_committed"))
            return self._writing.upsert(batch, on_conflict, by_content=by_content)

        return self._db.transact(store) if batch.rows else []

    def bulk_load(
        self,
        docs: Iterable[Mapping[str, Any] | NewDoc],
        *,
        progress: Callable[[int], object] | None = None,
        batch_size: int = 1_000,
    ) -> int:
        """Load new documents from an iterable of any length in one transaction, all of them or none.

        The documents are read, checked, embedded (if the store has an embedder) and sent in batches, so memory use does
        not grow with their number. `docs` may use the store between the batches. Server time-outs do not apply, unless
        the transaction is the caller's. The server computes the search vector and the hash of each content, and keeps
        the indexes up to date. For a load that can be resumed, call this once for each portion, or call `upsert` with
        ids of your own.

        Args:
            docs: Documents as for `upsert`; all of them are new.
            progress: Called after each batch with the number of documents sent so far. They are stored when the whole
                load is.
            batch_size: Documents in a batch (1 to 100,000); fewer if their contents are long.

        Returns:
            How many documents were stored.

        Raises:
            InvalidInput: A document cannot be stored, or `docs`, `progress` or the embedder ended the transaction;
                nothing was written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
            MemoryConflict: An id exists already, or came in an earlier batch; nothing was written.
            NotFound: A work item does not exist, or is another tenant's; nothing was written.
            StoreError: The embedder failed; its error is the cause of this one. Nothing was written.
        """
        if progress is not None and not callable(progress):
            raise InvalidInput(f"progress: {type(progress).__name__} cannot be called")
        size = as_count(batch_size, "batch_size")
        sent = 0
        own = not self._db.transaction_open()
        with self._db.atomic():
            if own:
                self._db.execute_sql(LIFT_DEADLINES, (True,))
            for part in batches(docs, size):
                batch = read_batch(part, self._embedder, before=sent)
                self._require_transaction()
                self._writing.load(batch)
                sent += len(batch.rows)
                if progress is not None:
                    progress(sent)
            self._require_transaction()
        return sent

    def get(self, ids: Iterable[UUID | str] | UUID | str, *, with_embedding: bool = False) -> list[MemoryDoc]:
        """Return documents by their ids, in that order; ids that do not exist are left out.

        Args:
            ids: The documents.
            with_embedding: Whether to read their vectors, 6 KB each.

        Raises:
            InvalidInput: An id is not a UUID.
        """
        values = {"ids": as_uuids(ids, "ids"), "with_embedding": as_flag(with_embedding, "with_embedding")}
        return self._docs(_sql("get"), values, reads=True)

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
        """Change the given values of one document; the others stay as they are.

        If the content is new and no embedding is given, the store's embedder makes one. A store without an embedder
        removes the old embedding, which describes the old content, and `missing_embeddings` returns the document.

        Args:
            doc_id: The document.
            content: Its text, 1 MiB at most.
            type: Its type.
            metadata: A JSON object that replaces the old one; None for an empty one.
            embedding: `(1536,)` real numbers; None removes it.
            work_item_id: The item it belongs to; None for no item.
            if_unmodified_since: The `updated_at` of the document as it was read. Every change makes `updated_at` later,
                so of two callers that read the same version only one changes it.

        Returns:
            The document as it is now, without its vector.

        Raises:
            InvalidInput: A value cannot be stored, or no value is given.
            InvalidVector: The embedding has a wrong shape, is zero, NaN or infinite.
            NotFound: The document or the work item does not exist, or is another tenant's.
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
        assignments = [_ASSIGNMENTS[name] for name in values]
        if "content" in values and "embedding" not in values:
            assignments.append(_KEPT_EMBEDDING)

        def change() -> MemoryDoc:
            item_id = values.get("work_item_id")
            if item_id and not self._writing.tenants_of({UUID(item_id)}):
                raise NotFound(f"work_item_id: there is no work item {item_id}")
            changed = self._docs(
                _sql("update"), {**values, "id": str(wanted), "since": since}, assignments=", ".join(assignments)
            )
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
        """Delete documents by their ids or by a filter, in one statement, all of them or none.

        Args:
            ids: The documents; ids that do not exist are ignored.
            filter: Which documents to delete, as in a search. A filter that every document meets is refused; to delete
                all documents, use `{"created_at": {"exists": True}}`.

        Returns:
            How many documents were deleted.

        Raises:
            InvalidInput: Neither or both are given, or the filter is not valid.
        """
        if (ids is None) == (filter is None):
            raise InvalidInput("delete: give either ids or a filter")
        if ids is not None:
            given: dict[str, Any] = {"ids": as_uuids(ids, "ids")}
            condition = scope(Condition("m.id = ANY (%(ids)s::uuid[])", given), current_tenant())
        else:
            compiled = compile_filter(filter)
            if compiled == compile_filter(None):
                raise InvalidInput(
                    'delete: the filter matches every document; to delete all, pass {"created_at": {"exists": True}}'
                )
            condition = scope(compiled, current_tenant())
        ((deleted,),) = self._rows(_sql("delete").format(condition=condition.sql), condition.parameters)
        return int(deleted)

    def missing_embeddings(self, limit: int = 100, *, share: tuple[int, int] = (0, 1)) -> list[MemoryDoc]:
        """Return documents without an embedding, oldest first.

        The documents are not locked or leased: two callers at once get the same documents, and do the same work twice.
        If several processes embed in the background, let each of them ask for a share of its own.

        Args:
            limit: Most documents to return (1 to 100,000).
            share: Which share of the documents, and of how many shares: `(0, 4)` to `(3, 4)` for four processes. A
                document's id decides in which share it is.

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        if not isinstance(share, tuple | list) or len(share) != 2:  # noqa: PLR2004  a pair
            raise InvalidInput(f"share: {shown(share)} is not a pair such as (0, 4)")
        most = as_count(limit, "limit")
        shares = as_count(share[1], "share: of how many", most=_MAX_SHARES)
        number = as_count(share[0], "share", least=0, most=shares - 1)
        return self._docs(_sql("missing_embeddings"), {"limit": most, "share": number, "shares": shares}, reads=True)

    def set_embeddings(self, pairs: Iterable[Sequence[Any]]) -> set[UUID]:
        """Set or replace the embeddings of documents, in one statement.

        Args:
            pairs: `(doc, vector)` or `(id, vector, content)`, to set the vector only if the document still has the
                content that it was made for; `(id, vector)`, to set it in any case. A `doc` is one that
                `missing_embeddings` or `get` returned; a vector has `(1536,)` real numbers.

        Returns:
            The ids of the documents that have the given embedding now. Documents that were deleted or have another
            content are left out.

        Raises:
            InvalidInput: An element is not such a pair, or an id comes twice; nothing was written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
        """
        given = [_embedding(pair, f"pairs[{n}]") for n, pair in enumerate(as_list(pairs, "pairs"))]
        ids = [row_id for row_id, _, _ in given]
        if len(set(ids)) != len(ids):
            raise InvalidInput("pairs: an id comes twice")
        places = [f"pairs[{n}]: embedding" for n in range(len(given))]
        if not given:
            return set()
        values = {
            "ids": ids,
            "vectors": encode_texts(as_embeddings([vector for _, vector, _ in given], places)),
            "hashes": [content_hash for _, _, content_hash in given],
        }
        return {row_id for (row_id,) in self._rows(_sql("set_embeddings"), values)}

    def similar(
        self,
        vector: Any,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
        min_similarity: float | None = None,
        mode: Literal["auto", "exact", "ann"] = "auto",
        with_embedding: bool = False,
    ) -> list[Hit]:
        """Return the k documents whose embeddings are most similar to a vector, best first.

        There are always min(k, matching documents) of them. Ties come in the order of their ids; if more documents tie
        than there is room for, the index chooses among them.

        Args:
            vector: `(1536,)` real numbers.
            k: Most documents to return (1 to 10,000).
            filter: Which documents to search, in the language of filters.
            min_similarity: Return only documents at least this similar, from -1 to 1.
            mode: `auto` uses the vector index if `store.memory.index.status()` calls it usable and it is faster than
                comparing all documents; if a filter or a tenant narrows the search, up to some 50,000 documents are
                compared. `exact` always compares. `ann` uses any valid index, even if it was never measured or is
                outdated, and compares if there is no index that could answer.
            with_embedding: Whether to read the vectors of the hits, 6 KB each.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds.
        """
        count, condition = as_count(k, "k", most=search.MAX_HITS), _condition(filter)
        least = -1.0 if min_similarity is None else as_number(min_similarity, "min_similarity", least=-1, most=1)
        query, with_vectors = encode_literal(vector, "vector"), as_flag(with_embedding, "with_embedding")
        state = self._usable(mode)
        if state is not None and condition.sql == "TRUE":
            alone = search.through_index_alone(state, count, query, with_embedding=with_vectors, untested=mode == "ann")
            if alone is not None:
                hits = search.find(
                    self._db, alone.sql, {**alone.parameters, "furthest": search.FURTHEST}, alone.settings
                )
                if len(hits) == count:
                    return [hit for hit in hits if hit.score >= least]
                # Another index may have taken its place.
                self._index_states.refresh()
                state = self._usable(mode)
        furthest = search.FURTHEST if least == -1 else 1 - least
        near = search.through_index(state, condition, count, query, untested=mode == "ann")
        if near is None and not with_vectors and count <= search.MOST_ALONE:
            near = search.by_comparing_alone(condition, count, query)
            statement = near.sql
        else:
            near = near or search.by_comparing(condition, count, query)
            statement = search.hits_of(
                near.sql,
                "near",
                order="r.distance, r.id",
                score="1 - r.distance",
                similarity="1 - r.distance",
                with_embedding=with_vectors,
            )
        return search.find(self._db, statement, {**near.parameters, "furthest": furthest}, near.settings)

    def mmr(
        self,
        vector: Any,
        *,
        k: int = 10,
        fetch_k: int | None = None,
        lam: float = 0.5,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
    ) -> list[Hit]:
        """Return k documents that are similar to a vector and unlike each other, in the order they were chosen.

        Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): of the `fetch_k` most similar documents, the
        next one chosen always has the largest `lam * similarity - (1 - lam) * largest similarity to one chosen before`,
        which becomes its `score`; ties go to the more similar.

        Args:
            vector: `(1536,)` real numbers.
            k: Most documents to return (1 to 1,000).
            fetch_k: How many documents to choose among, from k to 10,000; by default 4 * k, at least 20.
            lam: From 0 (as unlike each other as possible) to 1 (as similar to the vector as possible).
            filter: Which documents to search, in the language of filters.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds.
        """
        count = as_count(k, "k", most=1_000)
        most = search.MAX_HITS
        fetched = max(4 * count, 20) if fetch_k is None else as_count(fetch_k, "fetch_k", least=count, most=most)
        weight = as_number(lam, "lam", least=0, most=1)
        hits = self.similar(vector, k=fetched, filter=filter, with_embedding=True)
        if not hits:
            return []
        embeddings = np.stack([hit.embedding for hit in hits if hit.embedding is not None])
        relevance = np.array([hit.score for hit in hits])
        chosen = search.diverse(embeddings, relevance, count, weight)
        return [attrs.evolve(hits[i], score=score, embedding=None) for i, score in chosen]

    def search_text(
        self,
        q: str,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
        match: Literal["web", "any", "phrase"] = "web",
        highlight: bool = False,
    ) -> list[Hit]:
        """Return the documents that match a query as people type it, best first.

        Words are compared by their English stems, without stop words. Every text that a person can type is accepted; a
        text without words finds nothing.

        Args:
            q: The query; only the first 32 words and 2,000 characters count.
            k: Most documents to return (1 to 10,000).
            filter: Which documents to search, in the language of filters.
            match: `web` understands `"a phrase"`, `or` and `-excluded`, and returns documents with all the words first;
                if there are fewer than k, documents with any of the words follow. `any` returns documents with any of
                the words, `phrase` documents with the words in a row.
            highlight: Whether each hit has the passages that match, from its first 10,000 characters, with the words
                between `**`. This parses each hit's text.

        Returns:
            Hits with a `score`, from 0 to 1 by `ts_rank`, plus 1 for documents with all the words (with `any`: for
            documents found through the index, if others are searched as well). Ties come in the order of their ids.

            The time is bounded: at most 5,000 matches (or k, if larger) are ranked, an arbitrary choice. Two kinds of
            queries are not served by an index, and search only the 1,000 documents that were changed last: queries with
            excluded words only (newest change first), and text in scripts without blanks between words (Chinese,
            Japanese, Thai; also Korean). Such text is compared by pairs of characters, and scored by how many of
            them (16 at most) are in the first 10,000 characters of a document.

        Raises:
            InvalidInput: An argument is out of its bounds, or `q` contains a NUL character.
        """
        query = text.typed(q, match)
        count = as_count(k, "k", most=search.MAX_HITS)
        condition = _condition(filter)
        statement = search.hits_of(
            text.text_legs(query, condition.sql),
            "found",
            order="r.score DESC, r.id",
            score="r.score",
            highlight=text.highlight(query) if as_flag(highlight, "highlight") else "NULL",
        )
        values = {**query.parameters, **condition.parameters, "depth": count}
        return search.find(self._db, statement, values, search.SETTINGS)

    def hybrid(
        self,
        vector: Any,
        q: str,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
        rrf_k: float = 60,
        weights: Sequence[float] = (1, 1),
        pool: int | None = None,
    ) -> list[Hit]:
        """Return the documents that are best by `similar` and `search_text` together, best first.

        Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): a document's `score` is the sum of
        `weight / (rrf_k + rank)` over the searches that found it; ties come in the order of their ids. Both searches
        see one snapshot, in one statement.

        Args:
            vector: `(1536,)` real numbers.
            q: The query, as for `search_text`.
            k: Most documents to return (1 to 10,000).
            filter: Which documents to search, in the language of filters.
            rrf_k: 0 or more; the larger it is, the less the first ranks count. 60 is the paper's.
            weights: The weights of the vector and of the text, two numbers of 0 or more, not both 0.
            pool: How many documents of each search to rank, from k to 10,000; by default 4 * k, at least 50.

        Returns:
            Hits with their rank in each search, None if the document is not in that search's pool.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds.
        """
        most = search.MAX_HITS
        count = as_count(k, "k", most=most)
        depth = min(max(4 * count, 50), most) if pool is None else as_count(pool, "pool", least=count, most=most)
        if not isinstance(weights, Sequence) or len(weights) != 2:  # noqa: PLR2004  the two searches
            raise InvalidInput(f"weights: {shown(weights)} is not a pair of numbers")
        vector_weight, text_weight = (as_number(weight, "weights", least=0, most=_MOST) for weight in weights)
        if not vector_weight + text_weight:
            raise InvalidInput("weights: both are 0")
        condition = _condition(filter)
        sent = encode_literal(vector, "vector")
        near = search.through_index(self._usable("auto"), condition, depth, sent, untested=False)
        near = near or search.by_comparing(condition, depth, sent)
        query = text.typed(q, "web")
        statement = search.hits_of(
            ",\n".join([near.sql, text.text_legs(query, condition.sql), _sql("fused")]),
            "fused",
            order="r.score DESC, r.id",
            score="r.score",
            similarity=_sql("fused_similarity"),
            vector_rank="r.vector_rank",
            text_rank="r.text_rank",
        )
        values = {
            **near.parameters,
            **query.parameters,
            "furthest": search.FURTHEST,
            "depth": depth,
            "k": count,
            "rrf_k": as_number(rrf_k, "rrf_k", least=0, most=_MOST),
            "vector_weight": vector_weight,
            "text_weight": text_weight,
        }
        return search.find(self._db, statement, values, near.settings)

    def _docs(self, sql: str, values: Mapping[str, Any], *, reads: bool = False, **names: str) -> list[MemoryDoc]:
        """Run a statement that returns `doc_columns` and `vector`, and return its rows as documents."""
        rows = self._named(sql.format(doc_columns=_sql("doc_columns"), **names), values, reads=reads)
        return [_as_doc(**row) for row in rows]

    def _require_transaction(self) -> None:
        if not self._db.transaction_open():
            raise InvalidInput("bulk_load: the transaction was ended by what it calls: docs, progress or the embedder")

    def _usable(self, mode: Any) -> IndexState | None:
        """Return the state of the index if searches of this mode may go through it."""
        as_choice(mode, ("auto", "exact", "ann"), "mode")
        if mode == "exact":
            return None
        state = self._index_states.get()
        return state if state.usable or (mode == "ann" and state.valid) else None


def _condition(filter: Mapping[str, Any] | None) -> Condition:  # noqa: A002  the settled name
    return scope(compile_filter(filter), current_tenant())


def _as_doc(*, type: str, created_at: datetime, updated_at: datetime, vector: Any, **values: Any) -> MemoryDoc:  # noqa: A002  the column's name
    return MemoryDoc(
        type=read_label(MemDocType, type),
        created_at=created_at.astimezone(UTC),
        updated_at=updated_at.astimezone(UTC),
        embedding=None if vector is None else decode_binary(vector),
        **values,
    )


def _embedding(pair: Any, place: str) -> tuple[str, Any, bytes | None]:
    """Return an id, its vector, and the hash of the content that it was made for."""
    if not isinstance(pair, tuple | list) or len(pair) not in (2, 3):
        raise InvalidInput(f"{place}: {shown(pair)} is neither (doc, vector) nor (id, vector, content)")
    doc, vector, *rest = pair
    content = rest[0] if rest else doc.content if isinstance(doc, MemoryDoc) else None
    hashed = None if content is None else hashlib.sha256(require_text(content, f"{place}: content").encode()).digest()
    return str(as_uuid(doc, f"{place}: id")), vector, hashed


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

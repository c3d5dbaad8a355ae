"""The agents' memory: documents stored with their embeddings, and found again by meaning, by words, or by both."""

from __future__ import annotations

import builtins
import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import attrs
import numpy as np

from myloware_store.core.arguments import (
    as_callable,
    as_choice,
    as_count,
    as_enum,
    as_flag,
    as_list,
    as_name,
    as_number,
    as_object,
    as_time,
    as_uuid,
    as_uuids,
)
from myloware_store.core.embedding import read_embedder
from myloware_store.core.enums import MemDocType
from myloware_store.core.errors import ConstraintViolation, InvalidInput, MemoryConflict, NotFound, StoreError
from myloware_store.core.results import MemoryDoc, NewDoc
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import MAX_TEXT_BYTES, dump_json, read_label, require_text, shown
from myloware_store.core.vectors import as_embeddings, decode_binary, encode_literal, encode_text, encode_texts
from myloware_store.db.statements import LIFT_DEADLINES
from myloware_store.db.tenancy import current_tenant
from myloware_store.memory import passages, search, text
from myloware_store.memory.filters import Condition, compile_filter, scope
from myloware_store.memory.index import MemoryIndex
from myloware_store.memory.index.metadata import build_metadata_index, drop_metadata_index
from myloware_store.memory.index.state import IndexStates
from myloware_store.memory.rows import EMBED_TEXTS, as_chunker, batches, embedded, read_batch, read_chunks
from myloware_store.memory.worth import Worth
from myloware_store.memory.writing import NearDuplicates, Writing
from myloware_store.orm.repository import Repository

if TYPE_CHECKING:
    from myloware_store.core.embedding import Embedder
    from myloware_store.core.results import Hit
    from myloware_store.core.splitting import Chunker
    from myloware_store.core.vectors import Embeddings
    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.report import MetadataIndex
    from myloware_store.memory.index.session import Progress
    from myloware_store.memory.index.state import IndexState
    from myloware_store.memory.rows import Row

__all__ = ["Memory"]

_ASSIGNMENTS = {
    "content": "content = %(content)s",
    "type": "type = %(type)s::mem_doc_type",
    "metadata": "metadata = %(metadata)s::jsonb",
    # A document that is stored in chunks has none, also if it was cut just now.
    "embedding": (
        "embedding = CASE WHEN m.chunk_no = 0 THEN NULL ELSE %(embedding)s::vector END,"
        " embedding_model = CASE WHEN m.chunk_no = 0 THEN NULL ELSE %(model)s END"
    ),
    "work_item_id": "work_item_id = %(work_item_id)s::uuid",
    "expires_at": "expires_at = %(expires_at)s::timestamptz",
}
# An embedding describes a content.
_KEPT_EMBEDDING = (
    "embedding = CASE WHEN m.content = %(content)s THEN m.embedding END,"
    " embedding_model = CASE WHEN m.content = %(content)s THEN m.embedding_model END"
)

_MAX_SHARES = 1_024
_NEAREST = 10  # documents; more if all of them are stored in chunks
_MOST = 1_000_000
_ORDERS = ("created_at", "-created_at", "updated_at", "-updated_at")
_UNCHANGED: Any = ...
_OWN: Any = ...
_PER = ("chunk", "document")
_sql = queries_beside(__file__)


class Memory(Repository):
    """Memory documents of the tenant in force.

    Args:
        database: The open database.
        embedder: Embeds documents that come without a vector, 256 texts per call. If it has a `name`, that is recorded
            as the model of every embedding that is stored without naming another, and searches compare only with the
            embeddings of this model, unless they name another.

    Attributes:
        index: The vector index that searches go through if it is good enough.
    """

    def __init__(self, database: StoreDatabase, embedder: Embedder | None = None) -> None:
        super().__init__(database)
        self._embedder = embedder
        self._model, self._dimensions = read_embedder(embedder)
        self._writing = Writing(database)
        self._index_states = IndexStates(database)
        self.index = MemoryIndex(database, self._index_states)

    def upsert(
        self,
        docs: Iterable[Mapping[str, Any] | NewDoc],
        *,
        on_conflict: Literal["update", "ignore", "error"] = "update",
        dedupe: Literal["id", "content_hash"] = "id",
        min_similarity: float | None = None,
        on_similar: Literal["skip", "update", "keep"] = "skip",
        model: str | None = _OWN,
        chunk: bool | Chunker = False,
    ) -> list[UUID]:
        """Store documents in one transaction, all of them or none.

        If the store has an embedder, it embeds documents that come without an embedding, 256 texts per call.

        Args:
            docs: `NewDoc`s, or mappings with `type` (a `MemDocType`) and `content` (text, 1 MiB at most), and
                optionally `id`, `embedding` (`(1536,)` real numbers), `metadata` (a JSON object), `work_item_id` and
                `expires_at` (an aware datetime or an ISO text with an offset).
            on_conflict: For a document that exists already: `update` replaces it (its embedding stays if none is
                given and the content is the same), `ignore` leaves it as it is, `error` refuses the whole batch.
            dedupe: How to recognize a document that exists already: by `id`, or also by `content_hash`, that is by the
                same tenant, type, work item and content. The same content for another item is another document,
                because documents are deleted with their items. Batches of one tenant that dedupe by content wait for
                each other, until the end of the caller's transaction. In a transaction of the level REPEATABLE READ or
                SERIALIZABLE they see the documents that existed when it began.
            min_similarity: Look for near-duplicates: a document that exists already, or comes earlier in the batch, of
                the same tenant, type and work item, whose embedding is at least this similar (cosine, 0 to 1) to that
                of a new document. None (the default) looks for none. Each new document with an embedding costs a
                search as by `similar`, which finds as many as the index's recall if it uses the index; batches of one
                tenant wait for each other as with `content_hash`. Documents that are cut into chunks are neither
                compared nor found.
            on_similar: For a document that has a near-duplicate: `skip` does not store it, `update` replaces the
                most similar one by it (only with `on_conflict="update"`), under the id of that one, even if the new
                document has an id, `keep` stores both. Needs `min_similarity`.
            model: The model of the given embeddings, a name or None; by default the embedder's `name`.
            chunk: Whether to store long documents in chunks: True cuts them with `split_text`, a callable returns the
                chunks of a text. The document keeps the whole content, the chunks have the embeddings. A document that
                is stored again gets other chunks, or none.

        Returns:
            The ids of the documents, in their order; for a document that existed already, or has a near-duplicate
            that stands for it, the id of that one.

        Raises:
            InvalidInput: A document cannot be stored, an id comes twice or belongs to another tenant, or an option is
                not valid; nothing was written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
            MemoryConflict: `on_conflict` is `error` and a document exists already; nothing was written.
            NotFound: A work item does not exist, or is another tenant's; nothing was written.
            StoreError: The embedder failed; its error is the cause of this one. Nothing was written.
        """
        as_choice(on_conflict, ("update", "ignore", "error"), "on_conflict")
        by_content = as_choice(dedupe, ("id", "content_hash"), "dedupe") == "content_hash"
        near: NearDuplicates | None = None
        as_choice(on_similar, ("skip", "update", "keep"), "on_similar")
        if min_similarity is None and on_similar != "skip":
            raise InvalidInput(f"on_similar: {on_similar} needs min_similarity, from which on documents are similar")
        if min_similarity is not None:
            least = as_number(min_similarity, "min_similarity", least=0, most=1)
            if on_similar == "update" and on_conflict != "update":
                raise InvalidInput(f"on_similar: update replaces documents, and on_conflict is {on_conflict}")
            if on_similar != "keep":
                near = NearDuplicates(least, on_similar == "update", self._nearest)
        batch = read_batch(
            as_list(docs, "docs", NewDoc, Mapping), self._embedder, self._named_model(model), as_chunker(chunk)
        )
        own = not self._db.transaction_open()

        def store() -> list[UUID]:
            if own and (by_content or near):
                self._db.execute_sql(_sql("read_committed"))
            return self._writing.upsert(batch, on_conflict, by_content=by_content, near=near)

        return self._db.transact(store) if batch.rows else []

    def bulk_load(
        self,
        docs: Iterable[Mapping[str, Any] | NewDoc],
        *,
        progress: Callable[[int], object] | None = None,
        batch_size: int = 1_000,
        model: str | None = _OWN,
        chunk: bool | Chunker = False,
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
            model: The model of the given embeddings, a name or None; by default the embedder's `name`.
            chunk: Whether to store long documents in chunks, as for `upsert`.

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
        if progress is not None:
            as_callable(progress, "progress")
        size, given_by, chunker = as_count(batch_size, "batch_size"), self._named_model(model), as_chunker(chunk)
        sent = 0
        own = not self._db.transaction_open()
        with self._db.atomic():
            if own:
                self._db.execute_sql(LIFT_DEADLINES, (True,))
            for part in batches(docs, size):
                batch = read_batch(part, self._embedder, given_by, chunker, before=sent)
                self._require_transaction()
                self._writing.load(batch)
                sent += len(batch.rows)
                if progress is not None:
                    progress(sent)
            self._require_transaction()
        return sent

    def get(self, ids: Iterable[UUID | str] | UUID | str, *, with_embedding: bool = False) -> list[MemoryDoc]:
        """Return documents by their ids, in that order; ids that do not exist, or have expired, are left out.

        Args:
            ids: The documents.
            with_embedding: Whether to read their vectors, 6 KB each.

        Raises:
            InvalidInput: An id is not a UUID.
        """
        values = {"ids": as_uuids(ids, "ids"), "with_embedding": as_flag(with_embedding, "with_embedding")}
        return self._docs(_sql("get"), values, reads=True)

    def chunks(self, doc_id: UUID | str | MemoryDoc, *, with_embedding: bool = False) -> list[MemoryDoc]:
        """Return the chunks of a document, in their order; none if it is not stored in chunks, or not there.

        Args:
            doc_id: The document.
            with_embedding: Whether to read their vectors, 6 KB each.

        Raises:
            InvalidInput: The id is not a UUID.
        """
        values = {"id": str(as_uuid(doc_id, "doc_id")), "with_embedding": as_flag(with_embedding, "with_embedding")}
        return self._docs(_sql("chunks"), values, reads=True)

    def update(
        self,
        doc_id: UUID | str | MemoryDoc,
        *,
        content: str = _UNCHANGED,
        type: MemDocType | str = _UNCHANGED,  # noqa: A002  the column's name
        metadata: Mapping[str, Any] | None = _UNCHANGED,
        embedding: Any = _UNCHANGED,
        model: str | None = _OWN,
        work_item_id: UUID | str | None = _UNCHANGED,
        expires_at: datetime | str | None = _UNCHANGED,
        if_unmodified_since: datetime | None = None,
        chunk: Literal[True] | Chunker = True,
    ) -> MemoryDoc:
        """Change the given values of one document; the others stay as they are.

        If the content is new and no embedding is given, the store's embedder makes one. A store without an embedder
        removes the old embedding, which describes the old content, and `missing_embeddings` returns the document.

        The chunks of a document change with it, in the same transaction. Of a chunk, only the embedding can be changed.

        Args:
            doc_id: The document.
            content: Its text, 1 MiB at most.
            type: Its type.
            metadata: A JSON object that replaces the old one; None for an empty one.
            embedding: `(1536,)` real numbers; None removes it.
            model: The model of the given embedding, a name or None; by default the embedder's `name`.
            work_item_id: The item it belongs to; None for no item.
            expires_at: The time from which it is not found any more; None if it stays.
            if_unmodified_since: The `updated_at` of the document as it was read. Every change makes `updated_at` later,
                so of two callers that read the same version only one changes it.
            chunk: How to cut the new content of a document that is stored in chunks: a callable as for `upsert`, or
                True for `split_text`. To store it whole again, `upsert` it.

        Returns:
            The document as it is now, without its vector.

        Raises:
            InvalidInput: A value cannot be stored, no value is given, or it is one that a chunk or a document that is
                stored in chunks does not have.
            InvalidVector: The embedding has a wrong shape, is zero, NaN or infinite.
            NotFound: The document or the work item does not exist, or is another tenant's, or the document has expired.
            MemoryConflict: The document was changed later than `if_unmodified_since`.
        """
        wanted = as_uuid(doc_id, "doc_id")
        since = None if if_unmodified_since is None else as_time(if_unmodified_since, "if_unmodified_since")
        chunker = as_chunker(chunk)
        if chunker is None:
            raise InvalidInput("chunk: update cuts a document in chunks again; to store it whole, upsert it by its id")
        given = {
            "content": content,
            "type": type,
            "metadata": metadata,
            "embedding": embedding,
            "work_item_id": work_item_id,
            "expires_at": expires_at,
        }
        given = {name: value for name, value in given.items() if value is not _UNCHANGED}
        values = {name: _sent(name, value, self._dimensions) for name, value in given.items()}
        if not values:
            raise InvalidInput("update: nothing is given that would change")
        values["model"] = self._named_model(model)
        cut = self._read_content(wanted, values, chunker) if "content" in values else None
        assignments = [_ASSIGNMENTS[name] for name in values if name != "model"]
        if "content" in values and "embedding" not in values:
            assignments.append(_KEPT_EMBEDDING)
        values["model"] = values["model"] if values.get("embedding") else None

        def change() -> MemoryDoc:
            item_id = values.get("work_item_id")
            if item_id and not self._writing.tenants_of({UUID(item_id)}):
                raise NotFound(f"work_item_id: there is no work item {item_id}")
            doc = self._changed(assignments, {**values, "id": str(wanted), "since": since})
            self._update_chunks(doc, given.keys(), cut, chunker)
            return doc

        try:
            return self._db.transact(change)
        except ConstraintViolation as error:
            if error.constraint != "mem_docs_work_item_id_fkey":
                raise
        raise NotFound(f"there is no work item {values['work_item_id']} of the document's tenant")

    def _changed(self, assignments: Sequence[str], values: dict[str, Any]) -> MemoryDoc:
        """Change one document; once more if it was deleted and stored again while the statement waited for it."""
        for _ in range(3):
            changed = self._docs(_sql("update"), values, assignments=", ".join(assignments))
            if changed:
                return changed[0]
            if not self.get(values["id"]):
                break
            if values["since"] is not None:
                raise MemoryConflict(f"the memory document {values['id']} was changed after {values['since']}")
        raise NotFound(f"there is no memory document {values['id']}")

    def delete(
        self,
        ids: Iterable[UUID | str] | UUID | str | None = None,
        *,
        filter: Mapping[Any, Any] | None = None,  # noqa: A002  the settled name
    ) -> int:
        """Delete documents by their ids or by a filter, in one statement, all of them or none.

        Args:
            ids: The documents; ids that do not exist, or are those of chunks, are ignored.
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
        return int(deleted) if deleted else len(self._nothing(filter))

    def prune(self, limit: int = 1_000) -> int:
        """Delete documents that have expired, those that expired first, in one transaction.

        Workers call it beside `reap`. Expired documents are not found before either; until they are deleted, they only
        take up space, and their ids.

        Args:
            limit: Most documents to delete in this call (1 to 100,000).

        Returns:
            How many were deleted; 0 if none is left, except for those that others are writing.

        Raises:
            InvalidInput: The limit is out of its bounds.
        """
        ((deleted,),) = self._rows(_sql("prune"), {"limit": as_count(limit, "limit")})
        return int(deleted)

    def missing_embeddings(
        self, limit: int = 100, *, share: tuple[int, int] = (0, 1), model: str | None = _OWN
    ) -> list[MemoryDoc]:
        """Return documents without an embedding of a model, oldest first.

        The documents are not locked or leased: two callers at once get the same documents, and do the same work twice.
        If several processes embed in the background, let each of them ask for a share of its own.

        Args:
            limit: Most documents to return (1 to 100,000).
            share: Which share of the documents, and of how many shares: `(0, 4)` to `(3, 4)` for four processes. A
                document's id decides in which share it is.
            model: The name of the model; None for documents without an embedding of any model. By default the
                embedder's `name`.

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        if not isinstance(share, tuple | list) or len(share) != 2:  # noqa: PLR2004  a pair
            raise InvalidInput(f"share: {shown(share)} is not a pair such as (0, 4)")
        most = as_count(limit, "limit")
        shares = as_count(share[1], "share: of how many", most=_MAX_SHARES)
        number = as_count(share[0], "share", least=0, most=shares - 1)
        wanted = self._named_model(model)
        statement = _sql("missing_embeddings" if wanted is None else "missing_of_model")
        values = {"limit": most, "share": number, "shares": shares, "model": wanted}
        pieces = {name: _sql(name) for name in ("doc_columns", "visible", "in_share")}
        sql = statement.format(**pieces, models=_sql("models").format(condition="TRUE"))
        # The planner thinks that few documents are in a share, and that finding them takes long enough to compile.
        rows = self._db.execute_tuned({"jit": "off"}, sql, {"tenant": current_tenant(), **values})
        names = [column.name for column in rows.description]
        return [_as_doc(**dict(zip(names, row, strict=True))) for row in rows]

    def set_embeddings(self, pairs: Iterable[Sequence[Any]], *, model: str | None = _OWN) -> set[UUID]:
        """Set or replace the embeddings of documents, in one statement.

        Args:
            pairs: `(doc, vector)` or `(id, vector, content)`, to set the vector only if the document still has the
                content that it was made for; `(id, vector)`, to set it in any case. A `doc` is one that
                `missing_embeddings` or `get` returned; a vector has `(1536,)` real numbers, or as many as the embedder
                declares.
            model: The model of the vectors, a name or None; by default the embedder's `name`.

        Returns:
            The ids of the documents that have the given embedding now. Documents that were deleted, have another
            content, or are stored in chunks are left out.

        Raises:
            InvalidInput: An element is not such a pair, or an id comes twice; nothing was written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
        """
        made_by = self._named_model(model)
        given = [_embedding(pair, f"pairs[{n}]") for n, pair in enumerate(as_list(pairs, "pairs"))]
        ids = [row_id for row_id, _, _ in given]
        if len(set(ids)) != len(ids):
            raise InvalidInput("pairs: an id comes twice")
        places = [f"pairs[{n}]: embedding" for n in range(len(given))]
        if not given:
            return set()
        values = {
            "ids": ids,
            "vectors": encode_texts(as_embeddings([vector for _, vector, _ in given], places, self._dimensions)),
            "hashes": [content_hash for _, _, content_hash in given],
            "model": made_by,
        }
        statement = _sql("set_embeddings").format(visible=_sql("visible"))
        return {row_id for (row_id,) in self._rows(statement, values)}

    def reembed(
        self,
        *,
        batch_size: int = EMBED_TEXTS,
        share: tuple[int, int] = (0, 1),
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Embed every document that has no embedding of the store's embedder's model, oldest first.

        Each batch is a transaction, and searches go on meanwhile. The rows know their models, so a call that was
        interrupted is continued by the next one. Several processes take a share each.

        Args:
            batch_size: Documents in a batch (1 to 100,000). The embedder gets 256 texts at most per call.
            share: Which share of the documents, and of how many shares, as for `missing_embeddings`.
            progress: Called after each batch with the number of documents embedded so far.

        Returns:
            How many documents were embedded.

        Raises:
            InvalidInput: The store has no embedder with a `name`, or an argument is out of its bounds.
            InvalidVector: The embedder returned something else than usable vectors; the batches before are stored.
            StoreError: The embedder failed, and its error is the cause of this one; or the role may not change the
                documents. The batches before are stored.
        """
        if self._embedder is None or self._model is None:
            raise InvalidInput("reembed: open the store with an embedder that has a `name`")
        if progress is not None:
            as_callable(progress, "progress")
        done, before, most = 0, list[MemoryDoc](), as_count(batch_size, "batch_size")
        while docs := self.missing_embeddings(most, share=share, model=self._model):
            if docs == before:
                raise StoreError(f"reembed: no embedding of the next {len(docs)} documents can be stored")
            vectors = embedded(self._embedder, [doc.content for doc in docs])
            done += len(self.set_embeddings(zip(docs, vectors, strict=True), model=self._model))
            before = docs
            if progress is not None:
                progress(done)
        return done

    def similar(
        self,
        vector: Any,
        *,
        k: int = 10,
        filter: Mapping[Any, Any] | None = None,  # noqa: A002  the settled name
        min_similarity: float | None = None,
        mode: Literal["auto", "exact", "ann"] = "auto",
        with_embedding: bool = False,
        model: str | None = _OWN,
        per: Literal["chunk", "document"] = "chunk",
        worth: Worth | None = None,
    ) -> list[Hit]:
        """Return the k documents whose embeddings are most similar to a vector, best first.

        There are always min(k, matching documents) of them. Ties come in the order of their ids; if more documents tie
        than there is room for, the index chooses among them.

        Args:
            vector: `(1536,)` real numbers, or as many as the store's embedder makes.
            k: Most documents to return (1 to 10,000).
            filter: Which documents to search, in the language of filters.
            min_similarity: Return only documents at least this similar, from -1 to 1.
            mode: `auto` uses the vector index if `store.memory.index.status()` calls it usable and it is faster than
                comparing all documents; if a filter or a tenant narrows the search, up to some 50,000 documents are
                compared. `exact` always compares. `ann` uses any valid index, even if it was never measured or is
                outdated, and compares if there is no index that could answer.
            with_embedding: Whether to read the vectors of the hits, 6 KB each.
            model: The model of the vector: only embeddings of this model are compared with it, or only those without
                a model's name (None). By default the embedder's `name`. Without a name, all embeddings are compared.
                If there are embeddings of other models only, a `UserWarning` names these.
            per: Whether each chunk of a document is a hit, or only its best one: k documents then.
            worth: How much more new and important documents count. It ranks the 4 * k most similar, at least 50.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds, or no model is named and the hits have embeddings of
                several models.
        """
        rest: dict[str, Any] = {"filter": filter, "min_similarity": min_similarity, "mode": mode, "model": model}
        rest["with_embedding"] = with_embedding
        if worth is not None:
            return self._by_worth(worth, k, lambda n: self.similar(vector, k=n, per=per, **rest))
        if as_choice(per, _PER, "per") == "document":
            return search.per_document(k, lambda n: self.similar(vector, k=n, **rest))
        hits = self._similar(vector, k=k, **rest)
        if not hits:
            self._warn_of_model(self._asked_model(model))
        return hits or self._nothing(filter)

    def _similar(
        self,
        vector: Any,
        *,
        k: int,
        filter: Mapping[Any, Any] | None,  # noqa: A002  the settled name
        min_similarity: float | None,
        model: str | None,
        mode: Literal["auto", "exact", "ann"] = "auto",
        with_embedding: bool = False,
    ) -> list[Hit]:
        """Return the hits of `similar`, each chunk by itself."""
        count, condition = as_count(k, "k", most=search.MAX_HITS), _condition(filter)
        asked = self._asked_model(model)
        least = -1.0 if min_similarity is None else as_number(min_similarity, "min_similarity", least=-1, most=1)
        query, with_vectors = (
            encode_literal(vector, "vector", self._dimensions),
            as_flag(with_embedding, "with_embedding"),
        )
        state = self._usable(mode)
        if state is not None and condition.sql == "TRUE":
            alone = search.through_index_alone(state, count, query, with_embedding=with_vectors, untested=mode == "ann")
            if alone is not None:
                hits = search.find(
                    self._db, alone.sql, {**alone.parameters, "furthest": search.FURTHEST}, alone.settings
                )
                if len(hits) == count and all(asked in (..., hit.embedding_model) for hit in hits):
                    return _of_one_model([hit for hit in hits if hit.score >= least])
                if len(hits) < count:
                    # Another index may have taken its place.
                    self._index_states.refresh()
                    state = self._usable(mode)
        condition = search.of_model(condition, asked)
        filtered = condition.sql != "TRUE"
        furthest = search.FURTHEST if least == -1 else 1 - least
        near = search.through_index(state, condition, count, query, filtered=filtered, untested=mode == "ann")
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
        return _of_one_model(search.find(self._db, statement, {**near.parameters, "furthest": furthest}, near.settings))

    def mmr(
        self,
        vector: Any,
        *,
        k: int = 10,
        fetch_k: int | None = None,
        lam: float = 0.5,
        filter: Mapping[Any, Any] | None = None,  # noqa: A002  the settled name
        model: str | None = _OWN,
        per: Literal["chunk", "document"] = "chunk",
    ) -> list[Hit]:
        """Return k documents that are similar to a vector and unlike each other, in the order they were chosen.

        Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): of the `fetch_k` most similar documents, the
        next one chosen always has the largest `lam * similarity - (1 - lam) * largest similarity to one chosen before`,
        which becomes its `score`; ties go to the more similar.

        Args:
            vector: `(1536,)` real numbers, or as many as the store's embedder makes.
            k: Most documents to return (1 to 1,000).
            fetch_k: How many documents to choose among, from k to 10,000; by default 4 * k, at least 20.
            lam: From 0 (as unlike each other as possible) to 1 (as similar to the vector as possible).
            filter: Which documents to search, in the language of filters.
            model: The model of the vector, as for `similar`.
            per: Whether to choose among chunks, or among documents by their best chunks.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds, or the documents have embeddings of several models.
        """
        count = as_count(k, "k", most=1_000)
        most = search.MAX_HITS
        fetched = max(4 * count, 20) if fetch_k is None else as_count(fetch_k, "fetch_k", least=count, most=most)
        weight = as_number(lam, "lam", least=0, most=1)
        hits = self.similar(vector, k=fetched, filter=filter, with_embedding=True, model=model, per=per)
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
        filter: Mapping[Any, Any] | None = None,  # noqa: A002  the settled name
        match: text.Match = "web",
        highlight: bool = False,
        k1: float = text.K1,
        b: float = text.B,
        per: Literal["chunk", "document"] = "chunk",
        worth: Worth | None = None,
    ) -> list[Hit]:
        """Return the documents that match a query as people type it, best first.

        Documents are ranked by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009): a word
        counts the more, the fewer documents have it. Words are compared by their English stems, without stop words,
        whatever their case, their accents and the punctuation around them. Identifiers, that is words with digits, `_`
        or capitals inside, are found in every spelling: HP-2025-0142 also as `hp2025 0142` or `0142`, MAX_SIZE also
        as `maxSize`. Text in scripts without blanks between words (Chinese, Japanese, Thai; also Korean) is compared by
        pairs of characters. A word that no document has stands for those that differ by one letter. Every text that a
        person can type is accepted; a text without words finds nothing.

        Args:
            q: The query; only the first 32 words, 64 unspaced characters and 2,000 characters count.
            k: Most documents to return (1 to 10,000).
            filter: Which documents to search, in the language of filters.
            match: `web` returns documents with all the words first; documents with some of them follow, unless they
                have only words that nearly all documents have. A `"quoted phrase"` is one of the words, `or` separates
                alternatives, `-excluded` leaves documents out. `any` returns documents with any of the words, `phrase`
                documents with the words in a row. `prefix` is `web` for words that begin like those of the query: it
                reads the index entries of all of them. `part` finds words that contain those of the query (`Gebühr` in
                `Mahngebühren`), and reads every document for it: about a second for 50,000. All but `phrase`
                understand `-excluded`; `prefix` and `part` correct no typing errors.
            highlight: Whether each hit has the passages that match, from its first 10,000 characters, with the words
                between `**`. This parses each hit's text.
            k1: How much it counts if a document has a word several times, from 0 (nothing).
            b: How much a word counts less in long documents, from 0 (nothing) to 1.
            per: Whether each chunk of a document is a hit, or only its best one: k documents then.
            worth: How much more new and important documents count. It ranks the 4 * k best matches, at least 50.

        Returns:
            Hits with a `score`: the share of the largest BM25 score that a document could reach, from 0 to 1, plus 1
            for documents with all the words (not with `any` and `part`). Ties come in the order of their ids.

            The time is bounded. How many documents have a word is estimated from 500 of them, of the tenant in force
            if there is one. The documents with the rarest words are ranked, some 700, and up to 2,000 others if these
            are fewer than k. If even the rarest word is in more than 5,000 documents, those with all the words are
            ranked, and the 5,000 that were stored first of these. A query with excluded words only searches the 1,000
            documents that were changed last, newest change first.

        Raises:
            InvalidInput: An argument is out of its bounds, or `q` contains a NUL character.
        """
        rest: dict[str, Any] = {"filter": filter, "match": match, "highlight": highlight, "k1": k1, "b": b}
        if worth is not None:
            return self._by_worth(worth, k, lambda n: self.search_text(q, k=n, per=per, **rest))
        if as_choice(per, _PER, "per") == "document":
            return search.per_document(k, lambda n: self.search_text(q, k=n, **rest))
        query = text.typed(q, match)
        count = as_count(k, "k", most=search.MAX_HITS)
        condition = search.of_passages(_condition(filter))
        statement = search.hits_of(
            self._text_legs(query, condition),
            "found",
            order="r.score DESC, r.id",
            score="r.score",
            highlight=passages.matching_runs(query) if as_flag(highlight, "highlight") else "NULL",
        )
        values = {
            **query.parameters,
            **condition.parameters,
            "depth": count,
            "k1": as_number(k1, "k1", least=0, most=_MOST),
            "b": as_number(b, "b", least=0, most=1),
        }
        hits = search.find(self._db, statement, values, search.SETTINGS) or self._nothing(filter)
        return [passages.highlighted(hit, query) for hit in hits] if highlight else hits

    def hybrid(
        self,
        vector: Any,
        q: str,
        *,
        k: int = 10,
        filter: Mapping[Any, Any] | None = None,  # noqa: A002  the settled name
        rrf_k: float = 60,
        weights: Sequence[float] = (1, 1),
        text_boost: float = 6,
        pool: int | None = None,
        model: str | None = _OWN,
        per: Literal["chunk", "document"] = "chunk",
        worth: Worth | None = None,
    ) -> list[Hit]:
        """Return the documents that are best by `similar` and `search_text` together, best first.

        Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): a document's `score` is the sum of
        `weight / (rrf_k + rank)` over the searches that found it; ties come in the order of their ids. The text's
        weight is multiplied by `1 + text_boost * score` of `search_text`, which is above 1 for documents with all the
        words: so an identifier or a quotation is found as well as by the text alone, which plain fusion ranks behind
        documents that are only similar. Both searches see one snapshot, in one statement.

        Args:
            vector: `(1536,)` real numbers.
            q: The query, as for `search_text`.
            k: Most documents to return (1 to 10,000).
            filter: Which documents to search, in the language of filters.
            rrf_k: 0 or more; the larger it is, the less the first ranks count. 60 is the paper's.
            weights: The weights of the vector and of the text, two numbers of 0 or more, not both 0.
            text_boost: How much more the text counts the better it matches; 0 is plain reciprocal rank fusion. With 6,
                on 6,535 docstrings embedded by all-MiniLM-L6-v2, the mean reciprocal rank of identifiers was .97 (plain
                .60, text alone .98), of titles .62 (plain .67, the better search alone .58).
            pool: How many documents of each search to rank, from k to 10,000; by default 4 * k, at least 50.
            model: The model of the vector, as for `similar`. Documents of other models are found by their text alone.
            per: Whether each chunk of a document is a hit, or only its best one: k documents then.
            worth: How much more new and important documents count. It ranks the 4 * k best hits, at least 50.

        Returns:
            Hits with their rank in each search, None if the document is not in that search's pool.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds, or no model is named and the hits have embeddings of
                several models.
        """
        rest: dict[str, Any] = {"filter": filter, "rrf_k": rrf_k, "weights": weights, "text_boost": text_boost}
        rest["model"] = model

        def wider(n: int, **how: Any) -> list[Hit]:
            most = None if pool is None else max(as_count(pool, "pool", most=search.MAX_HITS), n)
            return self.hybrid(vector, q, k=n, pool=most, **rest, **how)

        if worth is not None:
            return self._by_worth(worth, k, lambda n: wider(n, per=per))
        if as_choice(per, _PER, "per") == "document":
            return search.per_document(k, wider)
        most = search.MAX_HITS
        count = as_count(k, "k", most=most)
        depth = min(max(4 * count, 50), most) if pool is None else as_count(pool, "pool", least=count, most=most)
        if not isinstance(weights, Sequence) or len(weights) != 2:  # noqa: PLR2004  the two searches
            raise InvalidInput(f"weights: {shown(weights)} is not a pair of numbers")
        vector_weight, text_weight = (as_number(weight, "weights", least=0, most=_MOST) for weight in weights)
        if not vector_weight + text_weight:
            raise InvalidInput("weights: both are 0")
        condition = _condition(filter)
        sent = encode_literal(vector, "vector", self._dimensions)
        asked = self._asked_model(model)
        compared, filtered = search.of_model(condition, asked), condition.sql != "TRUE"
        near = search.through_index(self._usable("auto"), compared, depth, sent, filtered=filtered, untested=False)
        near = near or search.by_comparing(compared, depth, sent)
        query = text.typed(q, "web")
        legs = self._text_legs(query, search.of_passages(condition))
        statement = search.hits_of(
            ",\n".join([near.sql, legs, _sql("fused").format(not_excluded=query.not_excluded)]),
            "fused",
            order="r.score DESC, r.id",
            score="r.score",
            similarity=_sql("fused_similarity").format(of_model=search.of_model(Condition("TRUE", {}), asked).sql),
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
            "text_boost": as_number(text_boost, "text_boost", least=0, most=_MOST),
            "k1": text.K1,
            "b": text.B,
        }
        hits = _of_one_model(search.find(self._db, statement, values, near.settings))
        if vector_weight and all(hit.similarity is None for hit in hits):
            self._warn_of_model(asked)
        return hits or self._nothing(filter)

    def _by_worth(self, worth: Any, k: int, find: Callable[[int], list[Hit]]) -> list[Hit]:
        """Return the k hits that are worth most among more of them."""
        if not isinstance(worth, Worth):
            raise InvalidInput(f"worth: {type(worth).__name__} is not a Worth")
        count = as_count(k, "k", most=search.MAX_HITS)
        hits = find(min(max(4 * count, 50), search.MAX_HITS))
        ages = dict(self._rows(_sql("ages"), {"ids": [str(hit.id) for hit in hits]}, reads=True))
        return worth.rank(hits, ages)[:count]

    def _named_model(self, model: Any) -> str | None:
        """Return the model that an argument names, by default the embedder's."""
        return self._model if model is _OWN else None if model is None else as_name(model, "model")

    def _asked_model(self, model: Any) -> Any:
        """Return the model to search, None for embeddings without a model's name, or ... for any."""
        return ... if model is _OWN and self._model is None else self._named_model(model)

    def list(
        self,
        filter: Mapping[Any, Any] | None = None,  # noqa: A002  the settled name
        *,
        order_by: Literal["created_at", "-created_at", "updated_at", "-updated_at"] = "created_at",
        after: MemoryDoc | tuple[datetime | str, UUID | str] | None = None,
        limit: int = 100,
    ) -> builtins.list[MemoryDoc]:
        """Return documents without a query, page by page.

        By `created_at`, which never changes, the pages have every document once that exists from the first page to the
        last, whatever others write meanwhile. By `updated_at`, a document that is changed meanwhile becomes the
        newest: it comes again (oldest first), or not at all if its old place was not reached yet (newest first).

        Args:
            filter: Which documents to list, in the language of filters.
            order_by: The order; with `-`, the newest first. Ties come in the order of their ids.
            after: The last document of the page before, or its time (that of `order_by`) and id; None for the first
                page. A document may have been changed or deleted since.
            limit: Most documents to return (1 to 100,000).

        Returns:
            The documents, without their vectors; an empty list after the last page.

        Raises:
            InvalidInput: An argument is not valid.
        """
        column = as_choice(order_by, _ORDERS, "order_by").removeprefix("-")
        falls = order_by.startswith("-")
        condition = _condition(filter)
        values: dict[str, Any] = {**condition.parameters, "limit": as_count(limit, "limit")}
        beyond = "TRUE"
        if after is not None:
            given = (getattr(after, column), after.id) if isinstance(after, MemoryDoc) else after
            if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:  # noqa: PLR2004  a pair
                raise InvalidInput(f"after: {shown(after)} is neither a document nor a pair of its {column} and id")
            values |= {"after_time": as_time(given[0], "after"), "after_id": str(as_uuid(given[1], "after"))}
            beyond = _sql("after").format(column=column, beyond="<" if falls else ">")
        found = self._docs(
            _sql("list"),
            values,
            reads=True,
            column=column,
            direction="DESC" if falls else "ASC",
            after=beyond,
            condition=condition.sql,
        )
        return found if found or after is not None else self._nothing(filter)

    def count(self, filter: Mapping[Any, Any] | None = None) -> int:  # noqa: A002  the settled name
        """Return how many documents there are, exactly.

        Args:
            filter: Which documents to count, in the language of filters.

        Raises:
            InvalidInput: The filter is not valid.
        """
        condition = _condition(filter)
        ((found,),) = self._rows(_sql("count").format(condition=condition.sql), condition.parameters, reads=True)
        return int(found) if found else len(self._nothing(filter))

    def index_metadata(
        self,
        path: str | Sequence[str],
        *,
        kind: Literal["number", "text"] = "number",
        progress: Progress | None = None,
    ) -> MetadataIndex:
        """Build an index on the values at a path of the metadata, for filters by `gt`, `gte`, `lt` and `lte`.

        Readers and writers don't wait for it. If it is there, nothing happens; if its build was killed, it is built
        again. `memory.index.status()` lists these indexes.

        Args:
            path: The path, as after `metadata.` in a filter, such as `amount` or `invoice.amount`; a tuple of keys if
                one of them holds a dot.
            kind: Whether numbers or texts are compared. Times in ISO 8601 of one offset are texts.
            progress: Called with the current step, how many of its parts are done, and of how many (None if not known).

        Returns:
            The index.

        Raises:
            InvalidInput: The path or the kind is not valid, or a transaction is open, for which the build would wait.
            VectorIndexError: The role does not own the table, or the connection goes through PgBouncer or to a standby.
            DatabaseFault: The build failed, and left nothing.
            ConnectionFailed: The connection was lost; run it again.
        """
        return build_metadata_index(self._db, path, kind, progress)

    def drop_metadata_index(self, path: str | Sequence[str], *, kind: Literal["number", "text"] = "number") -> bool:
        """Drop an index that `index_metadata` has built; readers and writers don't wait for it.

        Args:
            path: The path, as for `index_metadata`.
            kind: Its kind.

        Returns:
            Whether there was such an index.

        Raises:
            InvalidInput: The path or the kind is not valid, or a transaction is open.
            VectorIndexError: As for `index_metadata`.
        """
        return drop_metadata_index(self._db, path, kind)

    def _docs(
        self, sql: str, values: Mapping[str, Any], *, reads: bool = False, **names: str
    ) -> builtins.list[MemoryDoc]:
        """Run a statement that returns `doc_columns` and `vector`, and return its rows as documents."""
        rows = self._named(
            sql.format(doc_columns=_sql("doc_columns"), visible=_sql("visible"), **names), values, reads=reads
        )
        return [_as_doc(**row) for row in rows]

    def _nearest(self, row: Row, vector: Any, least: float) -> Hit | None:
        """Return the most similar document of a row's tenant, type, item and model, if it is at least so similar."""
        same = {"tenant_id": row.tenant_id, "type": row.type, "work_item_id": row.item_id}
        rest: dict[str, Any] = {"filter": same, "min_similarity": least, "model": row.model}
        for k in (_NEAREST, search.MAX_HITS):
            hits = search.per_document(k, lambda n: self._similar(vector, k=n, **rest))
            found = next((hit for hit in hits if hit.document_id is None), None)
            if found is not None or len(hits) < k:
                return found
        return None

    def _nothing(self, filter: Mapping[Any, Any] | None) -> builtins.list[Any]:  # noqa: A002  the settled name
        """Return an empty answer; warn if equality in its filter finds nothing because the values are in lists."""
        equal, held = compile_filter(filter), compile_filter(filter, into_lists=True)
        if "@>" in equal.sql:
            sql = _sql("only_in_lists").format(equal=equal.sql, held=held.sql)
            ((meant,),) = self._rows(sql, {**equal.parameters, **held.parameters}, reads=True)
            if meant:
                warnings.warn(
                    f"no document meets the filter {shown(filter)}, but there are documents with these values in lists:"
                    ' equality never looks into a list; write {"contains": value}',
                    stacklevel=3,
                )
        return []

    def _warn_of_model(self, asked: Any) -> None:
        """Warn if there are no embeddings of the model that was searched for, but of others."""
        if asked is ...:
            return
        every = _condition(None)
        wanted = search.of_model(every, asked)
        ((there,),) = self._rows(_sql("has_model").format(condition=wanted.sql), wanted.parameters, reads=True)
        if there:
            return
        models = _sql("models").format(condition=every.sql)
        others = self._rows(
            _sql("some_models").format(models=models, condition=every.sql), every.parameters, reads=True
        )
        if others:
            wrong = "without a model's name" if asked is None else f"of the model {asked!r}"
            warnings.warn(
                f"there is no embedding {wrong}, only of {_named(name for (name,) in others)}: pass the model of the"
                " vector, model=..., or embed the documents again, memory.reembed()",
                stacklevel=3,
            )

    def _read_content(self, doc_id: UUID, values: dict[str, Any], chunker: Chunker) -> tuple[Row, Embeddings] | None:
        """Embed a new content, before the transaction: return its chunks if the document has any, else set its vector.

        If the document is no longer what it was, `_update_chunks` makes up for it.
        """
        if any(doc.chunk_no == 0 for doc in self.get(doc_id)):
            return read_chunks(doc_id, values["content"], chunker, self._embedder)
        if "embedding" not in values and self._embedder is not None:
            (vector,) = embedded(self._embedder, [values["content"]])
            values |= {"embedding": encode_text(vector), "model": self._model}
        return None

    def _update_chunks(
        self, doc: MemoryDoc, changed: Collection[str], cut: tuple[Row, Embeddings] | None, chunker: Chunker
    ) -> None:
        """Change the chunks of a changed document, if it has any, or raise InvalidInput if that cannot be changed."""
        if doc.document_id is not None and [*changed] != ["embedding"]:
            raise InvalidInput(f"the memory document {doc.id} is a chunk: update its document {doc.document_id}")
        if doc.chunk_no != 0:
            return
        if "embedding" in changed:
            raise InvalidInput("embedding: a document that is stored in chunks has none of its own")
        if "content" in changed:
            row, vectors = cut or read_chunks(doc.id, doc.content, chunker, self._embedder)
            self._writing.replace_chunks([row], vectors)
        else:
            self._db.execute_sql(_sql("update_chunks"), {"id": str(doc.id)})

    def _require_transaction(self) -> None:
        if not self._db.transaction_open():
            raise InvalidInput("bulk_load: the transaction was ended by what it calls: docs, progress or the embedder")

    def _text_legs(self, query: text.Typed, condition: Condition) -> str:
        """Return common table expressions that find the documents that match a query and meet a condition."""
        of_tenant = "tenant" in condition.parameters
        enforced = of_tenant and self._rows(_sql("tenancy"), {}, reads=True) == [(True,)]
        visible = f"{_sql('visible')} AND {condition.sql}"
        return text.text_legs(query, visible, of_tenant=of_tenant, enforced=enforced)

    def _usable(self, mode: Any) -> IndexState | None:
        """Return the state of the index if searches of this mode may go through it."""
        as_choice(mode, ("auto", "exact", "ann"), "mode")
        if mode == "exact":
            return None
        state = self._index_states.get()
        return state if state.used or (mode == "ann" and state.valid) else None


def _condition(filter: Mapping[Any, Any] | None) -> Condition:  # noqa: A002  the settled name
    return scope(compile_filter(filter), current_tenant())


def _of_one_model(hits: list[Hit]) -> list[Hit]:
    """Return hits whose similarities can be compared, or raise InvalidInput."""
    models = {hit.embedding_model for hit in hits if hit.similarity is not None}
    if len(models) > 1:
        raise InvalidInput(
            f"model: the hits have embeddings of several models ({_named(models)}): name the vector's, model=..."
        )
    return hits


def _named(models: Iterable[str | None]) -> str:
    return ", ".join(sorted("one without a name" if model is None else repr(model) for model in models))


def _as_doc(
    *,
    type: str,  # noqa: A002  the column's name
    created_at: datetime,
    updated_at: datetime,
    expires_at: datetime | None,
    vector: Any,
    **values: Any,
) -> MemoryDoc:
    return MemoryDoc(
        type=read_label(MemDocType, type),
        created_at=created_at.astimezone(UTC),
        updated_at=updated_at.astimezone(UTC),
        expires_at=None if expires_at is None else expires_at.astimezone(UTC),
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


def _sent(name: str, value: Any, dimensions: int) -> Any:
    """Return a value of a document in the form in which it is sent."""
    if name == "content":
        return require_text(value, name, blank=False, max_bytes=MAX_TEXT_BYTES)
    if name == "type":
        return as_enum(value, MemDocType, name).value
    if name == "metadata":
        return dump_json(as_object(value, name), name)
    if name == "embedding":
        return None if value is None else encode_text(value, name, dimensions)
    if name == "expires_at":
        return None if value is None else as_time(value, name)
    return None if value is None else str(as_uuid(value, name))

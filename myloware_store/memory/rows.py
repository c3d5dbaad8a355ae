"""Memory documents to be stored: checked, embedded, and packed for the statements that store them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs
import numpy as np
from psycopg2 import extensions
from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_enum, as_list, as_object, as_time, as_uuid, known_keys
from myloware_store.core.embedding import embed, read_embedder
from myloware_store.core.enums import MemDocType
from myloware_store.core.errors import InvalidInput
from myloware_store.core.results import NewDoc
from myloware_store.core.splitting import split_text
from myloware_store.core.values import MAX_TEXT_BYTES, dump_json, require_text, shown
from myloware_store.core.vectors import Embeddings, as_embeddings, encode_fields, encode_texts

if TYPE_CHECKING:
    from myloware_store.core.embedding import Embedder
    from myloware_store.core.splitting import Chunker

__all__ = [
    "EMBED_TEXTS",
    "Batch",
    "Row",
    "as_chunker",
    "batches",
    "cut",
    "embedded",
    "may_copy",
    "pack",
    "read_batch",
    "read_chunks",
]

_BATCH_CHARS = 16_000_000
_STATEMENT_CHARS, _VECTOR_CHARS = 50_000_000, 20_000

EMBED_TEXTS = 256
"""Most texts in one call of the embedder."""

_KEYS = ("id", "type", "content", "embedding", "metadata", "work_item_id", "expires_at")

# COPY's binary format: a signature, flags and the length of an extension; then for each row the number of fields, and
# each field's size before its bytes (-1 for NULL); -1 in place of a number of fields at the end. An enum is its label,
# jsonb a version number before the text, a time the microseconds since 2000
# (https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format", and the `_recv` functions of the types).
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_ROW = struct.pack(">hi", 10, 16)
_UUID = struct.pack(">i", 16)
_CHUNKED = struct.pack(">ii", 4, 0)
_size = struct.Struct(">i").pack
_jsonb = struct.Struct(">ib").pack
_JSONB_VERSION = 1
_time = struct.Struct(">iq").pack
_EPOCH, _MICROSECOND = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@attrs.define
class Row:
    """A checked document.

    Attributes:
        place: Its name in errors.
        vector: The place of its embedding among the batch's, None without an embedding.
        model: The model of its embedding, None if it has no name.
        tenant_id: Its tenant, once known.
        expires_at: A text in ISO 8601, None if it stays.
        chunks: Its chunks; their embeddings are among the batch's `chunk_vectors`.
        document_id: The document of a chunk, once known.
        chunk_no: The place of a chunk in its document, from 1; 0 for a document with chunks.
    """

    id: UUID
    type: str
    content: str
    metadata: str
    item_id: UUID | None
    place: str
    vector: int | None = None
    model: str | None = None
    tenant_id: str = ""
    expires_at: str | None = None
    chunks: list[Row] = attrs.Factory(list)
    document_id: UUID | None = None
    chunk_no: int | None = None


@attrs.define
class Batch:
    """Checked documents with the embeddings of those that have one."""

    rows: list[Row]
    vectors: Embeddings
    chunk_vectors: Embeddings = attrs.Factory(lambda: as_embeddings([]))

    def part(self, rows: list[Row]) -> Batch:
        """Return some of the documents as a batch of their own."""
        at = [row.vector for row in rows if row.vector is not None]
        now_at = {vector: n for n, vector in enumerate(at)}
        moved = [attrs.evolve(row, vector=None if row.vector is None else now_at[row.vector]) for row in rows]
        return Batch(moved, self.vectors[at], self.chunk_vectors)

    def arrays(self) -> dict[str, list[Any]]:
        """Return the columns as parameters of a statement."""
        texts = encode_texts(self.vectors)
        return {
            "ids": [str(row.id) for row in self.rows],
            "tenants": [row.tenant_id for row in self.rows],
            "items": [None if row.item_id is None else str(row.item_id) for row in self.rows],
            "types": [row.type for row in self.rows],
            "contents": [row.content for row in self.rows],
            "metadata": [row.metadata for row in self.rows],
            "embeddings": [None if row.vector is None else texts[row.vector] for row in self.rows],
            "expiries": [row.expires_at for row in self.rows],
            "models": [row.model for row in self.rows],
            "documents": [None if row.document_id is None else str(row.document_id) for row in self.rows],
            "chunk_nos": [None if row.chunk_no is None else str(row.chunk_no) for row in self.rows],
        }


def read_batch(
    docs: Iterable[Any],
    embedder: Embedder | None,
    model: str | None,
    chunker: Chunker | None = None,
    *,
    before: int = 0,
) -> Batch:
    """Check documents, and embed those without a vector.

    Args:
        docs: The documents.
        embedder: Embeds the documents without a vector.
        model: The model of the given vectors.
        chunker: Cuts the documents into chunks, which are embedded in their place.
        before: How many documents of the same call came in earlier batches, for the errors.

    Raises:
        InvalidInput: A document cannot be stored, or an id comes twice.
        InvalidVector: An embedding, given or made, cannot be compared.
        StoreError: The embedder failed; its error is the cause of this one.
    """
    made_by, dimensions = read_embedder(embedder)
    rows: list[Row] = []
    given: list[Any] = []
    places: list[str] = []
    for n, doc in enumerate(docs, before):
        row, embedding = _checked(doc, f"docs[{n}]")
        rows.append(row)
        if embedding is not None:
            row.vector, row.model = len(given), model
            given.append(embedding)
            places.append(f"{row.place}: embedding")
    first: dict[UUID, Row] = {}
    for row in rows:
        if first.setdefault(row.id, row) is not row:
            raise InvalidInput(f"{row.place}: the id {row.id} comes twice, first in {first[row.id].place}")
    vectors = as_embeddings(given, places, dimensions)
    if chunker is not None:
        for row in rows:
            _cut(row, chunker)
    missing = [row for row in rows if row.vector is None and not row.chunks]
    if embedder is not None and missing:
        for n, row in enumerate(missing, len(given)):
            row.vector, row.model = n, made_by
        vectors = np.concatenate([vectors, embedded(embedder, [row.content for row in missing])])
    return Batch(rows, vectors, _embed_chunks(rows, embedder))


def read_chunks(doc_id: UUID, content: str, chunker: Chunker, embedder: Embedder | None) -> tuple[Row, Embeddings]:
    """Cut the new content of a document that is stored in chunks, and return it with the embeddings of the chunks."""
    row = Row(doc_id, "", content, "", None, "content")
    _cut(row, chunker, always=True)
    return row, _embed_chunks([row], embedder)


def as_chunker(chunk: Any) -> Chunker | None:
    """Return the callable that an argument `chunk` stands for, None for none, or raise InvalidInput."""
    if isinstance(chunk, bool):
        return split_text if chunk else None
    if not callable(chunk):
        raise InvalidInput(f"chunk: {shown(chunk)} is neither a boolean nor a callable from a text to a list of texts")
    chunker: Chunker = chunk
    return chunker


def embedded(embedder: Embedder, texts: Sequence[str]) -> Embeddings:
    """Embed texts, 256 a call at most."""
    parts = [texts[at : at + EMBED_TEXTS] for at in range(0, len(texts), EMBED_TEXTS)]
    return np.concatenate([embed(embedder, part) for part in parts])


def pack(batch: Batch) -> bytes:
    """Return the documents in COPY's binary format, with the `stored_columns` of queries.sql."""
    vectors = encode_fields(batch.vectors)
    tenants = {row.tenant_id: _field(row.tenant_id) for row in batch.rows}
    types = {row.type: _field(row.type) for row in batch.rows}
    models = {row.model: _NULL if row.model is None else _field(row.model) for row in batch.rows}
    parts: list[bytes | memoryview] = [_SIGNATURE]
    for row in batch.rows:
        content, metadata = row.content.encode(), row.metadata.encode()
        parts += (
            _ROW,
            row.id.bytes,
            tenants[row.tenant_id],
            _NULL if row.item_id is None else _UUID + row.item_id.bytes,
            types[row.type],
            _size(len(content)),
            content,
            _jsonb(len(metadata) + 1, _JSONB_VERSION),
            metadata,
            _NULL if row.vector is None else vectors[row.vector],
            _NULL if row.expires_at is None else _microseconds(row.expires_at),
            models[row.model],
            _NULL if row.chunk_no is None else _CHUNKED,
        )
    parts.append(_END)
    return b"".join(parts)


def batches(docs: Any, size: int) -> Iterator[list[Any]]:
    """Cut an iterable of documents into lists of a size, shorter if the contents are long."""
    try:
        each = None if isinstance(docs, str | bytes | Mapping) else iter(docs)
    except TypeError:
        each = None
    if each is None:
        raise InvalidInput(f"docs: {type(docs).__name__} is not an iterable of documents")
    batch: list[Any] = []
    chars = 0
    for doc in each:
        batch.append(doc)
        content = doc.get("content") if isinstance(doc, Mapping) else getattr(doc, "content", None)
        chars += len(content) if isinstance(content, str) else 0
        if len(batch) == size or chars > _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def cut(batch: Batch) -> Iterator[Batch]:
    """Cut a batch into parts that one message can carry."""
    rows: list[Row] = []
    size = 0
    for row in batch.rows:
        row_size = len(row.content) + len(row.metadata) + _VECTOR_CHARS
        if rows and size + row_size > _STATEMENT_CHARS:
            yield batch.part(rows) if len(rows) < len(batch.rows) else batch
            rows, size = [], 0
        rows.append(row)
        size += row_size
    yield batch.part(rows)


def may_copy() -> bool:
    """Return whether psycopg2 can COPY: not under a wait callback, such as psycogreen's."""
    return extensions.get_wait_callback() is None


def _cut(row: Row, chunker: Chunker, *, always: bool = False) -> None:
    """Cut a document into chunks, unless the only one is the whole text."""
    given = as_list(chunker(row.content), f"{row.place}: chunks")
    texts = [
        require_text(text, f"{row.place}: chunk {n}", blank=False, max_bytes=MAX_TEXT_BYTES)
        for n, text in enumerate(given, 1)
    ]
    if not texts:
        raise InvalidInput(f"{row.place}: it was cut into no chunks")
    if len(texts) == 1 and texts[0].strip() == row.content.strip() and not always:
        return
    if row.vector is not None:
        raise InvalidInput(f"{row.place}: embedding: a document that is stored in chunks has none of its own")
    row.chunk_no = 0
    row.chunks = [
        attrs.evolve(row, id=uuid7(), content=text, chunks=[], chunk_no=n, place=f"{row.place}: chunk {n}")
        for n, text in enumerate(texts, 1)
    ]


def _embed_chunks(rows: Sequence[Row], embedder: Embedder | None) -> Embeddings:
    """Embed the chunks of documents, if there is an embedder."""
    chunks = [chunk for row in rows for chunk in row.chunks]
    if embedder is None or not chunks:
        return as_embeddings([])
    model, _ = read_embedder(embedder)
    for n, chunk in enumerate(chunks):
        chunk.vector, chunk.model = n, model
    return embedded(embedder, [chunk.content for chunk in chunks])


def _field(text: str) -> bytes:
    data = text.encode()
    return _size(len(data)) + data


def _microseconds(time: str) -> bytes:
    return _time(8, (datetime.fromisoformat(time) - _EPOCH) // _MICROSECOND)


def _checked(doc: Any, place: str) -> tuple[Row, Any]:
    """Return a document with its values in the form they are sent in, and its embedding as it was given."""
    if isinstance(doc, NewDoc):
        doc = attrs.asdict(doc, recurse=False)
    row = known_keys(doc, _KEYS, place, NewDoc)
    for key in ("type", "content"):
        if key not in row:
            raise InvalidInput(f"{place}: it needs a {key}")
    given, item_id, metadata = row.get("id"), row.get("work_item_id"), row.get("metadata")
    expires_at = row.get("expires_at")
    checked = Row(
        id=uuid7() if given is None else as_uuid(given, f"{place}: id"),
        type=as_enum(row["type"], MemDocType, f"{place}: type").value,
        content=require_text(row["content"], f"{place}: content", blank=False, max_bytes=MAX_TEXT_BYTES),
        metadata=dump_json(as_object(metadata, f"{place}: metadata"), f"{place}: metadata"),
        item_id=None if item_id is None else as_uuid(item_id, f"{place}: work_item_id"),
        place=place,
        expires_at=None if expires_at is None else as_time(expires_at, f"{place}: expires_at"),
    )
    return checked, row.get("embedding")

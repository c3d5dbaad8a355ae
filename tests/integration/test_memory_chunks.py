"""Long documents stored in chunks, which come, change and go with them."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from myloware_store import ConstraintViolation, HashingEmbedder, InvalidInput, MemDoc, MemoryConflict, Store, split_text

SENTENCES = [
    "The late fee is five percent.",
    "A zebra crosses the road.",
    "Apples are delivered on Mondays.",
    "Rain is expected in October.",
]
LONG = " ".join(SENTENCES)
SHORT = "A note that is short."
embed = HashingEmbedder()
by_sentence = partial(split_text, size=32, overlap=0)


def doc(content: str = LONG, **values: Any) -> dict[str, Any]:
    """Return a document to store."""
    return {"type": "KNOWLEDGE", "content": content, "metadata": {"source": "a"}, **values}


@pytest.fixture
def store(myloware_dsn: str) -> Any:
    """Give a store with an embedder."""
    with Store.open(myloware_dsn, embedder=embed) as store:
        yield store


def texts(store: Store, doc_id: UUID) -> list[str]:
    """Return the contents of a document's chunks."""
    return [chunk.content for chunk in store.memory.chunks(doc_id)]


def test_a_long_document_is_stored_with_its_chunks(store: Store) -> None:
    """They have its values and an embedding each; a short one is as without chunks."""
    order = store.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = store.work.items(order.id)
    long, short = store.memory.upsert([doc(work_item_id=item.id), doc(SHORT)], chunk=by_sentence)
    whole, plain = store.memory.get([long, short])
    assert (LONG, 0, False, None) == (whole.content, whole.chunk_no, whole.has_embedding, whole.document_id)
    assert (SHORT, None, True, []) == (plain.content, plain.chunk_no, plain.has_embedding, texts(store, short))
    chunks = store.memory.chunks(long, with_embedding=True)
    assert SENTENCES == [chunk.content for chunk in chunks]
    for n, chunk in enumerate(chunks, 1):
        assert (long, n, embed.name) == (chunk.document_id, chunk.chunk_no, chunk.embedding_model)
        assert (whole.type, whole.metadata, item.id, whole.created_at) == (
            chunk.type,
            chunk.metadata,
            chunk.work_item_id,
            chunk.created_at,
        )
        assert embed([chunk.content])[0].tolist() == list(chunk.embedding if chunk.embedding is not None else ())
    assert [] == store.memory.missing_embeddings()


@pytest.mark.parametrize("count", [1, 60])
def test_documents_load_with_their_chunks(store: Store, count: int) -> None:
    """However they are sent; True cuts by the default sizes."""
    ids = store.memory.upsert([doc(f"{n} {LONG}") for n in range(count)], chunk=by_sentence)
    assert count == store.memory.bulk_load((doc(f"{n} more {LONG}") for n in range(count)), chunk=by_sentence)
    assert 2 * count == MemDoc.select().where(MemDoc.chunk_no == 0).count()
    assert 4 <= len(texts(store, ids[-1])) == MemDoc.select().where(MemDoc.document == ids[-1]).count()
    (long,) = store.memory.upsert([doc(LONG * 30)], chunk=True)
    assert split_text(LONG * 30) == texts(store, long)


def test_a_search_returns_chunks_or_documents(store: Store) -> None:
    """The document itself never, because its chunks are; a document once, with its best chunk."""
    long, other = store.memory.upsert(
        [doc(), doc("The late fee was waived. The late fee is owed. Nothing else here.")], chunk=by_sentence
    )
    (short,) = store.memory.upsert([doc("A late fee of four percent.")])
    q = "the late fee is five percent"
    (vector,) = embed([q])
    memory = store.memory
    searches: list[Any] = [
        lambda **given: memory.similar(vector, **given),
        lambda **given: memory.mmr(vector, lam=1, **given),
        lambda **given: memory.search_text("late fee", **given),
        lambda **given: memory.hybrid(vector, "late fee", **given),
    ]
    for search in searches:
        hits = search(k=20)
        assert long not in {hit.id for hit in hits}
        assert {SENTENCES[0], "The late fee was waived.", "The late fee is owed."} <= {hit.content for hit in hits}
        documents = search(k=20, per="document")
        assert {long, other, short} == {hit.document_id or hit.id for hit in documents}
        assert 3 == len(documents)
        first: dict[UUID, Any] = {}
        for hit in hits:
            first.setdefault(hit.document_id or hit.id, hit.id)
        assert [*first.values()] == [hit.id for hit in documents]
        assert {long} == {hit.document_id for hit in search(k=20, filter={"document_id": long})}
        assert [*first.values()][:2] == [hit.id for hit in search(k=2, per="document")]
    (best, *_) = memory.similar(vector)
    assert (SENTENCES[0], long, 1) == (best.content, best.document_id, best.chunk_no)
    with pytest.raises(InvalidInput, match="per"):
        memory.similar(vector, per="page")  # type: ignore[arg-type]


def test_filters_match_chunks_as_their_document(store: Store) -> None:
    """Also after the document was stored or changed again."""
    (long,) = store.memory.upsert([doc()], chunk=by_sentence)
    store.memory.upsert([doc(id=long, metadata={"source": "b"})], chunk=by_sentence)
    whole = store.memory.get(long)[0]
    same = {"metadata.source": "b", "created_at": {"lte": whole.created_at}}
    assert 4 == len(store.memory.similar(embed(["fee"])[0], filter=same))
    store.memory.update(long, metadata={"source": "c"}, type="CONTEXT")
    assert 4 == len(store.memory.similar(embed(["fee"])[0], filter={"metadata.source": "c", "type": "CONTEXT"}))
    assert ["c"] * 4 == [chunk.metadata["source"] for chunk in store.memory.chunks(long)]


def test_a_document_stored_or_updated_again_gets_other_chunks(store: Store) -> None:
    """Or none; what is ignored keeps them, and the same content is found again by its hash."""
    memory = store.memory
    (long,) = memory.upsert([doc()], chunk=by_sentence)
    assert [long] == memory.upsert([doc(f"New. {LONG}", id=long)], on_conflict="ignore", chunk=by_sentence)
    assert SENTENCES == texts(store, long)
    assert [long] == memory.upsert([doc()], dedupe="content_hash", chunk=by_sentence)
    assert (SENTENCES, 5) == (texts(store, long), MemDoc.select().count())
    (apart,) = memory.upsert([doc(SENTENCES[1])], dedupe="content_hash")
    assert apart not in {chunk.id for chunk in memory.chunks(long)}
    changed = memory.update(long, content="One thing. Another thing.", chunk=partial(split_text, size=14, overlap=0))
    assert (0, ["One thing.", "Another thing."]) == (changed.chunk_no, texts(store, long))
    assert [] == memory.missing_embeddings()
    memory.update(long, content=SHORT, chunk=True)
    assert [SHORT] == texts(store, long)
    memory.upsert([doc(id=long)])
    (plain,) = memory.get(long)
    assert (None, True, []) == (plain.chunk_no, plain.has_embedding, texts(store, long))
    memory.upsert([doc(id=long)], chunk=by_sentence)
    (whole,) = memory.get(long)
    assert (0, False, SENTENCES) == (whole.chunk_no, whole.has_embedding, texts(store, long))


def test_chunks_go_with_their_document(store: Store) -> None:
    """By id, by filter, or with the item; the documents are counted, and a chunk does not go alone."""
    memory = store.memory
    one, two, three = memory.upsert([doc(f"{n} {LONG}") for n in range(3)], chunk=by_sentence)
    chunk = memory.chunks(one)[0]
    assert 0 == memory.delete(chunk.id)
    assert 1 == memory.delete([one, chunk.id])
    assert 2 == memory.delete(filter={"metadata.source": "a"})
    assert 0 == MemDoc.select().count()
    assert [[], []] == [texts(store, each) for each in (two, three)]


def test_a_chunk_is_only_its_documents(store: Store) -> None:
    """No call changes it apart from its embedding, and the document has none of its own."""
    memory = store.memory
    (long,) = memory.upsert([doc()], chunk=by_sentence)
    chunk, vector = memory.chunks(long)[0], embed(["x"])[0]
    assert {chunk.id} == memory.set_embeddings([(chunk, vector), (long, vector)])
    assert memory.update(chunk, embedding=vector).has_embedding
    for refused in (
        lambda: memory.update(chunk, content="other"),
        lambda: memory.update(long, embedding=vector),
        lambda: memory.update(long, content="x", embedding=vector),
        lambda: memory.update(long, content="x", chunk=False),  # type: ignore[arg-type]
        lambda: memory.upsert([doc("other", id=chunk.id)]),
        lambda: memory.upsert([doc("other", id=chunk.id)], on_conflict="ignore"),
        lambda: memory.upsert([doc(embedding=vector)], chunk=by_sentence),
        lambda: memory.upsert([doc()], chunk=7),  # type: ignore[arg-type]
        lambda: memory.upsert([doc()], chunk=lambda _: []),
        lambda: memory.upsert([doc()], chunk=lambda _: ["a", " "]),
        lambda: memory.upsert([doc()], chunk=lambda text: text),
    ):
        with pytest.raises(InvalidInput):
            refused()
    assert (SENTENCES, 5) == (texts(store, long), MemDoc.select().count())
    with pytest.raises(MemoryConflict):
        memory.upsert([doc(id=long)], on_conflict="error", chunk=by_sentence)
    with pytest.raises(ConstraintViolation), store.tenant("acme"):
        MemDoc.create(type="CONTEXT", content="x", document=long, chunk_no=9, tenant_id="acme")


def test_a_failure_half_way_leaves_the_old_chunks(store: Store, myloware_dsn: str) -> None:
    """Document and chunks are stored in one transaction."""
    (long,) = store.memory.upsert([doc()], chunk=by_sentence)
    store.db.execute_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'refused'; END$$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON mem_docs FOR EACH ROW WHEN (NEW.content = 'bad.')"
        " EXECUTE FUNCTION refuse()"
    )
    for change in (
        lambda: store.memory.upsert([doc("good. bad.", id=long)], chunk=str.split),
        lambda: store.memory.update(long, content="good. bad.", chunk=str.split),
    ):
        with pytest.raises(Exception, match="refused"):
            change()
    assert (LONG, SENTENCES) == (store.memory.get(long)[0].content, texts(store, long))


def test_whoever_writes_at_once_leaves_one_set_of_chunks(store: Store) -> None:
    """By upsert or update, of a new document or one that exists, with chunks or without."""
    (old,), new = store.memory.upsert([doc()], chunk=by_sentence), UUID(int=7)
    start = threading.Barrier(8)

    def write(n: int) -> None:
        start.wait()
        for round_ in range(5):
            content = " ".join(f"Writer {n} wrote this in {round_}{part}." for part in "abc")
            cut: Any = partial(split_text, size=30, overlap=0) if (n + round_) % 4 else False
            store.memory.upsert([doc(content, id=new), doc(content, id=old)], chunk=cut)
            store.memory.update(new, content=f"{content} And more.", chunk=by_sentence)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for doc_id in (old, new):
        (whole,) = store.memory.get(doc_id)
        assert [] == [text for text in texts(store, doc_id) if text not in whole.content]
        assert (whole.content if whole.chunk_no == 0 else "") == " ".join(texts(store, doc_id))
        assert (whole.chunk_no is None) == whole.has_embedding
    assert MemDoc.select().count() == 2 + len(texts(store, old)) + len(texts(store, new))


def test_chunks_without_an_embedder_are_embedded_later(myloware: Store) -> None:
    """The chunks are missing an embedding, their document is not."""
    (long,) = myloware.memory.upsert([doc()], chunk=by_sentence)
    missing = myloware.memory.missing_embeddings()
    assert {*SENTENCES} == {each.content for each in missing}
    assert 4 == len(myloware.memory.set_embeddings([(each, embed([each.content])[0]) for each in missing]))
    assert [] == myloware.memory.missing_embeddings()
    assert long == myloware.memory.similar(embed([SENTENCES[1]])[0])[0].document_id


def test_a_chunk_stays_in_the_tenant_of_its_document(store: Store) -> None:
    """Whatever SQL writes: a guard refuses a chunk of another tenant's document, or of none."""
    (doc_id,) = store.memory.upsert([doc()], chunk=by_sentence)
    insert = (
        "INSERT INTO mem_docs (tenant_id, type, content, document_id, chunk_no) VALUES (%s, 'CONTEXT', 'x', %s, 99)"
    )
    for tenant, parent in (("globex", doc_id), ("default", uuid.uuid4())):
        with pytest.raises(ConstraintViolation, match="mem_docs_document_id_fkey"):
            store.db.execute_sql(insert, (tenant, parent))
    with pytest.raises(ConstraintViolation, match="mem_docs_document_id_fkey"):
        store.db.execute_sql("UPDATE mem_docs SET tenant_id = 'globex' WHERE chunk_no = 1")


def test_a_chunk_may_stand_before_its_document_in_a_dump(store: Store) -> None:
    """Rows are dumped in the order of the file, where a changed chunk may have taken an earlier place."""
    store.db.execute_sql(
        "INSERT INTO mem_docs (id, tenant_id, type, content, document_id, chunk_no)"
        " VALUES (%s, 'acme', 'CONTEXT', 'x', %s, 1), (%s, 'acme', 'CONTEXT', 'x y', NULL, 0)",
        (str(UUID(int=1)), str(UUID(int=2)), str(UUID(int=2))),
    )
    assert ["x"] == texts(store, UUID(int=2))

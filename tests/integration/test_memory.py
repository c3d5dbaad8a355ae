"""The agents' memory on a real database: stored whole or not at all, found exactly."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from myloware_store import (
    DIMENSIONS,
    HashingEmbedder,
    InvalidInput,
    InvalidVector,
    MemDoc,
    MemDocType,
    NotFound,
    Store,
    StoreError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def vectors(n: int, seed: int = 7) -> NDArray[np.float32]:
    """Clustered unit vectors, the same for a seed."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(5, DIMENSIONS))
    raw = centres[random.integers(5, size=n)] + 0.5 * random.normal(size=(n, DIMENSIONS))
    unit: NDArray[np.float32] = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return unit


def docs(n: int, kind: str = "KNOWLEDGE") -> list[dict[str, Any]]:
    """Documents with embeddings."""
    return [
        {"type": kind, "content": f"passage {i}", "embedding": vector, "metadata": {"n": i}}
        for i, vector in enumerate(vectors(n))
    ]


def test_documents_come_back_as_they_were_stored(myloware: Store) -> None:
    """In the order asked for; the vector only where it is asked for."""
    ids = myloware.memory.upsert(docs(3))
    second, first = myloware.memory.get([ids[1], ids[0]])
    assert ("passage 1", "passage 0", {"n": 1}) == (second.content, first.content, second.metadata)
    assert (True, None) == (first.has_embedding, first.embedding)
    (whole,) = myloware.memory.get(ids[0], with_embedding=True)
    assert vectors(3)[0].tolist() == list(whole.embedding if whole.embedding is not None else ())
    assert myloware.memory.get([uuid.uuid4()]) == []


def test_similar_finds_exactly_the_nearest(myloware: Store) -> None:
    """The k best by cosine, as numpy has them, however many there are and whatever the filter."""
    stored = docs(300)
    ids = myloware.memory.upsert(stored)
    myloware.memory.upsert([{**doc, "type": "CONTEXT"} for doc in docs(20)])
    query = vectors(1, seed=8)[0]
    expected = vectors(300) @ query
    nearest = np.argsort(-expected)[:10]
    hits = myloware.memory.similar(query, k=10, filter={"type": MemDocType.KNOWLEDGE})
    assert [ids[i] for i in nearest] == [hit.id for hit in hits]
    assert np.allclose(expected[nearest], [hit.score for hit in hits], atol=1e-6)
    assert len(myloware.memory.similar(query, k=10_000)) == 320


def test_similar_can_be_narrowed(myloware: Store) -> None:
    """By type, item, tenant in force and least similarity."""
    order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = myloware.work.items(order.id)
    (made,) = myloware.memory.upsert([{**docs(1)[0], "work_item_id": item.id}])
    with myloware.tenant("globex"):
        (foreign,) = myloware.memory.upsert(docs(1, "CONTEXT"))
        assert [foreign] == [hit.id for hit in myloware.memory.similar(vectors(1)[0])]
    query = vectors(1)[0]
    assert [made] == [hit.id for hit in myloware.memory.similar(query, filter={"work_item_id": item.id})]
    assert [foreign] == [hit.id for hit in myloware.memory.similar(query, filter={"type": "CONTEXT"})]
    assert myloware.memory.similar(-query, min_similarity=0.5) == []
    (opposite, _) = myloware.memory.similar(-query)
    assert pytest.approx(-1.0, abs=1e-6) == opposite.similarity


def test_upsert_replaces_by_id(myloware: Store) -> None:
    """The same id again is the same document with other contents."""
    (doc_id,) = myloware.memory.upsert(docs(1))
    myloware.memory.upsert([{"id": doc_id, "type": "CONTEXT", "content": "changed"}])
    (doc,) = myloware.memory.get(doc_id)
    assert ("changed", MemDocType.CONTEXT, {}, False) == (doc.content, doc.type, doc.metadata, doc.has_embedding)
    assert MemDoc.select().count() == 1


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"type": "NOTE", "content": "x"}, InvalidInput),
        ({"type": "CONTEXT", "content": ""}, InvalidInput),
        ({"type": "CONTEXT"}, InvalidInput),
        ({"type": "CONTEXT", "content": "a\x00"}, InvalidInput),
        ({"type": "CONTEXT", "content": "x", "colour": 1}, InvalidInput),
        ({"type": "CONTEXT", "content": "x", "metadata": {"x": float("nan")}}, InvalidInput),
        ({"type": "CONTEXT", "content": "x", "metadata": "text"}, InvalidInput),
        ({"type": "CONTEXT", "content": "x", "embedding": [0.0] * DIMENSIONS}, InvalidVector),
        ({"type": "CONTEXT", "content": "x", "embedding": [1.0] * 3}, InvalidVector),
        ({"type": "CONTEXT", "content": "x", "id": "no-uuid"}, InvalidInput),
        ({"type": "CONTEXT", "content": "x", "work_item_id": uuid.uuid4()}, NotFound),
        ("text", InvalidInput),
    ],
)
def test_one_bad_document_stores_nothing(myloware: Store, bad: Any, error: type[Exception]) -> None:
    """One typed error for the batch, and an empty table."""
    with pytest.raises(error):
        myloware.memory.upsert([*docs(2), bad])
    assert MemDoc.select().count() == 0


def test_an_id_twice_in_a_batch_is_refused(myloware: Store) -> None:
    """It would be unclear which one counts."""
    doc = {**docs(1)[0], "id": uuid.uuid4()}
    with pytest.raises(InvalidInput, match="twice"):
        myloware.memory.upsert([doc, doc])


def test_another_tenants_document_is_never_touched(myloware: Store) -> None:
    """Its id is taken: the whole batch is refused, and it stays as it was; it cannot be read either."""
    with myloware.tenant("acme"):
        (doc_id,) = myloware.memory.upsert(docs(1))
    with myloware.tenant("globex"):
        with pytest.raises(InvalidInput, match=str(doc_id)):
            myloware.memory.upsert([*docs(2), {"id": doc_id, "type": "CONTEXT", "content": "taken over"}])
        assert myloware.memory.get(doc_id) == []
        assert myloware.memory.similar(vectors(1)[0]) == []
    assert ["passage 0"] == [doc.content for doc in MemDoc.select()]


def test_memory_of_an_item_belongs_to_the_items_tenant(myloware: Store) -> None:
    """Without a tenant in force it takes the item's; under another tenant the item is not found."""
    with myloware.tenant("acme"):
        order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = myloware.work.items(order.id)
    (doc_id,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "work_item_id": item.id}])
    (doc,) = myloware.memory.get(doc_id)
    assert ("acme", item.id) == (doc.tenant_id, doc.work_item_id)
    with myloware.tenant("globex"), pytest.raises(NotFound):
        myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "work_item_id": item.id}])


def test_the_stores_embedder_embeds_what_comes_without_a_vector(myloware_dsn: str) -> None:
    """In one call a batch; a given vector stays."""
    calls: list[int] = []
    hashing = HashingEmbedder()

    def embed(texts: Any) -> NDArray[np.float32]:
        calls.append(len(texts))
        return hashing(texts)

    with Store.open(myloware_dsn, embedder=embed) as store:
        ids = store.memory.upsert(
            [
                {"type": "CONTEXT", "content": "late fee of five percent"},
                docs(1)[0],
                {"type": "CONTEXT", "content": "b"},
            ]
        )
        (best, *_) = store.memory.similar(hashing(["what is the late fee"])[0])
        (given,) = store.memory.get(ids[1], with_embedding=True)
    assert [2] == calls
    assert ids[0] == best.id
    assert vectors(1)[0].tolist() == list(given.embedding if given.embedding is not None else ())


async def later(texts: Any) -> Any:
    """Embed, but asynchronously."""
    return HashingEmbedder()(texts)


@pytest.mark.parametrize(
    "embedder",
    [
        lambda texts: np.ones((len(texts), 3), dtype=np.float32),
        lambda _: np.ones(DIMENSIONS),
        lambda _: [[1.0], [1.0, 2.0]],
        lambda _: None,
        lambda _: "vectors",
        lambda texts: (vector for vector in np.ones((len(texts), DIMENSIONS))),
        lambda texts: np.full((len(texts), DIMENSIONS), "1"),
        lambda texts: np.full((len(texts), DIMENSIONS), 1j),
        lambda texts: np.full((len(texts), DIMENSIONS), np.nan),
        lambda texts: np.zeros((len(texts), DIMENSIONS)),
        later,
    ],
)
def test_an_embedder_that_gives_no_usable_vectors_stores_nothing(myloware_dsn: str, embedder: Any) -> None:
    """It is found out before SQL."""
    with Store.open(myloware_dsn, embedder=embedder) as store:
        with pytest.raises(InvalidVector):
            store.memory.upsert([{"type": "CONTEXT", "content": "x"}])
        assert MemDoc.select().count() == 0


def test_an_embedder_that_fails_stores_nothing(myloware_dsn: str) -> None:
    """Its error is the cause of one typed error; one of the library's own comes as it is."""

    def fails(_: Any) -> Any:
        raise TimeoutError(f"the model did not answer: {'x' * 1_000}\nand more")

    with Store.open(myloware_dsn, embedder=fails) as store:
        with pytest.raises(StoreError, match=r"TimeoutError: the model did not answer: x{100,180}$") as caught:
            store.memory.upsert([{"type": "CONTEXT", "content": "x"}])
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert MemDoc.select().count() == 0

    def refuses(_: Any) -> Any:
        raise InvalidInput("mine")

    with Store.open(myloware_dsn, embedder=refuses) as store, pytest.raises(InvalidInput, match="mine"):
        store.memory.upsert([{"type": "CONTEXT", "content": "x"}])


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"k": 1.5}, {"filter": {"colour": "red"}}, {"filter": {"type": "NOTE"}}, {"min_similarity": 2}],
)
def test_bad_searches_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """One typed error each."""
    with pytest.raises(InvalidInput):
        myloware.memory.similar(vectors(1)[0], **options)
    with pytest.raises(InvalidVector):
        myloware.memory.similar([1.0])

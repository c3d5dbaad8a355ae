"""Memory searched by vector and text together, and for variety, against oracles in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from myloware_store import DIMENSIONS, InvalidInput, InvalidVector, Store, Worth

if TYPE_CHECKING:
    from uuid import UUID

    from numpy.typing import NDArray

WORDS = ("late", "fee", "invoice", "printer", "stairs")


def vectors(n: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors in a few directions, the same for a seed."""
    random = np.random.default_rng(seed)
    raw = random.normal(size=(6, DIMENSIONS))[random.integers(6, size=n)] + 0.7 * random.normal(size=(n, DIMENSIONS))
    unit: NDArray[np.float32] = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return unit


def fill(myloware: Store, n: int = 60) -> list[UUID]:
    """Store documents: every third without a vector, every fourth without any of the words."""
    random = np.random.default_rng(3)
    docs = []
    for i, vector in enumerate(vectors(n, 1)):
        words = " ".join(random.choice(WORDS, size=1 + i % 7)) if i % 4 else "nothing of the kind"
        doc: dict[str, Any] = {"type": ("CONTEXT", "KNOWLEDGE")[i % 2], "content": f"{words} {i}"}
        docs.append(doc if i % 3 == 0 else {**doc, "embedding": vector})
    ids = myloware.memory.upsert(docs)
    myloware.db.execute_sql("ANALYZE mem_docs")  # so that it cannot run between two searches
    return ids


def fused(
    by_vector: list[UUID], by_text: dict[UUID, float], k: int, rrf_k: float, weights: tuple[float, float]
) -> list[tuple[UUID, float, int | None, int | None]]:
    """Fuse two rankings by the paper's formula; by_text are the factors of the text's weight."""
    rows: list[tuple[UUID, float, int | None, int | None]] = []
    for doc_id in {*by_vector, *by_text}:
        ranks = [ranking.index(doc_id) + 1 if doc_id in ranking else None for ranking in (by_vector, [*by_text])]
        factors = (weights[0], weights[1] * by_text.get(doc_id, 0))
        score = sum(weight / (rrf_k + rank) for weight, rank in zip(factors, ranks, strict=True) if rank is not None)
        rows.append((doc_id, score, ranks[0], ranks[1]))
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:k]


@pytest.mark.parametrize("filter_", [None, {"type": "CONTEXT"}])
@pytest.mark.parametrize(
    ("k", "pool", "rrf_k", "weights", "boost"),
    [
        (10, None, 60, (1, 1), 3),
        (5, 5, 60, (1, 1), 0),
        (7, 20, 0, (1, 1), 1),
        (50, 50, 1, (0.25, 3), 0.5),
        (10, 20, 60, (0, 1), 3),
        (10, 20, 0.5, (2, 0), 3),
    ],
)
def test_hybrid_is_reciprocal_rank_fusion(  # noqa: PLR0917
    myloware: Store,
    filter_: Any,
    k: int,
    pool: int | None,
    rrf_k: float,
    weights: tuple[float, float],
    boost: float,
) -> None:
    """Ties, hits of one side only, weights, the text's score, and ranks, as the formula has them."""
    fill(myloware)
    query = vectors(1, 2)[0]
    depth = pool or 50
    similar = myloware.memory.similar(query, k=depth, filter=filter_) if weights[0] else []
    texts = myloware.memory.search_text("late fee", k=depth, filter=filter_) if weights[1] else []
    by_text = {hit.id: 1 + boost * (hit.score or 0) for hit in texts}
    expected = fused([hit.id for hit in similar], by_text, k, rrf_k, weights)
    hits = myloware.memory.hybrid(
        query, "late fee", k=k, pool=pool, rrf_k=rrf_k, weights=weights, filter=filter_, text_boost=boost
    )
    assert [row[0] for row in expected] == [hit.id for hit in hits]
    assert np.allclose([row[1] for row in expected], [hit.score for hit in hits], rtol=1e-12)
    assert [row[2:] for row in expected] == [(hit.vector_rank, hit.text_rank) for hit in hits]


def test_an_identifier_comes_before_what_is_only_similar(myloware: Store) -> None:
    """Also if it is far down by its vector; what neither search asked for is left out."""
    query = vectors(1, 2)[0]
    ids = myloware.memory.upsert(
        [{"type": "CONTEXT", "content": f"Invoice KA-{n}", "embedding": query} for n in range(60)]
        + [{"type": "CONTEXT", "content": "Invoice HP-2025-0142", "embedding": -query}]
    )
    assert ids[-1] == myloware.memory.hybrid(query, "invoice hp2025 0142")[0].id
    assert ids[-1] != myloware.memory.hybrid(query, "invoice hp2025 0142", text_boost=0)[0].id
    assert [ids[-1]] == [hit.id for hit in myloware.memory.hybrid(query, "hp2025 0142", weights=(0, 1))]


def test_excluded_words_leave_out_what_is_only_similar(myloware: Store) -> None:
    """Not the text's hits alone."""
    query = vectors(1, 2)[0]
    docs = [{"type": "CONTEXT", "content": text, "embedding": query} for text in ("late fee", "late goods", "goods")]
    ids = myloware.memory.upsert(docs)
    assert ids[1:] == [hit.id for hit in myloware.memory.hybrid(query, "late -fee")]
    assert [ids[1]] == [hit.id for hit in myloware.memory.hybrid(query, "late -fee", k=1)]


def test_documents_of_one_side_are_found_too(myloware: Store) -> None:
    """Without a vector by their text, without the words by their vector; one tie goes by the ids."""
    query = vectors(1, 2)[0]
    ids = myloware.memory.upsert(
        [{"type": "CONTEXT", "content": "late fee"}, {"type": "CONTEXT", "content": "other", "embedding": query}]
    )
    hits = myloware.memory.hybrid(query, "late fee", text_boost=0)
    assert sorted(ids) == [hit.id for hit in hits]
    by_id = {hit.id: hit for hit in hits}
    text, vector = by_id[ids[0]], by_id[ids[1]]
    assert (None, 1, None, 1 / 61) == (text.vector_rank, text.text_rank, text.similarity, text.score)
    assert (1, None, 1 / 61) == (vector.vector_rank, vector.text_rank, vector.score)
    assert pytest.approx(1, abs=1e-6) == vector.similarity


def test_a_hit_outside_of_the_vectors_pool_has_its_similarity(myloware: Store) -> None:
    """None is for documents without a vector alone; a zero vector stored past the library has no direction."""
    near, far = vectors(1, 2)[0], -vectors(1, 2)[0]
    myloware.memory.upsert([{"type": "CONTEXT", "content": "other", "embedding": near}])
    (found,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "late fee", "embedding": far}])
    hits = {hit.id: hit for hit in myloware.memory.hybrid(near, "late fee", k=2, pool=2)}
    assert (2, 1) == (hits[found].vector_rank, hits[found].text_rank)
    (hit,) = myloware.memory.hybrid(near, "late fee", k=1, pool=1, weights=(0.1, 1))
    assert (found, None, 1) == (hit.id, hit.vector_rank, hit.text_rank)
    assert pytest.approx(-1, abs=1e-6) == hit.similarity
    myloware.db.execute_sql(
        "UPDATE mem_docs SET embedding = array_fill(0::real, ARRAY[1536])::vector WHERE id = %s", (found,)
    )
    assert [None] == [hit.similarity for hit in myloware.memory.hybrid(near, "late fee", k=1, pool=1, weights=(0.1, 1))]


def test_hybrid_keeps_to_the_tenant_and_answers_anything(myloware: Store) -> None:
    """What search_text answers with nothing leaves the similar ones."""
    fill(myloware)
    query = vectors(1, 2)[0]
    with myloware.tenant("globex"):
        assert myloware.memory.hybrid(query, "late fee") == []
    nearest = [hit.id for hit in myloware.memory.similar(query)]
    for q in ("", "the of", '"', "%s"):
        assert nearest == [hit.id for hit in myloware.memory.hybrid(query, q)]
    assert myloware.memory.hybrid(query, "-late 請求書")


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"k": 10_001},
        {"q": None},
        {"q": "a\x00"},
        {"pool": 5},
        {"pool": 10_001},
        {"pool": "many", "worth": Worth()},
        {"pool": "many", "per": "document"},
        {"rrf_k": -1},
        {"rrf_k": "60"},
        {"rrf_k": float("nan")},
        {"rrf_k": True},
        {"weights": (1,)},
        {"weights": (0, 0)},
        {"weights": (1, -1)},
        {"weights": (1, float("inf"))},
        {"weights": "11"},
        {"weights": 1},
        {"weights": None},
        {"filter": {"colour": "red"}},
    ],
)
def test_bad_hybrid_searches_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """One typed error each."""
    with pytest.raises(InvalidInput):
        myloware.memory.hybrid(**{"vector": vectors(1, 2)[0], "q": "late", **options})
    with pytest.raises(InvalidVector):
        myloware.memory.hybrid([float("nan")] * DIMENSIONS, "late")


def diverse(stored: NDArray[np.float32], query: NDArray[np.float32], k: int, lam: float) -> list[tuple[int, float]]:
    """Choose by maximal marginal relevance, as the paper writes it."""
    similarity = stored.astype(float) @ query.astype(float)
    between = stored.astype(float) @ stored.astype(float).T
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(k, len(stored)):
        scores = {
            i: lam * similarity[i] - (1 - lam) * max((between[i, j] for j, _ in chosen), default=0)
            for i in range(len(stored))
            if i not in {j for j, _ in chosen}
        }
        best = max(scores, key=lambda i: scores[i])
        chosen.append((best, scores[best]))
    return chosen


@pytest.mark.parametrize("lam", [0, 0.3, 0.5, 0.9, 1])
@pytest.mark.parametrize(("k", "fetch_k"), [(10, 40), (5, None), (10, 10), (100, None)])
def test_mmr_is_maximal_marginal_relevance(myloware: Store, lam: float, k: int, fetch_k: int | None) -> None:
    """The documents, their order and their scores."""
    stored, query = vectors(60, 1), vectors(1, 2)[0]
    ids = myloware.memory.upsert(
        [{"type": "CONTEXT", "content": "x", "embedding": (1 + i) * vector} for i, vector in enumerate(stored)]
    )
    nearest = np.argsort(-(stored @ query))[: fetch_k or max(4 * k, 20)]
    expected = diverse(stored[nearest], query, k, lam)
    hits = myloware.memory.mmr(query, k=k, fetch_k=fetch_k, lam=lam)
    assert [ids[nearest[i]] for i, _ in expected] == [hit.id for hit in hits]
    assert np.allclose([score for _, score in expected], [hit.score for hit in hits], atol=1e-5)
    assert np.allclose(
        [(stored @ query)[nearest[i]] for i, _ in expected], [hit.similarity or 0 for hit in hits], atol=1e-5
    )


def test_mmr_does_not_say_the_same_twice(myloware: Store) -> None:
    """Copies of the best come after what is different; an empty memory gives nothing; a filter narrows."""
    query = vectors(1, 2)[0]
    assert myloware.memory.mmr(query) == []
    other = query + 0.5 * vectors(1, 5)[0]
    ids = myloware.memory.upsert(
        [{"type": "CONTEXT", "content": "x", "embedding": vector} for vector in (query, query, query, other)]
    )
    first, second = myloware.memory.mmr(query, k=2)
    assert (min(ids[:3]), ids[3]) == (first.id, second.id)
    assert myloware.memory.mmr(query, filter={"type": "KNOWLEDGE"}) == []


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"k": 1001}, {"fetch_k": 9}, {"fetch_k": 10_001}, {"lam": 1.1}, {"lam": "x"}, {"lam": True}]
)
def test_bad_searches_for_variety_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """One typed error each."""
    with pytest.raises(InvalidInput):
        myloware.memory.mmr(vectors(1, 2)[0], **options)

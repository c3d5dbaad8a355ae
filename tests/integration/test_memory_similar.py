"""The nearest documents: always as many as there are, through the index where it is good, leaving no setting behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from myloware_store import DIMENSIONS, InvalidInput, InvalidVector, Store
from myloware_store.db.tenancy import tenant_scope
from myloware_store.memory import search
from myloware_store.memory.engine import Memory
from myloware_store.memory.index.state import METHODS
from myloware_store.ops.migrate import migrate
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.state import Method

ROWS, TOPICS = 600, 12


def clustered(n: int, seed: int, *, first: int = 0) -> NDArray[np.float32]:
    """Give unit vectors of topics in turn, of which `first` is the first."""
    centres = np.stack([np.random.default_rng(topic).normal(size=DIMENSIONS) for topic in range(first, first + TOPICS)])
    raw = centres[np.arange(n) % TOPICS] + 0.5 * np.random.default_rng([seed]).normal(size=(n, DIMENSIONS))
    unit: NDArray[np.float32] = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return unit


def load(database: StoreDatabase, vectors: NDArray[np.float32]) -> None:
    """Put documents in whose contents are their numbers; their tenants change every hundred."""
    for start in range(0, len(vectors), 100):
        with tenant_scope(f"t{start // 100}", None):
            Memory(database).bulk_load(
                {"type": "CONTEXT" if i % 2 else "KNOWLEDGE", "content": str(i), "embedding": vector}
                for i, vector in enumerate(vectors[start : start + 100], start)
            )


def build(store: Store, method: Method) -> None:
    """Make an index of this kind that searches trust, which takes few rows for many."""
    load(store.db, clustered(ROWS, 1))
    store.memory.index.least_rows = 500
    store.memory.index.swap(method)
    store.db.execute_sql("ANALYZE mem_docs")
    assert store.memory.index.status().used


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int, keep: Any = None) -> list[str]:
    """Give the contents of the k documents that are nearest, by numpy."""
    similarity = vectors @ query
    order = [i for i in np.argsort(-similarity) if keep is None or keep(i)]
    return [str(i) for i in order[:k]]


def contents(store: Store, query: Any, **options: Any) -> list[str]:
    """Search, and give the contents of the hits."""
    return [hit.content for hit in store.memory.similar(query, **options)]


def plans(store: Store, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """Give the plans of the statements that a search sends, under the settings it sends."""
    sent: list[Any] = []
    tuned = store.db.execute_tuned

    def record(*arguments: Any) -> Any:
        sent.append(arguments)
        return tuned(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(store.db, "execute_tuned", record)
        store.memory.similar(QUERY, **options)
    return [
        "\n".join(line for (line,) in tuned(settings, f"EXPLAIN (ANALYZE, VERBOSE, SETTINGS) {sql}", params))
        for settings, sql, params in sent
    ]


@pytest.mark.parametrize("mode", ["exact", "ann"])
def test_no_search_is_compiled(myloware: Store, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """A sort that is turned off can make a plan look dear enough for JIT, which takes .4 s."""
    build(myloware, "hnsw")

    for filtered in ({}, {"filter": {"type": "CONTEXT"}}):
        (plan,) = plans(myloware, monkeypatch, mode=mode, **filtered)
        assert "jit = 'off'" in plan


def through(plan: str) -> bool:
    """Tell whether a search has gone through the index, and not only planned to."""
    return any(INDEX in line and "never executed" not in line for line in plan.splitlines())


QUERY = clustered(TOPICS, 9)[3]
INDEX = "Index Scan using mem_docs_embedding_idx"


@pytest.mark.parametrize("method", METHODS)
def test_a_good_index_answers(myloware: Store, monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    """And nothing is compared beside it; `exact` never goes through it, and agrees."""
    build(myloware, method)
    (auto,) = plans(myloware, monkeypatch)
    assert through(auto)
    assert "Seq Scan" not in auto
    (exact,) = plans(myloware, monkeypatch, mode="exact")
    assert INDEX not in exact
    vectors = clustered(ROWS, 1)
    assert nearest(vectors, QUERY, 10) == contents(myloware, QUERY, mode="exact")
    for mode in ("auto", "ann"):
        hits = myloware.memory.similar(QUERY, mode=mode)
        assert 10 == len({hit.id for hit in hits})
        similarities = np.array([hit.score for hit in hits])
        assert np.allclose([vectors[int(hit.content)] @ QUERY for hit in hits], similarities, atol=1e-6)
        assert (np.diff(similarities) <= 0).all()


def test_an_index_that_nobody_has_built_on_the_data_is_not_trusted(
    myloware: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migration makes it on an empty table: searches compare, unless they are told otherwise."""
    load(myloware.db, clustered(ROWS, 1))
    (auto,) = plans(myloware, monkeypatch)
    assert INDEX not in auto
    assert nearest(clustered(ROWS, 1), QUERY, 100) == contents(myloware, QUERY, k=100)
    (ann,) = plans(myloware, monkeypatch, mode="ann")
    assert through(ann)
    assert 100 == len(contents(myloware, QUERY, k=100, mode="ann"))


def test_without_an_index_everything_is_compared(myloware: Store) -> None:
    """Whatever the mode."""
    load(myloware.db, clustered(ROWS, 1))
    myloware.db.execute_sql("DROP INDEX mem_docs_embedding_idx")
    for mode in ("auto", "exact", "ann"):
        assert nearest(clustered(ROWS, 1), QUERY, 20) == contents(myloware, QUERY, k=20, mode=mode)


@pytest.mark.parametrize("method", METHODS)
def test_few_that_meet_a_filter_are_compared(myloware: Store, monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    """Where more meet it than it pays to compare, the index answers, and what it misses is compared all the same."""
    build(myloware, method)
    vectors = clustered(ROWS, 1)
    wanted: dict[str, Any] = {"filter": {"type": "CONTEXT"}}
    (none,) = plans(myloware, monkeypatch, **wanted)
    assert INDEX not in none
    # Of so few lists ivfflat would else have to read more than half, which is no better than to compare.
    monkeypatch.setattr(search, "AHEAD", 2)
    monkeypatch.setattr(search, "MANY", 400)
    (few,) = plans(myloware, monkeypatch, **wanted)
    assert INDEX in few
    assert not through(few)
    assert nearest(vectors, QUERY, 10, lambda i: i % 2) == contents(myloware, QUERY, **wanted)
    monkeypatch.setattr(search, "MANY", 50)
    (many,) = plans(myloware, monkeypatch, **wanted)
    assert through(many)
    for k in (1, 10, 100, 300, 400):
        hits = contents(myloware, QUERY, k=k, **wanted)
        assert min(k, ROWS // 2) == len(set(hits)) == len(hits)
        assert all(int(content) % 2 for content in hits)
    with myloware.tenant("t2"):
        assert nearest(vectors, QUERY, 100, lambda i: 200 <= i < 300) == contents(myloware, QUERY, k=200)
        assert 100 == len(contents(myloware, QUERY, k=200, mode="ann"))
    assert contents(myloware, QUERY, filter={"metadata.x": 1}) == []


@pytest.mark.parametrize("method", METHODS)
def test_deleted_documents_take_no_places(myloware: Store, method: Method) -> None:
    """Also before a vacuum: the index still leads to them."""
    build(myloware, method)
    kept = set(nearest(clustered(ROWS, 1), QUERY, ROWS)[-40:])
    myloware.db.execute_sql("DELETE FROM mem_docs WHERE NOT content = ANY (%s)", (list(kept),))
    for mode in ("auto", "exact", "ann"):
        for k in (10, 40, 100):
            hits = contents(myloware, QUERY, k=k, mode=mode)
            assert min(k, 40) == len(set(hits)) == len(hits)
            assert kept >= set(hits)
    myloware.db.execute_sql("DELETE FROM mem_docs")
    for mode in ("auto", "exact", "ann"):
        assert contents(myloware, QUERY, mode=mode) == []


@pytest.mark.parametrize("method", METHODS)
def test_expired_documents_take_no_places(myloware: Store, method: Method) -> None:
    """Nor do they if they are nearly all, and the nearest."""
    build(myloware, method)
    kept = nearest(clustered(ROWS, 1), QUERY, ROWS)[-40:]
    myloware.db.execute_sql("UPDATE mem_docs SET expires_at = now() WHERE NOT content = ANY (%s)", (kept,))
    for mode in ("auto", "exact", "ann"):
        for k in (10, 40, 100):
            hits = contents(myloware, QUERY, k=k, mode=mode)
            assert min(k, 40) == len(hits) == len(set(kept) & set(hits))


@pytest.mark.parametrize("method", METHODS)
def test_what_comes_out_of_order_is_sorted(myloware: Store, method: Method) -> None:
    """Where most documents are deleted the index is scanned on and on, and what comes then may be nearer."""
    build(myloware, method)
    myloware.db.execute_sql("DELETE FROM mem_docs WHERE mod(content::int, 5) > 0")
    for k in (40, 100):
        hits = myloware.memory.similar(QUERY, k=k)
        assert k == len({hit.id for hit in hits})
        assert sorted(hits, key=lambda hit: (-hit.score, hit.id)) == hits


def test_topics_that_ivfflat_has_never_seen_are_found(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came or changed since it was built is compared beside it, and comes once."""
    build(myloware, "ivfflat")
    query, unseen = clustered(TOPICS, 9, first=50)[0], clustered(120, 2, first=50)
    load(myloware.db, unseen)
    (auto,) = plans(myloware, monkeypatch)
    assert through(auto)
    assert nearest(unseen, query, 10) == contents(myloware, query)
    myloware.db.execute_sql("UPDATE mem_docs SET metadata = '{\"a\": 1}', updated_at = now() WHERE content::int < 100")
    ids = [hit.id for hit in myloware.memory.similar(QUERY, k=60)]
    assert 60 == len(set(ids))


def test_an_index_that_was_changed_meanwhile_is_not_trusted(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process knows is some seconds old: the statement looks whether it is still the same index."""
    build(myloware, "ivfflat")
    myloware.memory.similar(QUERY)
    myloware.db.execute_sql("REINDEX INDEX mem_docs_embedding_idx")
    assert [False, False] == [through(plan) for plan in plans(myloware, monkeypatch)]
    assert nearest(clustered(ROWS, 1), QUERY, 10) == contents(myloware, QUERY)
    myloware.db.execute_sql("DROP INDEX mem_docs_embedding_idx")
    assert nearest(clustered(ROWS, 1), QUERY, 10) == contents(myloware, QUERY)


def searches(store: Store) -> None:
    """Search until it fails."""
    while True:
        store.memory.similar(QUERY, k=600, mode="ann")


@pytest.mark.parametrize("method", METHODS)
def test_tuning_stays_with_its_search(myloware: Store, method: Method) -> None:
    """On a pooled connection, in the caller's transaction with settings of its own, and after an error."""
    build(myloware, method)
    names = ("enable_sort", "jit", "random_page_cost", {"hnsw": "hnsw.ef_search", "ivfflat": "ivfflat.probes"}[method])

    def settings() -> list[str]:
        return [myloware.db.execute_sql(f"SELECT current_setting('{name}')").fetchone()[0] for name in names]

    with myloware.db.unit():
        myloware.memory.similar(QUERY)
        before = settings()
        myloware.memory.similar(QUERY, k=100, mode="ann")
        assert before == settings()
        assert ("on", "4") == (before[0], before[2])
        with myloware.db.atomic():
            myloware.db.execute_sql(f"SET LOCAL {names[3]} = 23")
            myloware.db.execute_sql("SET LOCAL enable_sort = off")
            own = settings()
            myloware.memory.similar(QUERY)
            assert own == settings()
            with myloware.db.atomic():
                myloware.memory.similar(QUERY)
                assert own == settings()
            myloware.db.execute_sql("SET LOCAL statement_timeout = 1")
            with pytest.raises(Exception, match="statement timeout"):
                searches(myloware)
            myloware.db.execute_sql("SET LOCAL statement_timeout = 0")
            assert own == settings()
        assert before == settings()
    opened = myloware.db.pool.opened
    for _ in range(5):
        myloware.memory.similar(QUERY)
    assert opened == myloware.db.pool.opened


def test_no_workers_are_started_for_a_small_table(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the planner holds them for cheap, or, before a table is analyzed, the table for large."""
    load(myloware.db, clustered(1_500, 1))
    assert myloware.db.execute_sql("SELECT pg_relation_size('mem_docs')").fetchone() > (2**23,)
    with myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0")
        (plan,) = plans(myloware, monkeypatch, mode="exact")
    assert "Gather" not in plan


def test_searches_read_what_their_transaction_wrote(myloware: Store) -> None:
    """Also through the index."""
    build(myloware, "hnsw")
    with myloware.db.atomic() as transaction:
        (doc_id,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "mine", "embedding": QUERY}])
        assert doc_id == myloware.memory.similar(QUERY)[0].id
        transaction.rollback()
    assert doc_id != myloware.memory.similar(QUERY)[0].id


@pytest.mark.parametrize("method", METHODS)
def test_every_pgvector_that_is_supported_finds_as_many_as_there_are(empty_database: str, method: Method) -> None:
    """0.5 has no iterative scans: under a filter it compares, and where the index gives too few it compares again."""
    migrate(Settings.load(empty_database, environ={}, dotenv=None))
    with Store.open(empty_database) as store:
        build(store, method)
        vectors = clustered(ROWS, 1)
        assert nearest(vectors, QUERY, 10) == contents(store, QUERY, mode="exact")
        assert nearest(vectors, QUERY, 10, lambda i: i % 2) == contents(store, QUERY, filter={"type": "CONTEXT"})
        for mode in ("auto", "ann", "exact"):
            for k in (1, 50, 200, 1000):
                assert min(k, ROWS) == len(set(contents(store, QUERY, k=k, mode=mode)))
                hits = contents(store, QUERY, k=k, mode=mode, filter={"type": "CONTEXT"})
                assert min(k, ROWS // 2) == len(set(hits))
        store.db.execute_sql("DELETE FROM mem_docs WHERE content::int >= 30")
        for mode in ("auto", "ann", "exact"):
            assert set(map(str, range(30))) == set(contents(store, QUERY, k=40, mode=mode))
        assert 10 == len(store.memory.hybrid(QUERY, "1 2 3"))
        assert 10 == len(store.memory.mmr(QUERY))


def test_vectors_come_where_they_are_asked_for(myloware: Store) -> None:
    """As they were stored, in the order of the hits."""
    vectors = clustered(20, 1)
    load(myloware.db, vectors)
    assert [None] * 10 == [hit.embedding for hit in myloware.memory.similar(QUERY)]
    for hit in myloware.memory.similar(QUERY, with_embedding=True):
        assert vectors[int(hit.content)].tolist() == list(hit.embedding if hit.embedding is not None else ())
    assert [] == myloware.memory.similar(QUERY, with_embedding=True, filter={"metadata.x": 1})


def test_equal_vectors_come_in_the_order_of_their_ids(myloware: Store) -> None:
    """With a similarity of 1 that rounding never takes beyond it, nor beyond -1."""
    ids = myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "embedding": QUERY} for _ in range(30)])
    hits = myloware.memory.similar(QUERY, k=12)
    assert sorted(ids)[:12] == [hit.id for hit in hits]
    for sign in (1, -1):
        for scale in (0.1, 0.3, 1, 7):
            (hit,) = myloware.memory.similar(sign * scale * QUERY, k=1)
            assert pytest.approx(sign, abs=1e-6) == hit.similarity == hit.score
            assert -1 <= hit.score <= 1


def test_what_has_no_direction_is_never_found(myloware: Store) -> None:
    """A zero vector stored past the library, and documents without a vector."""
    (doc_id,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "embedding": QUERY}])
    myloware.memory.upsert([{"type": "CONTEXT", "content": "no vector"}])
    myloware.db.execute_sql(
        "INSERT INTO mem_docs (tenant_id, type, content, embedding)"
        " SELECT 't', 'CONTEXT', 'zero', array_fill(0::real, ARRAY[1536])::vector"
    )
    for mode in ("auto", "exact", "ann"):
        for least in (None, -1, -0.5, 0.999):
            hits = myloware.memory.similar(QUERY, mode=mode, min_similarity=least)
            assert [doc_id] == [hit.id for hit in hits]
    assert [doc_id] == [hit.id for hit in myloware.memory.similar(-QUERY, min_similarity=-1)]
    assert [] == myloware.memory.similar(-QUERY, min_similarity=-0.99)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 10_001},
        {"k": -1},
        {"k": True},
        {"mode": "fast"},
        {"mode": None},
        {"mode": np.array(["auto", "exact"])},
        {"filter": {"type": [np.array([1, 2])]}},
        {"min_similarity": "1"},
        {"min_similarity": float("nan")},
        {"min_similarity": True},
        {"with_embedding": 1},
        {"filter": []},
    ],
)
def test_bad_searches_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """One typed error each, and one for a vector that is none."""
    with pytest.raises(InvalidInput):
        myloware.memory.similar(QUERY, **options)
    for bad in ([0.0] * DIMENSIONS, [float("inf")] * DIMENSIONS, QUERY[:100], None, "vector", [QUERY]):
        with pytest.raises(InvalidVector):
            myloware.memory.similar(bad)

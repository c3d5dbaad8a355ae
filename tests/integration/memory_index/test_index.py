"""The vector index: built where it is worth it, measured, and never in the way of a right answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest

from myloware_store import InvalidInput, Store, VectorIndexError
from myloware_store.core.sql import queries_beside
from myloware_store.core.vectors import decode_text
from myloware_store.memory.index import recall
from myloware_store.memory.index.build import find_leftovers, record
from myloware_store.memory.index.state import METHODS, IndexStates, most_probes, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.memory.index.state import Method
    from tests.integration.memory_index.conftest import Corpus

_sql = queries_beside(recall.__file__)


def test_a_small_memory_needs_no_index(myloware: Store, corpus: Corpus) -> None:
    """Up to some thousand rows `ensure` does nothing, and nothing is reported as wrong."""
    corpus.load(myloware.db, corpus.clustered(50))

    change = myloware.memory.index.ensure()
    assert ((), False, False, None) == (
        change.actions,
        change.status.used,
        change.status.stale,
        change.status.remedy,
    )
    assert change.status.problem == change.reason == "with fewer than 5000 rows (now 50), a search compares all vectors"


@pytest.mark.parametrize("method", METHODS)
def test_ensure_makes_the_index_good(loaded: Store, corpus: Corpus, method: Method) -> None:
    """It is built on the data, tuned to the target and used; a second run finds nothing to do."""
    index = loaded.memory.index
    before = index.status()
    assert (True, False, "myloware-store index ensure") == (before.stale, before.used, before.remedy)
    if method == "hnsw":
        index.swap(method)

    told: list[str] = []
    change = index.ensure(0.9, progress=lambda what, _done, _total: told.append(what))

    status = change.status
    assert (method, True, False, None) == (status.method, status.used, status.stale, status.problem)
    assert status.rows_at_build == corpus.rows <= status.rows_now < 1.1 * corpus.rows
    assert (0.9, True) == (status.target_recall, (status.recall or 0) >= 0.9)
    assert status.size_bytes > 0
    assert "Measuring" in told
    if method == "ivfflat":
        assert (24, 0) == (status.lists, status.fresh_rows)
    else:
        assert (16, 64, None) == (status.m, status.ef_construction, status.fresh_rows)
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(loaded.db)
    assert ((), "it is good") == ((again := index.ensure(0.9)).actions, again.reason)
    measured = index.measure_recall(30)
    assert (30, True) == (measured.sample, measured.recorded)
    assert 0.5 < measured.low <= measured.recall <= measured.high <= 1
    assert measured.recall == index.status().recall


def test_the_measured_search_goes_through_the_index(loaded: Store, corpus: Corpus) -> None:
    """What is measured is a scan of the index and not another plan."""
    loaded.memory.index.ensure()
    query = {"query": str(corpus.clustered(1)[0].tolist()), "k": 10}
    with loaded.db.atomic():
        loaded.db.execute_sql(
            "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)"
        )
        plans = [
            str(loaded.db.execute_sql(f"EXPLAIN {sql}", query).fetchall())
            for sql in map(queries_beside(recall.__file__), ("approximate", "vectors"))
        ]
    assert ["mem_docs_embedding_idx" in plan for plan in plans] == [True, False]


def test_queries_to_measure_with_lie_where_documents_do(myloware: Store, corpus: Corpus) -> None:
    """Embeddings of 384 numbers, padded with zeros, get no noise in the others, which would be easy to search for."""
    vectors = corpus.clustered(50)
    vectors[:, 384:] = 0
    corpus.load(myloware.db, vectors)

    (queries,) = recall.draw(myloware.db, 20, lambda _: None, k=10)
    drawn = np.stack([decode_text(query.text) for query in queries])
    assert len(drawn) == 20
    assert np.abs(drawn[:, 384:]).max() < 1e-6 < np.linalg.norm(drawn, axis=1).min()
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    true = np.sort(1 - unit @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T, axis=1)[:, :10]
    np.testing.assert_allclose([query.nearest for query in queries], true, atol=1e-6)


def test_a_missed_target_comes_with_the_recall_of_all_queries(myloware: Store, corpus: Corpus) -> None:
    """Also of those that were not asked any more when the target was out of reach: they did not find nothing."""
    corpus.load(myloware.db, corpus.clustered(50))
    myloware.memory.index.rebuild()
    state = read_state(myloware.db)
    (queries,) = recall.draw(myloware.db, 20, lambda _: None)

    tunings, measured = recall.calibrate(myloware.db, state, [queries], 1.0)
    assert tunings == ()
    most = most_probes(state.lists or 0)
    assert recall.score(myloware.db, state, queries, most, recall.KS[0]).recall == pytest.approx(measured)


@pytest.mark.parametrize("filter_", [None, {"type": "CONTEXT"}])
def test_min_similarity_holds_through_the_index(loaded: Store, corpus: Corpus, filter_: Any) -> None:
    """Less similar documents are left out, with a filter and without one."""
    query = corpus.clustered(1)[0]
    hits = loaded.memory.similar(query, mode="ann", filter=filter_)
    least = (hits[4].score + hits[5].score) / 2
    alike = loaded.memory.similar(query, mode="ann", filter=filter_, min_similarity=least)
    assert [hit.id for hit in alike] == [hit.id for hit in hits[:5]]


def test_growth_is_noticed(loaded: Store, corpus: Corpus) -> None:
    """Beyond twice its rows ivfflat is used no more, and `ensure` builds it anew with more lists."""
    loaded.memory.index.ensure()
    corpus.load(loaded.db, corpus.clustered(2 * corpus.rows))

    status = loaded.memory.index.status()
    assert (True, False, 2 * corpus.rows) == (status.stale, status.used, status.fresh_rows)
    assert "it was measured on" in str(status.problem)
    change = loaded.memory.index.ensure()
    assert (round((3 * corpus.rows) ** 0.5), True, 0) == (
        change.status.lists,
        change.status.used,
        change.status.fresh_rows,
    )


def test_more_of_the_same_needs_no_new_index(loaded: Store, corpus: Corpus) -> None:
    """Rows of the topics it knows: measured anew, it answers for them, too."""
    index = loaded.memory.index
    index.ensure()
    corpus.load(loaded.db, corpus.clustered(150))
    assert (150, True, True) == ((status := index.status()).fresh_rows, status.used, status.stale)

    change = index.ensure()
    assert (0, corpus.rows, True) == (change.status.fresh_rows, change.status.rows_at_build, change.status.used)
    assert [action.split()[0] for action in change.actions] == ["measured"]


def test_unseen_topics_make_a_new_index(loaded: Store, corpus: Corpus) -> None:
    """Rows of topics that the index never saw: the search finds them at once, and `ensure` teaches it to the index."""
    index = loaded.memory.index
    index.sample = 60
    index.ensure()
    corpus.load(loaded.db, corpus.clustered(300, topics=10, first=100))

    assert index.measure_recall(50).high >= 0.95
    change = index.ensure()
    assert change.status.used
    assert not change.status.stale
    assert index.measure_recall(50).high >= 0.95


def test_a_load_that_a_measurement_cannot_see_is_waited_for(loaded: Store, corpus: Corpus) -> None:
    """Else its documents would count as known to the index. Those of a transaction that writes later count as new."""
    memory, index, half, ending = loaded.memory, loaded.memory.index, threading.Event(), threading.Event()
    index.ensure()
    corpus.load(loaded.db, corpus.clustered(150))
    topics = corpus.clustered(90, topics=3, first=100)

    def docs() -> Iterator[dict[str, Any]]:
        for n, vector in enumerate(topics):
            yield {"type": "KNOWLEDGE", "content": "x", "embedding": vector}
            if n == 60:
                half.set()
                ending.wait(60)

    with ThreadPoolExecutor() as pool:
        load = pool.submit(memory.bulk_load, docs(), batch_size=50)
        half.wait(60)
        change = index.ensure(progress=lambda what, *_: ending.set() if what.startswith("Waiting") else None)
        ending.set()
        load.result()
    assert change.actions
    memory._index_states.forget()
    found = [
        len({hit.id for hit in memory.similar(topic)} & {hit.id for hit in memory.similar(topic, mode="exact")})
        for topic in topics[:20]
    ]
    assert sum(found) > 0.8 * 10 * 20
    with loaded.db.atomic():
        (begun,) = loaded.db.execute_sql("SELECT clock_timestamp()").fetchone()
        (doc_id,) = memory.upsert([{"type": "KNOWLEDGE", "content": "x"}])
    assert memory.get(doc_id)[0].updated_at > begun


def test_an_index_that_was_measured_under_its_target_is_tuned(loaded: Store) -> None:
    """Nothing else has changed: `ensure` finds what it takes now."""
    index = loaded.memory.index
    index.ensure()
    state = read_state(loaded.db)
    record(loaded.db, attrs.evolve(state, recall=0.9, tunings=((10, 1), (100, 1), (500, 1))))
    assert index.status().stale
    change = index.ensure()
    assert change.actions[0].startswith("measured")
    assert change.status.used


def test_deletes_without_vacuum_do_no_harm(loaded: Store) -> None:
    """Half of the rows gone: what is left is found, and `ensure` measures it."""
    index = loaded.memory.index
    index.sample = 60
    index.ensure()
    loaded.db.execute_sql("DELETE FROM mem_docs WHERE ctid IN (SELECT ctid FROM mem_docs LIMIT 200)")

    assert index.measure_recall(30).high >= 0.95


def test_what_a_killed_build_left_is_named_and_dropped(loaded: Store, corpus: Corpus) -> None:
    """Under whatever name; the index in use stays, and so do indexes of others."""
    index = loaded.memory.index
    index.ensure()
    loaded.db.execute_sql(
        "CREATE INDEX mem_docs_embedding_idx_new ON mem_docs USING hnsw (embedding vector_cosine_ops)"
    )
    loaded.db.execute_sql("CREATE INDEX theirs ON mem_docs USING hnsw (embedding vector_l2_ops)")

    assert (("mem_docs_embedding_idx_new",), True) == ((status := index.status()).leftovers, status.stale)
    change = index.ensure()
    assert (("dropped mem_docs_embedding_idx_new",), ()) == (change.actions, change.status.leftovers)
    assert {"mem_docs_embedding_idx": True, "theirs": True} == corpus.indexes(loaded.db)


@pytest.mark.parametrize(
    "damage",
    [
        "DROP INDEX mem_docs_embedding_idx",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mem_docs_embedding_idx'::regclass",
        "REINDEX INDEX mem_docs_embedding_idx",
    ],
)
def test_a_damaged_index_is_built_anew(loaded: Store, corpus: Corpus, damage: str) -> None:
    """Missing, invalid, or made anew by others: `status` says so, `ensure` mends it."""
    loaded.memory.index.ensure()
    loaded.db.execute_sql(damage)

    assert (True, False) == ((status := loaded.memory.index.status()).stale, status.used)
    change = loaded.memory.index.ensure()
    assert (False, True, True) == (change.status.stale, change.status.used, change.status.valid)
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(loaded.db)


def test_an_empty_memory_gets_its_index_back(myloware: Store, corpus: Corpus) -> None:
    """A missing index is made however few rows there are, so that the schema is whole."""
    myloware.db.execute_sql("DROP INDEX mem_docs_embedding_idx")

    assert myloware.memory.index.status().stale
    assert not myloware.memory.index.ensure().status.stale
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(myloware.db)
    with pytest.raises(VectorIndexError, match="nothing to measure"):
        myloware.memory.index.measure_recall()


def test_inside_a_transaction_nothing_is_built(loaded: Store) -> None:
    """A concurrent build would wait for it for ever."""
    index = loaded.memory.index
    for call in (index.ensure, index.rebuild, lambda: index.swap("hnsw"), index.measure_recall):
        with loaded.db.atomic(), pytest.raises(InvalidInput, match="a transaction is open"):
            call()
    assert find_leftovers(loaded.db) == ()
    assert index.ensure().actions
    with loaded.db.atomic(), pytest.raises(InvalidInput, match=r"index\.ensure: a transaction is open"):
        index.ensure()  # also where there is nothing to do


@pytest.mark.parametrize("target", [0.4, 1.1, "0.9", True, None, float("nan")])
def test_a_target_is_a_share(loaded: Store, target: Any) -> None:
    """Anything else is refused before anything happens."""
    with pytest.raises(InvalidInput, match="target_recall"):
        loaded.memory.index.ensure(target)


@pytest.mark.parametrize("method", ["flat", "", None, 1, []])
def test_an_unknown_method_is_refused(loaded: Store, method: Any) -> None:
    """There are two."""
    with pytest.raises(InvalidInput, match="method"):
        loaded.memory.index.swap(method)


def test_an_impossible_target_leaves_searches_exact(loaded: Store) -> None:
    """Where the index cannot meet it, `status` says so, and `ensure` does not build again and again."""
    state = IndexStates(loaded.db)
    change = loaded.memory.index.ensure(1.0)
    if change.status.used:
        assert change.status.recall == 1.0
    else:
        assert "under the target" in str(state.get().problem)
    assert loaded.memory.index.ensure(1.0).actions == ()

"""What the library knows of its vector index, and what it no longer believes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from myloware_store.memory.index.state import IndexState, IndexStates, encode_record, enlarged

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def recorded(database: StoreDatabase, **changes: Any) -> IndexState:
    """Write a record of a good index into its comment, and read the state back."""
    state = attrs.evolve(
        IndexStates(database).get(),
        rows=900,
        built_at=NOW,
        tunings=((10, 4), (100, 7)),
        target_recall=0.95,
        recall=0.97,
        sample=64,
        measured_at=NOW,
        measured_rows=1000,
        fresh_since=NOW,
    )
    comment = encode_record(attrs.evolve(state, **changes))
    database.execute_sql(f"COMMENT ON INDEX mem_docs_embedding_idx IS '{comment}'")
    return IndexStates(database).get()


def test_the_index_of_the_first_migration_is_not_used(myloware_db: StoreDatabase) -> None:
    """It was built on an empty table, where nothing could be learned."""
    state = IndexStates(myloware_db).get()

    assert ("ivfflat", True, 100, 0) == (state.method, state.valid, state.lists, state.rows)
    assert (False, "it was not built on this data and measured") == (state.usable, state.problem)
    assert state.pgvector >= (0, 5)


def test_what_was_measured_is_kept_in_the_comment(myloware_db: StoreDatabase) -> None:
    """All of it comes back, and times in UTC to the microsecond."""
    state = recorded(myloware_db)

    assert (900, 0.97, 0.95, 64, 1000) == (
        state.rows,
        state.recall,
        state.target_recall,
        state.sample,
        state.measured_rows,
    )
    assert (NOW, NOW, NOW) == (state.built_at, state.measured_at, state.fresh_since)
    assert state.usable


@pytest.mark.parametrize(
    "change",
    ["TRUNCATE mem_docs CASCADE", "REINDEX INDEX mem_docs_embedding_idx", "VACUUM FULL mem_docs"],
)
def test_an_index_made_anew_by_others_is_not_believed(myloware_db: StoreDatabase, change: str) -> None:
    """The comment stays through these, and says nothing of the new files."""
    recorded(myloware_db)
    myloware_db.execute_sql(change)

    state = IndexStates(myloware_db).get()
    assert (0, None, False) == (state.rows, state.recall, state.usable)


@pytest.mark.parametrize(
    "comment", ["", "for vectors", "[]", "7", '{"myloware": null}', '{"myloware": {"filenode": 1}}']
)
def test_comments_of_others_tell_nothing(myloware_db: StoreDatabase, comment: str) -> None:
    """Whatever stands there, the state can be read."""
    myloware_db.execute_sql(f"COMMENT ON INDEX mem_docs_embedding_idx IS '{comment}'")

    assert IndexStates(myloware_db).get().rows == 0


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DROP INDEX mem_docs_embedding_idx", "there is no index"),
        (
            """
            DROP INDEX mem_docs_embedding_idx;
            CREATE INDEX mem_docs_embedding_idx ON mem_docs USING hnsw (embedding vector_l2_ops)
            """,
            "it is invalid, or not over the cosine distance",
        ),
        (
            "DROP INDEX mem_docs_embedding_idx; CREATE INDEX mem_docs_embedding_idx ON mem_docs (created_at)",
            "there is no index",
        ),
    ],
)
def test_other_indexes_are_not_used(myloware_db: StoreDatabase, sql: str, problem: str) -> None:
    """One of another distance or kind, or none at all."""
    myloware_db.execute_sql(sql)

    assert problem == IndexStates(myloware_db).get().problem


def test_growth_and_low_recall_are_problems(myloware_db: StoreDatabase) -> None:
    """An index is not used beyond twice its measured rows (eight times for hnsw), or under its target."""
    assert not recorded(myloware_db, recall=0.94).usable
    assert "0.960, not surely above the target" in str(recorded(myloware_db, recall=0.96, tunings=()).problem)
    assert not recorded(myloware_db, recall=None, tunings=()).usable
    assert recorded(myloware_db, recall=None).usable  # a provisional tuning
    state = recorded(myloware_db)
    assert attrs.evolve(state, live_rows=2000).usable
    assert not attrs.evolve(state, live_rows=2001).usable
    assert attrs.evolve(state, live_rows=8000, method="hnsw").usable
    assert not attrs.evolve(state, live_rows=8001, method="hnsw").usable


def test_the_state_is_kept_for_a_few_seconds(myloware_db: StoreDatabase) -> None:
    """Searches do not ask again each time; what changes the index does."""
    states = IndexStates(myloware_db)
    before = states.get()
    myloware_db.execute_sql("DROP INDEX mem_docs_embedding_idx")

    assert before is states.get()
    assert states.refresh().method is None
    assert states.get().method is None


def test_a_tuning_is_told_for_the_k_it_was_measured_for(myloware_db: StoreDatabase) -> None:
    """The next larger one's; more rows than that are searched for exactly."""
    state = recorded(myloware_db)

    assert [4, 4, 7, 7, None] == [state.tuning_for(k) for k in (1, 10, 11, 100, 101)]


def test_more_is_searched_beside_an_index_that_was_not_measured(myloware_db: StoreDatabase) -> None:
    """A build that was killed before the exchange leaves a valid one, and the planner may choose it."""
    recorded(myloware_db)
    myloware_db.execute_sql(
        "CREATE INDEX mem_docs_embedding_idx_new ON mem_docs USING ivfflat (embedding vector_cosine_ops)"
    )

    assert [6, 11, None] == [IndexStates(myloware_db).get().tuning_for(k) for k in (10, 100, 101)]


@pytest.mark.parametrize(
    ("tuning", "lists", "expected"), [(4, 24, 6), (1, 3, 1), (54, 141, 56), (60, 141, 60), (40, None, 60)]
)
def test_a_provisional_tuning_is_larger_but_still_worth_it(tuning: int, lists: int | None, expected: int) -> None:
    """Half as much again, up to the probes beyond which an exact search is as fast, or as many as were in use."""
    assert expected == enlarged(tuning, lists)

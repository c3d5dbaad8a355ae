"""Searches that value what is new and what is important."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from myloware_store import InvalidInput, Store, Worth

if TYPE_CHECKING:
    from uuid import UUID

ONES = [1.0] * 1536


@pytest.fixture
def names(myloware: Store) -> dict[UUID, str]:
    """Store an old, a new and an important document that match alike, and others that match less."""
    docs: list[dict[str, Any]] = [{"content": f"late fee {n}"} for n in ("old", "new")]
    docs.append({"content": "late fee important", "metadata": {"importance": 1}})
    docs += [
        {"content": f"late {n}", "metadata": {"importance": "high"}, "embedding": [-1.0] * 1536} for n in range(60)
    ]
    ids = myloware.memory.upsert([{"type": "CONTEXT", "embedding": ONES, **doc} for doc in docs])
    old = [str(row_id) for row_id in (ids[0], ids[2])]
    myloware.db.execute_sql(
        "UPDATE mem_docs SET created_at = now() - interval '60 days' WHERE id = ANY (%s::uuid[])", (old,)
    )
    return dict(zip(ids, ["old", "new", "important"], strict=False))


def test_new_and_important_documents_come_first(myloware: Store, names: dict[UUID, str]) -> None:
    """By every search, as the formula has it; without worth, alike."""
    searches: list[Any] = [
        lambda **how: myloware.memory.similar(ONES, k=3, **how),
        lambda **how: myloware.memory.search_text("late fee", k=3, **how),
        lambda **how: myloware.memory.hybrid(ONES, "late fee", k=3, rrf_k=1_000, **how),
    ]
    for search in searches:
        plain = {hit.id: hit.score for hit in search()}
        assert names.keys() == plain.keys()
        for worth, first in ((Worth(recency=1), "new"), (Worth(importance=0.5), "important")):
            for per in ("chunk", "document"):
                hits = search(worth=worth, per=per)
                assert first == names[hits[0].id]
        hits = search(worth=Worth(half_life=30, recency=2, importance=0.5))
        factors = {"old": 1.5, "new": 3, "important": 1.5 * 1.5}
        expected = {row_id: plain[row_id] * factors[name] for row_id, name in names.items()}
        assert expected == pytest.approx({hit.id: hit.score for hit in hits}, rel=1e-3)
        assert ["new", "important", "old"] == [names[hit.id] for hit in hits]


def test_worth_raises_scores_below_zero(myloware: Store) -> None:
    """Of documents that are unlike the query alike, the important one comes first, too."""
    docs: list[dict[str, Any]] = [{"content": "plain"}, {"content": "important", "metadata": {"importance": 1}}]
    myloware.memory.upsert([{"type": "CONTEXT", "embedding": [-1.0] * 1536, **doc} for doc in docs])
    hits = myloware.memory.similar(ONES, worth=Worth(importance=1))
    assert [("important", -0.5), ("plain", -1.0)] == [(hit.content, round(hit.score, 6)) for hit in hits]


@pytest.mark.parametrize(
    "given", [{"half_life": 0}, {"recency": -1}, {"importance": float("nan")}, {"recency": "1"}, {"half_life": None}]
)
def test_bad_worth_is_refused(given: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(InvalidInput):
        Worth(**given)


def test_a_worth_is_a_worth(myloware: Store) -> None:
    """Nothing else is."""
    for wrong in ({"recency": 1}, 1.0, np.float32(1)):
        with pytest.raises(InvalidInput, match="worth"):
            myloware.memory.search_text("late", worth=wrong)  # type: ignore[arg-type]

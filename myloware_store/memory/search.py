"""Memory documents found by similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from myloware_store.core.arguments import as_choice, as_count, as_flag
from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import shown
from myloware_store.core.vectors import encode_literal
from myloware_store.db.tenancy import current_tenant
from myloware_store.memory.filters import compile_filter, scope
from myloware_store.memory.hits import MAX_HITS, find, hits_sql
from myloware_store.memory.index.state import IndexStates
from myloware_store.memory.near import (
    FURTHEST,
    MOST_ALONE,
    Near,
    by_comparing,
    by_comparing_alone,
    through_index,
    through_index_alone,
)
from myloware_store.orm.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from myloware_store.core.results import Hit
    from myloware_store.core.vectors import VectorLiteral
    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.filters import Condition
    from myloware_store.memory.index.state import IndexState

__all__ = ["MODES", "Search"]

MODES = ("auto", "exact", "ann")

MANY = 50_000
"""Documents that meet a filter from which on the index is used: to compare 50,000 takes some 60 ms.

An index knows nothing of the filter. On 50,000 clustered rows hnsw with iterative scans found .72 of the ten nearest
among the 30 % of some topics, for queries of all topics, and took half as long as comparing them all.
"""


class Search(Repository):
    """Searches among the memory documents of the tenant in force by their vectors."""

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._index_states = IndexStates(database)

    def similar(
        self,
        vector: Any,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
        min_similarity: float | None = None,
        mode: str = "auto",
        with_embedding: bool = False,
    ) -> list[Hit]:
        """Return the k documents whose embeddings are most similar to a vector, best first.

        Always min(k, matching documents) of them, ties in the order of their ids. Where more tie than there is room
        for, the index chooses among them.

        Args:
            vector: `(1536,)` real numbers.
            k: Most documents to return (1 to 10,000).
            filter: Which documents count, in the language of filters.
            min_similarity: Only documents at least this similar, from -1 to 1.
            mode: `auto` goes through the vector index where `store.memory.index.status()` calls it usable and that is
                faster than to compare all documents that count; where a filter or a tenant says which, they are
                compared up to some 50,000. `exact` always compares. `ann` goes through any valid index, also one that
                was never measured or has aged, and compares where there is none that could answer.
            with_embedding: Whether to read the vectors of the hits, 6 KB each.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds.
        """
        count, condition = as_count(k, "k", most=MAX_HITS), self._condition(filter)
        least = -1.0 if min_similarity is None else _similarity(min_similarity)
        query, with_vectors = encode_literal(vector, "vector"), as_flag(with_embedding, "with_embedding")
        state = self._usable(mode)
        if state is not None and condition.sql == "TRUE":
            alone = through_index_alone(state, count, query, with_embedding=with_vectors, untested=mode == "ann")
            if alone is not None:
                hits = find(self._db, alone.statement, {**alone.parameters, "furthest": FURTHEST}, alone.settings)
                if len(hits) == count:
                    return [hit for hit in hits if hit.score >= least]
        furthest = FURTHEST if least == -1 else 1 - least
        near = self._through_index(state, query, count, condition, untested=mode == "ann")
        if near is None and not with_vectors and count <= MOST_ALONE:
            whole = by_comparing_alone(condition, count, query)
            return find(self._db, whole.statement, {**whole.parameters, "furthest": furthest}, whole.settings)
        near = near or by_comparing(condition, count, query)
        return find(
            self._db,
            hits_sql(
                near.legs,
                "near",
                order="r.distance, r.id",
                score="1 - r.distance",
                similarity="1 - r.distance",
                with_embedding=with_vectors,
            ),
            {**near.parameters, "furthest": furthest},
            near.settings,
        )

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
            fetch_k: How many to choose among, at least k, 10,000 at most; 4 * k, at least 20, by default.
            lam: From 0 (as unlike each other as can be) to 1 (as similar to the vector as can be).
            filter: Which documents count, in the language of filters.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds.
        """
        count = as_count(k, "k", most=1_000)
        fetched = max(4 * count, 20) if fetch_k is None else as_count(fetch_k, "fetch_k", least=count, most=MAX_HITS)
        if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam <= 1:
            raise InvalidInput(f"lam: {shown(lam)} is not a number from 0 to 1")
        hits = self.similar(vector, k=fetched, filter=filter, with_embedding=True)
        if not hits:
            return []
        embeddings = np.stack([hit.embedding for hit in hits if hit.embedding is not None])
        relevance = np.array([hit.score for hit in hits])
        return [
            attrs.evolve(hits[i], score=score, embedding=None)
            for i, score in _diverse(embeddings, relevance, count, lam)
        ]

    def _condition(self, filter: Mapping[str, Any] | None) -> Condition:  # noqa: A002  the settled name
        return scope(compile_filter(filter), current_tenant())

    def _usable(self, mode: Any) -> IndexState | None:
        """Return the state of the index where searches of this mode may go through it."""
        as_choice(mode, MODES, "mode")
        if mode == "exact":
            return None
        state = self._index_states.get()
        return state if state.usable or (mode == "ann" and state.valid) else None

    def _through_index(
        self, state: IndexState | None, query: VectorLiteral, k: int, condition: Condition, *, untested: bool = False
    ) -> Near | None:
        """Return the way through the index that always finds k; None where comparing is the better one."""
        if state is None:
            return None
        return through_index(state, condition, k, query, many=0 if untested else MANY, untested=untested)


def _diverse(
    embeddings: NDArray[np.float32], relevance: NDArray[np.float64], k: int, lam: float
) -> list[tuple[int, float]]:
    """Choose k rows by maximal marginal relevance.

    Args:
        embeddings: `(n, dimensions)`.
        relevance: `(n,)` similarities to the query, descending.
        k: How many.
        lam: What relevance counts against novelty.

    Returns:
        The rows chosen and their scores, in the order of choice.
    """
    wide = embeddings.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    closest = np.zeros(len(unit))
    left = np.ones(len(unit), dtype=bool)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(k, len(unit)):
        scores = np.where(left, lam * relevance - (1 - lam) * closest, -np.inf)
        best = int(np.argmax(scores))
        likeness = unit @ unit[best]
        closest = np.maximum(closest, likeness) if chosen else likeness
        left[best] = False
        chosen.append((best, float(scores[best])))
    return chosen


def _similarity(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise InvalidInput(f"min_similarity: {shown(value)} is not a number from -1 to 1")
    return float(value)

"""How good the vector index is: what it finds for a sample of queries, against an exact search for the same.

A query is a stored vector with Gaussian noise of half its length added: related to its best match (cosine .89) and
not equal, as a question is to a passage. On 20,000 clustered rows such queries measured what true ones from the same
topics did, within the error of the sample (ivfflat: .875 against .906 at 1 probe, .992 against .990 at 2), or less.
Without noise hnsw looks better than it is: a stored vector is a node of the graph and leads to itself (ef_search 10:
.979 against .932).

A row counts as found when it is as near as the last one of the exact answer, so that equal vectors do not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray  # noqa: TC002  the annotations of results stay resolvable at run time

from myloware_store.core.vectors import Embedding, decode_binary, encode_text
from myloware_store.db.statements import LIFT_DEADLINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.state import IndexState

__all__ = ["KS", "PARAMETERS", "Query", "Score", "calibrate", "draw", "score"]

KS = (10, 100, 500)
"""How many rows are asked for where a tuning is looked for."""

_NOISE = 0.5  # lengths of the vector
_NEARER = 1e-6  # what a float32 distance may differ by
_ONE_SIDED = 1.645  # standard errors: 95 of 100 samples have the true mean above their mean less so many
_EF_SEARCH = (40, 60, 80, 120, 160, 240, 320, 480, 640, 1000)

# Whole pages are drawn, which hold one vector each where vectors are stored in line.
SAMPLE = """
SELECT vector_send(embedding) FROM mem_docs TABLESAMPLE SYSTEM (%(percent)s)
WHERE embedding IS NOT NULL
ORDER BY random() LIMIT %(n)s
"""
# Index: mem_docs_updated_at_idx, where few rows are that young.
SAMPLE_FRESH = """
SELECT vector_send(embedding) FROM mem_docs
WHERE embedding IS NOT NULL AND updated_at >= %(since)s
ORDER BY random() LIMIT %(n)s
"""
# An expression that no vector index serves.
EXACT = """
SELECT (embedding <=> %(query)s::vector) + 0.0 AS distance FROM mem_docs
WHERE embedding IS NOT NULL
ORDER BY distance LIMIT %(k)s
"""
# Index: mem_docs_embedding_idx.
APPROXIMATE = """
SELECT embedding <=> %(query)s::vector FROM mem_docs
ORDER BY embedding <=> %(query)s::vector LIMIT %(k)s
"""
# As a search through ivfflat does it: what the index may know nothing of is compared exactly, and merged.
WITH_FRESH = """
SELECT distance FROM (
    (
        SELECT id, embedding <=> %(query)s::vector AS distance FROM mem_docs
        ORDER BY embedding <=> %(query)s::vector LIMIT %(k)s
    )
    UNION
    (
        SELECT id, (embedding <=> %(query)s::vector) + 0.0 AS distance FROM mem_docs
        WHERE embedding IS NOT NULL AND updated_at >= %(since)s
        ORDER BY 2 LIMIT %(k)s
    )
) AS found
ORDER BY distance LIMIT %(k)s
"""
_EXACTLY = "SET LOCAL jit = off"
# Every other plan is priced out: the index is measured, not the planner's choice.
_THROUGH_INDEX = """
SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_sort', 'off', true), set_config(%s, %s, true)
"""
PARAMETERS = {"ivfflat": "ivfflat.probes", "hnsw": "hnsw.ef_search"}
"""What tunes a search through an index of each kind."""


@attrs.frozen(eq=False)
class Query:
    """A query, and the exact answer.

    Attributes:
        text: The vector, as pgvector reads it.
        nearest: The `(k,)` distances of the nearest rows, ascending.
    """

    text: str
    nearest: NDArray[np.float64]


@attrs.frozen
class Score:
    """The recall of a sample.

    Attributes:
        recall: The mean over its queries, 0 .. 1.
        error: The standard error of that mean.
    """

    recall: float
    error: float

    @property
    def surely(self) -> float:
        """A recall that the true one is above, in 95 of 100 samples."""
        return self.recall - _ONE_SIDED * self.error


def draw(
    database: StoreDatabase, n: int, tell: Callable[[int], None], *, k: int = KS[-1], since: datetime | None = None
) -> list[Query]:
    """Draw queries among the stored vectors, and search exactly for each: one pass over the table a query.

    Args:
        database: Outside of a transaction.
        n: How many; fewer come where there are fewer rows.
        tell: Told how many were searched for.
        k: How many nearest rows are looked for.
        since: Only vectors of rows that came or changed since then.
    """
    noise = np.random.default_rng()
    queries = []
    for done, vector in enumerate(_vectors(database, n, since)):
        tell(done)
        text = encode_text(_perturbed(vector, noise))
        with database.atomic():
            database.execute_sql(LIFT_DEADLINES, (True,))
            database.execute_sql(_EXACTLY)
            queries.append(Query(text, _distances(database, EXACT, {"query": text, "k": k})))
    return queries


def calibrate(
    database: StoreDatabase, state: IndexState, groups: Sequence[Sequence[Query]], target: float
) -> tuple[tuple[tuple[int, int], ...], float]:
    """Find the smallest tuning at which the index meets the target, for each of `KS`.

    The target is met where the recall of every group is surely above it (one-sided, 95 %).

    Args:
        database: Outside of a transaction.
        state: The index; only kind and lists matter.
        groups: Queries with their exact answers; groups may be empty.
        target: The recall aimed at.

    Returns:
        Pairs of k and tuning, for those k where it can be met, and the recall at k = 10: that of the worst group, at
        the tuning found or at the largest tried. With more than half of the lists probed an exact search is as fast.
    """
    met: dict[int, int] = {}
    recall = 0.0
    for tuning in _candidates(state):
        found = [[_found(database, state, query, tuning, since=None) for query in group] for group in groups if group]
        for k in KS:
            scores = [
                _score([_share(query, distances, k) for query, distances in zip(group, answers, strict=True)])
                for group, answers in zip(filter(None, groups), found, strict=True)
            ]
            if k == KS[0] and k not in met:
                recall = min(one.recall for one in scores)
            if k not in met and all(one.surely >= target for one in scores):
                met[k] = tuning
        if len(met) == len(KS):
            break
    return tuple(sorted(met.items())), recall


def score(database: StoreDatabase, state: IndexState, queries: Sequence[Query], tuning: int, k: int) -> Score:
    """Measure the recall of a search through the index, with the fresh rows that it compares exactly.

    Args:
        database: Outside of a transaction.
        state: The index.
        queries: With their exact answers.
        tuning: Probes or ef_search.
        k: How many rows are asked for.
    """
    return _score([_share(one, _found(database, state, one, tuning, since=state.fresh_since), k) for one in queries])


def _candidates(state: IndexState) -> Iterator[int]:
    if state.method == "hnsw":
        yield from _EF_SEARCH
        return
    probes, most = 1, max(1, (state.lists or 1) // 2)
    while probes < most:
        yield probes
        probes = max(probes + 1, round(probes * 1.35))
    yield most


def _vectors(database: StoreDatabase, n: int, since: datetime | None) -> list[Embedding]:
    if since is not None:
        rows = database.execute_sql(SAMPLE_FRESH, {"n": n, "since": since}).fetchall()
    else:
        size = "SELECT pg_relation_size('mem_docs') / current_setting('block_size')::bigint"
        (pages,) = database.execute_sql(size).fetchone()
        some = {"n": n, "percent": min(100.0, 100.0 * 4 * n / max(1, pages))}
        rows = database.execute_sql(SAMPLE, some).fetchall()
        if len(rows) < n:
            rows = database.execute_sql(SAMPLE, {**some, "percent": 100.0}).fetchall()
    return [decode_binary(row[0]) for row in rows]


def _perturbed(vector: Embedding, noise: np.random.Generator) -> Embedding:
    given = vector.astype(np.float64)
    random = noise.normal(size=given.shape)
    moved: Embedding = (given / np.linalg.norm(given) + _NOISE * random / np.linalg.norm(random)).astype(np.float32)
    return moved


def _found(
    database: StoreDatabase, state: IndexState, query: Query, tuning: int, *, since: datetime | None
) -> NDArray[np.float64]:
    method = state.method or "ivfflat"
    with database.atomic():
        database.execute_sql(LIFT_DEADLINES, (True,))
        database.execute_sql(_THROUGH_INDEX, (PARAMETERS[method], str(tuning)))
        sql = APPROXIMATE if since is None else WITH_FRESH
        return _distances(database, sql, {"query": query.text, "k": len(query.nearest), "since": since})


def _distances(database: StoreDatabase, sql: str, values: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([row[0] for row in database.execute_sql(sql, values).fetchall()], dtype=np.float64)


def _share(query: Query, found: NDArray[np.float64], k: int) -> float:
    """Return which share of the k nearest rows was found.

    The nearest does not count where there are others: it is the row that the query was made from, which every index
    finds.
    """
    k = min(k, len(query.nearest))
    hits = int(np.count_nonzero(found[:k] <= query.nearest[k - 1] + _NEARER))
    easy = int(k > 1)
    own = easy * int(np.count_nonzero(found[:1] <= query.nearest[0] + _NEARER))
    return min(1.0, (hits - own) / (k - easy))


def _score(shares: Sequence[float]) -> Score:
    return Score(float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares))))

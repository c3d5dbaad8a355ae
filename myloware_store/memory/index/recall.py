"""The recall of the vector index: the share of the exact answers that it finds, for a sample of queries.

A query is a stored vector with Gaussian noise of half its length added: similar to its best match (cosine .89) but not
equal to it, as a question is to a passage. On 20,000 clustered rows the recall of such queries was that of real ones
from the same topics within the error of the sample, or lower (ivfflat: .875 against .906 at 1 probe, .992 against .990
at 2). Without noise hnsw looks better than it is, because a stored vector is a node of the graph and leads to itself
(ef_search 10: .979 against .932).

A row counts as found if it is as near as the last row of the exact answer, so equal vectors do not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray  # noqa: TC002  the annotations of results stay resolvable at run time

from myloware_store.core.sql import queries_beside
from myloware_store.core.vectors import Embedding, decode_binary, encode_text
from myloware_store.db.statements import LIFT_DEADLINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.state import IndexState

__all__ = ["KS", "PARAMETERS", "Query", "Score", "calibrate", "draw", "score"]

_sql = queries_beside(__file__)

KS = (10, 100, 500)
"""The numbers of rows for which a tuning is found."""

_NOISE = 0.5  # lengths of the vector
_NEARER = 1e-6  # what a float32 distance may differ by
_ONE_SIDED = 1.645  # standard errors: 95 of 100 samples have the true mean above their mean less so many
_EF_SEARCH = (40, 60, 80, 120, 160, 240, 320, 480, 640, 1000)

_EXACTLY = "SET LOCAL jit = off"
PARAMETERS = {"ivfflat": "ivfflat.probes", "hnsw": "hnsw.ef_search"}
"""The setting that tunes a search through each kind of index."""


@attrs.frozen(eq=False)
class Query:
    """A query and its exact answer.

    Attributes:
        text: The vector in the format that pgvector reads.
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
        """A lower bound of the true recall, right for 95 of 100 samples."""
        return self.recall - _ONE_SIDED * self.error


def draw(
    database: StoreDatabase, n: int, tell: Callable[[int], None], *, k: int = KS[-1], since: datetime | None = None
) -> list[Query]:
    """Draw queries from the stored vectors, and search exactly for each, with one pass over the table for each query.

    Args:
        database: The database, outside of a transaction.
        n: How many queries to draw; a small table gives fewer.
        tell: Called with the number of queries searched for so far.
        k: How many nearest rows to find.
        since: Draw only vectors of rows that were added or changed since then.
    """
    noise = np.random.default_rng()
    queries = []
    for done, vector in enumerate(_vectors(database, n, since)):
        tell(done)
        text = encode_text(_perturbed(vector, noise))
        with database.atomic():
            database.execute_sql(LIFT_DEADLINES, (True,))
            database.execute_sql(_EXACTLY)
            queries.append(Query(text, _distances(database, _sql("exact"), {"query": text, "k": k})))
    return queries


def calibrate(
    database: StoreDatabase, state: IndexState, groups: Sequence[Sequence[Query]], target: float
) -> tuple[tuple[tuple[int, int], ...], float]:
    """Find the smallest tuning with which the index meets the target, for each of `KS`.

    The target is met if the recall of every group is above it with a confidence of 95 % (one-sided).

    Args:
        database: The database, outside of a transaction.
        state: The index; only its kind and its number of lists matter.
        groups: Queries with their exact answers; groups may be empty.
        target: The recall aimed at.

    Returns:
        Pairs of k and tuning, for each k for which the target can be met, and the recall at k = 10 of the worst group,
        with the tuning found or the largest tried. At most half of the lists are probed: with more, an exact search is
        as fast.
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
    """Measure the recall of a search through the index, including the new rows that it compares exactly.

    Args:
        database: The database, outside of a transaction.
        state: The index.
        queries: The queries with their exact answers.
        tuning: Probes or ef_search.
        k: How many rows to search for.
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
        rows = database.execute_sql(_sql("sample_fresh"), {"n": n, "since": since}).fetchall()
    else:
        size = "SELECT pg_relation_size('mem_docs') / current_setting('block_size')::bigint"
        (pages,) = database.execute_sql(size).fetchone()
        some = {"n": n, "percent": min(100.0, 100.0 * 4 * n / max(1, pages))}
        rows = database.execute_sql(_sql("sample"), some).fetchall()
        if len(rows) < n:
            rows = database.execute_sql(_sql("sample"), {**some, "percent": 100.0}).fetchall()
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
        database.execute_sql(_sql("through_index"), (PARAMETERS[method], str(tuning)))
        sql = _sql("approximate") if since is None else _sql("approximate_with_fresh")
        return _distances(database, sql, {"query": query.text, "k": len(query.nearest), "since": since})


def _distances(database: StoreDatabase, sql: str, values: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([row[0] for row in database.execute_sql(sql, values).fetchall()], dtype=np.float64)


def _share(query: Query, found: NDArray[np.float64], k: int) -> float:
    """Return the share of the k nearest rows that was found.

    The nearest row does not count unless it is the only one: the query was made from it, and every index finds it.
    """
    k = min(k, len(query.nearest))
    hits = int(np.count_nonzero(found[:k] <= query.nearest[k - 1] + _NEARER))
    easy = int(k > 1)
    own = easy * int(np.count_nonzero(found[:1] <= query.nearest[0] + _NEARER))
    return min(1.0, (hits - own) / (k - easy))


def _score(shares: Sequence[float]) -> Score:
    return Score(float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares))))

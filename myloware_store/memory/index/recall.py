"""The recall of the vector index: the share of the exact answers that it finds, for a sample of queries.

A query is a stored vector with noise of 1.4 times its length added. Its cosine to its best match is then .58, as for
questions: for 700 queries to 6,535 docstrings (all-MiniLM-L6-v2) it was .57 in the median, from .40 for identifiers to
.70 for sentences. With less noise, queries are easier than real ones: at .5, ivfflat recorded .975 of those docstrings
and found .924 of the nearest to the 700 queries, at 1.4 it recorded .974 and found .956; of 8,000 package descriptions
.973 and .947 (700 queries). The noise is a random combination of the differences between stored vectors, so it lies
where documents differ: noise in all dimensions would be wasted on those that a model of 384 leaves empty. A stored
vector itself is no query: it is a node of hnsw's graph and leads to itself (ef_search 10: .979 against .932).

A row counts as found if it is as near as the last row of the exact answer, so equal vectors do not matter.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING

import attrs
import numpy as np
from numpy.typing import NDArray  # noqa: TC002  the annotations of results stay resolvable at run time

from myloware_store.core.sql import queries_beside
from myloware_store.core.vectors import DIMENSIONS, Embeddings, decode_binaries, encode_text
from myloware_store.db.statements import LIFT_DEADLINES
from myloware_store.memory.index.state import most_probes
from myloware_store.memory.rows import may_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.state import IndexState

__all__ = ["KS", "PARAMETERS", "Query", "Score", "calibrate", "draw", "score"]

_sql = queries_beside(__file__)

KS = (10, 100, 500)
"""The numbers of rows for which a tuning is found."""

_NOISE = 1.4  # lengths of the vector
_NEARER = 2e-6  # what float32 distances of the server and of numpy may differ by
_BLOCK = 500  # rows compared at once
_NUMBERS = 4 * DIMENSIONS  # the bytes at the end of a row
_ONE_SIDED = 1.645  # standard errors: 95 of 100 samples have the true mean above their mean less so many
_EF_SEARCH = (40, 60, 80, 120, 160, 240, 320, 480, 640, 1000)

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
    nearest: NDArray[np.float32]


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
    database: StoreDatabase,
    n: int,
    tell: Callable[[int], None],
    *,
    k: int = KS[-1],
    since: Sequence[datetime | None] = (None,),
) -> list[list[Query]]:
    """Draw groups of queries from the stored vectors, and find their exact answers with one pass over the table.

    The vectors are sent here and compared by matrix products, in blocks of a few megabytes: on 20,000 rows, the
    answers for 100 queries took 1.4 s so, and 6.5 s by 100 searches.

    Args:
        database: The database, outside of a transaction.
        n: How many queries to draw for each group; a small table gives fewer.
        tell: Called with the number of rows compared so far.
        k: How many nearest rows to find.
        since: For each group, draw only vectors of rows that were added or changed since then; None for all.
    """
    noise = np.random.default_rng()
    groups = [_vectors(database, n, time) for time in since]
    queries = [_perturbed(vectors, noise) for vectors in groups]
    if not sum(map(len, queries)):
        return [[] for _ in since]
    nearest = iter(_nearest(database, np.concatenate(queries), k, tell))
    return [[Query(encode_text(query), next(nearest)) for query in group] for group in queries]


def calibrate(
    database: StoreDatabase,
    state: IndexState,
    groups: Sequence[Sequence[Query]],
    target: float,
    tell: Callable[[int], None] = lambda _done: None,
) -> tuple[tuple[tuple[int, int], ...], float]:
    """Find the smallest tuning with which the index meets the target, for each of `KS`.

    The target is met if the recall of every group is above it with a confidence of 95 % (one-sided). With a larger
    tuning a search finds no less, so a query that found everything is not asked again. The others are asked in the
    order of how little they found, until the target is out of reach even if the rest found everything. If the largest
    tuning misses it, all are asked again for the recall. Half of the queries are enough for k above 10, where they
    differ less.

    Args:
        database: The database, outside of a transaction.
        state: The index; only its kind and its number of lists matter.
        groups: Queries with their exact answers; groups may be empty.
        target: The recall aimed at.
        tell: Called with the number of searches so far.

    Returns:
        Pairs of k and tuning, for each k up to the first for which the target cannot be met, and the recall at k = 10
        of the worst group, with the tuning found or the largest tried. At most `most_probes` are tried.
    """
    met: dict[int, int] = {}
    recall, searched = 0.0, 0
    asked = [(group, [np.empty(0) for _ in group]) for group in groups if group]

    def reaches(group: Sequence[Query], answers: list[NDArray[np.float64]], k: int, fresh: set[int]) -> bool:
        nonlocal searched
        count = len(group) if k == KS[0] else ceil(len(group) / 2)
        known = [_share(group[n], answers[n], k) for n in range(count)]
        shares = [1.0] * count
        for n in sorted(range(count), key=known.__getitem__):
            if known[n] < 1 and n not in fresh:
                answers[n] = _found(database, group[n], KS[-1], since=None)
                fresh.add(n)
                tell(searched := searched + 1)
            shares[n] = _share(group[n], answers[n], k)
            if _score(shares).surely < target:
                return False
        return True

    for tuning in _candidates(state):
        fresh: list[set[int]] = [set() for _ in asked]
        with _tuned(database, state, tuning):
            for k in KS[len(met) :]:
                if not all(reaches(*one, k, done) for one, done in zip(asked, fresh, strict=True)):
                    break
                met[k] = tuning
        if met.get(KS[0]) == tuning:
            recall = min(_score([_share(*one, KS[0]) for one in zip(*two, strict=True)]).recall for two in asked)
        if len(met) == len(KS):
            break
    alone = attrs.evolve(state, fresh_since=None)
    missed = (score(database, alone, group, tuning, KS[0]).recall for group, _ in asked)
    return tuple(met.items()), recall if met else min(missed)


def score(database: StoreDatabase, state: IndexState, queries: Sequence[Query], tuning: int, k: int) -> Score:
    """Measure the recall of a search through the index, including the new rows that it compares exactly.

    Args:
        database: The database, outside of a transaction.
        state: The index.
        queries: The queries with their exact answers.
        tuning: Probes or ef_search.
        k: How many rows to search for.
    """
    with _tuned(database, state, tuning):
        return _score([_share(query, _found(database, query, k, since=state.fresh_since), k) for query in queries])


def _candidates(state: IndexState) -> Iterator[int]:
    if state.method == "hnsw":
        yield from _EF_SEARCH
        return
    probes, most = 1, most_probes(state.lists or 1)
    while probes < most:
        yield probes
        probes = max(probes + 1, round(probes * 1.35))
    yield most


def _vectors(database: StoreDatabase, n: int, since: datetime | None) -> Embeddings:
    if since is not None:
        rows = database.execute_sql(_sql("sample_fresh"), {"n": n, "since": since}).fetchall()
    else:
        (pages,) = database.execute_sql(_sql("pages")).fetchone()
        some = {"n": n, "percent": min(100.0, 100.0 * 4 * n / max(1, pages))}
        rows = database.execute_sql(_sql("sample"), some).fetchall()
        if len(rows) < n:
            rows = database.execute_sql(_sql("sample"), {**some, "percent": 100.0}).fetchall()
    return decode_binaries(row[0] for row in rows) if rows else np.empty((0, DIMENSIONS), np.float32)


def _perturbed(vectors: Embeddings, noise: np.random.Generator) -> Embeddings:
    """Move each vector along a random combination of the differences between the vectors and their mean."""
    if not len(vectors):
        return vectors
    unit = _unit(vectors)
    moves = _unit(noise.normal(size=(len(unit), len(unit))).astype(np.float32) @ (unit - unit.mean(axis=0)))
    moved: Embeddings = unit + _NOISE * moves
    return moved


def _unit(vectors: Embeddings) -> Embeddings:
    """Return the vectors with a length of 1, and those without a length as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


class _Nearest:
    """A file that COPY writes vectors to; it keeps the distances of those that are nearest to each query.

    Args:
        queries: `(n, 1536)`.
        k: How many distances to keep.
        tell: Called with the number of vectors so far.

    Attributes:
        distances: `(n, k)`, ascending.
    """

    def __init__(self, queries: Embeddings, k: int, tell: Callable[[int], None]) -> None:
        self.distances = np.empty((len(queries), 0), np.float32)
        self._queries = _unit(queries)
        self._k = k
        self._tell = tell
        self._rows: list[bytes] = []
        self._done = 0

    def write(self, data: bytes) -> None:
        """Take a row in the binary format of COPY or `vector_send`, or COPY's last message, which has none."""
        if len(data) < _NUMBERS:
            return
        self._rows.append(data[-_NUMBERS:])
        if len(self._rows) == _BLOCK:
            self.compare()

    def compare(self) -> None:
        """Compare the vectors that have come since the last time."""
        vectors = np.frombuffer(b"".join(self._rows), dtype=">f4").reshape(-1, DIMENSIONS).astype(np.float32)
        distances = np.concatenate([self.distances, 1 - self._queries @ _unit(vectors).T], axis=1)
        self.distances = np.sort(distances, axis=1)[:, : self._k]
        self._done += len(self._rows)
        self._rows.clear()
        self._tell(self._done)


def _nearest(database: StoreDatabase, queries: Embeddings, k: int, tell: Callable[[int], None]) -> Embeddings:
    """Return the distances of the k nearest rows to each query, ascending: `(queries, k)`."""
    nearest = _Nearest(queries, k, tell)
    with database.atomic():
        database.execute_sql(LIFT_DEADLINES, (True,))
        if may_copy():
            database.copy(f"COPY ({_sql('vectors')}) TO STDOUT (FORMAT binary)", nearest)
        else:
            rows = database.execute_sql(_sql("vectors"), named_cursor=True)
            while block := rows.fetchmany(_BLOCK):
                for (vector,) in block:
                    nearest.write(vector)
    nearest.compare()
    return nearest.distances


@contextmanager
def _tuned(database: StoreDatabase, state: IndexState, tuning: int) -> Iterator[None]:
    """Search through the index with this tuning while the block runs."""
    with database.atomic():
        database.execute_sql(LIFT_DEADLINES, (True,))
        database.execute_sql(_sql("through_index"), (PARAMETERS[state.method or "ivfflat"], str(tuning)))
        yield


def _found(database: StoreDatabase, query: Query, k: int, *, since: datetime | None) -> NDArray[np.float64]:
    """Return the distances of the rows that a search finds."""
    sql = _sql("approximate") if since is None else _sql("approximate_with_fresh")
    rows = database.execute_sql(sql, {"query": query.text, "k": k, "since": since}).fetchall()
    return np.array([row[0] for row in rows], dtype=np.float64)


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

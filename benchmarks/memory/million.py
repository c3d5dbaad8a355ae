"""A million documents on a disk: loading, sizes, building, recall, and searches by one, four and eight threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.memory.bench import Bench, Steps, timed
from benchmarks.memory.corpus import TOPICS, VOCABULARY, Corpus, Vectors, draw, row_id, row_number
from benchmarks.memory.unasked import STATE_KEPT
from myloware_store import Store
from myloware_store.memory.index.state import Method

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK, _K = 5_000, 10
_PATIENCE = 3600.0
"""Seconds after which a build is given up."""

SIZES = """
SELECT 'mem_docs' AS name, pg_table_size('mem_docs')
UNION ALL
SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = 'mem_docs'::regclass
ORDER BY 2 DESC
"""


class _Documents:
    """Makes documents block by block, and keeps the true neighbours of the queries among those that were made.

    Args:
        count: How many documents.
        queries: `(q, 1536)`.

    Attributes:
        nearest: `(q, 10)` the numbers of the nearest.
        seconds: What making and comparing took.
    """

    def __init__(self, count: int, queries: Vectors) -> None:
        self.nearest: NDArray[np.int64] = np.empty((len(queries), 0), np.int64)
        self.seconds = 0.0
        self._similar = np.empty((len(queries), 0), np.float32)
        self._queries = queries
        self._count = count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the documents."""
        for begin in range(0, self._count, _BLOCK):
            docs, ms = timed(self._block, begin)
            self.seconds += ms / 1e3
            yield from docs

    def _block(self, begin: int) -> list[dict[str, Any]]:
        corpus = Corpus(min(_BLOCK, self._count - begin), seed=1_000 + begin // _BLOCK)
        numbers = np.broadcast_to(np.arange(begin, begin + corpus.count), (len(self._queries), corpus.count))
        similar = np.concatenate([self._similar, self._queries @ corpus.vectors.T], axis=1)
        best = np.argpartition(-similar, _K, axis=1)[:, :_K]
        self._similar = np.take_along_axis(similar, best, axis=1)
        self.nearest = np.take_along_axis(np.concatenate([self.nearest, numbers], axis=1), best, axis=1)
        return [{**doc, "id": row_id(begin + number)} for number, doc in enumerate(corpus.docs())]


def million(bench: Bench, rows: int) -> dict[str, Any]:
    """Load so many documents; build each kind of index, and search through it."""
    queries = draw(200, seed=96, topics=range(TOPICS))[0]
    words = [f"{VOCABULARY[40 + number]} {VOCABULARY[400 + 7 * number]}" for number in range(100)]
    docs = _Documents(rows, queries)
    with bench.database() as (store, raw):
        memory = store.memory
        _, ms = timed(memory.bulk_load, docs)
        found: dict[str, Any] = {"rows": rows, "load_s": ms / 1e3 - docs.seconds}
        found["settings"] = {**_settings(raw.rows), "maintenance_work_mem": f"{64 + rows // 100}MB"}
        found["vacuum_s"] = timed(raw.rows, "VACUUM ANALYZE mem_docs")[1] / 1e3
        searches: dict[str, Any] = {}
        searches["similar, exact"] = _times(lambda query: memory.similar(query, mode="exact"), list(queries[:5]))
        searches["search_text, two words"] = _times(memory.search_text, words)
        found["indexes"] = []
        # As docs/vector-index.md says: a graph that does not fit takes three times as long.
        raw.rows(f"ALTER DATABASE bench SET maintenance_work_mem = '{found['settings']['maintenance_work_mem']}'")
        for method in ("ivfflat", "hnsw"):
            one = _index(store, method, docs.nearest, queries)
            found["indexes"].append(one)
            if "threads" in one:
                pairs = list(zip(queries[:100], words, strict=True))
                searches[f"hybrid, {method}"] = _times(lambda pair: memory.hybrid(*pair), pairs)
                searches[f"similar, {method}, filter of 1 %"] = _times(
                    lambda query: memory.similar(query, filter={"metadata.department": "1"}), list(queries[:50])
                )
        found["searches"] = searches
        found["sizes"] = dict(raw.rows(SIZES))
    return found


def _index(store: Store, method: Method, nearest: NDArray[np.int64], queries: Vectors) -> dict[str, Any]:
    """Build an index and search through it."""
    memory, begin, steps = store.memory, time.monotonic(), Steps()

    def progress(what: str, *rest: object) -> None:
        steps(what, *rest)
        if time.monotonic() > begin + _PATIENCE:
            raise TimeoutError

    try:
        memory.index.swap(method, progress=progress)
    except TimeoutError:
        return {"method": method, "given_up_s": time.monotonic() - begin, "at": [*steps.seconds()][-1]}
    end, parts, status = time.monotonic(), steps.seconds(), memory.index.status()
    time.sleep(STATE_KEPT)
    for query in queries:  # the index comes into the cache
        memory.similar(query)
    hits = [
        len({row_number(hit.id) for hit in memory.similar(query)} & set(best))
        for query, best in zip(queries, nearest.tolist(), strict=True)
    ]
    return {
        "method": method,
        "seconds": end - begin,
        "parts": parts,
        "size": status.size_bytes,
        "tunings": status.tunings,
        "recorded": status.recall,
        "recall": float(np.mean(hits)) / _K,
        "threads": [{"threads": threads, **_rate(memory.similar, list(queries), threads)} for threads in (1, 4, 8)],
    }


def _times(search: Callable[[Any], object], inputs: list[Any]) -> dict[str, float]:
    search(inputs[0])
    times = [timed(search, given)[1] for given in inputs]
    return {"p50": statistics.median(times), "p95": float(np.percentile(times, 95))}


def _rate(search: Callable[[Any], object], inputs: list[Any], threads: int) -> dict[str, float]:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, inputs[: 2 * threads]))
        begin = time.monotonic()
        times = [ms for _, ms in pool.map(lambda given: timed(search, given), inputs * 3)]
        seconds = time.monotonic() - begin
    return {"per_s": len(times) / seconds, "p50": statistics.median(times), "p95": float(np.percentile(times, 95))}


def _settings(rows: Callable[..., list[tuple[Any, ...]]]) -> dict[str, str]:
    names = ["shared_buffers", "effective_cache_size", "max_parallel_maintenance_workers"]
    return dict(rows("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)", (names,)))

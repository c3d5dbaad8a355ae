"""How many of the true neighbours are found, by the memory and by SQL as one writes it, in every state of the index."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from benchmarks.memory.bench import Bench, Raw, timed
from benchmarks.memory.corpus import EARLY_TOPICS, SHARES, TOPICS, Corpus, Truth, Vectors, draw, row_number
from myloware_store import Store
from myloware_store.core.vectors import encode_text
from myloware_store.memory.index.state import METHODS, IndexStates

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = dict[str, Any]
Search = Callable[[int, int], list[int]]  # query, k -> numbers of documents

SMALL_TENANT = "small"
_BATCH = 5_000
PLAIN_SQL = "SELECT id FROM mem_docs WHERE {where} ORDER BY embedding <=> %(vector)s::vector LIMIT %(k)s"
"""What the manual of pgvector says."""


def load(store: Store, corpus: Corpus) -> float:
    """Load documents, every hundredth of them for a tenant of its own; give the seconds."""
    docs = corpus.docs()
    small = [doc for number, doc in enumerate(docs) if number % 100 == 7]
    large = [doc for number, doc in enumerate(docs) if number % 100 != 7]
    milliseconds = 0.0
    for tenant, part in ((SMALL_TENANT, small), ("large", large)):
        with store.tenant(tenant):
            milliseconds += timed(store.memory.bulk_load, part)[1]
    return milliseconds / 1e3


class Comparison:
    """Queries over loaded documents, with what is measured of them.

    Args:
        corpus: The documents.
        queries: The queries, `(q, 1536) float32`.
        counts: How many queries for each k; half as many under a filter.
    """

    def __init__(self, corpus: Corpus, queries: Vectors, counts: dict[int, int]) -> None:
        self.corpus, self.queries, self.counts = corpus, queries, counts
        self.truth = Truth(corpus.vectors, queries)
        self.literals = [encode_text(query) for query in queries]

    def filters(self) -> Iterator[tuple[str, str, str, NDArray[np.bool_]]]:
        """Give the name, key and value of each filter, and which documents it keeps."""
        yield "none", "", "", np.ones(self.corpus.count, bool)
        for key, kind in (("department", ""), ("project", ", by topic")):
            for share in SHARES:
                yield f"{share} %{kind}", key, share, self.corpus.mask(key, share)
        yield "1 %, a tenant", "tenant", SMALL_TENANT, np.arange(self.corpus.count) % 100 == 7

    def row(self, search: Search, kept: NDArray[np.bool_], k: int) -> Row:
        """Measure one search: mean recall, fewest rows returned, median milliseconds."""
        matches = int(kept.sum())
        recalls, returned, times = [], [], []
        search(0, k)
        for query in range(self.counts[k] if matches == self.corpus.count else self.counts[k] // 2):
            found, ms = timed(search, query, k)
            recalls.append(self.truth.recall(query, found, k, kept))
            returned.append(len(set(found)))
            times.append(ms)
        return {
            "k": k,
            "matches": matches,
            "wanted": min(k, matches),
            "returned": min(returned),
            "recall": statistics.mean(recalls),
            "ms": statistics.median(times),
        }

    def ours(self, store: Store, state: str, only: Container[str] | None = None) -> list[Row]:
        """Measure the memory under every filter, or only under those of these names."""
        rows = []
        for name, key, value, kept in self.filters():
            if only is not None and name not in only:
                continue
            scope: Any = store.tenant(value) if key == "tenant" else nullcontext()
            condition = {f"metadata.{key}": value} if key in ("department", "project") else None

            def search(query: int, k: int, condition: Any = condition) -> list[int]:
                hits = store.memory.similar(self.queries[query], k=k, filter=condition)
                return [row_number(hit.id) for hit in hits]

            with scope:
                rows += [{"state": state, "filter": name, **self.row(search, kept, k)} for k in self.counts]
        return rows

    def plain(self, raw: Raw, state: str) -> list[Row]:
        """Measure plain SQL under every filter."""
        rows = []
        for name, key, value, kept in self.filters():
            where = {"": "true", "tenant": "tenant_id = %(value)s"}.get(key, "metadata @> %(value)s::jsonb")
            given = orjson.dumps({key: value}).decode() if key in ("department", "project") else value
            sql = PLAIN_SQL.format(where=where)

            def search(query: int, k: int, sql: str = sql, given: str = given) -> list[int]:
                values = {"vector": self.literals[query], "k": k, "value": given}
                return [row_number(row_id) for (row_id,) in raw.rows(sql, values)]

            used = raw.index_used(sql, {"vector": self.literals[0], "k": 10, "value": given})
            rows += [{"state": state, "filter": name, "index": used, **self.row(search, kept, k)} for k in self.counts]
        return rows

    def curve(self, raw: Raw, state: str, setting: str, tunings: tuple[int, ...]) -> list[Row]:
        """Measure plain SQL over the vector index, without filters, at several tunings."""
        everything = np.ones(self.corpus.count, bool)

        def search(query: int, k: int) -> list[int]:
            values = {"vector": self.literals[query], "k": k}
            return [row_number(row_id) for (row_id,) in raw.rows(PLAIN_SQL.format(where="true"), values)]

        rows = []
        with only_index(raw):
            for tuning in tunings:
                raw.rows(f"SET {setting} = {tuning}")
                rows.append({"state": state, "tuning": tuning, **self.row(search, everything, 10)})
            raw.rows(f"RESET {setting}")
        return rows


@contextmanager
def only_index(raw: Raw) -> Iterator[None]:
    """Have the planner take the vector index also where it would not."""
    raw.rows("SET enable_seqscan = off")
    yield
    raw.rows("RESET enable_seqscan")


def recall(bench: Bench, rows: int) -> Row:
    """Load into a migrated, empty database, search, make the index good, search, take hnsw, search."""
    counts = {10: 60, 100: 20, 500: 10} if bench.quick else {10: 200, 100: 60, 500: 30}
    corpus = Corpus(rows)
    queries, labels = draw(max(counts.values()), seed=99, topics=range(TOPICS))
    compared = Comparison(corpus, queries, counts)
    same = [np.mean(corpus.labels[compared.truth.nearest(query, 10)] == label) for query, label in enumerate(labels)]
    found: Row = {"rows": rows, "same_topic": float(np.mean(same)), "seconds": {}, "tables": [], "curves": []}
    with bench.database() as (store, raw):
        found["seconds"]["bulk_load"] = load(store, corpus)
        found["tables"] += compared.ours(store, "loaded")
        found["tables"] += compared.plain(raw, "SQL, ivfflat of the empty table")
        found["curves"] += compared.curve(raw, "ivfflat of the empty table", "ivfflat.probes", (1, 2, 5, 10, 20, 50))
        found["seconds"]["ensure ivfflat"] = timed(store.memory.index.ensure)[1] / 1e3
        found["tables"] += compared.ours(store, "ivfflat")
        found["curves"] += compared.curve(raw, "ivfflat, rebuilt", "ivfflat.probes", (1, 2, 4, 8, 16, 32))
        found["seconds"]["swap hnsw"] = timed(store.memory.index.swap, "hnsw")[1] / 1e3
        found["seconds"]["ensure hnsw"] = timed(store.memory.index.ensure)[1] / 1e3
        found["tables"] += compared.ours(store, "hnsw")
        found["tables"] += compared.plain(raw, "SQL, hnsw")
        found["curves"] += compared.curve(raw, "hnsw", "hnsw.ef_search", (10, 20, 40, 80, 160, 320))
    return found


def many(bench: Bench, rows: int) -> Row:
    """Search through each index under filters that more documents meet than `similar` compares."""
    counts = {10: 60} if bench.quick else {10: 100, 100: 50}
    corpus = Corpus(rows, words=10)
    queries, _ = draw(max(counts.values()), seed=99, topics=range(TOPICS))
    compared = Comparison(corpus, queries, counts)
    found: Row = {"rows": rows, "tables": []}
    with bench.database() as (store, _raw):
        for begin in range(0, rows, _BATCH):
            store.memory.bulk_load(corpus.docs(begin, min(begin + _BATCH, rows)))
        for method in METHODS:
            store.memory.index.swap(method)
            found["tables"] += compared.ours(store, method, ("60 %", "60 %, by topic"))
    return found


def unseen(bench: Bench, rows: int) -> Row:
    """Build an index on some of the topics, load the others, and ask for those."""
    asked, early = 30 if bench.quick else 100, int(rows * EARLY_TOPICS / TOPICS)
    corpus = Corpus(rows, early=early)
    queries, _ = draw(asked, seed=98, topics=range(EARLY_TOPICS, TOPICS))
    compared = Comparison(corpus, queries, {10: asked})
    everything = np.ones(rows, bool)
    found: Row = {"rows": rows, "tables": []}
    with bench.database() as (store, raw):
        store.memory.bulk_load(corpus.docs(0, early))
        store.memory.index.ensure()
        probes = IndexStates(store.db).get().tuning_for(10) or 1
        store.memory.bulk_load(corpus.docs(early))

        def ours(query: int, k: int) -> list[int]:
            return [row_number(hit.id) for hit in store.memory.similar(queries[query], k=k)]

        def plain(query: int, k: int) -> list[int]:
            sql = (
                f"SET LOCAL ivfflat.probes = {probes}; SET LOCAL enable_seqscan = off; {PLAIN_SQL.format(where='true')}"
            )
            return [row_number(i) for (i,) in raw.rows(sql, {"vector": compared.literals[query], "k": k})]

        measured = [("similar, at once", ours), (f"SQL, the same index, probes {probes}", plain)]
        found["tables"] += [{"state": name, **compared.row(search, everything, 10)} for name, search in measured]
        store.memory.index.ensure()
        found["tables"].append({"state": "similar, after ensure()", **compared.row(ours, everything, 10)})
    return found

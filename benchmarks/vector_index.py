"""What `index.ensure` takes and gives: build time, tuning, and recall against numpy for queries that it never saw.

Run: python benchmarks/vector_index.py [ROWS ...]
"""

from __future__ import annotations

import io
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from myloware_store import DIMENSIONS, Store
from myloware_store.repositories.memory.index_recall import Query, score
from myloware_store.repositories.memory.index_state import IndexStates
from myloware_store.vectors import encode_text

TOPICS, QUERIES, CHUNK = 100, 200, 5000
Vectors = NDArray[np.float32]


def clustered(n: int, random: np.random.Generator, centres: NDArray[np.float64]) -> Vectors:
    """Return unit vectors around the centres, as far from them as half their length."""
    raw = centres[random.integers(len(centres), size=n)] + 0.5 * random.normal(size=(n, DIMENSIONS))
    unit: Vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return unit


def load(store: Store, vectors: Vectors) -> None:
    """Put documents in by COPY BINARY."""
    for start in range(0, len(vectors), CHUNK):
        rows = io.BytesIO()
        rows.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
        for vector in vectors[start : start + CHUNK].astype(">f4"):
            values = [b"bench", b"CONTEXT", b"x", struct.pack(">hh", DIMENSIONS, 0) + vector.tobytes()]
            rows.write(struct.pack(">h", 4) + b"".join(struct.pack(">i", len(value)) + value for value in values))
        rows.write(struct.pack(">h", -1))
        rows.seek(0)
        store.db.copy("COPY mem_docs (tenant_id, type, content, embedding) FROM STDIN (FORMAT binary)", rows)


def truth(vectors: Vectors, queries: Vectors) -> list[Query]:
    """Return the queries with the distances of their nearest rows, by numpy."""
    distances = np.sort(1 - queries.astype(np.float64) @ vectors.T.astype(np.float64), axis=1)[:, :500]
    return [Query(encode_text(query), nearest) for query, nearest in zip(queries, distances, strict=True)]


class Stages:
    """How many seconds each stage of a build took, by what progress was told."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()
        self._stage = ""

    def __call__(self, what: str, _done: int, _total: int | None) -> None:
        """Count the time since the last call for the stage that was told then."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._last
        self._stage, self._last = what.partition(":")[0], now


def measure(store: Store, rows: int) -> None:
    """Load, and print what each kind of index takes and finds."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(TOPICS, DIMENSIONS))
    vectors = clustered(rows, random, centres)
    queries = truth(vectors, clustered(QUERIES, random, centres))
    store.db.execute_sql("TRUNCATE mem_docs CASCADE")
    begin = time.perf_counter()
    load(store, vectors)
    print(f"{rows} rows, loaded in {time.perf_counter() - begin:.1f} s", flush=True)
    for method in ("ivfflat", "hnsw"):
        stages = Stages()
        index = store.memory.index
        change = index.ensure(progress=stages) if method == "ivfflat" else index.swap("hnsw", progress=stages)
        status = change.status
        print(
            f"  {method}:", *change.actions, {name: round(took, 1) for name, took in stages.seconds.items()}, flush=True
        )
        print(
            f"     lists {status.lists}, tunings {status.tunings}, {status.size_bytes >> 20} MiB, used: {status.used}"
        )
        state = IndexStates(store.db).get()
        for k in (10, 100, 500):
            tuning = state.tuning_for(k)
            if tuning is None:
                print(f"     k = {k}: exact")
                continue
            found = score(store.db, state, queries, tuning, k)
            print(f"     k = {k}: recall {found.recall:.4f} +- {found.error:.4f} against numpy, tuning {tuning}")
    print("  nothing to do:", store.memory.index.ensure().reason, flush=True)


def main() -> None:
    """Measure on a server of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        with Store.open(f"embedded:{folder}/home") as store:
            for rows in [int(given) for given in sys.argv[1:]] or [20_000, 50_000]:
                measure(store, rows)


if __name__ == "__main__":
    main()

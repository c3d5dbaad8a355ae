"""The embedded server with no action of the user, beside one with 1 GB of shared_buffers and an `ensure` by hand."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.memory.bench import Bench, Steps, paired
from benchmarks.memory.corpus import TOPICS, Corpus, Truth, draw, row_number
from myloware_store import Store
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer, sizing, start
from myloware_store.memory.engine import Memory
from myloware_store.ops.migrate import migrate
from myloware_store.settings import Settings

LIMITS = {"exact": 1.1, "later": 1.5, "measuring": 1.0, "seconds": 60.0}
_PATIENCE = 600.0
STATE_KEPT = 6.0  # seconds; the store reads the state of the index again after five


def unasked(_bench: Bench, rows: int) -> dict[str, Any]:
    """Load documents into both servers; search exactly, wait for the index, search through it."""
    corpus, (queries, _) = Corpus(rows), draw(100, seed=96, topics=range(TOPICS))
    found: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory(prefix="myloware-bench-unasked-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with _large(folder / "large") as large, Store.open(f"embedded:{folder / 'own'}") as store:
            large.bulk_load(corpus.docs())
            store.memory.bulk_load(corpus.docs())
            loaded = time.monotonic()
            found["exact"] = paired(
                lambda query: store.memory.similar(query, mode="exact"),
                lambda query: large.similar(query, mode="exact"),
                list(queries[:40]),
            )
            while store.memory.index.status().stale and time.monotonic() < loaded + _PATIENCE:
                time.sleep(0.5)
            found["seconds"] = time.monotonic() - loaded
            steps = Steps()
            large.index.ensure(progress=steps)
            found["measuring"] = _measuring(steps.seconds())
            time.sleep(STATE_KEPT)
            found["later"] = paired(store.memory.similar, large.similar, list(queries))
            truth = Truth(corpus.vectors, queries)
            hits = [
                len({row_number(hit.id) for hit in store.memory.similar(query)} & set(truth.nearest(number, 10)))
                for number, query in enumerate(queries)
            ]
            found["recall"] = float(np.mean(hits)) / 10
    return found


def _measuring(seconds: dict[str, float]) -> float:
    """Return how much longer everything else took than building."""
    building = sum(taken for step, taken in seconds.items() if step.startswith("Building"))
    return sum(seconds.values()) / building - 1


@contextmanager
def _large(home: Path) -> Iterator[Memory]:
    """Give an empty memory on a server with 1 GB of shared_buffers."""
    sized = {**sizing.size_settings(2**30, 2), "shared_buffers": "1GB"}
    with mock.patch.object(start, "size_settings", return_value=sized):
        server = EmbeddedServer(home)
        server.start()
    server.ensure_database()
    settings = Settings.load(server.url(), environ={}, dotenv=None)
    migrate(settings)
    database = StoreDatabase(settings)
    try:
        yield Memory(database)
    finally:
        database.close_all()
        server.close()

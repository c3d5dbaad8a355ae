"""Documents of several topics, and stores that hold enough of them for an index to be worth it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from myloware_store import DIMENSIONS, Store
from myloware_store.memory.engine import Memory
from myloware_store.memory.index import recall

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from myloware_store.db.database import StoreDatabase


class Corpus:
    """Makes documents, loads them, and looks at the indexes over them.

    Attributes:
        rows: How many documents a loaded store begins with.
    """

    rows = 600

    @staticmethod
    def clustered(n: int, *, topics: int = 20, first: int = 0) -> NDArray[np.float32]:
        """Give unit vectors around the centres of so many topics, of which `first` is the first."""
        random = np.random.default_rng([first, n])
        names = range(first, first + topics)
        centres = np.stack([np.random.default_rng([1, topic]).normal(size=DIMENSIONS) for topic in names])
        raw = centres[random.integers(topics, size=n)] + 0.5 * random.normal(size=(n, DIMENSIONS))
        unit: NDArray[np.float32] = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        return unit

    @staticmethod
    def load(database: StoreDatabase, vectors: NDArray[np.float32]) -> None:
        """Put documents in, as a bulk load does."""
        docs = ({"type": "CONTEXT", "content": "x", "embedding": vector} for vector in vectors)
        Memory(database).bulk_load(docs)

    @classmethod
    def fill(cls, store: Store) -> Store:
        """Load a store, which then counts as large."""
        cls.load(store.db, cls.clustered(cls.rows))
        store.memory.index.least_rows = 500
        store.memory.index.sample = 15
        return store

    @staticmethod
    def indexes(database: StoreDatabase) -> dict[str, bool]:
        """Give the vector indexes by name, and whether each is valid."""
        sql = """
            SELECT i.relname, x.indisvalid FROM pg_index AS x
            JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS am ON am.oid = i.relam
            WHERE x.indrelid = 'mem_docs'::regclass AND am.amname IN ('ivfflat', 'hnsw')
            """
        return dict(database.execute_sql(sql).fetchall())


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Give what makes documents."""
    return Corpus()


@pytest.fixture
def loaded(myloware: Store, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Give a store with documents of 20 topics, which counts as large."""
    monkeypatch.setattr(recall, "_NOISE", 0.5)  # of fifteen queries far from all documents, one can spoil a measurement
    myloware.db.execute_sql("TRUNCATE mem_docs CASCADE")  # rows are estimated by pages, also those of earlier tests
    return corpus.fill(myloware)

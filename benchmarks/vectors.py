"""Embeddings through the models against pgvector-python's own field: client time per row, side by side in one run.

Run: python benchmarks/vectors.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peewee import TextField
from pgvector.peewee import VectorField

from myloware_store import DIMENSIONS, MemDoc, Store
from myloware_store.models import BaseModel

ROWS, ROUNDS = 200, 7


class PlainDoc(BaseModel):
    """The same table as pgvector-python alone would have it."""

    type = TextField()
    content = TextField()
    tenant_id = TextField()
    embedding = VectorField(dimensions=DIMENSIONS)

    class Meta:
        """Read and write the store's own table."""

        table_name = "mem_docs"


def cpu_ms(run: Callable[[], object]) -> float:
    """Return the processor milliseconds of this process for one row."""
    begin = time.process_time()
    run()
    return (time.process_time() - begin) * 1000 / ROWS


def main() -> None:
    """Print what a row costs to write and to read, and the ratios."""
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIMENSIONS)).astype(np.float32)

    def write(model: type[BaseModel]) -> None:
        rows = [{"type": "CONTEXT", "content": "x", "tenant_id": "bench", "embedding": vector} for vector in vectors]
        model.insert_many(rows).execute()

    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "write, insert_many": (lambda: write(MemDoc), lambda: write(PlainDoc)),
        "read with the vector": (
            lambda: [row.embedding for row in MemDoc.select(MemDoc, MemDoc.embedding.read()).limit(ROWS)],
            lambda: [row.embedding for row in PlainDoc.select(PlainDoc.content, PlainDoc.embedding).limit(ROWS)],
        ),
        "read, plain select()": (
            lambda: list(MemDoc.select().limit(ROWS)),
            lambda: list(PlainDoc.select(PlainDoc.content, PlainDoc.embedding).limit(ROWS)),
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with Store.open(f"embedded:{folder}/data"):
            write(MemDoc)
            for name, (ours, plain) in ways.items():
                pairs = [(cpu_ms(ours), cpu_ms(plain)) for _ in range(ROUNDS)]
                mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
                print(f"{name:>22}: {mine:.3f} ms a row, pgvector-python {theirs:.3f} ms, ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    main()

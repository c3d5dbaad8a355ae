"""How fast documents are stored beside a bare COPY of rows that were packed before."""

from __future__ import annotations

import io
import statistics

from benchmarks.memory.bench import Bench, Raw, timed
from benchmarks.memory.corpus import Corpus
from benchmarks.memory.recall import Row

BULK_LIMIT, UPSERT_LIMIT = 0.6, 0.4
UPSERTED = 1_000

COPY = "COPY mem_docs (id, tenant_id, type, content, embedding, metadata) FROM STDIN (FORMAT binary)"


def loading(bench: Bench, rows: int) -> list[Row]:
    """Measure `bulk_load` of rows and `upsert` of 1,000, each into the same emptied table as its COPY."""
    rounds = 3 if bench.quick else 5
    corpus = Corpus(max(rows, UPSERTED))
    found = []
    with bench.database() as (store, raw):
        for name, count, limit, write in (
            ("bulk_load", rows, BULK_LIMIT, store.memory.bulk_load),
            ("upsert", UPSERTED, UPSERT_LIMIT, store.memory.upsert),
            ("upsert of what is there", UPSERTED, None, store.memory.upsert),
        ):
            docs, packed = corpus.docs(0, count), corpus.packed(0, count)
            mine, bare = [], []
            for _ in range(rounds):
                emptied(raw)
                bare.append(timed(copy, raw, packed)[1])
                if limit is not None:
                    emptied(raw)
                mine.append(timed(write, docs)[1])
            ours, copied = count / statistics.median(mine) * 1e3, count / statistics.median(bare) * 1e3
            case = f"{name}, {count:,} rows"
            found.append(
                {"case": case, "limit": limit, "ours_per_s": ours, "raw_per_s": copied, "ratio": ours / copied}
            )
    return found


def copy(raw: Raw, packed: bytes) -> None:
    """Send packed rows."""
    with raw.connection.cursor() as cursor:
        cursor.copy_expert(COPY, io.BytesIO(packed))


def emptied(raw: Raw) -> None:
    """Empty the table."""
    raw.rows("TRUNCATE mem_docs")

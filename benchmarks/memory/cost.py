"""What a search costs beside the same plan written by hand over psycopg2."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from psycopg2.extras import Json

from benchmarks.memory.bench import Bench, Raw, paired, timed
from benchmarks.memory.corpus import TOPICS, VOCABULARY, Corpus, Vectors, draw, row_id
from benchmarks.memory.recall import Row, load
from myloware_store import Store
from myloware_store.core.vectors import encode_text
from myloware_store.memory.index.state import IndexStates, Method

SIMILAR_LIMIT, HYBRID_LIMIT, FETCH_LIMIT = 1.15, 1.2, 1.3
HYBRID_MS = 50.0
LONG_DOCS, LONG_WORDS = 4_000, 2_150
POOL = 50

Queries = list[Vectors]

COLUMNS = "id, content, type, metadata, work_item_id"

# One distance a row, and no content read but that of the best.
EXACT = f"""
SELECT {COLUMNS}, 1 - distance
FROM (SELECT {COLUMNS}, embedding <=> %(vector)s::vector AS distance FROM mem_docs WHERE {{where}} OFFSET 0) AS compared
ORDER BY distance, id
LIMIT %(k)s
"""

# The form that the manual of pgvector gives for iterative scans, which may come out of order.
BY_INDEX = f"""
SET LOCAL {{method}}.{{setting}} = {{tuning}};
SET LOCAL {{method}}.iterative_scan = relaxed_order;
WITH near AS MATERIALIZED (
    SELECT {COLUMNS}, embedding <=> %(vector)s::vector AS distance
    FROM mem_docs
    ORDER BY distance
    LIMIT %(k)s
)
SELECT {COLUMNS}, 1 - distance FROM near ORDER BY distance + 0, id
"""

# What holds all the words, ranked by any of them and by how long a text is: what the server has itself. `hybrid` ranks
# by BM25.
TEXT_LEG = """
SELECT id, ts_rank(search, to_tsquery('english', %(any_word)s), 33) AS rank
FROM mem_docs
WHERE search @@ websearch_to_tsquery('english', %(words)s)
ORDER BY rank DESC, id
LIMIT %(k)s
"""

VECTOR_LEG = """
SELECT id, distance
FROM (SELECT id, embedding <=> %(vector)s::vector AS distance FROM mem_docs WHERE embedding IS NOT NULL OFFSET 0) AS c
ORDER BY distance, id
LIMIT %(k)s
"""

BY_IDS = f"SELECT {COLUMNS} FROM mem_docs WHERE id = ANY (%(ids)s)"

FETCH = f"""
SELECT {COLUMNS}, vector_send(embedding)
FROM mem_docs
WHERE id = ANY (%(ids)s)
"""

FETCH_BEST = f"""
WITH best AS ({VECTOR_LEG})
SELECT {COLUMNS}, 1 - distance, vector_send(embedding)
FROM best JOIN mem_docs USING (id)
ORDER BY distance, id
"""


def cost(bench: Bench, rows: int) -> list[Row]:
    """Measure `similar`, reads with embeddings and `hybrid` beside SQL by hand."""
    queries = list(draw(40 if bench.quick else 200, seed=97, topics=range(TOPICS))[0])
    found = small_table(bench, queries)
    corpus = Corpus(rows)
    with bench.database() as (store, raw):
        load(store, corpus)
        found.append(row(f"similar, exact, {rows:,} rows", SIMILAR_LIMIT, exact(store, raw, queries[:40])))
        found.append(row("similar, filter of 1 %", SIMILAR_LIMIT, filtered(store, raw, queries)))
        settings: dict[Method, str] = {"ivfflat": "probes", "hnsw": "ef_search"}
        for method, setting in settings.items():
            store.memory.index.swap(method)
            store.memory.index.ensure()
            for k in (10, 100):
                tuning = IndexStates(store.db).get().tuning_for(k)
                if tuning is None:
                    continue
                # `similar` looks twice as far as k at least.
                tuning = max(tuning, 2 * k) if method == "hnsw" else tuning
                sql = BY_INDEX.format(method=method, setting=setting, tuning=tuning)
                name = f"similar, {method}, {setting} {tuning}, k = {k}"
                found.append(row(name, SIMILAR_LIMIT, by_index(store, raw, sql, k, queries)))
    return found + long_documents(bench, queries)


def row(case: str, limit: float, measured: dict[str, float]) -> Row:
    """Return a row of the table."""
    return {"case": case, "limit": limit, **measured}


def small_table(bench: Bench, queries: Queries) -> list[Row]:
    """Measure what does not depend on the number of rows: 500 of them, and 100 read with their embeddings."""
    corpus = Corpus(500)
    ids = [row_id(number) for number in range(0, 500, 5)]
    with bench.database() as (store, raw):
        store.memory.bulk_load(corpus.docs())
        found = [row("similar, exact, 500 rows", SIMILAR_LIMIT, exact(store, raw, queries))]

        def decoded(rows: list[tuple[Any, ...]]) -> list[Any]:
            return [(*row[:-1], np.frombuffer(row[-1], ">f4", offset=4).astype(np.float32)) for row in rows]

        measured = paired(
            lambda _: store.memory.get(ids, with_embedding=True),
            lambda _: decoded(raw.rows(FETCH, {"ids": ids})),
            range(len(queries)),
        )
        found.append(row("get, 100 rows with embeddings", FETCH_LIMIT, measured))
        measured = paired(
            lambda query: store.memory.similar(query, k=100, with_embedding=True),
            lambda query: decoded(raw.rows(FETCH_BEST, {"vector": encode_text(query), "k": 100})),
            queries,
        )
        found.append(row("similar, 100 rows with embeddings", FETCH_LIMIT, measured))
    return found


def exact(store: Store, raw: Raw, queries: Queries) -> dict[str, float]:
    """Compare exact searches."""
    sql = EXACT.format(where="embedding IS NOT NULL")
    return paired(
        lambda query: store.memory.similar(query, mode="exact"),
        lambda query: raw.rows(sql, {"vector": encode_text(query), "k": 10}),
        queries,
    )


def filtered(store: Store, raw: Raw, queries: Queries) -> dict[str, float]:
    """Compare searches among 1 % of the documents, which an index on the metadata finds."""
    sql = EXACT.format(where="embedding IS NOT NULL AND metadata @> %(kept)s")
    return paired(
        lambda query: store.memory.similar(query, filter={"metadata.department": "1"}),
        lambda query: raw.rows(sql, {"vector": encode_text(query), "k": 10, "kept": Json({"department": "1"})}),
        queries,
    )


def by_index(store: Store, raw: Raw, sql: str, k: int, queries: Queries) -> dict[str, float]:
    """Compare searches through the vector index, tuned alike."""
    return paired(
        lambda query: store.memory.similar(query, k=k),
        lambda query: raw.rows(sql, {"vector": encode_text(query), "k": k}),
        queries,
    )


def long_documents(bench: Bench, queries: Queries) -> list[Row]:
    """Measure `hybrid` where 40 % of the documents, 14 KB each, hold the word that is asked for."""
    corpus = Corpus(LONG_DOCS // 8 if bench.quick else LONG_DOCS, words=LONG_WORDS)
    found = []
    with bench.database() as (store, raw):
        store.memory.bulk_load(corpus.docs())
        for name, words in (("a word in 40 % of them", "invoice"), ("two words", f"invoice {VOCABULARY[300]}")):

            def ours(query: Any, words: str = words) -> Any:
                return store.memory.hybrid(query, words, k=10, pool=POOL)

            def by_hand(query: Any, words: str = words) -> list[Any]:
                any_word = " | ".join(words.split())
                values = {"vector": encode_text(query), "words": words, "any_word": any_word, "k": POOL}
                near = raw.rows(VECTOR_LEG, values)
                raw.rows(TEXT_LEG, values)
                return raw.rows(BY_IDS, {"ids": [row_id for row_id, _ in near[:10]]})

            def two_calls(query: Any, words: str = words) -> list[Any]:
                return [*store.memory.similar(query, k=POOL), *store.memory.search_text(words, k=POOL)]

            case = f"hybrid, {corpus.count:,} documents of {len(corpus.texts[0]) / 1024:.0f} KB, {name}"
            measured = row(case, HYBRID_LIMIT, paired(ours, by_hand, queries[:60]))
            calls = [timed(two_calls, query)[1] for query in queries[:20]]
            found.append({**measured, "two_calls_ms": statistics.median(calls), "limit_ms": HYBRID_MS})
    return found

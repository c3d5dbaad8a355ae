"""The memory beside other libraries: storing, searching, and searching among 1 % of the documents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from typing import Any

from benchmarks.memory.bench import Bench, Raw, paired, timed
from benchmarks.memory.corpus import TOPICS, Corpus, draw, row_number
from benchmarks.memory.peers import PEERS, Peer
from benchmarks.memory.recall import Comparison, Row
from myloware_store import Store
from myloware_store.core.vectors import encode_text

K = 10
DEPARTMENT = "1"
MAX_ASKED = 50
"""Queries of each library, since some of them compare all documents, and each search by them is made once by hand."""

BY_HAND = "SELECT {columns}, {vector} <=> %(v)s::vector AS distance FROM {table} ORDER BY distance LIMIT 10"
"""The same search over a library's own table, one distance a row."""


def contest(bench: Bench, rows: int) -> Row:
    """Measure every library that is installed, and ours."""
    corpus = Corpus(rows)
    asked = 20 if bench.quick else MAX_ASKED
    queries, _ = draw(asked, seed=96, topics=range(TOPICS))
    compared = Comparison(corpus, queries, {K: asked})
    stored = corpus.docs(0, 200 if bench.quick else 1_000)
    found: Row = {"rows": rows, "stored": len(stored), "tables": [], "left_out": {}}
    with bench.database() as (store, raw):
        loaded = timed(store.memory.bulk_load, corpus.docs())[1]
        store.memory.delete([doc["id"] for doc in stored])
        upserted = timed(store.memory.upsert, stored)[1]
        store.memory.index.swap("hnsw")
        store.memory.index.ensure()
        ours = len(stored) / upserted * 1e3
        mine = "id, content, type, metadata, work_item_id", "embedding", "mem_docs"
        measured = searches(compared, raw, by_ours(store), list(queries), mine)
        mine_row = {"name": "myloware-store", "add_per_s": ours, "add_ratio": 1.0, **measured}
        found["tables"].append({**mine_row, "bulk_per_s": rows / loaded * 1e3})
        for name, open_peer in PEERS.items():
            try:
                peer = open_peer(bench.url)
            except ImportError as error:
                found["left_out"][name] = f"not installed: {error}"
                continue
            with closing(peer):
                as_lists = [{**doc, "embedding": doc["embedding"].tolist()} for doc in stored]
                added = len(stored) / timed(peer.add, as_lists)[1] * 1e3
                fill(raw, peer)
                given = [query.tolist() for query in queries]
                by_peer = searches(compared, raw, peer.search, given, (peer.columns, peer.vector, peer.table))
            row = {"name": f"{name} {version(name)}", "add_per_s": added, "add_ratio": added / ours, **by_peer}
            found["tables"].append(row)
    return found


def by_ours(store: Store) -> Callable[[Any, int, str | None], list[str]]:
    """Return our search in the form of a peer's."""

    def search(vector: Any, k: int, department: str | None) -> list[str]:
        condition = None if department is None else {"metadata.department": department}
        return [str(hit.id) for hit in store.memory.similar(vector, k=k, filter=condition)]

    return search


def searches(
    compared: Comparison,
    raw: Raw,
    search: Callable[[Any, int, str | None], list[str]],
    given: list[Any],
    table: tuple[str, str, str],
) -> Row:
    """Measure searches, with a filter of 1 % and without, and the plain ones beside SQL by hand."""
    columns, vector, name = table
    sql = BY_HAND.format(columns=columns, vector=vector, table=name)
    literals = [encode_text(query) for query in compared.queries]
    row: Row = {"index": raw.index_used(sql, {"v": literals[0]}) != "none"}
    for label, department in (("all", None), ("filtered", DEPARTMENT)):
        kept = compared.corpus.mask(None if department is None else "department", DEPARTMENT)

        def numbers(query: int, k: int, department: str | None = department) -> list[int]:
            return [row_number(found) for found in search(given[query], k, department)]

        measured = compared.row(numbers, kept, K)
        row |= {f"{label}_{key}": measured[key] for key in ("recall", "returned", "wanted", "ms")}
    row |= paired(
        lambda query: search(given[query], K, None),
        lambda query: raw.rows(sql, {"v": literals[query]}),
        range(len(given)),
    )
    return row


def fill(raw: Raw, peer: Peer) -> None:
    """Copy all documents into a library's tables, and build its vector index again over them."""
    (index, definition), *_ = raw.rows(
        "SELECT i.relname, pg_get_indexdef(i.oid) FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid"
        " JOIN pg_am AS a ON a.oid = i.relam WHERE x.indrelid = %(table)s::regclass AND a.amname = 'hnsw'",
        {"table": peer.table},
    )
    raw.rows(f'DROP INDEX "{index}"')
    for statement in peer.copy:
        raw.rows(statement)
    raw.rows("SET maintenance_work_mem = '512MB'")
    raw.rows(definition)
    raw.rows(f"ANALYZE {peer.table}")

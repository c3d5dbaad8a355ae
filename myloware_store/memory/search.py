"""Searches by vector: the nearest documents found by comparing them all, or through the vector index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from myloware_store.core.enums import MemDocType
from myloware_store.core.results import Hit
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import read_label
from myloware_store.core.vectors import decode_binaries
from myloware_store.memory.filters import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from numpy.typing import NDArray

    from myloware_store.core.vectors import VectorLiteral
    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.state import IndexState

__all__ = [
    "AHEAD",
    "FURTHEST",
    "MANY",
    "MAX_HITS",
    "MOST_ALONE",
    "SETTINGS",
    "Query",
    "by_comparing",
    "by_comparing_alone",
    "diverse",
    "find",
    "hits_of",
    "of_model",
    "of_passages",
    "per_document",
    "through_index",
    "through_index_alone",
]

_sql = queries_beside(__file__)

MAX_HITS = 10_000
"""Most documents that one search returns."""

FURTHEST = 3.0
"""A distance that is above all others, except for NaN."""

MOST_ALONE = 500
"""Most documents that `by_comparing_alone` is good for: it sorts them whole, up to 2 KB each, in `work_mem`."""

SAMPLED = 1_000
"""Documents that are looked at to estimate how many meet a filter."""

MANY = 50_000
"""Search through the index if about so many documents meet a filter: comparing 50,000 takes some 60 ms.

An index knows nothing of the filter. On 50,000 clustered rows hnsw with iterative scans found .72 of the ten nearest
among the 30 % of some topics, for queries of all topics, and took half as long as comparing them all.
"""

AHEAD = 8
"""How many times further the index looks under a filter, of which it knows nothing.

Among 100,000 clustered documents, of which a filter by topic kept 58,000, ivfflat found .974 of the ten nearest with 4
(.94 among 120,000), and all of them with 8.
"""

SETTINGS: Mapping[str, str | int] = {
    "random_page_cost": "1.1",
    "jit": "off",
    "min_parallel_table_scan_size": "'1GB'",
}
"""For every search: indexes are worth their price up to most of the table, and compiling a plan costs too much.

The planner takes a table that is not analyzed yet for thirty times as large, and asks for parallel workers. Starting
two for 30 MB took as long as a third of the search.
"""

_MOST_EF_SEARCH = 1000
_COLUMNS = "m.id, m.content, m.type, m.metadata, m.work_item_id, m.embedding_model, m.document_id, m.chunk_no"
_GIVEN, _OF_LEGS = "%(vector)s::vector", "(SELECT v FROM asked)"
# The state may be some seconds old, and the index another one by now.
_SAME_INDEX = "pg_relation_filenode(to_regclass('mem_docs_embedding_idx')) = %(filenode)s"
_FRESH = "m.updated_at >= %(fresh_since)s"


@attrs.frozen
class Query:
    """SQL to search with.

    Attributes:
        sql: A whole statement, or common table expressions that end in `near` (id, distance).
        parameters: Its parameters, except for `furthest`.
        settings: The server's settings under which to run it.
    """

    sql: str
    parameters: dict[str, Any]
    settings: dict[str, str | int]


def by_comparing(condition: Condition, k: int, vector: VectorLiteral) -> Query:
    """Compare every document that meets a condition; the SQL is common table expressions."""
    return Query(
        _legs(compared=_compared("m.id", condition.sql)),
        {**condition.parameters, "vector": vector, "nearest": k},
        dict(SETTINGS),
    )


def by_comparing_alone(condition: Condition, k: int, vector: VectorLiteral) -> Query:
    """Compare every document that meets a condition; the SQL is a whole statement."""
    return Query(
        _alone(f"({_compared(_COLUMNS, condition.sql, _GIVEN)})"),
        {**condition.parameters, "vector": vector, "nearest": k},
        dict(SETTINGS),
    )


def through_index(
    state: IndexState | None, condition: Condition, k: int, vector: VectorLiteral, *, filtered: bool, untested: bool
) -> Query | None:
    """Go through the vector index, and compare all documents if it finds fewer than k.

    A filter is sampled first, unless the table is small: if it lets few documents pass, these are compared without the
    index. Documents that came or changed since an ivfflat index was built are compared, too.

    Args:
        state: The index, None if there is none to use.
        condition: The condition that the documents must meet.
        k: How many documents to find.
        vector: The vector to compare with.
        filtered: Whether the condition may let few documents pass, or such as are not near each other. The condition
            of one model does not count, because vectors of other models are hardly ever near.
        untested: Whether to use the index whatever the filter, and with a guessed tuning if none was measured for
            this k.

    Returns:
        Common table expressions; None if the index would not be faster, or is not good enough.
    """
    if state is None:
        return None
    many = 0 if untested else MANY
    settings = _tuned(state, k, filtered=filtered, untested=untested)
    if settings is None or (filtered and state.live_rows < many):
        return None
    if not filtered and condition.sql != "TRUE" and state.iterative and state.method == "ivfflat":
        # Of a model that has few documents, or none, it would read the whole index.
        settings["ivfflat.max_probes"] = AHEAD * int(settings["ivfflat.probes"])
    parameters = {
        **condition.parameters,
        "vector": vector,
        "nearest": k,
        "fetched": k * (AHEAD if filtered else 1),
        "filenode": state.filenode,
    }
    conditions, before = [_SAME_INDEX], []
    if filtered:
        parameters |= {
            "percent": min(100.0, 100 * SAMPLED / max(state.live_rows, 1)),
            "share": many / max(state.live_rows, 1),
        }
        conditions.append("(SELECT many FROM sampled)")
        before.append(_sql("sampled").format(condition=f"{_sql('visible')} AND {condition.sql}"))
    legs = {"indexed": _indexed("m.id", f"{' AND '.join(conditions)} AND {condition.sql}", "%(fetched)s")}
    if state.fresh_since is not None:
        parameters["fresh_since"] = state.fresh_since
        legs["fresh"] = _compared("m.id", f"{_FRESH} AND {condition.sql}")
    legs["compared"] = _compared("m.id", f"(SELECT count(*) FROM indexed) < %(nearest)s AND {condition.sql}")
    return Query(_legs(*before, **legs), parameters, {**SETTINGS, **settings})


def through_index_alone(
    state: IndexState, k: int, vector: VectorLiteral, *, with_embedding: bool, untested: bool
) -> Query | None:
    """Go through the vector index without a filter; if it is ivfflat, compare what came since it was built, too.

    If it finds fewer than k, the caller has to compare all documents by another statement, which is hardly ever needed.

    Returns:
        A whole statement; None if the index is not good enough.
    """
    settings = _tuned(state, k, filtered=False, untested=untested)
    if settings is None:
        return None
    parameters: dict[str, Any] = {"vector": vector, "nearest": k, "filenode": state.filenode}
    columns = f"{_COLUMNS}, vector_send(m.embedding) AS vector" if with_embedding else _COLUMNS
    embedding = "vector" if with_embedding else "NULL"
    if state.fresh_since is None:
        sql = _alone(f"({_indexed(columns, _SAME_INDEX, '%(nearest)s', _GIVEN)})", embedding=embedding)
    else:
        parameters["fresh_since"] = state.fresh_since
        indexed = _indexed(columns, _SAME_INDEX, "%(nearest)s", "asked.v")
        fresh = _compared(columns, _FRESH, "asked.v")
        # The planner puts the vector into both of them. A document may come by each.
        both = f"(SELECT {_GIVEN} AS v) AS asked, LATERAL (({indexed}) UNION ALL ({fresh}))"
        sql = _alone(both, distinct="DISTINCT ON (similarity, id)", embedding=embedding)
    return Query(sql, parameters, {**SETTINGS, **settings})


def of_model(condition: Condition, model: Any) -> Condition:
    """Narrow a condition to the documents whose embedding is of a model, None for one without a name, ... for any."""
    if model is ...:
        return condition
    sql = "m.embedding_model IS NULL" if model is None else "m.embedding_model = %(model)s"
    both = sql if condition.sql == "TRUE" else f"{sql} AND {condition.sql}"
    return Condition(both, {**condition.parameters, "model": model})


def of_passages(condition: Condition) -> Condition:
    """Leave out documents that are stored in chunks, which are searched in their place."""
    return Condition(f"m.chunk_no IS DISTINCT FROM 0 AND {condition.sql}", condition.parameters)


def hits_of(legs: str, ranked: str, *, order: str, with_embedding: bool = False, **columns: str) -> str:
    """Return the whole statement of a search that is made of common table expressions.

    Args:
        legs: The expressions, without WITH.
        ranked: The one of them that holds the hits, with their `id`.
        order: The order of the hits, in its columns.
        with_embedding: Whether to read the vectors, 6 KB each.
        **columns: The hit's `score`, `similarity`, `vector_rank`, `text_rank` and `highlight`, as expressions over
            `ranked AS r` and `mem_docs AS m`; NULL by default.
    """
    empty = dict.fromkeys(("similarity", "vector_rank", "text_rank", "highlight"), "NULL")
    embedding = "vector_send(m.embedding)" if with_embedding else "NULL"
    return _sql("hits").format(legs=legs, ranked=ranked, order=order, embedding=embedding, **{**empty, **columns})


def find(
    database: StoreDatabase, statement: str, values: Mapping[str, Any], settings: Mapping[str, str | int]
) -> list[Hit]:
    """Run a whole statement under settings that hold for it alone, and return its hits."""
    rows = database.execute_tuned(settings, statement, values).fetchall()
    if not rows or rows[0][-1] is None:
        return [Hit(row[0], row[1], read_label(MemDocType, row[2]), *row[3:]) for row in rows]
    vectors = decode_binaries([row[-1] for row in rows])
    return [
        Hit(row[0], row[1], read_label(MemDocType, row[2]), *(*row[3:-1], vector))
        for row, vector in zip(rows, vectors, strict=True)
    ]


def per_document(k: int, search: Callable[[int], list[Hit]]) -> list[Hit]:
    """Return the best hit of each of the k best documents, from a search for as many hits as that takes."""
    asked = k
    while True:
        hits = search(asked)
        best: dict[UUID, Hit] = {}
        for hit in hits:
            best.setdefault(hit.document_id or hit.id, hit)
        if len(best) >= k or len(hits) < asked or asked == MAX_HITS:
            return list(best.values())[:k]
        asked = min(4 * asked, MAX_HITS)


def diverse(
    embeddings: NDArray[np.float32], relevance: NDArray[np.float64], k: int, lam: float
) -> list[tuple[int, float]]:
    """Choose k rows by maximal marginal relevance.

    Args:
        embeddings: `(n, dimensions)`.
        relevance: `(n,)` similarities to the query, descending.
        k: How many to choose.
        lam: The weight of relevance against novelty, 0 to 1.

    Returns:
        The rows chosen and their scores, in the order of choice.
    """
    wide = embeddings.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    closest = np.zeros(len(unit))
    left = np.ones(len(unit), dtype=bool)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(k, len(unit)):
        scores = np.where(left, lam * relevance - (1 - lam) * closest, -np.inf)
        best = int(np.argmax(scores))
        likeness = unit @ unit[best]
        closest = np.maximum(closest, likeness) if chosen else likeness
        left[best] = False
        chosen.append((best, float(scores[best])))
    return chosen


def _legs(*before: str, **selects: str) -> str:
    """Return common table expressions for these SELECTs, which end in `near`."""
    legs = [f"{name} AS MATERIALIZED ({select})" for name, select in selects.items()]
    found = [f"SELECT id, distance FROM {name}" for name in selects]
    return ",\n".join([_sql("asked"), *before, *legs, _sql("near").format(union=" UNION ALL ".join(found))])


def _alone(source: str, *, distinct: str = "", embedding: str = "NULL") -> str:
    return _sql("nearest_alone").format(source=source, distinct=distinct, embedding=embedding)


def _indexed(columns: str, condition: str, limit: str, vector: str = _OF_LEGS) -> str:
    return _sql("indexed").format(
        columns=columns, condition=f"{_sql('visible')} AND {condition}", limit=limit, vector=vector
    )


def _compared(columns: str, condition: str, vector: str = _OF_LEGS) -> str:
    return _sql("compared").format(columns=columns, condition=f"{_sql('visible')} AND {condition}", vector=vector)


def _tuned(state: IndexState, k: int, *, filtered: bool, untested: bool) -> dict[str, str | int] | None:
    """Return the settings under which the index is good enough for k; None if comparing is better."""
    tuning = state.tuning_for(k)
    lists = state.lists or 1
    if tuning is None and untested:
        # Nothing was measured: the least that returns k rows, and the probes that pgvector's manual begins with.
        tuning = max(40, 2 * k) if state.method == "hnsw" else max(1, round(lists**0.5))
    if tuning is None:
        return None
    # Without a sort the planner has no other way to the order than the index.
    settings: dict[str, str | int] = {"enable_sort": "off"}
    if state.beside:  # the planner may choose that one, perhaps of the other kind
        settings["hnsw.ef_search"] = min(max(200, 2 * k), _MOST_EF_SEARCH)
        settings["ivfflat.probes"] = max(1, round(state.live_rows**0.5 / 8))
    if state.iterative:
        # Also without a filter: dead entries, of deleted rows, take places.
        settings[f"{state.method}.iterative_scan"] = "relaxed_order"
    elif filtered:
        return None
    if filtered:
        tuning *= AHEAD
    if state.method == "hnsw":
        # An index scan that is not iterative returns ef_search rows at most.
        tuning = max(tuning, min(2 * k, _MOST_EF_SEARCH))
        if k > _MOST_EF_SEARCH and not state.iterative:
            return None
        settings["hnsw.ef_search"] = min(tuning, _MOST_EF_SEARCH)
        return settings
    if 2 * tuning > lists and not untested:
        return None
    settings["ivfflat.probes"] = min(tuning, lists)
    return settings

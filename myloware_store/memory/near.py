"""How the nearest documents are looked for: by comparing all that match, or through the vector index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.memory.hits import SETTINGS

if TYPE_CHECKING:
    from myloware_store.core.vectors import VectorLiteral
    from myloware_store.memory.filters import Condition
    from myloware_store.memory.index.state import IndexState

__all__ = [
    "AHEAD",
    "FURTHEST",
    "MOST_ALONE",
    "Near",
    "Whole",
    "by_comparing",
    "by_comparing_alone",
    "through_index",
    "through_index_alone",
]

FURTHEST = 3.0
"""A distance that all are below, but for those that are no number."""

MOST_ALONE = 500
"""Most documents that `by_comparing_alone` is good for: it sorts them whole, up to 2 KB each, in `work_mem`."""

SAMPLED = 1_000
"""Documents that are looked at to guess how many meet a filter."""

AHEAD = 8
"""How many times further the index looks under a filter, of which it knows nothing.

Among 100,000 clustered documents, of which a filter by topic kept 58,000, ivfflat found .974 of the ten nearest with 4
(.94 among 120,000), and all of them with 8.
"""

_MOST_EF_SEARCH = 1000

# The state may be some seconds old, and the index another one by now.
_SAME_INDEX = "pg_relation_filenode(to_regclass('mem_docs_embedding_idx')) = %(filenode)s"

_FRESH = "m.updated_at >= %(fresh_since)s"

# The vector is sent and read once, whatever number of legs compare with it.
_GIVEN = "%(vector)s::vector"
_ASKED = f"asked AS MATERIALIZED (SELECT {_GIVEN} AS v)"
_OF_LEGS = "(SELECT v FROM asked)"

_COLUMNS = "m.id, m.content, m.type, m.metadata, m.work_item_id"


@attrs.frozen
class Near:
    """A way to look for the nearest documents.

    Attributes:
        legs: Common table expressions that end in `near` (id, distance): the `%(nearest)s` nearest documents.
        parameters: Of the legs.
        settings: Of the server, under which they are to run.
    """

    legs: str
    parameters: dict[str, Any]
    settings: dict[str, str | int]


@attrs.frozen
class Whole:
    """A whole statement that finds the nearest documents, at the price of the plainest SQL.

    Attributes:
        statement: It gives the rows that `hits.find` reads; its parameter `furthest` is left to be given.
        parameters: Its parameters.
        settings: Of the server, under which it is to run.
    """

    statement: str
    parameters: dict[str, Any]
    settings: dict[str, str | int]


def by_comparing(condition: Condition, k: int, vector: VectorLiteral) -> Near:
    """Compare every document that meets a condition."""
    return Near(
        f"{_ASKED},{_leg('compared', _compared('m.id', condition.sql))},{_nearest('compared')}",
        {**condition.parameters, "vector": vector, "nearest": k},
        dict(SETTINGS),
    )


def through_index(
    state: IndexState, condition: Condition, k: int, vector: VectorLiteral, *, many: int, untested: bool = False
) -> Near | None:
    """Go through the vector index, and compare all that match where it gives fewer than k.

    A filter is sampled first, unless there are too few documents for any: where it lets few pass, they are compared
    without the index. What came or changed since an ivfflat index was built is compared, too.

    Args:
        state: The index.
        condition: What documents must meet.
        k: How many.
        vector: The query.
        many: Documents, by the sample, from which on the index is used under a filter.
        untested: Whether it is used for a k for which no tuning was found, with a guess.

    Returns:
        None where the index would not be faster, or not good enough.
    """
    filtered = condition.sql != "TRUE"
    settings = _tuned(state, k, filtered=filtered, untested=untested)
    if settings is None or (filtered and state.live_rows < many):
        return None
    legs = [_ASKED]
    parameters = {
        **condition.parameters,
        "vector": vector,
        "nearest": k,
        "fetched": k * (AHEAD if filtered else 1),
        "filenode": state.filenode,
    }
    conditions = [_SAME_INDEX]
    if filtered:
        parameters |= {
            "percent": min(100.0, 100 * SAMPLED / max(state.live_rows, 1)),
            "share": many / max(state.live_rows, 1),
        }
        conditions.append("(SELECT many FROM sampled)")
        legs.append(f"""
sampled AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE {condition.sql}) >= %(share)s * count(*) AS many
    FROM mem_docs AS m TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (0)
    WHERE m.embedding IS NOT NULL
)""")
    legs.append(_leg("indexed", _indexed("m.id", f"{' AND '.join(conditions)} AND {condition.sql}", "fetched")))
    sources = ["indexed"]
    if state.fresh_since is not None:
        parameters["fresh_since"] = state.fresh_since
        legs.append(_leg("fresh", _compared("m.id", f"{_FRESH} AND {condition.sql}")))
        sources.append("fresh")
    short = f"(SELECT count(*) FROM indexed) < %(nearest)s AND {condition.sql}"
    legs.append(_leg("compared", _compared("m.id", short)))
    legs.append(_nearest(*sources, "compared"))
    return Near(",".join(legs), parameters, {**SETTINGS, **settings})


def by_comparing_alone(condition: Condition, k: int, vector: VectorLiteral) -> Whole:
    """Compare every document that meets a condition, without reading vectors for the hits.

    To plan a search of few documents costs as much as to run it: this has one scan, one sort, and no join.
    """
    return Whole(
        _whole(f"({_compared(_COLUMNS, condition.sql, _GIVEN)})"),
        {**condition.parameters, "vector": vector, "nearest": k},
        dict(SETTINGS),
    )


def through_index_alone(
    state: IndexState, k: int, vector: VectorLiteral, *, with_embedding: bool, untested: bool = False
) -> Whole | None:
    """Go through the vector index, and where it is ivfflat compare what came since; without a filter.

    What compares all documents where these are fewer than k is left to a second statement, which is hardly ever sent.

    Returns:
        None where the index is not good enough.
    """
    settings = _tuned(state, k, filtered=False, untested=untested)
    if settings is None:
        return None
    parameters: dict[str, Any] = {"vector": vector, "nearest": k, "filenode": state.filenode}
    columns = f"{_COLUMNS}, vector_send(m.embedding) AS vector" if with_embedding else _COLUMNS
    vector_sent = "vector" if with_embedding else "NULL"
    if state.fresh_since is None:
        statement = _whole(f"({_indexed(columns, _SAME_INDEX, 'nearest', _GIVEN)})", vector=vector_sent)
    else:
        parameters["fresh_since"] = state.fresh_since
        indexed = _indexed(columns, _SAME_INDEX, "nearest", "asked.v")
        fresh = _compared(columns, _FRESH, "asked.v")
        # The planner puts the vector into both of them. A document may come by each.
        both = f"(SELECT {_GIVEN} AS v) AS asked, LATERAL (({indexed}) UNION ALL ({fresh}))"
        statement = _whole(both, distinct="DISTINCT ON (similarity, id)", vector=vector_sent)
    return Whole(statement, parameters, {**SETTINGS, **settings})


def _whole(source: str, *, distinct: str = "", vector: str = "NULL") -> str:
    """Return the statement that gives the nearest of what a source has, as rows of `hits.find`.

    They are sorted by what no index serves: relaxed iterative scans give rows out of order, which the planner takes
    for sorted.
    """
    return f"""
SELECT {distinct} id, content, type, metadata, work_item_id, similarity, similarity, NULL, NULL, NULL, {vector}
FROM {source} AS m,
    LATERAL (SELECT 1 - least(2, greatest(0, distance)) AS similarity) AS s
WHERE distance <= %(furthest)s
ORDER BY similarity DESC, id
LIMIT %(nearest)s
"""


def _leg(name: str, select: str) -> str:
    return f"\n{name} AS MATERIALIZED ({select})"


def _indexed(columns: str, condition: str, limit: str, vector: str = _OF_LEGS) -> str:
    """Return the SELECT that the vector index serves."""
    return f"""
    SELECT {columns}, m.embedding <=> {vector} AS distance
    FROM mem_docs AS m
    WHERE m.embedding IS NOT NULL AND {condition}
    ORDER BY distance
    LIMIT %({limit})s
"""


def _compared(columns: str, condition: str, vector: str = _OF_LEGS) -> str:
    """Return the exact SELECT: adding 0 makes an expression that no vector index serves."""
    return f"""
    SELECT {columns}, (m.embedding <=> {vector}) + 0 AS distance
    FROM mem_docs AS m
    WHERE m.embedding IS NOT NULL AND {condition}
    ORDER BY distance, m.id
    LIMIT %(nearest)s
"""


def _nearest(*sources: str) -> str:
    """Return the end of the legs.

    A NaN, the distance to a zero vector that was stored past the library, is left out. Rounding in float32 takes the
    distance of a vector to itself below 0.
    """
    union = " UNION ALL ".join(f"SELECT id, distance FROM {source}" for source in sources)
    return f"""
near AS MATERIALIZED (
    SELECT id, least(2, greatest(0, min(distance))) AS distance
    FROM ({union}) AS legs
    WHERE distance <= %(furthest)s
    GROUP BY id
    ORDER BY 2, id
    LIMIT %(nearest)s
)"""


def _tuned(state: IndexState, k: int, *, filtered: bool, untested: bool) -> dict[str, str | int] | None:
    """Return the settings under which the index is good enough for k; None where comparing is better."""
    tuning = state.tuning_for(k)
    lists = state.lists or 1
    if tuning is None and untested:
        # Where nothing was measured: the least that gives k rows, and the probes that pgvector's manual begins with.
        tuning = max(40, 2 * k) if state.method == "hnsw" else max(1, round(lists**0.5))
    if tuning is None:
        return None
    # Without a sort the planner has no other way to the order than the index.
    settings: dict[str, str | int] = {"enable_sort": "off"}
    if state.iterative:
        # Also without a filter: dead entries, of deleted rows, take places.
        settings[f"{state.method}.iterative_scan"] = "relaxed_order"
    elif filtered:
        return None
    if filtered:
        tuning *= AHEAD
    if state.method == "hnsw":
        # An index scan gives ef_search rows at most where it is not iterative.
        tuning = max(tuning, min(2 * k, _MOST_EF_SEARCH))
        if k > _MOST_EF_SEARCH and not state.iterative:
            return None
        settings["hnsw.ef_search"] = min(tuning, _MOST_EF_SEARCH)
        return settings
    if 2 * tuning > lists and not untested:
        return None
    settings["ivfflat.probes"] = min(tuning, lists)
    return settings

"""Hits of a search: the end of every search statement, and its rows as `Hit`s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from myloware_store.core.enums import MemDocType
from myloware_store.core.results import Hit
from myloware_store.core.values import read_label
from myloware_store.core.vectors import decode_binaries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = ["MAX_HITS", "SETTINGS", "find", "hits_sql"]

MAX_HITS = 10_000
"""Most documents that one search returns."""

SETTINGS: Mapping[str, str | int] = {
    "random_page_cost": "1.1",
    "jit": "off",
    "min_parallel_table_scan_size": "'1GB'",
}
"""For every search: indexes are worth their price up to most of the table, and compiling a plan costs more than it.

Of a table that is not analyzed yet the planner believes that it has thirty times its rows, and asks for workers: to
start two for 30 MB took as long as a third of the search.
"""


def hits_sql(
    legs: str, ranked: str, *, order: str, highlight: str = "NULL", with_embedding: bool = False, **columns: str
) -> str:
    """Return a whole search statement, whose documents are read for the hits alone.

    Args:
        legs: Common table expressions, without WITH.
        ranked: The one of them that holds the hits, with their `id`.
        order: What the hits are ordered by, in its columns.
        highlight: An expression over the document, `m`.
        with_embedding: Whether the vectors are read too, 6 KB each.
        **columns: Of a hit: its `score`, `similarity`, `vector_rank` and `text_rank` in columns of `ranked`, `r`.
    """
    values = ", ".join(columns.get(name, "NULL") for name in ("score", "similarity", "vector_rank", "text_rank"))
    vector = "vector_send(m.embedding)" if with_embedding else "NULL"
    return f"""
WITH {legs}
SELECT m.id, m.content, m.type, m.metadata, m.work_item_id, {values}, {highlight}, {vector}
FROM {ranked} AS r
JOIN mem_docs AS m ON m.id = r.id
ORDER BY {order}
"""


def find(
    database: StoreDatabase, statement: str, values: Mapping[str, Any], settings: Mapping[str, str | int]
) -> list[Hit]:
    """Run a statement of `hits_sql` under settings that hold for it alone, and return its hits."""
    rows = database.execute_tuned(settings, statement, values).fetchall()
    if not rows or rows[0][-1] is None:
        return [Hit(row[0], row[1], read_label(MemDocType, row[2]), *row[3:]) for row in rows]
    vectors = decode_binaries([row[-1] for row in rows])
    return [
        Hit(row[0], row[1], read_label(MemDocType, row[2]), *(*row[3:-1], vector))
        for row, vector in zip(rows, vectors, strict=True)
    ]

"""The state of the vector index, read in one cheap query: its kind, its recall, and whether to use it.

Measurements are stored as JSON in the comment of the index, so they are dropped, renamed and cloned with it. They hold
only for the files they were made on: after a TRUNCATE, REINDEX, VACUUM FULL or a restored dump the index counts as not
measured.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import attrs

from myloware_store.core.sql import queries_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = [
    "INDEX_NAME",
    "METHODS",
    "IndexFacts",
    "IndexState",
    "IndexStates",
    "Method",
    "encode_record",
    "enlarged",
    "most_probes",
    "read_state",
]

_sql = queries_beside(__file__)

INDEX_NAME = "mem_docs_embedding_idx"
Method = Literal["ivfflat", "hnsw"]
METHODS: tuple[Method, ...] = ("ivfflat", "hnsw")

_SECONDS, _SECONDS_BUILDING = 5.0, 0.5
"""How long a state is kept; statements that use the index compare its `filenode` themselves."""

_GROWTH: Mapping[str, int] = {"ivfflat": 2, "hnsw": 8}
"""How many times larger a table may grow before a measurement no longer counts."""

_DEFAULT_LISTS, _DEFAULT_M, _DEFAULT_EF_CONSTRUCTION = 100, 16, 64
"""pgvector's defaults, for an index without options."""


@attrs.frozen(kw_only=True)
class IndexFacts:
    """The facts about a vector index.

    Attributes:
        method: `ivfflat` or `hnsw`; None if there is no index of the name, or one of another kind.
        valid: Whether it is a complete cosine index that the server keeps up to date.
        built_at: When `ensure`, `rebuild` or `swap` built it: the database's time before the build began, in UTC. None
            if it was never built by one of them, or was rebuilt by other means since.
        lists: Of an ivfflat index.
        m: Of an hnsw index.
        ef_construction: Of an hnsw index.
        tunings: Pairs of k and the probes (ivfflat) or ef_search (hnsw) that met the target for it; ascending. If it
            was rebuilt and not yet measured, provisional ones, from those of the index before it.
        target_recall: The recall aimed at.
        recall: The recall measured last at k = 10, with the tuning for it; None if it was not measured.
        sample: How many queries it was measured with.
        measured_at: When it was measured, in UTC.
    """

    method: Method | None
    valid: bool
    built_at: datetime | None
    lists: int | None
    m: int | None
    ef_construction: int | None
    tunings: tuple[tuple[int, int], ...]
    target_recall: float | None
    recall: float | None
    sample: int
    measured_at: datetime | None


@attrs.frozen(kw_only=True)
class IndexState(IndexFacts):
    """The vector index as it is now, with its last measurement.

    Attributes:
        filenode: The number of its files, which changes whenever it is rebuilt; 0 if there is no index. A statement
            that uses the index compares it with `pg_relation_filenode(to_regclass('mem_docs_embedding_idx'))`, because
            the state may be some seconds old.
        rows: Rows with an embedding when it was built; 0 if `built_at` is None.
        measured_rows: `live_rows` when it was measured.
        fresh_since: ivfflat: rows added or changed since then are compared exactly, because the index may not know
            their topics. None for hnsw.
        live_rows: Rows with an embedding now: an estimate, too high rather than too low.
        pgvector: The version of pgvector, such as (0, 8, 5).
        beside: Whether an index that is to take the place of this one, or had it before, is valid, so that the planner
            may choose it; None if there is none.
        row_security: Whether policies other than those of `tenancy enforce` apply to this role: a filter that searches
            and the index know nothing of, under which a search is exact in any case.
    """

    filenode: int
    rows: int
    measured_rows: int
    fresh_since: datetime | None
    live_rows: int
    pgvector: tuple[int, ...]
    beside: bool | None
    row_security: bool

    @property
    def iterative(self) -> bool:
        """Whether an index scan continues until enough rows have passed a filter (pgvector 0.8 and newer)."""
        return self.pgvector >= (0, 8)

    @property
    def usable(self) -> bool:
        """Whether a search may use the index; otherwise it is exact."""
        return self.problem is None

    @property
    def used(self) -> bool:
        """Whether the searches of this role use the index."""
        return self.usable and not self.row_security

    @property
    def outgrown(self) -> bool:
        """Whether the table has grown so much since the measurement that this no longer counts."""
        return self.method is not None and self.live_rows > _GROWTH[self.method] * max(1, self.measured_rows)

    @property
    def problem(self) -> str | None:
        """Why searches do not use the index; None if they do."""
        if self.method is None or not self.valid:
            return "it is invalid, or not over the cosine distance" if self.method else "there is no index"
        if not self.rows or self.target_recall is None or (self.recall is None and not self.tunings):
            return "it was not built on this data and measured"
        if self.recall is not None and (self.recall < self.target_recall or not self.tunings):
            place = "under" if self.recall < self.target_recall else "not surely above"
            return f"its recall is {self.recall:.3f}, {place} the target of {self.target_recall:g}"
        if self.outgrown:
            return f"it was measured on {self.measured_rows} rows, and there are about {self.live_rows}"
        return None

    def tuning_for(self, k: int) -> int | None:
        """Return the probes (ivfflat) or ef_search (hnsw) that meet the target for k rows.

        The tuning was measured for a few k; the one for the next larger k is returned, and more if the planner may
        choose another index, which was not measured.

        Returns:
            None if there is no tuning for so many rows: they are searched for exactly.
        """
        found = next((tuning for measured, tuning in self.tunings if k <= measured), None)
        return found if found is None or not self.beside else enlarged(found, self.lists)


def most_probes(lists: int) -> int:
    """Return the most probes that are worth it: beyond two fifths of the lists, an exact search is as fast.

    Among 20,000 rows that took 23 ms, and 17 ms through 40 of 141 lists.
    """
    return max(1, lists * 2 // 5)


def enlarged(tuning: float, lists: int | None) -> int:
    """Return half as much again, for an index that was not measured; `lists` is None for hnsw."""
    more = ceil(1.5 * tuning)
    return more if lists is None else max(ceil(tuning), min(more, most_probes(lists)))


class IndexStates:
    """The state of the index of one database, read again every few seconds; safe to share between threads."""

    def __init__(self, database: StoreDatabase) -> None:
        self._db = database
        self._kept: tuple[float, IndexState] | None = None

    def get(self) -> IndexState:
        """Return the state, at most a few seconds old."""
        kept = self._kept
        return kept[1] if kept is not None and time.monotonic() < kept[0] else self.refresh()

    def refresh(self) -> IndexState:
        """Return the state as it is now, and keep it."""
        state = read_state(self._db)
        self._kept = (time.monotonic() + (_SECONDS if state.beside is None else _SECONDS_BUILDING), state)
        return state

    def forget(self) -> None:
        """Read it again the next time."""
        self._kept = None


def read_state(database: StoreDatabase) -> IndexState:
    """Return the state of the index as it is now."""
    return _decode_state(database.execute_sql(_sql("state"), reads=True).fetchone())


def _decode_state(row: tuple[Any, ...]) -> IndexState:
    """Return the state from a row of the query `state`; a comment of somebody else's is ignored."""
    method, valid, options, filenode, comment, live_rows, version, beside, row_security = row
    known = method if method in METHODS else None
    given = dict(option.split("=", 1) for option in options or ())
    record = _read_record(comment, filenode) if known else {}
    return IndexState(
        method=known,
        valid=bool(valid) and known is not None,
        filenode=filenode or 0,
        lists=int(given.get("lists", _DEFAULT_LISTS)) if known == "ivfflat" else None,
        m=int(given.get("m", _DEFAULT_M)) if known == "hnsw" else None,
        ef_construction=int(given.get("ef_construction", _DEFAULT_EF_CONSTRUCTION)) if known == "hnsw" else None,
        live_rows=live_rows or 0,
        pgvector=tuple(map(int, re.findall(r"\d+", version or ""))),
        beside=beside,
        row_security=bool(row_security),
        rows=record.get("rows", 0),
        built_at=record.get("built_at"),
        tunings=record.get("tunings", ()),
        target_recall=record.get("target_recall"),
        recall=record.get("recall"),
        sample=record.get("sample", 0),
        measured_at=record.get("measured_at"),
        measured_rows=record.get("measured_rows", 0),
        fresh_since=record.get("fresh_since"),
    )


def encode_record(state: IndexState) -> str:
    """Return the comment that keeps the measurement of an index."""
    kept = {name: getattr(state, name) for name in ("filenode", *_PARTS)}
    return json.dumps({"myloware": kept}, default=datetime.isoformat)


def _read_record(comment: str | None, filenode: int | None) -> Mapping[str, Any]:
    """Return the measurement in a comment, empty if it is of other files or the comment is somebody else's."""
    try:
        kept = json.loads(comment or "")["myloware"]
        return {name: read(kept[name]) for name, read in _PARTS.items()} if kept["filenode"] == filenode else {}
    except (ValueError, TypeError, KeyError, OverflowError):
        return {}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def _share(value: float | None) -> float | None:
    return None if value is None else float(value)


_PARTS: Mapping[str, Callable[[Any], Any]] = {
    "rows": int,
    "built_at": _time,
    "tunings": lambda pairs: tuple(sorted((int(k), int(tuning)) for k, tuning in pairs)),
    "target_recall": _share,
    "recall": _share,
    "sample": int,
    "measured_at": _time,
    "measured_rows": int,
    "fresh_since": _time,
}
"""The parts of a comment, besides the number of the files, and how to read each."""

"""What is known of the vector index, read in one cheap query: its kind, how good it was, and whether to use it.

What was measured stands as JSON in the comment of the index, so that it goes where the index goes: it is dropped,
renamed and cloned with it. It counts only for the files it was written for, so that whatever made the index anew
without measuring it (TRUNCATE, REINDEX, VACUUM FULL, a restored dump) leaves one of which nothing is known.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = [
    "INDEX_NAME",
    "METHODS",
    "STATE",
    "IndexFacts",
    "IndexState",
    "IndexStates",
    "Method",
    "decode_state",
    "encode_record",
]

INDEX_NAME = "mem_docs_embedding_idx"
Method = Literal["ivfflat", "hnsw"]
METHODS: tuple[Method, ...] = ("ivfflat", "hnsw")

_SECONDS = 5.0
"""How long a state is believed: statements that use the index compare its `filenode` themselves."""

_GROWTH: Mapping[str, int] = {"ivfflat": 2, "hnsw": 8}
"""How many times the rows it was measured on a table may have, before the measurement says nothing any more."""

_DEFAULT_LISTS, _DEFAULT_M, _DEFAULT_EF_CONSTRUCTION = 100, 16, 64
"""What pgvector takes where the index does not say."""

# Rows with an embedding are estimated, in microseconds, from what is right at once: vectors stand in their rows, so
# that no page holds two of them and there are at most as many as the file has pages. What the last vacuum or build
# counted on a page leaves out dead rows and room. (The statistics lag by ten seconds, and start at 0 in a clone
# and after a crash.) One too many makes a search exact too early, one too few makes it miss rows.
STATE = """
SELECT am.amname,
    x.indisvalid AND x.indisready AND x.indislive AND x.indpred IS NULL AND x.indnkeyatts = 1
        AND o.opcname = 'vector_cosine_ops',
    i.reloptions,
    pg_relation_filenode(i.oid),
    obj_description(i.oid, 'pg_class'),
    LEAST(
        pages.n, CASE WHEN t.reltuples > 0 AND t.relpages > 0 THEN ceil(t.reltuples * pages.n / t.relpages)::bigint END
    ),
    (SELECT extversion FROM pg_extension WHERE extname = 'vector')
FROM (SELECT to_regclass('mem_docs') AS oid) AS our
LEFT JOIN pg_class AS t ON t.oid = our.oid
LEFT JOIN LATERAL (SELECT pg_relation_size(t.oid) / current_setting('block_size')::bigint AS n) AS pages ON true
LEFT JOIN (pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid)
    ON x.indrelid = t.oid AND i.relname = 'mem_docs_embedding_idx'
LEFT JOIN pg_am AS am ON am.oid = i.relam
LEFT JOIN pg_opclass AS o ON o.oid = x.indclass[0]
"""


@attrs.frozen(kw_only=True)
class IndexFacts:
    """What there is to know of a vector index.

    Attributes:
        method: `ivfflat` or `hnsw`; None where there is no index of the name, or one of another kind.
        valid: Whether it is a whole cosine index that the server keeps up to date.
        built_at: When it was built by `ensure`, `rebuild` or `swap`, in UTC, by the database's clock before the build
            began; None where it never was, or something else has made it anew since.
        lists: Of an ivfflat index.
        m: Of an hnsw index.
        ef_construction: Of an hnsw index.
        tunings: Pairs of k and the probes (ivfflat) or ef_search (hnsw) that met the target there; ascending.
        target_recall: What was aimed at.
        recall: What was measured last at k = 10, with that tuning.
        sample: How many queries it was measured with.
        measured_at: When, in UTC.
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
    """The vector index as it is now, and what was measured of it.

    Attributes:
        filenode: The number of its files, which changes with everything that makes it anew; 0 where there is none. A
            statement that goes through the index compares it with
            `pg_relation_filenode(to_regclass('mem_docs_embedding_idx'))`, since the state may be some seconds old.
        rows: Rows with an embedding when it was built; 0 where `built_at` is None.
        measured_rows: What `live_rows` was when it was measured.
        fresh_since: ivfflat: rows that came or changed since then are compared exactly beside the index, which may
            know nothing of their topics. None for hnsw.
        live_rows: Rows with an embedding now, an estimate rather too high than too low.
        pgvector: Its version, such as (0, 8, 5).
    """

    filenode: int
    rows: int
    measured_rows: int
    fresh_since: datetime | None
    live_rows: int
    pgvector: tuple[int, ...]

    @property
    def iterative(self) -> bool:
        """Whether an index scan goes on until a filter has let enough rows pass (pgvector 0.8 and newer)."""
        return self.pgvector >= (0, 8)

    @property
    def usable(self) -> bool:
        """Whether a search may go through the index; if not, it is exact."""
        return self.problem is None

    @property
    def outgrown(self) -> bool:
        """Whether the table has so many more rows than when it was measured that this says nothing any more."""
        return self.method is not None and self.live_rows > _GROWTH[self.method] * max(1, self.measured_rows)

    @property
    def problem(self) -> str | None:
        """Why a search does not go through the index, said of it; None where it may."""
        if self.method is None or not self.valid:
            return "it is invalid, or none over the cosine distance" if self.method else "there is none"
        if not self.rows or self.recall is None or self.target_recall is None:
            return "it was not built on this data and measured"
        if self.recall < self.target_recall or not self.tunings:
            return f"its recall is {self.recall:.3f}, under the target of {self.target_recall:g}"
        if self.outgrown:
            return f"it was measured on {self.measured_rows} rows, and there are about {self.live_rows}"
        return None

    def tuning_for(self, k: int) -> int | None:
        """Return the probes (ivfflat) or ef_search (hnsw) that meet the target for k rows.

        It was measured for a few k, and the next larger one's is taken.

        Returns:
            None where no tuning was found for so many: they are searched for exactly.
        """
        return next((tuning for measured, tuning in self.tunings if k <= measured), None)


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
        state = decode_state(self._db.execute_sql(STATE, reads=True).fetchone())
        self._kept = (time.monotonic() + _SECONDS, state)
        return state

    def forget(self) -> None:
        """Read it again the next time."""
        self._kept = None


def decode_state(row: tuple[Any, ...]) -> IndexState:
    """Return the state from the row of `STATE`; a comment that is not ours tells nothing."""
    method, valid, options, filenode, comment, live_rows, version = row
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
    """Return the comment that keeps what was measured of an index."""
    kept = {name: getattr(state, name) for name in ("filenode", *_PARTS)}
    return json.dumps({"myloware": kept}, default=datetime.isoformat)


def _read_record(comment: str | None, filenode: int | None) -> Mapping[str, Any]:
    """Return what a comment says of these files, nothing where it is not ours or is of others."""
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
"""What a comment holds beside the number of the files, and how each is read."""

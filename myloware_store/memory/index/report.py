"""Reports about the vector index: its status, a change, a measurement."""

from __future__ import annotations

from datetime import datetime

import attrs

from myloware_store.memory.index.state import IndexFacts

__all__ = ["IndexChange", "IndexStatus", "MetadataIndex", "RecallMeasurement"]


@attrs.frozen(slots=False)
class MetadataIndex:
    """An index on the values at a path of the metadata, which serves filters by order.

    Attributes:
        name: Its name.
        path: The keys of the path; None if its build was killed.
        kind: `number` or `text`.
        valid: Whether it is complete, so that searches can use it.
        size_bytes: Its size.
    """

    name: str
    path: tuple[str, ...] | None
    kind: str
    valid: bool
    size_bytes: int


@attrs.frozen(kw_only=True, slots=False)
class IndexStatus(IndexFacts):
    """The vector index, and whether searches use it.

    Attributes:
        used: Whether searches use it; otherwise every search is exact.
        problem: Why it is not used; None if it is.
        remedy: The command that repairs it; None if nothing is wrong.
        stale: Whether `ensure` has something to do; the command `index status` then exits with 1.
        rows_at_build: Rows with an embedding when it was built; 0 if not known.
        rows_now: Rows with an embedding; above `least_rows` an estimate, too high rather than too low.
        fresh_rows: ivfflat: rows added or changed since it was built or last tuned, which a search compares exactly;
            counted up to 100,000. None for hnsw, and if not known.
        size_bytes: The size of the index.
        pgvector: The version of the extension.
        lacks: Features that this version does not have.
        leftovers: Indexes that killed builds have left behind. They slow down writes; `ensure` drops them.
        builder: The server process that is working on the index, or None.
        metadata_indexes: The indexes that `memory.index_metadata` has built.
        upkeep: Whether workers, and stores on the embedded server, do by themselves what `ensure` does, by the settings
            of this process.
    """

    used: bool
    problem: str | None
    remedy: str | None
    stale: bool
    rows_at_build: int
    rows_now: int
    fresh_rows: int | None
    size_bytes: int
    pgvector: str
    lacks: tuple[str, ...]
    leftovers: tuple[str, ...]
    builder: int | None
    metadata_indexes: tuple[MetadataIndex, ...] = ()
    upkeep: bool


@attrs.frozen(slots=False)
class IndexChange:
    """The outcome of `ensure`, `rebuild` or `swap`.

    Attributes:
        actions: The steps taken, in order; empty if nothing was needed.
        reason: Why they were taken, or why nothing was needed.
        status: The index now.
    """

    actions: tuple[str, ...]
    reason: str
    status: IndexStatus


@attrs.frozen(slots=False)
class RecallMeasurement:
    """The share of the exact answers that searches through the index find, whether searches use it or not.

    Attributes:
        k: How many rows were searched for.
        recall: The mean over the queries, 0 .. 1.
        low: The lower end of its 95 % confidence interval.
        high: The upper end.
        sample: How many queries there were.
        tuning: The probes (ivfflat) or ef_search (hnsw) in force.
        measured_at: The database's time of the measurement, in UTC.
        recorded: Whether the measurement was stored with the index, which only the table's owner can do.
    """

    k: int
    recall: float
    low: float
    high: float
    sample: int
    tuning: int
    measured_at: datetime
    recorded: bool

"""What is told of the vector index: its status, what was done to it, how good it was found."""

from __future__ import annotations

from datetime import datetime

import attrs

from myloware_store.memory.index.state import IndexFacts

__all__ = ["IndexChange", "IndexStatus", "RecallMeasurement"]


@attrs.frozen(kw_only=True, slots=False)
class IndexStatus(IndexFacts):
    """The vector index, and whether searches go through it.

    Attributes:
        used: Whether a search goes through it; if not, every search is exact, and right.
        problem: Why it is not used, said of the index; None where it is.
        remedy: The command that mends it; None where there is nothing to mend.
        stale: Whether `ensure` has something to do: what the command line tells by its exit code.
        rows_at_build: Rows with an embedding when it was built; 0 where that is not known.
        rows_now: Rows with an embedding; above `least_rows` an estimate, rather too high than too low.
        fresh_rows: ivfflat: rows that came or changed since it was built, or since it was found that it answers for
            them, which a search compares exactly; counted up to 100,000. None for hnsw, and where it is not known.
        size_bytes: Of the index.
        pgvector: The version of the extension.
        lacks: What that version cannot do.
        leftovers: Indexes that killed builds have left; they cost writes, and `ensure` drops them.
        builder: The server process that works on the index now, None where none does.
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


@attrs.frozen(slots=False)
class IndexChange:
    """What `ensure`, `rebuild` or `swap` did.

    Attributes:
        actions: What was done, in order; nothing where nothing was needed.
        reason: Why, or why nothing was.
        status: The index now.
    """

    actions: tuple[str, ...]
    reason: str
    status: IndexStatus


@attrs.frozen(slots=False)
class RecallMeasurement:
    """How much of the exact answer a search through the index finds.

    Attributes:
        k: How many rows were asked for.
        recall: The mean over the queries, 0 .. 1.
        low: The lower end of its 95 % confidence interval.
        high: The upper end.
        sample: How many queries there were.
        tuning: The probes (ivfflat) or ef_search (hnsw) in force.
        measured_at: When, by the database's clock, in UTC.
        recorded: Whether it was written down with the index, which only the table's owner can.
    """

    k: int
    recall: float
    low: float
    high: float
    sample: int
    tuning: int
    measured_at: datetime
    recorded: bool

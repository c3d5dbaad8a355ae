"""The status of the vector index, and what to do about it: from the catalogs and a few rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from myloware_store.core.sql import queries_beside
from myloware_store.memory.index.build import find_leftovers
from myloware_store.memory.index.metadata import list_metadata_indexes
from myloware_store.memory.index.report import IndexStatus
from myloware_store.memory.index.session import find_builder
from myloware_store.memory.index.state import INDEX_NAME, IndexFacts

if TYPE_CHECKING:
    from datetime import datetime

    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.state import IndexState

__all__ = ["COMMAND", "LEAST_ROWS", "has_too_few_lists", "make_plan", "read_status"]

_sql = queries_beside(__file__)

COMMAND = "myloware-store index ensure"
LEAST_ROWS = 5000
"""`ensure` does not build for fewer rows: comparing 5,000 vectors takes 5 ms."""

_MOST_COUNTED = 100_000
_CHANGED = 0.1  # of the rows, since the last measurement, before `ensure` measures again


def read_status(database: StoreDatabase, state: IndexState, least_rows: int) -> IndexStatus:
    """Return the status of an index.

    Args:
        database: The database.
        state: The state of the index, just read.
        least_rows: The fewest rows with an embedding for which an index is built.
    """
    plan, reason = make_plan(database, state, least_rows, state.target_recall)
    counted = _embedded(database, least_rows)
    builder = find_builder(database)
    leftovers = () if builder else find_leftovers(database)
    size, _ = database.execute_sql(_sql("size"), (INDEX_NAME,)).fetchone()
    stale = plan is not None or bool(leftovers)
    hidden = (
        "row-level security hides rows from this role, of which the index knows nothing" if state.row_security else None
    )
    return IndexStatus(
        **{field.name: getattr(state, field.name) for field in attrs.fields(IndexFacts)},
        used=state.used,
        problem=(state.problem if plan or state.usable else reason) or hidden,
        remedy=COMMAND if stale else None,
        stale=stale,
        rows_at_build=state.rows,
        rows_now=counted if counted < least_rows else state.live_rows,
        fresh_rows=_fresh(database, state.fresh_since, _MOST_COUNTED) if state.fresh_since else None,
        size_bytes=size,
        pgvector=".".join(map(str, state.pgvector)),
        lacks=() if state.iterative else ("iterative scans", "halfvec"),
        leftovers=leftovers,
        builder=builder,
        metadata_indexes=list_metadata_indexes(database),
        upkeep=database.settings.upkeep,
    )


def make_plan(
    database: StoreDatabase, state: IndexState, least_rows: int, target: float | None
) -> tuple[str | None, str]:
    """Return whether to `build` or `measure` the index or None to leave it, and the reason."""
    problem = state.problem or ""
    if state.method is None or not state.valid:
        return "build", problem
    rows = _embedded(database, least_rows)
    if rows < least_rows:
        return None, f"with fewer than {least_rows} rows (now {rows}), a search compares all vectors"
    if not state.rows or (state.outgrown and state.method == "ivfflat"):
        return "build", problem
    if state.recall is None or state.outgrown:
        return "measure", problem or "it was rebuilt and not measured"
    return _plan_by_change(database, state, target)


def _plan_by_change(database: StoreDatabase, state: IndexState, target: float | None) -> tuple[str | None, str]:
    """Return the plan for an index that was measured before."""
    if target is not None and target != state.target_recall:
        return "measure", f"its target was {state.target_recall:g}"
    most = max(1, int(_CHANGED * state.measured_rows))
    changed = max(_fresh(database, state.measured_at, most), abs(state.live_rows - state.measured_rows))
    if changed >= most:
        return "measure", f"more than {_CHANGED:.0%} of its rows have changed since it was measured"
    if state.tunings and not state.usable:  # `measure_recall` found less than the last tuning was to find
        return "measure", state.problem or ""
    if not state.usable:
        way = "try `myloware-store index swap hnsw`, or a lower --target-recall"
        return None, f"{state.problem}, and nothing has changed since: {way}"
    return None, "it is good"


def has_too_few_lists(database: StoreDatabase, state: IndexState) -> bool:
    """Return whether an ivfflat index was built over less than half of the rows; this reads so many rows.

    It may still find what it should, if the table grew by little at a time, but a search compares more rows than it has
    to. Estimates are no answer: they count dead rows, too, as many after a build as before it.
    """
    most = 2 * state.rows
    return state.method == "ivfflat" and _embedded(database, most + 1) > most


def _embedded(database: StoreDatabase, most: int) -> int:
    (count,) = database.execute_sql(_sql("count_embedded"), {"most": most}).fetchone()
    return int(count)


def _fresh(database: StoreDatabase, since: datetime | None, most: int) -> int:
    (count,) = database.execute_sql(_sql("count_fresh"), {"since": since, "most": most}).fetchone()
    return int(count)

"""Builds a vector index beside the one in use and puts it in its place; drops the remains of killed builds."""

from __future__ import annotations

import time
from math import ceil
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import ConnectionFailed, DatabaseFault, TransactionConflict, VectorIndexError
from myloware_store.core.sql import queries_beside
from myloware_store.memory.index.state import INDEX_NAME, IndexState, Method, encode_record, enlarged, read_state

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.session import IndexSession

__all__ = ["build_index", "drop_leftovers", "find_leftovers", "record"]

_sql = queries_beside(__file__)

NEW, OLD = f"{INDEX_NAME}_new", f"{INDEX_NAME}_old"

_MOST_LISTS = 32_768
_VECTOR_BYTES = 6152 + 8
_NODE_BYTES = 9000
"""Bytes of a row in the graph of an hnsw index with m = 16: its vector and its neighbours' names."""

_PAUSE = 1.0  # seconds between two tries at a lock


_SHARED_MEMORY_FULL = "53100"


def record(database: StoreDatabase, state: IndexState) -> None:
    """Store the state of the index in its comment."""
    database.execute_sql(f"COMMENT ON INDEX {INDEX_NAME} IS %s", (encode_record(state),))


def find_leftovers(database: StoreDatabase) -> tuple[str, ...]:
    """Return the names of indexes that killed builds have left behind, or that are being built."""
    return tuple(name for (name,) in database.execute_sql(_sql("leftovers")).fetchall())


def drop_leftovers(session: IndexSession) -> tuple[str, ...]:
    """Drop the remains of killed builds. The session holds the lock, so no other build is running."""
    names = find_leftovers(session)
    for name in names:
        session.command(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"Dropping {name}")
    return names


def build_index(session: IndexSession, method: Method, target: float) -> IndexState:
    """Build the index anew from the rows of the table, without blocking readers or writers.

    The new index is built under another name. When it is complete, the two swap names in one short transaction, which
    does not wait for readers or writers, and the old one is dropped. If searches used the old one, they use the new one
    at once, with a provisional tuning; otherwise they are exact until its recall is measured. The planner chooses
    between two indexes on the same column by its own estimate, so a new one could not be measured beside the old.

    Args:
        session: The session that holds the lock.
        method: The kind of index.
        target: The recall aimed at.

    Returns:
        The state of the new index, in use and not measured.

    Raises:
        VectorIndexError: The build failed; the index in use stayed as it was.
        ConnectionFailed: The connection was lost; the next build drops the remains.
    """
    counted = "SELECT count(*), clock_timestamp() FROM mem_docs WHERE embedding IS NOT NULL"
    rows, built_at = session.execute_sql(counted).fetchone()
    old = read_state(session)
    lists = _size(session, method, rows)
    create = f"CREATE INDEX CONCURRENTLY {NEW} ON mem_docs USING {method} (embedding vector_cosine_ops)" + (
        f" WITH (lists = {lists})" if lists else ""
    )
    what = f"Building {method} over {rows} rows"
    try:
        _create(session, create, what)
    except DatabaseFault as fault:
        if isinstance(fault, ConnectionFailed):
            raise
        raise VectorIndexError(f"the vector index was not built: {fault}") from None
    valid, indexed, filenode = session.execute_sql(_sql("built"), (NEW,)).fetchone() or (False, 0, 0)
    if not valid:
        raise VectorIndexError(f"the vector index was not built: the server left {NEW} invalid")
    tunings = _provisional(old, method, lists) if old.usable else ()
    state = attrs.evolve(
        read_state(session),
        method=method,
        filenode=filenode,
        rows=max(0, indexed),
        built_at=built_at,
        fresh_since=built_at if method == "ivfflat" else None,
        tunings=tunings,
        target_recall=target,
        recall=None,
        sample=0,
        measured_at=None,
    )
    _take_place(session, attrs.evolve(state, measured_rows=state.live_rows))
    _retire(session)
    return read_state(session)


def _provisional(old: IndexState, method: Method, lists: int) -> tuple[tuple[int, int], ...]:
    """Return the tuning of a new index until it is measured: half as much again of it is searched as of the old one.

    Of the same rows in as many or more lists, the same share finds about as much or more.
    """
    if method != old.method:
        return tuple((k, max(200, 2 * k) if method == "hnsw" else ceil(lists / 8)) for k, _ in old.tunings)
    if method == "hnsw":
        return tuple((k, enlarged(tuning, None)) for k, tuning in old.tunings)
    return tuple((k, enlarged(tuning * lists / (old.lists or lists), lists)) for k, tuning in old.tunings)


def _size(session: IndexSession, method: Method, rows: int) -> int:
    """Give the build the memory that it needs, within limits, and return the number of lists; 0 for hnsw.

    lists = sqrt(rows): at equal recall half the cost of rows / 1000. Memory: enough for pgvector's k-means, which
    refuses to run with less, or for the graph, whose build is three times slower with less; at most a quarter of
    effective_cache_size.
    """
    own, cache, workers, most_workers = session.execute_sql(_sql("memory")).fetchone()
    bound = max(own, cache // 4)
    lists = min(_MOST_LISTS, max(1, round(rows**0.5)))
    while method == "ivfflat" and lists > 1 and _kmeans_bytes(lists) > bound * 1024:
        lists = max(1, int(lists * 0.9))
    needed = rows * (_NODE_BYTES if method == "hnsw" else _VECTOR_BYTES)
    if method == "ivfflat":
        needed = max(needed, _kmeans_bytes(lists))
    session.execute_sql(
        "SELECT set_config('maintenance_work_mem', %s, false),"
        " set_config('max_parallel_maintenance_workers', %s, false)",
        (f"{min(bound, max(own, needed // 1024))}kB", str(max(workers, most_workers // 2))),
    )
    return lists if method == "ivfflat" else 0


def _kmeans_bytes(lists: int) -> int:
    """Return the memory of pgvector's k-means: a sample, its bounds to every centre, the centres, their distances."""
    sample = max(10_000, 50 * lists)
    return (
        round(1.1 * (sample * (_VECTOR_BYTES + 4 * lists + 16) + 4 * lists * lists + 4 * lists * _VECTOR_BYTES)) + 2**24
    )


def _create(session: IndexSession, create: str, what: str) -> None:
    try:
        session.command(create, what)
    except DatabaseFault as fault:
        if fault.sqlstate != _SHARED_MEMORY_FULL:
            raise
    else:
        return
    # Workers share the graph through /dev/shm, of which a container often has 64 MB: alone, the server needs none.
    drop_leftovers(session)
    session.execute_sql("SELECT set_config('max_parallel_maintenance_workers', '0', false)")
    session.command(create, what)


def _take_place(session: IndexSession, state: IndexState) -> None:
    """Give the new index its name and its state in one transaction, without blocking readers or writers."""

    def change_names() -> None:
        session.execute_sql("SET LOCAL lock_timeout = '2s'")
        session.execute_sql(f"ALTER INDEX IF EXISTS {INDEX_NAME} RENAME TO {OLD}")
        session.execute_sql(f"ALTER INDEX {NEW} RENAME TO {INDEX_NAME}")
        record(session, state)

    while True:
        try:
            with session.atomic():
                change_names()
        except TransactionConflict:
            session.tell("Waiting to put the new index in its place", 0, None)
            time.sleep(_PAUSE)
        else:
            return


def _retire(session: IndexSession) -> None:
    """Drop the old index; if a long transaction may still read it, only take it out of use."""
    session.execute_sql("SELECT set_config('lock_timeout', '2s', false)")
    while True:
        try:
            session.command(f"DROP INDEX CONCURRENTLY IF EXISTS {OLD}", "Dropping the old index")
        except TransactionConflict:
            valid, *_ = session.execute_sql(_sql("built"), (OLD,)).fetchone() or (False,)
            if not valid:
                break
            session.tell("Waiting to put the old index out of use", 0, None)
            time.sleep(_PAUSE)
        else:
            break
    session.execute_sql("SELECT set_config('lock_timeout', '0', false)")

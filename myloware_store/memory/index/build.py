"""Builds a vector index beside the one in use, and puts it in its place; what a killed build left is dropped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import ConnectionFailed, DatabaseFault, TransactionConflict, VectorIndexError
from myloware_store.memory.index.state import INDEX_NAME, STATE, IndexState, Method, decode_state, encode_record

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.session import IndexSession

__all__ = ["build_index", "drop_leftovers", "find_leftovers", "read_state", "record"]

NEW, OLD = f"{INDEX_NAME}_new", f"{INDEX_NAME}_old"

_MOST_LISTS = 32_768
_VECTOR_BYTES = 6152 + 8
_NODE_BYTES = 9000
"""Of a row in the graph of an hnsw index with m = 16: its vector, and its neighbours' names."""

_PAUSE = 1.0  # seconds between two tries at a lock

# Builds that were given up, ours and those of REINDEX CONCURRENTLY.
LEFTOVERS = f"""
SELECT i.relname FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('mem_docs')
    AND (
        i.relname IN ('{NEW}', '{OLD}')
        OR i.relname ~ '^{INDEX_NAME}_cc(new|old)[0-9]*$' AND NOT x.indisvalid
    )
ORDER BY i.relname
"""  # noqa: S608  constants

# In kilobytes. The server's memory cannot be asked for; its owner has told the planner how much of it caches files.
_MEMORY = """
SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'),
    (SELECT setting::bigint FROM pg_settings WHERE name = 'effective_cache_size')
        * current_setting('block_size')::bigint / 1024,
    current_setting('max_parallel_maintenance_workers')::int, current_setting('max_parallel_workers')::int
"""
_BUILT = """
SELECT x.indisvalid AND x.indisready, i.reltuples::bigint, pg_relation_filenode(i.oid)
FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = 'mem_docs'::regclass AND i.relname = %s
"""
_SHARED_MEMORY_FULL = "53100"


def read_state(database: StoreDatabase) -> IndexState:
    """Return the state of the index as it is now."""
    return decode_state(database.execute_sql(STATE).fetchone())


def record(database: StoreDatabase, state: IndexState) -> None:
    """Write what is known of the index into its comment."""
    database.execute_sql(f"COMMENT ON INDEX {INDEX_NAME} IS %s", (encode_record(state),))


def find_leftovers(database: StoreDatabase) -> tuple[str, ...]:
    """Return the names of what builds that were killed have left, or of what is being built."""
    return tuple(name for (name,) in database.execute_sql(LEFTOVERS).fetchall())


def drop_leftovers(session: IndexSession) -> tuple[str, ...]:
    """Drop what killed builds have left; nobody builds, since the session holds the lock."""
    names = find_leftovers(session)
    for name in names:
        session.command(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"Dropping {name}")
    return names


def build_index(session: IndexSession, method: Method) -> IndexState:
    """Build the index anew from the rows that are there, without keeping anyone from reading or writing.

    The new one is built under another name. When it is whole, the two change names in one short transaction, which
    waits for no reader or writer, and the old one is dropped. Until its recall is measured, searches are exact.

    Args:
        session: It holds the lock.
        method: Which kind.

    Returns:
        The state of the new index, in use and not measured.

    Raises:
        VectorIndexError: The build failed; the index in use stayed as it was.
        ConnectionFailed: The connection was lost; what is left is dropped the next time.
    """
    counted = "SELECT count(*), clock_timestamp() FROM mem_docs WHERE embedding IS NOT NULL"
    rows, built_at = session.execute_sql(counted).fetchone()
    options = _size(session, method, rows)
    create = f"CREATE INDEX CONCURRENTLY {NEW} ON mem_docs USING {method} (embedding vector_cosine_ops)" + (
        f" WITH ({options})" if options else ""
    )
    what = f"Building {method} over {rows} rows"
    try:
        _create(session, create, what)
    except DatabaseFault as fault:
        if isinstance(fault, ConnectionFailed):
            raise
        raise VectorIndexError(f"the vector index was not built: {fault}") from None
    valid, indexed, filenode = session.execute_sql(_BUILT, (NEW,)).fetchone() or (False, 0, 0)
    if not valid:
        raise VectorIndexError(f"the vector index was not built: the server left {NEW} invalid")
    state = attrs.evolve(
        read_state(session),
        method=method,
        filenode=filenode,
        rows=max(0, indexed),
        built_at=built_at,
        fresh_since=built_at if method == "ivfflat" else None,
        tunings=(),
        target_recall=None,
        recall=None,
        sample=0,
        measured_at=None,
    )
    _take_place(session, attrs.evolve(state, measured_rows=state.live_rows))
    _retire(session)
    return read_state(session)


def _size(session: IndexSession, method: Method, rows: int) -> str:
    """Give the build the memory that it needs and may have, and return the options of the index.

    lists = sqrt(rows): at equal recall half the cost of rows / 1000. Memory: what pgvector's k-means needs (without it,
    it refuses) or the graph (without it, it is three times slower), a quarter of effective_cache_size at most.
    """
    own, cache, workers, most_workers = session.execute_sql(_MEMORY).fetchone()
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
    return f"lists = {lists}" if method == "ivfflat" else ""


def _kmeans_bytes(lists: int) -> int:
    """Return what pgvector's k-means asks for: a sample, its bounds to every centre, the centres, their distances."""
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
    """Give the new index the name, and with it what is known of it; readers and writers go on meanwhile."""

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
    """Put the old index out of use; it is dropped now, or where long transactions may still read it, in the end."""
    session.execute_sql("SELECT set_config('lock_timeout', '2s', false)")
    while True:
        try:
            session.command(f"DROP INDEX CONCURRENTLY IF EXISTS {OLD}", "Dropping the old index")
        except TransactionConflict:
            valid, *_ = session.execute_sql(_BUILT, (OLD,)).fetchone() or (False,)
            if not valid:
                break
            session.tell("Waiting to put the old index out of use", 0, None)
            time.sleep(_PAUSE)
        else:
            break
    session.execute_sql("SELECT set_config('lock_timeout', '0', false)")

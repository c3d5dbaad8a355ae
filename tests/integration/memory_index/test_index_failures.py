"""Builds that are killed, interrupted, refused or met by others: the index in use stays, and the next run mends it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import psycopg2
import pytest

from myloware_store import DIMENSIONS, ConnectionFailed, Store, VectorIndexError
from myloware_store.db.database import StoreDatabase
from myloware_store.db.transactions import again_after_conflicts
from myloware_store.memory import index as memory_index
from myloware_store.memory import search
from myloware_store.memory.engine import Memory
from myloware_store.memory.index import MemoryIndex, build
from myloware_store.memory.index.session import find_builder
from myloware_store.memory.index.state import METHODS, IndexStates
from myloware_store.ops.migrate import migrate
from myloware_store.ops.validate import validate
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store.memory.index.state import Method
    from tests.integration.memory_index.conftest import Corpus

PATIENCE = 60.0
# Of this database: others on the server build for other workers' tests.
WAITING = """
    SELECT pid FROM pg_stat_progress_create_index
    WHERE datname = current_database() AND phase LIKE 'waiting for writers%%'
"""


def eventually(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds; name it if it does not."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.01)


@contextmanager
def open_transaction(store: Store, sql: str) -> Iterator[None]:
    """Hold a transaction open on a connection of its own, in which a statement was run."""
    with closing(psycopg2.connect(store.settings.libpq_url)) as connection, connection.cursor() as run:
        run.execute(sql)
        yield
        connection.rollback()


WRITE = "UPDATE mem_docs SET content = 'y' WHERE ctid = '(0,1)'"


def test_a_killed_server_process_leaves_the_index_in_use(loaded: Store, corpus: Corpus) -> None:
    """The build ends with an error; what it left is named, and the next run drops it and builds."""
    index = loaded.memory.index
    index.ensure()
    used = IndexStates(loaded.db).get()
    with ThreadPoolExecutor(1) as thread, open_transaction(loaded, WRITE):
        building = thread.submit(index.rebuild)
        eventually(lambda: loaded.db.execute_sql(WAITING).fetchone(), "the build has begun")
        assert index.status().builder == loaded.db.execute_sql(WAITING).fetchone()[0]
        assert validate(loaded.db).valid
        loaded.db.execute_sql(f"SELECT pg_terminate_backend(({WAITING}))")
        with pytest.raises(ConnectionFailed):
            building.result(PATIENCE)

    assert {"mem_docs_embedding_idx": True, "mem_docs_embedding_idx_new": False} == corpus.indexes(loaded.db)
    status = index.status()
    assert (True, True, ("mem_docs_embedding_idx_new",)) == (status.used, status.stale, status.leftovers)
    (finding,) = validate(loaded.db).findings
    assert ("mem_docs.mem_docs_embedding_idx_new", "myloware-store index ensure") == (finding.name, finding.remedy)
    change = index.ensure()
    assert ("dropped mem_docs_embedding_idx_new",) == change.actions
    assert (used.filenode, {"mem_docs_embedding_idx": True}) == (
        IndexStates(loaded.db).get().filenode,
        corpus.indexes(loaded.db),
    )


def test_a_killed_program_ends_its_build(loaded: Store, corpus: Corpus) -> None:
    """The server notices within seconds that nobody waits, and lets go of the lock."""
    index = loaded.memory.index
    index.ensure()
    with open_transaction(loaded, WRITE):
        program = subprocess.Popen(
            [sys.executable, "-m", "myloware_store", "index", "rebuild"],
            env={**os.environ, "DATABASE_URL": loaded.settings.libpq_url},
        )
        eventually(lambda: loaded.db.execute_sql(WAITING).fetchone(), "the build has begun")
        program.kill()
        program.wait()
        eventually(lambda: find_builder(loaded.db) is None, "the server has ended the build")

    assert index.status().used
    assert ("dropped mem_docs_embedding_idx_new",) == index.ensure().actions
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(loaded.db)


def test_ctrl_c_cancels_the_build(loaded: Store, corpus: Corpus) -> None:
    """At once, however long it would take; the index in use stays."""
    index = loaded.memory.index
    index.ensure()

    def interrupt(what: str, _done: int, _total: int | None) -> None:
        if "waiting for writers" in what:
            raise KeyboardInterrupt

    with open_transaction(loaded, WRITE), pytest.raises(KeyboardInterrupt):
        index.rebuild(progress=interrupt)
    assert index.status().used
    assert find_builder(loaded.db) is None
    assert index.ensure().status.leftovers == ()
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(loaded.db)


def test_of_two_at_once_one_waits(loaded: Store) -> None:
    """And then finds nothing to do."""
    index = loaded.memory.index
    waiting = threading.Event()

    def tell(what: str, _done: int, _total: int | None) -> None:
        if what.startswith("Waiting for server process"):
            waiting.set()

    with ThreadPoolExecutor(2) as threads:
        with open_transaction(loaded, WRITE):
            first = threads.submit(index.ensure)
            eventually(lambda: loaded.db.execute_sql(WAITING).fetchone(), "the build has begun")
            second = threads.submit(lambda: index.ensure(progress=tell))
            assert waiting.wait(PATIENCE)
        assert ["built", "measured"] == [action.split()[0] for action in first.result(PATIENCE).actions]
        assert second.result(PATIENCE).actions == ()


def test_no_reader_is_waited_for_where_it_would_hurt(loaded: Store, corpus: Corpus) -> None:
    """A transaction that has read keeps the old index from being dropped, and not the new one from being used."""
    index = loaded.memory.index
    with ThreadPoolExecutor(1) as thread:
        with open_transaction(loaded, "SELECT count(*) FROM mem_docs"):
            building = thread.submit(index.ensure)
            eventually(lambda: IndexStates(loaded.db).get().usable, "the new index is in use")
            assert {"mem_docs_embedding_idx": True, "mem_docs_embedding_idx_old": False} == corpus.indexes(loaded.db)
            loaded.db.execute_sql("UPDATE mem_docs SET content = 'z'")
        building.result(PATIENCE)
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(loaded.db)


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [False, True])
def test_a_rebuild_killed_at_any_step_leaves_a_good_index(
    loaded: Store, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, method: Method, *, after: bool
) -> None:
    """Before or after each of its steps: searches use the old index or the new one, and find what they should."""
    index, queries = loaded.memory.index, corpus.clustered(20)
    index.ensure()
    exact = [{hit.id for hit in loaded.memory.similar(query, mode="exact")} for query in queries]

    def killed(step: Callable[..., object], *given: object, **named: object) -> None:
        if after:
            step(*given, **named)
        raise Killed

    for module, name in (
        (memory_index, "draw"),
        (build, "_create"),
        (build, "_take_place"),
        (build, "_retire"),
        (memory_index, "calibrate"),
        (memory_index, "record"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, partial(killed, getattr(module, name)))
            with pytest.raises(Killed):
                index.swap(method)
        assert index.status().used, name
        found = [{hit.id for hit in loaded.memory.similar(query)} for query in queries]
        assert np.mean([len(one & other) / 10 for one, other in zip(found, exact, strict=True)]) >= 0.8, name
    assert index.ensure().status.recall is not None
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(loaded.db)


@pytest.mark.parametrize("method", METHODS)
def test_searches_during_a_rebuild_are_not_exact(
    loaded: Store, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    """Another process goes through the old index and then through the new one, whose tuning is provisional at first."""
    loaded.memory.index.ensure()
    compared: list[object] = []
    by_comparing = search.by_comparing_alone

    def counted(*given: Any) -> search.Query:
        compared.append(given)
        return by_comparing(*given)

    monkeypatch.setattr(search, "by_comparing_alone", counted)
    other = StoreDatabase(loaded.settings)
    memory, query, over = Memory(other), corpus.clustered(1)[0], threading.Event()

    def searching() -> int:
        count = 0
        while not over.is_set():
            assert len(memory.similar(query)) == 10
            count += 1
        return count

    try:
        with ThreadPoolExecutor(1) as thread:
            searches = thread.submit(searching)
            loaded.memory.index.swap(method)
            over.set()
            assert searches.result(PATIENCE) > 1
    finally:
        other.close_all()
    assert compared == []


def test_only_the_owner_builds(loaded: Store) -> None:
    """Any other role is told whom to ask; it can read the status, and measure without writing it down."""
    loaded.db.execute_sql("DROP ROLE IF EXISTS index_reader")
    loaded.db.execute_sql("CREATE ROLE index_reader LOGIN")
    loaded.db.execute_sql("GRANT SELECT ON mem_docs TO index_reader")
    plain = StoreDatabase(attrs.evolve(loaded.settings, user="index_reader"))
    try:
        index = MemoryIndex(plain, IndexStates(plain))
        index.least_rows = 500
        assert index.status().stale
        with pytest.raises(VectorIndexError, match="index_reader does not own mem_docs: have"):
            index.ensure()
        loaded.memory.index.ensure()
        assert index.ensure().actions == ()
        assert not index.measure_recall(10).recorded
    finally:
        plain.close_all()
        loaded.db.execute_sql("DROP OWNED BY index_reader")
        loaded.db.execute_sql("DROP ROLE index_reader")


def test_under_row_level_security_everything_visible_is_compared(loaded: Store, corpus: Corpus) -> None:
    """The index knows nothing of what it hides, and would find few of the nearest of the rest."""
    loaded.memory.index.ensure()
    loaded.db.execute_sql(
        "CREATE ROLE index_tenant LOGIN; GRANT SELECT ON mem_docs TO index_tenant;"
        " ALTER TABLE mem_docs ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY few ON mem_docs TO index_tenant USING (mod(uuid_hash(id), 10) = 0)"
    )
    plain = StoreDatabase(attrs.evolve(loaded.settings, user="index_tenant"))
    try:
        memory = Memory(plain)
        for query in corpus.clustered(20):
            assert memory.similar(query, mode="exact") == memory.similar(query)
        status = memory.index.status()
        assert (False, False) == (status.used, status.stale)
        assert "row-level security" in (status.problem or "")
        assert loaded.memory.index.status().used
    finally:
        plain.close_all()
        # It meets autovacuum's ANALYZE.
        again_after_conflicts(lambda: loaded.db.execute_sql("DROP OWNED BY index_tenant; DROP ROLE index_tenant"))


def test_where_everything_is_read_only_nothing_is_built(loaded: Store) -> None:
    """By one typed error before anything is measured; searches and the status are right."""
    loaded.db.execute_sql(f"ALTER DATABASE {loaded.settings.dbname} SET default_transaction_read_only = on")
    reader = StoreDatabase(loaded.settings)
    memory = Memory(reader)
    memory.index.least_rows = 500
    try:
        assert memory.index.status().stale
        for build in (memory.index.ensure, memory.index.rebuild):
            with pytest.raises(VectorIndexError, match="default_transaction_read_only is on"):
                build()
        assert not memory.index.measure_recall(10).recorded
        assert 10 == len(memory.similar(np.ones(DIMENSIONS)))
    finally:
        reader.close_all()
        loaded.db.execute_sql(f"ALTER DATABASE {loaded.settings.dbname} RESET default_transaction_read_only")


def test_a_cancelled_build_is_a_typed_error(loaded: Store, corpus: Corpus) -> None:
    """The administrator ends the statement, not the process: what was in use stays, and the next run goes on."""
    with open_transaction(loaded, WRITE), ThreadPoolExecutor(1) as thread:
        building = thread.submit(loaded.memory.index.rebuild)
        eventually(lambda: loaded.db.execute_sql(WAITING).fetchone(), "the build has begun")
        loaded.db.execute_sql("SELECT pg_cancel_backend(%s)", loaded.db.execute_sql(WAITING).fetchone())
        with pytest.raises(VectorIndexError, match="the vector index was not built: canceling statement"):
            building.result(PATIENCE)
    assert corpus.indexes(loaded.db)["mem_docs_embedding_idx"]
    assert "dropped mem_docs_embedding_idx_new" == loaded.memory.index.ensure().actions[0]
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(loaded.db)


def test_through_pgbouncer_nothing_is_built(loaded: Store) -> None:
    """It cannot hold the lock; the status can be read."""
    pooled = StoreDatabase(attrs.evolve(loaded.settings, pgbouncer=True))
    index = MemoryIndex(pooled, IndexStates(pooled))
    index.least_rows = 500
    try:
        assert index.status().stale
        with pytest.raises(VectorIndexError, match="name the PostgreSQL server itself"):
            index.ensure()
    finally:
        pooled.close_all()


def test_deadlines_of_statements_do_not_end_a_build(loaded: Store) -> None:
    """A statement_timeout, or PostgreSQL 17's transaction_timeout, is for searches, and not for a build of an hour."""
    names = ["statement_timeout", *(["transaction_timeout"] if loaded.db.server_version >= 170000 else [])]
    for name in names:
        loaded.db.execute_sql(f"ALTER DATABASE {loaded.settings.dbname} SET {name} = 2000")
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND statement_timestamp() - query_start > interval '3 s'"
    )
    try:
        with ThreadPoolExecutor(1) as thread:
            with open_transaction(loaded, "".join(f"SET LOCAL {name} = 0; " for name in names) + WRITE):
                building = thread.submit(loaded.memory.index.rebuild)
                eventually(lambda: loaded.db.execute_sql(WAITING).fetchone(), "the build has begun")
                pid = loaded.db.execute_sql(WAITING).fetchone()
                eventually(lambda: loaded.db.execute_sql(waits, pid).fetchone() == (1,), "it is beyond the deadline")
            assert building.result(PATIENCE).status.used
    finally:
        for name in names:
            loaded.db.execute_sql(f"ALTER DATABASE {loaded.settings.dbname} RESET {name}")


@pytest.fixture
def old_and_new(empty_database: str, corpus: Corpus) -> Iterator[StoreDatabase]:
    """Give a loaded database on the oldest and on the newest server."""
    settings = Settings.load(empty_database, environ={}, dotenv=None)
    migrate(settings)
    database = StoreDatabase(settings)
    corpus.load(database, corpus.clustered(corpus.rows))
    yield database
    database.close_all()


@pytest.mark.parametrize("method", METHODS)
def test_old_and_new_servers_build(old_and_new: StoreDatabase, method: Method, corpus: Corpus) -> None:
    """On pgvector 0.5 as on 0.8; the status says what the old one cannot do."""
    index = Memory(old_and_new).index
    index.least_rows = 500
    if method == "hnsw":
        index.swap(method)

    status = index.ensure(0.9).status
    assert (method, True, True) == (status.method, status.used, (status.recall or 0) >= 0.9)
    old = status.pgvector.startswith("0.5")
    assert (("iterative scans", "halfvec") if old else ()) == status.lacks
    assert validate(old_and_new).valid
    assert {"mem_docs_embedding_idx": True} == corpus.indexes(old_and_new)

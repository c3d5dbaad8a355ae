"""The pool when servers and networks fail: one typed error for what was under way, and work goes on afterwards."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import peewee
import psycopg2
import pytest
from playhouse.postgres_ext import ServerSide

from myloware_store.core.errors import AmbiguousCommit, ConnectionFailed
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def settings(plain_url: str) -> Settings:
    """Give settings for two connections."""
    found = Settings.load(plain_url, environ={}, dotenv=None)
    return attrs.evolve(found, connection_limit=2, pool_timeout=60)


@pytest.fixture
def db(settings: Settings) -> Iterator[StoreDatabase]:
    """Give a database of two connections, with one empty table."""
    database = StoreDatabase(settings)
    database.execute_sql("DROP TABLE IF EXISTS kept")
    database.execute_sql("CREATE TABLE kept (number int)")
    yield database
    database.close_all()


def one(database: StoreDatabase, sql: str, *params: object) -> Any:
    """Run a statement and return its one value."""
    return database.execute_sql(sql, params).fetchone()[0]


def backend(database: StoreDatabase) -> int:
    """Return the server process behind the connection in use."""
    pid: int = one(database, "SELECT pg_backend_pid()")
    return pid


def end(settings: Settings, pid: int) -> None:
    """End a server process, and wait until it is gone."""
    with closing(psycopg2.connect(**settings.connect_kwargs())) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        assert (True,) == cursor.fetchone()


def insert(database: StoreDatabase, number: int = 1) -> None:
    """Store a row."""
    database.execute_sql("INSERT INTO kept VALUES (%s)", (number,))


def count(database: StoreDatabase) -> int:
    """Return how many rows are stored."""
    found: int = one(database, "SELECT count(*) FROM kept")
    return found


def test_an_idle_connection_that_was_ended_is_replaced(db: StoreDatabase, settings: Settings) -> None:
    """Nobody notices that the server ended a connection that was waiting in the pool."""
    before = backend(db)
    end(settings, before)

    assert before != backend(db)
    assert "1 open, 1 idle" in repr(db.pool)


def test_all_idle_connections_that_timed_out_are_replaced(db: StoreDatabase, settings: Settings) -> None:
    """A server with idle_session_timeout empties the pool without an error."""
    meeting = threading.Barrier(2)

    def use() -> int:
        with db.unit():
            meeting.wait()
            return backend(db)

    with ThreadPoolExecutor(2) as threads:
        first = {future.result() for future in [threads.submit(use), threads.submit(use)]}
        for pid in first:
            end(settings, pid)
        second = {future.result() for future in [threads.submit(use), threads.submit(use)]}

    assert (2, 2, set()) == (len(first), len(second), first & second)


def test_a_transaction_on_a_lost_connection_fails_as_a_whole(db: StoreDatabase, settings: Settings) -> None:
    """Every further statement of the transaction fails in the same way, none is stored, and the next unit works."""
    block = db.atomic()
    block.__enter__()
    insert(db)
    end(settings, backend(db))

    for _ in range(3):
        with pytest.raises(ConnectionFailed, match="lost"):
            insert(db)
    with pytest.raises(ConnectionFailed, match="lost") as caught:
        block.__exit__(None, None, None)

    assert not isinstance(caught.value, AmbiguousCommit), "COMMIT was never sent"
    assert (True, 0) == (db.is_closed(), count(db))


@pytest.mark.parametrize("ending", ["commit", "rollback", "close"])
def test_a_lost_transaction_begun_by_hand_does_not_go_on_without_one(
    db: StoreDatabase, settings: Settings, ending: str
) -> None:
    """After `begin()`, nothing is stored on another connection until the lost transaction was ended."""
    db.begin()
    insert(db)
    end(settings, backend(db))
    for _ in range(2):
        with pytest.raises(ConnectionFailed, match="lost"):
            insert(db)

    if ending == "commit":
        with pytest.raises(ConnectionFailed, match="lost"):
            db.commit()
    else:
        getattr(db, ending)()

    assert (True, 0) == (db.is_closed(), count(db))


def test_manual_commits_go_on_after_a_lost_connection(db: StoreDatabase, settings: Settings) -> None:
    """Between two transactions of a `manual_commit` block a lost connection is replaced."""
    with db.manual_commit():
        end(settings, backend(db))
        db.begin()
        insert(db)
        db.commit()

    assert 1 == count(db)


def test_a_unit_goes_on_between_transactions(db: StoreDatabase, settings: Settings) -> None:
    """A worker that holds a unit for hours survives the end of its connection between two transactions."""
    with db.unit():
        first = backend(db)
        end(settings, first)
        with db.atomic():
            insert(db)
            second = backend(db)
        end(settings, second)
        third = backend(db)

    assert 3 == len({first, second, third})
    assert 1 == count(db)


def test_a_unit_with_state_in_its_session_does_not_go_on_without_it(db: StoreDatabase, settings: Settings) -> None:
    """Where a lock or setting went with the connection, the rest of the unit fails, and the next one works."""
    with db.unit():
        db.cursor().execute("SELECT pg_advisory_lock(1)")
        end(settings, backend(db))
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="lost"):
                insert(db)

    insert(db)
    assert 1 == count(db)


def test_a_connection_that_cannot_be_cleaned_is_not_used_again(db: StoreDatabase, settings: Settings) -> None:
    """A unit whose connection went away unnoticed, with something left in its session, ends in peace."""
    with db.unit():
        db.cursor().execute("SET work_mem = '77MB'")
        end(settings, backend(db))

    insert(db)
    assert "1 open, 1 idle" in repr(db.pool)


def test_a_stream_that_is_cut_off_is_told(db: StoreDatabase, settings: Settings) -> None:
    """Rows that were still to come from the server fail like any other statement."""
    query = peewee.Select([peewee.SQL("generate_series(1, 1000) AS n")], [peewee.SQL("n")]).bind(db)

    @db.unit()
    def read() -> None:
        rows = ServerSide(query, array_size=10)
        assert {"n": 1} == next(rows)
        end(settings, backend(db))
        list(rows)

    with pytest.raises(ConnectionFailed, match="lost"):
        read()
    assert (0, True) == (count(db), db.is_closed())


def test_a_statement_that_is_cut_off_is_told(db: StoreDatabase, settings: Settings) -> None:
    """A connection that ends while the server works is one typed error, in whichever thread it was used."""
    started = threading.Event()
    pids = []

    def work() -> None:
        with db.unit():
            pids.append(backend(db))
            started.set()
            db.execute_sql("SELECT pg_sleep(600)")

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        started.wait()
        end(settings, pids[0])
        with pytest.raises(ConnectionFailed, match="lost"):
            working.result()

    assert (0, True) == (count(db), db.is_closed())


def test_threads_work_through_a_restart_of_the_server(reachable_tmp: Path) -> None:
    """A server that restarts costs what was under way one typed error each; what was committed is there, once."""
    server = EmbeddedServer(reachable_tmp / f"restarted-{uuid.uuid4().hex[:8]}")
    server.start()
    settings = Settings.load(server.url("postgres"), environ={}, dotenv=None)
    database = StoreDatabase(attrs.evolve(settings, connection_limit=3))
    database.execute_sql("CREATE TABLE kept (number int PRIMARY KEY)")
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(worker: int) -> tuple[list[int], list[int]]:
        stored, unsure = [], []
        number = worker
        while not stop.is_set():
            number += 6
            try:
                with database.atomic():
                    insert(database, number)
            except AmbiguousCommit:
                unsure.append(number)
            except ConnectionFailed as failure:
                failures.append(failure)
            else:
                stored.append(number)
        return stored, unsure

    with ThreadPoolExecutor(6) as threads:
        working = [threads.submit(work, worker) for worker in range(6)]
        for _ in range(2):
            reached = count(database) + 50
            while count(database) < reached:
                time.sleep(0.01)
            server.close()
            server.start()
            settled = False
            while not settled:
                try:
                    count(database)
                    settled = True
                except ConnectionFailed:
                    time.sleep(0.01)
        stop.set()
        results = [future.result() for future in working]

    stored = {number for each, _ in results for number in each}
    unsure = {number for _, each in results for number in each}
    found = {number for (number,) in database.execute_sql("SELECT number FROM kept")}
    database.close_all()
    server.close()
    assert stored <= found <= stored | unsure
    assert failures
    assert "0 open, 0 idle" in repr(database.pool)

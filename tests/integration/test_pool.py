"""The pool under threads and forks: fair, bounded, without leaks, and never two users on one connection."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

from myloware_store.core.errors import ConnectionFailed, PoolTimeout
from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ADVISORY_LOCKS = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """

# Python 3.12 and later warn of every fork beside other threads, which is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def settings(plain_url: str) -> Settings:
    """Give settings for two connections."""
    found = Settings.load(plain_url, environ={}, dotenv=None)
    return attrs.evolve(found, connection_limit=2, pool_timeout=60)


@pytest.fixture
def db(settings: Settings) -> Iterator[StoreDatabase]:
    """Give a database of two connections."""
    database = StoreDatabase(settings)
    yield database
    database.close_all()


@pytest.fixture
def sessions(plain_url: str) -> Iterator[Callable[[], int]]:
    """Give a way to count the sessions of the pool that the server has."""
    with closing(psycopg2.connect(plain_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def count() -> int:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'myloware_store'"
            )
            row = cursor.fetchone()
            assert row is not None
            number: int = row[0]
            return number

        yield count


def settled(count: Callable[[], int], expected: int) -> int:
    """Wait until the server has noticed the clients that went away, at most ten seconds."""
    deadline = time.monotonic() + 10
    while (found := count()) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def one(database: StoreDatabase, sql: str, *params: object) -> Any:
    """Run a statement and return its one value."""
    return database.execute_sql(sql, params).fetchone()[0]


def test_an_empty_pool_is_a_timeout_that_says_what_to_do(db: StoreDatabase, settings: Settings) -> None:
    """A thread that finds every connection in use gets one typed error after the deadline, and no connection leaks."""
    impatient = StoreDatabase(attrs.evolve(settings, pool_timeout=0.05))
    release = threading.Event()
    holding = threading.Barrier(3)

    def hold() -> None:
        with impatient.unit():
            holding.wait()
            release.wait()

    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(hold) for _ in range(2)]
        holding.wait()
        with pytest.raises(PoolTimeout, match="connection_limit") as caught:
            impatient.execute_sql("SELECT 1")
        release.set()
        for future in held:
            future.result()

    assert isinstance(caught.value, ConnectionFailed)
    assert 1 == one(impatient, "SELECT 1")
    impatient.close_all()


def test_no_more_connections_than_the_limit_are_ever_open(db: StoreDatabase, sessions: Callable[[], int]) -> None:
    """Fifty threads on two connections all get their turn, and the server never has more than two sessions."""
    most = []

    def work(number: int) -> int:
        found: int = one(db, "SELECT %s + 0 * length(pg_sleep(0.001)::text)", number)
        return found

    with ThreadPoolExecutor(50) as threads:
        results = [threads.submit(work, number) for number in range(1000)]
        while not all(future.done() for future in results):
            most.append(sessions())

    assert list(range(1000)) == [future.result() for future in results]
    assert max(most) <= 2
    assert "2 open, 2 idle" in repr(db.pool)


def test_turns_are_taken_in_the_order_they_were_asked_for(db: StoreDatabase, settings: Settings) -> None:
    """No thread that comes later, or comes back, is served before one that waits."""
    single = StoreDatabase(attrs.evolve(settings, connection_limit=1))
    order: list[int] = []

    def wait_for_turn(number: int) -> None:
        with single.unit():
            order.append(number)

    with ThreadPoolExecutor(20) as threads:
        with single.unit():
            waiting = []
            for number in range(20):
                waiting.append(threads.submit(wait_for_turn, number))
                while len(single.pool._queue) <= number:
                    time.sleep(0)
        # This thread comes back at once, and yet after the twenty.
        with single.unit():
            order.append(-1)
        for future in waiting:
            future.result()
    single.close_all()

    assert [*range(20), -1] == order


def test_threads_that_never_close_leak_nothing(db: StoreDatabase, sessions: Callable[[], int]) -> None:
    """A thousand threads that end without a word, some amid a transaction, leave nothing behind."""
    db.execute_sql("CREATE TABLE IF NOT EXISTS left_over (number int)")

    def statement() -> None:
        db.execute_sql("SELECT 1")

    def connect_only() -> None:
        db.connect()
        db.execute_sql("SELECT 1")

    def transaction() -> None:
        db.begin()
        db.execute_sql("INSERT INTO left_over VALUES (1)")

    def cursor() -> None:
        db.cursor().execute("SELECT pg_advisory_lock(1)")

    def unfinished() -> None:
        block = db.atomic()
        block.__enter__()
        db.execute_sql("INSERT INTO left_over VALUES (1)")

    ways = (statement, connect_only, statement, transaction, statement, cursor, statement, unfinished)
    for round_ in range(0, 1000, 20):
        crew = [threading.Thread(target=ways[(round_ + number) % len(ways)]) for number in range(20)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()

    db.close_idle()
    assert 0 == settled(sessions, 0)
    assert 0 == one(db, "SELECT count(*) FROM left_over")
    assert 0 == one(db, _ADVISORY_LOCKS)
    db.close_idle()
    assert "0 open, 0 idle" in repr(db.pool)


def test_the_pool_closes_what_comes_back_after_close_all(db: StoreDatabase, sessions: Callable[[], int]) -> None:
    """`close_all` takes no connection from a thread that works, and yet none stays open."""
    with db.unit():
        one(db, "SELECT 1")
        with ThreadPoolExecutor(1) as threads:
            threads.submit(db.execute_sql, "SELECT 1").result()
            threads.submit(db.close_all).result()
        assert 1 == one(db, "SELECT 1")

    assert 0 == settled(sessions, 0)
    assert 1 == one(db, "SELECT 1")


def test_an_interrupt_while_waiting_loses_no_place(db: StoreDatabase, settings: Settings) -> None:
    """Ctrl-C in a thread that waits for a connection leaves the pool as large as it was."""
    single = StoreDatabase(attrs.evolve(settings, connection_limit=1, pool_timeout=math.inf))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with single.unit():
            held.set()
            release.wait()

    def interrupt() -> None:
        while not single.pool._queue:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(2) as threads:
        holding = threads.submit(hold)
        held.wait()
        interrupting = threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            single.execute_sql("SELECT 1")
        interrupting.result()
        release.set()
        holding.result()

    assert (1, 1) == (one(single, "SELECT 1"), single.pool._places)
    single.close_all()


def test_a_failed_connection_keeps_no_place(settings: Settings) -> None:
    """A server that cannot be reached fails every time in the same way, not with an empty pool."""
    nowhere = StoreDatabase(attrs.evolve(settings, host="/nowhere", connection_limit=1, pool_timeout=1))

    for _ in range(3):
        with pytest.raises(ConnectionFailed, match="cannot connect"):
            nowhere.execute_sql("SELECT 1")


def fork(child: Callable[[], object]) -> int:
    """Run a function in a forked child, and return the exit code: 0 if it returned something true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if child() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_has_connections_of_its_own(db: StoreDatabase, sessions: Callable[[], int]) -> None:
    """The child shares no connection with its parent, and its end does not touch the parent's."""
    idle = one(db, "SELECT pg_backend_pid()")
    with db.atomic():
        used = one(db, "SELECT pg_backend_pid()")
        code = fork(lambda: one(db, "SELECT pg_backend_pid()") not in {idle, used} and db.is_closed())
        assert used == one(db, "SELECT pg_backend_pid()")

    assert (0, idle) == (code, one(db, "SELECT pg_backend_pid()"))


def test_a_child_may_leave_the_parents_blocks(db: StoreDatabase) -> None:
    """A child that was forked inside blocks can unwind them, and ends no transaction of the parent's."""
    db.execute_sql("CREATE TABLE IF NOT EXISTS forked (number int)")
    pid = None
    try:
        with db.unit(), db, db.atomic(), db.atomic():
            db.execute_sql("INSERT INTO forked VALUES (1)")
            pid = os.fork()
            if pid == 0:
                sys.exit()
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        if pid == 0:
            os._exit(0 if one(db, "SELECT count(*) FROM forked") == 0 and db.is_closed() else 1)

    assert (0, 1) == (code, one(db, "SELECT count(*) FROM forked"))


def test_children_forked_under_load_mix_nothing_up(db: StoreDatabase) -> None:
    """While threads work, forked children and the parent each get the answers to their own questions."""
    stop = threading.Event()

    def ask(start: int) -> int:
        wrong = 0
        while not stop.is_set():
            start += 1
            with db.atomic():
                wrong += start != one(db, "SELECT %s::int", start)
        return wrong

    def child() -> bool:
        mine = os.getpid()
        with ThreadPoolExecutor(4) as threads:
            answers = threads.map(lambda n: one(db, "SELECT %s::bigint", mine * 1000 + n), range(100))
            return [mine * 1000 + n for n in range(100)] == list(answers)

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, number * 10**8) for number in range(4)]
        codes = [fork(child) for _ in range(10)]
        stop.set()

    assert [0] * 10 == codes
    assert [0] * 4 == [future.result() for future in asking]


def in_worker(number: int) -> tuple[int, int]:
    """Ask the server something, in a process of a multiprocessing pool."""
    assert _shared is not None
    with _shared.atomic():
        return number, one(_shared, "SELECT %s::int", number)


_shared: StoreDatabase | None = None


def test_multiprocessing_works_with_a_database_of_the_parents(db: StoreDatabase, sessions: Callable[[], int]) -> None:
    """Forked workers use the module's database as the parent does, and their sessions end with them."""
    global _shared  # noqa: PLW0603 - as an application's module would have it
    _shared = db
    before = one(db, "SELECT pg_backend_pid()")

    with multiprocessing.get_context("fork").Pool(3) as workers:
        answers = workers.map(in_worker, range(200))

    assert [(number, number) for number in range(200)] == answers
    assert before == one(db, "SELECT pg_backend_pid()")
    assert 1 == settled(sessions, 1)


def test_a_child_does_not_keep_the_parents_session_open(plain_url: str, sessions: Callable[[], int]) -> None:
    """When the parent is killed, its session ends though a child lives on, and with it the locks that it held."""
    script = """
import os, sys, time
from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings
db = StoreDatabase(Settings.load(sys.argv[1], environ={}, dotenv=None))
with db.atomic():
    db.execute_sql("SELECT pg_advisory_xact_lock(42)")
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    print(child, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, plain_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        during = sessions()
        parent.kill()
        parent.wait()
        after = settled(sessions, 0)
        os.kill(child, 0)

    assert (1, 0) == (during, after)

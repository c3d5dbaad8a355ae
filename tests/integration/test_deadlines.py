"""Calls whose server falls silent: each ends at its deadline with the right error, and the next one works."""

from __future__ import annotations

import io
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import attrs
import psycopg2
import pytest

from myloware_store import AmbiguousCommit, ConnectionFailed, InvalidInput, Settings
from myloware_store.db import deadlines
from myloware_store.db.database import StoreDatabase
from myloware_store.db.listening import Listener
from myloware_store.db.pool import alive
from tests.integration.conftest import BLOCKED, PATIENCE, until
from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON = 0.15
"""A deadline in seconds, for calls that nobody answers."""


@pytest.fixture
def relay(db: StoreDatabase, relayed: Callable[..., Relay]) -> Relay:
    """Give a way to the server on which it can fall silent."""
    return relayed(db.settings.host, db.settings.port)


@pytest.fixture
def bounded(db: StoreDatabase, relay: Relay) -> Iterator[StoreDatabase]:
    """Give a database whose calls have a deadline, with one table, which holds the number 0."""
    db.execute_sql("DROP TABLE IF EXISTS kept; CREATE TABLE kept (number int); INSERT INTO kept VALUES (0)")
    database = StoreDatabase(attrs.evolve(relay.before(db.settings), call_timeout=SOON, connection_limit=2))
    with database.call_timeout(PATIENCE):
        database.execute_sql("SELECT 1")
    yield database
    relay.flow()
    database.close_all()


def silently(relay: Relay, call: Callable[[], object]) -> ConnectionFailed:
    """Return the error of a call that nobody answers; the server answers again afterwards."""
    relay.stall()
    try:
        with pytest.raises(ConnectionFailed) as caught:
            call()
    finally:
        relay.flow()
    return caught.value


def heals(database: StoreDatabase) -> bool:
    """Return whether the pool has dropped the connection, and the next call works on another."""
    dropped = "0 open, 0 idle" in repr(database.pool)
    with database.call_timeout(PATIENCE):
        return dropped and database.execute_sql("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("call", "ambiguous"),
    [
        (lambda db: db.execute_sql("SELECT 1", reads=True), False),
        (lambda db: db.execute_sql("INSERT INTO kept VALUES (1)"), True),
        (lambda db: db.execute_prepared("INSERT INTO kept VALUES (%(n)s)", {"n": 1}), True),
        (lambda db: db.execute_tuned({"work_mem": "'1MB'"}, "SELECT 1"), False),
        (lambda db: db.copy("COPY kept TO STDOUT", io.BytesIO()), False),
        (lambda db: db.copy("COPY kept FROM STDIN", io.StringIO("1\n")), True),
        (lambda db: db.copy("COPY kept FROM STDIN", io.BytesIO(b"1\n" * 10_000_000)), True),
        (lambda db: db.transact(lambda: None), False),
    ],
)
def test_a_call_that_nobody_answers_ends(
    bounded: StoreDatabase, relay: Relay, call: Callable[[StoreDatabase], object], *, ambiguous: bool
) -> None:
    """As if the connection were lost: a write may have been stored, a read was not made."""
    error = silently(relay, lambda: call(bounded))

    assert (ambiguous, "08006") == (isinstance(error, AmbiguousCommit), error.sqlstate)
    assert f"no reply had come within {SOON:g} s: call_timeout" in str(error)
    assert heals(bounded)


def test_a_transaction_is_rolled_back_and_not_retried(bounded: StoreDatabase, relay: Relay, db: StoreDatabase) -> None:
    """In the middle of it nothing was stored; at its COMMIT nobody knows."""
    runs: list[int] = []

    def work(stall: Callable[[], object]) -> None:
        runs.append(1)
        bounded.execute_sql("INSERT INTO kept VALUES (1)")
        stall()
        bounded.execute_sql("INSERT INTO kept VALUES (2)")

    with pytest.raises(ConnectionFailed, match="open transaction was rolled back") as caught:
        bounded.transact(lambda: work(relay.stall))
    relay.flow()
    assert (False, 1, True) == (isinstance(caught.value, AmbiguousCommit), len(runs), heals(bounded))

    relay.answers.hears = lambda data: relay.answers.flows.clear() if b"COMMIT" in data else None
    with pytest.raises(AmbiguousCommit, match="call_timeout"):
        bounded.transact(lambda: work(lambda: None))
    relay.flow()
    assert (2, [0, 1, 2]) == (len(runs), [n for (n,) in db.execute_sql("SELECT number FROM kept ORDER BY number")])


def test_savepoints_and_streams_end_with_their_transaction(bounded: StoreDatabase, relay: Relay) -> None:
    """Nothing that tidies up waits longer than the deadline."""

    def nested() -> None:
        with bounded.atomic(), bounded.atomic():
            rows = bounded.execute_sql("SELECT generate_series(1, 1000000)", named_cursor=True)
            assert rows.fetchmany(2) == [(1,), (2,)]
            relay.stall()
            try:
                rows.fetchmany(100_000)
            finally:
                rows.close()

    with pytest.raises(ConnectionFailed, match="call_timeout"):
        nested()
    relay.flow()
    assert heals(bounded)


@pytest.mark.parametrize("soil", [lambda db: db.begin(), lambda db: db.cursor()])
def test_a_connection_that_cannot_be_reset_is_dropped(
    bounded: StoreDatabase, relay: Relay, soil: Callable[[StoreDatabase], object]
) -> None:
    """Neither the ROLLBACK nor the reset of a session, at the end of a unit, waits longer."""
    with bounded.unit():
        soil(bounded)
        relay.stall()
    bounded.close()
    relay.flow()
    assert heals(bounded)


def test_all_threads_end_and_the_pool_heals(bounded: StoreDatabase, relay: Relay) -> None:
    """Also those that wait for a connection."""
    relay.stall()
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(bounded.execute_sql, "SELECT 1") for _ in range(4)]
        while not all(call.done() for call in calls):
            if bounded.pool.in_use == 0 or any(call.done() for call in calls):
                relay.flow()
            time.sleep(0.01)
    assert any(isinstance(call.exception(), ConnectionFailed) for call in calls)
    with bounded.call_timeout(PATIENCE):
        assert [(1,)] == bounded.execute_sql("SELECT 1").fetchall()


def test_a_forked_child_has_a_watchdog_of_its_own(bounded: StoreDatabase, relay: Relay) -> None:
    """The thread of its parent does not exist there."""
    assert silently(relay, lambda: bounded.execute_sql("SELECT 1"))
    if (child := os.fork()) == 0:
        with suppress(BaseException):
            with bounded.call_timeout(PATIENCE), bounded.unit():
                bounded.execute_sql("SELECT 1")
                with bounded.call_timeout(SOON), pytest.raises(ConnectionFailed, match="call_timeout"):
                    bounded.execute_sql("SELECT pg_sleep(600)")
            os._exit(0)
        os._exit(1)
    assert 0 == os.waitpid(child, 0)[1]


class Slow:
    """A file that takes longer than the deadline for its lines."""

    def __init__(self) -> None:
        self.lines = [b"1\n", b"2\n", b""]
        self.written = b""

    def read(self, _size: int) -> bytes:
        """Give a line."""
        time.sleep(1.5 * SOON)
        return self.lines.pop(0)

    def write(self, data: bytes) -> None:
        """Take a line."""
        time.sleep(SOON)
        self.written += data


def test_a_copy_that_makes_progress_goes_on(bounded: StoreDatabase) -> None:
    """The deadline is for the server, and not for the whole, nor for the file."""
    assert 2 == bounded.copy("COPY kept FROM STDIN", Slow())
    file, text = Slow(), io.StringIO()
    bounded.copy("COPY kept TO STDOUT", file)
    bounded.copy("COPY kept TO STDOUT", text)
    assert (b"0\n1\n2\n", "0\n1\n2\n") == (file.written, text.getvalue())


def test_a_listener_waits_as_long_as_it_likes(bounded: StoreDatabase, relay: Relay, myloware_dsn: str) -> None:
    """Only its statements have a deadline; the session that waits stays."""
    settings = attrs.evolve(relay_settings(relay, myloware_dsn), call_timeout=SOON)
    database = StoreDatabase(settings)
    with closing(Listener(database)) as listener:
        assert listener.arm()
        listener.wait(2 * SOON)
        session = listener._connection
        assert session is not None
        assert alive(session)
    with closing(Listener(database)) as listener:
        relay.answers.hears = lambda data: relay.answers.flows.clear() if b"LISTEN" in data else None
        assert not listener.arm()
    relay.flow()
    database.close_all()


def relay_settings(relay: Relay, dsn: str) -> Settings:
    """Return the settings of the store's database through the relay."""
    return relay.before(Settings.load(dsn))


def test_a_long_statement_can_have_its_time(bounded: StoreDatabase) -> None:
    """The block lifts the deadline, also inside another one, and it holds again afterwards."""
    with bounded.call_timeout(None), bounded.unit():
        bounded.execute_sql(f"SELECT pg_sleep({2 * SOON})")
        with bounded.call_timeout(SOON), pytest.raises(ConnectionFailed):
            bounded.execute_sql("SELECT pg_sleep(600)")
    with pytest.raises(ConnectionFailed, match="call_timeout"):
        bounded.execute_sql("SELECT pg_sleep(600)")
    with pytest.raises(InvalidInput, match="call_timeout"), bounded.call_timeout(-1):
        pass


def test_a_first_call_at_exit_has_no_deadline(bounded: StoreDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on, an interpreter that exits starts no threads; the call works without."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(deadlines, "_watchdog", None)
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert (1,) == bounded.execute_sql("SELECT 1").fetchone()


def test_off_means_off_whatever_is_in_force(db: StoreDatabase) -> None:
    """Connections of migrations and builds have no deadline, in a worker and on the command line, too."""
    with db.call_timeout(SOON), closing(psycopg2.connect(db.settings.libpq_url)) as connection:
        assert deadlines.watch(connection, math.inf) is None
        call = deadlines.watch(connection, None)
        assert (call, SOON) == (deadlines.call_on(connection), deadlines.timeout_in_force(60.0))
        assert call is not None
        call.end()
        assert deadlines.call_on(connection) is None


def test_the_server_ends_a_statement_that_was_given_up(bounded: StoreDatabase, db: StoreDatabase) -> None:
    """It would still wait for the lock, and one after the other with it."""
    bounded.close_all()
    with db.atomic():
        db.execute_sql("LOCK TABLE kept")
        with bounded.call_timeout(4 * SOON), pytest.raises(ConnectionFailed):
            bounded.execute_sql("INSERT INTO kept VALUES (1)")
        until(lambda: not db.execute_sql(BLOCKED).fetchone())


def test_what_ends_in_time_is_left_alone(bounded: StoreDatabase) -> None:
    """A thousand calls in two threads under a deadline that many of them nearly reach share two connections."""
    stop = time.monotonic() + 4 * SOON

    def work() -> None:
        while time.monotonic() < stop:
            with suppress(ConnectionFailed):
                bounded.execute_sql("SELECT pg_sleep(%s)", (SOON * 0.5,))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "2 open, 2 idle" in repr(bounded.pool)


def test_a_host_that_never_answers_is_given_up(bounded: StoreDatabase, relay: Relay) -> None:
    """Connecting takes no longer than `call_timeout` either, in whole seconds."""
    assert "1" == bounded.settings.connect_kwargs()["connect_timeout"]
    bounded.close_all()
    assert "did not answer in time" in str(silently(relay, lambda: bounded.execute_sql("SELECT 1")))
    relay.answers.hears = lambda data: relay.answers.flows.clear() if data[:1] == b"T" else None
    with pytest.raises(ConnectionFailed, match="did not answer in time"):  # after the login
        StoreDatabase(bounded.settings).execute_sql("SELECT 1")


def test_a_slow_network_is_not_a_silent_one(bounded: StoreDatabase, relay: Relay) -> None:
    """Each reply takes a third of the deadline, and many of them more than all of it."""
    relay.answers.delay = SOON / 3
    with bounded.atomic():
        for _ in range(4):
            assert [(1,)] == bounded.execute_sql("SELECT 1").fetchall()


def test_a_deadline_may_end_in_another_thread(db: StoreDatabase) -> None:
    """As a generator's, which several threads of a web framework advance."""

    def bounded() -> Iterator[None]:
        with db.call_timeout(SOON):
            yield

    block = bounded()
    next(block)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(next, block, "ended").result() == "ended"
    assert deadlines.timeout_in_force(None) is None

"""Signals while the main thread waits for the server: what they interrupt, what they leave alone, and what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import attrs
import psycopg2
import pytest

from myloware_store.core.errors import DatabaseFault, TransactionConflict
from myloware_store.db import interrupts
from myloware_store.db.database import StoreDatabase
from tests.integration.conftest import BLOCKED, PATIENCE, Pair, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import connection, cursor

    from tests.relay import Relay

Handlers: TypeAlias = "Callable[[int, Callable[[], object]], None]"

PROGRAM = '''
"""Statements that Ctrl-C ends, one after the other: prints what became of each, and then what still works."""

import asyncio, os, signal, sys, threading, time
import psycopg2
from myloware_store import Store, WorkItem

url = sys.argv[1]
other = psycopg2.connect(url)
other.autocommit = True
watcher = other.cursor()


def press(times=1):
    """Press Ctrl-C once in each of the next statements that wait."""
    pressed = set()
    while len(pressed) < times:
        watcher.execute(
            "SELECT query_start FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )
        if begun := set(watcher.fetchall()) - pressed:
            pressed |= begun
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


def interrupted(call, times=1):
    typist = threading.Thread(target=press, args=(times,))
    typist.start()
    try:
        call()
    except KeyboardInterrupt as error:
        context = type(error.__context__).__name__
        return f"KeyboardInterrupt after {context}"
    finally:
        typist.join()


with Store.open(url) as store:
    sleep = lambda: store.db.execute_sql("SELECT pg_sleep(60)")

    def inside():
        with store.db.atomic():
            store.work.submit([{"type": "TICKET", "content": "half"}])
            sleep()

    def streamed():
        with open(os.devnull, "w") as file:
            store.db.copy("COPY (SELECT pg_sleep(60)) TO STDOUT", file)

    async def awaited():
        try:
            sleep()
        except Exception as error:
            print(type(error).__name__, getattr(error, "sqlstate", ""))
        sleep()

    print(interrupted(sleep))
    print(interrupted(inside))
    print(interrupted(streamed))
    print(interrupted(lambda: asyncio.run(awaited()), times=2))
    print(store.db.pool.in_use, store.db.pool.opened, WorkItem.select().where(WorkItem.content == "half").count())
    print(signal.set_wakeup_fd(-1))
    if (child := os.fork()) == 0:
        other = psycopg2.connect(url)
        other.autocommit = True
        watcher = other.cursor()
        print("child", interrupted(sleep), flush=True)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
    print(interrupted(sleep))
'''


def test_ctrl_c_ends_the_statement_that_the_main_thread_waits_for(myloware_dsn: str) -> None:
    """KeyboardInterrupt comes out of the call, the connection goes on, and no transaction is left: also in a child."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, myloware_dsn]  # 3.12's of forks
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)

    out = "KeyboardInterrupt after NoneType"
    lines = [out, out, out, "TransactionConflict 57014", out, "0 1 0", "-1", f"child {out}", "0", out]
    assert ("", lines) == (done.stderr, done.stdout.splitlines())


@pytest.fixture
def handle() -> Iterator[Handlers]:
    """Give a function that sets the handler of a signal until the end of the test."""
    before = {}

    def set_handler(number: int, act: Callable[[], object]) -> None:
        before[number] = signal.signal(number, lambda *_: act())

    yield set_handler
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def locked(db: StoreDatabase, pairs: type[Pair]) -> Iterator[connection]:
    """Give a connection whose transaction has locked the one row of the table."""
    pairs.create(name="a")
    with closing(psycopg2.connect(**db.settings.connect_kwargs())) as other, other.cursor() as run:
        run.execute("UPDATE pair SET number = 1")
        yield other


@contextmanager
def kill(other: connection, *numbers: int, often: bool = False, release: bool = False) -> Iterator[None]:
    """Send signals to this process once its main thread waits for the other connection.

    With `release`, that connection commits half a second later, when the signals would have cancelled the statement.
    """
    over = threading.Event()

    def send() -> None:
        with other.cursor() as run:
            until(lambda: ask(run, BLOCKED))
        for number in numbers:
            os.kill(os.getpid(), number)
        while often and not over.wait(0.01):
            os.kill(os.getpid(), numbers[0])
        if release:
            over.wait(0.5)
            other.commit()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        if (watcher := interrupts._watcher) is not None:
            watcher.take()  # what came too late is not for the next statement


def ask(run: cursor, sql: str) -> bool:
    """Say whether a query returns any row."""
    run.execute(sql)
    return bool(run.fetchall())


def update() -> None:
    """Wait for the lock on the row."""
    Pair.update(number=Pair.number + 1).execute()


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
def test_what_a_handler_raises_comes_out_of_the_call(
    db: StoreDatabase, locked: connection, handle: Handlers, number: int
) -> None:
    """A timeout of pytest-timeout's, or an exit, ends the wait for a lock, and the transaction is rolled back."""

    def leave() -> None:
        raise SystemExit

    @db.atomic()
    def work() -> None:
        Pair.create(name="half")
        update()

    handle(number, leave)
    with kill(locked, number), pytest.raises(SystemExit) as caught:
        work()

    assert (None, True, ["a"]) == (caught.value.__context__, db.is_closed(), Pair.names())


def test_where_a_handler_returns_a_transaction_is_run_again(
    db: StoreDatabase, pairs: type[Pair], locked: connection, handle: Handlers
) -> None:
    """The statement was cancelled to no purpose."""
    handle(signal.SIGTERM, locked.commit)
    with kill(locked, signal.SIGTERM):
        db.transact(update)

    assert 2 == pairs.get().number


def test_a_late_signal_does_not_reach_the_next_statement(
    db: StoreDatabase, handle: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came during a statement that has ended, and nobody has read it."""
    monkeypatch.setattr(interrupts._Watcher, "_listen", lambda _: None)
    watcher = interrupts._Watcher()
    handle(signal.SIGUSR1, lambda: None)
    with db.unit():
        statement = interrupts.Statement(watcher, db._state.conn)
        signal.raise_signal(signal.SIGUSR1)
        statement.end()
    assert b"" == watcher.take()
    watcher.close()


def test_a_handler_that_has_returned_is_not_made_way_for_again(
    db: StoreDatabase, pairs: type[Pair], locked: connection, handle: Handlers
) -> None:
    """A single statement says that it was cancelled; from then on only a second signal cancels one."""
    heard: list[str] = []
    handle(signal.SIGTERM, lambda: heard.append("SIGTERM"))
    handle(signal.SIGUSR1, lambda: heard.append("SIGUSR1"))
    with kill(locked, signal.SIGTERM), pytest.raises(TransactionConflict, match="SIGTERM came") as caught:
        update()
    assert ("57014", ["SIGTERM"]) == (caught.value.sqlstate, heard)

    with kill(locked, signal.SIGTERM, often=True), pytest.raises(DatabaseFault) as caught_again:
        update()
    assert ("57014", False) == (caught_again.value.sqlstate, isinstance(caught_again.value, TransactionConflict))

    heard.clear()
    with kill(locked, signal.SIGTERM, signal.SIGUSR1, release=True):
        update()
    assert ({"SIGTERM", "SIGUSR1"}, 2) == (set(heard), pairs.get().number)


def test_an_event_loop_gets_the_signals_that_came_during_a_statement(db: StoreDatabase, locked: connection) -> None:
    """Its own wakeup file is in force before and after, and it hears of every signal."""

    async def main() -> list[str]:
        heard: list[str] = []
        called = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, heard.append, "during")
        loop.add_signal_handler(signal.SIGTERM, called.set)
        with kill(locked, signal.SIGUSR1, signal.SIGTERM), suppress(TransactionConflict):
            update()
        await asyncio.wait_for(called.wait(), PATIENCE)
        called.clear()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(called.wait(), PATIENCE)
        return heard

    assert (["during"], True) == (asyncio.run(main()), db.is_closed())
    assert -1 == signal.set_wakeup_fd(-1)


def test_threads_are_left_alone(db: StoreDatabase, pairs: type[Pair], locked: connection, handle: Handlers) -> None:
    """The handler runs in the main thread, which waits for nothing, and other threads' statements go on."""
    heard = threading.Event()
    handle(signal.SIGTERM, heard.set)
    waiting = threading.Thread(target=update)
    with kill(locked, signal.SIGTERM):
        waiting.start()
        until(heard.is_set)
    locked.commit()
    waiting.join(PATIENCE)

    assert 2 == pairs.get().number


class Interrupting:
    """A parameter that raises a signal on its way."""

    def __conform__(self, _protocol: object) -> Interrupting:
        """Stand for itself."""
        return self

    def getquoted(self) -> bytes:
        """Give its text."""
        signal.raise_signal(signal.SIGUSR1)
        return b"1"


def test_a_statement_of_a_handler_leaves_the_one_that_it_interrupts_its_connection(
    db: StoreDatabase, handle: Handlers
) -> None:
    """It does not go back to the pool, for others to take, before both are over."""
    seen: list[object] = []

    def ask() -> None:
        seen.append(db.execute_sql("SELECT 2").fetchone())
        seen.append(db.pool.in_use)

    handle(signal.SIGUSR1, ask)
    seen.append(db.execute_sql("SELECT %s", (Interrupting(),)).fetchone())

    assert ([(2,), 1, (1,)], 0) == (seen, db.pool.in_use)


@pytest.mark.parametrize(("needle", "stored"), [(b"BEGIN", []), (b"INSERT", []), (b"COMMIT", ["a"]), (b"ROLLBACK", [])])
def test_ctrl_c_leaves_no_transaction(
    relayed: Callable[..., Relay], db: StoreDatabase, pairs: type[Pair], needle: bytes, stored: list[str]
) -> None:
    """Whatever it comes during, also the begin of a transaction, what follows is a transaction of its own."""

    def work(database: StoreDatabase) -> None:
        with database.atomic():
            pairs.create(name="a")
            if needle == b"ROLLBACK":
                raise KeyError

    relay = relayed(db.settings.host, db.settings.port)
    relay.asks.hears = lambda data: os.kill(os.getpid(), signal.SIGINT) if needle in data else None
    with ExitStack() as stack:
        typed = StoreDatabase(attrs.evolve(relay.before(db.settings), connection_limit=1))
        stack.callback(typed.close_all)
        stack.enter_context(pairs.bind_ctx(typed))
        with pytest.raises(KeyboardInterrupt):
            work(typed)
        assert (False, True, 0) == (typed.transaction_open(), typed.is_closed(), typed.pool.in_use)
        with suppress(KeyboardInterrupt):
            pairs.create(name="b")

    assert [*stored, "b"] == pairs.names()


STALLED = """
import sys
from myloware_store import ConnectionFailed, Settings
from myloware_store.db.database import StoreDatabase

database = StoreDatabase(Settings.load(sys.argv[1]))
database.execute_sql("SELECT 1")
print("ready", flush=True)
sys.stdin.readline()
try:
    with database.atomic():
        database.execute_sql("SELECT 1 /* stalled */")
except KeyboardInterrupt:
    print("interrupted", database.pool)
"""


def test_ctrl_c_ends_a_statement_that_a_silent_server_does_not_answer(
    db: StoreDatabase, relayed: Callable[..., Relay]
) -> None:
    """A cancel request would not be answered either, and would stop all threads until it is."""
    relay = relayed(db.settings.host, db.settings.port)
    asked = threading.Event()
    command = [sys.executable, "-c", STALLED, relay.before(db.settings).url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def stall(data: bytes) -> None:
            if b"stalled" in data:
                relay.stall()
                asked.set()

        relay.asks.hears = stall
        try:
            process.stdin.write("go on\n")
            process.stdin.flush()
            assert asked.wait(PATIENCE)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert out == "interrupted <ConnectionPool of 2: 0 open, 0 idle>\n"

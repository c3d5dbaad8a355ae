"""Workers that meet what ends others: cancelled statements, stuck threads, errors that cannot even be read."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
import psycopg2
import pytest
from psycopg2 import sql

from myloware_store import Attempt, Worker, WorkerReport, WorkItem, WorkItemStatus
from myloware_store.core.errors import ConstraintViolation
from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings
from tests.integration.conftest import BLOCKED, until, until_blocked, until_listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import Claim, Store

END_OTHERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
FORKING = """
import multiprocessing, os, signal, sys, time
from myloware_store import Store, Worker

def forked():
    ready, tell = os.pipe()
    if (child := os.fork()) == 0:
        os.write(tell, b"!")
        time.sleep(40)
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    return os.waitpid(child, 0)[1]

def pooled():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        names = pool.map(str, [signal.SIGTERM])
        try:
            pool.map_async(time.sleep, [40] * 4).get(timeout=0.2)
        except multiprocessing.TimeoutError:
            return names

def handle(claim):
    return {"forked": forked()} if claim.content == "forked" else {"pooled": pooled()}

with Store.open(sys.argv[1]) as store:
    print(Worker(store, handle, threads=1).run(drain=True).finished)
    print(signal.getsignal(signal.SIGTERM).name, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


class Unreadable(Exception):
    """An error that ends whoever asks what it says."""

    def __str__(self) -> str:
        raise SystemExit


def test_an_error_that_cannot_be_read_fails_its_attempt_only(myloware: Store) -> None:
    """Not the worker: the others are handled."""
    for content in ("unreadable", "fine"):
        myloware.work.submit([{"type": "TICKET", "content": content}])

    def handle(claim: Claim) -> None:
        if claim.content == "unreadable":
            raise Unreadable

    assert WorkerReport(finished=1, failed=1) == Worker(myloware, handle).run(drain=True)
    assert "Unreadable" == Attempt.get(Attempt.status == "FAILED").error


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_drain_ends_though_its_handlers_do_not(myloware: Store, prefetch: int) -> None:
    """Where all threads are stuck with attempts whose time is up, it gives back what waits for them."""
    myloware.work.submit([INVOICE] * 5)
    over = threading.Event()
    worker = Worker(myloware, lambda _: over.wait(60), threads=2, prefetch=prefetch, timeout=0.05, grace=0.05)
    assert WorkerReport(failed=2, released=prefetch) == worker.run(drain=True)
    assert [1, 1, 0, 0, 0] == sorted((item.attempt_count for item in WorkItem.select()), reverse=True)
    assert {WorkItemStatus.QUEUED} == {item.status for item in WorkItem.select()}
    over.set()


def test_a_handler_that_ends_after_its_worker_wakes_nobody(myloware: Store) -> None:
    """What the worker woke itself by is not closed under it: its number would be that of another file by then."""
    myloware.work.submit([INVOICE])
    begun, over = threading.Event(), threading.Event()

    def handle(_claim: Claim) -> None:
        begun.set()
        over.wait(60)

    worker = Worker(myloware, handle, agent_id="late", threads=1, grace=0.01)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run)
        assert begun.wait(60)
        worker.stop()
        assert WorkerReport(released=1) == running.result(60)
    (late,) = [thread for thread in threading.enumerate() if thread.name == "late-0"]
    files = [os.pipe() for _ in range(20)]
    over.set()
    late.join(60)
    for ears, mouth in files:
        os.close(mouth)
        assert b"" == os.read(ears, 9)
        os.close(ears)


def test_a_drain_hears_of_work_that_comes_while_handlers_run(myloware: Store) -> None:
    """A free thread begins with it, however long the others take."""
    myloware.work.submit([{"type": "TICKET", "content": "first"}])
    begun, second = threading.Event(), threading.Event()

    def handle(claim: Claim) -> None:
        if claim.content == "first":
            begun.set()
            assert second.wait(60)
        else:
            second.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(Worker(myloware, handle, threads=2, reap_every=None).run, drain=True)
        assert begun.wait(60)
        until_listening(myloware)
        myloware.work.submit([INVOICE])
        assert WorkerReport(finished=2) == running.result(60)


@pytest.mark.parametrize("while_doing", ["claim", "finish"])
def test_a_statement_that_was_cancelled_is_made_again(myloware: Store, while_doing: str) -> None:
    """By an operator, or by a timeout of the role: the worker goes on, and a result is stored once it can be."""
    order = myloware.work.submit([INVOICE] * 3)
    worker = Worker(myloware, lambda _: 1, threads=2)
    with ThreadPoolExecutor(1) as pool:
        if while_doing == "finish":
            myloware.work.release(myloware.work.claim("agent"))  # what follows changes nothing of the order
        with myloware.db.atomic():
            myloware.db.execute_sql("SELECT FROM work_orders WHERE id = %s FOR UPDATE", (str(order.id),))
            running = pool.submit(worker.run, drain=True)
            for _ in range(2):
                until_blocked(myloware, running)
                myloware.db.execute_sql(f"SELECT pg_cancel_backend(pid) FROM ({BLOCKED}) AS waiting")
        assert WorkerReport(finished=3) == running.result(60)
    assert {(WorkItemStatus.COMPLETED, 1)} == {(item.status, item.attempt_count) for item in WorkItem.select()}


@pytest.fixture
def read_only(myloware_dsn: str) -> Iterator[Callable[[bool], None]]:
    """Give a function that makes new sessions of the database read only or not, and ends those that there are."""
    with closing(psycopg2.connect(myloware_dsn, options="-c default_transaction_read_only=off")) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        def make(yes: bool) -> None:  # noqa: FBT001  what it is about
            name = sql.Identifier(connection.info.dbname)
            how = "SET default_transaction_read_only = on" if yes else "RESET default_transaction_read_only"
            cursor.execute(sql.SQL("ALTER DATABASE {} " + how).format(name))
            if yes:
                cursor.execute(END_OTHERS)

        yield make
        make(False)


def test_a_server_that_is_read_only_is_one_that_is_away(
    myloware: Store, read_only: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The worker waits, hands its result in on a new connection, and goes on with the rest; no try is used up."""
    myloware.work.submit([INVOICE] * 3)

    def handle(claim: Claim) -> int:
        if not caplog.records:
            read_only(True)
        return claim.attempt_number

    worker = Worker(myloware, handle, threads=1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run, drain=True)
        try:
            until(lambda: running.done() or re.search("stored later: .*25006", caplog.text))
        finally:
            read_only(False)
        assert WorkerReport(finished=3) == running.result(60)
    assert [1, 1, 1] == [item.attempt_count for item in WorkItem.select()]


def unreachable(_store: Store) -> None:
    """Use a database whose server is away."""
    away = Settings.load("postgresql://kim@127.0.0.1:1/away", environ={}, dotenv=None)
    StoreDatabase(away).execute_sql("SELECT 1")


def crowded(store: Store) -> None:
    """Ask a pool for a connection whose only one is in use."""
    database = StoreDatabase(attrs.evolve(store.settings, connection_limit=1, pool_timeout=0.01))
    with database.unit(), ThreadPoolExecutor(1) as pool:
        pool.submit(database.execute_sql, "SELECT 1").result()


def cannot_write(store: Store) -> None:
    """Write where nothing can be written."""
    with store.db.atomic():
        store.db.execute_sql("SET TRANSACTION READ ONLY")
        Attempt.delete().execute()


@pytest.mark.parametrize("use", [unreachable, crowded, cannot_write])
def test_a_database_out_of_reach_costs_no_try(myloware: Store, use: Callable[[Store], None]) -> None:
    """The item is given back for a moment, however often that happens."""
    myloware.work.submit([INVOICE], max_attempts=1)
    for _ in range(2):
        assert WorkerReport(released=1) == Worker(myloware, lambda _: use(myloware)).run(drain=True)
        item = WorkItem.get()
        assert (WorkItemStatus.QUEUED, 0, 0) == (item.status, item.attempt_count, Attempt.select().count())
        assert item.available_at > item.updated_at
        WorkItem.update(available_at=item.created_at).execute()
    assert WorkerReport(finished=1) == Worker(myloware, lambda _: None).run(drain=True)


def test_a_statement_that_breaks_its_connection_uses_up_a_try(myloware: Store) -> None:
    """It may be what crashes the server, and must end as a dead letter."""
    myloware.work.submit([INVOICE], max_attempts=1)

    def handle(_claim: Claim) -> None:
        with myloware.db.atomic(), socket.socket(fileno=os.dup(myloware.db.connection().fileno())) as broken:
            broken.shutdown(socket.SHUT_RDWR)
            myloware.db.execute_sql("SELECT 1")

    assert WorkerReport(failed=1) == Worker(myloware, handle).run(drain=True)
    assert 1 == len(myloware.dead_letters.list())


def test_what_a_handler_forks_ends_on_sigterm(myloware: Store, myloware_dsn: str) -> None:
    """A pool's processes have the signal handlers of before, and so has the program when the worker has ended."""
    myloware.work.submit([{"type": "TICKET", "content": content} for content in ("forked", "pooled")])
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, myloware_dsn]  # 3.12's of forks
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert ("", ["2", "SIG_DFL True"]) == (done.stderr, done.stdout.splitlines())
    assert {"forked": 15} == WorkItem.get(WorkItem.content == "forked").result


def test_a_claim_that_is_refused_spoils_no_result(myloware: Store) -> None:
    """Results are stored together with the next claim, and without it if that fails."""
    myloware.db.execute_sql("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$
        """)
    myloware.db.execute_sql("""
        CREATE TRIGGER refuse BEFORE UPDATE ON work_items FOR EACH ROW
        WHEN (NEW.content = 'refused' AND NEW.status = 'PROCESSING') EXECUTE FUNCTION refuse()
        """)
    order = myloware.work.submit([{"type": "TICKET", "content": "good"}], max_attempts=1)

    def handle(_: object) -> int:
        myloware.work.submit([{"type": "TICKET", "content": "refused"}])
        return 1

    with pytest.raises(ConstraintViolation):
        Worker(myloware, handle, threads=1).run(drain=True)
    assert [1] == [item.result for item in myloware.work.items(order.id)]


def test_leases_are_extended_while_a_claim_waits(myloware: Store, myloware_dsn: str) -> None:
    """Somebody has locked the order of the next item: the items that other threads are at are not lost."""
    held = threading.Event()
    with closing(psycopg2.connect(myloware_dsn)) as other:

        def handle(claim: Claim) -> bool:
            if claim.content == "quick":
                order = myloware.work.submit([{"type": "TICKET", "content": "next"}])
                with other.cursor() as cursor:
                    cursor.execute("SELECT FROM work_orders WHERE id = %s FOR UPDATE", (str(order.id),))
                held.set()
            elif claim.content == "slow":
                assert held.wait(60)
                longer = claim.lease_expires_at + timedelta(seconds=2)
                until(
                    lambda: claim.cancelled or (Attempt.get_by_id(claim.attempt_id).lease_expires_at or longer) > longer
                )
                other.rollback()
            return claim.cancelled

        myloware.work.submit([{"type": "TICKET", "content": content} for content in ("slow", "quick")])
        report = Worker(myloware, handle, threads=2, lease=1.5, reap_every=None).run(drain=True)

    assert 2 <= report.finished
    assert {"slow": False, "quick": False}.items() <= {item.content: item.result for item in WorkItem.select()}.items()

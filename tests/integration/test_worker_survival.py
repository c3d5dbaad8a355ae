"""Workers that meet what ends others: cancelled statements, stuck threads, errors that cannot even be read."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from myloware_store import Attempt, Worker, WorkerReport, WorkItem, WorkItemStatus
from tests.integration.conftest import BLOCKED, until_blocked, until_listening

if TYPE_CHECKING:
    from myloware_store import Claim, Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


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

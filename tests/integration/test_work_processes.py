"""Workers that die, hang, race or have a wrong clock: what they held is neither lost nor accepted twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pytest

from myloware_store import (
    Attempt,
    AttemptStatus,
    ConnectionFailed,
    DeadLetter,
    WorkItem,
    WorkItemStatus,
    WorkOrder,
    WorkOrderStatus,
)
from tests.conftest import ROUNDS
from tests.integration.conftest import BLOCKED, until, until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
# A worker in a process of its own: claims one item, tells when it was told to go on, and finishes it.
WORKER = """
import sys
from myloware_store import Store

with Store.open(sys.argv[1]) as store:
    claims = store.work.claim("worker", lease=float(sys.argv[2]))
    print(*[claim.item_id for claim in claims], flush=True)
    sys.stdin.readline()
    print(len(store.work.finish(claims, ["worker"] * len(claims))), flush=True)
"""
# The clocks of Python an hour ahead, before anything else is imported.
AHEAD = """
import datetime, time
real, told = datetime.datetime, time.time
class Ahead(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(hours=1)
    @classmethod
    def utcnow(cls):
        return real.utcnow() + datetime.timedelta(hours=1)
datetime.datetime = Ahead
time.time = lambda: told() + 3600
"""


@contextmanager
def worker(dsn: str, lease: float, script: str = WORKER) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a worker, and give it with the item that it has claimed."""
    command = [sys.executable, "-c", script, dsn, str(lease)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def take_back(store: Store) -> None:
    """Reap until the lease of the one item under way has run out."""
    until(store.work.reap)
    WorkItem.update(available_at=datetime.now(UTC)).execute()


def test_an_item_whose_worker_is_killed_is_tried_again(myloware: Store, myloware_dsn: str) -> None:
    """As often as it may be, and then it is a dead letter: nothing is lost, and nothing tried for ever."""
    order = myloware.work.submit([INVOICE], max_attempts=2)
    for number in (1, 2):
        with worker(myloware_dsn, lease=0.2) as (process, item):
            assert item == str(WorkItem.get().id)
            process.send_signal(signal.SIGKILL)
            process.wait()
        take_back(myloware)
        assert number == Attempt.select().where(Attempt.status == "TIMEOUT").count()
    assert [] == myloware.work.claim("other")
    assert WorkOrderStatus.FAILED is myloware.work.get(order.id).status
    assert 1 == DeadLetter.get().retry_count


def test_a_worker_that_hung_past_its_lease_is_refused(myloware: Store, myloware_dsn: str) -> None:
    """What its successor has stored stays."""
    myloware.work.submit([INVOICE])
    with worker(myloware_dsn, lease=0.2) as (process, _):
        process.send_signal(signal.SIGSTOP)
        take_back(myloware)
        successor = myloware.work.claim("successor")
        assert 1 == len(myloware.work.finish(successor, ["successor"]))
        process.send_signal(signal.SIGCONT)
        told, _ = process.communicate("go on\n")
    assert "0" == told.strip()
    assert "successor" == WorkItem.get().result
    assert {AttemptStatus.TIMEOUT, AttemptStatus.COMPLETED} == {attempt.status for attempt in Attempt.select()}


def test_a_workers_clock_does_not_matter(myloware: Store, myloware_dsn: str) -> None:
    """An hour ahead, its lease is as long as any other, and its finish is accepted."""
    myloware.work.submit([INVOICE])
    with worker(myloware_dsn, 60, AHEAD + WORKER) as (process, item):
        attempt = Attempt.get()
        assert attempt.lease_expires_at is not None
        assert (item, 60) == (
            str(attempt.work_item_id),
            (attempt.lease_expires_at - attempt.started_at).total_seconds(),
        )
        assert abs((attempt.started_at - datetime.now(UTC)).total_seconds()) < 600
        assert {} == myloware.work.reap()
        told, _ = process.communicate("go on\n")
    assert "1" == told.strip()
    processed_at = WorkItem.get().processed_at
    assert processed_at is not None
    assert abs((processed_at - datetime.now(UTC)).total_seconds()) < 600


def together(*calls: Callable[[], object]) -> list[object]:
    """Make the calls at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_two_last_items_that_end_at_once_end_the_order(myloware: Store) -> None:
    """Whichever comes last sees the other one's end."""
    for _ in range(15 * ROUNDS):
        order = myloware.work.submit([INVOICE] * 2)
        first, second = myloware.work.claim("agent", n=2)
        together(
            partial(myloware.work.finish, [first], [1]),
            partial(myloware.work.fail, [second], ["no"], retry=False),
        )
        assert WorkOrderStatus.FAILED is myloware.work.get(order.id).status
    assert 0 == WorkOrder.select().where(WorkOrder.open_items > 0).count()


def test_a_reaper_and_a_finisher_never_both_have_the_item(myloware: Store) -> None:
    """The lease runs out while they race: what was accepted was not taken back, and the other way round."""
    for number in range(15 * ROUNDS):
        myloware.work.submit([INVOICE], max_attempts=1)
        claims = myloware.work.claim("agent", lease=0.001 + number % 15 / 1000)
        accepted, reaped = together(partial(myloware.work.finish, claims, [1]), myloware.work.reap)
        assert isinstance(accepted, set)
        assert isinstance(reaped, dict)
        assert not accepted & set(reaped)
        if not (accepted or reaped):
            until(myloware.work.reap)
        status = WorkItem.get_by_id(claims[0].item_id).status
        assert (WorkItemStatus.COMPLETED if accepted else WorkItemStatus.FAILED) is status


def test_a_claim_whose_session_ends_has_claimed_nothing(myloware: Store) -> None:
    """Not even half of it: the items wait for the next claim, and the books balance."""
    myloware.work.submit([INVOICE] * 4)
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic() as transaction:
        myloware.work.claim("first")  # holds the order, so that the next one waits for it
        claiming = pool.submit(myloware.work.claim, "second", 2)
        until_blocked(myloware, claiming)
        myloware.db.execute_sql(f"SELECT pg_terminate_backend(pid) FROM ({BLOCKED}) AS waiting")
        with pytest.raises(ConnectionFailed):
            claiming.result()
        transaction.rollback()
    assert 0 == Attempt.select().count()
    assert WorkOrderStatus.PENDING is WorkOrder.get().status
    assert [1, 1, 1, 1] == [claim.attempt_number for claim in myloware.work.claim("third", n=9)]

"""Workers whose handlers, sessions and settings do what they should not: no thread, lease or result is lost by it."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from myloware_store import (
    Attempt,
    AttemptStatus,
    Claim,
    InvalidInput,
    RetryLater,
    Settings,
    Store,
    Worker,
    WorkerReport,
    WorkItem,
    WorkItemStatus,
)
from myloware_store.worker.results import hand_in
from myloware_store.worker.threads import Handled
from tests.integration.conftest import extended, until

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
# What counts as a try goes on counting after a rollback.
REFUSE = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$;
    CREATE TRIGGER refuse AFTER UPDATE ON work_items REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION refuse();
"""
MANY_AT_ONCE = """
    IF (SELECT count(*) FROM new_rows WHERE status = 'COMPLETED') > 1 THEN
        RAISE EXCEPTION 'one at a time' USING ERRCODE = 'check_violation';
    ELSIF EXISTS (SELECT FROM new_rows WHERE status = 'COMPLETED' AND content = 'second') AND nextval('tries') <= 6 THEN
        RAISE EXCEPTION 'another one came first' USING ERRCODE = 'serialization_failure';
    END IF;
"""
TRYING_AGAIN = """
    IF EXISTS (SELECT FROM new_rows WHERE status = 'QUEUED') AND nextval('tries') <= 12 THEN
        RAISE EXCEPTION 'another one came first' USING ERRCODE = 'serialization_failure';
    END IF;
"""
GIVING_BACK = """
    IF EXISTS (SELECT FROM new_rows WHERE status = 'QUEUED') AND nextval('tries') <= 6 THEN
        RAISE EXCEPTION 'another one came first' USING ERRCODE = 'serialization_failure';
    END IF;
"""
ENDING = """
    IF EXISTS (SELECT FROM new_rows WHERE status <> 'PROCESSING' AND content = 'refused') THEN
        RAISE EXCEPTION 'never' USING ERRCODE = 'check_violation';
    END IF;
"""
SERVICE = """
import sys
from myloware_store import Store
from myloware_store.worker import Worker

def handle(claim):
    return len(store.work.items(claim.work_order_id))

with Store.open(sys.argv[1]) as store:
    print(Worker(store, handle, threads=4, reap_every=0.01, lease=1).run(drain=True).finished)
"""


def tried(store: Store) -> bool:
    """Tell whether what the trigger refuses was tried, and given up for the time being."""
    ((last, called),) = store.db.execute_sql("SELECT last_value, is_called FROM tries").fetchall()
    return bool(called and last >= 6)


class Impolite(RetryLater):
    """An error whose author forgot its base."""

    def __init__(self) -> None:
        pass


class Changed(RetryLater):
    """An error whose delay was changed to what is none."""

    def __init__(self) -> None:
        super().__init__("later", delay=1)
        self.delay = "soon"  # type: ignore[assignment]


@pytest.mark.parametrize("error", [Impolite, Changed, KeyboardInterrupt, SystemExit, GeneratorExit, RecursionError])
def test_no_error_ends_a_thread(myloware: Store, error: type[BaseException]) -> None:
    """Whatever a handler raises fails its attempt, and the thread goes on with the next item."""
    myloware.work.submit([INVOICE] * 2)
    raised: list[BaseException] = []

    def handle(claim: Claim) -> None:
        if not raised:
            raised.append(error())
            raise raised[0]

    report = Worker(myloware, handle, threads=1).run(drain=True)
    assert (1, 1) == (report.failed, report.finished)


def test_results_are_counted_once(myloware: Store) -> None:
    """Also those of a batch that was taken apart, and that the server went away from half-way."""
    for content in ("first", "second"):
        myloware.work.submit([{"type": "TICKET", "content": content}])
    myloware.db.execute_sql(REFUSE.format(body=MANY_AT_ONCE))
    handled = [Handled(claim, result=1) for claim in myloware.work.claim("agent", n=2)]
    report = WorkerReport()
    left = hand_in(myloware.work, handled, report, myloware.work.finish)
    assert ["second"] == [one.claim.content for one in left]
    assert [] == hand_in(myloware.work, left, report, myloware.work.finish)
    assert WorkerReport(finished=2) == report


def test_a_late_result_meets_a_timeout_that_could_not_be_told_yet(myloware: Store) -> None:
    """The attempt has failed, the result is dropped, and the worker goes on."""
    myloware.work.submit([INVOICE])
    myloware.db.execute_sql(REFUSE.format(body=TRYING_AGAIN))
    report = Worker(myloware, lambda _: until(lambda: tried(myloware)), timeout=0.2).run(drain=True)
    assert WorkerReport(failed=1) == report
    error = Attempt.get().error
    assert error is not None
    assert error.startswith("TimeoutError")


def test_an_item_that_nothing_can_end_does_not_end_the_worker(myloware: Store) -> None:
    """It is left to the end of its lease, and the others are handled."""
    for content in ("refused", "fine", "fine"):
        myloware.work.submit([{"type": "TICKET", "content": content}])
    myloware.db.execute_sql(REFUSE.format(body=ENDING))
    report = Worker(myloware, lambda _: None, threads=1, prefetch=2).run(drain=True)
    assert (2, 1) == (report.finished, report.lost)
    (attempt,) = Attempt.select().where(Attempt.status == AttemptStatus.STARTED)
    assert attempt.work_item.content == "refused"


def test_a_conflict_while_stopping_costs_no_result(myloware: Store) -> None:
    """What cannot be given back at once is given back later, and the running handler's result is stored."""
    for content in ("running", "waiting"):
        myloware.work.submit([{"type": "TICKET", "content": content}])
    myloware.db.execute_sql(REFUSE.format(body=GIVING_BACK))

    def handle(claim: Claim) -> None:
        worker.stop()
        until(lambda: tried(myloware))

    worker = Worker(myloware, handle, threads=1, prefetch=1)
    assert WorkerReport(finished=1, released=1) == worker.run()
    states = {item.content: item.status for item in WorkItem.select()}
    assert {"running": WorkItemStatus.COMPLETED, "waiting": WorkItemStatus.QUEUED} == states


def test_an_item_that_was_lost_and_claimed_again_keeps_its_lease(myloware: Store) -> None:
    """The same worker can have it in two threads, of which the first has lost it: the leases of all others go on."""
    myloware.work.submit([INVOICE])
    kept = threading.Event()

    def handle(claim: Claim) -> int:
        if claim.attempt_number == 1:
            past = datetime.now(UTC) - timedelta(minutes=1)
            Attempt.update(lease_expires_at=past).where(Attempt.id == claim.attempt_id).execute()
            until(lambda: bool(myloware.work.reap()) or WorkItem.get().status is WorkItemStatus.QUEUED)
            WorkItem.update(available_at=past).execute()
            assert kept.wait(60)
            worker.stop()
        else:
            until(lambda: extended(claim))
            kept.set()
        return claim.attempt_number

    worker = Worker(myloware, handle, threads=2, lease=1)
    report = worker.run()
    assert (1, 1) == (report.finished, report.lost)
    assert WorkItem.get().result == 2


def test_a_result_is_what_it_was_when_it_was_returned(myloware: Store) -> None:
    """What the handler's threads do to it afterwards does not matter."""
    myloware.work.submit([INVOICE] * 8)
    seen: list[int] = []

    def handle(claim: Claim) -> list[int]:
        seen.append(len(seen))
        return seen

    assert Worker(myloware, handle, threads=1, prefetch=8).run(drain=True).finished == 8
    assert [*range(1, 9)] == sorted(len(item.result) for item in WorkItem.select())


def test_after_an_outage_work_is_heard_of_at_once(myloware: Store) -> None:
    """The pauses of the time when the server was away are over with it."""
    handled = threading.Event()
    worker = Worker(myloware, lambda _: handled.set())
    worker._pause = 3600.0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run)
        myloware.work.submit([INVOICE])
        assert handled.wait(60)
        handled.clear()
        worker._pause = 3600.0
        myloware.work.submit([INVOICE])
        assert handled.wait(60)
        worker.stop()
        assert running.result(60).finished == 2


def test_few_connections_are_enough(myloware: Store, myloware_dsn: str) -> None:
    """Two for any number of threads, which wait for each other; with one nothing could ever be handed in."""
    settings = Settings.load(myloware_dsn)
    myloware.work.submit([INVOICE] * 30)
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, attrs.evolve(settings, connection_limit=2, pool_timeout=60).url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("30\n", 0), done.stderr
    one = subprocess.run(
        [sys.executable, "-c", SERVICE, attrs.evolve(settings, connection_limit=1).url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "SettingsError: connection_limit" in one.stderr


async def later(_claim: Claim) -> None:
    """Do something, some time."""


@pytest.mark.parametrize("handler", [later, "handle", None])
def test_what_cannot_run_in_a_thread_is_no_handler(myloware: Store, handler: Any) -> None:
    """It would only give something to run later."""
    with pytest.raises(InvalidInput, match=r"^handler: (.*asyncio\.run|(str|NoneType) is not a function)"):
        Worker(myloware, handler)


def test_a_worker_does_not_run_inside_a_transaction(myloware: Store) -> None:
    """Its threads could not see what it claims."""
    myloware.work.submit([INVOICE])
    with myloware.db.atomic(), pytest.raises(InvalidInput, match="cannot run inside a transaction; commit first"):
        Worker(myloware, lambda _: None).run(drain=True)
    assert Attempt.select().count() == 0


def test_a_worker_runs_once_at_a_time(myloware: Store) -> None:
    """A second run is refused, and does not disturb the first; afterwards it can run again."""
    myloware.work.submit([INVOICE])

    def handle(claim: Claim) -> None:
        with pytest.raises(InvalidInput, match="running"):
            worker.run()

    worker = Worker(myloware, handle)
    assert worker.run(drain=True).finished == 1
    assert worker.run(drain=True) == WorkerReport()
    worker.stop()
    assert worker.run() == WorkerReport()

"""Workers on a real database: what they claim ends once, whatever happens to handlers, sessions and processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import (
    ApprovalDecision,
    Attempt,
    AttemptStatus,
    AuditLog,
    Claim,
    DeadLetter,
    InvalidInput,
    NeedsApproval,
    PermanentFailure,
    RetryLater,
    Store,
    Worker,
    WorkItem,
    WorkItemStatus,
    WorkOrderStatus,
)
from tests.integration.conftest import BLOCKED, extended, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import WorkerReport

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
SERVICE = """
import sys
from myloware_store import Store, Worker

def handle(claim):
    print("begun", flush=True)
    sys.stdin.readline()
    return {"by": "the service"}

with Store.open(sys.argv[1]) as store:
    print(Worker(store, handle, threads=1, prefetch=2, lease=2, grace=float(sys.argv[2])).run(), flush=True)
"""


@pytest.fixture
def service(myloware_dsn: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that starts a service with one worker."""
    started: list[subprocess.Popen[str]] = []

    def start(grace: float = 30.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SERVICE, myloware_dsn, str(grace)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def begun(process: subprocess.Popen[str]) -> None:
    """Return once the handler of a service has begun."""
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"


def drained(store: Store, handler: Callable[[Claim], Any], **options: Any) -> WorkerReport:
    """Let a worker do all that can be done now."""
    return Worker(store, handler, **options).run(drain=True)


def states(store: Store) -> list[WorkItemStatus]:
    """Give the states of all items, in the order in which they were submitted."""
    assert store.db
    return [item.status for item in WorkItem.select().order_by(WorkItem.created_at, WorkItem.id)]


def test_every_item_is_handled_once(myloware: Store) -> None:
    """By two workers with several threads each, and the results are stored."""
    order = myloware.work.submit([{"type": "TICKET", "content": str(n)} for n in range(100)])
    handled: list[str] = []

    def handle(claim: Claim) -> dict[str, str]:
        handled.append(claim.content)
        return {"of": claim.content}

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda n: drained(myloware, handle, agent_id=f"agent-{n}", prefetch=4), range(2)))
    assert sorted(map(str, range(100))) == sorted(handled)
    assert sum(report.finished for report in reports) == 100
    items = myloware.work.items(order.id)
    assert all({"of": item.content} == item.result for item in items)
    assert {1} == {item.attempt_count for item in items}


@pytest.mark.parametrize("prefetch", [0, 3])
def test_results_are_stored_and_the_next_items_claimed_in_one_statement(
    myloware: Store, monkeypatch: pytest.MonkeyPatch, prefetch: int
) -> None:
    """Only the first claim, and one that finds nothing left, come alone."""
    order = myloware.work.submit([{"type": "INVOICE", "content": f"Invoice {n}"} for n in range(12)])
    called: list[str] = []

    def listen_to(name: str) -> None:
        call = getattr(myloware.work, name)

        def heard(*given: Any, **named: Any) -> Any:
            called.append(name)
            return call(*given, **named)

        monkeypatch.setattr(myloware.work, name, heard)

    for name in ("claim", "finish", "finish_and_claim"):
        listen_to(name)
    report = Worker(myloware, lambda claim: claim.content, threads=1, prefetch=prefetch).run(drain=True)
    assert 12 == report.finished
    assert WorkOrderStatus.COMPLETED == myloware.work.get(order.id).status
    assert "finish" not in called
    assert called.count("finish_and_claim") >= 12 / (1 + prefetch)
    assert called[0] == "claim"


def test_a_handler_that_raises_fails_the_attempt(myloware: Store) -> None:
    """With its words; it is tried again later, and buried at the last try."""
    myloware.work.submit([INVOICE], max_attempts=1)
    myloware.work.submit([INVOICE])

    def handle(claim: Claim) -> None:
        raise OSError("no toner")

    report = drained(myloware, handle)
    assert (2, 0) == (report.failed, report.finished)
    assert [WorkItemStatus.FAILED, WorkItemStatus.QUEUED] == states(myloware)
    (letter,) = myloware.dead_letters.list()
    assert letter.error == "OSError: no toner"


def test_a_handler_says_how_to_go_on(myloware: Store) -> None:
    """For good, later, or after somebody's decision."""
    for content in ("never", "later", "ask", "sometime"):
        myloware.work.submit([{"type": "TICKET", "content": content}])

    def handle(claim: Claim) -> Any:
        if claim.content == "never":
            raise PermanentFailure("no invoice at all")
        if claim.content == "later":
            raise RetryLater("too many requests", delay=3600)
        if claim.content == "sometime":
            raise RetryLater("too many requests")
        return NeedsApproval({"amount": 17})

    report = drained(myloware, handle)
    assert (3, 1, 0) == (report.failed, report.parked, report.finished)
    never, later, ask, _ = WorkItem.select().order_by(WorkItem.created_at, WorkItem.id)
    assert (WorkItemStatus.FAILED, WorkItemStatus.QUEUED) == (never.status, later.status)
    ((delay,),) = myloware.db.execute_sql(
        "SELECT round(extract(epoch FROM available_at - updated_at)) FROM work_items WHERE id = %s", (str(later.id),)
    )
    assert delay == 3600
    assert [ask.id] == [item.id for item in myloware.approvals.pending()]
    myloware.approvals.decide(ask.id, approver_id="kim", decision=ApprovalDecision.APPROVED, policy_version="1")
    assert WorkItem.get_by_id(ask.id).result == {"amount": 17}


def test_results_that_cannot_be_stored_fail_their_attempt_only(myloware: Store) -> None:
    """What is no JSON, or too large, or an error without words; also a handler that ends its thread."""
    for content in ("set", "large", "exit", "fine"):
        myloware.work.submit([{"type": "TICKET", "content": content}])

    def handle(claim: Claim) -> Any:
        if claim.content == "exit":
            sys.exit(3)
        return {"set": {1}, "large": "x" * 5_000_000, "fine": None}[claim.content]

    report = drained(myloware, handle, threads=1, prefetch=3)
    assert (3, 1) == (report.failed, report.finished)
    errors = [a.error for a in Attempt.select().where(Attempt.status == AttemptStatus.FAILED).order_by(Attempt.id)]
    assert ["InvalidInput", "InvalidInput", "SystemExit"] == [str(error).split(":")[0] for error in errors]


def test_a_handler_works_for_the_tenant_of_its_claim(myloware: Store) -> None:
    """And the agent is the actor; connections and transactions that it leaves open are not the next one's."""
    for tenant in ("acme", "globex"):
        with myloware.tenant(tenant):
            myloware.work.submit([INVOICE])

    def handle(claim: Claim) -> None:
        myloware.audit.record("handled", "work_item", claim.item_id)
        if claim.tenant_id == "acme":
            myloware.db.begin()
            myloware.audit.record("lost", "work_item", claim.item_id)
        else:
            myloware.db.connect()

    drained(myloware, handle, agent_id="agent-7", threads=1)
    lines = {
        (line.tenant_id, line.user_id, line.action)
        for line in AuditLog.select().where(AuditLog.source == "application")
    }
    assert {("acme", "agent-7", "handled"), ("globex", "agent-7", "handled")} == lines
    assert myloware.db.pool.in_use == 0


def test_a_worker_under_a_tenant_claims_for_it_only(myloware: Store) -> None:
    """As `work.claim` does."""
    for tenant in ("acme", "globex"):
        with myloware.tenant(tenant):
            myloware.work.submit([INVOICE])
    with myloware.tenant("acme"):
        drained(myloware, lambda _: 1)
    done = {item.tenant_id: item.status for item in WorkItem.select()}
    assert {"acme": WorkItemStatus.COMPLETED, "globex": WorkItemStatus.QUEUED} == done


def test_an_interrupt_ends_a_worker_in_good_order(myloware: Store) -> None:
    """KeyboardInterrupt of a program with its own signal handlers: what runs is stored, the rest is given back."""
    myloware.work.submit([INVOICE] * 2)

    interrupts = [signal.SIGINT]

    def handle(_: Claim) -> None:
        while interrupts:
            os.kill(os.getpid(), interrupts.pop())
            until(lambda: states(myloware).count(WorkItemStatus.QUEUED) == 1)

    worker = Worker(myloware, handle, threads=1, prefetch=1)
    with pytest.raises(KeyboardInterrupt):
        worker.run(signals=False)
    assert {WorkItemStatus.COMPLETED, WorkItemStatus.QUEUED} == set(states(myloware))
    assert 1 == worker.run(drain=True).finished


def test_a_handler_may_finish_in_a_transaction_of_its_own(myloware: Store) -> None:
    """What it wrote with its result commits with it, and finishing again changes nothing."""
    myloware.work.submit([INVOICE])

    def handle(claim: Claim) -> dict[str, int]:
        def commit() -> None:
            myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "work_item_id": claim.item_id}])
            myloware.work.finish([claim], [{"total": 17}])

        myloware.transact(commit)
        return {"total": 17}

    assert drained(myloware, handle).finished == 1
    assert [WorkItemStatus.COMPLETED] == states(myloware)


def test_no_more_is_claimed_than_there_is_room_for(myloware: Store) -> None:
    """One item a thread, and what was asked for beyond."""
    myloware.work.submit([INVOICE] * 30)
    most: list[int] = []

    def handle(claim: Claim) -> None:
        most.append(Attempt.select().where(Attempt.status == AttemptStatus.STARTED).count())

    assert drained(myloware, handle, threads=2, prefetch=3).finished == 30
    assert max(most) <= 5


def test_leases_last_as_long_as_their_handlers(myloware: Store) -> None:
    """The lease of a handler that takes longer is extended, and nobody else gets the item."""
    myloware.work.submit([INVOICE])

    def handle(claim: Claim) -> None:
        until(lambda: extended(claim))
        until(lambda: bool(myloware.db.execute_sql("SELECT now() > %s", (claim.lease_expires_at,)).fetchone()[0]))
        assert myloware.work.reap() == {}

    report = drained(myloware, handle, lease=1)
    assert (1, 0, 0) == (report.finished, report.lost, report.failed)


def test_a_handler_that_takes_too_long_is_given_up(myloware: Store) -> None:
    """Its attempt fails at once, though the lease goes on; what it gives afterwards is dropped, and others go on."""
    order = myloware.work.submit([{"type": "TICKET", "content": "slow"}])
    myloware.work.submit([INVOICE])

    def handle(claim: Claim) -> dict[str, str]:
        if claim.content == "slow":
            until(lambda: Attempt.get_by_id(claim.attempt_id).status is AttemptStatus.FAILED)
        return {"by": claim.content}

    report = drained(myloware, handle, threads=2, timeout=0.2)
    assert (1, 1, 0) == (report.finished, report.failed, report.lost)
    (item,) = myloware.work.items(order.id)
    assert (WorkItemStatus.QUEUED, 1, None) == (item.status, item.attempt_count, item.result)
    assert Attempt.get(Attempt.work_item == item).error == "TimeoutError: the handler took over 0.2 s"


def test_a_result_that_contradicts_what_the_handler_stored_is_refused(myloware: Store) -> None:
    """It finished its claim itself: the report does not say that something is parked which is not."""
    for content in ("gate", "same"):
        myloware.work.submit([{"type": "TICKET", "content": content}])

    def handle(claim: Claim) -> Any:
        assert myloware.work.finish([claim], [{"refund": 17}]) == {claim.item_id}
        return NeedsApproval({"refund": 17}) if claim.content == "gate" else {"refund": 17}

    report = drained(myloware, handle)
    assert (0, 1, 1) == (report.parked, report.finished, report.lost)
    parked = myloware.work.submit([{"type": "TICKET", "content": "park"}])
    (claim,) = myloware.work.claim("agent")
    for _ in range(2):
        assert myloware.work.finish([claim], [1], gate=True) == {claim.item_id}
    assert myloware.work.finish([claim], [1]) == set()
    (item,) = myloware.work.items(parked.id)
    myloware.approvals.decide(item.id, approver_id="kim", decision=ApprovalDecision.APPROVED, policy_version="1")
    assert myloware.work.finish([claim], [1], gate=True) == {claim.item_id}


def test_a_worker_tells_of_its_start_and_its_end(myloware: Store, caplog: pytest.LogCaptureFixture) -> None:
    """At INFO: who works on what, in how many threads, and what became of it."""
    myloware.work.submit([INVOICE])
    with caplog.at_level(logging.INFO, "myloware_store.worker"):
        report = drained(myloware, lambda _: None, agent_id="reader-1", threads=2, types=["INVOICE"])
    assert [
        "reader-1 starts: 2 threads, types: INVOICE, tenants: all",
        f"reader-1 has ended: {report}",
    ] == [line.getMessage() for line in caplog.records if line.levelno == logging.INFO]


def test_a_worker_waits_for_work_until_it_is_stopped(myloware: Store) -> None:
    """It handles what comes, and stops from another thread or from its own handler."""
    handled = threading.Event()
    worker = Worker(myloware, lambda _: handled.set(), threads=1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run)
        for _ in range(3):
            myloware.work.submit([INVOICE])
            assert handled.wait(60)
            handled.clear()
        worker.stop()
        assert running.result(60).finished == 3
    itself = Worker(myloware, lambda _: itself.stop())
    myloware.work.submit([INVOICE])
    assert itself.run().finished == 1


def test_a_worker_rides_out_a_server_that_ends_its_sessions(myloware: Store) -> None:
    """Those of the loop, the leases and the handlers; everything is handled, and nothing twice at a time."""
    myloware.work.submit([INVOICE] * 40)
    end = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'myloware_store'
    """
    killed = [n % 10 == 3 for n in range(40)]
    one_by_one = threading.Lock()

    def handle(claim: Claim) -> None:
        if killed.pop():
            with one_by_one:  # ending a handler's own statement would fail its attempt
                myloware.db.execute_sql(end)

    report = drained(myloware, handle, threads=3, reap_every=0.1)
    assert report.finished + report.lost == 40
    assert set(states(myloware)) <= {WorkItemStatus.COMPLETED}


def test_on_sigterm_running_work_ends_and_the_rest_is_given_back(
    myloware: Store, service: Callable[..., subprocess.Popen[str]]
) -> None:
    """The item at hand is finished, those that were only claimed keep their tries, and the exit code is 0."""
    order = myloware.work.submit([INVOICE] * 3)
    process = service()
    begun(process)
    process.send_signal(signal.SIGTERM)
    until(lambda: states(myloware).count(WorkItemStatus.QUEUED) == 2)
    output, _ = process.communicate("go on\n", timeout=60)
    assert ("WorkerReport(finished=1, parked=0, failed=0, lost=0, released=2)", 0) == (
        output.strip(),
        process.returncode,
    )
    items = myloware.work.items(order.id)
    assert [(WorkItemStatus.COMPLETED, 1), *[(WorkItemStatus.QUEUED, 0)] * 2] == sorted(
        ((item.status, item.attempt_count) for item in items), key=lambda state: str(state[0])
    )


def test_a_signal_that_interrupts_no_wait_ends_it_all_the_same(myloware: Store) -> None:
    """Such as one that comes just before it, or to another thread."""
    myloware.work.submit([INVOICE] * 2)

    def handle(_: Claim) -> None:
        time.sleep(0.1)  # the main thread waits by now
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        until(lambda: states(myloware).count(WorkItemStatus.QUEUED) == 1)

    report = Worker(myloware, handle, threads=1, prefetch=1, reap_every=None, look_every=600).run()
    assert (1, 1) == (report.finished, report.released)
    assert signal.set_wakeup_fd(-1) == -1


def test_a_worker_inside_a_signal_handler_leaves_the_signals_to_the_outer_one(myloware: Store) -> None:
    """SIGTERM still stops the outer one when the inner one has ended."""
    myloware.work.submit([INVOICE])
    inner: list[WorkerReport] = []

    def drain(*_: object) -> None:
        inner.append(Worker(myloware, lambda _: 1, types=["TICKET"], reap_every=None).run(drain=True))

    def handle(_: Claim) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: inner)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGUSR1, drain)
    try:
        report = Worker(myloware, handle, reap_every=None).run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (1, [0]) == (report.finished, [one.finished for one in inner])


@pytest.mark.parametrize("grace", [0.2, 600.0])
def test_what_does_not_end_is_given_back(
    myloware: Store, service: Callable[..., subprocess.Popen[str]], grace: float
) -> None:
    """When the grace is over, or at the second signal; the process ends although a handler never does."""
    myloware.work.submit([INVOICE] * 2)
    process = service(grace)
    begun(process)
    process.send_signal(signal.SIGTERM)
    if grace > 1:
        until(lambda: WorkItemStatus.QUEUED in states(myloware))  # the first signal was heard
        process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stdout is not None
    assert "released=2" in process.stdout.read()
    assert {(WorkItemStatus.QUEUED, 0)} == {(item.status, item.attempt_count) for item in WorkItem.select()}


def test_a_worker_whose_statement_waits_ends_at_further_signals(
    myloware: Store, service: Callable[..., subprocess.Popen[str]]
) -> None:
    """It does not wait for ever for what somebody has locked: the item is left as it is."""
    myloware.work.submit([INVOICE])
    process = service()
    begun(process)
    with myloware.db.atomic():
        myloware.db.execute_sql("LOCK TABLE work_orders, attempts")
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        until(lambda: len(myloware.db.execute_sql(BLOCKED).fetchall()) > 1)  # the leases' statement, too

        def ended() -> bool:
            process.send_signal(signal.SIGTERM)  # also what ends the process once the worker has ended
            return process.poll() is not None

        until(ended)
        assert [WorkItemStatus.PROCESSING] == states(myloware)


def test_the_items_of_a_killed_worker_are_taken_over(
    myloware: Store, service: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGKILL in the middle of an item: when its lease has run out another worker does it, as the second attempt."""
    order = myloware.work.submit([INVOICE])
    process = service()
    begun(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: bool(myloware.work.reap()))
    WorkItem.update(available_at=WorkItem.created_at).execute()
    assert drained(myloware, lambda _: {"by": "another"}).finished == 1
    (item,) = myloware.work.items(order.id)
    assert (WorkItemStatus.COMPLETED, 2, {"by": "another"}) == (item.status, item.attempt_count, item.result)


def test_a_worker_that_was_stopped_past_its_lease_learns_it(
    myloware: Store, service: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGSTOP, another worker finishes, SIGCONT: the first one's result is refused."""
    order = myloware.work.submit([INVOICE])
    process = service()
    begun(process)
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: bool(myloware.work.reap()))
    WorkItem.update(available_at=WorkItem.created_at).execute()
    assert drained(myloware, lambda _: {"by": "another"}).finished == 1
    os.kill(process.pid, signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate("go on\n", timeout=60)
    assert "lost=1" in output
    (item,) = myloware.work.items(order.id)
    assert item.result == {"by": "another"}


async def handle_later(claim: Claim) -> None:
    """Be no handler."""


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 0},
        {"prefetch": -1},
        {"lease": 0.5},
        {"types": ["PARCEL"]},
        {"grace": -1},
        {"agent_id": "x" * 300},
        {"agent_id": ""},
    ],
)
def test_wrong_options_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """Before anything is claimed."""
    with pytest.raises(InvalidInput):
        Worker(myloware, print, **options)
    with pytest.raises(InvalidInput):
        Worker(myloware, "handle")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="async"):
        Worker(myloware, handle_later)
    with pytest.raises(InvalidInput, match="store"):
        Worker("postgresql://localhost/test", print)  # type: ignore[arg-type]
    for told in ({"drain": 1}, {"signals": "no"}):
        with pytest.raises(InvalidInput):
            Worker(myloware, print).run(**told)
    assert DeadLetter.select().count() == 0

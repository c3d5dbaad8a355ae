"""Workers whose server falls silent: its bytes no longer come, and no connection ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import pytest

from myloware_store import WorkItem, WorkItemStatus
from myloware_store.settings import Settings
from tests.integration.conftest import PATIENCE, until, until_listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from myloware_store import Store
    from tests.relay import Relay

SERVICE = """
import logging, sys, threading
from myloware_store import Store, Worker

logging.basicConfig(level=logging.WARNING, format="%(message)s")
go_on = threading.Event()

def handle(claim):
    print("begun", flush=True)
    go_on.wait()
    if claim.content == "asks":
        store.db.execute_sql("SELECT 1")
    return {"by": "the service"}

threading.Thread(target=lambda: sys.stdin.readline() and go_on.set(), daemon=True).start()
with Store.open(sys.argv[1]) as store:
    worker = Worker(store, handle, threads=1, look_every=0.01, grace=float(sys.argv[2]))
    print(worker.run(), flush=True)
    if len(sys.argv) > 3:
        print(threading.Event().wait(60))
"""


@pytest.fixture
def relay(myloware_dsn: str, relayed: Callable[..., Relay]) -> Relay:
    """Give a way to the server on which it can fall silent."""
    settings = Settings.load(myloware_dsn)
    return relayed(settings.host, settings.port)


@pytest.fixture
def service(myloware_dsn: str, relay: Relay) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that starts a service whose server can fall silent."""
    started: list[subprocess.Popen[str]] = []

    def start(grace: float, *more: str, limit: int = 10, script: str = SERVICE) -> subprocess.Popen[str]:
        url = attrs.evolve(relay.before(Settings.load(myloware_dsn)), connection_limit=limit).url
        command = [sys.executable, "-c", script, url, str(grace), *more]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def begin(store: Store, process: subprocess.Popen[str], content: str) -> None:
    """Submit an item, and return once its handler has begun."""
    store.work.submit([{"type": "TICKET", "content": content}])
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"


@pytest.mark.parametrize(("content", "limit"), [("answers", 10), ("asks", 2), ("hangs", 2)])
def test_a_worker_ends_when_the_grace_is_over(
    myloware: Store, service: Callable[..., subprocess.Popen[str]], relay: Relay, content: str, limit: int
) -> None:
    """Whether it stores a result, gives an item back, or waits for a connection that a handler has."""
    process = service(1.0, limit=limit)
    begin(myloware, process, content)
    relay.stall()
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(None if content == "hangs" else "go on\n", timeout=PATIENCE)
    assert ("WorkerReport(finished=0, parked=0, failed=0, lost=0, released=0)", 0) == (out.strip(), process.returncode)
    assert "1 items are left until their leases expire" in said
    assert WorkItemStatus.PROCESSING == WorkItem.get().status


def test_an_idle_worker_ends(myloware: Store, service: Callable[..., subprocess.Popen[str]], relay: Relay) -> None:
    """Though it was asking whether there is work."""
    process = service(0.2)
    until_listening(myloware)
    relay.stall()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0


def test_a_second_signal_ends_a_worker_at_once(
    myloware: Store, service: Callable[..., subprocess.Popen[str]], relay: Relay
) -> None:
    """However long the grace is."""
    process = service(600.0)
    begin(myloware, process, "answers")
    relay.stall()
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()

    def ended() -> bool:
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None

    until(ended)
    assert WorkItemStatus.PROCESSING == WorkItem.get().status


def test_what_was_left_is_given_back_when_the_server_answers_again(
    myloware: Store, service: Callable[..., subprocess.Popen[str]], relay: Relay
) -> None:
    """If the process is still there: the worker's thread ends in good order, and no try is used up."""
    process = service(0.2, "stay")
    begin(myloware, process, "hangs")
    relay.stall()
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("WorkerReport")
    assert WorkItemStatus.PROCESSING == WorkItem.get().status
    relay.flow()
    until(lambda: WorkItem.get().status == WorkItemStatus.QUEUED)
    assert 0 == WorkItem.get().attempt_count


# Without a setting; 30 seconds would be long for a test.
IMPATIENT = "from myloware_store.worker import loop\nloop._CALL_TIMEOUT = 0.3\n" + SERVICE.replace(
    "grace=", "lease=1, grace="
)


def test_a_worker_goes_on_after_a_stall_that_outlasts_its_lease(
    myloware: Store, service: Callable[..., subprocess.Popen[str]], relay: Relay
) -> None:
    """Another one does its item in the meantime, its own late result is refused, and it takes the next item."""
    process = service(30.0, script=IMPATIENT)
    begin(myloware, process, "answers")
    relay.stall()

    def done_by_another() -> set[UUID]:
        myloware.work.reap()
        WorkItem.update(available_at=datetime.now(UTC)).where(WorkItem.status == "QUEUED").execute()
        return myloware.work.finish(claims := myloware.work.claim("another"), ["in time"] * len(claims))

    until(done_by_another)
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.stderr is not None
    assert "call_timeout" in process.stderr.readline()
    relay.flow()
    begin(myloware, process, "answers")
    until(lambda: not WorkItem.select().where(WorkItem.status != "COMPLETED").exists())
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE)

    assert "finished=1, parked=0, failed=0, lost=1, released=0" in out
    assert {"in time", "{'by': 'the service'}"} == {str(row.result) for row in WorkItem.select()}

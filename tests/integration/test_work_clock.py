"""A server whose clock steps back: NTP, a resumed machine, a failover to a host that is behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from myloware_store import Attempt, Priority, WorkItem, WorkItemStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Claim, Store

ITEM = {"type": "INVOICE", "content": "Invoice 17"}


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda store, claim: store.work.finish([claim], [1]), WorkItemStatus.COMPLETED),
        (lambda store, claim: store.work.finish([claim], [1], gate=True), WorkItemStatus.PROCESSING),
        (lambda store, claim: store.work.fail([claim], ["no"]), WorkItemStatus.QUEUED),
        (lambda store, claim: store.work.cancel(claim.work_order_id), WorkItemStatus.FAILED),
        (lambda store, claim: store.work.release([claim]), WorkItemStatus.QUEUED),
        (lambda store, _: expire(store).work.reap(), WorkItemStatus.QUEUED),
    ],
    ids=["finish", "park", "fail", "cancel", "release", "reap"],
)
def test_an_attempt_ends_before_it_began(
    myloware: Store, end: Callable[[Store, Claim], object], status: WorkItemStatus
) -> None:
    """Each way to end an attempt is accepted, and its duration is 0."""
    myloware.work.submit([ITEM])
    (claim,) = myloware.work.claim("agent")
    move_time(myloware, "attempts", "started_at")
    end(myloware, claim)

    assert status == WorkItem.get().status
    assert {None, 0} >= {attempt.duration_ms for attempt in Attempt.select()}


@pytest.mark.parametrize("began", ["infinity", "-infinity"])
def test_an_attempt_that_never_began_ends(myloware: Store, began: str) -> None:
    """Whatever stands in the table, it ends, and stops no reaping."""
    myloware.work.submit([ITEM] * 2)
    finished, _ = myloware.work.claim("agent", n=2)
    myloware.db.execute_sql("UPDATE attempts SET started_at = %s", (began,))

    assert {finished.item_id} == myloware.work.finish([finished], [1])
    assert 1 == len(expire(myloware).work.reap())


def test_a_letter_is_replayed_before_its_item_failed(myloware: Store) -> None:
    """The item is queued again at once."""
    myloware.work.submit([ITEM])
    myloware.work.fail(myloware.work.claim("agent"), ["no"], retry=False)
    move_time(myloware, "work_items", "processed_at")
    (letter,) = myloware.dead_letters.list()

    assert {letter.id} == myloware.dead_letters.replay([letter.id], by="kim")
    assert 1 == len(myloware.work.claim("agent"))


def test_a_parked_item_is_decided_on_before_it_was_parked(myloware: Store) -> None:
    """The decision is accepted."""
    myloware.work.submit([ITEM])
    claims = myloware.work.claim("agent")
    myloware.work.finish(claims, [1], gate=True)
    move_time(myloware, "attempts", "started_at", "finished_at")
    move_time(myloware, "work_items", "updated_at")
    myloware.approvals.decide(claims[0].item_id, approver_id="kim", decision="APPROVED", policy_version="1")

    assert WorkItemStatus.COMPLETED == WorkItem.get().status


def test_a_run_ends_before_it_began(myloware: Store) -> None:
    """Its end is recorded."""
    run = myloware.runs.start(myloware.work.submit([ITEM], priority=Priority.HIGH).id)
    move_time(myloware, "runs", "started_at")

    assert myloware.runs.finish(run.id).finished_at is not None


def move_time(store: Store, table: str, *columns: str) -> None:
    """Have a time stored by a clock that was an hour ahead of the present one."""
    for column in columns:
        store.db.execute_sql(f"UPDATE {table} SET {column} = now() + interval '1 hour'")


def expire(store: Store) -> Store:
    """Let all leases run out."""
    Attempt.update(lease_expires_at=datetime.now(UTC) - timedelta(minutes=1)).where(
        Attempt.finished_at.is_null()
    ).execute()
    return store

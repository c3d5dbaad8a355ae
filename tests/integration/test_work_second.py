"""Who comes second: a call that waits for a transaction which ends the same item finds it so, and changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from myloware_store import (
    ApprovalDecision,
    ApprovalEvent,
    Attempt,
    AttemptStatus,
    NotAwaitingApproval,
    WorkItem,
    WorkItemStatus,
)
from tests.integration.conftest import until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from uuid import UUID

    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


def after(store: Store, first: Callable[[], object], second: Callable[[], Any]) -> Future[Any]:
    """Make the first call in a transaction that ends as soon as the second one waits for it."""
    with ThreadPoolExecutor(1) as pool:
        with store.db.atomic():
            first()
            waiting = pool.submit(second)
            until_blocked(store, waiting)
        return waiting


@pytest.mark.parametrize("second", ["finish", "gate", "fail", "bury", "release", "heartbeat"])
@pytest.mark.parametrize("first", ["fail", "bury", "cancel", "cancel_item", "release", "reap"])
def test_an_attempt_that_was_ended_meanwhile_ends_nothing(myloware: Store, first: str, second: str) -> None:
    """The item stays as it was left, and no error but the refusal is told."""
    work = myloware.work
    order = work.submit([INVOICE])
    claims = work.claim("agent")
    calls: dict[str, Callable[[], Any]] = {
        "finish": lambda: work.finish(claims, [1]),
        "gate": lambda: work.finish(claims, [1], gate=True),
        "fail": lambda: work.fail(claims, ["no luck"], delay=0),
        "bury": lambda: work.fail(claims, ["no luck"], retry=False),
        "release": lambda: work.release(claims),
        "cancel": lambda: work.cancel(order.id),
        "cancel_item": lambda: work.cancel_item(claims[0].item_id),
        "heartbeat": lambda: work.heartbeat(claims),
    }

    def reap() -> None:
        myloware.db.execute_sql("UPDATE attempts SET lease_expires_at = statement_timestamp()")
        work.reap()

    done = after(myloware, reap if first == "reap" else calls[first], calls[second])
    # Giving back twice, or failing in the same words, says the same.
    same = first == second == "release" or {first, second} <= {"fail", "bury"}
    assert (1 if same else 0) == len(done.result())
    (item,) = work.items(order.id)
    failed = first in {"bury", "cancel", "cancel_item"}
    assert (WorkItemStatus.FAILED if failed else WorkItemStatus.QUEUED, None) == (item.status, item.result)
    assert 0 == Attempt.select().where(Attempt.status == AttemptStatus.STARTED).count()
    assert item.attempt_count == item.attempts.count()


@pytest.mark.parametrize("second", ApprovalDecision)
def test_a_second_decision_is_told_that_there_was_one(myloware: Store, second: ApprovalDecision) -> None:
    """Also the same one again, and it leaves no event."""
    myloware.work.submit([INVOICE])
    myloware.work.finish(myloware.work.claim("agent"), [1], gate=True)
    item = WorkItem.get()

    def decide(decision: ApprovalDecision) -> ApprovalEvent:
        return myloware.approvals.decide(item.id, approver_id="kim", decision=decision, policy_version="1")

    done = after(myloware, lambda: decide(ApprovalDecision.APPROVED), lambda: decide(second))
    assert isinstance(done.exception(), NotAwaitingApproval)
    assert ["APPROVED"] == [event.decision for event in ApprovalEvent.select()]
    assert WorkItem.get().status is WorkItemStatus.COMPLETED


def test_a_second_replay_leaves_what_came_of_the_first(myloware: Store) -> None:
    """An item that was queued, and claimed since, is not queued once more."""
    myloware.work.submit([INVOICE])
    (outcome,) = myloware.work.fail(myloware.work.claim("agent"), ["never"], retry=False).values()

    def replay() -> set[UUID]:
        assert outcome.dead_letter_id
        return myloware.dead_letters.replay(outcome.dead_letter_id, by="kim")

    done = after(myloware, lambda: (replay(), myloware.work.claim("agent")), replay)
    assert set() == done.result()
    assert (WorkItemStatus.PROCESSING, 2) == (WorkItem.get().status, Attempt.select().count())


@pytest.mark.parametrize("call", ["claim", "fair", "types", "tenants", "reap"])
def test_what_somebody_has_locked_is_not_waited_for(myloware: Store, call: str) -> None:
    """It is left to them: who claims or reaps takes the next one, at once."""
    work = myloware.work
    work.submit([INVOICE] * 2)
    calls: dict[str, Callable[[], Any]] = {
        "claim": lambda: work.claim("agent", n=2),
        "fair": lambda: work.claim("agent", n=2, fair=True),
        "types": lambda: work.claim("agent", n=2, types=["INVOICE"]),
        "tenants": lambda: work.claim("agent", n=2, tenants=["default"]),
        "reap": lambda: work.reap(limit=2),
    }
    if call == "reap":
        work.claim("agent", n=2)
        myloware.db.execute_sql("UPDATE attempts SET lease_expires_at = statement_timestamp()")
    first = WorkItem.select().order_by(WorkItem.available_at, WorkItem.id).get()
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        myloware.db.execute_sql("SELECT FROM work_items WHERE id = %s FOR NO KEY UPDATE", (str(first.id),))
        taken = pool.submit(calls[call]).result(60)
    assert 1 == len(taken)


def test_a_row_that_refers_to_an_item_does_not_keep_it_from_being_claimed(myloware: Store) -> None:
    """Who inserts one holds the item's key only."""
    myloware.work.submit([INVOICE])
    item = WorkItem.get()
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        myloware.db.execute_sql("SELECT FROM work_items WHERE id = %s FOR KEY SHARE", (str(item.id),))
        assert 1 == len(pool.submit(myloware.work.claim, "agent").result(60))


def test_whoever_holds_an_order_holds_up_no_further_claims_of_its_items(myloware: Store) -> None:
    """Only the first one changes the order."""
    order = myloware.work.submit([INVOICE] * 2)
    myloware.work.claim("agent")
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        myloware.db.execute_sql("SELECT FROM work_orders WHERE id = %s FOR NO KEY UPDATE", (str(order.id),))
        assert 1 == len(pool.submit(myloware.work.claim, "agent").result(60))


def test_a_lease_that_is_being_extended_is_not_taken_back(myloware: Store) -> None:
    """Who reaps leaves it to the transaction that extends it, also where it had run out before."""
    work = myloware.work
    work.submit([INVOICE])
    work.claim("agent")
    extend = "UPDATE attempts SET lease_expires_at = statement_timestamp() + %s * interval '1 minute'"
    myloware.db.execute_sql(extend, (-1,))
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic():
            myloware.db.execute_sql(extend, (1,))
            reaping = pool.submit(work.reap)
            until_blocked(myloware, reaping)
        assert {} == reaping.result()
    assert (WorkItemStatus.PROCESSING, AttemptStatus.STARTED) == (WorkItem.get().status, Attempt.get().status)


@pytest.mark.parametrize("call", ["finish", "fail", "release"])
def test_an_attempt_at_another_item_ends_nothing(myloware: Store, call: str) -> None:
    """A claim that was put together of two that are in force is none."""
    work = myloware.work
    work.submit([INVOICE] * 2)
    first, second = work.claim("agent", n=2)
    mixed = [attrs.evolve(first, attempt_id=second.attempt_id)]
    calls: dict[str, Callable[[], Any]] = {
        "finish": lambda: work.finish(mixed, [1]),
        "fail": lambda: work.fail(mixed, ["no luck"]),
        "release": lambda: work.release(mixed),
    }
    assert 0 == len(calls[call]())
    assert {WorkItemStatus.PROCESSING} == {item.status for item in WorkItem.select()}
    assert {first.item_id, second.item_id} == work.finish([first, second], [1, 2])


@pytest.mark.parametrize("call", ["finish", "fail", "release"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE work_items SET awaiting_approval = true",
        "UPDATE attempts SET status = 'TIMEOUT', finished_at = statement_timestamp()",
        "UPDATE work_items SET status = 'QUEUED'",
    ],
)
def test_what_was_taken_away_by_hand_is_not_ended_by_the_attempt(myloware: Store, statement: str, call: str) -> None:
    """An item that was parked or queued, or whose attempt was ended: it stays as it is, and the worker has lost it."""
    work = myloware.work
    work.submit([INVOICE])
    claims = work.claim("agent")
    myloware.db.execute_sql(statement)
    before = WorkItem.get().status
    calls: dict[str, Callable[[], Any]] = {
        "finish": lambda: work.finish(claims, [1]),
        "fail": lambda: work.fail(claims, ["no luck"]),
        "release": lambda: work.release(claims),
    }
    assert 0 == len(calls[call]())
    assert (before, 1) == (WorkItem.get().status, Attempt.select().count())


@pytest.mark.parametrize("ended", ["QUEUED", "FAILED"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM work_items WHERE id = %(item)s",
        "UPDATE work_items SET work_order_id = %(other)s WHERE id = %(item)s",
    ],
)
def test_the_last_items_of_an_order_taken_away_at_once_leave_it_as_it_was(
    myloware: Store, statement: str, ended: str
) -> None:
    """Who takes the last but one, and has not yet committed, is waited for before one looks what is left."""
    work = myloware.work
    order = work.submit([INVOICE] * 2)
    if ended == "FAILED":
        work.fail(work.claim("agent", 2), ["no luck"] * 2, retry=False)
    before = work.get(order.id).status
    first, second = ({"item": str(item.id)} for item in WorkItem.select(WorkItem.id))
    other = {"other": str(work.submit([INVOICE]).id)}

    def take(given: dict[str, str]) -> Any:
        return myloware.db.execute_sql(statement, {**given, **other})

    after(myloware, lambda: take(first), lambda: take(second)).result()
    left = work.get(order.id)
    assert (before, 0, 0) == (left.status, left.open_items, left.failed_items)

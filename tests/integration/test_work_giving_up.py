"""Items given back, orders cancelled, orders waited for."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import (
    Attempt,
    AttemptStatus,
    DeadLetter,
    InvalidInput,
    LeaseLost,
    NotAwaitingApproval,
    NotFound,
    WaitTimeout,
    WorkItem,
    WorkItemStatus,
    WorkOrder,
    WorkOrderStatus,
)
from myloware_store.core.errors import ConstraintViolation
from tests.integration.conftest import until_blocked

if TYPE_CHECKING:
    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
TICKET = {"type": "TICKET", "content": "Ticket 4"}


def test_what_is_given_back_has_cost_no_try(myloware: Store) -> None:
    """The item is queued where it was, its attempt forgotten; the order stays under way."""
    order = myloware.work.submit([INVOICE, TICKET], max_attempts=1)
    before = WorkItem.get(WorkItem.type == "INVOICE")
    claims = myloware.work.claim("agent", n=2)
    assert {claims[0].item_id} == myloware.work.release(claims[:1])
    after = WorkItem.get_by_id(claims[0].item_id)
    assert (WorkItemStatus.QUEUED, 0, before.available_at) == (after.status, after.attempt_count, after.available_at)
    assert {claims[1].attempt_id} == {attempt.id for attempt in Attempt.select()}
    assert WorkOrderStatus.PROCESSING is myloware.work.get(order.id).status
    (again,) = myloware.work.claim("agent", n=2)
    assert (claims[0].item_id, 1) == (again.item_id, again.attempt_number)
    assert again.attempt_id != claims[0].attempt_id


def test_giving_back_twice_says_the_same_while_the_item_waits(myloware: Store) -> None:
    """A reply that was lost is no loss; once another has the item, the first one has lost it."""
    myloware.work.submit([INVOICE])
    claims = myloware.work.claim("agent")
    first = myloware.work.release(claims)
    assert first == myloware.work.release(claims) == {claims[0].item_id}
    assert 0 == WorkItem.get().attempt_count
    myloware.work.claim("other")
    assert set() == myloware.work.release(claims)
    assert 1 == WorkItem.get().attempt_count


def test_only_who_holds_an_item_can_give_it_back(myloware: Store) -> None:
    """Not after its lease or attempt has ended, nor under another tenant; in a transaction a batch is whole."""
    myloware.work.submit([INVOICE, TICKET, TICKET])
    late, done, held = myloware.work.claim("agent", n=3)
    Attempt.update(lease_expires_at=datetime.now(UTC) - timedelta(minutes=1)).where(
        Attempt.id == late.attempt_id
    ).execute()
    myloware.work.finish([done], [1])
    assert set() == myloware.work.release([late, done])
    with myloware.tenant("globex"):
        assert set() == myloware.work.release([held])
    with pytest.raises(LeaseLost, match=str(late.item_id)):
        myloware.transact(lambda: myloware.work.release([held, late]))
    assert {held.item_id} == myloware.work.heartbeat([held])
    assert {held.item_id} == myloware.transact(lambda: myloware.work.release([held]))
    with pytest.raises(InvalidInput):
        myloware.work.release(["claim"])  # type: ignore[list-item]  # that is the point


def test_a_cancelled_order_ends_at_once(myloware: Store) -> None:
    """What waits, what is worked on and what awaits approval fails without a dead letter; what had ended stays."""
    order = myloware.work.submit([{**INVOICE, "content": str(number)} for number in range(4)])
    done, parked, running = myloware.work.claim("agent", n=3)
    myloware.work.finish([done], [1])
    myloware.work.finish([parked], [2], gate=True)
    items = {item.id for item in myloware.work.items(order.id)}
    assert items - {done.item_id} == myloware.work.cancel(order.id)
    read = myloware.work.get(order.id)
    assert (WorkOrderStatus.FAILED, 0, 3) == (read.status, read.open_items, read.failed_items)
    assert read.cancelled_at == WorkItem.get_by_id(running.item_id).processed_at
    assert 0 == DeadLetter.select().count()
    attempt = Attempt.get_by_id(running.attempt_id)
    assert (AttemptStatus.FAILED, "the order was cancelled") == (attempt.status, attempt.error)
    assert set() == myloware.work.heartbeat([running])
    assert {done.item_id} == myloware.work.finish([done], [1])
    assert set() == myloware.work.finish([running], [3])
    assert set() == myloware.work.release([running])
    assert [] == myloware.work.claim("agent")
    with pytest.raises(NotAwaitingApproval):
        myloware.approvals.decide(parked.item_id, approver_id="kim", decision="APPROVED", policy_version="1")


def test_cancelling_is_not_for_what_has_ended(myloware: Store) -> None:
    """Again, or after the end, it changes nothing; what is not there, or another's, is not found."""
    order = myloware.work.submit([INVOICE])
    with myloware.tenant("globex"), pytest.raises(NotFound):
        myloware.work.cancel(order.id)
    assert 1 == len(myloware.work.cancel(order.id))
    cancelled = myloware.work.get(order.id).cancelled_at
    assert set() == myloware.work.cancel(order.id)
    assert cancelled == myloware.work.get(order.id).cancelled_at
    ended = myloware.work.submit([INVOICE])
    myloware.work.finish(myloware.work.claim("agent"), [1])
    assert set() == myloware.work.cancel(ended.id)
    assert (WorkOrderStatus.COMPLETED, None) == (
        myloware.work.get(ended.id).status,
        myloware.work.get(ended.id).cancelled_at,
    )
    with pytest.raises(NotFound):
        myloware.work.cancel("0190b3f5-0000-7000-8000-000000000000")
    with pytest.raises(InvalidInput):
        myloware.work.cancel("order")


def test_a_queued_item_fails_by_cancelling_only(myloware: Store) -> None:
    """Whoever writes it by hand is refused, also in an order that was cancelled before."""
    order = myloware.work.submit([INVOICE])
    fail = "UPDATE work_items SET status = 'FAILED', processed_at = now() WHERE status = 'QUEUED'"
    with pytest.raises(ConstraintViolation, match="work_items_guard"):
        myloware.db.execute_sql(fail)
    myloware.work.cancel(order.id)
    WorkItem.create(work_order=order.id, type="TICKET", content="one more")
    with pytest.raises(ConstraintViolation, match="work_items_guard"):
        myloware.db.execute_sql(fail)
    with pytest.raises(ConstraintViolation, match="work_items_guard"):
        myloware.db.execute_sql(fail.replace("SET", "SET cancelled_at = now() - interval '1 s',"))


@pytest.mark.parametrize("state", ["queued", "claimed", "parked"])
def test_a_cancelled_item_ends_at_once_and_its_order_goes_on(myloware: Store, state: str) -> None:
    """It fails without a dead letter, and the order as soon as the others have ended."""
    order = myloware.work.submit([INVOICE, TICKET])
    item = WorkItem.get(WorkItem.type == "INVOICE")
    claims = [] if state == "queued" else myloware.work.claim("agent")
    if state == "parked":
        myloware.work.finish(claims, [1], gate=True)
    assert myloware.work.cancel_item(item.id)

    after = WorkItem.get_by_id(item.id)
    assert (WorkItemStatus.FAILED, False) == (after.status, after.awaiting_approval)
    assert after.cancelled_at == after.processed_at is not None
    assert 0 == DeadLetter.select().count()
    if state == "claimed":
        attempt = Attempt.get_by_id(claims[0].attempt_id)
        assert (AttemptStatus.FAILED, "the item was cancelled") == (attempt.status, attempt.error)
        assert set() == myloware.work.heartbeat(claims) == myloware.work.finish(claims, [1])
        assert claims[0].cancelled
    read = myloware.work.get(order.id)
    assert (1, 1, None) == (read.open_items, read.failed_items, read.cancelled_at)
    assert myloware.approvals.pending() == []
    (other,) = myloware.work.claim("agent", n=2)
    assert other.item_id != item.id
    myloware.work.finish([other], [1])
    assert WorkOrderStatus.FAILED is myloware.work.get(order.id).status


def test_cancelling_is_not_for_an_item_that_has_ended(myloware: Store) -> None:
    """Again, or after the end, it changes nothing; what is not there, or another's, is not found."""
    order = myloware.work.submit([INVOICE, INVOICE])
    (claim,) = myloware.work.claim("agent")
    with myloware.tenant("globex"), pytest.raises(NotFound):
        myloware.work.cancel_item(claim.item_id)
    with pytest.raises(NotFound):
        myloware.work.cancel_item(order.id)
    with pytest.raises(InvalidInput):
        myloware.work.cancel_item("item")
    assert {claim.item_id} == myloware.work.finish([claim], [1])
    assert not myloware.work.cancel_item(claim.item_id)
    (other,) = (item for item in myloware.work.items(order.id) if item.id != claim.item_id)
    assert myloware.work.cancel_item(str(other.id))
    before = WorkItem.get_by_id(other.id)
    assert not myloware.work.cancel_item(other)  # type: ignore[arg-type]  # a row stands for its id
    assert before.updated_at == WorkItem.get_by_id(other.id).updated_at
    assert WorkItem.get_by_id(claim.item_id).cancelled_at is None


@pytest.mark.parametrize("what", ["order", "item"])
@pytest.mark.parametrize("other", ["claim", "finish", "fail", "release"])
def test_cancelling_meets_whoever_works_on_it(myloware: Store, other: str, what: str) -> None:
    """It waits until their transaction has ended, and then ends what they left open, attempts included."""
    order = myloware.work.submit([INVOICE] if what == "item" else [INVOICE, TICKET], max_attempts=1)
    item = WorkItem.get(WorkItem.type == "INVOICE")
    claims = [] if other == "claim" else myloware.work.claim("agent")
    calls: dict[str, Any] = {
        "claim": lambda: myloware.work.claim("agent"),
        "finish": lambda: myloware.work.finish(claims, [1]),
        "fail": lambda: myloware.work.fail(claims, ["no luck"]),
        "release": lambda: myloware.work.release(claims),
    }
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic():
            calls[other]()
            cancel = (myloware.work.cancel, order.id) if what == "order" else (myloware.work.cancel_item, item.id)
            cancelling: Future[Any] = pool.submit(*cancel)
            until_blocked(myloware, cancelling)
            assert not cancelling.done()
        ended = cancelling.result()
    assert (len(ended) if what == "order" else 1 + ended) == (1 if other in {"finish", "fail"} else 2)
    read = myloware.work.get(order.id)
    completed = what == "item" and other == "finish"
    assert (WorkOrderStatus.COMPLETED if completed else WorkOrderStatus.FAILED, 0) == (read.status, read.open_items)
    assert 0 == Attempt.select().where(Attempt.status == "STARTED").count()
    assert [item.attempt_count for item in myloware.work.items(order.id)] == [
        item.attempts.count() for item in myloware.work.items(order.id)
    ]


def test_an_order_is_waited_for_until_it_has_ended(myloware: Store) -> None:
    """However many wait; at once where it has ended before."""
    order = myloware.work.submit([INVOICE])
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(myloware.work.wait, order.id, 60) for _ in range(3)]
        myloware.work.finish(myloware.work.claim("agent"), [1])
        assert [WorkOrderStatus.COMPLETED] * 3 == [each.result().status for each in waiting]
    assert WorkOrderStatus.COMPLETED is myloware.work.wait(str(order.id), 0).status
    cancelled = myloware.work.submit([INVOICE])
    myloware.work.cancel(cancelled.id)
    assert WorkOrderStatus.FAILED is myloware.work.wait(cancelled.id, 0).status


def test_a_wait_that_ends_says_what_awaits_approval(myloware: Store) -> None:
    """It would have to be decided, and not waited for."""
    order = myloware.work.submit([INVOICE] * 3)
    for count, told in (
        (1, "3 open items, 1 of which awaits approval,"),
        (2, "3 open items, 2 of which await approval,"),
    ):
        myloware.work.finish(myloware.work.claim("agent"), [1], gate=True)
        with pytest.raises(WaitTimeout, match=f"has {told} after 0 s"):
            myloware.work.wait(order.id, 0)
        assert count == len(myloware.approvals.pending())


def test_waiting_ends_with_one_error_of_its_own(myloware: Store) -> None:
    """When the time is over, the order is gone, or nobody else could work on it."""
    order = myloware.work.submit([INVOICE])
    with pytest.raises(WaitTimeout, match="has 1 open item after") as caught:
        myloware.work.wait(order.id, timeout=0.02)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(InvalidInput, match="commit"), myloware.db.atomic():
        myloware.work.wait(order.id, 1)
    for timeout in (-1, float("nan"), "1"):
        with pytest.raises(InvalidInput):
            myloware.work.wait(order.id, timeout)  # type: ignore[arg-type]  # that is the point
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(myloware.work.wait, order.id, 60)
        WorkOrder.delete().execute()
        with pytest.raises(NotFound):
            waiting.result()

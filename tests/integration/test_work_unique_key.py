"""Orders of which only one is open at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import (
    IdempotencyConflict,
    InvalidDocument,
    InvalidInput,
    NotFound,
    UniqueKeyConflict,
    WorkItem,
    WorkItemStatus,
    WorkOrder,
    WorkOrderStatus,
)
from myloware_store.core.errors import ConstraintViolation
from tests.conftest import ROUNDS
from tests.integration.conftest import until_blocked

if TYPE_CHECKING:
    from uuid import UUID

    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
TICKET = {"type": "TICKET", "content": "Ticket 4"}


def finish(store: Store, **options: Any) -> None:
    """Finish everything that can be claimed."""
    claims = store.work.claim("agent", n=100)
    store.work.finish(claims, [1] * len(claims), **options)


@pytest.mark.parametrize("state", ["queued", "claimed", "parked"])
def test_a_second_submit_returns_the_open_order(myloware: Store, state: str) -> None:
    """Unchanged, whatever the second one holds; nothing is stored."""
    first = myloware.work.submit([INVOICE], unique_key="nightly")
    if state == "claimed":
        myloware.work.claim("agent")
    if state == "parked":
        finish(myloware, gate=True)
    before = myloware.work.get(first.id)
    second = myloware.work.submit([TICKET] * 2, unique_key="nightly", priority="URGENT", metadata={"a": 1})
    assert (before.__data__, "nightly") == (second.__data__, second.unique_key)
    assert (1, 1) == (WorkOrder.select().count(), WorkItem.select().count())


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_the_key_is_free_when_the_order_has_ended(myloware: Store, end: str) -> None:
    """However it ended."""
    first = myloware.work.submit([INVOICE], unique_key="nightly")
    if end == "completed":
        finish(myloware)
    elif end == "failed":
        myloware.work.fail(myloware.work.claim("agent"), ["no luck"], retry=False)
    else:
        myloware.work.cancel(first.id)
    second = myloware.work.submit([INVOICE], unique_key="nightly")
    assert first.id != second.id
    assert second == myloware.work.submit([INVOICE], unique_key="nightly")


def test_each_tenant_and_each_key_is_for_itself(myloware: Store) -> None:
    """And orders without a key are as many as they are."""
    orders = [myloware.work.submit([INVOICE], unique_key=key).id for key in ("a", "b", None, None)]
    with myloware.tenant("globex"):
        orders.append(myloware.work.submit([INVOICE], unique_key="a").id)
    assert 5 == len(set(orders))


def test_the_idempotency_key_comes_first(myloware: Store) -> None:
    """It names one order for ever, and refuses other items; the unique key names whichever order is open."""
    first = myloware.work.submit([INVOICE], unique_key="nightly", idempotency_key="monday")
    assert first == myloware.work.submit([TICKET], unique_key="nightly", idempotency_key="tuesday")
    finish(myloware)
    second = myloware.work.submit([TICKET], unique_key="nightly", idempotency_key="tuesday")
    assert first.id == myloware.work.submit([INVOICE], unique_key="nightly", idempotency_key="monday").id != second.id
    with pytest.raises(IdempotencyConflict, match="with other items"):
        myloware.work.submit([TICKET], unique_key="nightly", idempotency_key="monday")


def test_documents_are_checked_all_the_same(myloware: Store) -> None:
    """What is not stored because an order is open must be storable."""
    myloware.work.submit([INVOICE], unique_key="nightly")
    myloware.schemas.register("invoice", "1", "INVOICE", {"type": "object"})
    myloware.schemas.activate("invoice", "1")
    with pytest.raises(InvalidDocument):
        myloware.work.submit([INVOICE], unique_key="nightly")
    with pytest.raises(InvalidInput):
        myloware.work.submit([], unique_key="nightly")


@pytest.mark.parametrize("key", ["", "  ", "x" * 256, "\x00", 7, b"key"])
def test_a_key_is_a_name(myloware: Store, key: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidInput, match="unique_key"):
        myloware.work.submit([INVOICE], unique_key=key)
    assert WorkOrder.select().count() == 0


def test_of_those_who_submit_at_once_one_stores(myloware: Store) -> None:
    """The others get its order, while others finish what there is: no call fails, and no two orders are open."""
    begin, seen = threading.Barrier(3), set()
    rounds = 20 * ROUNDS

    def submit() -> list[UUID]:
        begin.wait(60)
        return [myloware.work.submit([INVOICE], unique_key="nightly").id for _ in range(rounds)]

    with ThreadPoolExecutor(2) as pool:
        submitting = [pool.submit(submit) for _ in range(2)]
        begin.wait(60)
        while not all(each.done() for each in submitting):
            finish(myloware)
            open_orders = WorkOrder.select().where(WorkOrder.status.in_(["PENDING", "PROCESSING"])).count()
            assert open_orders <= 1
        for each in submitting:
            seen |= set(each.result())
    assert seen == {order.id for order in WorkOrder.select()}


@pytest.mark.parametrize("commits", [True, False])
def test_a_submit_waits_for_the_one_before(myloware: Store, *, commits: bool) -> None:
    """Until its transaction has ended: then it returns that order, or stores its own."""
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic() as block:
            first = myloware.work.submit([INVOICE], unique_key="nightly")
            submitting = pool.submit(myloware.work.submit, [INVOICE], unique_key="nightly")
            until_blocked(myloware, submitting)
            if not commits:
                block.rollback()
        second = submitting.result()
    assert commits == (first.id == second.id)
    assert second.id == WorkOrder.get().id


def test_an_order_that_ends_meanwhile_is_not_returned(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it ends after it kept the second from being stored, the second is stored after all."""
    first = myloware.work.submit([INVOICE], unique_key="nightly")
    look_up = myloware.work._first_order

    def end_and_look_up(*given: Any) -> WorkOrder | None:
        finish(myloware)
        return look_up(*given)

    monkeypatch.setattr(myloware.work, "_first_order", end_and_look_up)
    second = myloware.work.submit([TICKET], unique_key="nightly")
    assert (WorkOrderStatus.COMPLETED, WorkOrderStatus.PENDING) == (myloware.work.get(first.id).status, second.status)


def test_a_replay_opens_no_second_order(myloware: Store) -> None:
    """It is refused while another is open, with everything as it was, and done when that one has ended."""
    first = myloware.work.submit([INVOICE, INVOICE], unique_key="nightly")
    other = myloware.work.submit([TICKET])
    claims = myloware.work.claim("agent", n=3)
    myloware.work.fail(claims, ["no luck"] * 3, retry=False)
    second = myloware.work.submit([TICKET], unique_key="nightly")
    letters = [letter.id for letter in myloware.dead_letters.list()]
    with pytest.raises(UniqueKeyConflict, match="unique_key"):
        myloware.dead_letters.replay(letters, by="kim")
    assert letters == [letter.id for letter in myloware.dead_letters.list()]
    assert {WorkItemStatus.FAILED} == {item.status for item in myloware.work.items(first.id)}
    assert WorkOrderStatus.FAILED is myloware.work.get(other.id).status
    myloware.work.cancel(second.id)
    assert set(letters) == myloware.dead_letters.replay(letters, by="kim")
    assert first.id == myloware.work.submit([TICKET], unique_key="nightly").id


def test_two_ended_orders_of_a_key_are_not_replayed_together(myloware: Store) -> None:
    """Only one of them can be open: each letter can be replayed by itself, one after the other."""
    for _ in range(2):
        myloware.work.submit([INVOICE], unique_key="nightly")
        myloware.work.fail(myloware.work.claim("agent"), ["no luck"], retry=False)
    letters = [letter.id for letter in myloware.dead_letters.list()]
    with pytest.raises(UniqueKeyConflict):
        myloware.transact(lambda: myloware.dead_letters.replay(letters, by="kim"))
    for letter in letters:
        assert {letter} == myloware.dead_letters.replay(letter, by="kim")
        finish(myloware)


def test_no_hand_opens_a_second_order(myloware: Store) -> None:
    """Neither an INSERT of an order, nor of an item into one that has ended."""
    first = myloware.work.submit([INVOICE], unique_key="nightly")
    finish(myloware)
    myloware.work.submit([INVOICE], unique_key="nightly")
    with pytest.raises(ConstraintViolation, match="unique_key"):
        WorkOrder.create(created_by="me", unique_key="nightly")
    with pytest.raises(ConstraintViolation, match="unique_key"):
        WorkItem.create(work_order=first, type="TICKET", content="one more")
    assert WorkOrderStatus.COMPLETED is myloware.work.get(first.id).status


def test_counting_stays_within_the_page(myloware: Store) -> None:
    """An order whose items end one by one is updated without any index being written (HOT)."""
    order = myloware.work.submit([INVOICE] * 4, unique_key="nightly")
    claims = myloware.work.claim("agent", n=4)
    hot = "SELECT pg_stat_get_xact_tuples_hot_updated('work_orders'::regclass)"
    with myloware.db.atomic():
        before = myloware.db.execute_sql(hot).fetchone()[0]
        myloware.work.finish(claims[:1], [1])
        myloware.work.finish(claims[1:2], [1])
        assert myloware.db.execute_sql(hot).fetchone()[0] == before + 2
    assert 2 == myloware.work.get(order.id).open_items


def test_another_tenants_letter_is_not_found(myloware: Store) -> None:
    """The key of another tenant's order keeps nobody from replaying."""
    with myloware.tenant("globex"):
        other = myloware.work.submit([INVOICE], unique_key="nightly")
    myloware.work.submit([INVOICE], unique_key="nightly")
    with myloware.tenant("default"):
        with pytest.raises(NotFound):
            myloware.work.get(other.id)
        myloware.work.fail(myloware.work.claim("agent", n=2), ["no luck"], retry=False)
        (letter,) = myloware.dead_letters.list()
        assert {letter.id} == myloware.dead_letters.replay(letter.id, by="kim")

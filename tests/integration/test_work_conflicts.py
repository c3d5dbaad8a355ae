"""Calls of the work engine that meet each other, or whoever else locks the same rows: nobody loses, nothing hangs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from myloware_store import ApprovalDecision, DeadLetter, LeaseLost, Outcome, Priority, WorkItem, WorkItemType
from tests.integration.conftest import until, until_blocked

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from myloware_store import Claim, Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
TICKET = {"type": WorkItemType.TICKET, "content": "Ticket 4"}


def test_a_second_finish_counts_as_accepted_inside_a_transaction(myloware: Store) -> None:
    """What an earlier call had stored does not hold up the rest of the batch."""
    myloware.work.submit([INVOICE, TICKET])
    first, second = myloware.work.claim("agent", n=2)
    myloware.work.finish([first], [1])
    accepted = myloware.transact(lambda: myloware.work.finish([first, second], [99, 2]))
    assert {first.item_id, second.item_id} == accepted
    assert {1, 2} == {item.result for item in WorkItem.select()}


@pytest.mark.parametrize("gate", [True, False])
def test_a_second_finish_is_accepted_if_it_is_the_same(myloware: Store, gate: bool) -> None:  # noqa: FBT001
    """By the tenant whose item it is, and with the same `gate`, also after the decision; otherwise it is refused."""
    with myloware.tenant("acme"):
        myloware.work.submit([INVOICE])
    claims = myloware.work.claim("agent")
    accepted = {claims[0].item_id}
    assert accepted == myloware.work.finish(claims, [1], gate=gate)

    def again() -> None:
        assert (accepted, set()) == tuple(myloware.work.finish(claims, [2], gate=same) for same in (gate, not gate))
        with myloware.tenant("acme"):
            assert accepted == myloware.work.finish(claims, [2], gate=gate)
        with myloware.tenant("globex"):
            assert set() == myloware.work.finish(claims, [2], gate=gate)

    again()
    if gate:
        for decision in (ApprovalDecision.ESCALATED, ApprovalDecision.APPROVED):
            myloware.approvals.decide(claims[0].item_id, approver_id="kim", decision=decision, policy_version="1")
            again()
    assert 1 == WorkItem.get().result


def test_a_finish_that_met_its_first_call_is_accepted(myloware: Store) -> None:
    """A call that was made again while the first one was still under way waits for it, and says the same."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic():
            first = myloware.work.finish([claim], [1])
            again = pool.submit(myloware.work.finish, [claim], [1])
            until_blocked(myloware, again)
            assert not again.done()
        assert first == again.result() == {claim.item_id}


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_a_second_fail_says_what_the_first_did(myloware: Store, retry: bool, whole: bool) -> None:  # noqa: FBT001
    """Its reply was lost: the items are where they went, and the rest of the batch follows them."""
    myloware.work.submit([INVOICE, TICKET])
    first, second = myloware.work.claim("agent", n=2)

    def fail(*claims: Claim, error: str = "no luck") -> dict[uuid.UUID, Outcome]:
        def call() -> dict[uuid.UUID, Outcome]:
            return myloware.work.fail(claims, [error] * len(claims), retry=retry)

        return myloware.transact(call) if whole else call()

    told = fail(first)
    again = fail(first, second)
    assert {first.item_id, second.item_id} == again.keys()
    assert told[first.item_id] == again[first.item_id] == fail(first)[first.item_id]
    assert {1} == {item.attempt_count for item in WorkItem.select()}
    assert (0 if retry else 2) == DeadLetter.select().count()
    # What somebody else has done with the attempt is not what this call wanted.
    if whole:
        with pytest.raises(LeaseLost):
            fail(first, error="something else")
    else:
        assert {} == fail(first, error="something else")


def test_a_fail_that_met_its_first_call_is_accepted(myloware: Store) -> None:
    """A call that was made again while the first one was still under way waits for it, and says the same."""
    myloware.work.submit([INVOICE])
    claims = myloware.work.claim("agent")
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic():
            first = myloware.work.fail(claims, ["no luck"])
            again = pool.submit(myloware.work.fail, claims, ["no luck"])
            until_blocked(myloware, again)
            assert not again.done()
        assert first == again.result()
    assert myloware.work.cancel(WorkItem.get().work_order_id)
    assert "FAILED" == myloware.work.fail(claims, ["no luck"])[claims[0].item_id].status


def test_a_second_fail_says_where_the_item_is_now(myloware: Store) -> None:
    """Queued again by a replay, without the letter; claimed again it is no matter of this call any more."""
    myloware.work.submit([INVOICE])
    claims = myloware.work.claim("agent")
    (buried,) = myloware.work.fail(claims, ["no luck"], retry=False).values()
    assert buried.dead_letter_id
    myloware.dead_letters.replay(buried.dead_letter_id, by="kim")
    (queued,) = myloware.work.fail(claims, ["no luck"], retry=False).values()
    assert ("QUEUED", None) == (queued.status, queued.dead_letter_id)
    with myloware.tenant("globex"):
        assert {} == myloware.work.fail(claims, ["no luck"], retry=False)
    assert myloware.work.claim("other")
    assert {} == myloware.work.fail(claims, ["no luck"], retry=False)


def test_orders_are_locked_in_the_order_of_their_ids(myloware: Store) -> None:
    """A claim of items of many that waits for the first order has not locked the others yet: no circle can arise."""
    orders = sorted(str(myloware.work.submit([INVOICE]).id) for _ in range(20))
    for order in reversed(orders):  # so that they do not lie in this order
        myloware.db.execute_sql("UPDATE work_orders SET workflow_id = 'moved' WHERE id = %s", (order,))
    free = "SELECT count(*) FROM (SELECT FROM work_orders WHERE id = ANY (%s::uuid[]) FOR UPDATE SKIP LOCKED) AS free"
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic():
            assert (1,) == myloware.db.execute_sql(free, (orders[:1],)).fetchone()
            claiming = pool.submit(myloware.work.claim, "agent", 20)
            until_blocked(myloware, claiming)
            assert (20,) == myloware.db.execute_sql(free, (orders,)).fetchone()
        assert 20 == len(claiming.result())


@pytest.mark.myloware_db(mode="clone")
def test_finish_and_claim_lock_all_their_orders_in_one_order(myloware: Store) -> None:
    """A claim that waits for an order may have found others PENDING of which items have been finished meanwhile."""
    work = myloware.work
    first, second = sorted([work.submit([INVOICE] * 3).id, work.submit([INVOICE] * 2).id])
    WorkItem.update(type="TICKET").where(WorkItem.work_order == second).execute()
    urgent = WorkItem.get(WorkItem.work_order == second)
    WorkItem.update(priority=Priority.URGENT).where(WorkItem.id == urgent.id).execute()
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    with ThreadPoolExecutor(2) as pool:
        with myloware.db.atomic():
            assert first == work.claim("agent", types=["INVOICE"])[0].work_order_id
            claiming = pool.submit(work.claim, "other", 2, tenants=["default"])
            until_blocked(myloware, claiming)
            held = pool.submit(work.claim, "third", types=["TICKET"]).result()
            both = pool.submit(work.finish_and_claim, held, [1], "third")
            until(lambda: both.done() or myloware.db.execute_sql(waiting).fetchone()[0] > 1)
        assert {first, second} == {claim.work_order_id for claim in claiming.result()}
        accepted, claims = both.result()
    assert ({second}, {first}) == ({claim.work_order_id for claim in held}, {claim.work_order_id for claim in claims})
    assert {claim.item_id for claim in held} == accepted
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert (0,) == myloware.db.execute_sql(deadlocks).fetchone()


def test_a_call_of_its_own_is_made_again_after_a_deadlock(myloware: Store) -> None:
    """Who deletes an order locks it before its items, unlike the engine, whose call gives way and is repeated."""
    order = myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic():
            myloware.db.execute_sql("SET LOCAL deadlock_timeout = '1min'")
            myloware.db.execute_sql("SELECT FROM work_orders WHERE id = %s FOR UPDATE", (str(order.id),))
            finishing = pool.submit(myloware.work.finish, [claim], [1])
            until_blocked(myloware, finishing)
            assert not finishing.done()
            assert order.delete_instance() == 1
        assert set() == finishing.result()
    assert WorkItem.select().count() == 0


def test_a_conflict_inside_a_transaction_is_the_callers(myloware: Store) -> None:
    """Only the whole transaction can be run again."""
    myloware.work.submit([INVOICE])
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        myloware.db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert WorkItem.select().count() == 1
        if len(runs) == 1:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(lambda: WorkItem.update(priority=Priority.HIGH).execute()).result()
        (claim,) = myloware.work.claim("agent")
        assert {claim.item_id} == myloware.work.finish([claim], [1])

    myloware.transact(work)
    assert 2 == len(runs)


def test_a_heartbeat_and_a_finish_of_the_same_batch_never_deadlock(myloware: Store) -> None:
    """Both lock attempts in the order of their ids, whatever the order of the items."""
    myloware.work.submit([INVOICE])
    myloware.work.submit([TICKET], priority=Priority.URGENT)
    claims = myloware.work.claim("agent", n=2)
    urgent, usual = claims
    assert (urgent.attempt_id < usual.attempt_id, urgent.item_id > usual.item_id) == (True, True)
    waiting = """
        SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (
            SELECT pid FROM pg_locks JOIN pg_database AS d ON d.oid = database WHERE datname = current_database()
        )
    """

    def alone(call: Callable[[], set[uuid.UUID]]) -> set[uuid.UUID]:
        with myloware.db.atomic():
            return call()

    def wait_for(count: int) -> None:
        until(lambda: myloware.db.execute_sql(waiting).fetchone()[0] >= count)

    with ThreadPoolExecutor(2) as pool:
        with myloware.db.atomic():
            myloware.db.execute_sql("SELECT FROM attempts WHERE id = %s FOR UPDATE", (str(urgent.attempt_id),))
            finishing = pool.submit(alone, lambda: myloware.work.finish(claims, [1, 2]))
            wait_for(1)
            beating = pool.submit(alone, lambda: myloware.work.heartbeat(claims))
            wait_for(2)
        assert {urgent.item_id, usual.item_id} == finishing.result()
        assert set() == beating.result()

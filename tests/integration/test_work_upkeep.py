"""Work counted, told to Prometheus, and deleted when it is long over."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from myloware_store import (
    Attempt,
    ConnectionFailed,
    ConstraintViolation,
    DeadLetter,
    IdempotencyConflict,
    InvalidInput,
    MemDoc,
    NotFound,
    Pruned,
    WorkItem,
    WorkItemStatus,
    WorkOrder,
    WorkOrderStatus,
)
from tests.integration.conftest import BLOCKED, until, until_blocked

if TYPE_CHECKING:
    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
LONG_AGO = datetime.now(UTC) - timedelta(days=400)
SOON = datetime.now(UTC) + timedelta(days=1)


def busy(store: Store) -> None:
    """Leave items in every state."""
    with store.tenant('ac"me\\\n'):
        store.work.submit([INVOICE] * 10)
        store.work.submit([INVOICE] * 3, available_at=datetime.now(UTC) + timedelta(hours=1))
        done, parked, failed, buried, expired, released, _held = store.work.claim("agent", n=7)
        store.work.finish([done], [1])
        store.work.finish([parked], [1], gate=True)
        store.work.fail([failed], ["no luck"])
        store.work.fail([buried], ["never"], retry=False)
        store.work.release([released])
        Attempt.update(lease_expires_at=LONG_AGO).where(Attempt.id == expired.attempt_id).execute()
    with store.tenant("globex"):
        store.dead_letters.record("webhook", "order.paid", {}, "refused")


def test_what_is_open_is_counted_by_tenant_and_state(myloware: Store) -> None:
    """And what has ended within the window; a tenant in force sees its own."""
    assert () == myloware.work.stats().tenants
    assert (0, None) == (myloware.work.stats().total.ready, myloware.work.stats().total.oldest_ready_seconds)
    busy(myloware)
    acme, globex = myloware.work.stats().tenants
    counts = attrs.asdict(acme)
    assert 0 < counts.pop("oldest_ready_seconds") < 3600
    assert {
        "tenant_id": 'ac"me\\\n',
        "ready": 4,
        "scheduled": 4,
        "processing": 2,
        "expired": 1,
        "awaiting_approval": 1,
        "dead_letters": 1,
        "completed": 2,
        "failed": 2,
        "timed_out": 0,
    } == counts
    assert ("globex", 1, 0, None) == (globex.tenant_id, globex.dead_letters, globex.ready, globex.oldest_ready_seconds)
    total = myloware.work.stats().total
    assert (4, 2, acme.ready) == (total.ready, total.dead_letters, total.ready)
    with myloware.tenant("globex"):
        assert (globex,) == myloware.work.stats().tenants
    Attempt.update(finished_at=LONG_AGO).where(Attempt.finished_at.is_null(is_null=False)).execute()
    assert (0, 0) == (myloware.work.stats().total.completed, myloware.work.stats().total.failed)
    for window in (0, 3601, "60"):
        with pytest.raises(InvalidInput):
            myloware.work.stats(window)  # type: ignore[arg-type]  # that is the point


def test_prometheus_reads_the_metrics(myloware: Store) -> None:
    """Its own parser finds every count, under the tenant's name as it is."""
    assert [] == [sample for family in families(myloware) for sample in family.samples if sample.labels]
    busy(myloware)
    found = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families(myloware)
        for sample in family.samples
    }
    acme = 'ac"me\\\n'
    assert 4 == found["myloware_work_items", (acme, "ready")]
    assert 4 == found["myloware_work_items", (acme, "scheduled")]
    assert 1 == found["myloware_work_items", (acme, "awaiting_approval")]
    assert 1 == found["myloware_work_leases_expired", (acme,)]
    assert 2 == found["myloware_work_attempts_ended", (acme, "completed")]
    assert 60 == found["myloware_work_attempts_window_seconds", ()]
    assert 1 == found["myloware_dead_letters", ("globex",)]
    assert 2 == found["myloware_work_unindexed", ()]
    assert 0 < found["myloware_work_oldest_unindexed_seconds", ()] < 3600
    assert 0 < found["myloware_work_oldest_ready_seconds", (acme,)] < 3600


def families(store: Store) -> list[Any]:
    """Parse the metrics: every family is a gauge with a help text, and comes once."""
    parsed = [*text_string_to_metric_families(store.work.metrics())]
    assert {"gauge"} == {family.type for family in parsed}
    assert all(family.documentation for family in parsed)
    assert len(parsed) == len({family.name for family in parsed})
    return parsed


def grow_old(store: Store) -> None:
    """Have all orders and letters made and ended long ago."""
    WorkOrder.update(created_at=LONG_AGO, updated_at=LONG_AGO).execute()
    DeadLetter.update(created_at=LONG_AGO).execute()
    DeadLetter.update(replayed_at=LONG_AGO).where(DeadLetter.replayed_at.is_null(is_null=False)).execute()


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_what_is_long_over_is_deleted_in_batches(myloware: Store, batch: int) -> None:
    """Orders go whole with all that belongs to them, in every tenant; what is open or recent stays, and audit lines."""
    for tenant in ("acme", "globex"):
        with myloware.tenant(tenant):
            for _ in range(6):
                myloware.work.submit([INVOICE] * 3)
    while claims := myloware.work.claim("agent", n=50):
        myloware.work.finish(claims, [1] * len(claims))
    myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "work_item_id": WorkItem.get().id}])
    grow_old(myloware)
    open_order = myloware.work.submit([INVOICE])
    recent = myloware.work.submit([INVOICE])
    myloware.work.cancel(recent.id)
    WorkOrder.update(created_at=LONG_AGO).where(WorkOrder.id << [open_order.id, recent.id]).execute()
    myloware.audit.record("report.read", "report", "1")
    before = datetime.now(UTC) - timedelta(days=30)
    with myloware.tenant("acme"):
        assert Pruned(orders=6, items=18, dead_letters=0) == myloware.work.prune(before, batch=batch)
    assert Pruned(orders=6, items=18, dead_letters=0) == myloware.work.prune(before, batch=batch)
    assert Pruned(orders=0, items=0, dead_letters=0) == myloware.work.prune(before, batch=batch)
    assert {open_order.id, recent.id} == {order.id for order in WorkOrder.select()}
    assert (2, 0, 0) == (WorkItem.select().count(), Attempt.select().count(), MemDoc.select().count())
    assert 1 == len(myloware.audit.list(action="report.read"))


def test_what_may_be_opened_again_is_kept(myloware: Store) -> None:
    """An order stays while one of its letters is open; a letter goes when it was replayed long ago."""
    kept, replayed = (myloware.work.submit([INVOICE], max_attempts=1) for _ in range(2))
    myloware.work.fail(myloware.work.claim("agent", n=2), ["no", "luck"])
    letters = {letter.work_item.work_order_id: letter.id for letter in DeadLetter.select() if letter.work_item}
    myloware.dead_letters.replay(letters[replayed.id], by="kim")
    myloware.work.finish(myloware.work.claim("agent"), [1])
    grow_old(myloware)
    assert Pruned(orders=1, items=1, dead_letters=1) == myloware.work.prune(SOON)
    assert [letters[kept.id]] == [letter.id for letter in DeadLetter.select()]
    assert {letters[kept.id]} == myloware.dead_letters.replay(letters[kept.id], by="kim")
    assert kept.id == myloware.work.get(kept.id).id


def test_pruning_is_refused_where_it_cannot_be_done(myloware: Store) -> None:
    """Inside a transaction, for a time that is none, in batches of nothing."""
    with pytest.raises(InvalidInput, match="commit"), myloware.db.atomic():
        myloware.work.prune(LONG_AGO)
    for before, batch in ((datetime(2026, 1, 1), 10), ("2026", 10), (LONG_AGO, 0)):  # noqa: DTZ001  that is the point
        with pytest.raises(InvalidInput, match=r"^(before|batch): "):
            myloware.work.prune(before, batch=batch)  # type: ignore[arg-type]  # that is the point


TELL = """
CREATE TABLE told (transaction bigint, items int);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO told SELECT txid_current(), count(*) FROM old_rows;
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER DELETE ON work_items
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION tell();
"""
"""Have the database tell how many items each transaction deletes."""


def ended_order(store: Store, completed: int = 20, failed: int = 10) -> WorkOrder:
    """Give an order that ended long ago, with items that completed and items that were cancelled."""
    order = store.work.submit([INVOICE] * (completed + failed))
    if completed:
        store.work.finish(store.work.claim("agent", n=completed), [1] * completed)
    if failed:
        store.work.cancel(order.id)
    WorkOrder.update(created_at=LONG_AGO, updated_at=LONG_AGO).where(WorkOrder.id == order.id).execute()
    return store.work.get(order.id)


def half_pruned(store: Store) -> WorkOrder:
    """Give such an order whose pruning was ended between two batches."""
    order = ended_order(store)
    with ThreadPoolExecutor(1) as pool, store.db.atomic():
        store.db.execute_sql("SELECT FROM work_items WHERE status = 'FAILED' FOR UPDATE")
        pruning = pool.submit(store.work.prune, SOON, batch=7)
        until_blocked(store, pruning)
        store.db.execute_sql(f"SELECT pg_terminate_backend(pid) FROM ({BLOCKED}) AS waiting")
        with pytest.raises(ConnectionFailed):
            pruning.result(60)
    return order


@pytest.mark.parametrize(("completed", "failed"), [(50, 0), (0, 50), (20, 30)])
def test_a_large_order_is_deleted_in_batches(myloware: Store, completed: int, failed: int) -> None:
    """No transaction deletes more items than that; the orders beside it go with it."""
    for sizes in ((2, 1), (completed, failed), (1, 0), (3, 9)):
        ended_order(myloware, *sizes)
    myloware.db.execute_sql(TELL)
    assert Pruned(orders=4, items=66, dead_letters=0) == myloware.work.prune(SOON, batch=12)
    assert (0, 0, 0) == (WorkOrder.select().count(), WorkItem.select().count(), Attempt.select().count())
    sizes = myloware.db.execute_sql("SELECT sum(items) FROM told GROUP BY transaction HAVING sum(items) > 0").fetchall()
    assert (66, 12) == (sum(size for (size,) in sizes), max(size for (size,) in sizes))


def test_pruning_that_was_ended_is_resumed(myloware: Store) -> None:
    """Until then the order is one that ended when it did, with fewer items, which it counts rightly."""
    order = half_pruned(myloware)
    seen, items = myloware.work.get(order.id), myloware.work.items(order.id)
    assert 10 <= len(items) < 30
    assert [WorkItemStatus.FAILED] * 10 == [item.status for item in items if item.status != WorkItemStatus.COMPLETED]
    assert (order.status, LONG_AGO, 0, 10) == (seen.status, seen.updated_at, seen.open_items, seen.failed_items)
    assert order.id == myloware.work.wait(order.id, 1.0).id
    WorkOrder.update(idempotency_key="once", updated_at=LONG_AGO).execute()
    with pytest.raises(IdempotencyConflict):
        myloware.work.submit([INVOICE] * 30, idempotency_key="once")
    assert Pruned(orders=1, items=len(items), dead_letters=0) == myloware.work.prune(SOON - timedelta(days=2), batch=7)
    assert (0, 0) == (WorkOrder.select().count(), WorkItem.select().count())


def test_a_replay_stops_the_pruning_of_its_order(myloware: Store) -> None:
    """From the letter on nothing of the order is deleted, and what is open is never lost."""
    order = half_pruned(myloware)
    failed = next(item for item in myloware.work.items(order.id) if item.status == WorkItemStatus.FAILED)
    left = len(myloware.work.items(order.id))
    letter = DeadLetter.create(
        tenant_id=failed.tenant_id, work_item=failed, source="kim", event_type="again", payload={}, error="by mistake"
    )
    assert Pruned(orders=0, items=0, dead_letters=0) == myloware.work.prune(SOON, batch=7)
    assert {letter.id} == myloware.dead_letters.replay(letter.id, by="kim")
    assert Pruned(orders=0, items=0, dead_letters=1) == myloware.work.prune(SOON, batch=7)
    assert (1, 9) == (myloware.work.get(order.id).open_items, myloware.work.get(order.id).failed_items)
    myloware.work.finish(myloware.work.claim("agent"), [1])
    assert Pruned(orders=1, items=left, dead_letters=0) == myloware.work.prune(SOON, batch=7)


def test_what_is_added_during_the_pruning_is_not_lost(myloware: Store) -> None:
    """The item opens its order, which stays; or the order was gone, and the item is refused."""
    for _ in range(10):
        order = ended_order(myloware, completed=30, failed=0)
        together = threading.Barrier(2)

        def add(order: WorkOrder = order, together: threading.Barrier = together) -> bool:
            together.wait(60)
            until(lambda: len(myloware.work.items(order.id)) < 30)
            try:
                WorkItem.create(tenant_id=order.tenant_id, work_order=order, type="TICKET", content="One more")
            except (ConstraintViolation, NotFound):
                return False
            return True

        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(add)
            together.wait(60)
            pruned = myloware.work.prune(SOON, batch=1)
        if adding.result(60):
            seen, items = myloware.work.get(order.id), myloware.work.items(order.id)
            assert (WorkOrderStatus.PROCESSING, 1) == (seen.status, seen.open_items)
            assert ["One more"] == [item.content for item in items if item.status == WorkItemStatus.QUEUED]
            assert 31 == len(items) + pruned.items
            WorkOrder.delete().execute()
        else:
            assert Pruned(orders=1, items=30, dead_letters=0) == pruned


def test_two_prunings_at_once_delete_each_item_once(myloware: Store) -> None:
    """They share the orders; what one is at, the other leaves to it."""
    for _ in range(3):
        ended_order(myloware, completed=30, failed=20)
    together = threading.Barrier(2)

    def prune(_: int) -> Pruned:
        together.wait(60)
        return myloware.work.prune(SOON, batch=3)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(prune, range(2))
    rest = myloware.work.prune(SOON)
    assert Pruned(orders=3, items=150, dead_letters=0) == first + second + rest
    assert (0, 0) == (WorkOrder.select().count(), WorkItem.select().count())

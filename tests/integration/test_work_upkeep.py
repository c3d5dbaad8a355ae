"""Work counted, told to Prometheus, and deleted when it is long over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from myloware_store import Attempt, AuditLog, DeadLetter, InvalidInput, MemDoc, Pruned, WorkItem, WorkOrder

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
    assert 1 == AuditLog.select().count()


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

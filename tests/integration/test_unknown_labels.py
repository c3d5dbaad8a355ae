"""Labels that a newer version has added to the enum types, met by this one while both run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import Attempt, MemDoc, SchemaMismatch, Worker, WorkItem
from tests.integration.conftest import until_listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

NEW = ("work_item_type", "CONTRACT"), ("priority", "CRITICAL"), ("mem_doc_type", "SUMMARY")


@pytest.fixture
def newer(myloware: Store) -> Store:
    """Give a store whose enum types have labels that its code does not know."""
    for kind, label in NEW:
        myloware.db.execute_sql(f"ALTER TYPE {kind} ADD VALUE '{label}'")
    return myloware


def submit(store: Store, kind: str, count: int = 1, *, priority: str = "MEDIUM", tenant: str = "default") -> None:
    """Queue items as a newer version does."""
    with store.tenant(tenant):
        order = store.work.submit([{"type": "TICKET", "content": "first"}])
    store.work.finish(store.work.claim("setup", types=["TICKET"]), [1])
    insert = """
        INSERT INTO work_items (tenant_id, work_order_id, type, content, priority)
        SELECT %s, %s, %s::work_item_type, 'x', %s::priority FROM generate_series(1, %s)
        """
    store.db.execute_sql(insert, (tenant, order.id, kind, priority, count))


@pytest.mark.parametrize(
    "narrowed",
    [{}, {"types": ["INVOICE", "TICKET"]}, {"tenants": ["acme", "globex"]}, {"fair": True}],
    ids=["all", "types", "tenants", "fair"],
)
def test_only_items_of_known_types_are_claimed(newer: Store, narrowed: dict[str, Any]) -> None:
    """Items of another type stay in the queue with all their tries, whichever way a claim goes."""
    submit(newer, "CONTRACT", 20, tenant="acme")
    submit(newer, "INVOICE", 2, tenant="acme")
    submit(newer, "CONTRACT", 20, tenant="globex")
    submit(newer, "INVOICE", 2, tenant="globex")
    claimed = [claim.type for _ in range(3) for claim in newer.work.claim("agent", n=3, **narrowed)]

    assert ["INVOICE"] * 4 == claimed
    untouched = WorkItem.select().where((WorkItem.status == "QUEUED") & (WorkItem.attempt_count == 0))
    assert 40 == untouched.count()


def test_an_unknown_priority_does_not_stop_claims(newer: Store) -> None:
    """Items that have it wait for a newer worker; the others are claimed."""
    submit(newer, "INVOICE", priority="CRITICAL")
    submit(newer, "INVOICE")

    assert 1 == len(newer.work.claim("agent", n=5))


def test_a_worker_goes_on_beside_items_of_unknown_types(newer: Store) -> None:
    """It drains what it knows, and does not take the rest for work that is about to come free."""
    submit(newer, "CONTRACT", 3)
    submit(newer, "INVOICE", 3)

    assert 3 == Worker(newer, lambda _: None).run(drain=True).finished
    assert not newer.work.wait_for_work(0)
    assert not newer.work.wait_for_work(0, tenants=["default"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(newer.work.wait_for_work, 60)
        until_listening(newer)
        submit(newer, "CONTRACT")
        submit(newer, "INVOICE")
        assert waiting.result(60)


def test_reading_an_unknown_label_is_one_typed_error(newer: Store) -> None:
    """It names the label, in rows of models, documents of memory and hits; counts need no label."""
    submit(newer, "CONTRACT")
    newer.memory.upsert([{"type": "CONTEXT", "content": "zebra"}])
    newer.db.execute_sql("UPDATE mem_docs SET type = 'SUMMARY'")
    doc_id = MemDoc.select(MemDoc.id).tuples().get()[0]
    order_id = WorkItem.select(WorkItem.work_order).tuples().get()[0]
    reads: dict[Callable[[], object], str] = {
        lambda: list(WorkItem.select()): "WorkItemType: .* 'CONTRACT'",
        lambda: newer.work.items(order_id): "WorkItemType: .* 'CONTRACT'",
        lambda: list(MemDoc.select()): "MemDocType: .* 'SUMMARY'",
        lambda: newer.memory.get([doc_id]): "MemDocType: .* 'SUMMARY'",
        lambda: newer.memory.search_text("zebra"): "MemDocType: .* 'SUMMARY'",
    }
    for read, message in reads.items():
        with pytest.raises(SchemaMismatch, match=message):
            read()
    assert 1 == newer.work.stats().total.ready
    assert 1 == Attempt.select().count()

"""What the demonstration did, as it is stored and as anybody can count it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs

from myloware_store.core.enums import WorkItemStatus, WorkItemType, WorkOrderStatus
from myloware_store.demo.reading import Skipped

if TYPE_CHECKING:
    from myloware_store.store import Store

__all__ = ["TENANT", "DemoItem", "DemoReport", "Passage", "count_rows"]

TENANT: Final = "demo"
"""The tenant that everything belongs to."""


@attrs.frozen
class DemoItem:
    """What became of one document.

    Attributes:
        item_id: Its work item.
        name: The document's name.
        type: What it was taken for.
        status: Where the item stands.
        attempts: How often it was tried.
        result: What was read off it: `title`, `words` and `key_words`.
    """

    item_id: UUID
    name: str
    type: WorkItemType
    status: WorkItemStatus
    attempts: int
    result: Any


@attrs.frozen
class Passage:
    """An answer from memory.

    Attributes:
        document: The name of the document it stands in; empty where it is none of a demonstration's.
        content: The passage.
        similarity: Its cosine similarity to the query, -1 .. 1.
        memory_id: Its memory document.
    """

    document: str
    content: str
    similarity: float
    memory_id: UUID


@attrs.frozen
class DemoReport:
    """What was stored where, and what memory answered.

    Attributes:
        tenant_id: The tenant that everything belongs to.
        order_id: The work order.
        run_id: The run of the workflow over it.
        status: How the order ended.
        items: What became of each document, in the order in which they were given.
        skipped: The files that gave no document; each is a dead letter.
        retried: The document whose first attempt failed, and the error; None where another worker was faster.
        approved: The document whose result a person approved; None where another worker was faster.
        dead_letter_ids: The dead letters that this run left: one a skipped file, in their order, or one put on.
        counts: For each table, how many rows the database holds for this order.
        query: What was asked.
        passages: The best passages in memory, the best first; none where nothing there is similar to the query.
    """

    tenant_id: str
    order_id: UUID
    run_id: UUID
    status: WorkOrderStatus
    items: tuple[DemoItem, ...]
    skipped: tuple[Skipped, ...]
    retried: tuple[str, str] | None
    approved: str | None
    dead_letter_ids: tuple[UUID, ...]
    counts: dict[str, int]
    query: str
    passages: tuple[Passage, ...]


_COUNTED = (
    "work_orders",
    "work_items",
    "attempts",
    "runs",
    "mem_docs",
    "approval_events",
    "eval_results",
    "dead_letters",
    "audit_logs",
)
COUNTS = """
WITH items AS MATERIALIZED (SELECT id FROM work_items WHERE tenant_id = %(tenant)s AND work_order_id = %(order_id)s)
SELECT
    (SELECT count(*) FROM work_orders WHERE tenant_id = %(tenant)s AND id = %(order_id)s),
    (SELECT count(*) FROM items),
    (SELECT count(*) FROM attempts WHERE work_item_id IN (TABLE items)),
    (SELECT count(*) FROM runs WHERE tenant_id = %(tenant)s AND work_order_id = %(order_id)s),
    (SELECT count(*) FROM mem_docs WHERE tenant_id = %(tenant)s AND work_item_id IN (TABLE items)),
    (SELECT count(*) FROM approval_events WHERE work_item_id IN (TABLE items)),
    (SELECT count(*) FROM eval_results WHERE work_item_id IN (TABLE items)),
    (SELECT count(*) FROM dead_letters WHERE tenant_id = %(tenant)s
        AND (work_item_id IN (TABLE items) OR payload ->> 'order_id' = %(order_id)s::text)),
    (SELECT count(*) FROM audit_logs WHERE tenant_id = %(tenant)s AND details ->> 'order_id' = %(order_id)s::text)
"""


def count_rows(store: Store, order_id: UUID) -> dict[str, int]:
    """Count, for each table, what the database holds for this order."""
    (row,) = store.db.execute_sql(COUNTS, {"tenant": TENANT, "order_id": str(order_id)}).fetchall()
    return dict(zip(_COUNTED, row, strict=True))

"""The report of the demonstration, and the row counts in it."""

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
"""The tenant of everything that the demonstration stores."""


@attrs.frozen
class DemoItem:
    """The outcome for one document.

    Attributes:
        item_id: Its work item.
        name: The document's name.
        type: Its guessed type.
        status: The status of the item.
        attempts: How often it was tried.
        result: The extracted `title`, `words` and `key_words`.
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
        document: The name of its document; empty if it is not from a demonstration.
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
    """The stored rows, and the answers of memory.

    Attributes:
        tenant_id: The tenant of all rows.
        order_id: The work order.
        run_id: The run of the workflow over it.
        status: The final status of the order.
        items: The outcome for each document, in the given order.
        skipped: The files without a document; each is a dead letter.
        retried: The document whose first attempt failed, and the error; None if another worker was faster.
        approved: The document whose result was approved; None if another worker was faster.
        dead_letter_ids: The dead letters of this run: one for each skipped file, in their order, or a simulated one.
        counts: For each table, how many rows the database has for this order.
        query: The question.
        passages: The best passages in memory, the best first; none if nothing there is similar to the query.
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
    """Count, for each table, the rows of this order."""
    (row,) = store.db.execute_sql(COUNTS, {"tenant": TENANT, "order_id": str(order_id)}).fetchall()
    return dict(zip(_COUNTED, row, strict=True))

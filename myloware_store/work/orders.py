"""The work engine: orders submitted, items claimed, attempts finished, failed and timed out.

Execution is at least once, acceptance of a result exactly once: every claim makes an attempt, and only the attempt that
holds the item can end it. Times are the database's (`statement_timestamp()`: `now()` is when the transaction began).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_count, as_enum, as_list, as_name, as_object, as_seconds, as_uuid
from myloware_store.core.enums import Priority, WorkOrderStatus
from myloware_store.core.errors import IdempotencyConflict, InvalidDocument, InvalidInput, NotFound, WaitTimeout
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json, is_uuid
from myloware_store.orm.repository import writer
from myloware_store.orm.scalars import as_instant
from myloware_store.platform.schemas import ActiveSchemas, Schemas
from myloware_store.work.claims import Claims
from myloware_store.work.models import WorkItem, WorkOrder
from myloware_store.work.rows import as_document, as_order
from myloware_store.work.upkeep import Upkeep

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

__all__ = ["Work"]

_sql = queries_beside(__file__)

_OPEN = (WorkOrderStatus.PENDING, WorkOrderStatus.PROCESSING)
_SHORTEST_LOOK = 0.005
_LONGEST_LOOK = 0.5


class Work(Claims, Upkeep):
    """Work orders and their items."""

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._schemas = Schemas(database)
        self._active: dict[frozenset[str], ActiveSchemas] = {}

    def submit(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        priority: Priority | str = Priority.MEDIUM,
        workflow_id: UUID | str | None = None,
        created_by: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        available_at: datetime | None = None,
        max_attempts: int = 5,
    ) -> WorkOrder:
        """Store an order and its items, all of them or none, in one statement.

        Args:
            items: Mappings with `type` (a `WorkItemType`) and `content` (text, 1 MiB at most).
            priority: How urgent; urgent items are claimed first.
            workflow_id: What the caller calls the workflow that the order belongs to, such as a template's name or id;
                stored as text, and not looked up (`runs.start` links a template).
            created_by: Who submits it, by default the actor in force, else `system`.
            metadata: A JSON object, 4 MiB at most.
            idempotency_key: Submitting the same items under the same key again returns the first order as it is,
                whatever else is given then (priority, metadata, ...).
            available_at: When the items can first be claimed, by default at once.
            max_attempts: How often an item is tried before it becomes a dead letter (1 to 1000).

        Returns:
            The order, with `open_items` set to the number of its items.

        Raises:
            InvalidInput: There is no item, or one cannot be stored; nothing was written.
            InvalidDocument: A content does not fit the active schemas for its type (`schemas.activate`); nothing was
                written.
            IdempotencyConflict: The key was used before, with other items.
        """
        tenant, actor = writer()
        documents = [as_document(item, f"items[{n}]") for n, item in enumerate(as_list(items, "items"))]
        if not documents:
            raise InvalidInput("submit: an order needs at least one item")
        workflow = str(workflow_id) if is_uuid(workflow_id) else workflow_id
        key = None if idempotency_key is None else as_name(idempotency_key, "idempotency_key")
        values: dict[str, Any] = {
            "order_id": str(uuid7()),
            "tenant_id": tenant,
            "priority": as_enum(priority, Priority, "priority").value,
            "workflow_id": None if workflow is None else as_name(workflow, "workflow_id"),
            "created_by": as_name(actor if created_by is None else created_by, "created_by"),
            "metadata": dump_json(as_object(metadata, "metadata"), "metadata"),
            "key": key,
            "available_at": None if available_at is None else as_instant(available_at, "available_at"),
            "max_attempts": as_count(max_attempts, "max_attempts", most=1000),
            "item_ids": [str(uuid7()) for _ in documents],
            "types": [kind for kind, _ in documents],
            "contents": [content for _, content in documents],
        }
        try:
            row = self._store_checked(documents, values)
        except InvalidDocument:
            # What was submitted under this key before a schema came into force is not submitted anew.
            if key is None or not self._by_key(tenant, key):
                raise
            row = None
        if row is None:
            return self._first_order(tenant, key, documents)
        if available_at is not None:
            self._horizons.forget()
        order = as_order(row)
        # The roll-up trigger counted the items after the row was returned.
        order.open_items = len(documents)
        order._dirty.clear()  # noqa: SLF001  the stored row says so, too
        return order

    def _store_checked(self, documents: list[tuple[str, str]], values: dict[str, Any]) -> tuple[Any, ...] | None:
        """Store documents that fit the active schemas, and return the order's row; None where its key was used before.

        They are checked against what was active when this store last asked. The statement that stores them finds out
        whether it still is, so that nothing is asked before it as long as nothing changes.
        """
        types = frozenset(kind for kind, _ in documents)
        active, asked = self._active.get(types, ActiveSchemas()), False
        while True:
            try:
                active.check(documents)
            except InvalidDocument:
                if asked:
                    raise
            else:
                given = {**values, "document_types": [*types], "stamps": [*active.stamps]}
                ((unchanged, *row),) = self._rows(_sql("submit"), given)
                if unchanged:
                    return tuple(row) if row[0] else None
            active, asked = self._schemas.active(types), True
            self._active[types] = active

    def _by_key(self, tenant: str, key: str) -> WorkOrder | None:
        order: WorkOrder | None = WorkOrder.get_or_none(WorkOrder.tenant_id == tenant, WorkOrder.idempotency_key == key)
        return order

    def _first_order(self, tenant: str, key: Any, documents: list[tuple[str, str]]) -> WorkOrder:
        order = self._by_key(tenant, key)
        if order is None:
            raise IdempotencyConflict(f"the key {key!r} is being used by a transaction that this one cannot see")
        stored = WorkItem.select(WorkItem.type, WorkItem.content).where(WorkItem.work_order == order).tuples()
        if sorted((str(kind), content) for kind, content in stored) != sorted(documents):
            raise IdempotencyConflict(f"the key {key!r} was used before, with other items, for order {order.id}")
        return order

    def cancel(self, order_id: UUID | str) -> set[UUID]:
        """End what is open of an order, at once: its items fail, without a dead letter, and the order with them.

        Items that somebody works on are taken away: `heartbeat` says so, and what is finished later is refused. The
        order's `cancelled_at` and the errors of its attempts tell it apart from one that failed. What had ended
        stays as it is.

        Args:
            order_id: The order.

        Returns:
            The ids of the items that it ended; none where nothing was open.

        Raises:
            NotFound: There is no such order, or it is another tenant's.
        """
        values = {"order_id": str(as_uuid(order_id, "order_id"))}

        def end() -> list[tuple[Any, ...]]:
            # The items first, as everywhere; a statement that begins later sees what was done until they were locked.
            self._rows(_sql("lock_open"), values)
            return self._rows(_sql("cancel"), values)

        rows = self._db.transact(end)
        if not rows:
            raise NotFound(f"order_id: there is no WorkOrder {order_id}")
        return {item_id for (item_id,) in rows if item_id is not None}

    def wait(self, order_id: UUID | str, timeout: float = 60.0) -> WorkOrder:
        """Wait until an order has ended, and return it.

        It looks by the clock, up to twice a second, and holds no connection in between, so that any number can wait.

        Args:
            order_id: The order.
            timeout: Most seconds to wait.

        Returns:
            The order, COMPLETED or FAILED.

        Raises:
            NotFound: There is no such order, or it is another tenant's, or it was deleted meanwhile.
            WaitTimeout: It is still open after that time.
            InvalidInput: A transaction is open: what it has not committed nobody else can work on.
        """
        deadline = time.monotonic() + as_seconds(timeout, "timeout")
        if self._db.transaction_open():
            raise InvalidInput("wait: commit first; nobody else can work on what this transaction has not committed")
        pause = _SHORTEST_LOOK
        while (order := self.get(order_id)).status in _OPEN:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"order {order.id} has {_open(order)} after {timeout:g} s")
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK)
        return order

    def get(self, order_id: UUID | str) -> WorkOrder:
        """Return an order.

        Raises:
            NotFound: There is none of this id, or it is another tenant's.
        """
        return self._find(WorkOrder, order_id, "order_id")

    def items(self, order_id: UUID | str) -> list[WorkItem]:
        """Return the items of an order, in the order in which they were submitted.

        Raises:
            NotFound: There is no such order, or it is another tenant's.
        """
        order = self.get(order_id)
        items: Iterable[WorkItem] = order.items.order_by(WorkItem.created_at, WorkItem.id)
        return [*items]


def _open(order: WorkOrder) -> str:
    # Index: work_items_work_order_status_type_idx.
    waiting = order.items.where(WorkItem.awaiting_approval).count()
    told = f"{order.open_items} open item{'' if order.open_items == 1 else 's'}"
    return f"{told}, {waiting} of which await{'s' if waiting == 1 else ''} approval," if waiting else told

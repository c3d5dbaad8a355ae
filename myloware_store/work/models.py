"""Work orders, their items, attempts at them, decisions about them, and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from peewee import SQL, Check

from myloware_store.core.enums import (
    ApprovalDecision,
    AttemptStatus,
    Priority,
    WorkItemStatus,
    WorkItemType,
    WorkOrderStatus,
)
from myloware_store.orm.base import BaseModel, TenantEntity
from myloware_store.orm.fields import EnumField, JsonField, TenantForeignKey, UuidField
from myloware_store.orm.scalars import (
    CheckedBooleanField,
    CheckedIntegerField,
    CheckedTextField,
    NameField,
    ServerDefault,
    TimestampField,
)

if TYPE_CHECKING:
    from myloware_store.orm.queries import Select

__all__ = ["ApprovalEvent", "Attempt", "DeadLetter", "WorkItem", "WorkOrder"]


class WorkOrder(TenantEntity):
    """A request to process documents.

    The database updates `open_items`, `failed_items` and `status` with the items. An order is PENDING until its first
    item starts, and COMPLETED or FAILED when its last item has ended. The replay of an item opens it again.
    """

    if TYPE_CHECKING:
        items: Select[WorkItem]
        runs: Select[Any]

    status = EnumField(WorkOrderStatus, default=WorkOrderStatus.PENDING)
    priority = EnumField(Priority, default=Priority.MEDIUM)
    workflow_id = NameField(null=True)
    created_by = NameField()
    metadata = JsonField(kind=dict, default=dict)
    idempotency_key = NameField(null=True)
    unique_key = NameField(null=True)
    open_items = CheckedIntegerField(constraints=[ServerDefault("0")])
    failed_items = CheckedIntegerField(constraints=[ServerDefault("0")])
    cancelled_at = TimestampField(null=True)
    # The values of a `RetryPolicy`.
    retry_policy = JsonField(null=True, domain="retry_policy")
    updated_at = TimestampField(constraints=[ServerDefault("now()")])

    __repr__ = BaseModel.__repr__

    class Meta:
        table_name = "work_orders"
        constraints = [
            SQL("CONSTRAINT work_orders_tenant_id_id_key UNIQUE (tenant_id, id)"),
            SQL("CONSTRAINT work_orders_tenant_id_idempotency_key_key UNIQUE (tenant_id, idempotency_key)"),
            Check(
                "open_items >= 0 AND failed_items >= 0 AND (open_items = 0 OR status IN ('PENDING', 'PROCESSING'))",
                "work_orders_check",
            ),
        ]
        indexes = [
            SQL("CREATE INDEX work_orders_tenant_status_created_at_idx ON work_orders (tenant_id, status, created_at)"),
            SQL(
                "CREATE UNIQUE INDEX work_orders_unique_key_idx ON work_orders (tenant_id, unique_key)"
                " WHERE unique_key IS NOT NULL AND status IN ('PENDING', 'PROCESSING')"
            ),
        ]


class WorkItem(TenantEntity):
    """A document of an order, and its result."""

    if TYPE_CHECKING:
        work_order_id: UuidField[UUID]
        attempts: Select[Attempt]
        mem_docs: Select[Any]
        approval_events: Select[Any]
        eval_results: Select[Any]
        dead_letters: Select[Any]

    work_order = TenantForeignKey(WorkOrder, backref="items")
    type = EnumField(WorkItemType)
    content = CheckedTextField(blank=False)
    status = EnumField(WorkItemStatus, default=WorkItemStatus.QUEUED)
    result = JsonField(null=True)
    processed_at = TimestampField(null=True)
    cancelled_at = TimestampField(null=True)
    # The order's. A trigger fills it in if an INSERT omits it.
    priority = EnumField(Priority)
    available_at = TimestampField(constraints=[ServerDefault("now()")])
    attempt_count = CheckedIntegerField(constraints=[ServerDefault("0")])
    max_attempts = CheckedIntegerField(constraints=[ServerDefault("5")])
    # No foreign key: the attempt already refers to the item. The id stays after the end.
    current_attempt_id = UuidField(null=True)
    awaiting_approval = CheckedBooleanField(constraints=[ServerDefault("false")])
    # Whether the item is in the full-text index; `index_work_items()` sets it when the item has ended.
    searchable = CheckedBooleanField(constraints=[ServerDefault("false")])
    updated_at = TimestampField(constraints=[ServerDefault("now()")])

    __repr__ = BaseModel.__repr__

    class Meta:
        table_name = "work_items"
        constraints = [
            SQL("CONSTRAINT work_items_tenant_id_id_key UNIQUE (tenant_id, id)"),
            # One check for each table that the work engine writes: PostgreSQL prepares each anew for every statement.
            Check(
                "content <> '' AND attempt_count BETWEEN 0 AND max_attempts AND max_attempts >= 1"
                " AND (status IN ('COMPLETED', 'FAILED')) = (processed_at IS NOT NULL)"
                " AND (NOT awaiting_approval OR status = 'PROCESSING')",
                "work_items_check",
            ),
        ]
        indexes = [
            SQL("CREATE INDEX work_items_work_order_status_type_idx ON work_items (work_order_id, status, type)"),
            SQL(
                "CREATE INDEX work_items_claim_idx ON work_items (priority DESC, available_at, id)"
                " WHERE status = 'QUEUED'"
            ),
            SQL(
                "CREATE INDEX work_items_claim_type_idx ON work_items"
                " (type, priority DESC, available_at NULLS FIRST, id) WHERE status = 'QUEUED'"
            ),
            SQL(
                "CREATE INDEX work_items_claim_tenant_idx ON work_items"
                " (tenant_id, priority DESC, available_at NULLS FIRST, id, type) WHERE status = 'QUEUED'"
            ),
            SQL("CREATE INDEX work_items_approval_idx ON work_items (updated_at, id) WHERE awaiting_approval"),
            SQL(
                "CREATE INDEX work_items_content_fts_idx ON work_items USING gin (content_search(content))"
                " WHERE searchable AND processed_at IS NOT NULL"
            ),
            # Otherwise each ANALYZE parses the contents of its sample, thousands of items.
            SQL("ALTER INDEX work_items_content_fts_idx ALTER COLUMN 1 SET STATISTICS 0"),
            SQL(
                "CREATE INDEX work_items_unindexed_idx ON work_items (processed_at)"
                " WHERE NOT searchable AND processed_at IS NOT NULL"
            ),
        ]


class Attempt(TenantEntity):
    """An agent's try at an item. It holds the lease on the item."""

    if TYPE_CHECKING:
        work_item_id: UuidField[UUID]

    work_item = TenantForeignKey(WorkItem, backref="attempts")
    agent_id = NameField()
    status = EnumField(AttemptStatus, default=AttemptStatus.STARTED)
    input = JsonField(null=True)
    output = JsonField(null=True)
    error = CheckedTextField(null=True)
    duration_ms = CheckedIntegerField(null=True)
    attempt_number = CheckedIntegerField(constraints=[ServerDefault("1")])
    lease_expires_at = TimestampField(null=True)
    # Percents. No CHECK: it would be evaluated for every claim and every result.
    progress = CheckedIntegerField(null=True)
    progress_message = CheckedTextField(null=True)
    started_at = TimestampField(constraints=[ServerDefault("now()")])
    finished_at = TimestampField(null=True)
    updated_at = TimestampField(constraints=[ServerDefault("now()")])

    __repr__ = BaseModel.__repr__

    class Meta:
        table_name = "attempts"
        constraints = [
            SQL("CONSTRAINT attempts_work_item_id_attempt_number_key UNIQUE (work_item_id, attempt_number)"),
            Check(
                "attempt_number >= 1 AND duration_ms >= 0 AND (status = 'STARTED') = (finished_at IS NULL)",
                "attempts_check",
            ),
        ]
        indexes = [
            SQL("CREATE UNIQUE INDEX attempts_started_idx ON attempts (work_item_id) WHERE status = 'STARTED'"),
            # Attempts are the most written rows: leases are looked up through the STARTED ones, which are few, and a
            # BRIN index costs next to nothing.
            SQL(
                "CREATE INDEX attempts_finished_at_idx ON attempts USING brin (finished_at)"
                " WITH (pages_per_range = 32, autosummarize = on)"
            ),
        ]


class ApprovalEvent(TenantEntity):
    """A person's decision about an item. Append-only."""

    if TYPE_CHECKING:
        work_item_id: UuidField[UUID]

    work_item = TenantForeignKey(WorkItem, backref="approval_events")
    approver_id = NameField()
    decision = EnumField(ApprovalDecision)
    reason = CheckedTextField(null=True)
    policy_version = NameField()

    class Meta:
        table_name = "approval_events"
        indexes = [SQL("CREATE INDEX approval_events_work_item_id_idx ON approval_events (work_item_id)")]


class DeadLetter(TenantEntity):
    """An event that failed for good. It can be replayed."""

    if TYPE_CHECKING:
        work_item_id: UuidField[UUID | None]

    work_item = TenantForeignKey(WorkItem, backref="dead_letters", null=True, on_delete="SET NULL (work_item_id)")
    source = NameField()
    event_type = NameField()
    payload = JsonField()
    error = CheckedTextField()
    retry_count = CheckedIntegerField(constraints=[ServerDefault("0")])
    replayed_at = TimestampField(null=True)
    replayed_by = NameField(null=True)
    updated_at = TimestampField(constraints=[ServerDefault("now()")])

    class Meta:
        table_name = "dead_letters"
        constraints = [
            Check("retry_count >= 0", "dead_letters_retry_count_check"),
            Check("(replayed_at IS NULL) = (replayed_by IS NULL)", "dead_letters_replayed_at_check"),
        ]
        indexes = [
            SQL("CREATE INDEX dead_letters_work_item_id_idx ON dead_letters (work_item_id)"),
            SQL("CREATE UNIQUE INDEX dead_letters_open_idx ON dead_letters (work_item_id) WHERE replayed_at IS NULL"),
            SQL("CREATE INDEX dead_letters_tenant_id_created_at_idx ON dead_letters (tenant_id, created_at)"),
        ]

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

    status = EnumField(WorkOrderStatus, default=WorkOrderStatus.PENDING, help_text="Follows the items.")
    priority = EnumField(Priority, default=Priority.MEDIUM, help_text="How soon its items are claimed.")
    workflow_id = NameField(null=True, help_text="The workflow that processes it, in the caller's own naming.")
    created_by = NameField(help_text="The user or service that submitted it.")
    metadata = JsonField(kind=dict, default=dict, help_text="Data of the caller's, an object.")
    idempotency_key = NameField(null=True, help_text="A second submission with the same key returns this order.")
    unique_key = NameField(null=True, help_text="At most one open order of a tenant has it.")
    open_items = CheckedIntegerField(constraints=[ServerDefault("0")], help_text="How many items have not ended.")
    failed_items = CheckedIntegerField(constraints=[ServerDefault("0")], help_text="How many items have failed.")
    cancelled_at = TimestampField(null=True, help_text="When it was cancelled.")
    retry_policy = JsonField(
        null=True,
        domain="retry_policy",
        help_text="The values of a `RetryPolicy`: base, factor, cap and jitter of the pauses between attempts.",
    )
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

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

    work_order = TenantForeignKey(WorkOrder, backref="items", help_text="The order that it belongs to.")
    type = EnumField(WorkItemType, help_text="The type of document.")
    content = CheckedTextField(blank=False, help_text="The document.")
    status = EnumField(
        WorkItemStatus,
        default=WorkItemStatus.QUEUED,
        help_text="Moves from QUEUED to PROCESSING, then to COMPLETED or FAILED, or back.",
    )
    result = JsonField(null=True, help_text="What the agent made of it; waits for approval while `awaiting_approval`.")
    processed_at = TimestampField(null=True, help_text="When it ended.")
    cancelled_at = TimestampField(null=True, help_text="When it was cancelled.")
    priority = EnumField(Priority, help_text="The order's; a trigger fills it in.")
    available_at = TimestampField(constraints=[ServerDefault("now()")], help_text="It is not claimed before.")
    attempt_count = CheckedIntegerField(
        constraints=[ServerDefault("0")], help_text="How many attempts have been claimed."
    )
    max_attempts = CheckedIntegerField(constraints=[ServerDefault("5")], help_text="It fails after this many attempts.")
    current_attempt_id = UuidField(
        null=True,
        help_text="The last attempt, also after its end. No foreign key: the attempt already refers to the item.",
    )
    awaiting_approval = CheckedBooleanField(
        constraints=[ServerDefault("false")], help_text="Whether its result waits for a decision."
    )
    searchable = CheckedBooleanField(
        constraints=[ServerDefault("false")],
        help_text="Whether the full-text index contains it; `index_work_items()` sets it when it has ended.",
    )
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

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

    work_item = TenantForeignKey(WorkItem, backref="attempts", help_text="The item.")
    agent_id = NameField(help_text="The agent that claimed it.")
    status = EnumField(AttemptStatus, default=AttemptStatus.STARTED, help_text="Leaves STARTED once.")
    input = JsonField(null=True, help_text="What the agent was given, if it recorded it.")
    output = JsonField(null=True, help_text="What it returned.")
    error = CheckedTextField(null=True, help_text="Why it failed.")
    duration_ms = CheckedIntegerField(null=True, help_text="Milliseconds from start to end.")
    attempt_number = CheckedIntegerField(constraints=[ServerDefault("1")], help_text="Counts from 1 for each item.")
    lease_expires_at = TimestampField(null=True, help_text="After that the item may be claimed by others.")
    # No CHECK: it would be evaluated for every claim and every result.
    progress = CheckedIntegerField(null=True, help_text="In percent.")
    progress_message = CheckedTextField(null=True, help_text="What the agent is doing.")
    started_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When it was claimed.")
    finished_at = TimestampField(null=True, help_text="When it ended.")
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

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

    work_item = TenantForeignKey(WorkItem, backref="approval_events", help_text="The item that was decided on.")
    approver_id = NameField(help_text="Who decided.")
    decision = EnumField(ApprovalDecision, help_text="Approved, rejected, or passed on to someone else.")
    reason = CheckedTextField(null=True, help_text="Why.")
    policy_version = NameField(help_text="The version of the policy that the decision follows.")

    class Meta:
        table_name = "approval_events"
        indexes = [SQL("CREATE INDEX approval_events_work_item_id_idx ON approval_events (work_item_id)")]


class DeadLetter(TenantEntity):
    """An event that failed for good. It can be replayed."""

    if TYPE_CHECKING:
        work_item_id: UuidField[UUID | None]

    work_item = TenantForeignKey(
        WorkItem,
        backref="dead_letters",
        null=True,
        on_delete="SET NULL (work_item_id)",
        help_text="The item that failed, if it was one; the letter outlives it.",
    )
    source = NameField(help_text="Where the event came from.")
    event_type = NameField(help_text="What kind of event it was.")
    payload = JsonField(help_text="The event.")
    error = CheckedTextField(help_text="Why it failed.")
    retry_count = CheckedIntegerField(constraints=[ServerDefault("0")], help_text="How often it was tried.")
    replayed_at = TimestampField(null=True, help_text="When it was replayed.")
    replayed_by = NameField(null=True, help_text="Who replayed it.")
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

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

"""What people decide, what failed for good, and who did what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peewee import SQL, Check

from myloware_store.enums import ApprovalDecision
from myloware_store.fields import EnumField, JsonField, TenantForeignKey
from myloware_store.models.base import TenantEntity, name_checks, object_checks
from myloware_store.models.work import WorkItem
from myloware_store.scalars import (
    CheckedIntegerField,
    CheckedTextField,
    InetField,
    NameField,
    ServerDefault,
    TimestampField,
)

__all__ = ["ApprovalEvent", "AuditLog", "DeadLetter"]


class ApprovalEvent(TenantEntity):
    """One decision of a person about an item; append-only."""

    if TYPE_CHECKING:
        work_item_id: Any

    work_item = TenantForeignKey(WorkItem, backref="approval_events")
    approver_id = NameField()
    decision = EnumField(ApprovalDecision)
    reason = CheckedTextField(null=True)
    policy_version = NameField()

    class Meta:
        table_name = "approval_events"
        constraints = [*name_checks("approval_events", "tenant_id", "approver_id", "policy_version")]
        indexes = [SQL("CREATE INDEX approval_events_work_item_id_idx ON approval_events (work_item_id)")]


class DeadLetter(TenantEntity):
    """An event that failed for good, kept until someone replays it."""

    if TYPE_CHECKING:
        work_item_id: Any

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
            *name_checks("dead_letters", "tenant_id", "source", "event_type", "replayed_by"),
            Check("retry_count >= 0", "dead_letters_retry_count_check"),
            Check("(replayed_at IS NULL) = (replayed_by IS NULL)", "dead_letters_replayed_at_check"),
        ]
        indexes = [
            SQL("CREATE INDEX dead_letters_work_item_id_idx ON dead_letters (work_item_id)"),
            SQL("CREATE UNIQUE INDEX dead_letters_open_idx ON dead_letters (work_item_id) WHERE replayed_at IS NULL"),
            SQL("CREATE INDEX dead_letters_tenant_id_created_at_idx ON dead_letters (tenant_id, created_at)"),
        ]


class AuditLog(TenantEntity):
    """One action of a user or service; append-only, and it outlives what it tells of.

    Actions on tables that tenants share (capabilities, schemas, workflow templates) stand under tenant `*`.
    """

    user_id = NameField()
    action = NameField()
    resource_type = NameField()
    resource_id = NameField()
    details = JsonField(kind=dict, default=dict, constraints=[ServerDefault("'{}'::jsonb")])
    ip_address = InetField(null=True)

    class Meta:
        table_name = "audit_logs"
        constraints = [
            *name_checks("audit_logs", "tenant_id", "user_id", "action", "resource_type", "resource_id"),
            *object_checks("audit_logs", "details"),
        ]
        indexes = [
            SQL("CREATE INDEX audit_logs_tenant_id_created_at_idx ON audit_logs (tenant_id, created_at)"),
            SQL(
                "CREATE INDEX audit_logs_resource_idx ON audit_logs (tenant_id, resource_type, resource_id, created_at)"
            ),
            SQL("CREATE INDEX audit_logs_action_idx ON audit_logs (tenant_id, action, created_at)"),
            SQL("CREATE INDEX audit_logs_user_id_idx ON audit_logs (tenant_id, user_id, created_at)"),
        ]

"""Connectors, tools and capabilities, schemas, workflow templates, runs, evaluations, and the audit trail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from uuid import UUID

from peewee import SQL, Check, CompositeKey

from myloware_store.core.enums import ConnectorStatus, ConnectorType, WorkOrderStatus
from myloware_store.core.quiet import FramesDropped
from myloware_store.orm.base import BaseModel, Entity, TenantEntity
from myloware_store.orm.fields import BytesField, EnumField, JsonField, ParentKey, TenantForeignKey, UuidField
from myloware_store.orm.scalars import (
    CheckedBooleanField,
    CheckedFloatField,
    CheckedIntegerField,
    CheckedTextField,
    InetField,
    NameField,
    ServerDefault,
    TimestampField,
)
from myloware_store.platform.config import ConfigField, sealed_to_insert, sealed_to_update
from myloware_store.work.models import WorkItem, WorkOrder

if TYPE_CHECKING:
    from myloware_store.orm.queries import Select

__all__ = ["Capability", "Connector", "EvalResult", "Run", "Schema", "Tool", "ToolCapability", "WorkflowTemplate"]


class Connector(TenantEntity):
    """An outside system that a tenant's agents use."""

    if TYPE_CHECKING:
        tools: Select[Tool]

    name = NameField(help_text="Its name, unique for the tenant.")
    type = EnumField(ConnectorType, help_text="The kind of system.")
    config = ConfigField(kind=dict, default=dict, help_text="How to reach it, an object.")
    status = EnumField(ConnectorStatus, default=ConnectorStatus.INACTIVE, help_text="Whether it is in use.")
    last_health_check = TimestampField(null=True, help_text="When it was last checked.")
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

    __repr__ = BaseModel.__repr__

    class Meta:
        table_name = "connectors"
        constraints = [
            SQL("CONSTRAINT connectors_tenant_id_id_key UNIQUE (tenant_id, id)"),
            SQL("CONSTRAINT connectors_tenant_id_name_key UNIQUE (tenant_id, name)"),
        ]

    @classmethod
    def create(cls, **query: Any) -> Connector:
        """Insert a connector; its config then has masks in place of the secrets."""
        row = cls(**query)
        del query  # it would show the secrets in the traceback of an error
        row.save(force_insert=True)
        return row

    def save(self, force_insert: bool = False, only: Sequence[Any] | None = None) -> Any:  # noqa: FBT001, FBT002
        """Insert or update the row with its secrets encrypted; its config then has masks in place of them."""
        # The row stays locked between the look at its secrets and the update.
        with FramesDropped(), self._meta.database.atomic() if self._stored else nullcontext():
            return super().save(force_insert, only)

    @classmethod
    def bulk_create(cls, model_list: Iterable[Any], batch_size: int | None = None) -> None:
        """Insert connectors; their configs then have masks in place of the secrets."""
        with FramesDropped():
            super().bulk_create(model_list, batch_size)

    @classmethod
    def _completed(cls, row: dict[Any, Any]) -> dict[Any, Any]:
        return sealed_to_insert(cls, super()._completed(row))

    def _values_of(self, names: Iterable[str]) -> dict[str, Any]:
        return sealed_to_update(self, super()._values_of(names))


class Tool(TenantEntity):
    """A tool that an agent calls through a connector."""

    if TYPE_CHECKING:
        connector_id: UuidField[UUID]
        grants: Select[ToolCapability]

    name = NameField(help_text="Its name, unique for the tenant.")
    description = CheckedTextField(null=True, help_text="What it does.")
    connector = TenantForeignKey(Connector, backref="tools", help_text="The connector that it is called through.")
    schema = JsonField(kind=dict, default=dict, help_text="The JSON Schema of its arguments.")
    is_active = CheckedBooleanField(
        default=True, constraints=[ServerDefault("true")], help_text="Whether agents may call it."
    )
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

    class Meta:
        table_name = "tools"
        constraints = [
            SQL("CONSTRAINT tools_tenant_id_id_key UNIQUE (tenant_id, id)"),
            SQL("CONSTRAINT tools_tenant_id_name_key UNIQUE (tenant_id, name)"),
        ]
        indexes = [SQL("CREATE INDEX tools_connector_id_idx ON tools (connector_id)")]

    @property
    def capabilities(self) -> Select[Capability]:
        """The capabilities granted to this tool."""
        return Capability.select().join(ToolCapability).where(ToolCapability.tool == self)


class Capability(Entity):
    """A permission that can be granted to tools. All tenants share the list."""

    if TYPE_CHECKING:
        grants: Select[ToolCapability]

    name = NameField(help_text="Its name.")
    description = CheckedTextField(null=True, help_text="What it permits.")
    scope = NameField(help_text="Where it holds.")
    permissions = JsonField(kind=list, default=list, help_text="An array of the permissions.")
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

    class Meta:
        table_name = "capabilities"
        constraints = [
            SQL("CONSTRAINT capabilities_name_key UNIQUE (name)"),
            Check("jsonb_typeof(permissions) = 'array'", "capabilities_permissions_check"),
        ]

    @property
    def tools(self) -> Select[Tool]:
        """The tools, of every tenant, that this capability is granted to."""
        return Tool.select().join(ToolCapability).where(ToolCapability.capability == self)


class ToolCapability(BaseModel):
    """The grant of a capability to a tool."""

    if TYPE_CHECKING:
        tool_id: UuidField[UUID]
        capability_id: UuidField[UUID]

    tool = TenantForeignKey(Tool, backref="grants", help_text="The tool.")
    capability = ParentKey(
        Capability,
        backref="grants",
        constraint_name="tool_capabilities_capability_id_fkey",
        help_text="The capability.",
    )
    tenant_id = NameField(help_text="The tenant that owns the row.")
    created_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row was made.")

    class Meta:
        table_name = "tool_capabilities"
        primary_key = CompositeKey("tool", "capability")
        indexes = [SQL("CREATE INDEX tool_capabilities_capability_id_idx ON tool_capabilities (capability_id)")]


class Schema(Entity):
    """A version of the JSON Schema for a type of document. At most one version of a name is active."""

    name = NameField(help_text="Its name.")
    version = NameField(help_text="Its version.")
    document_type = NameField(help_text="The type of document that it describes.")
    schema_definition = JsonField(kind=dict, help_text="The JSON Schema.")
    is_active = CheckedBooleanField(
        default=False, constraints=[ServerDefault("false")], help_text="Whether documents are checked against it."
    )
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

    class Meta:
        table_name = "schemas"
        constraints = [
            SQL("CONSTRAINT schemas_name_version_key UNIQUE (name, version)"),
        ]
        indexes = [SQL("CREATE UNIQUE INDEX schemas_active_idx ON schemas (name) WHERE is_active")]


class WorkflowTemplate(Entity):
    """A reusable workflow. At most one template of a name is active."""

    if TYPE_CHECKING:
        runs: Select[Run]

    name = NameField(help_text="Its name.")
    description = CheckedTextField(null=True, help_text="What it is for.")
    document_type = NameField(help_text="The type of document that it processes.")
    workflow_definition = JsonField(kind=dict, help_text="The steps, an object.")
    is_active = CheckedBooleanField(
        default=False, constraints=[ServerDefault("false")], help_text="Whether new runs use it."
    )
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

    class Meta:
        table_name = "workflow_templates"
        indexes = [
            SQL("CREATE UNIQUE INDEX workflow_templates_active_idx ON workflow_templates (name) WHERE is_active")
        ]


class Run(TenantEntity):
    """An execution of a workflow on an order."""

    if TYPE_CHECKING:
        work_order_id: UuidField[UUID]
        workflow_template_id: UuidField[UUID | None]

    work_order = TenantForeignKey(WorkOrder, backref="runs", help_text="The order.")
    workflow_template = ParentKey(
        WorkflowTemplate,
        backref="runs",
        null=True,
        on_delete="SET NULL",
        constraint_name="runs_workflow_template_id_fkey",
        help_text="The template that it follows, if any.",
    )
    status = EnumField(
        WorkOrderStatus, default=WorkOrderStatus.PENDING, help_text="Moves on once, to COMPLETED or FAILED."
    )
    context = JsonField(kind=dict, default=dict, help_text="Data of the workflow's, an object.")
    error = CheckedTextField(null=True, help_text="Why it failed.")
    started_at = TimestampField(null=True, help_text="When it started.")
    finished_at = TimestampField(null=True, help_text="When it ended.")
    updated_at = TimestampField(constraints=[ServerDefault("now()")], help_text="When the row last changed.")

    __repr__ = BaseModel.__repr__

    class Meta:
        table_name = "runs"
        constraints = [
            Check("(status IN ('COMPLETED', 'FAILED')) = (finished_at IS NOT NULL)", "runs_finished_at_check"),
        ]
        indexes = [
            SQL("CREATE INDEX runs_work_order_id_idx ON runs (work_order_id)"),
            SQL("CREATE INDEX runs_workflow_template_id_idx ON runs (workflow_template_id)"),
        ]


class EvalResult(TenantEntity):
    """An evaluation of an item's result."""

    if TYPE_CHECKING:
        work_item_id: UuidField[UUID]

    work_item = TenantForeignKey(WorkItem, backref="eval_results", help_text="The item.")
    evaluation_type = NameField(help_text="What was evaluated.")
    score = CheckedFloatField(help_text="From 0 to 1.")
    metrics = JsonField(kind=dict, default=dict, help_text="Single measurements, an object.")
    passed = CheckedBooleanField(help_text="Whether it is good enough.")

    class Meta:
        table_name = "eval_results"
        constraints = [
            Check("score BETWEEN 0 AND 1", "eval_results_score_check"),
        ]
        indexes = [SQL("CREATE INDEX eval_results_work_item_id_idx ON eval_results (work_item_id)")]


class _WordField(NameField[str | None]):
    """A name in a column without a domain: adding one with a domain rewrites the table."""

    field_type = "text"


class AuditLog(TenantEntity):
    """An action of a user or service. Append-only, and kept when its subject is deleted.

    Actions on tables that tenants share (capabilities, schemas, workflow templates) have the tenant `*`.
    """

    user_id = NameField(help_text="Who acted.")
    action = NameField(help_text="What was done.")
    resource_type = NameField(help_text="The kind of thing that it was done to.")
    resource_id = NameField(help_text="Its key.")
    details = JsonField(kind=dict, default=dict, help_text="More about it, an object.")
    ip_address = InetField(null=True, help_text="Where the request came from.")
    source = _WordField(
        constraints=[ServerDefault("'application'")],
        help_text="`database` if a trigger wrote the line, else `application`.",
    )
    db_role = _WordField(null=True, help_text="The database role that was logged in; set by a trigger.")
    epoch = CheckedIntegerField(
        constraints=[ServerDefault("-1")], help_text="How many sealings there were before; set by a trigger."
    )

    class Meta:
        table_name = "audit_logs"
        indexes = [
            SQL("CREATE INDEX audit_logs_tenant_id_created_at_idx ON audit_logs (tenant_id, created_at)"),
            SQL(
                "CREATE INDEX audit_logs_resource_idx ON audit_logs (tenant_id, resource_type, resource_id, created_at)"
            ),
            SQL("CREATE INDEX audit_logs_action_idx ON audit_logs (tenant_id, action, created_at)"),
            SQL("CREATE INDEX audit_logs_user_id_idx ON audit_logs (tenant_id, user_id, created_at)"),
            SQL("CREATE INDEX audit_logs_epoch_idx ON audit_logs (tenant_id, epoch, id)"),
        ]


class AuditSeal(TenantEntity):
    """A seal on the next lines of a tenant's audit trail, by epoch and id. Append-only.

    Each seal contains the hash of the one before. `store.audit` makes and verifies them.
    """

    number = CheckedIntegerField(help_text="Its place in the tenant's chain, from 1.")
    epoch = CheckedIntegerField(
        constraints=[SQL("GENERATED BY DEFAULT AS IDENTITY")],
        help_text="The epoch of the last line. Its sequence is the clock of the epochs.",
    )
    last_id = UuidField(help_text="The id of the last line.")
    line_count = CheckedIntegerField(help_text="How many lines it is for.")
    lines = BytesField(
        constraints=[SQL("DEFAULT ''::bytea")], help_text="For each line its id (16 bytes) and SHA-256 (32 bytes)."
    )
    form = CheckedIntegerField(
        constraints=[ServerDefault("1")], help_text="The version of the form in which lines are hashed."
    )
    previous_hash = CheckedTextField(null=True, help_text="The hash of the tenant's seal before.")
    hash = CheckedTextField(help_text="SHA-256 of all other columns, in hexadecimal digits.")

    class Meta:
        table_name = "audit_seals"
        constraints = [
            SQL("CONSTRAINT audit_seals_tenant_id_number_key UNIQUE (tenant_id, number)"),
            Check("line_count >= 1", "audit_seals_line_count_check"),
        ]

"""Rows for tests: each valid, with the parents that it needs, and every field there to be named."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack
from uuid import UUID

from myloware_store import (
    ApprovalDecision,
    ApprovalEvent,
    Attempt,
    AttemptStatus,
    AuditLog,
    AuditSeal,
    Capability,
    Connector,
    ConnectorStatus,
    ConnectorType,
    DeadLetter,
    EvalResult,
    MemDoc,
    MemDocType,
    Priority,
    Run,
    Schema,
    Tool,
    ToolCapability,
    WorkflowTemplate,
    WorkItem,
    WorkItemStatus,
    WorkItemType,
    WorkOrder,
    WorkOrderStatus,
)
from myloware_store.db.proxy import default_tenant
from myloware_store.db.tenancy import current_tenant
from myloware_store.orm.base import TenantEntity

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from myloware_store.models import BaseModel

__all__ = ["Factory"]

_Row = TypeVar("_Row", bound="BaseModel")
_ENDED = {"COMPLETED", "FAILED", "TIMEOUT"}


class _Shared(TypedDict, total=False):
    id: UUID | str
    created_at: datetime


class _Owned(_Shared, total=False):
    tenant_id: str


class WorkOrderFields(_Owned, total=False):
    """The fields of a `WorkOrder`."""

    status: WorkOrderStatus | str
    priority: Priority | str
    workflow_id: str | None
    created_by: str
    metadata: Mapping[str, Any]
    idempotency_key: str | None
    unique_key: str | None
    open_items: int
    failed_items: int
    cancelled_at: datetime | None
    retry_policy: Mapping[str, float] | None
    updated_at: datetime


class WorkItemFields(_Owned, total=False):
    """The fields of a `WorkItem`."""

    work_order: WorkOrder | UUID | str
    work_order_id: UUID | str
    type: WorkItemType | str
    content: str
    status: WorkItemStatus | str
    result: Any
    processed_at: datetime | None
    cancelled_at: datetime | None
    priority: Priority | str
    available_at: datetime
    attempt_count: int
    max_attempts: int
    current_attempt_id: UUID | str | None
    awaiting_approval: bool
    searchable: bool
    updated_at: datetime


class AttemptFields(_Owned, total=False):
    """The fields of an `Attempt`."""

    work_item: WorkItem | UUID | str
    work_item_id: UUID | str
    agent_id: str
    status: AttemptStatus | str
    input: Any
    output: Any
    error: str | None
    duration_ms: int | None
    attempt_number: int
    lease_expires_at: datetime | None
    progress: int | None
    progress_message: str | None
    started_at: datetime
    finished_at: datetime | None
    updated_at: datetime


class MemDocFields(_Owned, total=False):
    """The fields of a `MemDoc`."""

    work_item: WorkItem | UUID | str | None
    work_item_id: UUID | str | None
    type: MemDocType | str
    content: str
    embedding: ArrayLike | None
    embedding_model: str | None
    metadata: Mapping[str, Any]
    expires_at: datetime | None
    document: MemDoc | UUID | str | None
    document_id: UUID | str | None
    chunk_no: int | None
    updated_at: datetime


class ApprovalEventFields(_Owned, total=False):
    """The fields of an `ApprovalEvent`."""

    work_item: WorkItem | UUID | str
    work_item_id: UUID | str
    approver_id: str
    decision: ApprovalDecision | str
    reason: str | None
    policy_version: str


class DeadLetterFields(_Owned, total=False):
    """The fields of a `DeadLetter`."""

    work_item: WorkItem | UUID | str | None
    work_item_id: UUID | str | None
    source: str
    event_type: str
    payload: Any
    error: str
    retry_count: int
    replayed_at: datetime | None
    replayed_by: str | None
    updated_at: datetime


class AuditLogFields(_Owned, total=False):
    """The fields of an `AuditLog`."""

    user_id: str
    action: str
    resource_type: str
    resource_id: str
    details: Mapping[str, Any]
    ip_address: str | None
    source: str
    db_role: str | None
    epoch: int


class AuditSealFields(_Owned, total=False):
    """The fields of an `AuditSeal`."""

    number: int
    epoch: int
    last_id: UUID | str
    line_count: int
    form: int
    previous_hash: str | None
    hash: str


class ConnectorFields(_Owned, total=False):
    """The fields of a `Connector`."""

    name: str
    type: ConnectorType | str
    config: Mapping[str, Any]
    status: ConnectorStatus | str
    last_health_check: datetime | None
    updated_at: datetime


class ToolFields(_Owned, total=False):
    """The fields of a `Tool`."""

    name: str
    description: str | None
    connector: Connector | UUID | str
    connector_id: UUID | str
    schema: Mapping[str, Any]
    is_active: bool
    updated_at: datetime


class CapabilityFields(_Shared, total=False):
    """The fields of a `Capability`."""

    name: str
    description: str | None
    scope: str
    permissions: Sequence[Any]
    updated_at: datetime


class ToolCapabilityFields(TypedDict, total=False):
    """The fields of a `ToolCapability`."""

    tool: Tool | UUID | str
    tool_id: UUID | str
    capability: Capability | UUID | str
    capability_id: UUID | str
    tenant_id: str
    created_at: datetime


class SchemaFields(_Shared, total=False):
    """The fields of a `Schema`."""

    name: str
    version: str
    document_type: str
    schema_definition: Mapping[str, Any]
    is_active: bool
    updated_at: datetime


class WorkflowTemplateFields(_Shared, total=False):
    """The fields of a `WorkflowTemplate`."""

    name: str
    description: str | None
    document_type: str
    workflow_definition: Mapping[str, Any]
    is_active: bool
    updated_at: datetime


class RunFields(_Owned, total=False):
    """The fields of a `Run`."""

    work_order: WorkOrder | UUID | str
    work_order_id: UUID | str
    workflow_template: WorkflowTemplate | UUID | str | None
    workflow_template_id: UUID | str | None
    status: WorkOrderStatus | str
    context: Mapping[str, Any]
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime


class EvalResultFields(_Owned, total=False):
    """The fields of an `EvalResult`."""

    work_item: WorkItem | UUID | str
    work_item_id: UUID | str
    evaluation_type: str
    score: float
    metrics: Mapping[str, Any]
    passed: bool


class Factory:
    """Inserts one valid row per call, and returns its model.

    Every method takes the fields of its model by name, and fills in the others. It inserts a parent that is not given
    (`work_item()` inserts an order) for the same tenant: the tenant of `tenant_id`, of a given parent, or the one in
    force. It sets the time that a status requires (`processed_at`, `finished_at`).
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def work_order(self, **fields: Unpack[WorkOrderFields]) -> WorkOrder:
        """Insert an order without items."""
        return self._insert(WorkOrder, fields, created_by="factory")

    def work_item(self, **fields: Unpack[WorkItemFields]) -> WorkItem:
        """Insert a queued item, and an order for it."""
        parent = self._parent(fields, "work_order", self.work_order)
        ended = self._ended(fields, "processed_at")
        return self._insert(WorkItem, fields, type="INVOICE", content=self._text("Invoice"), **parent, **ended)

    def attempt(self, **fields: Unpack[AttemptFields]) -> Attempt:
        """Insert a started attempt, and an item for it; the item stays as it is."""
        parent = self._parent(fields, "work_item", self.work_item)
        return self._insert(Attempt, fields, agent_id="factory", **parent, **self._ended(fields, "finished_at"))

    def mem_doc(self, **fields: Unpack[MemDocFields]) -> MemDoc:
        """Insert a memory document without an embedding."""
        return self._insert(MemDoc, fields, type="KNOWLEDGE", content=self._text("Document"))

    def approval_event(self, **fields: Unpack[ApprovalEventFields]) -> ApprovalEvent:
        """Insert a decision, and the item that it is about."""
        parent = self._parent(fields, "work_item", self.work_item)
        return self._insert(
            ApprovalEvent, fields, approver_id="factory", decision="APPROVED", policy_version="1", **parent
        )

    def dead_letter(self, **fields: Unpack[DeadLetterFields]) -> DeadLetter:
        """Insert a dead letter of an outside source."""
        return self._insert(DeadLetter, fields, source="factory", event_type="test", payload={}, error="failed")

    def audit_log(self, **fields: Unpack[AuditLogFields]) -> AuditLog:
        """Insert an audit line."""
        texts = {"user_id": "factory", "action": "test", "resource_type": "test", "resource_id": self._text("resource")}
        return self._insert(AuditLog, fields, **texts)

    def audit_seal(self, **fields: Unpack[AuditSealFields]) -> AuditSeal:
        """Insert a seal on one line, which is not there."""
        number = next(self._numbers)
        return self._insert(AuditSeal, fields, number=number, epoch=0, last_id=UUID(int=number), line_count=1, hash="")

    def connector(self, **fields: Unpack[ConnectorFields]) -> Connector:
        """Insert an inactive connector."""
        return self._insert(Connector, fields, name=self._text("connector"), type="API")

    def tool(self, **fields: Unpack[ToolFields]) -> Tool:
        """Insert a tool, and a connector for it."""
        parent = self._parent(fields, "connector", self.connector)
        return self._insert(Tool, fields, name=self._text("tool"), **parent)

    def capability(self, **fields: Unpack[CapabilityFields]) -> Capability:
        """Insert a capability."""
        return self._insert(Capability, fields, name=self._text("capability"), scope="test")

    def tool_capability(self, **fields: Unpack[ToolCapabilityFields]) -> ToolCapability:
        """Insert a grant, with a tool and a capability for it."""
        tool = self._parent(fields, "tool", self.tool)
        return self._insert(ToolCapability, fields, **tool, **self._parent(fields, "capability", self.capability))

    def schema(self, **fields: Unpack[SchemaFields]) -> Schema:
        """Insert an inactive schema that accepts every object."""
        definition = {"type": "object"}
        return self._insert(
            Schema,
            fields,
            name=self._text("schema"),
            version="1",
            document_type="INVOICE",
            schema_definition=definition,
        )

    def workflow_template(self, **fields: Unpack[WorkflowTemplateFields]) -> WorkflowTemplate:
        """Insert an inactive workflow template without steps."""
        name = self._text("template")
        return self._insert(
            WorkflowTemplate, fields, name=name, document_type="INVOICE", workflow_definition={"steps": []}
        )

    def run(self, **fields: Unpack[RunFields]) -> Run:
        """Insert a pending run, and an order for it."""
        parent = self._parent(fields, "work_order", self.work_order)
        return self._insert(Run, fields, **parent, **self._ended(fields, "finished_at"))

    def eval_result(self, **fields: Unpack[EvalResultFields]) -> EvalResult:
        """Insert a passed evaluation, and the item that it is about."""
        parent = self._parent(fields, "work_item", self.work_item)
        return self._insert(EvalResult, fields, evaluation_type="test", score=1.0, passed=True, **parent)

    def _insert(self, model: type[_Row], fields: Mapping[str, Any], **filled: Any) -> _Row:
        values = {**filled, **fields}
        if issubclass(model, TenantEntity | ToolCapability):
            parents = (getattr(value, "tenant_id", None) for value in values.values())
            tenant = next(filter(None, parents), None) or current_tenant() or default_tenant()
            values.setdefault("tenant_id", tenant)
        return model.create(**values)

    def _parent(self, fields: Mapping[str, Any], name: str, make: Callable[..., BaseModel]) -> dict[str, BaseModel]:
        if name in fields or f"{name}_id" in fields:
            return {}
        tenant = {"tenant_id": fields["tenant_id"]} if "tenant_id" in fields and name != "capability" else {}
        return {name: make(**tenant)}

    def _ended(self, fields: Mapping[str, Any], name: str) -> dict[str, datetime]:
        return {name: datetime.now(UTC)} if str(fields.get("status", "")) in _ENDED else {}

    def _text(self, what: str) -> str:
        return f"{what} {next(self._numbers)}"

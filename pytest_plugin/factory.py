"""Rows for tests: each valid, with the parents that it needs, and every field there to be named."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from myloware_store import (
    ApprovalEvent,
    Attempt,
    AuditLog,
    Capability,
    Connector,
    DeadLetter,
    EvalResult,
    MemDoc,
    Run,
    Schema,
    Tool,
    ToolCapability,
    WorkflowTemplate,
    WorkItem,
    WorkOrder,
)
from myloware_store.db.proxy import default_tenant
from myloware_store.db.tenancy import current_tenant
from myloware_store.orm.base import TenantEntity

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.models import BaseModel

__all__ = ["Factory"]

_Row = TypeVar("_Row", bound="BaseModel")
_ENDED = {"COMPLETED", "FAILED", "TIMEOUT"}


class Factory:
    """Inserts one row a call, filled with what makes it valid, and gives its model.

    Every method takes fields of its model by name, which count more than what would be filled in. A parent that is not
    given (`work_item(work_order=order)`) is inserted first, for the same tenant: that of `tenant_id`, of a parent that
    is given, or the one in force. Where a status wants a time (`processed_at`, `finished_at`), it is set.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def work_order(self, **fields: Any) -> WorkOrder:
        """Insert an order without items."""
        return self._insert(WorkOrder, fields, created_by="factory")

    def work_item(self, **fields: Any) -> WorkItem:
        """Insert a queued item, and an order for it."""
        self._parent(fields, "work_order", self.work_order)
        self._date(fields, "processed_at")
        return self._insert(WorkItem, fields, type="INVOICE", content=self._text("Invoice"))

    def attempt(self, **fields: Any) -> Attempt:
        """Insert a started attempt, and an item for it; the item stays as it is."""
        self._parent(fields, "work_item", self.work_item)
        self._date(fields, "finished_at")
        return self._insert(Attempt, fields, agent_id="factory")

    def mem_doc(self, **fields: Any) -> MemDoc:
        """Insert a memory document without an embedding."""
        return self._insert(MemDoc, fields, type="KNOWLEDGE", content=self._text("Document"))

    def approval_event(self, **fields: Any) -> ApprovalEvent:
        """Insert a decision, and an item that it is about."""
        self._parent(fields, "work_item", self.work_item)
        return self._insert(ApprovalEvent, fields, approver_id="factory", decision="APPROVED", policy_version="1")

    def dead_letter(self, **fields: Any) -> DeadLetter:
        """Insert a dead letter of an outside source."""
        return self._insert(DeadLetter, fields, source="factory", event_type="test", payload={}, error="failed")

    def audit_log(self, **fields: Any) -> AuditLog:
        """Insert an audit line."""
        texts = {"user_id": "factory", "action": "test", "resource_type": "test", "resource_id": self._text("resource")}
        return self._insert(AuditLog, fields, **texts)

    def connector(self, **fields: Any) -> Connector:
        """Insert an inactive connector."""
        return self._insert(Connector, fields, name=self._text("connector"), type="API")

    def tool(self, **fields: Any) -> Tool:
        """Insert a tool, and a connector for it."""
        self._parent(fields, "connector", self.connector)
        return self._insert(Tool, fields, name=self._text("tool"))

    def capability(self, **fields: Any) -> Capability:
        """Insert a capability."""
        return self._insert(Capability, fields, name=self._text("capability"), scope="test")

    def tool_capability(self, **fields: Any) -> ToolCapability:
        """Insert a grant, with a tool and a capability for it."""
        self._parent(fields, "tool", self.tool)
        self._parent(fields, "capability", self.capability)
        return self._insert(ToolCapability, fields)

    def schema(self, **fields: Any) -> Schema:
        """Insert an inactive schema that takes every object."""
        definition = {"type": "object"}
        return self._insert(
            Schema,
            fields,
            name=self._text("schema"),
            version="1",
            document_type="INVOICE",
            schema_definition=definition,
        )

    def workflow_template(self, **fields: Any) -> WorkflowTemplate:
        """Insert an inactive workflow template without steps."""
        name = self._text("template")
        return self._insert(
            WorkflowTemplate, fields, name=name, document_type="INVOICE", workflow_definition={"steps": []}
        )

    def run(self, **fields: Any) -> Run:
        """Insert a pending run, and an order for it."""
        self._parent(fields, "work_order", self.work_order)
        self._date(fields, "finished_at")
        return self._insert(Run, fields)

    def eval_result(self, **fields: Any) -> EvalResult:
        """Insert a passed evaluation, and an item that it is about."""
        self._parent(fields, "work_item", self.work_item)
        return self._insert(EvalResult, fields, evaluation_type="test", score=1.0, passed=True)

    def _insert(self, model: type[_Row], fields: dict[str, Any], **filled: Any) -> _Row:
        values = filled | fields
        if issubclass(model, TenantEntity | ToolCapability):
            parents = (getattr(value, "tenant_id", None) for value in fields.values())
            tenant = next(filter(None, parents), None) or current_tenant() or default_tenant()
            values.setdefault("tenant_id", tenant)
        row: _Row = model.create(**values)
        return row

    def _parent(self, fields: dict[str, Any], name: str, make: Callable[..., BaseModel]) -> None:
        if name not in fields and f"{name}_id" not in fields:
            tenant = {"tenant_id": fields["tenant_id"]} if "tenant_id" in fields and name != "capability" else {}
            fields[name] = make(**tenant)

    def _date(self, fields: dict[str, Any], name: str) -> None:
        if str(fields.get("status", "")) in _ENDED:
            fields.setdefault(name, datetime.now(UTC))

    def _text(self, what: str) -> str:
        return f"{what} {next(self._numbers)}"

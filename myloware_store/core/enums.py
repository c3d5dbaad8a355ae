"""The nine native enum types, with the names and labels that the database knows them by."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

__all__ = [
    "ENUM_TYPES",
    "ApprovalDecision",
    "ApprovalDecisionLabel",
    "AttemptStatus",
    "ConnectorStatus",
    "ConnectorStatusLabel",
    "ConnectorType",
    "ConnectorTypeLabel",
    "MemDocType",
    "Priority",
    "PriorityLabel",
    "WorkItemStatus",
    "WorkItemType",
    "WorkItemTypeLabel",
    "WorkOrderStatus",
]


class WorkOrderStatus(StrEnum):
    """Where a work order, or a run of a workflow over it, stands."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Priority(StrEnum):
    """How urgent work is; the database sorts in this order, LOW first."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    URGENT = "URGENT"


PriorityLabel: TypeAlias = Literal["LOW", "MEDIUM", "HIGH", "URGENT"]


class WorkItemType(StrEnum):
    """The kind of document an item holds."""

    INVOICE = "INVOICE"
    TICKET = "TICKET"
    STATUS_REPORT = "STATUS_REPORT"


WorkItemTypeLabel: TypeAlias = Literal["INVOICE", "TICKET", "STATUS_REPORT"]


class WorkItemStatus(StrEnum):
    """Where an item stands: waiting, held by an agent, or done."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class AttemptStatus(StrEnum):
    """How an attempt at an item is going, or how it ended."""

    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"


class MemDocType(StrEnum):
    """What a memory document is for."""

    CONTEXT = "CONTEXT"
    KNOWLEDGE = "KNOWLEDGE"
    TEMPLATE = "TEMPLATE"


class ApprovalDecision(StrEnum):
    """What a person decided about an item."""

    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    ESCALATED = "ESCALATED"


ApprovalDecisionLabel: TypeAlias = Literal["APPROVED", "REJECTED", "ESCALATED"]


class ConnectorType(StrEnum):
    """The kind of system a connector reaches."""

    SLACK = "SLACK"
    EMAIL = "EMAIL"
    API = "API"
    DATABASE = "DATABASE"


ConnectorTypeLabel: TypeAlias = Literal["SLACK", "EMAIL", "API", "DATABASE"]


class ConnectorStatus(StrEnum):
    """Whether a connector can be used."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    ERROR = "ERROR"


ConnectorStatusLabel: TypeAlias = Literal["ACTIVE", "INACTIVE", "ERROR"]


ENUM_TYPES: dict[str, type[StrEnum]] = {
    "work_order_status": WorkOrderStatus,
    "priority": Priority,
    "work_item_type": WorkItemType,
    "work_item_status": WorkItemStatus,
    "attempt_status": AttemptStatus,
    "mem_doc_type": MemDocType,
    "approval_decision": ApprovalDecision,
    "connector_type": ConnectorType,
    "connector_status": ConnectorStatus,
}
"""The enum that stands for each PostgreSQL type."""

"""The nine native enum types of the database, with their names and labels."""

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
    """The status of a work order or of a run."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Priority(StrEnum):
    """The urgency of work. The database sorts in this order, LOW first."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    URGENT = "URGENT"


PriorityLabel: TypeAlias = Literal["LOW", "MEDIUM", "HIGH", "URGENT"]


class WorkItemType(StrEnum):
    """The type of an item's document."""

    INVOICE = "INVOICE"
    TICKET = "TICKET"
    STATUS_REPORT = "STATUS_REPORT"


WorkItemTypeLabel: TypeAlias = Literal["INVOICE", "TICKET", "STATUS_REPORT"]


class WorkItemStatus(StrEnum):
    """The status of an item: waiting, held by an agent, or done."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class AttemptStatus(StrEnum):
    """The status of an attempt at an item."""

    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"


class MemDocType(StrEnum):
    """The purpose of a memory document."""

    CONTEXT = "CONTEXT"
    KNOWLEDGE = "KNOWLEDGE"
    TEMPLATE = "TEMPLATE"


class ApprovalDecision(StrEnum):
    """A person's decision about an item."""

    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    ESCALATED = "ESCALATED"


ApprovalDecisionLabel: TypeAlias = Literal["APPROVED", "REJECTED", "ESCALATED"]


class ConnectorType(StrEnum):
    """The kind of system that a connector reaches."""

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
"""The enum of each PostgreSQL type."""

"""The data layer of MyloWare: work orders, agent memory, approvals and audit in PostgreSQL with pgvector.

from myloware_store import Store, WorkItemType

with Store.open() as store:
    order = store.work.submit([{"type": WorkItemType.INVOICE, "content": "..."}])
"""

from __future__ import annotations

from myloware_store.embedding import Embedder, HashingEmbedder
from myloware_store.enums import (
    ApprovalDecision,
    AttemptStatus,
    ConnectorStatus,
    ConnectorType,
    MemDocType,
    Priority,
    WorkItemStatus,
    WorkItemType,
    WorkOrderStatus,
)
from myloware_store.errors import (
    AmbiguousCommit,
    ConnectionFailed,
    ConstraintViolation,
    DatabaseFault,
    DocumentProblem,
    EmbeddedServerError,
    IdempotencyConflict,
    InvalidDocument,
    InvalidInput,
    InvalidVector,
    LeaseLost,
    MigrationError,
    MissingExtension,
    NotAwaitingApproval,
    NotFound,
    PoolTimeout,
    SchemaMismatch,
    SettingsError,
    StoreError,
    TransactionConflict,
    VersionConflict,
)
from myloware_store.models import (
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
from myloware_store.results import Claim, EvalSummary, Hit, MemoryDoc, Outcome
from myloware_store.settings import Settings
from myloware_store.store import Store
from myloware_store.vectors import DIMENSIONS

__all__ = [
    "DIMENSIONS",
    "AmbiguousCommit",
    "ApprovalDecision",
    "ApprovalEvent",
    "Attempt",
    "AttemptStatus",
    "AuditLog",
    "Capability",
    "Claim",
    "ConnectionFailed",
    "Connector",
    "ConnectorStatus",
    "ConnectorType",
    "ConstraintViolation",
    "DatabaseFault",
    "DeadLetter",
    "DocumentProblem",
    "EmbeddedServerError",
    "Embedder",
    "EvalResult",
    "EvalSummary",
    "HashingEmbedder",
    "Hit",
    "IdempotencyConflict",
    "InvalidDocument",
    "InvalidInput",
    "InvalidVector",
    "LeaseLost",
    "MemDoc",
    "MemDocType",
    "MemoryDoc",
    "MigrationError",
    "MissingExtension",
    "NotAwaitingApproval",
    "NotFound",
    "Outcome",
    "PoolTimeout",
    "Priority",
    "Run",
    "Schema",
    "SchemaMismatch",
    "Settings",
    "SettingsError",
    "Store",
    "StoreError",
    "Tool",
    "ToolCapability",
    "TransactionConflict",
    "VersionConflict",
    "WorkItem",
    "WorkItemStatus",
    "WorkItemType",
    "WorkOrder",
    "WorkOrderStatus",
    "WorkflowTemplate",
]

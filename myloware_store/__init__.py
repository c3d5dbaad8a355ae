"""The data layer of MyloWare: work orders, agent memory, approvals and audit in PostgreSQL with pgvector.

from myloware_store import NewItem, Store, WorkItemType

with Store.open() as store:
    order = store.work.submit([NewItem(WorkItemType.INVOICE, "...")])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from myloware_store.core.embedding import Embedder, HashingEmbedder, Truncated
    from myloware_store.core.enums import (
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
    from myloware_store.core.errors import (
        AmbiguousCommit,
        BackupError,
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
        MemoryConflict,
        MigrationError,
        MissingExtension,
        MissingKey,
        NotAwaitingApproval,
        NotFound,
        NotOpen,
        PoolTimeout,
        SchemaMismatch,
        SecretsError,
        SettingsError,
        StoreError,
        TenantRequired,
        TransactionConflict,
        UniqueKeyConflict,
        UnreadableSecret,
        VectorIndexError,
        VersionConflict,
        WaitTimeout,
    )
    from myloware_store.core.results import (
        AuditFinding,
        AuditHead,
        AuditReport,
        Claim,
        EvalSummary,
        Hit,
        MemoryDoc,
        NewDoc,
        NewItem,
        Outcome,
        Pruned,
        RetryPolicy,
        SubmitStatement,
        TenantStats,
        WorkStats,
    )
    from myloware_store.core.splitting import split_text
    from myloware_store.core.vectors import DIMENSIONS
    from myloware_store.memory.index.report import IndexChange, IndexStatus, MetadataIndex, RecallMeasurement
    from myloware_store.memory.worth import Worth
    from myloware_store.models import (
        ApprovalEvent,
        Attempt,
        AuditLog,
        AuditSeal,
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
    from myloware_store.settings import Settings
    from myloware_store.settings.secrets import Secrets
    from myloware_store.store import Store
    from myloware_store.worker import NeedsApproval, PermanentFailure, RetryLater, Worker, WorkerReport

__all__ = [
    "DIMENSIONS",
    "AmbiguousCommit",
    "ApprovalDecision",
    "ApprovalEvent",
    "Attempt",
    "AttemptStatus",
    "AuditFinding",
    "AuditHead",
    "AuditLog",
    "AuditReport",
    "AuditSeal",
    "BackupError",
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
    "IndexChange",
    "IndexStatus",
    "InvalidDocument",
    "InvalidInput",
    "InvalidVector",
    "LeaseLost",
    "MemDoc",
    "MemDocType",
    "MemoryConflict",
    "MemoryDoc",
    "MetadataIndex",
    "MigrationError",
    "MissingExtension",
    "MissingKey",
    "NeedsApproval",
    "NewDoc",
    "NewItem",
    "NotAwaitingApproval",
    "NotFound",
    "NotOpen",
    "Outcome",
    "PermanentFailure",
    "PoolTimeout",
    "Priority",
    "Pruned",
    "RecallMeasurement",
    "RetryLater",
    "RetryPolicy",
    "Run",
    "Schema",
    "SchemaMismatch",
    "Secrets",
    "SecretsError",
    "Settings",
    "SettingsError",
    "Store",
    "StoreError",
    "SubmitStatement",
    "TenantRequired",
    "TenantStats",
    "Tool",
    "ToolCapability",
    "TransactionConflict",
    "Truncated",
    "UniqueKeyConflict",
    "UnreadableSecret",
    "VectorIndexError",
    "VersionConflict",
    "WaitTimeout",
    "WorkItem",
    "WorkItemStatus",
    "WorkItemType",
    "WorkOrder",
    "WorkOrderStatus",
    "WorkStats",
    "Worker",
    "WorkerReport",
    "WorkflowTemplate",
    "Worth",
    "split_text",
]

_HOMES = (
    *("core.enums", "core.errors", "core.vectors", "core.results", "core.embedding", "core.splitting", "settings"),
    *("settings.secrets", "memory.worth", "models", "memory.index.report", "store", "worker"),
)
"""The modules that have these names, those that import the least first."""


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: a command starts quickly."""
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if name in module.__all__:
                globals()[name] = value = getattr(module, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The fifteen tables as Peewee models, bound to the open store."""

from __future__ import annotations

import peewee

from myloware_store.core.errors import NotFound
from myloware_store.memory.models import MemDoc
from myloware_store.orm.base import BaseModel
from myloware_store.platform.models import (
    AuditLog,
    Capability,
    Connector,
    EvalResult,
    Run,
    Schema,
    Tool,
    ToolCapability,
    WorkflowTemplate,
)
from myloware_store.work.models import ApprovalEvent, Attempt, DeadLetter, WorkItem, WorkOrder

__all__ = [
    "MODELS",
    "ApprovalEvent",
    "Attempt",
    "AuditLog",
    "BaseModel",
    "Capability",
    "Connector",
    "DeadLetter",
    "EvalResult",
    "MemDoc",
    "Run",
    "Schema",
    "Tool",
    "ToolCapability",
    "WorkItem",
    "WorkOrder",
    "WorkflowTemplate",
]

MODELS: tuple[type[BaseModel], ...] = (
    WorkOrder,
    WorkItem,
    Attempt,
    MemDoc,
    ApprovalEvent,
    DeadLetter,
    Connector,
    Tool,
    Capability,
    ToolCapability,
    Schema,
    WorkflowTemplate,
    Run,
    EvalResult,
    AuditLog,
)
"""Every model, parents before children."""

for _model in MODELS:
    # What `get()` raises where there is no such row is a NotFound as well as Peewee's own error.
    _model.DoesNotExist = type(
        f"{_model.__name__}DoesNotExist",
        (NotFound, peewee.DoesNotExist),
        # Found under this name, it can be pickled.
        {"__module__": _model.__module__, "__qualname__": f"{_model.__name__}.DoesNotExist"},
    )

"""The sixteen tables as Peewee models, bound to the open store."""

from __future__ import annotations

import peewee

from myloware_store.core.errors import NotFound
from myloware_store.memory.models import MemDoc
from myloware_store.orm.base import BaseModel
from myloware_store.platform.models import (
    AuditLog,
    AuditSeal,
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
    "AuditSeal",
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
    AuditSeal,
)
"""Every model, parents before children."""


def _does_not_exist(model: type[BaseModel]) -> type[peewee.DoesNotExist]:
    """Return the error of `get()`: a NotFound and Peewee's own. Its message omits the values of the condition."""

    def init(self: Exception, *_: object) -> None:
        Exception.__init__(self, f"there is no {model.__name__} that meets the condition")

    name = f"{model.__name__}.DoesNotExist"  # lets it be pickled
    return type(
        f"{model.__name__}DoesNotExist",
        (NotFound, peewee.DoesNotExist),
        {"__module__": model.__module__, "__qualname__": name, "__init__": init},
    )


for _model in MODELS:
    _model.DoesNotExist = _does_not_exist(_model)

"""Runs, evaluations and audit lines: what is written down beside the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from peewee import fn

from myloware_store.enums import WorkOrderStatus
from myloware_store.errors import InvalidInput, NotFound
from myloware_store.models import AuditLog, EvalResult, Run, WorkflowTemplate, WorkItem, WorkOrder
from myloware_store.repositories.base import Repository, as_count, as_name, as_object, as_text, as_uuid, writer
from myloware_store.values import shown

__all__ = ["Audit", "Evals", "Runs"]


class Runs(Repository):
    """Executions of workflows over orders."""

    def start(
        self,
        order_id: UUID | str,
        *,
        workflow_template_id: UUID | str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Run:
        """Record that a workflow has begun over an order.

        Args:
            order_id: The order.
            workflow_template_id: The template it follows, if any.
            context: What the run starts from, a JSON object.

        Raises:
            NotFound: There is no such order (or it is another tenant's), or no such template.
        """
        template = None if workflow_template_id is None else as_uuid(workflow_template_id, "workflow_template_id")
        if template is not None and not WorkflowTemplate.select().where(WorkflowTemplate.id == template).exists():
            raise NotFound(f"there is no workflow template {template}")
        run = Run.create(
            work_order=self._find(WorkOrder, order_id, "order_id"),
            workflow_template=template,
            status=WorkOrderStatus.PROCESSING,
            context=as_object(context, "context"),
            started_at=fn.statement_timestamp(),
        )
        return self._find(Run, run.id, "run_id")

    def finish(self, run_id: UUID | str, *, error: str | None = None, context: Mapping[str, Any] | None = None) -> Run:
        """Record the end of a run: COMPLETED, or FAILED where an error is given.

        Args:
            run_id: The run.
            error: Why it failed.
            context: What to remember of it instead of what it started from.

        Raises:
            NotFound: There is no such run, or it is another tenant's.
            InvalidInput: The run has ended before.
        """
        run = self._find(Run, run_id, "run_id")
        values: dict[str, Any] = {
            "status": WorkOrderStatus.COMPLETED if error is None else WorkOrderStatus.FAILED,
            "error": as_text(error, "error"),
            "finished_at": fn.statement_timestamp(),
        }
        if context is not None:
            values["context"] = as_object(context, "context")
        unfinished = Run.finished_at.is_null()
        if not Run.update(**values).where(Run.id == run.id, unfinished).execute():
            ended = self._find(Run, run.id, "run_id")
            raise InvalidInput(f"run {ended.id} has ended before, as {ended.status}")
        return self._find(Run, run.id, "run_id")


class Evals(Repository):
    """Evaluations of items."""

    def record(
        self,
        item_id: UUID | str,
        *,
        evaluation_type: str,
        score: float,
        passed: bool,
        metrics: Mapping[str, Any] | None = None,
    ) -> EvalResult:
        """Store how good an item's result was.

        Args:
            item_id: The item.
            evaluation_type: What was measured.
            score: From 0 to 1.
            passed: Whether that is good enough.
            metrics: The numbers behind the score, a JSON object.

        Raises:
            NotFound: There is no such item, or it is another tenant's.
            InvalidInput: The score is outside 0 .. 1, or something cannot be stored.
        """
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise InvalidInput(f"score: {shown(score)} is not a number from 0 to 1")
        return EvalResult.create(
            work_item=self._find(WorkItem, item_id, "item_id"),
            evaluation_type=as_name(evaluation_type, "evaluation_type"),
            score=score,
            passed=passed,
            metrics=as_object(metrics, "metrics"),
        )


class Audit(Repository):
    """Who did what."""

    def record(
        self,
        action: str,
        resource_type: str,
        resource_id: UUID | str,
        *,
        user_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        ip_address: str | None = None,
    ) -> AuditLog:
        """Store one line, never to be changed again; inside a transaction it commits with the rest.

        Args:
            action: What was done, such as `work_order.submit`.
            resource_type: The kind of thing it was done to.
            resource_id: Which one.
            user_id: Who did it, by default the actor in force, else `system`.
            details: More about it, a JSON object.
            ip_address: Where from, IPv4 or IPv6.
        """
        tenant, actor = writer()
        return AuditLog.create(
            tenant_id=tenant,
            user_id=actor if user_id is None else user_id,
            action=action,
            resource_type=resource_type,
            resource_id=str(resource_id) if isinstance(resource_id, UUID) else resource_id,
            details=as_object(details, "details"),
            ip_address=ip_address,
        )

    def list(
        self, *, resource_type: str | None = None, resource_id: UUID | str | None = None, limit: int = 100
    ) -> list[AuditLog]:
        """Return audit lines, the newest first.

        Args:
            resource_type: Only lines about this kind of thing.
            resource_id: Only lines about this one.
            limit: Most lines to return (1 to 100,000).
        """
        query = self._scoped(AuditLog.select(), AuditLog)
        if resource_type is not None:
            query = query.where(AuditLog.resource_type == as_name(resource_type, "resource_type"))
        if resource_id is not None:
            wanted = str(resource_id) if isinstance(resource_id, UUID) else as_name(resource_id, "resource_id")
            query = query.where(AuditLog.resource_id == wanted)
        newest_first = query.order_by(AuditLog.created_at.desc(), AuditLog.id.desc())
        return [*newest_first.limit(as_count(limit, "limit"))]

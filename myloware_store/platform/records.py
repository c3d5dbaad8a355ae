"""Records about the work: runs and evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.core.arguments import (
    as_flag,
    as_name,
    as_number,
    as_object,
    as_text,
    as_uuid,
    require_object,
)
from myloware_store.core.enums import WorkOrderStatus
from myloware_store.core.errors import InvalidInput, NotFound
from myloware_store.core.results import EvalSummary
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json
from myloware_store.orm.repository import Repository
from myloware_store.orm.scalars import as_instant
from myloware_store.platform.models import EvalResult, Run
from myloware_store.work.models import WorkItem, WorkOrder

__all__ = ["Evals", "Runs"]

_sql = queries_beside(__file__)


class Runs(Repository):
    """Runs of workflows over orders."""

    def start(
        self,
        order_id: UUID | str,
        *,
        workflow_template_id: UUID | str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Run:
        """Record that a workflow has started to run over an order.

        Args:
            order_id: The order.
            workflow_template_id: The template that it follows, if any.
            context: The initial state of the run, a JSON object.

        Returns:
            The stored run.

        Raises:
            InvalidInput: An argument cannot be stored.
            NotFound: The order does not exist or is another tenant's, or the template does not exist.
        """
        values = {
            "id": str(uuid7()),
            "order_id": str(as_uuid(order_id, "order_id")),
            "template_id": None
            if workflow_template_id is None
            else str(as_uuid(workflow_template_id, "workflow_template_id")),
            "context": dump_json(as_object(context, "context"), "context"),
        }
        rows = self._stored(Run, _sql("start_run"), values)
        if not rows:
            self._find(WorkOrder, order_id, "order_id")
            raise NotFound(f"there is no workflow template {values['template_id']}")
        return rows[0]

    def finish(self, run_id: UUID | str, *, error: str | None = None, context: Mapping[str, Any] | None = None) -> Run:
        """Record the end of a run: COMPLETED, or FAILED if an error is given.

        Args:
            run_id: The run.
            error: Why it failed.
            context: A JSON object that replaces the context; by default the context stays.

        Returns:
            The stored run.

        Raises:
            NotFound: The run does not exist, or is another tenant's.
            InvalidInput: The run has already ended, or an argument cannot be stored.
        """
        values = {
            "id": str(as_uuid(run_id, "run_id")),
            "status": (WorkOrderStatus.COMPLETED if error is None else WorkOrderStatus.FAILED).value,
            "error": as_text(error, "error"),
            "context": None if context is None else dump_json(require_object(context, "context"), "context"),
        }
        rows = self._stored(Run, _sql("finish_run"), values)
        if not rows:
            ended = self._find(Run, run_id, "run_id")
            raise InvalidInput(f"run {ended.id} has ended before, as {ended.status}")
        return rows[0]


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
        """Store an evaluation of an item's result.

        Args:
            item_id: The item.
            evaluation_type: The name of the evaluation.
            score: The score, from 0 to 1.
            passed: Whether the score is good enough.
            metrics: The numbers behind the score, a JSON object.

        Returns:
            The stored evaluation.

        Raises:
            NotFound: The item does not exist, or is another tenant's.
            InvalidInput: The score is outside 0 .. 1, or another argument cannot be stored.
        """
        return self._create(
            EvalResult,
            work_item=self._find(WorkItem, item_id, "item_id"),
            evaluation_type=as_name(evaluation_type, "evaluation_type"),
            score=as_number(score, "score", least=0, most=1),
            passed=as_flag(passed, "passed"),
            metrics=as_object(metrics, "metrics"),
        )

    def summary(
        self,
        *,
        order_id: UUID | str | None = None,
        evaluation_type: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[EvalSummary]:
        """Summarize evaluations by type, in alphabetical order.

        Args:
            order_id: Only evaluations of this order's items.
            evaluation_type: Only evaluations of this type.
            since: Only evaluations recorded at this time or later, an aware datetime.
            until: Only evaluations recorded before this time, an aware datetime.

        Returns:
            One summary for each type with evaluations.

        Raises:
            InvalidInput: An argument is out of its bounds.
            NotFound: The order does not exist, or is another tenant's.
        """
        values = {
            "order_id": None if order_id is None else str(self._find(WorkOrder, order_id, "order_id").id),
            "evaluation_type": None if evaluation_type is None else as_name(evaluation_type, "evaluation_type"),
            "since": None if since is None else as_instant(since, "since"),
            "until": None if until is None else as_instant(until, "until"),
        }
        return [EvalSummary(*row) for row in self._rows(_sql("summarize_evals"), values, reads=True)]

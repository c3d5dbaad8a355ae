"""The approval gate: items whose result waits for a person's decision."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_count, as_enum, as_name, as_text, as_uuid
from myloware_store.core.enums import ApprovalDecision, ApprovalDecisionLabel
from myloware_store.core.errors import NotAwaitingApproval
from myloware_store.core.sql import queries_beside
from myloware_store.orm.repository import Repository
from myloware_store.work.models import ApprovalEvent, WorkItem

__all__ = ["Approvals"]

_sql = queries_beside(__file__)


class Approvals(Repository):
    """Decisions about items that `work.finish(..., gate=True)` has parked."""

    def decide(
        self,
        item_id: UUID | str,
        *,
        approver_id: str,
        decision: ApprovalDecision | ApprovalDecisionLabel,
        reason: str | None = None,
        policy_version: str,
    ) -> ApprovalEvent:
        """Record a decision and act on it: APPROVED completes the item, REJECTED fails it, ESCALATED keeps it parked.

        Args:
            item_id: The parked item.
            approver_id: Who decides.
            decision: The decision.
            reason: The reason for it.
            policy_version: The version of the policy that the decision follows.

        Returns:
            The stored decision; it cannot be changed.

        Raises:
            InvalidInput: An argument is out of its bounds.
            NotFound: The item does not exist, or is another tenant's.
            NotAwaitingApproval: The item is not parked, or somebody else decided first.
        """
        values: dict[str, Any] = {
            "event_id": str(uuid7()),
            "item_id": str(as_uuid(item_id, "item_id")),
            "approver_id": as_name(approver_id, "approver_id"),
            "decision": as_enum(decision, ApprovalDecision, "decision").value,
            "reason": as_text(reason, "reason"),
            "policy_version": as_name(policy_version, "policy_version"),
        }
        for event in self._stored(ApprovalEvent, _sql("decide"), values):
            return event
        item = self._find(WorkItem, item_id, "item_id")
        raise NotAwaitingApproval(f"item {item.id} does not await a decision: it is {item.status}")

    def pending(self, limit: int = 100) -> list[WorkItem]:
        """Return the items that wait for a decision, oldest first.

        Args:
            limit: Most items to return (1 to 100,000).

        Raises:
            InvalidInput: The limit is out of its bounds.
        """
        # Index: work_items_approval_idx.
        parked = self._select(WorkItem).where(WorkItem.awaiting_approval)
        return list(parked.order_by(WorkItem.updated_at, WorkItem.id).limit(as_count(limit, "limit")))

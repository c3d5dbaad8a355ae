"""Builds sample orders, items and attempts so that the ledger balances.

An item counts its attempts, refers to the last one, and was processed when that one ended or when a person decided. The
database derives an order's counters and status from the items.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from myloware_store.core.enums import AttemptStatus, Priority, WorkItemStatus, WorkItemType
from myloware_store.seed.ids import LEASED_UNTIL, attempt_id

__all__ = ["Item", "Row", "Try", "new_order", "timed_out"]

Row = dict[str, Any]

_LEASE = timedelta(minutes=5)


@attrs.frozen
class Try:
    """One attempt; without `seconds` it is running, with an error it failed."""

    agent_id: str
    started_at: datetime
    seconds: int | None = None
    error: str | None = None
    status: AttemptStatus = attrs.field()
    progress: int | None = None

    @status.default
    def _follow(self) -> AttemptStatus:
        if self.seconds is None:
            return AttemptStatus.STARTED
        return AttemptStatus.COMPLETED if self.error is None else AttemptStatus.FAILED

    @property
    def last_at(self) -> datetime:
        """When it ended, or began if it is running."""
        return self.started_at + timedelta(seconds=self.seconds or 0)


def timed_out(agent_id: str, started_at: datetime) -> Try:
    """An attempt whose lease ran out."""
    error = f"the lease expired at {started_at + _LEASE:%Y-%m-%d %H:%M:%S}+00"
    return Try(agent_id, started_at, 302, error, AttemptStatus.TIMEOUT)


@attrs.frozen
class Item:
    """One item of an order, with its attempts; `moved_at` is when a decision or a replay moved it after them."""

    id: UUID
    type: WorkItemType
    status: WorkItemStatus
    content: str
    tries: tuple[Try, ...] = ()
    result: Row | None = None
    moved_at: datetime | None = None
    available_at: datetime | None = None
    max_attempts: int = 5
    awaiting_approval: bool = False

    def row(self, order: Row) -> Row:
        """Return the item's row."""
        last_at = self.moved_at or (self.tries[-1].last_at if self.tries else order["created_at"])
        return {
            "id": self.id,
            "tenant_id": order["tenant_id"],
            "work_order": order["id"],
            "type": self.type,
            "content": self.content,
            "status": self.status,
            "result": self.result,
            "processed_at": last_at if self.status in (WorkItemStatus.COMPLETED, WorkItemStatus.FAILED) else None,
            "priority": order["priority"],
            "available_at": self.available_at or order["created_at"],
            "attempt_count": len(self.tries),
            "max_attempts": self.max_attempts,
            "current_attempt_id": attempt_id(self.id, len(self.tries)) if self.tries else None,
            "awaiting_approval": self.awaiting_approval,
            "created_at": order["created_at"],
            "updated_at": last_at,
        }

    def attempt_rows(self, order: Row) -> list[Row]:
        """Return the rows of its attempts."""
        return [
            {
                "id": attempt_id(self.id, number),
                "tenant_id": order["tenant_id"],
                "work_item": self.id,
                "agent_id": one.agent_id,
                "status": one.status,
                "output": self.result if one.status == AttemptStatus.COMPLETED else None,
                "error": one.error,
                "duration_ms": None if one.seconds is None else 1000 * one.seconds,
                "attempt_number": number,
                "progress": one.progress,
                "lease_expires_at": LEASED_UNTIL if one.seconds is None else one.started_at + _LEASE,
                "started_at": one.started_at,
                "finished_at": None if one.seconds is None else one.last_at,
                "created_at": one.started_at,
                "updated_at": one.last_at,
            }
            for number, one in enumerate(self.tries, 1)
        ]


def new_order(order_id: UUID, tenant: str, created_at: datetime, **values: Any) -> Row:
    """An order as it is submitted; its counters and status follow from its items."""
    row = {"id": order_id, "tenant_id": tenant, "created_at": created_at, "priority": Priority.MEDIUM}
    keys = {"idempotency_key": None, "unique_key": None}
    return {**row, "created_by": "intake", "workflow_id": None, "metadata": {}, **keys, **values}

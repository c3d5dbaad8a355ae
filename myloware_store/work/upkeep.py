"""Upkeep of the work there is: counted for dashboards and alarms, and deleted when it is long over."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from myloware_store.core.arguments import as_count, as_seconds
from myloware_store.core.enums import WorkOrderStatus
from myloware_store.core.errors import InvalidInput
from myloware_store.core.results import Pruned, TenantStats, WorkStats
from myloware_store.core.sql import queries_beside
from myloware_store.orm.repository import Repository
from myloware_store.orm.scalars import as_instant
from myloware_store.work.prometheus import exposition

__all__ = ["Upkeep"]

_sql = queries_beside(__file__)

_MOST_ORDERS = 100
_FIRST = (datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))


class Upkeep(Repository):
    """What an operator does with the work there is."""

    def stats(self, window: float = 60.0) -> WorkStats:
        """Count what is open, and what has ended lately, by tenant and state.

        One query, of what is open and of the window: finished work costs nothing, however much there is. It takes
        up to a second for a million queued items.

        Args:
            window: How many seconds back to count the attempts that have ended, an hour at most.

        Returns:
            The counts of each tenant that has any, and of all of them together; under a tenant in force of that one.
        """
        seconds = as_seconds(window, "window", least=1.0)
        if seconds > 3600:  # noqa: PLR2004  seconds an hour
            raise InvalidInput(f"window: {seconds:g} is more than an hour of 3600 seconds")
        return WorkStats(
            window_seconds=seconds,
            tenants=tuple(TenantStats(*row) for row in self._rows(_sql("stats"), {"window": seconds})),
        )

    def metrics(self, window: float = 60.0) -> str:
        """Return the same counts in Prometheus' text format, version 0.0.4, for the page that it scrapes.

        Args:
            window: As for `stats`.
        """
        return exposition(self.stats(window))

    def prune(self, before: datetime, *, batch: int = 1000) -> Pruned:
        """Delete orders that ended before some time, with all that belongs to them, and letters replayed before it.

        Items, attempts, runs, approvals, evaluations and the memory made for an item go with their order; audit lines
        stay, and so do orders with a dead letter that was not replayed. Each batch is a transaction of its own, so that
        what is interrupted has done its part, and is gone on with by calling again.

        Args:
            before: The time, aware.
            batch: About how many items go in one transaction (1 to 100,000); an order goes whole.

        Returns:
            How many orders, items and letters were deleted.

        Raises:
            InvalidInput: The time is not aware, or a transaction is open: it would hold all batches together.
        """
        if self._db.transaction_open():
            raise InvalidInput("prune: commit first; each batch is a transaction of its own")
        before = as_instant(before, "before")
        items = as_count(batch, "batch")
        pruned = Pruned(orders=0, items=0, dead_letters=0)
        for (tenant,) in self._rows(_sql("tenants"), {}):
            for status in (WorkOrderStatus.COMPLETED, WorkOrderStatus.FAILED):
                pruned += self._prune_orders(tenant, status, before, items)
            values = {"tenant_id": tenant, "before": before, "items": items}
            while letters := len(self._rows(_sql("prune_letters"), values)):
                pruned += Pruned(orders=0, items=0, dead_letters=letters)
        return pruned

    def _prune_orders(self, tenant: str, status: WorkOrderStatus, before: datetime, items: int) -> Pruned:
        pruned = Pruned(orders=0, items=0, dead_letters=0)
        after: tuple[datetime, UUID] | None = _FIRST
        while after:
            values = {
                "tenant_id": tenant,
                "status": status.value,
                "before": before,
                "after_time": after[0],
                "after_id": str(after[1]),
                "orders": min(items, _MOST_ORDERS),
                "items": items,
            }
            after = None
            for time, order_id, orders, gone in self._rows(_sql("prune_orders"), values):
                after = (time, order_id)
                pruned += Pruned(orders=orders, items=gone, dead_letters=0)
        return pruned

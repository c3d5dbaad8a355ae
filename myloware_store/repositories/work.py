"""The work engine: orders submitted, items claimed, attempts finished, failed and timed out.

Execution is at least once, acceptance of a result exactly once: every claim makes an attempt, and only the attempt that
holds the item can end it. Times are the database's (`statement_timestamp()`: `now()` is when the transaction began).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.enums import Priority, WorkItemType
from myloware_store.errors import IdempotencyConflict, InvalidInput, LeaseLost
from myloware_store.models import WorkItem, WorkOrder
from myloware_store.repositories import claim_sql
from myloware_store.repositories import work_sql as sql
from myloware_store.repositories.base import (
    as_count,
    as_enum,
    as_flag,
    as_list,
    as_name,
    as_object,
    as_seconds,
    writer,
)
from myloware_store.repositories.work_rows import (
    as_claims,
    as_document,
    as_order,
    as_outcomes,
    error_text,
    fence,
    paired,
)
from myloware_store.repositories.work_waiting import Waiting, wanted
from myloware_store.results import Claim, Outcome
from myloware_store.values import dump_json

__all__ = ["Work"]

_SHORTEST_LEASE = 0.001
_LARGEST_BATCH = 1000


class Work(Waiting):
    """Work orders and their items."""

    def submit(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        priority: Priority | str = Priority.MEDIUM,
        workflow_id: str | None = None,
        created_by: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        available_at: datetime | None = None,
        max_attempts: int = 5,
    ) -> WorkOrder:
        """Store an order and its items, all of them or none, in one statement.

        Args:
            items: Mappings with `type` (a `WorkItemType`) and `content` (text, 1 MiB at most).
            priority: How urgent; urgent items are claimed first.
            workflow_id: The workflow that the order belongs to.
            created_by: Who submits it, by default the actor in force, else `system`.
            metadata: A JSON object, 4 MiB at most.
            idempotency_key: Submitting the same items under the same key again returns the first order.
            available_at: When the items can first be claimed, by default at once.
            max_attempts: How often an item is tried before it becomes a dead letter (1 to 1000).

        Returns:
            The order, with `open_items` set to the number of its items.

        Raises:
            InvalidInput: There is no item, or one cannot be stored; nothing was written.
            IdempotencyConflict: The key was used before, with other items.
        """
        tenant, actor = writer()
        documents = [as_document(item) for item in as_list(items, "items")]
        if not documents:
            raise InvalidInput("submit: an order needs at least one item")
        values: dict[str, Any] = {
            "order_id": str(uuid7()),
            "tenant_id": tenant,
            "priority": as_enum(priority, Priority, "priority").value,
            "workflow_id": None if workflow_id is None else as_name(workflow_id, "workflow_id"),
            "created_by": as_name(actor if created_by is None else created_by, "created_by"),
            "metadata": dump_json(as_object(metadata, "metadata"), "metadata"),
            "key": None if idempotency_key is None else as_name(idempotency_key, "idempotency_key"),
            "available_at": None if available_at is None else WorkItem.available_at.check(available_at),
            "max_attempts": as_count(max_attempts, "max_attempts", most=1000),
            "item_ids": [str(uuid7()) for _ in documents],
            "types": [kind for kind, _ in documents],
            "contents": [content for _, content in documents],
        }
        rows = self._rows(sql.SUBMIT, values)
        if not rows:
            return self._first_order(values["tenant_id"], values["key"], documents)
        (order,) = (as_order(row) for row in rows)
        # The roll-up trigger counted the items after the row was returned.
        order.open_items = len(documents)
        order._dirty.clear()  # noqa: SLF001  the stored row says so, too
        return order

    def _first_order(self, tenant: str, key: Any, documents: list[tuple[str, str]]) -> WorkOrder:
        order = WorkOrder.get_or_none(WorkOrder.tenant_id == tenant, WorkOrder.idempotency_key == key)
        if order is None:
            raise IdempotencyConflict(f"the key {key!r} is being used by a transaction that this one cannot see")
        stored = WorkItem.select(WorkItem.type, WorkItem.content).where(WorkItem.work_order == order).tuples()
        if sorted((str(kind), content) for kind, content in stored) != sorted(documents):
            raise IdempotencyConflict(f"the key {key!r} was used before, with other items, for order {order.id}")
        return order

    def claim(
        self,
        agent_id: str,
        n: int = 1,
        *,
        types: Iterable[WorkItemType | str] | None = None,
        tenants: Iterable[str] | None = None,
        lease: float = 60.0,
        fair: bool = False,
    ) -> list[Claim]:
        """Take up to n items, urgent ones first, then the oldest; no two claims get the same item.

        Args:
            agent_id: Who will work on them.
            n: Most items to take (1 to 1000).
            types: Only items of these types.
            tenants: Only items of these tenants; under a tenant in force it can only narrow.
            lease: Seconds until the items are taken back unless `heartbeat` extends them.
            fair: Share the batch among the tenants with work that is ready, whatever its priority: each gets n divided
                by their number before any gets more, and which of them go first is drawn each time.

        Returns:
            The claims, in the order in which to work on them; empty where nothing is ready.

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        count = as_count(n, "n", most=_LARGEST_BATCH)
        values: dict[str, Any] = {
            "agent_id": as_name(agent_id, "agent_id"),
            "n": count,
            "attempt_ids": [str(uuid7()) for _ in range(count)],
            **wanted(types, tenants),
            "lease": as_seconds(lease, "lease", least=_SHORTEST_LEASE),
        }
        if as_flag(fair, "fair"):
            statement = claim_sql.CLAIM_FAIRLY
        elif values["tenants"] is not None:
            statement = claim_sql.CLAIM_BY_TENANT
        elif values["types"] is not None:
            statement = claim_sql.CLAIM_BY_TYPE
        else:
            statement = claim_sql.CLAIM
        rows = self._rows(statement, values)
        return [
            Claim(
                item_id=item_id,
                attempt_id=attempt_id,
                attempt_number=number,
                type=WorkItemType(kind),
                content=content,
                tenant_id=tenant_id,
                work_order_id=order_id,
                lease_expires_at=expires.astimezone(UTC),
            )
            for item_id, attempt_id, number, kind, content, tenant_id, order_id, expires in rows
        ]

    def heartbeat(self, claims: Iterable[Claim], lease: float = 60.0) -> set[UUID]:
        """Extend the leases of claims that still hold their items.

        Args:
            claims: What `claim` returned.
            lease: Seconds from now.

        Returns:
            The ids of the items that are still held; the others are lost to this worker.
        """
        held = as_claims(claims)
        values = {
            "attempt_ids": [str(claim.attempt_id) for claim in held],
            "lease": as_seconds(lease, "lease", least=_SHORTEST_LEASE),
        }
        return {item_id for (item_id,) in self._rows(sql.HEARTBEAT, values)}

    def finish(self, claims: Iterable[Claim], results: Sequence[Any], *, gate: bool = False) -> set[UUID]:
        """Store results and complete the items, as far as these claims still hold them.

        A second call with the same claims (a reply was lost) is accepted again and changes nothing.

        Args:
            claims: What `claim` returned.
            results: One JSON value a claim, 4 MiB at most each.
            gate: Park the items until `approvals.decide` instead of completing them.

        Returns:
            The ids of the items that were accepted.

        Raises:
            InvalidInput: The numbers of claims and results differ, or a result is not JSON; nothing was written.
            LeaseLost: Inside the caller's transaction, where a claim no longer holds its item; none was accepted.
        """
        held = as_claims(claims)
        outputs = [dump_json(result, "results") for result in paired(results, held, "results")]
        whole = self._db.transaction_open()
        values = {**fence(held), "outputs": outputs, "gate": as_flag(gate, "gate"), "whole": whole}
        accepted = {item_id for (item_id,) in self._rows(sql.FINISH, values)}
        if len(accepted) < len(held):
            # A first call that was still under way may have ended some of them since this one began.
            now = {item_id for (item_id,) in self._rows(sql.FINISH, values)}
            accepted = now if whole else accepted | now
        _refuse_lost(held, accepted, whole=whole)
        return accepted

    def fail(
        self,
        claims: Iterable[Claim],
        errors: Sequence[BaseException | str],
        *,
        retry: bool = True,
        delay: float | None = None,
    ) -> dict[UUID, Outcome]:
        """End attempts that went wrong: queue the items again, or bury those that have no tries left.

        Args:
            claims: What `claim` returned.
            errors: One exception or text a claim; stored as text, shortened where it is very long.
            retry: False where trying again is of no use: the items fail for good at once.
            delay: Seconds until the items can be claimed again, by default 2 ** tries, an hour at most, each
                multiplied by a random number from 0.5 to 1.5 so that failures that came together part.

        Returns:
            For each item that was accepted, what became of it.

        Raises:
            InvalidInput: The numbers of claims and errors differ.
            LeaseLost: Inside the caller's transaction, where a claim no longer holds its item; none was accepted.
        """
        held = as_claims(claims)
        whole = self._db.transaction_open()
        values = {
            **fence(held),
            "errors": [error_text(error) for error in paired(errors, held, "errors")],
            "letter_ids": [str(uuid7()) for _ in held],
            "retry": as_flag(retry, "retry"),
            "delay": None if delay is None else as_seconds(delay, "delay"),
            "whole": whole,
        }
        rows = self._rows(sql.FAIL, values)
        _refuse_lost(held, {row[0] for row in rows}, whole=whole)
        return as_outcomes(rows)

    def reap(self, limit: int = 100) -> dict[UUID, Outcome]:
        """Take back items whose lease has run out: queue them again, or bury those that have no tries left.

        Args:
            limit: Most items to take back in this call (1 to 1000).

        Returns:
            For each item that was taken back, what became of it.
        """
        count = as_count(limit, "limit", most=_LARGEST_BATCH)
        values = {"limit": count, "letter_ids": [str(uuid7()) for _ in range(count)], "delay": None}
        return as_outcomes(self._rows(sql.REAP, values))

    def get(self, order_id: UUID | str) -> WorkOrder:
        """Return an order.

        Raises:
            NotFound: There is none of this id, or it is another tenant's.
        """
        return self._find(WorkOrder, order_id, "order_id")

    def items(self, order_id: UUID | str) -> list[WorkItem]:
        """Return the items of an order, in the order in which they were submitted.

        Raises:
            NotFound: There is no such order, or it is another tenant's.
        """
        order = self.get(order_id)
        items: Iterable[WorkItem] = order.items.order_by(WorkItem.created_at, WorkItem.id)
        return [*items]


def _refuse_lost(claims: Sequence[Claim], accepted: set[UUID], *, whole: bool) -> None:
    """Raise LeaseLost where a batch was to be accepted as a whole, and some claims hold their items no longer.

    That is so inside the caller's transaction: what belongs together is stored together.
    """
    lost = {claim.item_id for claim in claims} - accepted
    if lost and whole:
        raise LeaseLost(
            f"these claims hold their items no longer (the lease ran out, or the attempt has ended):"
            f" {', '.join(sorted(map(str, lost)))}"
        )

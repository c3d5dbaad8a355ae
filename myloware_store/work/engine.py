"""The work engine: orders submitted, items claimed, attempts finished, failed and timed out.

Execution is at least once, acceptance of a result exactly once: every claim makes an attempt, and only the attempt that
holds the item can end it. Times are the database's (`statement_timestamp()`: `now()` is when the transaction began).
The statements are in `queries.sql`, and the functions that they call in `schema/*.sql`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_count, as_enum, as_flag, as_list, as_name, as_object, as_seconds, as_uuid
from myloware_store.core.enums import Priority, WorkItemType, WorkOrderStatus
from myloware_store.core.errors import (
    IdempotencyConflict,
    InvalidDocument,
    InvalidInput,
    LeaseLost,
    NotFound,
    WaitTimeout,
)
from myloware_store.core.results import Claim, Outcome, Pruned, TenantStats, WorkStats
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json, is_uuid, read_label
from myloware_store.db.listening import Listener
from myloware_store.orm.repository import Repository, stored_row, writer
from myloware_store.orm.scalars import as_instant
from myloware_store.platform.schemas import ActiveSchemas, Schemas
from myloware_store.work.horizon import Horizon, Horizons
from myloware_store.work.models import WorkItem, WorkOrder
from myloware_store.work.prometheus import exposition
from myloware_store.work.rows import (
    KNOWN_TYPES,
    as_claims,
    as_document,
    as_outcomes,
    error_text,
    fence,
    paired,
    wanted,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from myloware_store.db.database import StoreDatabase

__all__ = ["Work"]

_sql = queries_beside(__file__)

_OPEN = (WorkOrderStatus.PENDING, WorkOrderStatus.PROCESSING)
_SHORTEST_LOOK = 0.005
_LONGEST_LOOK = 0.5
_SHORTEST_LEASE = 0.001
_LARGEST_BATCH = 1000
_LOOK_SECONDS = 5.0
"""How often a waiting worker looks by itself: what it hears may be lost with its session."""
_LOOK_DEAF_SECONDS = 0.25
"""How often where it cannot listen."""
_MOST_ORDERS = 100
_FIRST = (datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))


class Work(Repository):
    """Work orders and their items."""

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._schemas = Schemas(database)
        self._active: dict[frozenset[str], ActiveSchemas] = {}
        self._horizons = Horizons()

    def submit(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        priority: Priority | str = Priority.MEDIUM,
        workflow_id: UUID | str | None = None,
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
            workflow_id: What the caller calls the workflow that the order belongs to, such as a template's name or id;
                stored as text, and not looked up (`runs.start` links a template).
            created_by: Who submits it, by default the actor in force, else `system`.
            metadata: A JSON object, 4 MiB at most.
            idempotency_key: Submitting the same items under the same key again returns the first order as it is,
                whatever else is given then (priority, metadata, ...).
            available_at: When the items can first be claimed, by default at once.
            max_attempts: How often an item is tried before it becomes a dead letter (1 to 1000).

        Returns:
            The order, with `open_items` set to the number of its items.

        Raises:
            InvalidInput: There is no item, or one cannot be stored; nothing was written.
            InvalidDocument: A content does not fit the active schemas for its type (`schemas.activate`); nothing was
                written.
            IdempotencyConflict: The key was used before, with other items.
        """
        tenant, actor = writer()
        documents = [as_document(item, f"items[{n}]") for n, item in enumerate(as_list(items, "items"))]
        if not documents:
            raise InvalidInput("submit: an order needs at least one item")
        workflow = str(workflow_id) if is_uuid(workflow_id) else workflow_id
        key = None if idempotency_key is None else as_name(idempotency_key, "idempotency_key")
        values: dict[str, Any] = {
            "order_id": str(uuid7()),
            "tenant_id": tenant,
            "priority": as_enum(priority, Priority, "priority").value,
            "workflow_id": None if workflow is None else as_name(workflow, "workflow_id"),
            "created_by": as_name(actor if created_by is None else created_by, "created_by"),
            "metadata": dump_json(as_object(metadata, "metadata"), "metadata"),
            "key": key,
            "available_at": None if available_at is None else as_instant(available_at, "available_at"),
            "max_attempts": as_count(max_attempts, "max_attempts", most=1000),
            "item_ids": [str(uuid7()) for _ in documents],
            "types": [kind for kind, _ in documents],
            "contents": [content for _, content in documents],
        }
        try:
            order = self._store_checked(documents, values)
        except InvalidDocument:
            # What was submitted under this key before a schema came into force is not submitted anew.
            if key is None or not self._by_key(tenant, key):
                raise
            order = None
        if order is None:
            return self._first_order(tenant, key, documents)
        if available_at is not None:
            self._horizons.forget()
        # The roll-up trigger counted the items after the row was returned.
        order.open_items = len(documents)
        order._dirty.clear()  # noqa: SLF001  the stored row says so, too
        return order

    def cancel(self, order_id: UUID | str) -> set[UUID]:
        """End what is open of an order, at once: its items fail, without a dead letter, and the order with them.

        Items that somebody works on are taken away: `heartbeat` says so, and what is finished later is refused. The
        order's `cancelled_at` and the errors of its attempts tell it apart from one that failed. What had ended
        stays as it is.

        Args:
            order_id: The order.

        Returns:
            The ids of the items that it ended; none where nothing was open.

        Raises:
            NotFound: There is no such order, or it is another tenant's.
        """
        values = {"order_id": str(as_uuid(order_id, "order_id"))}

        def end() -> list[tuple[Any, ...]]:
            # The items first, as everywhere; a statement that begins later sees what was done until they were locked.
            self._rows(_sql("lock_open"), values)
            return self._rows(_sql("cancel"), values)

        rows = self._db.transact(end)
        if not rows:
            raise NotFound(f"order_id: there is no WorkOrder {order_id}")
        return {item_id for (item_id,) in rows if item_id is not None}

    def wait(self, order_id: UUID | str, timeout: float = 60.0) -> WorkOrder:
        """Wait until an order has ended, and return it.

        It looks by the clock, up to twice a second, and holds no connection in between, so that any number can wait.

        Args:
            order_id: The order.
            timeout: Most seconds to wait.

        Returns:
            The order, COMPLETED or FAILED.

        Raises:
            NotFound: There is no such order, or it is another tenant's, or it was deleted meanwhile.
            WaitTimeout: It is still open after that time.
            InvalidInput: A transaction is open: what it has not committed nobody else can work on.
        """
        deadline = time.monotonic() + as_seconds(timeout, "timeout")
        if self._db.transaction_open():
            raise InvalidInput("wait: commit first; nobody else can work on what this transaction has not committed")
        pause = _SHORTEST_LOOK
        while (order := self.get(order_id)).status in _OPEN:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"order {order.id} has {_open(order, self._db)} after {timeout:g} s")
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK)
        return order

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
        of_order = self._select(WorkItem).where(WorkItem.work_order == self.get(order_id).id)
        return [*of_order.order_by(WorkItem.created_at, WorkItem.id)]

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

        Of items that others give back, or store with an earlier time than their own, it may learn some seconds late.

        Args:
            agent_id: Who will work on them.
            n: Most items to take (1 to 1000).
            types: Only items of these types, by default of all that this version knows.
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
            "known_types": KNOWN_TYPES,
            "lease": as_seconds(lease, "lease", least=_SHORTEST_LEASE),
            "fair": as_flag(fair, "fair"),
        }
        rows = self._claimed(values, None if fair else (str(values["types"]), str(values["tenants"])))
        return [
            Claim(
                item_id=item_id,
                attempt_id=attempt_id,
                attempt_number=number,
                type=read_label(WorkItemType, kind),
                content=content,
                tenant_id=tenant_id,
                work_order_id=order_id,
                lease_expires_at=expires.astimezone(UTC),
            )
            for item_id, attempt_id, number, kind, content, tenant_id, order_id, expires, *_ in rows
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
        return {item_id for (item_id,) in self._rows(_sql("heartbeat"), values)}

    def finish(self, claims: Iterable[Claim], results: Sequence[Any], *, gate: bool = False) -> set[UUID]:
        """Store results and complete the items, as far as these claims still hold them.

        A second call with the same claims (a reply was lost) is accepted again and changes nothing, not even the
        result; one that says something else of the gate is refused.

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
        outputs = [dump_json(result, f"results[{n}]") for n, result in enumerate(paired(results, held, "results"))]
        return self._end(_sql("finish"), held, {"outputs": outputs, "gate": as_flag(gate, "gate")})

    def fail(
        self,
        claims: Iterable[Claim],
        errors: Sequence[BaseException | str],
        *,
        retry: bool = True,
        delay: float | None = None,
    ) -> dict[UUID, Outcome]:
        """End attempts that went wrong: queue the items again, or bury those that have no tries left.

        A second call with the same claims and errors (a reply was lost) is accepted again, until somebody claims the
        items anew, and changes nothing, whatever it says of trying again.

        Args:
            claims: What `claim` returned.
            errors: One exception or message for each claim, in their order; stored as text, and a very long one is cut.
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
        told = [error_text(error) for error in paired(errors, held, "errors")]
        options = {
            "retry": as_flag(retry, "retry"),
            "delay": None if delay is None else as_seconds(delay, "delay"),
            "whole": whole,
        }

        def values(batch: Sequence[tuple[Claim, str]]) -> dict[str, Any]:
            claims = [claim for claim, _ in batch]
            letters = [str(uuid7()) for _ in batch]
            return {**fence(claims), "errors": [error for _, error in batch], "letter_ids": letters, **options}

        statement = _sql("fail") + _sql("give_up")
        given = [*zip(held, told, strict=True)]
        rows = self._rows(statement, values(given))
        if len(rows) < len(held):
            before = self._rows(_sql("failed_before"), values(given), reads=True)
            known = {row[0] for row in before}
            if before and whole:
                rows = self._rows(statement, values([one for one in given if one[0].item_id not in known]))
            rows += before
        _refuse_lost(held, {row[0] for row in rows}, whole=whole)
        return as_outcomes(rows)

    def release(self, claims: Iterable[Claim], *, delay: float | None = None) -> set[UUID]:
        """Give items back that were not worked on: they are queued again where they were, and no try is used up.

        The attempts are forgotten, as if they had never been started. A second call with the same claims (a reply was
        lost) is accepted again while the items wait.

        Args:
            claims: What `claim` returned.
            delay: Seconds until the items can be claimed again; by default at once, before younger ones.

        Returns:
            The ids of the items that were given back.

        Raises:
            LeaseLost: Inside the caller's transaction, where a claim no longer holds its item; none was given back.
        """
        released = self._end(
            _sql("release"), as_claims(claims), {"delay": None if delay is None else as_seconds(delay, "delay")}
        )
        self._horizons.forget()
        return released

    def reap(self, limit: int = 100) -> dict[UUID, Outcome]:
        """Take back items whose lease has run out: queue them again, or bury those that have no tries left.

        Args:
            limit: Most items to take back in this call (1 to 1000).

        Returns:
            For each item that was taken back, what became of it.
        """
        count = as_count(limit, "limit", most=_LARGEST_BATCH)
        values = {"limit": count, "letter_ids": [str(uuid7()) for _ in range(count)], "delay": None}
        return as_outcomes(self._rows(_sql("reap") + _sql("give_up"), values))

    def wait_for_work(
        self,
        timeout: float = 30.0,
        *,
        types: Iterable[WorkItemType | str] | None = None,
        tenants: Iterable[str] | None = None,
        listener: Listener | None = None,
        look_every: float | None = None,
    ) -> bool:
        """Wait until there is something to claim.

        A trigger sends NOTIFY for whatever becomes claimable, submitted in whichever way. Items that become available
        by the clock (a retry's delay, `available_at`) end the wait when their time comes.

        Args:
            timeout: Most seconds to wait.
            types: Only items of these types.
            tenants: Only items of these tenants; under a tenant in force it can only narrow.
            listener: An open `Listener`, to be used again and again; by default a session is opened for this call.
            look_every: Seconds between two looks at the queue, in case a NOTIFY was lost with its session: by default
                5, or 0.25 if it cannot listen (behind PgBouncer).

        Returns:
            Whether there was something to claim, which another worker may have taken since.

        Raises:
            InvalidInput: An argument is out of its bounds.
            ConnectionFailed: The server cannot be reached: wait again.
        """
        deadline = time.monotonic() + as_seconds(timeout, "timeout")
        values = {**wanted(types, tenants), "known_types": KNOWN_TYPES}
        if not isinstance(listener, Listener | None):
            raise InvalidInput(f"listener: {type(listener).__name__} is not a Listener")
        every = None if look_every is None else as_seconds(look_every, "look_every", least=0.01)
        if self._due(values) <= 0:
            return True
        if listener is not None:
            return self._wait(deadline, values, listener, every)
        with Listener(self._db) as own:
            return self._wait(deadline, values, own, every)

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
            tenants=tuple(TenantStats(*row) for row in self._rows(_sql("stats"), {"window": seconds}, reads=True)),
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
        for (tenant,) in self._rows(_sql("tenants"), {}, reads=True):
            for status in (WorkOrderStatus.COMPLETED, WorkOrderStatus.FAILED):
                pruned += self._prune_orders(tenant, status, before, items)
            values = {"tenant_id": tenant, "before": before, "items": items}
            while letters := len(self._rows(_sql("prune_letters"), values)):
                pruned += Pruned(orders=0, items=0, dead_letters=letters)
        return pruned

    def _store_checked(self, documents: list[tuple[str, str]], values: dict[str, Any]) -> WorkOrder | None:
        """Store documents that fit the active schemas, and return the order; None where its key was used before.

        They are checked against what was active when this store last asked. The statement that stores them finds out
        whether it still is, so that nothing is asked before it as long as nothing changes.
        """
        types = frozenset(kind for kind, _ in documents)
        active, asked = self._active.get(types, ActiveSchemas()), False
        while True:
            try:
                active.check(documents)
            except InvalidDocument:
                if asked:
                    raise
            else:
                given = {**values, "document_types": [*types], "stamps": [*active.stamps]}
                (row,) = self._named(_sql("submit"), given)
                if row["holds"]:
                    return stored_row(WorkOrder, row) if row["id"] else None
            active, asked = self._schemas.active(types), True
            self._active[types] = active

    def _by_key(self, tenant: str, key: str) -> WorkOrder | None:
        named = (WorkOrder.tenant_id == tenant, WorkOrder.idempotency_key == key)
        order: WorkOrder | None = self._select(WorkOrder).where(*named).first()
        return order

    def _first_order(self, tenant: str, key: Any, documents: list[tuple[str, str]]) -> WorkOrder:
        order = self._by_key(tenant, key)
        if order is None:
            raise IdempotencyConflict(f"the key {key!r} is being used by a transaction that this one cannot see")
        items = self._select(WorkItem, WorkItem.type, WorkItem.content)
        stored = items.where(WorkItem.work_order == order).tuples()
        if sorted((str(kind), content) for kind, content in stored) != sorted(documents):
            raise IdempotencyConflict(f"the key {key!r} was used before, with other items, for order {order.id}")
        return order

    def _claimed(self, values: dict[str, Any], kind: Hashable | None) -> list[tuple[Any, ...]]:
        """Claim from where claims of this kind have come to; from the front of the queue where the kind is None."""
        horizon = Horizon() if kind is None else self._horizons.get(kind)
        begin = time.monotonic()
        rows = self._rows(_sql("claim"), {**values, **horizon.as_parameters()})
        # A rollback makes items claimable again, so a claim inside a transaction moves no horizon.
        if kind is not None and rows and not self._db.transaction_open():
            item_id, *_, expires, priority, available_at = rows[-1]
            self._horizons.move(
                kind,
                horizon,
                (priority, (available_at, item_id)),
                full=len(rows) == values["n"],
                now=expires - timedelta(seconds=values["lease"]),
                seconds=time.monotonic() - begin,
            )
        return rows

    def _end(self, statement: str, held: Sequence[Claim], values: dict[str, Any]) -> set[UUID]:
        """Run a statement that says the same when it is made again, and return the items that it accepted.

        Args:
            statement: Accepts again what an earlier call accepted; in the caller's transaction, all claims or none.
            held: The claims.
            values: More parameters.
        """
        whole = self._db.transaction_open()
        given = {**fence(held), **values, "whole": whole}
        accepted = {item_id for (item_id,) in self._rows(statement, given)}
        if len(accepted) < len(held):
            # A first call that was still under way may have ended some of them since this one began.
            now = {item_id for (item_id,) in self._rows(statement, given)}
            accepted = now if whole else accepted | now
        _refuse_lost(held, accepted, whole=whole)
        return accepted

    def _wait(self, deadline: float, values: dict[str, Any], listener: Listener, every: float | None) -> bool:
        while True:
            armed = listener.arm()
            due = self._due(values)
            if due <= 0:
                return True
            left = deadline - time.monotonic()
            if left <= 0 or not listener.wait(
                min(left, due, every or (_LOOK_SECONDS if armed else _LOOK_DEAF_SECONDS))
            ):
                return False

    def _due(self, values: dict[str, Any]) -> float:
        """Give the seconds until the first item can be claimed; infinity where none is queued."""
        if values["tenants"] is not None:
            statement = _sql("due_by_tenant")
        else:
            statement = _sql("due") if values["types"] is None else _sql("due_by_type")
        ((seconds,),) = self._rows(statement, values, reads=True)
        return float("inf") if seconds is None else float(seconds)

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
            for created_at, order_id, orders, gone in self._rows(_sql("prune_orders"), values):
                after = (created_at, order_id)
                pruned += Pruned(orders=orders, items=gone, dead_letters=0)
        return pruned


def _refuse_lost(claims: Sequence[Claim], accepted: set[UUID], *, whole: bool) -> None:
    """Raise LeaseLost where a batch was to be accepted as a whole, and some claims hold their items no longer.

    That is so inside the caller's transaction: what belongs together is stored together.
    """
    lost = {claim.item_id for claim in claims} - accepted
    if lost and whole:
        raise LeaseLost(
            f"these claims hold their items no longer (the lease ran out, or the attempt has ended); drop what was done"
            f" for them, another worker may have them: {', '.join(sorted(map(str, lost)))}"
        )


def _open(order: WorkOrder, database: StoreDatabase) -> str:
    # Index: work_items_work_order_status_type_idx.
    waiting = order.items.bind(database).where(WorkItem.awaiting_approval).count()
    told = f"{order.open_items} open item{'' if order.open_items == 1 else 's'}"
    return f"{told}, {waiting} of which await{'s' if waiting == 1 else ''} approval," if waiting else told

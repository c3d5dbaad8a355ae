"""The work engine: submitting orders, claiming items, and finishing, failing or timing out attempts.

Items are executed at least once, and a result is accepted exactly once: every claim creates an attempt, and only the
attempt that holds the item can end it. Times are the database's (`statement_timestamp()`, because `now()` is the start
of the transaction). The statements are in `queries.sql`, and the functions they call in `schema/*.sql`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, LiteralString, TypeAlias
from uuid import UUID

import orjson

from myloware_store.core.arguments import (
    as_choice,
    as_count,
    as_flag,
    as_seconds,
    as_text,
    as_uuid,
)
from myloware_store.core.enums import Priority, PriorityLabel, WorkItemType, WorkOrderStatus
from myloware_store.core.errors import (
    ConstraintViolation,
    IdempotencyConflict,
    InvalidDocument,
    InvalidInput,
    LeaseLost,
    NotFound,
    SettingsError,
    WaitTimeout,
)
from myloware_store.core.results import (
    Claim,
    NewItem,
    Outcome,
    Pruned,
    RetryPolicy,
    SubmitStatement,
    TenantStats,
    WorkStats,
)
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json, new_ids, uuid_array
from myloware_store.db.listening import Listener
from myloware_store.db.tenancy import current_tenant
from myloware_store.memory.text import MATCHES, typed
from myloware_store.orm.repository import Repository, stored_instance, stored_row
from myloware_store.orm.scalars import as_instant
from myloware_store.platform.schemas import ActiveSchemas, Definitions
from myloware_store.work.horizon import Horizon, Horizons
from myloware_store.work.models import WorkItem, WorkOrder
from myloware_store.work.prometheus import exposition
from myloware_store.work.rows import (
    KNOWN_TYPES,
    LARGEST_BATCH,
    SHORTEST_LEASE,
    as_claims,
    as_outcomes,
    copied_items,
    error_text,
    fence,
    give_up,
    new_order,
    paired,
    read_claims,
    wanted,
    wish,
)

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

__all__ = ["DriverLabel", "Work"]

DriverLabel: TypeAlias = Literal["psycopg", "asyncpg", "sqlalchemy", "django"]

_sql = queries_beside(__file__)

_OPEN = (WorkOrderStatus.PENDING, WorkOrderStatus.PROCESSING)
_SHORTEST_LOOK = 0.005
_LONGEST_LOOK = 0.5
_LOOK_SECONDS = 5.0
"""How often a waiting worker polls: notifications are lost with its session."""
_LOOK_DEAF_SECONDS = 0.25
"""How often it polls if it cannot listen."""
_COPIED = 500
"""From so many items on, COPY stores them: a fifth less processor time for 1,000, and four more round trips."""
_MOST_ORDERS = 100
_SUBMITS: dict[str, LiteralString] = {
    "psycopg": "SELECT submit_work_order_json(CAST(CAST(%s AS text) AS json))",
    "asyncpg": "SELECT submit_work_order_json(CAST(CAST($1 AS text) AS json))",
    "sqlalchemy": "SELECT submit_work_order_json(CAST(CAST(:given AS text) AS json))",
    "django": "SELECT submit_work_order_json(CAST(CAST(%s AS text) AS json))",
}
"""`submit_statement` by driver. CAST: SQLAlchemy would take the `::` for a parameter. Text, because asyncpg with a
codec for json would encode a parameter of that type again."""
_SEARCHING = {
    # The one plan for any size of the tables: the index of each part, and one look-up for each order.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    # Enough to remember each match of a common word: where only its page is remembered, the page is read again.
    "work_mem": "'64MB'",
}
_FIRST = (datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))


class Work(Repository):
    """Work orders and their items."""

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._definitions = Definitions(database)
        self._active: dict[frozenset[str], ActiveSchemas] = {}
        self._horizons = Horizons()

    def submit(
        self,
        items: Iterable[NewItem | Mapping[str, Any]],
        *,
        priority: Priority | PriorityLabel = Priority.MEDIUM,
        workflow_id: UUID | str | None = None,
        created_by: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        available_at: datetime | None = None,
        max_attempts: int = 5,
        retry_policy: RetryPolicy | Mapping[str, float] | None = None,
        unique_key: str | None = None,
    ) -> WorkOrder:
        """Store an order and its items, all of them or none, in one statement (from 500 items on, by COPY).

        Args:
            items: `NewItem`s, or mappings with `type` (a `WorkItemType`) and `content` (text, 1 MiB at most).
            priority: The priority of the items; urgent items are claimed first.
            workflow_id: The caller's name for the workflow of the order, such as a template's name or id. It is stored
                as text and not looked up (`runs.start` links a template).
            created_by: Who submits the order; by default the actor in force, else `system`.
            metadata: A JSON object, 4 MiB at most.
            idempotency_key: A key that makes the call repeatable: submitting the same items under the same key again
                returns the first order unchanged, and ignores the other arguments.
            available_at: When the items can first be claimed; by default at once.
            max_attempts: How often to try an item before it becomes a dead letter (1 to 1000).
            retry_policy: How long to wait before an item is tried again; by default `RetryPolicy()`.
            unique_key: A key of which only one order is open at a time: while it is, submitting anything under the same
                key returns it unchanged, and stores nothing. When it has ended, the key is free again.

        Returns:
            The order, with `open_items` set to the number of its items.

        Raises:
            InvalidInput: There are no items, or an item cannot be stored; nothing was written.
            InvalidDocument: A content does not match the active schemas for its type (`schemas.activate`); nothing was
                written.
            IdempotencyConflict: The idempotency key was used before, with other items.
        """
        documents, values = new_order(
            items,
            priority=priority,
            workflow_id=workflow_id,
            created_by=created_by,
            metadata=metadata,
            idempotency_key=idempotency_key,
            available_at=available_at,
            max_attempts=max_attempts,
            retry_policy=retry_policy,
            unique_key=unique_key,
        )
        stored = None
        while stored is None:
            try:
                stored = self._store_checked(documents, values)
            except InvalidDocument:
                # Items that were submitted under this key before the schema was activated are not submitted again.
                if not self._by_key(values):
                    raise
            if stored is None and (first := self._first_order(documents, values)):
                return first
        if available_at is not None:
            self._horizons.forget()
        created_at, details = stored[0].astimezone(UTC), stored[1]
        row = {
            "id": UUID(values["order_id"]),
            "created_at": created_at,
            "tenant_id": values["tenant_id"],
            "status": WorkOrderStatus.PENDING,
            "priority": Priority(values["priority"]),
            "workflow_id": values["workflow_id"],
            "created_by": values["created_by"],
            "metadata": details,
            "idempotency_key": values["key"],
            "unique_key": unique_key,
            "open_items": len(documents),
            "failed_items": 0,
            "cancelled_at": None,
            "retry_policy": None if retry_policy is None else orjson.loads(values["retry_policy"]),
            "updated_at": created_at,
        }
        return stored_instance(WorkOrder, row)

    def submit_statement(
        self,
        items: Iterable[NewItem | Mapping[str, Any]],
        *,
        driver: DriverLabel,
        priority: Priority | PriorityLabel = Priority.MEDIUM,
        workflow_id: UUID | str | None = None,
        created_by: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        available_at: datetime | None = None,
        max_attempts: int = 5,
        retry_policy: RetryPolicy | Mapping[str, float] | None = None,
        unique_key: str | None = None,
    ) -> SubmitStatement:
        """Return the statement that does what `submit` does, to execute it in a transaction of another driver.

        It returns the id of the order: the new one, or the one that has a key. Executed again, it stores nothing again.
        It raises SQLSTATE 55000 if the active schemas have changed since this call, and 23505 if the idempotency key
        was used before, with other items.

        Args:
            items: As for `submit`.
            driver: The driver: `psycopg` (3, and psycopg2), `asyncpg`, `sqlalchemy` (for its `text`), or `django`.
            priority: As for `submit`.
            workflow_id: As for `submit`.
            created_by: As for `submit`.
            metadata: As for `submit`.
            idempotency_key: As for `submit`.
            available_at: As for `submit`.
            max_attempts: As for `submit`.
            retry_policy: As for `submit`.
            unique_key: As for `submit`.

        Raises:
            InvalidInput: There are no items, an item cannot be stored, or an argument is out of its bounds.
            InvalidDocument: A content does not match the active schemas for its type.
        """
        sql = _SUBMITS[as_choice(driver, _SUBMITS, "driver")]
        documents, values = new_order(
            items,
            priority=priority,
            workflow_id=workflow_id,
            created_by=created_by,
            metadata=metadata,
            idempotency_key=idempotency_key,
            available_at=available_at,
            max_attempts=max_attempts,
            retry_policy=retry_policy,
            unique_key=unique_key,
        )
        types = frozenset(kind for kind, _ in documents)
        active = self._definitions.active(types)
        try:
            active.check(documents)
        except InvalidDocument:
            if not self._by_key(values):
                raise
        given = orjson.dumps({**values, "document_types": [*types], "stamps": active.stamps}).decode()
        return SubmitStatement(sql, {"given": given} if driver == "sqlalchemy" else (given,))

    def cancel(self, order_id: UUID | str) -> set[UUID]:
        """Cancel an order: its open items fail at once, without dead letters, and the order fails with them.

        Workers lose the items that they are working on: `heartbeat` no longer returns them, and later results are
        refused. A cancelled order has a `cancelled_at`, and its attempts an error that says so. Items that had ended
        stay as they are.

        Args:
            order_id: The order.

        Returns:
            The ids of the items that were cancelled; empty if none were open.

        Raises:
            NotFound: The order does not exist, or is another tenant's.
        """
        values = {"order_id": str(as_uuid(order_id, "order_id")), "error": "the order was cancelled"}
        rows = self._cancelled("lock_open", "cancel", values)
        if not rows:
            raise NotFound(f"order_id: there is no work order {order_id}")
        return {item_id for (item_id,) in rows if item_id is not None}

    def cancel_item(self, item_id: UUID | str) -> bool:
        """Cancel one item: it fails at once, without a dead letter, and its order goes on with the others.

        A worker loses the item as with `cancel`. The item has a `cancelled_at`, and counts as failed in its order.

        Args:
            item_id: The item. It may be queued, held by a worker, or waiting for a decision.

        Returns:
            Whether this call cancelled it; False if it had ended.

        Raises:
            NotFound: The item does not exist, or is another tenant's.
        """
        values = {"item_id": str(as_uuid(item_id, "item_id")), "error": "the item was cancelled"}
        rows = self._cancelled("lock_item", "cancel_item", values)
        if not rows:
            raise NotFound(f"item_id: there is no work item {item_id}")
        return rows != [(None,)]

    def wait(self, order_id: UUID | str, timeout: float = 60.0) -> WorkOrder:
        """Wait until an order has ended, and return it.

        This polls about twice a second and holds no connection in between, so any number of callers can wait.

        Args:
            order_id: The order.
            timeout: How many seconds to wait at most; by default 60.

        Returns:
            The order, COMPLETED or FAILED.

        Raises:
            NotFound: The order does not exist, is another tenant's, or was deleted while waiting.
            WaitTimeout: The order is still open after that time.
            InvalidInput: A transaction is open. Nobody else could work on items that it has not committed.
        """
        deadline = time.monotonic() + as_seconds(timeout, "timeout")
        if self._db.transaction_open():
            raise InvalidInput("wait: commit first; nobody else can work on items that are not committed")
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

        Args:
            order_id: The order.

        Raises:
            NotFound: The order does not exist, or is another tenant's.
        """
        return self._find(WorkOrder, order_id, "order_id")

    def items(self, order_id: UUID | str) -> list[WorkItem]:
        """Return the items of an order, in submission order.

        Args:
            order_id: The order.

        Raises:
            NotFound: The order does not exist, or is another tenant's.
        """
        of_order = self._select(WorkItem).where(WorkItem.work_order == self.get(order_id).id)
        return [*of_order.order_by(WorkItem.created_at, WorkItem.id)]

    def search(self, q: str, *, limit: int = 100, match: Literal["web", "any", "phrase"] = "web") -> list[WorkItem]:
        """Return the items whose content matches a query as people type it, newest first.

        It is exact at every moment: items are found from the moment of their commit, whether they are queued, in
        progress or ended. The query is read as by `memory.search_text`.

        Args:
            q: The query; only the first 32 words and 2,000 characters count. A query without words finds nothing.
            limit: Most items to return (1 to 100,000).
            match: `web` finds items with all the words, and understands `"a phrase"`, `or` and `-excluded`; `any`
                finds items with any of the words, `phrase` those with the words in a row.

        Returns:
            The items, of all orders.

            The time grows with the items that have ended and match, and with all those that have not ended or are not
            indexed yet (`stats` counts them): their contents are read, 0.1 ms for each KB. In phrases, identifiers and
            text in scripts without blanks between words only the first 16,383 words of a content count.

        Raises:
            InvalidInput: An argument is out of its bounds, or `q` contains a NUL character.
        """
        query = typed(q, match, MATCHES[:3])
        values = {**query.parameters, "tenant": current_tenant(), "limit": as_count(limit, "limit")}
        statement = _sql("search").format(query=query.every)
        rows = self._db.execute_tuned(_SEARCHING, statement, values)
        names = [column.name for column in rows.description]
        return [stored_row(WorkItem, dict(zip(names, row, strict=True))) for row in rows]

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
        """Claim up to n items, urgent ones first, then the oldest. No two claims hold the same item at the same time.

        A claim may miss items for a few seconds that other processes released, or stored with a time in the past.

        Args:
            agent_id: The name of the worker.
            n: Most items to claim (1 to 1000).
            types: Only items of these types; by default all types that this version knows.
            tenants: Only items of these tenants. If a tenant is in force, only its items are claimed in any case.
            lease: Seconds until other workers may take the items over, unless `heartbeat` extends the lease.
            fair: Share the batch among all tenants with ready items, regardless of priority: each gets n divided by
                their number before any gets more. Which tenants go first is drawn at random each time.

        Returns:
            The claims, in the order to work on them; empty if no item is ready.

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        return read_claims(self._claimed(_sql("claim"), wish(agent_id, n, types, tenants, lease, fair=fair)))

    def heartbeat(self, claims: Iterable[Claim], lease: float = 60.0) -> set[UUID]:
        """Extend the leases of claims that still hold their items; the others become `cancelled`.

        Args:
            claims: Claims that `claim` returned.
            lease: The new lease, in seconds from now.

        Returns:
            The ids of the items that are still held. This worker has lost the others.

        Raises:
            InvalidInput: An argument is not a claim, an item comes twice, or the lease is out of its bounds.
        """
        held = as_claims(claims)
        values = {
            "attempt_ids": uuid_array(claim.attempt_id for claim in held),
            "lease": as_seconds(lease, "lease", least=SHORTEST_LEASE),
        }
        kept = {item_id for (item_id,) in self._rows(_sql("heartbeat"), values)}
        give_up(claim for claim in held if claim.item_id not in kept)
        return kept

    def progress(self, claim: Claim, percent: int, message: str | None = None) -> bool:
        """Store how far the work on a claim is, in its `Attempt`, where others can read it.

        Inside a transaction, others see it after the commit only.

        Args:
            claim: A claim that `claim` returned. It becomes `cancelled` if it no longer holds its item.
            percent: How much is done, a whole number from 0 to 100.
            message: What is being done, by default nothing. It replaces the previous message.

        Returns:
            Whether the claim still holds its item. If not, nothing was stored.

        Raises:
            InvalidInput: An argument is not a claim, or is out of its bounds.
        """
        (held,) = as_claims([claim])
        values = {
            "attempt_id": str(held.attempt_id),
            "percent": as_count(percent, "percent", least=0, most=100),
            "message": as_text(message, "message"),
        }
        if self._rows(_sql("progress"), values):
            return True
        give_up([held])
        return False

    def finish(self, claims: Iterable[Claim], results: Sequence[Any], *, gate: bool = False) -> set[UUID]:
        """Store the results and complete those items that these claims still hold.

        The call can be repeated if its reply was lost: finishing again with the same claims is accepted and changes
        nothing, not even the result. It is refused if `gate` differs.

        Args:
            claims: Claims that `claim` returned.
            results: One JSON value for each claim, 4 MiB at most each.
            gate: Whether to park the items until `approvals.decide` instead of completing them.

        Returns:
            The ids of the items that were accepted.

        Raises:
            InvalidInput: The numbers of claims and results differ, or a result is not JSON; nothing was written.
            LeaseLost: Inside the caller's transaction, if a claim no longer holds its item; none was accepted.
        """
        held, values = _finished(claims, results, gate=gate)
        return self._finish(held, values)

    def finish_and_claim(
        self,
        claims: Iterable[Claim],
        results: Sequence[Any],
        agent_id: str,
        n: int = 1,
        *,
        gate: bool = False,
        types: Iterable[WorkItemType | str] | None = None,
        tenants: Iterable[str] | None = None,
        lease: float = 60.0,
        fair: bool = False,
    ) -> tuple[set[UUID], list[Claim]]:
        """Do what `finish` and then `claim` do, in one transaction and one round trip.

        After `AmbiguousCommit` (the reply was lost) call `finish` again. The items that this call claimed, if any, come
        back when their lease ends.

        Args:
            claims: Claims that `claim` returned; none are accepted, too.
            results: One JSON value for each claim, 4 MiB at most each.
            agent_id: The name of the worker.
            n: Most items to claim (1 to 1000).
            gate: As for `finish`.
            types: As for `claim`.
            tenants: As for `claim`.
            lease: As for `claim`.
            fair: As for `claim`.

        Returns:
            The ids of the finished items that were accepted, and the new claims.

        Raises:
            InvalidInput: An argument is out of its bounds, or a result is not JSON; nothing was written.
            LeaseLost: Inside the caller's transaction, if a claim no longer holds its item; none was accepted, and
                nothing claimed.
        """
        held, values = _finished(claims, results, gate=gate)
        wanted = wish(agent_id, n, types, tenants, lease, fair=fair)
        if not held or self._db.transaction_open():
            return self._finish(held, values), read_claims(self._claimed(_sql("claim"), wanted))
        wanted |= {**values, "held_attempt_ids": values["attempt_ids"], "attempt_ids": wanted["attempt_ids"]}
        rows = self._claimed(_sql("finish_and_claim"), wanted, skip=1)
        refused = rows[0][0]
        claimed = read_claims([row[1:] for row in rows if row[1] is not None])
        return self._finish(held, values, refused=refused), claimed

    def fail(
        self,
        claims: Iterable[Claim],
        errors: Sequence[BaseException | str],
        *,
        retry: bool = True,
        delay: float | None = None,
    ) -> dict[UUID, Outcome]:
        """End failed attempts: queue the items again, or make dead letters of those without tries left.

        The call can be repeated if its reply was lost: until the items are claimed again, failing them again with the
        same claims and errors is accepted and changes nothing.

        Args:
            claims: Claims that `claim` returned.
            errors: One exception or message for each claim, in their order. They are stored as text, cut at 10,000
                characters.
            retry: False to fail the items for good at once.
            delay: Seconds until the items can be claimed again; by default 2 ** tries, an hour at most, each multiplied
                by a random number from 0.5 to 1.5, so that items that failed together do not return together.

        Returns:
            The outcome of each item that was accepted.

        Raises:
            InvalidInput: The numbers of claims and errors differ.
            LeaseLost: Inside the caller's transaction, if a claim no longer holds its item; none was accepted.
        """
        held = as_claims(claims)
        whole = self._db.transaction_open()
        told = [error_text(error, f"errors[{n}]") for n, error in enumerate(paired(errors, held, "errors"))]
        options = {
            "retry": as_flag(retry, "retry"),
            "delay": None if delay is None else as_seconds(delay, "delay"),
            "whole": whole,
        }

        def values(batch: Sequence[tuple[Claim, str]]) -> dict[str, Any]:
            claims = [claim for claim, _ in batch]
            letters = new_ids(len(batch))
            return {**fence(claims), "errors": [error for _, error in batch], "letter_ids": letters, **options}

        statement = _sql("fence") + _sql("fail") + _sql("give_up")
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
        """Release items that were not worked on: they return to their places in the queue, and no try is used up.

        The attempts are deleted. The call can be repeated if its reply was lost: releasing again with the same claims
        is accepted while the items are queued.

        Args:
            claims: Claims that `claim` returned.
            delay: Seconds until the items can be claimed again; by default they can be claimed at once.

        Returns:
            The ids of the items that were released.

        Raises:
            InvalidInput: An argument is not a claim, an item comes twice, or the delay is out of its bounds.
            LeaseLost: Inside the caller's transaction, if a claim no longer holds its item; none was released.
        """
        released = self._end(
            _sql("fence") + _sql("release"),
            as_claims(claims),
            {"delay": None if delay is None else as_seconds(delay, "delay")},
        )
        self._horizons.forget()
        return released

    def reap(self, limit: int = 100) -> dict[UUID, Outcome]:
        """Take back items whose lease has expired: queue them again, or make dead letters of those without tries left.

        Args:
            limit: Most items to take back in this call (1 to 1000).

        Returns:
            The outcome of each item that was taken back.

        Raises:
            InvalidInput: The limit is out of its bounds.
        """
        count = as_count(limit, "limit", most=LARGEST_BATCH)
        values = {"limit": count, "letter_ids": new_ids(count), "delay": None}
        return as_outcomes(self._rows(_sql("reap") + _sql("give_up"), values))

    def index(self, limit: int = 1000) -> int:
        """Put items that have ended into the full-text index, those that ended first, in one transaction.

        Workers call it beside `reap`. Until it has, `search` reads the contents of these items one by one. Several
        calls at once share the items. A replay takes its items out of the index again.

        Args:
            limit: Most items to index in this call (1 to 100,000). It ends sooner after a megabyte of contents.

        Returns:
            How many items were indexed; 0 if none is left, except for those that others are writing.

        Raises:
            InvalidInput: The limit is out of its bounds.
        """
        ((indexed,),) = self._rows(_sql("index"), {"limit": as_count(limit, "limit")})
        return int(indexed)

    def handler_role(self) -> str | None:
        """Return the role that `Worker` runs handlers under, so that they see the tenant of their claim only.

        Returns:
            The role that tenancy binds, if it is enforced (`myloware-store tenancy enforce`) and does not bind the role
            of this connection; otherwise None.

        Raises:
            SettingsError: This role may not take that one.
        """
        for role, may in self._rows(_sql("handler_role"), {}, reads=True):
            if not may:
                raise SettingsError(
                    f"tenancy is enforced, and handlers run under the role {role}, which this worker may not take: log"
                    " in as the role of workers, which `myloware-store roles --apply` sets up"
                )
            return str(role)
        return None

    def wait_for_work(
        self,
        timeout: float = 30.0,
        *,
        types: Iterable[WorkItemType | str] | None = None,
        tenants: Iterable[str] | None = None,
        listener: Listener | None = None,
        look_every: float | None = None,
    ) -> bool:
        """Wait until there is an item to claim.

        A trigger sends NOTIFY when an item becomes claimable, however it was stored. Items that become available later
        (after a retry's delay, or at `available_at`) end the wait when their time comes.

        Args:
            timeout: How many seconds to wait at most; by default 30.
            types: Only items of these types.
            tenants: Only items of these tenants. If a tenant is in force, only its items count in any case.
            listener: An open `Listener` to use for several calls; by default each call opens a session.
            look_every: Seconds between two polls of the queue, in case a NOTIFY was lost with its session; by default
                5, or 0.25 if it cannot listen (behind PgBouncer).

        Returns:
            Whether there was an item to claim. Another worker may have claimed it since.

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
        """Count open items and recently ended attempts, by tenant and state, and ended items that are not indexed yet.

        Ready items are not counted one by one: they are the open items of the open orders, without those that are
        scheduled, held or parked (one that was moved to PROCESSING by hand, without an attempt, counts as ready). So a
        million ready items in 100,000 orders take some 15 ms, in a million orders some 150 ms, and a million scheduled
        items some 180 ms. Finished work does not slow it down. `unindexed` stops at 10,000.

        Args:
            window: How many seconds back to count ended attempts; by default 60, at most 3,600.

        Returns:
            The counts of each tenant that has any, and their sums; only of the tenant in force, if there is one.

        Raises:
            InvalidInput: The window is out of its bounds.
        """
        seconds = as_seconds(window, "window", least=1.0)
        if seconds > 3600:  # noqa: PLR2004  seconds an hour
            raise InvalidInput(f"window: {seconds:g} is more than an hour of 3600 seconds")
        rows = self._rows(_sql("stats"), {"window": seconds}, reads=True)
        ((unindexed, oldest),) = self._rows(_sql("unindexed"), {}, reads=True)
        return WorkStats(seconds, tuple(TenantStats(*row) for row in rows), unindexed, oldest)

    def metrics(self, window: float = 60.0) -> str:
        """Return the counts of `stats` in Prometheus' text format, version 0.0.4.

        Args:
            window: As for `stats`.

        Raises:
            InvalidInput: The window is out of its bounds.
        """
        return exposition(self.stats(window))

    def recount(self) -> set[UUID]:
        """Correct the counters and the status of orders that do not agree with their items.

        The database counts items as they change, whoever writes them. Orders are miscounted only if somebody turned its
        triggers off (`session_replication_role`), or set the parameter `myloware.counts` by hand. `validate` finds
        them. This reads all items: about half a second for a million.

        Returns:
            The ids of the orders that were corrected.
        """
        return {order_id for (order_id,) in self._rows(_sql("recount"), {})}

    def prune(self, before: datetime, *, batch: int = 1000) -> Pruned:
        """Delete orders that ended before a time, and dead letters that were replayed before it.

        The items, attempts, runs, approvals and evaluations of an order are deleted with it, and so are the memory
        documents of its items. Audit lines stay, and so do orders with a dead letter that was not replayed. Each batch
        is a transaction of its own, so an interrupted call can be resumed by calling again.

        An order with more items than a batch loses them in several transactions, and is deleted with the last ones.
        Until then `get`, `wait` and `items` return it, with the same status and `updated_at` and the items that are
        left; `failed_items` counts those. A replay in between opens the order again, and the rest is kept. Repeating
        its `submit` under its idempotency key is an IdempotencyConflict until it is gone.

        Args:
            before: The time, an aware datetime.
            batch: How many items to delete at most in one transaction (1 to 100,000).

        Returns:
            How many orders, items and letters were deleted.

        Raises:
            InvalidInput: The time is not aware, or a transaction is open, which would hold all batches together.
        """
        if self._db.transaction_open():
            raise InvalidInput("prune: commit first; each batch is a transaction of its own")
        before = as_instant(before, "before")
        items = as_count(batch, "batch")
        pruned = Pruned(orders=0, items=0, dead_letters=0)
        for (tenant,) in self._rows(_sql("tenants"), {}, reads=True):
            for status in (WorkOrderStatus.FAILED, WorkOrderStatus.COMPLETED):
                pruned += self._prune_orders(tenant, status, before, items)
            values = {"tenant_id": tenant, "before": before, "items": items}
            while letters := len(self._rows(_sql("prune_letters"), values)):
                pruned += Pruned(orders=0, items=0, dead_letters=letters)
        return pruned

    def _store_checked(self, documents: list[tuple[str, str]], values: dict[str, Any]) -> tuple[Any, Any] | None:
        """Store documents that match the active schemas; return the time and the metadata as stored.

        None if the key was used before.

        They are checked against the schemas that were active when this store last asked. The statement that stores them
        checks that these are still active, so no other query is needed until an activation.
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
                if len(documents) < _COPIED:
                    ((holds, created_at, metadata),) = self._rows(_sql("submit"), given, prepared=True)
                else:
                    holds, created_at, metadata = self._db.transact(partial(self._copy, documents, given))
                if holds:
                    return None if created_at is None else (created_at, metadata)
            active, asked = self._definitions.active(types), True
            self._active[types] = active

    def _copy(self, documents: list[tuple[str, str]], given: dict[str, Any]) -> tuple[Any, ...]:
        """Store an order as the statement `submit` does, and its items by COPY; inside a transaction."""
        (row,) = self._rows(_sql("submit"), {**given, "types": "{}", "contents": "{}"})
        if row[1] is not None:
            self._rows(_sql("count"), {"counts": "0"})
            self._db.copy(_sql("copy_items"), copied_items(documents, {**given, "created_at": row[1]}))
            self._rows(_sql("count"), {"counts": ""})
        return row

    def _cancelled(self, lock: str, cancel: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return the items that were cancelled; one row of None if none was open, no row if there is nothing."""

        def end() -> list[tuple[Any, ...]]:
            # Lock the items first, as everywhere; the next statement sees all changes made before they were locked.
            self._rows(_sql(lock), values)
            return self._rows(_sql(cancel) + _sql("stop"), values)

        return self._db.transact(end)

    def _by_key(self, values: dict[str, Any]) -> WorkOrder | None:
        if values["key"] is None:
            return None
        named = (WorkOrder.tenant_id == values["tenant_id"], WorkOrder.idempotency_key == values["key"])
        return self._select(WorkOrder).where(*named).first()

    def _first_order(self, documents: list[tuple[str, str]], values: dict[str, Any]) -> WorkOrder | None:
        """Return the order that has one of these keys; None if it was open, and has ended meanwhile."""
        tenant, key, unique_key = values["tenant_id"], values["key"], values["unique_key"]
        order = self._by_key(values)
        if order is None and unique_key is not None:
            same = (WorkOrder.tenant_id == tenant, WorkOrder.unique_key == unique_key, WorkOrder.status.in_(_OPEN))
            return self._select(WorkOrder).where(*same).first()
        if order is None:
            raise IdempotencyConflict(f"the key {key!r} is being used by a transaction that this one cannot see")
        items = self._select(WorkItem, WorkItem.type, WorkItem.content)
        stored = items.where(WorkItem.work_order == order).tuples()
        if sorted((str(kind), content) for kind, content in stored) != sorted(documents):
            raise IdempotencyConflict(f"the key {key!r} was used before, with other items, for order {order.id}")
        return order

    def _claimed(self, statement: str, values: dict[str, Any], *, skip: int = 0) -> list[tuple[Any, ...]]:
        """Claim from where the last claim of this kind ended; a fair claim, from the front of the queue.

        Args:
            statement: The statement.
            values: Its parameters.
            skip: The number of its columns before those of the claims.
        """
        kind = None if values["fair"] else (str(values["types"]), str(values["tenants"]))
        horizon = Horizon() if kind is None else self._horizons.get(kind)
        begin = time.monotonic()
        given = {**values, **horizon.as_parameters(), "mending": self._db.transaction_open()}
        try:
            rows = self._rows(statement, given, prepared=True)
        except ConstraintViolation:
            # Rows that were written by hand. Mending them costs a subtransaction, which is not begun for every claim.
            rows = self._rows(statement, {**given, "mending": True})
        # A rollback makes items claimable again, so a claim inside a transaction moves no horizon.
        if kind is not None and rows and rows[-1][skip] is not None and not self._db.transaction_open():
            item_id, *_, expires, priority, available_at = rows[-1][skip:]
            self._horizons.move(
                kind,
                horizon,
                (priority, (available_at, item_id)),
                full=len(rows) == values["n"],
                now=datetime.fromisoformat(expires) - timedelta(seconds=values["lease"]),
                seconds=time.monotonic() - begin,
            )
        return rows

    def _finish(self, held: Sequence[Claim], values: dict[str, Any], *, refused: list[UUID] | None = None) -> set[UUID]:
        """Finish items, and return those that were accepted.

        Args:
            held: The claims, in the order of their items' ids.
            values: The parameters.
            refused: The items that a first call refused.
        """
        whole = self._db.transaction_open()
        if refused is None:
            ((refused,),) = self._rows(_sql("finish"), {**values, "whole": whole}, prepared=True)
        if refused:
            # An earlier call that was still running may have finished some of them since this one began.
            ((refused,),) = self._rows(_sql("finish"), {**values, "whole": whole}, prepared=True)
        accepted = {claim.item_id for claim in held}.difference(refused or ())
        _refuse_lost(held, accepted, whole=whole)
        return accepted

    def _end(self, statement: str, held: Sequence[Claim], values: dict[str, Any]) -> set[UUID]:
        """Run a repeatable statement, and return the items that it accepted.

        Args:
            statement: The statement. It accepts claims again that an earlier call accepted; in the caller's transaction
                it accepts all claims or none.
            held: The claims.
            values: More parameters.
        """
        whole = self._db.transaction_open()
        given = {**fence(held), **values, "whole": whole}
        accepted = {item_id for (item_id,) in self._rows(statement, given)}
        if len(accepted) < len(held):
            # An earlier call that was still running may have ended some of them since this one began.
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
        """Return the seconds until the first item can be claimed; infinity if none is queued."""
        if values["tenants"] is not None:
            statement = _sql("due_by_tenant")
        else:
            statement = _sql("due") if values["types"] is None else _sql("due_by_type")
        ((seconds,),) = self._rows(statement, values, reads=True)
        return float("inf") if seconds is None else float(seconds)

    def _prune_orders(self, tenant: str, status: WorkOrderStatus, before: datetime, items: int) -> Pruned:
        pruned = Pruned(orders=0, items=0, dead_letters=0)
        after: tuple[datetime, UUID] | None = _FIRST
        begun: UUID | None = None
        while after:
            values = {
                "tenant_id": tenant,
                "status": status.value,
                "before": before,
                "after_time": after[0],
                "after_id": str(after[1]),
                "begun": None if begun is None else str(begun),
                "orders": min(items, _MOST_ORDERS),
                "items": items,
            }
            stay, after, begun = after, None, None
            for created_at, order_id, orders, gone, ended_at in self._db.transact(partial(self._prune_batch, values)):
                after, begun = ((created_at, order_id), None) if ended_at is None else (stay, order_id)
                pruned += Pruned(orders=orders, items=gone, dead_letters=0)
        return pruned

    def _prune_batch(self, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        rows = self._rows(_sql("prune_orders"), values)
        for _, order_id, *_, ended_at in rows:
            if ended_at is not None:  # the order has more items
                self._execute(_sql("prune_on"), {"order_id": str(order_id), "ended_at": ended_at})
        return rows


def _finished(claims: Iterable[Claim], results: Sequence[Any], *, gate: bool) -> tuple[list[Claim], dict[str, Any]]:
    """Check claims and their results; return the claims, in the order of their items' ids, and the parameters."""
    given = as_claims(claims)
    outputs = [dump_json(result, f"results[{n}]") for n, result in enumerate(paired(results, given, "results"))]
    if len(given) > 1:
        order = sorted(range(len(given)), key=lambda n: given[n].item_id.int)
        given, outputs = [given[n] for n in order], [outputs[n] for n in order]
    return given, {**fence(given), "outputs": f"[{','.join(outputs)}]", "gate": as_flag(gate, "gate")}


def _refuse_lost(claims: Sequence[Claim], accepted: set[UUID], *, whole: bool) -> None:
    """Raise LeaseLost if a batch must be accepted as a whole and some claims no longer hold their items.

    Batches inside the caller's transaction are accepted as a whole, so that related changes are stored together.
    """
    lost = {claim.item_id for claim in claims} - accepted
    if lost and whole:
        raise LeaseLost(
            "these claims no longer hold their items (the lease expired, the attempt has ended, or the item was"
            " cancelled); discard their results, another worker may have the items:"
            f" {', '.join(sorted(map(str, lost)))}"
        )


def _open(order: WorkOrder, database: StoreDatabase) -> str:
    # Index: work_items_work_order_status_type_idx.
    waiting = order.items.bind(database).where(WorkItem.awaiting_approval).count()
    told = f"{order.open_items} open item{'' if order.open_items == 1 else 's'}"
    return f"{told}, {waiting} of which await{'s' if waiting == 1 else ''} approval," if waiting else told

"""Whatever is done to the work, in whichever order and on whichever connection, the books balance after every step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from myloware_store import ApprovalDecision, Attempt, Claim, DeadLetter, NotAwaitingApproval, WorkItem, WorkOrder
from myloware_store.core.errors import ConstraintViolation, StoreError
from myloware_store.ops.validate import validate
from tests.conftest import LONG, ROUNDS

if TYPE_CHECKING:
    from myloware_store import Store

# One row a broken promise, with its name and where.
BROKEN = """
WITH counted AS (
    SELECT o.id, o.status, o.open_items, o.failed_items, count(i.id) AS items,
        count(i.id) FILTER (WHERE i.status IN ('QUEUED', 'PROCESSING')) AS open,
        count(i.id) FILTER (WHERE i.status = 'FAILED') AS failed,
        count(i.id) FILTER (WHERE i.status = 'COMPLETED') AS completed,
        count(i.id) FILTER (WHERE i.attempt_count > 0) AS touched
    FROM work_orders AS o LEFT JOIN work_items AS i ON i.work_order_id = o.id GROUP BY o.id
),
tries AS (
    SELECT i.id, i.status, i.attempt_count, i.max_attempts, i.awaiting_approval, i.current_attempt_id,
        count(a.id) AS attempts, count(a.id) FILTER (WHERE a.status = 'STARTED') AS started,
        count(a.id) FILTER (WHERE a.status = 'COMPLETED') AS succeeded,
        count(a.id) FILTER (WHERE a.id = i.current_attempt_id AND a.status = 'STARTED') AS holding
    FROM work_items AS i LEFT JOIN attempts AS a ON a.work_item_id = i.id GROUP BY i.id
)
SELECT 'items = terminal + open', id FROM counted WHERE items <> open + failed + completed
UNION ALL SELECT 'the counters of an order', id FROM counted WHERE (open_items, failed_items) <> (open, failed)
UNION ALL SELECT 'the status of an order', id FROM counted
    WHERE CASE status WHEN 'PENDING' THEN touched > 0 OR open = 0 WHEN 'PROCESSING' THEN open = 0
        WHEN 'COMPLETED' THEN open + failed > 0 ELSE open > 0 OR failed = 0 END
UNION ALL SELECT 'attempt_count = attempts', id FROM tries WHERE attempt_count <> attempts OR attempts > max_attempts
UNION ALL SELECT 'one attempt holds an item that is worked on', id FROM tries
    WHERE started <> CASE WHEN status = 'PROCESSING' AND NOT awaiting_approval THEN 1 ELSE 0 END OR started <> holding
UNION ALL SELECT 'an item is completed by one attempt', id FROM tries
    WHERE status = 'COMPLETED' AND succeeded = 0
UNION ALL SELECT 'a cancelled item stays as it is', id FROM work_items
    WHERE cancelled_at IS NOT NULL AND (status <> 'FAILED' OR cancelled_at <> processed_at)
UNION ALL SELECT 'a failed item can be replayed, was cancelled or was rejected', w.id FROM work_items AS w
    WHERE w.status = 'FAILED' AND w.cancelled_at IS NULL
        AND NOT EXISTS (SELECT FROM dead_letters WHERE work_item_id = w.id AND replayed_at IS NULL)
        AND NOT EXISTS (SELECT FROM approval_events WHERE work_item_id = w.id AND decision = 'REJECTED')
UNION ALL SELECT 'a letter is of an item that has failed', w.id FROM work_items AS w
    JOIN dead_letters AS d ON d.work_item_id = w.id AND d.replayed_at IS NULL WHERE w.status <> 'FAILED'
"""

# The same for work that is also moved by hand: an item may be completed or under way without an attempt.
BROKEN_BY_HAND = """
WITH counted AS (
    SELECT o.id, o.status, o.open_items, o.failed_items, count(i.id) AS items,
        count(i.id) FILTER (WHERE i.status IN ('QUEUED', 'PROCESSING')) AS open,
        count(i.id) FILTER (WHERE i.status = 'PROCESSING') AS under_way,
        count(i.id) FILTER (WHERE i.status = 'FAILED') AS failed
    FROM work_orders AS o LEFT JOIN work_items AS i ON i.work_order_id = o.id GROUP BY o.id
),
tries AS (
    SELECT i.id, i.status, i.attempt_count, i.awaiting_approval, count(a.id) AS attempts,
        count(a.id) FILTER (WHERE a.status = 'STARTED') AS started
    FROM work_items AS i LEFT JOIN attempts AS a ON a.work_item_id = i.id GROUP BY i.id
)
SELECT 'the counters of an order', id FROM counted WHERE (open_items, failed_items) <> (open, failed)
UNION ALL SELECT 'the status of an order', id FROM counted
    WHERE items > 0 AND CASE status WHEN 'PENDING' THEN under_way > 0 OR open = 0 WHEN 'PROCESSING' THEN open = 0
        WHEN 'COMPLETED' THEN open + failed > 0 ELSE open > 0 OR failed = 0 END
UNION ALL SELECT 'attempt_count = attempts', id FROM tries WHERE attempt_count <> attempts
UNION ALL SELECT 'no attempt holds an item that is not worked on', id FROM tries
    WHERE started > CASE WHEN status = 'PROCESSING' AND NOT awaiting_approval THEN 1 ELSE 0 END
UNION ALL SELECT 'what failed has a cause', i.id FROM work_items AS i WHERE i.status = 'FAILED'
    AND NOT EXISTS (SELECT FROM dead_letters WHERE work_item_id = i.id AND replayed_at IS NULL)
    AND NOT EXISTS (SELECT FROM approval_events WHERE work_item_id = i.id AND decision = 'REJECTED')
    AND i.cancelled_at IS DISTINCT FROM i.processed_at
UNION ALL SELECT 'a letter is of an item that has failed', w.id FROM work_items AS w
    JOIN dead_letters AS d ON d.work_item_id = w.id AND d.replayed_at IS NULL WHERE w.status <> 'FAILED'
UNION ALL SELECT 'miscounted: ' || stored, order_id FROM miscounted_work_orders(NULL)
UNION ALL SELECT 'a leftover', NULL WHERE current_setting('myloware.counts', true) <> ''
"""
# Items, and orders of the same tenant, in an order of their own.
TO_ANOTHER_ORDER = """
UPDATE work_items AS w SET work_order_id = o.id
FROM (SELECT id, tenant_id FROM work_orders ORDER BY md5(id::text || %(number)s) LIMIT 1) AS o
WHERE w.tenant_id = o.tenant_id AND w.id = ANY (%(items)s::uuid[])
"""
IMPORT = """
INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at)
SELECT tenant_id, id, 'INVOICE', 'x', %(status)s, CASE %(status)s WHEN 'COMPLETED' THEN now() END
FROM work_orders ORDER BY md5(id::text || %(number)s) LIMIT 2
"""
BY_HAND = [
    TO_ANOTHER_ORDER,
    IMPORT,
    "DELETE FROM work_items WHERE id = ANY (%(items)s::uuid[])",
    "UPDATE work_items SET status = 'QUEUED' WHERE status = 'PROCESSING' AND NOT awaiting_approval",
    "UPDATE work_items SET priority = 'URGENT', available_at = now() WHERE id = ANY (%(items)s::uuid[])",
    "UPDATE work_orders SET cancelled_at = now() WHERE id = %(order)s AND cancelled_at IS NULL AND open_items > 0",
    "DELETE FROM work_orders WHERE id = %(order)s AND cancelled_at IS NULL",
]
REFUSED_BY_HAND = [
    "UPDATE work_orders SET open_items = open_items + 1 WHERE id = %(order)s",
    "UPDATE work_orders SET failed_items = failed_items + 1 WHERE id = %(order)s",
    """
    INSERT INTO attempts (tenant_id, work_item_id, agent_id, attempt_number)
    SELECT tenant_id, work_item_id, 'x', 99 FROM attempts WHERE status = 'STARTED'
    """,
    "UPDATE attempts SET status = 'STARTED', finished_at = NULL WHERE status <> 'STARTED'",
    "UPDATE work_items SET status = 'PROCESSING', processed_at = NULL WHERE status IN ('COMPLETED', 'FAILED')",
]

which = st.integers(min_value=0, max_value=5)


class Ledger(RuleBasedStateMachine):
    """Random operations on several connections, of which some are made twice at once."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.workers = ThreadPoolExecutor(3)
        self.claims: list[Claim] = []

    def at_once(self, *calls: Callable[[], Any]) -> list[Any]:
        """Make the calls at the same time, each on a connection of its own."""
        return [future.result() for future in [self.workers.submit(call) for call in calls]]

    def some(self, number: int) -> list[Claim]:
        """Choose one or two of the last claims, in force or not."""
        latest = self.claims[-6:]
        first = number % max(len(latest), 1)
        return list({claim.item_id: claim for claim in latest[first : first + 2]}.values())

    @rule(count=st.integers(1, 4), tries=st.integers(1, 3), tenant=st.sampled_from(["acme", "globex"]))
    def submit(self, count: int, tries: int, tenant: str) -> None:
        """Submit an order."""
        with self.store.tenant(tenant):
            self.store.work.submit([{"type": "TICKET", "content": "x"}] * count, max_attempts=tries)

    @rule(count=st.integers(1, 3), fair=st.booleans(), tenants=st.sampled_from([None, ["acme"], ["acme", "globex"]]))
    def claim(self, count: int, fair: bool, tenants: list[str] | None) -> None:  # noqa: FBT001
        """Claim on two connections: nobody gets what the other one has."""
        claim = self.store.work.claim
        taken = self.at_once(*[lambda: claim("agent", count, fair=fair, tenants=tenants)] * 2)
        new = [each for part in taken for each in part]
        assert len(new) == len({each.item_id for each in new})
        self.claims += new

    @rule(number=which, gate=st.booleans())
    def finish_twice(self, number: int, gate: bool) -> None:  # noqa: FBT001
        """Finish the same claims twice at once: both hear the same."""
        claims = self.some(number)
        finish = self.store.work.finish
        first, second = self.at_once(*[lambda: finish(claims, [1] * len(claims), gate=gate)] * 2)
        assert first == second

    @rule(number=which, retry=st.booleans())
    def fail_or_finish(self, number: int, retry: bool) -> None:  # noqa: FBT001
        """Fail and finish the same claims at once: an item that was held goes one way."""
        claims = self.some(number)
        errors = ["no luck"] * len(claims)
        self.at_once(
            lambda: self.store.work.fail(claims, errors, retry=retry, delay=0),
            lambda: self.store.work.finish(claims, [2] * len(claims)),
        )

    @rule(number=which)
    def release(self, number: int) -> None:
        """Give items back, while another call extends their leases."""
        claims = self.some(number)
        self.at_once(lambda: self.store.work.release(claims), lambda: self.store.work.heartbeat(claims))

    @rule(number=which)
    def reap(self, number: int) -> None:
        """Let leases run out, and take the items back twice at once, while their workers finish them."""
        claims = self.some(number)
        past = datetime.now(UTC) - timedelta(minutes=1)
        given = [claim.attempt_id for claim in claims]
        held = (Attempt.id << given) & (Attempt.status == "STARTED")
        late = {attempt.work_item_id for attempt in Attempt.select().where(held)}
        Attempt.update(lease_expires_at=past).where(held).execute()
        accepted, first, second = self.at_once(
            lambda: self.store.work.finish(claims, [3] * len(claims)), self.store.work.reap, self.store.work.reap
        )
        assert late == {*first, *second}
        assert not late & accepted
        assert not first.keys() & second.keys()
        WorkItem.update(available_at=past).where(WorkItem.status == "QUEUED").execute()

    @rule(number=which, count=st.integers(1, 2))
    def cancel(self, number: int, count: int) -> None:
        """Cancel an order, while its items are claimed."""
        for order in WorkOrder.select().order_by(WorkOrder.id).offset(number % 7).limit(1):
            work, order_id = self.store.work, order.id
            self.claims += self.at_once(partial(work.cancel, order_id), partial(work.claim, "agent", count))[1]

    @rule(number=which)
    def cancel_item(self, number: int) -> None:
        """Cancel an item twice at once, while its worker finishes it and others claim: one call says that it did."""
        for item in WorkItem.select().order_by(WorkItem.id.desc()).offset(number).limit(1):
            claims = [claim for claim in self.claims if claim.item_id == item.id][-1:]
            cancel = partial(self.store.work.cancel_item, item.id)
            first, second, finished, new = self.at_once(
                cancel,
                cancel,
                lambda: self.store.work.finish(claims, [4] * len(claims)),  # noqa: B023  done before the next item
                partial(self.store.work.claim, "agent", 1),
            )
            self.claims += new
            cancelled = WorkItem.get_by_id(item.id).cancelled_at is not None
            assert not (first and second)
            assert not ((first or second) and finished)
            assert not (first or second) or cancelled

    @rule(number=which)
    def replay(self, number: int) -> None:
        """Press the button three times at once: each letter is replayed once."""
        letters = [letter.id for letter in self.store.dead_letters.list()][number % 3 :]
        replay = self.store.dead_letters.replay
        told = self.at_once(*[lambda: replay(letters, by="kim", extra_attempts=1)] * 3)
        assert len(letters) == sum(len(part) for part in told)
        assert set(letters) == set().union(*told)

    @rule(decision=st.sampled_from(ApprovalDecision))
    def decide(self, decision: ApprovalDecision) -> None:
        """Decide two ways at once: one counts, unless it was passed on."""

        def one(verdict: ApprovalDecision, item: Any) -> bool:
            try:
                self.store.approvals.decide(item, approver_id="kim", decision=verdict, policy_version="1")
            except NotAwaitingApproval:
                return False
            return verdict != "ESCALATED"

        for item in self.store.approvals.pending(limit=1):
            assert 1 == sum(self.at_once(partial(one, decision, item), partial(one, ApprovalDecision.APPROVED, item)))

    @rule()
    def prune(self) -> None:
        """Delete all that is over."""
        self.store.work.prune(datetime.now(UTC) + timedelta(days=1), batch=2)
        assert not WorkOrder.select().where(WorkOrder.status == "COMPLETED").count()

    @invariant()
    def balanced(self) -> None:
        """Hold that no promise is broken."""
        assert [] == self.store.db.execute_sql(BROKEN).fetchall()

    def teardown(self) -> None:
        """Leave nothing to the next run."""
        self.workers.shutdown()
        WorkOrder.delete().execute()
        DeadLetter.delete().execute()


class LedgerByHand(Ledger):
    """The same operations, mixed with what psql and scripts with the models do."""

    def targets(self, number: int) -> dict[str, Any]:
        """Choose one or two items, and an order."""
        items = [item.id for item in WorkItem.select(WorkItem.id).order_by(WorkItem.id)][number::4][: number % 2 + 1]
        orders = [order.id for order in WorkOrder.select(WorkOrder.id).order_by(WorkOrder.id)]
        return {"items": items, "order": orders[number % len(orders)] if orders else None, "number": str(number)}

    @rule(number=which, statement=st.sampled_from(BY_HAND), status=st.sampled_from(["QUEUED", "COMPLETED"]))
    def write_by_hand(self, number: int, statement: str, status: str) -> None:
        """Run a statement in psql."""
        self.store.db.execute_sql(statement, {**self.targets(number), "status": status})

    @rule(number=which, statement=st.sampled_from(REFUSED_BY_HAND))
    def write_in_vain(self, number: int, statement: str) -> None:
        """Run a statement in psql that is refused, unless it finds no row."""
        with suppress(ConstraintViolation):
            assert 0 == self.store.db.execute_sql(statement, self.targets(number)).rowcount

    @rule(number=which, status=st.sampled_from(["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]), model=st.booleans())
    def move_by_hand(self, number: int, status: str, model: bool) -> None:  # noqa: FBT001
        """Move items, by statements or by saving them, while they are finished; moves may be refused."""
        items, claims = self.targets(number)["items"], self.some(number)
        values = {"processed_at": datetime.now(UTC) if status in {"COMPLETED", "FAILED"} else None, "status": status}

        def move() -> None:
            for item in WorkItem.select().where(WorkItem.id << items):
                with suppress(ConstraintViolation):
                    if model:
                        item.__data__.update(values)
                        item.save(only=[*values])
                    else:
                        WorkItem.update(values).where(WorkItem.id == item.id).execute()

        self.at_once(move, partial(self.store.work.finish, claims, [4] * len(claims)))

    @rule(number=which)
    def add_by_models(self, number: int) -> None:
        """Add items to an order, one by one and several at once."""
        for order in WorkOrder.select().where(WorkOrder.id == self.targets(number)["order"]):
            values = {"work_order": order, "tenant_id": order.tenant_id, "type": "TICKET", "content": "x"}
            WorkItem.create(**values)
            WorkItem.insert_many([{**values, "priority": "LOW"}] * 2).execute()

    @rule(number=which)
    def leave_uncounted(self, number: int) -> None:
        """Change items while the session says that it counts itself, and counts nothing: a recount corrects it."""
        with self.store.db.unit():
            self.store.db.execute_sql("SET myloware.counts = '0'")
            claims = self.store.work.claim("agent", 2)
            self.store.work.fail(claims, ["no luck"] * len(claims), retry=False)
            self.store.db.execute_sql(IMPORT, {**self.targets(number), "status": "QUEUED"})
            self.store.db.execute_sql("RESET myloware.counts")
        touched = {claim.work_order_id for claim in claims}
        wrong = {row[0] for row in self.store.db.execute_sql("SELECT order_id FROM miscounted_work_orders(NULL)")}
        assert bool(wrong) == WorkOrder.select().exists()
        assert ["order"] * bool(wrong) == [finding.kind for finding in validate(self.store.db).findings]
        assert wrong == self.store.work.recount()
        assert len(wrong - touched) <= 2

    @rule(number=which)
    def call_in_a_transaction(self, number: int) -> None:
        """Make calls in one transaction, of which one is refused and one rolled back: none leaves a message behind."""
        store, claims = self.store, self.some(number)
        left = []

        def look() -> None:
            left.append(store.db.execute_sql("SELECT current_setting('myloware.counts', true)").fetchone()[0])

        def claim_in_vain() -> None:
            store.work.claim("agent", 2)
            store.db.execute_sql("SELECT 1 / 0")

        with store.db.atomic():
            for call in (
                lambda: store.work.finish(claims, [5] * len(claims)),
                claim_in_vain,
                lambda: self.claims.extend(store.work.claim("agent")),
                lambda: store.work.index(2),
                store.work.recount,
            ):
                with suppress(StoreError), store.db.atomic():
                    call()
                look()
        assert {*left} <= {"", None}

    @invariant()
    def balanced(self) -> None:
        """Hold that no promise is broken."""
        assert [] == self.store.db.execute_sql(BROKEN_BY_HAND).fetchall()


@pytest.mark.parametrize("machine", [Ledger, LedgerByHand])
def test_the_ledger_always_balances(myloware: Store, machine: type[Ledger]) -> None:
    """After every step of every run."""

    class Mine(machine):  # type: ignore[misc, valid-type]
        store = myloware

    run_state_machine_as_test(
        Mine,
        settings=settings(
            max_examples=25 * ROUNDS,
            stateful_step_count=25,
            deadline=None,
            derandomize=not LONG,
            database=None,
            phases=[Phase.generate],  # threads are no friends of shrinking
            suppress_health_check=list(HealthCheck),
        ),
    )

"""The work engine on a real database: claims, fences, retries, dead letters."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import attrs
import numpy as np
import pytest

from myloware_store import (
    Attempt,
    AttemptStatus,
    Claim,
    DeadLetter,
    IdempotencyConflict,
    InvalidInput,
    LeaseLost,
    NewItem,
    NotFound,
    Priority,
    WorkItem,
    WorkItemStatus,
    WorkItemType,
    WorkOrder,
    WorkOrderStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
TICKET = {"type": WorkItemType.TICKET, "content": "Ticket 4"}


def expire(store: Store, claim: Claim) -> None:
    """Let the lease of a claim run out now."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    Attempt.update(lease_expires_at=past).where(Attempt.id == claim.attempt_id).execute()


def ledger_balances(store: Store) -> bool:
    """Tell whether every count in the database follows from the rows."""
    sql = """
        SELECT bool_and(balanced) FROM (
            SELECT o.open_items = count(i.id) FILTER (WHERE i.status IN ('QUEUED', 'PROCESSING'))
                AND o.failed_items = count(i.id) FILTER (WHERE i.status = 'FAILED') AS balanced
            FROM work_orders AS o LEFT JOIN work_items AS i ON i.work_order_id = o.id GROUP BY o.id
            UNION ALL
            SELECT i.attempt_count = count(a.id) FROM work_items AS i LEFT JOIN attempts AS a ON a.work_item_id = i.id
            GROUP BY i.id
        ) AS books
    """
    return bool(store.db.execute_sql(sql).fetchone()[0])


def test_an_order_and_its_items_are_stored_together(myloware: Store) -> None:
    """What comes back is what is stored, in the order in which it was given."""
    order = myloware.work.submit(
        [INVOICE, TICKET], priority=Priority.HIGH, created_by="intake", workflow_id="ap", metadata={"batch": 7}
    )
    assert (WorkOrderStatus.PENDING, Priority.HIGH, 2, "default") == (
        order.status,
        order.priority,
        order.open_items,
        order.tenant_id,
    )
    read = myloware.work.get(order.id)
    assert (order.open_items, order.created_at, {"batch": 7}) == (read.open_items, read.created_at, read.metadata)
    stored = [(item.type, item.content, item.priority) for item in myloware.work.items(order.id)]
    assert [("INVOICE", "Invoice 17", Priority.HIGH), ("TICKET", "Ticket 4", Priority.HIGH)] == stored


@pytest.mark.parametrize(
    ("items", "options"),
    [
        ([], {}),
        ([{"type": "INVOICE"}], {}),
        ([{"type": "LETTER", "content": "x"}], {}),
        ([{"type": "INVOICE", "content": ""}], {}),
        ([{"type": "INVOICE", "content": "x", "colour": "red"}], {}),
        ([INVOICE, {"type": "INVOICE", "content": "a\x00"}], {}),
        (["INVOICE"], {}),
        (None, {}),
        ("INVOICE", {}),
        (INVOICE, {}),
        ([INVOICE], {"priority": "SOON"}),
        ([INVOICE], {"metadata": ["no", "object"]}),
        ([INVOICE], {"metadata": {"x": float("inf")}}),
        ([INVOICE], {"max_attempts": 0}),
        ([INVOICE], {"max_attempts": 1.9}),
        ([INVOICE], {"available_at": datetime(2026, 1, 1)}),  # noqa: DTZ001  that is the point
        ([INVOICE], {"available_at": datetime.max.replace(tzinfo=UTC)}),
        ([INVOICE], {"available_at": datetime.min.replace(tzinfo=UTC)}),
        ([{"type": "INVOICE", "content": "x" * 2**20}] * 250, {}),
        ([INVOICE], {"idempotency_key": ""}),
        ([INVOICE], {"created_by": "a" * 300}),
    ],
)
def test_a_bad_order_leaves_nothing(myloware: Store, items: Any, options: dict[str, Any]) -> None:
    """One typed error, which names the argument, before anything is written."""
    with pytest.raises(InvalidInput, match=f"^{next(iter(options), '')}"):
        myloware.work.submit(items, **options)
    assert WorkOrder.select().count() == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"type": "INVOICE", "content": ""}, "content: the text is empty"),
        ({"type": "LETTER", "content": "x"}, "type: 'LETTER' is not one of"),
        ({"type": "INVOICE"}, "it needs a type and a content"),
        ("INVOICE", "str is neither a NewItem nor a mapping"),
        (NewItem("INVOICE", ""), "content: the text is empty"),
        (NewItem("LETTER", "x"), "type: 'LETTER' is not one of"),
        (NewItem("INVOICE", cast("str", 17)), "content: int is not text"),
    ],
)
def test_an_error_says_which_item(myloware: Store, wrong: Any, told: str) -> None:
    """Counted from 0, of a list or a generator; results are told apart likewise."""
    for items in ([INVOICE, INVOICE, wrong], (each for each in (INVOICE, INVOICE, wrong))):
        with pytest.raises(InvalidInput) as refused:
            myloware.work.submit(items)
        assert str(refused.value).startswith(f"items[2]: {told}")
    myloware.work.submit([INVOICE] * 2)
    with pytest.raises(InvalidInput, match=r"^results\[1\]: not JSON"):
        myloware.work.finish(myloware.work.claim("agent", n=2), [1, {1}])


def test_an_error_says_which_claim(myloware: Store) -> None:
    """Or which error, counted from 0; of a single one in place of a list it says how to write it."""
    wrong: Any
    for wrong in (INVOICE, NewItem(**INVOICE)):
        with pytest.raises(InvalidInput, match=r"^items: \w+ is not a list; write \[item\]$"):
            myloware.work.submit(wrong)
    myloware.work.submit([INVOICE])
    (wrong,) = (claim,) = myloware.work.claim("agent")
    with pytest.raises(InvalidInput, match=r"^claims: Claim is not a list; write \[claim\]$"):
        myloware.work.finish(wrong, [1])
    wrong = [claim, claim.item_id]
    with pytest.raises(InvalidInput, match=r"^claims\[1\]: UUID is not a Claim$"):
        myloware.work.finish(wrong, [1, 2])
    wrong = [17]
    with pytest.raises(InvalidInput, match=r"^errors\[0\]: int is neither an exception nor text$"):
        myloware.work.fail([claim], wrong)


def test_an_item_is_a_mapping_or_a_new_item(myloware: Store) -> None:
    """Both are stored alike, and are the same items under one idempotency key."""
    items = [INVOICE, TICKET]
    order = myloware.work.submit([NewItem(**INVOICE), TICKET], idempotency_key="once")
    assert order == myloware.work.submit([NewItem(**item) for item in items], idempotency_key="once")
    assert order == myloware.work.submit(items, idempotency_key="once")
    stored = [(item.type, item.content) for item in myloware.work.items(order.id)]
    assert [(item["type"], item["content"]) for item in items] == stored


def test_a_workflow_is_what_the_caller_calls_it(myloware: Store) -> None:
    """A name, or a template's id, which is stored as text."""
    template = myloware.templates.register("booking", "INVOICE", {"steps": []})
    named, by_id = (myloware.work.submit([INVOICE], workflow_id=given) for given in ("booking", template.id))
    assert ("booking", str(template.id)) == (named.workflow_id, myloware.work.get(by_id.id).workflow_id)


def test_the_same_key_returns_the_first_order(myloware: Store) -> None:
    """However often it is sent; with other items it is a conflict; another tenant has keys of its own."""
    first = myloware.work.submit([INVOICE, TICKET], idempotency_key="mail-1")
    again = myloware.work.submit([INVOICE, TICKET], idempotency_key="mail-1")
    assert first == again
    with pytest.raises(IdempotencyConflict, match="mail-1"):
        myloware.work.submit([INVOICE], idempotency_key="mail-1")
    with pytest.raises(IdempotencyConflict, match="mail-1"):
        myloware.work.submit([INVOICE, {**TICKET, "type": "INVOICE"}], idempotency_key="mail-1")
    with myloware.tenant("globex"):
        assert first != myloware.work.submit([INVOICE], idempotency_key="mail-1")
    assert WorkItem.select().count() == 3


def test_racing_submits_of_one_key_make_one_order(myloware: Store) -> None:
    """Eight threads at once, one order."""
    barrier = threading.Barrier(8)

    def submit(_: int) -> uuid.UUID:
        barrier.wait()
        return myloware.work.submit([INVOICE], idempotency_key="once").id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(submit, range(8)))) == 1
    assert WorkItem.select().count() == 1


ODD = ["a\tb\nc\r\nd", "\\", "\\.", "\\N", '"quoted", {braces}', "ümläut €", "ends with \\", " blank "]


@pytest.mark.parametrize("count", [8, 600])
def test_contents_are_stored_as_they_are(myloware: Store, count: int) -> None:
    """One by one in a literal, or by COPY in a large order."""
    contents = [ODD[n % len(ODD)] + str(n) for n in range(count)]
    order = myloware.work.submit([{"type": "TICKET", "content": text} for text in contents], max_attempts=7)
    stored = myloware.work.items(order.id)
    assert contents == [item.content for item in stored]
    assert {(7, Priority.MEDIUM, order.created_at, order.tenant_id)} == {
        (item.max_attempts, item.priority, item.available_at, item.tenant_id) for item in stored
    }
    assert count == order.open_items == myloware.work.get(order.id).open_items
    assert ledger_balances(myloware)


def test_a_large_order_is_stored_once_or_not_at_all(myloware: Store) -> None:
    """Its key, its time and the caller's transaction count as for a small one, and so do later changes."""
    items = [{"type": "TICKET", "content": str(n)} for n in range(600)]
    later = datetime.now(UTC) + timedelta(hours=1)
    order = myloware.work.submit(items, idempotency_key="large", available_at=later, priority="URGENT")
    assert order.id == myloware.work.submit(items, idempotency_key="large").id
    assert [] == myloware.work.claim("agent")
    with myloware.db.atomic() as transaction:
        myloware.work.submit(items)
        transaction.rollback()
    assert 600 == WorkItem.select().count()
    with myloware.db.atomic():
        myloware.work.submit(items)
        WorkItem.delete().where(WorkItem.content == "7").execute()  # counted by the triggers
    assert ledger_balances(myloware)
    assert {599} == {order.open_items for order in WorkOrder.select()}


def test_the_callers_rollback_leaves_nothing(myloware: Store) -> None:
    """An order submitted inside a transaction goes with it."""
    with myloware.db.atomic() as transaction:
        myloware.work.submit([INVOICE])
        transaction.rollback()
    assert WorkOrder.select().count() == 0


def test_urgent_items_come_first_then_the_oldest(myloware: Store) -> None:
    """The order of a batch is the order in which to work."""
    for priority in (Priority.LOW, Priority.URGENT, Priority.MEDIUM, Priority.URGENT):
        myloware.work.submit([{"type": "TICKET", "content": priority}], priority=priority)
    claims = myloware.work.claim("agent-7", n=10)
    assert ["URGENT", "URGENT", "MEDIUM", "LOW"] == [claim.content for claim in claims]
    assert claims[0].item_id < claims[1].item_id


def test_a_claim_starts_an_attempt(myloware: Store) -> None:
    """The attempt is counted when it starts, holds the lease, and the order is being processed."""
    order = myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent-7", lease=60)
    attempt = Attempt.get()
    assert (claim.attempt_id, "agent-7", AttemptStatus.STARTED, 1) == (
        attempt.id,
        attempt.agent_id,
        attempt.status,
        attempt.attempt_number,
    )
    assert claim.lease_expires_at == attempt.lease_expires_at
    item = WorkItem.get()
    assert (WorkItemStatus.PROCESSING, 1, claim.attempt_id) == (
        item.status,
        item.attempt_count,
        item.current_attempt_id,
    )
    assert myloware.work.get(order.id).status is WorkOrderStatus.PROCESSING
    assert myloware.work.claim("agent-8") == []


def test_claims_can_be_narrowed(myloware: Store) -> None:
    """By type, by tenants, by time and by the tenant in force, which tenants= cannot widen."""
    myloware.work.submit([INVOICE, TICKET])
    myloware.work.submit([INVOICE], available_at=datetime.now(UTC) + timedelta(hours=1))
    with myloware.tenant("globex"):
        myloware.work.submit([TICKET])
        assert myloware.work.claim("a", tenants=["default"]) == []
        assert [claim.tenant_id for claim in myloware.work.claim("a", n=10)] == ["globex"]
    assert [claim.type for claim in myloware.work.claim("a", n=10, types=["TICKET"])] == [WorkItemType.TICKET]
    assert myloware.work.claim("a", n=10, tenants=["globex"]) == []
    assert [claim.content for claim in myloware.work.claim("a", n=10)] == ["Invoice 17"]


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"n": 1001},
        {"n": 1.5},
        {"lease": 0},
        {"lease": float("inf")},
        {"lease": float("nan")},
        {"lease": 10**400},
        {"types": "TICKET"},
        {"types": ["LETTER"]},
        {"types": 5},
        {"tenants": "default"},
        {"tenants": [""]},
    ],
)
def test_bad_arguments_of_a_claim_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """And nothing is claimed."""
    myloware.work.submit([INVOICE])
    with pytest.raises(InvalidInput):
        myloware.work.claim("agent-7", **options)
    assert Attempt.select().count() == 0


def test_no_two_agents_get_the_same_item(myloware: Store) -> None:
    """Eight threads drain two hundred items; each is claimed and finished once."""
    myloware.work.submit([{"type": "TICKET", "content": f"ticket {n}"} for n in range(200)])
    barrier = threading.Barrier(8)

    def drain(agent: int) -> list[uuid.UUID]:
        done: list[uuid.UUID] = []
        barrier.wait()
        while claims := myloware.work.claim(f"agent-{agent}", n=7):
            done += myloware.work.finish(claims, [None] * len(claims))
        return done

    with ThreadPoolExecutor(8) as pool:
        done = [item_id for part in pool.map(drain, range(8)) for item_id in part]
    assert (200, 200) == (len(done), len(set(done)))
    assert WorkOrder.get().status is WorkOrderStatus.COMPLETED
    assert ledger_balances(myloware)


def test_finishing_completes_item_attempt_and_order(myloware: Store) -> None:
    """Result, attempt and roll-up change together; a second finish of the same attempt is accepted, unchanged."""
    order = myloware.work.submit([INVOICE, TICKET])
    claims = myloware.work.claim("agent-7", n=2)
    assert {claim.item_id for claim in claims} == myloware.work.finish(claims, [{"total": 12.5}, None])
    read = myloware.work.get(order.id)
    assert (WorkOrderStatus.COMPLETED, 0, 0) == (read.status, read.open_items, read.failed_items)
    item = WorkItem.get_by_id(claims[0].item_id)
    assert ({"total": 12.5}, WorkItemStatus.COMPLETED) == (item.result, item.status)
    attempt = item.attempts.get()
    assert (AttemptStatus.COMPLETED, {"total": 12.5}) == (attempt.status, attempt.output)
    assert attempt.finished_at is not None
    lasted = attempt.finished_at - attempt.started_at
    assert attempt.duration_ms == pytest.approx(lasted / timedelta(milliseconds=1), abs=0.5)
    assert {claims[0].item_id} == myloware.work.finish(claims[:1], [{"total": 99}])
    assert {"total": 12.5} == WorkItem.get_by_id(claims[0].item_id).result
    assert ledger_balances(myloware)


def test_a_lost_lease_fences_the_worker_off(myloware: Store) -> None:
    """After its lease ran out a worker can neither finish nor fail nor extend, reaped or not."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("slow")
    expire(myloware, claim)
    assert set() == myloware.work.heartbeat([claim])
    assert set() == myloware.work.finish([claim], [1])
    assert {} == myloware.work.fail([claim], ["late"])
    assert {claim.item_id} == set(myloware.work.reap())
    WorkItem.update(available_at=datetime.now(UTC)).execute()
    (successor,) = myloware.work.claim("quick")
    assert set() == myloware.work.finish([claim], [1])
    assert {successor.item_id} == myloware.work.finish([successor], [2])
    assert WorkItem.get().result == 2
    assert ledger_balances(myloware)


def test_inside_a_transaction_a_lost_lease_raises(myloware: Store) -> None:
    """What belongs to the result rolls back with it."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("slow")
    expire(myloware, claim)

    def finish_with_its_audit_line() -> None:
        myloware.audit.record("item.done", "work_item", claim.item_id)
        myloware.work.finish([claim], [1])

    with pytest.raises(LeaseLost, match=f"the item was cancelled.*{claim.item_id}"):
        myloware.transact(finish_with_its_audit_line)
    assert myloware.audit.list(action="item.done") == []


@pytest.mark.parametrize("begun_by_hand", [False, True])
@pytest.mark.parametrize("ending", ["finish", "fail", "bury"])
def test_a_lost_lease_that_is_caught_leaves_the_batch_as_it_was(
    myloware: Store,
    ending: str,
    begun_by_hand: bool,  # noqa: FBT001
) -> None:
    """Inside the caller's transaction all claims of a batch are accepted or none, whoever catches the error."""
    myloware.work.submit([INVOICE, TICKET])
    kept, lost = myloware.work.claim("slow", n=2)
    expire(myloware, lost)
    before = [*WorkItem.select().order_by(WorkItem.id).dicts()], [*Attempt.select().order_by(Attempt.id).dicts()]

    endings: dict[str, Callable[[], object]] = {
        "finish": lambda: myloware.work.finish([kept, lost], [1, 2]),
        "fail": lambda: myloware.work.fail([kept, lost], ["no", "luck"]),
        "bury": lambda: myloware.work.fail([kept, lost], ["no", "luck"], retry=False),
    }

    def end() -> None:
        with pytest.raises(LeaseLost, match=f"may have the items: {lost.item_id}$"):
            endings[ending]()

    if begun_by_hand:
        myloware.db.begin()
        end()
        myloware.db.commit()
    else:
        myloware.transact(end)

    after = [*WorkItem.select().order_by(WorkItem.id).dicts()], [*Attempt.select().order_by(Attempt.id).dicts()]
    assert before == after
    assert DeadLetter.select().count() == 0
    assert {kept.item_id} == myloware.work.finish([kept, lost], [1, 2])


def test_a_heartbeat_extends_the_lease_and_leaves_the_item_alone(myloware: Store) -> None:
    """Only the attempt is written."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent", lease=5)
    before = WorkItem.get().updated_at
    assert {claim.item_id} == myloware.work.heartbeat([claim], lease=600)
    expires = Attempt.get().lease_expires_at
    assert expires is not None
    assert expires > claim.lease_expires_at + timedelta(seconds=500)
    assert before == WorkItem.get().updated_at


def test_a_failure_is_tried_again_later(myloware: Store) -> None:
    """With backoff, the error kept on the attempt, the order still open."""
    order = myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    outcome = myloware.work.fail([claim], [TimeoutError("model did not answer")])[claim.item_id]
    assert (WorkItemStatus.QUEUED, None) == (outcome.status, outcome.dead_letter_id)
    attempt = Attempt.get()
    assert (AttemptStatus.FAILED, "TimeoutError: model did not answer") == (attempt.status, attempt.error)
    assert attempt.finished_at is not None
    assert outcome.available_at is not None
    waits = (outcome.available_at - attempt.finished_at).total_seconds()
    assert 1 <= waits <= 3
    assert myloware.work.claim("agent") == []
    assert myloware.work.get(order.id).status is WorkOrderStatus.PROCESSING
    assert ledger_balances(myloware)


def test_the_backoff_is_an_hour_at_most(myloware: Store) -> None:
    """Half as much again at random, and half as much at least, however often an item has failed."""
    myloware.work.submit([INVOICE] * 60, max_attempts=1000)
    claims = myloware.work.claim("agent", n=60)
    WorkItem.update(attempt_count=30).execute()
    myloware.work.fail(claims, ["no luck"] * 60)
    waits = [(item.available_at - item.updated_at).total_seconds() for item in WorkItem.select()]
    assert len(waits) == 60
    assert 1800 <= min(waits) < max(waits) <= 5400


def test_tries_that_are_used_up_end_as_a_dead_letter(myloware: Store) -> None:
    """After exactly max_attempts, in the statement that fails the item."""
    order = myloware.work.submit([INVOICE], max_attempts=3)
    for number in (1, 2, 3):
        (claim,) = myloware.work.claim("agent")
        assert number == claim.attempt_number
        outcome = myloware.work.fail([claim], ["no luck"], delay=0)[claim.item_id]
    assert (WorkItemStatus.FAILED, None) == (outcome.status, outcome.available_at)
    (letter,) = myloware.dead_letters.list()
    assert (outcome.dead_letter_id, claim.item_id, "no luck", 2) == (
        letter.id,
        letter.work_item_id,
        letter.error,
        letter.retry_count,
    )
    assert letter.payload["content"] == "Invoice 17"
    read = myloware.work.get(order.id)
    assert (WorkOrderStatus.FAILED, 0, 1) == (read.status, read.open_items, read.failed_items)
    assert ledger_balances(myloware)


def test_a_final_error_is_not_tried_again(myloware: Store) -> None:
    """retry=False buries at once; any error text can be stored."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    outcome = myloware.work.fail([claim], [ValueError("bad\x00 \ud800 " + "x" * 50_000)], retry=False)
    assert outcome[claim.item_id].status is WorkItemStatus.FAILED
    assert DeadLetter.get().error.startswith("ValueError: bad\N{REPLACEMENT CHARACTER} ? xxx")


def test_an_item_that_kills_its_workers_ends_as_a_dead_letter(myloware: Store) -> None:
    """Leases that run out count as tries, and are timeouts in the ledger."""
    myloware.work.submit([INVOICE], max_attempts=2)
    for _ in range(2):
        (claim,) = myloware.work.claim("doomed")
        expire(myloware, claim)
        myloware.work.reap()
        WorkItem.update(available_at=datetime.now(UTC)).execute()
    assert {AttemptStatus.TIMEOUT} == {attempt.status for attempt in Attempt.select()}
    assert (2, 1) == (Attempt.select().count(), DeadLetter.select().count())
    assert myloware.work.claim("doomed") == []
    assert ledger_balances(myloware)


def test_racing_reapers_take_each_item_once(myloware: Store) -> None:
    """Four reapers at once, as many outcomes as expired leases."""
    myloware.work.submit([INVOICE] * 40, max_attempts=1)
    for claim in myloware.work.claim("gone", n=40):
        expire(myloware, claim)
    barrier = threading.Barrier(4)

    def reap(_: int) -> int:
        barrier.wait()
        return sum(len(outcomes) for outcomes in iter(lambda: myloware.work.reap(7), {}))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(reap, range(4))) == 40
    assert DeadLetter.select().count() == 40
    assert WorkOrder.get().status is WorkOrderStatus.FAILED
    assert ledger_balances(myloware)


def test_a_replayed_dead_letter_opens_the_order_again(myloware: Store) -> None:
    """Once, however often the button is pressed; the letter and its attempts stay as history."""
    order = myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    myloware.work.fail([claim], ["bad day"], retry=False)
    (letter,) = myloware.dead_letters.list()
    assert {letter.id} == myloware.dead_letters.replay([letter.id], by="kim")
    assert set() == myloware.dead_letters.replay([letter.id], by="lee")
    assert myloware.work.get(order.id).status is WorkOrderStatus.PROCESSING
    (again,) = myloware.work.claim("agent")
    assert again.attempt_number == 2
    myloware.work.finish([again], ["good day"])
    assert myloware.work.get(order.id).status is WorkOrderStatus.COMPLETED
    (history,) = myloware.dead_letters.list(replayed=True)
    assert (letter.id, "kim") == (history.id, history.replayed_by)
    assert myloware.dead_letters.list() == []
    assert ledger_balances(myloware)


def test_batches_must_match(myloware: Store) -> None:
    """Another number of results, something that is no claim, an item named twice: refused, nothing changed."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    bad: list[tuple[Any, Any]] = [
        ([claim], []),
        ([claim], "r"),
        ([claim], None),
        (["claim"], [1]),
        (claim, [1]),
        ([attrs.evolve(claim, item_id=[])], [1]),  # type: ignore[arg-type]  # that is the point
        (None, [1]),
        ([claim, claim], [1, 2]),
    ]
    for claims, results in bad:
        with pytest.raises(InvalidInput):
            myloware.work.finish(claims, results)
    with pytest.raises(InvalidInput):
        myloware.work.finish([claim], [float("nan")])
    with pytest.raises(InvalidInput):
        myloware.work.finish([claim], [1], gate="no")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidInput):
        myloware.work.fail([claim], ["no"], retry=0)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidInput):
        myloware.work.fail([claim], [7])  # type: ignore[list-item]  # that is the point
    with pytest.raises(InvalidInput):
        myloware.transact("no function")  # type: ignore[arg-type]  # that is the point
    assert Attempt.get().status is AttemptStatus.STARTED
    assert set() == myloware.work.finish([], [])


def test_orders_of_other_tenants_are_not_found(myloware: Store) -> None:
    """Under a tenant, reading and ending work of another is as if there were none."""
    order = myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    with myloware.tenant("globex"):
        with pytest.raises(NotFound):
            myloware.work.get(order.id)
        with pytest.raises(NotFound):
            myloware.work.items(order.id)
        assert set() == myloware.work.finish([claim], [1])
        assert {} == myloware.work.fail([claim], ["no"])
        assert set() == myloware.work.heartbeat([claim])
    assert Attempt.get().status is AttemptStatus.STARTED


def test_an_attempts_workers_clock_does_not_matter(myloware: Store) -> None:
    """Leases are written and judged by the database's clock alone, also inside a long transaction."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent", lease=60)
    with myloware.db.atomic():
        began = myloware.db.execute_sql("SELECT now(), pg_sleep(0.3)").fetchone()[0]
        myloware.work.heartbeat([claim], lease=60)
        assert Attempt.get().lease_expires_at >= began + timedelta(seconds=60.3)


class Untold(Exception):
    """An error that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_cannot_be_told_is_kept_by_its_name(myloware: Store) -> None:
    """Failing an attempt never fails because of the error."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    assert {claim.item_id} == set(myloware.work.fail([claim], [Untold()]))
    assert "Untold" == Attempt.get().error


@pytest.mark.parametrize("reaped", [False, True])
def test_a_letter_that_was_there_before_is_the_one_it_ends_as(
    myloware: Store,
    reaped: bool,  # noqa: FBT001
) -> None:
    """An item has one open letter: somebody's own waits until the item has failed, and is in no one's way."""
    myloware.work.submit([INVOICE], max_attempts=1)
    own = DeadLetter.create(work_item=WorkItem.get(), source="by hand", event_type="t", payload={}, error="e")
    assert set() == myloware.dead_letters.replay([own.id], by="kim")
    (claim,) = myloware.work.claim("agent")
    if reaped:
        expire(myloware, claim)
        outcome = myloware.work.reap()[claim.item_id]
    else:
        outcome = myloware.work.fail([claim], ["no luck"])[claim.item_id]
    (letter,) = myloware.dead_letters.list()
    assert (own.id, own.id, "work_items") == (outcome.dead_letter_id, letter.id, letter.source)
    assert "Invoice 17" == letter.payload["content"]
    assert {own.id} == myloware.dead_letters.replay([own.id], by="kim")
    assert ledger_balances(myloware)


@pytest.mark.parametrize("odd", [np.array("a"), np.array(None), 5, object(), {"a": 1}, b"a"])
def test_what_is_no_list_is_refused_everywhere(myloware: Store, odd: Any) -> None:
    """One typed error, whatever it is."""
    calls: list[Callable[[], object]] = [
        lambda: myloware.work.submit(odd),
        lambda: myloware.work.claim("agent", types=odd),
        lambda: myloware.work.claim("agent", tenants=odd),
        lambda: myloware.work.finish(odd, []),
        lambda: myloware.work.fail([], odd),
        lambda: myloware.work.heartbeat(odd),
        lambda: myloware.memory.upsert(odd),
        lambda: myloware.memory.get(odd),
        lambda: myloware.dead_letters.replay(odd, by="kim"),
    ]
    for call in calls:
        with pytest.raises(InvalidInput):
            call()

"""Items moved by hand, in psql or through the models: refused moves, their effects, and claims afterwards."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import Attempt, DeadLetter, Store, WorkItem
from myloware_store.core.errors import ConstraintViolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Claim

ITEM = {"type": "INVOICE", "content": "Invoice 17"}
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def queued(_store: Store) -> None:
    """Leave it as it was submitted."""


def live(store: Store) -> Claim:
    """Claim it."""
    (claim,) = store.work.claim("agent")
    return claim


def expired(store: Store) -> None:
    """Claim it, and let the lease run out."""
    live(store)
    Attempt.update(lease_expires_at=LONG_AGO).execute()


def unheld(store: Store) -> None:
    """Claim it, and delete the attempt."""
    live(store)
    Attempt.delete().execute()


def parked(store: Store) -> None:
    """Let its result wait for a decision."""
    store.work.finish([live(store)], [1], gate=True)


def completed(store: Store) -> None:
    """Finish it."""
    store.work.finish([live(store)], [1])


def failed(store: Store) -> None:
    """Fail it for good."""
    store.work.fail([live(store)], ["no"], retry=False)


def cancelled(store: Store) -> None:
    """Cancel its order."""
    store.work.cancel(WorkItem.get().work_order_id)


def cancelled_by_hand(store: Store) -> None:
    """Cancel it in psql."""
    store.db.execute_sql("UPDATE work_items SET cancelled_at = now()")


# (state, move to): the constraint that refuses it, or the statuses of the attempts and the open letters afterwards.
MOVES: dict[tuple[Callable[[Store], Any], str], str | tuple[list[str], int]] = {
    (queued, "PROCESSING"): ([], 0),
    (queued, "COMPLETED"): "work_items_guard",
    (queued, "FAILED"): "work_items_guard",
    (live, "QUEUED"): (["FAILED"], 0),
    (live, "COMPLETED"): (["FAILED"], 0),
    (live, "FAILED"): (["FAILED"], 1),
    (expired, "QUEUED"): (["TIMEOUT"], 0),
    (expired, "COMPLETED"): (["TIMEOUT"], 0),
    (expired, "FAILED"): (["TIMEOUT"], 1),
    (unheld, "QUEUED"): ([], 0),
    (unheld, "COMPLETED"): ([], 0),
    (unheld, "FAILED"): ([], 1),
    (parked, "QUEUED"): (["COMPLETED"], 0),
    (parked, "PROCESSING"): "work_items_guard",
    (parked, "COMPLETED"): "work_items_guard",
    (parked, "FAILED"): "work_items_guard",
    (completed, "QUEUED"): "work_items_guard",
    (completed, "PROCESSING"): "work_items_guard",
    (completed, "FAILED"): "work_items_guard",
    (failed, "QUEUED"): "work_items_guard",
    (failed, "PROCESSING"): "work_items_guard",
    (failed, "COMPLETED"): "work_items_guard",
    (cancelled, "QUEUED"): "work_items_guard",
    (cancelled, "PROCESSING"): "work_items_guard",
    (cancelled, "COMPLETED"): "work_items_guard",
    (cancelled_by_hand, "QUEUED"): "work_items_guard",
    (cancelled_by_hand, "PROCESSING"): "work_items_guard",
    (cancelled_by_hand, "COMPLETED"): "work_items_guard",
}


def by_sql(store: Store, status: str) -> None:
    """Move the item as in psql."""
    ended = "now()" if status in {"COMPLETED", "FAILED"} else "NULL"
    update = f"UPDATE work_items SET status = %s, processed_at = {ended}, awaiting_approval = false"
    store.db.execute_sql(update, (status,))


def by_model(_store: Store, status: str) -> None:
    """Move the item as a script with the models does."""
    item = WorkItem.get()
    item.status = status
    item.processed_at = datetime.now(UTC) if status in {"COMPLETED", "FAILED"} else None
    item.awaiting_approval = False
    item.save()


@pytest.mark.parametrize("move", [by_sql, by_model])
@pytest.mark.parametrize(("state", "status"), MOVES, ids=lambda value: getattr(value, "__name__", value))
def test_an_item_is_moved_by_hand(
    myloware: Store, state: Callable[[Store], Any], status: str, move: Callable[[Store, str], None]
) -> None:
    """A move is refused and changes nothing, or no attempt stays open, a failed item has a letter, and claims go on."""
    myloware.work.submit([ITEM], max_attempts=1)
    state(myloware)
    before = (WorkItem.get().status, *left(myloware))
    expected = MOVES[state, status]
    if isinstance(expected, str):
        with pytest.raises(ConstraintViolation, match="it cannot move from") as caught:
            move(myloware, status)
        assert (expected, before) == (caught.value.constraint, (WorkItem.get().status, *left(myloware)))
        return
    move(myloware, status)

    assert (status, *expected) == (WorkItem.get().status, *left(myloware))
    assert 0 == myloware.work.stats().total.expired
    assert {} == myloware.work.reap()
    assert (1 if status == "QUEUED" else 0) == len(myloware.work.claim("other"))
    myloware.work.submit([ITEM])
    assert 1 == len(myloware.work.claim("other"))


def left(_store: Store) -> tuple[list[str], int]:
    """Return the statuses of the attempts, and how many letters are open."""
    attempts: list[str] = [attempt.status for attempt in Attempt.select().order_by(Attempt.attempt_number)]
    return attempts, DeadLetter.select().where(DeadLetter.replayed_at.is_null()).count()


@pytest.mark.parametrize("state", [queued, live, expired, unheld, parked])
def test_an_item_is_cancelled_by_hand(myloware: Store, state: Callable[[Store], Any]) -> None:
    """Whoever sets its `cancelled_at` ends it as `cancel_item` does: no attempt stays open, no letter is written."""
    order = myloware.work.submit([ITEM, ITEM])
    state(myloware)
    other = WorkItem.get(WorkItem.attempt_count == (0 if state is not queued else WorkItem.attempt_count))
    item = WorkItem.get(WorkItem.id != other.id)
    item.cancelled_at = datetime.now(UTC)
    item.save()

    after = WorkItem.get_by_id(item.id)
    assert ("FAILED", False, after.cancelled_at) == (after.status, after.awaiting_approval, after.processed_at)
    attempts, letters = left(myloware)
    assert ("STARTED" in attempts, letters) == (False, 0)
    read = myloware.work.get(order.id)
    assert (1, 1, None) == (read.open_items, read.failed_items, read.cancelled_at)
    assert [other.id] == [claim.item_id for claim in myloware.work.claim("other", n=2)]


def test_a_cancelled_at_of_an_ended_item_changes_nothing(myloware: Store) -> None:
    """It is a note, and makes no other move possible."""
    myloware.work.submit([ITEM])
    completed(myloware)
    cancelled_by_hand(myloware)
    assert "COMPLETED" == WorkItem.get().status
    for status in ("QUEUED", "FAILED"):
        with pytest.raises(ConstraintViolation, match="work_items_guard"):
            by_sql(myloware, status)


def test_an_item_that_was_failed_by_hand_is_replayed(myloware: Store) -> None:
    """Its letter says so, and brings it back."""
    myloware.work.submit([ITEM])
    live(myloware)
    by_sql(myloware, "FAILED")
    (letter,) = myloware.dead_letters.list()
    assert ("work_items", "the item was failed by hand", "Invoice 17", 0) == (
        letter.source,
        letter.error,
        letter.payload["content"],
        letter.retry_count,
    )
    assert {letter.id} == myloware.dead_letters.replay([letter.id], by="kim")
    assert 1 == len(myloware.work.claim("other"))


@pytest.mark.parametrize("move", ["status = 'QUEUED'", "awaiting_approval = true"])
def test_an_attempt_that_a_move_by_hand_ends_lasted_until_then(myloware: Store, move: str) -> None:
    """Whether the item returns to the queue or is parked."""
    myloware.work.submit([ITEM])
    live(myloware)
    myloware.db.execute_sql("UPDATE attempts SET started_at = started_at - interval '5 seconds'")
    before = Attempt.get()
    myloware.db.execute_sql(f"UPDATE work_items SET {move}")
    attempt = Attempt.get()
    assert ("FAILED", "its item was moved by hand") == (attempt.status, attempt.error)
    assert attempt.duration_ms in range(5000, 300_000)
    assert attempt.finished_at == attempt.updated_at > before.updated_at


@pytest.mark.parametrize(("tries", "most"), [(1, 2), (2, 2), (3, 3)])
def test_an_item_that_is_queued_by_hand_has_a_try_left(myloware: Store, tries: int, most: int) -> None:
    """It gets one more only if it has none, and other items get none."""
    other = myloware.work.submit([ITEM], max_attempts=1, priority="URGENT")
    assert myloware.work.claim("agent")
    myloware.work.submit([ITEM], max_attempts=tries)
    live(myloware)
    (moved,) = WorkItem.select().where(WorkItem.work_order != other.id)
    myloware.db.execute_sql("UPDATE work_items SET status = 'QUEUED' WHERE id = %s", (str(moved.id),))
    assert [1] == [item.max_attempts for item in myloware.work.items(other.id)]
    assert most == WorkItem.get_by_id(moved.id).max_attempts


@pytest.mark.parametrize("status", ["QUEUED", "COMPLETED", "FAILED"])
def test_a_worker_learns_that_its_item_was_moved(myloware: Store, status: str) -> None:
    """Nothing that it says of the item is accepted any more; an item queued again can be claimed by another."""
    myloware.work.submit([ITEM])
    claim = live(myloware)
    by_sql(myloware, status)

    assert set() == myloware.work.heartbeat([claim])
    assert set() == myloware.work.finish([claim], [1])
    assert {} == myloware.work.fail([claim], ["no"])
    assert set() == myloware.work.release([claim])
    assert "its item was moved by hand" == Attempt.get_by_id(claim.attempt_id).error


def test_a_whole_queue_is_moved_at_once(myloware: Store) -> None:
    """One UPDATE over items in every state of a claim leaves all of them to be claimed."""
    myloware.work.submit([ITEM] * 4, max_attempts=1)
    claims = myloware.work.claim("agent", n=3)
    myloware.work.finish(claims[:1], [1], gate=True)
    Attempt.update(lease_expires_at=LONG_AGO).where(Attempt.id == claims[1].attempt_id).execute()
    by_sql(myloware, "QUEUED")

    assert 4 == len(myloware.work.claim("other", n=10))


def test_an_order_is_cancelled_by_hand(myloware: Store) -> None:
    """Marking it ends its open items and their attempts, as cancelling does; what had ended stays."""
    order = myloware.work.submit([ITEM] * 4)
    held, waiting, done = myloware.work.claim("agent", n=3)
    myloware.work.finish([waiting], [1], gate=True)
    myloware.work.finish([done], [1])
    myloware.db.execute_sql("UPDATE work_orders SET cancelled_at = now()")

    assert ["COMPLETED", "FAILED", "FAILED", "FAILED"] == sorted(item.status for item in myloware.work.items(order.id))
    order = myloware.work.get(order.id)
    assert ("FAILED", 0, 3) == (order.status, order.open_items, order.failed_items)
    assert set() == myloware.work.finish([held], [1])
    assert ([], []) == (myloware.dead_letters.list(), myloware.work.claim("other"))


@pytest.mark.parametrize(
    ("state", "recipe", "status"), [(parked, 0, "COMPLETED"), (failed, 1, "QUEUED"), (queued, 2, "FAILED")]
)
def test_the_documented_statements_work(
    myloware: Store, state: Callable[[Store], Any], recipe: int, status: str
) -> None:
    """Approving, replaying and cancelling in psql, as docs/schema.md has them."""
    myloware.work.submit([ITEM])
    state(myloware)
    page = (Path(__file__).parents[2] / "docs" / "schema.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    item = WorkItem.get()
    named = block.split("\n\n")[recipe].replace(":'item'", f"'{item.id}'")
    myloware.db.execute_sql(named.replace(":'order'", f"'{item.work_order_id}'"))

    assert status == WorkItem.get().status


def test_a_decision_by_hand_completes_a_parked_item(myloware: Store) -> None:
    """With the decision's row there is a trace, so the move passes; one of another kind is no help."""
    myloware.work.submit([ITEM])
    parked(myloware)
    item = WorkItem.get()
    decide = """
        INSERT INTO approval_events (tenant_id, work_item_id, approver_id, decision, policy_version)
        VALUES ('default', %s, 'kim', %s, '1')
        """
    for decision in ("ESCALATED", "REJECTED"):
        myloware.db.execute_sql(decide, (item.id, decision))
    with pytest.raises(ConstraintViolation, match="it cannot move from PROCESSING to COMPLETED without a decision"):
        by_sql(myloware, "COMPLETED")
    myloware.db.execute_sql(decide, (item.id, "APPROVED"))
    by_sql(myloware, "COMPLETED")

    assert "COMPLETED" == WorkItem.get().status


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("kept", [0, 2])
def test_a_claim_mends_rows_that_cannot_be(myloware: Store, *, kept: int, fair: bool) -> None:
    """A queued item with an open attempt, or one whose tries were set back, is claimed with the tries it has left."""
    order = myloware.work.submit([ITEM] * 3)
    for _ in range(2):
        myloware.work.fail(myloware.work.claim("agent", n=3), ["no"] * 3, delay=0)
    first, second, third = (item.id for item in myloware.work.items(order.id))
    Attempt.create(work_item=first, agent_id="by hand", attempt_number=7)
    myloware.db.execute_sql("UPDATE work_items SET attempt_count = 0 WHERE id = %s", (second,))
    if kept:
        myloware.db.execute_sql("UPDATE work_items SET attempt_count = 0 WHERE id = %s", (third,))
    claims = {claim.item_id: claim for claim in myloware.work.claim("other", n=3, fair=fair)}

    assert [8, 3, 3] == [claims[item].attempt_number for item in (first, second, third)]
    left = [item.max_attempts - item.attempt_count for item in myloware.work.items(order.id)]
    assert [2, 4, 4 if kept else 2] == left
    assert {claim.item_id for claim in claims.values()} == myloware.work.finish([*claims.values()], [1, 1, 1])
    assert not Attempt.select().where(Attempt.status == "STARTED").exists()


def test_a_claim_goes_on_where_tries_cannot_be_counted(myloware: Store) -> None:
    """An item with all tries that an integer holds, set back to none used, is claimed; one without a number is not."""
    order = myloware.work.submit([ITEM] * 3)
    first, second, third = (item.id for item in myloware.work.items(order.id))
    for item, number in ((first, 1), (second, 1), (second, 2**31 - 1)):
        Attempt.create(work_item=item, agent_id="by hand", attempt_number=number, status="FAILED", finished_at=LONG_AGO)
    myloware.db.execute_sql("UPDATE work_items SET max_attempts = 2147483647 WHERE id = %s", (first,))

    assert {first: 2, third: 1} == {claim.item_id: claim.attempt_number for claim in myloware.work.claim("other", n=3)}
    assert [] == myloware.work.claim("other", n=3)


def test_an_escalated_item_that_is_queued_again_is_finished_twice(myloware: Store) -> None:
    """What was decided of the result before is no decision about the new one: finishing again changes nothing."""
    myloware.work.submit([ITEM])
    parked(myloware)
    item = WorkItem.get()
    myloware.approvals.decide(item.id, approver_id="kim", decision="ESCALATED", policy_version="1")
    by_sql(myloware, "QUEUED")
    claim = live(myloware)

    assert [{item.id}, {item.id}] == [myloware.work.finish([claim], [2]) for _ in range(2)]


def test_the_reaper_ends_attempts_that_hold_nothing(myloware: Store) -> None:
    """An expired attempt of an item that is queued, done or parked is ended, and its item stays."""
    order = myloware.work.submit([ITEM])
    for status in ("QUEUED", "COMPLETED", "PROCESSING"):
        item = add_item(order.id, status, awaiting_approval=status == "PROCESSING")
        Attempt.create(work_item=item, agent_id="by hand", lease_expires_at=LONG_AGO)
    before = [item.status for item in myloware.work.items(order.id)]

    assert {} == myloware.work.reap()
    assert before == [item.status for item in myloware.work.items(order.id)]
    assert ["TIMEOUT"] * 3 == [attempt.status for attempt in Attempt.select()]
    assert 0 == myloware.work.stats().total.expired


def test_the_reaper_takes_back_what_was_started_by_the_models(myloware: Store) -> None:
    """An attempt that the item does not name holds it all the same: there is one open attempt at most."""
    item = add_item(myloware.work.submit([ITEM]).id, "PROCESSING")
    Attempt.create(work_item=item, agent_id="by hand", lease_expires_at=LONG_AGO)

    assert {item.id} == myloware.work.reap().keys()
    assert "QUEUED" == WorkItem.get_by_id(item.id).status


def add_item(order_id: object, status: str, **values: object) -> WorkItem:
    """Insert an item in some state, which imports may do."""
    ended = LONG_AGO if status == "COMPLETED" else None
    given = {"work_order": order_id, "type": "INVOICE", "content": "x", "status": status, "processed_at": ended}
    item: WorkItem = WorkItem.create(priority="LOW", **given, **values)
    return item


@pytest.mark.parametrize(
    "event",
    [
        "BEFORE UPDATE ON work_items FOR EACH ROW",
        "AFTER UPDATE ON work_items FOR EACH ROW",
        "AFTER UPDATE ON work_items FOR EACH STATEMENT",
        "BEFORE INSERT ON work_items FOR EACH ROW",
        "AFTER INSERT ON attempts FOR EACH ROW",
        "AFTER UPDATE ON attempts FOR EACH ROW",
        "BEFORE INSERT ON work_orders FOR EACH ROW",
        "AFTER INSERT ON work_orders FOR EACH ROW",
        "BEFORE UPDATE ON work_orders FOR EACH ROW",
    ],
)
def test_an_own_trigger_submits_in_the_middle_of_the_work(myloware: Store, event: str) -> None:
    """A trigger of the user's own queues work inside of submit, claim or finish: all orders are counted once."""
    follow = myloware.work.submit_statement([ITEM], driver="psycopg").parameters
    assert isinstance(follow, tuple)
    myloware.db.execute_sql("CREATE TABLE followed (given json)")
    myloware.db.execute_sql("INSERT INTO followed VALUES (%s)", follow)
    # Once: within itself, it would go on for ever.
    myloware.db.execute_sql("""
        CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF pg_trigger_depth() = 1 THEN
                PERFORM submit_work_order_json(given) FROM followed;
            END IF;
            RETURN NEW;
        END
        $$
        """)
    myloware.db.execute_sql(f"CREATE TRIGGER follow {event} EXECUTE FUNCTION follow()")

    order = myloware.work.submit([ITEM, ITEM])
    first, second = (claim for claim in myloware.work.claim("agent", 10) if claim.work_order_id == order.id)
    myloware.work.finish([first], [1])
    myloware.work.finish_and_claim([second], [2], "agent", 10)

    assert 0 == myloware.work.get(order.id).open_items
    assert set() == myloware.work.recount()


def test_an_own_trigger_finishes_items(myloware: Store) -> None:
    """What the functions write in a trigger, they count themselves, too."""
    order = myloware.work.submit([ITEM, ITEM])
    myloware.work.claim("agent", 2)
    myloware.db.execute_sql("CREATE TABLE answers (item_id uuid, attempt_id uuid)")
    myloware.db.execute_sql("""
        CREATE FUNCTION answer() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM finish_work_items(ARRAY[NEW.item_id], ARRAY[NEW.attempt_id], '[1]', false, NULL, false, false);
            RETURN NEW;
        END
        $$
        """)
    myloware.db.execute_sql("CREATE TRIGGER answer AFTER INSERT ON answers FOR EACH ROW EXECUTE FUNCTION answer()")

    myloware.db.execute_sql("INSERT INTO answers SELECT id, current_attempt_id FROM work_items LIMIT 1")

    assert 1 == myloware.work.get(order.id).open_items
    assert set() == myloware.work.recount()

"""What the database itself refuses and keeps in step, whoever writes: the models, psql, or two sessions at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.core.errors import ConstraintViolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.db.database import StoreDatabase

ITEM = ("QUEUED", "PROCESSING", "COMPLETED", "FAILED")
LEGAL_ITEM = {
    ("QUEUED", "PROCESSING"),
    ("PROCESSING", "QUEUED"),
    ("PROCESSING", "COMPLETED"),
    ("PROCESSING", "FAILED"),
}
ATTEMPT = ("STARTED", "COMPLETED", "FAILED", "TIMEOUT")
ORDER = ("PENDING", "PROCESSING", "COMPLETED", "FAILED")
LEGAL_RUN = {
    ("PENDING", "PROCESSING"),
    ("PENDING", "COMPLETED"),
    ("PENDING", "FAILED"),
    ("PROCESSING", "COMPLETED"),
    ("PROCESSING", "FAILED"),
}
LEGAL_ORDER = {
    ("PENDING", "PROCESSING"),
    ("PROCESSING", "COMPLETED"),
    ("PROCESSING", "FAILED"),
    ("COMPLETED", "PROCESSING"),
    ("FAILED", "PROCESSING"),
}


def moves(labels: tuple[str, ...]) -> list[tuple[str, str]]:
    """Give every move from one label to another."""
    return [(old, new) for old in labels for new in labels if old != new]


def add(db: StoreDatabase, table: str, **values: Any) -> str:
    """Insert one row in plain SQL, of tenant acme unless told otherwise, and give its id."""
    row = {"tenant_id": "acme", **values}
    columns, marks = ", ".join(row), ", ".join(["%s"] * len(row))
    sql = f"INSERT INTO {table} ({columns}) VALUES ({marks}) RETURNING id::text"
    (found,) = db.execute_sql(sql, tuple(row.values())).fetchone()
    return str(found)


def add_order(db: StoreDatabase, **values: Any) -> str:
    """Insert an order."""
    return add(db, "work_orders", **{"created_by": "test", **values})


def add_item(db: StoreDatabase, order: str, status: str = "QUEUED", **values: Any) -> str:
    """Insert an item in any state: inserts are free, for seeds and imports."""
    done = {"processed_at": "2025-01-01"} if status in {"COMPLETED", "FAILED"} else {}
    given = {"work_order_id": order, "type": "INVOICE", "content": "text", "status": status}
    return add(db, "work_items", **{**given, **done, **values})


def add_attempt(db: StoreDatabase, item: str, status: str = "STARTED", **values: Any) -> str:
    """Insert an attempt in any state."""
    done = {} if status == "STARTED" else {"finished_at": "2025-01-01"}
    return add(db, "attempts", **{"work_item_id": item, "agent_id": "a", "status": status, **done, **values})


def move_item(db: StoreDatabase, item: str, status: str) -> None:
    """Update an item's status, with the time that belongs to it."""
    at = "now()" if status in {"COMPLETED", "FAILED"} else "NULL"
    db.execute_sql(f"UPDATE work_items SET status = %s, processed_at = {at} WHERE id = %s", (status, item))


def state(db: StoreDatabase, order: str) -> tuple[str, int, int]:
    """Give an order's status and counters."""
    query = "SELECT status::text, open_items, failed_items FROM work_orders WHERE id = %s"
    status, opened, failed = db.execute_sql(query, (order,)).fetchone()
    return status, opened, failed


def status_of(db: StoreDatabase, table: str, row: str) -> str:
    """Give a row's status."""
    (found,) = db.execute_sql(f"SELECT status::text FROM {table} WHERE id = %s", (row,)).fetchone()
    return str(found)


def refused(constraint: str, act: Callable[..., object], *arguments: object) -> None:
    """Hold that something is refused, by that constraint or trigger."""
    with pytest.raises(ConstraintViolation) as caught:
        act(*arguments)
    assert constraint == caught.value.constraint


@pytest.mark.parametrize(("old", "new"), moves(ITEM))
def test_an_item_moves_as_its_life_goes_and_not_otherwise(myloware_db: StoreDatabase, old: str, new: str) -> None:
    """Queued, processing, and back or done; between failed and queued only with a cause, from completed never."""
    item = add_item(myloware_db, add_order(myloware_db), old)
    if (old, new) in LEGAL_ITEM:
        move_item(myloware_db, item, new)
    else:
        caused = {("FAILED", "QUEUED"): "work_items_guard", ("QUEUED", "FAILED"): "work_items_guard"}
        rule = caused.get((old, new), "work_items_guard")
        told = f"it cannot move from {old} to {new}" if rule == "work_items_guard" else rule
        with pytest.raises(ConstraintViolation, match=told) as caught:
            move_item(myloware_db, item, new)
        assert rule == caught.value.constraint

    assert (new if (old, new) in LEGAL_ITEM else old) == status_of(myloware_db, "work_items", item)


@pytest.mark.parametrize("status", ITEM)
def test_an_item_may_be_written_without_moving(myloware_db: StoreDatabase, status: str) -> None:
    """An update that leaves the status as it is passes in every state."""
    item = add_item(myloware_db, add_order(myloware_db), status)
    myloware_db.execute_sql("UPDATE work_items SET status = status, attempt_count = 1 WHERE id = %s", (item,))

    assert status == status_of(myloware_db, "work_items", item)


def test_a_failed_item_is_queued_again_in_the_wake_of_its_replay(myloware_db: StoreDatabase) -> None:
    """A replay that is older than the failure, or of another item, does not count; the item's own, newer one does."""
    order = add_order(myloware_db)
    item, other = add_item(myloware_db, order, "FAILED"), add_item(myloware_db, order, "FAILED")
    letter = {"source": "s", "event_type": "e", "payload": "{}", "error": "x", "replayed_by": "me"}

    add(myloware_db, "dead_letters", work_item_id=item, replayed_at="2024-12-31", **letter)
    refused("work_items_guard", move_item, myloware_db, item, "QUEUED")
    add(myloware_db, "dead_letters", work_item_id=other, replayed_at="2025-01-02", **letter)
    refused("work_items_guard", move_item, myloware_db, item, "QUEUED")
    add(myloware_db, "dead_letters", work_item_id=item, replayed_at="2025-01-01", **letter)
    move_item(myloware_db, item, "QUEUED")

    assert "QUEUED" == status_of(myloware_db, "work_items", item)
    assert ("PROCESSING", 1, 1) == state(myloware_db, order)


def test_a_second_failure_needs_a_second_replay(myloware_db: StoreDatabase) -> None:
    """One replay brings an item back once."""
    item = add_item(myloware_db, add_order(myloware_db), "FAILED")
    add(
        myloware_db,
        "dead_letters",
        work_item_id=item,
        source="s",
        event_type="e",
        payload="{}",
        error="x",
        replayed_by="me",
        replayed_at="2025-06-01",
    )
    for status in ("QUEUED", "PROCESSING", "FAILED"):
        move_item(myloware_db, item, status)

    refused("work_items_guard", move_item, myloware_db, item, "QUEUED")


@pytest.mark.parametrize(("old", "new"), moves(ATTEMPT))
def test_an_attempt_leaves_started_once(myloware_db: StoreDatabase, old: str, new: str) -> None:
    """However it ends, an attempt that has ended stays as it is."""
    attempt = add_attempt(myloware_db, add_item(myloware_db, add_order(myloware_db), "PROCESSING"), old)
    at = "NULL" if new == "STARTED" else "now()"
    sql, values = f"UPDATE attempts SET status = %s, finished_at = {at} WHERE id = %s", (new, attempt)
    if old == "STARTED":
        myloware_db.execute_sql(sql, values)
    else:
        refused("attempts_transition", myloware_db.execute_sql, sql, values)

    assert (new if old == "STARTED" else old) == status_of(myloware_db, "attempts", attempt)


def test_an_item_has_one_live_attempt(myloware_db: StoreDatabase) -> None:
    """A second one cannot start while the first has not ended."""
    item = add_item(myloware_db, add_order(myloware_db), "PROCESSING")
    add_attempt(myloware_db, item)

    with pytest.raises(ConstraintViolation) as caught:
        add_attempt(myloware_db, item, attempt_number=2)
    assert "attempts_started_idx" == caught.value.constraint


@pytest.mark.parametrize(("old", "new"), moves(ORDER))
def test_an_order_moves_as_its_life_goes_and_not_otherwise(myloware_db: StoreDatabase, old: str, new: str) -> None:
    """Pending, processing, done, and open again; written by hand, nothing else passes."""
    order = add_order(myloware_db, status=old)
    sql, values = "UPDATE work_orders SET status = %s WHERE id = %s", (new, order)
    if (old, new) in LEGAL_ORDER:
        myloware_db.execute_sql(sql, values)
    else:
        refused("work_orders_guard", myloware_db.execute_sql, sql, values)

    assert (new if (old, new) in LEGAL_ORDER else old) == status_of(myloware_db, "work_orders", order)


@pytest.mark.parametrize(("old", "new"), moves(ORDER))
def test_a_run_ends_once(myloware_db: StoreDatabase, old: str, new: str) -> None:
    """A run goes on to its end, and never back."""
    ended = {status: "2025-01-01" if status in {"COMPLETED", "FAILED"} else None for status in ORDER}
    order = add_order(myloware_db)
    run = add(myloware_db, "runs", work_order_id=order, status=old, finished_at=ended[old])
    update = "UPDATE runs SET status = %s, finished_at = %s WHERE id = %s"
    if (old, new) in LEGAL_RUN:
        myloware_db.execute_sql(update, (new, ended[new], run))
    else:
        refused("runs_transition", myloware_db.execute_sql, update, (new, ended[new], run))

    assert (new if (old, new) in LEGAL_RUN else old) == status_of(myloware_db, "runs", run)


@pytest.mark.parametrize(("opened", "failed"), [(5, 3), (5, 0), (0, 3)])
def test_an_order_counts_from_nothing(myloware_db: StoreDatabase, opened: int, failed: int) -> None:
    """Whatever counters an order is inserted with, they are those of its items."""
    order = add_order(myloware_db, open_items=opened, failed_items=failed)
    assert ("PENDING", 0, 0) == state(myloware_db, order)
    add_item(myloware_db, order)

    assert ("PENDING", 1, 0) == state(myloware_db, order)


@pytest.mark.parametrize(
    ("created_at", "changed"), [("2024-06-01", "2025-01-01"), ("2025-06-01", "2025-06-01"), ("infinity", "now")]
)
def test_an_order_changes_when_its_items_came(myloware_db: StoreDatabase, created_at: str, changed: str) -> None:
    """Items imported with their times leave their order's own, or bring it up to theirs, and never past now."""
    order = add_order(myloware_db, updated_at="2025-01-01")
    add_item(myloware_db, order, created_at=created_at)
    query = "SELECT updated_at = %s OR (%s = 'now' AND updated_at <= now()) FROM work_orders WHERE id = %s"

    assert (True,) == myloware_db.execute_sql(query, (changed, changed, order)).fetchone()


def test_an_orders_counters_are_not_written_by_hand(myloware_db: StoreDatabase) -> None:
    """An update of the counters is refused, an upsert's too; writing them as they are passes."""
    order = add_order(myloware_db)
    add_item(myloware_db, order)
    upsert = """
        INSERT INTO work_orders (id, tenant_id, created_by) VALUES (%s, 'acme', 'test')
        ON CONFLICT (id) DO UPDATE SET open_items = EXCLUDED.open_items
        """
    for sql in ("UPDATE work_orders SET open_items = 0 WHERE id = %s", upsert):
        refused("work_orders_guard", myloware_db.execute_sql, sql, (order,))
    myloware_db.execute_sql("UPDATE work_orders SET open_items = 1, failed_items = 0 WHERE id = %s", (order,))

    assert ("PENDING", 1, 0) == state(myloware_db, order)


def test_items_that_are_truncated_are_counted_no_more(myloware_db: StoreDatabase) -> None:
    """As after a DELETE, orders without items keep their status, and no count."""
    open_order, failed = add_order(myloware_db), add_order(myloware_db)
    add_item(myloware_db, open_order, "PROCESSING")
    add_item(myloware_db, failed, "FAILED")
    myloware_db.execute_sql("TRUNCATE work_items CASCADE")

    assert ("PROCESSING", 0, 0) == state(myloware_db, open_order)
    assert ("FAILED", 0, 0) == state(myloware_db, failed)
    add_item(myloware_db, failed, "COMPLETED")
    assert ("COMPLETED", 0, 0) == state(myloware_db, failed)


def test_all_work_is_truncated_at_once(myloware_db: StoreDatabase) -> None:
    """Orders and items go together."""
    add_item(myloware_db, add_order(myloware_db))
    myloware_db.execute_sql("TRUNCATE work_orders CASCADE")

    assert (0,) == myloware_db.execute_sql("SELECT count(*) FROM work_items").fetchone()


@pytest.mark.parametrize(
    "sql",
    [
        """
        MERGE INTO work_items AS i USING (VALUES ('new'), ('old')) AS s (content)
        ON i.content = s.content AND i.work_order_id = '{order}'
        WHEN MATCHED THEN DELETE
        WHEN NOT MATCHED THEN INSERT (tenant_id, work_order_id, type, content)
            VALUES ('acme', '{order}', 'TICKET', s.content)
        """,
        """
        WITH gone AS (DELETE FROM work_items WHERE work_order_id = '{order}')
        INSERT INTO work_items (tenant_id, work_order_id, type, content) VALUES ('acme', '{order}', 'TICKET', 'new')
        """,
        """
        WITH moved AS (UPDATE work_items SET work_order_id = '{other}' WHERE work_order_id = '{order}')
        INSERT INTO work_items (tenant_id, work_order_id, type, content) VALUES ('acme', '{order}', 'TICKET', 'new')
        """,
        """
        INSERT INTO work_items (id, tenant_id, work_order_id, type, content)
        SELECT id, 'acme', work_order_id, 'TICKET', 'again' FROM work_items
        ON CONFLICT (id) DO UPDATE SET content = EXCLUDED.content, status = 'PROCESSING'
        """,
    ],
    ids=["merge", "delete and insert", "move and insert", "upsert"],
)
def test_one_statement_that_does_several_things_is_counted_right(myloware_db: StoreDatabase, sql: str) -> None:
    """Orders whose items come, go and move in the same statement have the counters of what is there."""
    order, other = add_order(myloware_db), add_order(myloware_db)
    add_item(myloware_db, order, content="old")
    myloware_db.execute_sql(sql.format(order=order, other=other))
    query = """
        SELECT o.open_items - count(i.id) FROM work_orders AS o LEFT JOIN work_items AS i ON i.work_order_id = o.id
        GROUP BY o.id
        """

    assert [(0,), (0,)] == myloware_db.execute_sql(query).fetchall()


def test_an_order_with_open_items_cannot_be_done(myloware_db: StoreDatabase) -> None:
    """Nobody completes an order by hand while items are open."""
    order = add_order(myloware_db)
    add_item(myloware_db, order, "PROCESSING")
    sql = "UPDATE work_orders SET status = 'COMPLETED' WHERE id = %s"

    refused("work_orders_check", myloware_db.execute_sql, sql, (order,))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["QUEUED", "QUEUED"], ("PENDING", 2, 0)),
        (["QUEUED", "PROCESSING"], ("PROCESSING", 2, 0)),
        (["QUEUED", "COMPLETED"], ("PROCESSING", 1, 0)),
        (["QUEUED", "FAILED"], ("PROCESSING", 1, 1)),
        (["COMPLETED", "COMPLETED"], ("COMPLETED", 0, 0)),
        (["COMPLETED", "FAILED"], ("FAILED", 0, 1)),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_order_follows_the_items_that_come_in(
    myloware_db: StoreDatabase,
    statuses: list[str],
    expected: tuple[str, int, int],
    at_once: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    """Items inserted in any state, in one statement or one by one, give the order its counters and status."""
    order = add_order(myloware_db)
    if at_once:
        myloware_db.execute_sql(
            "INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at)"
            " SELECT 'acme', %s, 'TICKET', 'x', s, CASE WHEN s IN ('COMPLETED', 'FAILED') THEN now() END"
            " FROM unnest(%s::work_item_status[]) AS s",
            (order, statuses),
        )
    else:
        for status in statuses:
            add_item(myloware_db, order, status)

    assert expected == state(myloware_db, order)


def test_an_order_follows_its_items_through_their_life(myloware_db: StoreDatabase) -> None:
    """Each move of an item shows in its order at once."""
    order = add_order(myloware_db)
    first, second = add_item(myloware_db, order), add_item(myloware_db, order)
    seen = [state(myloware_db, order)]
    for item, status in (
        (first, "PROCESSING"),
        (first, "QUEUED"),
        (first, "PROCESSING"),
        (first, "COMPLETED"),
        (second, "PROCESSING"),
        (second, "FAILED"),
    ):
        move_item(myloware_db, item, status)
        seen.append(state(myloware_db, order))

    assert [
        ("PENDING", 2, 0),
        ("PROCESSING", 2, 0),
        ("PROCESSING", 2, 0),
        ("PROCESSING", 2, 0),
        ("PROCESSING", 1, 0),
        ("PROCESSING", 1, 0),
        ("FAILED", 0, 1),
    ] == seen


def test_an_item_added_to_a_finished_order_opens_it_again(myloware_db: StoreDatabase) -> None:
    """More work makes a done order go on."""
    order = add_order(myloware_db)
    add_item(myloware_db, order, "COMPLETED")
    add_item(myloware_db, order)

    assert ("PROCESSING", 1, 0) == state(myloware_db, order)


@pytest.mark.parametrize(
    ("kept", "deleted", "expected"),
    [
        (["QUEUED"], ["QUEUED"], ("PENDING", 1, 0)),
        (["COMPLETED"], ["PROCESSING"], ("COMPLETED", 0, 0)),
        (["FAILED"], ["QUEUED", "QUEUED"], ("FAILED", 0, 1)),
        (["COMPLETED"], ["FAILED"], ("COMPLETED", 0, 0)),
        (["QUEUED"], ["FAILED"], ("PROCESSING", 1, 0)),
        ([], ["QUEUED"], ("PENDING", 0, 0)),
        ([], ["FAILED", "COMPLETED"], ("FAILED", 0, 0)),
    ],
)
def test_an_order_follows_the_items_that_are_deleted(
    myloware_db: StoreDatabase, kept: list[str], deleted: list[str], expected: tuple[str, int, int]
) -> None:
    """What is left decides; an order that lost its last item stays as it was."""
    order = add_order(myloware_db)
    for status in kept:
        add_item(myloware_db, order, status)
    gone = [add_item(myloware_db, order, status) for status in deleted]
    myloware_db.execute_sql("DELETE FROM work_items WHERE id = ANY (%s::uuid[])", (gone,))

    assert expected == state(myloware_db, order)


def test_items_moved_to_another_order_count_there(myloware_db: StoreDatabase) -> None:
    """Moving items by hand leaves both orders with the right counters."""
    one, other = add_order(myloware_db), add_order(myloware_db)
    add_item(myloware_db, one, "COMPLETED")
    moved = [add_item(myloware_db, one, "PROCESSING"), add_item(myloware_db, one, "FAILED")]
    myloware_db.execute_sql("UPDATE work_items SET work_order_id = %s WHERE id = ANY (%s::uuid[])", (other, moved))

    assert ("COMPLETED", 0, 0) == state(myloware_db, one)
    assert ("PROCESSING", 1, 1) == state(myloware_db, other)


def test_an_order_whose_last_item_moves_away_stays_as_it_was(myloware_db: StoreDatabase) -> None:
    """An order without items has not been completed by losing them."""
    one, other = add_order(myloware_db), add_order(myloware_db)
    item = add_item(myloware_db, one)
    myloware_db.execute_sql("UPDATE work_items SET work_order_id = %s WHERE id = %s", (other, item))

    assert ("PENDING", 0, 0) == state(myloware_db, one)
    assert ("PENDING", 1, 0) == state(myloware_db, other)


def test_one_statement_over_many_orders_counts_in_each(myloware_db: StoreDatabase) -> None:
    """A batch that touches several orders leaves each of them right."""
    orders = [add_order(myloware_db) for _ in range(5)]
    for order in orders:
        add_item(myloware_db, order, "PROCESSING")
        add_item(myloware_db, order, "PROCESSING")
    myloware_db.execute_sql("UPDATE work_items SET status = 'COMPLETED', processed_at = now()")

    assert [("COMPLETED", 0, 0)] * 5 == [state(myloware_db, order) for order in orders]


def test_two_sessions_that_finish_the_last_two_items_complete_the_order(myloware_db: StoreDatabase) -> None:
    """Each sees the other's item open; still the order ends, failed when one of them failed."""
    barrier = threading.Barrier(2, timeout=60)

    def finish(item: str, status: str) -> None:
        with myloware_db.atomic():
            myloware_db.execute_sql("SELECT count(*) FROM work_items")
            barrier.wait()
            move_item(myloware_db, item, status)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            order = add_order(myloware_db)
            items = [add_item(myloware_db, order, "PROCESSING") for _ in range(2)]
            list(pool.map(finish, items, ("COMPLETED", "FAILED")))

            assert ("FAILED", 0, 1) == state(myloware_db, order)


def test_sessions_that_finish_items_of_the_same_orders_never_deadlock(myloware_db: StoreDatabase) -> None:
    """Batches that meet in several orders, whatever the order of their items, all go through."""
    orders = [add_order(myloware_db) for _ in range(6)]
    batches = [[add_item(myloware_db, order, "PROCESSING") for order in orders] for _ in range(4)]
    barrier = threading.Barrier(4, timeout=60)

    def finish(batch: list[str]) -> None:
        with myloware_db.atomic():
            barrier.wait()
            myloware_db.execute_sql(
                "UPDATE work_items SET status = 'COMPLETED', processed_at = now() WHERE id = ANY (%s::uuid[])", (batch,)
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(finish, [batch[::-1] if n % 2 else batch for n, batch in enumerate(batches)]))

    assert [("COMPLETED", 0, 0)] * 6 == [state(myloware_db, order) for order in orders]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE {} SET tenant_id = 'other'",
        "DELETE FROM {}",
        "DELETE FROM {} WHERE false",
        "WITH gone AS (DELETE FROM {} RETURNING 1) SELECT count(*) FROM gone",
        "MERGE INTO {0} AS t USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
    ],
)
@pytest.mark.parametrize("table", ["approval_events", "audit_logs"])
def test_what_was_decided_and_done_cannot_be_rewritten(myloware_db: StoreDatabase, table: str, sql: str) -> None:
    """Approvals and the audit trail take new rows, and no statement that changes or deletes one."""
    record_decision(myloware_db, add_item(myloware_db, add_order(myloware_db), "PROCESSING"))
    record_action(myloware_db)

    refused(f"{table}_append_only", myloware_db.execute_sql, sql.format(table))
    ours = "user_id = 'me'" if table == "audit_logs" else "approver_id = 'me'"
    assert [(1,)] == myloware_db.execute_sql(f"SELECT count(*) FROM {table} WHERE {ours}").fetchall()


def test_an_upsert_is_no_way_round(myloware_db: StoreDatabase) -> None:
    """ON CONFLICT DO UPDATE is an update too."""
    row = record_action(myloware_db)
    sql = (
        "INSERT INTO audit_logs (id, tenant_id, user_id, action, resource_type, resource_id)"
        " VALUES (%s, 'acme', 'x', 'x', 'x', 'x') ON CONFLICT (id) DO UPDATE SET action = 'x'"
    )

    refused("audit_logs_append_only", myloware_db.execute_sql, sql, (row,))


def test_approvals_go_with_their_order_and_the_audit_trail_stays(myloware_db: StoreDatabase) -> None:
    """The cascade from a deleted order passes; audit lines outlive everything."""
    order = add_order(myloware_db)
    item = add_item(myloware_db, order, "PROCESSING")
    record_decision(myloware_db, item)
    record_action(myloware_db)
    myloware_db.execute_sql("DELETE FROM work_orders WHERE id = %s", (order,))

    counts = "SELECT (SELECT count(*) FROM approval_events), (SELECT count(*) FROM audit_logs WHERE user_id = 'me')"
    assert (0, 1) == myloware_db.execute_sql(counts).fetchone()


def test_the_owner_may_truncate(myloware_db: StoreDatabase) -> None:
    """TRUNCATE is the owner's right, and how tests are reset."""
    record_decision(myloware_db, add_item(myloware_db, add_order(myloware_db), "PROCESSING"))
    record_action(myloware_db)
    myloware_db.execute_sql("TRUNCATE approval_events, audit_logs")

    counts = "SELECT (SELECT count(*) FROM approval_events), (SELECT count(*) FROM audit_logs WHERE user_id = 'me')"
    assert (0, 0) == myloware_db.execute_sql(counts).fetchone()


def record_decision(db: StoreDatabase, item: str) -> str:
    """Insert an approval."""
    return add(db, "approval_events", work_item_id=item, approver_id="me", decision="APPROVED", policy_version="1")


def record_action(db: StoreDatabase) -> str:
    """Insert an audit line."""
    return add(db, "audit_logs", user_id="me", action="looked", resource_type="order", resource_id="1")


def test_no_row_can_be_attached_to_another_tenants(myloware_db: StoreDatabase) -> None:
    """Every foreign key between tenant-owned tables refuses a parent of another tenant, on insert and on update."""
    order = add_order(myloware_db)
    item = add_item(myloware_db, order)
    connector = add(myloware_db, "connectors", name="c", type="API")
    tool = add(myloware_db, "tools", name="t", connector_id=connector)
    (capability,) = myloware_db.execute_sql(
        "INSERT INTO capabilities (name, scope) VALUES ('read', 's') RETURNING id::text"
    ).fetchone()
    children: dict[str, dict[str, Any]] = {
        "work_items": {"work_order_id": order, "type": "TICKET", "content": "x"},
        "runs": {"work_order_id": order},
        "attempts": {"work_item_id": item, "agent_id": "a"},
        "mem_docs": {"work_item_id": item, "type": "CONTEXT", "content": "x"},
        "approval_events": {
            "work_item_id": item,
            "approver_id": "me",
            "decision": "APPROVED",
            "policy_version": "1",
        },
        "dead_letters": {"work_item_id": item, "source": "s", "event_type": "e", "payload": "{}", "error": "x"},
        "eval_results": {"work_item_id": item, "evaluation_type": "e", "score": 1, "passed": True},
        "tools": {"connector_id": connector, "name": "mine"},
    }

    for table, values in children.items():
        refused(
            f"{table}_{next(iter(values))}_fkey", lambda t=table, v=values: add(myloware_db, t, tenant_id="other", **v)
        )
    grant = "INSERT INTO tool_capabilities (tenant_id, tool_id, capability_id) VALUES ('other', %s, %s)"
    refused("tool_capabilities_tool_id_fkey", myloware_db.execute_sql, grant, (tool, capability))
    stray = add_order(myloware_db, tenant_id="other")
    steal = "UPDATE work_items SET work_order_id = %s WHERE id = %s"
    refused("work_items_work_order_id_fkey", myloware_db.execute_sql, steal, (stray, item))
    rename = "UPDATE work_orders SET tenant_id = 'other' WHERE id = %s"
    refused("work_items_work_order_id_fkey", myloware_db.execute_sql, rename, (order,))


def test_an_item_takes_its_orders_priority_unless_it_has_one(myloware_db: StoreDatabase) -> None:
    """Left out, the priority is the order's; given, it is kept."""
    order = add_order(myloware_db, priority="URGENT")
    items = [add_item(myloware_db, order), add_item(myloware_db, order, priority="LOW")]
    query = "SELECT priority::text FROM work_items WHERE id = %s"

    assert ["URGENT", "LOW"] == [myloware_db.execute_sql(query, (item,)).fetchone()[0] for item in items]


def test_an_item_without_an_order_is_refused_by_its_foreign_key(myloware_db: StoreDatabase) -> None:
    """Where there is no order to inherit from, the error is the foreign key's."""
    nowhere = "00000000-0000-0000-0000-000000000000"

    refused("work_items_work_order_id_fkey", add_item, myloware_db, nowhere)


def test_the_guards_hold_under_any_search_path(myloware_db: StoreDatabase) -> None:
    """A session whose path leads elsewhere keeps the counters too."""
    order = add_order(myloware_db)
    with myloware_db.atomic():
        myloware_db.execute_sql("SET LOCAL search_path = pg_catalog")
        myloware_db.execute_sql(
            "INSERT INTO public.work_items (tenant_id, work_order_id, type, content)"
            " VALUES ('acme', %s, 'TICKET', 'x')",
            (order,),
        )

    assert ("PENDING", 1, 0) == state(myloware_db, order)


@pytest.mark.parametrize("unit", ["abcdef_", "ab-12-", "./", "42@bc", "<!-- "])
def test_no_text_is_parsed_for_longer_than_its_length_deserves(myloware_db: StoreDatabase, unit: str) -> None:
    """The parser looks ahead to the end of a run or of a comment, again for each piece of it; that stays short."""
    with myloware_db.atomic():
        myloware_db.execute_sql("SET LOCAL statement_timeout = '10s'")
        sql = "SELECT content_search(%s) @@ plainto_tsquery('english', 'word')"
        assert [(True,)] == myloware_db.execute_sql(sql, (unit * (100_000 // len(unit)) + " word",)).fetchall()


def test_long_words_comments_and_addresses_are_searched(myloware_db: StoreDatabase) -> None:
    """As words, up to PostgreSQL's 2,046 bytes; beyond that the other words are."""
    sql = "SELECT string_agg(lexeme, ' ' ORDER BY positions[1]) FROM unnest(content_search(%s))"
    for given, expected in (
        ("x" * 255 + " y", "x" * 255 + " y"),
        ("x" * 2046, "x" * 2046),
        ("x" * 3000 + " y", "y"),
        ("<!-- draft -->", "draft"),
        ("john_doe@acme.de abc_def", "john doe acm de abc def abcdef johndo"),
    ):
        assert [(expected,)] == myloware_db.execute_sql(sql, (given,)).fetchall()

"""Claims: which items come first, who shares a batch, and how much of a long queue is read for them."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from uuid_utils.compat import uuid7

from myloware_store import Attempt, InvalidInput, Priority, WorkItem, WorkItemType, WorkOrder
from myloware_store.work.engine import Work, _sql
from myloware_store.work.horizon import Horizon
from myloware_store.work.rows import KNOWN_TYPES
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Claim, Store

INVOICE = {"type": "INVOICE", "content": "invoice"}
TICKET = {"type": "TICKET", "content": "ticket"}
REPORT = {"type": "STATUS_REPORT", "content": "report"}


def submit(store: Store, tenant: str, count: int, item: dict[str, str] = INVOICE, **options: Any) -> None:
    """Submit one order of so many items for a tenant."""
    with store.tenant(tenant):
        store.work.submit([item] * count, **options)


def served(store: Store, n: int, **options: Any) -> dict[str, int]:
    """Claim n items, and tell how many of them each tenant has."""
    return dict(Counter(claim.tenant_id for claim in store.work.claim("agent", n=n, **options)))


@pytest.mark.parametrize("options", [{}, {"fair": True}, {"types": ["INVOICE"]}, {"tenants": ["acme"]}])
def test_an_item_without_tries_left_is_passed_over(myloware: Store, options: dict[str, Any]) -> None:
    """Whoever queued one by hand holds up nobody: those behind it are claimed, and nobody is woken for it."""
    submit(myloware, "acme", 1, max_attempts=1)
    myloware.db.execute_sql("UPDATE work_items SET attempt_count = max_attempts")
    narrowed = {name: value for name, value in options.items() if name != "fair"}
    assert not myloware.work.wait_for_work(0, **narrowed)
    submit(myloware, "acme", 1)
    assert {"acme": 1} == served(myloware, 2, **options)


def test_a_fair_claim_shares_the_batch_among_the_tenants(myloware: Store) -> None:
    """Each tenant has its share, whoever came first with however much; what one leaves goes to the others."""
    submit(myloware, "flood", 50, priority=Priority.URGENT)
    submit(myloware, "few", 2)
    submit(myloware, "some", 20)
    assert {"flood": 12} == served(myloware, 12)
    assert {"flood": 2, "some": 2, "few": 2} == served(myloware, 6, fair=True)
    assert {"flood": 5, "some": 5} == served(myloware, 10, fair=True)


def test_a_fair_claim_leaves_no_place_empty(myloware: Store) -> None:
    """Where the tenants together have less than their shares, the others have the rest; nothing is claimed twice."""
    submit(myloware, "few", 2)
    submit(myloware, "flood", 50)
    submit(myloware, "none", 5, available_at=datetime.now(UTC) + timedelta(hours=1))
    assert {"few": 2, "flood": 28} == served(myloware, 30, fair=True)
    assert {"flood": 22} == served(myloware, 30, fair=True)
    assert {} == served(myloware, 30, fair=True)


def test_fair_claims_of_one_item_are_shared_out_too(myloware: Store) -> None:
    """Nobody waits for a flood to end: of 40 claims hardly ever none is for the other one (2 in 10 ** 12)."""
    submit(myloware, "flood", 100, priority=Priority.URGENT)
    submit(myloware, "patient", 40, priority=Priority.LOW)
    turns = Counter(claim.tenant_id for _ in range(40) for claim in myloware.work.claim("agent", fair=True))
    assert {"flood", "patient"} == set(turns)


def test_a_fair_claim_can_be_narrowed(myloware: Store) -> None:
    """By types, by tenants and by the tenant in force; within a tenant urgent items come first."""
    submit(myloware, "a", 3)
    submit(myloware, "a", 3, TICKET, priority=Priority.HIGH)
    submit(myloware, "b", 3, TICKET)
    submit(myloware, "c", 3)
    assert {"a": 1, "b": 1} == served(myloware, 2, fair=True, types=["TICKET"])
    assert {"a": 1, "c": 1} == served(myloware, 2, fair=True, tenants=["a", "c", "nobody"])
    with myloware.tenant("a"):
        claims = myloware.work.claim("agent", n=9, fair=True)
        assert {"a"} == {claim.tenant_id for claim in claims}
        assert ["TICKET"] + ["INVOICE"] * 3 == [claim.type for claim in claims]
        assert [] == myloware.work.claim("agent", fair=True, tenants=["b"])
    with pytest.raises(InvalidInput):
        myloware.work.claim("agent", fair="yes")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("options", [{"types": ["TICKET", "INVOICE"]}, {"tenants": ["a", "b"]}])
def test_a_narrowed_claim_keeps_to_the_order_across_types_and_tenants(myloware: Store, options: Any) -> None:
    """Urgent first, then the oldest, also where the items come from several ranges of an index."""
    for number, (tenant, item, priority) in enumerate(
        [("a", TICKET, "LOW"), ("b", INVOICE, "HIGH"), ("a", INVOICE, "HIGH"), ("b", TICKET, "URGENT")]
    ):
        submit(myloware, tenant, 1, {**item, "content": str(number)}, priority=priority)
    submit(myloware, "c", 2, REPORT, priority=Priority.URGENT)
    claims = [claim for _ in range(2) for claim in myloware.work.claim("agent", n=2, **options)]
    assert ["3", "1", "2", "0"] == [claim.content for claim in claims]


@pytest.mark.parametrize("options", [{"types": []}, {"tenants": []}, {"types": [], "fair": True}])
def test_a_claim_of_no_type_or_tenant_finds_nothing(myloware: Store, options: Any) -> None:
    """An empty list is none, not all."""
    submit(myloware, "a", 1)
    assert [] == myloware.work.claim("agent", n=9, **options)


def test_what_others_hold_is_passed_over(myloware: Store) -> None:
    """While one claim is not yet committed, the next takes the items behind it, narrowed or not."""
    for _ in range(10):
        submit(myloware, "a", 1)
    calls: list[dict[str, Any]] = [{}, {"types": ["INVOICE"]}, {"tenants": ["a"]}, {"fair": True}]
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        taken = myloware.work.claim("first", n=2)
        for options in calls:
            claims = pool.submit(lambda given: myloware.work.claim("second", 2, **given), options).result(60)
            assert 2 == len(claims)
            taken += claims
    assert 10 == len({claim.item_id for claim in taken})


@pytest.mark.parametrize("options", [{}, {"types": ["TICKET", "INVOICE"]}, {"tenants": ["a", "b"]}, {"fair": True}])
def test_what_others_hold_is_passed_over_in_every_range(myloware: Store, options: dict[str, Any]) -> None:
    """Where they hold all that is urgent, or all of a type or tenant, what is less urgent is taken, in its order."""
    submit(myloware, "a", 2, TICKET, priority=Priority.URGENT)
    for tenant, item, priority in [("b", INVOICE, "LOW"), ("a", INVOICE, "HIGH"), ("b", INVOICE, "HIGH")]:
        submit(myloware, tenant, 1, item, priority=priority)
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        assert {"a": 2} == served(myloware, 2)
        for priority in ("HIGH", "HIGH", "LOW"):
            (claim,) = pool.submit(Work(myloware.db).claim, "second", **options).result()
            assert "fair" in options or priority == WorkItem.get_by_id(claim.item_id).priority
        assert [] == pool.submit(Work(myloware.db).claim, "second", **options).result()


@pytest.mark.parametrize("options", [{}, {"types": ["INVOICE"]}, {"tenants": ["a", "b"]}, {"fair": True}])
def test_a_transaction_works_on_what_was_submitted_since_it_began(myloware: Store, options: dict[str, Any]) -> None:
    """All times are those of the statement."""
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        assert [] == myloware.work.claim("agent", **options)
        pool.submit(submit, myloware, "a", 3).result()
        pool.submit(submit, myloware, "b", 1).result()
        claims = myloware.work.claim("agent", 4, **options)
        assert {claim.item_id for claim in claims} == myloware.work.finish(claims, [1] * 4)
        (now,) = myloware.db.execute_sql("SELECT now()").fetchone()
        submit(myloware, "a", 1)
        assert now < WorkItem.get(WorkItem.status == "QUEUED").available_at <= claims[0].lease_expires_at
        myloware.db.execute_sql("DELETE FROM work_items WHERE status = 'QUEUED'")
        myloware.db.execute_sql("DELETE FROM work_orders WHERE status = 'PENDING'")

    for attempt in Attempt.select():
        ends = {claim.lease_expires_at for claim in claims}
        assert {attempt.started_at + timedelta(seconds=60)} == ends
        assert attempt.finished_at is not None
        assert now < attempt.started_at <= attempt.finished_at == attempt.updated_at
    for item in WorkItem.select():
        assert now < item.processed_at == item.updated_at == attempt.finished_at
    assert {item.updated_at} == {order.updated_at for order in WorkOrder.select()}


@pytest.fixture
def mixed(myloware: Store) -> list[Work]:
    """Store items of all kinds in one queue: some at the same time, some later, some out of tries. Give two stores."""
    counts = {"a": 80, "b": 40, "c": 20, "d": 10}
    for tenant in counts:
        submit(myloware, tenant, 1)
    now, draw = datetime.now(UTC), random.Random(5)
    items = [
        {
            "tenant_id": order.tenant_id,
            "work_order": order,
            "type": draw.choice([WorkItemType.TICKET, WorkItemType.INVOICE, WorkItemType.STATUS_REPORT]),
            "content": "x",
            "priority": draw.choice([*Priority]),
            "available_at": now + timedelta(minutes=draw.randint(-7, 1)),
            "attempt_count": draw.choice([0, 0, 0, 0, 0, 1]),
            "max_attempts": 1,
        }
        for order in WorkOrder.select()
        for _ in range(counts[order.tenant_id])
    ]
    WorkItem.insert_many(items).execute()
    return [myloware.work, Work(myloware.db)]


def ready(types: list[str] | None = None, tenants: list[str] | None = None) -> list[WorkItem]:
    """Return the items that can be claimed, in the order of their turns."""
    wanted = [WorkItem.status == "QUEUED", WorkItem.available_at <= datetime.now(UTC), WorkItem.attempt_count == 0]
    wanted += [] if types is None else [WorkItem.type << types]
    wanted += [] if tenants is None else [WorkItem.tenant_id << tenants]
    return [*WorkItem.select().where(*wanted).order_by(WorkItem.priority.desc(), WorkItem.available_at, WorkItem.id)]


TYPES = [None, ["TICKET"], ["INVOICE", "STATUS_REPORT"]]
TENANTS = [None, ["b"], ["a", "nobody", "c"]]


@pytest.mark.parametrize("seed", range(4))
def test_each_claim_takes_the_first_of_what_it_wants(mixed: list[Work], seed: int) -> None:
    """However it is narrowed, exactly those whose turn it is, in the order of their turns, until none is left."""
    draw = random.Random(seed)
    while ready():
        types, tenants, n = draw.choice(TYPES), draw.choice(TENANTS), draw.choice([1, 2, 5, 7, 20])
        first = [item.id for item in ready(types, tenants)[:n]]
        claims = draw.choice(mixed).claim("agent", n, types=types, tenants=tenants)
        assert first == [claim.item_id for claim in claims], (types, tenants, n)
    assert [] == mixed[0].claim("agent", 9)


def test_each_fair_claim_shares_what_it_wants(mixed: list[Work]) -> None:
    """No tenant gets more than its share while others leave none, and each gets its own first ones."""
    draw = random.Random(8)
    while ready():
        types, tenants, n = draw.choice(TYPES), draw.choice(TENANTS), draw.choice([1, 2, 5, 7, 20])
        waiting: dict[str, list[Any]] = {}
        for item in ready(types, tenants):
            waiting.setdefault(item.tenant_id, []).append(item.id)
        claims = mixed[0].claim("agent", n, types=types, tenants=tenants, fair=True)
        turns = [item.id for item in ready_before(claims)]
        assert turns == [claim.item_id for claim in claims]
        taken = Counter(claim.tenant_id for claim in claims)
        assert min(n, sum(map(len, waiting.values()))) == taken.total()
        for tenant, items in waiting.items():
            assert items[: taken[tenant]] == [claim.item_id for claim in claims if claim.tenant_id == tenant]
            share = n // len(waiting)
            assert taken[tenant] >= min(len(items), share)
        share = -(-n // max(len(waiting), 1))
        if all(len(items) >= share for items in waiting.values()) and taken:
            assert max(taken.values()) <= share


def ready_before(claims: list[Claim]) -> list[WorkItem]:
    """Return the claimed items in the order of their turns."""
    these = WorkItem.select().where(WorkItem.id << [claim.item_id for claim in claims])
    return [*these.order_by(WorkItem.priority.desc(), WorkItem.available_at, WorkItem.id)]


@pytest.mark.parametrize(
    "options", [{}, {"types": ["TICKET", "INVOICE"]}, {"tenants": ["a", "b", "c"]}, {"fair": True}]
)
@pytest.mark.parametrize("n", [4, 25])
def test_a_claim_locks_what_it_takes_and_no_more(
    myloware: Store, mixed: list[Work], options: dict[str, Any], n: int
) -> None:
    """Before it is committed, all others are there for the next claim."""
    myloware.db.execute_sql("UPDATE work_orders SET status = 'PROCESSING'")  # or the second claim waits for the first
    left = len(ready(options.get("types"), options.get("tenants"))) - n
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        assert n == len(mixed[0].claim("first", n, **options))
        assert left == len(pool.submit(mixed[1].claim, "second", 1000, **options).result())


def blocks_read(store: Store, statement: str, **values: Any) -> int:
    """Tell how many blocks a claim of five items touches, and put it back."""
    given = {"agent_id": "a", "n": 5, "attempt_ids": [str(uuid7()) for _ in range(5)], "lease": 60.0}
    narrowed = {"types": None, "tenants": None, "fair": False, "known_types": KNOWN_TYPES, "mending": False, **values}
    sql = f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) {statement}"
    with store.db.atomic() as transaction:
        ((found,),) = store.db.execute_sql(sql, {**given, **Horizon().as_parameters(), **narrowed}).fetchall()
        transaction.rollback()
    top = found[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


@pytest.mark.myloware_db(mode="clone")
def test_a_claim_reads_no_more_of_a_long_queue_than_of_a_short_one(myloware: Store) -> None:
    """Whatever waits before and beside what is wanted: other types, other tenants, parked urgent items."""
    calls: list[tuple[str, dict[str, Any]]] = [
        (_sql("claim"), {}),
        (_sql("claim"), {"types": ["TICKET"]}),
        (_sql("claim"), {"tenants": ["a", "b"]}),
        (_sql("claim"), {"fair": True}),
        (_sql("due"), {}),
        (_sql("due_by_type"), {"types": ["TICKET"]}),
        (_sql("due_by_tenant"), {"tenants": ["a", "b"]}),
    ]

    def read() -> list[int]:
        myloware.db.execute_sql("ANALYZE work_items")
        return [blocks_read(myloware, statement, **values) for statement, values in calls]

    later = datetime.now(UTC) + timedelta(days=1)
    for tenant in ("a", "b"):
        submit(myloware, tenant, 20, TICKET)
    short = read()
    for _ in range(4):
        submit(myloware, "c", 1000, priority=Priority.HIGH)
        submit(myloware, "c", 1000, INVOICE, priority=Priority.URGENT, available_at=later)
        submit(myloware, "a", 1000, TICKET, priority=Priority.URGENT, available_at=later)
    long = read()
    assert all(many < few + 100 for few, many in zip(short, long, strict=True)), (short, long)


def entries_read(store: Store, call: Callable[[], Any]) -> int:
    """Tell how many entries of indexes, and rows of tables read as a whole, a call has read."""
    entries = """
        SELECT sum(pg_stat_get_xact_tuples_returned(c.oid)) FROM pg_class AS c
        WHERE c.oid = ANY (%(tables)s::regclass[])
            OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY (%(tables)s::regclass[]))
        """
    tables = {"tables": ["work_items", "work_orders", "attempts"]}
    with store.db.atomic():
        (before,) = store.db.execute_sql(entries, tables).fetchone()
        call()
        (after,) = store.db.execute_sql(entries, tables).fetchone()
    return int(after - before)


@pytest.mark.myloware_db(mode="clone")
@pytest.mark.parametrize("options", [{}, {"types": ["INVOICE"]}, {"tenants": ["a"]}, {"fair": True}])
def test_a_session_that_began_with_an_empty_queue_claims_well_from_a_long_one(myloware: Store, options: Any) -> None:
    """The server keeps a session's plans: those that it made while the tables were empty read little of full ones."""
    work, execute = myloware.work, myloware.db.execute_sql
    execute("VACUUM ANALYZE work_items, work_orders, attempts")
    with myloware.db.unit():
        assert [] == work.claim("agent", **options)
        submit(myloware, "a", 1)
        work.finish(work.claim("agent", **options), [{}])
        for _ in range(300):
            submit(myloware, "a", 2)
            submit(myloware, "a", 2, available_at=datetime.now(UTC) + timedelta(days=1))
            work.finish(work.claim("agent", **options), [{}])
        claims: list[Claim] = []

        def reads_little() -> bool:
            # An ANALYZE that the server does by itself keeps dead entries for as long as it lasts.
            submit(myloware, "a", 4)
            claims[:] = []
            return entries_read(myloware, lambda: claims.extend(work.claim("agent", 4, **options))) < 100

        until(reads_little)
        assert entries_read(myloware, lambda: work.finish(claims, [{}] * 4)) < 100
    assert 4 == len(claims)


@pytest.mark.myloware_db(mode="clone")
@pytest.mark.parametrize("whole", [0, 150], ids=["functions", "statements"])
def test_a_drain_that_began_with_empty_tables_reads_what_it_needs(myloware: Store, whole: int) -> None:
    """No index is read as a whole, and none that has no part in it.

    Those statements that are planned anew each time (fail, release, heartbeat) may read small tables as a whole. An
    index of what is queued or under way holds few rows, but also the entries of what was.
    """
    work, execute = myloware.work, myloware.db.execute_sql
    narrowed: list[dict[str, Any]] = [{}, {"types": ["TICKET"]}, {"tenants": ["a", "b"]}, {"fair": True}]
    # A transaction keeps dead entries for as long as it lasts, such as an ANALYZE that the server does by itself. One
    # in another database does, too: sessions look for their oldest anew when the oldest of the server has ended.
    oldest = """
        SELECT COALESCE(max(GREATEST(age(backend_xmin), age(backend_xid))), 0) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid()
    """
    disturbed = False
    with myloware.db.unit():
        assert [[]] * 4 == [work.claim("agent", **options) for options in narrowed]
        for _ in range(34):
            for tenant in ("a", "b"):
                submit(myloware, tenant, 15, TICKET)
                submit(myloware, tenant, 15, INVOICE, priority=Priority.HIGH)
            for options in narrowed:
                held = work.claim("agent", 6, **options)
                if whole:
                    assert 6 == len(work.heartbeat(held))
                    assert work.release(held[:1])
                    assert work.fail(held[1:3], ["no"] * 2, delay=0)
                    assert work.fail(held[3:4], ["no"], retry=False)
                    held = held[4:]
                _, held = work.finish_and_claim(held, [1] * len(held), "agent", 9, **options)
                assert 9 == len(work.finish(held, [1] * 9))
            disturbed |= execute(oldest).fetchone()[0] > 20
            assert work.index()
            if whole:
                assert {} == work.reap()
        while claims := work.claim("agent", 50):
            work.finish(claims, [1] * len(claims))
        execute("SELECT pg_stat_force_next_flush()")
        tables = "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname = ANY (%s)"
        rows = dict(execute(tables, (["work_items", "work_orders", "attempts", "dead_letters"],)).fetchall())
        indexes = "SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE idx_tup_read > 0"
        entries = {name: count / 2040 for name, count in execute(indexes).fetchall()}

    assert 2040 == WorkItem.select().count()
    assert all(count <= whole * 2040 for count in rows.values()), rows
    assert "work_orders_tenant_status_created_at_idx" not in entries
    # A failure that ends an order asks whether it has items.
    assert entries.pop("work_items_work_order_status_type_idx", 0) <= (1 if whole else 0)
    assert {} == {name: count for name, count in entries.items() if count > (200 if disturbed else 5)}


@pytest.mark.myloware_db(mode="clone")
@pytest.mark.parametrize("options", [{}, {"types": ["INVOICE"]}, {"tenants": ["a"]}])
def test_an_old_snapshot_does_not_make_claims_read_what_was_worked_off(
    myloware: Store, myloware_dsn: str, options: Any
) -> None:
    """Dead entries of the index stay as long as somebody may see them; claims begin behind them."""
    submit(myloware, "a", 1000)
    with closing(psycopg2.connect(myloware_dsn)) as reader, reader.cursor() as report:
        reader.set_session(isolation_level="REPEATABLE READ")
        report.execute("SELECT count(*) FROM work_items")
        for _ in range(9):
            myloware.work.claim("agent", 100, **options)
        read = min(entries_read(myloware, lambda: myloware.work.claim("agent", **options)) for _ in range(20))
    assert read < 100


@pytest.mark.parametrize("options", [{}, {"types": ["INVOICE"]}, {"tenants": ["default"]}])
def test_what_is_given_back_is_found_again(myloware: Store, options: Any) -> None:
    """At once by the store that gives it back, in the end by others, though younger items are ready all the time."""
    mine, others = myloware.work, Work(myloware.db)
    myloware.work.submit([INVOICE] * 1000)
    first, second, *_ = mine.claim("agent", 10, **options)
    third, *_ = others.claim("agent", 10, **options)
    assert mine.release([first])
    assert first.item_id == mine.claim("agent", **options)[0].item_id

    assert mine.release([second])
    until(lambda: second.item_id in {claim.item_id for claim in others.claim("agent", **options)})
    assert others.release([third])
    until(lambda: third.item_id in {claim.item_id for claim in mine.claim("agent", **options)})


@pytest.mark.parametrize("options", [{}, {"types": ["INVOICE"]}, {"tenants": ["default"]}])
def test_a_claim_that_finds_too_few_begins_at_the_front(myloware: Store, options: dict[str, Any]) -> None:
    """At once, though it found some: what another store gave back makes the batch full."""
    mine, others = myloware.work, Work(myloware.db)
    mine.submit([INVOICE] * 3)
    first = others.claim("agent", **options)
    assert mine.claim("agent", **options)
    others.release(first)
    claims = mine.claim("agent", 2, **options)
    assert (2, first[0].item_id) == (len(claims), claims[0].item_id)


def test_what_is_more_urgent_comes_first_wherever_claims_have_come_to(myloware: Store) -> None:
    """Also an item that became ready in the past, stored by the same store."""
    submit(myloware, "a", 50)
    assert 10 == len(myloware.work.claim("agent", 10))
    submit(myloware, "a", 1, TICKET, priority=Priority.URGENT)
    submit(myloware, "a", 1, REPORT, available_at=datetime.now(UTC) - timedelta(days=1))
    assert ["TICKET", "STATUS_REPORT", "INVOICE"] == [claim.type for claim in myloware.work.claim("agent", 3)]


def test_a_claim_that_is_rolled_back_moves_nothing(myloware: Store) -> None:
    """The items are there again for the next one, in their order."""
    submit(myloware, "a", 20)
    with myloware.db.atomic() as transaction:
        claims = myloware.work.claim("agent", 5)
        transaction.rollback()
    assert [claim.item_id for claim in claims] == [claim.item_id for claim in myloware.work.claim("agent", 5)]


@pytest.mark.parametrize("options", [{}, {"types": ["INVOICE"]}, {"tenants": ["default"]}, {"fair": True}])
@pytest.mark.parametrize("first", ["-infinity", "4713-01-01 BC"])
def test_an_item_that_was_put_first_by_hand_is_claimed(myloware: Store, first: str, options: dict[str, Any]) -> None:
    """Whatever time it was given, and wherever claims have come to: also one that Python has no date for."""
    for _ in range(3):
        myloware.work.submit([INVOICE])
    older, taken, younger = [item.id for item in WorkItem.select(WorkItem.id).order_by(WorkItem.id)]
    put = "UPDATE work_items SET available_at = %s WHERE id = %s"
    myloware.db.execute_sql(put, ("2001-01-01", str(taken)))
    assert [taken] == [claim.item_id for claim in myloware.work.claim("agent", **options)]
    for item in (older, younger):
        myloware.db.execute_sql(put, (first, str(item)))
    assert [older, younger] == [claim.item_id for claim in myloware.work.claim("agent", 2, **options)]

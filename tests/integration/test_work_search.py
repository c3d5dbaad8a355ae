"""Work items searched by their content: exact at every moment, whatever is in the index."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import InvalidInput, Store, Worker, WorkItem
from myloware_store.work.engine import _SEARCHING
from tests.conftest import ROUNDS
from tests.integration.conftest import until

if TYPE_CHECKING:
    from uuid import UUID

    from myloware_store.core.results import Claim

# Every item compared, as the index would do it.
SCAN = """
SELECT id FROM work_items WHERE content_matches(content, websearch_to_tsquery('english', %s))
ORDER BY created_at DESC, id DESC
"""


def submit(store: Store, *contents: str, **options: Any) -> list[UUID]:
    """Submit each content as an order of its own, and return the ids of the items."""
    orders = [store.work.submit([{"type": "TICKET", "content": content}], **options) for content in contents]
    return [item.id for order in orders for item in store.work.items(order.id)]


def end(store: Store, *, fail: bool = False) -> list[Claim]:
    """Finish, or fail for good, all that can be claimed."""
    claims = store.work.claim("agent", 1000)
    if fail:
        store.work.fail(claims, ["no luck"] * len(claims), retry=False)
    elif claims:
        store.work.finish(claims, [1] * len(claims))
    return claims


def found(store: Store, q: str, **options: Any) -> list[UUID]:
    """Search, and return the ids."""
    return [item.id for item in store.work.search(q, **options)]


def in_index(store: Store) -> set[UUID]:
    """Return the items that are in the full-text index."""
    query = "SELECT id FROM work_items WHERE searchable AND processed_at IS NOT NULL"
    return {row_id for (row_id,) in store.db.execute_sql(query)}


def test_items_are_found_in_every_state(myloware: Store) -> None:
    """Queued, put off, in progress, parked, held by hand, ended, indexed, replayed; the newest first."""
    (item,) = submit(myloware, "The printer burns")
    submit(myloware, "Nothing of interest")
    assert [item] == found(myloware, "printers burning")
    (held, _) = myloware.work.claim("agent", 2)
    assert item == held.item_id
    assert [item] == found(myloware, "printer")
    myloware.work.finish([held], [1], gate=True)
    assert [item] == found(myloware, "printer")
    myloware.approvals.decide(item, approver_id="kim", decision="APPROVED", policy_version="1")
    assert [item] == found(myloware, "printer")
    assert 1 == myloware.work.index()
    assert {item} == in_index(myloware)
    (stored,) = myloware.work.search("printer")
    assert myloware.work.items(stored.work_order_id) == [stored]
    assert ("The printer burns", "COMPLETED", 1, True) == (
        stored.content,
        stored.status,
        stored.result,
        stored.searchable,
    )
    (by_hand,) = submit(myloware, "A second printer")
    WorkItem.update(status="PROCESSING").where(WorkItem.id == by_hand).execute()
    assert [by_hand, item] == found(myloware, "printer")
    assert [by_hand] == found(myloware, "printer", limit=1)


def test_queries_are_read_as_by_memory(myloware: Store) -> None:
    """Of all three kinds, in the index or not."""
    fee, order, burns = submit(
        myloware, "The late fee is five percent", "An order of fees, too late", "abc_def burns john_doe@acme.de"
    )
    for indexed in range(2):
        assert {fee, order} == set(found(myloware, "fees late"))
        assert [fee] == found(myloware, '"late fee"')
        assert [fee] == found(myloware, "late fee", match="phrase")
        assert [burns, fee] == found(myloware, "burns percent", match="any")
        assert [burns, fee] == found(myloware, "burn or percent")
        assert [order] == found(myloware, "fee -percent")
        assert [burns] == found(myloware, "-fee")
        for q in ("abc_def", "def", "john_doe@acme.de", "-fee abc_def", "-ab_cd -fee"):
            assert [burns] == found(myloware, q)
        assert [order, fee] == found(myloware, "-abc_def")
        assert [order, fee] == found(myloware, "-_abc")
        for q in ("def_abc", "the of", "", '"', "%s %(k)s {}", "\\ \\' :* & | ! ( ) <-> <2>"):
            assert [] == found(myloware, q)
        end(myloware)
        assert (0 if indexed else 3) == myloware.work.index()


@pytest.mark.parametrize("options", [{"q": "a\x00b"}, {"q": None}, {"limit": 0}, {"limit": True}, {"match": "all"}])
def test_bad_searches_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """One typed error each."""
    with pytest.raises(InvalidInput):
        myloware.work.search(**{"q": "late", **options})
    with pytest.raises(InvalidInput):
        myloware.work.index(0)


def test_a_tenant_finds_and_indexes_its_own(myloware: Store) -> None:
    """In each part of the union."""
    ids: dict[str, list[UUID]] = {"acme": [], "globex": []}
    for step in range(4):
        for tenant, own in ids.items():
            with myloware.tenant(tenant):
                own[:0] = submit(myloware, f"printer {step}")
                if step < 3:
                    claims = myloware.work.claim("agent")
                    if step < 2:
                        myloware.work.finish(claims, [1])
                    if step < 1:
                        assert 1 == myloware.work.index()
    assert 8 == len(found(myloware, "printer"))
    for tenant, own in ids.items():
        with myloware.tenant(tenant):
            assert own == found(myloware, "printer")
    assert {ids["acme"][3], ids["globex"][3]} == in_index(myloware)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_replay_takes_an_item_out_of_the_index(myloware: Store, by_hand: bool) -> None:  # noqa: FBT001
    """It is found all the same, and indexed again when it has ended again."""
    (item,) = submit(myloware, "The printer burns")
    end(myloware, fail=True)
    assert 1 == myloware.work.index()
    if by_hand:
        myloware.db.execute_sql("UPDATE dead_letters SET replayed_at = now(), replayed_by = 'kim'")
        sql = "UPDATE work_items SET status = 'QUEUED', processed_at = NULL, max_attempts = 9 WHERE id = %s"
        myloware.db.execute_sql(sql, (item,))
    else:
        myloware.dead_letters.replay([letter.id for letter in myloware.dead_letters.list()], by="kim")
    assert set() == in_index(myloware)
    assert [item] == found(myloware, "printer")
    end(myloware)
    assert [item] == found(myloware, "printer")
    myloware.work.index()
    assert ([item], {item}) == (found(myloware, "printer"), in_index(myloware))


def test_indexing_changes_nothing_else(myloware: Store) -> None:
    """Not the times, not the order, no counter."""
    (item,) = submit(myloware, "The printer burns")
    end(myloware)
    before = WorkItem.get_by_id(item)
    order = myloware.work.get(before.work_order_id).__data__
    assert 1 == myloware.work.index()
    after = WorkItem.get_by_id(item)
    assert {**before.__data__, "searchable": True} == after.__data__
    assert order == myloware.work.get(before.work_order_id).__data__
    after.result = 2
    after.save()
    assert {item} == in_index(myloware)


def test_a_mebibyte_of_different_words_is_found_by_each(myloware: Store) -> None:
    """Beyond what a tsvector holds: all words, excluded ones, and phrases, before and after it is indexed."""
    content = "example.com/it's " + " ".join(f"w{number}" for number in range(140_000))
    (item,) = submit(myloware, content)
    assert [item] == found(myloware, '"w8 w9" "w8001 w8002" w139999 -w140000 example.com/it\'s')
    assert [] == found(myloware, '"w9 w8" or "w8 w4001" or w0 -w139999')
    end(myloware)
    myloware.work.index()
    assert {item} == in_index(myloware)
    assert [item] == found(myloware, "unknown or w139999")
    assert [] == found(myloware, "-w139999")


def test_an_edited_content_is_found_by_its_new_words(myloware: Store) -> None:
    """In the index, too, and if it has become too long for it."""
    (item,) = submit(myloware, "The printer burns")
    end(myloware)
    myloware.work.index()
    for content in ("A fax", " ".join(f"w{number}" for number in range(140_000))):
        WorkItem.update(content=content).where(WorkItem.id == item).execute()
        assert [[item], []] == [found(myloware, content.split()[-1]), found(myloware, "printer")]
    assert {item} == in_index(myloware)


def test_a_batch_ends_after_a_megabyte(myloware: Store) -> None:
    """So that no transaction takes long; the items that ended first come first."""
    ids = submit(myloware, *[f"{n} " + "long " * 120_000 for n in range(3)], "short")
    for _ in range(4):
        myloware.work.finish(myloware.work.claim("agent"), [1])
    assert 2 == myloware.work.index()
    assert set(ids[:2]) == in_index(myloware)
    assert (1, 1, 0) == (myloware.work.index(1), myloware.work.index(), myloware.work.index())


def test_two_indexers_share_the_items(myloware: Store) -> None:
    """Neither waits for the other, and nothing is indexed twice."""
    submit(myloware, *(f"printer {n}" for n in range(30)))
    end(myloware)
    with ThreadPoolExecutor(1) as other, myloware.db.atomic():
        assert 10 == myloware.work.index(10)
        assert 20 == other.submit(myloware.work.index).result()
    assert 0 == myloware.work.index()
    assert 30 == len(in_index(myloware))


def test_a_worker_indexes_what_has_ended(myloware: Store) -> None:
    """By itself, whoever ended it."""
    submit(myloware, "The printer burns")
    end(myloware)
    (item,) = submit(myloware, "A second printer")
    worker = Worker(myloware, lambda _: 1, reap_every=0.05)
    with ThreadPoolExecutor(1) as other:
        running = other.submit(worker.run)
        try:
            until(lambda: running.done() or 2 == len(in_index(myloware)))
        finally:
            worker.stop()
        assert 1 == running.result().finished
    assert item in in_index(myloware)


def test_how_far_indexing_lags_is_told(myloware: Store) -> None:
    """The items that have ended and are not indexed, of the tenant in force, and the age of the first; up to 10,000."""
    for tenant in ("acme", "globex"):
        with myloware.tenant(tenant):
            submit(myloware, "The printer burns", "A fax")
    end(myloware)
    (item,) = myloware.work.search("printer", limit=1)
    with myloware.tenant("acme"):
        myloware.work.index(1)
        assert 1 == myloware.work.stats().unindexed
    hours = "UPDATE work_items SET processed_at = now() - interval '2 hours' WHERE id = %s"
    myloware.db.execute_sql(hours, (item.id,))
    stats = myloware.work.stats()
    assert (3, 7200) == (stats.unindexed, round(stats.oldest_unindexed_seconds or 0, -2))
    myloware.work.index()
    assert (0, None) == (myloware.work.stats().unindexed, myloware.work.stats().oldest_unindexed_seconds)
    sql = """
        INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at)
        SELECT tenant_id, work_order_id, type, 'x', 'COMPLETED', now() FROM work_items, generate_series(1, 3000)
        """
    myloware.db.execute_sql(sql)
    assert 10_000 == myloware.work.stats().unindexed


@pytest.mark.parametrize("rows", [0, 3000])
def test_each_part_has_its_index(myloware: Store, rows: int) -> None:
    """Neither an empty nor a full table is read as a whole."""
    submit(myloware, "printer")
    (order_id,) = myloware.db.execute_sql("SELECT id FROM work_orders").fetchone()
    sql = """
        INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at, searchable)
        SELECT 'default', %s, 'TICKET', 'common word' || n, 'COMPLETED', now(), n > 10 FROM generate_series(1, %s) AS n
        """
    myloware.db.execute_sql(sql.replace("'default'", "(SELECT tenant_id FROM work_orders)"), (order_id, rows))
    if rows:
        myloware.db.execute_sql("ANALYZE work_items, work_orders")
    (body,) = myloware.db.execute_sql("SELECT prosrc FROM pg_proc WHERE proname = 'search_work_items'").fetchone()
    (statement,) = re.findall(r"RETURN QUERY\n( +WITH RECURSIVE.*LIMIT most);", body, re.DOTALL)
    for parameter, value in (("query", "'printer'::tsquery"), ("most", "100"), ("of_tenant", "NULL::text")):
        statement = re.sub(rf"\b{parameter}\b", value, statement)
    explained = myloware.db.execute_tuned(_SEARCHING, f"EXPLAIN {statement}")
    plan = "\n".join(line for (line,) in explained)
    for name in (
        "work_items_content_fts_idx",
        "work_items_unindexed_idx",
        "work_items_claim_",
        "work_orders_tenant_",  # with more than this one order, the one that has the status
        "work_items_work_order_status_type_idx",
    ):
        assert name in plan, plan
    assert "Seq Scan" not in plan


def test_analyze_parses_no_content(myloware: Store) -> None:
    """It would take minutes of the server's time for the sample of a table with long contents."""
    submit(myloware, *(f"printer {n}" for n in range(30)))
    end(myloware)
    myloware.work.index()
    myloware.db.execute_sql("ANALYZE work_items")
    query = "SELECT count(*) FROM pg_statistic WHERE starelid = 'work_items_content_fts_idx'::regclass"
    assert [(0,)] == myloware.db.execute_sql(query).fetchall()


def disturb(store: Store, step: int) -> None:
    """Do something to the work, another thing each time."""
    claims = store.work.claim("agent", 3)
    match step % 5:
        case 0:
            latest = store.work.search("fax", limit=1)
            submit(store, f"fax {step}", *(f"printer {each} burns" for each in range(3)))
            store.work.release(claims)
            for item in latest:
                store.work.cancel(item.work_order_id)
        case 1 | 2:
            store.work.finish(claims, [1] * len(claims), gate=step % 10 == 1)
        case 3:
            store.work.fail(claims, ["no luck"] * len(claims), retry=step % 2 == 0, delay=0)
        case 4:
            letters = store.dead_letters.list(limit=2)
            store.dead_letters.replay([letter.id for letter in letters], by="kim")
            store.work.fail(claims, ["no luck"] * len(claims), retry=False)
    store.work.index(3)


def test_searches_are_exact_under_work(myloware: Store) -> None:
    """Equal to a scan in the same snapshot, while others submit, claim, finish, fail, replay, cancel and index."""
    over = False

    def work(step: int) -> None:
        while not over:
            disturb(myloware, step)
            step += 1

    with ThreadPoolExecutor(3) as others:
        workers = [others.submit(work, step) for step in range(3)]
        try:
            until(lambda: in_index(myloware))
            for _ in range(6 * ROUNDS):
                for q in ("printer", "fax or 2", 'burns -"2"', "-printer", '"1 burns"'):
                    with myloware.db.atomic():
                        myloware.db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                        expected = [row_id for (row_id,) in myloware.db.execute_sql(SCAN, (q,))]
                        assert expected == found(myloware, q, limit=100_000)
        finally:
            over = True
        for worker in workers:
            worker.result()
    assert len(found(myloware, "printer or fax", limit=100_000)) == WorkItem.select().count() > 0

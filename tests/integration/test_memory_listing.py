"""Documents listed and counted without a query: every one of them once, whatever others write meanwhile."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from myloware_store import InvalidInput, MemDoc, MemoryDoc, Store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOC: dict[str, Any] = {"type": "CONTEXT", "content": "x"}


def stored(store: Store, n: int) -> None:
    """Store documents of four moments, in two tenants."""
    for tenant in ("acme", "globex"):
        with store.tenant(tenant):
            store.memory.upsert([{**DOC, "metadata": {"n": i}} for i in range(n)])
    store.db.execute_sql(
        "UPDATE mem_docs SET created_at = %(noon)s - interval '1 hour' * mod(uuid_hash(id), 4),"
        " updated_at = %(noon)s + interval '1 hour' * mod(uuid_hash(id), 4)",
        {"noon": NOON},
    )


def pages(store: Store, **options: Any) -> list[MemoryDoc]:
    """List everything in pages."""
    found: list[MemoryDoc] = []
    while page := store.memory.list(after=found[-1] if found else None, **options):
        assert len(page) <= options["limit"]
        found += page
    return found


@pytest.mark.parametrize("order_by", ["created_at", "-created_at", "updated_at", "-updated_at"])
@pytest.mark.parametrize("tenant", [None, "acme"])
def test_pages_hold_everything_in_order(myloware: Store, order_by: Any, tenant: str | None) -> None:
    """In both directions, under a filter and a tenant, if many have the same time; a count says how many."""
    stored(myloware, 12)
    column = order_by.removeprefix("-")
    for filter_, keep in ((None, 12), ({"metadata.n": {"lt": 5}}, 5)):
        docs = [doc for doc in MemDoc.select() if doc.metadata["n"] < keep and tenant in (None, doc.tenant_id)]
        docs.sort(key=lambda doc: (getattr(doc, column), doc.id), reverse=order_by.startswith("-"))
        for limit in (1, 5, 100):
            if tenant is None:
                found = pages(myloware, filter=filter_, order_by=order_by, limit=limit)
            else:
                with myloware.tenant(tenant):
                    found = pages(myloware, filter=filter_, order_by=order_by, limit=limit)
                    assert keep == myloware.memory.count(filter_)
            assert [doc.id for doc in docs] == [doc.id for doc in found]
    assert 24 == myloware.memory.count()


@pytest.mark.parametrize("order_by", ["created_at", "-created_at"])
def test_pages_hold_while_others_write(myloware: Store, order_by: Any) -> None:
    """What exists throughout comes once; the last one of a page may be changed, or gone, before the next."""
    rng = random.Random(7)
    kept = set(myloware.memory.upsert([DOC] * 30))
    others = myloware.memory.upsert([DOC] * 30)
    myloware.db.execute_sql("UPDATE mem_docs SET created_at = created_at - interval '1 s' * mod(uuid_hash(id), 9)")
    found: list[UUID] = []
    after: Any = None
    while page := myloware.memory.list(order_by=order_by, after=after, limit=7):
        found += [doc.id for doc in page]
        after = (page[-1].created_at.isoformat(), str(page[-1].id)) if rng.random() < 0.5 else page[-1]
        myloware.memory.delete([others.pop(rng.randrange(len(others))), *{page[-1].id} - kept])
        myloware.memory.update(rng.choice(sorted(kept)), metadata={"changed": True})
        myloware.memory.update(rng.choice(sorted(kept)), content="changed")
        others = [doc_id for doc_id in others if doc_id != page[-1].id]
        myloware.memory.upsert([DOC, DOC] if len(found) < 60 else [])
    assert len(set(found)) == len(found)
    assert kept <= set(found)


def test_expired_documents_are_neither_listed_nor_counted(myloware: Store) -> None:
    """Those that expire later are."""
    expiries = (NOON - timedelta(days=3000), NOON + timedelta(days=30_000), None)
    ids = myloware.memory.upsert([{**DOC, "expires_at": time} for time in expiries])
    assert ids[1:] == [doc.id for doc in myloware.memory.list()]
    assert 2 == myloware.memory.count() == myloware.memory.count({"type": "CONTEXT"})


def test_equality_on_lists_is_told_here_too(myloware: Store) -> None:
    """As in searches."""
    myloware.memory.upsert([{**DOC, "metadata": {"tags": ["a"]}}])
    for call in (myloware.memory.list, myloware.memory.count):
        with pytest.warns(UserWarning, match="contains"):
            assert not call({"metadata.tags": "a"})


@pytest.mark.parametrize("column", ["created_at", "updated_at"])
@pytest.mark.parametrize("tenant", [None, "acme"])
def test_an_index_serves_the_order(
    myloware: Store, monkeypatch: pytest.MonkeyPatch, column: Any, tenant: str | None
) -> None:
    """Nothing is sorted, and the entries of other tenants are passed over in the index."""
    stored(myloware, 1)
    plans: list[str] = []
    execute = myloware.db.execute_sql

    def explained(sql: str, values: Any, **options: Any) -> Any:
        plans.extend(line for (line,) in execute(f"EXPLAIN {sql}", values))
        return execute(sql, values, **options)

    with myloware.db.atomic():
        execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
        monkeypatch.setattr(myloware.db, "execute_sql", explained)
        if tenant is None:
            myloware.memory.list(order_by=column, after=(NOON, UUID(int=0)))
        else:
            with myloware.tenant(tenant):
                myloware.memory.list(order_by=column, after=(NOON, UUID(int=0)))
    plan = "\n".join(plans)
    assert f"mem_docs_{column}_idx" in plan
    assert "Sort" not in plan
    (index_condition,) = [line for line in plans if "Index Cond" in line]
    assert "ROW(" in index_condition
    assert (tenant is not None) == ("tenant_id" in index_condition)


@pytest.mark.parametrize(
    "bad",
    [
        {"order_by": "content"},
        {"order_by": None},
        {"after": NOON},
        {"after": "2026"},
        {"after": (NOON,)},
        {"after": (NOON, "no-uuid")},
        {"after": (NOON.replace(tzinfo=None), UUID(int=1))},
        {"limit": 0},
        {"filter": []},
    ],
)
def test_bad_listings_are_refused(myloware: Store, bad: dict[str, Any]) -> None:
    """By one typed error."""
    with pytest.raises(InvalidInput):
        myloware.memory.list(**bad)

"""The forms of Peewee's manual on a real database: what its users expect works."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from peewee import DQ, EXCLUDED, JOIN, PREFETCH_TYPE, Case, Expression, Tuple, Value, Window, fn, prefetch
from playhouse.shortcuts import dict_to_model, model_to_dict, update_model_from_dict

from myloware_store import (
    DIMENSIONS,
    AuditLog,
    Capability,
    Connector,
    MemDoc,
    Priority,
    Tool,
    ToolCapability,
    WorkItem,
    WorkOrder,
)

if TYPE_CHECKING:
    from myloware_store import Store
    from myloware_store.db.database import StoreDatabase

pytestmark = pytest.mark.usefixtures("myloware_db")


@pytest.fixture
def orders() -> list[WorkOrder]:
    """Three orders, the first with two items, the second with one."""
    made = [WorkOrder.create(created_by=name, metadata={"n": n}) for n, name in enumerate(("ann", "bob", "cas"))]
    for n, content in ((0, "one"), (0, "two"), (1, "three")):
        WorkItem.create(work_order=made[n], type="INVOICE", content=content)
    MemDoc.create(work_item=WorkItem.get(content="one"), type="CONTEXT", content="late", embedding=np.ones(DIMENSIONS))
    return made


class Statements:
    """Counts the statements of a block."""

    def __init__(self, database: StoreDatabase) -> None:
        self.hooks: list[Any] = database.query_hooks
        self.count = 0

    def __enter__(self) -> Self:
        self.hooks.append(self.seen)
        return self

    def __exit__(self, *_error: object) -> None:
        self.hooks.remove(self.seen)

    def seen(self, *_statement: object) -> None:
        """Count one."""
        self.count += 1


def test_joins_make_instances(myloware_db: StoreDatabase, orders: list[WorkOrder]) -> None:
    """Both sides of a join are there after one statement, and can be saved."""
    with Statements(myloware_db) as seen:
        joined = list(WorkItem.select(WorkItem, WorkOrder).join(WorkOrder).order_by(WorkItem.created_at))
        assert [("one", "ann"), ("two", "ann"), ("three", "bob")] == [
            (i.content, i.work_order.created_by) for i in joined
        ]
    assert 1 == seen.count
    joined[2].work_order.workflow_id = "w"
    assert (1, 0) == (joined[2].work_order.save(), joined[2].save())
    assert "w" == WorkOrder.get_by_id(orders[1].id).workflow_id
    outer = (
        WorkOrder.select(WorkOrder, WorkItem).join(WorkItem, JOIN.LEFT_OUTER, attr="item").where(WorkItem.id.is_null())
    )
    assert [orders[2]] == list(outer)
    named: Any = (
        MemDoc.select(MemDoc, WorkItem).join(WorkItem, on=(MemDoc.work_item == WorkItem.id).alias("about")).get()
    )
    assert ("late", "one") == (named.content, named.about.content)
    counted = WorkItem.select(WorkItem.work_order.alias("key"), fn.COUNT(WorkItem.id).alias("n")).group_by(
        WorkItem.work_order
    )
    sums = WorkOrder.select(WorkOrder, counted.c.n).join(counted, on=WorkOrder.id == counted.c.key).objects()
    assert {"ann": 2, "bob": 1} == {row.created_by: row.n for row in sums}
    assert 2 == WorkItem.select().join(WorkOrder).where(WorkItem.work_order.created_by == "ann").count()


def test_prefetch_takes_a_statement_for_each_model(myloware_db: StoreDatabase, orders: list[WorkOrder]) -> None:
    """Children and children's children, in both ways that Peewee has, without embeddings."""
    for way in (PREFETCH_TYPE.WHERE, PREFETCH_TYPE.JOIN):
        with Statements(myloware_db) as seen:
            rows = prefetch(WorkOrder.select().order_by(WorkOrder.created_by), WorkItem, MemDoc, prefetch_type=way)
            tree = [[(i.content, [d.content for d in i.mem_docs]) for i in row.items] for row in rows]
        assert [[("one", ["late"]), ("two", [])], [("three", [])], []] == [sorted(branch) for branch in tree]
        assert 3 == seen.count
        (doc,) = (doc for item in rows[0].items for doc in item.mem_docs)
        assert "embedding" not in doc.__data__


def test_rows_in_every_shape(orders: list[WorkOrder]) -> None:
    """Dictionaries, tuples, named tuples and flat objects hold converted values."""
    query = WorkOrder.select(WorkOrder.id, WorkOrder.priority, WorkOrder.metadata["n"].alias("n")).order_by(
        WorkOrder.id
    )
    first = (orders[0].id, Priority.MEDIUM, 0)
    assert dict(zip(("id", "priority", "n"), first, strict=True)) == query.dicts()[0]
    assert first == query.tuples()[0]
    assert first == tuple(query.namedtuples()[0])
    flat = (
        WorkItem.select(WorkItem.content, WorkOrder.created_by).join(WorkOrder).order_by(WorkItem.id).objects().first()
    )
    assert ("one", "ann") == (flat.content, flat.created_by)
    assert Priority.MEDIUM is WorkOrder.select(fn.MIN(WorkOrder.priority)).scalar()
    assert {row.id for row in orders} == set(WorkOrder.select(fn.array_agg(WorkOrder.id)).scalar())
    assert [row.id for row in WorkOrder.raw("SELECT * FROM work_orders ORDER BY id")] == [row.id for row in orders]
    assert 3 == sum(1 for _ in WorkOrder.select().iterator())


def test_aliases_are_models(orders: list[WorkOrder]) -> None:
    """They select, filter, join and convert like the model itself, and leave out the same columns."""
    other = WorkOrder.alias("other")
    assert [orders[1]] == list(other.select().where(other.metadata["n"] == 1, other.priority == "MEDIUM"))
    pairs: Any = WorkOrder.select(WorkOrder, other).join(other, on=WorkOrder.created_by < other.created_by, attr="next")
    assert {("ann", "bob"), ("ann", "cas"), ("bob", "cas")} == {(row.created_by, row.next.created_by) for row in pairs}
    docs = MemDoc.alias()
    for query in (docs.select(), docs.select(docs), MemDoc.select(docs).from_(docs)):
        row = query.get()
        assert {"embedding", "search", "content_hash"}.isdisjoint(row.__data__)
        assert "content" in row.__data__
    read = docs.select(docs.id, docs.embedding.read()).get()
    assert np.array_equal(np.ones(DIMENSIONS), read.__data__["embedding"])


def test_common_tables_windows_and_unions(orders: list[WorkOrder]) -> None:
    """WITH, OVER, UNION, CASE, HAVING and DISTINCT ON."""
    late = WorkOrder.select(WorkOrder.id, WorkOrder.created_by).where(WorkOrder.metadata["n"] > 0).cte("late")
    rows = WorkItem.select(WorkItem.content, late.c.created_by).join(late, on=WorkItem.work_order == late.c.id)
    assert [{"content": "three", "created_by": "bob"}] == list(rows.with_cte(late).dicts())
    by_order = Window(partition_by=[WorkItem.work_order], order_by=[WorkItem.content])
    ranked = WorkItem.select(WorkItem.content, fn.RANK().over(by_order)).window(by_order).order_by(WorkItem.content)
    assert [("one", 1), ("three", 1), ("two", 2)] == list(ranked.tuples())
    union = WorkOrder.select(WorkOrder.created_by) | WorkItem.select(WorkItem.content)
    assert 6 == union.count()
    case = Case(WorkOrder.priority, [(Priority.MEDIUM, "usual"), ("LOW", "later")], "soon")
    assert {"usual"} == {word for (word,) in WorkOrder.select(case).tuples()}
    many = WorkItem.select(WorkItem.work_order).group_by(WorkItem.work_order).having(fn.COUNT(WorkItem.id) > 1)
    assert [orders[0].id] == [row.work_order_id for row in many]
    assert 2 == len(list(WorkItem.select().distinct(WorkItem.work_order)))
    assert (
        2 == WorkOrder.select().where(fn.EXISTS(WorkItem.select().where(WorkItem.work_order == WorkOrder.id))).count()
    )
    after = Tuple(WorkOrder.created_at, WorkOrder.id) > (orders[0].created_at, orders[0].id)
    assert orders[1:] == list(WorkOrder.select().where(after).order_by(WorkOrder.id))
    found = Expression(MemDoc.search, "@@", fn.plainto_tsquery("english", "late"))
    assert 1 == MemDoc.select().where(found).count()


def test_calendar_parts_of_an_instant(myloware_db: StoreDatabase) -> None:
    """Year, month and the others, and the beginnings of days, in UTC whatever the session's time zone."""
    when = datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC)
    order = WorkOrder.create(created_by="a", created_at=when)
    other = WorkOrder.alias()
    with myloware_db.atomic():
        myloware_db.execute_sql("SET LOCAL TimeZone = 'Pacific/Kiritimati'")
        at = WorkOrder.created_at
        assert (2026, 12, 31, 23, 59, 58) == tuple(
            int(part)
            for part in WorkOrder.select(at.year, at.month, at.day, at.hour, at.minute, at.second).tuples().get()
        )
        assert [order] == list(WorkOrder.select().where(at.year == 2026, at.month.in_([11, 12])))
        assert datetime(2026, 12, 1, tzinfo=UTC) == WorkOrder.select(at.truncate("month")).scalar()
        assert when.timestamp() == float(WorkOrder.select(at.to_timestamp()).scalar())
        assert [(2026,)] == [(int(year),) for (year,) in other.select(other.created_at.year).tuples()]


def test_django_style_filters(orders: list[WorkOrder]) -> None:
    """Through foreign keys, with operators, and combined."""
    assert 2 == WorkItem.select().filter(work_order__created_by="ann").count()
    assert 2 == WorkOrder.select().filter(created_by__in=["ann", "bob"]).count()
    assert 3 == WorkItem.select().filter(DQ(work_order__created_by="ann") | DQ(content="three")).count()
    assert 3 == WorkOrder.select().filter(workflow_id=None).count()
    assert orders[0] == WorkOrder.get(WorkOrder.created_by == "ann", priority="MEDIUM")
    assert (True, False) == (orders[0].id in WorkOrder, uuid.uuid4() in WorkOrder)
    assert (3, 2) == (len(WorkOrder), orders[0].items.where(WorkItem.status == "QUEUED").count())


def test_conflicts_are_settled(orders: list[WorkOrder]) -> None:
    """DO NOTHING and DO UPDATE, by column and by constraint, of one row and of many; updated_at moves."""
    made = Capability.create(name="read", scope="a")
    assert Capability.insert(name="read", scope="b").on_conflict_ignore().execute() is None
    by_name = {"conflict_target": [Capability.name]}
    Capability.insert(name="read", scope="b").on_conflict(**by_name, preserve=[Capability.scope]).execute()
    changed = [made, Capability.get_by_id(made.id)]
    Capability.insert(name="read", scope="c").on_conflict(
        conflict_constraint="capabilities_name_key",
        update={"scope": EXCLUDED.scope.concat("!"), Capability.description: "again"},
        where=EXCLUDED.scope != Capability.scope,
    ).execute()
    changed.append(Capability.get_by_id(made.id))
    rows = [{"name": "read", "scope": "z"}, {"name": "write", "scope": "z", "description": "d"}]
    query = Capability.insert_many(rows).on_conflict(conflict_target="name", preserve=("scope", "updated_at"))
    assert [made.id] == [row.id for row in query.returning(Capability).execute()][:1]
    changed.append(Capability.get_by_id(made.id))
    assert [("a", None), ("b", None), ("c!", "again"), ("z", "again")] == [(c.scope, c.description) for c in changed]
    assert sorted({c.updated_at for c in changed}) == [c.updated_at for c in changed]


def test_writes_return_rows(orders: list[WorkOrder]) -> None:
    """INSERT, UPDATE and DELETE give back instances, which save, or any other shape."""
    (made,) = WorkOrder.insert(created_by="dan").returning(WorkOrder).execute()
    made.workflow_id = "w"
    assert 1 == made.save()
    (changed,) = WorkOrder.update(priority="LOW").where(WorkOrder.id == made.id).returning(WorkOrder).execute()
    assert (Priority.LOW, "w", 0) == (changed.priority, changed.workflow_id, changed.save())
    gone = WorkOrder.delete().where(WorkOrder.id == made.id).returning(WorkOrder.created_by).tuples().execute()
    assert [("dan",)] == list(gone)
    (doc,) = MemDoc.insert(type="CONTEXT", content="x", embedding=np.ones(DIMENSIONS)).returning(MemDoc).execute()
    assert np.array_equal(np.ones(DIMENSIONS), doc.embedding)
    assert 2 == Capability.insert_many([{"name": n, "scope": "s"} for n in "ab"]).as_rowcount().execute()
    columns = [AuditLog.tenant_id, AuditLog.user_id, AuditLog.action, AuditLog.resource_type, AuditLog.resource_id]
    source = WorkOrder.select(
        WorkOrder.tenant_id, WorkOrder.created_by, Value("a"), Value("b"), WorkOrder.id.cast("text")
    )
    AuditLog.insert_from(source, columns).execute()
    assert ["ann", "bob", "cas"] == sorted(row.user_id for row in AuditLog.select().where(AuditLog.action == "a"))
    longest = WorkItem.select(fn.MAX(WorkItem.content)).where(WorkItem.work_order == WorkOrder.id)
    WorkOrder.update(workflow_id=longest).execute()
    moved = WorkItem.update(content=WorkOrder.created_by).from_(WorkOrder)
    moved.where(WorkItem.work_order == WorkOrder.id, WorkItem.content == "one").execute()
    assert ["two", "three", None] == [row.workflow_id for row in WorkOrder.select().order_by(WorkOrder.id)]
    assert ["ann", "three", "two"] == sorted(row.content for row in WorkItem.select())


def test_rows_are_locked(myloware_db: StoreDatabase, orders: list[WorkOrder]) -> None:
    """FOR UPDATE, its variants, and of one side of a join."""

    def free() -> int:
        orders: Any = WorkOrder.select()
        query = orders.for_update("FOR UPDATE SKIP LOCKED")
        with ThreadPoolExecutor(1) as other:
            return other.submit(lambda: len(list(query))).result()

    with myloware_db.atomic():
        assert orders[0] == WorkOrder.select().where(WorkOrder.id == orders[0].id).for_update(nowait=True).get()
        assert 2 == free()
    with myloware_db.atomic():
        list(WorkItem.select(WorkItem, WorkOrder).join(WorkOrder).for_update(of=WorkItem))
        assert 3 == free()


def test_dictionaries_and_back(orders: list[WorkOrder]) -> None:
    """`playhouse.shortcuts` knows the models."""
    item = WorkItem.get(content="one")
    as_dict = model_to_dict(item, backrefs=True, max_depth=1)
    assert ("one", orders[0].id, 1) == (as_dict["content"], as_dict["work_order"]["id"], len(as_dict["mem_docs"]))
    assert "ann" == model_to_dict(item)["work_order"]["created_by"]
    twin = dict_to_model(WorkOrder, {**model_to_dict(orders[0], recurse=False), "id": uuid.uuid4()})
    assert (1, orders[0].metadata) == (twin.save(), WorkOrder.get_by_id(twin.id).metadata)
    update_model_from_dict(orders[0], {"workflow_id": "w", "metadata": {"new": True}})
    assert (1, {"new": True}) == (orders[0].save(), WorkOrder.get_by_id(orders[0].id).metadata)


def test_a_key_of_two_columns(orders: list[WorkOrder]) -> None:
    """Grants are read, changed, counted and deleted by their pair of keys."""
    tool = Tool.create(name="lookup", connector=Connector.create(name="erp", type="API"))
    grant = ToolCapability.create(tool=tool, capability=Capability.create(name="read", scope="erp"))
    key = (tool.id, grant.capability_id)
    assert grant == ToolCapability.get_by_id(key)
    assert grant == ToolCapability[tool, grant.capability]
    assert 1 == ToolCapability.select().where(Tuple(ToolCapability.tool, ToolCapability.capability).in_([key])).count()
    assert 0 == grant.save()
    assert 1 == grant.delete_instance()
    assert 0 == ToolCapability.select().count()


def test_changes_are_told_before_they_are_saved(orders: list[WorkOrder]) -> None:
    """`is_dirty()` and `dirty_fields` know of changes inside JSON."""
    order = WorkOrder.get_by_id(orders[0].id)
    assert (False, []) == (order.is_dirty(), order.dirty_field_names)
    order.metadata["late"] = True
    assert (True, ["metadata"]) == (order.is_dirty(), order.dirty_field_names)
    item = WorkItem(work_order=str(order.id), type="TICKET", content="x")
    assert (order.id, order) == (item.work_order_id, item.work_order)
    item.work_order_id = orders[1].id.hex
    assert orders[1] == item.work_order


def test_get_or_create_races(myloware_db: StoreDatabase) -> None:
    """Of several that make the same row at once, one makes it and the others read it."""
    names = [f"capability {n}" for n in range(10)]
    together = threading.Barrier(4)

    def make(_number: int) -> list[tuple[uuid.UUID, bool]]:
        made = []
        for name in names:
            together.wait()
            row, new = Capability.get_or_create(name=name, defaults={"scope": "s"})
            made.append((row.id, new))
        return made

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(make, range(4)))
    for outcome in zip(*results, strict=True):
        assert (1, 1) == (len({key for key, _ in outcome}), sum(new for _, new in outcome))


def test_get_or_create_keeps_to_the_tenant_that_it_would_write_for(myloware: Store) -> None:
    """Another tenant's row of the same name is not taken for ours."""
    Connector.create(tenant_id="globex", name="mail", type="EMAIL")

    with myloware.tenant("acme"):
        ours, made = Connector.get_or_create(name="mail", defaults={"type": "EMAIL"})
        again, made_again = Connector.get_or_create(name="mail", defaults={"type": "EMAIL"})

    assert ("acme", True, False) == (ours.tenant_id, made, made_again)
    assert ours == again

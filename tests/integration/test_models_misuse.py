"""Models used wrongly on a real database: one typed error each, before SQL, with the data as before."""

from __future__ import annotations

import copy
import functools
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import InvalidInput, MemDoc, NotFound, StoreError, Tool, ToolCapability, WorkItem, WorkOrder
from myloware_store.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.db.database import StoreDatabase

pytestmark = pytest.mark.usefixtures("myloware_db")

Calls = list["Callable[[Any], Any]"]
# What these tests do, a type checker refuses.
Orders: Any = WorkOrder
Items: Any = WorkItem


@pytest.fixture
def order() -> WorkOrder:
    """A stored order."""
    return WorkOrder.create(created_by="intake", metadata={"source": "mail"})


def refused(order: WorkOrder, calls: Calls, error: type[StoreError] = InvalidInput) -> None:
    """Check that each call is refused, and that nothing was written."""
    before = list(WorkOrder.select().order_by(WorkOrder.id).dicts())
    for number, call in enumerate(calls):
        with pytest.raises(error) as refusal:
            call(order)
        assert (number, True) == (number, bool(str(refusal.value)))
    assert before == list(WorkOrder.select().order_by(WorkOrder.id).dicts())


def test_inserts_of_what_is_no_row(order: WorkOrder) -> None:
    """Names that are no fields, names given twice, and things that hold none."""
    refused(
        order,
        [
            lambda _: Orders("intake"),
            lambda _: Orders(statsu="PENDING"),
            lambda _: Orders.insert("x").execute(),
            lambda _: Orders.insert([1]).execute(),
            lambda _: Orders.insert(7).execute(),
            lambda _: Orders.insert({5: 1}).execute(),
            lambda _: Orders.insert({None: 1}).execute(),
            lambda _: Orders.insert({"nope": 1}).execute(),
            lambda _: Orders.insert(save=1).execute(),
            lambda _: Orders.insert({Tool.name: "x"}).execute(),
            lambda _: Orders.insert({"created_by": "a"}, nope=1).execute(),
            lambda _: Items.insert({"work_order": uuid.uuid4(), "work_order_id": uuid.uuid4()}).execute(),
            lambda _: Orders.insert_many(None).execute(),
            lambda _: Orders.insert_many(7).execute(),
            lambda _: Orders.insert_many("rows").execute(),
            lambda _: Orders.insert_many({"created_by": "a"}).execute(),
            lambda _: Orders.insert_many([None]).execute(),
            lambda _: Orders.insert_many([{"created_by": "a"}, ["a"]]).execute(),
            lambda _: Orders.insert_many([{"created_by": "a"}, {"nope": "a"}]).execute(),
            lambda _: Orders.insert_many([("a",)], fields=["nope"]).execute(),
            lambda _: Orders.insert_many([("a", "b")], fields=["created_by"]).execute(),
            lambda _: Orders.insert_many([7], fields=["created_by"]).execute(),
            lambda _: Orders.insert_many(["a"], fields=["created_by"]).execute(),
            lambda _: Orders.insert_many([("a",)], fields=7).execute(),
            lambda _: Orders.insert_many([("a",)], fields=[["created_by"]]).execute(),
            lambda _: Orders.insert_from(Orders.select(Orders.created_by), ["nope"]).execute(),
            lambda _: Orders.insert_from(Orders.select(Orders.created_by), None).execute(),
            lambda _: Orders.replace(created_by="a").execute(),
            lambda _: Orders.replace_many([{"created_by": "a"}]).execute(),
            lambda _: Orders.insert(created_by="a").on_conflict("replace").execute(),
            lambda _: Orders.insert(created_by="a").on_conflict_replace().execute(),
            lambda o: Orders.insert(id=o.id).on_conflict(conflict_target=["id"], update={"nope": 1}).execute(),
            lambda o: Orders.insert(id=o.id).on_conflict(conflict_target=["id"], update=[1]).execute(),
        ],
    )


def test_bulk_writes_of_what_are_no_rows(order: WorkOrder) -> None:
    """Lists that hold something else, batches of no size, fields that are none or the key."""
    refused(
        order,
        [
            lambda _: Orders.bulk_create(None),
            lambda _: Orders.bulk_create(7),
            lambda _: Orders.bulk_create([1]),
            lambda _: Orders.bulk_create([{}]),
            lambda _: Orders.bulk_create([Orders(created_by="a"), Tool(name="x")]),
            *(
                lambda _, size=size: Orders.bulk_create([Orders(created_by="a")], batch_size=size)
                for size in (0, -1, "x", 1.5, True)
            ),
            *(
                lambda o, size=size: Orders.bulk_update([o], ["created_by"], batch_size=size)
                for size in (0, -1, "x", 1.5, True)
            ),
            lambda o: Orders.bulk_update(o, ["created_by"]),
            lambda _: Orders.bulk_update(None, ["created_by"]),
            lambda _: Orders.bulk_update([1], ["created_by"]),
            lambda o: Orders.bulk_update([o], None),
            lambda o: Orders.bulk_update([o], []),
            lambda o: Orders.bulk_update([o], "created_by"),
            lambda o: Orders.bulk_update([o], ["nope"]),
            lambda o: Orders.bulk_update([o], [["created_by"]]),
            lambda o: Orders.bulk_update([o], ["id"]),
            lambda o: Orders.bulk_update([o], [Tool.name]),
            lambda _: ToolCapability.bulk_update([], ["tenant_id"]),
        ],
    )
    assert 0 == WorkOrder.bulk_update([], ["created_by"])
    assert Orders.bulk_create([]) is None


def bulk_update_of(rows: list[WorkOrder], _: WorkOrder) -> int:
    """Update rows, each in a statement of its own."""
    return WorkOrder.bulk_update(rows, ["workflow_id"], batch_size=1)


def test_bulk_update_tells_of_rows_that_are_gone(order: WorkOrder) -> None:
    """Deleted, or never stored: no row at all is updated, and all can be tried again."""
    kept, gone, new = (WorkOrder.create(created_by="a"), WorkOrder.create(created_by="a"), WorkOrder(created_by="a"))
    gone.delete_instance()
    for missing in (gone, new):
        for row in (order, kept, missing):
            row.workflow_id = "w"
        bulk_update = functools.partial(bulk_update_of, [order, kept, missing])
        refused(order, [bulk_update], NotFound)
    assert 2 == WorkOrder.bulk_update([order, kept], ["workflow_id"])
    assert ["w", "w"] == [row.workflow_id for row in WorkOrder.select()]


def test_bulk_update_writes_no_value_that_was_not_read(order: WorkOrder) -> None:
    """An instance of a narrow select has nothing to write for the other columns."""
    (narrow,) = WorkOrder.select(WorkOrder.id, WorkOrder.priority)
    refused(
        order,
        [lambda _: Orders.bulk_update([narrow], ["metadata"]), lambda _: narrow.save(only=["id", "metadata"])],
    )
    narrow.workflow_id = "w"
    assert 1 == WorkOrder.bulk_update([narrow], ["workflow_id"])


def test_one_row_twice_in_a_bulk_update(order: WorkOrder) -> None:
    """The same instance counts once; two instances that disagree are refused."""
    order.workflow_id = "w"
    assert 1 == WorkOrder.bulk_update([order, order], ["workflow_id"])
    other = WorkOrder.get_by_id(order.id)
    other.workflow_id = "v"
    refused(order, [lambda _: Orders.bulk_update([order, other], ["workflow_id"])])


def test_updates_and_saves_of_nothing(order: WorkOrder) -> None:
    """No values, and names of no field."""
    refused(
        order,
        [
            lambda _: Orders.update().execute(),
            lambda _: Orders.update(None).execute(),
            lambda _: Orders.update({}).execute(),
            lambda _: Orders.update([1]).execute(),
            lambda _: Orders.update("x").execute(),
            lambda _: Orders.update(nope=1).execute(),
            lambda _: Orders.update(save=1).execute(),
            lambda _: Orders.update({Tool.name: "x"}).execute(),
            lambda o: Orders.set_by_id(o.id, {"nope": 1}),
            lambda o: o.save(only=["nope"]),
            lambda o: o.save(only="created_by"),
            lambda o: o.save(only=7),
            lambda o: o.save(only=[[]]),
            lambda o: Orders(created_by="a").save(only=[o]),
            lambda o: o.delete_instance(delete_nullable=True),
        ],
    )


def test_reads_by_names_that_are_no_fields(order: WorkOrder) -> None:
    """In every call that takes names."""
    refused(
        order,
        [
            lambda _: Orders.get(nope=1),
            lambda _: Orders.get_or_none(nope=1),
            lambda _: Orders.filter(nope=1),
            lambda _: Orders.filter("nope"),
            lambda _: Orders.select().filter(nope__eq=1),
            lambda _: Items.filter(work_order__nope=1),
            lambda _: Orders.select("created_by"),
            lambda _: Orders.select(Orders.id, "nope"),
            lambda _: Orders.select(None),
            lambda _: Orders.select(1),
            lambda _: Orders.select([Orders.id]),
            lambda _: Orders.get_or_create(nope=1),
            lambda _: Orders.get_or_create(created_by="a", defaults={"nope": 1}),
            lambda _: Orders.get_or_create(created_by="a", defaults="x"),
            lambda _: Orders.get_by_id("no-uuid"),
            lambda _: Orders["no-uuid"],
        ],
    )
    refused(
        order,
        [
            lambda _: Orders.get(1),
            lambda _: Orders.get("nope"),
            lambda _: list(Orders.select().where("nope")),
            lambda _: list(Orders.select().order_by("nope", 1.5)),
            lambda _: list(Orders.select().limit("nope")),
            lambda _: Orders.get_by_id(None),
            lambda _: Orders.delete_by_id("no-uuid"),
        ],
        StoreError,
    )


@pytest.mark.parametrize("model", MODELS)
def test_what_is_not_found_can_be_pickled(model: Any) -> None:
    """Errors travel between processes, as what they are."""
    with pytest.raises(model.DoesNotExist) as missing:
        model.get()
    again = pickle.loads(pickle.dumps(missing.value))
    assert (model.DoesNotExist, str(missing.value)) == (type(again), str(again))


def by_pickle(row: Any) -> Any:
    """Return a copy as another process gets it."""
    return pickle.loads(pickle.dumps(row))


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, by_pickle])
def test_a_copy_is_an_instance_of_its_own(order: WorkOrder, copier: Any) -> None:
    """What is changed in it is not changed in the original, and each saves what is its own."""
    item = WorkItem.create(work_order=order, type="TICKET", content="x")
    doc = MemDoc.create(type="CONTEXT", content="y", work_item=item)
    for row in (order, item, doc):
        assert row == copier(row)
    twin = copier(order)
    twin.workflow_id = "twin"
    assert (None, 0) == (order.workflow_id, order.save())
    assert 1 == twin.save()
    assert "twin" == WorkOrder.get_by_id(order.id).workflow_id
    assert order == copier(item).work_order


def test_a_column_of_a_row_that_is_gone_is_not_found(myloware_db: StoreDatabase) -> None:
    """What is read when it is asked for needs the row."""
    doc = MemDoc.create(type="CONTEXT", content="x")
    MemDoc.delete().execute()
    with pytest.raises(NotFound, match=str(doc.id)):
        _ = doc.search

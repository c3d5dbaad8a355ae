"""The values of instances on a real database: what is changed is stored, and what is stored is in the instance."""

from __future__ import annotations

import copy
import pickle
import uuid
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peewee import fn
from playhouse.shortcuts import update_model_from_dict
from psycopg2.extras import Json

from myloware_store import (
    DIMENSIONS,
    ApprovalEvent,
    Attempt,
    AuditLog,
    AuditSeal,
    Capability,
    Connector,
    DeadLetter,
    EvalResult,
    InvalidInput,
    InvalidVector,
    MemDoc,
    Priority,
    Run,
    Schema,
    Store,
    Tool,
    ToolCapability,
    WorkflowTemplate,
    WorkItem,
    WorkOrder,
)
from myloware_store.core.values import dump_json
from myloware_store.models import MODELS
from tests.conftest import ROUNDS

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

pytestmark = pytest.mark.usefixtures("myloware_db")

MOSCOW = timezone(timedelta(hours=3))
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=MOSCOW)
VECTOR = np.linspace(-1, 1, DIMENSIONS)


def one_of_each() -> list[Any]:
    """A new row of every model, its values in other forms than they are read back in."""
    order = WorkOrder.create(
        id=str(uuid.uuid4()).upper(), created_by="intake", priority="URGENT", status="PENDING", created_at=WHEN
    )
    item = WorkItem.create(work_order=str(order.id), type="INVOICE", content="x", available_at=WHEN, result=("a", 1))
    template = WorkflowTemplate.create(name="t", document_type="INVOICE", workflow_definition={"steps": []})
    connector = Connector.create(name="erp", type="API", last_health_check=WHEN)
    tool = Tool.create(name="lookup", connector=connector.id.hex)
    capability = Capability.create(name="read", scope="erp")
    return [
        order,
        item,
        Attempt.create(work_item=item, agent_id="a", status="FAILED", finished_at=fn.now(), input=("a",), output=None),
        MemDoc.create(type="CONTEXT", content="x", embedding=VECTOR.tolist(), work_item=item.id),
        ApprovalEvent.create(work_item=item, approver_id="kim", decision="APPROVED", policy_version="1"),
        DeadLetter.create(source="s", event_type="e", payload=uuid.UUID(int=1), error="x", work_item=str(item.id)),
        connector,
        tool,
        capability,
        ToolCapability.create(tool=tool.id.hex, capability=str(capability.id)),
        Schema.create(name="n", version="1", document_type="d", schema_definition={}),
        template,
        Run.create(work_order=str(order.id), workflow_template=template.id.hex, started_at=WHEN),
        EvalResult.create(work_item=item, evaluation_type="exactness", score=1, passed=True),
        AuditLog.create(
            user_id="u", action="a", resource_type="t", resource_id="1", ip_address=IPv4Address("10.0.0.1")
        ),
        AuditSeal.create(number=1, epoch=0, last_id=uuid.uuid4(), line_count=1, hash="0"),
    ]


def fields(row: Any) -> dict[str, tuple[type, Any]]:
    """Every field of an instance as it can be compared."""
    values = {field.name: getattr(row, field.safe_name) for field in row._meta.sorted_fields}
    if "embedding" in values:
        values["embedding"] = (values["embedding"].dtype, values["embedding"].tolist())
    return {name: (type(value), value) for name, value in values.items()}


def test_a_new_row_is_what_is_read_back() -> None:
    """Field by field and type by type, over all models."""
    rows = one_of_each()
    assert list(MODELS) == [type(row) for row in rows]
    # The order has counted an item since.
    rows[0] = WorkOrder.create(id=uuid.uuid4().hex, created_by="intake", priority="LOW")
    for row in rows:
        assert fields(type(row).get(row._pk_expr())) == fields(row)


def test_rows_made_in_bulk_are_what_is_read_back(myloware_db: StoreDatabase) -> None:
    """The same for bulk_create, and for save() after a change, in a transaction too."""
    with myloware_db.atomic():
        orders = [WorkOrder(id=uuid.uuid4().hex, created_by="a", priority="LOW", metadata={"n": n}) for n in range(3)]
        WorkOrder.bulk_create(orders)
        docs = [MemDoc(type="CONTEXT", content=str(n), embedding=VECTOR) for n in range(2)]
        MemDoc.bulk_create(docs, batch_size=1)
    orders[0].priority, orders[0].created_at = "URGENT", WHEN
    orders[0].save()
    orders[1].priority = "HIGH"
    WorkOrder.bulk_update(orders, ["priority"])
    for row in (*orders, *docs):
        assert fields(type(row).get_by_id(row.id)) == fields(row)
    assert [0] * 5 == [row.save() for row in (*orders, *docs)]


def test_an_instance_has_its_final_form_from_the_start() -> None:
    """Keys and labels are what they will be, so that instances compare and hash the same before and after."""
    key = uuid.uuid4()
    order = WorkOrder(id=str(key), created_by="a", priority="URGENT")
    before = {order}
    assert (key, Priority.URGENT) == (order.id, order.priority)
    order.save()
    assert order in before
    assert order == WorkOrder.get_by_id(key.hex)


def test_an_expression_is_replaced_by_its_value(myloware_db: StoreDatabase) -> None:
    """What the server calculated is in the instance after save(), and is not calculated again."""
    order = WorkOrder.create(created_by=fn.lower("INTAKE"), metadata=fn.jsonb_build_object("n", 1))
    assert ("intake", {"n": 1}) == (order.created_by, order.metadata)
    order.metadata = WorkOrder.metadata.update({"z": 1})
    order.save()
    assert {"n": 1, "z": 1} == order.metadata
    assert order.save() == 0
    letter = DeadLetter.create(source="s", event_type="e", payload=Json(None), error="JSON's null is none of SQL's")
    assert [letter] == list(DeadLetter.select().where(DeadLetter.payload == Json(None)))
    bulk = [WorkOrder(created_by="a"), WorkOrder(created_by=fn.upper("b"))]
    WorkOrder.bulk_create(bulk)
    assert ["a", "B"] == [row.created_by for row in bulk]
    bulk[0].created_by, bulk[1].metadata = WorkOrder.created_by.concat("+"), cast("Any", Json({}))
    WorkOrder.bulk_update(bulk, ["created_by", "metadata"])
    assert [("a+", {}), ("B", {})] == [(row.created_by, row.metadata) for row in bulk]


@settings(max_examples=100 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1), max_size=20),
    text=st.sampled_from(["1e+16", '"1e+16', '\\"-5.5e+20,\\', "[1e+300]"]),
)
@example(numbers=[5.657032079511973e16, 1e16, 1e22, -1.5e17, 1.7976931348623157e308, 5e-324, -0.0], text="1e+16")
def test_numbers_come_back_equal_and_of_their_type(
    myloware_db: StoreDatabase, numbers: list[float | int], text: str
) -> None:
    """Through jsonb, which keeps digits and no exponent; text beside them stays as it is."""
    value = {text: [text, numbers]}
    ((found,),) = myloware_db.execute_sql("SELECT %s::jsonb", (dump_json(value, "metadata"),)).fetchall()
    assert value == found
    assert [type(number) for number in numbers] == [type(number) for number in found[text][1]]


def test_large_numbers_are_kept_by_rows_and_calls(myloware: Store) -> None:
    """In models, results of work and metadata of documents."""
    value = {"n": 5.657032079511973e16}
    assert value == WorkOrder.get_by_id(WorkOrder.create(created_by="a", metadata=value).id).metadata
    (doc_id,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "metadata": value}])
    (doc,) = myloware.memory.get(doc_id)
    assert value == doc.metadata
    assert [doc_id] == [hit.id for hit in myloware.memory.search_text("x", filter={"metadata.n": value["n"]})]


def test_json_is_watched_after_every_save() -> None:
    """A document that is kept in a variable, and changed in place again and again, is saved each time."""
    given: dict[str, Any] = {"n": [0]}
    order = WorkOrder.create(created_by="a", metadata=given)
    for n in range(1, 4):
        given["n"].append(n)
        assert order.save() == 1
        assert {"n": list(range(n + 1))} == WorkOrder.get_by_id(order.id).metadata
    assert order.save() == 0
    read = WorkOrder.get_by_id(order.id)
    kept = read.metadata
    for n in range(2):
        kept["again"] = n
        assert read.save() == 1
        assert n == WorkOrder.get_by_id(order.id).metadata["again"]


def test_json_is_watched_after_writes_in_bulk() -> None:
    """The same where an instance was stored by bulk_create or bulk_update."""
    kept: dict[str, Any] = {}
    order = WorkOrder(created_by="a", metadata=kept)
    WorkOrder.bulk_create([order])
    kept["a"] = 1
    WorkOrder.bulk_update([order], ["metadata"])
    kept["b"] = 2
    assert order.save() == 1
    assert {"a": 1, "b": 2} == WorkOrder.get_by_id(order.id).metadata


def test_a_change_inside_json_that_is_no_json_is_refused() -> None:
    """By save(), which leaves the row as it was; the instance can be mended."""
    order = WorkOrder.create(created_by="a", metadata={"n": 1})
    order.metadata["n"] = {1, 2}
    with pytest.raises(InvalidInput, match="metadata"):
        order.save()
    order.metadata["n"] = 2
    order.save()
    assert {"n": 2} == WorkOrder.get_by_id(order.id).metadata


def test_an_embedding_cannot_be_changed_in_place() -> None:
    """It is a copy, and read-only in every way to get it, so that no change is lost: a new vector is assigned."""
    given = VECTOR.copy()
    doc = MemDoc.create(type="CONTEXT", content="x", embedding=given)
    given[0] = 7
    at_once = MemDoc.select(MemDoc, MemDoc.embedding.read()).get()
    as_text = MemDoc.select(MemDoc.embedding).get()
    for read in (doc, MemDoc.get(), at_once, as_text, copy.deepcopy(at_once), pickle.loads(pickle.dumps(doc))):
        assert read.embedding is not None
        assert np.array_equal(VECTOR.astype(np.float32), read.embedding)
        with pytest.raises(ValueError, match="read-only"):
            read.embedding[0] = 7
    doc.embedding = given
    assert doc.save() == 1
    changed = MemDoc.get().embedding
    assert changed is not None
    assert 7 == changed[0]
    base = VECTOR.astype(np.float32)
    view = base.view()
    view.flags.writeable = False
    doc = MemDoc.create(type="CONTEXT", content="of a view", embedding=view)
    base[0] = 7
    assert doc.embedding is not None
    assert np.array_equal(VECTOR.astype(np.float32), doc.embedding)


def test_a_bad_embedding_is_refused_where_it_is_assigned() -> None:
    """One typed error, and the instance keeps what it had."""
    doc = MemDoc.create(type="CONTEXT", content="x", embedding=VECTOR)
    with pytest.raises(InvalidVector, match=r"^MemDoc\.embedding"):
        doc.embedding = [1.0, 2.0]
    assert doc.save() == 0
    doc.embedding = None
    doc.save()
    assert MemDoc.get().embedding is None


def test_generated_columns_follow_a_change() -> None:
    """The hash and the tsvector are read anew once the content was saved, or written in bulk."""
    doc = MemDoc.create(type="CONTEXT", content="Late fees")
    seen = [(doc.content_hash, doc.search)]
    doc.content = "Early bird"
    doc.save()
    seen.append((doc.content_hash, doc.search))
    doc.content = "Third time"
    MemDoc.bulk_update([doc], ["content"])
    seen.append((doc.content_hash, doc.search))
    read = MemDoc.get()
    assert (read.content_hash, read.search) == seen[2]
    assert ("'fee':2 'late':1", "'bird':2 'earli':1") == (seen[0][1], seen[1][1])
    assert 3 == len({pair[0] for pair in seen})


def test_only_some_fields_are_saved() -> None:
    """With `only`, the others stay changed, for a new row as for a stored one."""
    order = WorkOrder(created_by="a", workflow_id="later", priority="LOW", metadata={"n": 1})
    order.save(only=["created_by"])
    assert ("a", None, {}) == WorkOrder.select(
        WorkOrder.created_by, WorkOrder.workflow_id, WorkOrder.metadata
    ).tuples().get()
    assert order.save() == 1
    order.created_by, order.workflow_id = "b", "w"
    order.save(only=[WorkOrder.created_by])
    assert ("b", "later") == WorkOrder.select(WorkOrder.created_by, WorkOrder.workflow_id).tuples().get()
    assert ("w", 1) == (order.workflow_id, order.save())
    read = WorkOrder.get_by_id(order.id)
    assert fields(read) == fields(order)


def test_the_key_that_it_has_is_no_change_of_an_instance() -> None:
    """Assigned again, in any form, or named beside other fields."""
    order = WorkOrder.create(created_by="a")
    order.id = str(order.id).upper()
    assert 0 == order.save()
    update_model_from_dict(order, {"id": order.id, "workflow_id": "w"})
    assert 1 == order.save(only=["id", "workflow_id"])
    assert 0 == order.save(only=["id"])
    assert "w" == WorkOrder.get_by_id(order.id).workflow_id


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles", "Europe/Amsterdam"])
def test_every_instant_that_is_taken_can_be_read(myloware_db: StoreDatabase, zone: str) -> None:
    """Whatever the session's time zone, of the years 2 to 9998; others are refused when they are written."""
    first, last = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    items = [WorkOrder.create(created_by=str(when), created_at=when) for when in (first, last)]
    with myloware_db.atomic():
        myloware_db.execute_sql(f"SET LOCAL TimeZone = '{zone}'")
        read = list(WorkOrder.select().order_by(WorkOrder.created_at))
    assert [(row.id, row.created_at) for row in items] == [(row.id, row.created_at) for row in read]
    far = timezone(timedelta(hours=23, minutes=59))
    away = WorkOrder.create(created_by="a", created_at=WHEN.astimezone(far))
    assert WHEN == away.created_at
    for bad in (datetime.min, datetime.max, datetime(1, 12, 31), datetime(9999, 1, 1)):  # noqa: DTZ001, DTZ901
        for offset in (-14, 0, 14):
            with pytest.raises(InvalidInput, match=r"^WorkOrder\.created_at.*2 to 9998"):
                WorkOrder.create(created_by="a", created_at=bad.replace(tzinfo=timezone(timedelta(hours=offset))))

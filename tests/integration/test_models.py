"""The models on a real database: nothing is lost silently."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from peewee import Expression, fn

from myloware_store import (
    DIMENSIONS,
    ApprovalEvent,
    Attempt,
    AuditLog,
    Capability,
    Connector,
    ConstraintViolation,
    EvalResult,
    InvalidInput,
    InvalidVector,
    MemDoc,
    MemDocType,
    NotFound,
    Priority,
    Run,
    Schema,
    Tool,
    ToolCapability,
    WorkflowTemplate,
    WorkItem,
    WorkItemStatus,
    WorkOrder,
)
from myloware_store.db.tenancy import tenant_scope
from myloware_store.models import MODELS

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

pytestmark = pytest.mark.usefixtures("myloware_db")


@pytest.fixture
def order() -> WorkOrder:
    """A stored order of tenant acme."""
    return WorkOrder.create(created_by="intake", tenant_id="acme", metadata={"source": "mail"})


@pytest.fixture
def item(order: WorkOrder) -> WorkItem:
    """A stored item of that order."""
    return WorkItem.create(work_order=order, type="INVOICE", content="Invoice 17, late fee 5 %")


def vector(seed: int) -> Any:
    """A vector of its own for each seed."""
    return np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)


def vector_of(doc: MemDoc) -> Any:
    """The embedding of a document that has one."""
    assert doc.embedding is not None
    return doc.embedding


def test_save_inserts_a_row_that_was_made_here() -> None:
    """A row whose key was made by the client is inserted by save(), where Peewee would update nothing."""
    order = WorkOrder(created_by="intake")
    assert order.save() == 1
    assert [order] == list(WorkOrder.select())


def test_a_new_row_comes_back_with_what_the_server_filled_in(order: WorkOrder) -> None:
    """Times, counters and defaults of the database are there without a second read."""
    read = WorkOrder.get_by_id(order.id)
    assert (read.created_at, 0, 0) == (order.created_at, order.open_items, order.failed_items)
    assert order.created_at.tzinfo is UTC


def test_a_row_with_a_state_shows_it(order: WorkOrder, item: WorkItem) -> None:
    """In its repr(), where it was read; `str()` stays the id."""
    assert (f"<WorkOrder: {order.id} PENDING>", str(order.id)) == (repr(order), str(order))
    assert f"<WorkItem: {item.id} QUEUED>" == repr(item)
    assert f"<WorkItem: {item.id}>" == repr(WorkItem.select(WorkItem.id).get())


def test_save_updates_only_what_changed(order: WorkOrder) -> None:
    """A change by someone else to another column stays."""
    WorkOrder.update(workflow_id="by someone else").where(WorkOrder.id == order.id).execute()
    order.priority = Priority.URGENT
    order.save()
    read = WorkOrder.get_by_id(order.id)
    assert (Priority.URGENT, "by someone else") == (read.priority, read.workflow_id)


def test_save_of_an_unchanged_row_writes_nothing(order: WorkOrder) -> None:
    """Nothing to do is zero rows and no statement's worth of a new updated_at."""
    before = order.updated_at
    assert order.save() == 0
    assert before == WorkOrder.get_by_id(order.id).updated_at


def test_a_change_inside_json_is_saved(order: WorkOrder) -> None:
    """A dictionary changed in place is a change."""
    read = WorkOrder.get_by_id(order.id)
    read.metadata["late"] = True
    assert read.save() == 1
    assert {"source": "mail", "late": True} == WorkOrder.get_by_id(order.id).metadata


def test_every_update_moves_updated_at(order: WorkOrder) -> None:
    """By save(), by a query and in bulk alike, in the row and in the instance."""
    seen = [order.updated_at]
    order.workflow_id = "a"
    order.save()
    seen.append(order.updated_at)
    WorkOrder.update(workflow_id="b").where(WorkOrder.id == order.id).execute()
    seen.append(WorkOrder.get_by_id(order.id).updated_at)
    order.workflow_id = "c"
    WorkOrder.bulk_update([order], ["workflow_id"])
    seen.append(WorkOrder.get_by_id(order.id).updated_at)
    assert sorted(set(seen)) == seen


def test_saving_a_row_that_is_gone_raises(order: WorkOrder) -> None:
    """An update of nothing is an error, not a silence."""
    WorkOrder.delete().where(WorkOrder.id == order.id).execute()
    order.workflow_id = "w"
    with pytest.raises(NotFound, match=str(order.id)):
        order.save()


def test_the_key_of_a_stored_row_stays(order: WorkOrder) -> None:
    """Changing it is refused, and the row is left alone."""
    before = order.id
    order.id = uuid.uuid4()
    with pytest.raises(InvalidInput, match="key"):
        order.save()
    assert [before] == [row.id for row in WorkOrder.select()]


def test_an_unknown_keyword_is_refused() -> None:
    """A typing error does not become an attribute that nobody stores."""
    with pytest.raises(InvalidInput, match="statsu"):
        WorkOrder(statsu="PENDING")
    with pytest.raises(InvalidInput, match="statsu"):
        WorkOrder.insert(statsu="PENDING").execute()
    with pytest.raises(InvalidInput, match="statsu"):
        WorkOrder.update(statsu="PENDING").execute()


def test_insert_many_keeps_uneven_keys(item: WorkItem) -> None:
    """A key that only a later row has is stored there, and is a default elsewhere."""
    rows = [
        {"type": "CONTEXT", "content": "first", "tenant_id": "acme"},
        {"type": "CONTEXT", "content": "second", "metadata": {"n": 2}, "work_item": item},
    ]
    assert len(list(MemDoc.insert_many(rows).execute())) == 2
    stored = [(row.content, row.metadata, row.work_item_id) for row in MemDoc.select().order_by(MemDoc.content)]
    assert [("first", {}, None), ("second", {"n": 2}, item.id)] == stored


def test_insert_many_refuses_what_is_no_row() -> None:
    """Unknown keys, wrong lengths and things that are no mappings are one typed error, before SQL."""
    for rows, fields in (
        ([{"type": "CONTEXT", "content": "x", "colour": "red"}], None),
        ([("CONTEXT",)], [MemDoc.type, MemDoc.content]),
        (["CONTEXT"], None),
    ):
        with pytest.raises(InvalidInput):
            MemDoc.insert_many(rows, fields=fields).execute()
    assert MemDoc.select().count() == 0


def test_insert_many_by_columns() -> None:
    """Tuples with fields work as Peewee has it."""
    MemDoc.insert_many([("CONTEXT", "a"), ("KNOWLEDGE", "b")], fields=[MemDoc.type, MemDoc.content]).execute()
    assert {"a", "b"} == {row.content for row in MemDoc.select()}


def test_bulk_create_fills_the_instances(item: WorkItem) -> None:
    """Every instance is stored, with its tenant and the server's defaults, in batches too."""
    docs = [MemDoc(type="CONTEXT", content=f"passage {n}", work_item=item) for n in range(5)]
    MemDoc.bulk_create(docs, batch_size=2)
    stored = {row.id: (row.content, row.created_at, row.tenant_id) for row in MemDoc.select()}
    assert stored == {doc.id: (doc.content, doc.created_at, "acme") for doc in docs}


def test_bulk_update_of_every_type(item: WorkItem) -> None:
    """UUIDs, foreign keys, enums, vectors, JSON and text change in one statement, as PostgreSQL types them."""
    docs = [MemDoc.create(type="CONTEXT", content=f"passage {n}", tenant_id="acme") for n in range(3)]
    for n, doc in enumerate(docs):
        doc.type, doc.embedding, doc.metadata = MemDocType.KNOWLEDGE, vector(n), {"n": n}
        doc.work_item, doc.content = item if n else None, f"changed {n}"
    MemDoc.bulk_update(docs, ["type", "embedding", "metadata", "work_item", "content"])
    for n, doc in enumerate(docs):
        read = MemDoc.get_by_id(doc.id)
        assert (MemDocType.KNOWLEDGE, {"n": n}, f"changed {n}") == (read.type, read.metadata, read.content)
        assert (item.id if n else None) == read.work_item_id
        assert np.array_equal(vector(n), vector_of(read))
    item.attempt_count, item.available_at, item.current_attempt_id = 1, item.available_at + timedelta(1), uuid.uuid4()
    WorkItem.bulk_update([item], ["attempt_count", "available_at", "current_attempt_id", "awaiting_approval"])
    changed = WorkItem.get_by_id(item.id)
    assert (1, item.available_at, item.current_attempt_id) == (
        changed.attempt_count,
        changed.available_at,
        changed.current_attempt_id,
    )
    template = WorkflowTemplate.create(name="t", document_type="INVOICE", workflow_definition={})
    run = Run.create(work_order=item.work_order_id)
    run.workflow_template = template
    Run.bulk_update([run], ["workflow_template"])
    assert template == Run.get_by_id(run.id).workflow_template


def test_recursive_delete_is_left_to_the_cascade(order: WorkOrder, item: WorkItem) -> None:
    """Peewee's deletion of children by hand is refused; the database takes all that belongs to an order."""
    Attempt.create(work_item=item, agent_id="a")
    ApprovalEvent.create(work_item=item, approver_id="kim", decision="APPROVED", policy_version="1")
    EvalResult.create(work_item=item, evaluation_type="exactness", score=1, passed=True)
    MemDoc.create(work_item=item, type="CONTEXT", content="made for the item")
    standing = MemDoc.create(type="KNOWLEDGE", content="stands alone")
    Run.create(work_order=order)
    with pytest.raises(InvalidInput, match="cascade"):
        order.delete_instance(recursive=True)
    assert WorkItem.select().count() == 1
    assert order.delete_instance() == 1
    left = {model.__name__ for model in MODELS if model.select().exists()}
    assert {"AuditLog", "MemDoc"} == left
    assert [standing] == list(MemDoc.select())


def test_relations_are_named_naturally(order: WorkOrder, item: WorkItem) -> None:
    """Children are found from their parent, and parents from their children."""
    attempt = Attempt.create(work_item=item, agent_id="agent-7")
    connector = Connector.create(name="erp", type="API", tenant_id="acme")
    tool = Tool.create(name="lookup", connector=connector)
    capability = Capability.create(name="read", scope="erp", permissions=["invoice:read"])
    grant = ToolCapability.create(tool=tool, capability=capability)
    assert ([item], [attempt], [tool]) == (list(order.items), list(item.attempts), list(connector.tools))
    assert ([capability], [tool], [grant]) == (list(tool.capabilities), list(capability.tools), list(tool.grants))
    assert order == Attempt.get().work_item.work_order


def test_rows_take_the_tenant_of_their_parent(item: WorkItem) -> None:
    """Given as a row or by its id, in every way to insert; also against the tenant in force."""
    with tenant_scope("elsewhere"):
        Attempt.create(work_item=item, agent_id="a", status="FAILED", finished_at=datetime.now(UTC))
        Attempt.create(work_item=item.id, agent_id="b", attempt_number=2)
        MemDoc.insert(work_item=item.id, type="CONTEXT", content="x").execute()
        MemDoc.insert_many([{"work_item": str(item.id), "type": "CONTEXT", "content": "y"}]).execute()
        MemDoc.bulk_create([MemDoc(work_item=item.id, type="CONTEXT", content="z")])
    assert {"acme"} == {row.tenant_id for model in (Attempt, MemDoc) for row in model.select()}


def test_rows_without_a_parent_take_the_tenant_in_force() -> None:
    """Else the settings' default."""
    with tenant_scope("globex"):
        inside = WorkOrder.create(created_by="a")
    outside = WorkOrder.create(created_by="a")
    assert ("globex", "default") == (inside.tenant_id, outside.tenant_id)


def test_a_row_cannot_hang_on_another_tenants_parent(item: WorkItem) -> None:
    """The composite foreign key refuses it, whatever the code says."""
    with pytest.raises(ConstraintViolation) as refusal:
        Attempt.create(work_item=item, agent_id="a", tenant_id="globex")
    assert ("attempts_work_item_id_fkey", "attempts") == (refusal.value.constraint, refusal.value.table)


def test_an_item_takes_the_priority_of_its_order() -> None:
    """Where it is left out; a given one stands."""
    order = WorkOrder.create(created_by="a", priority="URGENT")
    taken = WorkItem.create(work_order=order, type="TICKET", content="x")
    given = WorkItem.create(work_order=order, type="TICKET", content="x", priority="LOW")
    assert (Priority.URGENT, Priority.LOW) == (taken.priority, given.priority)


def test_embeddings_travel_only_when_asked_for(myloware_db: StoreDatabase) -> None:
    """A plain select leaves them out; reading the attribute fetches it once; read() selects it cheaply."""
    MemDoc.create(type="CONTEXT", content="x", embedding=vector(1))
    doc = MemDoc.get()
    assert {"embedding", "search", "content_hash"}.isdisjoint(doc.__data__)
    assert np.array_equal(vector(1), vector_of(doc))
    assert "embedding" in doc.__data__
    at_once = MemDoc.select(MemDoc, MemDoc.embedding.read()).get()
    assert np.array_equal(vector(1), at_once.__data__["embedding"])
    as_text = MemDoc.select(MemDoc.embedding).get()
    assert np.array_equal(vector(1), vector_of(as_text))


def test_vectors_compare_and_sort() -> None:
    """Lists and arrays work on the right of `==` and of the distances."""
    near, far = (MemDoc.create(type="CONTEXT", content=str(n), embedding=vector(n)) for n in (1, 2))
    assert [near] == list(MemDoc.select().where(MemDoc.embedding == vector(1).tolist()))
    assert [far] == list(MemDoc.select().where(MemDoc.embedding != vector(1)))
    # Alone, the distance may go through the index, which finds one of the two.
    exactly = MemDoc.embedding.cosine_distance(vector(2)) + 0
    assert [far, near] == list(MemDoc.select().order_by(exactly))
    none = MemDoc.create(type="CONTEXT", content="none")
    assert [none] == list(MemDoc.select().where(MemDoc.embedding.is_null()))
    assert none.embedding is None


def test_generated_columns_are_filled_by_the_server() -> None:
    """The hash and the tsvector follow the content."""
    doc = MemDoc.create(type="CONTEXT", content="Late fees")
    expected = MemDoc.select(fn.sha256(fn.convert_to("Late fees", "UTF8"))).tuples().get()[0]
    assert bytes(expected) == doc.content_hash
    assert "'fee':2 'late':1" == doc.search


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]  # its own repr() would be a RecursionError


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (WorkOrder, {"created_by": "a", "priority": "SOON"}),
        (WorkOrder, {"created_by": "a", "priority": WorkItemStatus.QUEUED}),
        (WorkOrder, {"created_by": ""}),
        (WorkOrder, {"created_by": "a" * 256}),
        (WorkOrder, {"created_by": "a\x00b"}),
        (WorkOrder, {"created_by": "a\ud800"}),
        (WorkOrder, {"created_by": 5}),
        (WorkOrder, {"created_by": "a", "metadata": []}),
        (WorkOrder, {"created_by": "a", "metadata": {"x": float("nan")}}),
        (WorkOrder, {"created_by": "a", "open_items": 1.9}),
        (WorkOrder, {"created_by": "a", "open_items": True}),
        (WorkOrder, {"created_by": "a", "open_items": 2**40}),
        (WorkOrder, {"created_by": "a", "id": "not-a-uuid"}),
        (WorkOrder, {"created_by": "a", "created_at": datetime(2026, 1, 1)}),  # noqa: DTZ001  that is the point
        (WorkOrder, {"created_by": "a", "created_at": "2026-01-01"}),
        (MemDoc, {"type": "CONTEXT", "content": " \n"}),
        (MemDoc, {"type": "CONTEXT", "content": "x" * (1024 * 1024 + 1)}),
        (EvalResult, {"evaluation_type": "e", "score": float("nan"), "passed": True}),
        (EvalResult, {"evaluation_type": "e", "score": 10**400, "passed": True}),
        (EvalResult, {"evaluation_type": "e", "score": "1", "passed": True}),
        (Schema, {"name": "n", "version": "1", "document_type": "d", "schema_definition": {}, "is_active": 1}),
        (Capability, {"name": "n", "scope": "s", "permissions": {"not": "a list"}}),
        (
            AuditLog,
            {"user_id": "u", "action": "a", "resource_type": "t", "resource_id": "i", "ip_address": "300.1.1.1"},
        ),
    ],
)
def test_bad_values_never_reach_the_database(model: Any, values: dict[str, Any]) -> None:
    """One typed error that names the field; nothing converts silently and nothing is stored."""
    with pytest.raises(InvalidInput, match=rf"^{model.__name__}\."):
        model.create(**values)
    assert model.select().count() == 0


def test_a_parent_that_is_none_is_one_typed_error() -> None:
    """Whatever is given for a foreign key, and wherever."""
    for bad in (DEEP, 5, "no-uuid", {"id": 1}, object()):
        with pytest.raises(InvalidInput):
            WorkItem.create(work_order=bad, type="TICKET", content="x")
        with pytest.raises(InvalidInput):
            WorkItem.insert_many([{"work_order": bad, "type": "TICKET", "content": "x"}]).execute()
    assert WorkItem.select().count() == 0


def test_bad_vectors_never_reach_the_database() -> None:
    """The same for embeddings, by way of every write."""
    for bad in (np.zeros(DIMENSIONS), np.full(DIMENSIONS, np.nan), [1.0, 2.0]):
        with pytest.raises(InvalidVector, match=r"^MemDoc\.embedding"):
            MemDoc.create(type="CONTEXT", content="x", embedding=bad)
        with pytest.raises(InvalidVector):
            MemDoc.insert_many([{"type": "CONTEXT", "content": "x", "embedding": bad}]).execute()
    assert MemDoc.select().count() == 0


def test_content_with_more_words_than_a_tsvector_holds_is_stored() -> None:
    """Text below the limit whose index entry would pass 1 MB is stored whole, and found by its beginning."""
    words = " ".join(f"{n:05d}-{n + 1:05d}" for n in range(80_000))
    doc = MemDoc.create(type="CONTEXT", content=words)
    assert words == MemDoc.get().content
    assert [doc] == list(MemDoc.select().where(Expression(MemDoc.search, "@@", fn.to_tsquery("00000 & 00001"))))


def test_a_missing_row_is_not_found() -> None:
    """Peewee's DoesNotExist is a NotFound, too."""
    with pytest.raises(NotFound):
        WorkOrder.get_by_id(uuid.uuid4())
    with pytest.raises(WorkOrder.DoesNotExist):
        WorkOrder.get(WorkOrder.created_by == "nobody")


def test_a_missing_value_is_one_typed_error() -> None:
    """A column that must not be empty is named, without the row's values."""
    with pytest.raises(ConstraintViolation) as refusal:
        WorkOrder.create(workflow_id="a secret")
    assert "created_by" in str(refusal.value)
    assert "a secret" not in str(refusal.value)


def test_a_unique_value_is_one_typed_error() -> None:
    """The constraint is named, without the row's values."""
    Connector.create(name="hunter2", type="API", tenant_id="acme")
    with pytest.raises(ConstraintViolation) as refusal:
        Connector.create(name="hunter2", type="API", tenant_id="acme")
    assert refusal.value.constraint == "connectors_tenant_id_name_key"
    assert "hunter2" not in str(refusal.value)


def test_get_or_create_keeps_working() -> None:
    """Errors stay Peewee's own as well, which get_or_create relies on."""
    first, made = Capability.get_or_create(name="read", defaults={"scope": "erp"})
    again, made_again = Capability.get_or_create(name="read", defaults={"scope": "erp"})
    assert (True, False, first) == (made, made_again, again)

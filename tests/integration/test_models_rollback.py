"""Instances and rollbacks: `save()` writes what the database lacks, whatever became of the transaction before."""

from __future__ import annotations

import copy
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import (
    AmbiguousCommit,
    Capability,
    ConnectionFailed,
    DatabaseFault,
    MemDoc,
    Tool,
    ToolCapability,
    WorkItem,
    WorkOrder,
)
from myloware_store.db.tenancy import tenant_scope
from myloware_store.models import Connector

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.db.database import StoreDatabase

pytestmark = pytest.mark.usefixtures("myloware_db")

DISCARDED = "do $$ begin raise exception using errcode = 'serialization_failure'; end $$"
DYING_COMMIT = """
    create function die() returns trigger language plpgsql as
        'begin perform pg_terminate_backend(pg_backend_pid()); return null; end';
    create constraint trigger die after insert or update on work_orders deferrable initially deferred
        for each row execute function die();
"""


class Undone(Exception):
    """Ends a block."""


@pytest.fixture
def order() -> WorkOrder:
    """A stored order."""
    return WorkOrder.create(created_by="intake", metadata={"source": "mail"})


def stored(order: WorkOrder) -> tuple[Any, ...] | None:
    """What the database has of an order."""
    row = WorkOrder.get_or_none(WorkOrder.id == order.id)
    return None if row is None else (row.created_by, row.workflow_id, row.metadata)


def by_transaction(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Do something in a transaction, and roll it back."""
    with suppress(Undone), db.atomic():
        work()
        raise Undone


def by_savepoint(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Do something in a savepoint, roll back to it, and commit the transaction."""
    with db.atomic():
        by_transaction(db, work)


def by_released_savepoint(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Do something in a savepoint that succeeds, in a transaction that does not."""
    with suppress(Undone), db.atomic():
        with db.atomic():
            work()
        raise Undone


def by_hand(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Do something between BEGIN and ROLLBACK."""
    db.begin()
    work()
    db.rollback()


def by_sql(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Do something between statements that only the server sees."""
    with db.connection_context():
        db.execute_sql("BEGIN")
        work()
        db.execute_sql("ROLLBACK")


def by_leaving_a_unit(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Leave a transaction open where its connection is returned."""
    with db.unit():
        db.begin()
        work()


def by_a_lost_connection(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Lose the connection in the middle."""
    with suppress(ConnectionFailed), db.atomic():
        work()
        db.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")


def by_a_failed_commit(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Commit where an earlier statement failed, so that the server rolls back."""
    with suppress(DatabaseFault), db.atomic():
        work()
        with suppress(DatabaseFault):
            db.execute_sql("SELECT 1 / 0")


def by_an_ambiguous_commit(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Lose the connection while committing."""
    db.execute_sql(DYING_COMMIT)
    with pytest.raises(AmbiguousCommit), db.atomic():
        work()
    db.execute_sql("drop function die cascade")


WAYS = [
    by_transaction,
    by_savepoint,
    by_released_savepoint,
    by_hand,
    by_sql,
    by_leaving_a_unit,
    by_a_lost_connection,
    by_a_failed_commit,
    by_an_ambiguous_commit,
]


@pytest.mark.parametrize("rolled_back", WAYS)
def test_a_new_row_is_inserted_after_a_rollback(myloware_db: StoreDatabase, rolled_back: Any) -> None:
    """It counts as made here again, in every way that a transaction can end without a commit."""
    order = WorkOrder(created_by="intake", metadata={"n": 1})
    rolled_back(myloware_db, order.save)
    assert stored(order) is None
    assert order.save() == 1
    assert stored(order) == ("intake", None, {"n": 1})


@pytest.mark.parametrize("rolled_back", WAYS)
def test_a_change_is_written_after_a_rollback(myloware_db: StoreDatabase, order: WorkOrder, rolled_back: Any) -> None:
    """What was changed before counts as changed again, inside JSON as well."""
    order.workflow_id = "w"
    order.metadata["late"] = True
    rolled_back(myloware_db, order.save)
    assert stored(order) == ("intake", None, {"source": "mail"})
    assert order.save() == 1
    assert stored(order) == ("intake", "w", {"source": "mail", "late": True})


def test_a_retried_transaction_writes_again(myloware_db: StoreDatabase, order: WorkOrder) -> None:
    """`transact` runs the function again with instances that it saved before."""
    made, listed, tries = WorkOrder(created_by="made"), WorkOrder(created_by="listed"), []
    order.workflow_id = "changed"

    def work() -> None:
        tries.append(order.save())
        made.save()
        WorkOrder.bulk_create([listed])
        listed.workflow_id = "in bulk"
        WorkOrder.bulk_update([listed], ["workflow_id"])
        if len(tries) == 1:
            myloware_db.execute_sql(DISCARDED)

    myloware_db.transact(work)
    assert [1, 1] == tries
    assert ("intake", "changed", {"source": "mail"}) == stored(order)
    assert (("made", None, {}), ("listed", "in bulk", {})) == (stored(made), stored(listed))


def test_only_what_was_rolled_back_is_written_again(myloware_db: StoreDatabase, order: WorkOrder) -> None:
    """Of saves in nested savepoints, those that were committed stay as someone else left them."""
    with myloware_db.atomic():
        order.workflow_id = "kept"
        order.save()
        with suppress(Undone), myloware_db.atomic():
            order.metadata = {"n": 1}
            order.save()
            with myloware_db.atomic():
                order.metadata["n"] = 2
                order.save()
            raise Undone
    WorkOrder.update(workflow_id="by someone else").where(WorkOrder.id == order.id).execute()
    assert order.save() == 1
    assert stored(order) == ("intake", "by someone else", {"n": 2})
    assert order.save() == 0


def test_a_committed_change_is_not_written_again(myloware_db: StoreDatabase, order: WorkOrder) -> None:
    """After a commit, and in the transaction itself, nothing is left to do."""
    with myloware_db.atomic():
        order.workflow_id = "w"
        assert order.save() == 1
        assert order.save() == 0
    WorkOrder.update(workflow_id="by someone else").where(WorkOrder.id == order.id).execute()
    assert order.save() == 0
    assert stored(order) == ("intake", "by someone else", {"source": "mail"})


def test_what_was_changed_after_a_rollback_stays(myloware_db: StoreDatabase) -> None:
    """The instance takes back what the server had filled in, and keeps what was assigned since."""
    order = WorkOrder(created_by="intake")
    with tenant_scope("acme"):
        by_transaction(myloware_db, order.save)
    lost = order.created_at
    order.created_by = "someone else"
    with tenant_scope("globex"):
        order.save()
    read = WorkOrder.get_by_id(order.id)
    assert ("someone else", "globex", order.created_at) == (read.created_by, read.tenant_id, read.created_at)
    assert lost < read.created_at


def test_a_row_with_generated_columns_is_inserted_again(myloware_db: StoreDatabase) -> None:
    """What was read of it before the rollback is no obstacle."""
    doc = MemDoc(type="CONTEXT", content="Late fees")

    def save_and_read() -> None:
        doc.save()
        assert doc.search == "'fee':2 'late':1"

    by_transaction(myloware_db, save_and_read)
    assert doc.save() == 1
    assert [doc] == list(MemDoc.select())


def test_a_row_with_a_key_of_two_columns_is_inserted_again(myloware_db: StoreDatabase) -> None:
    """The same for a grant, with all that it refers to."""
    connector = Connector(name="erp", type="API")
    tool = Tool(name="lookup", connector=connector)
    capability = Capability(name="read", scope="erp")
    grant = ToolCapability(tool=tool, capability=capability)

    def save_all() -> None:
        for row in (connector, tool, capability, grant):
            row.save()

    by_transaction(myloware_db, save_all)
    save_all()
    assert ([grant], [tool]) == (list(tool.grants), list(connector.tools))


def test_copies_know_of_the_rollback(myloware_db: StoreDatabase) -> None:
    """Copied or pickled in between, an instance writes what the database lacks all the same."""

    def by_pickle(row: WorkOrder) -> Any:
        return pickle.loads(pickle.dumps(row))

    orders: list[WorkOrder] = []
    copied: list[WorkOrder] = []

    def save_and_copy() -> None:
        for copier in (copy.copy, copy.deepcopy, by_pickle):
            orders.append(WorkOrder.create(created_by="intake"))
            copied.append(copier(orders[-1]))

    by_transaction(myloware_db, save_and_copy)
    assert [1, 1, 1] == [order.save() for order in copied]
    assert {order.id for order in orders} == {row.id for row in WorkOrder.select()}


def test_get_or_create_in_a_lost_transaction(myloware_db: StoreDatabase) -> None:
    """What it made is made again."""
    made: list[WorkOrder] = []
    by_transaction(myloware_db, lambda: made.append(WorkOrder.get_or_create(created_by="intake")[0]))
    assert made[0].save() == 1
    item = WorkItem.create(work_order=made[0], type="TICKET", content="x")
    assert [item] == list(made[0].items)

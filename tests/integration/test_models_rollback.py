"""Instances after a rollback: as they were, with what was changed counted as changed again."""

from __future__ import annotations

import copy
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import AmbiguousCommit, ConnectionFailed, DatabaseFault, NotFound, WorkOrder

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


def by_transaction_in_a_unit(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Roll a transaction back on a connection that is held longer, and begin another one on it."""
    with db.unit():
        by_transaction(db, work)
        with db.atomic():
            pass


def by_a_lost_connection(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Lose the connection in the middle."""
    with suppress(ConnectionFailed), db.atomic():
        work()
        db.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")


def by_a_failed_commit(db: StoreDatabase, work: Callable[[], object]) -> None:
    """Commit after an earlier statement has failed, so that the server rolls back."""
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
    by_transaction_in_a_unit,
    by_a_lost_connection,
    by_a_failed_commit,
    by_an_ambiguous_commit,
]


@pytest.mark.parametrize("rolled_back", WAYS)
def test_a_change_is_written_after_a_rollback(myloware_db: StoreDatabase, order: WorkOrder, rolled_back: Any) -> None:
    """A change that was rolled back counts as changed again, inside JSON as well."""
    order.workflow_id = "w"
    order.metadata["late"] = True
    rolled_back(myloware_db, order.save)
    assert stored(order) == ("intake", None, {"source": "mail"})
    assert order.save() == 1
    assert stored(order) == ("intake", "w", {"source": "mail", "late": True})


@pytest.mark.parametrize("rolled_back", WAYS)
def test_a_row_that_was_rolled_back_is_not_found(myloware_db: StoreDatabase, rolled_back: Any) -> None:
    """The instance keeps what the server filled in and counts as stored: `save()` raises instead of losing it."""
    order = WorkOrder(created_by="intake")
    rolled_back(myloware_db, order.save)
    assert order.created_at is not None
    with pytest.raises(NotFound):
        order.save()
    assert order.save(force_insert=True) == 1
    assert stored(order) == ("intake", None, {})


def test_a_retried_transaction_writes_again(myloware_db: StoreDatabase, order: WorkOrder) -> None:
    """`transact` runs the function again with an instance that was changed before it."""
    tries = []
    order.workflow_id = "changed"

    def work() -> None:
        tries.append(order.save())
        if len(tries) == 1:
            myloware_db.execute_sql(DISCARDED)

    myloware_db.transact(work)
    assert tries == [1, 1]
    assert stored(order) == ("intake", "changed", {"source": "mail"})


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
    """After a commit, and in the transaction itself, nothing is left to do, whatever is rolled back later."""
    with myloware_db.atomic():
        order.workflow_id = "w"
        assert order.save() == 1
        assert order.save() == 0
    by_transaction(myloware_db, lambda: None)
    WorkOrder.update(workflow_id="by someone else").where(WorkOrder.id == order.id).execute()
    assert order.save() == 0
    assert stored(order) == ("intake", "by someone else", {"source": "mail"})


def test_instances_are_copied_in_a_transaction(myloware_db: StoreDatabase, order: WorkOrder) -> None:
    """Copied or pickled after a save that may yet be rolled back, they have the same values."""
    with myloware_db.atomic():
        order.workflow_id = "w"
        order.save()
        copied = [copy.copy(order), copy.deepcopy(order), pickle.loads(pickle.dumps(order))]
    assert [each.workflow_id for each in copied] == ["w", "w", "w"]

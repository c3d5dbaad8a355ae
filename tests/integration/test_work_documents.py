"""Documents that do not fit the active schema for their type are not submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from myloware_store import InvalidDocument, Schema, WorkOrder
from myloware_store.platform.schemas import Schemas

if TYPE_CHECKING:
    from myloware_store import Store
    from pytest_plugin.report.queries import AssertNumQueries

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}


def activate(store: Store) -> None:
    """Have invoices checked."""
    store.schemas.register("invoice", "1", "INVOICE", SCHEMA)
    store.schemas.activate("invoice", "1")


def test_documents_are_checked_where_a_schema_is_active(myloware: Store) -> None:
    """Everything passes before; afterwards one bad document keeps the whole order out; other types are not read."""
    good = {"type": "INVOICE", "content": '{"total": 12.5}'}
    myloware.work.submit([INVOICE])
    activate(myloware)
    myloware.work.submit([good, {"type": "TICKET", "content": "no JSON"}])
    myloware.work.submit([{"type": "TICKET", "content": "no JSON"}])
    with pytest.raises(InvalidDocument) as caught:
        myloware.work.submit([good, INVOICE, {"type": "INVOICE", "content": "{}"}])
    assert {1, 2} == {problem.document for problem in caught.value.problems}
    assert 3 == WorkOrder.select().count()
    myloware.schemas.deactivate("invoice")
    myloware.work.submit([INVOICE])


def test_what_was_submitted_before_is_not_checked_again(myloware: Store) -> None:
    """The same key gives the first order, though a schema has come into force since."""
    first = myloware.work.submit([INVOICE], idempotency_key="mail-1")
    activate(myloware)
    assert first == myloware.work.submit([INVOICE], idempotency_key="mail-1")
    with pytest.raises(InvalidDocument):
        myloware.work.submit([INVOICE], idempotency_key="mail-2")


def test_an_order_is_stored_by_one_statement(myloware: Store, myloware_assert_num_queries: AssertNumQueries) -> None:
    """Without schemas, with them as soon as they were asked for once, and inside the caller's transaction."""
    order = [{"type": "INVOICE", "content": '{"total": 12.5}'}, {"type": "TICKET", "content": "no JSON"}]
    with myloware_assert_num_queries(1):
        myloware.work.submit(order)
    activate(myloware)
    myloware.work.submit(order)
    with myloware_assert_num_queries(1):
        myloware.work.submit(order)
    with myloware.db.atomic(), myloware_assert_num_queries(1):
        myloware.work.submit(order)
    myloware.schemas.deactivate("invoice")
    myloware.work.submit([INVOICE])
    with myloware_assert_num_queries(1):
        myloware.work.submit([INVOICE], idempotency_key="mail-1")


def test_a_schema_counts_from_the_moment_it_is_active(myloware: Store) -> None:
    """Wherever it was activated, changed or rolled back: what a store saw before does not matter."""
    elsewhere = Schemas(myloware.db)
    order = [{"type": "INVOICE", "content": '{"total": 12.5}'}]
    myloware.work.submit(order)
    with myloware.db.atomic() as block:
        elsewhere.register("invoice", "1", "INVOICE", {"required": ["currency"]})
        elsewhere.activate("invoice", "1")
        with pytest.raises(InvalidDocument):
            myloware.work.submit(order)
        block.rollback()
    myloware.work.submit(order)
    activate(myloware)
    myloware.work.submit(order)
    for wanted in ("a", "b"):
        Schema.update(schema_definition={"required": [wanted]}).execute()
        with pytest.raises(InvalidDocument, match=f"'{wanted}' is a required"):
            myloware.work.submit(order)
        myloware.work.submit([{"type": "INVOICE", "content": f'{{"{wanted}": 1}}'}])
    for n in range(3):
        elsewhere.register(f"more {n}", "1", "INVOICE", {"required": [f"n{n}"]})
        elsewhere.activate(f"more {n}", "1")
        with pytest.raises(InvalidDocument):
            myloware.work.submit([{"type": "INVOICE", "content": '{"b": 1}'}])
    whole = '{"b": 1, "n0": 1, "n1": 1, "n2": 1}'
    myloware.work.submit([{"type": "INVOICE", "content": whole}])
    elsewhere.deactivate("invoice")
    myloware.work.submit([{"type": "INVOICE", "content": whole.replace("b", "c")}])
    assert 7 == WorkOrder.select().count()

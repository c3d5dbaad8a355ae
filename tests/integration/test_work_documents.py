"""Documents that do not fit the active schema for their type are not submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from myloware_store import InvalidDocument, WorkOrder

if TYPE_CHECKING:
    from myloware_store import Store

SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}


def activate(store: Store) -> None:
    """Have invoices checked."""
    store.schemas.register("invoice", "1", "INVOICE", SCHEMA)
    store.schemas.activate("invoice", "1")


def test_documents_are_checked_where_a_schema_is_active(myloware: Store) -> None:
    """Everything passes before; afterwards one bad document keeps the whole order out; other types are not read."""
    bad = {"type": "INVOICE", "content": "Invoice 17"}
    good = {"type": "INVOICE", "content": '{"total": 12.5}'}
    myloware.work.submit([bad])
    activate(myloware)
    myloware.work.submit([good, {"type": "TICKET", "content": "no JSON"}])
    with pytest.raises(InvalidDocument) as caught:
        myloware.work.submit([good, bad, {"type": "INVOICE", "content": "{}"}])
    assert {1, 2} == {problem.document for problem in caught.value.problems}
    assert 2 == WorkOrder.select().count()
    myloware.schemas.deactivate("invoice")
    myloware.work.submit([bad])


def test_what_was_submitted_before_is_not_checked_again(myloware: Store) -> None:
    """The same key gives the first order, though a schema has come into force since."""
    items = [{"type": "INVOICE", "content": "Invoice 17"}]
    first = myloware.work.submit(items, idempotency_key="mail-1")
    activate(myloware)
    assert first == myloware.work.submit(items, idempotency_key="mail-1")
    with pytest.raises(InvalidDocument):
        myloware.work.submit(items, idempotency_key="mail-2")

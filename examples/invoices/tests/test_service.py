"""What the service promises, on a real database."""

from __future__ import annotations

from decimal import Decimal

import pytest

from invoices.models import Payment
from myloware_store import WorkItem


def test_an_invoice_becomes_a_payment(service) -> None:
    """Number, amount and currency are read off the text."""
    service.receive(["Invoice A-17: 120.00 EUR, payable within 30 days"], mail="m1")

    assert service.work("agent") == 1
    assert service.due() == {"EUR": Decimal("120.00")}


def test_the_same_mail_again_changes_nothing(service) -> None:
    """A mail that is delivered twice is one order."""
    first = service.receive(["Invoice A-17: 120.00 EUR"], mail="m1")
    again = service.receive(["Invoice A-17: 120.00 EUR"], mail="m1")

    assert first.id == again.id
    assert service.work("agent") == 1


def test_what_cannot_be_read_becomes_a_dead_letter(service, myloware) -> None:
    """Nobody tries again what will never be readable, and nothing is lost."""
    service.receive(["Happy new year!"], mail="m1")
    service.work("agent")

    (letter,) = myloware.dead_letters.list()
    assert "no number and amount" in letter.error
    assert service.due() == {}


def test_result_and_payment_are_stored_together_or_not_at_all(service, myloware) -> None:
    """An invoice number that was booked before leaves no result behind."""
    service.receive(["Invoice A-17: 120.00 EUR", "Invoice A-17: 999.00 EUR"], mail="m1")
    service.work("agent")

    assert service.due() == {"EUR": Decimal("120.00")}
    assert {item.status for item in WorkItem.select()} == {"COMPLETED", "FAILED"}
    assert len(myloware.audit.list(action="payment.book")) == 1


def test_another_types_items_are_left_alone(service, myloware_factory) -> None:
    """The service claims invoices only."""
    ticket = myloware_factory.work_item(type="TICKET", content="The printer is on fire")

    assert service.work("agent") == 0
    assert WorkItem.get_by_id(ticket.id).status == "QUEUED"


@pytest.mark.parametrize("currencies", [1, 20])
def test_the_sum_takes_one_statement(service, myloware_factory, myloware_assert_num_queries, currencies) -> None:
    """However many currencies there are."""
    item = myloware_factory.work_item()
    for number in range(currencies):
        Payment.create(number=f"N{number}", work_item_id=item.id, currency=f"X{number:02}", amount=1)

    with myloware_assert_num_queries(max=1):
        assert len(service.due()) == currencies


@pytest.mark.myloware_db(mode="rollback")
def test_a_test_may_ask_for_another_mode(service) -> None:
    """A rollback is cheaper still, for tests that use one connection and commit nothing."""
    service.receive(["Invoice A-17: 120.00 EUR"], mail="m1")

    assert service.work("agent") == 1

"""Reports over many rows, which are made once for the module."""

from __future__ import annotations

from decimal import Decimal

import pytest

from invoices import InvoiceService
from invoices.models import Payment


@pytest.fixture(scope="module", autouse=True)
def _year(myloware_module) -> None:
    """Book a year's invoices, for every test of the module."""
    service = InvoiceService(myloware_module)
    service.receive([f"Invoice Y-{number}: {number}.00 EUR" for number in range(1, 366)], mail="year")
    while service.work("agent", 100):
        pass


def test_the_year_sums_up(service) -> None:
    """All of it is there."""
    assert service.due() == {"EUR": Decimal(365 * 366 / 2)}


def test_what_a_test_changes_is_undone(service) -> None:
    """A test may do what it likes with the shared rows."""
    Payment.delete().execute()

    assert service.due() == {}


def test_and_the_year_is_there_again(service) -> None:
    """Whatever the test before has done."""
    assert Payment.select().count() == 365

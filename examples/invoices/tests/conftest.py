"""The service under test; its database has the service's own table beside the store's."""

from __future__ import annotations

from pathlib import Path

import pytest

from invoices import InvoiceService


@pytest.fixture(scope="session")
def myloware_migrations() -> Path:
    """Have the service's own migrations applied after the store's."""
    return Path(__file__).parents[1] / "migrations"


@pytest.fixture
def service(myloware) -> InvoiceService:
    """Give the service on this test's database."""
    return InvoiceService(myloware)

"""The worker: works on invoices until none waits."""

from __future__ import annotations

from invoices import InvoiceService
from myloware_store import Store

if __name__ == "__main__":
    with Store.open() as store:
        service = InvoiceService(store)
        while service.work("worker"):
            pass

"""Workers that meet what ends others: cancelled statements, stuck threads, errors that cannot even be read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from myloware_store import Worker, WorkerReport, WorkItem, WorkItemStatus
from tests.integration.conftest import BLOCKED, until_blocked

if TYPE_CHECKING:
    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


@pytest.mark.parametrize("while_doing", ["claim", "finish"])
def test_a_statement_that_was_cancelled_is_made_again(myloware: Store, while_doing: str) -> None:
    """By an operator, or by a timeout of the role: the worker goes on, and a result is stored once it can be."""
    order = myloware.work.submit([INVOICE] * 3)
    worker = Worker(myloware, lambda _: 1, threads=2)
    with ThreadPoolExecutor(1) as pool:
        if while_doing == "finish":
            myloware.work.release(myloware.work.claim("agent"))  # what follows changes nothing of the order
        with myloware.db.atomic():
            myloware.db.execute_sql("SELECT FROM work_orders WHERE id = %s FOR UPDATE", (str(order.id),))
            running = pool.submit(worker.run, drain=True)
            for _ in range(2):
                until_blocked(myloware, running)
                myloware.db.execute_sql(f"SELECT pg_cancel_backend(pid) FROM ({BLOCKED}) AS waiting")
        assert WorkerReport(finished=3) == running.result(60)
    assert {(WorkItemStatus.COMPLETED, 1)} == {(item.status, item.attempt_count) for item in WorkItem.select()}

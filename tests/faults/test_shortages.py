"""Servers without a free connection: one typed error, and work goes on when there is one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import psycopg2
import pytest

from myloware_store import ConnectionFailed, Settings, Store, Worker
from myloware_store.db.database import StoreDatabase
from tests.integration.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import Server


def test_out_of_connections(prepared: Callable[..., Server]) -> None:
    """A worker that has lost its connections to others waits, and no item is lost or tried twice."""
    server = prepared(max_connections=12, superuser_reserved_connections=0).start()
    url = server.url("&connection_limit=4")
    with Store.open(url) as store, ExitStack() as held, ThreadPoolExecutor(1) as threads:
        orders = [store.work.submit([{"type": "TICKET", "content": f"{number}"}]) for number in range(20)]
        store.db.close_idle()
        with suppress(psycopg2.OperationalError):
            while True:
                held.enter_context(closing(psycopg2.connect(server.url())))
        with pytest.raises(ConnectionFailed, match="no connection left") as caught:
            store.work.stats()
        assert "53300" == caught.value.sqlstate
        worker = Worker(store, lambda claim: claim.content, look_every=0.05)
        running = threads.submit(worker.run, signals=False)
        with pytest.raises(ConnectionFailed):
            StoreDatabase(Settings.load(url)).execute_sql("SELECT 1")
        held.close()
        for order in orders:
            store.work.wait(order.id, PATIENCE)
        worker.stop()
        report = running.result(PATIENCE)
    assert (20, 0, 0) == (report.finished, report.failed, report.lost)
    assert [(20,)] == server.ask("SELECT count(*) FROM attempts")

"""Servers that are killed, and connections that are cut, under load: what was acknowledged is there, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from myloware_store import Settings
from myloware_store.db.database import StoreDatabase
from myloware_store.work.engine import Work
from tests.faults.conftest import KILLS
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.faults.conftest import Load, Server
    from tests.relay import Relay


def test_no_acknowledged_write_is_lost(
    prepared: Callable[..., Server], loading: Callable[..., AbstractContextManager[Load]]
) -> None:
    """However often the server is killed; the books balance, and nothing is stored twice."""
    server = prepared().start()
    with loading(server.url()) as load:
        for _ in range(KILLS):
            load.goes_on()
            server.kill()
            server.start()
        load.goes_on()
    database = StoreDatabase(Settings.load(server.url()))
    assert ([], [], True) == (load.lost(server), list(Work(database).recount()), load.lost_connections_only())
    database.close_all()


def test_cut_connections_lose_nothing(
    prepared: Callable[..., Server],
    loading: Callable[..., AbstractContextManager[Load]],
    relayed: Callable[..., Relay],
) -> None:
    """Wherever they are cut, in the middle of statements or between them."""
    server = prepared().start()
    relay = relayed(str(server.data), 5432)
    relay.answers.delay = 0.001
    with loading(relay.before(Settings.load(server.url())).url) as load:
        for _ in range(KILLS):
            relay.cut()
            load.goes_on(10)
    assert ([], True) == (load.lost(server), load.lost_connections_only())


def test_without_synchronous_commits_some_are(
    prepared: Callable[..., Server], loading: Callable[..., AbstractContextManager[Load]]
) -> None:
    """So the other test can fail: there a COMMIT does not wait for the disk."""
    late = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
    server = prepared(**late).start()
    with loading(server.url()) as load:
        until(lambda: len(load.acknowledged()) > 200)
        server.kill()
        server.start()
    assert [] != load.lost(server)

"""Waiting for work: whoever waits is told, or looks by itself, and nothing is missed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import psycopg2
import pytest

from myloware_store import DatabaseFault, InvalidInput, Store
from myloware_store.db.database import StoreDatabase
from myloware_store.db.listening import Listener
from myloware_store.work.engine import Work
from tests.integration.conftest import LISTENING, until, until_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


@pytest.fixture
def other(myloware_dsn: str) -> Iterator[connection]:
    """Give a second session, which knows nothing of the library."""
    session = psycopg2.connect(myloware_dsn)
    yield session
    session.close()


@pytest.fixture
def heard(other: connection) -> connection:
    """Give a second session that listens, without the lock that says so."""
    other.autocommit = True
    other.cursor().execute("LISTEN myloware_work")
    return other


def notices(session: connection) -> int:
    """Count what a listening session was told so far."""
    session.cursor().execute("SELECT 1")
    session.poll()
    return len(session.notifies)


def test_work_that_is_there_is_not_waited_for(myloware: Store) -> None:
    """Without a second session for it."""
    myloware.work.submit([INVOICE])
    opened = myloware.db.pool.opened
    assert myloware.work.wait_for_work(600)
    assert opened == myloware.db.pool.opened


def test_queued_work_is_prepared_only_while_nobody_listens(myloware: Store) -> None:
    """PostgreSQL takes no NOTIFY into a two-phase commit, and says so; nothing is stored then."""

    def prepare() -> None:
        with myloware.db.atomic():
            myloware.work.submit([INVOICE])
            myloware.db.execute_sql("PREPARE TRANSACTION 'queued'")

    with Listener(myloware.db) as listener:
        assert listener.arm()
        with pytest.raises(DatabaseFault, match=r"cannot PREPARE a transaction that has executed .* NOTIFY"):
            prepare()
    assert [] == myloware.work.claim("agent")


def test_waiting_ends_with_the_time(myloware: Store) -> None:
    """Nothing is there, and what is there is wanted by nobody."""
    myloware.work.submit([INVOICE])
    assert not myloware.work.wait_for_work(0, types=["TICKET"])
    assert not myloware.work.wait_for_work(0.05, tenants=["globex"])
    with myloware.tenant("globex"):
        assert not myloware.work.wait_for_work(0)
    with pytest.raises(InvalidInput):
        myloware.work.wait_for_work(-1)
    with pytest.raises(InvalidInput, match="listener"):
        myloware.work.wait_for_work(0, listener=myloware)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        myloware.work.wait_for_work(0, types=["PARCEL"])


def test_a_waiting_worker_is_told(myloware: Store) -> None:
    """By the submit of another thread, through one session for as long as the listener lives."""
    with Listener(myloware.db) as listener, ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            waiting = pool.submit(myloware.work.wait_for_work, 600, listener=listener)
            until_listening(myloware)
            myloware.work.submit([INVOICE])
            assert waiting.result(60)
            assert myloware.work.claim("agent")
    until(lambda: myloware.db.execute_sql(LISTENING).fetchone() == (0,))


def test_rows_that_psql_writes_are_told_of_too(myloware: Store, other: connection) -> None:
    """The trigger tells, not the library."""
    myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(myloware.work.wait_for_work, 600)
        until_listening(myloware)
        sql = "UPDATE work_items SET status = 'QUEUED', available_at = now() WHERE id = %s"
        other.cursor().execute(sql, (str(claim.item_id),))
        other.commit()
        assert waiting.result(60)


def test_nobody_is_told_where_nobody_listens(myloware: Store, heard: connection) -> None:
    """A NOTIFY takes a lock that every other NOTIFY waits for until its commit: only a listener is worth it."""
    myloware.work.submit([INVOICE])
    assert notices(heard) == 0
    with Listener(myloware.db) as listener:
        assert listener.arm()
        myloware.work.submit([INVOICE, INVOICE])
        assert notices(heard) == 1
        (claim,) = myloware.work.claim("agent")
        myloware.work.finish([claim], [{}])
        assert notices(heard) == 1


def test_nobody_is_told_of_what_cannot_be_claimed_yet(myloware: Store, heard: connection) -> None:
    """Items by hand that are queued for later, or not queued at all."""
    order = myloware.work.submit([INVOICE])
    insert = """
        INSERT INTO work_items (tenant_id, work_order_id, type, content, available_at, status)
        SELECT tenant_id, id, 'TICKET', 'x', now() + %s * interval '1 hour', %s FROM work_orders
    """
    with Listener(myloware.db) as listener:
        assert listener.arm()
        myloware.db.execute_sql(insert, (1, "QUEUED"))
        myloware.db.execute_sql(insert, (0, "PROCESSING"))
        myloware.db.execute_sql("UPDATE work_items SET available_at = available_at + interval '1 day'")
        myloware.db.execute_sql("UPDATE work_items SET content = 'y' WHERE status = 'PROCESSING'")
        assert notices(heard) == 0
        myloware.db.execute_sql("UPDATE work_items SET available_at = now() WHERE content = 'x'")
        assert notices(heard) == 1
    assert 3 == myloware.work.get(order.id).open_items


def test_work_submitted_while_somebody_begins_to_wait_is_not_missed(myloware: Store, other: connection) -> None:
    """A transaction that told nobody holds up the arming until its work can be seen."""
    order = myloware.work.submit([INVOICE])
    (claim,) = myloware.work.claim("agent")
    myloware.work.finish([claim], [{}])
    insert = """
        INSERT INTO work_items (tenant_id, work_order_id, type, content)
        SELECT tenant_id, id, 'TICKET', 'x' FROM work_orders WHERE id = %s
    """
    other.cursor().execute(insert, (str(order.id),))
    with Listener(myloware.db) as listener:
        assert not listener.arm()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(myloware.work.wait_for_work, 600, listener=listener)
            other.commit()
            assert waiting.result(60)


def test_an_item_that_becomes_available_by_the_clock_ends_the_wait(myloware: Store) -> None:
    """Nobody writes anything when its time comes."""
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    myloware.work.submit([INVOICE], available_at=soon)
    assert myloware.work.claim("agent") == []
    assert myloware.work.wait_for_work(600)
    assert len(myloware.work.claim("agent")) == 1


def test_a_lost_session_is_replaced(myloware: Store, other: connection) -> None:
    """Terminated while it waits; what is submitted afterwards ends the wait."""
    with Listener(myloware.db) as listener, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(myloware.work.wait_for_work, 600, listener=listener)
        until_listening(myloware)
        cursor = other.cursor()
        cursor.execute(f"SELECT pg_terminate_backend(pid) FROM ({LISTENING.replace('count(*)', 'pid')}) AS l")
        assert cursor.rowcount == 1
        other.rollback()
        myloware.work.submit([INVOICE])
        assert waiting.result(60)


def test_a_wait_can_be_ended(myloware: Store) -> None:
    """From another thread, before it begins or while it lasts."""
    with Listener(myloware.db) as listener, ThreadPoolExecutor(1) as pool:
        listener.wake()
        assert not myloware.work.wait_for_work(600, listener=listener)
        waiting = pool.submit(myloware.work.wait_for_work, 600, listener=listener)
        until_listening(myloware)
        listener.wake()
        assert not waiting.result(60)
        for _ in range(100_000):
            listener.wake()


def test_where_nothing_can_be_heard_it_looks(myloware: Store) -> None:
    """Behind a pooler in transaction mode, where LISTEN would be somebody else's."""
    pooled = StoreDatabase(attrs.evolve(myloware.settings, pgbouncer=True))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Work(pooled).wait_for_work, 600)
        myloware.work.submit([INVOICE])
        assert waiting.result(60)
    with Listener(pooled) as listener:
        assert not listener.arm()
    pooled.close_all()


def test_how_often_it_looks_can_be_set(myloware: Store) -> None:
    """A long time leaves the server alone: one look before, one at the beginning and one at the end."""
    pooled = StoreDatabase(attrs.evolve(myloware.settings, pgbouncer=True))
    looks: list[str] = []
    pooled.query_hooks.append(lambda sql, *_: looks.append(sql))

    assert not Work(pooled).wait_for_work(0.6, look_every=60)
    assert 3 == len(looks)
    with pytest.raises(InvalidInput, match="look_every"):
        Work(pooled).wait_for_work(1, look_every=0)
    pooled.close_all()

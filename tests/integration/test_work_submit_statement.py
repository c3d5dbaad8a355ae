"""Orders that are stored in the transactions of other drivers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy

from myloware_store import (
    InvalidDocument,
    InvalidInput,
    NewItem,
    RetryPolicy,
    SubmitStatement,
    WorkItem,
    WorkOrder,
    WorkOrderStatus,
)
from tests.integration.conftest import until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
ODD = "100 %s \\ \"'{}, $1 :given\n\u2028 \N{PILE OF POO}"


def with_psycopg(dsn: str, statement: SubmitStatement, *, commit: bool = True) -> Any:
    """Execute a statement in a transaction with psycopg 3, which then commits or rolls back."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(statement.sql, statement.parameters).fetchone()
        connection.commit() if commit else connection.rollback()
    assert found is not None
    return found[0]


def with_psycopg2(dsn: str, statement: SubmitStatement, *, commit: bool = True) -> Any:
    """Do so with psycopg2."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement.sql, statement.parameters)
            found = cursor.fetchone()
        connection.commit() if commit else connection.rollback()
    finally:
        connection.close()
    assert found is not None
    return UUID(found[0]) if isinstance(found[0], str) else found[0]


def with_asyncpg(dsn: str, statement: SubmitStatement, *, commit: bool = True) -> Any:
    """Do so with asyncpg."""

    async def execute() -> Any:
        connection = await asyncpg.connect(dsn)
        transaction = connection.transaction()
        await transaction.start()
        found = await connection.fetchval(statement.sql, *statement.parameters)
        await (transaction.commit() if commit else transaction.rollback())
        await connection.close()
        return found

    return asyncio.run(execute())


def with_sqlalchemy(dsn: str, statement: SubmitStatement, *, commit: bool = True) -> Any:
    """Do so with SQLAlchemy."""
    engine = sqlalchemy.create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text(statement.sql), statement.parameters).scalar_one()
        connection.commit() if commit else connection.rollback()
    engine.dispose()
    return found


EXECUTES: dict[str, Callable[..., Any]] = {
    "psycopg": with_psycopg,
    "django": with_psycopg2,  # Django hands its placeholders on to psycopg or psycopg2
    "asyncpg": with_asyncpg,
    "sqlalchemy": with_sqlalchemy,
}


@pytest.fixture(params=EXECUTES)
def driver(request: pytest.FixtureRequest) -> Any:
    """Give the name of each driver."""
    return request.param


def activate(store: Store, version: str, *required: str) -> None:
    """Have invoices checked."""
    store.schemas.register("invoice", version, "INVOICE", {"type": "object", "required": [*required]})
    store.schemas.activate("invoice", version)


def test_an_order_is_part_of_another_drivers_transaction(myloware: Store, myloware_dsn: str, driver: Any) -> None:
    """It is stored if that commits, and not if it rolls back; then it is like any order."""
    given: dict[str, Any] = {
        "priority": "URGENT",
        "workflow_id": "refund",
        "created_by": "kim",
        "metadata": {"big": 1e300, "odd": ODD},
        "available_at": datetime(2026, 1, 2, tzinfo=UTC),
        "max_attempts": 7,
        "retry_policy": RetryPolicy(base=30, jitter=0.25),
    }
    items = [NewItem("TICKET", ODD), NewItem("INVOICE", "Invoice 17")]
    with myloware.tenant("acme"):
        statement = myloware.work.submit_statement(items, driver=driver, **given)
        expected = myloware.work.submit(items, **given)
    EXECUTES[driver](myloware_dsn, statement, commit=False)
    assert 1 == WorkOrder.select().count()
    order = myloware.work.get(EXECUTES[driver](myloware_dsn, statement))
    differ = {"id", "created_at", "updated_at"}
    assert {name for name, value in expected.__data__.items() if order.__data__[name] != value} <= differ

    def stored(order_id: UUID) -> list[tuple[Any, ...]]:
        return [
            (item.type, item.content, item.priority, item.available_at, item.max_attempts, item.tenant_id)
            for item in myloware.work.items(order_id)
        ]

    assert stored(expected.id) == stored(order.id)
    assert 4 == len(myloware.work.claim("agent", n=9))


def test_a_statement_stores_its_order_once(myloware: Store, myloware_dsn: str, driver: Any) -> None:
    """Executed again, it returns the same id, also when the order has ended."""
    statement = myloware.work.submit_statement([INVOICE], driver=driver)
    first = EXECUTES[driver](myloware_dsn, statement)
    assert first == EXECUTES[driver](myloware_dsn, statement)
    myloware.work.cancel(first)
    assert first == EXECUTES[driver](myloware_dsn, statement)
    assert 1 == WorkOrder.select().count()


def test_an_idempotency_key_is_what_it_is_to_submit(myloware: Store, myloware_dsn: str) -> None:
    """The same items get the first order; others are refused, and nothing is stored."""
    items = [INVOICE, {"type": "TICKET", "content": "Ticket 4"}]
    first = myloware.work.submit(items, idempotency_key="mail-1")
    same = myloware.work.submit_statement(items[::-1], driver="psycopg", idempotency_key="mail-1")
    assert first.id == with_psycopg(myloware_dsn, same)
    for other in ([INVOICE], [INVOICE, {**items[1], "type": "INVOICE"}], [*items, INVOICE]):
        statement = myloware.work.submit_statement(other, driver="psycopg", idempotency_key="mail-1")
        with pytest.raises(psycopg.errors.UniqueViolation, match=f"other items, for order {first.id}"):
            with_psycopg(myloware_dsn, statement)
    with myloware.tenant("globex"):
        own = myloware.work.submit_statement(items, driver="psycopg", idempotency_key="mail-1")
    assert first.id != with_psycopg(myloware_dsn, own)
    later = myloware.work.submit_statement([INVOICE], driver="psycopg", idempotency_key="mail-2")
    second = with_psycopg(myloware_dsn, later)
    assert second == myloware.work.submit([INVOICE], idempotency_key="mail-2").id
    assert 3 == WorkOrder.select().count()


def test_a_unique_key_is_what_it_is_to_submit(myloware: Store, myloware_dsn: str) -> None:
    """An open order is returned; when it has ended, a new one is stored."""
    first = myloware.work.submit([INVOICE], unique_key="nightly")
    statement = myloware.work.submit_statement([INVOICE] * 2, driver="psycopg", unique_key="nightly")
    assert first.id == with_psycopg(myloware_dsn, statement)
    myloware.work.cancel(first.id)
    second = with_psycopg(myloware_dsn, statement)
    assert second != first.id
    assert second == myloware.work.submit([INVOICE], unique_key="nightly").id
    assert WorkOrderStatus.PENDING is myloware.work.get(second).status


def test_a_repeated_statement_names_its_own_order(myloware: Store, myloware_dsn: str) -> None:
    """Its order has ended, and another one with the unique key is open: the statement returns what it stored."""
    statement = myloware.work.submit_statement([INVOICE], driver="psycopg", unique_key="nightly")
    first = with_psycopg(myloware_dsn, statement)
    myloware.work.cancel(first)
    second = myloware.work.submit([INVOICE], unique_key="nightly")
    WorkOrder.update(created_at=second.created_at).where(WorkOrder.id == first).execute()  # its row comes last now

    assert first == with_psycopg(myloware_dsn, statement) != second.id


@pytest.mark.parametrize("commits", [True, False])
def test_a_statement_waits_for_a_submit(myloware: Store, myloware_dsn: str, *, commits: bool) -> None:
    """Under the same key, until its transaction has ended."""
    keys: dict[str, Any] = {"idempotency_key": "mail-1", "unique_key": "nightly"}
    statement = myloware.work.submit_statement([INVOICE], driver="psycopg", **keys)
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic() as block:
            first = myloware.work.submit([INVOICE], **keys)
            executing = pool.submit(with_psycopg, myloware_dsn, statement)
            until_blocked(myloware, executing)
            if not commits:
                block.rollback()
        assert commits == (first.id == executing.result())
    assert executing.result() == WorkOrder.get().id


def test_a_statement_whose_schemas_have_changed_raises(myloware: Store, myloware_dsn: str) -> None:
    """Whatever has changed about them: it stores nothing; made again, it does."""
    document = {"type": "INVOICE", "content": '{"a": 1, "b": 2}'}
    ticket = myloware.work.submit_statement([{"type": "TICKET", "content": "no JSON"}], driver="psycopg")
    for change in (
        lambda: activate(myloware, "1", "a"),
        lambda: activate(myloware, "2", "b"),
        lambda: myloware.schemas.deactivate("invoice"),
    ):
        statement = myloware.work.submit_statement([document], driver="psycopg")
        change()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="make it again"):
            with_psycopg(myloware_dsn, statement)
        assert 0 == WorkItem.select().where(WorkItem.type == "INVOICE").count()
        with_psycopg(myloware_dsn, ticket)
    with_psycopg(myloware_dsn, myloware.work.submit_statement([document], driver="psycopg"))
    assert 1 == WorkItem.select().where(WorkItem.type == "INVOICE").count()


def test_a_statement_that_was_executed_before_the_schemas_changed_can_be_repeated(
    myloware: Store, myloware_dsn: str
) -> None:
    """The reply to its commit was lost: to make it again would store the order twice."""
    statement = myloware.work.submit_statement([INVOICE], driver="psycopg")
    first = with_psycopg(myloware_dsn, statement)
    myloware.schemas.register("strict", "1", "INVOICE", {"type": "object"})
    myloware.schemas.activate("strict", "1")

    assert first == with_psycopg(myloware_dsn, statement)


def test_documents_are_checked_when_the_statement_is_made(myloware: Store, myloware_dsn: str) -> None:
    """Against the schemas of that moment, unless the same items were submitted before."""
    myloware.work.submit_statement([INVOICE], driver="psycopg")
    first = myloware.work.submit([INVOICE], idempotency_key="mail-1")
    activate(myloware, "1", "a")
    with pytest.raises(InvalidDocument):
        myloware.work.submit_statement([INVOICE], driver="psycopg")
    with pytest.raises(InvalidDocument):
        myloware.work.submit_statement([INVOICE], driver="psycopg", idempotency_key="mail-2")
    again = myloware.work.submit_statement([INVOICE], driver="psycopg", idempotency_key="mail-1")
    assert first.id == with_psycopg(myloware_dsn, again)


@pytest.mark.parametrize(
    "wrong",
    [
        {"driver": "oracle"},
        {"driver": None},
        {"items": []},
        {"items": [{"type": "INVOICE"}]},
        {"items": [{"type": "INVOICE", "content": "\x00"}]},
        {"priority": "NOW"},
        {"metadata": [1]},
        {"max_attempts": 0},
        {"available_at": datetime(2026, 1, 2)},  # noqa: DTZ001  that is the point
        {"retry_policy": {"base": 0}},
        {"unique_key": " "},
        {"idempotency_key": ""},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_as_by_submit(myloware: Store, wrong: dict[str, Any]) -> None:
    """No statement is made."""
    with pytest.raises(InvalidInput):
        myloware.work.submit_statement(**{"items": [INVOICE], "driver": "psycopg", **wrong})


def test_a_statement_does_not_show_documents(myloware: Store) -> None:
    """Neither in its text nor in its repr."""
    statement = myloware.work.submit_statement([INVOICE], driver="psycopg")
    assert "Invoice 17" not in repr(statement) + statement.sql

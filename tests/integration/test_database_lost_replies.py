"""Connections lost between a statement and its reply: what may have been stored is told apart from what was not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from myloware_store import AmbiguousCommit, Capability, ConnectionFailed, WorkItem, WorkOrder
from myloware_store.db.database import StoreDatabase
from myloware_store.db.tenancy import tenant_scope
from myloware_store.memory.engine import Memory
from myloware_store.work.engine import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import Store
    from myloware_store.settings import Settings
    from tests.relay import Relay

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


@pytest.fixture
def kept(db: StoreDatabase) -> StoreDatabase:
    """Give a database with one table, which holds the number 0."""
    db.execute_sql("DROP TABLE IF EXISTS kept")
    db.execute_sql("CREATE TABLE kept (number int)")
    db.execute_sql("INSERT INTO kept VALUES (0)")
    return db


def numbers(database: StoreDatabase) -> list[int]:
    """Return what is stored."""
    return [number for (number,) in database.execute_sql("SELECT number FROM kept ORDER BY number")]


@pytest.fixture
def losing(relayed: Callable[..., Relay], db: StoreDatabase) -> Iterator[Callable[..., StoreDatabase]]:
    """Give a way to open the database through a relay, which loses the reply to what has a needle in it."""
    opened: list[StoreDatabase] = []

    def through(needle: str, *, sent: bool = True, of: Settings | None = None) -> StoreDatabase:
        settings = of or db.settings
        relay = relayed(settings.host, settings.port)
        relay.lose(needle, sent=sent)
        opened.append(StoreDatabase(relay.before(settings)))
        return opened[-1]

    yield through
    for database in opened:
        database.close_all()


@pytest.mark.parametrize("sent", [True, False])
def test_a_commit_whose_reply_is_lost_is_ambiguous(
    kept: StoreDatabase,
    losing: Callable[..., StoreDatabase],
    sent: bool,  # noqa: FBT001
) -> None:
    """Whether the server got the COMMIT or not, the client is told that it cannot know, and nothing is tried again."""
    runs: list[int] = []
    after: list[int] = []
    database = losing("COMMIT", sent=sent)

    def work() -> None:
        runs.append(1)
        database.execute_sql("INSERT INTO kept VALUES (1)")
        database.after_commit(lambda: after.append(1))

    with pytest.raises(AmbiguousCommit, match="may have been stored") as caught:
        database.transact(work)

    assert "0 open, 0 idle" in repr(database.pool)
    assert "08006" == caught.value.sqlstate
    assert (1, 0) == (len(runs), len(after))
    assert ([0, 1] if sent else [0]) == numbers(kept)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize(
    ("sql", "stored"),
    [
        ("INSERT INTO kept VALUES (1) /* needle */", [0, 1]),
        ("UPDATE kept SET number = 5 RETURNING number /* needle */", [5]),
        ("WITH given AS (SELECT 1 AS n /* needle */) INSERT INTO kept SELECT n FROM given", [0, 1]),
        ("WITH gone AS (DELETE FROM kept RETURNING number) SELECT * FROM gone /* needle */", []),
        ("DO $$ BEGIN INSERT INTO kept VALUES (1); END $$ /* needle */", [0, 1]),
        ("SELECT 1 /* needle */; INSERT INTO kept VALUES (1)", [0, 1]),
    ],
)
def test_a_write_of_its_own_whose_reply_is_lost_is_ambiguous(
    kept: StoreDatabase,
    losing: Callable[..., StoreDatabase],
    sql: str,
    stored: list[int],
    sent: bool,  # noqa: FBT001
) -> None:
    """Outside of a transaction a statement commits by itself, and the client is told that it cannot know."""
    database = losing("needle", sent=sent)

    with pytest.raises(AmbiguousCommit, match=r"may have been stored.*look"):
        database.execute_sql(sql)

    assert (stored if sent else [0]) == numbers(kept)
    assert (True, True) == (database.is_closed(), "0 open, 0 idle" in repr(database.pool))


def test_a_copy_to_the_server_whose_reply_is_lost_is_ambiguous(
    kept: StoreDatabase, losing: Callable[..., StoreDatabase]
) -> None:
    """Its rows may be stored."""
    database = losing("101")

    with pytest.raises(AmbiguousCommit):
        database.copy("COPY kept FROM STDIN", io.StringIO("101\n102\n"))

    assert [0, 101, 102] == numbers(kept)


@pytest.mark.parametrize(
    "run",
    [
        lambda database: database.execute_sql("COMMIT /* needle */"),
        lambda database: database.execute_sql("END /* needle */;"),
        lambda database: database.execute_sql("INSERT INTO kept VALUES (2); COMMIT /* needle */"),
        lambda database: database.execute_sql("ROLLBACK; INSERT INTO kept VALUES (1) /* needle */"),
    ],
)
def test_a_block_that_is_ended_by_hand_is_ambiguous(
    kept: StoreDatabase, losing: Callable[..., StoreDatabase], run: Callable[[StoreDatabase], object]
) -> None:
    """Its writes may be stored."""
    database = losing("needle")

    def work() -> None:
        database.execute_sql("INSERT INTO kept VALUES (1)")
        run(database)

    with pytest.raises(AmbiguousCommit):
        database.transact(work)

    assert 1 in numbers(kept)


def test_queries_that_write_as_they_read_are_ambiguous(
    myloware: Store, losing: Callable[..., StoreDatabase], kept: StoreDatabase
) -> None:
    """A SELECT with a writing common table expression, and a COPY of a query."""
    made = Capability.insert(name="needle", scope="x").returning(Capability.id).cte("made")
    with pytest.raises(AmbiguousCommit):
        made.select_from(made.c.id).bind(losing("needle", of=myloware.settings)).execute()
    assert 1 == Capability.select().where(Capability.name == "needle").count()


def test_a_copy_of_a_query_may_have_written(kept: StoreDatabase, losing: Callable[..., StoreDatabase]) -> None:
    """It can contain an INSERT."""
    with pytest.raises(AmbiguousCommit):
        losing("STDOUT").copy("COPY (INSERT INTO kept VALUES (1) RETURNING number) TO STDOUT", io.StringIO())
    assert [0, 1] == numbers(kept)


def test_a_copy_from_the_server_that_is_lost_stored_nothing(
    kept: StoreDatabase, losing: Callable[..., StoreDatabase]
) -> None:
    """It only read."""
    database = losing("STDOUT")

    with pytest.raises(ConnectionFailed) as caught:
        database.copy("COPY kept TO STDOUT", io.StringIO())

    assert not isinstance(caught.value, AmbiguousCommit)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT number FROM kept /* needle */",
        "WITH read AS (SELECT number FROM kept) SELECT * FROM read /* needle */",
        "VALUES (1), (2) /* needle */",
        "SHOW work_mem /* needle */",
        "SET LOCAL work_mem = '1MB' /* needle */",
    ],
)
def test_a_read_whose_reply_is_lost_stored_nothing(
    kept: StoreDatabase, losing: Callable[..., StoreDatabase], sql: str
) -> None:
    """It failed, that is all, and it can be run again."""
    database = losing("needle")

    with pytest.raises(ConnectionFailed, match="lost") as caught:
        database.execute_sql(sql, reads=True)

    assert not isinstance(caught.value, AmbiguousCommit)
    assert [0] == numbers(kept)


@pytest.mark.parametrize(
    "read",
    [
        lambda database: list(WorkOrder.select().bind(database)),
        lambda database: Memory(database).get([uuid4()]),
        lambda database: Memory(database).search_text("late"),
    ],
)
def test_reads_of_models_and_repositories_store_nothing(
    myloware: Store, losing: Callable[..., StoreDatabase], read: Callable[[StoreDatabase], object]
) -> None:
    """They say so themselves."""
    database = losing("tenant_id", of=myloware.settings)

    with pytest.raises(ConnectionFailed, match="was lost") as caught, tenant_scope("acme"):
        read(database)

    assert not isinstance(caught.value, AmbiguousCommit)


def test_a_write_inside_a_transaction_is_rolled_back(kept: StoreDatabase, losing: Callable[..., StoreDatabase]) -> None:
    """Where COMMIT was not sent there is no doubt."""
    database = losing("needle")

    with pytest.raises(ConnectionFailed, match="rolled back") as caught, database.atomic():
        database.execute_sql("INSERT INTO kept VALUES (1) /* needle */")

    assert not isinstance(caught.value, AmbiguousCommit)
    assert [0] == numbers(kept)


def test_a_commit_in_a_statement_of_its_own_is_ambiguous(
    kept: StoreDatabase, losing: Callable[..., StoreDatabase]
) -> None:
    """As the COMMIT of a block is."""
    database = losing("COMMIT")

    with database.unit():
        database.begin()
        database.execute_sql("INSERT INTO kept VALUES (1)")
        with pytest.raises(AmbiguousCommit):
            database.execute_sql("COMMIT")

    assert [0, 1] == numbers(kept)


def test_a_claim_whose_reply_is_lost_is_ambiguous(myloware: Store, losing: Callable[..., StoreDatabase]) -> None:
    """The item is held by an attempt that nobody was told of, until its lease runs out."""
    myloware.work.submit([INVOICE])

    with pytest.raises(AmbiguousCommit):
        Work(losing("claim_work_items", of=myloware.settings)).claim("agent")

    assert [] == myloware.work.claim("agent")


@pytest.mark.parametrize(
    ("needle", "call", "again"),
    [
        ("submit_work_order", lambda work, _: work.submit([INVOICE], idempotency_key="mail-1").open_items, 1),
        ("finish_work_items", lambda work, claims: work.finish(claims, [1]) == {claims[0].item_id}, True),
        ("interval '1 second'", lambda work, claims: work.heartbeat(claims) == {claims[0].item_id}, True),
    ],
)
def test_what_may_be_repeated_is_accepted_again(
    myloware: Store, losing: Callable[..., StoreDatabase], needle: str, call: Callable[..., Any], again: object
) -> None:
    """Submitting under a key, finishing and extending leases are ambiguous once, and say the same the second time."""
    myloware.work.submit([{"type": "TICKET", "content": "The printer is on fire"}])
    claims = myloware.work.claim("agent")
    work = Work(losing(needle, of=myloware.settings))

    with pytest.raises(AmbiguousCommit):
        call(work, claims)

    assert again == call(myloware.work, claims)
    assert (1, 1) == (
        WorkItem.select().where(WorkItem.type == "TICKET").count(),
        WorkOrder.select().where(WorkOrder.idempotency_key.is_null()).count(),
    )

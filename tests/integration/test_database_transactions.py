"""Transactions: stored as a whole or not at all, returned to the pool at their end, and run again after a conflict."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import peewee
import psycopg2
import pytest

from myloware_store.database import StoreDatabase, create_database
from myloware_store.errors import ConstraintViolation, DatabaseFault, InvalidInput, TransactionConflict
from myloware_store.settings import Settings
from myloware_store.store_proxy import StoreProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Pair(peewee.Model):
    """A table of its own for these tests."""

    id = peewee.AutoField()
    name = peewee.TextField(unique=True)
    number = peewee.IntegerField(default=0)

    class Meta:
        """As Peewee names tables now."""

        database = peewee.DatabaseProxy()
        legacy_table_names = False


@pytest.fixture
def db(plain_url: str) -> Iterator[StoreDatabase]:
    """Give a database of two connections, with `Pair` bound to it."""
    settings = Settings.load(plain_url, environ={}, dotenv=None)
    database = create_database(attrs.evolve(settings, connection_limit=2, pool_timeout=5))
    with database.bind_ctx([Pair]):
        database.drop_tables([Pair])
        database.create_tables([Pair])
        yield database
    database.close_all()


def names() -> list[str]:
    """Return what is stored."""
    return [pair.name for pair in Pair.select().order_by(Pair.name)]


def test_an_outermost_transaction_opens_and_returns(db: StoreDatabase) -> None:
    """`atomic`, `transaction` and `with db` need no connection beforehand and keep none."""
    blocks: list[AbstractContextManager[Any]] = [db.atomic(), db.transaction(), db]
    for number, block in enumerate(blocks):
        with block:
            Pair.create(name=str(number))
            assert not db.is_closed()
        assert db.is_closed()

    assert ["0", "1", "2"] == names()


def test_an_error_rolls_back_and_returns(db: StoreDatabase) -> None:
    """What an atomic block did is gone when an error leaves it, and so is its connection."""
    with suppress(KeyError), db.atomic():
        Pair.create(name="a")
        raise KeyError

    assert [] == names()
    assert db.is_closed()


def test_savepoints_undo_their_own_part(db: StoreDatabase) -> None:
    """A nested atomic block that fails takes back only what it did."""
    with db.atomic():
        Pair.create(name="kept")
        with suppress(ConstraintViolation), db.atomic():
            Pair.create(name="lost")
            Pair.create(name="kept")
        with suppress(KeyError), db.savepoint():
            Pair.create(name="lost too")
            raise KeyError
        with db.atomic():
            Pair.create(name="kept too")

    assert ["kept", "kept too"] == names()


def test_the_models_proxy_opens_the_same_blocks(db: StoreDatabase) -> None:
    """Transactions and savepoints opened through the proxy that models are bound to behave in the same way."""
    stand_in = StoreProxy()
    stand_in.initialize(db)

    with stand_in.atomic(), stand_in.connection_context():
        Pair.create(name="kept")
        with suppress(ConstraintViolation), stand_in.savepoint():
            Pair.create(name="kept")
        with suppress(KeyError), stand_in.atomic():
            Pair.create(name="lost")
            raise KeyError

    assert (["kept"], True) == (names(), db.is_closed())


def test_commit_and_rollback_inside_a_block_go_on_in_a_new_transaction(db: StoreDatabase) -> None:
    """Peewee's `commit()` and `rollback()` of a transaction block work, more than once."""
    with db.atomic() as block:
        Pair.create(name="a")
        block.commit()
        Pair.create(name="b")
        block.rollback()
        Pair.create(name="c")

    assert ["a", "c"] == names()


def test_manual_commit_works_and_returns(db: StoreDatabase) -> None:
    """Transactions by hand are stored as asked; one left open is rolled back with the block."""
    with db.manual_commit():
        db.begin()
        Pair.create(name="a")
        db.commit()
        db.begin()
        Pair.create(name="b")
        db.rollback()
        db.begin()
        Pair.create(name="c")

    assert ["a"] == names()
    assert db.is_closed()


def test_a_transaction_begun_by_hand_holds_its_connection_until_its_end(db: StoreDatabase) -> None:
    """`begin()` outside of every block holds the connection; a unit in between does not end it."""
    db.begin()
    with db.unit():
        Pair.create(name="a")
    assert not db.is_closed()
    db.commit()
    closed = db.is_closed()
    db.execute_sql("BEGIN")
    Pair.create(name="b")
    db.execute_sql("ROLLBACK")

    assert (True, True, ["a"]) == (closed, db.is_closed(), names())


def test_sessions_by_peewees_names_work(db: StoreDatabase) -> None:
    """`session_start`, `session_commit` and `session_rollback` hold and return the connection."""
    db.session_start()
    Pair.create(name="a")
    db.session_commit()
    db.session_start()
    Pair.create(name="b")
    db.session_rollback()

    assert (["a"], True, False) == (names(), db.is_closed(), db.session_commit())


def test_a_session_left_open_is_rolled_back_with_its_unit(db: StoreDatabase) -> None:
    """A unit that ends amid `session_start` stores nothing, and its callbacks wait for no other commit."""
    seen: list[str] = []
    with db.unit():
        db.session_start()
        db.after_commit(lambda: seen.append("never"))
        Pair.create(name="a")
    with db.atomic():
        Pair.create(name="b")

    assert (["b"], []) == (names(), seen)


def test_callbacks_run_after_the_commit_and_only_then(db: StoreDatabase) -> None:
    """What `after_commit` registered sees the rows committed; a rollback forgets it."""
    seen: list[list[str]] = []
    with suppress(KeyError), db.atomic():
        db.after_commit(lambda: seen.append(["never"]))
        raise KeyError
    with db.atomic():
        db.after_commit(lambda: seen.append(names()))
        with db.atomic():
            Pair.create(name="a")
        during = list(seen)

    assert ([], [["a"]]) == (during, seen)


def test_a_commit_that_rolled_back_says_so(db: StoreDatabase) -> None:
    """A statement's error that was swallowed inside a transaction does not pass for a commit."""
    block = db.atomic()
    block.__enter__()
    Pair.create(name="a")
    with suppress(ConstraintViolation):
        Pair.create(name="a")

    with pytest.raises(DatabaseFault, match="rolled back") as caught:
        block.__exit__(None, None, None)

    assert "25P02" == caught.value.sqlstate
    assert [] == names()
    assert db.is_closed()


def test_a_commit_without_a_connection_is_refused(db: StoreDatabase) -> None:
    """There is nothing to commit outside of a transaction; a rollback there is done already."""
    with pytest.raises(DatabaseFault, match="commit"):
        db.commit()

    db.rollback()
    assert db.is_closed()


def test_a_deferred_constraint_is_reported_by_the_commit(db: StoreDatabase) -> None:
    """A violation that the server finds at COMMIT is one like any other, and the connection goes back."""
    db.execute_sql("ALTER TABLE pair ADD CONSTRAINT once UNIQUE (number) DEFERRABLE INITIALLY DEFERRED")

    with pytest.raises(ConstraintViolation) as caught, db.atomic():
        Pair.insert_many([{"name": "a", "number": 1}, {"name": "b", "number": 1}]).execute()

    assert "once" == caught.value.constraint
    assert ([], True) == (names(), db.is_closed())


def test_an_isolation_level_can_be_asked_for(db: StoreDatabase) -> None:
    """`atomic` passes Peewee's isolation level on, for its own transaction only."""
    with db.atomic(isolation_level="SERIALIZABLE"):
        inside = db.execute_sql("SHOW transaction_isolation").fetchone()[0]

    assert ("serializable", "read committed") == (inside, db.execute_sql("SHOW transaction_isolation").fetchone()[0])


def test_transact_runs_everything_again_after_a_conflict(db: StoreDatabase) -> None:
    """A function that met a serialization failure runs again from its start, and its result is returned."""
    Pair.create(name="a")
    runs = []

    def work() -> int:
        runs.append(1)
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        number: int = Pair.get(name="a").number
        if len(runs) <= 2:
            bump(db)
        return Pair.update(number=number + 10).where(Pair.name == "a").execute() and number + 10

    assert 12 == db.transact(work)
    assert (3, 12) == (len(runs), Pair.get(name="a").number)


def bump(database: StoreDatabase) -> None:
    """Change the row behind the transaction's back."""
    with closing(psycopg2.connect(**database.settings.connect_kwargs())) as other, other.cursor() as cursor:
        cursor.execute("UPDATE pair SET number = number + 1")
        other.commit()


def test_transact_gives_up_after_its_retries(db: StoreDatabase) -> None:
    """The conflict is raised once the retries are used up."""
    Pair.create(name="a")
    runs = []

    def work() -> None:
        runs.append(1)
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        Pair.get(name="a")
        bump(db)
        Pair.update(number=0).execute()

    with pytest.raises(TransactionConflict) as caught:
        db.transact(work, retries=2)

    assert ("40001", 3, True) == (caught.value.sqlstate, len(runs), db.is_closed())


def test_transact_leaves_retrying_to_the_outermost(db: StoreDatabase) -> None:
    """Inside a transaction it runs once, in a savepoint, and the caller's own transact runs both again."""
    Pair.create(name="a")
    inner, outer = [], []

    def innermost() -> None:
        inner.append(1)
        number = Pair.get(name="a").number
        if len(inner) == 1:
            bump(db)
        Pair.update(number=number + 10).execute()

    def outermost() -> None:
        outer.append(1)
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        db.transact(innermost)

    db.transact(outermost)

    assert (2, 2, 11) == (len(outer), len(inner), Pair.get(name="a").number)


def test_transact_gets_two_transactions_out_of_a_deadlock(db: StoreDatabase) -> None:
    """Two that lock the same rows in opposite orders both end, one of them after another try."""
    Pair.insert_many([{"name": "a"}, {"name": "b"}]).execute()
    meeting = threading.Barrier(2)
    runs: list[str] = []

    def work(first: str, second: str) -> None:
        runs.append(first)
        Pair.update(number=Pair.number + 1).where(Pair.name == first).execute()
        if runs.count(first) == 1:
            meeting.wait()
        Pair.update(number=Pair.number + 1).where(Pair.name == second).execute()

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(db.transact, partial(work, *names)) for names in ("ab", "ba")]
        for future in both:
            future.result()

    assert (3, [2, 2]) == (len(runs), [pair.number for pair in Pair.select()])


def test_transact_does_not_run_other_errors_again(db: StoreDatabase) -> None:
    """Only conflicts are tried again; the rest ends the transaction at once."""
    runs = []

    def work() -> None:
        runs.append(1)
        Pair.create(name="a")
        raise KeyError

    with pytest.raises(KeyError):
        db.transact(work)

    assert (1, []) == (len(runs), names())


@pytest.mark.parametrize("retries", [-1, 1.5, True, "3"])
def test_transact_refuses_retries_that_are_no_count(db: StoreDatabase, retries: Any) -> None:
    """The number of retries is a whole number."""
    with pytest.raises(InvalidInput, match="retries"):
        db.transact(lambda: None, retries=retries)

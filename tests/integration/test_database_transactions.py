"""Transactions: stored as a whole or not at all, returned to the pool at their end, and run again after a conflict."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store.database import StoreDatabase
from myloware_store.errors import ConstraintViolation, DatabaseFault, InvalidInput, TransactionConflict
from myloware_store.store_proxy import StoreProxy

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.integration.conftest import Pair


def test_an_outermost_transaction_opens_and_returns(db: StoreDatabase, pairs: type[Pair]) -> None:
    """`atomic`, `transaction` and `with db` need no connection beforehand and keep none."""
    blocks: list[AbstractContextManager[Any]] = [db.atomic(), db.transaction(), db]
    for number, block in enumerate(blocks):
        with block:
            pairs.create(name=str(number))
            assert not db.is_closed()
        assert db.is_closed()

    assert ["0", "1", "2"] == pairs.names()


def test_an_error_rolls_back_and_returns(db: StoreDatabase, pairs: type[Pair]) -> None:
    """What an atomic block did is gone when an error leaves it, and so is its connection."""
    with suppress(KeyError), db.atomic():
        pairs.create(name="a")
        raise KeyError

    assert [] == pairs.names()
    assert db.is_closed()


def test_savepoints_undo_their_own_part(db: StoreDatabase, pairs: type[Pair]) -> None:
    """A nested atomic block that fails takes back only what it did."""
    with db.atomic():
        pairs.create(name="kept")
        with suppress(ConstraintViolation), db.atomic():
            pairs.create(name="lost")
            pairs.create(name="kept")
        with suppress(KeyError), db.savepoint():
            pairs.create(name="lost too")
            raise KeyError
        with db.atomic():
            pairs.create(name="kept too")

    assert ["kept", "kept too"] == pairs.names()


def test_the_models_proxy_opens_the_same_blocks(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Transactions and savepoints opened through the proxy that models are bound to behave in the same way."""
    stand_in = StoreProxy()
    stand_in.initialize(db)

    with stand_in.atomic(), stand_in.connection_context():
        pairs.create(name="kept")
        with suppress(ConstraintViolation), stand_in.savepoint():
            pairs.create(name="kept")
        with suppress(KeyError), stand_in.atomic():
            pairs.create(name="lost")
            raise KeyError

    assert (["kept"], True) == (pairs.names(), db.is_closed())


def test_commit_and_rollback_inside_a_block_go_on_in_a_new_transaction(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Peewee's `commit()` and `rollback()` of a transaction block work, more than once."""
    with db.atomic() as block:
        pairs.create(name="a")
        block.commit()
        pairs.create(name="b")
        block.rollback()
        pairs.create(name="c")

    assert ["a", "c"] == pairs.names()


def test_manual_commit_works_and_returns(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Transactions by hand are stored as asked; one left open is rolled back with the block."""
    with db.manual_commit():
        db.begin()
        pairs.create(name="a")
        db.commit()
        db.begin()
        pairs.create(name="b")
        db.rollback()
        db.begin()
        pairs.create(name="c")

    assert ["a"] == pairs.names()
    assert db.is_closed()


def test_a_transaction_begun_by_hand_holds_its_connection_until_its_end(db: StoreDatabase, pairs: type[Pair]) -> None:
    """`begin()` outside of every block holds the connection; a unit in between does not end it."""
    db.begin()
    with db.unit():
        pairs.create(name="a")
    assert not db.is_closed()
    db.commit()
    closed = db.is_closed()
    db.execute_sql("BEGIN")
    pairs.create(name="b")
    db.execute_sql("ROLLBACK")

    assert (True, True, ["a"]) == (closed, db.is_closed(), pairs.names())


def test_sessions_by_peewees_names_work(db: StoreDatabase, pairs: type[Pair]) -> None:
    """`session_start`, `session_commit` and `session_rollback` hold and return the connection."""
    db.session_start()
    pairs.create(name="a")
    db.session_commit()
    db.session_start()
    pairs.create(name="b")
    db.session_rollback()

    assert (["a"], True, False) == (pairs.names(), db.is_closed(), db.session_commit())


def test_a_session_left_open_is_rolled_back_with_its_unit(db: StoreDatabase, pairs: type[Pair]) -> None:
    """A unit that ends amid `session_start` stores nothing, and its callbacks wait for no other commit."""
    seen: list[str] = []
    with db.unit():
        db.session_start()
        db.after_commit(lambda: seen.append("never"))
        pairs.create(name="a")
    with db.atomic():
        pairs.create(name="b")

    assert (["b"], []) == (pairs.names(), seen)


def test_callbacks_run_after_the_commit_and_only_then(db: StoreDatabase, pairs: type[Pair]) -> None:
    """What `after_commit` registered sees the rows committed; a rollback forgets it."""
    seen: list[list[str]] = []
    with suppress(KeyError), db.atomic():
        db.after_commit(lambda: seen.append(["never"]))
        raise KeyError
    with db.atomic():
        db.after_commit(lambda: seen.append(pairs.names()))
        with db.atomic():
            pairs.create(name="a")
        during = list(seen)

    assert ([], [["a"]]) == (during, seen)


def test_a_commit_that_rolled_back_says_so(db: StoreDatabase, pairs: type[Pair]) -> None:
    """A statement's error that was swallowed inside a transaction does not pass for a commit."""
    block = db.atomic()
    block.__enter__()
    pairs.create(name="a")
    with suppress(ConstraintViolation):
        pairs.create(name="a")

    with pytest.raises(DatabaseFault, match="rolled back") as caught:
        block.__exit__(None, None, None)

    assert "25P02" == caught.value.sqlstate
    assert [] == pairs.names()
    assert db.is_closed()


def test_a_commit_without_a_connection_is_refused(db: StoreDatabase) -> None:
    """There is nothing to commit outside of a transaction; a rollback there is done already."""
    with pytest.raises(DatabaseFault, match="commit"):
        db.commit()

    db.rollback()
    assert db.is_closed()


def test_a_deferred_constraint_is_reported_by_the_commit(db: StoreDatabase, pairs: type[Pair]) -> None:
    """A violation that the server finds at COMMIT is one like any other, and the connection goes back."""
    db.execute_sql("ALTER TABLE pair ADD CONSTRAINT once UNIQUE (number) DEFERRABLE INITIALLY DEFERRED")

    with pytest.raises(ConstraintViolation) as caught, db.atomic():
        pairs.insert_many([{"name": "a", "number": 1}, {"name": "b", "number": 1}]).execute()

    assert "once" == caught.value.constraint
    assert ([], True) == (pairs.names(), db.is_closed())


def test_an_isolation_level_can_be_asked_for(db: StoreDatabase) -> None:
    """`atomic` passes Peewee's isolation level on, for its own transaction only."""
    with db.atomic(isolation_level="SERIALIZABLE"):
        inside = db.execute_sql("SHOW transaction_isolation").fetchone()[0]

    assert ("serializable", "read committed") == (inside, db.execute_sql("SHOW transaction_isolation").fetchone()[0])


def test_transact_runs_everything_again_after_a_conflict(db: StoreDatabase, pairs: type[Pair]) -> None:
    """A function that met a serialization failure runs again from its start, and its result is returned."""
    pairs.create(name="a")
    runs = []

    def work() -> int:
        runs.append(1)
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        number: int = pairs.get(name="a").number
        if len(runs) <= 2:
            bump(db)
        return pairs.update(number=number + 10).where(pairs.name == "a").execute() and number + 10

    assert 12 == db.transact(work)
    assert (3, 12) == (len(runs), pairs.get(name="a").number)


def bump(database: StoreDatabase) -> None:
    """Change the row behind the transaction's back."""
    with closing(psycopg2.connect(**database.settings.connect_kwargs())) as other, other.cursor() as cursor:
        cursor.execute("UPDATE pair SET number = number + 1")
        other.commit()


def test_transact_gives_up_after_its_retries(db: StoreDatabase, pairs: type[Pair]) -> None:
    """The conflict is raised once the retries are used up."""
    pairs.create(name="a")
    runs = []

    def work() -> None:
        runs.append(1)
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        pairs.get(name="a")
        bump(db)
        pairs.update(number=0).execute()

    with pytest.raises(TransactionConflict) as caught:
        db.transact(work, retries=2)

    assert ("40001", 3, True) == (caught.value.sqlstate, len(runs), db.is_closed())


def test_transact_leaves_retrying_to_the_outermost(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Inside a transaction it runs once, in a savepoint, and the caller's own transact runs both again."""
    pairs.create(name="a")
    inner, outer = [], []

    def innermost() -> None:
        inner.append(1)
        number = pairs.get(name="a").number
        if len(inner) == 1:
            bump(db)
        pairs.update(number=number + 10).execute()

    def outermost() -> None:
        outer.append(1)
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        db.transact(innermost)

    db.transact(outermost)

    assert (2, 2, 11) == (len(outer), len(inner), pairs.get(name="a").number)


def test_transact_gets_two_transactions_out_of_a_deadlock(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Two that lock the same rows in opposite orders both end, one of them after another try."""
    pairs.insert_many([{"name": "a"}, {"name": "b"}]).execute()
    meeting = threading.Barrier(2)
    runs: list[str] = []

    def work(first: str, second: str) -> None:
        runs.append(first)
        pairs.update(number=pairs.number + 1).where(pairs.name == first).execute()
        if runs.count(first) == 1:
            meeting.wait()
        pairs.update(number=pairs.number + 1).where(pairs.name == second).execute()

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(db.transact, partial(work, *names)) for names in ("ab", "ba")]
        for future in both:
            future.result()

    assert (3, [2, 2]) == (len(runs), [pair.number for pair in pairs.select()])


def test_transact_does_not_run_other_errors_again(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Only conflicts are tried again; the rest ends the transaction at once."""
    runs = []

    def work() -> None:
        runs.append(1)
        pairs.create(name="a")
        raise KeyError

    with pytest.raises(KeyError):
        db.transact(work)

    assert (1, []) == (len(runs), pairs.names())


@pytest.mark.parametrize("retries", [-1, 1.5, True, "3"])
def test_transact_refuses_retries_that_are_no_count(db: StoreDatabase, retries: Any) -> None:
    """The number of retries is a whole number."""
    with pytest.raises(InvalidInput, match="retries"):
        db.transact(lambda: None, retries=retries)

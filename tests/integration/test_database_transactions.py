"""Transactions: stored as a whole or not at all, returned to the pool at their end, and run again after a conflict."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.core.errors import ConstraintViolation, DatabaseFault, InvalidInput
from myloware_store.db.database import StoreDatabase
from myloware_store.db.proxy import StoreProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def test_blocks_inside_a_transaction_begun_by_hand_are_savepoints(db: StoreDatabase, pairs: type[Pair]) -> None:
    """They end with it, and never commit what was begun by hand."""
    stand_in = StoreProxy()
    stand_in.initialize(db)
    blocks: list[AbstractContextManager[Any]] = [nullcontext(), db.manual_commit()]
    for block in blocks:
        with block:
            db.begin()
            pairs.create(name="a")
            with db.atomic():
                pairs.create(name="b")
            db.transact(lambda: pairs.create(name="c"))
            with suppress(KeyError), stand_in.atomic():
                pairs.create(name="d")
                raise KeyError
            assert ["a", "b", "c"] == pairs.names()
            db.rollback()

        assert ([], True) == (pairs.names(), db.is_closed())


def test_a_second_begin_is_refused(db: StoreDatabase, pairs: type[Pair]) -> None:
    """PostgreSQL would only warn, and the inner end would commit the whole; the open transaction goes on."""
    db.begin()
    pairs.create(name="a")
    for begin in (db.begin, db.transaction().__enter__):
        with pytest.raises(DatabaseFault, match="atomic"):
            begin()
    db.commit()

    assert ["a"] == pairs.names()
    with db.manual_commit(), pytest.raises(DatabaseFault, match="begin"):
        db.atomic().__enter__()


async def asynchronous() -> None:
    """Do nothing, later."""


def generator() -> Iterator[None]:
    """Do nothing, when asked for it."""
    yield


@pytest.mark.parametrize("fn", [asynchronous, generator])
def test_atomic_decorates_plain_functions_only(db: StoreDatabase, fn: Any) -> None:
    """The body of any other would run after the transaction."""
    with pytest.raises(InvalidInput, match="plain function"):
        db.atomic()(fn)

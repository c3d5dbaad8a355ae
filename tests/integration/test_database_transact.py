"""Whole transactions by `transact`: run again after a conflict, and refused where their body would not run inside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store.core.errors import InvalidInput, TransactionConflict
from myloware_store.db.database import StoreDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import Pair


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


async def asynchronous(*_: object) -> None:
    """Fail where it is run."""
    raise AssertionError


async def asynchronous_generator() -> AsyncIterator[None]:
    """Fail where it is run."""
    yield
    raise AssertionError


def generator() -> Iterator[None]:
    """Fail where it is run."""
    yield
    raise AssertionError


class Callable:
    """Its instances are called asynchronously."""

    async def __call__(self) -> None:
        """Fail where it is run."""
        raise AssertionError


@pytest.mark.parametrize(
    "fn",
    [
        asynchronous,
        asynchronous_generator,
        generator,
        partial(asynchronous, 1),
        Callable(),
        lambda: asynchronous() or None,
        lambda: generator() or None,
        lambda: asynchronous_generator() or None,
    ],
)
def test_transact_refuses_what_would_run_after_the_transaction(db: StoreDatabase, pairs: type[Pair], fn: Any) -> None:
    """An async function or generator is one typed error, and nothing is stored or left running."""
    with pytest.raises(InvalidInput, match="plain function"):
        db.transact(fn)

    with pytest.raises(InvalidInput, match="plain function"):
        db.transact(lambda: pairs.create(name="a") and asynchronous())
    assert ([], True) == (pairs.names(), db.is_closed())

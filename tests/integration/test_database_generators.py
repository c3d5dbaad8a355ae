"""Blocks inside generators that several threads advance, as web frameworks do: each gives its connection back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.core.errors import DatabaseFault
from myloware_store.db.tenancy import current_tenant, tenant_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from myloware_store.db.database import StoreDatabase
    from tests.integration.conftest import Pair

ROUNDS = 5  # more than there are connections


class Somewhere:
    """A thread that does what it is asked to, one thing after the other."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def __call__(self, act: Callable[[], Any]) -> Any:
        """Do it there, and return what that returned, or raise what it raised."""
        return self._threads.submit(act).result(60)


@pytest.fixture
def threads() -> Iterator[tuple[Somewhere, Somewhere]]:
    """Give two threads."""
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        yield Somewhere(first), Somewhere(second)


def inside(block: AbstractContextManager[Any], *acts: Callable[[], Any]) -> Iterator[Any]:
    """Do something at each step, all of it inside the block."""
    with block:
        for act in acts:
            yield act()


def backend(db: StoreDatabase) -> int:
    """Return which session a statement uses."""
    pid: int = db.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
    return pid


@pytest.mark.parametrize("block", ["unit", "connection_context"])
def test_a_block_that_only_holds_a_connection_may_end_in_another_thread(
    db: StoreDatabase, threads: tuple[Somewhere, Somewhere], block: str
) -> None:
    """Its connection goes back, and each thread goes on with one of its own."""
    first, second = threads
    for _ in range(ROUNDS):
        steps = inside(getattr(db, block)(), lambda: backend(db), lambda: backend(db))
        held = first(partial(next, steps))
        assert held == first(lambda: backend(db))
        assert held != second(partial(next, steps))
        assert None is second(partial(next, steps, None))

        assert (0, True, True) == (db.pool.in_use, first(db.is_closed), second(db.is_closed))
    assert 2 == db.pool.opened


@pytest.mark.parametrize("block", ["atomic", "transaction"])
def test_a_transaction_that_ends_in_another_thread_is_rolled_back(
    db: StoreDatabase, pairs: type[Pair], threads: tuple[Somewhere, Somewhere], block: str
) -> None:
    """It says so, instead of storing what it holds of a work whose other part never was in it."""
    first, second = threads
    for _ in range(ROUNDS):
        steps = inside(getattr(db, block)(), lambda: pairs.create(name="a"))
        first(partial(next, steps))
        with pytest.raises(DatabaseFault, match="another thread"):
            second(partial(next, steps, None))

        assert (0, []) == (db.pool.in_use, first(pairs.names))
        assert (0, 0) == (first(db.transaction_depth), second(db.transaction_depth))


def test_an_error_passes_through_a_transaction_that_it_ends_in_another_thread(
    db: StoreDatabase, pairs: type[Pair], threads: tuple[Somewhere, Somewhere]
) -> None:
    """The transaction would have been rolled back anyway."""
    first, second = threads
    steps: Any = inside(db.atomic(), lambda: pairs.create(name="a"))
    first(partial(next, steps))
    with pytest.raises(KeyError, match="why"):
        second(lambda: steps.throw(KeyError("why")))

    assert (0, []) == (db.pool.in_use, pairs.names())


def test_a_transaction_of_the_thread_that_ends_another_ones_goes_on(
    db: StoreDatabase, pairs: type[Pair], threads: tuple[Somewhere, Somewhere]
) -> None:
    """It is neither committed nor rolled back with it."""
    first, second = threads
    steps = inside(db.atomic(), lambda: pairs.create(name="lost"))
    first(partial(next, steps))

    def work() -> None:
        with db.atomic():
            with suppress(DatabaseFault):
                next(steps, None)
            pairs.create(name="kept")

    second(work)
    assert (0, ["kept"]) == (db.pool.in_use, pairs.names())


@pytest.mark.parametrize("block", ["savepoint", "manual_commit"])
def test_other_blocks_that_end_in_another_thread_leak_nothing(
    db: StoreDatabase, pairs: type[Pair], threads: tuple[Somewhere, Somewhere], block: str
) -> None:
    """A savepoint is left to its transaction, and a transaction by hand is rolled back."""
    first, second = threads

    @contextmanager
    def begun() -> Iterator[None]:
        with db.atomic(), db.savepoint():
            yield

    @contextmanager
    def by_hand() -> Iterator[None]:
        with db.manual_commit():
            db.begin()
            yield

    steps = inside(begun() if block == "savepoint" else by_hand(), lambda: pairs.create(name="a"))
    first(partial(next, steps))
    with pytest.raises(DatabaseFault, match="another thread"):
        second(partial(next, steps, None))

    assert (0, []) == (db.pool.in_use, first(pairs.names))


def test_what_a_thread_still_does_with_the_connection_ends_first(
    db: StoreDatabase, pairs: type[Pair], threads: tuple[Somewhere, Somewhere]
) -> None:
    """A statement that runs meanwhile, and a block that has joined, keep the connection until their own end."""
    first, second = threads
    steps = inside(db.unit(), lambda: backend(db))
    held = first(partial(next, steps))

    def work() -> int:
        with db.atomic():
            pairs.create(name="a")
            second(partial(next, steps, None))
            pairs.create(name="b")
            return backend(db)

    assert held == first(work)
    assert (0, ["a", "b"]) == (db.pool.in_use, pairs.names())

    steps = inside(db.unit(), lambda: backend(db))
    first(partial(next, steps))
    with ThreadPoolExecutor(1) as other:
        ending = other.submit(second, partial(next, steps, None))
        assert [(1,)] == first(lambda: db.execute_sql("SELECT 1 FROM pg_sleep(0.1)").fetchall())
        ending.result(60)
    assert 0 == db.pool.in_use


def test_a_tenant_that_ends_in_another_thread_is_in_force_nowhere(threads: tuple[Somewhere, Somewhere]) -> None:
    """Neither there nor in the thread where it began, and outer ones are in force again."""
    first, second = threads
    outer, inner = tenant_scope("outer"), tenant_scope("inner")
    first(outer.__enter__)
    steps = inside(inner, current_tenant)
    assert "inner" == first(partial(next, steps))
    assert None is second(partial(next, steps, None))

    assert ("outer", None) == (first(current_tenant), second(current_tenant))


@pytest.mark.parametrize("block", ["unit", "connection_context", "atomic", "manual_commit"])
def test_a_block_may_outlive_its_thread(db: StoreDatabase, block: str) -> None:
    """The connection goes back with the thread, or with the block."""
    for _ in range(ROUNDS):
        steps = inside(getattr(db, block)(), partial(backend, db))
        with ThreadPoolExecutor(1) as thread:
            thread.submit(partial(next, steps)).result(60)
        with suppress(DatabaseFault):
            next(steps, None)
        assert 0 == db.pool.in_use

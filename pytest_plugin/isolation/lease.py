"""Lend a test, class or module a database, with an open store on it, and put it back."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store import Store
from myloware_store.core.errors import StoreError
from myloware_store.db.proxy import proxy
from myloware_store.db.tenancy import scope_kept
from myloware_store.models import MODELS
from myloware_store.settings import Settings

from ..options import FAILED, LEASE, MODES
from ..report.changes import describe_changes
from ..report.queries import Queries, explain, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..options import Mode
    from ..report.changes import Read
    from .databases import Databases
    from .slot import Slot

__all__ = ["Lease", "lend", "share"]

_MARKER = "myloware_db"
_PATIENCE = "SELECT set_config('statement_timeout', '3s', {local}), set_config('lock_timeout', '500ms', {local})"


class Lease:
    """A slot, lent to one test.

    Args:
        slot: The database.
        mode: How the test's writes are undone.
        databases: The databases of this worker.
        test: The test.

    Attributes:
        seconds: The time spent on making it ready and putting it back.
    """

    def __init__(self, slot: Slot, mode: Mode, databases: Databases, test: pytest.Item) -> None:
        self.slot = slot
        self.mode = mode
        self.seconds = 0.0
        self._databases = databases
        self._queries: Queries | None = None
        self._plan: list[str] = []
        self._test = test
        self._handed_out = False
        self._levels = 0
        self._undone = False

    @property
    def kept(self) -> bool:
        """Whether to keep the database, since the test has failed."""
        return self._databases.options.keep and self._test.stash.get(FAILED, False)

    @property
    def waits(self) -> str:
        """The lock waits since the test began."""
        return "\n".join(self._databases.waits.seen.copy().values())

    def hand_out(self) -> str:
        """Return the URL, with which other sessions may write too."""
        self._handed_out = True
        return self.slot.url

    @contextmanager
    def open_store(self) -> Iterator[Store]:
        """Open the store on it, in mode rollback inside a transaction that is rolled back."""
        with Store.open(database=self.slot.database) as store:
            try:
                with self._rolled_back() if self.mode == "rollback" else nullcontext(), self._timed():
                    yield store
            finally:
                for model in MODELS:  # a test may have bound them to another database
                    if model._meta.database is not proxy:
                        model._meta.set_database(proxy)

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Roll the test's transaction back, and note whether anything can have been committed."""
        database, pool = self.slot.database, self.slot.database.pool
        outer = database.transaction_open()  # that of a class or module
        block = database.transaction()
        database.execute_sql("SAVEPOINT myloware_test" if outer else "BEGIN; SAVEPOINT myloware_test")
        database.push_transaction(block)
        pool.close_idle()
        alone, opened = pool.in_use == 1, pool.opened
        yield
        if self.kept:
            with suppress(StoreError):
                database.commit()
        database.pop_transaction()
        if not self.kept:
            with suppress(StoreError):  # the test may have ended the transaction
                undo = "ROLLBACK TO SAVEPOINT myloware_test"
                database.execute_sql(undo if outer else f"{undo}; ROLLBACK")
                self._undone = alone and opened == pool.opened and not self._handed_out
        if not outer:
            block.rollback(begin=False)
        self._undone &= database.is_closed()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        if not self._databases.options.timings:
            yield
            return
        with recorded(self.slot.database) as self._queries:
            yield
        if self._queries.slowest:
            with suppress(StoreError):
                self._plan = explain(self.slot.database, self._queries.slowest)

    def accept(self) -> None:
        """Make the present state the one that `reset` returns to."""
        if self._in_one_transaction():
            self.slot.database.execute_sql("SAVEPOINT myloware_reset")
            return
        self.slot.mark()
        self.slot.enter()
        self._levels += 1
        self.slot.accept()

    def reset(self) -> None:
        """Undo the writes since `accept`."""
        if not self._levels:
            self.slot.database.execute_sql("ROLLBACK TO SAVEPOINT myloware_reset")
        elif self.slot.database.in_transaction():
            pytest.fail("a transaction is open: end it before myloware_reset", pytrace=False)
        else:
            self.slot.reset()

    @contextmanager
    def each_example_reset(self, hypothesis: Any) -> Iterator[None]:
        """Reset the database before every example of a hypothesis test but the first.

        Args:
            hypothesis: The attribute `hypothesis` of the test; its `inner_test` is the test function.
        """
        inner = hypothesis.inner_test
        put_back = self.accept  # in the first example, after the setUp of unittest

        @wraps(inner)
        def example(*args: Any, **kwargs: Any) -> Any:
            nonlocal put_back
            put_back()
            put_back = self.reset
            return inner(*args, **kwargs)

        hypothesis.inner_test = example
        try:
            yield
        finally:
            hypothesis.inner_test = inner

    def begin(self) -> None:
        """Make the database ready for the test."""
        start = time.perf_counter()
        self.slot.begin(exact=self.mode != "rollback")
        self.seconds += time.perf_counter() - start

    def end(self) -> None:
        """Put it back."""
        start, remade, doubtful = time.perf_counter(), self.slot.remade, self.slot.doubtful
        for _ in range(self._levels):
            self.slot.leave()
        if self._undone:
            self.slot.doubtful = True
        else:
            self.slot.end()
        if self.slot.remade > remade and not doubtful:  # in doubt, an earlier test may be the reason
            self._databases.remaking.append(self._test.nodeid)
        self.seconds += time.perf_counter() - start

    def changes(self) -> str:
        """Describe the test's changes so far.

        In mode rollback they are read in the test's transaction, else from outside, without uncommitted changes.
        """
        if self._databases.inherited:
            return ""
        try:
            before = self.slot.url if self.slot.shared else self._databases.reference(self.slot)
            copies = self.slot.copies() if self.slot.shared else {}
            with _connected(before) as reference:
                if self._in_one_transaction():
                    return self._changes_inside(_reader(reference), copies)
                with _connected(self.slot.url) as connection:
                    return describe_changes(_reader(reference), _reader(connection), copies)
        except (psycopg2.Error, StoreError) as error:
            return f"the database cannot be read: {str(error).strip()}"

    def _changes_inside(self, before: Read, copies: dict[str, str]) -> str:
        with self.slot.database.atomic() as savepoint:
            self.slot.database.execute_sql(_PATIENCE.format(local=True))
            described = describe_changes(before, self._read, copies)
            savepoint.rollback()
        return described

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        return list(self.slot.database.execute_sql(query.replace("%", "%%")))

    def _in_one_transaction(self) -> bool:
        return self.mode == "rollback" and self.slot.database.transaction_open()

    def timing(self) -> dict[str, Any]:
        """Return the time spent on the database, in seconds, with the plan of the slowest statement."""
        queries = self._queries or Queries(self.slot.database)
        slowest = queries.slowest
        return {
            "isolation": self.seconds,
            "statements": sum(query.seconds for query in queries.statements),
            "count": len(queries),
            "slowest": str(slowest) if slowest else "",
            "plan": self._plan,
        }


def _connected(url: str) -> closing[Any]:
    return closing(psycopg2.connect(**Settings.load(url, environ={}, dotenv=None).connect_kwargs()))


def _reader(connection: Any) -> Read:
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(_PATIENCE.format(local=False))

    def read(query: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(query)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    return read


@contextmanager
def lend(test: pytest.Item, databases: Databases, default_seed: Any) -> Iterator[Lease]:
    """Lend a test the database that its marker or the run's options ask for."""
    databases.require_own()
    mode, seed = _asked(test, databases.options.mode, default_seed)
    slot = databases.shared or databases.slot(mode, seed)
    if databases.shared is not None and seed != default_seed:
        pytest.fail("a test in a class or module that shares a database cannot have another seed", pytrace=False)
    lease = Lease(slot, mode, databases, test)
    lease.begin()
    databases.waits.seen.clear()
    test.stash[LEASE] = lease
    try:
        with scope_kept():
            yield lease
    finally:
        if not databases.inherited:
            try:
                if lease.kept:
                    databases.keep(slot, test.nodeid)
            finally:
                lease.end()


@contextmanager
def share(databases: Databases, seed: Any) -> Iterator[Store]:
    """Open the store on the database of a class or module, and undo afterwards what was written for it."""
    databases.require_own()
    slot = databases.shared or databases.slot("restore", seed)
    if slot.shared:
        slot.accept()
    slot.enter()
    outer, databases.shared = databases.shared, slot
    try:
        with Store.open(database=slot.database) as store:
            yield store
    finally:
        databases.shared = outer
        if not databases.inherited:
            slot.leave()


def _asked(test: pytest.Item, mode: Mode, seed: Any) -> tuple[Mode, Any]:
    """Return the mode and the seed of the innermost marker that names them, else the defaults."""
    asked: dict[str, Any] = {"mode": mode, "seed": seed}
    for marker in reversed(list(test.iter_markers(_MARKER))):
        if marker.args or set(marker.kwargs) - set(asked):
            pytest.fail(
                f"the marker {_MARKER} takes mode= and seed=, not {marker.args or marker.kwargs}", pytrace=False
            )
        asked |= marker.kwargs
    if asked["mode"] not in MODES:
        pytest.fail(f"the mode is one of {', '.join(MODES)}, not {asked['mode']!r}", pytrace=False)
    return asked["mode"], asked["seed"]

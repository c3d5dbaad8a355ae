"""A database in the hands of one test, class or module, and which one that is."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store import Store
from myloware_store.core.errors import StoreError
from myloware_store.db.proxy import proxy
from myloware_store.db.tenancy import scope_kept
from myloware_store.models import MODELS
from myloware_store.settings import Settings

from .changes import describe_changes
from .options import FAILED, LEASE, MODES, OPTIONS
from .queries import Queries, explain, recorded
from .slot import SharedDatabaseAltered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .changes import Read
    from .databases import Databases
    from .options import Mode
    from .slot import Slot

__all__ = ["Lease", "lend", "share"]

_MARKER = "myloware_db"
_PATIENCE = "SELECT set_config('statement_timeout', '3s', {local}), set_config('lock_timeout', '500ms', {local})"


class _Undo(Exception):
    """Ends the transaction of a test in mode rollback."""


class Lease:
    """A slot in the hands of one test.

    Args:
        slot: The database.
        mode: How what the test writes is undone.
        databases: Where the slot is from.
        test: Who has it.

    Attributes:
        seconds: How long making it ready and putting it back took.
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
        """Whether the database is to be kept as the test has left it."""
        return self._databases.options.keep and self._test.stash.get(FAILED, False)

    @property
    def waits(self) -> str:
        """What has waited for locks since the test began."""
        return "\n".join(self._databases.waits.seen.copy().values())

    def hand_out(self) -> str:
        """Give the URL, by which others may write too."""
        self._handed_out = True
        return self.slot.url

    @contextmanager
    def open_store(self) -> Iterator[Store]:
        """Open the store on it, in mode rollback inside a transaction that is rolled back."""
        with Store.open(database=self.slot.database) as store, ExitStack() as block:
            block.callback(_bind_models)
            if self.mode == "rollback":
                block.enter_context(self._rolled_back())
            block.enter_context(self._timed())
            yield store

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Hold a transaction for the test, roll it back, and note whether anything can have been committed."""
        database = self.slot.database
        pool = database.pool
        with suppress(_Undo), database.atomic():
            database.execute_sql("SAVEPOINT myloware_test")
            pool.close_idle()
            alone, opened = pool.in_use == 1, pool.opened
            yield
            if self.kept:
                with suppress(StoreError):
                    database.commit()
                raise _Undo
            with suppress(StoreError):  # it is not there in a transaction that the test began
                database.execute_sql("ROLLBACK TO SAVEPOINT myloware_test")
                self._undone = alone and opened == pool.opened and not self._handed_out
            raise _Undo
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
        """Take what fixtures have written so far as the state that `reset` comes back to."""
        if self._in_one_transaction():
            self.slot.database.execute_sql("SAVEPOINT myloware_reset")
            return
        with _told():
            self.slot.mark()
            self.slot.enter()
            self._levels += 1
            self.slot.accept()

    def reset(self) -> None:
        """Undo what was written since `accept`."""
        if self._levels:
            if self.slot.database.in_transaction():
                pytest.fail("a transaction is open: leave it before the database is put back", pytrace=False)
            with _told():
                self.slot.reset()
        else:
            self.slot.database.execute_sql("ROLLBACK TO SAVEPOINT myloware_reset")

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
        if self.slot.remade > remade and not doubtful:  # else it may have been an earlier one
            self._databases.remaking.append(self._test.nodeid)
        self.seconds += time.perf_counter() - start

    def changes(self) -> str:
        """Describe what the test has changed so far, as far as it can be read.

        In mode rollback it is read in the test's transaction, else from outside: what is not committed does not show.
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
            return f"it cannot be read: {str(error).strip()}"

    def _changes_inside(self, before: Read, copies: dict[str, str]) -> str:
        described = ""
        with suppress(_Undo), self.slot.database.atomic():
            self.slot.database.execute_sql(_PATIENCE.format(local=True))
            described = describe_changes(before, self._read, copies)
            raise _Undo
        return described

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        return list(self.slot.database.execute_sql(query.replace("%", "%%")))

    def _in_one_transaction(self) -> bool:
        return self.mode == "rollback" and self.slot.database.transaction_open()

    def timing(self) -> dict[str, Any]:
        """Say how long its statements and the way back took, in seconds, with the plan of the slowest statement."""
        queries = self._queries or Queries(self.slot.database)
        slowest = queries.slowest
        timing: dict[str, Any] = {
            "kept_apart": self.seconds,
            "statements": sum(query.seconds for query in queries.statements),
            "count": len(queries),
            "slowest": str(slowest) if slowest else "",
            "plan": self._plan,
        }
        return timing


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
def lend(request: pytest.FixtureRequest, databases: Databases, default_seed: Any) -> Iterator[Lease]:
    """Lend a test the database that its marker, or the run's options, ask for."""
    databases.require_own()
    mode, seed = _asked(request, default_seed)
    if databases.shared is not None:
        slot = databases.shared
        if seed != default_seed:
            pytest.fail(
                "a test of a class or module with a database of its own cannot have another seed", pytrace=False
            )
    else:
        slot = databases.slot(mode, seed)
    lease = Lease(slot, mode, databases, request.node)
    with _told():
        lease.begin()
    databases.waits.seen.clear()
    request.node.stash[LEASE] = lease
    try:
        with scope_kept():
            yield lease
    finally:
        if not databases.inherited:
            try:
                if lease.kept:
                    databases.keep(slot, request.node.nodeid)
            finally:
                with _told():
                    lease.end()


@contextmanager
def share(databases: Databases, seed: Any) -> Iterator[Store]:
    """Open the store on the database of a class or module, and undo afterwards what was written for it."""
    databases.require_own()
    slot = databases.shared or databases.slot("restore", seed)
    with _told():
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


def _bind_models() -> None:
    """Have the models follow the open store again, where a test has bound them to something else."""
    for model in MODELS:
        if model._meta.database is not proxy:
            model._meta.set_database(proxy)


@contextmanager
def _told() -> Iterator[None]:
    """Fail with what is wrong instead of with where it was noticed."""
    try:
        yield
    except SharedDatabaseAltered as error:
        pytest.fail(str(error), pytrace=False)


def _asked(request: pytest.FixtureRequest, seed: Any) -> tuple[Mode, Any]:
    """Read the marker, the innermost first."""
    asked: dict[str, Any] = {"mode": request.config.stash[OPTIONS].mode, "seed": seed}
    for marker in reversed(list(request.node.iter_markers(_MARKER))):
        if marker.args or set(marker.kwargs) - set(asked):
            pytest.fail(
                f"the marker {_MARKER} takes mode= and seed=, not {marker.args or marker.kwargs}", pytrace=False
            )
        asked |= marker.kwargs
    if asked["mode"] not in MODES:
        pytest.fail(f"the mode is one of {', '.join(MODES)}, not {asked['mode']!r}", pytrace=False)
    return asked["mode"], asked["seed"]

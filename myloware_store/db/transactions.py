"""Transactions and savepoints as blocks, and whole transactions that are retried after a conflict."""

from __future__ import annotations

import inspect
import random
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

from peewee import ConnectionContext
from peewee import _atomic as _PeeweeAtomic  # noqa: N812 - a class
from peewee import _manual as _PeeweeManual  # noqa: N812 - a class
from peewee import _savepoint as _PeeweeSavepoint  # noqa: N812 - a class
from peewee import _transaction as _PeeweeTransaction  # noqa: N812 - a class

from myloware_store.core.errors import DatabaseFault, InvalidInput, TransactionConflict
from myloware_store.db.driver_errors import misuse

__all__ = ["Atomic", "Blocks", "Manual", "Savepoint", "again_after_conflicts", "require_plain"]

_Result = TypeVar("_Result")
_Function = TypeVar("_Function")
_random = random.SystemRandom()
_AGAIN = {"40001", "40P01", "57014"}  # serialization failure, deadlock, cancelled for a signal whose handler returned
_NOT_PLAIN = (
    "an async function or a generator would run after the call has ended: give a plain function"
    " (asyncio.run(...) in it runs an async one)"
)


class _OfOneThread:
    """A block that returns its connection even if it ends in another thread than it began in."""

    db: Any
    _strict = True

    def __enter__(self) -> Any:
        self._held = weakref.ref(self.db._state)  # noqa: SLF001  a weak reference: the connection of a thread is released with the thread
        return super().__enter__()  # type: ignore[misc]  # Peewee's block

    def __exit__(self, exc_type: type[BaseException] | None, *error: object) -> None:
        held = self._held()
        if held is self.db._state:  # noqa: SLF001
            super().__exit__(exc_type, *error)  # type: ignore[misc]
            return
        if held is not None:
            held.end_elsewhere(self)
        if exc_type is None and self._strict:
            raise misuse(
                "the transaction was rolled back: its block ended in another thread than it began in, and statements of"
                " other threads were not part of it (perhaps several threads advanced a generator)"
            )


class _Connection(_OfOneThread, ConnectionContext):
    _strict = False


class _Transaction(_OfOneThread, _PeeweeTransaction):
    def __exit__(self, exc_type: type[BaseException] | None, *error: object) -> None:
        try:
            super().__exit__(exc_type, *error)
        except BaseException:
            # A signal handler can raise between any two steps: later statements must not run in this transaction.
            if not self.db.transaction_depth() and self.db.transaction_open():
                self.db.rollback()
            raise


class Manual(_OfOneThread, _PeeweeManual):
    """A block in which the caller begins and ends transactions."""


class Savepoint(_OfOneThread, _PeeweeSavepoint):
    """A savepoint whose own failure does not hide the error that ended its block."""

    def __enter__(self) -> Any:
        self._saves = len(self.db._state.saves)  # noqa: SLF001
        return super().__enter__()

    def rollback(self, begin: bool = True) -> None:  # noqa: FBT001, FBT002  Peewee's signature
        """Roll back to the savepoint."""
        self.db._state.take_back_saves(self._saves)  # noqa: SLF001
        super().rollback(begin)

    def __exit__(self, exc_type: type[BaseException] | None, *error: object) -> None:
        with nullcontext() if exc_type is None else suppress(DatabaseFault):
            super().__exit__(exc_type, *error)


class Atomic(_PeeweeAtomic):
    """A transaction, or a savepoint inside a transaction, even one begun by hand."""

    db: Any

    def __enter__(self) -> Any:
        manual = isinstance(self.db.top_transaction(), Manual)
        if self.db.transaction_open() and (manual or self.db.transaction_depth() == 0):
            self._helper = self.db.savepoint()
            return self._helper.__enter__()
        if manual:
            raise misuse("inside db.manual_commit() you begin transactions yourself: call db.begin() first")
        return super().__enter__()

    def __call__(self, fn: Callable[..., _Result]) -> Callable[..., _Result]:
        """Decorate a plain function, so that each call is such a block."""
        decorate: Any = super().__call__
        decorated: Callable[..., _Result] = decorate(require_plain(fn))
        return decorated


class Blocks:
    """Begins blocks on a database, or on a proxy of one."""

    transaction_open: Callable[[], bool]

    def connection_context(self) -> _Connection:
        """Hold a connection while the block runs."""
        return _Connection(self)

    def manual_commit(self) -> Manual:
        """Let the block begin and end transactions by hand."""
        return Manual(self)

    def transaction(self, *args: Any, **kwargs: Any) -> _Transaction:
        """Begin a transaction; its arguments are those of `begin`."""
        return _Transaction(self, *args, **kwargs)

    def atomic(self, *args: Any, **kwargs: Any) -> Atomic:
        """Begin a transaction, or a savepoint inside one; its arguments are those of `begin`."""
        return Atomic(self, *args, **kwargs)

    def savepoint(self) -> Savepoint:
        """Begin a savepoint."""
        return Savepoint(self)

    def transact(self, fn: Callable[[], _Result], *, retries: int = 5) -> _Result:
        """Run `fn()` in one transaction, and run it again after a conflict with a concurrent transaction.

        Inside an open transaction it runs once, in a savepoint: only the outermost call can be retried.

        Args:
            fn: A plain function. It may run several times, so it should do nothing that a rollback does not undo.
            retries: How many times to retry after a serialization failure or a deadlock; by default 5.

        Returns:
            The result of `fn`.

        Raises:
            InvalidInput: `fn` is not a plain function, or returned a coroutine or a generator; nothing was stored.
            TransactionConflict: The last retry conflicted, too.
            AmbiguousCommit: The connection was lost during COMMIT, which is not retried.
        """
        require_plain(fn)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidInput("retries must be a whole number, 0 or more")

        def once() -> _Result:
            with self.atomic():
                result = fn()
                _require_done(result)
                return result

        return again_after_conflicts(once, 0 if self.transaction_open() else retries)


def again_after_conflicts(fn: Callable[[], _Result], retries: int = 5) -> _Result:
    """Run a whole transaction or a single statement, and run it again after a conflict."""
    pause = 0.02
    while True:
        try:
            return fn()
        except TransactionConflict as conflict:
            if not retries or conflict.sqlstate not in _AGAIN:
                raise
        retries -= 1
        time.sleep(_random.uniform(0, pause))
        pause = min(1.0, 2 * pause)


def require_plain(fn: _Function, name: str = "fn") -> _Function:
    """Return a plain function unchanged; refuse async functions, generators, and objects that cannot be called."""
    if not callable(fn):
        raise InvalidInput(f"{name}: {type(fn).__name__} is not a function")
    later = inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
    if any(kind(called) for called in (fn, getattr(fn, "__call__", None)) for kind in later):  # noqa: B004
        raise InvalidInput(f"{name}: {_NOT_PLAIN}")
    return fn


def _require_done(result: object) -> None:
    """Refuse a coroutine or generator as a result, which would run later."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result) or inspect.isgenerator(result):
            result.close()
        raise InvalidInput(f"fn returned a {type(result).__name__}: {_NOT_PLAIN}")

"""The connection that each thread holds: taken from the pool when needed, and returned clean."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager, nullcontext
from threading import get_ident
from typing import TYPE_CHECKING, Any, SupportsIndex

import psycopg2
from psycopg2 import extensions

from myloware_store.db.deadlines import watched
from myloware_store.db.pool import alive, as_new
from myloware_store.db.tenancy import NO_SCOPE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from myloware_store.db.pool import ConnectionPool, Lease

__all__ = ["Held", "ThreadConnection"]

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_UNKNOWN = extensions.TRANSACTION_STATUS_UNKNOWN


class _Blocks(list[Any]):
    """Open blocks. A forked child may leave blocks of its parent, for which there is nothing to do."""

    def pop(self, index: SupportsIndex = -1) -> Any:
        return super().pop(index) if self else nullcontext()


class Held:
    """The connection and the open blocks of one thread.

    A block may end in another thread than it began in, for example in a generator that a thread pool advances. It then
    returns the connection of the thread that it began in, which may be running a statement: `busy` and the lock keep
    the two threads apart. Each thread announces its step before it looks at the other thread's.

    Args:
        pool: The pool of the connections.

    Attributes:
        closed: Whether no connection is held.
        conn: The connection.
        ctx: The open `with db:` and `connection_context()` blocks. This attribute and the next two are Peewee's.
        transactions: The open transaction blocks.
        commit_callbacks: Functions to call after the commit.
        saves: The instances saved in the open transaction block, with the names of the fields.
        pinned: Whether `connect()` holds the connection until `close()`.
        soiled: Whether the session may have been changed.
        reusable: Whether the connection may be used again: nobody was given the connection itself.
        doomed: Whether an open transaction was lost with its connection; no statement runs until it is ended.
        told: The tenant, the actor and the role that the open transaction was told; None if a rollback to a savepoint
            may have changed them.
        orphans: How many transaction blocks of a parent process may still end in this one.
        busy: How many statements the thread is running, one inside the other.
        left: Whether another thread has ended a block of this one, but could not return the connection.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.ctx: list[Any] = _Blocks()
        self.transactions: list[Any] = []
        self.commit_callbacks: list[Any] = []
        self.saves: list[tuple[weakref.ref[Any], Sequence[str]]] = []
        self.orphans = 0
        self._thread = get_ident()
        self._epoch = 0
        self._begin_anew()
        _inherited.add(self)

    def _begin_anew(self) -> None:
        self.busy = 0
        self.left = False
        self._lock = threading.RLock()  # the garbage collector may end a block anywhere
        self._units = 0
        self._ended = 0  # how many units ended in other threads
        self._let_go()

    def _let_go(self) -> None:
        self.closed = True
        self.conn: Any = None
        self.pinned = False
        self.soiled = False
        self.reusable = True
        self.doomed = False
        self.told: tuple[str, str, str] | None = NO_SCOPE
        self._lease: Lease | None = None

    @property
    def held(self) -> bool:
        """Whether a block or `connect()` keeps the connection."""
        return self.pinned or self._units > self._ended or bool(self.transactions)

    @contextmanager
    def unit(self) -> Iterator[None]:
        """Hold a connection while the block runs."""
        outermost, epoch = self.closed, self._epoch
        if outermost:
            self.check_out()
        self._units += 1
        try:
            yield
        finally:
            # A child that was forked inside the block has nothing to return.
            if epoch == self._epoch:
                if get_ident() != self._thread:
                    self.end_elsewhere()
                else:
                    self._units -= 1
                    if outermost and not self.pinned:
                        self.check_in()
                    else:
                        self.settle()

    def live(self) -> extensions.connection:
        """Return the connection, a new one if it was lost between transactions."""
        if not (self.closed or self.soiled or self.doomed) and self._idle() and not alive(self.conn):
            pinned, lease = self.pinned, self._lease
            self._let_go()
            self.pinned = pinned
            if lease is not None:
                lease.give_back(reuse=False)
        if self.closed:
            self.check_out()
        connection: extensions.connection = self.conn
        return connection

    def check_out(self) -> None:
        """Take a connection from the pool."""
        self._lease = self.pool.acquire()
        self.conn = self._lease.connection
        self.closed = False

    def check_in(self) -> None:
        """Return the connection clean to the pool, or close it; roll back an open transaction."""
        with self._lock:
            lease, soiled, reusable = self._lease, self.soiled, self.reusable
            self._let_go()
            self.left = False
            self.take_back_saves()
            if self.transactions:
                self.transactions.clear()
                self.commit_callbacks.clear()
            if lease is not None:
                reuse = False
                try:
                    reuse = reusable and _clean(lease.connection, soiled=soiled, call_timeout=self.pool.call_timeout)
                finally:
                    lease.give_back(reuse=reuse)

    def take_back_saves(self, since: int = 0) -> None:
        """Mark the fields saved since then as changed again, because they were rolled back."""
        for row, names in self.saves[since:]:
            if (saved := row()) is not None:
                saved._dirty.update(names)  # noqa: SLF001  Peewee's
        del self.saves[since:]

    def settle(self) -> None:
        """Return the connection if nothing holds it, neither a block nor a transaction that was begun by hand."""
        if not (self.closed or self.held or self.doomed) and self._idle():
            self.check_in()
        elif self.left:
            self._return_what_is_left()

    def begin(self) -> None:
        """Announce a statement of this thread, and wait for another thread that is returning its connection."""
        self.busy += 1
        with self._lock:
            pass

    def end(self) -> None:
        """Announce the end of the statement, and return the connection if nothing holds it."""
        self.busy -= 1
        if not self.busy:  # a signal handler may run a statement during another one
            self.settle()

    def end_elsewhere(self, block: object = None) -> None:
        """End a block of this thread from another thread.

        Args:
            block: The block; None for a unit.
        """
        self.left = True
        with self._lock:
            if block is None:
                self._ended += 1
            elif block in self.ctx:
                self.ctx.remove(block)
                self.pinned = bool(self.ctx)
            elif block in self.transactions:
                self.transactions.remove(block)
        self._return_what_is_left()

    def _return_what_is_left(self) -> None:
        with self._lock:
            if not (self.busy or self.held):
                self.check_in()

    def orphan(self) -> None:
        """Start without a connection in a forked child: the connections are the parent's."""
        if self._lease is not None:
            self._lease.abandon()
        self.orphans = len(self.transactions)
        self._epoch += 1
        self.transactions.clear()
        self.commit_callbacks.clear()
        self.saves.clear()
        self.ctx.clear()
        self._begin_anew()

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, as far as the client knows."""
        return not (self.closed or self._idle())

    def _idle(self) -> bool:
        connection = self.conn  # another thread may be returning it
        return connection is None or bool(connection.closed) or connection.get_transaction_status() in (_IDLE, _UNKNOWN)


class ThreadConnection(threading.local):
    """The connection of each thread.

    Args:
        pool: The pool of the connections.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self.held = Held(pool)


def _clean(connection: extensions.connection, *, soiled: bool, call_timeout: float | None) -> bool:
    """Reset a connection to its state after connecting; return False if that is not possible."""
    status = _UNKNOWN if connection.closed else connection.get_transaction_status()
    if status == _UNKNOWN:
        return False
    if status != _IDLE:
        try:
            with watched(connection, call_timeout), connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
        except psycopg2.Error:
            return False
    if soiled:
        with watched(connection, call_timeout):
            return as_new(connection)
    return True


_inherited: weakref.WeakSet[Held] = weakref.WeakSet()


def _orphan_all() -> None:
    for held in list(_inherited):
        held.orphan()


os.register_at_fork(after_in_child=_orphan_all)

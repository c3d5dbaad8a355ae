"""The connection that each thread holds: taken from the pool when it is needed, and returned clean."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, SupportsIndex

import psycopg2
from psycopg2 import extensions

from myloware_store.pool import alive, as_new

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.pool import ConnectionPool, Lease

__all__ = ["ThreadConnection"]

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_UNKNOWN = extensions.TRANSACTION_STATUS_UNKNOWN


class _Blocks(list[Any]):
    """Open blocks; in a forked child also those of the parent may be left, and there is nothing to do for them."""

    def pop(self, index: SupportsIndex = -1) -> Any:
        return super().pop(index) if self else nullcontext()


class ThreadConnection(threading.local):
    """What one thread holds of a database.

    Args:
        pool: Where its connections come from.

    Attributes:
        closed: Whether no connection is held.
        conn: The connection.
        ctx: The open `with db:` and `connection_context()` blocks; Peewee's, as are the next two.
        transactions: The open transaction blocks.
        commit_callbacks: What is called after the commit.
        pinned: Whether `connect()` asked to hold the connection until `close()`.
        soiled: Whether something may be left in the session.
        reusable: Whether nobody was given the connection itself.
        doomed: Whether an open transaction was lost with its connection: nothing runs until it is ended.
        orphans: How many transaction blocks of a parent process may still be left in this one.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.ctx: list[Any] = _Blocks()
        self.transactions: list[Any] = []
        self.commit_callbacks: list[Any] = []
        self.orphans = 0
        self._units = 0
        self._epoch = 0
        self._let_go()

    def _let_go(self) -> None:
        self.closed = True
        self.conn: Any = None
        self.pinned = False
        self.soiled = False
        self.reusable = True
        self.doomed = False
        self._lease: Lease | None = None

    @property
    def held(self) -> bool:
        """Whether a block or `connect()` keeps the connection."""
        return self.pinned or self._units > 0 or bool(self.transactions)

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
            # In a child that was forked inside the block there is nothing to return.
            if epoch == self._epoch:
                self._units -= 1
                if outermost and not self.pinned:
                    self.check_in()
                else:
                    self.settle()

    def live(self) -> extensions.connection:
        """Return the connection, a new one where it was lost between transactions."""
        if not (self.closed or self.soiled or self.doomed) and self._idle() and not alive(self.conn):
            self._give_back(reuse=False)
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
        """Return the connection, clean, or close it; an open transaction is rolled back."""
        reuse = False
        try:
            reuse = self._clean()
        finally:
            if self.transactions:
                self.transactions.clear()
                self.commit_callbacks.clear()
            self.pinned = False
            self._give_back(reuse=reuse)

    def settle(self) -> None:
        """Return the connection if nothing holds it, not even a transaction that was begun by hand."""
        if not (self.closed or self.held or self.doomed) and self._idle():
            self.check_in()

    def orphan_after_fork(self) -> None:
        """Have `orphan()` called in every child that is forked from now on."""
        _inherited.add(self)

    def orphan(self) -> None:
        """Begin anew in a forked child: the connections are the parent's."""
        if self._lease is not None:
            self._lease.abandon()
        self.orphans = len(self.transactions)
        self._epoch += 1
        self._units = 0
        self.transactions.clear()
        self.commit_callbacks.clear()
        self.ctx.clear()
        self._let_go()
        self.pool.forget()

    def in_transaction(self) -> bool:
        """Tell whether the server has a transaction open, as far as the client knows."""
        return not (self.closed or self._idle())

    def _give_back(self, *, reuse: bool) -> None:
        lease, pinned = self._lease, self.pinned
        self._let_go()
        self.pinned = pinned
        if lease is not None:
            lease.give_back(reuse=reuse)

    def _idle(self) -> bool:
        return bool(self.conn.closed) or self.conn.get_transaction_status() in (_IDLE, _UNKNOWN)

    def _clean(self) -> bool:
        """Bring the connection back to how it was opened; False if it cannot be."""
        if self.closed or not self.reusable or self.conn.closed:
            return False
        status = self.conn.get_transaction_status()
        if status == _UNKNOWN:
            return False
        if status == _IDLE and not self.soiled:
            return True
        try:
            if status != _IDLE:
                with self.conn.cursor() as cursor:
                    cursor.execute("ROLLBACK")
        except psycopg2.Error:
            return False
        return not self.soiled or as_new(self.conn)


_inherited: weakref.WeakSet[ThreadConnection] = weakref.WeakSet()


def _orphan_all() -> None:
    for held in list(_inherited):
        held.orphan()


os.register_at_fork(after_in_child=_orphan_all)

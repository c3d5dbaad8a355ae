"""A first-come, first-served pool of connections that survives the end of threads, forks and server restarts."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import extensions

from myloware_store.core.errors import PoolTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ConnectionPool", "Lease", "alive", "as_new", "readable"]


class ConnectionPool:
    """At most `limit` connections, shared by the threads of one process.

    Peewee's own pool connects and probes while it holds the lock that other threads need to return a connection. It
    lets running threads overtake waiting ones, and leaks the connections of threads that end. Here a free place goes to
    the thread that has waited longest, and the lock is not held during network traffic.

    Args:
        connect: Opens a connection, in autocommit mode.
        limit: The most connections open at once.
        timeout: How many seconds a thread waits for a place; infinity for no limit.
        call_timeout: How many seconds a connection that is being reset waits for the server; None for no limit.

    Attributes:
        opened: How many connections were opened so far.
    """

    def __init__(
        self,
        connect: Callable[[], extensions.connection],
        *,
        limit: int,
        timeout: float,
        call_timeout: float | None = None,
    ) -> None:
        self.limit = limit
        self.timeout = timeout
        self.call_timeout = call_timeout
        self._connect = connect
        self._start()
        _inherited.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._places = self.limit
        self._queue: deque[threading.Lock] = deque()
        self._idle: list[extensions.connection] = []
        self._open: set[extensions.connection] = set()
        self.opened = 0
        self._epoch = object()

    def acquire(self) -> Lease:
        """Take a working connection; wait for a place if all are in use.

        Raises:
            PoolTimeout: No place became free in time.
            psycopg2.Error: A new connection was needed and failed.
        """
        self._enter()
        try:
            while (connection := self._pop()) is not None:
                if alive(connection):
                    return Lease(self, connection, self._epoch)
                self._drop(connection)
            connection = self._connect()
            self._open.add(connection)
            self.opened += 1
            return Lease(self, connection, self._epoch)
        except BaseException:
            self._leave()
            raise

    def release(self, connection: extensions.connection, epoch: object, *, reuse: bool) -> None:
        """Take a connection back, and pass its place to the next thread."""
        if reuse and epoch is self._epoch:
            self._idle.append(connection)
        else:
            self._drop(connection)
        self._leave()

    @property
    def in_use(self) -> int:
        """How many connections are in use."""
        return len(self._open) - len(self._idle)

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        while (connection := self._pop()) is not None:
            self._drop(connection)

    def close_all(self) -> None:
        """Close the connections that are not in use now, and the others when they are returned."""
        self._epoch = object()
        self.close_idle()

    def forget(self) -> None:
        """Start empty in a forked child, and drop the parent's connections without closing their sessions."""
        inherited = self._open
        self._start()
        # The sockets are the parent's. What libpq writes when it closes a connection must not reach them, and a child
        # that outlives its parent must not keep the sessions open.
        with contextlib.suppress(OSError), Path(os.devnull).open("r+b", buffering=0) as null:
            for connection in inherited:
                with contextlib.suppress(psycopg2.InterfaceError):
                    os.dup2(null.fileno(), connection.fileno(), inheritable=False)

    def __repr__(self) -> str:
        return f"<ConnectionPool of {self.limit}: {len(self._open)} open, {len(self._idle)} idle>"

    def _enter(self) -> None:
        with self._lock:
            if self._places:
                self._places -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._queue.append(turn)
        try:
            if turn.acquire(timeout=min(self.timeout, threading.TIMEOUT_MAX)) or not self._withdraw(turn):
                return
        except BaseException:
            if not self._withdraw(turn):
                self._leave()
            raise
        raise PoolTimeout(
            f"no connection came free within {self.timeout:g} s: all {self.limit} are in use"
            " (raise connection_limit, or hold units of work for less time)"
        )

    def _leave(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._places += 1

    def _withdraw(self, turn: threading.Lock) -> bool:
        """Leave the queue; return False if the place was assigned in the meantime."""
        with self._lock:
            try:
                self._queue.remove(turn)
            except ValueError:
                return False
            return True

    def _pop(self) -> extensions.connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _drop(self, connection: extensions.connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(psycopg2.Error):
            connection.close()


class Lease:
    """A connection taken from the pool; it is closed if its thread ends without `give_back()`."""

    def __init__(self, pool: ConnectionPool, connection: extensions.connection, epoch: object) -> None:
        self.connection = connection
        self._pool: ConnectionPool | None = pool
        self._epoch = epoch
        self._process = os.getpid()

    def give_back(self, *, reuse: bool) -> None:
        """Return the connection to the pool, to be used again or closed."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.release(self.connection, self._epoch, reuse=reuse)

    def abandon(self) -> None:
        """Forget the connection, which belongs to a parent process."""
        self._pool = None

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # In a forked child the threads of the parent end, too; the child must not close their connections.
        if self._pool is not None and self._process == getpid():
            self.give_back(reuse=False)


_inherited: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_inherited):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)


def as_new(connection: extensions.connection) -> bool:
    """Reset a connection between transactions to its state after connecting; return False if that is not possible."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("DISCARD ALL")
    except psycopg2.Error:
        return False
    # psycopg2 needs ISO dates, which it asked for when it connected; the server may have another default.
    return str(connection.get_parameter_status("DateStyle")).startswith("ISO")


def alive(connection: extensions.connection) -> bool:
    """Return whether an idle connection still works, without a round trip.

    A server sends something to an idle connection only when it ends it, so the connection is then readable.
    """
    # If a signal interrupted the driver's error, libpq has closed the socket, and the driver does not know.
    number = -1 if connection.closed else connection.fileno()
    return number >= 0 and not readable(number)


def readable(*files: int, seconds: float = 0.0) -> bool:
    """Wait until a file is readable, and return whether one is."""
    try:
        watch = select.poll()
    except AttributeError:  # eventlet removes it, and replaces select()
        return bool(select.select(files, (), (), seconds)[0])
    for file in files:
        watch.register(file, select.POLLIN)
    return bool(watch.poll(seconds * 1000))

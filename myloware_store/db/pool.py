"""A pool of connections, handed out in the order they were asked for, that survives threads, forks and restarts."""

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

    Peewee's own pool connects and probes while it holds the lock that others need to return a connection, wakes a
    waiting thread only to let a running one overtake it, and leaks the slots of threads that end. Here a place goes to
    the thread that has waited longest, and all network traffic is outside the lock.

    Args:
        connect: Opens a connection, in autocommit mode.
        limit: The most connections open at once.
        timeout: Seconds that a thread waits for a place; infinity waits for ever.

    Attributes:
        opened: How many connections were opened so far.
    """

    def __init__(self, connect: Callable[[], extensions.connection], *, limit: int, timeout: float) -> None:
        self.limit = limit
        self.timeout = timeout
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
        """Take a connection that works, waiting for a place if all are in use.

        Raises:
            PoolTimeout: No place came free in time.
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
        """Take a connection back, and let the next thread have its place."""
        if reuse and epoch is self._epoch:
            self._idle.append(connection)
        else:
            self._drop(connection)
        self._leave()

    @property
    def in_use(self) -> int:
        """How many connections are in somebody's hands."""
        return len(self._open) - len(self._idle)

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while (connection := self._pop()) is not None:
            self._drop(connection)

    def close_all(self) -> None:
        """Close the connections that nobody uses now, and the others when they come back."""
        self._epoch = object()
        self.close_idle()

    def forget(self) -> None:
        """Start anew in a forked child, and let go of the parent's connections without a word to their servers."""
        inherited = self._open
        self._start()
        # The sockets are the parent's: what libpq may still write on its way out must not reach them, and a child that
        # outlives the parent must not keep its sessions open.
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
        """Leave the queue; False if the place was handed over in the meantime."""
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
    """One connection in the hands of one thread; it is closed when its thread ends without `give_back()`."""

    def __init__(self, pool: ConnectionPool, connection: extensions.connection, epoch: object) -> None:
        self.connection = connection
        self._pool: ConnectionPool | None = pool
        self._epoch = epoch
        self._process = os.getpid()

    def give_back(self, *, reuse: bool) -> None:
        """Return the connection, to be used again or closed."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.release(self.connection, self._epoch, reuse=reuse)

    def abandon(self) -> None:
        """Forget the connection, which belongs to a parent process."""
        self._pool = None

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # In a forked child the threads of the parent end too, and their connections are not the child's to close.
        if self._pool is not None and self._process == getpid():
            self.give_back(reuse=False)


_inherited: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_inherited):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)


def as_new(connection: extensions.connection) -> bool:
    """Bring a connection between transactions back to how it was opened; False if it cannot be."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("DISCARD ALL")
    except psycopg2.Error:
        return False
    # psycopg2 asked for ISO dates when it connected, which a server's own default may not be.
    return str(connection.get_parameter_status("DateStyle")).startswith("ISO")


def alive(connection: extensions.connection) -> bool:
    """Tell whether a connection that waits between statements still stands, without asking its server.

    A server says something unasked only when it ends the connection: there is then something to read.
    """
    if connection.closed:
        return False
    return not readable(connection.fileno())


def readable(*files: int, seconds: float = 0.0) -> bool:
    """Wait until a file has something to read, and tell whether one has."""
    try:
        watch = select.poll()
    except AttributeError:  # eventlet takes it away, and its select() serves
        return bool(select.select(files, (), (), seconds)[0])
    for file in files:
        watch.register(file, select.POLLIN)
    return bool(watch.poll(seconds * 1000))

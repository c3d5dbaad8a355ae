"""Deadlines of calls: a call that waits too long for the server loses its connection, and so ends with an error.

A thread that waits in libpq cannot be interrupted from Python, and neither `statement_timeout`, which the server keeps,
nor TCP's keepalives, which a proxy answers, end the wait for a network that passes nothing on. So one thread of the
process watches all calls, and shuts down the socket of one that is late: for libpq, the server has then hung up.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import attrs
import psycopg2

from myloware_store.core.arguments import as_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

__all__ = ["Call", "call_on", "call_timeout", "peer", "timeout_in_force", "watch", "watched"]


@attrs.define
class _Scope:
    seconds: float
    outer: _Scope | None
    ended: bool = False


_in_force: ContextVar[_Scope | None] = ContextVar("myloware_call_timeout", default=None)


@contextmanager
def call_timeout(seconds: float | None) -> Iterator[None]:
    """Set the deadline of calls in this thread or task while the block runs; it also decorates functions.

    Args:
        seconds: How long a call may wait for the server, instead of `Settings.call_timeout`; None or infinity for ever.

    Raises:
        InvalidInput: It is not a number of seconds.
    """
    lifted = seconds is None or seconds == math.inf
    wanted = math.inf if lifted else as_seconds(seconds, "call_timeout", least=0.001)
    scope = _Scope(wanted, _in_force.get())
    before = _in_force.set(scope)
    try:
        yield
    finally:
        try:
            _in_force.reset(before)
        except ValueError:  # another thread, with another context, ends it
            scope.ended = True


def timeout_in_force(setting: float | None) -> float | None:
    """Return how many seconds a call may wait for the server, or None.

    Args:
        setting: The database's own; infinity is never overridden.
    """
    scope = _in_force.get()
    while scope is not None and scope.ended:
        scope = scope.outer
    seconds = setting if scope is None or setting == math.inf else scope.seconds
    return None if seconds == math.inf else seconds


@contextmanager
def peer(connection: connection) -> Iterator[socket.socket]:
    """Yield the socket of a connection that another thread uses.

    Raises:
        OSError: libpq has closed it; another thread may have got its number.
        psycopg2.Error: The connection is closed.
    """
    number = connection.fileno()
    with socket.socket(fileno=os.dup(number)) as end:
        if connection.fileno() != number:
            raise ConnectionAbortedError
        yield end


class Call:
    """A call that waits for the server, watched until its `end()`.

    Attributes:
        connection: The connection that it uses.
        seconds: How long it may wait.
        deadline: When it is late, by `time.monotonic()`.
        passed: Whether its deadline has passed, and its connection was shut down.
    """

    __slots__ = ("_watchdog", "connection", "deadline", "passed", "seconds")

    def __init__(self, watchdog: _Watchdog, connection: connection, seconds: float) -> None:
        self._watchdog = watchdog
        self.connection = connection
        self.seconds = seconds
        self.passed = False
        self.renew()

    def renew(self) -> None:
        """Wait anew from now on, because the server has made progress."""
        self.deadline = time.monotonic() + self.seconds
        self._watchdog.calls.add(self)
        if self.deadline < self._watchdog.looks_at:
            self._watchdog.wake.put(None)

    def pause(self) -> None:
        """Wait for something other than the server until `renew()`."""
        self.deadline = math.inf

    def end(self) -> None:
        """Stop waiting; a shutdown that has begun is over when this returns, so that it hits no later call."""
        try:
            self._watchdog.calls.remove(self)
        except KeyError:
            with self._watchdog.aiming:
                pass

    def shut_down(self) -> None:
        """Shut the socket down."""
        with suppress(psycopg2.Error, OSError), peer(self.connection) as end:
            self.passed = True
            end.shutdown(socket.SHUT_RDWR)


class _Watchdog:
    """The thread that looks for late calls.

    It sleeps until the first of them would be late, and while there are none until somebody wakes it. So a statement
    hardly ever wakes it: later calls have later deadlines.

    Attributes:
        calls: The calls that wait; each is removed by its end or by the thread, whoever comes first.
        looks_at: When the thread looks at them next.
        wake: What is put in here wakes it. Signal handlers may do that in the middle of it.
        aiming: A lock, held while a socket is being shut down.
    """

    def __init__(self) -> None:
        self.calls: set[Call] = set()
        self.looks_at = math.inf
        self.wake: SimpleQueue[None] = SimpleQueue()
        self.aiming = threading.RLock()
        threading.Thread(target=self._watch, name="myloware-deadlines", daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.looks_at = math.inf  # a call that comes from now on is either seen below, or wakes
            now = time.monotonic()
            # One that is paused is looked at again, too, or each of its many renewals would wake.
            looks = [min(call.deadline, now + call.seconds) for call in self.calls.copy()]
            self.looks_at = min(looks, default=math.inf)
            with suppress(Empty):
                self.wake.get(timeout=min(max(self.looks_at - now, 0.0), threading.TIMEOUT_MAX))
            now = time.monotonic()
            for call in self.calls.copy():
                if call.deadline <= now:
                    with self.aiming, suppress(KeyError):
                        self.calls.remove(call)
                        call.shut_down()


_watchdog: _Watchdog | None = None


def watch(connection: connection, setting: float | None) -> Call | None:
    """Watch a call that is about to wait for the server, until its `end()`; return None if it has no deadline.

    Args:
        connection: The connection that it uses.
        setting: The database's `call_timeout`.
    """
    global _watchdog  # noqa: PLW0603  one for each process
    seconds = timeout_in_force(setting)
    if seconds is None:
        return None
    if _watchdog is None:  # two threads may each make one: both work
        try:
            _watchdog = _Watchdog()
        except RuntimeError:  # while the interpreter exits, it starts no more threads
            return None
    return Call(_watchdog, connection, seconds)


@contextmanager
def watched(connection: connection, setting: float | None) -> Iterator[None]:
    """Watch a call while the block runs, as `watch` does; the driver's error says if its deadline has passed."""
    call = watch(connection, setting)
    try:
        yield
    except psycopg2.Error:
        if call is not None and call.passed:
            raise psycopg2.OperationalError("timeout expired") from None
        raise
    finally:
        if call is not None:
            call.end()


def call_on(connection: connection) -> Call | None:
    """Return the call that uses a connection, if it has a deadline."""
    calls = set[Call]() if _watchdog is None else _watchdog.calls.copy()
    return next((call for call in calls if call.connection is connection), None)


def _begin_anew() -> None:
    """Start without a watchdog in a forked child: its thread and its calls are the parent's."""
    global _watchdog  # noqa: PLW0603
    _watchdog = None


os.register_at_fork(after_in_child=_begin_anew)

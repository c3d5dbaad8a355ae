"""Signals during a statement of the main thread: the statement is cancelled, so that Python can run its handlers.

Python runs signal handlers in the main thread, between two of its instructions, which a thread that waits in libpq does
not reach. So while the main thread runs a statement, signals are also sent to a second thread
(`signal.set_wakeup_fd`). It cancels the statement if this is still running a moment later. If the server does not
answer at all, it shuts the connection down: psycopg2's `cancel()` would stop all threads until the server answers.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any

import psycopg2

from myloware_store.db.deadlines import peer

if TYPE_CHECKING:
    from psycopg2.extensions import connection

__all__ = ["Statement", "watch"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
"""The signals that end a program or its current task; handlers of others rarely raise."""
_PATIENCE = 0.2  # seconds until a running statement is cancelled
_PATIENCE_FOR_ANSWERS = 2.0  # seconds until the server does not answer
_HELLO = struct.pack("!II", 8, 80877103)  # asks for TLS, which every server answers with a letter
_NOBODY = -1  # no wakeup file


class Statement:
    """A running statement of the main thread.

    Attributes:
        cancelled: The signal for which it was cancelled.
        insisted: Whether that signal had come before, and its handler had returned.
        heard: The signals that came during it.
    """

    cancelled: signal.Signals | None = None
    insisted = False
    heard = b""

    def __init__(self, watcher: _Watcher, connection: connection) -> None:
        others: int = signal.set_wakeup_fd(watcher.mouth, warn_on_full_buffer=False)
        self.connection = connection
        self._watcher = watcher
        self._outer = watcher.current
        # If an exception prevented the `end()` of an earlier statement, the file is still ours.
        self._others = _NOBODY if others == watcher.mouth and self._outer is None else others
        watcher.current = self

    def end(self) -> None:
        """Restore the earlier wakeup file, once a cancel request being sent is over: it must hit no later statement."""
        watcher, others = self._watcher, self._others
        if others == _NOBODY:
            signal.set_wakeup_fd(_NOBODY)
        else:
            signal.set_wakeup_fd(others, warn_on_full_buffer=False)
        with watcher.aiming:
            if self._outer is None:
                heard = self.heard + watcher.take()  # otherwise a late signal would cancel the next statement
                if others not in (_NOBODY, watcher.mouth):
                    with suppress(OSError):
                        os.write(others, heard)  # such as an event loop's
            watcher.current = self._outer

    def returned(self) -> str | None:
        """Record that the handler has returned; return the signal's name if the statement was cancelled in vain."""
        number = self.cancelled
        if number is None or self.insisted:
            return None
        if number != signal.SIGINT:  # programs may act on the second one, as asyncio does
            _returning[number] = signal.getsignal(number)
        return number.name


class _Watcher:
    """The thread that receives the signals.

    Attributes:
        current: The running statement.
        aiming: A lock, held while a statement is being cancelled.
        mouth: The file that signals are written to.
    """

    def __init__(self) -> None:
        self.current: Statement | None = None
        self.aiming = threading.RLock()  # reentrant: a signal handler may run statements while the main thread holds it
        self._ears, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self.mouth = self._mouth.fileno()
        threading.Thread(target=self._listen, name="myloware-signals", daemon=True).start()

    def take(self) -> bytes:
        """Return the signals received so far, and clear them."""
        try:
            return self._ears.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close its files, in a process in which the thread does not exist."""
        self._ears.close()
        self._mouth.close()

    def _listen(self) -> None:
        while True:
            self._ears.recv(1, socket.MSG_PEEK)
            with self.aiming:
                heard, statement = self.take(), self.current
                if statement is not None:
                    before, statement.heard = statement.heard, statement.heard + heard
            if statement is not None:
                for number in _SIGNALS:
                    if number in heard and _may_raise(number, insisted=number in before):
                        self._cancel(statement, number, insisted=number in before)

    def _cancel(self, statement: Statement, number: signal.Signals, *, insisted: bool) -> None:
        time.sleep(_PATIENCE)
        with self.aiming:
            if self.current is statement:
                statement.cancelled, statement.insisted = number, insisted
                with suppress(psycopg2.Error, OSError), peer(statement.connection) as end:
                    if _answers(end):
                        statement.connection.cancel()
                    else:
                        end.shutdown(socket.SHUT_RDWR)


_watcher: _Watcher | None = None
_main = threading.main_thread().ident
_returning: dict[int, Any] = {}
"""Handlers that have returned; the first signal of such a kind cancels nothing from then on."""


def watch(connection: connection) -> Statement | None:
    """Watch a statement of the main thread until its `end()`; return None in other threads, which get no signals."""
    global _watcher, _main  # noqa: PLW0603  one for each process, as there is one main thread
    if get_ident() != _main:
        return None
    if _watcher is None:
        _watcher = _Watcher()
    try:
        return Statement(_watcher, connection)
    except ValueError:  # a subinterpreter, whose main thread gets no signals
        _main = None
        return None


def _answers(end: socket.socket) -> bool:
    """Return whether the server at the other end of a socket answers a new connection."""
    with suppress(OSError), socket.socket(end.family) as probe:
        probe.settimeout(_PATIENCE_FOR_ANSWERS)
        probe.connect(end.getpeername())
        probe.sendall(_HELLO)
        return bool(probe.recv(1))
    return False


def _may_raise(number: signal.Signals, *, insisted: bool) -> bool:
    returns = number in _returning and _returning[number] is signal.getsignal(number)
    return not returns or (insisted and number != signal.SIGALRM)


def _begin_anew() -> None:
    """Start without a watcher in a forked child: its thread and files are the parent's."""
    global _watcher, _main  # noqa: PLW0603
    _main = threading.main_thread().ident
    watcher, _watcher = _watcher, None
    if watcher is not None:
        if watcher.current is not None:
            signal.set_wakeup_fd(_NOBODY)
        watcher.close()


os.register_at_fork(after_in_child=_begin_anew)

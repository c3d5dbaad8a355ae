"""File locks between the processes that share an embedded server; the kernel drops them when a process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from myloware_store.core.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PATIENCE", "POLL", "acquire", "is_held", "is_shared", "locked", "open_lock", "shielded", "try_lock"]

PATIENCE = 120.0
"""Seconds to wait for another process, a start or a stop, before raising an error."""

POLL = 0.005
"""Seconds between two checks of another process."""

_private: set[int] = set()
"""Descriptors that a forked child must close: its copy would hold the lock after the parent has released it."""


def open_lock(path: Path) -> int:
    """Open a lock file, creating it if necessary; children that run another program do not inherit it.

    Returns:
        The descriptor. Every call opens its own, so two holders in one process count as two.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock if it is free, without waiting.

    Returns:
        Whether the lock is now held.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def acquire(descriptor: int, what: str, *, shared: bool = False) -> None:
    """Take the lock, waiting at most `PATIENCE` seconds.

    Args:
        descriptor: The open lock file.
        what: The reason for the wait, for the error's message.
        shared: Whether to allow other shared holders.

    Raises:
        EmbeddedServerError: The lock was not free in time.
    """
    end = time.monotonic() + PATIENCE
    while not try_lock(descriptor, shared=shared):
        if time.monotonic() > end:
            raise EmbeddedServerError(f"Waited {PATIENCE:.0f} s for {what}; a hanging process may hold the lock.")
        time.sleep(POLL)


def is_shared(descriptor: int) -> bool:
    """Return whether others hold the lock shared; otherwise it is ours now, or another process holds it exclusively.

    For the users' lock, the latter means that its server is being stopped.
    """
    return not try_lock(descriptor) and try_lock(descriptor, shared=True)


@contextlib.contextmanager
def shielded(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end of the block, and in children that are forked in it."""
    _private.add(descriptor)
    try:
        yield descriptor
    finally:
        _private.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the exclusive lock on a file (or an existing folder) during the block.

    Raises:
        EmbeddedServerError: The lock was not free in time.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path.is_dir() else open_lock(path)
    with shielded(descriptor):
        acquire(descriptor, what)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # also releases the copy of a child that is just being forked


def is_held(path: Path) -> bool:
    """Return whether any process holds the lock; False if the file does not exist."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    with shielded(descriptor):
        return not try_lock(descriptor, shared=True)


def _forget_in_child() -> None:
    for descriptor in _private:
        os.close(descriptor)
    _private.clear()


os.register_at_fork(after_in_child=_forget_in_child)

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
"""Seconds that a wait for another process, a start or a stop may take before it is an error."""

POLL = 0.005
"""Seconds between two looks at something that another process does."""

_private: set[int] = set()
"""Descriptors that a forked child must not keep: its copy would hold the lock after the parent let go."""


def open_lock(path: Path) -> int:
    """Open a lock file, making it if need be; children that run another program do not inherit it.

    Returns:
        The descriptor. Every call opens its own, so that two holders in one process count as two.
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
        what: What is waited for, for the error's message.
        shared: Whether other shared holders are welcome.

    Raises:
        EmbeddedServerError: The lock did not come free in time.
    """
    end = time.monotonic() + PATIENCE
    while not try_lock(descriptor, shared=shared):
        if time.monotonic() > end:
            raise EmbeddedServerError(f"Waited {PATIENCE:.0f} s for {what}; a process that hangs may hold it.")
        time.sleep(POLL)


def is_shared(descriptor: int) -> bool:
    """Say whether others hold the lock shared; otherwise it is ours now, or held exclusively by someone.

    The second means, for the users' lock, that its server is just being stopped.
    """
    return not try_lock(descriptor) and try_lock(descriptor, shared=True)


@contextlib.contextmanager
def shielded(descriptor: int) -> Iterator[int]:
    """Keep a descriptor away from forked children while it is open, and close it at the end."""
    _private.add(descriptor)
    try:
        yield descriptor
    finally:
        _private.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the exclusive lock on a file (or an existing folder) for a while.

    Raises:
        EmbeddedServerError: The lock did not come free in time.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path.is_dir() else open_lock(path)
    with shielded(descriptor):
        acquire(descriptor, what)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # also what a child that is just being forked holds of it


def is_held(path: Path) -> bool:
    """Say whether any process holds the lock; a file that is not there is not held."""
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

"""Check the identity of a process: the system may have given its pid to another one."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path

__all__ = ["holders", "interrupt_server", "served_by"]


def served_by(data: Path, pid: int) -> bool:
    """Return whether this process works in this cluster, as a server does.

    False if the system does not say (another account's process in a container without that right).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").readlink() == data
        return False
    try:
        psutil = importlib.import_module("psutil")  # has no type stubs of its own
    except ImportError:
        return False
    with contextlib.suppress(psutil.Error):
        return Path(psutil.Process(pid).cwd()) == data
    return False


def interrupt_server(data: Path, pid: int) -> bool:
    """Ask a server that has lost its supervisor to stop, if the pid is that server.

    Returns:
        Whether it was that server.
    """
    handle = None
    with contextlib.suppress(AttributeError, OSError):  # macOS, old kernels, and Pythons built for those
        handle = os.pidfd_open(pid)
    try:
        if not served_by(data, pid):
            return False
        with contextlib.suppress(ProcessLookupError):
            if handle is None:
                os.kill(pid, signal.SIGINT)
            else:
                signal.pidfd_send_signal(handle, signal.SIGINT)  # the checked process, not a later one
        return True
    finally:
        if handle is not None:
            os.close(handle)


def holders(lock: Path) -> list[int]:
    """Return the pids that hold a lock file, as far as the system shows them."""
    try:
        inode = str(lock.stat().st_ino)
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    # 1: FLOCK  ADVISORY  READ 4321 fe:00:131079 0 EOF
    entries = [line.split() for line in lines if "FLOCK" in line and "->" not in line]
    return sorted({int(entry[4]) for entry in entries if entry[5].rsplit(":", 1)[-1] == inode})

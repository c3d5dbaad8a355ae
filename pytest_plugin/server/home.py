"""The folder of the embedded test server: one for all runs of an account, in memory if there is room."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded import EmbeddedServer, find_binaries
from myloware_store.embedded.start import LC_CTYPES

__all__ = ["HOME_VARIABLE", "KEPT_DAYS", "base_folder", "find_home", "has_kept_databases", "sweep_homes"]

HOME_VARIABLE = "MYLOWARE_TEST_HOME"
"""Names the folder of the embedded test server."""

KEPT_DAYS = 3
"""How long the databases of failed tests are kept."""

KEPT = "kept"
"""A file in the home, touched when the server keeps the database of a failed test."""

_MEMORY = Path("/dev/shm")  # noqa: S108  a file system in memory; the folder in it is checked
_ROOM = 1024**3  # bytes: a container's /dev/shm often has 64 MB, and a server that runs out of room fails
_DAY = 24 * 3600.0
_UNUSED_SECONDS = 7 * _DAY
_YOUNG_SECONDS = 60.0  # another run may be creating the home
_BINARIES = "binaries"


def find_home() -> Path:
    """Create and return the home: `MYLOWARE_TEST_HOME`, else a folder in memory or in the temporary folder.

    The folder is named by the account, the binaries, the locale and the boot: without fsync, files on disk may be
    broken after the machine stopped. The server in it ends with its last user; its data stays, so that the next run
    finds its templates.
    """
    named = os.environ.get(HOME_VARIABLE)
    binaries = find_binaries()
    if named:
        home = Path(named).absolute()
    else:
        digest = hashlib.sha256(f"{binaries} {_boot()} {LC_CTYPES}".encode()).hexdigest()
        home = base_folder() / f"{_prefix()}{digest[:12]}"
    home.mkdir(mode=0o711, exist_ok=True)
    if not _is_own_folder(home) or home.lstat().st_mode & 0o022:
        raise EmbeddedServerError(
            f"{home} is not a folder that only you can write to: set {HOME_VARIABLE} to one that is"
        )
    (home / _BINARIES).write_text(str(binaries), encoding="utf-8")
    os.utime(home)
    return home


def sweep_homes() -> None:
    """Remove the homes that were not used for a week, or whose virtual environment is gone."""
    for home in base_folder().glob(_prefix() + "?" * 12):
        with suppress(OSError, EmbeddedServerError):  # another run may be sweeping too
            if not _is_own_folder(home):
                continue
            unused = time.time() - home.stat().st_mtime
            orphaned = unused > _YOUNG_SECONDS and not Path((home / _BINARIES).read_text(encoding="utf-8")).exists()
            if (orphaned or unused > _UNUSED_SECONDS) and not EmbeddedServer.running(home / "server"):
                shutil.rmtree(home)


def has_kept_databases(home: Path) -> bool:
    """Tell whether the server may have databases of failed tests that are still to be kept."""
    try:
        age = time.time() - (home / KEPT).stat().st_mtime
    except FileNotFoundError:
        return False
    return age < KEPT_DAYS * _DAY


def base_folder() -> Path:
    """Return the folder in which homes are created."""
    with suppress(OSError):
        if os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
            return _MEMORY
    return Path(tempfile.gettempdir())


def _is_own_folder(home: Path) -> bool:
    status = home.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _prefix() -> str:
    return f"myloware-test-{os.geteuid()}-"


def _boot() -> str:
    """Identify the machine's current boot."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    asked = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()

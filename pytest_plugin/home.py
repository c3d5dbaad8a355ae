"""Where the embedded test server lives: one home for all runs of an account, in memory where there is room."""

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

__all__ = ["HOME_VARIABLE", "KEPT_DAYS", "find_home", "keeps", "note_kept", "sweep_homes"]

HOME_VARIABLE = "MYLOWARE_TEST_HOME"
"""Names the folder of the embedded test server."""

KEPT_DAYS = 3
"""How long the databases of failed tests are kept."""

_MEMORY = Path("/dev/shm")  # noqa: S108  a file system in memory; the folder in it is checked
_ROOM = 1024**3  # bytes: a container's /dev/shm has 64 MB often, and a server that runs out of room fails
_UNUSED_SECONDS = 7 * 24 * 3600.0
_YOUNG_SECONDS = 60.0  # a home that is just being made
_BINARIES = "binaries"
_KEPT = "kept"


def find_home() -> Path:
    """Make the home's folder and name it: `MYLOWARE_TEST_HOME`, else one in memory or in the temporary folder.

    Its name tells the account, the binaries, the locale and the boot: without fsync, what lay on disk when the machine
    stopped may be broken. The server in it ends with its last user; its data stays, so that the next run finds its
    templates.
    """
    named = os.environ.get(HOME_VARIABLE)
    binaries = find_binaries()
    if named:
        home = Path(named).absolute()
    else:
        home = _base() / f"{_prefix()}{hashlib.sha256(f'{binaries} {_boot()} {LC_CTYPES}'.encode()).hexdigest()[:12]}"
    home.mkdir(mode=0o711, exist_ok=True)
    status = home.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EmbeddedServerError(
            f"{home} is not a folder that only you can write to: set {HOME_VARIABLE} to one that is"
        )
    (home / _BINARIES).write_text(str(binaries), encoding="utf-8")
    os.utime(home)
    return home


def sweep_homes() -> None:
    """Remove the homes that nobody has used for a week, or whose virtual environment is gone."""
    for home in _base().glob(_prefix() + "?" * 12):
        with suppress(OSError, EmbeddedServerError):  # another run may be sweeping too
            status = home.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            unused, live = time.time() - status.st_mtime, EmbeddedServer.running(home / "server")
            orphaned = unused > _YOUNG_SECONDS and not Path((home / _BINARIES).read_text(encoding="utf-8")).exists()
            if (orphaned or unused > _UNUSED_SECONDS) and not live:
                shutil.rmtree(home)


def note_kept(home: Path) -> None:
    """Note that databases of failed tests are kept in the home's server from now on."""
    (home / _KEPT).touch()


def keeps(home: Path) -> bool:
    """Say whether there may be databases of failed tests in the home's server, that nobody has dropped yet."""
    try:
        age = time.time() - (home / _KEPT).stat().st_mtime
    except FileNotFoundError:
        return False
    return age < KEPT_DAYS * 24 * 3600.0


def _base() -> Path:
    with suppress(OSError):
        if os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
            return _MEMORY
    return Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"myloware-test-{os.geteuid()}-"


def _boot() -> str:
    """Tell one start of the machine from another."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    asked = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()

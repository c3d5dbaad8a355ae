"""Start and stop the server of a place: describe the job to the supervisor, and wait for the result."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded import locks
from myloware_store.embedded.account import private_folder
from myloware_store.embedded.binaries import clean_environment, major_version, reachable_binaries
from myloware_store.embedded.place import write_new
from myloware_store.embedded.processes import interrupt_server, served_by
from myloware_store.embedded.sizing import available_memory, size_settings
from myloware_store.embedded.supervisor import STOP

if TYPE_CHECKING:
    from myloware_store.embedded.place import Place

__all__ = ["LC_CTYPES", "ensure_running", "read_state", "stop"]

SUPERVISOR = Path(__file__).with_name("supervisor.py")
"""The program that runs the server."""

SOCKET = ".s.PGSQL.5432"
"""The server's socket, in its folder."""

STOP_PATIENCE = 90.0
"""Seconds that a stop may take: longer than all steps of the supervisor's escalation."""

DEAF = 2.0
"""Seconds without an answer after which a server counts as having lost its supervisor."""

LOG_LIMIT = 1024 * 1024
"""Bytes above which a start moves the log to `log.1`."""

SETTINGS = {
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",  # failed statements are reported to the client; keep their text out of the log
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "unix_socket_permissions": "0700",
    "cluster_name": "myloware",
}
"""The server's settings on the command line, besides its configuration file."""

TESTING = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "1h",
    "max_prepared_transactions": "10",
}
"""Additional settings of `testing=True`: speed for disposable data, and prepared transactions for tests. Many such
servers run side by side, with PostgreSQL's own 128 MB of shared_buffers each."""

SHM_NEEDED = 1024**3
"""Bytes of /dev/shm that a parallel build of a vector index needs."""

LC_CTYPES = ("C.UTF-8", "en_US.UTF-8")
"""The LC_CTYPE of a new cluster: the first that the system has, else C. Under C, the text parser treats every character
beyond ASCII as a letter, and a typographic quotation mark as part of the word beside it."""

BUILTIN = 17
"""The first major version whose initdb has the builtin locale provider and --sync-method."""


def read_state(place: Place) -> dict[str, Any]:
    """Read the supervisor's description of the running server."""
    try:
        state: dict[str, Any] = json.loads(place.state.read_text())
    except FileNotFoundError:
        raise EmbeddedServerError(f"The server in {place.home} does not run: start() it first.") from None
    return state


def _tell(place: Place, word: bytes = b"") -> bool:
    """Write a word to the supervisor; return whether one is listening."""
    try:
        control = os.open(place.control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # no pipe, or no reader
        return False
    try:
        os.write(control, word)
    finally:
        os.close(control)
    return True


def ensure_running(place: Place, binaries: Path, *, testing: bool) -> None:
    """Wait until the server is ready, starting it if it does not run; the caller holds the start and users' locks."""
    begin = time.monotonic()
    spawned_at: int | None = None
    orphaned = False
    while time.monotonic() < begin + locks.PATIENCE:
        server = locks.open_lock(place.server_lock)
        with locks.shielded(server):
            if locks.try_lock(server):
                if spawned_at is not None:
                    raise EmbeddedServerError(
                        f"PostgreSQL did not start in {place.folder}:\n{_log_tail(place, spawned_at)}"
                    )
                spawned_at = _spawn(place, binaries, server, testing=testing)
                continue
        heard = _tell(place)
        if heard and place.state.exists() and _accepts(place):
            return
        if not heard and not orphaned and time.monotonic() > begin + DEAF:
            orphaned = _stop_orphan(place)
        time.sleep(locks.POLL)
    raise EmbeddedServerError(
        f"The server in {place.folder} was not ready after {locks.PATIENCE:.0f} s:\n{_log_tail(place, spawned_at or 0)}"
    )


def _accepts(place: Place) -> bool:
    """Return whether the server listens: its supervisor notices its death a moment later."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(DEAF)
        try:
            probe.connect(f"{read_state(place)['socket_dir']}/{SOCKET}")
        except (OSError, EmbeddedServerError):  # also if the server stops just now
            return False
    return True


def _spawn(place: Place, binaries: Path, server: int, *, testing: bool) -> int:
    """Start the supervisor, which inherits the held lock.

    Returns:
        The offset in the log at which this start begins.
    """
    binaries = reachable_binaries(binaries, place.account)
    version = major_version(binaries)
    _check_cluster(place, version)
    for old in (place.state, place.keep, place.control):
        old.unlink(missing_ok=True)
    os.mkfifo(place.control, 0o600)
    private_folder(place.socket_dir, place.account)
    for name in (SOCKET, f"{SOCKET}.lock"):  # our server is not alive: we hold its lock
        (place.socket_dir / name).unlink(missing_ok=True)
    if testing and not place.unsynced.exists():
        write_new(place.unsynced, b"" if place.data.exists() else b"disposable")
    job = _job(place, binaries, version, testing=testing)
    if place.log.exists() and place.log.stat().st_size > LOG_LIMIT:
        place.log.replace(place.log.with_name("log.1"))
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        begin = os.fstat(log).st_size
        subprocess.run(  # noqa: S603  our own file
            [_python(), "-ISE", str(SUPERVISOR), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=[server],
            env={name: value for name, value in os.environ.items() if name.startswith(("LD_", "DYLD_"))},
            start_new_session=True,
            timeout=locks.PATIENCE,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise EmbeddedServerError(
            f"The server's supervisor ended immediately (status {error.returncode}):\n{_log_tail(place, begin)}"
        ) from None
    except subprocess.TimeoutExpired:
        raise EmbeddedServerError(f"{_python()} hangs: the server's supervisor did not start.") from None
    finally:
        os.close(log)
    return begin


def _job(place: Place, binaries: Path, version: int, *, testing: bool) -> dict[str, Any]:
    """Describe the supervisor's job."""
    initdb = [str(binaries / "initdb")]
    sync = [f"--sync-method={'syncfs' if sys.platform == 'linux' else 'fsync'}"] if version >= BUILTIN else []
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if version >= BUILTIN else []
    sized = {} if testing else size_settings(available_memory(), os.cpu_count() or 1)
    settings = SETTINGS | _memory_setting() | sized | (TESTING if testing else {})
    environ = clean_environment()
    stale = _stale_pid(place)
    if stale:  # makes PostgreSQL ignore that pid, which another process may have now, but not the shared memory
        environ["PG_GRANDPARENT_PID"] = str(stale)
    return {
        "data": str(place.data),
        "control": str(place.control),
        "users": str(place.users_lock),
        "state": str(place.state),
        "keep": str(place.keep),
        "unsynced": str(place.unsynced),
        "socket_dir": str(place.socket_dir),
        "temporary_socket_dir": place.socket_dir != place.near_socket_dir,
        "uid": place.account.uid if place.account else None,
        "gid": place.account.gid if place.account else None,
        "environ": environ,
        "lc_ctypes": LC_CTYPES,
        "initdb": [
            *initdb,
            *("--username=postgres", "--encoding=UTF8", "-T", "english", "--auth-local=trust", "--auth-host=reject"),
            *("--no-instructions", "--locale=C", *builtin),
            *(["--no-sync", "--wal-segsize=1"] if testing else sync),
        ],
        "sync": [*initdb, "--sync-only", *sync, "-D", str(place.data)]
        if place.unsynced.exists() and not testing
        else None,
        "postgres": [
            *(str(binaries / "postgres"), "-D", str(place.data), "-k", str(place.socket_dir), "-h", "", "-p", "5432"),
            *(argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")),
        ],
    }


def _memory_setting() -> dict[str, str]:
    """Keep shared memory out of a /dev/shm that is too small for parallel work: 64 MB in most containers."""
    if sys.platform != "linux":
        return {}
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108  asked for its size only
    except OSError:
        return {"dynamic_shared_memory_type": "mmap"}
    return {} if shm.f_blocks * shm.f_frsize >= SHM_NEEDED else {"dynamic_shared_memory_type": "mmap"}


def _check_cluster(place: Place, version: int) -> None:
    """Refuse a cluster that these programs cannot open, or that another server has open."""
    if not place.data.exists():
        _check_name(place)
        return
    try:
        made_by = (place.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedServerError(f"{place.data} is not a PostgreSQL cluster: move it away.") from None
    if made_by != str(version):
        raise EmbeddedServerError(
            f"The data in {place.data} was created by PostgreSQL {made_by}, and this is PostgreSQL {version}: set "
            f"MYLOWARE_PG_BINDIR to the bin folder of a PostgreSQL {made_by} (and move the data with pg_dump), or name "
            "another folder."
        )
    pid = _stale_pid(place)
    if pid and served_by(place.data, pid):
        raise EmbeddedServerError(
            f"The data in {place.data} is open in a server that was not started from here (pid {pid}): stop it "
            "(pg_ctl stop) first."
        )


def _check_name(place: Place) -> None:
    """Refuse a user without a name, as containers have it, with a better message than initdb's."""
    try:
        pwd.getpwuid(place.account.uid if place.account else os.geteuid())
    except KeyError:
        raise EmbeddedServerError(
            f"PostgreSQL cannot create a cluster for a user without a name, and uid {os.geteuid()} has none in "
            "/etc/passwd: run as a named user, or set DATABASE_URL to a server."
        ) from None


def _stale_pid(place: Place) -> int | None:
    """Return the pid in the server's pid file, which may be left over from a dead server."""
    try:
        first = (place.data / "postmaster.pid").read_text(errors="replace").split("\n", 1)[0].strip()
    except OSError:
        return None
    return int(first) if re.fullmatch(r"[1-9]\d{0,9}", first) else None


def stop(place: Place) -> None:
    """Have the supervisor stop the server, and wait until all of its processes are gone."""
    end = time.monotonic() + STOP_PATIENCE
    if not _tell(place, STOP):
        _stop_orphan(place)
    while locks.is_held(place.server_lock):
        if time.monotonic() > end:
            raise EmbeddedServerError(
                f"The server in {place.folder} did not stop within {STOP_PATIENCE:.0f} s:\n{_log_tail(place, 0)}"
            )
        time.sleep(locks.POLL)


def _stop_orphan(place: Place) -> bool:
    """Ask a server to stop whose supervisor was killed; return whether that was possible."""
    pid = _stale_pid(place)
    return pid is not None and interrupt_server(place.data, pid)


def _python() -> str:
    """Return a Python for the supervisor; in some hosts (uWSGI) `sys.executable` is the host."""
    if "python" in Path(sys.executable or "").name:
        return sys.executable
    return str(Path(sys.exec_prefix) / "bin" / "python3")


def _log_tail(place: Place, begin: int) -> str:
    """Return the last lines of the log since `begin`."""
    try:
        with place.log.open("rb") as log:
            log.seek(max(begin, place.log.stat().st_size - 4000))
            return log.read().decode(errors="replace").strip() or f"(nothing in {place.log})"
    except OSError as error:
        return f"(no log: {error})"

"""Run one PostgreSQL server as long as it has users: a detached process that runs this file.

It is started as `python -ISE supervisor.py JOB`, so it imports only the standard library. It is the parent
of initdb and of the server, and the only process that signals them: the pid of a child that was not waited for cannot
belong to another process. It stops the server on request (`STOP` in the control pipe, or SIGTERM), and within about
half a second after the last process that held the users' lock has ended in any way.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import locale
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

STOP = b"S"
"""The word in the control pipe that stops the server."""

TICK = 0.5
"""Seconds between two checks whether the server still has users."""

POLL = 0.005
"""Seconds between two checks of a starting server."""

LOG_LIMIT = 8 * 1024 * 1024
"""Bytes above which the log of a running server is emptied."""

ESCALATION = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
"""The signals that stop a server, each with the seconds before the next, harder one."""

READY_LINE = 7
"""The line of PostgreSQL's pid file with the server's state, counted from 0."""


class Supervisor:
    """One run of a server, from an empty folder or an existing cluster until it has stopped.

    Args:
        job: The job from `start.py`: paths, command lines, environment and account.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.data = Path(job["data"])
        self.state = Path(job["state"])
        self.keep = Path(job["keep"])
        self.die_with_parent = _parent_death_signal()
        self.control = os.open(job["control"], os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.users = os.open(job["users"], os.O_RDWR | os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the starting process may block signals
        signal.set_wakeup_fd(self.control, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _heard)

    def run(self) -> bool:
        """Create the cluster if there is none, then run the server until it stops.

        Returns:
            Whether the server ran and was stopped on request.
        """
        for broken in self.data.parent.glob(f"{self.data.name}.*.new"):
            shutil.rmtree(broken, ignore_errors=True)
        if not self.data.exists() and not self.create():
            return False
        if self.job["sync"]:
            if self.finish(self.spawn(self.job["sync"])) != 0:
                return False
            Path(self.job["unsynced"]).unlink()
        return self.serve()

    def create(self) -> bool:
        """Run initdb in a temporary folder and rename it: the result of a killed one never counts as a cluster."""
        fresh = self.data.with_name(f"{self.data.name}.{os.getpid()}.new")
        fresh.mkdir(mode=0o700)
        if self.job["uid"] is not None:
            os.chown(fresh, self.job["uid"], self.job["gid"], follow_symlinks=False)
        lc_ctype = f"--lc-ctype={_first_locale(self.job['lc_ctypes'])}"
        if self.finish(self.spawn([*self.job["initdb"], lc_ctype, "-D", str(fresh)])) != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            return False
        fresh.rename(self.data)
        descriptor = os.open(self.data.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        return True

    def serve(self) -> bool:
        """Start the server, announce it when it is ready, and watch it until it ends."""
        child = self.spawn(self.job["postgres"])
        ready = False
        while True:
            stopping = self.hear(TICK if ready else POLL)
            if _reap(child) is not None:
                self.clean_up()
                return False
            if stopping or self.abandoned():
                self.stop(child)
                self.clean_up()
                return True
            if not ready and self.is_ready(child):
                self.announce(child)
                ready = True
            if os.fstat(2).st_size > LOG_LIMIT:
                os.ftruncate(2, 0)

    def finish(self, child: int) -> int | None:
        """Wait for a helper such as initdb; kill it if nobody waits for it any more.

        Returns:
            Its exit status, or None if it was killed.
        """
        while True:
            stopping = self.hear(TICK / 5)
            status = _reap(child)
            if status is not None:
                return status
            if stopping or self.abandoned():
                for end in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError):
                        end(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None

    def spawn(self, command: list[str]) -> int:
        """Run a program as the server's account, in its own session, with a clean environment.

        Returns:
            Its pid.
        """
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                self.become(command, parent)
            except BaseException as error:  # noqa: BLE001  this copy must never continue as a supervisor
                os.write(2, f"could not run {command[0]}: {error}\n".encode(errors="replace"))
            finally:
                os._exit(127)
        return child

    def become(self, command: list[str], parent: int) -> NoReturn:
        """Replace this forked process with the program."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the program would inherit that
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if self.job["uid"] is not None:
            os.setgroups([])
            os.setgid(self.job["gid"])
            os.setuid(self.job["uid"])
        self.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        os.execve(command[0], command, self.job["environ"])  # noqa: S606  the program was found and checked

    def hear(self, seconds: float) -> bool:
        """Wait for a word in the control pipe or a signal; return whether it asks to stop."""
        select.select([self.control], [], [], seconds)
        try:
            words = os.read(self.control, 4096)
        except BlockingIOError:
            return False
        return any(word in (STOP[0], signal.SIGTERM, signal.SIGINT, signal.SIGHUP) for word in words)

    def abandoned(self) -> bool:
        """Return whether the server has no users; the lock is then kept, so that new users wait for the stop."""
        if self.keep.exists():
            return False
        try:
            fcntl.flock(self.users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self.keep.exists():  # created by the last user just before it closed
            fcntl.flock(self.users, fcntl.LOCK_UN)
            return False
        return True

    def is_ready(self, child: int) -> bool:
        """Return whether the server accepts connections, according to its pid file."""
        try:
            lines = (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except OSError:
            return False
        return len(lines) > READY_LINE and lines[0] == str(child) and lines[READY_LINE].strip() == "ready"

    def announce(self, child: int) -> None:
        """Write the state file atomically, with the pid and the socket of the ready server."""
        draft = self.state.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"pid": child, "socket_dir": self.job["socket_dir"]}, file)
        draft.rename(self.state)

    def stop(self, child: int) -> None:
        """Stop the server, gently first; repeat each signal, because an early one may be lost."""
        self.state.unlink(missing_ok=True)
        # PostgreSQL 18 ignores SIGINT while it recovers from a crash; if stopped hard, it recovers at the next start.
        for number, patience in ESCALATION[self.recovers() :]:
            end = time.monotonic() + patience
            while time.monotonic() < end:
                os.kill(child, number)
                os.kill(child, signal.SIGCONT)
                again = time.monotonic() + 1
                while time.monotonic() < again:
                    self.hear(0.1)
                    if _reap(child) is not None:
                        return

    def recovers(self) -> bool:
        """Return whether the server refuses connections because it is starting or recovering from a crash."""
        login = b"\0\3\0\0user\0postgres\0\0"
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(1)
            asking.connect(f"{self.job['socket_dir']}/.s.PGSQL.5432")
            asking.sendall((len(login) + 4).to_bytes(4) + login)
            return b"C57P03\0" in asking.recv(4096)
        return False

    def clean_up(self) -> None:
        """Remove the files that only a running server needs."""
        self.state.unlink(missing_ok=True)
        if self.job["temporary_socket_dir"]:
            with contextlib.suppress(OSError):
                Path(self.job["socket_dir"]).rmdir()


def _heard(_number: int, _frame: object) -> None:
    """Do nothing: Python writes signals with a handler to the control pipe."""


def _first_locale(names: list[str]) -> str:
    """Return the first of these locales that the system has, else C."""
    for name in names:
        with contextlib.suppress(locale.Error):
            return locale.setlocale(locale.LC_CTYPE, name)
    return "C"


def _reap(child: int) -> int | None:
    """Return the child's wait status once it has ended, else None; don't call it again after that."""
    done, status = os.waitpid(child, os.WNOHANG)
    return status if done else None


def _parent_death_signal() -> Callable[[], object]:
    """Return a function that makes the kernel stop this process with its parent (Linux; elsewhere the next start does).

    It is looked up beforehand: the server's account may be unable to read the library that contains it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            return functools.partial(ctypes.CDLL(None).prctl, 1, int(signal.SIGINT))  # PR_SET_PDEATHSIG
    return bool


def main() -> None:
    """Detach from the process that started this one, then supervise."""
    os.umask(0o077)
    supervisor = Supervisor(json.loads(sys.argv[1]))
    if os.fork():
        os._exit(0)
    sys.exit(0 if supervisor.run() else 1)


if __name__ == "__main__":
    main()

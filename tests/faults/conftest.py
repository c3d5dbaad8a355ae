"""Durable servers that are killed, and processes that load them and note what was acknowledged."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg2
import pytest

from myloware_store import Settings
from myloware_store.embedded import EmbeddedServer, find_binaries
from myloware_store.embedded.account import server_account
from myloware_store.embedded.binaries import reachable_binaries
from myloware_store.ops.migrate import migrate
from tests.conftest import LONG
from tests.integration.conftest import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What needs more than Python (root, faketime, PgBouncer, openssl) runs with `tox run -e faults` only.
collect_ignore = [] if LONG else ["test_clocks.py", "test_disks.py", "test_poolers.py", "test_tls.py"]

psutil: Any = importlib.import_module("psutil")

KILLS = 25 if LONG else 2
CLIENT = """
import sys, time, uuid
from pathlib import Path
from myloware_store import DatabaseFault, Settings
from myloware_store.db.database import StoreDatabase
from myloware_store.work.engine import Work

url, notes, stop = sys.argv[1:]
work = Work(StoreDatabase(Settings.load(url)))

def surely(call):
    while not Path(stop).exists():
        try:
            return call()
        except DatabaseFault as fault:
            faults.write(f"{type(fault).__name__} {fault.sqlstate}\\n")
            time.sleep(0.02)
    sys.exit()

with open(notes, "w", buffering=1) as note, open(notes + ".faults", "w", buffering=1) as faults:
    while not Path(stop).exists():
        key = uuid.uuid4().hex
        surely(lambda: work.submit([{"type": "TICKET", "content": key}], idempotency_key=key))
        note.write(f"submitted {key}\\n")
        claims = surely(lambda: work.claim(notes, lease=600))
        for item_id in surely(lambda: work.finish(claims, [key])) if claims else ():
            note.write(f"finished {item_id} {key}\\n")
"""


class Server:
    """A PostgreSQL server on a folder with data, in the hands of a test.

    Args:
        data: The folder.
        settings: Its settings, beside those of its file; it is durable by default.
    """

    def __init__(self, data: Path, **settings: object) -> None:
        self.data = data
        self.settings = settings
        self.environ: dict[str, str] = {}
        self.program: list[str] = [str(reachable_binaries(find_binaries(), server_account()) / "postgres")]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it has said."""
        return self.data.with_name(f"{self.data.name}.log")

    def url(self, query: str = "") -> str:
        """Return the address of its database."""
        return f"postgresql://postgres@/myloware?host={quote(str(self.data), safe='')}&port=5432{query}"

    def spawn(self) -> None:
        """Start it, and do not wait."""
        owner = self.data.stat()
        account: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program, "-D", str(self.data), "-k", str(self.data), "-h", "", "-p", "5432", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env={"TZ": "UTC", **self.environ},
                start_new_session=True,
                **(account if os.geteuid() == 0 else {}),
            )

    def start(self) -> Server:
        """Start it, and wait until it is ready."""
        self.spawn()
        until(self._ready)
        return self

    def kill(self) -> None:
        """End all of its processes as a crash of the machine would: none gets to see the death of another."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(self._process.pid)
            postmaster.send_signal(signal.SIGSTOP)
            processes = [postmaster, *postmaster.children(recursive=True)]
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(number)
            self._process.wait(PATIENCE)
            until(lambda: not any(map(_runs, processes)))

    def ended(self) -> bool:
        """Return whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def ask(self, sql: str) -> list[Any]:
        """Run a statement, and return its rows."""
        with closing(psycopg2.connect(self.url())) as connection, connection.cursor() as run:
            connection.autocommit = True
            run.execute(sql)
            return run.fetchall() if run.description else []

    def _ready(self) -> bool:
        assert self._process is not None
        assert not self.ended(), self.log.read_text()[-3000:]
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(self._process.pid) and len(lines) > 7 and lines[7].startswith("ready")
        return False


def _runs(process: Any) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


class Load:
    """Processes that submit, claim and finish, one after the other, until they are stopped.

    Args:
        folder: For their notes.
        url: The database.
        clients: How many there are.
    """

    def __init__(self, folder: Path, url: str, clients: int = 2) -> None:
        folder.mkdir()
        self._stop = folder / "stop"
        self._notes = [folder / f"client-{number}" for number in range(clients)]
        self._clients = [
            subprocess.Popen([sys.executable, "-c", CLIENT, url, str(notes), str(self._stop)]) for notes in self._notes
        ]

    def acknowledged(self) -> list[list[str]]:
        """Return what was acknowledged: `submitted KEY` and `finished ITEM KEY`."""
        return [line.split() for notes in self._notes if notes.exists() for line in notes.read_text().splitlines()]

    def faults(self) -> set[str]:
        """Return the errors that came in the meantime, by type and SQLSTATE."""
        noted = [notes.with_name(f"{notes.name}.faults") for notes in self._notes]
        return {line for notes in noted if notes.exists() for line in notes.read_text().splitlines()}

    def lost_connections_only(self) -> bool:
        """Return whether every error was one of a connection."""
        return {fault.split()[0] for fault in self.faults()} <= {"AmbiguousCommit", "ConnectionFailed"}

    def goes_on(self, more: int = 40) -> None:
        """Wait until some more was acknowledged."""
        enough = len(self.acknowledged()) + more
        until(lambda: len(self.acknowledged()) >= enough)

    def stop(self) -> None:
        """End the processes in good order."""
        self._stop.touch()
        for client in self._clients:
            assert client.wait(PATIENCE) == 0

    def kill(self) -> None:
        """End the processes."""
        for client in self._clients:
            client.kill()
            client.wait()

    def lost(self, server: Server) -> list[list[str]]:
        """Return what was acknowledged but is not stored, or is stored twice."""
        keys = server.ask("SELECT idempotency_key FROM work_orders")
        results = server.ask("SELECT id::text, result #>> '{}' FROM work_items WHERE status = 'COMPLETED'")
        stored = [["submitted", key] for (key,) in keys] + [["finished", *row] for row in results]
        assert len(stored) == len({tuple(one) for one in stored})
        return [note for note in self.acknowledged() if note not in stored]


@pytest.fixture(scope="session")
def made(reachable_tmp: Path) -> Path:
    """Return the data of a durable server with a migrated database, to copy."""
    with EmbeddedServer(reachable_tmp / f"made-{uuid.uuid4().hex[:8]}") as server:
        server.ensure_database()
        migrate(Settings.load(server.url(), environ={}, dotenv=None))
        return server.data_dir


@pytest.fixture
def place(reachable_tmp: Path) -> Iterator[Path]:
    """Give a folder of the test's own."""
    folder = reachable_tmp / f"faults-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def prepared(made: Path, place: Path) -> Iterator[Callable[..., Server]]:
    """Give a function that prepares a server with a copy of the data; all are killed in the end."""
    servers: list[Server] = []

    def prepare(name: str = "data", **settings: object) -> Server:
        subprocess.run(["cp", "-a", str(made), str(place / name)], check=True)
        servers.append(Server(place / name, **settings))
        return servers[-1]

    yield prepare
    for server in servers:
        if not server.ended():
            server.kill()


@pytest.fixture
def loading(place: Path) -> Callable[..., contextlib.AbstractContextManager[Load]]:
    """Give a function that loads a database while a block runs."""

    @contextmanager
    def load(url: str, clients: int = 2) -> Iterator[Load]:
        running = Load(place / f"notes-{uuid.uuid4().hex[:8]}", url, clients)
        try:
            running.goes_on()
            yield running
            running.stop()
        finally:
            running.kill()

    return load

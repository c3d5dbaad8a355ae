"""A shell for the command line: a folder of its own, a clean environment, and no server left behind."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import psycopg2
import pytest

from myloware_store.cli import cli, exits
from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

psutil: Any = importlib.import_module("psutil")
base_folder: Any = importlib.import_module("pytest_myloware.server.home").base_folder

PATIENCE = 60.0


@attrs.frozen
class Shell:
    """Runs the command line in a folder, in a process of its own."""

    folder: Path
    command: tuple[str, ...] = (sys.executable, "-m", "myloware_store")

    @property
    def home(self) -> Path:
        """Where the embedded server of the folder lives."""
        return self.folder / ".myloware"

    def run(self, *arguments: str | Path, answer: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in a fork of this process; its questions get `answer`, then the end of file.

        That is a process of its own, without the half second in which Python starts and imports.
        """
        words = [*map(str, arguments)]
        with (
            tempfile.TemporaryFile("w+") as stdin,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile() as err,
        ):
            stdin.write(answer)
            stdin.seek(0)
            with warnings.catch_warnings(action="ignore"):  # of a fork beside threads, of which the child uses none
                child = os.fork()
            if child == 0:
                self._be_command(words, environ, [stdin.fileno(), out.fileno(), err.fileno()])
            status = self._wait(child)
            out.seek(0)
            err.seek(0)
            code = os.waitstatus_to_exitcode(status)
            return subprocess.CompletedProcess([*self.command, *words], code, out.read(), err.read().decode())

    def _be_command(self, words: list[str], environ: dict[str, str], files: list[int]) -> NoReturn:
        code = 1
        try:
            os.chdir(self.folder)
            os.environ.update(environ)
            for number, file in enumerate(files):
                os.dup2(file, number)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            sys.argv = [*self.command[2:], *words]
            code = exits.run(cli, words)
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001  the test sees it
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    @staticmethod
    def _wait(child: int) -> int:
        end = time.monotonic() + PATIENCE
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.005)

    def start(self, *arguments: str | Path, **environ: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [*self.command, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def terminal(self, *arguments: str | Path, keys: str = "", **environ: str) -> tuple[int, str]:
        """Run a command on a terminal, type `keys` once it asks, and return its exit code and all that it showed."""
        near, far = pty.openpty()
        # The leader of a new session that opens a terminal gets its Ctrl-C.
        opening = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(far)]
        process = subprocess.Popen(
            [*opening, *self.command, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "TERM": "xterm", **environ},
            start_new_session=True,
        )
        shown = os.read(near, 65536)  # until then our own end keeps the terminal alive
        os.close(far)
        end = time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):  # what Linux gives to read once nobody has the terminal open
            while True:
                assert time.monotonic() < end, f"not done within {PATIENCE:.0f} s: {shown.decode()}"
                if select.select([near], [], [], 0.01)[0]:
                    data = os.read(near, 65536)
                    if not data:
                        break
                    shown += data
                # Python misses a Ctrl-C in the instant between a question and the wait for its answer.
                elif keys and b"? [y/N]" in shown and psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING:
                    os.write(near, keys.encode())
                    keys = ""
        os.close(near)
        return process.wait(PATIENCE), shown.decode()

    def line(self, line: str, *, folder: Path | str = "/", answer: str = "") -> subprocess.CompletedProcess[str]:
        """Run a line as somebody would who copied it into a shell, in any folder."""
        return subprocess.run(
            line, shell=True, cwd=folder, input=answer, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def python(self, program: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Return a program to a Python of this environment, as a file or as somebody who types it."""
        return self.line(shlex.join([sys.executable, *options]), answer=program)

    def report(self, *arguments: str | Path, code: int = 0, **environ: str) -> dict[str, Any]:
        """Run a command with `--json`, which must end with `code`, and return what it reports."""
        done = self.run(*arguments, "--json", **environ)
        assert code == done.returncode, done.stderr
        (line,) = done.stdout.splitlines()
        report: dict[str, Any] = json.loads(line)
        return report

    @staticmethod
    def ask(url: str, statement: str) -> Any:
        """Run a statement on a connection of its own and return the first value, if there is one."""
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as run:
            connection.autocommit = True
            run.execute(statement)
            row = run.fetchone() if run.description else None
            return row[0] if row else None

    @staticmethod
    def eventually(holds: Callable[[], object], what: str) -> None:
        """Wait until something holds; name it if it does not."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {what}"
            time.sleep(0.01)


@contextlib.contextmanager
def folder_with_server(name: str = "") -> Iterator[Shell]:
    """Yield a shell in a new folder that every account may enter, and stop its embedded server afterwards."""
    base = Path(tempfile.mkdtemp(prefix="myloware-cli-", dir=base_folder()))  # in memory: its server does fsync
    base.chmod(0o755)
    shell = Shell(base / name)
    shell.folder.mkdir(exist_ok=True)
    try:
        yield shell
    finally:
        EmbeddedServer.down(shell.home, force=True)
        shutil.rmtree(base)


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Yield a shell in a new folder."""
    with folder_with_server() as given:
        yield given


@pytest.fixture(scope="module")
def shell_up() -> Iterator[Shell]:
    """Yield a shell with a running embedded store, for tests that only read."""
    with folder_with_server("plaät 1") as given:
        given.report("up")
        yield given


@pytest.fixture
def empty_url(myloware_server: Any) -> Iterator[str]:
    """Yield the URL of a database of this test's own that was not migrated."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    with closing(psycopg2.connect(**myloware_server.connect_kwargs("postgres"))) as connection:
        connection.autocommit = True
        with connection.cursor() as run:
            run.execute(f"CREATE DATABASE {name}")
            yield myloware_server.url(name)
            run.execute(f"DROP DATABASE {name} WITH (FORCE)")

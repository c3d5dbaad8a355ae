"""README.md and docs/: the programs and the lines of the shell run as they are printed there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from myloware_store.cli import cli
from myloware_store.embedded import EmbeddedServer
from myloware_store.models import MODELS
from tests.conftest import OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cli.conftest import Shell
    from tests.relay import Relay

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS: list[tuple[str, str]] = BLOCK.findall(README)
NAMED = re.compile(r"# [\w/]+\.py\n")  # run by test_docs.py, or in its folder by test_schema_evolution.py
PROGRAMS = [
    pytest.param(code, id=f"{path.stem}-{place}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for place, (language, code) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")))
    if language == "python" and "def test_" not in code and not NAMED.match(code)
]


STARTS = [
    ("bash", "python3 -m venv"),  # run by tests/packaging/test_readme_commands.py
    ("bash", "python3 -m venv"),  # run by .ci/run, see tests/packaging/test_ci.py
    ("bash", ".venv/bin/myloware-store demo"),
    ("python", "from myloware_store import HashingEmbedder, Store"),
    ("python", "from myloware_store import Store, WorkItem, WorkOrder"),
    ("bash", "docker compose up -d"),  # checked by tests/packaging/test_compose.py
    ("bash", "export DATABASE_URL="),
    ("python", "def test_an_order_is_stored"),
    ("bash", "myloware-store backup"),  # run by tests/integration/test_backup.py
]


def test_every_block_is_run() -> None:
    """A block that is new in the README is not yet run anywhere: add it here."""
    for (language, start), (shown, code) in zip(STARTS, BLOCKS, strict=True):
        assert (language, start) == (shown, code[: len(start)])


def block(number: int) -> str:
    """Return the text of a block of the README."""
    return BLOCKS[number][1]


def run(command: list[str], folder: Path) -> str:
    """Run a command with this environment's programs on PATH, and return its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("code", PROGRAMS)
def test_programs_run(shell_up: Shell, code: str) -> None:
    """Each program of the README and of docs/ runs as a file of its own, without a warning."""
    (shell_up.folder / "program.py").write_text(code)

    run([sys.executable, "-W", "error", "program.py"], shell_up.folder)


def test_the_first_program_does_what_it_says(shell: Shell) -> None:
    """In an empty folder it works on its order, and finds the late fee in memory."""
    (shell.folder / "program.py").write_text(block(3))

    first, *hits = run([sys.executable, "program.py"], shell.folder).splitlines()

    assert "COMPLETED" == first
    assert "a late fee of 5 %" in hits[0]
    assert not EmbeddedServer.running(shell.home)


def test_the_test_passes(shell: Shell) -> None:
    """The README's test finds its fixture, in a folder that has nothing but the test."""
    (shell.folder / "test_service.py").write_text(block(7))

    assert "1 passed" in run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], shell.folder)


def test_documents_of_ones_own(shell: Shell) -> None:
    """The demo's second line, in a clone's folder and environment, answers its question."""
    shutil.copytree(ROOT / "docs", shell.folder / "docs")
    scripts = shell.folder / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "myloware-store").symlink_to(Path(sys.executable).with_name("myloware-store"))

    printed = run(["bash", "-c", block(2)], shell.folder)

    assert "Question for memory: which invoice carries a late fee?" in printed
    (down,) = re.findall(r"^.*myloware-store down --url .*$", printed, re.MULTILINE)
    run(["bash", "-c", down], shell.folder)
    assert not EmbeddedServer.running(shell.home)


def test_a_database_of_ones_own(shell: Shell, relayed: Callable[..., Relay]) -> None:
    """The lines for your own PostgreSQL migrate and validate the database of the URL."""
    with EmbeddedServer(shell.home, testing=True) as server:
        shell.ask(server.url("postgres"), "CREATE ROLE myloware LOGIN SUPERUSER")
        server.ensure_database("myloware")
        port = relayed(str(server.socket_dir), 5432).port
        lines = block(6).replace(":5432/", f":{port}/")
        assert lines != block(6)

        printed = run(["bash", "-euc", lines], shell.folder)

        assert f"applied {OURS[-1]}" in printed
        assert re.search(r"^Schema +valid$", printed, re.MULTILINE)
        assert len(MODELS) + 1 == shell.ask(server.url(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")


def test_the_table_names_every_command() -> None:
    """No command is missing in it, and none is invented."""
    shown = re.findall(r"^\| `myloware-store ([a-z-]+)", README, re.MULTILINE)

    assert sorted(cli.commands) == sorted(shown)


def test_links_lead_somewhere() -> None:
    """Files that the README and docs/ refer to are there."""
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_tests_that_the_documentation_names_are_there() -> None:
    """Behind each promise, the test that holds it."""
    named = re.compile(r"`((?:[a-z_]+/)*test_\w+\.py)(?:::(test_\w+))?`|`::(test_\w+)`|`(test_(?!\w+\.py)\w+)`")
    found = 0
    for page in (ROOT / "docs").glob("*.md"):
        texts: list[str] = []
        for file, function, same, alone in named.findall(page.read_text(encoding="utf-8")):
            if file:
                texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.match(file)]
                assert texts, f"{page.name}: {file}"
            wanted = function or same or alone
            assert not wanted or any(f"def {wanted}(" in text for text in texts), f"{page.name}: {wanted}"
            found += 1
    assert found > 1

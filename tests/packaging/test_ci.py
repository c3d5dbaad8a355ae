"""CI runs the README's commands for a newcomer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CI = (ROOT / ".ci" / "run").read_text()
COMMANDS = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
"""The README's commands for a fresh clone: one that runs the demo, one that runs the tests."""


def test_readme_starts_with_two_commands() -> None:
    """One line sees the store do its job, one line runs the tests."""
    demo, tests = COMMANDS

    assert demo.endswith(".venv/bin/myloware-store demo")
    assert tests.endswith(".venv/bin/python -m pytest -n auto")


def test_ci_runs_the_readme_command_word_for_word() -> None:
    """Whatever breaks the README's command breaks CI."""
    assert f"\ntest_command='{COMMANDS[1]}'\n" in CI
    assert '\nstep "$test_command"\n' in CI


def test_ci_runs_the_checks_of_tox_ini() -> None:
    """Style, types and the package are checked in every run, as tox.ini defines them."""
    assert '\nstep ".venv/bin/tox run -e lint,types,packaging"\n' in CI


@pytest.fixture
def rehearsal(tmp_path: Path) -> Path:
    """Return a copy of .ci/run in a folder of its own, with quick commands in place of the real ones."""
    quick = re.sub("^test_command=.*$", "test_command='python3 -m venv --without-pip .venv'", CI, flags=re.MULTILINE)
    quick = quick.replace('step ".venv/bin/tox run -e lint,types,packaging"', "step '.venv/bin/python --version'")
    script = tmp_path / "clone" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    script.write_text(quick)
    shutil.copy(ROOT / "constraints.txt", script.parents[1])
    return script


def run_with_python(script: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the script where the shell script `python` is the only Python on PATH."""
    tools = script.parents[2] / "bin"
    tools.mkdir()
    for name in ("bash", "sh", "env", "dirname", "mktemp", "rm", "chmod"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python3").write_text(f"#!/bin/sh\n{python}\n")
    (tools / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": str(tools)}
    return subprocess.run(
        ["bash", script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_ci_runs_on_a_python_with_venv(rehearsal: Path) -> None:
    """The usual case needs nothing but that Python."""
    done = run_with_python(rehearsal, f'exec {sys.executable} "$@"')

    assert (0, "") == (done.returncode, done.stderr)
    assert "stand-in" not in done.stdout


def test_ci_runs_on_a_python_whose_venv_is_packed_apart(rehearsal: Path) -> None:
    """If `python3 -m venv` cannot work, pip installs virtualenv to a folder of the run."""
    done = run_with_python(rehearsal, f'case "$*" in *ensurepip*|"-m venv"*) exit 1;; esac; exec {sys.executable} "$@"')

    assert done.returncode == 0, done.stderr
    assert "python3 here is a stand-in for" in done.stdout


def test_ci_says_what_it_needs(rehearsal: Path) -> None:
    """Without a usable Python, the script says so in one line."""
    done = run_with_python(rehearsal, "exit 1")

    assert done.returncode == 2
    assert "needs Python >= 3.11" in done.stderr


def test_ci_fails_when_a_step_fails(rehearsal: Path) -> None:
    """The steps after a failed one still run, and the exit code is 1."""
    rehearsal.write_text(rehearsal.read_text().replace(".venv'", ".venv && false'"))

    done = run_with_python(rehearsal, f'exec {sys.executable} "$@"')

    assert done.returncode == 1
    assert "FAILED: python3 -m venv --without-pip .venv && false" in done.stdout
    assert "$ .venv/bin/python --version\nPython 3." in done.stdout

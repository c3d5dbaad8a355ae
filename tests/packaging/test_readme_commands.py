"""The README's first command, in a fresh clone: nothing but Python there, and then the store at work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEMO = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)[0]


@pytest.fixture
def clone(checkout: Path) -> Iterator[Path]:
    """Yield a fresh clone in a folder that every account may enter: as root, the server runs under another one."""
    base = Path(tempfile.mkdtemp(prefix="myloware-clone-"))
    base.chmod(0o755)
    yield shutil.copytree(checkout, base / "my clone")
    shutil.rmtree(base)


def test_the_first_command_sees_the_store_at_work(clone: Path) -> None:
    """One line installs and runs the demo; the lines that it prints work in the same folder, one ends the server."""

    def bash(line: str) -> str:
        environ = {**os.environ, "HOME": str(clone.parent), "PATH": f"{clone.parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", line], cwd=clone, env=environ, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    printed = bash(DEMO)
    try:
        assert re.search(r"^Work order +\S+, COMPLETED$", printed, re.MULTILINE)
        (psql,) = re.findall(r"^.*psql'? 'postgresql://.*$", printed, re.MULTILINE)
        assert re.search(r"\(\d+ rows\)", bash(psql))
    finally:
        (down,) = re.findall(r"^.*myloware-store'? down --url .*$", printed, re.MULTILINE)
        assert "has stopped" in bash(down)

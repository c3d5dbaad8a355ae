"""The steps of `docs/schema-evolution.md`, one after the other, in a copy of the sample service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "schema-evolution.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_every_step_of_the_page_runs(tmp_path: Path, plain_url: str) -> None:
    """Files are written as they stand there, or were generated so; commands succeed and print what is shown."""
    service = tmp_path / "invoices"
    shutil.copytree(CHECKOUT / "examples" / "invoices", service, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    printed = ""
    for language, text in BLOCKS:
        if language == "bash":
            printed = bash(text, service, plain_url)
        elif language == "text":
            assert text == printed
        else:
            name, contents = re.fullmatch(r"# (\S+)\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
            if (service / name).exists() and name.startswith("migrations/"):
                assert contents == (service / name).read_text(encoding="utf-8")
            else:
                (service / name).write_text(contents, encoding="utf-8")
    assert ["006_round_amounts.py"] == [path.name for path in (service / "migrations").glob("006*")]


def bash(script: str, folder: Path, url: str) -> str:
    """Run lines of the page as a reader would, and return what they print."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DATABASE_", "PG", "PYTEST", "COLUMNS"))
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**kept, "PATH": path, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout

"""The programs in the documentation that have a name run as they stand there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from myloware_store import Store

DOCS = Path(__file__).parents[2] / "docs"
PROGRAM = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = {
    f"{page.name}/{name}": text
    for page in sorted(DOCS.glob("*.md"))
    for name, text in PROGRAM.findall(page.read_text(encoding="utf-8"))
    if not name.startswith("test_")
}
UNENDING = ("worker.md/worker.py", "library.md/metrics.py")
WAITING = "worker.md/submit.py"


def started(name: str, dsn: str) -> subprocess.Popen[str]:
    """Start a program of the documentation on a database."""
    command = [sys.executable, "-c", PROGRAMS[name]]
    return subprocess.Popen(command, env={"DATABASE_URL": dsn, "PORT": "0"}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in {*UNENDING, WAITING}])
def test_a_program_of_the_documentation_runs(name: str, myloware_dsn: str) -> None:
    """It ends well and prints something."""
    with started(name, myloware_dsn) as program:
        printed, _ = program.communicate(timeout=60)
    assert program.returncode == 0
    assert printed


@pytest.mark.usefixtures("myloware")
def test_the_ten_lines_are_a_worker(myloware_dsn: str) -> None:
    """It handles what another program submits and waits for, and ends on SIGTERM."""
    with started(UNENDING[0], myloware_dsn) as worker:
        with started(WAITING, myloware_dsn) as submit:
            printed, _ = submit.communicate(timeout=90)
        assert printed == "COMPLETED {'words': 5}\n"
        worker.send_signal(signal.SIGTERM)
        printed, _ = worker.communicate(timeout=60)
    assert "finished=1" in printed


def test_the_page_of_metrics_is_served(myloware: Store, myloware_dsn: str) -> None:
    """With every gauge, and the labels, that the documentation lists."""
    myloware.work.submit([{"type": "TICKET", "content": "The printer is on fire"}])
    with started(UNENDING[1], myloware_dsn) as server:
        assert server.stdout is not None
        with urllib.request.urlopen(server.stdout.readline().strip(), timeout=60) as page:
            text = page.read().decode()
        server.terminate()
    gauges = re.findall(r"^\| `(myloware_\w+)` \| (.*?) \|", (DOCS / "library.md").read_text("utf-8"), re.MULTILINE)
    served: dict[str, set[str]] = {name: set() for name in re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE)}
    for name, labels in re.findall(r"^(myloware_\w+)\{(.*)\} ", text, re.MULTILINE):
        for label, value in re.findall(r'(\w+)="(.*?)"', labels):
            served[name] |= {label} if label == "tenant" else {label, value}
    assert served == {name: set(re.findall(r"`(\w+)`", told)) for name, told in gauges}

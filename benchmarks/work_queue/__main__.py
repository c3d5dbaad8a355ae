"""What a work item costs: this engine beside a hand-written psycopg2 baseline, procrastinate, pgqueuer and awa-pg.

Run it in an environment with `myloware-store[embedded]`, and the peers where they are to be compared (`pip install
procrastinate pgqueuer asyncpg uvloop awa-pg`): `python -m benchmarks.work_queue [--quick]`. All work on one embedded
server, made for the run and removed after it; every figure is taken in turns over several rounds. The rates are those
of what a queue itself costs, in memory where there is a file system in memory: `--data FOLDER` puts the data on a disk,
where the time of an fsync is added to all.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.work_queue.cases import LARGE, SMALL, SUBMIT, WORKERS, Case, cases
from benchmarks.work_queue.claims import claim_times
from benchmarks.work_queue.crew import Crew, Queue, Took
from benchmarks.work_queue.peers import CONTENDERS, PEERS
from benchmarks.work_queue.report import as_markdown, as_summary, as_text
from myloware_store.embedded import EmbeddedServer
from myloware_store.work.engine import Work

ROOT = Path(__file__).parents[2]
PAGES = {ROOT / "docs" / "queue-performance.md": as_markdown, ROOT / "README.md": as_summary}
BEGIN, END = "<!-- figures: written by benchmarks/work_queue -->\n", "<!-- end of the figures -->\n"
ITEMS_PER_ORDER = 10
TENTHS = 10


def measure(case: Case, queue: Queue, crew: Crew) -> tuple[int, Took]:
    """Take one figure: how many items, and what they took."""
    items = case.items
    if queue.contender == "procrastinate" and case.batch > 1:
        items = max(200, items // 10)  # one by one all the same
    queue.empty()
    if case.kind == SUBMIT:
        batch = min(case.batch, items)
        queue.settle()
        return items // batch * batch, crew.submit(case.size, batch, items // batch)
    queue.fill(crew, case.size, items, ITEMS_PER_ORDER)
    queue.settle()
    return items, crew.drain(case.workers, case.batch, items)


def compare(server: EmbeddedServer, wanted: list[Case], contenders: list[str], rounds: int) -> list[dict[str, Any]]:
    """Take every figure in turns, and return the medians."""
    taken: dict[tuple[Case, str], list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        queues = {name: stack.enter_context(Queue(server, name, name)) for name in contenders}
        crews = {name: stack.enter_context(Crew(name, queue.url, WORKERS)) for name, queue in queues.items()}
        for turn in range(rounds):
            for case in wanted:
                for name in contenders if turn % 2 else reversed(contenders):
                    if (case.kind, name) != (SUBMIT, "joined"):
                        items, took = measure(case, queues[name], crews[name])
                        figures = (items / took.seconds, took.client * 1e3 / items, took.server * 1e3 / items)
                        taken.setdefault((case, name), []).append(figures)
            print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    found = []
    for case in wanted:
        entry: dict[str, Any] = {**asdict(case), "found": {}}
        for name in contenders:
            if (case, name) in taken:
                rate, client, server_ms = (statistics.median(column) for column in zip(*taken[case, name], strict=True))
                entry["found"][name] = {
                    "rate": rate,
                    "client_ms": client,
                    "cpu_ms": client + server_ms if server_ms else 0,
                    "rates": [figures[0] for figures in taken[case, name]],
                }
        found.append(entry)
    return found


def index_later(server: EmbeddedServer, rounds: int, *, quick: bool) -> list[dict[str, float]]:
    """Return by size the milliseconds of the processor that indexing an item after it was finished takes."""
    found = []
    with Queue(server, "ours", "later") as queue, Crew("ours", queue.url, 1) as crew:
        for size in (SMALL, LARGE):
            items, taken = (500 if quick else 2000), []
            for _ in range(rounds):
                queue.empty()
                queue.fill(crew, size, items, ITEMS_PER_ORDER)
                crew.drain(1, 50, items)
                queue.settle()
                indexed, merged = crew.index()
                if indexed.answers != [items]:
                    raise RuntimeError(f"{indexed.answers[0]} items were indexed of {items}")
                taken.append([(took.client + took.server) * 1e3 / items for took in (indexed, merged)])
            index, merge = (statistics.median(column) for column in zip(*taken, strict=True))
            found.append({"size": size, "index_ms": index, "merge_ms": merge})
    return found


def long_run(server: EmbeddedServer, name: str, items: int) -> dict[str, Any]:
    """Pass many items through a queue, a tenth at a time; return what each tenth took, and the sizes at the end."""
    each = max(100, items // TENTHS // (10 if name == "procrastinate" else 1) // 100 * 100)
    tenths = []
    with Queue(server, name, f"long_{name}") as queue, Crew(name, queue.url, 1) as crew:
        for _ in range(TENTHS):
            took = [crew.submit(SMALL, 100, each // 100), crew.drain(1, 50, each)]
            if name == "ours":
                took += crew.index()
            seconds, cpu = sum(part.seconds for part in took), sum(part.client + part.server for part in took)
            tenths.append({"rate": each / seconds, "cpu_ms": cpu * 1e3 / each})
        tables, indexes = queue.megabytes()
    return {"items": each * TENTHS, "tenths": tenths, "tables_mb": tables, "indexes_mb": indexes}


def fsync_ms(folder: Path) -> float:
    """Return the median milliseconds that writing a page through to the disk takes."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(50):
            begin = time.perf_counter()
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def storage(folder: Path) -> str:
    """Name the kind of file system that a folder is on, where the system tells."""
    mounts = Path("/proc/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    fitting = [line.split()[1:3] for line in lines if folder.is_relative_to(line.split()[1])]
    return max(fitting, key=lambda found: len(found[0]))[1] if fitting else "an unknown file system"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that was asked for."""
    missing = [peer for peer, module in PEERS.items() if importlib.util.find_spec(module) is None]
    for peer in missing:
        print(f"{peer} is not compared: it is not installed", file=sys.stderr)
    contenders = [name for name in CONTENDERS if name not in missing]
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="myloware-queue-", dir=arguments.data or (memory if memory.is_dir() else None)))
    base.chmod(0o755)
    try:
        with EmbeddedServer(base / "server") as server:
            with Queue(server, "ours", "about") as queue:
                server_version = queue.connection.info.parameter_status("server_version")
            versions = {"PostgreSQL": server_version, "Python": platform.python_version()}
            names = ["myloware-store", "psycopg2-binary", *(peer for peer in PEERS if peer not in missing)]
            figures: dict[str, Any] = {
                "versions": versions | {name: importlib.metadata.version(name) for name in names},
                "rounds": arguments.rounds,
                "storage": storage(server.data_dir.resolve()),
                "fsync_ms": fsync_ms(base),
                "cpus": os.cpu_count(),
                "load_before": os.getloadavg()[0],
                "cases": [],
            }
            wanted = cases(arguments.only, quick=arguments.quick)
            if wanted:
                figures["cases"] = compare(server, wanted, contenders, arguments.rounds)
            if "index" in arguments.only and hasattr(Work, "index"):
                figures["index"] = index_later(server, arguments.rounds, quick=arguments.quick)
            if "long" in arguments.only:
                items = arguments.items or (5000 if arguments.quick else 200_000)
                lasting = [name for name in contenders if name not in ("joined", "baseline")]
                figures["long"] = {name: long_run(server, name, items) for name in lasting}
            if "claims" in arguments.only:
                largest = 100_000 if arguments.quick else 1_000_000
                figures["claims"] = [*claim_times(server, arguments.rounds, 100 if arguments.quick else 300, largest)]
            return figures
    finally:
        shutil.rmtree(base)


def main() -> None:
    """Measure, or read what was measured before, and print the tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.work_queue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few items, and claims from a tenth of the rows")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken (3)")
    parts = ["drain", "submit", "index", "claims", "long"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="measure only these parts")
    parser.add_argument("--items", type=int, help="how many pass through each queue in the long run (200,000)")
    parser.add_argument("--data", type=Path, help="the folder to make the server in")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--read", type=Path, help="measure nothing: read the figures from this file")
    parser.add_argument("--markdown", type=Path, help="write the tables as Markdown to this file")
    parser.add_argument("--write", action="store_true", help="put the tables into the page and README.md")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    figures = json.loads(arguments.read.read_text()) if arguments.read else run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(as_markdown(figures))
    if arguments.write:
        for page, made in PAGES.items():
            before, rest = page.read_text().split(BEGIN)
            page.write_text(f"{before}{BEGIN}{made(figures)}{END}{rest.split(END)[1]}")
    print(as_text(figures))


if __name__ == "__main__":
    main()

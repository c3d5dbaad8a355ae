"""Compare starts of the embedded server with PostgreSQL's own `initdb` and `pg_ctl start`, in one run.

    python benchmarks/embedded_start.py [ROUNDS]

Cold is a new home, durable, until the server is ready; bare is `initdb` and `pg_ctl -w start` with the same
programs. Warm is a home that was used before. Limits: cold at most 2 times bare, warm below 0.3 s.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from myloware_store.embedded import EmbeddedServer, find_binaries
from myloware_store.embedded.account import private_folder, server_account
from myloware_store.embedded.binaries import clean_environment, reachable_binaries

COLD_LIMIT = 2.0
WARM_LIMIT = 0.3


def main() -> int:
    """Measure, print, and return 1 where a limit is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder = Path(tempfile.mkdtemp(prefix="myloware-bench-"))
    folder.chmod(0o711)
    try:
        bare_times, cold_times, warm_times, join_times, stop_times = [], [], [], [], []
        for number in range(rounds):
            bare_times.append(bare(folder / f"bare{number}"))
            home = folder / f"home{number}"
            cold_times.append(start_and_stop(home)[0])
            warm, join, stop = start_and_stop(home)
            warm_times.append(warm)
            join_times.append(join)
            stop_times.append(stop)
    finally:
        shutil.rmtree(folder)
    middle = statistics.median
    cold = middle(cold_times) / middle(bare_times)
    print(f"bare initdb and start  {middle(bare_times):6.3f} s")
    print(f"cold start             {middle(cold_times):6.3f} s  {cold:.2f} times bare (limit {COLD_LIMIT})")
    print(f"warm start             {middle(warm_times):6.3f} s  (limit {WARM_LIMIT} s)")
    print(f"joining                {middle(join_times):6.3f} s")
    print(f"last close             {middle(stop_times):6.3f} s")
    return 0 if cold <= COLD_LIMIT and middle(warm_times) < WARM_LIMIT else 1


def start_and_stop(home: Path) -> tuple[float, float, float]:
    """Return the seconds that a start, a second holder's start and the last close take."""
    first, second = EmbeddedServer(home), EmbeddedServer(home)
    marks = [time.perf_counter()]
    for step in (first.start, second.start, second.close):
        step()
        marks.append(time.perf_counter())
    began = time.perf_counter()
    first.close()
    return marks[1] - marks[0], marks[2] - marks[1], time.perf_counter() - began


def bare(folder: Path) -> float:
    """Return the seconds that PostgreSQL's own tools take to a ready server."""
    account = server_account()
    binaries = reachable_binaries(find_binaries(), account)
    private_folder(folder, account)
    who: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", f"{folder}/data", *arguments]
        subprocess.run(command, env=clean_environment(), cwd="/", stdout=subprocess.DEVNULL, check=True, **who)

    began = time.perf_counter()
    run("initdb", "-U", "postgres", "-A", "trust", "--locale=C", "--encoding=UTF8", "-T", "english")
    run("pg_ctl", "-o", f"-h '' -k {folder}", "-l", f"{folder}/log", "-w", "start")
    seconds = time.perf_counter() - began
    run("pg_ctl", "-m", "fast", "-w", "stop")
    return seconds


if __name__ == "__main__":
    sys.exit(main())

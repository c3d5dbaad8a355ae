"""How long `import myloware_store` takes, as a multiple of importing the libraries it stands on.

Run `python benchmarks/import_time.py [RUNS]`. Each run is a fresh interpreter, the kinds take turns, and their medians
are compared; the interpreter's own start is measured the same way and taken off both. The limit is 1.6.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

LIMIT = 1.6
KINDS = {
    "nothing": "pass",
    "the libraries": "import peewee, psycopg2, numpy, attrs",
    "myloware_store": "from myloware_store import *",
}


def seconds(statement: str) -> float:
    """Time a fresh interpreter that runs one statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main(runs: int) -> int:
    """Print the medians and their ratio, and tell by the exit code whether the limit holds."""
    for statement in KINDS.values():
        seconds(statement)  # the first run of each compiles and fills the disk cache
    taken: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(runs):
        for name, statement in KINDS.items():
            taken[name].append(seconds(statement))

    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, value in medians.items():
        print(f"{name:>16}: {value * 1000:6.1f} ms")
    bare = medians["nothing"]
    ratio = (medians["myloware_store"] - bare) / (medians["the libraries"] - bare)
    print(f"ratio, without the interpreter's start: {ratio:.2f} (limit {LIMIT})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 21))

"""The memory measured: recall in every state of its index, cost beside SQL by hand, loading, real texts, and others.

    python -m benchmarks.memory [--quick] [--rows N N] [--parts NAME ...] [--json FILE] [--write]

One embedded server, one run; ground truth by comparing all pairs in numpy. Other libraries (see
`peers.py`) take part where they are installed. With `--json` every part is written down as soon as it is
measured, and a run that was broken off goes on after the last one. `--write` puts the tables and plots of the parts
that were measured into `docs/search-quality.md`. Exit code 1 where a figure that is asked for is missed.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.memory.bench import Bench, running, timed
from benchmarks.memory.contest import contest
from benchmarks.memory.cost import cost
from benchmarks.memory.loading import loading
from benchmarks.memory.million import million
from benchmarks.memory.quality import quality
from benchmarks.memory.recall import many, recall, unseen
from benchmarks.memory.report import Results, checks, plots, sections, table
from benchmarks.memory.unasked import unasked

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "search-quality.md"
PARTS = ("loading", "cost", "unasked", "unseen", "recall", "many", "quality", "peers", "million")
ONLY_NAMED = {"million"}
"""Parts that are only measured if they are named: they need thirty gigabytes of disk, and an hour."""
MARKS = "<!-- {name}: begin -->", "<!-- {name}: end -->"


def parts(rows: list[int], *, quick: bool) -> Iterator[tuple[str, Callable[[Bench], Any]]]:
    """Give the name of each part of a run, and what measures it; `rows` are the sizes, the smallest first."""
    few = rows[0]
    yield "loading", functools.partial(loading, rows=few // 4)
    yield "cost", functools.partial(cost, rows=few)
    yield "unasked", functools.partial(unasked, rows=few)
    yield "unseen", functools.partial(unseen, rows=few)
    for count in rows:
        yield f"recall {count}", functools.partial(recall, rows=count)
    yield "many", functools.partial(many, rows=2 * rows[-1])
    yield "quality", functools.partial(quality, rows=few)
    yield "peers", functools.partial(contest, rows=few)
    yield "million", functools.partial(million, rows=few if quick else 1_000_000)


def measure(given: argparse.Namespace, results: Results, keep: Callable[[], None]) -> None:
    """Measure the parts that are missing."""
    wanted = [
        (name, part)
        for name, part in parts(sorted(given.rows), quick=given.quick)
        if name not in results and (name.split()[0] in given.parts if given.parts else name not in ONLY_NAMED)
    ]
    if not wanted:
        return
    with running(quick=given.quick) as bench:
        for name, part in wanted:
            results[name], ms = timed(part, bench)
            print(f"{name}: {ms / 1e3:.0f} s", file=sys.stderr, flush=True)
            keep()


def report(results: Results) -> str:
    """Return every table, the figures asked for first."""
    held = [(one.what, one.measured, one.asked, "yes" if one.held else "**no**") for one in checks(results)]
    asked = [("Asked for", table(("", "measured", "asked", "held"), held))] if held else []
    parts = [*asked, *sections(results)]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts)


def write(results: Results) -> None:
    """Put the tables between the page's marks, some parts between their own, and the plots beside it."""
    text = PAGE.read_text()
    real = {name: found for name, found in results.items() if name == "quality" and "missing" not in found}
    large = {name: found for name, found in results.items() if name == "million"}
    rest = {name: found for name, found in results.items() if name not in {"quality", "million", "run"}}
    for mark, part in (("real texts", real), ("million", large), ("measured", rest)):
        if part:  # what was not measured stays
            begin, end = (one.format(name=mark) for one in MARKS)
            before, found = text.split(begin)
            _, after = found.split(end)
            text = f"{before}{begin}\n\n{report(part)}\n\n{end}{after}"
    PAGE.write_text(text)
    (DOCS / "images").mkdir(exist_ok=True)
    for name, plot in plots(results):
        (DOCS / "images" / name).write_text(plot)


def main() -> int:
    """Measure, print, and return 1 where something asked for is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and few queries")
    parser.add_argument("--rows", type=int, nargs="+", help="rows of the tables (20000 50000; quick: 9000)")
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--json", type=Path, help="keep what is measured in this file, and what it has already")
    parser.add_argument("--write", action="store_true", help="write the page and its plots")
    given = parser.parse_args()
    given.rows = given.rows or ([9_000] if given.quick else [20_000, 50_000])
    run = {"quick": given.quick, "rows": sorted(given.rows)}
    results: Results = {"run": run}
    if given.json and given.json.exists():
        results = json.loads(given.json.read_text())
        if results["run"] != run:
            parser.error(f"{given.json} has another run: {results['run']}")

    def keep() -> None:
        if given.json:
            given.json.write_text(json.dumps(results, indent=1))

    measure(given, results, keep)
    print(report(results))
    if given.write:
        write(results)
    return 0 if all(one.held for one in checks(results)) else 1


if __name__ == "__main__":
    sys.exit(main())

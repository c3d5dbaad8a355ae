"""The report of a failed test, and the last lines of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..options import LEASE

if TYPE_CHECKING:
    import pytest

__all__ = ["add_sections", "add_timing", "summary_lines", "timing_lines"]

_NAMED = 3  # tests
_TIMING = "myloware_timing"


def add_sections(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add the test's lock waits and changes to the report of its failure."""
    lease = item.stash.get(LEASE, None)
    if lease is None:
        return
    if waits := lease.waits:
        report.sections.append(("myloware: lock waits", waits))
    if changes := lease.changes():
        report.sections.append(("myloware: changes in the test's database", changes))


def summary_lines(used: list[dict[str, Any]]) -> list[str]:
    """Name the server, the templates and the kept databases of a run."""
    built: dict[str, bool] = {}
    for each in used:
        for template, now in each["templates"].items():
            line = f"{each['server']}, template {template}"
            built[line] = now or built.get(line, False)  # one worker builds it for all
    lines = [f"{line} {'built' if now else 'hit'}" for line, now in sorted(built.items())]
    if remade := sum(each["remade"] for each in used):
        lines.append(f"new copies after a test left DDL, a lock or the like: {remade}")
    if tests := [test for each in used for test in each["remaking"]]:
        more = f" and {len(tests) - _NAMED} more" if len(tests) > _NAMED else ""
        lines.append(f"  {', '.join(tests[:_NAMED])}{more}")
    if any(each["fallback"] for each in used):
        lines.append("mode clone instead of restore: restoring rows needs a superuser on the test server")
    for each in used:
        for test, url in each["kept"]:
            lines += [f"kept for {test}:", f"  psql '{url}'"]
    ending = sorted({each["down"] for each in used if each["down"]})
    return lines + [f"the server stays up for that; end it with: {line}" for line in ending]


def add_timing(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add the time spent on the database to the report of a test's end; pytest-xdist carries it along."""
    lease = item.stash.get(LEASE, None)
    if lease is not None:
        setattr(report, _TIMING, lease.timing())


def timing_lines(reporter: pytest.TerminalReporter, count: int) -> list[str]:
    """List the tests that spent most time on the database, each with its slowest statement."""
    timed: list[tuple[float, str, dict[str, Any]]] = []
    for reports in reporter.stats.values():
        for report in reports:
            timing = getattr(report, _TIMING, None)
            if timing is not None:
                timed.append((timing["isolation"] + timing["statements"], report.nodeid, timing))
    lines = []
    for seconds, test, timing in sorted(timed, key=lambda each: each[0], reverse=True)[:count]:
        counted = f"{timing['count']} statement{'' if timing['count'] == 1 else 's'}"
        parts = f"{timing['statements'] * 1e3:.1f} ms in {counted}"
        lines.append(f"{seconds * 1e3:8.1f} ms  {test}  ({parts}, {timing['isolation'] * 1e3:.1f} ms isolation)")
        if timing["slowest"]:
            lines.append(f"             slowest: {timing['slowest']}")
            lines += [f"               {line}" for line in timing["plan"]]
    return lines

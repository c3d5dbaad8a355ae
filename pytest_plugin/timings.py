"""How long each test's database took: to be made ready and put back, and for its statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import LEASE

if TYPE_CHECKING:
    import pytest

__all__ = ["add_timing", "timing_lines"]

_REPORTED = "myloware_timing"


def add_timing(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add what the database took to the report of a test's end; pytest-xdist carries it along."""
    lease = item.stash.get(LEASE, None)
    if lease is not None:
        setattr(report, _REPORTED, lease.timing())


def timing_lines(reporter: pytest.TerminalReporter, count: int) -> list[str]:
    """List the tests whose database took longest, the slowest statement of each below it."""
    timed: list[tuple[float, str, dict[str, Any]]] = []
    for reports in reporter.stats.values():
        for report in reports:
            timing = getattr(report, _REPORTED, None)
            if timing is not None:
                timed.append((timing["kept_apart"] + timing["statements"], report.nodeid, timing))
    lines = []
    for seconds, test, timing in sorted(timed, key=lambda each: each[0], reverse=True)[:count]:
        counted = f"{timing['count']} statement{'' if timing['count'] == 1 else 's'}"
        parts = f"{timing['statements'] * 1e3:.1f} ms in {counted}"
        lines.append(f"{seconds * 1e3:8.1f} ms  {test}  ({parts}, {timing['kept_apart'] * 1e3:.1f} ms ready and back)")
        if timing["slowest"]:
            lines.append(f"             slowest: {timing['slowest']}")
            lines += [f"               {line}" for line in timing["plan"]]
    return lines

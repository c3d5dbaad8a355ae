"""How a test went, as far as its database is concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import LEASE

if TYPE_CHECKING:
    import pytest

__all__ = ["add_sections", "summary_lines"]

_NAMED = 3  # tests


def add_sections(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add what waited for locks, and what the test has changed in its database, to the report of its failure."""
    lease = item.stash.get(LEASE, None)
    if lease is None:
        return
    if waits := lease.waits:
        report.sections.append(("myloware: what waited for a lock", waits))
    if changes := lease.changes():
        report.sections.append(("myloware: what the test changed in its database", changes))


def summary_lines(used: list[dict[str, Any]]) -> list[str]:
    """Say in a few lines which server and templates a run has used, and what was kept."""
    built: dict[str, bool] = {}
    for each in used:
        for template, now in each["templates"].items():
            line = f"{each['server']}, template {template}"
            built[line] = now or built.get(line, False)  # one worker builds it for all
    lines = [f"{line} {'built' if now else 'hit'}" for line, now in sorted(built.items())]
    remade = sum(each["remade"] for each in used)
    if remade:
        lines.append(f"databases made anew after a test had left DDL, a lock or the like: {remade}")
    if tests := [test for each in used for test in each["remaking"]]:
        more = f" and {len(tests) - _NAMED} more" if len(tests) > _NAMED else ""
        lines.append(f"  {', '.join(tests[:_NAMED])}{more}")
    if any(each["fallback"] for each in used):
        lines.append("mode clone instead of restore: putting back rows takes a superuser on the test server")
    for each in used:
        for test, url in each["kept"]:
            lines += [f"kept for {test}:", f"  psql '{url}'"]
    ending = sorted({each["down"] for each in used if each["kept"] and each["down"]})
    return lines + [f"the server stays up for that; end it with: {line}" for line in ending]

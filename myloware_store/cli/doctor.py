"""`myloware-store doctor`: examine a running database, and report its findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from myloware_store.cli.options import Given, example, pass_given, where_options

if TYPE_CHECKING:
    from myloware_store.ops.doctor import Examination
    from myloware_store.settings import Settings

__all__ = ["doctor"]

DONE, FINDING = 0, 1
_STYLES = {"critical": "bold red", "warning": "bold yellow", "info": "bold"}


@click.command(epilog=example("myloware-store doctor", "myloware-store doctor --fix"))
@where_options
@click.option("--fix", is_flag=True, help="Recount orders whose counters do not agree with their items.")
@pass_given
def doctor(given: Given, *, fix: bool) -> int:
    """Examine a running database, and say how to mend it.

    It looks at settings, connections, transactions, locks, replication, tables, indexes, the queue and the memory. It
    only reads, except for --fix. Exit 1 if a finding is critical or a warning.

    `validate` compares the schema in detail; docs/operations.md describes every check.
    """
    from myloware_store.ops.doctor import examine
    from myloware_store.ops.target import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database:
        report = examine(database, fix=fix)
    _report(target.settings, report, fix=fix, as_json=given.json)
    return DONE if report.healthy else FINDING


def _report(settings: Settings, report: Examination, *, fix: bool, as_json: bool) -> None:
    from collections import Counter

    import attrs

    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of

    if as_json:
        print_json({"url": name_of(settings), "healthy": report.healthy, **attrs.asdict(report)})
        return
    screen = Screen()
    counts = Counter[str](one.severity for one in report.findings)
    told = ", ".join(f"{counts[severity]} {severity}" for severity in _STYLES if counts[severity])
    screen.facts(
        {
            "Database": name_of(settings),
            "Findings": told or "none",
            **({"Recounted": f"{len(report.recounted)} of the orders"} if fix else {}),
        }
    )
    for one in report.findings:
        screen.line(f"\n{one.severity}: {one.check} {one.subject}", style=_STYLES[one.severity])
        screen.line(f"{one.evidence}.")
        screen.verbatim(f"to fix: {one.remedy}")
    for hidden in report.unseen:
        screen.line(f"\nnot seen: {hidden.check}", style="bold")
        screen.line(f"{hidden.reason}.")
        screen.verbatim(f"to see it: {hidden.remedy}")
    screen.line(f"\nNothing found by: {', '.join(report.sound)}.")

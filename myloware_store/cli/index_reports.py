"""The reports of the commands on indexes: JSON for programs, text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from myloware_store.cli.console import Screen, print_json
from myloware_store.cli.reports import name_of

if TYPE_CHECKING:
    from datetime import datetime

    from myloware_store import IndexChange, IndexStatus, MetadataIndex
    from myloware_store.settings import Settings

__all__ = ["change", "dropped", "items", "metadata", "status"]


def status(settings: Settings, report: IndexStatus, *, as_json: bool) -> None:
    """Report the state of the index."""
    if as_json:
        print_json({"url": name_of(settings), **attrs.asdict(report)})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings), **_facts(report)})
    if report.remedy:
        screen.line("\nTo fix it:")
        screen.verbatim(report.remedy)


def change(settings: Settings, report: IndexChange, *, as_json: bool) -> None:
    """Report the change of the index, and its state now."""
    if as_json:
        print_json({"url": name_of(settings), **attrs.asdict(report)})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings), **_facts(report.status)})
    screen.line()
    for action in report.actions:
        screen.line(action)
    screen.line(f"Why: {report.reason}." if report.actions else f"Nothing to do: {report.reason}.")


def items(settings: Settings, indexed: int, *, as_json: bool) -> None:
    """Report how many work items were indexed."""
    if as_json:
        print_json({"url": name_of(settings), "indexed": indexed})
    else:
        Screen().facts({"Database": name_of(settings), "Indexed": f"{indexed} work items"})


def metadata(settings: Settings, report: MetadataIndex, *, as_json: bool) -> None:
    """Report an index on metadata."""
    if as_json:
        print_json({"url": name_of(settings), **attrs.asdict(report)})
    else:
        Screen().facts({"Database": name_of(settings), "Index": report.name, "On": _described(report)})


def dropped(settings: Settings, was_there: bool, *, as_json: bool) -> None:  # noqa: FBT001
    """Report whether an index on metadata was there to drop."""
    if as_json:
        print_json({"url": name_of(settings), "dropped": was_there})
    else:
        Screen().facts({"Database": name_of(settings), "Index": "dropped" if was_there else "there is none"})


def _described(report: MetadataIndex) -> str:
    where = report.name if report.path is None else ".".join(report.path)
    return f"{where} ({report.kind}{'' if report.valid else ', invalid'}, {report.size_bytes / 2**20:.1f} MiB)"


def _facts(report: IndexStatus) -> dict[str, object]:
    return {
        "Index": _kind(report),
        "Searches": "use the index" if report.used else f"are exact: {report.problem}",
        "Rows": _rows(report),
        "Recall": _recall(report),
        "Built": _at(report.built_at) or "not by `index`, or unknown",
        "Size": f"{report.size_bytes / 2**20:.1f} MiB",
        **({"Metadata": ", ".join(map(_described, report.metadata_indexes))} if report.metadata_indexes else {}),
        "pgvector": f"{report.pgvector}{' without ' + ' and '.join(report.lacks) if report.lacks else ''}",
        **({"Leftovers": ", ".join(report.leftovers)} if report.leftovers else {}),
        "Upkeep": "by workers, and by stores on the embedded server" if report.upkeep else "off (MYLOWARE_UPKEEP)",
        **({"Being built": f"by server process {report.builder}"} if report.builder else {}),
    }


def _kind(report: IndexStatus) -> str:
    if report.method is None:
        return "none"
    options = {"lists": report.lists, "m": report.m, "ef_construction": report.ef_construction}
    shown = ", ".join(f"{name} = {value}" for name, value in options.items() if value is not None)
    return f"{report.method}, {shown}{'' if report.valid else ', invalid'}"


def _rows(report: IndexStatus) -> str:
    text = f"about {report.rows_now} with an embedding"
    if report.rows_at_build:
        text += f", {report.rows_at_build} when it was built"
    return f"{text}, {report.fresh_rows} added or changed since" if report.fresh_rows else text


def _recall(report: IndexStatus) -> str:
    tuned = ", ".join(f"{tuning} at k = {k}" for k, tuning in report.tunings)
    parameter = {"ivfflat": "probes", "hnsw": "ef_search"}.get(report.method or "", "")
    if report.recall is None:
        return f"not measured; provisional {parameter}: {tuned}" if tuned else "not measured"
    return (
        f"{'' if report.used else 'if searches used the index, '}{report.recall:.3f} of the exact answer for"
        f" {report.sample} queries on {_at(report.measured_at)}, target"
        f" {report.target_recall:g}{f'; {parameter}: {tuned}' if tuned else ''}"
    )


def _at(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else ""

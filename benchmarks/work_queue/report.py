"""The figures of the comparison of work queues as text and as Markdown, beside what was asked of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.work_queue.cases import ASKED_OF_CLAIMS, ASKED_OF_LAST_TENTH, DRAIN, JOINED, SMALL, SUBMIT, asked

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["as_markdown", "as_summary", "as_text"]

Figures = dict[str, Any]
Table = tuple[list[str], list[list[str]]]

OTHERS = ("baseline", "procrastinate", "pgqueuer", "awa-pg")


def _lines(figures: Figures) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield the kind, the case and our figures of each line: claiming and finishing at once makes one of its own."""
    for case in figures["cases"]:
        yield case["kind"], case, case["found"]["ours"]
        if "joined" in case["found"]:
            yield JOINED, case, case["found"]["joined"]


def _name(kind: str, case: dict[str, Any]) -> str:
    workers = "" if kind == SUBMIT else f", {case['workers']} worker{'s' if case['workers'] > 1 else ''}"
    return f"{kind}, batch {case['batch']}{workers}, {case['size'] // 1000} KB"


def _judged(ratio: float, wanted: float | None) -> str:
    return f"{ratio:.2f}" + ("" if wanted is None else f" (aim {wanted:g}{'' if ratio >= wanted else ': missed'})")


def _cost(found: dict[str, Any]) -> str:
    return f"{found['client_ms']:.2f} + {found['cpu_ms'] - found['client_ms']:.2f}, {found['rate']:,.0f}/s"


def _ratios(figures: Figures) -> Table:
    """Return what an item costs each of the others beside what it costs us, then our rate beside theirs."""
    rows = []
    for kind, case, ours in _lines(figures):
        row = [_name(kind, case)]
        for other in OTHERS:
            if (theirs := case["found"].get(other)) is None:
                row.append("-")
                continue
            wanted = asked(kind, case["batch"], case["size"], other)
            cpu = _judged(theirs["cpu_ms"] / ours["cpu_ms"], wanted) if ours["cpu_ms"] else "-"
            row.append(f"{cpu} / {ours['rate'] / theirs['rate']:.2f}")
        rows.append(row)
    return ["their CPU time / ours, our rate / theirs", *OTHERS], rows


def _costs(figures: Figures) -> Table:
    rows = [
        [_name(kind, case), _cost(ours), *(_cost(found[other]) if other in found else "-" for other in OTHERS)]
        for kind, case, ours in _lines(figures)
        for found in [case["found"]]
    ]
    return ["CPU ms an item: workers + their backends, and rate", "ours", *OTHERS], rows


def _index(figures: Figures) -> Table:
    rows = []
    for found in figures.get("index", ()):
        (drain,) = [
            case["found"]["ours"]["cpu_ms"]
            for case in figures["cases"]
            if (case["kind"], case["batch"], case["workers"], case["size"]) == (DRAIN, 50, 1, found["size"])
        ] or [0]
        beside = f"{(found['index_ms'] + found['merge_ms']) / drain:.2f}" if drain else "-"
        rows.append([f"{found['size'] // 1000} KB", f"{found['index_ms']:.2f}", f"{found['merge_ms']:.2f}", beside])
    return ["indexing later, CPU ms an item", "index", "merge", "times claim + finish, batch 50, 1 worker"], rows


def _claims(figures: Figures) -> Table:
    rows = []
    p50 = {entry["name"]: entry["found"]["ours"]["p50_ms"] for entry in figures.get("claims", ())}
    for entry in figures.get("claims", ()):
        ours, baseline, growth = entry["found"]["ours"], entry["found"].get("baseline"), ""
        if entry["name"] in ASKED_OF_CLAIMS:
            beside, most = ASKED_OF_CLAIMS[entry["name"]]
            ratio = ours["p50_ms"] / p50[beside]
            growth = f"{ratio:.2f} (aim {most:g} at most{'' if ratio <= most else ': missed'})"
        cpu = f"{baseline['cpu_ms'] / ours['cpu_ms']:.2f}" if baseline and ours["cpu_ms"] else "-"
        costs = [f"{found['p50_ms']:.2f}, {found['cpu_ms']:.2f}" if found else "-" for found in (ours, baseline)]
        rows.append([entry["queue"], cpu, growth, *costs])
    head = ["a claim of one item", "CPU time of baseline / ours", "growth of our p50"]
    return [*head, "ours: p50 and CPU time, ms", "baseline"], rows


def _long(figures: Figures) -> Table:
    rows = []
    for name, found in figures.get("long", {}).items():
        (cpu, rate), (last_cpu, last_rate) = [
            (found["tenths"][n]["cpu_ms"], found["tenths"][n]["rate"]) for n in (1, -1)
        ]
        sizes = [f"{found[part]:,.0f} ({found[part] * 1e6 / found['items']:,.0f})" for part in PARTS]
        flat = _judged(last_rate / rate, ASKED_OF_LAST_TENTH if name == "ours" else None)
        tenths = ", ".join(f"{tenth['rate']:,.0f}" for tenth in found["tenths"])
        rows.append(
            [f"{name}, {found['items']:,} items", f"{cpu / last_cpu:.2f}" if last_cpu else "-", flat, *sizes, tenths]
        )
    head = ["through the queue, a tenth at a time", "CPU: second tenth / last", "rate: last / second"]
    return [*head, "tables, MB (bytes an item)", "indexes, MB (bytes an item)", "items/s of each tenth"], rows


PARTS = ("tables_mb", "indexes_mb")
TABLES = (_ratios, _costs, _index, _claims, _long)


def _about(figures: Figures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return (
        f"{versions}. {figures['rounds']} rounds, taken in turns; medians. Data on {figures['storage']}, where an fsync"
        f" takes {figures['fsync_ms']:.2f} ms; fsync and synchronous_commit are on. {figures['cpus']} processors,"
        f" with a load of {figures['load_before']:.1f} from other processes at the start."
        " Each cell has two ratios: the other's processor time per item (workers and their backends) divided by ours,"
        " then our rate divided by theirs. Above 1, ours is better. The first holds on a busy machine, too."
    )


def _made(figures: Figures) -> list[Table]:
    return [(head, rows) for table in TABLES for head, rows in [table(figures)] if rows]


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def as_text(figures: Figures) -> str:
    """Return the tables for a terminal."""
    parts = [_about(figures)]
    for head, rows in _made(figures):
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
        parts.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(parts)


def as_markdown(figures: Figures) -> str:
    """Return the tables as Markdown."""
    return "\n\n".join([_about(figures), *(_markdown(head, rows) for head, rows in _made(figures))]) + "\n"


def as_summary(figures: Figures) -> str:
    """Return the ratios for items of 1 KB in a small table as Markdown."""
    rows = []
    for kind, case, ours in _lines(figures):
        if case["size"] == SMALL:
            at_a_time = "one at a time" if case["batch"] == 1 else f"{case['batch']} at a time"
            workers = f", {case['workers']} workers" if case["workers"] > 1 else ""
            theirs = [case["found"].get(other) for other in OTHERS]
            cells = [
                f"{found['cpu_ms'] / ours['cpu_ms']:.2g} / {ours['rate'] / found['rate']:.2g}"
                if found and ours["cpu_ms"]
                else "-"
                for found in theirs
            ]
            rows.append([f"{kind}, {at_a_time}{workers}", *cells])
    head = ["their CPU time / ours, our rate / theirs", "hand-written psycopg2", *OTHERS[1:]]
    return _markdown(head, rows) + "\n"

"""The figures of the comparison of work queues as text and as Markdown, beside what was asked of them."""

from __future__ import annotations

from typing import Any

__all__ = ["as_markdown", "as_summary", "as_text"]

Figures = dict[str, Any]

# What is asked of ours, as a ratio to another's rate: (kind, batch, full-text index) to other to workers to ratio.
ASKED: dict[tuple[str, int, bool], dict[str, dict[int, float]]] = {
    ("claim + finish", 1, True): {
        "baseline": {1: 0.90, 4: 0.90},
        "procrastinate": {1: 1.3, 4: 1.9},
        "pgqueuer": {1: 1.0, 4: 1.4},
    },
    ("claim + finish", 50, True): {"baseline": {1: 0.95, 4: 0.95}, "procrastinate": {1: 7, 4: 7}},
    ("claim + finish", 50, False): {"pgqueuer": {1: 1.0, 4: 1.4}},
    ("submit", 1, True): {"procrastinate": {1: 5}},
    ("submit", 1000, True): {"procrastinate": {1: 7}},
}
OTHERS = ("baseline", "procrastinate", "pgqueuer")

# What is asked of the time of a claim: beside which queue of the list, and how many times that at most.
ASKED_CLAIMS = {2: (0, 1.5), 3: (0, 1.5), 4: (1, 2.0), 6: (1, 2.0)}


def _rows(figures: Figures) -> list[list[str]]:
    """Return a row for each case: its name, ours, and ours beside each of the others."""
    rows = []
    for case in figures["cases"]:
        ours = case["found"]["ours"]
        workers = "" if case["kind"] == "submit" else f", {case['workers']} worker{'s' if case['workers'] > 1 else ''}"
        index = "" if case["indexed"] else ", no full-text index"
        row = [f"{case['kind']}, batch {case['batch']}{workers}, {case['size'] // 1000} KB{index}"]
        row.append(f"{ours['rate']:,.0f}")
        asked = ASKED.get((case["kind"], case["batch"], case["indexed"]), {})
        for other in OTHERS:
            if other not in case["found"]:
                row.append("-")
                continue
            wanted = asked.get(other, {}).get(case["workers"])
            ratio = ours["rate"] / case["found"][other]["rate"]
            cell = f"{ratio:.2f}"
            if ours["cpu_ms"] and case["found"][other]["cpu_ms"]:
                cell += f" / {case['found'][other]['cpu_ms'] / ours['cpu_ms']:.2f}"
            if wanted is not None:
                cell += f" (aim {wanted:g}{'' if ratio >= wanted else ': missed'})"
            row.append(cell)
        row.append(f"{ours['client_ms']:.2f} + {ours['cpu_ms'] - ours['client_ms']:.2f}")
        rows.append(row)
    return rows


HEAD = ["", "ours, items/s", *(f"to {other}" for other in OTHERS), "ours, CPU ms an item"]
CLAIMS_HEAD = ["p50 of a claim of one item", "ours, ms", "growth", "baseline, ms", "CPU ms: ours", "baseline"]


def _claim_rows(figures: Figures) -> list[list[str]]:
    rows = []
    found = figures.get("claims", [])
    for number, entry in enumerate(found):
        ours, baseline = entry["found"]["ours"], entry["found"]["baseline"]
        growth = ""
        if number in ASKED_CLAIMS:
            beside, most = ASKED_CLAIMS[number]
            ratio = ours["p50_ms"] / found[beside]["found"]["ours"]["p50_ms"]
            growth = f"{ratio:.2f} (aim {most:g} at most{'' if ratio <= most else ': missed'})"
        times = [f"{ours['p50_ms']:.2f}", growth, f"{baseline['p50_ms']:.2f}"]
        rows.append([entry["queue"], *times, f"{ours['cpu_ms']:.2f}", f"{baseline['cpu_ms']:.2f}"])
    return rows


def _about(figures: Figures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return (
        f"{versions}. {figures['rounds']} rounds, taken in turns; medians. Data on {figures['storage']}, where an fsync"
        f" takes {figures['fsync_ms']:.2f} ms; fsync and synchronous_commit are on. {figures['cpus']} processors,"
        f" on which {figures['load_before']:.0f} other processes were busy at the start."
        " A cell has the ratio of the rates and, after the slash, that of the processor time an item costs"
        " (workers and their backends), which holds on a busy machine, too."
    )


def as_text(figures: Figures) -> str:
    """Return the tables for a terminal."""
    parts = [_about(figures)]
    for head, rows in ((HEAD, _rows(figures)), (CLAIMS_HEAD, _claim_rows(figures))):
        if rows:
            widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
            lines = [
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
            ]
            parts.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(parts)


def as_markdown(figures: Figures) -> str:
    """Return the tables as Markdown."""
    parts = [_about(figures)]
    for head, rows in ((HEAD, _rows(figures)), (CLAIMS_HEAD, _claim_rows(figures))):
        if rows:
            rule = ["---", *["---:"] * (len(head) - 1)]
            parts.append("\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]))
    return "\n\n".join(parts) + "\n"


def as_summary(figures: Figures) -> str:
    """Return the ratios of the rates in a small table as Markdown: documents of 1 KB, with the full-text index."""
    head = ["our rate divided by that of", "hand-written psycopg2", "procrastinate", "pgqueuer"]
    rows = []
    for case in figures["cases"]:
        if case["size"] == 1000 and case["indexed"]:
            at_a_time = "one at a time" if case["batch"] == 1 else f"{case['batch']} at a time"
            workers = f", {case['workers']} workers" if case["workers"] > 1 else ""
            rates = {name: found["rate"] for name, found in case["found"].items()}
            ratios = [f"{rates['ours'] / rates[other]:.2g}" if other in rates else "-" for other in OTHERS]
            rows.append([f"{case['kind']}, {at_a_time}{workers}", *ratios])
    rule = ["---", *["---:"] * len(OTHERS)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]) + "\n"

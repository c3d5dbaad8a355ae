"""What was measured, as tables with the figures that are asked for, and as plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.memory.plot import Series, bars, scatter
from benchmarks.memory.unasked import LIMITS

Results = dict[str, Any]

RECALL_LIMIT, FILTERED_LIMIT = 0.95, 0.99
BEHIND_BM25, BEHIND_BETTER_LEG, STORING_LIMIT = 0.02, 0.01, 1.3
SEARCHES = ("bm25s", "search_text", "search_text, any", "similar", "hybrid")
OURS = {"loaded": "right after loading", "ivfflat": "after ensure(), ivfflat", "hnsw": "after ensure(), hnsw"}
COLOURS = {
    "similar(), exact": "#7a8a99",
    "similar(), ivfflat": "#3b7dd8",
    "similar(), hnsw": "#2f9e6e",
    "SQL, ivfflat of the empty table": "#c2405a",
    "SQL, ivfflat, rebuilt": "#d9a02e",
    "SQL, hnsw": "#a05cc4",
}
PLAIN = ("SQL, ivfflat of the empty table", "SQL, hnsw")


@dataclass(frozen=True)
class Check:
    """A figure that was asked for.

    Attributes:
        what: Of what.
        measured: As it was measured.
        asked: As it was asked for.
        held: Whether it holds.
    """

    what: str
    measured: str
    asked: str
    held: bool


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, whose columns line up."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [heads, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sections(results: Results) -> Iterator[tuple[str, str]]:
    """Give the title and the table of each part that was measured."""
    for name in sorted((name for name in results if name.startswith("recall ")), key=lambda one: results[one]["rows"]):
        found = results[name]
        yield f"Recall at 10 in {found['rows']:,} rows, and median milliseconds", recall_table(found)
        yield f"Recall at 100 and 500 in {found['rows']:,} rows", deep_table(found)
        seconds = "; ".join(f"{what} {value:.1f} s" for what, value in found["seconds"].items())
        yield f"Building, {found['rows']:,} rows", seconds
    if "many" in results:
        title = f"Through the index under filters that many documents meet, in {results['many']['rows']:,} rows"
        yield title, many_table(results["many"])
    if "unseen" in results:
        title = f"Topics that the index was not built on, in {results['unseen']['rows']:,} rows"
        yield title, table(("search", "recall at 10", "ms"), unseen_rows(results["unseen"]))
    if "cost" in results:
        rows = [
            (one["case"], f"{one['ours_ms']:.2f}", f"{one['raw_ms']:.2f}", f"{one['ratio']:.2f}", f"<= {one['limit']}")
            for one in results["cost"]
        ]
        yield (
            "Beside SQL by hand over psycopg2, median milliseconds",
            table(("", "ours", "by hand", "ratio", "asked"), rows),
        )
    if "loading" in results:
        rows = [
            (
                one["case"],
                f"{one['ours_per_s']:,.0f}",
                f"{one['raw_per_s']:,.0f}",
                f"{one['ratio']:.2f}",
                f">= {one['limit']}" if one["limit"] else "",
            )
            for one in results["loading"]
        ]
        yield "Beside a bare COPY BINARY of packed rows, rows/s", table(("", "ours", "COPY", "ratio", "asked"), rows)
    if "quality" in results:
        yield from quality_sections(results["quality"])
    if "million" in results:
        yield from million_sections(results["million"])
    if "peers" in results:
        yield f"Beside other libraries, {results['peers']['rows']:,} rows, hnsw, k = 10", peers_table(results["peers"])


def recall_table(found: Results) -> str:
    """Return filters down, states of the index across."""
    cells = {(one["state"], one["filter"]): one for one in found["tables"] if one["k"] == 10}
    names = list(dict.fromkeys(name for _, name in cells))

    def cell(state: str, name: str) -> str:
        one = cells[state, name]
        short = f", {one['returned']} rows" if one["returned"] < one["wanted"] else ""
        return f"{one['recall']:.3f} @ {one['ms']:.1f}{short}"

    states = (*OURS, *PLAIN)
    rows = [(name, f"{cells['loaded', name]['matches']:,}", *(cell(state, name) for state in states)) for name in names]
    return table(("filter", "matches", *OURS.values(), *PLAIN), rows)


def deep_table(found: Results) -> str:
    """Return states of the index down: no filter, and the worst of the filters."""
    rows = []
    for state in (*OURS, *PLAIN):
        for k in sorted({one["k"] for one in found["tables"]} - {10}):
            these = [one for one in found["tables"] if one["state"] == state and one["k"] == k]
            (free,) = [one for one in these if one["filter"] == "none"]
            worst = min((one for one in these if one["filter"] != "none"), key=lambda one: one["recall"])
            fewest = min(these, key=lambda one: one["returned"] / one["wanted"])
            rows.append(
                (
                    OURS.get(state, state),
                    str(k),
                    f"{free['recall']:.3f} @ {free['ms']:.1f}",
                    f"{worst['recall']:.3f} @ {worst['ms']:.1f} ({worst['filter']})",
                    f"{fewest['returned']} of {fewest['wanted']}",
                )
            )
    return table(("state", "k", "no filter", "worst filter", "fewest rows"), rows)


def many_table(found: Results) -> str:
    """Return filters and k down, the kinds of index across."""
    cells = {(one["filter"], one["k"], one["state"]): one for one in found["tables"]}
    methods = list(dict.fromkeys(method for *_, method in cells))
    rows = []
    for name, k in dict.fromkeys((name, k) for name, k, _ in cells):
        ones = [cells[name, k, method] for method in methods]
        rows.append(
            (name, f"{ones[0]['matches']:,}", str(k), *(f"{one['recall']:.3f} @ {one['ms']:.1f}" for one in ones))
        )
    return table(("filter", "matches", "k", *methods), rows)


def unseen_rows(found: Results) -> list[tuple[str, ...]]:
    """Return the rows on topics that came later."""
    return [(one["state"], f"{one['recall']:.3f}", f"{one['ms']:.1f}") for one in found["tables"]]


def quality_sections(found: Results) -> Iterator[tuple[str, str]]:
    """Give the tables of each set of texts: ours by kind of query, other libraries, the index and storing."""
    if "missing" in found:
        yield "Real texts", f"not measured; not installed: {', '.join(found['missing'])}"
        return
    for name, one in found.items():
        title = f"{name}: {one['documents']:,} documents, {one['queries']:,} queries"
        own = [search for search in one["searches"] if search["search"] in SEARCHES]
        rows = [
            (kind, *(f"{search['mrr'][kind]:.3f} ({search['recall'][kind]:.2f})" for search in own))
            for kind in own[0]["mrr"]
        ]
        rows.append(("mean", *(f"{mean(search):.3f}" for search in own)))
        rows.append(("ms, median; 95 %", *(f"{search['p50']:.1f}; {search['p95']:.1f}" for search in own)))
        yield title, table(("MRR (recall at 10)", *SEARCHES), rows)
        recalls = "; ".join(
            f"{index['method']} {index['true']:.3f} (recorded {index['recorded']:.3f}"
            + (")" if index["used"] else ", not used)")
            for index in one["recall"]
        )
        costs = "; ".join(f"{what} {ratio:.2f}" for what, ratio in one["storing"].items())
        yield f"{name}: recall of the index, and cost beside to_tsvector", f"{recalls}; {costs}"
        peers = [search for search in one["searches"] if search["search"] not in SEARCHES]
        if peers:
            rows = [
                (
                    search["search"],
                    *(f"{value:.3f}" for value in search["mrr"].values()),
                    f"{mean(search):.3f}",
                    f"{search['p50']:.1f}; {search['p95']:.1f}",
                )
                for search in [*own[1:], *peers]
            ]
            heads = ("MRR", *own[0]["mrr"], "mean", "ms, median; 95 %")
            yield f"{name}: beside other libraries", table(heads, rows)


def million_sections(found: Results) -> Iterator[tuple[str, str]]:
    """Give the tables of the large table: loading and sizes, each index, other searches."""
    rows, settings = found["rows"], ", ".join(f"{name} {value}" for name, value in found["settings"].items())
    sizes = "; ".join(f"{name} {size / 2**30:.2f} GB" for name, size in found["sizes"].items())
    load, vacuum = found["load_s"], found["vacuum_s"]
    text = (
        f"bulk_load {load:.0f} s, {rows / load:,.0f} rows/s; VACUUM ANALYZE {vacuum:.0f} s.\n\n{settings}.\n\n{sizes}."
    )
    yield f"{rows:,} documents on a disk", text
    for one in found["indexes"]:
        if "given_up_s" in one:
            yield (
                f"{rows:,} documents, {one['method']}",
                f"given up after {one['given_up_s']:.0f} s, while: {one['at']}",
            )
            continue
        parts = "; ".join(f"{what} {seconds:.0f} s" for what, seconds in one["parts"].items())
        tunings = ", ".join(f"{tuning} for k = {k}" for k, tuning in one["tunings"])
        cells = [
            (str(each["threads"]), f"{each['per_s']:.0f}", f"{each['p50']:.1f}", f"{each['p95']:.1f}")
            for each in one["threads"]
        ]
        yield (
            f"{rows:,} documents, {one['method']}, k = 10",
            f"Built and measured in {one['seconds']:.0f} s ({parts}); {one['size'] / 2**30:.2f} GB. Tuning: {tunings}. "
            f"Recall {one['recall']:.3f} over 200 queries, recorded {one['recorded']:.3f}.\n\n"
            + table(("threads", "searches/s", "ms, median", "ms, 95 %"), cells),
        )
    others = [(name, f"{one['p50']:.1f}", f"{one['p95']:.1f}") for name, one in found["searches"].items()]
    yield f"{rows:,} documents, other searches", table(("", "ms, median", "ms, 95 %"), others)


def mean(search: Results) -> float:
    """Return the mean over the kinds of query."""
    return float(statistics.mean(search["mrr"].values()))


def peers_table(found: Results) -> str:
    """Return the libraries down."""
    rows = [
        (
            one["name"],
            f"{one['add_per_s']:,.0f}",
            f"{one['add_ratio']:.2f}",
            f"{one['ours_ms']:.2f}",
            f"{one['ratio']:.2f}",
            f"{one['all_recall']:.3f}" + ("" if one["index"] else ", index unused"),
            f"{one['filtered_returned']} of {one['filtered_wanted']}",
            f"{one['filtered_recall']:.3f} @ {one['filtered_ms']:.1f}",
        )
        for one in found["tables"]
    ]
    rows += [(name, reason, *[""] * 6) for name, reason in found["left_out"].items()]
    heads = ("", f"stored/s ({found['stored']:,})", "of ours", "search ms", "over SQL", "recall")
    return table((*heads, "rows, 1 % filter", "recall @ ms, 1 % filter"), rows)


def checks(results: Results) -> Iterator[Check]:
    """Hold what was measured against what was asked for."""
    for name, found in results.items():
        if name.startswith("recall "):
            yield from recall_checks(found)
    yield from many_checks(results.get("many", {}))
    for one in results.get("unseen", {}).get("tables", ()):
        if one["state"].startswith("similar"):
            what = f"unseen topics, {one['state']}"
            yield Check(
                what, f"{one['recall']:.3f}", f">= {RECALL_LIMIT}, {one['wanted']} rows", fits(one, RECALL_LIMIT)
            )
    for one in results.get("cost", ()):
        yield Check(one["case"], f"{one['ratio']:.2f}x", f"<= {one['limit']}x", one["ratio"] <= one["limit"])
        if "limit_ms" in one:
            held = one["ours_ms"] <= one["limit_ms"]
            yield Check(one["case"], f"{one['ours_ms']:.0f} ms", f"<= {one['limit_ms']:.0f} ms", held)
    yield from quality_checks(results.get("quality", {}))
    for one in results.get("loading", ()):
        if one["limit"]:
            yield Check(one["case"], f"{one['ratio']:.2f}x", f">= {one['limit']}x", one["ratio"] >= one["limit"])
    yield from unasked_checks(results.get("unasked"))
    yield from million_checks(results.get("million", {}))


def many_checks(found: Results) -> Iterator[Check]:
    """Hold searches under filters that many documents meet against what was asked for."""
    for one in found.get("tables", ()):
        what = f"{one['matches']:,} matches, {one['state']}, k = {one['k']}, filter of {one['filter']}"
        yield Check(what, f"{one['recall']:.3f}", f">= {RECALL_LIMIT}, all rows", fits(one, RECALL_LIMIT))


def million_checks(found: Results) -> Iterator[Check]:
    """Hold the recall of the large table against what was asked for."""
    for one in found.get("indexes", ()):
        if "recall" in one:
            what = f"{found['rows']:,} rows, {one['method']}, recall at 10"
            yield Check(what, f"{one['recall']:.3f}", f">= {RECALL_LIMIT}", one["recall"] >= RECALL_LIMIT)


def unasked_checks(found: Results | None) -> Iterator[Check]:
    """Hold the embedded server with no action of the user against one with 1 GB of shared_buffers and an `ensure`."""
    if found is None:
        return
    names = {"exact": "exact, beside 1 GB of shared_buffers", "later": "once it has an index, beside `ensure` by hand"}
    for part, what in names.items():
        ours, ratio, limit = found[part]["ours_ms"], found[part]["ratio"], LIMITS[part]
        yield Check(f"embedded, {what}", f"{ours:.1f} ms, {ratio:.2f}x", f"<= {limit}x", ratio <= limit)
    seconds, measuring = found["seconds"], found["measuring"]
    yield Check("its index comes", f"{seconds:.0f} s after a load", "<= 60 s", seconds <= LIMITS["seconds"])
    yield Check("measuring beside building", f"{measuring:.2f}x", "<= 1.0x", measuring <= LIMITS["measuring"])
    recall = found["recall"]
    yield Check("recall of its index, 100 queries", f"{recall:.3f}", f">= {RECALL_LIMIT}", recall >= RECALL_LIMIT)


def recall_checks(found: Results) -> Iterator[Check]:
    """Hold the recall of every state and k against what was asked for: the worst filter stands for all."""
    for state, name in OURS.items():
        for k in sorted({one["k"] for one in found["tables"]}):
            these = [one for one in found["tables"] if one["state"] == state and one["k"] == k]
            for filtered, limit in ((False, RECALL_LIMIT), (True, FILTERED_LIMIT)):
                worst = min((one for one in these if (one["filter"] != "none") is filtered), key=lambda o: o["recall"])
                short = [one for one in these if one["returned"] != one["wanted"]]
                what = f"{found['rows']:,} rows, {name}, k = {k}, {'worst filter' if filtered else 'no filter'}"
                measured = f"{worst['recall']:.3f}" + (", too few rows" if short else "")
                yield Check(what, measured, f">= {limit}, all rows", worst["recall"] >= limit and not short)


def quality_checks(quality: Results) -> Iterator[Check]:
    """Hold text search against BM25 and `hybrid` against its searches: the worst kind of query stands for all."""
    for name, found in quality.items():
        if name == "missing":
            return
        by_name = {search["search"]: search for search in found["searches"]}
        mrr = {which: by_name[which]["mrr"] for which in SEARCHES}
        legs = {kind: max(mrr["similar"][kind], mrr["search_text"][kind]) for kind in mrr["hybrid"]}
        for ours, other, label, limit in (
            ("search_text", mrr["bm25s"], "bm25s", BEHIND_BM25),
            ("hybrid", legs, "its better search", BEHIND_BETTER_LEG),
        ):
            ahead, kind = min((value - other[kind], kind) for kind, value in mrr[ours].items())
            what = f"{name}, {ours} beside {label}, MRR of the worst kind ({kind})"
            yield Check(what, f"{ahead:+.3f}", f">= -{limit}", ahead >= -limit)
        both, best = mean(by_name["hybrid"]), max(mean(by_name["similar"]), mean(by_name["search_text"]))
        yield Check(f"{name}, hybrid, mean MRR", f"{both:.3f}", f"> {best:.3f}, its searches'", both > best)
        for index in found["recall"]:
            what = f"{name}, recall at 10 of real queries, {index['method']}"
            yield Check(what, f"{index['true']:.3f}", f">= {RECALL_LIMIT}", index["true"] >= RECALL_LIMIT)
        if name == "English":  # of other scripts to_tsvector keeps less
            cost = found["storing"]["upsert"]
            yield Check(
                f"{name}, upsert beside to_tsvector", f"{cost:.2f}x", f"<= {STORING_LIMIT}x", cost <= STORING_LIMIT
            )


def fits(one: Results, limit: float) -> bool:
    """Tell whether a search found enough, and returned as many rows as it should."""
    return bool(one["recall"] >= limit and one["returned"] == one["wanted"])


def plots(results: Results) -> Iterator[tuple[str, str]]:
    """Give the file name and the text of each plot; that of recall is of the largest table."""
    sizes = [name for name in results if name.startswith("recall ")]
    if not sizes:
        return
    found = results[max(sizes, key=lambda name: results[name]["rows"])]
    curves: dict[str, list[tuple[float, float]]] = {}
    for one in found["curves"]:
        curves.setdefault(f"SQL, {one['state']}", []).append((one["ms"], one["recall"]))
    series = [Series(name, COLOURS[name], points) for name, points in curves.items()]
    for one in found["tables"]:
        if one["state"] in OURS and one["k"] == 10 and one["filter"] == "none":
            name = plotted(one["state"])
            series.append(Series(name, COLOURS[name], [(one["ms"], one["recall"])], joined=False))
    title = f"Recall at 10 over median latency, {found['rows']:,} rows"
    yield "recall-latency.svg", scatter(title, "milliseconds", "recall", series, 0.0)

    filtered = [one for one in found["tables"] if one["k"] == 10 and one["filter"] != "none"]
    groups = list(dict.fromkeys(one["filter"] for one in filtered))
    heights: dict[str, list[tuple[float, float]]] = {}
    for one in filtered:
        heights.setdefault(plotted(one["state"]), []).append((groups.index(one["filter"]), one["recall"]))
    series = [Series(name, COLOURS[name], points) for name, points in heights.items()]
    title = f"Recall at 10 under filters, {found['rows']:,} rows"
    yield "filtered-recall.svg", bars(title, "recall", groups, series)


def plotted(state: str) -> str:
    """Return what a plot calls a state of the index."""
    return f"similar(), {'exact' if state == 'loaded' else state}" if state in OURS else state

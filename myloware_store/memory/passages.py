"""The passages of a document that match a query, as they stand in the document, for people to read."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.sql import queries_beside
from myloware_store.memory.text import UNSPACED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.core.results import Hit
    from myloware_store.memory.text import Typed

__all__ = ["highlighted", "matching_runs"]

_sql = queries_beside(__file__)

_CHARS = 10_000
"""How much of a content is read."""

_PASSAGES = 2
_PASSAGE = re.compile(r"\S(?:.{0,158}\S)?(?=\s|$)|\S{1,160}", re.DOTALL)
"""160 characters at most, cut at blanks if there are any."""

_RUN = re.compile(r"\S+")
_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)


def matching_runs(query: Typed) -> str:
    """Return the expression over `mem_docs AS m` for what `highlighted` needs: the runs between blanks that match."""
    return _sql("highlight").format(chars=_CHARS) if query.parameters["phrases"] else "'{}'::text[]"


def highlighted(hit: Hit, query: Typed) -> Hit:
    """Return a hit with its passages in place of its matching runs."""
    content = hit.content[:_CHARS]
    marks = list(_marks(content, set(hit.highlight or ()), query))
    return attrs.evolve(hit, highlight=" ... ".join(_passages(content, marks)))


def _marks(content: str, runs: set[str], query: Typed) -> Iterator[tuple[int, int]]:
    """Yield the places of what matches: whole runs without the punctuation around them, or unspaced characters."""
    pairs = "|".join(map(re.escape, _pairs(query.parameters["words"]))) or "(?!)"
    unspaced = re.compile(f"(?=({pairs}))")
    for run in _RUN.finditer(content):
        if run[0] not in runs:
            continue
        core = _CORE.search(run[0])
        if UNSPACED.search(run[0]) is None and core is not None:
            yield run.start() + core.start(), run.start() + core.end()
            continue
        marks: list[list[int]] = []
        for begin, end in (found.span(1) for found in unspaced.finditer(content, run.start(), run.end())):
            if marks and begin <= marks[-1][1]:
                marks[-1][1] = end
            else:
                marks.append([begin, end])
        yield from ((begin, end) for begin, end in marks)


def _passages(content: str, marks: list[tuple[int, int]]) -> list[str]:
    """Return the passages with the most different words marked, in their order; the beginning if none is."""
    passages = []
    for n, piece in enumerate(_PASSAGE.finditer(content)):
        inside = [(a, b) for a, b in marks if piece.start() <= a and b <= piece.end()]
        words = {content[a:b].lower() for a, b in inside}
        passages.append((-len(words), n, piece, inside))
    best = sorted(passages, key=lambda one: one[:2])[:_PASSAGES]
    kept = [one for one in best if one[0]] or best[:1]
    return [
        _marked(content, piece.start(), piece.end(), inside) for _, _, piece, inside in sorted(kept, key=itemgetter(1))
    ]


def _marked(content: str, at: int, end: int, marks: list[tuple[int, int]]) -> str:
    text = ""
    for a, b in marks:
        text += f"{content[at:a]}**{content[a:b]}**"
        at = b
    return text + content[at:end]


def _pairs(words: str) -> list[str]:
    """Return the pairs of neighbouring unspaced characters, and those that stand alone."""
    runs = re.findall(f"{UNSPACED.pattern}+", words)
    return [pair for run in runs for pair in ([run[n : n + 2] for n in range(len(run) - 1)] or [run])]

"""Searches by text: a query as people type it, taken apart for PostgreSQL's full text search."""

from __future__ import annotations

import re
from typing import Any

import attrs

from myloware_store.core.arguments import as_choice
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import require_text

__all__ = ["Typed", "highlight", "text_legs", "typed"]

_sql = queries_beside(__file__)

MAX_CHARS, MAX_WORDS = 2_000, 32
"""How much of a query counts: each word is looked up, and compared with every match to rank it."""

RANKED = 5_000
"""Most matches that are ranked, for all the words and for any of them: each costs some 20 us for 10 KB of text."""

LATEST, LATEST_CHARS = 1_000, 10_000
"""How many of the documents changed last, and how much of each, are read for queries that no index serves."""

# Dashes that stand alone or in a row are punctuation; one before a word excludes it, as in websearch_to_tsquery.
_DASHES = re.compile(r"(?<!\S)(?:--+|-(?!\S))")
_EXCLUDED = re.compile(r'(?<!\S)-(?:"[^"]*"?|[^\s"]+)')
# Thai, Lao, Burmese and Khmer, Japanese, Chinese and Korean: without blanks between words, or with particles glued on,
# so that PostgreSQL's parser takes a whole phrase for one word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
_MAX_PARTS = 16
_WORD = re.compile(r'"[^"]*"?|[^\s"-][^\s"]*')
# As content_search() takes a document apart.
_LONG = re.compile(r"\S{255}")


@attrs.frozen
class Typed:
    """A query, taken apart.

    Attributes:
        match: `web`, `any` or `phrase`.
        parameters: The parameters of the tsqueries and of `text_legs`.
        excludes: Whether words are excluded.
        parts: How many pieces of unspaced text to look for.
    """

    match: str
    parameters: dict[str, Any]
    excludes: bool
    parts: int

    @property
    def any(self) -> str:
        """The tsquery of any of the words, and of none that is excluded."""
        words = _sql("any_word")
        return f"({words} && websearch_to_tsquery('english', %(excluded)s))" if self.excludes else words

    @property
    def every(self) -> str:
        """The tsquery of all of the words, or of the phrase."""
        return {
            "web": "websearch_to_tsquery('english', %(typed)s)",
            "phrase": "phraseto_tsquery('english', %(typed)s)",
            "any": self.any,
        }[self.match]


def typed(q: Any, match: Any) -> Typed:
    """Take a query apart.

    Raises:
        InvalidInput: `q` is not text, or `match` is not one of the three.
    """
    as_choice(match, ("web", "any", "phrase"), "match")
    text = require_text(q, "q", max_bytes=None)[:MAX_CHARS].replace("<!--", " ")
    text = " ".join(_WORD.sub(_spaced, text).split()[:MAX_WORDS])
    text = _LONG.sub(r"\g<0> ", text)
    excluded: list[str] = []
    words = text
    if match != "phrase":
        text = _DASHES.sub(" ", text)
        excluded = _EXCLUDED.findall(text)
        words = _EXCLUDED.sub(" ", text)
    parts = [part for run in _UNSPACED.findall(words) for part in ([run] if match == "phrase" else _pairs(run))]
    parts = list(dict.fromkeys(parts))[:_MAX_PARTS]
    values = {"typed": text, "words": words, "excluded": " ".join(excluded), "parts": parts}
    return Typed(match, values, bool(excluded), len(parts))


def text_legs(query: Typed, condition: str) -> str:
    """Return common table expressions that end in `found` (id, score): the `%(depth)s` best matches.

    Args:
        query: The query, taken apart.
        condition: The condition that the documents must meet.
    """
    # Scores of all the words are above 1 if matches of another kind may follow.
    above = 0 if query.match == "any" and not query.parts else 1
    names = {
        "condition": condition,
        "any_word": _sql("any_word"),
        "any": query.any,
        "every": query.every,
        "above": above,
        "ranked": RANKED,
        "too_few": _sql("too_few"),
        "latest": LATEST,
        "latest_chars": LATEST_CHARS,
        "parts": query.parts,
        "least": query.parts if query.match == "phrase" else 1,
    }
    legs, found = ["every"], ["from_best"]
    if query.match == "web":
        legs.append("any_of")
        found.append("from_any_of")
    if query.excludes or query.parts:
        legs.append("latest")
    if query.excludes:
        found.append("from_latest_without")
    if query.parts:
        found.append("from_latest_with")
    union = "\nUNION ALL\n".join(_sql(name).format(**names) for name in found)
    return ",\n".join([*(_sql(name).format(**names) for name in legs), _sql("found").format(union=union)])


def highlight(query: Typed) -> str:
    """Return the passages of a document that match, as an expression over `mem_docs AS m`."""
    shown = query.every if query.match == "phrase" else query.any
    return _sql("highlight").format(chars=LATEST_CHARS, query=shown)


def _spaced(word: re.Match[str]) -> str:
    """Return a word, or what is between quotes, with blanks for each `_`, as content_search() reads it."""
    text = word[0].replace("_", " ")
    return text if text == word[0] or text[0] == '"' else f'"{text}"'


def _pairs(run: str) -> list[str]:
    """Return the pairs of neighbouring characters, which stand for words in scripts that do not separate them."""
    return [run] if len(run) == 1 else [run[i : i + 2] for i in range(len(run) - 1)]

"""Searches by text: a query as people type it, taken apart for PostgreSQL's full text search, and ranked by BM25."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from myloware_store.core.arguments import as_choice
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import require_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["K1", "MATCHES", "UNSPACED", "B", "Match", "Typed", "text_legs", "typed"]

_sql = queries_beside(__file__)

Match: TypeAlias = Literal["web", "any", "phrase", "prefix", "part"]
MATCHES = ("web", "any", "phrase", "prefix", "part")

MAX_CHARS, MAX_WORDS, MAX_UNSPACED = 2_000, 32, 64
"""How much of a query counts: each word, and each pair of unspaced characters, is weighed in every candidate."""

K1, B = 1.2, 0.4
"""The parameters of BM25. 1.2 is usual; of lengths, .4 ranks short documents better than the usual .75: on 30,000
descriptions of packages the mean reciprocal rank of questions was .60 against .57, of titles .68 against .67."""

SAMPLED = 500
"""Documents that are read to estimate how many hold a word."""

FEW = 700
"""Documents with rare words that are ranked. With 5,000 it takes three times as long, and finds the same."""

MOST, MORE = 5_000, 2_000
"""Most documents that are ranked, in the order of storage: if even the rarest word is in more, only those with all the
words are; and most with the next words, if those with the rarest are fewer than was asked for."""

PARTS = 1_000
"""How many words count as those that have a part of the query inside, the shortest."""

LATEST = 1_000
"""How many of the documents changed last are read for a query of excluded words only, which no index serves."""

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
"""A character of a script without blanks between words: as `unspaced_scripts()` of the database."""

_ALL_WORDS = dict.fromkeys(("web", "prefix"), "(c.search @@ (SELECT every FROM whole))::int") | {"phrase": "1"}
_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»", '"'))
_SHORT = 2  # letters of what a minus does not exclude, as in `rm -rf` and `-5`
_PHRASE = re.compile(r'(?P<minus>(?<!\S)-)?(?:(?<!\w)"(?P<quoted>[^"]*)"(?!\w)|(?P<word>[^\s"]+))')


@attrs.frozen
class _Phrase:
    """A word or a quoted phrase of a query.

    Attributes:
        option: The number of the option that it belongs to: `or` begins another one.
    """

    text: str
    option: int
    excluded: bool = False


@attrs.frozen
class Typed:
    """A query, taken apart.

    Attributes:
        match: How documents must match.
        parameters: The parameters of `every` and of `text_legs`.
    """

    match: str
    parameters: dict[str, Any]

    @property
    def every(self) -> str:
        """The tsquery that a document with all the words, or with the phrase, meets."""
        return _sql("every")

    @property
    def not_excluded(self) -> str:
        """The condition that a document `near` has no excluded words."""
        return _sql("not_excluded").format(kept=_sql("kept")) if self.parameters["excluded"] else "TRUE"


def typed(q: Any, match: Any, matches: tuple[str, ...] = MATCHES) -> Typed:
    """Take a query apart.

    Args:
        q: The query.
        match: How documents must match.
        matches: The ways that there are.

    Raises:
        InvalidInput: `q` is not text, or `match` is not one of the ways.
    """
    as_choice(match, matches, "match")
    text = " ".join(require_text(q, "q", max_bytes=None)[:MAX_CHARS].translate(_QUOTES).split()[:MAX_WORDS])
    unspaced = [found.end() for found in UNSPACED.finditer(text)]
    if len(unspaced) > MAX_UNSPACED:
        text = text[: unspaced[MAX_UNSPACED - 1]]
    given = [_Phrase(text, 0)] if match == "phrase" else [*_phrases(text, any_of_them=match == "any")]
    kept = [phrase for phrase in given if not phrase.excluded]
    values = {
        "phrases": [phrase.text for phrase in kept],
        "options": [phrase.option for phrase in kept],
        "excluded": [phrase.text for phrase in given if phrase.excluded],
        "words": " ".join(phrase.text for phrase in kept),
        "beginnings": match == "prefix",
    }
    return Typed(match, values)


def text_legs(query: Typed, condition: str, *, of_tenant: bool, enforced: bool) -> str:
    """Return common table expressions that end in `found` (id, score): the `%(depth)s` best matches.

    Their parameters are those of the query and the condition, `depth`, `k1` and `b`.

    Args:
        query: The query, taken apart.
        condition: The condition that the documents must meet.
        of_tenant: Whether the condition is for the documents of `%(tenant)s` alone; words are then as frequent as in
            these.
        enforced: Whether the database keeps this role to the tenant in force.
    """
    held = _sql("held_in_tenant" if enforced else "held")
    excludes = bool(query.parameters["excluded"])
    names = {
        "condition": condition,
        "kept": _sql("kept"),
        "every": "NULL::tsquery" if query.match in ("any", "part") else query.every,
        "excluding": query.every,
        "found": "ranked" if excludes else "found",
        "sampled": SAMPLED,
        "few": FEW,
        "most": MOST,
        "more": MORE,
        "latest": LATEST,
        "parts": PARTS,
        "term_held": held.format(query="term"),
        "spelling_held": held.format(query="quote_literal(spelling)::tsquery"),
        "rare_held": held.format(query="(SELECT rare FROM queries)"),
        "more_held": held.format(query="(SELECT more FROM queries)"),
        "all_words": _ALL_WORDS.get(query.match, "0"),
    }
    legs = [
        "sample_of_tenant" if of_tenant else "sample",
        f"{query.match}_terms" if query.match in ("prefix", "part") else "terms",
        "words",
        "whole_phrase" if query.match == "phrase" else "whole",
        "candidates",
        "ranked",
        *(["latest"] if excludes else []),
    ]
    return ",\n".join(_sql(name).format(**names) for name in legs)


def _phrases(text: str, *, any_of_them: bool) -> Iterator[_Phrase]:
    """Yield the words and phrases of a query."""
    option = 0
    for found in _PHRASE.finditer(text):
        phrase = found["word"] if found["quoted"] is None else found["quoted"]
        if found["word"] and found["word"].lower() == "or" and not found["minus"]:
            option += 1
        else:
            option_of_a_command = found["quoted"] is None and phrase.isascii() and len(phrase) <= _SHORT
            excluded = bool(found["minus"]) and not phrase.startswith("-") and not option_of_a_command
            yield _Phrase(phrase, option, excluded=excluded)
            option += any_of_them

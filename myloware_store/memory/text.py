"""Memory documents found by their text, in the words that people type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.core.arguments import as_choice, as_count, as_flag
from myloware_store.core.values import require_text
from myloware_store.db.tenancy import current_tenant
from myloware_store.memory.filters import compile_filter, scope
from myloware_store.memory.hits import MAX_HITS, SETTINGS, find, hits_sql
from myloware_store.orm.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from myloware_store.core.results import Hit

__all__ = ["TextSearch", "Typed", "text_legs", "typed"]

MAX_CHARS, MAX_WORDS = 2_000, 32
"""How much of a query counts: each word is looked up, and compared with every match to rank it."""

RANKED = 5_000
"""Most matches that are ranked, for all the words and for any of them: each costs some 20 us for 10 KB of text."""

LATEST, LATEST_CHARS = 1_000, 10_000
"""How many of the documents last changed, and how much of each, are read for what no index serves."""

# Dashes that stand alone or in a row are punctuation; one before a word excludes it, as websearch_to_tsquery has it.
_DASHES = re.compile(r"(?<!\S)(?:--+|-(?!\S))")
_EXCLUDED = re.compile(r'(?<!\S)-(?:"[^"]*"?|[^\s"]+)')
# Thai, Lao, Burmese and Khmer, Japanese, Chinese and Korean: without blanks between words, or with particles glued on,
# so that PostgreSQL's parser takes a whole phrase for one word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
_MAX_PARTS = 16
# As content_search() takes a document apart.
_LONG = re.compile(r"\S{255}")

RANKING = "replace(plainto_tsquery('english', %(words)s)::text, ' & ', ' | ')::tsquery"
"""Any of the words, by which all matches are ranked: ts_rank of an AND is quadratic in their positions, and of an AND
with what is excluded it is next to 0 for all of them."""

HIGHLIGHT = r"""
ts_headline('english',
    regexp_replace(replace(left(m.content, {chars}), '<!--', ' '), '[^[:space:]]{{255}}', E'\\& ', 'g'), {any},
    'StartSel=**, StopSel=**, MaxFragments=2, MaxWords=24, MinWords=8, FragmentDelimiter= ... ')
"""


@attrs.frozen
class Typed:
    """What somebody typed, taken apart for the legs of a search.

    Attributes:
        match: `web`, `any` or `phrase`.
        parameters: Of the tsqueries and of the legs.
        excludes: Whether words are excluded.
        parts: How many pieces of unspaced text are looked for.
    """

    match: str
    parameters: dict[str, Any]
    excludes: bool
    parts: int

    @property
    def any(self) -> str:
        """The tsquery of any of the words, and of none that is excluded."""
        return f"({RANKING} && websearch_to_tsquery('english', %(excluded)s))" if self.excludes else RANKING

    @property
    def every(self) -> str:
        """The tsquery of all of the words, or of the phrase."""
        return {
            "web": "websearch_to_tsquery('english', %(typed)s)",
            "phrase": "phraseto_tsquery('english', %(typed)s)",
            "any": self.any,
        }[self.match]


def typed(q: Any, match: Any) -> Typed:
    """Take apart what somebody typed.

    Raises:
        InvalidInput: It is not text, or there is no such way to match.
    """
    as_choice(match, ("web", "any", "phrase"), "match")
    text = " ".join(require_text(q, "q", max_bytes=None)[:MAX_CHARS].replace("<!--", " ").split()[:MAX_WORDS])
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
    """Return the common table expressions that end in `found` (id, score): the `%(depth)s` best matches.

    Index: mem_docs_search_idx for the words, mem_docs_updated_at_idx for the rest. `every` and `any_of` are read only
    as far as their LIMITs ask, but planned as if they were read whole: with a LIMIT of its own the planner would hope
    to come across enough matches in a sequential scan. A leg runs only where those before it came short.
    """
    # What comes only where this leg is short comes after it.
    above = 0 if query.match == "any" and not query.parts else 1
    legs = [
        f"""
every AS MATERIALIZED (
    SELECT m.id, ts_rank(m.search, {RANKING}, 33) AS rank
    FROM mem_docs AS m
    WHERE querytree({query.every}) NOT IN ('', 'T') AND m.search @@ {query.every} AND {condition}
),
best AS MATERIALIZED (
    SELECT id, {above} + rank::float8 AS score
    FROM (SELECT id, rank FROM every LIMIT greatest({RANKED}, %(depth)s)) AS ranked
    ORDER BY rank DESC, id
    LIMIT %(depth)s
)"""
    ]
    found = ["SELECT id, score FROM best"]
    short = "(SELECT count(*) FROM best) < %(depth)s"
    if query.match == "web":
        legs.append(f"""
any_of AS MATERIALIZED (
    SELECT m.id, ts_rank(m.search, {RANKING}, 33) AS rank
    FROM mem_docs AS m
    WHERE {short} AND querytree({query.any}) NOT IN ('', 'T') AND m.search @@ {query.any} AND {condition}
        AND m.id NOT IN (SELECT id FROM best)
)""")
        found.append(f"""(
        SELECT id, rank::float8 FROM (SELECT id, rank FROM any_of LIMIT greatest({RANKED}, %(depth)s)) AS ranked
        ORDER BY rank DESC, id
        LIMIT %(depth)s
    )""")
    if query.excludes or query.parts:
        legs.append(f"""
latest AS MATERIALIZED (
    SELECT m.id, m.updated_at, m.content, m.search
    FROM mem_docs AS m
    WHERE {short} AND {condition}
    ORDER BY m.updated_at DESC
    LIMIT {LATEST}
)""")
    if query.excludes:
        # Nothing but words to exclude: what was changed last comes first.
        found.append(f"""(
        SELECT id, 1 / (1 + row_number() OVER (ORDER BY updated_at DESC, id))::float8 FROM latest
        WHERE querytree({query.every}) = 'T' AND search @@ {query.every}
        ORDER BY 2 DESC
        LIMIT %(depth)s
    )""")
    if query.parts:
        least = query.parts if query.match == "phrase" else 1
        found.append(f"""(
        SELECT id, n / {query.parts}::float8
        FROM latest,
            -- Decompressed once, not for each part.
            LATERAL (SELECT left(content, {LATEST_CHARS}) AS beginning OFFSET 0) AS text,
            LATERAL (
                SELECT count(*) AS n FROM unnest(%(parts)s::text[]) AS part WHERE strpos(beginning, part) > 0
            ) AS held
        WHERE n >= {least}
        ORDER BY n DESC, id
        LIMIT %(depth)s
    )""")
    union = "\n    UNION ALL\n    ".join(found)
    legs.append(f"""
found AS MATERIALIZED (
    SELECT id, max(score) AS score FROM (
    {union}
    ) AS matches
    GROUP BY id
    ORDER BY max(score) DESC, id
    LIMIT %(depth)s
)""")
    return ",".join(legs)


class TextSearch(Repository):
    """Searches among the memory documents of the tenant in force by their text."""

    def search_text(
        self,
        q: str,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
        match: str = "web",
        highlight: bool = False,
    ) -> list[Hit]:
        """Return the documents that match what somebody typed, best first.

        Words are compared in their English stems, without stop words. Nothing that a person can type is refused: what
        holds no word finds nothing.

        Args:
            q: The words; of a long text the first 32 words and 2,000 characters count.
            k: Most documents to return (1 to 10,000).
            filter: Which documents count, in the language of filters.
            match: `web` understands `"a phrase"`, `or` and `-excluded`, and finds what holds all the words; where these
                are fewer than k, those with any of the words follow. `any` finds what holds any of the words, `phrase`
                what holds them in a row.
            highlight: Whether each hit brings the passages that match, from its first 10,000 characters, with the words
                between `**`; a parse of each hit's text.

        Returns:
            Hits with a `score`, from 0 to 1 by `ts_rank`, with 1 added to those that hold all the words (with `any`:
            those that the index finds, where others are looked for as well). Ties come in the order of their ids.

            The time is bounded: at most 5,000 matches (k, where it is more) are ranked, an arbitrary choice. What no
            index serves is looked for among the 1,000 documents that were changed last: a query of excluded words only
            (they come in the order of that change), and text in scripts without blanks between words (Chinese,
            Japanese, Thai, also Korean), which is compared by pairs of characters, and scored by how many of
            them (16 at most) the first 10,000 characters of a document hold.

        Raises:
            InvalidInput: An argument is out of its bounds, or `q` holds what PostgreSQL cannot take (NUL).
        """
        query = typed(q, match)
        count = as_count(k, "k", most=MAX_HITS)
        condition = scope(compile_filter(filter), current_tenant())
        statement = hits_sql(
            text_legs(query, condition.sql),
            "found",
            order="r.score DESC, r.id",
            score="r.score",
            highlight=HIGHLIGHT.format(chars=LATEST_CHARS, any=query.every if match == "phrase" else query.any)
            if as_flag(highlight, "highlight")
            else "NULL",
        )
        values = {**query.parameters, **condition.parameters, "depth": count}
        return find(self._db, statement, values, SETTINGS)


def _pairs(run: str) -> list[str]:
    """Return the pairs of neighbouring characters, which stand for words where none are marked off."""
    return [run] if len(run) == 1 else [run[i : i + 2] for i in range(len(run) - 1)]

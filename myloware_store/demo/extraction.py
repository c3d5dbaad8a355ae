"""Reads off a document what plain rules can: its title, amounts of money, dates and key words.

It stands in for the model that a real agent would ask, so that a demonstration needs none and everybody can check what
it says.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.embedding import COMMON_WORDS, fold
from myloware_store.enums import WorkItemType

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Amount", "Extract", "completeness", "extract"]

_MOST_AMOUNTS, _MOST_DATES, _MOST_WORDS = 30, 30, 8
_LONGEST_TITLE = 120
_MOST_TEXT = 200_000


@attrs.frozen
class Amount:
    """An amount of money; the currency is empty where the text names none beside it."""

    value: float
    currency: str = ""


@attrs.frozen
class Extract:
    """What was read off a document: amounts as they come, dates in ISO form and their order, key words by frequency."""

    title: str
    amounts: tuple[Amount, ...]
    dates: tuple[str, ...]
    key_words: tuple[str, ...]

    def as_result(self) -> dict[str, Any]:
        """Return it as the JSON object that becomes an item's result."""
        return attrs.asdict(self)


def extract(text: str) -> Extract:
    """Read title, amounts, dates and key words off a text; of a very long one, off its first 200,000 characters."""
    head = text[:_MOST_TEXT]
    return Extract(
        title=_title(head),
        amounts=tuple(dict.fromkeys(_amounts(head)))[:_MOST_AMOUNTS],
        dates=tuple(sorted(set(_dates(head))))[:_MOST_DATES],
        key_words=tuple(word for word, _ in Counter(_words(head)).most_common(_MOST_WORDS)),
    )


def completeness(kind: WorkItemType, found: Extract) -> tuple[float, dict[str, int]]:
    """Score from 0 to 1 how much of what a type of document should say was found, with the number found of each.

    Amounts are asked of invoices only.
    """
    counts = {"title": len(found.title[:1]), "dates": len(found.dates), "key_words": len(found.key_words)}
    if kind == WorkItemType.INVOICE:
        counts["amounts"] = len(found.amounts)
    return sum(map(bool, counts.values())) / len(counts), counts


_SPACES = " \u00a0\u202f"
_CURRENCY = "EUR|USD|GBP|CHF|JPY|[\u20ac$\u00a3\u00a5]"
_NUMBER = rf"-?(?:\d{{1,3}}(?:[{_SPACES}.,'\u2019]\d{{3}}){{1,4}}|\d{{1,15}})(?:[.,]\d{{2}})?"
_AMOUNT = re.compile(
    rf"(?<![\w.,:/-])(?:(?P<before>{_CURRENCY})[{_SPACES}]?)?(?P<number>{_NUMBER})(?![.,:/-]?\d)(?![{_SPACES}]?%)"
    rf"(?:[{_SPACES}]?(?P<after>{_CURRENCY}))?(?!\w)"
)
_CENTS = re.compile(r"(.*)[.,](\d\d)")

_MONTHS = (
    "january januar janvier enero",
    "february februar fevrier febrero",
    "march marz mars marzo",
    "april avril abril",
    "may mai mayo",
    "june juni juin junio",
    "july juli juillet julio",
    "august aout agosto",
    "september septembre septiembre",
    "october oktober octobre octubre",
    "november novembre noviembre",
    "december dezember decembre diciembre",
)
_MONTH_NUMBERS = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}
_MONTH = "|".join(sorted(_MONTH_NUMBERS, key=len, reverse=True))
_DATE = re.compile(
    r"(?<!\d)(?:(?P<y1>\d{4})-(?P<m1>\d{2})-(?P<d1>\d{2})"
    r"|(?P<d2>\d{1,2})\.(?P<m2>\d{1,2})\.(?P<y2>\d{4})"
    r"|(?P<y3>\d{4})\u5e74(?P<m3>\d{1,2})\u6708(?P<d3>\d{1,2})\u65e5"
    rf"|(?P<d4>\d{{1,2}})\.? (?:de )?(?P<m4>{_MONTH}) (?:de )?(?P<y4>\d{{4}})"
    r")(?!\d)"
    rf"|\b(?P<m5>{_MONTH}) (?P<d5>\d{{1,2}}), (?P<y5>\d{{4}})(?!\d)"
)
"""2025-03-03, 3.3.2025, the Japanese form, 3 March 2025, March 3, 2025; not the ambiguous 3/4/2025."""

_WORD = re.compile(
    "[A-Za-z\u00c0-\u024f\u0370-\u1fff]{4,}"
    "|[\u30a1-\u30fa\u30fc]{3,}|[\u4e00-\u9fff]{2,8}|[\uac00-\ud7af]{2,}"  # katakana, Chinese characters, Korean
)


def _title(text: str) -> str:
    """Give the first line that has a letter, without Markdown's marks."""
    for line in text.splitlines():
        if any(map(str.isalpha, line)):
            return " ".join(line.strip(" \t#*_|>=-").split())[:_LONGEST_TITLE]
    return ""


def _amounts(text: str) -> Iterator[Amount]:
    """Give the numbers that have a currency beside them or two decimals."""
    for match in _AMOUNT.finditer(text):
        currency = match["before"] or match["after"] or ""
        cents = _CENTS.fullmatch(match["number"])
        if currency or cents:
            whole, hundredths = (cents[1], cents[2]) if cents else (match["number"], "00")
            yield Amount(float(re.sub(r"[^-\d]", "", whole) + "." + hundredths), currency)


def _dates(text: str) -> Iterator[str]:
    """Give the dates that are told in full, without regard to the language's month names."""
    for match in _DATE.finditer(fold(text)):
        (year, month, day) = (
            next(value for form in "12345" if (value := match[f"{part}{form}"])) for part in ("y", "m", "d")
        )
        try:
            yield date(int(year), _MONTH_NUMBERS.get(month) or int(month), int(day)).isoformat()
        except ValueError:
            continue


def _words(text: str) -> Iterator[str]:
    """Give the words that carry meaning, in lower case."""
    for word in _WORD.findall(text.casefold()):
        if fold(word) not in COMMON_WORDS:
            yield word

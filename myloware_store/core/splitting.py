"""Long texts cut into chunks that an embedding model can take, at the ends of paragraphs and sentences."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import TypeAlias

from myloware_store.core.arguments import as_count
from myloware_store.core.values import require_text

__all__ = ["Chunker", "split_text"]

Chunker: TypeAlias = Callable[[str], Iterable[str]]
"""A callable that cuts a text into chunks."""

_CLOSING = r"[\"')\]}»”\u2019\u203a」』\uff09】]*+"  # quotation marks and brackets after a full stop
_ENDS = (
    re.compile(r"(?<=\S)(?=[^\S\n]*\n[^\S\n]*\n)"),
    re.compile(rf"(?<![.!?…‽؟\u06d4।॥])[.!?…‽؟\u06d4।॥]++{_CLOSING}(?=\s)|[。\uff01\uff1f｡]+{_CLOSING}"),
    re.compile(r"(?<=\S)(?=\s)"),
)
"""The ends of paragraphs, of sentences (Chinese and Japanese have no blank after them) and of words."""
_BLANKS = re.compile(r"\s*")


def split_text(text: str, *, size: int = 1_000, overlap: int = 100) -> list[str]:
    """Cut a text into chunks that end with a paragraph, else with a sentence, else with a word.

    A chunk ends at the last end of a paragraph in its second half; if there is none, at the last end of a sentence
    there, then of a word. Only a word that is longer than a chunk is cut. Each chunk begins with whole sentences (or
    else words) of the one before, up to `overlap`, so that a thought at a border is whole in one of them.

    Args:
        text: The text.
        size: Most characters of a chunk, at least 10.
        overlap: Most characters that a chunk repeats, 0 to half of `size`.

    Returns:
        The chunks in their order, passages of the text without blanks around them; none of a blank text.

    Raises:
        InvalidInput: `text` is not a text that can be stored, or another argument is out of its bounds.
    """
    require_text(text, "text", max_bytes=None)
    as_count(size, "size", least=10)
    as_count(overlap, "overlap", least=0, most=size // 2)
    text = text.strip()
    ends = [[found.end() for found in pattern.finditer(text)] for pattern in _ENDS]
    chunks = []
    start = end = 0
    while len(text) - start > size:
        border = _last(ends, start + size // 2, start + size) or _last(ends, max(start, end), start + size)
        if border is None and start < end:
            start = _skip(text, end)  # the next word does not fit beside what it would repeat
            continue
        end = border or start + size
        chunks.append(text[start:end])
        repeated = (_first(each, max(end - overlap, start + 1), end) for each in ends[1:])
        start = _skip(text, next((at for at in repeated if at), end))
    return [*chunks, text[start:]] if text else []


def _skip(text: str, at: int) -> int:
    """Return the place of the first character from a place on that is not blank."""
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks else at


def _last(ends: list[list[int]], after: int, most: int) -> int | None:
    """Return the last end in a range, of the most important kind that has one there."""
    for each in ends:
        at = bisect_right(each, most) - 1
        if at >= 0 and each[at] > after:
            return each[at]
    return None


def _first(ends: list[int], least: int, before: int) -> int | None:
    """Return the first end in a range."""
    at = bisect_right(ends, least - 1)
    return ends[at] if at < len(ends) and ends[at] < before else None

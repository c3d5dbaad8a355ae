"""Texts cut into chunks: nothing is lost, no word is broken, and borders are where a reader would put them."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myloware_store import InvalidInput, split_text

LONG = "".join(map(chr, range(0x1401, 0x1401 + 28)))
WORDS = st.lists(st.sampled_from(["a", "word", "another", "Satz.", "end!", "句子。", LONG, "\n\n", "\n", "“so.”"]))


@given(WORDS, st.integers(10, 60), st.floats(0, 0.5))
def test_every_word_is_in_a_chunk_and_no_chunk_is_too_long(words: list[str], size: int, share: float) -> None:
    """Each is a passage of the text that begins and ends with words, and goes further than the one before."""
    text = " ".join(f"{n}{word}" for n, word in enumerate(words))
    chunks = split_text(text, size=size, overlap=int(size * share))
    at, reached = -1, 0
    for chunk in chunks:
        assert 0 < len(chunk) <= size
        assert chunk == chunk.strip()
        at = text.index(chunk, at + 1)
        assert not text[reached:at].strip()
        assert at + len(chunk) > reached
        reached = at + len(chunk)
    assert not text[reached:].strip()
    if size >= 30:
        assert {*text.split()} == {word for chunk in chunks for word in chunk.split()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two. Three four! Five six? Seven.", ["One two. Three four!", "Five six? Seven."]),
        ("A first one.\n\nA second one. And more.", ["A first one.", "A second one.", "And more."]),
        (
            "请求书已经寄出。付款期限是三十天。逾期费用为百分之五。",
            ["请求书已经寄出。付款期限是三十天。", "逾期费用为百分之五。"],
        ),
        ("without any end of a sentence at all", ["without any end of a", "sentence at all"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
        ("„Ja.“ Nein. “Sure.” Perhaps so. Or not.", ["„Ja.“ Nein. “Sure.”", "Perhaps so. Or not."]),
        ("short", ["short"]),
        (" \n ", []),
    ],
)
def test_borders(text: str, expected: list[str]) -> None:
    """Paragraphs before sentences before words, in any script."""
    assert expected == split_text(text, size=20, overlap=0)


def test_a_chunk_repeats_whole_sentences_of_the_one_before() -> None:
    """As many as fit, or words if none does."""
    text = " ".join(f"Sentence {n} is here." for n in range(100, 130))
    chunks = split_text(text, size=100, overlap=50)
    for one, other in pairwise(chunks):
        repeated = re.match(r"(Sentence \d+ is here\. ?){2}", other)
        assert repeated is not None
        assert one.endswith(repeated[0].strip())
    words = split_text("word " * 50, size=50, overlap=12)
    assert {50, 49} >= {len(chunk) for chunk in words[:-1]}
    assert sum(map(len, words)) > 250


def test_a_word_that_does_not_fit_ends_the_overlap() -> None:
    """It is cut only if it is longer than a chunk."""
    assert ["one two.", "y" * 20, "three"] == split_text(f"one two. {'y' * 20} three", size=20, overlap=10)


@pytest.mark.parametrize(("size", "overlap"), [(9, 0), (100, 51), (100, -1), (True, 0)])
def test_bounds(size: int, overlap: int) -> None:
    """One typed error."""
    with pytest.raises(InvalidInput):
        split_text("text", size=size, overlap=overlap)
    with pytest.raises(InvalidInput):
        split_text(7)  # type: ignore[arg-type]

"""The bundled embedder: lexical vectors that are the same everywhere."""

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from myloware_store.core.embedding import Embedder, HashingEmbedder, _project
from myloware_store.core.errors import InvalidInput
from myloware_store.core.vectors import DIMENSIONS

embed: Embedder = HashingEmbedder()

SAMPLES = (
    "A late fee of 1.5% applies to invoices that are overdue by more than 30 days.",
    "Für verspätete Zahlungen berechnen wir eine Mahngebühr von 12,50 €.",
    "請求書の支払期限は3月31日です。",
    "?!",
)

texts = st.text(min_size=1).filter(lambda text: bool(text.strip()) and "\x00" not in text)


def similarity(first: str, second: str) -> float:
    """Return the cosine similarity of two texts."""
    one, other = embed([first, second])
    return float(one @ other)


def test_shape_and_type() -> None:
    """Texts become an (n, 1536) float32 array."""
    vectors = embed(SAMPLES)

    assert (len(SAMPLES), DIMENSIONS) == vectors.shape
    assert np.float32 == vectors.dtype


def test_no_texts() -> None:
    """No texts become an array of no rows."""
    shape = embed([]).shape

    assert (0, DIMENSIONS) == shape


@given(texts)
def test_unit_length(text: str) -> None:
    """Every text that is not blank, whatever its characters, becomes a finite vector of length 1."""
    assert float(np.linalg.norm(embed([text])[0])) == pytest.approx(1, abs=1e-5)


@given(st.lists(texts, min_size=1, max_size=4))
def test_neighbours_do_not_matter(several: list[str]) -> None:
    """A text has the same vector, bit for bit, alone and among others."""
    alone = np.concatenate([embed([text]) for text in several])

    assert alone.tobytes() == embed(several).tobytes()


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_processes_agree(seed: str) -> None:
    """Another process with another hash seed gives the same vectors, bit for bit."""
    program = (
        "import hashlib, sys; from myloware_store.core.embedding import HashingEmbedder;"
        "print(hashlib.sha256(HashingEmbedder()(sys.argv[1:]).tobytes()).hexdigest())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, *SAMPLES],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert hashlib.sha256(embed(SAMPLES).tobytes()).hexdigest() == printed


def test_vectors_are_kept() -> None:
    """The places and signs of a text's features never change: stored vectors stay comparable with new ones."""
    kept = {64: 0.3021, 109: -0.6041, 528: -0.2114, 843: 0.2114, 962: -0.2114, 1255: -0.6041, 1489: 0.2114}

    vector = embed(["late fee"])[0]

    assert kept == {int(place): round(float(vector[place]), 4) for place in np.flatnonzero(vector)}


@pytest.mark.parametrize(
    ("query", "near", "far"),
    [
        ("What is the late fee?", "A late fee of 1.5% applies to overdue invoices.", "The label printer is offline."),
        ("broken printers", "The printer broke on Monday.", "The migration is on schedule."),
        ("Mahngebühren", "Wir berechnen eine Mahngebühr von 12,50 €.", "Das Projekt liegt im Zeitplan."),
        ("Mahngebuhr", "Wir berechnen eine Mahngebühr.", "Das Projekt liegt im Zeitplan."),
        ("délai de paiement", "Le delai de paiement est de 30 jours.", "La réunion est reportée à mardi."),
        ("支払期限", "お支払期限は3月31日です。", "今週の進捗を報告します。"),
        ("납기", "계약서의 납기를 확인했습니다.", "오늘은 회의가 있습니다."),
        ("भुगतान की तारीख", "भुगतान की अंतिम तारीख सोमवार है।", "यह एक रिपोर्ट है।"),
    ],
)
def test_related_texts_are_nearer(query: str, near: str, far: str) -> None:
    """A text that shares words with the query, inflected or accented otherwise, is nearer than one that shares none."""
    assert similarity(query, near) > similarity(query, far) + 0.1


def test_case_accents_and_forms_do_not_matter() -> None:
    """Texts that differ only in case, accents or compatibility forms are the same to it."""
    assert similarity("Café FINAL №1", "cafe\u0301 ﬁnal no1") == pytest.approx(1, abs=1e-6)


def test_word_order_matters() -> None:
    """Pairs of words tell texts of the same words apart."""
    assert similarity("supplier invoices customer", "customer invoices supplier") < 0.99


def test_unrelated_texts_do_not_meet() -> None:
    """Texts that share only the words every sentence has are hardly similar."""
    assert abs(similarity("the state of the order is on the list", "the cat is on the mat of our house")) < 0.3


def test_punctuation_is_text() -> None:
    """Texts without a letter or digit have vectors too, and different ones."""
    assert similarity("...", "!?") < 0.9


def test_features_that_cancel_out() -> None:
    """Features that fall on one place with opposite signs leave the first of them, never a zero vector."""
    opposite = np.array([2, 3], np.uint64)

    assert [1] == np.flatnonzero(_project(opposite, np.ones(2))).tolist()


@pytest.mark.parametrize("text", ["", "  \n\t", "\u00a0\u2003\u3000"])
def test_blank_text_is_refused(text: str) -> None:
    """Blank text is refused by a typed error that says which text it was."""
    with pytest.raises(InvalidInput, match=r"texts\[1\]"):
        embed(["fine", text])


@pytest.mark.parametrize("text", [None, 7, b"bytes", "NUL \x00", "lone surrogate \ud800"])
def test_what_cannot_be_stored_is_refused(text: str) -> None:
    """What is not storable text is refused by a typed error."""
    with pytest.raises(InvalidInput, match=r"texts\[0\]"):
        embed([text])


@pytest.mark.parametrize("given_texts", [None, 5, b"bytes", {"text": 1}, np.array("text"), object()])
def test_what_is_no_list_of_texts_is_refused(given_texts: Any) -> None:
    """By a typed error, whatever it is."""
    with pytest.raises(InvalidInput, match="texts"):
        embed(given_texts)


def test_texts_may_come_one_by_one() -> None:
    """A generator, a tuple or an array of texts is as good as a list."""
    expected = embed(["a", "b"]).tolist()
    several: tuple[Any, ...] = ((text for text in "ab"), ("a", "b"), np.array(["a", "b"]))

    assert [expected] * 3 == [embed(some).tolist() for some in several]


def test_one_string_is_refused() -> None:
    """One string in place of a sequence is refused, not embedded letter by letter."""
    with pytest.raises(InvalidInput, match=r"\[text\]"):
        embed("late fee")

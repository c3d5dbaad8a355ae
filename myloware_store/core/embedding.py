"""Turns texts into vectors: the protocol that every embedder follows, and a lexical one that needs no model.

`HashingEmbedder` compares *words*, not meanings: it finds "late fee" where the text says "late fees", and misses it
where the text says "surcharge for overdue payment". It is made for demonstrations and tests, which want vectors that
are free, fast and the same everywhere; a service plugs in a learned model under the same protocol.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from myloware_store.core.errors import InvalidInput, InvalidVector, StoreError
from myloware_store.core.values import require_text
from myloware_store.core.vectors import DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMON_WORDS", "Embedder", "HashingEmbedder", "embed", "fold"]

_Hashes: TypeAlias = NDArray[np.uint64]
_Weights: TypeAlias = NDArray[np.float64]


class Embedder(Protocol):
    """Anything callable that turns n texts into an `(n, 1536)` float32 array of finite vectors, none of them zero."""

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Embed the texts, one row each and in their order."""


class HashingEmbedder:
    """A lexical embedder: signed feature hashing of words, pairs of words and the trigrams inside words.

    Every feature has a 64-bit BLAKE2b hash, which names one of the 1536 dimensions and a sign ("the hashing trick",
    Weinberger, Dasgupta, Langford, Smola and Attenberg, *Feature Hashing for Large Scale Multitask Learning*, ICML
    2009): inner products are kept in expectation, and unrelated texts meet at about 1 / sqrt(1536). Counts enter as
    `1 + ln(count)` and vectors have length 1. Case, accents and compatibility forms are folded away; trigrams keep
    the inflected forms of a word together (after Bojanowski, Grave, Joulin and Mikolov, *Enriching Word Vectors with
    Subword Information*, TACL 2017); scripts written without spaces are read character by character, so that there
    the pairs of characters tell texts apart.

    The vector of a text depends on nothing but the text: not on its neighbours in the call, nor on the process.
    """

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Embed the texts, one row each and in their order.

        Args:
            texts: n texts, none of them blank. Punctuation alone is text too.

        Returns:
            An `(n, 1536)` float32 array of vectors of length 1.

        Raises:
            InvalidInput: A text is blank or not storable text, or `texts` is one string where a sequence is meant.
        """
        if isinstance(texts, str):
            raise InvalidInput("texts: one string is not a sequence of texts; pass [text]")
        try:
            each = None if isinstance(texts, bytes | Mapping) else iter(texts)
        except TypeError:
            each = None
        if each is None:
            raise InvalidInput(f"texts: {type(texts).__name__} is not a sequence of texts")
        texts = list(each)
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = _embed(require_text(text, f"texts[{row}]", blank=False, max_bytes=None))
        return vectors


def embed(embedder: Embedder, texts: Sequence[str]) -> NDArray[Any]:
    """Let an embedder embed texts, and see to it that it gave one vector a text; what is in them is not looked at.

    Raises:
        InvalidVector: It gave something else.
        StoreError: It raised an error, which is this one's cause.
    """
    try:
        given: Any = embedder(texts)
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"the embedder failed: {type(error).__name__}") from error
    if inspect.iscoroutine(given):
        given.close()
        raise InvalidVector("the embedder is an async function: give a plain one")
    try:
        vectors = np.asarray(given)
    except (ValueError, TypeError):
        raise InvalidVector(f"the embedder gave {type(given).__name__} of no regular shape") from None
    if vectors.shape != (len(texts), DIMENSIONS):
        raise InvalidVector(f"the embedder gave {vectors.shape}, not ({len(texts)}, {DIMENSIONS})")
    return vectors


def fold(text: str) -> str:
    """Fold case, accents and compatibility forms: how a word is written rather than which word it is."""
    if text.isascii():
        return text.lower()
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFKC", bare)


_HASH_BYTES = 8
_NOTHING = 1e-6
_CHARACTER_WEIGHT = 0.2
_COMMON_WEIGHT = 0.15
_PAIR_WEIGHT = 0.5
_COMMON_PAIR_WEIGHT = 0.08
_TRIGRAMS_WEIGHT = 0.7
_TRIGRAM_WORD = 4
"""Words from this length on are also known by their trigrams."""

_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]+")
"""Combining accents, and the vowel points of Hebrew and Arabic, which writers leave out."""
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
    "\uac00-\ud7af"  # Korean has spaces, but its particles grow onto the words
)
_INDIC = "\u0900-\u0963\u0966-\u0dff"
"""Their vowel signs are marks, which `\\w` does not know; without them every word falls apart."""
_ASCII_TOKEN = re.compile("[a-z0-9]+")

COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about after all also am an and any are as at be been but by can could did do does for from had has have he
        her his how i if in into is it its me more my no not of on or our out she so than that the their them there
        these they this to up us was we were what when where which who why will with would you your
        als am an auch auf aus bei bis das dem den der des die ein eine einem einen einer er es fur hat ich im in ist
        mit nach nicht noch oder sich sie sind uber um und uns von vor was wer wie wir wird zu zum zur
        au aux avec ce ces cette dans de des du elle en est et il la le les leur mais ne nous ont ou par pas plus pour
        que qui sa se ses son sont sur un une vous
        al como con del el ella es esta este las lo los mas para pero por se sin su sus una y
        """,
    )
)
"""What holds English, German, French and Spanish sentences together, accents folded: it would make all texts alike."""


def _embed(text: str) -> _Weights:
    """Give the vector of one text that is not blank."""
    tokens = _tokens(text)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(tokens))}
    sequence = np.fromiter(map(numbers.__getitem__, tokens), np.intp, len(tokens))
    features = list(map(_word_hashes, numbers))
    sizes = np.fromiter(map(len, features), np.intp, len(numbers)) // _HASH_BYTES
    hashes = np.frombuffer(b"".join(features), "<u8").astype(np.uint64)
    own = np.cumsum(sizes) - sizes  # where each word's own hash stands, before its trigrams'

    common = np.fromiter(map(COMMON_WORDS.__contains__, numbers), np.bool_, len(numbers))
    single = np.fromiter(map(len, numbers), np.intp, len(numbers)) == 1
    repeated = _damped(np.bincount(sequence))
    weights = np.repeat(_TRIGRAMS_WEIGHT / np.sqrt(np.maximum(sizes - 1, 1)) * repeated, sizes)
    weights[own] = np.where(common, _COMMON_WEIGHT, np.where(single, _CHARACTER_WEIGHT, 1.0)) * repeated

    words = hashes[own][sequence]
    pairs, first_at, counts = np.unique(_mix(words[:-1], words[1:]), return_index=True, return_counts=True)
    weak = common[sequence[first_at]] | common[sequence[first_at + 1]]
    pair_weights = np.where(weak, _COMMON_PAIR_WEIGHT, _PAIR_WEIGHT) * _damped(counts)

    return _project(np.append(hashes, pairs), np.append(weights, pair_weights))


def _tokens(text: str) -> list[str]:
    """Split a text into words."""
    folded = fold(text)
    tokens = _ASCII_TOKEN.findall(folded) if folded.isascii() else _token_pattern().findall(folded)
    # Text without one letter or digit is known by its characters; without even these, by itself.
    return tokens or [character for character in folded if not character.isspace()] or [text]


@cache
def _token_pattern() -> re.Pattern[str]:
    """Compile the words of all scripts: so many ranges take 10 ms, which importing the library should not cost."""
    return re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:[{_INDIC}]+[^\W_{_UNSPACED}]*)*")


@lru_cache(maxsize=1 << 15)
def _word_hashes(word: str) -> bytes:
    """Give the hashes of a word's features, one after the other: the word itself first, then its trigrams."""
    if len(word) < _TRIGRAM_WORD or word.isdecimal() or word in COMMON_WORDS:
        return _hash(word)
    bounded = f"<{word}>"
    trigrams = (f"~{bounded[at : at + 3]}" for at in range(len(word)))  # no word holds a ~
    return b"".join(map(_hash, (word, *trigrams)))


def _hash(feature: str) -> bytes:
    """Give the 64-bit hash of a feature; Python's own `hash` differs from process to process."""
    return hashlib.blake2b(feature.encode(), digest_size=_HASH_BYTES).digest()


def _mix(first: _Hashes, second: _Hashes) -> _Hashes:
    """Give the hash of each ordered pair from the hashes of its two words (with the finalizer of SplitMix64)."""
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _damped(counts: NDArray[np.intp]) -> _Weights:
    """Give the weight of features by how often they occur: the tenth time says less than the first."""
    return 1 + np.log(counts, dtype=np.float64)


def _project(hashes: _Hashes, weights: _Weights) -> _Weights:
    """Add the features, each with the sign and in the dimension that its hash names, to a vector of length 1."""
    signs = 1.0 - 2.0 * (hashes & np.uint64(1)).astype(np.float64)
    places = ((hashes >> np.uint64(1)) % np.uint64(DIMENSIONS)).astype(np.intp)
    vector = np.bincount(places, weights * signs, DIMENSIONS).astype(np.float64)
    length = np.linalg.norm(vector)
    # The few features of a tiny text may fall on one place and cancel out; a single one cannot.
    return vector / length if length > _NOTHING else _project(hashes[:1], weights[:1])

"""Vectors of texts: the protocol of embedders, and a lexical embedder that needs no model.

`HashingEmbedder` compares *words*, not meanings: "late fee" finds "late fees", but not "surcharge for overdue payment".
It is for demonstrations and tests, because its vectors are free, fast and the same everywhere. A service uses a learned
model with the same protocol.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import traceback
import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from myloware_store.core.arguments import as_count, as_list, as_name
from myloware_store.core.errors import InvalidInput, InvalidVector, StoreError
from myloware_store.core.values import require_text
from myloware_store.core.vectors import DIMENSIONS, SHORTEN, as_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from myloware_store.core.vectors import Embeddings

__all__ = ["COMMON_WORDS", "Embedder", "HashingEmbedder", "Truncated", "embed", "fold", "read_embedder"]

_MAX_REASON = 200
_Hashes: TypeAlias = NDArray[np.uint64]
_Weights: TypeAlias = NDArray[np.float64]


class Embedder(Protocol):
    """A callable that turns n texts into an `(n, 1536)` float32 array of finite vectors, none of them zero.

    It may have two attributes: `name`, a text that identifies its model, so that searches compare only vectors of one
    model; and `dimensions`, a number below 1536, if its vectors are shorter. The store appends zeros to them, which
    changes no cosine.
    """

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Embed the texts, one row each, in their order."""


class HashingEmbedder:
    """A lexical embedder: signed feature hashing of words, pairs of words and the trigrams inside words.

    The 64-bit BLAKE2b hash of a feature selects one of the 1536 dimensions and a sign ("the hashing trick", Weinberger,
    Dasgupta, Langford, Smola and Attenberg, *Feature Hashing for Large Scale Multitask Learning*, ICML 2009). The
    expected inner products are preserved, and unrelated texts have a similarity of about 1 / sqrt(1536). A count weighs
    `1 + ln(count)`, and vectors have length 1. Case, accents and compatibility forms are ignored. Trigrams relate the
    inflected forms of a word (after Bojanowski, Grave, Joulin and Mikolov, *Enriching Word Vectors with Subword
    Information*, TACL 2017). Scripts without spaces are read character by character, so that pairs of characters
    distinguish texts.

    The vector of a text depends only on the text, not on the other texts of the call or on the process.

    Attributes:
        name: The name of its vectors.
    """

    name = "myloware-hashing-1"

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Embed the texts, one row each, in their order.

        Args:
            texts: n texts, none of them blank. Punctuation alone is allowed.

        Returns:
            An `(n, 1536)` float32 array of vectors of length 1.

        Raises:
            InvalidInput: A text is blank or cannot be stored, or `texts` is a single string.
        """
        if isinstance(texts, str):
            raise InvalidInput("texts: a single string is not a list of texts; pass [text]")
        texts = as_list(texts, "texts")
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = _embed(require_text(text, f"texts[{row}]", blank=False, max_bytes=None))
        return vectors


class Truncated:
    """An embedder that keeps the first numbers of another's vectors, which are longer than the store's.

    That is right for models trained for it ("Matryoshka", Kusupati et al., *Matryoshka Representation Learning*,
    NeurIPS 2022), such as `text-embedding-3-large`; the vectors of others lose much of their meaning. The cosine
    normalizes what is left.

    Args:
        embedder: The other embedder.
        dimensions: How many numbers to keep, 1 to 1536, and no more than there are.

    Attributes:
        name: The other's name, if it has one, with the number of dimensions: its whole vectors cannot be compared.
        dimensions: How many numbers are kept.

    Raises:
        InvalidInput: The embedder is not callable, its name is not a name, or `dimensions` is out of bounds.
    """

    def __init__(self, embedder: Callable[[Sequence[str]], Any], dimensions: int = DIMENSIONS) -> None:
        if not callable(embedder):
            raise InvalidInput(f"embedder: {type(embedder).__name__} is not callable")
        self._embedder = embedder
        self.dimensions = as_count(dimensions, "dimensions", most=DIMENSIONS)
        there = getattr(embedder, "dimensions", None)
        if isinstance(there, int) and there < dimensions:
            raise InvalidInput(f"dimensions: {dimensions} numbers cannot be kept of the embedder's {there}")
        name = getattr(embedder, "name", None)
        self.name = None if name is None else as_name(f"{as_name(name, 'name')}:{dimensions}", "name")

    def __call__(self, texts: Sequence[str], /) -> NDArray[Any]:
        """Embed the texts, one row each, in their order."""
        vectors: NDArray[Any] = np.asarray(self._embedder(texts))[..., : self.dimensions]
        return vectors


def read_embedder(embedder: Embedder | None) -> tuple[str | None, int]:
    """Return the name of an embedder's model, if it has one, and the length of its vectors.

    Raises:
        InvalidInput: It is not callable, or one of its attributes cannot be used.
    """
    if embedder is None:
        return None, DIMENSIONS
    if not callable(embedder):
        raise InvalidInput(f"embedder: {type(embedder).__name__} is not callable")
    name, dimensions = getattr(embedder, "name", None), getattr(embedder, "dimensions", None)
    if isinstance(dimensions, int) and dimensions > DIMENSIONS:
        raise InvalidInput(f"embedder: its {dimensions} dimensions are more than {DIMENSIONS}; {SHORTEN}")
    return (
        None if name is None else as_name(name, "embedder.name"),
        DIMENSIONS if dimensions is None else as_count(dimensions, "embedder.dimensions", most=DIMENSIONS),
    )


def embed(embedder: Embedder, texts: Sequence[str]) -> Embeddings:
    """Call an embedder, and return one vector per text, with zeros appended if they are shorter.

    Raises:
        InvalidVector: It returned something else, or a vector that cannot be compared.
        StoreError: It raised an error, which is the cause (`__cause__`); the message has its type and first line.
    """
    _, dimensions = read_embedder(embedder)
    try:
        given: Any = embedder(texts)
    except StoreError:
        raise
    except Exception as error:
        (reason, *_) = "".join(traceback.format_exception_only(error)).splitlines()
        raise StoreError(f"the embedder failed: {reason[:_MAX_REASON]}") from error
    if inspect.iscoroutine(given):
        given.close()
        raise InvalidVector("the embedder is an async function: use a plain one")
    try:
        vectors = np.asarray(given)
    except (ValueError, TypeError):
        raise InvalidVector(f"the embedder returned {type(given).__name__} of no regular shape") from None
    if vectors.ndim != 2 or len(vectors) != len(texts):  # noqa: PLR2004  texts and their numbers
        raise InvalidVector(f"the embedder returned {vectors.shape}, not ({len(texts)}, {dimensions})")
    return as_embeddings(vectors, "the embedder's vector", dimensions)


def fold(text: str) -> str:
    """Return the text without case, accents and compatibility forms."""
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
"""The length from which words also have trigrams as features."""

_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]+")
"""Combining accents, and the vowel points of Hebrew and Arabic, which writers often omit."""
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
    "\uac00-\ud7af"  # Korean has spaces, but its particles grow onto the words
)
_INDIC = "\u0900-\u0963\u0966-\u0dff"
"""Their vowel signs are marks, which `\\w` does not match, so that words would be split."""
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
"""Common words of English, German, French and Spanish, without accents. They would make all texts similar."""


def _embed(text: str) -> _Weights:
    """Return the vector of a text that is not blank."""
    tokens = _tokens(text)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(tokens))}
    sequence = np.fromiter(map(numbers.__getitem__, tokens), np.intp, len(tokens))
    features = list(map(_word_hashes, numbers))
    sizes = np.fromiter(map(len, features), np.intp, len(numbers)) // _HASH_BYTES
    hashes = np.frombuffer(b"".join(features), "<u8").astype(np.uint64)
    own = np.cumsum(sizes) - sizes  # the position of each word's own hash, before its trigrams

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
    # A text without letters and digits is split into its characters.
    return tokens or [character for character in folded if not character.isspace()] or [text]


@cache
def _token_pattern() -> re.Pattern[str]:
    """Compile the pattern for words of all scripts on first use, because it takes 10 ms."""
    return re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:[{_INDIC}]+[^\W_{_UNSPACED}]*)*")


@lru_cache(maxsize=1 << 15)
def _word_hashes(word: str) -> bytes:
    """Return the joined hashes of a word's features: the word itself, then its trigrams."""
    if len(word) < _TRIGRAM_WORD or word.isdecimal() or word in COMMON_WORDS:
        return _hash(word)
    bounded = f"<{word}>"
    trigrams = (f"~{bounded[at : at + 3]}" for at in range(len(word)))  # no word holds a ~
    return b"".join(map(_hash, (word, *trigrams)))


def _hash(feature: str) -> bytes:
    """Return the 64-bit hash of a feature. Python's own `hash` differs between processes."""
    return hashlib.blake2b(feature.encode(), digest_size=_HASH_BYTES).digest()


def _mix(first: _Hashes, second: _Hashes) -> _Hashes:
    """Return the hash of each ordered pair of words (with the finalizer of SplitMix64)."""
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _damped(counts: NDArray[np.intp]) -> _Weights:
    """Return the weights of features with these counts."""
    return 1 + np.log(counts, dtype=np.float64)


def _project(hashes: _Hashes, weights: _Weights) -> _Weights:
    """Return the vector of length 1 of these features. A hash selects the dimension and the sign of its feature."""
    signs = 1.0 - 2.0 * (hashes & np.uint64(1)).astype(np.float64)
    places = ((hashes >> np.uint64(1)) % np.uint64(DIMENSIONS)).astype(np.intp)
    vector = np.bincount(places, weights * signs, DIMENSIONS).astype(np.float64)
    length = np.linalg.norm(vector)
    # The few features of a tiny text can cancel each other out. A single one cannot.
    return vector / length if length > _NOTHING else _project(hashes[:1], weights[:1])

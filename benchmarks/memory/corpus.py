"""Documents with clustered embeddings, the same at every run, and the true neighbours of queries among them.

Embeddings are unit vectors of 1,536 dimensions. 200 topics of uneven size (weights 1 / (n + 10)) have their centres in
one space of 24 dimensions, in which every document strays from its topic's centre by about as much as the centres stand
apart, so that topics overlap: of a query's ten true neighbours, about four fifths are of its topic. A little noise in
all 1,536 dimensions comes on top. Queries are drawn like documents, and none is one.

Metadata has a `department` drawn at random (1 %, 30 %, 60 % and 9 % of the documents) and a `project` made of whole
topics of about the same shares: a filter on it keeps a few clusters and drops the others.
"""

from __future__ import annotations

import json
import uuid
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

DIMENSIONS = 1536
TOPICS, EARLY_TOPICS = 200, 120
SHARES = {"1": 0.01, "30": 0.30, "60": 0.60}
"""The filters: the value of `department` or `project`, and how many of the documents have it."""
MOST = 500
"""Most neighbours that are compared."""

_LATENT = 24
_STRAY = 0.9  # how far documents are from their topic, beside how far topics are from each other
_NOISE = 0.25  # how much of a vector's length stands in all the dimensions
_BLOCK = 5_000
_WORDS = 4_000


def draw(count: int, seed: int, topics: range) -> tuple[Vectors, NDArray[np.int64]]:
    """Draw unit vectors, and the topic of each."""
    world = np.random.default_rng(11)
    centres = world.normal(size=(TOPICS, _LATENT)).astype(np.float32)
    basis = np.linalg.qr(world.normal(size=(DIMENSIONS, _LATENT)))[0].T.astype(np.float32)
    chances = 1 / (np.arange(TOPICS) + 10.0)
    chances = chances[topics.start : topics.stop] / chances[topics.start : topics.stop].sum()
    vectors = np.empty((count, DIMENSIONS), np.float32)
    labels = np.empty(count, np.int64)
    for begin in range(0, count, _BLOCK):
        rng = np.random.default_rng((seed, begin))
        end = min(count, begin + _BLOCK)
        chosen = rng.choice(np.arange(topics.start, topics.stop), size=end - begin, p=chances)
        latent = centres[chosen] + _STRAY * rng.normal(size=(end - begin, _LATENT)).astype(np.float32)
        block = latent @ basis
        noise = rng.standard_normal((end - begin, DIMENSIONS), np.float32)
        block += _NOISE * np.linalg.norm(block, axis=1, keepdims=True) / DIMENSIONS**0.5 * noise
        vectors[begin:end] = block / np.linalg.norm(block, axis=1, keepdims=True)
        labels[begin:end] = chosen
    return vectors, labels


def row_id(number: int) -> uuid.UUID:
    """Return the id of a document: a UUIDv7 that counts."""
    return uuid.UUID(int=(0x01900000_0000_7000_8000 << 48) | number)


def row_number(given: uuid.UUID | str) -> int:
    """Return the number of the document with an id."""
    return (given if isinstance(given, uuid.UUID) else uuid.UUID(given)).int & 0xFFFFFFFFFFFF


class Corpus:
    """Documents.

    Args:
        count: How many.
        seed: Another one gives other documents.
        words: Words in each text, about 6.5 bytes each.
        early: How many of the first are of the topics up to `EARLY_TOPICS` alone, and the others of the rest; None
            where all are of all topics.

    Attributes:
        vectors: Their embeddings, `(count, 1536) float32`.
        labels: Their topics.
    """

    def __init__(self, count: int, *, seed: int = 1, words: int = 60, early: int | None = None) -> None:
        self.count, self.seed, self.words = count, seed, words
        if early is None:
            self.vectors, self.labels = draw(count, seed, range(TOPICS))
        else:
            first, later = draw(early, seed, range(EARLY_TOPICS)), draw(count - early, 2, range(EARLY_TOPICS, TOPICS))
            self.vectors = np.concatenate([first[0], later[0]])
            self.labels = np.concatenate([first[1], later[1]])

    @cached_property
    def departments(self) -> NDArray[np.str_]:
        """The department of each, at random."""
        chosen = np.random.default_rng((self.seed, 2)).random(self.count)
        return _named(chosen)

    @cached_property
    def projects(self) -> NDArray[np.str_]:
        """The project of each, by its topic."""
        chances = 1 / (np.arange(TOPICS) + 10.0)
        # Small topics first, else one topic alone would be more than 1 %.
        order = np.argsort(chances)
        place = np.empty(TOPICS)
        place[order] = np.cumsum(chances[order]) / chances.sum()
        return _named(place[self.labels] - 1e-9)

    @cached_property
    def texts(self) -> list[str]:
        """The texts: words drawn by Zipf's law; `invoice` stands in 40 % of them."""
        rng = np.random.default_rng((self.seed, 3))
        vocabulary = np.array(VOCABULARY)
        chances = 1 / (np.arange(_WORDS) + 3.0)
        chances /= chances.sum()
        marked = rng.random(self.count) < 0.4
        chosen = rng.choice(vocabulary, size=(self.count, self.words), p=chances)
        return [
            f"{'Invoice' if marked[number] else 'Note'} {number}: {' '.join(words)}"
            for number, words in enumerate(chosen)
        ]

    def metadata(self, number: int) -> dict[str, Any]:
        """Return the metadata of one."""
        return {
            "department": str(self.departments[number]),
            "project": str(self.projects[number]),
            "amount": number % 1_000,
        }

    def docs(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]]:
        """Return documents as `bulk_load` and `upsert` take them."""
        return [
            {
                "id": row_id(number),
                "type": "CONTEXT",
                "content": self.texts[number],
                "embedding": self.vectors[number],
                "metadata": self.metadata(number),
            }
            for number in range(start, self.count if stop is None else stop)
        ]

    def packed(self, start: int, stop: int, tenant: str = "default") -> bytes:
        """Return documents for a binary COPY: id, tenant_id, type, content, embedding, metadata."""
        parts = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
        for number in range(start, stop):
            vector = DIMENSIONS.to_bytes(2) + bytes(2) + self.vectors[number].astype(">f4").tobytes()
            parts.append((6).to_bytes(2))
            for value in (
                row_id(number).bytes,
                tenant.encode(),
                b"CONTEXT",
                self.texts[number].encode(),
                vector,
                b"\x01" + json.dumps(self.metadata(number)).encode(),
            ):
                parts += [len(value).to_bytes(4), value]
        return b"".join([*parts, b"\xff\xff"])

    def mask(self, key: str | None, value: str) -> NDArray[np.bool_]:
        """Return which documents a filter keeps."""
        if key is None:
            return np.ones(self.count, bool)
        return np.equal(self.departments if key == "department" else self.projects, value)


class Truth:
    """The true neighbours of queries, by comparing all pairs in numpy.

    Args:
        vectors: The documents, `(n, 1536) float32`.
        queries: The queries, `(q, 1536) float32`.
    """

    def __init__(self, vectors: Vectors, queries: Vectors) -> None:
        self.queries = queries
        self._similar = queries @ vectors.T

    def recall(self, query: int, found: list[int], k: int, kept: NDArray[np.bool_]) -> float:
        """Return how many of the k best of those kept were found, as a share; a tie with the last counts."""
        similar = self._similar[query]
        wanted = min(k, int(kept.sum()))
        if wanted == 0:
            return 1.0
        worst = np.partition(similar[kept], -wanted)[-wanted] - 1e-6
        good = {number for number in found[:k] if kept[number] and similar[number] >= worst}
        return min(len(good), wanted) / wanted

    def nearest(self, query: int, k: int) -> NDArray[np.int64]:
        """Return the numbers of the k nearest, in no order."""
        return np.argpartition(self._similar[query], -k)[-k:]


def _named(places: NDArray[np.float64]) -> NDArray[np.str_]:
    names = np.full(len(places), "9", dtype="<U2")
    low = 0.0
    for name, share in SHARES.items():
        names[(places >= low) & (places < low + share)] = name
        low += share
    return names


def _vocabulary() -> list[str]:
    rng = np.random.default_rng(12)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    words = dict.fromkeys("".join(rng.choice(syllables, size=rng.integers(2, 5))) for _ in range(_WORDS * 2))
    return list(words)[:_WORDS]


VOCABULARY = _vocabulary()
"""The words of the texts, the most frequent first."""

"""Embeddings on their way to and from PostgreSQL: checked, encoded with orjson, decoded with numpy.

The formats are pgvector's: text `[0.1,0.2,...]`, and binary as `vector_send` gives it, two big-endian 16-bit numbers
(dimensions, unused) before big-endian 32-bit floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from myloware_store.core.errors import InvalidVector

__all__ = [
    "DIMENSIONS",
    "Embedding",
    "Embeddings",
    "VectorLiteral",
    "as_embedding",
    "as_embeddings",
    "decode_binaries",
    "decode_binary",
    "decode_text",
    "encode_fields",
    "encode_literal",
    "encode_text",
    "encode_texts",
]

DIMENSIONS = 1536
"""Length of every embedding (OpenAI's `text-embedding-3-small` and `ada-002`)."""

Embedding: TypeAlias = NDArray[np.float32]
"""A `(1536,) float32` array."""

Embeddings: TypeAlias = NDArray[np.float32]
"""An `(n, 1536) float32` array."""

# pgvector sums squares in float32: beyond these norms the cosine distance would be NaN.
_SMALLEST_NORM, _LARGEST_NORM = 1e-15, 1e15
_HEADER_BYTES = 4
# A vector as a field of COPY's binary format: its size, then what `vector_send` gives.
_FIELD = np.dtype([("size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("numbers", ">f4", (DIMENSIONS,))])


def as_embedding(value: Any, name: str = "embedding") -> Embedding:
    """Return a value as an embedding, or refuse it.

    Args:
        value: A list, tuple or array of 1536 real numbers, or a `pgvector.Vector`.
        name: What to call the value in an error.

    Returns:
        A `(1536,) float32` array.

    Raises:
        InvalidVector: The shape is not `(1536,)`, an element is not a real number, is NaN or infinite (also once it is
            a float32), or the norm of the vector is outside `1e-15 .. 1e15`, a zero vector included: its cosine
            distance to anything would be NaN, and it would vanish from every index.
    """
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    try:
        raw = np.asarray(value)
    except ValueError:
        raise InvalidVector(f"{name}: the rows of a vector have uneven lengths") from None
    if raw.dtype.kind not in "iuf":
        raise InvalidVector(f"{name}: {type(value).__name__} is not a sequence of real numbers")
    if raw.shape != (DIMENSIONS,):
        raise InvalidVector(f"{name}: the shape is {raw.shape}, not ({DIMENSIONS},)")
    with np.errstate(over="ignore"):
        vector: Embedding = np.ascontiguousarray(raw, dtype=np.float32)
    if not np.isfinite(vector).all():
        raise InvalidVector(f"{name}: a number is NaN or beyond float32")
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if norm == 0:
        raise InvalidVector(f"{name}: it is all zeros, and similar to nothing")
    if not _SMALLEST_NORM <= norm <= _LARGEST_NORM:
        raise InvalidVector(f"{name}: its norm {norm:g} is outside {_SMALLEST_NORM:g} .. {_LARGEST_NORM:g}")
    return vector


def as_embeddings(values: Sequence[Any] | NDArray[Any], names: str | Sequence[str] = "embedding") -> Embeddings:
    """Return n values as an `(n, 1536) float32` array, or refuse them all; the checks are those of `as_embedding`.

    Args:
        values: The values.
        names: What to call them in an error: each of them, or one name for all, told apart by their number.
    """
    if len(values) == 0:
        return np.empty((0, DIMENSIONS), np.float32)
    try:
        rows = [np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value) for value in values]
        raw = np.stack(rows)
    except ValueError:
        rows = []
    if rows and {row.dtype.kind for row in rows} <= set("iuf") and raw.shape[1:] == (DIMENSIONS,):
        with np.errstate(over="ignore", invalid="ignore"):
            vectors: Embeddings = np.ascontiguousarray(raw, dtype=np.float32)
            squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        if ((squares >= _SMALLEST_NORM**2) & (squares <= _LARGEST_NORM**2)).all():
            return vectors
    # One of them is wrong, or nearly so: each is looked at by itself.
    if isinstance(names, str):
        names = [f"{names}[{n}]" for n in range(len(values))]
    return np.stack([as_embedding(value, name) for value, name in zip(values, names, strict=True)])


def encode_text(value: Any, name: str = "embedding") -> str:
    """Return the text that pgvector reads, after `as_embedding`'s checks (28 us for 1536 numbers)."""
    return orjson.dumps(as_embedding(value, name), option=orjson.OPT_SERIALIZE_NUMPY).decode()


class VectorLiteral:
    """A vector as a literal of SQL, which psycopg2 puts into a statement as it is: no character of it needs a quote.

    To quote 19 KB of text costs as much as to make it (58 us against 10).
    """

    __slots__ = ("_quoted",)

    def __init__(self, text: bytes) -> None:
        self._quoted = b"'" + text + b"'"

    def __conform__(self, _protocol: object) -> Self:
        """Be what adapts this to SQL, as psycopg2 asks of a value that it does not know."""
        return self

    def getquoted(self) -> bytes:
        """Return the literal, for psycopg2."""
        return self._quoted


def encode_literal(value: Any, name: str = "embedding") -> VectorLiteral:
    """Return the parameter of a statement that pgvector reads, after `as_embedding`'s checks."""
    return VectorLiteral(orjson.dumps(as_embedding(value, name), option=orjson.OPT_SERIALIZE_NUMPY))


def encode_texts(vectors: Embeddings) -> list[str]:
    """Return the texts that pgvector reads, of vectors that `as_embeddings` has passed."""
    if len(vectors) == 0:
        return []
    text = orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return [f"[{numbers}]" for numbers in text[2:-2].split("],[")]


def encode_fields(vectors: Embeddings) -> list[memoryview]:
    """Return each vector as a field of COPY's binary format, its size included (1.3 us each)."""
    fields = np.empty(len(vectors), _FIELD)
    fields["size"] = _FIELD.itemsize - 4
    fields["dimensions"] = DIMENSIONS
    fields["unused"] = 0
    fields["numbers"] = vectors
    data, step = fields.view(np.uint8).data, _FIELD.itemsize
    return [data[at : at + step] for at in range(0, len(data), step)]


def decode_text(text: str) -> Embedding:
    """Return the `float32` array that pgvector's text output stands for."""
    return np.asarray(orjson.loads(text), dtype=np.float32)


def decode_binary(data: bytes | memoryview) -> Embedding:
    """Return the `float32` array that `vector_send` gave: a tenth of the cost of the text."""
    return np.frombuffer(data, dtype=">f4", offset=_HEADER_BYTES).astype(np.float32)


def decode_binaries(data: Iterable[bytes | memoryview]) -> NDArray[np.float32]:
    """Return the `(n, 1536) float32` array of vectors that `vector_send` gave, all of them at once."""
    rows = np.frombuffer(b"".join(data), dtype=">f4").reshape(-1, DIMENSIONS + _HEADER_BYTES // 4)
    return rows[:, 1:].astype(np.float32)

"""Embeddings to and from PostgreSQL: checked, encoded with orjson, decoded with numpy.

The formats are those of pgvector. The text format is `[0.1,0.2,...]`. The binary format of `vector_send` has two
big-endian 16-bit numbers (dimensions, unused) before big-endian 32-bit floats.
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
    "SHORTEN",
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
"""Length of every stored embedding (OpenAI's `text-embedding-3-small` and `ada-002`)."""

SHORTEN = (
    f"ask the provider for {DIMENSIONS} (`dimensions={DIMENSIONS}` of OpenAI's models), or cut the vectors of a"
    " Matryoshka model with `Truncated(embedder)`"
)
"""How to store longer vectors, for error messages."""

Embedding: TypeAlias = NDArray[np.float32]
"""A `(1536,) float32` array."""

Embeddings: TypeAlias = NDArray[np.float32]
"""An `(n, 1536) float32` array."""

# pgvector sums squares in float32. Outside of these norms, the cosine distance would be NaN.
_SMALLEST_NORM, _LARGEST_NORM = 1e-15, 1e15
_HEADER_BYTES = 4
# A vector as a field of the binary format of COPY: its size, then the format of `vector_send`.
_FIELD = np.dtype([("size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("numbers", ">f4", (DIMENSIONS,))])


def as_embedding(value: Any, name: str = "embedding", dimensions: int = DIMENSIONS) -> Embedding:
    """Return a value as an embedding, or raise InvalidVector.

    Args:
        value: A list, tuple or array of 1536 real numbers, or a `pgvector.Vector`.
        name: The name of the value for an error message.
        dimensions: Another length to accept, 1 to 1536. Zeros are appended, which changes no cosine.

    Returns:
        A `(1536,) float32` array.

    Raises:
        InvalidVector: The shape is another one, or an element is not a finite real number as a float32, or the norm
            is 0 or outside `1e-15 .. 1e15`. The cosine distance of such a vector would be NaN, and no index would have
            it.
    """
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    try:
        raw = np.asarray(value)
    except ValueError:
        raise InvalidVector(f"{name}: the rows of a vector have uneven lengths") from None
    if raw.dtype.kind not in "iuf":
        raise InvalidVector(f"{name}: {type(value).__name__} is not a sequence of real numbers")
    if raw.shape not in {(DIMENSIONS,), (dimensions,)}:
        raise InvalidVector(f"{name}: {_mistake(raw.shape, dimensions)}")
    raw = _padded(raw)
    with np.errstate(over="ignore"):
        vector: Embedding = np.ascontiguousarray(raw, dtype=np.float32)
    if not np.isfinite(vector).all():
        raise InvalidVector(f"{name}: a number is NaN or beyond float32")
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if norm == 0:
        raise InvalidVector(f"{name}: all numbers are zero")
    if not _SMALLEST_NORM <= norm <= _LARGEST_NORM:
        raise InvalidVector(f"{name}: the norm {norm:g} is outside {_SMALLEST_NORM:g} .. {_LARGEST_NORM:g}")
    return vector


def as_embeddings(
    values: Sequence[Any] | NDArray[Any], names: str | Sequence[str] = "embedding", dimensions: int = DIMENSIONS
) -> Embeddings:
    """Return n values as an `(n, 1536) float32` array, after the checks of `as_embedding`.

    Args:
        values: The values.
        names: Their names for an error message: one for each, or one for all, to which the number is added.
        dimensions: Another length to accept.
    """
    if len(values) == 0:
        return np.empty((0, DIMENSIONS), np.float32)
    try:
        rows = [np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value) for value in values]
        raw = np.stack(rows)
    except ValueError:
        rows = []
    if rows and {row.dtype.kind for row in rows} <= set("iuf") and raw.shape[1:] in {(DIMENSIONS,), (dimensions,)}:
        raw = _padded(raw)
        with np.errstate(over="ignore", invalid="ignore"):
            vectors: Embeddings = np.ascontiguousarray(raw, dtype=np.float32)
            squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        if ((squares >= _SMALLEST_NORM**2) & (squares <= _LARGEST_NORM**2)).all():
            return vectors
    # One of them is wrong, or close to a limit: check each by itself.
    if isinstance(names, str):
        names = [f"{names}[{n}]" for n in range(len(values))]
    return np.stack([as_embedding(value, name, dimensions) for value, name in zip(values, names, strict=True)])


def encode_text(value: Any, name: str = "embedding", dimensions: int = DIMENSIONS) -> str:
    """Return an embedding in pgvector's text format, after the checks of `as_embedding` (28 us)."""
    return orjson.dumps(as_embedding(value, name, dimensions), option=orjson.OPT_SERIALIZE_NUMPY).decode()


class VectorLiteral:
    """A vector as an SQL literal. psycopg2 inserts it as it is, because no character needs escaping.

    That takes 10 us instead of 58 for the 19 KB of text.
    """

    __slots__ = ("_quoted",)

    def __init__(self, text: bytes) -> None:
        self._quoted = b"'" + text + b"'"

    def __conform__(self, _protocol: object) -> Self:
        """Return the adapter of this value, for psycopg2."""
        return self

    def getquoted(self) -> bytes:
        """Return the literal, for psycopg2."""
        return self._quoted


def encode_literal(value: Any, name: str = "embedding", dimensions: int = DIMENSIONS) -> VectorLiteral:
    """Return an embedding as a parameter of a statement, after the checks of `as_embedding`."""
    return VectorLiteral(orjson.dumps(as_embedding(value, name, dimensions), option=orjson.OPT_SERIALIZE_NUMPY))


def encode_texts(vectors: Embeddings) -> list[str]:
    """Return vectors from `as_embeddings` in pgvector's text format."""
    if len(vectors) == 0:
        return []
    text = orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return [f"[{numbers}]" for numbers in text[2:-2].split("],[")]


def encode_fields(vectors: Embeddings) -> list[memoryview]:
    """Return each vector as a field of the binary format of COPY, including its size (1.3 us each)."""
    fields = np.empty(len(vectors), _FIELD)
    fields["size"] = _FIELD.itemsize - 4
    fields["dimensions"] = DIMENSIONS
    fields["unused"] = 0
    fields["numbers"] = vectors
    data, step = fields.view(np.uint8).data, _FIELD.itemsize
    return [data[at : at + step] for at in range(0, len(data), step)]


def decode_text(text: str) -> Embedding:
    """Return a vector in pgvector's text format as a `float32` array."""
    return np.asarray(orjson.loads(text), dtype=np.float32)


def decode_binary(data: bytes | memoryview) -> Embedding:
    """Return a vector from `vector_send` as a `float32` array, ten times as fast as from the text."""
    return np.frombuffer(data, dtype=">f4", offset=_HEADER_BYTES).astype(np.float32)


def decode_binaries(data: Iterable[bytes | memoryview]) -> NDArray[np.float32]:
    """Return vectors from `vector_send` as one `(n, 1536) float32` array."""
    rows = np.frombuffer(b"".join(data), dtype=">f4").reshape(-1, DIMENSIONS + _HEADER_BYTES // 4)
    return rows[:, 1:].astype(np.float32)


def _padded(raw: NDArray[Any]) -> NDArray[Any]:
    """Append zeros to the last axis, up to the length of an embedding."""
    missing = DIMENSIONS - raw.shape[-1]
    return np.pad(raw, [(0, 0)] * (raw.ndim - 1) + [(0, missing)]) if missing else raw


def _mistake(shape: tuple[int, ...], dimensions: int) -> str:
    """Return what is wrong with a shape, and how such a vector can be stored, for an error message."""
    if len(shape) != 1:
        return f"the shape is {shape}, which is not one vector; of several, pass one, such as vectors[0]"
    accepted = f"{DIMENSIONS}" if dimensions == DIMENSIONS else f"{DIMENSIONS} or the embedder's {dimensions}"
    wrong = f"it has {shape[0]} numbers, not {accepted}"
    if not shape[0]:
        return wrong
    if shape[0] < DIMENSIONS:
        return f"{wrong}; open the store with an embedder that has `dimensions = {shape[0]}`, and zeros are appended"
    return f"{wrong}; {SHORTEN}"

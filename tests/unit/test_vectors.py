"""Embeddings on their way to PostgreSQL and back."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pgvector import Vector
from psycopg2.extensions import adapt

from myloware_store.core.errors import InvalidVector
from myloware_store.core.vectors import (
    DIMENSIONS,
    as_embedding,
    as_embeddings,
    decode_binaries,
    decode_binary,
    decode_text,
    encode_fields,
    encode_literal,
    encode_text,
    encode_texts,
)

ONES = np.ones(DIMENSIONS, dtype=np.float32)


def spoiled(value: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ones with one other number among them."""
    vector = np.ones(DIMENSIONS)
    vector[77] = value
    return vector


@pytest.mark.parametrize(
    "value",
    [
        ONES[:-1],
        np.ones(DIMENSIONS + 1),
        np.ones((1, DIMENSIONS)),
        np.zeros(DIMENSIONS),
        np.full(DIMENSIONS, 1e-30),
        np.full(DIMENSIONS, 1e30),
        spoiled(np.nan),
        spoiled(np.inf),
        spoiled(1e39),
        np.ones(DIMENSIONS, dtype=bool),
        np.ones(DIMENSIONS, dtype=complex),
        ["1.0"] * DIMENSIONS,
        [[1.0], [1.0, 2.0]],
        [None] * DIMENSIONS,
        "[1,2,3]",
        None,
        3.0,
        {},
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused(value: Any) -> None:
    """Wrong shapes, no numbers, NaN, infinities and lengths that break the cosine are one typed error."""
    with pytest.raises(InvalidVector, match=r"^query: "):
        as_embedding(value, "query")
    for several in ([value], [ONES, value], [value] * 3):
        wrong = 0 if several[0] is value else 1
        with pytest.raises(InvalidVector, match=rf"^query\[{wrong}\]: "):
            as_embeddings(several, "query")
        with pytest.raises(InvalidVector, match=rf"^number {wrong}: "):
            as_embeddings(several, [f"number {n}" for n in range(len(several))])


@pytest.mark.parametrize(
    ("shape", "dimensions", "message"),
    [
        (384, 1536, r"384 numbers, not 1536; .*`dimensions = 384`"),
        (384, 768, r"384 numbers, not 1536 or the embedder's 768; .*`dimensions = 384`"),
        (3072, 768, r"3072 numbers, not 1536 or the embedder's 768; .*`Truncated"),
        (0, 1536, r"0 numbers, not 1536$"),
        ((1, 1536), 1536, r"the shape is \(1, 1536\).* one vector.*\[0\]"),
        ((), 1536, r"the shape is \(\).* one vector"),
    ],
)
def test_a_wrong_length_is_told_with_the_right_ones(shape: Any, dimensions: int, message: str) -> None:
    """And with the way to store such a vector."""
    with pytest.raises(InvalidVector, match=rf"^vector: .*{message}"):
        as_embedding(np.ones(shape), "vector", dimensions)


@pytest.mark.parametrize(
    "value",
    [[1] * DIMENSIONS, (1.0,) * DIMENSIONS, ONES.astype(np.float16), ONES.astype(np.int8), Vector(ONES), ONES[::-1]],
)
def test_what_stands_for_a_vector_is_taken(value: Any) -> None:
    """Lists, tuples, arrays of any real type and pgvector's own vectors become float32."""
    assert np.array_equal(ONES, as_embedding(value))
    assert np.array_equal([ONES, -ONES, ONES], as_embeddings([value, -ONES, value]))


FINITE = hnp.arrays(np.float32, DIMENSIONS, elements=st.floats(-1e3, 1e3, width=32)).filter(
    lambda vector: float(np.linalg.norm(vector)) > 1e-3
)


@given(FINITE)
def test_text_comes_back_to_the_bit(vector: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """The text form loses nothing of a float32."""
    assert np.array_equal(vector, decode_text(encode_text(vector)))


@given(FINITE)
def test_binary_comes_back_to_the_bit(vector: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """The form of `vector_send` is read in this machine's byte order, as an array of its own."""
    sent = struct.pack(">HH", DIMENSIONS, 0) + vector.astype(">f4").tobytes()
    decoded = decode_binary(memoryview(sent))
    assert np.array_equal(vector, decoded)
    assert decoded.dtype == np.float32
    assert decoded.flags.writeable


@given(FINITE)
def test_batches_are_sent_and_read_as_single_vectors_are(one: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """As texts, as fields of COPY, and from the form of `vector_send`, to the bit."""
    other = one[::-1]
    vectors = as_embeddings([one, other])
    assert [encode_text(one), encode_text(other)] == encode_texts(vectors)
    assert f"'{encode_text(one)}'" == adapt(encode_literal(one)).getquoted().decode()
    fields = encode_fields(vectors)
    assert [struct.pack(">iHH", 6148, DIMENSIONS, 0) + v.astype(">f4").tobytes() for v in (one, other)] == fields
    assert np.array_equal([one, other], decode_binaries([field[4:] for field in fields]))


def test_a_batch_of_no_vectors_is_one() -> None:
    """With the dimensions of any other."""
    assert (0, DIMENSIONS) == as_embeddings([]).shape
    assert [] == encode_texts(as_embeddings([]))
    assert [] == encode_fields(as_embeddings([]))


@pytest.mark.parametrize("length", [1e-15, 1e15])
def test_batches_have_the_bounds_of_single_vectors(length: float) -> None:
    """At the very ends of the lengths allowed, too."""
    vector = ONES.astype(np.float64) * (length / np.sqrt(DIMENSIONS))
    for scale in (1, 1.001, 0.999):
        try:
            alone = as_embedding(vector * scale)
        except InvalidVector:
            with pytest.raises(InvalidVector):
                as_embeddings([ONES, vector * scale])
        else:
            assert np.array_equal(alone, as_embeddings([ONES, vector * scale])[1])

"""What plain values may reach SQL."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import pytest
import uuid_utils
import uuid_utils.compat
from hypothesis import given
from hypothesis import strategies as st

from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import MAX_TEXT_BYTES, dump_json, is_uuid, require_text, require_uuid


@pytest.mark.parametrize("made", [uuid_utils.uuid7(), uuid_utils.compat.uuid7(), uuid.uuid4()])
def test_a_uuid_of_any_library_is_one(made: Any) -> None:
    """With its text; it comes back as the standard library's."""
    standard = uuid.UUID(str(made))
    assert [standard] * 3 == [require_uuid(each, "id") for each in (made, str(made), standard)]
    assert uuid.UUID is type(require_uuid(made, "id"))
    assert is_uuid(made)


@pytest.mark.parametrize("value", [None, 5, 5.0, b"5" * 16, "5", [], object(), uuid.UUID])
def test_what_is_no_uuid_is_refused(value: Any) -> None:
    """By its name; what only has a `hex` is none."""
    assert not is_uuid(value)
    with pytest.raises(InvalidInput, match=r"id: .* is not a UUID"):
        require_uuid(value, "id")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), inner)
    ),
)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not text"),
        (b"bytes", "not text"),
        (7, "not text"),
        ("a\x00b", "NUL"),
        ("a\ud800b", "surrogate"),
        ("\n\t ", "empty"),
        ("x" * (MAX_TEXT_BYTES + 1), "more than"),
        ("é" * (MAX_TEXT_BYTES // 2 + 1), "more than"),
    ],
)
def test_text_that_postgresql_cannot_store_is_refused(value: Any, reason: str) -> None:
    """Everything that would fail or change in the database is one typed error, which names the field."""
    with pytest.raises(InvalidInput, match=f"^content: .*{reason}"):
        require_text(value, "content", blank=False)


def test_text_at_the_limit_is_taken() -> None:
    """The limit itself is allowed."""
    assert "x" * MAX_TEXT_BYTES == require_text("x" * MAX_TEXT_BYTES, "content")


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        {"deep": [{"er": -math.inf}], "null": None},
        {1: "a key that is not text"},
        {"a": {1, 2}},
        b"bytes",
        {"a": "\x00"},
        {"\x00": 1},
        {"a": "\\\x00"},
        {"a": "\ud800"},
        2**70,
        object(),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """Nothing is rounded, renamed or nulled silently on its way into jsonb."""
    with pytest.raises(InvalidInput, match=r"^metadata: "):
        dump_json(value, "metadata")


def test_json_that_only_looks_like_a_nul_is_taken() -> None:
    """A backslash before `u0000` is text like any other."""
    value = {"a": "\\u0000", "b": "null"}
    assert value == json.loads(dump_json(value, "metadata"))


def test_a_large_document_is_refused() -> None:
    """The limit is checked on the encoded bytes."""
    with pytest.raises(InvalidInput, match="more than the 10 allowed"):
        dump_json(["x" * 20], "metadata", max_bytes=10)


def test_the_place_of_what_is_not_json_is_named() -> None:
    """By keys and numbers, never by a value."""
    with pytest.raises(InvalidInput, match=r"^metadata: not JSON: .*: set, at \['lines'\]\[1\]\['sum'\]$"):
        dump_json({"lines": [{}, {"tax": 1, "sum": {1, 2}}]}, "metadata")
    with pytest.raises(InvalidInput, match=r"^metadata: not JSON: .*: set$"):
        dump_json({1, 2}, "metadata")


def test_a_document_nested_too_deep_is_refused() -> None:
    """Depth ends in the same typed error, not in a RecursionError."""
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidInput, match="not JSON"):
        dump_json(value, "metadata")


@given(JSON)
def test_json_comes_back_as_it_was(value: Any) -> None:
    """What is taken reads back equal."""
    assert value == json.loads(dump_json(value, "metadata"))

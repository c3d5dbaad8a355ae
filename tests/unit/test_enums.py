"""The labels that signatures offer are those of the enums."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from myloware_store.core import enums

LABELS = [name for name in enums.__all__ if name.endswith("Label")]


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_the_enums(name: str) -> None:
    """A type checker cannot derive a Literal from an enum, so they are written twice."""
    enum: Any = getattr(enums, name.removesuffix("Label"))
    assert tuple(enum) == get_args(getattr(enums, name))

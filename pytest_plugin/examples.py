"""Hypothesis runs a test many times in one database: each example begins with what the fixtures made."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lease import Lease

__all__ = ["each_example_reset"]


@contextmanager
def each_example_reset(lease: Lease, hypothesis: Any) -> Iterator[None]:
    """Put the database back before every example but the first.

    Args:
        lease: The database.
        hypothesis: What hypothesis hangs on a test for other plugins: its `inner_test` is the function as written.
    """
    inner = hypothesis.inner_test
    lease.accept()
    first = True

    @wraps(inner)
    def example(*args: Any, **kwargs: Any) -> Any:
        nonlocal first
        if not first:
            lease.reset()
        first = False
        return inner(*args, **kwargs)

    hypothesis.inner_test = example
    try:
        yield
    finally:
        hypothesis.inner_test = inner

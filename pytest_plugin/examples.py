"""Hypothesis runs a test many times in one database: each example begins with what was there before the first."""

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
    put_back = lease.accept  # not before the first example: unittest's setUp has run by then

    @wraps(inner)
    def example(*args: Any, **kwargs: Any) -> Any:
        nonlocal put_back
        put_back()
        put_back = lease.reset
        return inner(*args, **kwargs)

    hypothesis.inner_test = example
    try:
        yield
    finally:
        hypothesis.inner_test = inner

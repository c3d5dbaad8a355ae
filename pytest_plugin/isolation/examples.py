"""Begin every example of a hypothesis test with the same database."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..options import Lent

__all__ = ["each_example_reset"]


@contextmanager
def each_example_reset(lease: Lent, hypothesis: Any) -> Iterator[None]:
    """Put the database back before every example but the first.

    Args:
        lease: The database.
        hypothesis: The attribute `hypothesis` of a test; its `inner_test` is the test function.
    """
    inner = hypothesis.inner_test
    put_back = lease.accept  # in the first example, after the setUp of unittest

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

"""Keeps secrets out of tracebacks: tools print the variables of every frame of an error."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from myloware_store.core.errors import StoreError

__all__ = ["FramesDropped", "Hidden"]


class Hidden:
    """Holds a value that its representation does not show."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class FramesDropped:
    """Drops the frames inside of the block from the traceback of one of our errors."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, StoreError):
            raise error.with_traceback(None) from None

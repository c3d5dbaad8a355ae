"""SQL statements by name, from a `.sql` file beside the code that runs them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

__all__ = ["queries_beside"]


def queries_beside(file: str, name: str = "queries.sql") -> Callable[[str], str]:
    """Return a function that returns the statement below the line `-- name: NAME` of a file.

    The file is read on the first call.

    Args:
        file: The path of a module in the same folder, `__file__`.
        name: The name of the file of statements.
    """
    return partial(_statement, Path(file).with_name(name))


def _statement(path: Path, name: str) -> str:
    return _statements(path)[name]


@cache
def _statements(path: Path) -> dict[str, str]:
    _, *parts = re.split(r"(?m)^-- name: (\w+)\n", path.read_text(encoding="utf-8"))
    texts = (re.sub(r"(?m)^ *--.*\n", "", part).strip() for part in parts[1::2])
    return dict(zip(parts[::2], texts, strict=True))

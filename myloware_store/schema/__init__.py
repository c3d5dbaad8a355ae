"""The functions and triggers of the database, in `.sql` files; the tables are where their models are.

`ops.ddl` makes a whole schema of both. A migration has its own, frozen copy, and a test holds the two to one catalog.
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["FUNCTIONS", "TRIGGERS", "read_sql"]

FUNCTIONS = ("content", "guards", "roll_up", "submit", "claim", "finish")
"""The files that create functions."""

TRIGGERS = "triggers"
"""The file that creates triggers, once the tables are there."""


def read_sql(name: str) -> str:
    """Return the text of a file, which is a script of one or more statements."""
    return (files(__name__) / f"{name}.sql").read_text(encoding="utf-8")

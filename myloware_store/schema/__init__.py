"""The domains, functions and triggers of the database, in `.sql` files; the models define the tables.

`ops.ddl` creates a whole schema from both. Migrations have their own, frozen copy, and a test compares the catalogs.
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["FUNCTIONS", "TRIGGERS", "read_sql"]

FUNCTIONS = ("domains", "content", "guards", "roll_up", "submit", "claim", "finish", "search", "audit", "tenancy")
"""The files that create domains and functions."""

TRIGGERS = "triggers"
"""The file that creates triggers, after the tables."""


def read_sql(name: str) -> str:
    """Return the text of a file: a script of one or more statements."""
    return (files(__name__) / f"{name}.sql").read_text(encoding="utf-8")

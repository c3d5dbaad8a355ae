"""Record the statements that run through a database, and count, list and explain them."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.db.database import StoreDatabase

__all__ = ["AssertNumQueries", "Queries", "Query", "explain", "recorded"]

_BETWEEN = {
    "myloware_store",
    "peewee",
    "playhouse",
    "contextlib",
    "concurrent",
    "threading",
    __name__.partition(".")[0],
}
"""Packages between the code under test and its statements."""

_HERE = f"{Path.cwd()}{os.sep}"

_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


@attrs.frozen
class Query:
    """One statement.

    Attributes:
        sql: Its text, with placeholders.
        params: Their values.
        seconds: How long it took, including the round trip.
        place: The file and line that sent it, outside of this library and Peewee; empty if unknown.
    """

    sql: str
    params: Any
    seconds: float
    place: str = ""

    def __str__(self) -> str:
        text = f"{self.seconds * 1e3:.2f} ms: {' '.join(self.sql.split())}"
        return f"{text}  ({self.place})" if self.place else text


@attrs.define
class Queries:
    """The statements of a block in order, without those that begin and end transactions.

    Attributes:
        database: The database they ran on.
        statements: The statements.
    """

    database: StoreDatabase
    statements: list[Query] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self.statements)

    @property
    def slowest(self) -> Query | None:
        """The statement that took longest."""
        return max(self.statements, key=lambda query: query.seconds, default=None)

    @property
    def repeated(self) -> dict[str, int]:
        """The texts that ran more than once, and how often: a high number is the sign of an N+1."""
        return {sql: count for sql, count in Counter(query.sql for query in self.statements).most_common() if count > 1}

    def explain(self, query: Query | None = None) -> str:
        """Return PostgreSQL's plan of a statement, by default of the slowest, without running it again.

        Raises:
            StoreError: PostgreSQL cannot explain it.
        """
        query = query or self.slowest
        return "\n".join(explain(self.database, query)) if query else ""

    def describe(self) -> str:
        """List the statements, the repeated ones first."""
        lines = [f"  {count} times: {' '.join(sql.split())}" for sql, count in self.repeated.items()]
        lines += [f"  {query}" for query in self.statements]
        return "\n".join(lines)


class AssertNumQueries:
    """Counts the statements of a block, and fails the test if the number differs.

    Call it with the exact number, or with `max=`; the `with` statement returns the `Queries`.
    """

    def __init__(self, database: StoreDatabase) -> None:
        self._database = database

    @contextmanager
    def __call__(self, exact: int | None = None, *, max: int | None = None) -> Iterator[Queries]:  # noqa: A002  reads best
        """Count the statements of the block.

        Args:
            exact: The number of statements.
            max: The most statements allowed.
        """
        if (exact is None) == (max is None):
            raise TypeError("myloware_assert_num_queries takes the exact number, or max=")
        block = _caller()
        with recorded(self._database) as queries:
            yield queries
        if (exact is not None and len(queries) != exact) or (max is not None and len(queries) > max):
            number = exact if max is None else max
            wanted = f"{'' if max is None else 'at most '}{number} statement{'' if number == 1 else 's'}"
            message = f"{block}: {wanted} expected, {len(queries)} ran"
            pytest.fail(f"{message}:\n{queries.describe()}" if queries.statements else message, pytrace=False)


@contextmanager
def recorded(database: StoreDatabase) -> Iterator[Queries]:
    """Record the statements that run through a database, in any thread, while the block runs."""
    queries = Queries(database)

    def note(event: Any) -> None:
        if not event.sql.startswith(_CONTROL):
            queries.statements.append(Query(event.sql.strip(), event.params, event.duration, _caller()))

    database.query_hooks.append(note)
    try:
        yield queries
    finally:
        database.query_hooks.remove(note)


def explain(database: StoreDatabase, query: Query) -> list[str]:
    """Return the lines of a statement's plan."""
    return [line for (line,) in database.execute_sql(f"EXPLAIN {query.sql}", query.params)]


def _caller() -> str:
    """Return the file and line that called the library; empty in a thread that began in the library."""
    frame = sys._getframe(1)  # noqa: SLF001  `inspect.stack` reads the sources of every frame
    while frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        if frame.f_back is None:
            return ""
        frame = frame.f_back
    return f"{frame.f_code.co_filename.removeprefix(_HERE)}:{frame.f_lineno}"

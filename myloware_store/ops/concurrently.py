"""Statements on indexes that PostgreSQL refuses inside a transaction, such as CREATE INDEX CONCURRENTLY."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from myloware_store.core.errors import MigrationError

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

__all__ = ["is_concurrent", "run_concurrently"]

_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_STATEMENT = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?P<verb>CREATE(?:\s+UNIQUE)?\s+INDEX|DROP\s+INDEX|REINDEX(?:\s*\(.*?\))?\s+\w+)"
    rf"\s+CONCURRENTLY\b(?:\s+IF\s+NOT\s+EXISTS\b)?(?:(?!\s+ON\b)\s+(?P<name>{_NAME}(?:\.{_NAME})?))?",
    re.IGNORECASE | re.DOTALL,
)

_CARRIED = """
SELECT name, CASE name WHEN 'lock_timeout' THEN '0' ELSE setting END FROM pg_settings
WHERE source = 'session' AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
"""
_BEGUN = """
SELECT pg_current_xact_id_if_assigned() IS NOT NULL
    OR EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384)
"""
_INVALID = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid"


def is_concurrent(sql: str) -> bool:
    """Return whether a statement is CREATE INDEX, DROP INDEX or REINDEX with CONCURRENTLY."""
    return _STATEMENT.match(sql) is not None


def run_concurrently(sql: str, params: Any, transaction: cursor, outside: cursor) -> None:
    """Run such a statement beside an open transaction, under the transaction's settings.

    An invalid index that an earlier CREATE INDEX CONCURRENTLY has left is dropped first. There is no lock time-out: the
    statement waits for older transactions, but nobody's reads or writes wait for it.

    Args:
        sql: The statement.
        params: Its parameters.
        transaction: A cursor of the migration's connection.
        outside: A cursor of a second connection, in autocommit mode.

    Raises:
        MigrationError: The transaction has run other statements before, or the index to create has no name.
    """
    statement = _STATEMENT.match(sql)
    creates = statement is not None and statement["verb"].upper().startswith("CREATE")
    if statement is None or (creates and statement["name"] is None):
        raise MigrationError("name the index of CREATE INDEX CONCURRENTLY, so that an invalid one can be found again")
    transaction.execute(_BEGUN)
    if transaction.fetchone() != (False,):
        raise MigrationError(
            "in a migration, CONCURRENTLY stands before all other statements (but SET LOCAL), because it is not undone"
            " with them: move it to the beginning, or to a file of its own"
        )
    transaction.execute(_CARRIED)
    for name, setting in transaction.fetchall():
        outside.execute("SELECT set_config(%s, %s, false)", (name, setting))
    if creates:
        outside.execute(_INVALID, (statement["name"],))
        if outside.fetchone():
            outside.execute(f"DROP INDEX CONCURRENTLY {statement['name']}")
    outside.execute(sql, params)

"""Statements on indexes that PostgreSQL refuses inside a transaction, such as CREATE INDEX CONCURRENTLY."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from myloware_store.core.errors import MigrationError

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

__all__ = ["is_concurrent", "run_concurrently"]

_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_BLANK = r"(?>\s|--[^\n]*\n|/\*.*?\*/)"
_STATEMENT = re.compile(
    rf"{_BLANK}*+(?P<verb>CREATE(?:\s+UNIQUE)?\s+INDEX|DROP\s+INDEX|REINDEX(?:\s*\(.*?\))?\s+\w+)\s+CONCURRENTLY\b"
    rf"(?:\s+IF\s+NOT\s+EXISTS\b)?(?:{_BLANK}++(?!ON\b)(?P<name>{_NAME}))?"
    rf"(?:{_BLANK}++ON{_BLANK}++(?:ONLY{_BLANK}++)?(?P<table>{_NAME}(?:\.{_NAME})*))?",
    re.IGNORECASE | re.DOTALL,
)

# The role comes last: it may not be allowed to change the other settings.
_CARRIED = """
SELECT name, CASE name WHEN 'lock_timeout' THEN '0' ELSE setting END FROM pg_settings
WHERE source = 'session' AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
UNION ALL SELECT 'role', current_setting('role')
"""
_BEGUN = """
SELECT pg_current_xact_id_if_assigned() IS NOT NULL
    OR EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384)
"""
_INVALID = """
SELECT x.indexrelid::regclass::text, p.pid IS NOT NULL
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
LEFT JOIN pg_stat_progress_create_index AS p ON p.index_relid = x.indexrelid
WHERE x.indrelid = to_regclass(%s) AND i.relname = (parse_ident(%s))[1]::name AND NOT x.indisvalid
"""
_TRY_LATER = "DO $$ BEGIN RAISE lock_not_available; END $$"


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
        outside.execute(_INVALID, (statement["table"], statement["name"]))
        for index, is_being_built in outside.fetchall():
            if is_being_built:  # by another session: each would wait for the other
                outside.execute(_TRY_LATER)
            outside.execute(f"DROP INDEX CONCURRENTLY {index}")
    outside.execute(sql, params)

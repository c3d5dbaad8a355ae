"""Statements: which may have stored something."""

from __future__ import annotations

import pytest
from psycopg2.sql import SQL

from myloware_store.db.statements import may_store


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "t1"."id", "t1"."updated_at" FROM "work_items" AS "t1" WHERE ("t1"."id" = %s)',
        "SELECT id FROM x FOR UPDATE",
        "SELECT id FROM x FOR NO KEY UPDATE;",
        "(SELECT 1) UNION (SELECT 2)",
        "\n  with q as (select 1) select * from q",
        "VALUES (1)",
        "TABLE x",
        "EXPLAIN SELECT 1",
        "BEGIN",
        "ROLLBACK",
        "COPY (SELECT 1) TO STDOUT",
        "FETCH",
    ],
)
def test_a_read_stores_nothing(sql: str) -> None:
    """Neither by itself nor in a transaction."""
    assert [False, False] == [may_store(sql, in_transaction=inside) for inside in (False, True)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO x VALUES (1)",
        "  update x set a = 1",
        "WITH q AS (DELETE FROM x RETURNING a) SELECT * FROM q",
        "EXPLAIN ANALYZE INSERT INTO x VALUES (1)",
        "SELECT 1 AS a INTO y",
        "COPY x FROM STDIN",
        "CREATE TABLE x (a int)",
        "CALL do_something()",
        "DO $$ BEGIN END $$",
        "/* SELECT */ TRUNCATE x",
        "SELECT 1; TRUNCATE x",
        "",
    ],
)
def test_a_write_stores_where_no_transaction_is_open(sql: str) -> None:
    """Inside one, nothing is stored before the COMMIT."""
    assert [True, False] == [may_store(sql, in_transaction=inside) for inside in (False, True)]


@pytest.mark.parametrize("sql", ["COMMIT", " commit and chain", "END", "PREPARE TRANSACTION 'x'", "SELECT 1; COMMIT"])
def test_a_commit_stores_in_either_case(sql: str) -> None:
    """Whoever sends it."""
    assert [True, True] == [may_store(sql, in_transaction=inside) for inside in (False, True)]


def test_composed_sql_is_not_looked_into_for_writes_either() -> None:
    """Outside of a transaction it may have stored something."""
    assert [True, False] == [may_store(SQL("SELECT 1"), in_transaction=inside) for inside in (False, True)]

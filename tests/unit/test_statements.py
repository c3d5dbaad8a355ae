"""Statements: which may leave something in their session, or in the database."""

from __future__ import annotations

import pytest
from psycopg2.sql import SQL

from myloware_store.db.statements import may_store, touches_session


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "t1"."id" FROM "work_items" AS "t1" WHERE ("t1"."id" = %s)',
        "INSERT INTO x (a) VALUES (%s) RETURNING id;",
        "UPDATE x SET a = 1",
        "  with q as (select 1) select * from q",
        "BEGIN",
        "COMMIT",
        "ROLLBACK TO SAVEPOINT s1;",
        "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET LOCAL ivfflat.probes = 10",
        "SET TRANSACTION READ ONLY",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_xact_lock(1)",
        "SELECT set_config('app.tenant', %s, true)",
        "CREATE TABLE x (a int)",
        "VACUUM x",
        "SELECT * FROM x " + "-- " + "x" * 5000,
    ],
)
def test_what_ends_with_its_transaction_costs_no_cleaning(sql: str) -> None:
    """Ordinary statements leave their session as it was."""
    assert not touches_session(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SET work_mem = '1GB'",
        "set session characteristics as transaction read only",
        "/* SELECT */ SET x = 1",
        "-- SELECT\nSET x = 1",
        "SELECT 1; SET work_mem = '1GB'",
        "SELECT set_config('work_mem', '1GB', false)",
        "SELECT pg_catalog.set_config(%s, %s, %s)",
        "WITH q AS (SELECT pg_advisory_lock(1)) SELECT * FROM q",
        "SELECT pg_try_advisory_lock_shared(1)",
        "CREATE TEMP TABLE x (a int)",
        "CREATE LOCAL TEMPORARY VIEW x AS SELECT 1",
        "SELECT 1 INTO TEMP x",
        "CREATE TABLE pg_temp.x (a int)",
        "LISTEN x",
        "PREPARE x AS SELECT 1",
        "DECLARE x CURSOR WITH HOLD FOR SELECT 1",
        "DO $$ BEGIN PERFORM set_config('work_mem', '1GB', false); END $$",
        "CALL do_something()",
        "LOAD 'auto_explain'",
        "RESET ALL",
        "SELECT setseed(0.5)",
        "SELECT U&\"\\0073et_config\"('work_mem', '1GB', false)",
        "SELECT '" + "x" * 5000 + "'; SET x = 1",
        "",
    ],
)
def test_what_may_stay_in_the_session_is_noticed(sql: str) -> None:
    """Settings, session locks, temporary objects, listeners and unknown commands are cleaned up."""
    assert touches_session(sql)


def test_a_statement_that_is_not_text_is_not_trusted() -> None:
    """Composed SQL is not looked into."""
    assert touches_session(SQL("SELECT 1"))


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

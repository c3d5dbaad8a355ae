"""Changes that a restore undoes, and changes that need a new copy."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.embedded import EmbeddedServer as Server
    from tests.plugin.conftest import Subject

SCHEMA = """
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE plain (id serial PRIMARY KEY, mood mood);
    INSERT INTO plain (mood) VALUES ('sad'), ('ok');
    CREATE TABLE empty_row ();
    INSERT INTO empty_row DEFAULT VALUES;
    CREATE TABLE heir (id int) INHERITS (empty_row);
    CREATE TABLE echoed (id int PRIMARY KEY);
    CREATE TABLE echo (id int);
    CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO echo VALUES (NEW.id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER echo AFTER INSERT ON echoed FOR EACH ROW EXECUTE FUNCTION echo();
    ALTER TABLE echoed ENABLE ALWAYS TRIGGER echo;
    INSERT INTO echoed VALUES (1);
    CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM plain;
    CREATE TABLE wide (id int, next json, ended int, baseline int, PRIMARY KEY (id) INCLUDE (ended));
    INSERT INTO wide VALUES (1, '{}', NULL, 5), (2, NULL, 1, 6);
    CREATE TABLE "a$body$b" (id int PRIMARY KEY);
    CREATE TABLE ruled (id int);
    CREATE RULE echo AS ON INSERT TO ruled DO ALSO INSERT INTO echo VALUES (NEW.id);
    ALTER TABLE ruled ENABLE ALWAYS RULE echo;
    INSERT INTO ruled VALUES (1);
    SELECT lo_from_bytea(4711, 'one'), lo_from_bytea(4712, 'two');
    GRANT ALL ON plain TO pg_monitor;
    GRANT ALL ON plain_id_seq TO pg_monitor;
    """

DDL = (
    "CREATE TABLE made (id int)",
    "ALTER TABLE plain ADD COLUMN extra int",
    "ALTER TYPE mood ADD VALUE 'happy'",
    "DROP TABLE echo CASCADE",
    "DROP TABLE plain CASCADE",
    "DROP SCHEMA public CASCADE",
    "DROP FUNCTION echo CASCADE",
    "CREATE EXTENSION vector",
    "CREATE SCHEMA other",
    "GRANT SELECT ON echo TO PUBLIC",
    "COMMENT ON TABLE plain IS 'changed'",
    "ALTER SEQUENCE plain_id_seq RESTART 90",
    "REFRESH MATERIALIZED VIEW totals",
    "ALTER TABLE plain DISABLE TRIGGER ALL",
    "CREATE INDEX ON plain (mood)",
    "SELECT lo_create(0)",
    "SELECT lo_put(4711, 0, 'other')",
    "SELECT lo_unlink(4711), lo_from_bytea(4711, 'other')",
    "SELECT lo_unlink(4712)",
    "ALTER TABLE ruled DISABLE RULE echo",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''1MB''', current_database()); END $$",
    "INSERT INTO empty_row DEFAULT VALUES",
    "DELETE FROM heir",
    "DELETE FROM echoed",
    "DELETE FROM ruled",
    "TRUNCATE myloware_test.copy_1, plain",
)

ROWS = (
    "CREATE TEMPORARY TABLE plain (id int)",
    "CREATE TEMPORARY TABLE made AS SELECT 1 AS one",
    "CREATE TEMPORARY TABLE made (id int PRIMARY KEY); CREATE INDEX ON made (id); DROP TABLE made",
    "INSERT INTO plain (mood) VALUES ('ok')",
    "TRUNCATE plain RESTART IDENTITY",
    "SELECT setval('plain_id_seq', 77)",
    "BEGIN; CREATE TEMPORARY VIEW seen AS SELECT 1; COMMIT",
    "ANALYZE plain",
    "VACUUM FULL plain",
    "SET session_replication_role = replica; DELETE FROM plain",
    "LISTEN told; NOTIFY told",
    "SELECT pg_advisory_lock(1)",
)


@pytest.fixture(scope="module")
def subject(make_subject: Callable[[str], Subject]) -> Subject:
    """Return a database with a few tables, some of which cannot be restored."""
    return make_subject(SCHEMA)


@pytest.mark.parametrize("statement", DDL)
def test_needs_a_new_copy(subject: Subject, statement: str) -> None:
    """A change that restoring rows does not undo exactly needs a new copy."""
    remade = subject.slot.remade

    subject.execute(statement)
    subject.check()

    assert remade + 1 == subject.slot.remade


@pytest.mark.parametrize("statement", ROWS)
def test_put_back(subject: Subject, statement: str) -> None:
    """Rows, sequences and session state need no new copy."""
    remade = subject.slot.remade

    subject.execute(*statement.split("; "))
    subject.check()

    assert remade == subject.slot.remade


def test_prepared_transaction(subject: Subject) -> None:
    """A prepared transaction is rolled back; its locks would keep the database from being dropped."""
    remade = subject.slot.remade

    subject.execute("BEGIN", "DELETE FROM plain", "PREPARE TRANSACTION 'left'")
    subject.check()

    assert remade + 1 == subject.slot.remade


def test_index_that_was_not_finished(subject: Subject) -> None:
    """A concurrent build that fails leaves an invalid index, and fires no event trigger."""
    remade = subject.slot.remade

    with pytest.raises(psycopg2.errors.UniqueViolation):
        subject.execute("CREATE UNIQUE INDEX CONCURRENTLY left_over ON plain ((true))")
    subject.check()

    assert remade + 1 == subject.slot.remade


def test_type_can_be_dropped(subject: Subject) -> None:
    """The copies do not prevent a type from being dropped; a rollback of the drop brings them back."""
    with closing(psycopg2.connect(subject.slot.url)) as connection, connection.cursor() as run:
        run.execute("SET LOCAL ROLE pg_monitor")
        run.execute("INSERT INTO plain (mood) VALUES ('ok')")
        run.execute("RESET ROLE")
        run.execute("DROP TABLE plain CASCADE")
        run.execute("DROP TYPE mood")
        connection.rollback()
        run.execute("SELECT count(*) FROM myloware_test.copy_1")
        assert [(2,)] == run.fetchall()
    subject.check()


def test_plain_role_writes_and_marks(subject: Subject) -> None:
    """Writes by a role without rights on the markers are noticed."""
    remade = subject.slot.remade

    with closing(psycopg2.connect(subject.slot.url)) as connection, connection, connection.cursor() as run:
        run.execute("SET ROLE pg_monitor")
        run.execute("DELETE FROM plain")
    subject.check()

    assert remade == subject.slot.remade


def test_many_restores(subject: Subject) -> None:
    """Dead rows of restores are vacuumed: the table does not grow."""
    for _ in range(250):
        subject.execute("UPDATE plain SET mood = 'sad'")
        subject.slot.end()
        subject.slot.begin()

    with closing(psycopg2.connect(subject.slot.url)) as connection, connection.cursor() as run:
        run.execute("SELECT pg_relation_size('plain')")
        assert run.fetchall()[0][0] <= 4 * 8192
    subject.check()


def test_database_that_is_gone(subject: Subject, myloware_server: Server) -> None:
    """After a test that drops its own database, the next one gets a new one."""
    with closing(psycopg2.connect(myloware_server.url("postgres"))) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute(f"DROP DATABASE {subject.slot.name} WITH (FORCE)")

    subject.check()

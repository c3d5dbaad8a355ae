"""CREATE INDEX CONCURRENTLY in a migration: outside of its transaction, repeatable, and mended after a failure."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store.core.errors import MigrationError
from myloware_store.db.database import StoreDatabase
from myloware_store.ops.concurrently import is_concurrent
from myloware_store.ops.migrate import Limits, migrate, rollback, status
from tests.conftest import on_one_server

if TYPE_CHECKING:
    from pathlib import Path

    from myloware_store.settings import Settings

Folder = Any
BUILD = "migrator.sql('CREATE INDEX CONCURRENTLY by_agent ON attempts (agent_id)')"
FORM = "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = to_regclass('by_agent')"


def built(database: StoreDatabase) -> list[tuple[bool, bool]]:
    """Return whether the index by_agent is valid and unique, if it exists."""
    rows: list[tuple[bool, bool]] = database.execute_sql(FORM).fetchall()
    return rows


def test_an_index_is_built_while_a_writer_holds_the_table(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """`migrator.sql` runs it outside of the transaction; it waits for old writers, beyond the lock time-out."""
    migrate(settings)
    place = folder(_902_index=BUILD)
    with closing(psycopg2.connect(**settings.connect_kwargs())) as writer, writer.cursor() as run:
        run.execute("LOCK TABLE attempts IN ROW EXCLUSIVE MODE")
        migrating = threading.Thread(
            target=migrate, args=(settings,), kwargs={"directory": place, "limits": Limits(lock_timeout=0.1)}
        )
        migrating.start()
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX%%'"
        end = time.monotonic() + 60
        while not database.execute_sql(waits).fetchall():
            assert time.monotonic() < end
            assert migrating.is_alive()
        time.sleep(0.3)  # longer than the lock time-out
        run.execute("INSERT INTO work_orders (tenant_id, created_by) VALUES ('t', 'w')")  # nothing else waits
        writer.commit()
        migrating.join()

    assert [(True, False)] == built(database)
    assert status(settings, directory=place).current


@on_one_server
def test_an_invalid_leftover_is_built_again(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """A unique index over duplicates leaves an invalid one; after they are removed, the next run mends it."""
    place = folder(
        _902_table="migrator.sql('CREATE TABLE agents (name text)')",
        _903_index="migrator.sql('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS by_agent ON agents (name)')",
    )
    migrate(settings, directory=place, to="902_table")
    database.execute_sql("INSERT INTO agents VALUES ('a'), ('a')")

    with pytest.raises(MigrationError, match=r"903_index failed: .*by_agent"):
        migrate(settings, directory=place)
    assert [(False, True)] == built(database)
    assert ("903_index",) == status(settings, directory=place).pending

    database.execute_sql("DELETE FROM agents WHERE ctid = (SELECT min(ctid) FROM agents)")
    assert ("903_index",) == migrate(settings, directory=place).applied
    assert [(True, True)] == built(database)


@on_one_server
def test_one_that_was_built_before_is_kept(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """After a kill between the index and its record, or if it was built by hand, IF NOT EXISTS accepts a valid one."""
    place = folder(_902_index=BUILD.replace("CONCURRENTLY", "CONCURRENTLY IF NOT EXISTS"))
    migrate(settings)
    database.execute_sql("CREATE INDEX by_agent ON attempts (agent_id)")
    (before,) = database.execute_sql("SELECT 'by_agent'::regclass::oid").fetchone()

    assert ("902_index",) == migrate(settings, directory=place).applied
    assert (before,) == database.execute_sql("SELECT 'by_agent'::regclass::oid").fetchone()


@on_one_server
def test_without_if_not_exists_a_valid_one_is_refused(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """As PostgreSQL does."""
    migrate(settings)
    database.execute_sql("CREATE INDEX by_agent ON attempts (id)")

    with pytest.raises(MigrationError, match="by_agent"):
        migrate(settings, directory=folder(_902_index=BUILD))
    assert [(True, False)] == built(database)


@on_one_server
def test_it_stands_before_everything_else(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """After other statements it would wait for its own migration for ever, or outlive its rollback."""
    place = folder(_902_both=f"migrator.sql('ALTER TABLE attempts ADD COLUMN extra int')\n{BUILD}")

    with pytest.raises(MigrationError, match=r"902_both failed: .*CONCURRENTLY.* before all other statements"):
        migrate(settings, directory=place)
    assert [] == built(database)
    assert [] == database.execute_sql("SELECT 1 FROM pg_attribute WHERE attname = 'extra'").fetchall()


@on_one_server
def test_others_may_follow_and_settings_precede(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """The index takes the settings of the migration's transaction, and the rest commits with its record."""
    place = folder(
        _902_table="migrator.sql('CREATE TABLE agents (name text NOT NULL)')",
        _903_key="migrator.sql(\"SET LOCAL default_tablespace = ''\")\n"
        "migrator.sql(\"SET LOCAL statement_timeout = '1h'\")\n"
        "migrator.sql('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS by_agent ON agents (name)')\n"
        "migrator.sql('ALTER TABLE agents ADD CONSTRAINT agents_key UNIQUE USING INDEX by_agent')",
    )

    migrate(settings, directory=place)
    (constraint,) = database.execute_sql("SELECT contype FROM pg_constraint WHERE conname = 'agents_key'").fetchone()
    assert "u" == constraint


@on_one_server
def test_a_rollback_drops_it_concurrently(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """DROP INDEX CONCURRENTLY has the same place in a rollback."""
    place: Path = folder(_902_index=BUILD)
    with (place / "902_index.py").open("a") as file:
        file.write(
            "def rollback(migrator, database, *, fake=False):\n"
            "    migrator.sql('DROP INDEX CONCURRENTLY IF EXISTS by_agent')\n"
        )
    migrate(settings, directory=place)
    assert [(True, False)] == built(database)

    rollback(settings, directory=place)
    assert [] == built(database)


@on_one_server
def test_one_without_a_name_is_refused(settings: Settings, folder: Folder) -> None:
    """Its leftover could not be recognised."""
    place = folder(_902_index="migrator.sql('CREATE INDEX CONCURRENTLY ON attempts (agent_id)')")

    with pytest.raises(MigrationError, match="name the index"):
        migrate(settings, directory=place)


@on_one_server
def test_a_percent_sign_that_is_not_doubled_is_explained(settings: Settings, folder: Folder) -> None:
    """As in every other statement."""
    with pytest.raises(MigrationError, match=r"902_index failed: .*'%%'"):
        migrate(settings, directory=folder(_902_index=BUILD.replace("(agent_id)", "(agent_id) WHERE 5 % 2 = 1")))


@on_one_server
def test_names_are_read_as_postgresql_reads_them(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """Quoted and qualified names, comments before the statement, and another schema on the search path."""
    place = folder(
        _902_index="migrator.sql('-- why\\n/* and */ CREATE INDEX CONCURRENTLY \"By agent\" ON public.attempts (id)')",
        _903_index="migrator.sql('drop index concurrently public.\"By agent\"')",
    )

    migrate(settings, directory=place, to="902_index")
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = '\"By agent\"'::regclass"
    assert [(True,)] == database.execute_sql(valid).fetchall()
    migrate(settings, directory=place)
    assert (None,) == database.execute_sql("SELECT to_regclass('\"By agent\"')").fetchone()


@on_one_server
def test_a_leftover_is_found_in_the_schema_of_its_table(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """Outside of the search path, IF NOT EXISTS would take the invalid index for the one to build."""
    place = folder(_902_index="migrator.sql('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one ON other.t (x)')")
    migrate(settings)
    database.execute_sql("CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 1 AS x FROM generate_series(1, 2)")
    with pytest.raises(MigrationError, match="one"):
        migrate(settings, directory=place)
    database.execute_sql("DELETE FROM other.t WHERE ctid = (SELECT min(ctid) FROM other.t)")

    migrate(settings, directory=place)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'other.one'::regclass"
    assert [(True,)] == database.execute_sql(valid).fetchall()


@on_one_server
def test_what_someone_else_is_building_is_not_dropped(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """Both would wait for each other, and the server would end one; so try again later, as if a table were in use."""
    migrate(settings)
    with closing(psycopg2.connect(**settings.connect_kwargs())) as writer, writer.cursor() as run:
        run.execute("LOCK TABLE attempts IN ROW EXCLUSIVE MODE")
        building = threading.Thread(
            target=database.execute_sql, args=("CREATE INDEX CONCURRENTLY by_agent ON attempts (agent_id)",)
        )
        building.start()
        observer = StoreDatabase(settings)
        while not built(observer):
            assert building.is_alive()
        place = folder(_902_index=BUILD.replace("CONCURRENTLY", "CONCURRENTLY IF NOT EXISTS"))
        with pytest.raises(MigrationError, match=r"902_index failed: .*in use"):
            migrate(settings, directory=place, limits=Limits(wait=0))
        writer.rollback()
        building.join()

    assert [(True, False)] == built(observer)
    observer.close_all()
    assert ("902_index",) == migrate(settings, directory=place).applied


@on_one_server
def test_it_is_run_by_the_role_of_the_transaction(settings: Settings, folder: Folder) -> None:
    """SET LOCAL ROLE holds for it as other settings do."""
    migrate(settings)

    with pytest.raises(MigrationError, match="must be owner of table attempts"):
        migrate(settings, directory=folder(_902_index=f"migrator.sql('SET LOCAL ROLE pg_monitor')\n{BUILD}"))


def test_many_comments_are_skipped_at_once() -> None:
    """Each might end at the end of any later one: there are 2**50 ways to read them."""
    comments = "/* a */\n" * 50

    assert is_concurrent(f"{comments}DROP INDEX CONCURRENTLY i")
    assert not is_concurrent(f"{comments}SELECT 1")
    assert not is_concurrent("/* a */ SELECT '*/ DROP INDEX CONCURRENTLY i'")

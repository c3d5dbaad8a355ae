"""`migrate`, `rollback`, `reset` and `status`: one at a time, all or nothing, never on a database they do not know."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest

from myloware_store import MemDoc, Store
from myloware_store.core.errors import (
    ConnectionFailed,
    InvalidInput,
    MigrationError,
    MissingExtension,
    SchemaMismatch,
    SettingsError,
    StoreError,
)
from myloware_store.core.vectors import DIMENSIONS
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.catalog import expected_catalog, read_catalog
from myloware_store.ops.concurrently import is_concurrent
from myloware_store.ops.drift import drift
from myloware_store.ops.migrate import (
    Limits,
    MigrationReport,
    MigrationStatus,
    migrate,
    migrations_path,
    require_current,
    reset,
    rollback,
    status,
)
from myloware_store.ops.migration_database import MigrationDatabase, require_supported
from myloware_store.ops.validate import validate
from myloware_store.seed import seed
from myloware_store.settings import Settings
from tests.conftest import OURS, on_one_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


Connect = Any
Folder = Any

QUICK = Limits(wait=0.2, lock_timeout=0.2, statement_timeout=5)


def history(database: StoreDatabase) -> list[str]:
    """Return the migrations that are recorded."""
    return [name for (name,) in database.execute_sql("SELECT name FROM myloware_migratehistory ORDER BY id").fetchall()]


def test_migrate_applies_what_is_pending_and_then_nothing(settings: Settings, database: StoreDatabase) -> None:
    """The first call applies, the second finds the database as it should be."""
    assert MigrationReport(settings.target, applied=OURS) == migrate(settings)
    assert MigrationReport(settings.target) == migrate(database)
    assert MigrationStatus(OURS, (), (), ()) == status(database)
    require_current(database)


@on_one_server
def test_a_plan_changes_nothing(settings: Settings, database: StoreDatabase) -> None:
    """`plan` lists pending migrations and leaves an empty database empty."""
    assert OURS == migrate(settings, plan=True).pending
    assert [] == database.get_tables()


@on_one_server
def test_a_database_that_is_not_migrated_is_refused(database: StoreDatabase) -> None:
    """When the store opens a database without our tables, the error names the command to run."""
    with pytest.raises(SchemaMismatch, match=r"is not migrated: run `myloware-store migrate`"):
        require_current(database)


@on_one_server
def test_a_database_that_lacks_a_migration_is_refused(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """The error for a database that is behind names the missing migrations."""
    migrate(settings)

    with pytest.raises(SchemaMismatch, match="lacks 902_adds: run `myloware-store migrate`"):
        require_current(database, directory=folder(_902_adds="pass"))


@on_one_server
@pytest.mark.parametrize("act", [require_current, migrate, rollback])
def test_a_database_newer_than_the_code_is_refused(
    settings: Settings, database: StoreDatabase, act: Callable[[StoreDatabase], object]
) -> None:
    """Nothing opens, migrates or rolls back a database that a newer version has migrated."""
    migrate(settings)
    database.execute_sql("INSERT INTO myloware_migratehistory (name, migrated_at) VALUES ('902_newer', now())")

    with pytest.raises(SchemaMismatch, match=r"902_newer.*upgrade myloware-store"):
        act(database)
    assert [*OURS, "902_newer"] == history(database)


@on_one_server
def test_a_newer_database_that_is_compatible_is_opened(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """While a new version is deployed, services of the old one can be restarted; only the new one migrates."""
    place: Path = folder(_902_expands="migrator.sql('ALTER TABLE runs ADD COLUMN extra int')")
    with (place / "902_expands.py").open("a") as file:
        file.write("BACKWARD_COMPATIBLE = True\n")
    migrate(settings, directory=place)

    with Store.open(settings=settings) as store:
        store.work.submit([{"type": "INVOICE", "content": "text"}])
    assert (("902_expands",), ("902_expands",)) == (status(database).unknown, status(database).compatible)
    with pytest.raises(SchemaMismatch, match=r"902_expands.*upgrade myloware-store"):
        migrate(settings)
    migrate(settings, directory=folder(_903_contracts="migrator.sql('ALTER TABLE runs DROP COLUMN error')"))
    with pytest.raises(SchemaMismatch, match=r"\(903_contracts\).*upgrade myloware-store"):
        Store.open(settings=settings)


@on_one_server
def test_a_migration_edited_after_it_was_applied_is_refused(settings: Settings, folder: Folder) -> None:
    """Further migrations do not run after one that was edited."""
    place: Path = folder()
    migrate(settings, directory=place)
    with (place / "001_initial.py").open("a") as file:
        file.write("# A second thought.\n")

    assert ("001_initial",) == status(settings, directory=place).edited
    with pytest.raises(MigrationError, match="001_initial changed after it was applied"):
        migrate(settings, directory=place)


@on_one_server
def test_line_endings_are_no_edit(settings: Settings, folder: Folder) -> None:
    """A checkout with other line endings holds the same migrations."""
    place: Path = folder()
    migrate(settings, directory=place)
    text = (place / "001_initial.py").read_bytes()
    (place / "001_initial.py").write_bytes(text.replace(b"\n", b"\r\n"))

    assert status(settings, directory=place).current


@on_one_server
def test_a_failing_migration_leaves_nothing_of_itself(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """The one that fails is undone, and named; those before it stay."""
    place = folder(
        _902_adds="migrator.sql('CREATE TABLE added (id int)')",
        _903_fails="migrator.sql('CREATE TABLE half (id int)')\nmigrator.sql('SELECT nonsense')",
    )

    with pytest.raises(
        MigrationError, match=r"903_fails failed: .*nonsense.*; 001_initial, .*902_adds .* applied before"
    ):
        migrate(settings, directory=place)
    assert [*OURS, "902_adds"] == history(database)
    assert not database.table_exists("half")
    assert database.table_exists("added")


@on_one_server
def test_a_migration_that_is_no_python_is_told_in_one_error(settings: Settings, folder: Folder) -> None:
    """A mistake in the file itself is a MigrationError too."""
    with pytest.raises(MigrationError, match="902_typo failed: NameError"):
        migrate(settings, directory=folder(_902_typo="migratr.sql('SELECT 1')"))


@on_one_server
@pytest.mark.parametrize("plan", [False, True])
def test_a_file_without_migrate_is_not_applied(settings: Settings, folder: Folder, *, plan: bool) -> None:
    """peewee-migrate alone records an empty file, such as one that was half written, as applied."""
    place = folder()
    migrate(settings, directory=place)
    (place / "902_empty.py").write_text("")

    with pytest.raises(MigrationError, match=r"902_empty has no migrate\(\)"):
        migrate(settings, directory=place, plan=plan)
    assert ("902_empty",) == status(settings, directory=place).pending


@on_one_server
def test_an_index_is_built_without_blocking_writers(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """CREATE INDEX CONCURRENTLY runs, alone in its file, outside of the transaction, and is recorded."""
    body = (
        "if fake: return\n"
        "database.commit()\n"
        "try: database.execute_sql('CREATE INDEX CONCURRENTLY by_agent ON attempts (agent_id)')\n"
        "finally: database.begin()"
    )
    migrate(settings, directory=(place := folder(_902_index=body)))

    assert [*OURS, "902_index"] == history(database)
    assert status(settings, directory=place).current
    assert "by_agent" in {index.name for index in database.get_indexes("attempts")}


@on_one_server
def test_migrate_stops_at_the_one_that_is_named(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """`to` is the last one that is applied; later ones stay pending."""
    place = folder(_902_adds="migrator.sql('SELECT 1')", _903_more="migrator.sql('SELECT 1')")

    assert (*OURS, "902_adds") == migrate(settings, directory=place, to="902_adds").applied
    assert () == migrate(settings, directory=place, to="902_adds").applied
    assert ("903_more",) == status(settings, directory=place).pending
    assert ("903_more",) == migrate(settings, directory=place, plan=True, to="903_more").pending


@on_one_server
def test_a_name_that_no_migration_has_is_refused(settings: Settings) -> None:
    """A mistyped name is an error that lists the names, before anything is asked of a server."""
    with pytest.raises(InvalidInput, match=r"there is no migration 001_inital in .*; there are: 001_initial"):
        migrate(attrs.evolve(settings, port=1), to="001_inital")


@on_one_server
def test_migrate_to_an_earlier_one_undoes_nothing(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """Going back is a rollback, and is said so."""
    place = folder(_902_adds="migrator.sql('SELECT 1')")
    migrate(settings, directory=place)

    with pytest.raises(MigrationError, match=r"902_adds is applied already: .*`rollback` does"):
        migrate(settings, directory=place, to=OURS[-1])
    assert [*OURS, "902_adds"] == history(database)


@on_one_server
def test_a_new_migration_that_sorts_before_an_applied_one_is_refused(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """Merged from another branch, it would run in another order here than on a new database."""
    migrate(settings, directory=folder(_903_adds="migrator.sql('SELECT 1')"))
    place = folder(_902_late="migrator.sql('SELECT 1')")

    assert ("902_late",) == status(settings, directory=place).late
    with pytest.raises(MigrationError, match="902_late would run after 903_adds"):
        migrate(settings, directory=place)
    with pytest.raises(MigrationError, match="902_late would run after 903_adds"):
        migrate(settings, directory=place, plan=True)
    assert [*OURS, "903_adds"] == history(database)


@on_one_server
def test_a_rollback_of_several_is_refused_before_any_is_undone(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """If one of them has no rollback(), all of them stay."""
    place: Path = folder(_902_adds="migrator.sql('SELECT 1')", _903_more="migrator.sql('SELECT 1')")
    with (place / "903_more.py").open("a") as file:
        file.write("def rollback(migrator, database, *, fake=False):\n    migrator.sql('SELECT 2')\n")
    migrate(settings, directory=place)

    with pytest.raises(MigrationError, match=r"902_adds has no rollback\(\)"):
        rollback(settings, directory=place, count=2)
    assert [*OURS, "902_adds", "903_more"] == history(database)


@on_one_server
def test_a_migration_that_does_not_get_a_lock_is_tried_again(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """Between the tries it holds nothing, so that others get at the table; once it is free, the migration succeeds."""
    migrate(settings)
    database.execute_sql("CREATE SEQUENCE tries")
    place = folder(
        _902_alters="migrator.sql(\"SELECT nextval('tries')\")\nmigrator.sql('ALTER TABLE runs ADD COLUMN extra int')"
    )
    with database.atomic():
        database.execute_sql("SELECT * FROM runs")
        with ThreadPoolExecutor(1) as pool:
            limits = Limits(wait=30, lock_timeout=0.1)
            migrating = pool.submit(migrate, settings, directory=place, limits=limits)
            end = time.monotonic() + 30
            while database.execute_sql("SELECT last_value < 2 FROM tries").fetchone()[0]:
                assert time.monotonic() < end
            database.rollback()
    assert ("902_alters",) == migrating.result().applied
    assert database.execute_sql("SELECT extra FROM runs").fetchall() == []


@on_one_server
def test_who_gives_up_on_a_lock_names_the_oldest_transaction(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """It is most likely the one that is in the way."""
    migrate(settings)
    with database.atomic():
        database.execute_sql("SELECT * FROM runs")
        (pid,) = database.execute_sql("SELECT pg_backend_pid()").fetchone()
        reason = rf"the oldest is server process {pid} of postgres \(myloware_store, in a transaction since"
        with pytest.raises(MigrationError, match=reason):
            migrate(settings, directory=folder(_902_alters="migrator.sql('DROP TABLE runs')"), limits=QUICK)


@on_one_server
def test_a_plan_has_the_sql(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """Statements with their parameters, Peewee's operations, and a note where rows decide; nothing is run."""
    place = folder(
        _902_adds="migrator.sql('SELECT 100 %% 7')\nmigrator.sql(\"SELECT %s, 'ü'\", \"it's\")",
        _903_reads="for row in database.execute_sql('SELECT 1'): migrator.sql('SELECT 2')\nmigrator.sql('SELECT 3')",
        _904_needs="database.execute_sql('SELECT 1').fetchone()[0]\nmigrator.sql('SELECT 2')",
        _905_names="database.execute_sql('SELECT %(n)s, %(names)s, 9 %% 2', {'n': 1, 'names': ['€']})",
    )
    migrate(settings, directory=place, to=OURS[-1])
    adds, reads, needs, names = migrate(settings, directory=place, plan=True).planned

    assert ("902_adds", ("SELECT 100 % 7", "SELECT 'it''s', 'ü'"), None) == attrs.astuple(adds)
    assert ("SELECT 1", "SELECT 3") == reads.statements
    assert "it reads the database, so that its statements may be others" == reads.note
    assert ("SELECT 1",) == needs.statements
    assert str(needs.note).startswith("it cannot be shown further without a database: TypeError")
    assert ("SELECT 1, ARRAY['€'], 9 % 2",) == names.statements
    assert [*OURS] == history(database)


def test_the_plan_of_everything_is_what_runs(settings: Settings, connect: Connect, empty_database: str) -> None:
    """The statements of the plan, run by hand, give the schema that `migrate` gives."""
    planned = migrate(settings, plan=True).planned
    by_hand = connect(settings)
    for one in planned:
        # What is built CONCURRENTLY has a migration of its own.
        with nullcontext() if any(map(is_concurrent, one.statements)) else by_hand.atomic():
            for statement in one.statements:
                by_hand.execute_sql(statement.replace("%", "%%"))

    assert dict(expected_catalog()) == read_catalog(by_hand)


def test_a_standby_is_not_migrated(reachable_tmp: Path) -> None:
    """On a read-only copy of another server, the error says to migrate its primary."""
    home = reachable_tmp / f"standby-{uuid.uuid4().hex[:8]}"
    with EmbeddedServer(home) as server:
        signal = server.data_dir / "standby.signal"
    signal.touch()
    shutil.chown(signal, signal.parent.owner())
    with EmbeddedServer(home) as server:
        settings = Settings.load(server.url("postgres"), environ={}, dotenv=None)
        with pytest.raises(MigrationError, match="read-only standby: migrate its primary"):
            migrate(settings)
        assert migrate(settings, plan=True).obstacle == "the server is a read-only standby: migrate its primary"


@on_one_server
def test_rollback_undoes_the_last_ones_in_turn(settings: Settings, database: StoreDatabase, folder: Folder) -> None:
    """As many as asked for are undone, the last one first."""
    place: Path = folder(_902_adds="migrator.sql('CREATE TABLE added (id int)')")
    with (place / "902_adds.py").open("a") as file:
        file.write("def rollback(migrator, database, *, fake=False):\n    migrator.sql('DROP TABLE added')\n")
    migrate(settings, directory=place)

    assert ("902_adds",) == rollback(settings, directory=place)
    assert [*OURS] == history(database)
    assert not database.table_exists("added")


@on_one_server
def test_rollback_refuses_more_than_there_is(settings: Settings, database: StoreDatabase) -> None:
    """If fewer are applied, none is undone."""
    migrate(settings)

    with pytest.raises(MigrationError, match=f"cannot undo {len(OURS) + 1}: {len(OURS)} are applied"):
        rollback(settings, count=len(OURS) + 1)
    assert [*OURS] == history(database)


@on_one_server
@pytest.mark.parametrize("count", [0, -1, "1", True, 1.0, None])
def test_rollback_refuses_a_count_that_is_none(settings: Settings, count: Any) -> None:
    """A count that makes no sense is refused before anything is asked of a server."""
    with pytest.raises(InvalidInput, match="count must be a whole number, 1 or more"):
        rollback(attrs.evolve(settings, port=1), count=count)


@pytest.mark.parametrize("act", [migrate, rollback, reset, status])
@pytest.mark.parametrize("target", ["postgresql://u:hunter2@h/x", None, 5])
def test_a_target_that_is_no_database_is_refused(act: Callable[..., object], target: object) -> None:
    """The error for a URL names its type and does not show it."""
    with pytest.raises(InvalidInput, match="target must be Settings or a StoreDatabase, not") as caught:
        act(target)
    assert "hunter2" not in str(caught.value)


@on_one_server
@pytest.mark.parametrize("act", [migrate, rollback, reset])
def test_limits_of_another_type_are_refused(settings: Settings, act: Callable[..., object]) -> None:
    """Limits are Limits."""
    with pytest.raises(InvalidInput, match="limits must be Limits, not int"):
        act(attrs.evolve(settings, port=1), limits=5)


@on_one_server
@pytest.mark.parametrize("act", [migrate, rollback, reset, status])
def test_a_directory_is_a_path_or_its_text(settings: Settings, act: Callable[..., object], tmp_path: Path) -> None:
    """A folder may be given as text; other values are refused before any connection."""
    for bad in (5, b"migrations"):
        with pytest.raises(InvalidInput, match="directory must be a path, not"):
            act(attrs.evolve(settings, port=1), directory=bad)
    for wrong in (str(tmp_path), "/no/such/folder", "x" * 5000, "nul\0"):
        with pytest.raises(MigrationError, match="there is no migration in") as caught:
            act(attrs.evolve(settings, port=1), directory=wrong)
        assert 400 > len(str(caught.value))
    migrate(settings, directory=str(migrations_path()))


@on_one_server
def test_a_migration_without_a_rollback_is_not_undone(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """peewee-migrate would record it as undone; here it is refused."""
    place = folder(_902_adds="migrator.sql('CREATE TABLE added (id int)')")
    migrate(settings, directory=place)

    with pytest.raises(MigrationError, match=r"902_adds has no rollback\(\)"):
        rollback(settings, directory=place)
    assert [*OURS, "902_adds"] == history(database)


@on_one_server
def test_who_waits_for_another_migration_too_long_is_told_who_holds_it(settings: Settings) -> None:
    """At the deadline the error names the session that holds the lock."""
    holder = MigrationDatabase(settings, migrations_path(), limits=QUICK)
    try:
        (pid,) = holder.execute_sql("SELECT pg_backend_pid()").fetchone()

        with pytest.raises(
            MigrationError,
            match=rf"did not end within 0.2 s: server process {pid} of postgres \(myloware-store migrate",
        ):
            migrate(settings, limits=QUICK)
    finally:
        holder.close_all()
    assert OURS == migrate(settings, limits=QUICK).applied


@on_one_server
def test_migrations_of_two_schemas_do_not_wait_for_each_other(settings: Settings) -> None:
    """The lock is the schema's."""
    holder = MigrationDatabase(settings, migrations_path(), limits=QUICK)
    try:
        holder.execute_sql("SELECT 1")

        assert OURS == migrate(attrs.evolve(settings, schema="tenant_a"), limits=QUICK).applied
    finally:
        holder.close_all()


@on_one_server
def test_migrations_of_two_schemas_create_the_extension_once(settings: Settings) -> None:
    """One waits for the other, rather than fail at the same `CREATE EXTENSION IF NOT EXISTS`."""
    barrier = threading.Barrier(2)

    def run(schema: str) -> tuple[str, ...]:
        barrier.wait()
        return migrate(attrs.evolve(settings, schema=schema)).applied

    with ThreadPoolExecutor(2) as pool:
        assert [OURS] * 2 == list(pool.map(run, ("one", "two")))


@on_one_server
def test_a_table_in_use_ends_the_migration_at_the_deadline(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """DDL does not queue behind a long transaction, with everyone else behind it."""
    migrate(settings)
    place = folder(_902_alters="migrator.sql('ALTER TABLE work_items ADD COLUMN extra int')")
    with database.atomic():
        database.execute_sql("SELECT * FROM work_items")

        with pytest.raises(MigrationError, match=r"902_alters failed: .*lock timeout.*MYLOWARE_LOCK_TIMEOUT"):
            migrate(settings, directory=place, limits=QUICK)
    assert ("902_alters",) == migrate(settings, directory=place, limits=QUICK).applied


@on_one_server
def test_a_statement_that_takes_too_long_is_ended(settings: Settings, folder: Folder) -> None:
    """The statement timeout holds in migrations."""
    place = folder(_902_sleeps="migrator.sql('SELECT pg_sleep(60)')")

    with pytest.raises(MigrationError, match=r"902_sleeps failed: .*MYLOWARE_STATEMENT_TIMEOUT"):
        migrate(settings, directory=place, limits=Limits(statement_timeout=0.5))


def test_a_transaction_timeout_of_the_servers_ends_no_migration(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """The limits of a migration are its own."""
    (dbname,) = database.execute_sql("SELECT current_database()").fetchone()
    if database.server_version >= 170000:
        database.execute_sql(f"ALTER DATABASE {dbname} SET transaction_timeout = 100")
    place = folder(_902_sleeps="migrator.sql('SELECT pg_sleep(0.3)')")

    assert (*OURS, "902_sleeps") == migrate(settings, directory=place).applied


@on_one_server
@pytest.mark.parametrize("setting", ["standard_conforming_strings = off", "quote_all_identifiers = on"])
def test_a_setting_of_the_database_changes_no_definition(
    settings: Settings, database: StoreDatabase, setting: str
) -> None:
    """Backslashes in texts and the names in functions are what the files say."""
    database.execute_sql(f"ALTER DATABASE {settings.dbname} SET {setting}")
    migrate(settings)

    assert () == drift(database)


def test_limits_come_from_the_environment() -> None:
    """Each limit has a variable, in seconds."""
    given = {"MYLOWARE_MIGRATION_WAIT": "1.5", "MYLOWARE_LOCK_TIMEOUT": "0", "MYLOWARE_STATEMENT_TIMEOUT": "7"}

    assert Limits(wait=1.5, lock_timeout=0, statement_timeout=7) == Limits.load(given)
    assert Limits() == Limits.load({"MYLOWARE_LOCK_TIMEOUT": " "})


@pytest.mark.parametrize("text", [None, b"5", "soon", "-1", "nan", "inf", "1e12"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(text: Any) -> None:
    """The variable is named."""
    with pytest.raises(SettingsError, match="MYLOWARE_LOCK_TIMEOUT must be a number of seconds"):
        Limits.load({"MYLOWARE_LOCK_TIMEOUT": text})


def test_threads_that_migrate_one_database_apply_each_migration_once(settings: Settings) -> None:
    """Threads are kept apart like processes, and all of them succeed."""
    barrier = threading.Barrier(4)

    def run(_: int) -> int:
        barrier.wait()
        return len(migrate(settings).applied)

    with ThreadPoolExecutor(4) as pool:
        assert [0, 0, 0, len(OURS)] == sorted(pool.map(run, range(4)))


@on_one_server
def test_applied_migrations_are_not_run_again(settings: Settings, folder: Folder) -> None:
    """peewee-migrate replays them with Peewee mocked in the whole process, which every thread would feel."""
    migrate(settings, directory=folder(_902_once="assert not fake, 'replayed'"))

    assert ("903_next",) == migrate(settings, directory=folder(_903_next="pass")).applied


def test_the_embedded_server_runs_for_as_long_as_it_takes(reachable_tmp: Path) -> None:
    """Embedded settings need no server that runs already, and leave none running."""
    home = reachable_tmp / f"embedded-{uuid.uuid4().hex[:8]}"
    settings = Settings.load(f"embedded:{home}", environ={}, dotenv=None)

    assert OURS == migrate(settings, plan=True).pending
    assert OURS == migrate(settings).applied
    assert () == migrate(settings).applied
    assert not EmbeddedServer.running(home)


def test_a_server_before_15_is_refused() -> None:
    """The schema needs PostgreSQL 15."""
    require_supported(150000)

    with pytest.raises(MigrationError, match="the server is PostgreSQL 14: 15 or newer is needed"):
        require_supported(140011)


def test_a_broken_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of migrations, the error says to install again."""
    monkeypatch.setitem(sys.modules, "myloware_store_migrations", None)

    with pytest.raises(MigrationError, match="reinstall myloware-store"):
        migrations_path()


@on_one_server
def test_a_history_of_another_form_is_not_taken_for_none(settings: Settings, database: StoreDatabase) -> None:
    """The error for a history table without a column says so; it never counts as an empty database."""
    migrate(settings)
    database.execute_sql("ALTER TABLE myloware_migratehistory DROP COLUMN name")

    with pytest.raises(SchemaMismatch, match="name"):
        require_current(database)


@on_one_server
def test_through_pgbouncer_nothing_is_migrated(settings: Settings, database: StoreDatabase) -> None:
    """PgBouncer cannot hold the lock: the error says to connect directly."""
    with pytest.raises(MigrationError, match="direct connection"):
        migrate(attrs.evolve(settings, pgbouncer=True))
    with pytest.raises(MigrationError, match="direct connection"):
        rollback(attrs.evolve(settings, pgbouncer=True))
    assert [] == database.get_tables()


@on_one_server
def test_a_server_that_is_not_there_is_told_without_the_password(settings: Settings) -> None:
    """The error is a ConnectionFailed, and keeps the secret."""
    with pytest.raises(ConnectionFailed) as caught:
        migrate(attrs.evolve(settings, port=1, password="hunter2"))
    assert "hunter2" not in str(caught.value)


def test_an_extension_that_the_server_does_not_offer_is_named(settings: Settings, folder: Folder) -> None:
    """The error names it and says how to get pgvector."""
    place = folder(_902_wants="migrator.sql('CREATE EXTENSION IF NOT EXISTS offered_nowhere')")

    with pytest.raises(MissingExtension, match=r"does not offer the extension offered_nowhere"):
        migrate(settings, directory=place)


@pytest.mark.parametrize("postgres", ["15"], indirect=True)
def test_a_server_without_pgvector_is_told_by_a_look(
    settings: Settings, database: StoreDatabase, postgres_15_binaries: Path
) -> None:
    """The plan and `validate` name the missing extension and how to install it, before any migration."""
    (control,) = postgres_15_binaries.parent.rglob("vector.control")
    away = control.rename(control.with_suffix(".away"))
    try:
        obstacle = migrate(settings, plan=True).obstacle
        first, *_ = validate(database).findings
        with pytest.raises(MissingExtension, match="install pgvector"):
            migrate(settings)
    finally:
        away.rename(control)

    assert obstacle is not None
    assert "does not offer the extension vector: install pgvector" in obstacle
    assert ("extension", "vector", None) == (first.kind, first.name, first.actual)
    assert "install pgvector" in first.remedy
    assert migrate(settings, plan=True).obstacle is None


@pytest.fixture
def role(database: StoreDatabase) -> Iterator[str]:
    """Yield the name of a role that may log in and nothing else."""
    name = f"plain_{uuid.uuid4().hex[:8]}"
    database.execute_sql(f"CREATE ROLE {name} LOGIN")
    yield name
    (dbname,) = database.execute_sql("SELECT current_database()").fetchone()
    database.execute_sql(f"ALTER DATABASE {dbname} OWNER TO postgres")
    database.execute_sql(f"REASSIGN OWNED BY {name} TO postgres")
    database.execute_sql(f"DROP OWNED BY {name}")
    database.execute_sql(f"DROP ROLE {name}")


def test_a_plain_owner_migrates_once_vector_is_there(settings: Settings, database: StoreDatabase, role: str) -> None:
    """An owner of the database who is not a superuser needs one only to create `vector`."""
    (dbname,) = database.execute_sql("SELECT current_database()").fetchone()
    database.execute_sql(f"ALTER DATABASE {dbname} OWNER TO {role}")
    owner = attrs.evolve(settings, user=role)

    with pytest.raises(MissingExtension, match=rf"role {role} may not create the extension vector: .*superuser"):
        migrate(owner)
    assert ["myloware_migratehistory"] == database.get_tables()

    database.execute_sql("CREATE EXTENSION vector")
    assert OURS == migrate(owner).applied
    assert validate(database).valid
    assert OURS[::-1] == rollback(owner, count=len(OURS))
    assert OURS == reset(owner).applied


def test_a_role_that_may_not_create_is_told_what_to_grant(
    settings: Settings, database: StoreDatabase, role: str
) -> None:
    """Without the right to create in the schema, the error says which right that is."""
    database.execute_sql("CREATE EXTENSION vector")

    with pytest.raises(MigrationError, match=r"permission denied.*GRANT the role CREATE and USAGE"):
        migrate(attrs.evolve(settings, user=role))
    with pytest.raises(MigrationError, match=r"tenant_a does not exist.*GRANT this role CREATE ON DATABASE"):
        migrate(attrs.evolve(settings, user=role, schema="tenant_a"))


def test_a_tenants_schema_is_not_taken_for_migrated_because_public_is(settings: Settings, connect: Connect) -> None:
    """`public` stands next on the search path; the tenant's own schema is what counts."""
    tenant = attrs.evolve(settings, schema="tenant_a")
    migrate(settings)

    with pytest.raises(SchemaMismatch, match="is not migrated"):
        require_current(connect(tenant))
    migrate(tenant)
    require_current(connect(tenant))
    assert 2 == len(connect(settings).execute_sql("SELECT 1 FROM pg_tables WHERE tablename = 'work_items'").fetchall())


@on_one_server
def test_a_schema_that_came_before_ours_on_the_path_is_told(
    settings: Settings, database: StoreDatabase, folder: Folder
) -> None:
    """If a schema with the role's name appears, the next migration does not start again in it."""
    migrate(settings)
    database.execute_sql("CREATE SCHEMA postgres")

    with pytest.raises(MigrationError, match=r"the schema public is not the first .* on its search_path"):
        migrate(settings, directory=folder(_902_adds="pass"))
    assert [] == database.get_tables("postgres")


@pytest.mark.parametrize("schema", ["public", "the app"])
@pytest.mark.parametrize("place", ["extensions", 'odd "place"', "app"])
def test_pgvector_is_used_where_it_is(
    settings: Settings, database: StoreDatabase, role: str, place: str, schema: str
) -> None:
    """In any schema, by a plain role, for migrations, validation, COPY, searches and the index."""
    quoted = '"{}"'.format(place.replace('"', '""'))
    (dbname,) = database.execute_sql("SELECT current_database()").fetchone()
    database.execute_sql(f"CREATE SCHEMA {quoted}; CREATE EXTENSION vector SCHEMA {quoted}")
    database.execute_sql(f"GRANT USAGE ON SCHEMA {quoted} TO {role}; ALTER DATABASE {dbname} OWNER TO {role}")
    plain = attrs.evolve(settings, user=role, schema=schema)

    assert migrate(plain, plan=True).obstacle is None
    assert OURS == migrate(plain).applied
    with Store.open(settings=plain) as store:
        assert () == validate(store.db).findings
        vectors = np.eye(DIMENSIONS, dtype=np.float32)[:3]
        docs = [{"type": "CONTEXT", "content": str(n), "embedding": vector} for n, vector in enumerate(vectors)]
        store.memory.upsert(docs[:2])
        assert 1 == store.memory.bulk_load(docs[2:])
        assert ["1"] == [hit.content for hit in store.memory.similar(vectors[1], k=1)]
        embeddings = [doc.embedding for doc in MemDoc.select().where(MemDoc.content == "2")]
        assert [vectors[2].tolist()] == [embedding.tolist() for embedding in embeddings if embedding is not None]
        store.memory.index.rebuild()
        assert () == validate(store.db).findings
    assert OURS[::-1] == rollback(plain, count=len(OURS))


OBSTACLES = {
    "nothing": ("", "public", None),
    "extension": ("DROP EXTENSION vector", "public", "may not create the extension vector: have a superuser"),
    "extension's schema": (
        "CREATE SCHEMA apart; ALTER EXTENSION vector SET SCHEMA apart",
        "public",
        "may not use the schema apart of the extension vector: GRANT it USAGE",
    ),
    "no schema": ("ALTER DATABASE {database} OWNER TO postgres", "app", "the schema app does not exist.*GRANT"),
    "schema": ("CREATE SCHEMA app", "app", "may not use the schema app, or create in it: GRANT it USAGE and CREATE"),
    "path": (
        "ALTER DATABASE {database} OWNER TO postgres; REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "public",
        "no schema on the search_path.*GRANT",
    ),
    "read-only": ("ALTER ROLE {role} SET default_transaction_read_only = on", "public", "the connection is read-only"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_plan_names_each_obstacle(settings: Settings, database: StoreDatabase, role: str, obstacle: str) -> None:
    """With its remedy; whatever it names ends the migration, too, with nothing made."""
    sql, schema, expected = OBSTACLES[obstacle]
    (dbname,) = database.execute_sql("SELECT current_database()").fetchone()
    database.execute_sql(f"ALTER DATABASE {dbname} OWNER TO {role}; CREATE EXTENSION vector")
    if sql:
        database.execute_sql(sql.format(role=role, database=dbname))
    settings = attrs.evolve(settings, user=role)
    plain = attrs.evolve(settings, schema=schema)

    found = migrate(plain, plan=True).obstacle
    if expected is None:
        assert found is None
    else:
        assert re.search(expected, found or "")
        with pytest.raises((MigrationError, MissingExtension)):
            migrate(plain)


def test_a_database_of_another_encoding_is_refused(settings: Settings, database: StoreDatabase, role: str) -> None:
    """Documents would fail one by one there, also if another version has migrated it."""
    database.execute_sql(f"CREATE DATABASE {role} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with closing(StoreDatabase(attrs.evolve(settings, dbname=role))) as latin:
            (finding, *_) = validate(latin).findings
            assert ("setting", "server_encoding", "LATIN1") == (finding.kind, finding.name, finding.actual)
            assert "encoding is LATIN1" in (migrate(latin.settings, plan=True).obstacle or "")
            with pytest.raises(MigrationError, match=r"encoding is LATIN1.*ENCODING 'UTF8'"):
                migrate(latin.settings)
            latin.execute_sql(
                "CREATE TABLE myloware_migratehistory AS"
                " SELECT n AS id, name, null AS digest, false AS backward_compatible"
                " FROM unnest(%s) WITH ORDINALITY AS _ (name, n)",
                ([*OURS],),
            )
            with pytest.raises(SchemaMismatch, match="encoding is LATIN1"):
                require_current(latin)
    finally:
        database.execute_sql(f"DROP DATABASE {role} WITH (FORCE)")


def test_obstacles_come_all_at_once(settings: Settings, role: str) -> None:
    """One line each."""
    lines = (migrate(attrs.evolve(settings, user=role, schema="app"), plan=True).obstacle or "").splitlines()
    assert 2 == len(lines)
    assert [True, True] == ["the schema app" in lines[0], "extension vector" in lines[1]]


@on_one_server
def test_a_services_own_history_is_left_alone(settings: Settings, database: StoreDatabase) -> None:
    """A service's `migratehistory`, with a migration of the same name, neither hides ours nor changes."""
    database.execute_sql("CREATE TABLE migratehistory (id serial, name varchar(255), migrated_at timestamp)")
    database.execute_sql("INSERT INTO migratehistory (name, migrated_at) VALUES ('001_initial', now())")

    assert OURS == migrate(settings).applied
    assert [("001_initial",)] == database.execute_sql("SELECT name FROM migratehistory").fetchall()


@on_one_server
def test_no_migration_can_be_recorded_twice(settings: Settings, database: StoreDatabase) -> None:
    """Even without the lock, the history refuses a second application."""
    migrate(settings)

    with pytest.raises(StoreError, match="myloware_migratehistory_name_key"):
        database.execute_sql("INSERT INTO myloware_migratehistory (name, migrated_at) VALUES ('001_initial', now())")


def test_reset_empties_our_tables_and_leaves_those_of_others(settings: Settings, database: StoreDatabase) -> None:
    """All of our objects are recreated; other objects in the schema stay, with their rows."""
    migrate(settings)
    database.execute_sql("INSERT INTO work_orders (tenant_id, created_by) VALUES ('acme', 'me')")
    database.execute_sql("ALTER TABLE work_items ADD COLUMN drifted int")
    database.execute_sql("CREATE TABLE theirs AS SELECT 1 AS kept")
    database.execute_sql("UPDATE myloware_migratehistory SET digest = 'edited'")

    assert OURS == reset(settings).applied
    assert [(0,)] == database.execute_sql("SELECT count(*) FROM work_orders").fetchall()
    assert [(1,)] == database.execute_sql("SELECT kept FROM theirs").fetchall()
    assert validate(database).valid


@on_one_server
def test_reset_drops_nothing_that_something_else_depends_on(settings: Settings, database: StoreDatabase) -> None:
    """A view of someone else's on our table stops the reset before anything is lost; the error names it."""
    migrate(settings)
    database.execute_sql("INSERT INTO work_orders (tenant_id, created_by) VALUES ('acme', 'me')")
    database.execute_sql("CREATE VIEW dashboard AS SELECT status FROM work_orders")

    with pytest.raises(MigrationError, match="view dashboard depends on table work_orders"):
        reset(settings)
    assert [(1,)] == database.execute_sql("SELECT count(*) FROM dashboard").fetchall()


@on_one_server
def test_reset_leaves_a_strangers_table_of_our_name(settings: Settings, database: StoreDatabase) -> None:
    """If no migration is recorded, a table with one of our names belongs to someone else."""
    database.execute_sql("CREATE TABLE tools AS SELECT 1 AS id, 'hammer' AS name")

    with pytest.raises(MigrationError, match="may belong to someone else: tools;"):
        reset(settings)
    assert (1, "hammer") == database.execute_sql("SELECT * FROM tools").fetchone()


@on_one_server
def test_reset_keeps_to_its_schema(settings: Settings, connect: Connect) -> None:
    """Resetting a tenant's schema leaves `public` and its rows."""
    tenant = attrs.evolve(settings, schema="tenant_a")
    migrate(settings)
    migrate(tenant)
    for one in (settings, tenant):
        connect(one).execute_sql("INSERT INTO work_orders (tenant_id, created_by) VALUES ('acme', 'me')")
    reset(tenant)

    assert [(1,)] == connect(settings).execute_sql("SELECT count(*) FROM work_orders").fetchall()
    assert [(0,)] == connect(tenant).execute_sql("SELECT count(*) FROM work_orders").fetchall()


@on_one_server
@pytest.mark.parametrize(
    "schema",
    [
        *("per%cent", "%s", "%(name)s", "with space", 'quo"te', "apo'strophe"),
        *("Capitals", "ünï 你", "back\\slash", "com,ma", "dot.ted", "select"),
    ],
)
def test_a_schema_may_have_any_name(settings: Settings, connect: Connect, schema: str) -> None:
    """A name works with any characters, from the settings to the last rollback."""
    tenant = attrs.evolve(settings, schema=schema)
    migrate(tenant)
    database = connect(tenant)

    assert [(schema,)] == database.execute_sql("SELECT schemaname FROM pg_tables WHERE tablename = 'tools'").fetchall()
    assert () == validate(database).findings
    assert 0 < sum(seed(database).inserted.values())
    assert OURS == reset(tenant).applied
    assert OURS[::-1] == rollback(tenant, count=len(OURS))


@on_one_server
def test_reset_of_an_empty_database_migrates_it(settings: Settings, database: StoreDatabase) -> None:
    """There need be nothing to drop."""
    reset(settings)

    assert expected_catalog() == read_catalog(database)

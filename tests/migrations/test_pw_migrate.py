"""Plain `pw_migrate`, as real processes: raced, killed, pointed at the wrong place."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.migrate import migrate, status
from myloware_store.ops.migration_database import MigrationDatabase
from myloware_store.ops.validate import validate
from tests.conftest import OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.db.database import StoreDatabase
    from myloware_store.settings import Settings

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 60.0

newest_only = pytest.mark.parametrize("postgres", ["18"], indirect=True)
"""Marks tests whose subject is the same on every server."""


class Command:
    """`pw_migrate`, by default from the root of the repository."""

    def __init__(self, url: str | None, **variables: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "MYLOWARE_"))}
        self.environ = {**kept, **({"DATABASE_URL": url} if url else {}), **variables}

    def start(self, *arguments: str | int | Path, cwd: Path = CHECKOUT) -> subprocess.Popen[str]:
        """Start the command."""
        command = [str(Path(sys.executable).with_name("pw_migrate")), *map(str, arguments)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=cwd, env=self.environ, **pipes)

    def __call__(self, *arguments: str | int | Path, cwd: Path = CHECKOUT) -> tuple[int, str]:
        """Run the command, and return its exit code and output."""
        process = self.start(*arguments, cwd=cwd)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out + err


@newest_only
def test_production_is_not_rolled_back_by_a_slip(pw_migrate: Command) -> None:
    """A rollback drops tables with their data: if MYLOWARE_ENV is production it is refused, and nothing changes."""
    pw_migrate("migrate")
    production = Command(pw_migrate.environ["DATABASE_URL"], MYLOWARE_ENV="production")
    code, printed = production("rollback")
    assert (1, True) == (code, "production" in printed)
    assert "[x] 001_initial" in pw_migrate("list")[1]


@pytest.fixture
def pw_migrate(settings: Settings) -> Command:
    """Return the command, with the empty database in the environment."""
    return Command(settings.url)


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"it never happened: {what}"
        time.sleep(0.01)


def test_four_at_once_apply_each_migration_once(
    pw_migrate: Command, settings: Settings, database: StoreDatabase
) -> None:
    """Simultaneous deploys of an empty database all succeed, and one of them does the work."""
    processes = [pw_migrate.start("migrate") for _ in range(4)]
    outputs = [process.communicate(timeout=PATIENCE) for process in processes]

    assert [0, 0, 0, 0] == [process.returncode for process in processes], outputs
    assert 1 == sum("- [x] 001_initial" in out for out, _ in outputs)
    assert [(len(OURS),)] == database.execute_sql("SELECT count(*) FROM myloware_migratehistory").fetchall()
    assert status(settings).current
    assert validate(database).valid


def test_list_and_rollback_work_too(pw_migrate: Command, settings: Settings) -> None:
    """The other commands use the same database, history and lock."""
    pending = "".join(f"- [ ] {name}\n" for name in OURS)
    assert (0, f"List of migrations:\n\n{pending}\nDone: 0, Pending: {len(OURS)}\n") == pw_migrate("list")
    assert 0 == pw_migrate("migrate")[0]
    done = pending.replace("[ ]", "[x]")
    assert (0, f"List of migrations:\n\n{done}\nDone: {len(OURS)}, Pending: 0\n") == pw_migrate("list")
    assert (1, f"Error: cannot undo 0: {len(OURS)} are applied\n") == pw_migrate("rollback", "--count", "0")
    assert 0 == pw_migrate("rollback", "--count", len(OURS))[0]
    assert OURS == status(settings).pending
    assert (1, "Error: cannot undo 1: 0 are applied\n") == pw_migrate("rollback")


@newest_only
def test_a_file_without_migrate_is_not_recorded(pw_migrate: Command, settings: Settings, folder: Any) -> None:
    """Nothing is applied, neither what comes before it."""
    place = folder()
    (place / "902_empty.py").write_text("")

    code, output = pw_migrate("migrate", "--directory", place)
    assert 1 == code
    assert output.endswith("\nError: 902_empty has no migrate()\n")
    assert (*OURS, "902_empty") == status(settings, directory=place).pending


@newest_only
def test_what_it_applied_is_known_to_the_library_and_the_other_way_round(
    pw_migrate: Command, settings: Settings, database: StoreDatabase
) -> None:
    """Both write the same history, digests included."""
    pw_migrate("migrate")
    query = "SELECT name, digest FROM myloware_migratehistory"
    by_command = database.execute_sql(query).fetchall()
    pw_migrate("rollback", "--count", len(OURS))
    migrate(settings)

    assert by_command == database.execute_sql(query).fetchall()
    assert "OK\n" == pw_migrate("migrate")[1].partition("\n")[2]


def test_a_killed_migration_leaves_nothing_and_the_next_one_works(
    pw_migrate: Command, settings: Settings, database: StoreDatabase, folder: Any
) -> None:
    """Killed with -9 in the middle of a transaction: its work is undone, and its lock is free."""
    pw_migrate.environ["MYLOWARE_LOCK_TIMEOUT"] = "0"
    place = folder(
        _902_waits="migrator.sql('CREATE TABLE half (id int)')\nmigrator.sql('SELECT pg_advisory_xact_lock(42)')"
    )
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 42"
    with closing(psycopg2.connect(**settings.connect_kwargs())) as gate, gate.cursor() as run:
        run.execute("SELECT pg_advisory_lock(42)")
        process = pw_migrate.start("migrate", "--directory", place)
        eventually(lambda: bool(database.execute_sql(waiting).fetchall()), "the migration waits in its transaction")
        process.kill()
        process.communicate(timeout=PATIENCE)

        assert ("902_waits",) == status(settings, directory=place).pending
        # The server notices that its client is gone though it waits for another lock itself.
        eventually(lambda: not database.execute_sql(waiting).fetchall(), "the killed one's session ends")
    code, output = pw_migrate("migrate", "--directory", place)

    assert 0 == code, output
    assert status(settings, directory=place).current
    assert [(0,)] == database.execute_sql("SELECT count(*) FROM half").fetchall()


@newest_only
def test_who_waits_too_long_exits_with_one_line(pw_migrate: Command, settings: Settings, folder: Any) -> None:
    """At the deadline the command fails, and names the holder of the lock and the remedy."""
    pw_migrate.environ["MYLOWARE_MIGRATION_WAIT"] = "0.2"
    holder = MigrationDatabase(settings, folder())
    try:
        (pid,) = holder.execute_sql("SELECT pg_backend_pid()").fetchone()
        code, output = pw_migrate("migrate")
    finally:
        holder.close_all()

    assert 1 == code
    assert f"server process {pid} of postgres (myloware-store migrate" in output
    assert "MYLOWARE_MIGRATION_WAIT" in output
    assert "Traceback" not in output


@newest_only
def test_a_folder_without_migrations_is_refused(pw_migrate: Command, database: StoreDatabase, folder: Any) -> None:
    """A folder that holds our conf.py and no migration is a mistake, not a migrated database."""
    place = folder()
    for name in OURS:
        (place / f"{name}.py").unlink()
    code, output = pw_migrate("migrate", "--directory", place)

    assert 1 == code
    assert f"Error: there is no migration in {place}" in output
    assert [] == database.get_tables()


@newest_only
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("migrate", "--name", "001_inital"), "there is no migration 001_inital"),
        (("merge",), "`merge` replaces the migrations"),
        (("create", "more", "--auto"), "`--auto` loses types"),
    ],
)
def test_what_would_do_harm_is_refused(
    pw_migrate: Command, database: StoreDatabase, folder: Any, arguments: tuple[str, ...], reason: str
) -> None:
    """A mistyped name would apply everything; merge and --auto would lose half of the schema."""
    place = folder()
    code, output = pw_migrate(*arguments, "--directory", place)

    assert 1 == code
    assert reason in output
    assert [] == database.get_tables()
    assert {*OURS, "conf"} == {path.stem for path in place.glob("[!_]*.py")}


@newest_only
def test_create_writes_an_empty_migration(pw_migrate: Command, database: StoreDatabase, folder: Any) -> None:
    """`pw_migrate create` is of use, and touches no database."""
    place = folder()

    assert 0 == pw_migrate("create", "more", "--directory", place)[0]
    assert (place / f"{int(OURS[-1][:3]) + 1:03}_more.py").is_file()
    assert [] == database.get_tables()


@newest_only
def test_a_newer_database_and_an_edited_migration_are_refused(
    pw_migrate: Command, settings: Settings, database: StoreDatabase, folder: Any
) -> None:
    """The command makes the checks of `myloware-store migrate`."""
    place = folder(_902_adds="pass")
    assert 0 == pw_migrate("migrate", "--directory", place)[0]
    code, output = pw_migrate("migrate")
    assert (1, True) == (code, "902_adds): it was migrated by a newer version" in output)

    (place / "902_adds.py").write_text("def migrate(migrator, database, *, fake=False):\n    return\n")
    code, output = pw_migrate("migrate", "--directory", place)
    assert (1, True) == (code, "902_adds changed after it was applied" in output)


@newest_only
def test_a_failing_migration_exits_with_the_reason(pw_migrate: Command, settings: Settings, folder: Any) -> None:
    """The last line says what was wrong, and the migration is not recorded."""
    place = folder(_902_fails="migrator.sql('SELECT nonsense')")
    code, output = pw_migrate("migrate", "--directory", place)

    assert 1 == code
    assert output.rstrip().splitlines()[-1].startswith('Error: column "nonsense" does not exist')
    assert "Migration failed: 902_fails" in output
    assert "Traceback" not in output
    assert ("902_fails",) == status(settings, directory=place).pending


@newest_only
@pytest.mark.parametrize("part", ["password", "port", "dbname"])
def test_no_password_is_printed(settings: Settings, part: str) -> None:
    """Whether it works or not, the output does not show the password."""
    wrongs: dict[str, dict[str, Any]] = {"password": {}, "port": {"port": 1}, "dbname": {"dbname": "nowhere"}}
    wrong = wrongs[part]
    command = Command(attrs.evolve(settings, password="hunter2", **wrong).url)
    code, output = command("migrate", "-vv")

    assert (1 if wrong else 0) == code
    assert "hunter2" not in output


@newest_only
def test_through_pgbouncer_it_is_refused(settings: Settings) -> None:
    """The same refusal as the library's."""
    code, output = Command(attrs.evolve(settings, pgbouncer=True).url)("migrate")

    assert 1 == code
    assert "direct connection" in output


def test_a_schema_in_the_url_is_honoured(
    settings: Settings, database: StoreDatabase, connect: Callable[[Settings], StoreDatabase]
) -> None:
    """`?schema=` is made, and holds the tables and their history."""
    tenant = attrs.evolve(settings, schema="tenant_a")
    assert 0 == Command(tenant.url)("migrate")[0]

    assert status(tenant).current
    assert [] == database.get_tables("public")
    assert validate(connect(tenant)).valid


@newest_only
def test_the_database_option_is_honoured(settings: Settings, folder: Any) -> None:
    """`--database` overrides the environment; peewee-migrate alone would ignore it silently."""
    wrong = attrs.evolve(settings, dbname="nowhere")
    code, output = Command(wrong.url)("migrate", "--database", settings.url)

    assert 0 == code, output
    assert status(settings).current


@newest_only
def test_a_lost_history_is_made_again(pw_migrate: Command, settings: Settings, database: StoreDatabase) -> None:
    """If the history is gone and the tables exist, `validate` says to record the migrations without running them."""
    migrate(settings)
    database.execute_sql("DROP TABLE myloware_migratehistory")
    (finding,) = validate(database).findings
    assert "myloware-store baseline" == finding.remedy
    code, output = pw_migrate("migrate")
    assert (1, True) == (code, "`myloware-store validate` says whose they are" in output), output
    code, output = pw_migrate("migrate", "--fake")

    assert 0 == code, output
    assert validate(database).valid


def test_with_nothing_set_the_embedded_server_is_migrated_and_stopped(reachable_tmp: Path) -> None:
    """The server of the working folder starts, stays up for the command, and leaves nothing running."""
    place = reachable_tmp / f"service-{uuid.uuid4().hex[:8]}"
    place.mkdir(mode=0o755)
    applied = "".join(f"- [x] {name}\n" for name in OURS)
    code, output = Command(None)("migrate", "--directory", CHECKOUT / "migrations", cwd=place)

    assert (0, f"Migrating myloware\n{applied}OK\n") == (code, output)
    assert not EmbeddedServer.running(place / ".myloware")
    assert applied in Command(None)("list", "--directory", CHECKOUT / "migrations", cwd=place)[1]

"""A service's own folder of migrations, with the lock, the time-outs and the history of the store's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.core.errors import MigrationError
from myloware_store.ops.history import history_name, status
from myloware_store.ops.migrate import Limits, migrate, rollback
from tests.conftest import OURS, on_one_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.db.database import StoreDatabase
    from myloware_store.settings import Settings

pytestmark = on_one_server
Write = Any
CREATES = """
import peewee

def migrate(migrator, database, *, fake=False):
    class Payment(peewee.Model):
        number = peewee.TextField(primary_key=True)
        class Meta:
            table_name = "payments"
    migrator.create_model(Payment)

def rollback(migrator, database, *, fake=False):
    migrator.remove_model("payments")
"""
ADDS = """
import peewee

def migrate(migrator, database, *, fake=False):
    migrator.add_fields("payments", amount=peewee.IntegerField(default=0))

def rollback(migrator, database, *, fake=False):
    migrator.remove_fields("payments", "amount")
"""
BUILDS = """
def migrate(migrator, database, *, fake=False):
    migrator.sql("CREATE INDEX CONCURRENTLY by_amount ON payments (amount)")

def rollback(migrator, database, *, fake=False):
    migrator.sql("DROP INDEX CONCURRENTLY by_amount")
"""
CONF = """
from myloware_store.ops.pw_migrate import command_database

DATABASE = command_database()
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes files into the service's folder, and returns the folder."""

    def files(**texts: str) -> Path:
        place = tmp_path / "service"
        place.mkdir(exist_ok=True)
        for name, text in texts.items():
            (place / f"{name.lstrip('_')}.py").write_text(text)
        return place

    return files


def pw_migrate(command: str, folder: Path, settings: Settings) -> str:
    """Run peewee-migrate's command, and return its output."""
    program = str(Path(sys.executable).with_name("pw_migrate"))
    arguments = [program, command, "--directory", str(folder), "--database", settings.libpq_url]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_it_is_applied_undone_and_recorded_by_itself(settings: Settings, database: StoreDatabase, write: Write) -> None:
    """In peewee-migrate's table, beside the store's; later files know the models of earlier ones."""
    migrate(settings)
    place = write(_001_initial=CREATES, _002_amount=ADDS, _003_index=BUILDS)
    (planned, *_) = migrate(settings, plan=True, directory=place).planned[1:]
    assert ("002_amount", None) == (planned.name, planned.note)
    assert any("ADD COLUMN" in statement for statement in planned.statements)

    assert ("001_initial", "002_amount", "003_index") == migrate(settings, directory=place).applied
    assert (True, OURS) == (status(settings, directory=place).current, status(settings).applied)
    assert {"number", "amount"} == {column.name for column in database.get_columns("payments")}
    assert "by_amount" in {index.name for index in database.get_indexes("payments")}
    assert ("003_index", "002_amount", "001_initial") == rollback(settings, directory=place, count=3)
    assert not database.table_exists("payments")
    assert OURS == status(settings).applied


def test_a_history_that_peewee_migrate_has_begun_is_continued(
    settings: Settings, database: StoreDatabase, write: Write
) -> None:
    """Both write the same table, in turn; ours adds the digests of what is recorded."""
    place = write(_001_initial=CREATES)
    pw_migrate("migrate", place, settings)
    assert ("001_initial",) == status(settings, directory=place).applied

    assert ("002_amount",) == migrate(settings, directory=write(_002_amount=ADDS)).applied
    write(_003_more="def migrate(migrator, database, *, fake=False): migrator.sql('SELECT 1')")
    assert "- [x] 003_more" in pw_migrate("migrate", place, settings)
    assert ("001_initial", "002_amount", "003_more") == status(settings, directory=place).applied
    digests = "SELECT digest IS NOT NULL FROM migratehistory ORDER BY id"
    assert [(True,), (True,), (False,)] == database.execute_sql(digests).fetchall()


def test_with_two_lines_in_conf_py_plain_pw_migrate_does_the_same(
    settings: Settings, database: StoreDatabase, write: Write
) -> None:
    """The folder's conf.py names the store's database, with its lock, and CONCURRENTLY works."""
    place = write(conf=CONF, _001_initial=CREATES, _002_amount=ADDS, _003_index=BUILDS)

    assert "- [x] 003_index" in pw_migrate("migrate", place, settings)
    assert status(settings, directory=place).current
    assert [(True,)] == database.execute_sql("SELECT bool_and(digest IS NOT NULL) FROM migratehistory").fetchall()


def test_conf_py_names_the_table(settings: Settings, database: StoreDatabase, write: Write) -> None:
    """As for pw_migrate."""
    place = write(conf="MIGRATE_TABLE = 'payments_history'\n", _001_initial=CREATES)
    migrate(settings, directory=place)

    assert "payments_history" == history_name(place)
    assert [("001_initial",)] == database.execute_sql("SELECT name FROM payments_history").fetchall()
    assert not database.table_exists("migratehistory")


def test_nobody_queues_behind_it_for_long(settings: Settings, database: StoreDatabase, write: Write) -> None:
    """The time-outs for locks hold, too."""
    migrate(settings, directory=write(_001_initial=CREATES))
    place = write(_002_amount=ADDS)
    with database.atomic():
        database.execute_sql("SELECT * FROM payments")
        with pytest.raises(MigrationError, match=r"002_amount failed: .*lock timeout"):
            migrate(settings, directory=place, limits=Limits(wait=0.2, lock_timeout=0.1))
    assert ("002_amount",) == migrate(settings, directory=place).applied

"""`myloware-store makemigration`: what it writes, prints and returns, in a service's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Shell

MODELS = """
import peewee

class Payment(peewee.Model):
    number = peewee.TextField(primary_key=True)
    amount = peewee.IntegerField()

    class Meta:
        table_name = "payments"
"""
BASE = """
def migrate(migrator, database, **_):
    migrator.sql("CREATE TABLE payments (number text PRIMARY KEY, amount integer NOT NULL)")


def rollback(migrator, database, **_):
    migrator.sql("DROP TABLE payments")
"""


@pytest.fixture
def service(shell: Shell, myloware_server: Any) -> list[str]:
    """Write a service into the shell's folder, and return the arguments for it."""
    (shell.folder / "payments.py").write_text(MODELS)
    (shell.folder / "migrations").mkdir()
    (shell.folder / "migrations" / "001_payments.py").write_text(BASE)
    return ["--models", "payments", "--server", myloware_server.url("postgres")]


def test_the_files_and_what_to_review_are_printed(shell: Shell, service: list[str]) -> None:
    """In the folder `migrations`, with the next step; a second run has nothing to do."""
    done = shell.run("makemigration", "nothing", *service)
    assert (0, "Nothing to do: the migrations lead to the models.\n", "") == (done.returncode, done.stdout, done.stderr)

    (shell.folder / "payments.py").write_text(
        MODELS.replace("amount = ", "due = peewee.DateField(index=True)\n    sum = ")
    )
    done = shell.run("makemigration", "due_dates", *service)
    assert (0, "") == (done.returncode, done.stderr)
    assert [
        "Wrote migrations/002_due_dates.py",
        "Wrote migrations/003_due_dates_indexes.py",
    ] == done.stdout.splitlines()[:2]
    assert "- payments.due is NOT NULL without a default" in done.stdout
    assert "Next: read the files, and run the tests.\n" in done.stdout
    again = shell.report("makemigration", "again", *service)
    assert {"files": [], "review": [], "unexpressed": {}} == again


def test_what_must_be_written_by_hand_is_a_finding(shell: Shell, service: list[str]) -> None:
    """Exit 1, with the objects and the reasons."""
    (shell.folder / "payments.py").write_text(
        "def create_all(database):\n"
        "    database.execute_sql('CREATE TABLE payments (number text PRIMARY KEY, amount serial)')\n"
    )
    report = shell.report("makemigration", "serial", *service, code=1)
    assert ([], {"column payments.amount": "a column gets or loses its own sequence"}) == (
        report["files"],
        report["unexpressed"],
    )
    done = shell.run("makemigration", "serial", *service)
    assert 1 == done.returncode
    assert "Write these by hand:\n- column payments.amount: a column gets or loses its own sequence\n" in done.stdout


def test_mistakes_are_one_line(shell: Shell, service: list[str]) -> None:
    """A wrong name, module, folder or server ends with 2 and nothing written."""
    for arguments, message in {
        ("Due-Dates", *service): "name must be small letters, digits and underscores",
        ("due", "--models", "paymints"): "cannot import 'paymints': ModuleNotFoundError: No module named 'paymints'",
        ("due", *service, "--directory", "migration"): "there is no folder 'migration': create it",
        ("due", *service[:2], "--server", "postgresql://127.255.255.254:1/x"): "cannot connect to 127.255.255.254:1/x",
    }.items():
        done = shell.run("makemigration", *arguments)
        assert (2, "") == (done.returncode, done.stdout)
        assert message in done.stderr
    assert ["001_payments.py"] == [path.name for path in (shell.folder / "migrations").glob("*.py")]


def test_without_a_server_an_embedded_one_lives_as_long(shell: Shell, service: list[str]) -> None:
    """It leaves nothing in the folder; where there is none, the message names both ways."""
    assert {"files": [], "review": [], "unexpressed": {}} == shell.report("makemigration", "nothing", *service[:2])
    assert not shell.home.exists()

    done = shell.run("makemigration", "nothing", *service[:2], MYLOWARE_PG_BINDIR=str(Path(__file__).parent))
    assert 2 == done.returncode
    assert "--server URL" in done.stderr
    assert "MYLOWARE_PG_BINDIR" in done.stderr

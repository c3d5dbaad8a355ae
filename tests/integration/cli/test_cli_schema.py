"""`migrate`, `status`, `validate`, `ping` and `migrations-path`: the commands of a deploy and of a person on call."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import MemDoc
from myloware_store.embedded import find_binaries
from myloware_store.models import MODELS
from myloware_store.ops.catalog import expected_catalog, split_key
from myloware_store.ops.history import HISTORY_TABLE, migrations_path
from tests.conftest import OURS

if TYPE_CHECKING:
    from myloware_store import Store
    from tests.integration.cli.conftest import Shell

ALL = [*OURS]
TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"


def test_a_deploy(shell: Shell, empty_url: str) -> None:
    """Every step reports its findings, also by its exit code; a plan writes nothing."""
    here: dict[str, Any] = {"DATABASE_URL": empty_url}

    plan = shell.report("migrate", "--plan", code=1, **here)
    assert ([], ALL, 0) == (plan["applied"], plan["pending"], shell.ask(empty_url, TABLES))
    before = shell.report("status", code=1, **here)
    assert (False, [], ALL) == (before["current"], before["applied"], before["pending"])
    assert not shell.report("validate", code=1, **here)["valid"]

    done = shell.report("migrate", **here)
    assert (ALL, []) == (done["applied"], done["pending"])
    after = shell.report("status", **here)
    assert (True, ALL, []) == (after["current"], after["applied"], after["pending"])
    assert shell.report("validate", **here)["valid"]

    again = shell.report("migrate", **here)
    assert ([], []) == (again["applied"], again["pending"])
    assert [] == shell.report("migrate", "--plan", **here)["pending"]


def test_migrating_is_reported_as_text(shell: Shell, empty_url: str) -> None:
    """A line for each pending and applied migration, for each obstacle, and for nothing to do."""
    here = ("--url", empty_url)
    assert f"pending {ALL[-1]}\n" in shell.run("migrate", "--plan", *here).stdout
    assert f"applied {ALL[-1]}\n" in shell.run("migrate", *here).stdout
    assert "Nothing is pending.\n" in shell.run("migrate", *here).stdout
    shell.ask(empty_url, f"DROP TABLE {HISTORY_TABLE}")

    assert "They cannot be applied yet: " in shell.run("migrate", "--plan", *here).stdout


def test_a_plan_is_sql_to_review(shell: Shell, empty_url: str) -> None:
    """Statement by statement, as text that psql runs, and as JSON."""
    text = shell.run("migrate", "--plan", "--url", empty_url).stdout
    psql = [str(find_binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty_url]
    for script in re.split(r"(?m)^(?=-- \d{3}_\w+$)", text)[1:]:
        once = [] if "CONCURRENTLY" in script else ["-1"]
        done = subprocess.run([*psql, *once], input=script, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
    assert len(MODELS) == shell.ask(empty_url, TABLES)

    (planned, *_) = shell.report("migrate", "--plan", "--url", empty_url, code=1)["planned"]
    assert ("001_initial", None) == (planned["name"], planned["note"])
    assert "CREATE TYPE priority AS ENUM ('LOW', 'MEDIUM', 'HIGH', 'URGENT')" in planned["statements"]


def test_migrate_goes_as_far_as_told_and_rollback_back(shell: Shell, empty_url: str) -> None:
    """An unknown name is wrong usage; a rollback asks, and is refused in production."""
    here: dict[str, Any] = {"DATABASE_URL": empty_url}
    wrong = shell.run("migrate", "--to", "001_inital", **here)
    assert (2, True) == (wrong.returncode, "there is no migration 001_inital" in wrong.stderr)
    assert ALL == shell.report("migrate", "--to", ALL[-1], **here)["applied"]

    assert 1 == shell.run("rollback", answer="n\n", **here).returncode
    assert "MYLOWARE_ENV is production" in shell.run("rollback", "--yes", MYLOWARE_ENV="production", **here).stderr
    assert 15 < shell.ask(empty_url, TABLES)
    assert f"undone {ALL[-1]}\n" in shell.run("rollback", answer="y\n", **here).stdout
    assert [ALL[-1]] == shell.report("migrate", **here)["applied"]
    assert ALL[::-1] == shell.report("rollback", "--yes", "--count", str(len(ALL)), **here)["undone"]
    assert "cannot undo 1: 0 are applied" in shell.run("rollback", "--yes", **here).stderr


def test_the_data_dictionary_is_up_to_date(shell: Shell) -> None:
    """If this fails: `myloware-store docs docs/data-dictionary.md` writes it again from the models."""
    committed = (Path(__file__).parents[3] / "docs" / "data-dictionary.md").read_text(encoding="utf-8")

    assert committed == shell.run("docs").stdout
    assert {"file": "here.md"} == shell.report("docs", "here.md")
    assert committed == (shell.folder / "here.md").read_text(encoding="utf-8")


def test_the_data_dictionary_has_every_object(shell: Shell) -> None:
    """Tables, columns, constraints, indexes, triggers, types; and diagrams with every table."""
    written = shell.report("docs")["markdown"]
    for key, definition in expected_catalog().items():
        kind, _, name = split_key(key)
        shown = {"column": f"| `{name}` | `", "table": f"### {name}\n", "comment": definition}.get(kind, f"`{name}`")
        if kind == "index":
            shown = definition.replace("|", "\\|")
        assert kind == "function" or shown in written, key
    diagrams = "".join(re.findall("```mermaid\n(.*?)```", written, re.DOTALL))
    assert [f"    {model._meta.table_name} {{" in diagrams for model in MODELS] == [True] * len(MODELS)


def test_lint_examines_what_is_pending_or_named(shell: Shell, myloware_dsn: str) -> None:
    """Nothing is pending here; with names and --all no database is asked."""
    assert "No hazard found." in shell.run("lint", "--url", myloware_dsn).stdout
    folder = shell.folder / "migrations"
    folder.mkdir()
    (folder / "001_initial.py").write_text("def migrate(migrator, database, *, fake=False): pass\nrollback = migrate\n")
    (folder / "002_hurts.py").write_text(
        "def migrate(migrator, database, *, fake=False):\n    migrator.sql('CREATE INDEX i ON runs (error)')\n"
    )
    pending = shell.report("lint", "--directory", "migrations", "--url", myloware_dsn, code=1)["hazards"]
    named = shell.report("lint", "002_hurts", "--directory", "migrations", code=1)["hazards"]
    everything = shell.run("lint", "--all", "--directory", "migrations")

    assert ["require-concurrent-index-creation", "missing-rollback"] == [hazard["rule"] for hazard in pending]
    assert (pending, 1) == (named, everything.returncode)
    assert "002_hurts: missing-rollback" in everything.stdout
    assert "2 hazards" in everything.stdout
    assert 2 == shell.run("lint", "009_no").returncode


def test_tables_without_a_history_are_told(shell: Shell, myloware_dsn: str) -> None:
    """If a schema was restored without the history, `migrate` and its plan refer to `validate`, and change nothing."""
    shell.ask(myloware_dsn, f"DROP TABLE {HISTORY_TABLE}")

    plan = shell.report("migrate", "--plan", "--url", myloware_dsn, code=1)
    assert "`myloware-store validate` says whose they are" in plan["obstacle"]
    done = shell.run("migrate", "--url", myloware_dsn)

    assert (1, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "`myloware-store validate` says whose they are, and how to record it" in done.stderr
    assert "myloware-store baseline" in shell.run("validate", "--url", myloware_dsn).stdout
    assert ALL == shell.report("baseline", "--url", myloware_dsn)["recorded"]
    assert shell.report("validate", "--url", myloware_dsn)["valid"]
    assert "They are recorded already." in shell.run("baseline", "--url", myloware_dsn).stdout


def test_status_and_validate_name_what_has_drifted(shell: Shell, myloware_dsn: str) -> None:
    """An index that is gone is counted by `status`, and named by `validate`."""
    shell.ask(myloware_dsn, "DROP INDEX work_items_content_fts_idx")

    status = shell.report("status", "--url", myloware_dsn, code=1)
    assert (False, 1, []) == (status["current"], status["drifted"], status["pending"])
    (finding,) = shell.report("validate", "--url", myloware_dsn, code=1)["findings"]
    assert ("index", "work_items.work_items_content_fts_idx") == (finding["kind"], finding["name"])
    text = shell.run("validate", "--url", myloware_dsn)
    assert finding["remedy"] in text.stdout
    assert "1 finding" in shell.run("status", "--url", myloware_dsn).stdout


def test_drift_is_a_diff(shell: Shell, myloware_dsn: str) -> None:
    """What is expected and what is there, line by line; exit 1 if there is any."""
    assert "none\n" in shell.run("drift", "--url", myloware_dsn).stdout
    shell.ask(myloware_dsn, "ALTER TABLE runs ALTER COLUMN error SET DEFAULT 'none'")
    shell.ask(myloware_dsn, "ALTER FUNCTION content_sha256(text) STABLE")

    shown = shell.run("drift", "--url", myloware_dsn)
    assert 1 == shown.returncode
    assert "column runs.error\n-text\n+text DEFAULT 'none'::text\n" in shown.stdout
    assert "function content_sha256(content text)\n-" in shown.stdout
    function, column = shell.report("drift", "--url", myloware_dsn, code=1)["differences"]
    assert ("function", "column", "text") == (function["kind"], column["kind"], column["expected"])


@pytest.mark.parametrize("command", ["migrate", "up --migrate", "seed --yes"])
def test_a_database_newer_than_the_code_is_refused(shell: Shell, myloware_dsn: str, command: str) -> None:
    """One line says so, with exit code 1, and nothing is written."""
    shell.ask(myloware_dsn, f"INSERT INTO {HISTORY_TABLE} (name, migrated_at) VALUES ('999_future', now())")

    done = shell.run(*command.split(), DATABASE_URL=myloware_dsn)

    assert (1, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "999_future" in done.stderr
    assert 0 == shell.ask(myloware_dsn, "SELECT count(*) FROM work_orders")
    assert ["999_future"] == shell.report("status", code=1, DATABASE_URL=myloware_dsn)["unknown"]


def test_ping_says_who_answers(shell: Shell, myloware_dsn: str, empty_url: str) -> None:
    """The versions are the server's own; a database without the extension is reached, too."""
    found = shell.report("ping", "--url", myloware_dsn)
    assert shell.ask(myloware_dsn, "SHOW server_version") == found["server_version"]
    version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    assert shell.ask(myloware_dsn, version) == found["pgvector_version"]
    assert 0 < found["milliseconds"]

    assert shell.report("ping", "--url", empty_url)["pgvector_version"] is None
    assert "no pgvector" in shell.run("ping", "--url", empty_url).stdout


def test_migrations_path_is_the_folder_and_nothing_else(shell: Shell) -> None:
    """Fit for `pw_migrate migrate --directory "$(myloware-store migrations-path)"`."""
    assert f"{migrations_path()}\n" == shell.run("migrations-path").stdout
    assert {"path": str(migrations_path())} == shell.report("migrations-path")


def test_the_database_can_be_named_in_every_way(shell: Shell, myloware_dsn: str) -> None:
    """Before and after the command, in the environment, in `.env`, and in a file of another name."""
    (shell.folder / "staging.env").write_text(f"DATABASE_URL='{myloware_dsn}'\n")
    nowhere = "postgresql:///nowhere?host=/nonexistent"
    ways: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("--url", myloware_dsn, "ping"), {"DATABASE_URL": nowhere}),
        (("ping", "--url", myloware_dsn), {"DATABASE_URL": nowhere}),
        (("--env-file", "staging.env", "ping"), {"DATABASE_URL": nowhere}),
        (("ping", "--env-file", "staging.env"), {"DATABASE_HOST": "/nonexistent"}),
    ]
    for arguments, environ in ways:
        assert shell.report(*arguments, **environ)["database"] in myloware_dsn, (arguments, environ)

    assert "" == shell.run(*ways[2][0], DATABASE_HOST="h").stderr
    (shell.folder / "staging.env").rename(shell.folder / ".env")
    assert shell.report("ping")["database"] in myloware_dsn


def test_a_named_file_that_names_no_database_is_refused(shell: Shell, myloware_dsn: str) -> None:
    """A slip in the file never has a deploy migrate the embedded database instead."""
    (shell.folder / "staging.env").write_text(f"DATABSE_URL='{myloware_dsn}'\n")

    done = shell.run("migrate", "--env-file", "staging.env", DATABASE_URL=myloware_dsn)

    assert (2, False) == (done.returncode, shell.home.exists())
    assert "staging.env names no database" in done.stderr
    (shell.folder / "staging.env").write_text("DATABASE_URL=embedded:\n")
    assert str(shell.home) in shell.run("ping", "--env-file", "staging.env").stderr


def test_a_file_that_was_put_aside_is_mentioned(shell: Shell, myloware_dsn: str) -> None:
    """One variable that was left over in the environment is not the whole of a database: the file's part is missing."""
    (shell.folder / ".env").write_text(f"DATABASE_URL='{myloware_dsn}'\n")

    done = shell.run("ping", DATABASE_HOST="/nonexistent")

    assert "note: ignoring DATABASE_URL of .env: the environment sets DATABASE_HOST" in done.stderr
    assert "" == shell.run("ping", DATABASE_URL=myloware_dsn).stderr


@pytest.mark.parametrize("command", ["recount", "prune", "index items"])
def test_a_command_on_work_says_what_an_unmigrated_database_lacks(shell: Shell, empty_url: str, command: str) -> None:
    """As `Store.open` does."""
    done = shell.run(*command.split(), "--url", empty_url)
    assert 1 == done.returncode
    assert "is not migrated: run `myloware-store migrate`" in done.stderr


def test_recount_corrects_what_validate_finds(shell: Shell, myloware: Store, myloware_dsn: str) -> None:
    """Whoever sets the functions' own parameter by hand is found, and the books balance again."""
    order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    by_hand = "SET LOCAL myloware.counts = '0'; UPDATE work_orders SET open_items = 7"
    with myloware.db.atomic():
        myloware.db.execute_sql(by_hand)
    (finding,) = shell.report("validate", "--url", myloware_dsn, code=1)["findings"]
    assert ("order", str(order.id), "myloware-store recount") == (finding["kind"], finding["name"], finding["remedy"])
    assert finding["actual"].endswith("; 1 order does not agree with its items")
    assert [str(order.id)] == shell.report("recount", "--url", myloware_dsn)["corrected"]
    assert shell.report("validate", "--url", myloware_dsn)["valid"]
    assert 1 == myloware.work.get(order.id).open_items


def test_prune_deletes_documents_that_have_expired(shell: Shell, myloware: Store, myloware_dsn: str) -> None:
    """All of them, and no other."""
    doc = {"type": "CONTEXT", "content": "x"}
    ids = myloware.memory.upsert([doc, *[{**doc, "expires_at": "2020-01-01T00:00:00Z"}] * 3])
    assert 3 == shell.report("prune", "--url", myloware_dsn)["pruned"]
    assert ids[:1] == [row.id for row in MemDoc.select()]

"""`up` and `down`: one command to a store that can be looked at, and one that ends it."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.history import available_migrations, migrations_path

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Shell

ALL = list(available_migrations(migrations_path()))
ORDERS = "SELECT count(*) FROM work_orders"


def test_up_brings_everything(shell: Shell) -> None:
    """A folder with nothing in it has a migrated, seeded, valid database after one command, and its server runs on."""
    first = shell.report("up")

    assert (ALL, ALL, True, []) == tuple(
        first[key] for key in ("migrations_applied", "migrated_now", "valid", "findings")
    )
    kept = {"audit_logs": "source = 'application'"}
    stored = {
        table: shell.ask(first["url"], f"SELECT count(*) FROM {table} WHERE {kept.get(table, 'true')}")
        for table in first["seeded"]
    }
    assert stored == first["seeded"]
    assert 15 == len(stored)
    assert 0 < min(stored.values())
    assert shell.ask(first["url"], "SHOW server_version") == first["server_version"]
    version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    assert shell.ask(first["url"], version) == first["pgvector_version"]


def test_up_again_changes_nothing(shell: Shell) -> None:
    """The second `up` finds everything done, on the server that runs."""
    assert re.search(rf"Migrations\s+{len(ALL)} applied, {len(ALL)} of them now", shell.run("up").stdout)
    assert re.search(rf"Migrations\s+{len(ALL)} applied, none of them now", shell.run("up").stdout)
    first = shell.report("up")
    pid = EmbeddedServer(shell.home).pid

    second = shell.report("up")

    assert (ALL, [], True, None) == tuple(
        second[key] for key in ("migrations_applied", "migrated_now", "valid", "seeded")
    )
    assert (first["url"], pid) == (second["url"], EmbeddedServer(shell.home).pid)


def test_up_without_samples(shell: Shell) -> None:
    """`--no-seed` leaves the tables empty, and so does production."""
    report = shell.report("up", "--no-seed")
    assert (None, 0) == (report["seeded"], shell.ask(report["url"], ORDERS))

    report = shell.report("up", "--url", "embedded:.myloware", MYLOWARE_ENV="production")
    assert (None, 0) == (report["seeded"], shell.ask(report["url"], ORDERS))

    refused = shell.run("up", "--seed", "--url", "embedded:.myloware", MYLOWARE_ENV="production")
    assert (2, 0) == (refused.returncode, shell.ask(report["url"], ORDERS))


def test_up_adds_nothing_to_rows_of_ones_own(shell: Shell) -> None:
    """A database with rows gets sample data only with `--seed`, which keeps the existing rows."""
    url = shell.report("up", "--no-seed")["url"]
    shell.ask(url, "INSERT INTO capabilities (name, scope) VALUES ('mine', 'x')")

    assert (None, 0) == (shell.report("up")["seeded"], shell.ask(url, ORDERS))
    assert (9, 9) == (shell.report("up", "--seed")["seeded"]["work_orders"], shell.ask(url, ORDERS))


def test_two_ups_at_once(shell: Shell) -> None:
    """Both succeed, the migrations are applied once, and there is one server."""
    both = [shell.start("up", "--json") for _ in range(2)]
    outputs = [process.communicate() for process in both]

    assert [0, 0] == [process.returncode for process in both], outputs
    reports = [json.loads(output) for output, _ in outputs]
    assert ALL == [name for report in reports for name in report["migrated_now"]]
    assert 9 == sum(report["seeded"]["work_orders"] for report in reports if report["seeded"])
    assert reports[0]["url"] == reports[1]["url"]


def test_up_in_any_folder(shell: Shell) -> None:
    """Spaces, quotes, accents and length in the folder's name break neither the server nor the lines printed."""
    folder = shell.folder / "it's a földer" / "$HOME" / ("long " * 20)
    folder.mkdir(parents=True)
    here = type(shell)(folder)
    try:
        report = here.report("up")

        assert report["url"] == here.report("ping")["url"]
        assert 9 == here.ask(report["url"], ORDERS)
        python = here.python(report["next"]["python"])
        assert (0, "") == (python.returncode, python.stderr)
        down = here.line(report["next"]["down"])
        assert (0, "") == (down.returncode, down.stderr)
        assert not EmbeddedServer.running(here.home)
    finally:
        EmbeddedServer.down(here.home, force=True)


def test_lines_to_look_at_it_work_as_printed(shell_up: Shell) -> None:
    """Each line that `up` prints runs in a plain shell, and the program in a plain Python of this environment."""
    lines = shell_up.report("up")["next"]
    text = shell_up.run("up").stdout
    assert {"psql", "python", "down"} == set(lines)
    for line in lines.values():
        assert f"\n{line}\n" in text

    psql = shell_up.line(lines["psql"], answer=f"\\pset tuples_only\n{ORDERS}")
    assert (0, "9") == (psql.returncode, psql.stdout.splitlines()[1].strip()), psql
    for options in ([], ["-i"]):
        python = shell_up.python(lines["python"], *options)
        assert (0, 9) == (python.returncode, len(python.stdout.splitlines())), python
    assert EmbeddedServer.running(shell_up.home)


def test_psql_of_the_embedded_server_serves_where_there_is_no_other(shell_up: Shell) -> None:
    """Without a psql on PATH the printed line names the one that came with the server, and works too."""
    line = shell_up.report("up", PATH="/nonexistent")["next"]["psql"]

    assert shlex.split(line)[0].endswith("/psql")
    psql = shell_up.line(f"{line} -Atc '{ORDERS}'")
    assert (0, "9\n") == (psql.returncode, psql.stdout), psql


def test_the_files_are_named(shell_up: Shell) -> None:
    """`up` shows the folder of the data, wherever it is."""
    assert str(EmbeddedServer(shell_up.home).data_dir) == shell_up.report("up")["files"]


def test_down_stops_the_server_and_keeps_the_data(shell: Shell) -> None:
    """After `down` nothing runs; the next `up` has the old data."""
    url = shell.report("up")["url"]
    shell.ask(
        url,
        "INSERT INTO audit_logs (tenant_id, user_id, action, resource_type, resource_id) VALUES"
        " ('acme', 'kim', 'test', 'work_order', '1')",
    )

    assert {"stopped": True, "home": str(shell.home)} == shell.report("down")
    assert not EmbeddedServer.running(shell.home)

    shell.report("up")
    assert 1 == shell.ask(url, "SELECT count(*) FROM audit_logs WHERE action = 'test'")


def test_down_without_a_server(shell: Shell) -> None:
    """If no server runs, `down` says so, succeeds and creates no folder."""
    assert {"stopped": False, "home": str(shell.home)} == shell.report("down")
    assert "No embedded server runs in" in shell.run("down").stdout
    assert not shell.home.exists()


def test_down_minds_its_own_business(shell: Shell, myloware_dsn: str) -> None:
    """A server that was not started from here goes on, whatever the options and the environment name."""
    refused = shell.run("down", "--url", myloware_dsn)
    assert 2 == refused.returncode
    assert not shell.report("down", DATABASE_URL=myloware_dsn)["stopped"]
    assert not shell.report("down", MYLOWARE_ENV="production")["stopped"]
    assert 1 == shell.ask(myloware_dsn, "SELECT 1")


def test_down_finds_the_embedded_server_beside_a_configured_database(shell: Shell, myloware_dsn: str) -> None:
    """A database that was configured meanwhile does not hide the server of the folder."""
    shell.report("up")

    (shell.folder / ".env").write_text(f'DATABASE_URL="{myloware_dsn}"\n')

    assert shell.report("down")["stopped"]


def test_a_broken_file_keeps_nobody_from_stopping(shell: Shell) -> None:
    """A `.env` that cannot be used is an error; a server that is up can be stopped all the same."""
    shell.report("up")
    (shell.folder / ".env").write_text("DATABASE_PORT=none\n")

    for command in ("status", "migrate", "ping"):
        done = shell.run(command)
        assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), done
        assert "DATABASE_PORT" in done.stderr
    assert shell.report("down")["stopped"]


def test_down_while_a_program_uses_the_server(shell: Shell) -> None:
    """It is not pulled away from under an open store, unless by force."""
    shell.report("up")
    with EmbeddedServer(shell.home):
        refused = shell.run("down")
        assert 2 == refused.returncode
        assert "in use" in refused.stderr
        assert EmbeddedServer.running(shell.home)

        assert shell.report("down", "--force")["stopped"]


def test_commands_leave_no_server_behind(shell: Shell) -> None:
    """Other commands use the embedded server only while they run."""
    shell.report("up")
    shell.report("down")

    for command in (("status",), ("validate",), ("migrate",), ("seed", "--yes"), ("reset", "--yes")):
        # No address of a server that is gone by then: this one starts it whenever it is needed.
        assert f"embedded:{shell.home}" == shell.report(*command)["url"]
        assert not EmbeddedServer.running(shell.home), command


@pytest.mark.parametrize("command", ["ping", "status", "validate"])
def test_looking_makes_nothing(shell: Shell, command: str) -> None:
    """If there is no embedded database yet, reading commands say so, and leave the folder unchanged."""
    done = shell.run(*command.split())

    assert (2, []) == (done.returncode, list(shell.folder.iterdir()))
    assert "create it with `myloware-store up`" in done.stderr


def test_a_plan_for_no_database_makes_none(shell: Shell) -> None:
    """The plan shows what `migrate` would do in an empty folder, and the folder stays empty."""
    report = shell.report("migrate", "--plan", code=1)

    assert ([], ALL, f"embedded:{shell.home}") == (report["applied"], report["pending"], report["url"])
    assert [] == list(shell.folder.iterdir())


def test_ping_starts_nothing(shell: Shell) -> None:
    """If the server does not run, `ping` reports that."""
    shell.report("up")
    assert 0 == shell.run("ping").returncode
    shell.report("down")

    done = shell.run("ping")

    assert (2, False) == (done.returncode, EmbeddedServer.running(shell.home))
    assert "does not run: start it with `myloware-store up`" in done.stderr


def up_of(shell: Shell, url: str, *options: str, code: int = 0) -> Any:
    """Bring a configured database up."""
    return shell.report("up", *options, code=code, DATABASE_URL=url)


def test_up_leaves_a_configured_database_alone(shell: Shell, empty_url: str) -> None:
    """Without being asked, it neither migrates nor seeds: it says what is missing, and exits with 1."""
    report = up_of(shell, empty_url, code=1)

    assert (False, [], None, {}) == tuple(report[key] for key in ("valid", "migrations_applied", "seeded", "next"))
    assert "myloware-store migrate" == report["findings"][0]["remedy"]
    assert 0 == shell.ask(empty_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    assert not shell.home.exists()


def test_up_migrates_and_seeds_a_configured_database_when_asked(shell: Shell, empty_url: str) -> None:
    """`--migrate` migrates and does not seed; `--seed` seeds, and asks."""
    report = up_of(shell, empty_url, "--migrate")
    assert (True, ALL, None) == tuple(report[key] for key in ("valid", "migrations_applied", "seeded"))
    assert "down" not in report["next"]

    assert 1 == shell.run("up", "--seed", answer="n\n", DATABASE_URL=empty_url).returncode
    assert 0 == shell.ask(empty_url, ORDERS)

    report = up_of(shell, empty_url, "--seed", "--yes")
    assert (9, 9) == (report["seeded"]["work_orders"], shell.ask(empty_url, ORDERS))


def test_production_is_never_seeded(shell: Shell, empty_url: str) -> None:
    """Not even when asked, and nothing else is done either."""
    done = shell.run("up", "--migrate", "--seed", "--yes", DATABASE_URL=empty_url, MYLOWARE_ENV="production")

    assert 2 == done.returncode
    assert 0 == shell.ask(empty_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")

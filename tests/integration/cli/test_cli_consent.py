"""`seed` and `reset` ask first, and refuse to run in production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from myloware_store import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cli.conftest import Shell
    from tests.relay import Relay

ORDERS = "SELECT count(*) FROM work_orders"
ORDER = "INSERT INTO work_orders (tenant_id, created_by) VALUES ('acme', 'kim')"


@pytest.fixture
def remote_url(myloware_dsn: str, relayed: Callable[..., Relay]) -> str:
    """Return the URL of this test's database on a host that is not this machine, according to its name."""
    settings = Settings.load(myloware_dsn)
    port = relayed(settings.host, settings.port).port
    plain = {"hostaddr": "127.0.0.1", "sslmode": "disable", "gssencmode": "disable"}
    return attrs.evolve(settings, host="db.example.com", port=port, params=plain).url


@pytest.mark.parametrize(
    ("command", "answer", "code"),
    [("seed", "n\n", 1), ("seed", "", 2), ("reset", "\n", 1), ("reset", "yes please\n", 1), ("reset", "", 2)],
)
def test_nothing_but_a_yes_is_a_yes(shell: Shell, myloware_dsn: str, command: str, answer: str, code: int) -> None:
    """Any other answer leaves the database unchanged, with exit code 1; without an answer, the call was wrong."""
    shell.ask(myloware_dsn, ORDER)

    done = shell.run(command, answer=answer, DATABASE_URL=myloware_dsn)

    assert (code, "") == (done.returncode, done.stdout)
    assert "nothing was changed" in done.stderr
    assert 1 == shell.ask(myloware_dsn, ORDERS)


def test_a_yes_is_a_yes(shell: Shell, myloware_dsn: str) -> None:
    """`y` and `--yes` continue; sample data is added once, and a reset leaves none of the data."""
    assert 0 == shell.run("seed", answer="y\n", DATABASE_URL=myloware_dsn).returncode
    assert 9 == shell.ask(myloware_dsn, ORDERS)
    assert {0} == set(shell.report("seed", "--yes", DATABASE_URL=myloware_dsn)["inserted"].values())

    assert shell.report("reset", "--yes", DATABASE_URL=myloware_dsn)["inserted"] is None
    assert 0 == shell.ask(myloware_dsn, ORDERS)
    report = shell.report("reset", "--yes", "--seed", DATABASE_URL=myloware_dsn)
    assert (9, 9) == (report["inserted"]["work_orders"], shell.ask(myloware_dsn, ORDERS))


@pytest.mark.parametrize("command", ["seed", "reset"])
def test_nothing_is_made_before_a_yes(shell: Shell, command: str) -> None:
    """The question comes before the embedded server and its folder."""
    assert 2 == shell.run(command).returncode
    assert [] == list(shell.folder.iterdir())


def test_the_question_is_not_part_of_the_report(shell: Shell, myloware_dsn: str) -> None:
    """It goes to stderr, so that stdout is the one JSON object."""
    done = shell.run("seed", "--json", answer="y\n", DATABASE_URL=myloware_dsn)

    assert 1 == len(done.stdout.splitlines())
    assert "? [y/N]" in done.stderr


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("seed --yes --database", "production"),
        ("reset --yes --database", "Production"),
        ("up --seed --yes --database", "prod"),
        ("demo --configured", "production"),
        ("demo", "production"),
    ],
)
def test_production_is_refused(shell: Shell, myloware_dsn: str, command: str, name: str) -> None:
    """Whatever else is said, and however production is spelt."""
    shell.ask(myloware_dsn, ORDER)
    database = [Settings.load(myloware_dsn).dbname] if command.endswith("--database") else []

    done = shell.run(*command.split(), *database, DATABASE_URL=myloware_dsn, MYLOWARE_ENV=name)

    assert (2, 1) == (done.returncode, shell.ask(myloware_dsn, ORDERS)), done
    assert "production" in done.stderr


@pytest.mark.parametrize("command", ["seed", "reset"])
def test_a_remote_database_must_be_named(shell: Shell, remote_url: str, myloware_dsn: str, command: str) -> None:
    """If the server is not on this machine, `y` and `--yes` are not enough: the database's name must be typed."""
    shell.ask(myloware_dsn, ORDER)
    name = Settings.load(myloware_dsn).dbname
    here: dict[str, Any] = {"DATABASE_URL": remote_url}

    for code, done in (
        (1, shell.run(command, answer="y\n", **here)),
        (1, shell.run(command, answer="myloware\n", **here)),
        (2, shell.run(command, "--yes", **here)),
        (2, shell.run(command, "--yes", "--database", "myloware", **here)),
    ):
        assert (code, 1) == (done.returncode, shell.ask(myloware_dsn, ORDERS)), done
        assert name in done.stderr

    after = {"seed": 10, "reset": 0}[command]
    assert 0 == shell.run(command, answer=f"{name}\n", **here).returncode
    assert after == shell.ask(myloware_dsn, ORDERS)
    assert 0 == shell.run(command, "--yes", "--database", name, **here).returncode


def test_the_name_is_checked_wherever_it_is_given(shell: Shell, myloware_dsn: str) -> None:
    """`--database` guards a script on this machine, too."""
    done = shell.run("reset", "--yes", "--database", "another", DATABASE_URL=myloware_dsn)

    assert 2 == done.returncode
    assert "not another" in done.stderr


def test_a_host_that_libpq_was_left_to_find_counts(shell: Shell, remote_url: str) -> None:
    """PGHOST and PGHOSTADDR name a server as well as a URL does."""
    settings = Settings.load(remote_url)
    name = settings.dbname
    hidden = {
        "DATABASE_URL": f"postgresql:///{name}?sslmode=disable&gssencmode=disable",
        "PGHOST": "db.example.com",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": str(settings.port),
        "PGUSER": settings.user,
        "PGPASSWORD": settings.ask_password(),
    }

    done = shell.run("seed", "--yes", **hidden)

    assert 2 == done.returncode
    assert "not on this machine" in done.stderr
    assert 0 == shell.run("seed", "--yes", "--database", name, **hidden).returncode


def test_libpqs_environment_leads_no_command_astray(shell: Shell, hostile: dict[str, Any]) -> None:
    """Whatever PG* variables and a service file say, the embedded database is the one that is made and emptied."""
    report = shell.report("up", **hostile)

    assert (True, 9) == (report["valid"], shell.ask(report["url"], ORDERS))
    assert str(shell.home) in report["files"]
    assert report["url"] == shell.report("ping", **hostile)["url"]
    assert shell.report("validate", DATABASE_URL=report["url"], **hostile)["valid"]
    psql = shell.line(f"PGHOSTADDR={hostile['PGHOSTADDR']} {report['next']['psql']} -Atc '{ORDERS}'")
    assert (0, "9\n") == (psql.returncode, psql.stdout), psql
    refused = shell.run("reset", "--yes", "--database", "elsewhere", **hostile)
    assert (2, 9) == (refused.returncode, shell.ask(report["url"], ORDERS)), refused
    assert 0 == shell.run("reset", "--yes", "--database", "myloware", **hostile).returncode
    assert 0 == shell.ask(report["url"], ORDERS)


@pytest.mark.parametrize(("name", "value"), [("PGTZ", "Nowhere"), ("PGSERVICE", "unknown")])
def test_what_no_connection_can_overrule_is_named(shell_up: Shell, name: str, value: str) -> None:
    """Libpq reads a few variables whatever a connection says: a bad value in one is an error that names it."""
    refused = shell_up.run("reset", "--yes", **{name: value})

    assert 2 == refused.returncode
    assert f"libpq reads {name} from the environment" in refused.stderr

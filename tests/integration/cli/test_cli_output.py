"""The output and exit codes of the commands: for people, for programs, on any terminal and after errors."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from click.testing import CliRunner

from myloware_store.cli import cli
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.migration_database import LOCK_CLASS

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Shell

COMMANDS = [
    *("up", "down", "demo", "ping", "wait"),
    *("makemigration", "lint", "migrate", "rollback", "baseline", "migrations-path"),
    *("status", "drift", "validate", "doctor", "docs"),
    *("backup", "verify-backup", "restore"),
    *("roles", "tenancy", "secrets", "audit"),
    *("index", "recount", "prune", "seed", "reset"),
]
COLOUR = re.compile(r"\x1b\[[\d;]*m")
SECRET = "s3cr3t%21"


def test_help_names_every_command(shell: Shell) -> None:
    """Each with a short description that fits a terminal of 80 columns."""
    done = shell.run("--help", COLUMNS="80")

    shown = dict(re.findall(r"^  ([a-z-]+) {2,}(\S.*)$", done.stdout.partition("Commands:")[2], re.MULTILINE))
    assert COMMANDS == list(shown)
    assert not [text for text in shown.values() if text.endswith("...")]
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command: str) -> None:
    """An example starts with the command as it is typed."""
    shown = CliRunner().invoke(cli, [command, "--help"])

    assert 0 == shown.exit_code
    example = shown.stdout.partition("Example:\n")[2]
    assert f"myloware-store {command}" in example


def test_version(shell: Shell) -> None:
    """The version is the distribution's."""
    assert f"myloware-store {version('myloware-store')}\n" == shell.run("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ping", "--url", f"postgresql://kim:{SECRET}@/db?host=/nonexistent"], "no server listens there"),
        (["migrate", "--url", f"postgresql://kim:{SECRET}@/db?host=/nonexistent"], "no server listens there"),
        (["up", "--url", f"postgresql://kim:{SECRET}@/db?host=/nonexistent"], "no server listens there"),
        (["ping", "--url", f"postgresql://kim:{SECRET}@localhost:port/db"], "port"),
        (["ping", "--url", f"mysql://kim:{SECRET}@localhost/db"], "PostgreSQL"),
        (["ping", "--url", ""], "not a database address"),
        (["ping", "--env-file", f"postgresql://kim:{SECRET}@localhost/db"], "does not exist"),
        ([f"postgresql://kim:{SECRET}@localhost/db"], "No such command"),
        (["ping", f"postgresql://kim:{SECRET}@localhost/db"], "unexpected extra argument"),
        (["status", f"host=x password={SECRET}"], "(host=x password=***)"),
        (["status", f"password = '{SECRET} {SECRET}' host=x"], "(password = *** host=x)"),
        (["status", f"postgresql://h/x?PASSWORD={SECRET}"], "PASSWORD=***)"),
        (["status", f"postgresql://kim:{SECRET} {SECRET}@h/x"], "kim:***@h/x"),
        (["host=x", f"DATABASE_PASSWORD={SECRET}"], "No such command"),
        (["ping", f"DATABASE_PASSWORD={SECRET}"], "DATABASE_PASSWORD=***"),
        (["ping", f"MYLOWARE_SECRET_KEYS=a:{SECRET}"], "MYLOWARE_SECRET_KEYS=***"),
        (["demo", f"password={SECRET}"], "does not exist"),
        (["up", "--frobnicate"], "No such option"),
        (["demo", "nowhere.txt"], "nowhere.txt"),
        (["ping", "--url", "embedded:/dev/null/x"], "/dev/null"),
    ],
)
def test_misuse_is_one_line_and_two(shell: Shell, arguments: list[str], words: str) -> None:
    """A wrong call or a database out of reach: exit code 2, the reason in a line, as JSON too, and no secret."""
    done = shell.run(*arguments, "--json")

    report = json.loads(done.stdout)
    assert (2, 2) == (done.returncode, report["exit_code"])
    assert words in report["error"]
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert [] == list(shell.folder.iterdir())


def test_no_report_shows_a_password(shell: Shell, myloware_dsn: str) -> None:
    """The output about a configured database masks its password."""
    url = myloware_dsn.replace("postgres@", f"postgres:{SECRET}@")
    for command in ("ping", "status", "validate", "migrate --json", "up --json", "seed --yes"):
        done = shell.run(*command.split(), DATABASE_URL=url)
        assert (0, "") == (done.returncode, done.stderr)
        assert "s3cr3t" not in done.stdout


def test_nothing_but_text_reaches_a_file(shell_up: Shell) -> None:
    """Into a pipe or a file go neither colours nor progress."""
    for command in ("up", "demo"):
        done = shell_up.run(command)
        assert "\x1b" not in done.stdout
        assert "" == done.stderr


def test_a_terminal_has_colours_unless_told_not_to(shell_up: Shell) -> None:
    """NO_COLOR is honoured to the letter: neither colour nor bold."""
    code, shown = shell_up.terminal("up")
    assert (0, True) == (code, bool(COLOUR.search(shown)))

    code, shown = shell_up.terminal("up", NO_COLOR="1")
    assert (0, None) == (code, COLOUR.search(shown))


def test_any_terminal_will_do(shell_up: Shell) -> None:
    """On a narrow or dumb terminal, or one without the characters, lines to be copied stay in one piece."""
    line = f"\n{shell_up.report('up')['next']['psql']}\n"
    for environ in (
        {"COLUMNS": "1"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ):
        done = shell_up.run("up", **environ)
        assert (0, "") == (done.returncode, done.stderr), environ
        assert line in done.stdout, environ
    for environ in ({"COLUMNS": "20"}, {"TERM": "dumb"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}):
        assert 0 == shell_up.terminal("demo", **environ)[0], environ


@pytest.mark.parametrize("command", [["up"], ["demo"], ["up", "--json"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(shell_up: Shell, command: list[str]) -> None:
    """As with `| head`: nothing on stderr, and the command does its work."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [*shell_up.command, *command], cwd=shell_up.folder, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    _, complaint = process.communicate()

    assert (141, "") == (process.returncode, complaint)
    assert EmbeddedServer.running(shell_up.home)


def test_closed_streams_are_no_error(shell_up: Shell) -> None:
    """A job that closes stdout or stderr gets the exit code."""
    ping = shlex.join([*shell_up.command, "ping"])
    for line, code in ((f"{ping} >&-", 0), (f"{ping} 2>&-", 0), (f"{ping} --url x >&- 2>&-", 2)):
        done = shell_up.line(line, folder=shell_up.folder)
        assert (code, "") == (done.returncode, done.stderr), line


def test_ctrl_c_at_a_question(shell_up: Shell) -> None:
    """The question is answered with no, and the exit code is the shell's for an interrupt."""
    code, shown = shell_up.terminal("reset", keys="\x03")

    assert 130 == code
    assert "interrupted" in shown
    assert "Traceback" not in shown
    assert 9 == shell_up.ask(
        shell_up.report("ping")["url"], "SELECT count(*) FROM work_orders WHERE tenant_id != 'demo'"
    )


def test_ctrl_c_in_the_middle(shell: Shell) -> None:
    """A command that is interrupted while it works exits with 130, and leaves data and server as they were."""
    url = shell.report("up")["url"]
    shell.report("down")
    with EmbeddedServer(shell.home), closing(psycopg2.connect(url)) as other, other.cursor() as run:
        run.execute("SELECT pg_advisory_lock(%s, hashtext('public'))", (LOCK_CLASS,))
        process = shell.start("reset", "--yes")
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'myloware-store migrate'"
        shell.eventually(lambda: shell.ask(url, waiting), "the reset waits for the lock")

        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate()

        assert (130, "", "error: interrupted") == (process.returncode, output, complaint.strip())
        assert 9 == shell.ask(url, "SELECT count(*) FROM work_orders")
    assert not EmbeddedServer.running(shell.home)


def test_a_full_disk_is_not_taken_for_success(shell_up: Shell) -> None:
    """Output that could not be written is an error, not a broken pipe."""
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [*shell_up.command, "ping"],
            cwd=shell_up.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert 0 != process.returncode
    assert "No space left" in process.stderr

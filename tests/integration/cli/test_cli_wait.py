"""`wait` on the command line: its exit codes tell what an entry point of a container needs to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Shell


def test_the_exit_code_says_whether_to_go_on(shell: Shell, myloware_dsn: str, empty_url: str) -> None:
    """0 ready, 1 not in time, 2 if no waiting helps."""
    assert shell.report("wait", DATABASE_URL=myloware_dsn)["migrated"]
    assert "migrated" in shell.run("wait", DATABASE_URL=myloware_dsn).stdout
    assert shell.report("wait", "--for", "reachable", DATABASE_URL=empty_url)["reachable"]
    late = shell.report("wait", "--timeout", "0", code=1, DATABASE_URL=empty_url)
    assert ("WaitTimeout", True) == (late["kind"], "is not migrated" in late["error"])
    shell.ask(myloware_dsn, "INSERT INTO myloware_migratehistory (name, migrated_at) VALUES ('999_later', now())")
    assert "999_later" in shell.report("wait", code=2, DATABASE_URL=myloware_dsn)["error"]
    shell.report("wait", code=2, DATABASE_URL="postgresql://localhost:port/db")
    shell.report("wait", "--timeout", "-1", code=2, DATABASE_URL=myloware_dsn)


def test_the_reason_is_shown_on_a_terminal(shell: Shell, empty_url: str) -> None:
    """While it waits."""
    code, shown = shell.terminal("wait", "--timeout", "0.3", DATABASE_URL=empty_url, COLUMNS="300")

    assert (1, True) == (code, "Waiting: the database" in shown)

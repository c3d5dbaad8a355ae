"""`backup`, `verify-backup` and `restore` on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Shell

ORDERS = "SELECT count(*) FROM work_orders"


def test_the_embedded_database_comes_back(shell: Shell, hostile: dict[str, Any]) -> None:
    """From nothing, whatever libpq's environment says; with --replace, the old data stays under another name."""
    url = shell.report("up")["url"]
    made = shell.report("backup", "b.backup", **hostile)
    assert (9, "myloware") == (made["tables"]["public.work_orders"], made["database"])
    assert made["bytes"] == (shell.folder / "b.backup").stat().st_size
    assert made["tables"] == shell.report("verify-backup", "b.backup")["tables"]
    shell.ask(url, "UPDATE work_orders SET metadata = '{}'; DELETE FROM work_orders")

    for code, done in (
        (1, shell.run("backup", "b.backup")),
        (1, shell.run("restore", "b.backup")),
        (1, shell.run("restore", "b.backup", "--replace", answer="y\n")),
        (2, shell.run("restore", "b.backup", "--replace", "--yes")),
        (2, shell.run("restore", "b.backup", "--replace", "--yes", "--database", "store")),
        (1, shell.run("verify-backup", "none.backup")),
    ):
        assert (code, 0) == (done.returncode, shell.ask(url, ORDERS)), done

    hostile |= {"MYLOWARE_ENV": "production", "DATABASE_URL": "embedded:.myloware"}
    done = shell.run("restore", "b.backup", "--replace", answer="myloware\n", **hostile)
    assert (0, 9) == (done.returncode, shell.ask(url, ORDERS)), done
    assert "equal to the backup" in done.stdout
    report = shell.report("restore", "b.backup", "--replace", "--yes", "--database", "myloware")
    assert (True, [], []) == (report["restored"], report["differences"], report["findings"])
    old = f"SELECT count(*) FROM pg_database WHERE datname = '{report['replaced']}'"
    assert (1, 9) == (shell.ask(url, old), shell.ask(url, ORDERS))
    EmbeddedServer.down(shell.home)
    elsewhere = shell.report("restore", "b.backup", "--url", "embedded:elsewhere")
    assert (True, None) == (elsewhere["restored"], elsewhere["replaced"])
    assert not EmbeddedServer.running(shell.folder / "elsewhere")


def test_progress_is_shown_on_a_terminal(shell_up: Shell) -> None:
    """With the current step."""
    code, shown = shell_up.terminal("backup", "--overwrite", "t.backup")

    assert (0, True) == (code, "Reading the backup" in shown)

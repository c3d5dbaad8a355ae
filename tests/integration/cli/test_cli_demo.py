"""`demo`: the main job on real documents, on a store of its own, and never on somebody's data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.demo.reading import BUNDLED, read_documents
from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.cli.conftest import Shell

OWNED = (
    "work_orders",
    "work_items",
    "attempts",
    "runs",
    "mem_docs",
    "approval_events",
    "dead_letters",
    "connectors",
    "tools",
    "tool_capabilities",
    "eval_results",
    "audit_logs",
)
SHARED = ("capabilities", "schemas", "workflow_templates")


def rows(shell: Shell, url: str, where: str = "TRUE") -> dict[str, Any]:
    """Count the rows of the tables that tenants own."""
    return {table: shell.ask(url, f"SELECT count(*) FROM {table} WHERE {where}") for table in OWNED}


def test_the_demo_does_the_main_job(shell: Shell) -> None:
    """One command in an empty folder: every sample document is worked on, and all of it can be looked up."""
    report = shell.report("demo")

    assert len(read_documents(BUNDLED).documents) == len(report["items"])
    assert {"COMPLETED"} == {item["status"] for item in report["items"]} | {report["status"]}
    assert [2, *[1] * (len(report["items"]) - 1)] == sorted(
        (item["attempts"] for item in report["items"]), reverse=True
    )
    assert {report["retried"][0], report["approved"]} <= {item["name"] for item in report["items"]}
    stored = rows(shell, report["url"], "tenant_id = 'demo'")
    own = shell.ask(report["url"], "SELECT count(*) FROM audit_logs WHERE source = 'application'")
    assert report["counts"] == {name: {**stored, "audit_logs": own}[name] for name in report["counts"]}
    assert stored == rows(shell, report["url"])
    assert 0 < min(report["counts"].values())
    assert report["passages"][0]["similarity"] > 0.1


def test_lines_to_look_at_it_work_as_printed(shell_up: Shell) -> None:
    """The line for psql lists the items, the program asks memory the same question."""
    query = """what's the "late fee", $USER, \\n?"""
    report = shell_up.report("demo", "--query", query)
    text = shell_up.run("demo", "--query", query).stdout
    assert report["next"]["python"] in text
    assert f"\n{report['next']['down']}\n" in text

    psql = shell_up.line(report["next"]["psql"])
    assert (0, f"({len(report['items'])} rows)") == (psql.returncode, psql.stdout.split("\n")[-3]), psql
    for options in ([], ["-i"]):
        python = shell_up.python(report["next"]["python"], *options)
        assert 0 == python.returncode, python
        assert all(passage["content"][:40].split("\n")[0] in python.stdout for passage in report["passages"])
    assert EmbeddedServer.running(shell_up.home)


def test_documents_of_ones_own(shell_up: Shell, tmp_path: Path) -> None:
    """Files and folders are read; files that cannot be documents are named with the reason."""
    (tmp_path / "papers" / "deep").mkdir(parents=True)
    (tmp_path / "papers" / "deep" / "note.md").write_text("# Outage\n\nThe blue printer lost its ink cartridge.")
    (tmp_path / "papers" / "empty.txt").write_text("")
    (tmp_path / "papers" / "program.txt").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "papers" / "huge.txt").write_text("word " * 1_000_000)
    (tmp_path / "bill.txt").write_text("Invoice 17\nAmount due: 120.00 EUR, late fee 5 %")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")

    report = shell_up.report(
        "demo",
        "--query",
        "the printer and its ink",
        tmp_path / "papers",
        tmp_path / "bill.txt",
        tmp_path / "picture.png",
    )

    assert ["bill.txt", "deep/note.md"] == sorted(item["name"] for item in report["items"])
    assert {"empty.txt", "program.txt", "huge.txt", "picture.png"} == {
        skipped["name"].rsplit("/", 1)[-1] for skipped in report["skipped"]
    }
    assert 4 == report["counts"]["dead_letters"]
    assert "deep/note.md" == report["passages"][0]["document"]


def test_it_says_what_it_leaves_aside(shell_up: Shell, tmp_path: Path) -> None:
    """Notes name the configured database and files that are not text; the report lists the skipped files."""
    (tmp_path / "bill.txt").write_text("Invoice 17\nAmount due: 120.00 EUR, late fee 5 %")
    (tmp_path / "empty.txt").write_text("")
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG")

    done = shell_up.run("demo", tmp_path, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", COLUMNS="300")

    assert [
        "note: using the embedded server of this folder, not the configured database",
        "note: ignoring files that are not text or Markdown: "
        + ", ".join(str(tmp_path / f"{number}.png") for number in range(5))
        + " and 2 more",
    ] == done.stderr.splitlines()
    assert re.search(r"empty\.txt +[0-9a-f-]{36} +empty", done.stdout)
    assert "Dead letter: " not in done.stdout


def test_three_hundred_documents(shell_up: Shell, tmp_path: Path) -> None:
    """A folder of many files is worked on whole, and the text for people stays readable."""
    for number in range(300):
        (tmp_path / f"{number:03}.txt").write_text(f"Ticket {number}: the machine {number} has stopped.")

    done = shell_up.run("demo", tmp_path)

    assert 0 == done.returncode
    assert "and 270 more" in done.stdout
    assert re.search(r"^work_items +300 *$", done.stdout, re.MULTILINE)


def test_a_question_without_an_answer(shell: Shell, tmp_path: Path) -> None:
    """Memory finds nothing that is similar to it, and the report says so."""
    (tmp_path / "bill.txt").write_text("Invoice 17")

    assert "No match: " in shell.run("demo", "--query", "\u2603", tmp_path).stdout


@pytest.mark.parametrize("query", ["", " \n"])
def test_a_query_of_nothing_is_refused(shell_up: Shell, query: str) -> None:
    """One line, exit code 2, nothing stored."""
    url = shell_up.report("ping")["url"]
    before = rows(shell_up, url)

    done = shell_up.run("demo", "--query", query)

    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert before == rows(shell_up, url)


def test_nothing_to_read_is_refused(shell_up: Shell, tmp_path: Path) -> None:
    """A folder without documents and a path that does not exist are wrong calls; nothing is stored."""
    url = shell_up.report("ping")["url"]
    before = rows(shell_up, url)
    (tmp_path / "note.txt").write_text("Ticket 1: a paper jam")

    for paths in ([tmp_path / "nowhere"], [tmp_path / "note.txt", tmp_path / "nowhere"]):
        done = shell_up.run("demo", *paths)
        assert (2, "") == (done.returncode, done.stdout)
        assert "nowhere" in done.stderr
    (tmp_path / "note.txt").unlink()
    done = shell_up.run("demo", tmp_path)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert before == rows(shell_up, url)


def test_a_configured_database_is_not_touched(shell: Shell, myloware_dsn: str) -> None:
    """Named in the environment it is left alone, for the embedded store; named on the command line it is refused."""
    report = shell.report("demo", DATABASE_URL=myloware_dsn)
    assert "down" in report["next"]
    assert EmbeddedServer.running(shell.home)

    refused = shell.run("demo", "--url", myloware_dsn)
    assert (2, True) == (refused.returncode, "--configured" in refused.stderr)
    assert {0} == set(rows(shell, myloware_dsn).values())


def test_without_an_embedded_server_the_way_to_ones_own_is_told(shell: Shell, myloware_dsn: str) -> None:
    """The message does not say to set DATABASE_URL if it is set already."""
    done = shell.run("demo", DATABASE_URL=myloware_dsn, MYLOWARE_PG_BINDIR="/nonexistent")

    assert 2 == done.returncode
    assert "only with --configured" in done.stderr


def test_configured_writes_tenant_demo_only(shell: Shell, myloware_dsn: str) -> None:
    """In a database that has other tenants' data, nothing of theirs and nothing shared changes."""
    shell.report("seed", "--yes", DATABASE_URL=myloware_dsn)
    others = rows(shell, myloware_dsn, "tenant_id != 'demo'")
    content = "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM {} AS t"
    shared = [shell.ask(myloware_dsn, content.format(table)) for table in SHARED]

    report = shell.report("demo", "--configured", DATABASE_URL=myloware_dsn)

    assert others == rows(shell, myloware_dsn, "tenant_id != 'demo'")
    assert shared == [shell.ask(myloware_dsn, content.format(table)) for table in SHARED]
    assert report["counts"]["work_items"] == rows(shell, myloware_dsn, "tenant_id = 'demo'")["work_items"]
    assert "down" not in report["next"]
    assert not shell.home.exists()


def test_configured_does_not_migrate(shell: Shell, empty_url: str) -> None:
    """A database that is not migrated is a finding, and stays empty."""
    done = shell.run("demo", "--configured", DATABASE_URL=empty_url)

    assert 1 == done.returncode
    assert "myloware-store migrate" in done.stderr
    assert 0 == shell.ask(empty_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")

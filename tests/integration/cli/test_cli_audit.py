"""`myloware-store audit`: the trail is read, exported, sealed, verified and pruned from a shell."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import Settings

if TYPE_CHECKING:
    from myloware_store import Store
    from tests.integration.cli.conftest import Shell


@pytest.fixture
def here(myloware: Store) -> dict[str, Any]:
    """Return the environment of a database with four lines of two tenants."""
    for tenant, actor in (("acme", "kim"), ("acme", "lee"), ("globex", "kim")):
        with myloware.tenant(tenant, actor=actor):
            myloware.connectors.register(actor, "EMAIL")
    myloware.audit.record("read", "report", "1", details={"why": "\x1b[31m"})
    return {"DATABASE_URL": myloware.settings.libpq_url}


def test_the_log_is_filtered_and_continued(shell: Shell, here: dict[str, Any]) -> None:
    """As text, without control characters, and as JSON."""
    shown = shell.run("audit", "log", **here).stdout
    assert ["system: read report 1", "kim: insert connectors"] == [
        line.split(" ", 3)[3].rsplit(" ", line.count("connectors"))[0]
        for line in shown.splitlines()
        if " system: " in line or " globex kim: " in line
    ]
    assert "\x1b" not in shown
    report = shell.report("audit", "log", "--tenant", "acme", "--limit", "1", **here)
    (line,) = report["lines"]
    assert ("lee", "insert", "connectors", "database") == tuple(
        line[name] for name in ("user_id", "action", "resource_type", "source")
    )
    rest = shell.report("audit", "log", "--tenant", "acme", "--limit", "2", "--after", report["after"], **here)
    assert (["kim"], None) == ([line["user_id"] for line in rest["lines"]], rest["after"])
    filters = ("--actor", "kim", "--action", "insert", "--type", "connectors", "--since", "2020-01-01")
    assert 2 == len(shell.report("audit", "log", *filters, **here)["lines"])
    assert [] == shell.report("audit", "log", "--until", "2020-01-01T00:00+02:00", **here)["lines"]
    assert "There is no such line." in shell.run("audit", "log", "--id", "nothing", **here).stdout
    assert 2 == shell.run("audit", "log", "--since", "yesterday", **here).returncode


def test_lines_are_exported_as_json_lines(shell: Shell, here: dict[str, Any]) -> None:
    """One object a line, by tenant, newest first."""
    assert 3 == shell.report("audit", "export", "out.jsonl", "--type", "connectors", **here)["lines"]
    read = [json.loads(line) for line in (shell.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]

    assert [("acme", "lee"), ("acme", "kim"), ("globex", "kim")] == [(one["tenant_id"], one["user_id"]) for one in read]
    assert "EMAIL" == read[0]["details"]["after"]["type"]


def test_seals_show_what_a_superuser_did(shell: Shell, here: dict[str, Any], myloware: Store) -> None:
    """Sealed, exported with a signature, verified; then truncated, and found by the exported heads only."""
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", shell.folder / "key"], check=True)
    subprocess.run(
        ["openssl", "pkey", "-in", shell.folder / "key", "-pubout", "-out", shell.folder / "pub"], check=True
    )
    sealed = shell.report("audit", "seal", "--export", "heads.json", "--key", "key", **here)
    assert (4, 3, "heads.json") == (sealed["sealed"], sealed["tenants"], sealed["file"])
    kept = ("--heads", "heads.json", "--public-key", "pub")
    assert shell.report("audit", "verify", *kept, **here)["intact"]
    assert "3 compared" in shell.run("audit", "verify", *kept, **here).stdout
    heads = shell.report("audit", "heads", **here)["heads"]
    assert [("acme", 1), ("default", 1), ("globex", 1)] == [(head["tenant_id"], head["number"]) for head in heads]
    assert heads[0]["hash"] in shell.run("audit", "heads", "--export", "heads.json", "--key", "key", **here).stdout

    with myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL session_replication_role = replica")
        myloware.db.execute_sql("DELETE FROM audit_logs WHERE tenant_id = 'globex'")
    done = shell.run("audit", "verify", **here)
    assert (1, True) == (done.returncode, "globex: seal 1: line " in done.stdout)
    myloware.db.execute_sql("TRUNCATE audit_logs, audit_seals")
    assert 0 == shell.run("audit", "verify", **here).returncode
    (finding, *_) = shell.report("audit", "verify", *kept, code=1, **here)["findings"]
    assert ("acme", "head") == (finding["tenant_id"], finding["kind"])
    assert "Nothing is sealed yet." in shell.run("audit", "heads", **here).stdout


def test_old_lines_are_pruned_after_a_question(shell: Shell, here: dict[str, Any]) -> None:
    """In production, too. The verification says up to where."""
    shell.report("audit", "seal", **here)
    prune = ("audit", "prune", "--before", "2200-01-01")
    here["MYLOWARE_ENV"] = "production"
    declined = shell.run(*prune, answer="n\n", **here)
    assert (1, True) == (declined.returncode, "sealed before 2200-01-01 00:00 UTC from" in declined.stderr)
    name = Settings.load(here["DATABASE_URL"]).dbname
    assert 4 == shell.report(*prune, "--yes", "--database", name, **here)["deleted"]

    assert "acme: the lines up to seal 1 were pruned." in shell.run("audit", "verify", **here).stdout


@pytest.mark.parametrize("misuse", [("heads", "--export", "x"), ("seal", "--key", "key"), ("verify", "--heads", "key")])
def test_half_of_a_pair_is_refused(shell: Shell, misuse: tuple[str, ...]) -> None:
    """Before any database is asked."""
    (shell.folder / "key").touch()
    done = shell.run("audit", *misuse)

    assert (2, True) == (done.returncode, "belong together" in done.stderr)

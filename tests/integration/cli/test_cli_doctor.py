"""`doctor`: what it prints, and its exit codes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from myloware_store import WorkOrder

if TYPE_CHECKING:
    from myloware_store import Store
    from tests.integration.cli.conftest import Shell


def test_findings_are_reported_with_their_remedies(shell: Shell, myloware_dsn: str) -> None:
    """The worst first, as text and as JSON; something to do is exit code 1."""
    text = shell.run("doctor", "--url", myloware_dsn, COLUMNS="80")
    report = shell.report("doctor", "--url", myloware_dsn, code=1)

    assert (1, "") == (text.returncode, text.stderr)
    assert "2 critical, " in text.stdout
    for finding in report["findings"]:
        assert f"\n{finding['severity']}: {finding['check']} {finding['subject']}\n" in text.stdout
        assert f"\nto fix: {finding['remedy']}\n" in text.stdout
    assert (False, [], []) == (report["healthy"], report["unseen"], report["recounted"])
    assert "locks" in report["sound"]
    assert "\nNothing found by: extension, locale, " in text.stdout


def test_fix_recounts(shell: Shell, myloware: Store, myloware_dsn: str) -> None:
    """And says how many orders were wrong, and with --json, which."""
    order = myloware.work.submit([{"type": "INVOICE", "content": "Invoice 17"}])

    def spoil() -> None:
        with myloware.db.atomic():
            myloware.db.execute_sql("SET LOCAL session_replication_role = replica")
            WorkOrder.update(open_items=7).execute()

    spoil()
    assert "critical: counters work_orders\n" in shell.run("doctor", "--url", myloware_dsn).stdout
    assert [str(order.id)] == shell.report("doctor", "--fix", "--url", myloware_dsn, code=1)["recounted"]
    spoil()
    text = shell.run("doctor", "--fix", "--url", myloware_dsn).stdout
    assert "Recounted  1 of the orders\n" in text
    assert "counters work_orders" not in text


def test_what_is_hidden_is_reported(shell: Shell, myloware: Store, myloware_dsn: str) -> None:
    """With what would show it; alone, it is no finding."""
    role = f"plain_{uuid.uuid4().hex[:8]}"
    myloware.db.execute_sql(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        plain = myloware_dsn.replace("postgres@", f"{role}@")
        text = shell.run("doctor", "--url", plain).stdout
        report = shell.report("doctor", "--url", plain, code=1)
    finally:
        myloware.db.execute_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")

    assert "\nnot seen: transactions\n" in text
    assert f"\nto see it: GRANT pg_read_all_stats TO {role};\n" in text
    assert ["transactions"] == [hidden["check"] for hidden in report["unseen"]]

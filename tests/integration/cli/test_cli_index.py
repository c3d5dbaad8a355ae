"""`myloware-store index`: the state of the vector index, and the commands that improve it and that of work items."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Shell

DOCUMENTS = """
    INSERT INTO mem_docs (tenant_id, type, content, embedding)
    SELECT 't', 'CONTEXT', 'x', (
        SELECT array_agg(sin(n * 37 + place * (n %% 7 + 1)) ORDER BY place) FROM generate_series(1, 1536) AS place
    )::vector
    FROM generate_series(1, 60) AS n
""".replace("%%", "%")


def test_a_small_memory_needs_nothing(shell: Shell, myloware_dsn: str) -> None:
    """The status says so and exits 0; `ensure` says that there is nothing to do."""
    shell.ask(myloware_dsn, DOCUMENTS)
    shell.ask(myloware_dsn, "UPDATE mem_docs SET metadata = '{}'")  # dead rows, which the estimate counts

    status = shell.report("index", "status", "--url", myloware_dsn)
    assert ("ivfflat", False, False, None) == (status["method"], status["used"], status["stale"], status["remedy"])
    text = shell.run("index", "status", "--url", myloware_dsn).stdout
    assert "are exact: with fewer than 5000 rows (now 60), a search compares all vectors" in text
    assert "about 60 with an embedding" in text
    assert (
        "Nothing to do: with fewer than 5000 rows (now 60)"
        in shell.run("index", "ensure", "--url", myloware_dsn).stdout
    )


def test_an_index_is_swapped_rebuilt_and_mended(shell: Shell, myloware_dsn: str) -> None:
    """Each reports what it did; a broken index is a finding, exit 1, with the command that fixes it."""
    shell.ask(myloware_dsn, DOCUMENTS)

    swapped = shell.report("index", "swap", "hnsw", "--url", myloware_dsn)
    assert "built hnsw over 60 rows" == swapped["actions"][0]
    assert ("hnsw", 60) == (swapped["status"]["method"], swapped["status"]["rows_at_build"])
    assert shell.report("validate", "--url", myloware_dsn)["valid"]
    assert "built hnsw over 60 rows" in shell.run("index", "rebuild", "--url", myloware_dsn).stdout

    invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mem_docs_embedding_idx'::regclass"
    shell.ask(myloware_dsn, invalid)
    broken = shell.run("index", "status", "--url", myloware_dsn)
    assert 1 == broken.returncode
    assert broken.stdout.endswith("To fix it:\nmyloware-store index ensure\n")
    (finding,) = shell.report("validate", "--url", myloware_dsn, code=1)["findings"]
    assert "myloware-store index ensure" == finding["remedy"]
    assert "built hnsw over 60 rows" in shell.run("index", "ensure", "--url", myloware_dsn).stdout
    assert shell.report("validate", "--url", myloware_dsn)["valid"]


def test_ended_items_are_indexed(shell: Shell, myloware_dsn: str) -> None:
    """All of them, and a second time none."""
    shell.ask(
        myloware_dsn,
        """
        WITH made AS (INSERT INTO work_orders (tenant_id, created_by) VALUES ('t', 't') RETURNING id)
        INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at)
        SELECT 't', id, 'TICKET', 'x', 'COMPLETED', now() FROM made, generate_series(1, 1200)
        """,
    )
    assert 1200 == shell.report("index", "items", "--url", myloware_dsn)["indexed"]
    assert "0 work items" in shell.run("index", "items", "--url", myloware_dsn).stdout


def test_wrong_usage_is_told_in_a_line(shell: Shell, myloware_dsn: str) -> None:
    """Exit 2, and nothing is changed."""
    assert 2 == shell.run("index", "swap", "flat", "--url", myloware_dsn).returncode
    low = shell.run("index", "ensure", "--target-recall", "0.2", "--url", myloware_dsn)
    assert (2, "error: target_recall: 0.2 is not a number from 0.5 to 1\n") == (low.returncode, low.stderr)


def test_a_database_that_is_not_migrated_has_no_index_to_tell_of(shell: Shell, plain_url: str) -> None:
    """Every command says to migrate first."""
    for command in (["status"], ["ensure"], ["swap", "hnsw"]):
        told = shell.run("index", *command, "--url", plain_url)
        assert 1 == told.returncode
        assert "run `myloware-store migrate`" in told.stderr


def test_progress_is_shown_on_a_terminal(shell: Shell, myloware_dsn: str) -> None:
    """The terminal shows the current step, and its progress."""
    shell.ask(myloware_dsn, DOCUMENTS)

    code, shown = shell.terminal("index", "rebuild", "--url", myloware_dsn)
    assert 0 == code
    assert "built ivfflat over 60 rows" in shown
    assert "Searching exactly" in shown or "Building" in shown or "Measuring" in shown


def test_metadata_is_indexed(shell: Shell, myloware_dsn: str) -> None:
    """The status lists the index, and it is dropped again."""
    built = shell.report("index", "metadata", "invoice.amount", "--url", myloware_dsn)
    assert (["invoice", "amount"], "number", True) == (built["path"], built["kind"], built["valid"])
    (listed,) = shell.report("index", "status", "--url", myloware_dsn)["metadata_indexes"]
    assert built["name"] == listed["name"]
    assert "invoice.amount (number, 0.0 MiB)" in shell.run("index", "status", "--url", myloware_dsn).stdout
    assert "invoice.amount" in shell.run("index", "metadata", "invoice.amount", "--url", myloware_dsn).stdout
    assert shell.report("index", "metadata", "invoice.amount", "--drop", "--url", myloware_dsn)["dropped"]
    assert "there is none" in shell.run("index", "metadata", "invoice.amount", "--drop", "--url", myloware_dsn).stdout

"""Statements that a session runs often are prepared, and still work when the session or the database has changed."""

from __future__ import annotations

import pytest

from myloware_store import Store, StoreError

ITEM = {"type": "TICKET", "content": "Ticket 4"}
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'myloware%%'"


def prepared(store: Store) -> int:
    """Return how many statements this thread's session has prepared."""
    count: int = store.db.execute_sql(PREPARED).fetchone()[0]
    return count


def work(store: Store, times: int) -> None:
    """Submit, claim and finish items one by one."""
    for _ in range(times):
        store.work.submit([ITEM])
        (claim,) = store.work.claim("agent")
        assert {claim.item_id} == store.work.finish([claim], [1])


def test_what_a_session_runs_often_is_prepared(myloware: Store) -> None:
    """From the fifth time on, and not inside a transaction."""
    with myloware.db.unit():
        before = prepared(myloware)
        with myloware.db.atomic():
            work(myloware, 6)
        assert before == prepared(myloware)
        work(myloware, 6)
        assert 3 <= prepared(myloware)


@pytest.mark.parametrize("forgotten", ["DISCARD ALL", "DEALLOCATE ALL"])
def test_a_session_that_was_reset_prepares_anew(myloware: Store, forgotten: str) -> None:
    """The server no longer knows the statements, and the call succeeds nevertheless."""
    with myloware.db.unit():
        work(myloware, 6)
        myloware.db.execute_sql(forgotten)
        work(myloware, 6)
        assert 3 <= prepared(myloware)


def test_a_prepared_statement_survives_a_migration(myloware: Store) -> None:
    """A newer version has recreated the function with another result."""
    with myloware.db.unit():
        work(myloware, 6)
        arguments = "uuid[], uuid[], jsonb, bool, text, bool, bool"
        (body,) = myloware.db.execute_sql(
            f"SELECT pg_get_functiondef('finish_work_items({arguments})'::regprocedure)"
        ).fetchone()
        myloware.db.execute_sql(f"DROP FUNCTION finish_work_items({arguments})")
        myloware.db.execute_sql(body.replace("OUT refused uuid[]", "OUT refused text[]").replace("%", "%%"))
        work(myloware, 1)


def test_an_error_of_a_prepared_statement_is_told_as_ever(myloware: Store) -> None:
    """And the statement can be run again."""
    with myloware.db.unit():
        work(myloware, 6)
        function = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$"
        myloware.db.execute_sql(function)
        myloware.db.execute_sql("CREATE TRIGGER refuse BEFORE INSERT ON work_items EXECUTE FUNCTION refuse()")
        with pytest.raises(StoreError, match="a trigger on a table refused the row"):
            myloware.work.submit([ITEM])
        myloware.db.execute_sql("DROP TRIGGER refuse ON work_items")
        work(myloware, 1)

"""The server knows which tenant and which actor are in force, in every statement and no longer than that."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from myloware_store import DatabaseFault, InvalidInput, Store
from myloware_store.db.database import StoreDatabase
from myloware_store.db.tenancy import tenant_scope

TOLD = "SELECT current_setting('myloware.tenant', true), current_setting('myloware.actor', true) AS actor"


def told(db: StoreDatabase) -> tuple[str, str]:
    """Return the tenant and the actor that the server knows."""
    tenant, actor = db.execute_sql(TOLD).fetchone()
    return tenant or "", actor or ""


@pytest.fixture(params=["alone", "in a unit", "in a transaction", "begun by hand"])
def database(request: pytest.FixtureRequest, db: StoreDatabase) -> Iterator[StoreDatabase]:
    """Give a database outside of blocks, and inside each kind of them."""
    if request.param == "in a unit":
        with db.unit():
            yield db
    elif request.param == "in a transaction":
        with db.atomic():
            yield db
    else:
        if request.param == "begun by hand":
            db.execute_sql("BEGIN")
        yield db
        if request.param == "begun by hand":
            db.execute_sql("ROLLBACK")


def test_the_scope_travels_with_the_statement(database: StoreDatabase) -> None:
    """Nested scopes, and none of them afterwards; odd names arrive as they are."""
    assert ("", "") == told(database)
    with tenant_scope("acme", "ann"):
        assert ("acme", "ann") == told(database)
        with tenant_scope("it's 100 % \\ §"):
            assert ("it's 100 % \\ §", "ann") == told(database)
            assert ("it's 100 % \\ §",) == database.execute_sql(
                "SELECT current_setting('myloware.tenant') WHERE 5 %% 3 = %s", (2,)
            ).fetchone()
        assert ("acme", "ann") == told(database)
    assert ("", "") == told(database)


def test_a_savepoint_that_is_rolled_back_changes_nothing(db: StoreDatabase) -> None:
    """Also after a statement that failed, and after a search under settings of its own."""
    with db.atomic(), tenant_scope("acme"):
        told(db)
        with db.atomic() as savepoint, tenant_scope("other"):
            assert "other" == told(db)[0]
            savepoint.rollback()
        assert "acme" == told(db)[0]
        with pytest.raises(DatabaseFault), db.atomic(), tenant_scope("other"):
            db.execute_sql("SELECT 1 / 0")
        assert "acme" == told(db)[0]
        with tenant_scope("third"):
            assert "third" == db.execute_tuned({"enable_sort": "off"}, TOLD).fetchone()[0]
            assert "third" == told(db)[0]
        with tenant_scope("fourth"), pytest.raises(InvalidInput):
            db.execute_sql("SELECT %s", ("\0",))
        with tenant_scope("fourth"):
            assert "fourth" == told(db)[0]
            db.execute_sql("SAVEPOINT by_hand")
            with tenant_scope("fifth"):
                told(db)
            db.execute_sql("ROLLBACK TO by_hand")
            assert "fourth" == told(db)[0]


@pytest.mark.parametrize(
    "undo", ["/* back */ ROLLBACK TO s", "COMMIT AND CHAIN", "END AND NO CHAIN; BEGIN", "abort; start transaction"]
)
def test_what_the_server_forgets_by_hand_is_told_again(db: StoreDatabase, undo: str) -> None:
    """A savepoint behind a comment, or a transaction that goes on as another one."""
    with db.unit():
        db.execute_sql("BEGIN")
        with tenant_scope("other"):
            told(db)
            db.execute_sql("SAVEPOINT s")
        with tenant_scope("acme"):
            told(db)
            db.execute_sql(undo)
            assert "acme" == told(db)[0]
        db.execute_sql("ROLLBACK")


def test_copies_and_streams_are_told(database: StoreDatabase) -> None:
    """A COPY in either direction, and a server-side cursor."""
    out = io.BytesIO()
    with tenant_scope("acme", "ann"):
        assert 1 == database.copy(f"COPY ({TOLD}) TO STDOUT", out)
        assert b"acme\tann\n" == out.getvalue()
        with database.atomic():
            database.execute_sql(
                "CREATE TEMPORARY TABLE copied (name text DEFAULT current_setting('myloware.tenant'), n int)"
            )
            database.copy("COPY copied (n) FROM STDIN", io.StringIO("1\n2\n"))
            assert [("acme", 1), ("acme", 2)] == database.execute_sql("TABLE copied").fetchall()
            with tenant_scope("other"):
                cursor = database.execute_sql(TOLD, named_cursor=True)
                assert [("other", "ann")] == cursor.fetchmany(2)
            cursor.close()
            database.execute_sql("DROP TABLE copied")


def test_statements_that_no_transaction_takes_run_in_a_scope(db: StoreDatabase) -> None:
    """They are sent alone."""
    with tenant_scope("acme"):
        db.execute_sql("VACUUM pg_type")
        db.execute_sql("BEGIN")
        assert "acme" == told(db)[0]
        db.execute_sql("ROLLBACK")


@pytest.mark.parametrize("begin", ["", "BEGIN; ", "START TRANSACTION; ", "DROP TABLE IF EXISTS seen; "])
def test_a_table_that_is_made_of_a_query_holds_rows_of_the_scope(db: StoreDatabase, begin: str) -> None:
    """Unlike other statements that create something."""
    with db.unit(), tenant_scope("acme"):
        db.execute_sql(f"{begin}CREATE TEMP TABLE seen AS {TOLD}")
        assert [("acme",)] == db.execute_sql("SELECT current_setting FROM seen").fetchall()


def test_prepared_statements_are_told(myloware: Store) -> None:
    """Before they are prepared and afterwards."""
    with myloware.db.unit():
        for n in range(8):
            with tenant_scope(f"tenant {n}"):
                assert f"tenant {n}" == myloware.db.execute_prepared(f"{TOLD}, %(n)s", {"n": n}).fetchone()[0]

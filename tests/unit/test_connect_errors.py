"""Why a connection could not be opened: libpq's words, whole, without the password."""

from __future__ import annotations

import pytest
from psycopg2 import OperationalError

from myloware_store.core.errors import ConnectionFailed
from myloware_store.db.database import StoreDatabase
from myloware_store.db.driver_errors import connect_fault
from myloware_store.settings import Settings


@pytest.mark.parametrize(
    ("password", "mode", "shown"),
    [
        ("a", "quaint", 'invalid sslmode value: "quaint"'),
        ("value", "quaint", 'invalid sslmode value: "quaint"'),
        ("a", "a", 'invalid sslmode value: "***"'),
        ("hunter2", "hunter2", 'invalid sslmode value: "***"'),
        ("hunter2", "xhunter2x", 'invalid sslmode value: "x***x"'),
    ],
)
def test_a_password_is_masked_and_words_are_not(password: str, mode: str, shown: str) -> None:
    """A short password, which is part of many words, garbles none of them, and shows no more than a long one."""
    database = StoreDatabase(Settings(host="h", password=password, params={"sslmode": mode}))

    with pytest.raises(ConnectionFailed) as caught:
        database.connect()
    assert f"cannot connect to h: {shown}" == str(caught.value)


@pytest.mark.parametrize(
    ("said", "sqlstate"),
    [
        ("the database system is starting up", "57P03"),
        ("the database system is shutting down", "57P03"),
        ("the database system is in recovery mode", "57P03"),
        ("the database system is not yet accepting connections\nDETAIL:  Consistent recovery state ...", "57P03"),
        ("the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.", "57P03"),
        ("terminating connection due to administrator command", "57P01"),
        ("terminating connection because of crash of another server process", "57P01"),
    ],
)
def test_a_server_that_is_not_ready_is_told_in_our_words(said: str, sqlstate: str) -> None:
    """Whatever PostgreSQL 15 to 18 say while they start, recover or end, it is one line that says so."""
    error = OperationalError(f'connection to server at "h" (127.0.0.1), port 5432 failed: FATAL:  {said}')

    fault = connect_fault(error, Settings(host="h"))

    assert (sqlstate, 1) == (fault.sqlstate, len(str(fault).splitlines()))
    assert "FATAL" not in str(fault)

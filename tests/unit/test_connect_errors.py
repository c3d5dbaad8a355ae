"""Why a connection could not be opened: libpq's words, whole, without the password."""

from __future__ import annotations

import pytest

from myloware_store.database import create_database
from myloware_store.errors import ConnectionFailed
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
    database = create_database(Settings(host="h", password=password, params={"sslmode": mode}))

    with pytest.raises(ConnectionFailed) as caught:
        database.connect()
    assert f"cannot connect to h: {shown}" == str(caught.value)

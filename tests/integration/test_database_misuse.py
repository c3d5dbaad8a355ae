"""Wrong calls, and values that Python or the driver cannot carry: one typed error each, and nothing is held or lost."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import peewee
import pytest
from playhouse.postgres_ext import ServerSide

from myloware_store.core.errors import DatabaseFault, InvalidInput, StoreError

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase
    from tests.integration.conftest import Pair


def cyclic() -> list[Any]:
    """Return a list that holds itself."""
    values: list[Any] = []
    values.append(values)
    return values


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list."""
    values: list[Any] = []
    for _ in range(depth):
        values = [values]
    return values


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (5, "params: int"),
        (0, "params: int"),
        ("a", "params: str"),
        ({"a"}, "params: set"),
        (iter("a"), "params: str_ascii_iterator|params: str_iterator"),
        (object(), "params: object"),
        ((), "placeholders"),
        ((1, 2), "placeholders"),
        ({"a": 1}, "placeholders"),
        (({1, 2},), "set"),
        ((10**5000,), "too large"),
        ((cyclic(),), "nested"),
        ((nested(100_000),), "nested"),
    ],
)
def test_parameters_that_cannot_be_sent_are_told(db: StoreDatabase, params: Any, message: str) -> None:
    """Of the wrong type, number, size or depth."""
    with pytest.raises(StoreError, match=message):
        db.execute_sql("SELECT %s", params)

    assert (True, (1,)) == (db.is_closed(), db.execute_sql("SELECT %s", [1]).fetchone())


@pytest.mark.parametrize("params", [(1,), {"b": 1}, {}, None])
def test_a_named_placeholder_needs_its_value(db: StoreDatabase, params: Any) -> None:
    """A missing name is told as the wrong number is."""
    with pytest.raises(peewee.ProgrammingError, match="placeholders"):
        db.execute_sql("SELECT %(a)s", params)

    assert db.is_closed()


@pytest.mark.parametrize("sql", [None, 5, ["SELECT 1"], object(), b"\xff", "", "SELECT '\ud800'", "SELECT '\x00'"])
def test_a_statement_that_is_none_is_told(db: StoreDatabase, sql: Any) -> None:
    """Neither text nor composed SQL."""
    with pytest.raises(StoreError):
        db.execute_sql(sql)
    with pytest.raises(StoreError):
        db.copy(sql, io.StringIO())

    assert db.is_closed()


def closed() -> io.StringIO:
    """Return a file that is closed."""
    stream = io.StringIO("1\n")
    stream.close()
    return stream


class Failing:
    """A file that fails after a while."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def read(self, _size: int) -> str:
        """Give a row."""
        self.write()
        return "hunter\n"

    def write(self, _data: str = "") -> None:
        """Count."""
        self.calls -= 1
        if self.calls < 0:
            raise KeyError("hunter2")


@pytest.mark.parametrize("sql", ["COPY pair (name) FROM STDIN", "COPY (SELECT generate_series(1, 99999)) TO STDOUT"])
@pytest.mark.parametrize("stream", [None, 5, [1], closed(), object()])
def test_a_copy_needs_a_file(db: StoreDatabase, pairs: type[Pair], sql: str, stream: Any) -> None:
    """What is no open file is refused, and nothing is stored."""
    with pytest.raises(StoreError):
        db.copy(sql, stream)

    assert ([], True) == (pairs.names(), db.is_closed())


@pytest.mark.parametrize("calls", [0, 5])
def test_a_file_that_fails_ends_its_copy_and_nothing_else(db: StoreDatabase, pairs: type[Pair], calls: int) -> None:
    """A reader's error is told by the server, a writer's is the application's own; both leave the connection usable."""
    db.execute_sql("ALTER TABLE pair ALTER number SET DEFAULT 0")
    reading, writing = "COPY pair (name) FROM STDIN", "COPY (SELECT generate_series(1, 99999)) TO STDOUT"
    with pytest.raises(DatabaseFault, match="file") as caught:
        db.copy(reading, Failing(calls))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(KeyError, match="hunter2"):
        db.copy(writing, Failing(calls))
    assert ([], True) == (pairs.names(), db.is_closed())

    with db.atomic():
        pairs.create(name="a")
        with suppress(KeyError):
            db.copy(writing, Failing(calls))
        pairs.create(name="b")
    assert ["a", "b"] == pairs.names()


def test_values_that_are_nested_without_end_are_refused_in_queries(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Lists that hold themselves, or are nested too deeply, are one typed error wherever a query is built of them."""
    for value in (cyclic(), nested(100_000)):
        for query in (
            pairs.select().where(pairs.name == value),
            pairs.select().where(pairs.id.in_(value)),
            pairs.select().limit(value),
        ):
            with pytest.raises(InvalidInput, match="nested"):
                query.execute()

    assert ([], True) == (pairs.names(), db.is_closed())


UNREADABLE = [
    "'20000-01-01'::date",
    "'0044-03-15 BC'::timestamptz",
    "'10000000 years'::interval",
    "ARRAY['infinity'::timestamptz]",
    "'1e9999'::jsonb",
    "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
]


@pytest.mark.parametrize("value", UNREADABLE)
def test_a_value_that_python_has_no_room_for_is_told(db: StoreDatabase, value: str) -> None:
    """Dates after the year 9999 and the like are one typed error, out of which the transaction can go on."""
    with pytest.raises(DatabaseFault, match=r"read|parse") as caught:
        db.execute_sql(f"SELECT {value}")
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
    assert db.is_closed()

    with db.atomic():
        with pytest.raises(DatabaseFault):
            db.execute_sql(f"SELECT {value}")
        assert (1,) == db.execute_sql("SELECT 1").fetchone()


def test_a_streamed_value_that_python_has_no_room_for_is_told(db: StoreDatabase) -> None:
    """As one that is read at once."""
    query = peewee.Select([peewee.SQL("generate_series(1, 3) AS n")], [peewee.SQL("date '9998-01-01' + 365 * n")])

    with db.atomic(), pytest.raises(DatabaseFault, match="read"):
        list(ServerSide(query.bind(db), array_size=1))

    assert db.is_closed()

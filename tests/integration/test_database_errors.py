"""Errors of the driver, translated in one place: typed, telling, and silent about values and secrets."""

from __future__ import annotations

import pickle
import socket
import traceback
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import peewee
import psycopg2
import pytest

from myloware_store.core import errors
from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSED = errors.ConstraintViolation
SCHEMA = """
CREATE TYPE colour AS ENUM ('RED', 'BLUE');
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (
    id int CONSTRAINT child_key PRIMARY KEY,
    parent_id int NOT NULL CONSTRAINT child_parent REFERENCES parent,
    secret text CONSTRAINT child_secret CHECK (secret <> 'hunter2' AND length(secret) < 5000000),
    short varchar(3),
    hue colour,
    CONSTRAINT child_apart EXCLUDE (short WITH =)
);
CREATE INDEX ON child (secret);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.id = 100 THEN RAISE EXCEPTION 'the secret is %%', new.secret; END IF;
    IF new.id = 101 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'child_moves',
            MESSAGE = new.secret;
    END IF;
    IF new.id = 102 THEN RAISE EXCEPTION USING ERRCODE = '2F003', MESSAGE = new.secret; END IF;
    IF new.id = 103 THEN RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = new.secret; END IF;
    IF new.id = 104 THEN RAISE EXCEPTION USING ERRCODE = 'MY001', MESSAGE = new.secret; END IF;
    RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION refuse();
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (1, 1, 'first', 'abc', 'RED');
"""


@pytest.fixture(scope="module")
def db(plain_url: str) -> Iterator[StoreDatabase]:
    """Give a database with a few rules to break."""
    settings = Settings.load(plain_url, environ={}, dotenv=None)
    database = StoreDatabase(attrs.evolve(settings, connection_limit=3))
    database.execute_sql(SCHEMA)
    yield database
    database.close_all()


@pytest.mark.parametrize(
    ("sql", "kind", "state", "names"),
    [
        ("INSERT INTO child VALUES (1, 1, 'hunter3', 'x')", REFUSED, "23505", ("child_key", "child")),
        ("INSERT INTO child VALUES (2, 9, 'hunter3', 'x')", REFUSED, "23503", ("child_parent", "child")),
        ("INSERT INTO child VALUES (2, NULL, 'hunter3')", REFUSED, "23502", ("", "child")),
        ("INSERT INTO child VALUES (2, 1, 'hunter2')", REFUSED, "23514", ("child_secret", "child")),
        ("INSERT INTO child VALUES (2, 1, 'hunter3', 'abc')", REFUSED, "23P01", ("child_apart", "child")),
        ("INSERT INTO child VALUES (100, 1, 'hunter3')", REFUSED, "P0001", ("", "")),
        ("INSERT INTO child VALUES (101, 1, 'hunter3')", REFUSED, "23514", ("child_moves", "child")),
        ("INSERT INTO child VALUES (102, 1, 'hunter3')", REFUSED, "2F003", ("", "")),
        ("INSERT INTO child VALUES (103, 1, 'hunter3')", errors.DatabaseFault, "55000", ("", "")),
        ("INSERT INTO child VALUES (104, 1, 'hunter3')", errors.DatabaseFault, "MY001", ("", "")),
        ("INSERT INTO child VALUES (2, 1, '', 'hunter2')", errors.InvalidData, "22001", ("", "")),
        ("INSERT INTO child VALUES (2, 1, '', '', 'hunter2')", errors.InvalidData, "22P02", ("", "")),
        ("SELECT 'hunter2'::int", errors.InvalidData, "22P02", ("", "")),
        ("SELECT 'hunter2'::jsonb", errors.InvalidData, "22P02", ("", "")),
        ("SELECT 99999999999::int", errors.InvalidData, "22003", ("", "")),
        ("SELECT 1 / 0", errors.InvalidData, "22012", ("", "")),
        ("SELECT to_tsvector(string_agg('hunter2' || n, ' ')) FROM generate_series(1, 200000) n",
         errors.InvalidData, "54000", ("", "")),
        ("INSERT INTO child SELECT 2, 1, string_agg(md5(n::text), '') FROM generate_series(1, 9000) n",
         errors.InvalidData, "54000", ("", "")),
        ("SELECT * FROM hunter_table", errors.SchemaMismatch, "42P01", ("", "")),
        ("SELECT hunter_column FROM child", errors.SchemaMismatch, "42703", ("", "")),
        ("SELECT 'hunter2'::hunter_type", errors.SchemaMismatch, "42704", ("", "")),
        ("CREATE TABLE hunter_schema.x (a int)", errors.SchemaMismatch, "3F000", ("", "")),
        ("SELECT FROM WHERE 'hunter2'", errors.DatabaseFault, "42601", ("", "")),
        ("SELECT 1 'hunter2'", errors.DatabaseFault, "42601", ("", "")),
        ("SELECT id FROM child hunter_alias 4242424242", errors.DatabaseFault, "42601", ("", "")),
        ("SELECT nothing('hunter2')", errors.DatabaseFault, "42883", ("", "")),
        ("SAVEPOINT x", errors.DatabaseFault, "25P01", ("", "")),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_typed_named_and_silent(
    db: StoreDatabase, sql: str, kind: type[errors.StoreError], state: str, names: tuple[str, str]
) -> None:
    """Each refusal has its type, SQLSTATE and names, and its whole traceback shows no value."""
    with pytest.raises(kind) as caught:
        db.execute_sql(sql)

    fault: Any = caught.value
    shown = "".join(traceback.format_exception(fault)) + repr(fault)
    assert (state, *names) == (fault.sqlstate, fault.constraint, fault.table)
    assert state in str(fault)
    assert not [value for value in ("hunter2", "hunter3", "4242424242") if value in shown.replace(sql, "")]
    assert state == fault.driver_error.pgcode
    assert db.is_closed()


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("INSERT INTO child VALUES (1, 1)", peewee.IntegrityError),
        ("SELECT 'x'::int", peewee.DataError),
        ("SELECT * FROM nowhere", peewee.ProgrammingError),
        ("SELECT FROM WHERE", peewee.ProgrammingError),
        ("SAVEPOINT x", peewee.InternalError),
        ("CREATE EXTENSION nothing", peewee.NotSupportedError),
        ("SELECT pg_terminate_backend(pg_backend_pid())", peewee.OperationalError),
    ],
)
def test_code_written_for_peewee_catches_them(db: StoreDatabase, sql: str, kind: type[Exception]) -> None:
    """Each error is also Peewee's own class for it."""
    with pytest.raises(kind) as caught:
        db.execute_sql(sql)

    assert isinstance(caught.value, errors.DatabaseFault)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("a\x00b", errors.InvalidInput, "NUL"),
        ("a\ud800b", errors.InvalidInput, "surrogate"),
        ({1, 2}, errors.DatabaseFault, "set"),
        (object(), errors.DatabaseFault, "object"),
    ],
)
def test_what_the_driver_cannot_send_is_typed(
    db: StoreDatabase, value: Any, kind: type[Exception], message: str
) -> None:
    """Text and types that no server would ever see are refused as input is."""
    with pytest.raises(kind, match=message):
        db.execute_sql("SELECT %s", (value,))

    assert db.is_closed()


def test_an_error_that_is_not_the_databases_comes_as_it_is(db: StoreDatabase) -> None:
    """What an application's own type raises while it is adapted is not dressed up as something else."""

    class Broken:
        def __conform__(self, _protocol: object) -> object:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        db.execute_sql("SELECT %s", (Broken(),))

    assert not isinstance(caught.value, errors.StoreError)
    assert db.is_closed()


def test_a_reader_finds_no_driver_error_in_the_chain(db: StoreDatabase) -> None:
    """The driver's error, which quotes the row, is at `driver_error` alone, and stays behind when the fault travels."""
    with pytest.raises(errors.ConstraintViolation) as caught, db.atomic():
        db.execute_sql("INSERT INTO child VALUES (1, 1, %s)", ("hunter3",))

    fault = caught.value
    assert (None, None) == (fault.__cause__, fault.__context__)
    assert "(id)=(1)" in str(fault.driver_error)
    travelled = pickle.loads(pickle.dumps(fault))
    assert ("23505", "child_key", None) == (travelled.sqlstate, travelled.constraint, travelled.driver_error)
    assert str(fault) == str(travelled)


def test_a_handler_of_another_error_stays_in_the_chain(db: StoreDatabase) -> None:
    """What the caller was handling is still told, as Python does."""
    try:
        int("mine")
    except ValueError as error:
        mine = error
        with pytest.raises(errors.InvalidData) as caught:
            db.execute_sql("SELECT 1 / 0")

    assert mine is caught.value.__context__


def test_conflicts_are_told_apart(db: StoreDatabase) -> None:
    """A lock that is not granted in time is a conflict, which leaves nothing behind."""
    with closing(psycopg2.connect(**db.settings.connect_kwargs())) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE child")
        with pytest.raises(errors.TransactionConflict) as caught, db.atomic():
            db.execute_sql("LOCK TABLE child NOWAIT")

    assert "55P03" == caught.value.sqlstate


def test_a_statement_timeout_is_told(db: StoreDatabase) -> None:
    """A cancelled statement is an operational error with its own SQLSTATE, and the connection goes on."""
    with db.atomic():
        db.execute_sql("SET LOCAL statement_timeout = 10")
        with pytest.raises(peewee.OperationalError) as caught, db.atomic():
            db.execute_sql("SELECT pg_sleep(60)")
        assert (1,) == db.execute_sql("SELECT 1").fetchone()

    assert isinstance(caught.value, errors.DatabaseFault)
    assert "57014" == caught.value.sqlstate


def test_a_role_without_the_right_is_told_the_table(db: StoreDatabase) -> None:
    """A missing privilege names what it is about."""
    with db.atomic() as transaction:
        db.execute_sql("SET LOCAL ROLE pg_monitor")
        with pytest.raises(peewee.ProgrammingError, match="child") as caught:
            db.execute_sql("SELECT secret FROM child")
        transaction.rollback()

    assert isinstance(caught.value, errors.DatabaseFault)
    assert "42501" == caught.value.sqlstate


@pytest.mark.parametrize(
    ("changes", "state", "message"),
    [
        ({"user": "me", "password": "hunter2"}, "28P01", "password"),
        ({"user": "nobody", "password": "hunter2"}, "28P01", "password"),
        ({"user": "me", "params": {"passfile": "/nowhere"}}, "28P01", "none is set"),
        ({"user": "barred", "password": "hunter2"}, "28000", "pg_hba"),
        ({"user": "idler", "password": "right"}, "28000", "role"),
        ({"user": "me", "password": "right", "dbname": "nowhere"}, "3D000", "database"),
        ({"user": "me", "password": "right", "dbname": "private"}, "42501", "database"),
        ({"dbname": "closed"}, "08001", "not currently accepting"),
        (
            {"dbname": "still", "params": {"target_session_attrs": "read-write"}},
            "08001",
            "is read-only, and target_session",
        ),
        ({"params": {"target_session_attrs": "standby"}}, "08001", "is no standby, and target_session"),
        ({"host": "/nowhere", "password": "hunter2"}, "08001", "no server listens"),
        ({"host": "127.0.0.1", "port": 1, "password": "hunter2"}, "08001", "no server listens"),
        ({"host": "no-such-host.invalid", "password": "hunter2"}, "08001", "host"),
        ({"password": "hunter2", "params": {"sslmode": "hunter2"}}, "08001", r"\*\*\*"),
        ({"password": "hunter2", "params": {"service": "nothing"}}, "08001", "service"),
    ],
)
def test_why_no_connection_came_about_is_told_without_the_password(
    guarded: Settings, changes: dict[str, Any], state: str, message: str
) -> None:
    """Every way to fail a login is one typed error that says who asked for what where, and no secret."""
    database = StoreDatabase(attrs.evolve(guarded, **changes))

    with pytest.raises(errors.ConnectionFailed, match=message) as caught:
        database.execute_sql("SELECT 1")

    assert state == caught.value.sqlstate
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(database.pool)
    assert "0 open, 0 idle" in repr(database.pool)


def test_of_several_servers_the_one_that_answered_is_told(guarded: Settings) -> None:
    """That one is read-only says more than that the others are away, whichever comes first."""
    for host in (f"{guarded.host},/nowhere", f"/nowhere,{guarded.host}"):
        many = attrs.evolve(guarded, host=host, dbname="still", params={"target_session_attrs": "read-write"})
        with pytest.raises(errors.ConnectionFailed, match="is read-only, and target_session_attrs"):
            StoreDatabase(many).execute_sql("SELECT 1")


def test_a_server_without_a_free_connection_is_told(guarded: Settings) -> None:
    """More connections than the role may have is a failed connection, and works once there is room."""
    single = attrs.evolve(guarded, user="single", password="right")
    first, second = StoreDatabase(single), StoreDatabase(single)

    with first.unit(), pytest.raises(errors.ConnectionFailed) as caught:
        second.execute_sql("SELECT 1")
    first.close_all()

    assert "53300" == caught.value.sqlstate


def test_a_server_that_accepts_and_never_answers_ends_in_an_error(guarded: Settings) -> None:
    """`connect_timeout` bounds the wait for a server that takes the connection and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        database = StoreDatabase(
            attrs.evolve(guarded, host="127.0.0.1", port=port, params={"connect_timeout": "2", "sslmode": "disable"})
        )
        with pytest.raises(errors.ConnectionFailed, match="in time"):
            database.execute_sql("SELECT 1")


@pytest.mark.parametrize(
    ("sql", "params"),
    [("SELECT '5%'", None), ("SELECT '5%d'", None), ("SELECT %s", ()), ("SELECT %s", (1, 2))],
)
def test_placeholders_that_do_not_fit_are_told(db: StoreDatabase, sql: str, params: Any) -> None:
    """A lone '%' or a wrong number of parameters is an error that says so, instead of an IndexError."""
    with pytest.raises(peewee.ProgrammingError, match="placeholders"):
        db.execute_sql(sql, params)


def end(database: StoreDatabase) -> None:
    """End the server process behind the connection in use."""
    with closing(psycopg2.connect(**database.settings.connect_kwargs())) as other, other.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(%s, 5000)", database.execute_sql("SELECT pg_backend_pid()").fetchone()
        )


def test_the_first_error_of_a_block_is_the_one_that_leaves_it(db: StoreDatabase) -> None:
    """Neither a rollback nor a savepoint's rollback that fails hides what went wrong first."""

    def work() -> None:
        end(db)
        raise KeyError("mine")

    for wrapped in (db.atomic()(work), db.atomic()(db.atomic()(work)), db.manual_commit()(work), db.unit()(work)):
        with pytest.raises(KeyError, match="mine") as caught:
            wrapped()
        assert (None, True) == (caught.value.__context__, db.is_closed())

    assert (1,) == db.execute_sql("SELECT 1").fetchone()

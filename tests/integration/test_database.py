"""Units of work: one connection each, returned clean, whatever the block did and however it ended."""

from __future__ import annotations

import io
import logging
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import attrs
import peewee
import psycopg2
import pytest
from playhouse.postgres_ext import ServerSide
from psycopg2.extensions import parse_dsn

from myloware_store.core.errors import DatabaseFault, InvalidInput
from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import Pair


@pytest.fixture
def outside(plain_url: str) -> Iterator[Callable[..., list[Any]]]:
    """Give a way to ask the server over a connection that is none of the pool's."""
    with closing(psycopg2.connect(plain_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def ask(sql: str, *params: object) -> list[Any]:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

        yield ask


def backend(database: StoreDatabase) -> int:
    """Return the server process behind the connection in use."""
    pid: int = database.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
    return pid


def test_a_statement_on_its_own_holds_nothing(db: StoreDatabase) -> None:
    """After a statement outside of every block no connection is held, and its rows can still be read."""
    rows = db.execute_sql("SELECT generate_series(1, 3)")

    assert db.is_closed()
    db.close_all()
    assert [(1,), (2,), (3,)] == rows.fetchall()


def test_rows_offer_a_cursors_interface(db: StoreDatabase) -> None:
    """Rows are fetched one by one, by number, all, or by iteration, and say what the columns are."""
    rows = db.execute_sql("SELECT n FROM generate_series(1, 6) AS n")

    assert (6, "SELECT 6", ["n"]) == (rows.rowcount, rows.statusmessage, [column.name for column in rows.description])
    assert ((1,), [(2,), (3,)], (4,), [(5,), (6,)], None, []) == (
        rows.fetchone(),
        rows.fetchmany(2),
        next(rows),
        list(rows),
        rows.fetchone(),
        rows.fetchall(),
    )
    with rows:
        pass
    assert rows.closed


def test_peewees_ways_of_reading_work_without_a_held_connection(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Models, dicts, tuples, iterators, scalars, counts and RETURNING read the same rows."""
    inserted = pairs.insert_many([{"name": "a"}, {"name": "b"}]).returning(pairs.name).execute()

    assert ["a", "b"] == [pair.name for pair in inserted]
    assert [{"name": "a"}, {"name": "b"}] == list(pairs.select(pairs.name).order_by(pairs.name).dicts())
    assert [("a",), ("b",)] == list(pairs.select(pairs.name).order_by(pairs.name).tuples().iterator())
    assert (2, True, "a") == (
        pairs.select().count(),
        pairs.select().exists(),
        pairs.select(peewee.fn.MIN(pairs.name)).scalar(),
    )
    assert (2, 1) == (pairs.update(number=5).execute(), pairs.delete().where(pairs.name == "a").execute())
    get_or_create: Any = pairs.get_or_create
    assert [False, True] == [get_or_create(name=name)[1] for name in ("b", "c")]
    assert "pair" in db.get_tables()
    assert db.is_closed()


def test_a_unit_holds_one_connection_and_may_be_nested(db: StoreDatabase) -> None:
    """All statements of a unit, and of units inside it, run on one connection, which goes back at the end."""
    with db.unit():
        outer = backend(db)
        with db.unit(), db.atomic(), db.connection_context():
            inner = backend(db)
        held = not db.is_closed()
        with db:
            again = backend(db)
        after = backend(db)

    assert outer == inner == again == after
    assert held
    assert db.is_closed()


def test_a_unit_is_a_decorator_too(db: StoreDatabase) -> None:
    """A function can be a unit of work, call after call."""

    @db.unit()
    def work() -> bool:
        return db.is_closed()

    assert [False, False] == [work(), work()]
    assert db.is_closed()


@pytest.mark.parametrize(
    "leave",
    [
        "SET work_mem = '77MB'",
        "SELECT set_config('work_mem', '77MB', false)",
        "SET search_path = pg_catalog",
        "SET ROLE pg_monitor",
        "SET SESSION AUTHORIZATION pg_monitor",
        "SET TimeZone = 'Asia/Tokyo'",
        "SET DateStyle = 'German'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "CREATE TEMP TABLE pair (name text)",
        "LISTEN something",
        "PREPARE something AS SELECT 1",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_lock_shared(1)",
        "BEGIN",
        "BEGIN; INSERT INTO pair (name, number) VALUES ('left', 0)",
        "BEGIN; LOCK TABLE pair",
        "DO $$ BEGIN PERFORM set_config('work_mem', '77MB', false); END $$",
        "SELECT 1; SET work_mem = '77MB'",
    ],
)
@pytest.mark.usefixtures("pairs")
def test_a_cursor_leaves_nothing_in_the_session(
    db: StoreDatabase, outside: Callable[..., list[Any]], leave: str
) -> None:
    """The next unit finds the connection as if it had just been opened."""
    before = session(db)

    with db.unit():
        db.cursor().execute(leave)

    assert before == session(db)
    held = outside(
        "SELECT locktype, mode FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    assert [] == held  # autovacuum holds locks, too


def session(database: StoreDatabase) -> list[Any]:
    """Return all that a session can carry from one unit to the next."""
    with database.unit():
        return [
            database.execute_sql(f"SELECT {what}").fetchall()
            for what in (
                "name, setting FROM pg_settings WHERE name !~ '^(transaction|plpgsql)' ORDER BY name",
                "current_user, session_user, current_schemas(false)",
                "pg_listening_channels()",
                "name FROM pg_prepared_statements",
                "name FROM pg_cursors",
                "'pair'::regclass::oid",
                "count(*) FROM pair",
                "state FROM pg_stat_activity WHERE pid = pg_backend_pid()",
                "pg_current_xact_id_if_assigned()",
            )
        ]


def test_a_raw_connection_is_not_used_again(db: StoreDatabase) -> None:
    """Whatever was done to psycopg2's connection itself ends with the unit."""
    with db.unit():
        first = backend(db)
        db.connection().set_client_encoding("LATIN1")
        db.connection().autocommit = False

    assert first != backend(db)
    assert "UTF8" == db.execute_sql("SHOW client_encoding").fetchone()[0]


def test_a_raw_cursors_doings_are_cleaned_up(db: StoreDatabase) -> None:
    """A psycopg2 cursor holds the connection until `close()`, and what it set goes with that."""
    cursor = db.cursor()
    cursor.execute("SET work_mem = '77MB'")

    assert not db.is_closed()
    assert db.close()
    assert "77MB" != db.execute_sql("SHOW work_mem").fetchone()[0]


def test_connect_holds_a_connection_until_close(db: StoreDatabase) -> None:
    """Peewee's explicit connect and close work, and a unit inside keeps the connection."""
    assert db.connect()
    assert not db.connect(reuse_if_open=True)
    with pytest.raises(DatabaseFault, match="already"):
        db.connect()
    with db.unit():
        assert not db.close()
        assert not db.is_closed()

    assert db.is_closed()
    assert not db.close()


def test_large_results_can_be_streamed_inside_a_transaction(db: StoreDatabase, pairs: type[Pair]) -> None:
    """`ServerSide` reads through an open connection, and leaves no cursor behind."""
    pairs.insert_many([{"name": str(n)} for n in range(300)]).execute()

    with db.atomic():
        streamed = [pair.name for pair in ServerSide(pairs.select().order_by(pairs.id), array_size=100)]
    with db.unit():
        first = next(ServerSide(pairs.select().order_by(pairs.id), array_size=10)).name

    assert ([str(n) for n in range(300)], "0") == (streamed, first)
    assert [] == db.execute_sql("SELECT name FROM pg_cursors").fetchall()


def test_streaming_without_a_unit_is_refused(db: StoreDatabase, pairs: type[Pair]) -> None:
    """A streamed result would lose its connection: the error says what to open."""
    with pytest.raises(DatabaseFault, match="atomic"):
        next(ServerSide(pairs.select()))

    assert db.is_closed()


@pytest.mark.usefixtures("pairs")
def test_copy_moves_rows_and_returns_the_connection(db: StoreDatabase) -> None:
    """COPY runs as a unit of its own or inside one, and reports how many rows it moved."""
    moved = db.copy("COPY pair (name, number) FROM STDIN", io.StringIO("a\t1\nb\t2\n"))
    out = io.StringIO()
    with db.atomic():
        db.copy("COPY pair (name, number) TO STDOUT", out)

    assert (2, "a\t1\nb\t2\n", True) == (moved, out.getvalue(), db.is_closed())


@pytest.mark.usefixtures("pairs")
def test_a_copy_that_fails_is_translated(db: StoreDatabase) -> None:
    """COPY's errors are typed like any other's, and its input stays out of them."""
    with pytest.raises(InvalidInput) as caught:
        db.copy("COPY pair (name, number) FROM STDIN", io.StringIO("a\thunter2\n"))

    assert "hunter2" not in str(caught.value)
    assert db.is_closed()


def test_a_schema_of_the_settings_leads_the_search_path(db: StoreDatabase, pairs: type[Pair]) -> None:
    """Tables are made and found in the schema that the URL names, however it is spelled."""
    schema = 'My "odd\\ näme'
    db.execute_sql('CREATE SCHEMA "{}"'.format(schema.replace('"', '""')))
    other = StoreDatabase(attrs.evolve(db.settings, schema=schema))

    with other.bind_ctx([pairs]):
        other.create_tables([pairs])
        pairs.create(name="there")
        with other.unit():
            other.cursor().execute("SET search_path = public")
        found = other.execute_sql("SELECT current_schema(), current_schemas(false)").fetchone()
    other.close_all()

    assert (schema, [schema, "public"]) == found
    assert [] == pairs.names()


def test_dates_are_read_where_the_server_writes_them_otherwise(db: StoreDatabase) -> None:
    """A role whose dates are not ISO ones still gives the right day, also after its session was cleaned."""
    db.execute_sql("CREATE ROLE german LOGIN IN ROLE pg_read_all_data")
    db.execute_sql("ALTER ROLE german SET DateStyle = 'German'")
    other = StoreDatabase(attrs.evolve(db.settings, user="german"))

    for _ in range(2):
        with other.unit():
            other.execute_sql("SET work_mem = '77MB'")
            day = other.execute_sql("SELECT DATE '2024-02-03'").fetchone()[0]
        assert "2024-02-03" == day.isoformat()
    other.close_all()
    db.execute_sql("DROP ROLE german")


def test_the_debug_log_shows_statements_and_no_values(
    db: StoreDatabase, caplog: pytest.LogCaptureFixture, pairs: type[Pair]
) -> None:
    """Peewee's log has each statement, and how many parameters it had, but none of them."""
    with caplog.at_level(logging.DEBUG, "peewee"):
        pairs.create(name="hunter2")

    assert "INSERT INTO" in caplog.text
    assert "[2 parameters]" in caplog.text
    assert "hunter2" not in caplog.text


def test_hooks_hear_of_every_statement(db: StoreDatabase) -> None:
    """Peewee's query hooks are called, with the translated error where there was one."""
    heard: list[Any] = []
    db.query_hooks.append(heard.append)

    db.execute_sql("SELECT %s", (1,))
    with suppress(InvalidInput):
        db.execute_sql("SELECT 1 / %s", (0,))

    assert [None, InvalidInput] == [
        heard[0].exception,
        InvalidInput if isinstance(heard[1].exception, InvalidInput) else 0,
    ]


def test_no_secret_shows_on_the_database(db: StoreDatabase) -> None:
    """Neither the database, its pool nor Peewee's connect_params shows the password."""
    other = StoreDatabase(attrs.evolve(db.settings, password="hunter2"))
    other.execute_sql("SELECT 1")

    shown = f"{other!r} {other} {other.pool!r} {other.connect_params} {other.database} {other.settings!r}"
    other.close_all()

    assert "hunter2" not in shown


def test_a_service_file_and_the_environment_go_before_our_defaults(
    plain_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name and the time-outs of a connection are those of the service, else of libpq's environment, else ours."""
    address = {key: value for key, value in parse_dsn(plain_url).items() if key != "application_name"}
    lines = "\n".join(f"{key}={value}" for key, value in address.items())
    services = f"[full]\n{lines}\napplication_name=service\nconnect_timeout=7\n[bare]\n{lines}\n"
    (tmp_path / "pg_service.conf").write_text(services)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "pg_service.conf"))

    def named(service: str) -> tuple[str, str | None]:
        with closing(StoreDatabase(Settings.load(f"postgresql:///?service={service}")).open_session()) as session:
            parameters = session.info.dsn_parameters
            return session.info.parameter_status("application_name") or "", parameters.get("connect_timeout")

    assert ("myloware_store", None) == named("bare")
    monkeypatch.setenv("PGAPPNAME", "environment")
    assert ("environment", None) == named("bare")
    assert ("service", "7") == named("full")

"""Cases of what a test may do to its database; test_survival.py copies this module into a project."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

INSERT = "INSERT INTO numbers (n) VALUES (1)"
TELL = "INSERT INTO capabilities (name, scope) VALUES ('told', 'all')"
KEPT: list[Any] = []
"""Objects that tests leave open."""


class Stop(Exception):
    """Ends a block."""


def commit(store: Store, url: Callable[[], str]) -> None:
    """Write and commit, by hand and in a block."""
    with store.db.atomic():
        store.db.execute_sql(TELL)
    store.work.submit([{"type": "TICKET", "content": "It is broken."}], created_by="me")
    store.db.execute_sql(INSERT)
    with suppress(StoreError):  # outside of a transaction there is nothing to commit
        store.db.commit()


def nested_atomic(store: Store, url: Callable[[], str]) -> None:
    """Write in transactions inside each other, one of them rolled back."""
    with store.db.atomic():
        store.db.execute_sql(INSERT)
        with suppress(Stop), store.db.atomic():
            store.db.execute_sql(TELL)
            raise Stop
        with store.db.atomic():
            store.db.execute_sql("UPDATE numbers SET n = n + 1")


def error_without_savepoint(store: Store, url: Callable[[], str]) -> None:
    """Fail in a statement, after one that succeeded."""
    store.db.execute_sql(INSERT)
    with pytest.raises(StoreError):
        store.db.execute_sql("INSERT INTO numbers (id) VALUES (1), (1)")


def thread(store: Store, url: Callable[[], str]) -> None:
    """Write in a thread, which gets a connection of its own."""
    writer = threading.Thread(target=store.db.execute_sql, args=(INSERT,))
    writer.start()
    writer.join()


def thread_that_keeps_its_connection(store: Store, url: Callable[[], str]) -> None:
    """Write in a thread that ends while it holds a connection."""

    def run() -> None:
        store.db.connect()
        store.db.execute_sql(INSERT)

    writer = threading.Thread(target=run)
    writer.start()
    writer.join()


def second_connection(store: Store, url: Callable[[], str]) -> None:
    """Write through another connection, and leave it open."""
    connection = psycopg2.connect(url())
    KEPT.append(connection)
    with connection, connection.cursor() as cursor:
        cursor.execute(INSERT)
        cursor.execute("SET work_mem = '1MB'")


def other_process(store: Store, url: Callable[[], str]) -> None:
    """Write in another process."""
    code = f"import psycopg2, sys\nwith psycopg2.connect(sys.argv[1]) as c: c.cursor().execute({INSERT!r})"
    subprocess.run([sys.executable, "-c", code, url()], check=True)


def connection_context(store: Store, url: Callable[[], str]) -> None:
    """Write on a connection that is held for a block."""
    with suppress(StoreError, AttributeError), store.db.connection_context():
        store.db.execute_sql(INSERT)


def sequence(store: Store, url: Callable[[], str]) -> None:
    """Advance sequences, and set one."""
    store.db.execute_sql("SELECT nextval('numbers_id_seq'), nextval('loose')")
    store.db.execute_sql("SELECT setval('loose', 500)")


def sequence_only_of_a_row(store: Store, url: Callable[[], str]) -> None:
    """Advance a sequence by inserting a row."""
    store.db.execute_sql(INSERT)


def notify(store: Store, url: Callable[[], str]) -> None:
    """Listen, and notify."""
    listener = psycopg2.connect(url())
    listener.autocommit = True
    KEPT.append(listener)
    listener.cursor().execute("LISTEN told")
    store.db.execute_sql("LISTEN told")
    store.db.execute_sql("NOTIFY told, 'it'")


def ddl(store: Store, url: Callable[[], str]) -> None:
    """Change the schema in every way."""
    for statement in (
        "CREATE TABLE made (id int)",
        "ALTER TABLE numbers ADD COLUMN more int",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP TABLE capabilities CASCADE",
        "DROP TABLE eval_results",
        "DROP TYPE shade CASCADE",
        "GRANT SELECT ON numbers TO PUBLIC",
        "COMMENT ON TABLE numbers IS 'changed'",
    ):
        store.db.execute_sql(statement)


def temporary_table(store: Store, url: Callable[[], str]) -> None:
    """Leave a temporary table, a prepared statement, a setting and a lock in the session."""
    with store.db.unit():
        store.db.execute_sql("CREATE TEMPORARY TABLE capabilities (id int)")
        store.db.execute_sql("PREPARE it AS SELECT 1")
        store.db.execute_sql("SET work_mem = '1MB'")
        store.db.execute_sql("SELECT pg_advisory_lock(7)")


def truncate(store: Store, url: Callable[[], str]) -> None:
    """Empty tables, and the ones that refer to them."""
    store.db.execute_sql("TRUNCATE numbers RESTART IDENTITY")
    store.db.execute_sql("TRUNCATE connectors, work_orders CASCADE")


def copy(store: Store, url: Callable[[], str]) -> None:
    """Load rows in bulk."""
    assert 2 == store.db.copy("COPY numbers (n) FROM STDIN", io.StringIO("7\n8\n"))


def killed_backend(store: Store, url: Callable[[], str]) -> None:
    """Lose the connection in the middle of a unit."""
    store.db.execute_sql(INSERT)
    with store.db.unit():
        ((pid,),) = store.db.execute_sql("SELECT pg_backend_pid()").fetchall()
        with closing(psycopg2.connect(url())) as killer, killer, killer.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with suppress(StoreError):
        store.db.execute_sql(INSERT)


def left_in_this_thread(store: Store, url: Callable[[], str]) -> None:
    """Leave a transaction open, with a lock."""
    block = store.db.atomic()
    KEPT.append(block)
    block.__enter__()
    store.db.execute_sql("LOCK TABLE numbers")
    store.db.execute_sql(INSERT)


def left_by_hand(store: Store, url: Callable[[], str]) -> None:
    """Begin a transaction by hand, and never end it."""
    with suppress(StoreError):
        store.db.begin()
    store.db.execute_sql(INSERT)


def left_in_other_threads(store: Store, url: Callable[[], str]) -> None:
    """Leave transactions open in as many threads as there are connections."""
    for _ in range(store.db.pool.limit - store.db.pool.in_use):
        started = threading.Event()

        def run(started: threading.Event = started) -> None:
            with store.db.atomic():
                store.db.execute_sql(INSERT)
                started.set()
                threading.Event().wait()

        threading.Thread(target=run, daemon=True).start()
        started.wait()


def left_on_another_connection(store: Store, url: Callable[[], str]) -> None:
    """Leave a transaction open that holds locks, and one that waits for them."""
    for _ in range(2):
        connection = psycopg2.connect(url())
        KEPT.append(connection)
    first, second = KEPT[-2:]
    first.cursor().execute("LOCK TABLE numbers")
    first.cursor().execute(INSERT)
    waiter = threading.Thread(target=wait_for_it, args=(second,), daemon=True)
    waiter.start()


def wait_for_it(connection: Any) -> None:
    """Wait for a lock until the session is ended."""
    with suppress(psycopg2.Error):
        connection.cursor().execute("LOCK TABLE numbers")


CASES: dict[str, Callable[[Store, Callable[[], str]], None]] = {
    case.__name__: case
    for case in (
        commit,
        nested_atomic,
        error_without_savepoint,
        thread,
        thread_that_keeps_its_connection,
        second_connection,
        other_process,
        connection_context,
        sequence,
        sequence_only_of_a_row,
        notify,
        ddl,
        temporary_table,
        truncate,
        copy,
        killed_backend,
        left_in_this_thread,
        left_by_hand,
        left_in_other_threads,
        left_on_another_connection,
    )
}

_ROWS = """
    SELECT ARRAY(SELECT c::text FROM capabilities AS c ORDER BY 1), ARRAY(SELECT n::text FROM numbers AS n ORDER BY 1),
        (SELECT count(*) FROM work_orders), (SELECT count(*) FROM connectors), (SELECT count(*) FROM eval_results),
        ARRAY(SELECT c.oid::regclass::text FROM pg_class AS c WHERE relkind = 'r' AND relnamespace = 2200 ORDER BY 1),
        ARRAY(SELECT proname FROM pg_proc WHERE pronamespace = 2200 AND proname = 'one'),
        (SELECT count(*) FROM pg_attribute WHERE attrelid = 'numbers'::regclass AND attnum > 0)
    """
_SESSION = """
    SELECT current_setting('work_mem'), (SELECT count(*) FROM pg_listening_channels()),
        (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
        (SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
                AND backend_type = 'client backend')
    """
_SEQUENCES = "SELECT (SELECT last_value FROM numbers_id_seq), (SELECT last_value FROM loose)"


def state(store: Store, *, sequences: bool) -> list[Any]:
    """Read everything that a test may have changed."""
    read = (_ROWS, _SESSION, _SEQUENCES) if sequences else (_ROWS, _SESSION)
    return [store.db.execute_sql(query).fetchall() for query in read]

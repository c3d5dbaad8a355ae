"""A pooler in transaction mode that nobody has spoken of: it is noticed, by what it says and does."""

from __future__ import annotations

import itertools
import os
import socket
import socketserver
import struct
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import MigrationError, Settings
from myloware_store.core.errors import ConnectionFailed, VectorIndexError
from myloware_store.db.database import StoreDatabase
from myloware_store.db.listening import Listener
from myloware_store.memory.index.session import open_session
from myloware_store.ops.doctor import examine
from myloware_store.ops.migrate import migrate, rollback
from tests.conftest import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.embedded import EmbeddedServer


class Pooler(socketserver.ThreadingTCPServer):
    """What PgBouncer does to simple queries: a session for each transaction, or each connection, or each statement."""

    daemon_threads = True
    mode = "transaction"

    def __init__(self, path: str, database: str) -> None:
        super().__init__(("127.0.0.1", 0), Client)
        self.path, self.database = path, database
        self.idle: list[socket.socket] = []
        self.hello = b""
        self.idle.append(self.backend())

    def backend(self) -> socket.socket:
        """Give a session of the server."""
        with suppress(IndexError):
            return self.idle.pop()
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.path)
        words = b"\0".join([b"user", b"postgres", b"database", self.database.encode(), b"", b""])
        made.sendall(struct.pack("!II", len(words) + 8, 196608) + words)
        while (message := read(made))[:1] != b"Z":
            self.hello += message if message[:1] == b"S" else b""
        return made


class Client(socketserver.BaseRequestHandler):
    """A connection to the pooler."""

    server: Pooler
    numbers = itertools.count(-1, -1)

    def handle(self) -> None:
        """Serve it until it hangs up."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each reply waits 40 ms for an ACK
        own: socket.socket | None = None
        while True:
            (length, code) = struct.unpack("!II", receive(self.request, 8))
            receive(self.request, length - 8)
            if code == 196608:
                break
            self.request.sendall(b"N")
        number = struct.pack("!cIii", b"K", 12, next(self.numbers), 0)
        self.request.sendall(
            struct.pack("!cII", b"R", 8, 0) + self.server.hello + number + b"Z" + struct.pack("!Ic", 5, b"I")
        )
        with suppress(ConnectionError):
            while (asked := read(self.request))[:1] != b"X":
                if own is None:
                    own = self.server.backend()
                if self.server.mode == "statement" and asked[5:].upper().startswith(b"BEGIN"):
                    break
                own.sendall(asked)
                while (told := read(own))[:1] != b"Z":
                    self.request.sendall(told)
                if told[5:] == b"I" and self.server.mode != "session":
                    self.server.idle.append(own)
                    own = None
                self.request.sendall(told)
        if own is not None:
            own.close()


def receive(connection: socket.socket, count: int) -> bytes:
    """Read so many bytes."""
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise ConnectionError
        found += part
    return found


def read(connection: socket.socket) -> bytes:
    """Read one message."""
    head = receive(connection, 5)
    return head + receive(connection, struct.unpack("!I", head[1:])[0] - 4)


@pytest.fixture
def pooler(postgres: EmbeddedServer, empty_database: str) -> Iterator[Pooler]:
    """Give a pooler before an empty database."""
    where = postgres.connect_kwargs("postgres")
    path = os.path.join(str(where["host"]), f".s.PGSQL.{where['port']}")  # noqa: PTH118
    name = Settings.load(empty_database, environ={}, dotenv=None).dbname
    with Pooler(path, name) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        for backend in server.idle:
            backend.close()


@pytest.fixture
def settings(pooler: Pooler) -> Settings:
    """Give the settings that lead through it, as somebody writes them who does not know that it is there."""
    url = f"postgresql://postgres@127.0.0.1:{pooler.server_address[1]}/{pooler.database}"
    return Settings.load(url, environ={}, dotenv=None)


@pytest.fixture
def pooled(settings: Settings) -> Iterator[StoreDatabase]:
    """Give a database behind it."""
    database = StoreDatabase(settings)
    yield database
    database.close_all()


def locks(database: StoreDatabase) -> Any:
    """Count the advisory locks that are held."""
    sql = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return database.execute_sql(sql).fetchone()[0]


def test_nothing_is_migrated_through_a_transaction_pooler(settings: Settings, pooled: StoreDatabase) -> None:
    """A lock would stay with a session that is another's by then; the plan says so as well."""
    for act in (migrate, rollback):
        with pytest.raises(
            MigrationError, match=r"pooler in transaction mode.*connect to the PostgreSQL server itself"
        ):
            act(settings)
    assert "pooler in transaction mode" in (migrate(settings, plan=True).obstacle or "")
    assert (0, []) == (locks(pooled), pooled.get_tables())
    with pytest.raises(VectorIndexError, match="pooler in transaction mode"), open_session(pooled, lambda *_: None):
        pass


def test_nobody_listens_through_a_transaction_pooler(pooled: StoreDatabase) -> None:
    """It looks four times a second instead, as with pgbouncer=true, and leaves no lock."""
    with closing(Listener(pooled)) as listener:
        assert [False, False] == [listener.arm(), listener.arm()]
    assert pooled.shares_sessions()
    assert 0 == locks(pooled)


def test_nothing_is_prepared_through_a_pooler(pooled: StoreDatabase) -> None:
    """The next transaction would have another session."""
    for _ in range(7):
        assert [(1,)] == pooled.execute_prepared("SELECT %(number)s::int", {"number": 1}).fetchall()
    assert [(0,)] == pooled.execute_sql("SELECT count(*) FROM pg_prepared_statements").fetchall()


def test_a_database_is_examined_through_a_pooler(pooled: StoreDatabase, empty_database: str) -> None:
    """Every check is made, and its time-outs do not stay with a session that is another's by then."""
    migrate(Settings.load(empty_database, environ={}, dotenv=None))
    assert () == examine(pooled).unseen
    assert [("0",)] == pooled.execute_sql("SHOW lock_timeout").fetchall()


def test_a_pooler_of_sessions_is_as_good_as_none(pooler: Pooler, settings: Settings) -> None:
    """A session stays with its connection there."""
    pooler.mode = "session"
    assert OURS == migrate(settings).applied
    database = StoreDatabase(settings)
    with closing(Listener(database)) as listener:
        assert listener.arm()
        assert not database.shares_sessions()
    database.close_all()


def test_without_a_pooler_none_is_found(empty_database: str) -> None:
    """The server's own number is right."""
    database = StoreDatabase(Settings.load(empty_database, environ={}, dotenv=None))
    assert not database.shares_sessions()
    database.close_all()


def test_statement_mode_is_named_when_a_transaction_ends_the_connection(pooler: Pooler, pooled: StoreDatabase) -> None:
    """The driver does not say why PgBouncer hangs up."""
    pooler.mode = "statement"
    with pytest.raises(ConnectionFailed, match="PgBouncer is in statement mode"), pooled.atomic():
        pooled.execute_sql("SELECT 1")

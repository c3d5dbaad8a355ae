"""Databases on a test server: a migrated template, and clones of it that live for one test."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
import uuid
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import psycopg2
from psycopg2.sql import SQL, Identifier

from myloware_store.embedded import EmbeddedServer
from myloware_store.errors import EmbeddedServerError
from myloware_store.migrate import migrate, migrations_path
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg2.extensions import cursor

__all__ = ["Server", "clone", "ensure_template", "open_server"]

_STALE_SECONDS = 3600.0
_CLEAR_SECONDS = 1.0  # what a backend may take to notice that its client has closed


class Server(Protocol):
    """A PostgreSQL server on which tests may create databases."""

    def url(self, dbname: str) -> str:
        """Give the libpq URL of a database on it."""

    def connect_kwargs(self, dbname: str) -> dict[str, Any]:
        """Give the arguments of `psycopg2.connect` for a database on it."""


@attrs.frozen
class _NamedServer:
    """A server that someone else runs."""

    settings: Settings

    def url(self, dbname: str) -> str:
        return attrs.evolve(self.settings, dbname=dbname).url

    def connect_kwargs(self, dbname: str) -> dict[str, Any]:
        return attrs.evolve(self.settings, dbname=dbname).connect_kwargs()


@contextmanager
def open_server(home: Path) -> Iterator[Server]:
    """Hold the server that `MYLOWARE_TEST_URL` names, else an embedded one in `home` that ends with its last holder."""
    if url := os.environ.get("MYLOWARE_TEST_URL"):
        yield _NamedServer(Settings.load(url, environ={}, dotenv=None))
        return
    _sweep(home.parent)
    home.mkdir(exist_ok=True)
    home.chmod(0o711)  # so that the account the server runs under, as root, can reach its own folder in it
    with EmbeddedServer(home / "server", testing=True) as server:
        yield server


def ensure_template(server: Server) -> str:
    """Build the template database unless it is there, and give its name.

    The name is the digest of the migrations, so that no run meets the schema of another state of them. Workers and
    other runs on the server wait for the one that builds it; one that died at it leaves no template behind.
    """
    digest = hashlib.sha256()
    for path in sorted(migrations_path().glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    name = f"myloware_template_{digest.hexdigest()[:12]}"
    with _maintenance(server) as run:
        run.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
        run.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", (name,))
        if run.fetchone() != (True,):
            run.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))
            run.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
            migrate(Settings.load(server.url(name), environ={}, dotenv=None))
            run.execute(SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false").format(Identifier(name)))
    return name


@contextmanager
def clone(server: Server, template: str) -> Iterator[str]:
    """Make a copy of a template, give its URL, and drop it afterwards with whatever sessions the test left on it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = f"myloware_test_{worker}_{uuid.uuid4().hex[:12]}"
    with _maintenance(server) as run:
        run.execute("SHOW fsync")
        # Copying files takes two checkpoints: half the time of logging the copy without fsync, several times it with.
        strategy = SQL("file_copy" if run.fetchone() == ("off",) else "wal_log")
        copy = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}")
        run.execute(copy.format(Identifier(name), Identifier(template), strategy))
    try:
        yield server.url(name)
    finally:
        with _maintenance(server) as run:
            _wait_until_clear(run, name)
            run.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed have left: homes of this account, an hour old, whose server has ended."""
    for home in folder.glob("myloware-" + "[0-9a-f]" * 12):
        with suppress(OSError, EmbeddedServerError):  # another run may be sweeping too
            status = home.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            old = time.time() - status.st_mtime > _STALE_SECONDS
            if ours and old and not EmbeddedServer.running(home / "server"):
                shutil.rmtree(home)


@contextmanager
def _maintenance(server: Server) -> Iterator[cursor]:
    """Connect to the server's `postgres` database, each statement a transaction of its own."""
    with closing(psycopg2.connect(**server.connect_kwargs("postgres"))) as connection:
        connection.autocommit = True
        with connection.cursor() as run:
            yield run


def _wait_until_clear(run: cursor, name: str) -> None:
    """Give the backends of closed connections the moment they need: DROP DATABASE polls for them every 100 ms."""
    deadline = time.monotonic() + _CLEAR_SECONDS
    while time.monotonic() < deadline:
        run.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (name,))
        if run.fetchone() is None:
            return
        time.sleep(0.005)

"""Empty databases for the tests of a whole module, which need no schema of the store's, and waiting with an end."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import peewee
import psycopg2
import pytest

from myloware_store import Attempt
from myloware_store.db.database import StoreDatabase
from myloware_store.db.listening import LISTENERS
from myloware_store.embedded import EmbeddedServer
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from myloware_store import Claim, Store

PATIENCE = 60.0
BLOCKED = "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
"""Who waits for what this session has locked."""
LISTENING = f"""
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND classid = {LISTENERS} AND mode = 'ShareLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""How many sessions hear of work that is queued in this database."""


def until(holds: Callable[[], object]) -> None:
    """Return once something holds; fail after a minute."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s"
        time.sleep(0.01)


def until_blocked(store: Store, call: Future[Any]) -> None:
    """Return once a call waits for what this thread's transaction has locked, or has ended without waiting."""
    until(lambda: call.done() or store.db.execute_sql(BLOCKED).fetchone())


def until_listening(store: Store) -> None:
    """Return once somebody hears of work that is queued."""
    until(lambda: store.db.execute_sql(LISTENING).fetchone()[0])


def extended(claim: Claim) -> bool:
    """Return whether the lease of a claim ends later than when it was claimed."""
    expires = Attempt.get_by_id(claim.attempt_id).lease_expires_at
    assert expires is not None
    return expires > claim.lease_expires_at


class Pair(peewee.Model):
    """A table of its own for tests of the database layer."""

    id = peewee.AutoField()
    name = peewee.TextField(unique=True)
    number = peewee.IntegerField(default=0)

    class Meta:
        """As Peewee names tables now."""

        database = peewee.DatabaseProxy()
        legacy_table_names = False

    @classmethod
    def names(cls) -> list[str]:
        """Return what is stored."""
        return [pair.name for pair in cls.select().order_by(cls.name)]


@pytest.fixture(scope="module")
def plain_url(myloware_server: Any) -> Iterator[str]:
    """Give the URL of an empty database on the run's server, shared by the module's tests and dropped afterwards."""
    name = f"plain_{uuid.uuid4().hex[:12]}"
    with closing(psycopg2.connect(**myloware_server.connect_kwargs("postgres"))) as connection:
        connection.autocommit = True
        with connection.cursor() as run:
            run.execute(f"CREATE DATABASE {name}")
            yield myloware_server.url(name)
            run.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def guarded(reachable_tmp: Path) -> Iterator[Settings]:
    """Give settings for a server that asks for a password, and refuses some roles outright."""
    with EmbeddedServer(reachable_tmp / f"guarded-{uuid.uuid4().hex[:8]}", testing=True) as server:
        rules = server.data_dir / "pg_hba.conf"
        rules.write_text("local all barred reject\nlocal all postgres trust\nlocal all all scram-sha-256\n")
        with closing(psycopg2.connect(**server.connect_kwargs("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as run:
                run.execute("SELECT pg_reload_conf()")
                run.execute("CREATE ROLE me LOGIN PASSWORD 'right'")
                run.execute("CREATE ROLE single LOGIN PASSWORD 'right' CONNECTION LIMIT 1")
                run.execute("CREATE ROLE barred LOGIN PASSWORD 'right'")
                run.execute("CREATE ROLE idler NOLOGIN PASSWORD 'right'")
                run.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
                run.execute("CREATE DATABASE private")
                run.execute("CREATE DATABASE still")
                run.execute("ALTER DATABASE still SET default_transaction_read_only = on")
                run.execute("REVOKE CONNECT ON DATABASE private FROM PUBLIC")
        yield Settings.load(server.url("postgres"), environ={}, dotenv=None)


@pytest.fixture
def db(plain_url: str) -> Iterator[StoreDatabase]:
    """Give a database of two connections."""
    settings = Settings.load(plain_url, environ={}, dotenv=None)
    database = StoreDatabase(attrs.evolve(settings, connection_limit=2, pool_timeout=5))
    yield database
    database.close_all()


@pytest.fixture
def pairs(db: StoreDatabase) -> Iterator[type[Pair]]:
    """Give a model with an empty table in that database."""
    with db.bind_ctx([Pair]):
        db.drop_tables([Pair])
        db.create_tables([Pair])
        yield Pair

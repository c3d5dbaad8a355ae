"""Waiting for a database: it ends when the database is ready, at the deadline, or at once if it cannot help."""

from __future__ import annotations

import contextlib
import socket
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

from myloware_store import ConnectionFailed, InvalidInput, SchemaMismatch, Settings, WaitTimeout
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops import waiting
from myloware_store.ops.migrate import migrate
from myloware_store.ops.waiting import wait_until_ready
from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def guarded(reachable_tmp: Path) -> Iterator[Settings]:
    """Yield settings for a server that asks for a password, and refuses some roles outright."""
    with EmbeddedServer(reachable_tmp / f"guarded-{uuid.uuid4().hex[:8]}", testing=True) as server:
        rules = server.data_dir / "pg_hba.conf"
        rules.write_text("local all barred reject\nlocal all postgres trust\nlocal all all scram-sha-256\n")
        run_on(server.url("postgres"), "SELECT pg_reload_conf()")
        run_on(server.url("postgres"), "CREATE ROLE me LOGIN PASSWORD 'right'; CREATE ROLE idler PASSWORD 'right'")
        run_on(server.url("postgres"), "CREATE DATABASE private")
        run_on(server.url("postgres"), "REVOKE CONNECT ON DATABASE private FROM PUBLIC")
        yield Settings.load(server.url("postgres"), environ={}, dotenv=None)


def run_on(url: str, statement: str) -> None:
    """Run a statement outside of a transaction."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute(statement)


def fixing(**remedies: Callable[[], object]) -> Callable[[str], None]:
    """Return a progress that does something when the reason to wait contains its name, each once, and no other."""

    def progress(reason: str) -> None:
        name = next(name for name in remedies if name.replace("_", " ") in reason)
        remedies.pop(name)()

    return progress


def test_a_database_that_is_created_and_migrated_later_is_waited_for(guarded: Settings) -> None:
    """It waits through both, and ends with the migration."""
    settings = attrs.evolve(guarded, dbname="later")
    create = lambda: run_on(guarded.url, "CREATE DATABASE later")  # noqa: E731

    wait_until_ready(settings, migrated=False, progress=fixing(somebody_must_create_it=create))
    report = wait_until_ready(settings, progress=fixing(is_not_migrated=lambda: migrate(settings)))

    assert settings == report.settings
    run_on(settings.url, "INSERT INTO myloware_migratehistory (name, migrated_at) VALUES ('999_later', now())")
    with pytest.raises(SchemaMismatch, match="999_later"):
        wait_until_ready(settings)
    assert wait_until_ready(settings, migrated=False, timeout=0).seconds > 0


def test_a_server_that_comes_up_later_is_waited_for(guarded: Settings) -> None:
    """A port at which nobody listens yet, and a name that is not known yet."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(socket.socket())
        port.bind(("127.0.0.1", 0))

        def listen() -> None:
            stack.enter_context(closing(Relay(guarded.host, guarded.port, port)))

        plain = {"sslmode": "disable", "gssencmode": "disable"}
        settings = attrs.evolve(guarded, host="127.0.0.1", port=port.getsockname()[1], params=plain)
        wait_until_ready(settings, migrated=False, progress=fixing(no_server_listens=listen))
        encrypted = attrs.evolve(settings, params={**plain, "sslmode": "require"})
        with pytest.raises(ConnectionFailed, match="SSL"):
            wait_until_ready(encrypted, progress=fixing())
    unknown = attrs.evolve(settings, host="no-such-host.invalid")
    with pytest.raises(WaitTimeout, match=r"not ready within 0 s: .* no such host is known"):
        wait_until_ready(unknown, timeout=0)


def test_a_lock_does_not_outlast_the_deadline(guarded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history of migrations is locked; the answer would come with the end of the lock."""
    monkeypatch.setattr(waiting, "_ANSWER", 0.05)
    with closing(psycopg2.connect(guarded.url)) as blocker, blocker.cursor() as run:
        run.execute("CREATE TABLE myloware_migratehistory ()")
        blocker.commit()
        run.execute("LOCK TABLE myloware_migratehistory")
        with pytest.raises(WaitTimeout, match="statement timeout"):
            wait_until_ready(guarded, timeout=0)
        run.execute("DROP TABLE myloware_migratehistory")
        blocker.commit()


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "me", "password": "hunter2"},
        {"user": "me", "params": {"passfile": "/nowhere"}},
        {"user": "nobody", "password": "right"},
        {"user": "idler", "password": "right"},
        {"user": "barred", "password": "right"},
        {"user": "me", "password": "right", "dbname": "private"},
        {"params": {"sslmode": "nonsense"}},
        {"params": {"service": "nothing"}},
    ],
)
def test_what_waiting_cannot_mend_fails_at_once(guarded: Settings, changes: dict[str, Any]) -> None:
    """A wrong password, a role that may not log in, and a wrong address; no secret is shown."""
    with pytest.raises(ConnectionFailed) as caught:
        wait_until_ready(attrs.evolve(guarded, **changes), progress=fixing())
    assert "hunter2" not in str(caught.value)


def test_an_embedded_server_is_waited_for_and_not_started(reachable_tmp: Path) -> None:
    """Until somebody starts it."""
    server = EmbeddedServer(reachable_tmp / f"waiting-{uuid.uuid4().hex[:8]}", testing=True)
    settings = Settings.load(f"embedded:{server.home}", environ={}, dotenv=None)
    with pytest.raises(WaitTimeout, match="does not run"):
        wait_until_ready(settings, timeout=0)
    assert not EmbeddedServer.made(server.home)
    try:
        report = wait_until_ready(settings, migrated=False, progress=fixing(does_not_run=server.start))
        assert report.settings.host
    finally:
        server.close()


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), True, "1"])
def test_a_timeout_is_a_number_of_seconds(guarded: Settings, timeout: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidInput, match="timeout"):
        wait_until_ready(guarded, timeout=timeout)

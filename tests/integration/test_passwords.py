"""Passwords that a function returns, such as tokens of a cloud: asked for anew for each connection, and never shown."""

from __future__ import annotations

import logging
import traceback
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import attrs
import psycopg2
import pytest

from myloware_store import ConnectionFailed, Settings, SettingsError, Store
from myloware_store.db.database import StoreDatabase
from myloware_store.db.listening import Listener
from myloware_store.ops.backup.programs import login_environment
from myloware_store.ops.migrate import migrations_path
from myloware_store.ops.migration_database import MigrationDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "hunter2-token"


class Vault:
    """Leases passwords of a role, and counts how often it was asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.role = f"leased_{uuid4().hex[:8]}"
        self.asked = 0
        self.rotate("CREATE")

    def rotate(self, change: str = "ALTER") -> None:
        """Change the role's password, so that the last one is refused."""
        self.password = uuid4().hex
        with closing(psycopg2.connect(self._settings.url)) as connection, connection, connection.cursor() as run:
            run.execute(f"{change} ROLE {self.role} LOGIN SUPERUSER PASSWORD '{self.password}'")

    def __call__(self) -> str:
        """Return a password that is good for one login."""
        self.asked += 1
        return self.password


@pytest.fixture
def vault(guarded: Settings) -> Vault:
    """Give a place to ask for the passwords of a role on a server that checks them."""
    return Vault(guarded)


@pytest.fixture
def leased(guarded: Settings, vault: Vault) -> Iterator[StoreDatabase]:
    """Give a database that asks there."""
    database = StoreDatabase(attrs.evolve(guarded, user=vault.role, password=vault))
    yield database
    database.close_all()


def test_each_connection_asks_anew(leased: StoreDatabase, vault: Vault) -> None:
    """Open ones live on when the password changes, and later ones log in with the next."""
    with leased.unit():
        asked = vault.asked
        vault.rotate()
        assert [(vault.role,)] == leased.execute_sql("SELECT user").fetchall()
        with closing(leased.open_session()) as other, other.cursor() as run:
            run.execute("SELECT user")
            assert [(vault.role,)] == run.fetchall()
    assert (asked + 1, 1) == (vault.asked, leased.pool.opened)


def test_every_way_to_the_server_asks(leased: StoreDatabase, vault: Vault) -> None:
    """Listening, migrating, and the programs of a backup."""
    leased.execute_sql("CREATE TABLE IF NOT EXISTS work_items ()")
    asked = vault.asked
    with closing(Listener(leased)) as listener:
        assert listener.arm()
    assert asked + 1 == vault.asked
    migrations = MigrationDatabase(leased.settings, migrations_path())
    assert migrations.status().pending
    migrations.close_all()
    assert vault.asked > asked + 1
    assert vault.password == login_environment(leased.settings)["PGPASSWORD"]


def test_what_the_function_raises_is_one_error_without_the_secret(
    guarded: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool stays whole, and works when the function does again."""
    failures = 2

    def ask() -> str:
        nonlocal failures
        if failures:
            failures -= 1
            raise TimeoutError(SECRET)
        return "right"

    database = StoreDatabase(attrs.evolve(guarded, user="me", password=ask, connection_limit=1, pool_timeout=0.1))

    with caplog.at_level(logging.DEBUG):
        for call in (lambda: database.execute_sql("SELECT 1"), database.open_session):
            with pytest.raises(ConnectionFailed, match="the function for the password raised TimeoutError") as caught:
                call()
            assert ("08001", TimeoutError) == (caught.value.sqlstate, type(caught.value.driver_error))
            assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text

    assert [(1,)] == database.execute_sql("SELECT 1").fetchall()
    database.close_all()


@pytest.mark.parametrize("bad", [None, b"token", "to\0ken", "\udc80", 5])
def test_what_is_no_password_is_refused(guarded: Settings, bad: Any) -> None:
    """Text is one."""
    database = StoreDatabase(attrs.evolve(guarded, user="me", password=lambda: bad))

    with pytest.raises(SettingsError, match="password that its function returned"):
        database.execute_sql("SELECT 1")

    assert 0 == database.pool.in_use


def test_nothing_shows_the_function_s_password_but_what_has_to(guarded: Settings, vault: Vault) -> None:
    """Neither asks for it: only connections and `url` do."""
    settings = attrs.evolve(attrs.evolve(guarded, user="me", password=vault), connection_limit=3)

    shown = f"{settings!r} {settings.safe_url} {settings.libpq_url} {settings.target}"

    assert (0, False, settings) == (vault.asked, "Vault" in shown, settings.with_server())
    assert vault.password in settings.url
    assert [vault.password, 2] == [settings.connect_kwargs()["password"], vault.asked]


def test_a_store_is_opened_with_a_function(myloware_dsn: str) -> None:
    """Beside the URL, and not beside a database, which has its settings."""
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return SECRET

    with Store.open(myloware_dsn, password=ask) as store:
        opened = len(asked)
        with Store.open(myloware_dsn, password=ask) as again:
            assert again.db is store.db
        with pytest.raises(SettingsError, match="password"):
            Store.open(database=store.db, password=ask)
    assert opened > 0

"""Opening and closing the store."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import InvalidInput, SchemaMismatch, Settings, SettingsError, Store, StoreError, WorkOrder
from myloware_store.core.errors import NotOpen
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for an embedded server, which any account can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder, "data here")


def test_an_embedded_store_stands_up_by_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server, database, schema and upkeep come with open(); the server and the upkeep go with close()."""
    with Store.open(f"embedded:{home}") as store:
        assert "myloware-upkeep" in {thread.name for thread in threading.enumerate()}
        order = store.work.submit([{"type": "INVOICE", "content": "Invoice 17"}])
        assert EmbeddedServer.running(home)
    assert not EmbeddedServer.running(home)
    monkeypatch.setenv("MYLOWARE_UPKEEP", "off")
    with Store.open(f"embedded:{home}") as store:
        assert "myloware-upkeep" not in {thread.name for thread in threading.enumerate()}
        assert order == store.work.get(order.id)


def test_two_processes_share_one_embedded_store(home: Path) -> None:
    """The second finds the first one's server, and what it wrote is there."""
    code = (
        "import sys; from myloware_store import Store\n"
        "with Store.open(sys.argv[1]) as store: store.work.submit([{'type': 'TICKET', 'content': 'from outside'}])"
    )
    with Store.open(f"embedded:{home}"):
        subprocess.run([sys.executable, "-c", code, f"embedded:{home}"], check=True, timeout=60)
        assert WorkOrder.select().count() == 1
    assert not EmbeddedServer.running(home)


def test_the_same_database_is_shared(myloware_dsn: str) -> None:
    """Opening it again gives the same connections; they go with the last to close."""
    with Store.open(myloware_dsn) as first:
        with Store.open(myloware_dsn) as second:
            assert first.db is second.db
        assert first.work.submit([{"type": "TICKET", "content": "x"}])


def test_another_database_is_refused(myloware_dsn: str) -> None:
    """The models are bound to one; the message names both and shows no password."""
    with (
        Store.open(myloware_dsn),
        pytest.raises(SettingsError, match="close it before") as refusal,
    ):
        Store.open("postgresql://kim:s3cret@localhost/elsewhere")
    assert "s3cret" not in str(refusal.value)


def test_a_closed_store_says_so(myloware_dsn: str) -> None:
    """Closing twice is fine; using it is one clear error."""
    store = Store.open(myloware_dsn)
    store.close()
    store.close()
    assert repr(store) == "<Store, closed>"
    with pytest.raises(StoreError, match="closed"):
        store.transact(lambda: None)
    with pytest.raises(StoreError, match="closed"):
        store.work.submit([{"type": "TICKET", "content": "x"}])
    with pytest.raises(StoreError, match="closed"):
        store.audit.list()


def test_a_url_and_settings_do_not_mix(myloware_dsn: str) -> None:
    """One or the other."""
    with pytest.raises(SettingsError):
        Store.open(myloware_dsn, settings=Settings.load(myloware_dsn))


@pytest.mark.parametrize("wrong", ["postgresql://localhost/x", 5, {}, "", object()])
def test_what_are_no_settings_are_refused(myloware_dsn: str, wrong: Any) -> None:
    """Neither as settings, nor as an embedder; nothing is left open."""
    with pytest.raises(SettingsError, match="settings"):
        Store.open(settings=wrong)
    with pytest.raises(InvalidInput, match="embedder"):
        Store.open(myloware_dsn, embedder=wrong)
    with pytest.raises(NotOpen):
        WorkOrder.select().count()


def test_a_database_that_is_not_migrated_is_refused(plain_url: str) -> None:
    """With the command that mends it; nothing is created in it, and the next open works."""
    with pytest.raises(SchemaMismatch, match="myloware-store migrate"):
        Store.open(plain_url)


def test_opening_needs_a_database_that_answers() -> None:
    """An unreachable server is a typed error, and leaves nothing open."""
    with pytest.raises(StoreError):
        Store.open("postgresql://localhost:1/nowhere?connect_timeout=2")
    with pytest.raises(StoreError):
        Store.open("postgresql:///nowhere?host=/no/such/folder")


def test_a_password_is_never_shown(myloware_dsn: str) -> None:
    """Neither by the store nor by its settings or its database."""
    url = myloware_dsn + ("&" if "?" in myloware_dsn else "?") + "password=s3cret"
    with Store.open(url) as store:
        assert "s3cret" not in f"{store!r} {store.settings!r} {store.db!r} {store.settings.safe_url}"


def test_a_database_may_be_given(myloware_dsn: str) -> None:
    """The store uses it as it is, and leaves its connections open for the next store."""
    database = StoreDatabase(Settings.load(myloware_dsn))
    with Store.open(database=database) as store:
        assert database is store.db
        pid = database.execute_sql("SELECT pg_backend_pid()").fetchone()

    with Store.open(database=database):
        assert pid == database.execute_sql("SELECT pg_backend_pid()").fetchone()
    database.close_all()


def test_another_database_is_not_the_one_that_is_open(myloware_dsn: str) -> None:
    """Even with the same settings: the models are bound to the first."""
    settings = Settings.load(myloware_dsn)
    with Store.open(settings=settings), pytest.raises(SettingsError, match="a store is open on"):
        Store.open(database=StoreDatabase(settings))


def test_the_other_database_is_named(myloware_dsn: str, tmp_path: Path) -> None:
    """Also if it is an embedded one that does not run."""
    other = f"embedded:{tmp_path / 'other'}"
    with Store.open(myloware_dsn), pytest.raises(SettingsError, match=f"before you open {other}$"):
        Store.open(other)


def test_a_database_is_a_store_database(myloware_dsn: str) -> None:
    """Peewee's own has no pool of ours, and a URL is the first argument."""
    with pytest.raises(SettingsError, match="str is not a StoreDatabase"):
        Store.open(database=myloware_dsn)  # type: ignore[arg-type]

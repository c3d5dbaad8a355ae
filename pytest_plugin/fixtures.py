"""The fixtures: one server a run, one migrated template on it, and a clone of that for every test that asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store import Store
    from myloware_store.database import StoreDatabase

    from .databases import Server

__all__ = ["HOME", "myloware", "myloware_db", "myloware_dsn", "myloware_server", "myloware_template", "server_home"]

HOME = pytest.StashKey[Path]()
"""Where the run's embedded server lives; unset until something needs to know."""


def server_home(config: pytest.Config) -> Path:
    """Name the run's folder for the embedded server: the same in every pytest-xdist worker, and not made yet.

    It lies in the system's temporary folder and not in `tmp_path`, whose base no other account may enter: as root, the
    server runs under one.
    """
    if HOME not in config.stash:
        import tempfile
        import uuid

        given: str | None = getattr(config, "workerinput", {}).get("myloware_home")
        fresh = Path(tempfile.gettempdir(), f"myloware-{uuid.uuid4().hex[:12]}")
        config.stash[HOME] = Path(given) if given else fresh
    return config.stash[HOME]


@pytest.fixture(scope="session")
def myloware_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """Give a PostgreSQL server for the whole run: that of `MYLOWARE_TEST_URL`, else an embedded one without fsync.

    Yields:
        An object with `url(dbname)` and `connect_kwargs(dbname)`.
    """
    from .databases import open_server

    with open_server(server_home(pytestconfig)) as server:
        yield server


@pytest.fixture(scope="session")
def myloware_template(myloware_server: Server) -> str:
    """Give the name of a migrated, empty template database, built once for each state of the migrations."""
    from .databases import ensure_template

    return ensure_template(myloware_server)


@pytest.fixture
def myloware_dsn(myloware_server: Server, myloware_template: str) -> Iterator[str]:
    """Give the libpq URL of a migrated database of this test's own, dropped afterwards."""
    from .databases import clone

    with clone(myloware_server, myloware_template) as url:
        yield url


@pytest.fixture
def myloware(myloware_dsn: str) -> Iterator[Store]:
    """Give an open `Store` on this test's own database, with the models bound to it."""
    from myloware_store import Store

    with Store.open(myloware_dsn) as store:
        yield store


@pytest.fixture
def myloware_db(myloware: Store) -> StoreDatabase:
    """Give the Peewee database of that store."""
    return myloware.db

"""An empty database on each supported server, as settings and as a connection, and folders of migrations."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Protocol

import pytest

from myloware_store.db.database import StoreDatabase
from myloware_store.ops.migrate import migrations_path
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Connect(Protocol):
    """Connect to a database until the test ends."""

    def __call__(self, settings: Settings) -> StoreDatabase:
        """Return a database with these settings."""


class Folder(Protocol):
    """Make a folder with our migrations, and more."""

    def __call__(self, **bodies: str) -> Path:
        """Return a folder with our migrations and one `NAME.py` for each body of its `migrate()`."""


@pytest.fixture
def settings(empty_database: str) -> Settings:
    """Return the settings of an empty database."""
    return Settings.load(empty_database, environ={}, dotenv=None)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Yield a function that connects, for as long as the test runs."""
    databases: list[StoreDatabase] = []

    def make(settings: Settings) -> StoreDatabase:
        databases.append(StoreDatabase(settings))
        return databases[-1]

    yield make
    for database in databases:
        database.close_all()


@pytest.fixture
def database(settings: Settings, connect: Connect) -> StoreDatabase:
    """Return a connection to the empty database."""
    return connect(settings)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a function that makes a folder of migrations, with numbers from 900 on for the others."""

    def make(**bodies: str) -> Path:
        target = tmp_path / "migrations"
        shutil.copytree(migrations_path(), target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        for name, body in bodies.items():
            lines = "".join(f"    {line}\n" for line in body.splitlines())
            (target / f"{name.lstrip('_')}.py").write_text(f"def migrate(migrator, database, *, fake=False):\n{lines}")
        return target

    return make

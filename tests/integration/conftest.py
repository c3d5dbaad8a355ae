"""Empty databases for the tests of a whole module, which need no schema of the store's."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import peewee
import psycopg2
import pytest

from myloware_store.database import StoreDatabase, create_database
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture
def db(plain_url: str) -> Iterator[StoreDatabase]:
    """Give a database of two connections."""
    settings = Settings.load(plain_url, environ={}, dotenv=None)
    database = create_database(attrs.evolve(settings, connection_limit=2, pool_timeout=5))
    yield database
    database.close_all()


@pytest.fixture
def pairs(db: StoreDatabase) -> Iterator[type[Pair]]:
    """Give a model with an empty table in that database."""
    with db.bind_ctx([Pair]):
        db.drop_tables([Pair])
        db.create_tables([Pair])
        yield Pair

"""An empty database for the tests of a whole module, which need no schema of the store's."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


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

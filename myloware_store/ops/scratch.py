"""A database for a moment: on a server that is named, else on an embedded one that lives as long."""

from __future__ import annotations

import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.target import opened
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["scratch_database"]

PREFIX = "myloware_scratch_"


@contextmanager
def scratch_database(server: Settings | None = None) -> Iterator[Settings]:
    """Yield the settings of an empty database, and drop it afterwards.

    Args:
        server: A database on the server to use; its role must be allowed to create databases. By default an embedded
            server is started in a temporary folder.

    Raises:
        EmbeddedServerError: The binaries of the embedded server are missing.
        ConnectionFailed: The server cannot be reached.
    """
    if server is None:
        with _embedded() as own, scratch_database(own) as settings:
            yield settings
        return
    name = PREFIX + uuid.uuid4().hex[:12]
    with opened(server) as database:
        database.execute_sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        try:
            yield attrs.evolve(server, dbname=name, schema="public")
        finally:
            database.execute_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _embedded() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # as root, the server runs under another account
        server = EmbeddedServer(Path(folder, "server"), testing=True)
        try:
            server.start()
        except EmbeddedServerError as error:
            raise EmbeddedServerError(
                f"This needs a server for a scratch database: name one on which you may create databases (--server"
                f" URL), or let the embedded one start. {error}"
            ) from None
        try:
            yield Settings.load(server.url("postgres"), environ={}, dotenv=None)
        finally:
            server.close()

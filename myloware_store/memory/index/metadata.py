"""Indexes on values of the metadata, built when asked, which serve filters by order."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from myloware_store.core.arguments import as_choice
from myloware_store.core.errors import ConnectionFailed, DatabaseFault, InvalidInput, VectorIndexError
from myloware_store.core.sql import queries_beside
from myloware_store.memory.filters import ordered_value, path_keys
from myloware_store.memory.index.report import MetadataIndex
from myloware_store.memory.index.session import open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.session import IndexSession, Progress

__all__ = ["KINDS", "build_metadata_index", "drop_metadata_index", "list_metadata_indexes"]

_sql = queries_beside(__file__)

KINDS = ("number", "text")
_COMMAND = "myloware-store index metadata"


def list_metadata_indexes(database: StoreDatabase) -> tuple[MetadataIndex, ...]:
    """Return the indexes on metadata, and what killed builds have left of them."""
    rows = database.execute_sql(_sql("metadata_indexes")).fetchall()
    return tuple(MetadataIndex(name, _path(comment), name.split("_")[-3], *rest) for name, comment, *rest in rows)


def build_metadata_index(
    database: StoreDatabase, path: str | Sequence[str], kind: str, progress: Progress | None = None
) -> MetadataIndex:
    """Build the index if it is missing or was not completed, without blocking readers or writers.

    Args:
        database: The caller's database.
        path: The path in the metadata.
        kind: `number` or `text`.
        progress: Called with the progress, if given.

    Raises:
        InvalidInput: The path or the kind is not valid, or a transaction is open.
        VectorIndexError: The role does not own the table, or the connection goes through PgBouncer or to a standby.
    """
    keys, name = _named(path, kind)
    _refuse_transaction(database, "index_metadata")
    there = _find(database, name)
    if there is None or there.path is None or not there.valid:
        with open_session(database, progress or _silent, _COMMAND) as session:
            return _build(session, keys, kind, name)
    return there


def drop_metadata_index(database: StoreDatabase, path: str | Sequence[str], kind: str) -> bool:
    """Drop the index, without blocking readers or writers, and return whether there was one; raise as for a build."""
    _, name = _named(path, kind)
    _refuse_transaction(database, "drop_metadata_index")
    if _find(database, name) is None:
        return False
    with open_session(database, _silent, _COMMAND) as session:
        session.command(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"Dropping {name}")
    return True


def _build(session: IndexSession, keys: list[str], kind: str, name: str) -> MetadataIndex:
    there = _find(session, name)
    if there is not None and there.valid and there.path is not None:  # another process has built it meanwhile
        return there
    if there is not None and not there.valid:
        session.command(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"Dropping {name}")
        there = None
    if there is None:
        # Textually the expression of a filter, so that the planner takes one for the other.
        (quoted,) = session.execute_sql(_sql("quoted"), {"keys": keys}).fetchone()
        value = ordered_value(f"(metadata{quoted})", kind) + (' COLLATE "C"' if kind == "text" else "")
        try:
            session.command(f"CREATE INDEX CONCURRENTLY {name} ON mem_docs (({value}), tenant_id)", f"Building {name}")
        except DatabaseFault as fault:
            if not isinstance(fault, ConnectionFailed):
                with suppress(DatabaseFault):
                    session.command(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"Dropping {name}")
            raise
    # Until it knows how the values are spread, the planner takes a third of them to be above any bound.
    session.command("ANALYZE mem_docs", "Analyzing")
    session.execute_sql(f"COMMENT ON INDEX {name} IS %s", (json.dumps({"myloware": {"path": keys}}),))
    built = _find(session, name)
    if built is None:
        raise VectorIndexError(f"the index {name} was dropped while it was built")
    return built


def _named(path: Any, kind: Any) -> tuple[list[str], str]:
    """Return the keys of a path, and the name of the index on them."""
    as_choice(kind, KINDS, "kind")
    if not isinstance(path, str | tuple | list):
        raise InvalidInput(f"path: {type(path).__name__} is neither a path nor a tuple of keys")
    if isinstance(path, str) and path.startswith("metadata."):
        raise InvalidInput(f"path: write {path.removeprefix('metadata.')}, without metadata")
    keys = path_keys(path, path.split(".") if isinstance(path, str) else path, "path")
    digest = hashlib.sha256(json.dumps([kind, keys]).encode()).hexdigest()[:8]
    spoken = re.sub(r"[^a-z0-9]+", "_", "_".join(keys).lower())[:20].strip("_")
    return keys, f"mem_docs_metadata_{spoken}_{kind}_{digest}_idx"


def _find(database: StoreDatabase, name: str) -> MetadataIndex | None:
    return next((index for index in list_metadata_indexes(database) if index.name == name), None)


def _path(comment: str | None) -> tuple[str, ...] | None:
    try:
        return tuple(map(str, json.loads(comment or "")["myloware"]["path"]))
    except (ValueError, TypeError, KeyError):
        return None


def _silent(*_progress: object) -> None:
    """Ignore the progress."""


def _refuse_transaction(database: StoreDatabase, name: str) -> None:
    if database.transaction_open():
        raise InvalidInput(f"{name}: a transaction is open, which it would wait for; call it outside of one")

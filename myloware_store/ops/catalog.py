"""The schema as text: what a database has, and, in `catalog.json`, what this version of the library expects.

Every value is SQL, the same on every supported PostgreSQL and in every schema. After a change of the models,
`python -m myloware_store.ops.catalog` writes `catalog.json` anew.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.sql import queries_beside
from myloware_store.ops.history import HISTORY_TABLE, history_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = [
    "CATALOG_FILE",
    "Home",
    "drop_statements",
    "expected_catalog",
    "find_home",
    "read_catalog",
    "split_key",
    "taken_names",
]

CATALOG_FILE = Path(__file__).with_name("catalog.json")

_KINDS = ("enum", "function", "table", "column", "constraint", "index", "trigger", "rule", "child")
_sql = queries_beside(__file__)

_PLAIN = {"quote_all_identifiers": "off"}
"""The setting under which definitions are compared."""


@attrs.frozen
class Home:
    """The schema of the store's tables.

    Attributes:
        oid: Its number.
        schema: Its name, quoted where it needs to be.
        leads: Whether it is the first on the connection's search path, where unqualified names are looked for.
    """

    oid: int
    schema: str
    leads: bool


def find_home(database: StoreDatabase) -> Home | None:
    """Return the schema that the settings name, else that of the history of migrations, else the current one.

    Returns:
        The schema, or None where there is none: then nothing of ours is there either.
    """
    named = None if database.settings.schema == "public" else database.settings.schema
    row = database.execute_tuned(_PLAIN, _sql("home"), (named, history_table(database.settings))).fetchone()
    return Home(*row) if row else None


def read_catalog(database: StoreDatabase) -> dict[str, str]:
    """Describe everything in the store's schema but extensions' objects and the history of migrations.

    Returns:
        By kind and name (`column work_items.content`), the definition; enums first, then functions, tables, columns,
        constraints, indexes, triggers, rules, tables that inherit, each in the order they were made. Empty
        where there is no such schema.
    """
    found: dict[str, str] = {}
    with database.unit():
        home = find_home(database)
        if home is None:
            return {}
        (vector,) = database.execute_tuned(_PLAIN, _sql("vector_schema")).fetchone() or ("public",)
        where = {"schema": home.oid, "history": HISTORY_TABLE}
        for kind in _KINDS:
            for name, definition in database.execute_tuned(_PLAIN, _sql(f"catalog_{kind}"), where).fetchall():
                found[f"{kind} {name}"] = _normal(definition, home.schema, vector)
    return found


def taken_names(database: StoreDatabase) -> list[str]:
    """Return the names of our types, functions and tables that a database's schema has, whoever made them."""
    found = read_catalog(database)
    ours = ((key, split_key(key)) for key in expected_catalog())
    return [name for key, (kind, _, name) in ours if kind in {"enum", "function", "table"} and _is_there(key, found)]


def _is_there(key: str, found: Mapping[str, str]) -> bool:
    # A table is a type, too.
    return key in found or key.replace("enum ", "table ", 1) in found


@cache
def expected_catalog() -> Mapping[str, str]:
    """Return the catalog that this version's migrations lead to."""
    catalog: dict[str, str] = json.loads(CATALOG_FILE.read_text(encoding="utf-8"))
    return catalog


def split_key(key: str) -> tuple[str, str, str]:
    """Split a key of a catalog into kind, table and name; enums and functions have no table."""
    kind, _, name = key.partition(" ")
    if kind in {"enum", "function"}:
        return kind, "", name
    table, _, part = name.partition(".")
    return kind, table, part or table


def drop_statements(schema: str) -> list[str]:
    """Return the statements that drop every table, function and type of ours in a schema.

    Without CASCADE: where something of others' depends on one of them, PostgreSQL refuses.

    Args:
        schema: Its name, quoted where it needs to be.
    """
    names: dict[str, list[str]] = {"table": [], "function": [], "enum": []}
    for key in expected_catalog():
        kind, _, name = split_key(key)
        if kind in names:
            names[kind].append(f"{schema}.{name}")
    return [
        f"DROP {word} IF EXISTS {', '.join(names[kind])}"
        for kind, word in (("table", "TABLE"), ("function", "FUNCTION"), ("enum", "TYPE"))
    ]


def _normal(definition: str, schema: str, vector: str) -> str:
    # Names in the schema are not qualified: it is the first of the search path. The guards name it. Where the extension
    # is, is told once and not of each object that uses it.
    anywhere = definition.replace(f"SET search_path={schema}, ", "SET search_path=SCHEMA, ")
    return re.sub(r"\s+", " ", anywhere.replace(f"{vector}.vector", "vector")).strip()


def _write(target: Path) -> None:
    """Write the catalog that the models describe, found on a throw-away server."""
    import tempfile

    from myloware_store.db.database import StoreDatabase
    from myloware_store.embedded import EmbeddedServer
    from myloware_store.ops.ddl import create_all
    from myloware_store.settings import Settings

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # as root, the server runs under another account
        with EmbeddedServer(Path(folder, "server"), testing=True) as server:
            database = StoreDatabase(Settings.load(server.url("postgres"), environ={}, dotenv=None))
            create_all(database)
            catalog = read_catalog(database)
            database.close_all()
    target.write_text(json.dumps(catalog, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write(CATALOG_FILE)

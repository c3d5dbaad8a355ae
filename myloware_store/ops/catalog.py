"""The schema as text: a database's own, and in `catalog.json` the one that this version of the library expects.

Every value is SQL, the same on every supported PostgreSQL and in every schema. After a change of the models, rewrite
`catalog.json` with `python -m myloware_store.ops.catalog`.
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
    from collections.abc import Iterator, Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = [
    "CATALOG_FILE",
    "EMBEDDING_INDEX",
    "Difference",
    "Home",
    "compare",
    "drop_statements",
    "expected_catalog",
    "expected_names",
    "find_home",
    "read_catalog",
    "split_key",
    "taken_names",
]

CATALOG_FILE = Path(__file__).with_name("catalog.json")

_KINDS = ("enum", "domain", "function", "table", "column", "constraint", "index", "trigger", "rule", "child", "comment")
_NAMED = {"enum", "domain", "function", "table"}
"""The kinds that belong to no table."""
_sql = queries_beside(__file__)

EMBEDDING_INDEX = "index mem_docs.mem_docs_embedding_idx"
_COSINE_INDEX = re.compile(
    r"CREATE INDEX mem_docs_embedding_idx ON mem_docs USING (ivfflat|hnsw) \(embedding vector_cosine_ops\)"
    r"( WITH \([^()]*\))?"
)

_PLAIN = {"quote_all_identifiers": "off", "lock_timeout": "'1s'"}
"""The setting under which definitions are compared, and how long to wait for a lock such as a migration's."""


@attrs.frozen
class Home:
    """The schema of the store's tables.

    Attributes:
        oid: Its OID.
        schema: Its name, quoted if necessary.
        leads: Whether it is the first on the connection's search path, so that unqualified names are found in it.
    """

    oid: int
    schema: str
    leads: bool


@attrs.frozen
class Difference:
    """An object that is not as expected.

    Attributes:
        kind: enum, domain, function, table, column, constraint, index, trigger, rule or child.
        table: Its table; empty for types and functions.
        name: Its name, a function's with the types of its arguments.
        expected: The expected definition, None if nothing of that name is expected.
        actual: The definition in the database, None if it is missing.
    """

    kind: str
    table: str
    name: str
    expected: str | None
    actual: str | None

    @property
    def full_name(self) -> str:
        """The name, after that of the table."""
        return f"{self.table}.{self.name}" if self.table and self.table != self.name else self.name

    @property
    def harmless(self) -> bool:
        """Whether it is an addition of others that cannot make the library's statements fail or count twice."""
        if self.expected is not None or self.actual is None:
            return False
        if self.kind == "index":
            return not (self.actual.startswith("CREATE UNIQUE") or self.actual.endswith(" INVALID"))
        if self.kind == "trigger":  # a second copy of ours would count items twice
            ours = (split_key(key)[2] for key in expected_catalog() if key.startswith("function "))
            return not any(f"EXECUTE FUNCTION {name}" in self.actual for name in ours)
        return self.kind not in {"column", "constraint", "rule", "child"}


def compare(expected: Mapping[str, str], live: Mapping[str, str]) -> Iterator[Difference]:
    """Yield the differences of a database's catalog from the expected one.

    Objects of others are left out, unless they are on an expected table. So are comments, the parts of a missing table,
    and the method of the vector index, any valid one of which is accepted.
    """
    missing: set[str] = set()
    for key, definition in expected.items():
        kind, table, name = split_key(key)
        actual = live.get(key)
        wanted = definition
        if key == EMBEDDING_INDEX and _COSINE_INDEX.fullmatch((actual or "").removesuffix(" INVALID")):
            wanted = (actual or "").removesuffix(" INVALID")
        if wanted == actual or table in missing or kind == "comment":
            continue
        if kind == "table" and not (actual or "").startswith(("TABLE", "UNLOGGED TABLE")):
            missing.add(table)
        yield Difference(kind, table, name, wanted, actual)
    for key, actual in live.items():
        kind, table, name = split_key(key)
        if key not in expected and f"table {table}" in expected and kind != "comment":
            yield Difference(kind, table, name, None, actual)


def find_home(database: StoreDatabase) -> Home | None:
    """Return the schema that the settings name, else that of the history of migrations, else the current one.

    Returns:
        The schema, or None if it does not exist.
    """
    named = None if database.settings.schema == "public" else database.settings.schema
    row = database.execute_tuned(_PLAIN, _sql("home"), (named, history_table(database.settings))).fetchone()
    return Home(*row) if row else None


def read_catalog(database: StoreDatabase) -> dict[str, str]:
    """Describe everything in the store's schema except objects of extensions and the history of migrations.

    Returns:
        The definitions by kind and name (`column work_items.content`): enums, domains, functions, tables, columns,
        constraints, indexes, triggers, rules, child tables, comments, each in the order of creation. Empty if the
        schema does not exist.
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
    """Return the names of our types, functions and tables that exist in a database's schema, whoever created them."""
    found = read_catalog(database)
    ours = ((key, split_key(key)) for key in expected_catalog())
    return [name for key, (kind, _, name) in ours if kind in _NAMED and _is_there(key, found)]


def _is_there(key: str, found: Mapping[str, str]) -> bool:
    # A table is a type, too.
    kind, _, name = split_key(key)
    return key in found or (kind in {"enum", "domain"} and f"table {name}" in found)


@cache
def expected_catalog() -> Mapping[str, str]:
    """Return the catalog that this version's migrations create."""
    catalog: dict[str, str] = json.loads(CATALOG_FILE.read_text(encoding="utf-8"))
    return catalog


def expected_names(*kinds: str) -> list[str]:
    """Return the names of the expected objects of these kinds, a function's without its arguments."""
    parts = (split_key(key) for key in expected_catalog())
    return [name.partition("(")[0] for kind, _, name in parts if kind in kinds]


def split_key(key: str) -> tuple[str, str, str]:
    """Split a key of a catalog into kind, table and name; those outside of tables have none."""
    kind, _, name = key.partition(" ")
    if kind in _NAMED - {"table"}:
        return kind, "", name
    table, _, part = name.partition(".")
    return kind, table, part or table


def drop_statements(schema: str) -> list[str]:
    """Return the statements that drop every table, function and type of ours in a schema.

    Without CASCADE: PostgreSQL refuses if other objects depend on them.

    Args:
        schema: Its name, quoted if necessary.
    """
    names: dict[str, list[str]] = {kind: [] for kind in _NAMED}
    for key in expected_catalog():
        kind, _, name = split_key(key)
        if kind in names:
            names[kind].append(f"{schema}.{name}")
    return [
        f"DROP {word} IF EXISTS {', '.join(names[kind])}"
        for kind, word in (("table", "TABLE"), ("function", "FUNCTION"), ("domain", "DOMAIN"), ("enum", "TYPE"))
    ]


def _normal(definition: str, schema: str, vector: str) -> str:
    # Names in the schema are not qualified, since it is the first of the search path. Only the guards name it. The
    # schema of the extension is checked once, not for each object that uses it.
    anywhere = definition.replace(f"SET search_path={schema}, ", "SET search_path=SCHEMA, ")
    return re.sub(r"\s+", " ", anywhere.replace(f"{vector}.vector", "vector")).strip()


def _write(target: Path) -> None:
    """Write the catalog that the models describe, as read from a temporary server."""
    from myloware_store.ops.ddl import create_all
    from myloware_store.ops.scratch import scratch_database
    from myloware_store.ops.target import opened

    with scratch_database() as settings, opened(settings) as database:
        create_all(database)
        catalog = read_catalog(database)
    target.write_text(json.dumps(catalog, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write(CATALOG_FILE)

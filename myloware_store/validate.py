"""Compare a live database with what this version of the library expects, and say how to mend what differs."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

import attrs

from myloware_store.catalog import expected_catalog, read_catalog, split_key
from myloware_store.migration_history import MigrationStatus, status
from myloware_store.remedies import drop_remedy, mend_remedy, table_remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from myloware_store.database import StoreDatabase

__all__ = ["Finding", "ValidationReport", "validate"]

OLDEST_SERVER = (15,)
OLDEST_VECTOR = (0, 5, 0)

EMBEDDING_INDEX = "index mem_docs.mem_docs_embedding_idx"
_COSINE_INDEX = re.compile(
    r"CREATE INDEX mem_docs_embedding_idx ON mem_docs USING (ivfflat|hnsw) \(embedding vector_cosine_ops\)"
    r"( WITH \([^()]*\))?"
)
_SHOWN = 200  # characters of a definition; of longer ones, what is around the first difference


@attrs.frozen
class Finding:
    """One difference.

    Attributes:
        kind: server, extension, migration, enum, function, table, column, constraint, index or trigger.
        name: What differs, such as `work_items.content`.
        expected: What this version expects, None where it expects nothing of that name.
        actual: What the database has, None where it is missing.
        remedy: How to mend it: SQL for psql, or a command.
    """

    kind: str
    name: str
    expected: str | None
    actual: str | None
    remedy: str


@attrs.frozen
class ValidationReport:
    """What `validate` found.

    Attributes:
        findings: The differences, in the order in which they are best mended.
        versions: Of the server, and of the extensions that are installed.
        migrations: Which migrations the database has.
    """

    findings: tuple[Finding, ...]
    versions: Mapping[str, str]
    migrations: MigrationStatus

    @property
    def valid(self) -> bool:
        """Whether nothing differs."""
        return not self.findings


def validate(database: StoreDatabase) -> ValidationReport:
    """Compare a database with what this version expects; nothing is written.

    Whatever others added passes, as long as it cannot stand in the way: tables, views, types, functions, plain indexes
    and triggers of theirs. Columns, constraints and unique indexes that were added to our tables can refuse what the
    library writes, and invalid indexes only cost: these are reported. Any valid cosine index named
    `mem_docs_embedding_idx` will do.

    Args:
        database: The database, as it is connected to: its schema is the first of the search path.

    Raises:
        ConnectionFailed: The server cannot be reached.
    """
    with database.unit():
        versions = _versions(database)
        found = status(database)
        findings = [*_check_versions(versions, found), *_check_migrations(found)]
        if found.applied and not (found.pending or found.unknown):
            findings += _compare(database)
        elif not found.applied and any(key in expected_catalog() for key in read_catalog(database)):
            findings[-1:] = [_unrecorded(found)]
    return ValidationReport(tuple(findings), versions, found)


def _versions(database: StoreDatabase) -> dict[str, str]:
    query = """
        SELECT 'server', current_setting('server_version')
        UNION ALL
        SELECT extname, extversion FROM pg_extension WHERE extname IN ('vector', 'uuid-ossp')
        """
    return dict(database.execute_sql(query).fetchall())


def _check_versions(versions: Mapping[str, str], found: MigrationStatus) -> Iterator[Finding]:
    if _numbers(versions["server"]) < OLDEST_SERVER:
        yield Finding(
            "server", "PostgreSQL", "15 or newer", versions["server"], "Dump the data and restore it on a newer server."
        )
    vector = versions.get("vector")
    if vector is None and found.applied:
        yield Finding("extension", "vector", "0.5.0 or newer", None, "CREATE EXTENSION vector;")
    elif vector is not None and _numbers(vector) < OLDEST_VECTOR:
        yield Finding("extension", "vector", "0.5.0 or newer", vector, "ALTER EXTENSION vector UPDATE;")


def _check_migrations(found: MigrationStatus) -> Iterator[Finding]:
    if not found.applied:
        yield Finding("migration", "all", "applied", None, "myloware-store migrate")
        return
    if found.unknown:
        yield Finding(
            "migration",
            ", ".join(found.unknown),
            None,
            "applied by a newer version",
            "Upgrade myloware-store to the version that migrated the database.",
        )
    if found.pending:
        yield Finding("migration", ", ".join(found.pending), "applied", None, "myloware-store migrate")
    if found.edited:
        yield Finding(
            "migration",
            ", ".join(found.edited),
            "as it was applied",
            "edited since",
            "Restore the file, and write a new migration for the change.",
        )


def _unrecorded(found: MigrationStatus) -> Finding:
    return Finding(
        "migration",
        ", ".join(found.pending),
        "recorded as applied",
        "not recorded, though its tables are there",
        'pw_migrate migrate --fake --directory "$(myloware-store migrations-path)"',
    )


def _compare(database: StoreDatabase) -> Iterator[Finding]:
    expected, live = expected_catalog(), read_catalog(database)
    (schema,) = database.execute_sql("SELECT quote_ident(current_schema())").fetchone()
    # Remedies are written for the search path; psql's own leads to `public`.
    prefix = "" if schema == "public" else f"SET search_path = {schema}, public;\n"
    missing = {split_key(key)[1] for key in expected if key.startswith("table ") and key not in live}
    for key, definition in expected.items():
        kind, table, name = split_key(key)
        wanted = definition
        actual = live.get(key)
        if key == EMBEDDING_INDEX and _COSINE_INDEX.fullmatch((actual or "").removesuffix(" INVALID")):
            wanted = (actual or "").removesuffix(" INVALID")
        if wanted == actual:
            continue
        if kind == "table" and actual is None:
            yield Finding(kind, name, wanted, None, prefix + table_remedy(table, expected))
        elif table not in missing:
            remedy = prefix + mend_remedy(key, wanted, actual, schema)
            yield Finding(kind, _full(table, name), *_excerpts(wanted, actual), remedy)
    for key, actual in live.items():
        kind, table, name = split_key(key)
        if key not in expected and f"table {table}" in expected and _stands_in_the_way(kind, actual):
            yield Finding(kind, _full(table, name), None, actual, prefix + drop_remedy(key))


def _stands_in_the_way(kind: str, definition: str) -> bool:
    if kind == "index":
        return definition.startswith("CREATE UNIQUE") or definition.endswith(" INVALID")
    return kind in {"column", "constraint"}


def _full(table: str, name: str) -> str:
    return f"{table}.{name}" if table and table != name else name


def _excerpts(expected: str, actual: str | None) -> tuple[str, str | None]:
    if actual is None:
        return expected[:_SHOWN], None
    if max(len(expected), len(actual)) <= _SHOWN:
        return expected, actual
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(expected, actual, strict=False)))
    start = max(0, same - _SHOWN // 4)
    return expected[start : start + _SHOWN], actual[start : start + _SHOWN]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(" ")[0]))

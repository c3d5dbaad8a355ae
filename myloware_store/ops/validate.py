"""Compare a live database with what this version of the library expects."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

import attrs

from myloware_store.memory.index.build import find_leftovers
from myloware_store.memory.index.plan import COMMAND
from myloware_store.memory.index.session import find_builder
from myloware_store.ops.catalog import Home, expected_catalog, find_home, read_catalog, split_key, taken_names
from myloware_store.ops.history import ENCODING, HISTORY_TABLE, MigrationStatus, require_database, status
from myloware_store.ops.migration_database import find_vector_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from myloware_store.db.database import StoreDatabase

__all__ = ["Finding", "ValidationReport", "validate"]

OLDEST_SERVER = (15,)
OLDEST_VECTOR = (0, 5, 0)

EMBEDDING_INDEX = "index mem_docs.mem_docs_embedding_idx"
_COSINE_INDEX = re.compile(
    r"CREATE INDEX mem_docs_embedding_idx ON mem_docs USING (ivfflat|hnsw) \(embedding vector_cosine_ops\)"
    r"( WITH \([^()]*\))?"
)
_RESTORE = (
    "Bring it back as expected: a migration of `myloware-store migrations-path` makes it, 001_initial unless a later"
    " one changed it."
)
_FOREIGN = "No migration made it. Ask who did; it can stand in the way of what the library writes."
_SHOWN = 200  # characters of a definition; of longer ones, what is around the first difference


@attrs.frozen
class Finding:
    """One difference.

    Attributes:
        kind: server, setting, extension, migration, enum, function, table, column, constraint, index, trigger,
            rule or child.
        name: What differs, such as `work_items.content`.
        expected: What this version expects, None where it expects nothing of that name.
        actual: What the database has, None where it is missing.
        remedy: What to do: a sentence, a command, or SQL that only adds.
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
        warnings: What works, but less well than it could.
    """

    findings: tuple[Finding, ...]
    versions: Mapping[str, str]
    migrations: MigrationStatus
    warnings: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing differs."""
        return not self.findings


def validate(database: StoreDatabase) -> ValidationReport:
    """Compare a database with what this version expects; nothing is written.

    Whatever others added passes, as long as it cannot stand in the way: tables, views, types, functions, plain indexes
    and triggers of theirs. Columns, constraints and unique indexes that were added to our tables can refuse what the
    library writes, rules and second copies of our triggers change it, tables that inherit add to what it reads, and
    invalid indexes only cost: these are reported. Any valid cosine index named `mem_docs_embedding_idx` will do, and
    what is being built to take its place is let be.

    Args:
        database: The database. Its schema is the one that the settings name, else that of the history of migrations,
            else the first of the search path.

    Raises:
        InvalidInput: That is no database.
        ConnectionFailed: The server cannot be reached.
    """
    require_database(database)
    with database.unit():
        versions = _versions(database)
        found = status(database)
        home = find_home(database)
        findings = [*_check_server(versions), *_check_settings(database, home)]
        if not any(finding.name == "search_path" for finding in findings):
            findings += _check_vector(database, versions, found)
            findings += _check_migrations(found) if found.applied else [_check_unrecorded(database, found)]
            if found.applied and not (found.pending or found.unknown):
                findings += _compare(database)
        warnings = tuple(_warnings(database))
    return ValidationReport(tuple(findings), versions, found, warnings)


def _versions(database: StoreDatabase) -> dict[str, str]:
    query = """
        SELECT 'server', current_setting('server_version')
        UNION ALL
        SELECT extname, extversion FROM pg_extension WHERE extname IN ('vector', 'uuid-ossp')
        """
    return dict(database.execute_sql(query).fetchall())


def _check_server(versions: Mapping[str, str]) -> Iterator[Finding]:
    if _numbers(versions["server"]) < OLDEST_SERVER:
        yield Finding(
            "server", "PostgreSQL", "15 or newer", versions["server"], "Dump the data and restore it on a newer server."
        )


def _check_settings(database: StoreDatabase, home: Home | None) -> Iterator[Finding]:
    query = """
        SELECT name, setting FROM pg_settings
        WHERE name IN ('search_path', 'session_replication_role', 'server_encoding')
        """
    values = dict(database.execute_sql(query).fetchall())
    encoding = values["server_encoding"]
    if encoding != "UTF8":
        yield Finding("setting", "server_encoding", "UTF8", encoding, f"{ENCODING.format(encoding)}.")
    # A schema that the settings name is made by `migrate`.
    if not home.leads if home else database.settings.schema == "public":
        expected = f"{home.schema} first" if home else "a schema that exists"
        schema = home.schema if home else "public"
        remedy = (
            f"Set search_path for the role or the database so that it leads to {schema}, or name the schema in the URL"
            f" (?schema={schema})."
        )
        yield Finding("setting", "search_path", expected, values["search_path"], remedy)
    if values["session_replication_role"] != "origin":
        remedy = "Reset session_replication_role of the role, the database or the server: no trigger runs."
        yield Finding("setting", "session_replication_role", "origin", values["session_replication_role"], remedy)


def _warnings(database: StoreDatabase) -> Iterator[str]:
    query = "SELECT datctype FROM pg_database WHERE datname = current_database()"
    (lc_ctype,) = database.execute_sql(query).fetchone()
    if lc_ctype in {"C", "POSIX"}:
        yield (
            f"LC_CTYPE is {lc_ctype}: text search misses words beside typographic quotation marks. Restore a dump in a"
            " database that was created with TEMPLATE template0 LC_CTYPE 'C.UTF-8'."
        )


def _check_vector(database: StoreDatabase, versions: Mapping[str, str], found: MigrationStatus) -> Iterator[Finding]:
    vector = versions.get("vector")
    query = "SELECT COALESCE(to_regnamespace('public')::text, quote_ident(current_schema()))"
    (reachable,) = database.execute_sql(query).fetchone()
    if vector is None:
        obstacle = find_vector_obstacle(database)
        if found.applied or obstacle:
            remedy = f"{obstacle}." if obstacle else f"CREATE EXTENSION vector SCHEMA {reachable};"
            yield Finding("extension", "vector", "0.5.0 or newer", None, remedy)
        return
    if _numbers(vector) < OLDEST_VECTOR:
        yield Finding("extension", "vector", "0.5.0 or newer", vector, "ALTER EXTENSION vector UPDATE;")
    query = """
        SELECT quote_ident(nspname), current_setting('search_path'), has_schema_privilege(n.oid, 'USAGE'),
            quote_ident(session_user), quote_ident(current_database())
        FROM pg_extension
        JOIN pg_namespace AS n ON n.oid = extnamespace
        WHERE extname = 'vector' AND NOT nspname = ANY (current_schemas(true))
        """
    for schema, path, usable, role, place in database.execute_sql(query).fetchall():
        remedy = f"ALTER ROLE {role} IN DATABASE {place} SET search_path = {path}, {schema};"
        if not usable:
            remedy = f"GRANT USAGE ON SCHEMA {schema} TO {role};"
        yield Finding("extension", "vector", f"in a schema on the search path ({path})", f"in {schema}", remedy)


def _check_migrations(found: MigrationStatus) -> Iterator[Finding]:
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


def _check_unrecorded(database: StoreDatabase, found: MigrationStatus) -> Finding:
    """Tell a database that was never migrated from one that lost its history, and from one that someone else uses."""
    names = ", ".join(found.pending)
    taken = taken_names(database)
    if not taken:
        return Finding("migration", "all", "applied", None, "myloware-store migrate")
    different = [finding.name for finding in _compare(database)]
    if not different:
        fake = 'pw_migrate migrate --fake --directory "$(myloware-store migrations-path)"'
        return Finding("migration", names, "recorded as applied", "not recorded, though its tables are there", fake)
    return Finding(
        "migration",
        names,
        "applied",
        f"not recorded; {', '.join(taken)} may be someone else's, or have lost {HISTORY_TABLE};"
        f" different: {_shorten(', '.join(different))}",
        f"If {', '.join(taken)} are not the store's, rename them, or give the store a schema of its own"
        f" (?schema=NAME), and run `myloware-store migrate`. If they are, restore {HISTORY_TABLE} from a backup.",
    )


def _compare(database: StoreDatabase) -> Iterator[Finding]:
    live = read_catalog(database)
    yield from _check_expected(live)
    yield from _check_others(live, find_leftovers(database), building=find_builder(database) is not None)


def _check_expected(live: Mapping[str, str]) -> Iterator[Finding]:
    missing: set[str] = set()
    for key, definition in expected_catalog().items():
        kind, table, name = split_key(key)
        wanted, actual = definition, live.get(key)
        if key == EMBEDDING_INDEX and _COSINE_INDEX.fullmatch((actual or "").removesuffix(" INVALID")):
            wanted = (actual or "").removesuffix(" INVALID")
        if wanted == actual or table in missing:
            continue
        if kind == "table" and not (actual or "").startswith(("TABLE", "UNLOGGED TABLE")):
            missing.add(table)
        invalid = key == EMBEDDING_INDEX and actual == f"{wanted} INVALID"
        yield Finding(kind, _full(table, name), *_excerpts(wanted, actual), COMMAND if invalid else _RESTORE)


def _check_others(live: Mapping[str, str], leftovers: Sequence[str], *, building: bool) -> Iterator[Finding]:
    expected = expected_catalog()
    for key, actual in live.items():
        kind, table, name = split_key(key)
        if table == "mem_docs" and kind == "index" and name in leftovers:
            if not building:
                yield Finding(kind, _full(table, name), None, actual, COMMAND)
        elif key not in expected and f"table {table}" in expected and _stands_in_the_way(kind, actual):
            yield Finding(kind, _full(table, name), None, actual, _FOREIGN)


def _stands_in_the_way(kind: str, definition: str) -> bool:
    if kind == "index":
        return definition.startswith("CREATE UNIQUE") or definition.endswith(" INVALID")
    if kind == "trigger":  # a second one of ours would count items twice
        ours = (split_key(key)[2] for key in expected_catalog() if key.startswith("function "))
        return any(f"EXECUTE FUNCTION {name}" in definition for name in ours)
    return kind in {"column", "constraint", "rule", "child"}


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


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(" ")[0]))

"""Compare a live database with the schema that this version of the library expects."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.sql import queries_beside
from myloware_store.memory.index.build import find_leftovers
from myloware_store.memory.index.metadata import list_metadata_indexes
from myloware_store.memory.index.plan import COMMAND
from myloware_store.memory.index.session import find_builder
from myloware_store.ops.catalog import (
    EMBEDDING_INDEX,
    Difference,
    Home,
    compare,
    expected_catalog,
    find_home,
    read_catalog,
    taken_names,
)
from myloware_store.ops.history import ENCODING, HISTORY_TABLE, MigrationStatus, require_database, status
from myloware_store.ops.migration_database import find_vector_obstacle
from myloware_store.ops.tenancy import read_tenancy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = ["Finding", "ValidationReport", "validate"]

_sql = queries_beside(__file__)

OLDEST_SERVER = (15,)
OLDEST_VECTOR = (0, 5, 0)

_RESTORE = (
    "Restore the expected state: a migration in `myloware-store migrations-path` creates it, 001_initial unless a later"
    " one changed it."
)
_CREATE_INDEX = "Run the expected statement; with CREATE INDEX CONCURRENTLY, writers do not wait."
_FOREIGN = "No migration created it. Find out who did; it can make the library's writes fail."
_SHOWN = 200  # characters of a definition; of longer ones, those around the first difference


@attrs.frozen
class Finding:
    """One difference.

    Attributes:
        kind: server, setting, extension, migration, enum, domain, function, table, column, constraint, index, trigger,
            rule, child, policy or order.
        name: The differing object, such as `work_items.content`.
        expected: The expected definition, None if nothing of that name is expected.
        actual: The definition in the database, None if it is missing.
        remedy: How to fix it: a sentence, a command, or SQL that only adds.
    """

    kind: str
    name: str
    expected: str | None
    actual: str | None
    remedy: str


@attrs.frozen
class ValidationReport:
    """The result of `validate`.

    Attributes:
        findings: The differences, in the order to fix them.
        versions: The versions of the server and of the installed extensions.
        migrations: The migrations of the database.
    """

    findings: tuple[Finding, ...]
    versions: Mapping[str, str]
    migrations: MigrationStatus

    @property
    def valid(self) -> bool:
        """Whether nothing differs."""
        return not self.findings


def validate(database: StoreDatabase, *, counts: bool = True) -> ValidationReport:
    """Compare a database with the schema that this version expects, without writing anything.

    Harmless additions by others are not reported: tables, views, types, functions, plain indexes and triggers; nor are
    comments.
    These are reported: columns, constraints and unique indexes added to our tables, which can refuse the library's
    writes; rules and second copies of our triggers, which change them; child tables, which add to its reads; and
    invalid indexes, which only cost. Any valid cosine index named `mem_docs_embedding_idx` is accepted, and a build
    that will replace it is not reported.

    If the schema is as expected, all items are read, too (about half a second for a million), to report orders whose
    counters do not agree with them.

    Args:
        database: The database. Its schema is the one that the settings name, else that of the history of migrations,
            else the first of the search path.
        counts: Whether to read all items, too.

    Raises:
        InvalidInput: That is not a database.
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
                if not findings:
                    findings += _check_tenancy(database)
                if counts and not findings:
                    findings += _check_counts(database)
    return ValidationReport(tuple(findings), versions, found)


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
    # `migrate` creates a schema that the settings name.
    if not home.leads if home else database.settings.schema == "public":
        expected = f"{home.schema} first" if home else "a schema that exists"
        schema = home.schema if home else "public"
        remedy = (
            f"Set search_path for the role or the database so that it begins with {schema}, or name the schema in the"
            f" URL (?schema={schema})."
        )
        yield Finding("setting", "search_path", expected, values["search_path"], remedy)
    if values["session_replication_role"] != "origin":
        remedy = "Reset session_replication_role of the role, the database or the server: no trigger runs."
        yield Finding("setting", "session_replication_role", "origin", values["session_replication_role"], remedy)


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
    if on_time := [name for name in found.pending if name not in found.late]:
        yield Finding("migration", ", ".join(on_time), "applied", None, "myloware-store migrate")
    if found.late:
        yield Finding(
            "migration",
            ", ".join(found.late),
            f"applied before {max(found.applied)}",
            None,
            "Give the new files higher numbers than the applied ones.",
        )
    if found.edited:
        yield Finding(
            "migration",
            ", ".join(found.edited),
            "as it was applied",
            "edited since",
            "Restore the file, and write a new migration for the change.",
        )


def _check_unrecorded(database: StoreDatabase, found: MigrationStatus) -> Finding:
    """Distinguish a database that was never migrated, one that lost its history, and one that someone else uses."""
    names = ", ".join(found.pending)
    taken = taken_names(database)
    if not taken:
        return Finding("migration", "all", "applied", None, "myloware-store migrate")
    different = [finding.name for finding in _compare(database)]
    if not different:
        recorded = "not recorded, although its tables exist"
        return Finding("migration", names, "recorded as applied", recorded, "myloware-store baseline")
    return Finding(
        "migration",
        names,
        "applied",
        f"not recorded; {', '.join(taken)} may belong to someone else, or {HISTORY_TABLE} was lost;"
        f" different: {_shorten(', '.join(different))}",
        f"If {', '.join(taken)} do not belong to the store, rename them, or put the store in its own schema"
        f" (?schema=NAME), and run `myloware-store migrate`. If they do, restore {HISTORY_TABLE} from a backup.",
    )


def _compare(database: StoreDatabase) -> Iterator[Finding]:
    leftovers = dict.fromkeys(find_leftovers(database), COMMAND)
    leftovers |= {
        one.name: f"Run `myloware-store index metadata` for its path again, or DROP INDEX CONCURRENTLY {one.name};"
        for one in list_metadata_indexes(database)
        if not one.valid
    }
    building = find_builder(database) is not None
    for difference in compare(expected_catalog(), read_catalog(database)):
        if difference.table == "mem_docs" and difference.kind == "index" and difference.name in leftovers:
            if not building:
                yield _finding(difference, leftovers[difference.name])
        elif difference.expected is not None:
            yield _finding(difference, _how_to_restore(difference))
        elif not difference.harmless:
            yield _finding(difference, _FOREIGN)


def _check_tenancy(database: StoreDatabase) -> Iterator[Finding]:
    tenancy = read_tenancy(database)
    for table in tenancy.tables if tenancy.enforced else ():
        if table.problem:
            expected, remedy = "as `tenancy enforce` makes it", "myloware-store tenancy enforce"
            yield Finding("policy", table.table, expected, table.problem, remedy)


def _how_to_restore(difference: Difference) -> str:
    if f"{difference.kind} {difference.full_name}" == EMBEDDING_INDEX:
        if difference.actual in {None, f"{difference.expected} INVALID"}:
            return COMMAND
    elif difference.kind == "index" and difference.actual is None:
        return _CREATE_INDEX
    elif difference.kind == "trigger" and difference.actual == f"{difference.expected} DISABLED":
        return f"ALTER TABLE {difference.table} ENABLE TRIGGER {difference.name};"
    return _RESTORE


def _finding(difference: Difference, remedy: str) -> Finding:
    expected, actual = _excerpts(difference.expected, difference.actual)
    return Finding(difference.kind, difference.full_name, expected, actual, remedy)


def _check_counts(database: StoreDatabase) -> Iterator[Finding]:
    for order, counted, stored, wrong in database.execute_sql(_sql("miscounted")).fetchall():
        told = (
            "1 order does not agree with its items" if wrong == 1 else f"{wrong} orders do not agree with their items"
        )
        yield Finding("order", order, counted, f"{stored}; {told}", "myloware-store recount")


def _excerpts(expected: str | None, actual: str | None) -> tuple[str | None, str | None]:
    if expected is None or actual is None:
        return expected and expected[:_SHOWN], actual
    if max(len(expected), len(actual)) <= _SHOWN:
        return expected, actual
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(expected, actual, strict=False)))
    start = max(0, same - _SHOWN // 4)
    return expected[start : start + _SHOWN], actual[start : start + _SHOWN]


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(" ")[0]))

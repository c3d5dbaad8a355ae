"""How to mend a difference between two catalogs: SQL to run, made from the definitions that the catalogs hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from myloware_store.catalog import split_key
from myloware_store.models.guards import FUNCTIONS, TRIGGER_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from myloware_store.catalog import Home
    from myloware_store.database import StoreDatabase

__all__ = ["drop_remedy", "mend_remedy", "setting_remedy", "table_remedy"]

_LABEL = re.compile(r"'((?:[^']|'')*)'")
_COLUMN = re.compile(
    r"(?P<type>.+?)"
    r"(?: DEFAULT (?P<default>.+?)| GENERATED ALWAYS AS (?P<generated>.+?))?"
    r"(?P<not_null> NOT NULL)?"
)


def mend_remedy(key: str, expected: str, actual: str | None, schema: str) -> str:
    """Return what makes one object as it should be.

    Args:
        key: Its kind and name, as in a catalog.
        expected: Its definition in this version.
        actual: Its definition in the database, None where it is missing.
        schema: The schema, quoted where it needs to be.
    """
    kind, table, name = split_key(key)
    return _MENDERS[kind](table, name, expected, actual, schema)


def table_remedy(table: str, expected: Mapping[str, str]) -> str:
    """Return what makes a table that is missing, with everything that belongs to it.

    Args:
        table: Its name.
        expected: The catalog of this version.
    """
    own = [(*split_key(key), definition) for key, definition in expected.items()]
    parts = [
        f"{name} {definition}" if kind == "column" else f"CONSTRAINT {name} {definition}"
        for kind, of, name, definition in own
        if of == table and kind in {"column", "constraint"}
    ]
    after = [definition + ";" for kind, of, _, definition in own if of == table and kind in {"index", "trigger"}]
    return "\n".join([f"CREATE TABLE {table} ({', '.join(parts)});", *after])


def drop_remedy(key: str) -> str:
    """Return what removes an object that stands in the way."""
    kind, table, name = split_key(key)
    return f"DROP INDEX CONCURRENTLY {name};" if kind == "index" else f"ALTER TABLE {table} DROP {kind.upper()} {name};"


def setting_remedy(database: StoreDatabase, name: str, home: Home | None) -> str:
    """Return what makes a server's setting as it should be in new connections.

    Args:
        database: The database, as it is connected to.
        name: The setting: search_path or session_replication_role.
        home: The schema of the tables, None where there is none.
    """
    query = """
        SELECT source, quote_ident(current_database()), quote_ident(session_user), quote_ident(current_user),
            has_schema_privilege(COALESCE(%s, 'pg_catalog'::regnamespace::oid), 'USAGE')
        FROM pg_settings WHERE name = %s
        """
    source, place, role, user, usable = database.execute_sql(query, (home.oid if home else None, name)).fetchone()
    if home and not usable:
        return f"GRANT USAGE ON SCHEMA {home.schema} TO {user};"
    if source in {"client", "session", "environment variable"}:
        return f"-- {name} is set by the connection itself (`options` in the URL, PGOPTIONS): take it out there."
    if name == "search_path" and home and (database.settings.schema != "public" or source not in _SETTERS):
        public = "" if home.schema == "public" else ", public"
        return f"ALTER ROLE {role} IN DATABASE {place} SET search_path = {home.schema}{public};"
    if source in _SETTERS:
        return f"ALTER {_SETTERS[source].format(role=role, database=place)} RESET {name};"
    return f"-- {name} is set in the server's configuration ({source}): reset it there."


_SETTERS = {
    "database user": "ROLE {role} IN DATABASE {database}",
    "user": "ROLE {role}",
    "database": "DATABASE {database}",
    "global": "ROLE ALL",
}
"""Who sets a setting for new connections, by `pg_settings.source`."""


def _mend_enum(_table: str, name: str, expected: str, actual: str | None, _schema: str) -> str:
    if actual is None:
        return f"CREATE TYPE {name} AS {expected};"
    wanted, found = _LABEL.findall(expected), _LABEL.findall(actual)
    renamed = [(old, new) for old, new in zip(found, wanted, strict=False) if old != new]
    if len(found) == len(wanted) and len(renamed) == 1 and renamed[0][1] not in found:
        return f"ALTER TYPE {name} RENAME VALUE '{renamed[0][0]}' TO '{renamed[0][1]}';"
    if [label for label in wanted if label in found] == found:
        lines = []
        for place, label in enumerate(wanted):
            if label not in found:
                following = next((other for other in wanted[place:] if other in found), None)
                before = f" BEFORE '{following}'" if following else ""
                lines.append(f"ALTER TYPE {name} ADD VALUE '{label}'{before};")
        return "\n".join(lines)
    return (
        "-- A label cannot be dropped or moved: take a data-only pg_dump, run `myloware-store reset`, and load it again"
        " with psql."
    )


def _mend_function(_table: str, name: str, _expected: str, _actual: str | None, schema: str) -> str:
    bare = name.partition("(")[0]
    source = next(text for text in FUNCTIONS if f"CREATE FUNCTION {bare}(" in text)
    lines = [source.strip().replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) + ";"]
    if bare in TRIGGER_FUNCTIONS:
        lines.append(f"ALTER FUNCTION {name} SET search_path = {schema}, pg_temp;")
    return "\n".join(lines)


def _mend_table(_table: str, name: str, _expected: str, actual: str | None, _schema: str) -> str:
    if actual == "UNLOGGED TABLE":
        return f"ALTER TABLE {name} SET LOGGED;"
    if actual == "TABLE WITH ROW LEVEL SECURITY":
        return f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY;"
    return (
        f"-- {name} is not the table it should be: rename it, run `myloware-store validate` for the statement that"
        " makes the right one, and move the rows over."
    )


def _mend_column(table: str, name: str, expected: str, actual: str | None, _schema: str) -> str:
    if actual is None:
        return f"ALTER TABLE {table} ADD COLUMN {name} {expected};"
    wanted, found = _COLUMN.fullmatch(expected), _COLUMN.fullmatch(actual)
    if wanted is None or found is None or wanted["generated"]:
        return f"ALTER TABLE {table} DROP COLUMN {name}, ADD COLUMN {name} {expected};"
    alter = f"ALTER COLUMN {name}"
    actions = []
    if found["generated"]:
        actions.append(f"{alter} DROP {'IDENTITY' if found['generated'] == 'IDENTITY' else 'EXPRESSION'}")
    if wanted["type"] != found["type"]:
        actions += [f"{alter} DROP DEFAULT"] if found["default"] else []
        actions.append(f"{alter} TYPE {wanted['type']} USING {name}::text::{wanted['type']}")
    if wanted["default"] and (wanted["default"] != found["default"] or wanted["type"] != found["type"]):
        actions.append(f"{alter} SET DEFAULT {wanted['default']}")
    if found["default"] and not wanted["default"] and wanted["type"] == found["type"]:
        actions.append(f"{alter} DROP DEFAULT")
    if wanted["not_null"] != found["not_null"]:
        actions.append(f"{alter} {'SET' if wanted['not_null'] else 'DROP'} NOT NULL")
    return f"ALTER TABLE {table} {', '.join(actions)};"


def _mend_constraint(table: str, name: str, expected: str, actual: str | None, _schema: str) -> str:
    if actual == f"{expected} NOT VALID":
        return f"ALTER TABLE {table} VALIDATE CONSTRAINT {name};"
    drop = f"DROP CONSTRAINT {name}, " if actual else ""
    return f"ALTER TABLE {table} {drop}ADD CONSTRAINT {name} {expected};"


def _mend_index(_table: str, name: str, expected: str, actual: str | None, _schema: str) -> str:
    if actual == f"{expected} INVALID":
        return f"REINDEX INDEX CONCURRENTLY {name};"
    create = expected.replace(" INDEX ", " INDEX CONCURRENTLY ", 1) + ";"
    return f"DROP INDEX CONCURRENTLY {name};\n{create}" if actual else create


def _mend_trigger(table: str, name: str, expected: str, actual: str | None, _schema: str) -> str:
    if actual and actual.startswith(f"{expected} "):  # DISABLED, or enabled for replicas only
        return f"ALTER TABLE {table} ENABLE TRIGGER {name};"
    return expected.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1) + ";"


_MENDERS: Mapping[str, Callable[[str, str, str, str | None, str], str]] = {
    "enum": _mend_enum,
    "function": _mend_function,
    "table": _mend_table,
    "column": _mend_column,
    "constraint": _mend_constraint,
    "index": _mend_index,
    "trigger": _mend_trigger,
}

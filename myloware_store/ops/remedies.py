"""How to mend a difference between two catalogs: SQL to run, made from the definitions that the catalogs hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from myloware_store.ops.catalog import split_key
from myloware_store.ops.remedies_enum import enum_remedy
from myloware_store.ops.renames import find_table
from myloware_store.schema.guards import FUNCTIONS, TRIGGER_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from myloware_store.db.database import StoreDatabase
    from myloware_store.ops.catalog import Home

__all__ = ["Remedies", "setting_remedy"]

_STORAGE = " STORAGE PLAIN"
_COLUMN = re.compile(
    r"(?P<type>.+?)"
    rf"(?P<storage>{_STORAGE})?"
    r"(?: DEFAULT (?P<default>.+?)| GENERATED ALWAYS AS (?P<generated>.+?))?"
    r"(?P<not_null> NOT NULL)?"
)
_OPTION = re.compile(r"WITH \((?P<option>\w+=\w+)\)")
_CHECK = re.compile(r"CHECK \((?P<condition>.+)\)")
_FOREIGN_KEY = re.compile(r"FOREIGN KEY \((?P<own>.+?)\) REFERENCES (?P<parent>\w+)\((?P<theirs>.+?)\).*")
_UNIQUE = re.compile(
    r"(?:PRIMARY KEY|UNIQUE|CREATE UNIQUE INDEX \w+ ON \w+ USING btree) \((?P<columns>[\w, ]+)\)"
    r"(?: WHERE (?P<condition>.+))?"
)


@attrs.frozen
class Remedies:
    """SQL that mends, for psql; a comment where no statement can.

    Attributes:
        expected: The catalog of this version.
        live: That of the database.
        schema: The schema, quoted where it needs to be.
        has_rows: Tells whether a query finds anything.
    """

    expected: Mapping[str, str]
    live: Mapping[str, str]
    schema: str
    has_rows: Callable[[str], bool]

    def mend(self, key: str, expected: str, actual: str | None) -> str:
        """Return what makes one object as it should be.

        Args:
            key: Its kind and name, as in a catalog.
            expected: Its definition in this version.
            actual: Its definition in the database, None where it is missing.
        """
        kind, table, name = split_key(key)
        if kind == "enum":
            return enum_remedy(name, self.expected, actual, self.has_rows)
        menders: Mapping[str, Callable[[str, str, str, str | None], str]] = {
            "function": self._mend_function,
            "table": self._mend_table,
            "column": self._mend_column,
            "constraint": self._mend_constraint,
            "index": self._mend_index,
            "trigger": self._mend_trigger,
        }
        return menders[kind](table, name, expected, actual)

    def make_table(self, table: str) -> str:
        """Return what makes a table that is missing, with everything that belongs to it.

        What has its name is renamed, and a table that was renamed gets its name back.
        """
        aside: list[str | None] = []
        if f"table {table}" in self.live:
            aside.append(f"ALTER TABLE {table} RENAME TO {table}_kept;")
        if other := find_table(table, self.expected, self.live):
            return "\n".join([*filter(None, aside), f"ALTER TABLE {_quoted(other)} RENAME TO {table};"])
        own = [(*split_key(key), definition) for key, definition in self.expected.items()]
        # STORAGE is no clause of CREATE TABLE on PostgreSQL 15.
        parts = [
            f"{name} {definition.replace(_STORAGE, '')}" if kind == "column" else f"CONSTRAINT {name} {definition}"
            for kind, of, name, definition in own
            if of == table and kind in {"column", "constraint"}
        ]
        aside += [self._room(name) for kind, of, name, _ in own if of == table and kind in {"constraint", "index"}]
        after = [
            f"ALTER TABLE {table} ALTER COLUMN {name} SET{_STORAGE};"
            for kind, of, name, definition in own
            if of == table and kind == "column" and _STORAGE in definition
        ]
        after += [definition + ";" for kind, of, _, definition in own if of == table and kind in {"index", "trigger"}]
        options = self.expected[f"table {table}"].removeprefix("TABLE")
        return "\n".join([*filter(None, aside), f"CREATE TABLE {table} ({', '.join(parts)}){options};", *after])

    @staticmethod
    def rename(key: str, other: str) -> str:
        """Return what gives an object its own name again."""
        kind, table, name = split_key(key)
        what = {"enum": "TYPE"}.get(kind, kind.upper())
        if kind in {"enum", "table", "index"}:
            return f"ALTER {what} {_quoted(other)} RENAME TO {name};"
        if kind == "trigger":
            return f"ALTER TRIGGER {_quoted(other)} ON {table} RENAME TO {name};"
        return f"ALTER TABLE {table} RENAME {what} {_quoted(other)} TO {name};"

    @staticmethod
    def drop(key: str) -> str:
        """Return what removes an object that stands in the way."""
        kind, table, name = split_key(key)
        if kind == "index":
            return f"DROP INDEX CONCURRENTLY {_quoted(name)};"
        if kind == "child":
            return f"ALTER TABLE {name} NO INHERIT {table};"
        if kind in {"rule", "trigger"}:
            return f"DROP {kind.upper()} {_quoted(name)} ON {table};"
        return f"ALTER TABLE {table} DROP {kind.upper()} IF EXISTS {_quoted(name)};"

    def _room(self, name: str) -> str | None:
        """Return what makes an index's name free, None where it is."""
        for key, definition in self.live.items():
            kind, _, found = split_key(key)
            unique = kind == "constraint" and definition.startswith(("PRIMARY KEY", "UNIQUE", "EXCLUDE"))
            if found == name and (kind == "index" or unique):
                return f"ALTER INDEX {name} RENAME TO {name}_kept;"
        return None

    def _mend_function(self, _table: str, name: str, _expected: str, _actual: str | None) -> str:
        bare = name.partition("(")[0]
        source = next(text for text in FUNCTIONS if f"CREATE FUNCTION {bare}(" in text)
        lines = [source.strip().replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) + ";"]
        if bare in TRIGGER_FUNCTIONS:
            lines.append(f"ALTER FUNCTION {name} SET search_path = {self.schema}, pg_temp;")
        return "\n".join(lines)

    @staticmethod
    def _mend_table(_table: str, name: str, expected: str, actual: str | None) -> str:
        found = actual or ""
        steps = [
            step
            for sign, step in {"UNLOGGED": "SET LOGGED", "ROW LEVEL SECURITY": "DISABLE ROW LEVEL SECURITY"}.items()
            if sign in found
        ]
        wanted, there = _OPTION.search(expected), _OPTION.search(found)
        if wanted and (there is None or wanted[0] != there[0]):
            steps.append(f"SET ({wanted['option']})")
        if there and not wanted:
            steps.append(f"RESET ({there['option'].partition('=')[0]})")
        return "\n".join(f"ALTER TABLE {name} {step};" for step in steps)

    def _add_column(self, table: str, name: str, expected: str) -> str:
        add = f"ALTER TABLE {table} ADD COLUMN {name} {expected.replace(_STORAGE, '')}"
        add += f", ALTER COLUMN {name} SET{_STORAGE};" if _STORAGE in expected else ";"
        if "GENERATED" in expected or not self.has_rows(f"SELECT FROM {table}"):
            return add
        if expected.endswith(" NOT NULL") and " DEFAULT " not in expected:
            return (
                f"-- What the rows of {table} had there is lost: restore the table from a backup. Where there is none,"
                " add it without NOT NULL, fill it, and validate again."
            )
        return f"{add}  -- Empty, or its default: what the rows had is lost, but for a backup."

    def _mend_column(self, table: str, name: str, expected: str, actual: str | None) -> str:
        if actual is None:
            return self._add_column(table, name, expected)
        wanted, found = _COLUMN.fullmatch(expected), _COLUMN.fullmatch(actual)
        if wanted is None or found is None or wanted["generated"]:
            return f"ALTER TABLE {table} DROP COLUMN {name}, ADD COLUMN {name} {expected};"
        nulls = (
            _offenders(table, f"CHECK ({name} IS NOT NULL)") if wanted["not_null"] and not found["not_null"] else None
        )
        if refusal := self._refusal(nulls):
            return refusal
        alter = f"ALTER COLUMN {name}"
        actions = []
        if found["generated"]:
            actions.append(f"{alter} DROP {'IDENTITY' if found['generated'] == 'IDENTITY' else 'EXPRESSION'}")
        if wanted["type"] != found["type"]:
            actions += [f"{alter} DROP DEFAULT"] if found["default"] else []
            actions.append(f"{alter} TYPE {wanted['type']} USING {name}::text::{wanted['type']}")
        if wanted["storage"] and (wanted["storage"] != found["storage"] or wanted["type"] != found["type"]):
            actions.append(f"{alter} SET{_STORAGE}")
        if wanted["default"] and (wanted["default"] != found["default"] or wanted["type"] != found["type"]):
            actions.append(f"{alter} SET DEFAULT {wanted['default']}")
        if found["default"] and not wanted["default"] and wanted["type"] == found["type"]:
            actions.append(f"{alter} DROP DEFAULT")
        if wanted["not_null"] != found["not_null"]:
            actions.append(f"{alter} {'SET' if wanted['not_null'] else 'DROP'} NOT NULL")
        return f"ALTER TABLE {table} {', '.join(actions)};"

    def _mend_constraint(self, table: str, name: str, expected: str, actual: str | None) -> str:
        if refusal := self._refusal(_offenders(table, expected)):
            return refusal
        if actual == f"{expected} NOT VALID":
            return f"ALTER TABLE {table} VALIDATE CONSTRAINT {name};"
        there = name if actual else self._other_key(table) if expected.startswith("PRIMARY KEY") else None
        drop = f"DROP CONSTRAINT {_quoted(there)}, " if there else ""
        add = f"ALTER TABLE {table} {drop}ADD CONSTRAINT {name} {expected};"
        room = self._room(name) if actual is None and _UNIQUE.fullmatch(expected) else None
        return f"{room}\n{add}" if room else add

    def _other_key(self, table: str) -> str | None:
        """Return the name of the primary key that a table has instead of ours: there can be only one."""
        for key, definition in self.live.items():
            kind, of, name = split_key(key)
            if (kind, of) == ("constraint", table) and definition.startswith("PRIMARY KEY"):
                return name
        return None

    def _mend_index(self, table: str, name: str, expected: str, actual: str | None) -> str:
        if refusal := self._refusal(_offenders(table, expected)):
            return refusal
        if actual == f"{expected} INVALID":
            return f"REINDEX INDEX CONCURRENTLY {name};"
        create = expected.replace(" INDEX ", " INDEX CONCURRENTLY ", 1) + ";"
        first = f"DROP INDEX CONCURRENTLY {name};" if actual else self._room(name)
        return f"{first}\n{create}" if first else create

    @staticmethod
    def _mend_trigger(table: str, name: str, expected: str, actual: str | None) -> str:
        if actual and actual.startswith(f"{expected} "):  # DISABLED, or enabled for replicas only
            return f"ALTER TABLE {table} ENABLE TRIGGER {name};"
        return expected.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1) + ";"

    def _refusal(self, offenders: str | None) -> str | None:
        """Return what to say where a query finds rows in the way, None where it finds none."""
        if offenders is None or not self.has_rows(offenders):
            return None
        return f"-- These rows are in the way; mend them, and validate again: {offenders};"


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _offenders(table: str, definition: str) -> str | None:
    """Return a query for the rows that break a constraint or a unique index."""
    if found := _CHECK.fullmatch(definition):
        return f"SELECT * FROM {table} WHERE NOT ({found['condition']})"  # noqa: S608  the catalog's own words
    if found := _FOREIGN_KEY.fullmatch(definition):
        own = ", ".join(f"c.{name}" for name in found["own"].split(", "))
        theirs = ", ".join(f"p.{name}" for name in found["theirs"].split(", "))
        orphaned = f"NOT EXISTS (SELECT FROM {found['parent']} AS p WHERE ({theirs}) = ({own}))"
        return f"SELECT * FROM {table} AS c WHERE ({own}) IS NOT NULL AND {orphaned}"  # noqa: S608  the catalog's own words
    if found := _UNIQUE.fullmatch(definition):
        columns, condition = found["columns"], found["condition"] or "true"
        several = f"({columns}) IS NOT NULL AND {condition} GROUP BY {columns} HAVING count(*) > 1"
        return f"SELECT {columns} FROM {table} WHERE {several}"  # noqa: S608  the catalog's own words
    return None


def setting_remedy(database: StoreDatabase, name: str, home: Home | None) -> str:
    """Return what makes a server's setting as it should be in new connections.

    Args:
        database: The database, as it is connected to.
        name: The setting: search_path or session_replication_role.
        home: The schema of the tables, None where there is none.
    """
    query = """
        SELECT source, quote_ident(current_database()), quote_ident(session_user), quote_ident(current_user),
            to_regnamespace('public') IS NOT NULL
        FROM pg_settings WHERE name = %s
        """
    source, place, role, user, public = database.execute_sql(query, (name,)).fetchone()
    if source in {"client", "session", "environment variable"}:
        return f"-- {name} is set by the connection itself (`options` in the URL, PGOPTIONS): take it out there."
    if name == "search_path" and home and (database.settings.schema != "public" or source not in _SETTERS):
        path = home.schema if home.schema == "public" else f"{home.schema}, public"
        return f"ALTER ROLE {role} IN DATABASE {place} SET search_path = {path};"
    if source in _SETTERS:
        return f"ALTER {_SETTERS[source].format(role=role, database=place)} RESET {name};"
    if name == "search_path":
        return f"GRANT USAGE ON SCHEMA public TO {user};" if public else "CREATE SCHEMA public;"
    return f"-- {name} is set in the server's configuration ({source}): reset it there."


_SETTERS = {
    "database user": "ROLE {role} IN DATABASE {database}",
    "user": "ROLE {role}",
    "database": "DATABASE {database}",
    "global": "ROLE ALL",
}
"""Who sets a setting for new connections, by `pg_settings.source`."""

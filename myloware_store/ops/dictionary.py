"""The data dictionary: every table with its columns, keys, indexes and triggers, and diagrams, as Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from myloware_store.models import MODELS
from myloware_store.ops.catalog import expected_catalog, split_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["data_dictionary"]

_ROOMS = {"work": "Work", "memory": "Memory", "platform": "Platform"}
"""The titles of the parts, by the package that the models are in."""

_OPENING = """\
# Data dictionary

Written by `myloware-store docs` from the models; psql shows the same descriptions with `\\d+`. [The schema](schema.md)
says what the database enforces, and why.
"""
_COLUMN = re.compile(
    r"(?P<type>.+?)(?: STORAGE PLAIN)?"
    r"(?: (?:DEFAULT (?P<default>.+?)|GENERATED ALWAYS AS \((?P<generated>.+)\) STORED))?(?P<required> NOT NULL)?"
)
_REFERENCE = re.compile(r"FOREIGN KEY \((?:tenant_id, )?(\w+)\) REFERENCES (\w+)\(")
_TRIGGER = re.compile(r"CREATE TRIGGER \w+ (.+?) ON .* EXECUTE FUNCTION (\w+\(.*\))")
_SHORT = {"timestamp with time zone": "timestamptz", "double precision": "float8"}
"""Names of types without blanks, as Mermaid wants them."""


def data_dictionary() -> str:
    """Return the data dictionary of the store's schema as Markdown, with entity-relationship diagrams in Mermaid."""
    lines = [_OPENING]
    for package, title in _ROOMS.items():
        tables = [model._meta.table_name for model in MODELS if model.__module__.split(".")[1] == package]
        lines += [f"## {title}\n", *_diagram(tables)]
        for table in tables:
            lines += _table(table)
    lines += ["## Types\n", "| type | |", "|---|---|"]
    for kind in ("enum", "domain"):
        lines += [f"| `{name}` | {_code(definition)} |" for name, definition in _of_kind(kind)]
    return "\n".join(lines) + "\n"


def _diagram(tables: Iterable[str]) -> Iterator[str]:
    yield "```mermaid\nerDiagram"
    for table in tables:
        columns = {name: _parts(definition) for name, definition in _of_kind("column", table)}
        parents = {}
        for _, definition in _of_kind("constraint", table):
            if found := _REFERENCE.match(definition):
                column, parents[column] = found[1], found[2]
        for column, parent in parents.items():
            yield f"    {parent} {'||' if columns[column]['required'] else '|o'}--o{{ {table} : {column}"
        keys = expected_catalog()[f"constraint {table}.{table}_pkey"]
        yield f"    {table} {{"
        for column, parts in columns.items():
            marks = ["PK"] * (column in re.findall(r"\w+", keys)) + ["FK"] * (column in parents)
            yield f"        {_SHORT.get(parts['type'], parts['type'])} {column} {', '.join(marks)}".rstrip()
        yield "    }"
    yield "```\n"


def _table(table: str) -> Iterator[str]:
    catalog = expected_catalog()
    yield f"### {table}\n"
    yield f"{catalog[f'comment {table}']}\n"
    yield "| column | type | NULL | default | |\n|---|---|---|---|---|"
    for column, definition in _of_kind("column", table):
        parts = _parts(definition)
        default = _code(parts["default"]) if parts["default"] else ""
        if parts["generated"]:
            default = f"generated: {_code(parts['generated'])}"
        null = "" if parts["required"] else "yes"
        yield f"| `{column}` | `{parts['type']}` | {null} | {default} | {catalog[f'comment {table}.{column}']} |"
    yield ""
    yield from (f"- `{name}`: {_code(definition)}" for name, definition in _of_kind("constraint", table))
    for _, definition in _of_kind("index", table):
        yield f"- {_code(definition)}"
    for name, definition in _of_kind("trigger", table):
        if found := _TRIGGER.match(definition):
            yield f"- trigger `{name}`: {found[1]}, calls `{found[2]}`"
    yield ""


def _of_kind(kind: str, table: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and definition of the objects of a kind that belong to a table, or to none."""
    for key, definition in expected_catalog().items():
        if split_key(key)[:2] == (kind, table):
            yield split_key(key)[2], definition


def _parts(definition: str) -> dict[str, str]:
    found = _COLUMN.fullmatch(definition)
    return found.groupdict() if found else {}


def _code(text: str) -> str:
    return "`{}`".format(text.replace("|", "\\|"))

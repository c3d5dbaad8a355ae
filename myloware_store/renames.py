"""What a database has under another name: a catalog is read as if everything of ours had its own name again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from myloware_store.catalog import split_key

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["find_table", "names_back"]


def names_back(expected: Mapping[str, str], live: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Find what was renamed, and describe the database as it will be with the names put back.

    Args:
        expected: The catalog of this version.
        live: That of the database.

    Returns:
        The present names, by the keys that they should have, and the catalog with those keys.
    """
    renamed: dict[str, str] = {}
    found = dict(live)
    for key in expected:
        kind, table, name = split_key(key)
        if kind == "table" and key not in found and (other := find_table(table, expected, live)):
            renamed[key] = other
            found = {_of_table(old, other, table): _in_table(text, other, table) for old, text in found.items()}
    # A column's new name shows in what is made of it: columns come first.
    for kind in ("column", "constraint", "index", "trigger"):
        for key in (key for key in expected if key.startswith(f"{kind} ") and key not in found):
            _, table, name = split_key(key)
            if other := _only_twin(kind, table, name, expected, found):
                renamed[key] = other
                was = f"{kind} {table}.{other}"
                found = {key if old == was else old: _renamed(old, text, was, name) for old, text in found.items()}
    return renamed, found


def find_table(table: str, expected: Mapping[str, str], live: Mapping[str, str]) -> str | None:
    """Return the table that is called otherwise and still has this one's primary key."""
    for key in live:
        kind, other, name = split_key(key)
        if kind == "constraint" and name == f"{table}_pkey" and f"table {other}" not in expected:
            return other if live.get(f"table {other}") == "TABLE" else None
    return None


def _only_twin(kind: str, table: str, name: str, expected: Mapping[str, str], live: Mapping[str, str]) -> str | None:
    """Return the name of what is as this should be, where nothing else could be it, nor it anything else."""

    def alike(catalog: Mapping[str, str], other_catalog: Mapping[str, str]) -> list[str]:
        return [
            found
            for key, text in catalog.items()
            for other_kind, of, found in [split_key(key)]
            if (other_kind, of) == (kind, table)
            and key not in other_catalog
            and _nameless(text, found) == _nameless(expected[f"{kind} {table}.{name}"], name)
        ]

    twins = alike(live, expected)
    return twins[0] if len(twins) == len(alike(expected, live)) == 1 else None


def _nameless(definition: str, name: str) -> str:
    return definition.replace(f" {name} ", " NAME ", 1)


def _of_table(key: str, old: str, new: str) -> str:
    kind, table, name = split_key(key)
    if table != old:
        return key
    return f"{kind} {new}" if kind == "table" else f"{kind} {new}.{name}"


def _in_table(definition: str, old: str, new: str) -> str:
    return re.sub(rf"\b(ON|REFERENCES) {re.escape(old)}\b", rf"\1 {new}", definition)


def _renamed(key: str, definition: str, was: str, new: str) -> str:
    kind, table, old = split_key(was)
    if kind == "column" and split_key(key)[1] == table:
        return re.sub(rf"\b{re.escape(old)}\b", new, definition)
    return definition.replace(f" {old} ", f" {new} ", 1) if key == was else definition

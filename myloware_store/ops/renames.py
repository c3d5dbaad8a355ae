"""What a database has under another name: a catalog is read as if everything of ours had its own name again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from myloware_store.ops.catalog import split_key

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
    # The new name of a type, table or column shows in what is made of it: these come first.
    for kind in ("enum", "table", "column", "constraint", "index", "trigger"):
        for key in (key for key in expected if key.startswith(f"{kind} ") and key not in found):
            _, table, name = split_key(key)
            find = find_table(table, expected, found) if kind == "table" else _only_twin(key, expected, found)
            if find:
                renamed[key] = find
                was = f"{kind} {find}" if kind in {"enum", "table"} else f"{kind} {table}.{find}"
                found = {_rekeyed(old, was, key): _reworded(old, text, was, name) for old, text in found.items()}
    return renamed, found


def find_table(table: str, expected: Mapping[str, str], live: Mapping[str, str]) -> str | None:
    """Return the table that is called otherwise and still has this one's primary key, or all of its columns."""
    columns = _columns(table, expected)
    others = [name for key in live for kind, name, _ in [split_key(key)] if kind == "table" and key not in expected]
    tables = [name for name in others if live[f"table {name}"].startswith("TABLE")]
    keyed = [name for name in tables if f"constraint {name}.{table}_pkey" in live]
    alike = [name for name in tables if _columns(name, live) == columns]
    return (keyed or alike)[0] if len(keyed or alike) == 1 else None


def _columns(table: str, catalog: Mapping[str, str]) -> dict[str, str]:
    parts = [(split_key(key), text) for key, text in catalog.items()]
    return {name: text for (kind, of, name), text in parts if (kind, of) == ("column", table)}


def _only_twin(key: str, expected: Mapping[str, str], live: Mapping[str, str]) -> str | None:
    """Return the name of what is as this should be, where nothing else could be it, nor it anything else."""
    kind, table, name = split_key(key)
    wanted = _nameless(expected[key], name)

    def alike(catalog: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
        parts = [(split_key(key), text) for key, text in catalog.items() if key not in other]
        return [
            part for (of, owner, part), text in parts if (of, owner, _nameless(text, part)) == (kind, table, wanted)
        ]

    twins = alike(live, expected)
    return twins[0] if len(twins) == len(alike(expected, live)) == 1 else None


def _nameless(definition: str, name: str) -> str:
    return definition.replace(f" {name} ", " NAME ", 1)


def _rekeyed(key: str, was: str, now: str) -> str:
    """Return a key, with the new name in the place of the old one."""
    kind, table, name = split_key(key)
    if key == was:
        return now
    return f"{kind} {split_key(now)[1]}.{name}" if was == f"table {table}" else key


def _reworded(key: str, definition: str, was: str, new: str) -> str:
    """Return a definition, with the new name in the place of the old one where it is sure to be meant."""
    kind, table, old = split_key(was)
    name = rf'(?:"{re.escape(old)}"|\b{re.escape(old)}\b)'
    if kind == "table":
        return re.sub(rf"\b(ON|REFERENCES) {name}", rf"\1 {new}", definition)
    if kind == "enum" or (kind == "column" and split_key(key)[1] == table):
        return re.sub(name, new, definition)
    return definition.replace(f" {old} ", f" {new} ", 1) if key == was else definition

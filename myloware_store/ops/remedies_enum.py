"""How to mend an enum type: labels are renamed and added in place; for anything else the type is made anew."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from myloware_store.ops.catalog import split_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["enum_remedy"]

_LABEL = re.compile(r"'((?:[^']|'')*)'")


def enum_remedy(name: str, expected: Mapping[str, str], actual: str | None, has_rows: Callable[[str], bool]) -> str:
    """Return what makes an enum type as it should be.

    Args:
        name: The type.
        expected: The catalog of this version.
        actual: Its definition in the database, None where it is missing.
        has_rows: Tells whether a query finds anything.
    """
    definition = expected[f"enum {name}"]
    if actual is None:
        return f"CREATE TYPE {name} AS {definition};"
    wanted, found = _LABEL.findall(definition), _LABEL.findall(actual)
    renamed = [(old, new) for old, new in zip(found, wanted, strict=False) if old != new]
    if len(found) == len(wanted) and not {old for old, _ in renamed} & {new for _, new in renamed}:
        return "\n".join(f"ALTER TYPE {name} RENAME VALUE '{old}' TO '{new}';" for old, new in renamed)
    if [label for label in wanted if label in found] == found:
        lines = []
        for place, label in enumerate(wanted):
            if label not in found:
                following = next((other for other in wanted[place:] if other in found), None)
                before = f" BEFORE '{following}'" if following else ""
                lines.append(f"ALTER TYPE {name} ADD VALUE '{label}'{before};")
        return "\n".join(lines)
    return _make_anew(name, expected, has_rows)


def _make_anew(name: str, expected: Mapping[str, str], has_rows: Callable[[str], bool]) -> str:
    """A label cannot be dropped or moved."""
    drop, change, make = [], [], []
    columns = [
        (table, column, definition)
        for key, definition in expected.items()
        for kind, table, column in [split_key(key)]
        if kind == "column" and definition.split(" ")[0] == name
    ]
    labels = ", ".join(f"'{label}'" for label in _LABEL.findall(expected[f"enum {name}"]))
    for table, column, definition in columns:
        others = f"{column}::text NOT IN ({labels})"
        if has_rows(f"SELECT FROM {table} WHERE {others}"):
            update = f"UPDATE {table} SET {column} = ... WHERE {others};"  # noqa: S608  the catalog's own words
            return f"-- Rows of {table} have other labels: give them one of these, and validate again. {update}"
        default = re.search(r" DEFAULT (\S+)", definition)
        lead = f"ALTER TABLE {table} ALTER COLUMN {column}"
        change += [f"{lead} DROP DEFAULT;"] if default else []
        change.append(f"{lead} TYPE {name} USING {column}::text::{name};")
        change += [f"{lead} SET DEFAULT {default[1]};"] if default else []
    for key, definition in expected.items():
        kind, table, part = split_key(key)
        uses = any(
            table == of
            and (f"::{name}" in definition or (kind == "trigger" and re.search(rf"\b{column}\b", definition)))
            for of, column, _ in columns
        )
        if uses and kind == "constraint":
            drop.append(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {part};")
            make.append(f"ALTER TABLE {table} ADD CONSTRAINT {part} {definition};")
        elif uses and kind in {"index", "trigger"}:
            drop.append(f"DROP {kind.upper()} IF EXISTS {part}{f' ON {table}' if kind == 'trigger' else ''};")
            make.append(f"{definition};")
    return "\n".join(
        [
            "BEGIN;",
            f"ALTER TYPE {name} RENAME TO {name}_kept;",
            f"CREATE TYPE {name} AS {expected[f'enum {name}']};",
            *drop,
            *change,
            *make,
            f"DROP TYPE {name}_kept;",
            "COMMIT;",
        ]
    )

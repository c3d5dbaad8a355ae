"""Compare a test's database with its state before the test, table by table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Read = Callable[[str], list[tuple[Any, ...]]]
    """Runs a query and returns its rows."""

__all__ = ["describe_changes"]

_SHOWN = 5  # rows of each table and kind of change
_WIDTH = 60  # characters of a value
_COMPARED = 20_000  # rows of a table

_TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname),
        COALESCE(
            (
                SELECT 'ARRAY[' || string_agg(format('t.%I::text', a.attname), ', ' ORDER BY a.attnum) || ']'
                FROM pg_index AS x JOIN pg_attribute AS a
                    ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey[0:x.indnkeyatts - 1])
                WHERE x.indrelid = c.oid AND x.indisprimary
            ),
            'ARRAY[t::text]'
        )
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'myloware_test')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    ORDER BY c.oid
    """


def describe_changes(before: Read, after: Read, copies: Mapping[str, str]) -> str:
    """Describe the differences between two databases.

    Args:
        before: Runs a query on the first.
        after: Runs a query on the second.
        copies: Tables with the rows before the test, by the table that they are copies of.

    Returns:
        Lines such as `work_items: 1 added, 2 changed`, each followed by some of those rows; empty without differences.
    """
    was: dict[str, str] = dict(before(_TABLES))
    now: dict[str, str] = dict(after(_TABLES))
    lines = [f"{table}: dropped" for table in was.keys() - now.keys()]
    lines += [f"{table}: created" for table in now.keys() - was.keys()]
    for table, key in now.items():
        if was.get(table) == key:
            lines += _table(table, copies.get(table, table), key, before, after)
    return "\n".join(line.removeprefix("public.") for line in lines)


def _table(table: str, copy: str, key: str, before: Read, after: Read) -> Iterator[str]:
    was, now = (
        {
            tuple(found): digest
            for found, digest in read(f"SELECT {key}, md5(t::text) FROM ONLY {source} AS t LIMIT {_COMPARED + 1}")
        }
        for read, source in ((before, copy), (after, table))
    )
    if max(len(was), len(now)) > _COMPARED:
        yield f"{table}: more than {_COMPARED} rows, not compared"
        return
    added = [found for found in now if found not in was]
    removed = [found for found in was if found not in now]
    changed = [found for found in now if found in was and was[found] != now[found]]
    counts = {"added": added, "changed": changed, "removed": removed}
    if not any(counts.values()):
        return
    yield f"{table}: " + ", ".join(f"{len(rows)} {word}" for word, rows in counts.items() if rows)
    for found in added[:_SHOWN]:
        row = _row(after, table, key, found)
        yield f"  + {', '.join(f'{column}={_short(value)}' for column, value in row.items() if value is not None)}"
    for found in changed[:_SHOWN]:
        old, new = _row(before, copy, key, found), _row(after, table, key, found)
        differing = (column for column in new if old.get(column) != new[column])
        moves = ", ".join(f"{column}: {_short(old.get(column))} -> {_short(new[column])}" for column in differing)
        yield f"  ~ {', '.join(found)}: {moves}"
    for found in removed[:_SHOWN]:
        yield f"  - {_short(', '.join(found))}"
    hidden = sum(max(0, len(rows) - _SHOWN) for rows in counts.values())
    if hidden:
        yield f"  and {hidden} more"


def _row(read: Read, table: str, key: str, found: tuple[str, ...]) -> dict[str, Any]:
    values = ", ".join("'" + value.replace("'", "''") + "'" for value in found)
    rows = read(f"SELECT to_jsonb(t) FROM ONLY {table} AS t WHERE {key} = ARRAY[{values}] LIMIT 1")
    return dict(rows[0][0]) if rows else {}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."

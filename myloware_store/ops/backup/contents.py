"""What a database holds: the definitions of the store's schema, and the rows of every table as counts and checksums.

The checksum of a table is the sum of the 64-bit hashes of its rows as text. It does not depend on their order, and is
computed by the server: 37 microseconds for a document with an embedding. Generated columns are left out, because a
restore computes them anew, sequences, which belong to no snapshot, and unlogged tables, which a standby lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.core.sql import queries_beside
from myloware_store.db.statements import LIFT_DEADLINES
from myloware_store.ops.catalog import find_home, read_catalog
from myloware_store.ops.history import history_query, history_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store.db.database import StoreDatabase

__all__ = ["Contents", "Difference", "compare", "list_tables", "read_contents"]

_sql = queries_beside(__file__)


@attrs.frozen
class Contents:
    """What a database holds.

    Attributes:
        schema: The schema of the store's tables; None if there are none.
        migrations: The applied migrations, in their order.
        catalog: The definitions in that schema, by kind and name.
        tables: Of every table in the database, the number of rows and their checksum.
    """

    schema: str | None
    migrations: tuple[str, ...]
    catalog: dict[str, str]
    tables: dict[str, tuple[int, str]]

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(rows for rows, _ in self.tables.values())


@attrs.frozen
class Difference:
    """A difference between a backup and the database that was restored from it.

    Attributes:
        name: The object, such as `column work_items.content` or `rows of public.work_items`.
        expected: What the backup says; None if it does not have the object.
        actual: What the database says; None if it does not have the object.
    """

    name: str
    expected: str | None
    actual: str | None


def read_contents(database: StoreDatabase, show: Callable[..., None]) -> Contents:
    """Read what a database holds, inside a transaction that the caller has begun; its settings change."""
    database.execute_sql(LIFT_DEADLINES, (True,))
    show("Reading the schema")
    home = find_home(database)
    schema: str | None = None
    migrations: tuple[str, ...] = ()
    catalog: dict[str, str] = {}
    if home is not None:
        (schema,) = database.execute_sql("SELECT nspname FROM pg_namespace WHERE oid = %s", (home.oid,)).fetchone()
        # Definitions depend on the path, which settings of the role and the database can change.
        database.execute_sql("SELECT set_config('search_path', %s, true)", (f"{home.schema}, public",))
        # A statement that fails would end the transaction.
        (recorded,) = database.execute_sql(
            "SELECT to_regclass(%s) IS NOT NULL", (history_table(database.settings),)
        ).fetchone()
        if recorded:
            migrations = tuple(
                name for name, *_ in database.execute_sql(history_query(database.settings), ()).fetchall()
            )
        # pg_dump leaves invalid indexes out.
        found = read_catalog(database)
        catalog = {key: value for key, value in found.items() if not value.endswith(" INVALID")}
    database.execute_sql(_sql("plain_output"))
    tables = list_tables(database)
    sums: dict[str, tuple[int, str]] = {}
    for done, (table, columns) in enumerate(tables):
        show(f"Computing the checksum of {table}", done, len(tables))
        sums[table] = database.execute_sql(_sum(table, columns)).fetchone()
    return Contents(schema, migrations, catalog, sums)


def list_tables(database: StoreDatabase) -> list[tuple[str, str]]:
    """Return the tables of a database with rows of their own, and the list of their stored columns, as SQL."""
    tables: list[Any] = database.execute_sql(_sql("tables")).fetchall()
    return tables


def compare(expected: Contents, actual: Contents) -> tuple[Difference, ...]:
    """Return the differences between what a database should hold and what it holds."""
    return (
        *_differences("", expected.catalog, actual.catalog),
        *_differences("rows of ", _described(expected), _described(actual)),
    )


def _sum(table: str, columns: str) -> str:
    row = f'ROW({columns})::text COLLATE "C"'.replace("%", "%%")  # the driver would read % as a placeholder
    counted = "SELECT count(*), COALESCE(sum(hashtextextended({}, 0)), 0)::text FROM ONLY {}"
    return counted.format(row, table.replace("%", "%%"))


def _described(contents: Contents) -> dict[str, str]:
    return {table: f"{rows} rows, checksum {digest}" for table, (rows, digest) in contents.tables.items()}


def _differences(prefix: str, expected: dict[str, str], actual: dict[str, str]) -> Iterator[Difference]:
    for name in [*expected, *(name for name in actual if name not in expected)]:
        if expected.get(name) != actual.get(name):
            yield Difference(prefix + name, expected.get(name), actual.get(name))

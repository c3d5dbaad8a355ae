"""The objects of a database's schema, with the statements that create them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.core.errors import InvalidInput, SchemaMismatch
from myloware_store.core.sql import queries_beside
from myloware_store.ops.catalog import find_home, read_catalog, split_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = ["Column", "Constraint", "Function", "Objects", "read_objects"]

_sql = queries_beside(__file__)
_PLAIN = {"quote_all_identifiers": "off"}
_SERIAL = {"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}


@attrs.frozen
class Column:
    """A column; `name` is quoted if necessary, `default` is also the expression of a generated column."""

    name: str
    type: str
    storage: str | None
    collation: str | None
    identity: str | None
    generated: str | None
    default: str | None
    not_null: bool
    serial: bool

    @property
    def full_type(self) -> str:
        """The type and the collation."""
        return self.type + (f" COLLATE {self.collation}" if self.collation else "")

    @property
    def sql(self) -> str:
        """The column in CREATE TABLE or ADD COLUMN."""
        if self.serial and self.type in _SERIAL:
            return f"{self.name} {_SERIAL[self.type]}"
        parts = [self.name, self.full_type]
        if self.identity:
            parts.append(f"GENERATED {self.identity} AS IDENTITY")
        elif self.generated:
            parts.append(f"GENERATED ALWAYS AS ({self.default}) {self.generated}")
        elif self.default is not None:
            parts.append(f"DEFAULT {self.default}")
        return " ".join([*parts, *(["NOT NULL"] if self.not_null else [])])


@attrs.frozen
class Constraint:
    """A constraint; `index` is the statement of the index of a key, `parent` the table of a foreign key."""

    kind: str
    sql: str
    index: str | None
    parent: str | None
    deferral: str


@attrs.frozen
class Function:
    """A function; `create` are the statements, `signature` names it in DROP."""

    create: tuple[str, ...]
    signature: str
    result: str | None


@attrs.frozen
class Objects:
    """What a schema consists of, by the keys of `ops.catalog`.

    Attributes:
        catalog: Their definitions, to be compared.
        order: Types, functions and tables in the order of their creation.
        names: Names as they stand in SQL.
        enums: The labels of enum types.
        domains: The definitions of domains.
        functions: The functions.
        columns: The columns.
        constraints: The constraints.
        indexes: The statements of the indexes.
        triggers: The statements of the triggers.
        uses: The columns and functions that indexes, constraints, triggers and generated columns use.
    """

    catalog: Mapping[str, str]
    order: tuple[str, ...]
    names: Mapping[str, str]
    enums: Mapping[str, list[str]]
    domains: Mapping[str, str]
    functions: Mapping[str, Function]
    columns: Mapping[str, Column]
    constraints: Mapping[str, Constraint]
    indexes: Mapping[str, str]
    triggers: Mapping[str, str]
    uses: Mapping[str, frozenset[str]]

    def only(self, keep: Callable[[str], bool]) -> Objects:
        """Return the same objects, but compare only some of them."""
        return attrs.evolve(self, catalog={key: text for key, text in self.catalog.items() if keep(key)})

    def of_table(self, kind: str, table: str) -> list[str]:
        """Return the keys of a table's objects of one kind."""
        return [key for key in self.catalog if split_key(key)[:2] == (kind, table)]


def read_objects(database: StoreDatabase) -> Objects:
    """Read everything in the schema of a database.

    Raises:
        SchemaMismatch: The schema does not exist.
        InvalidInput: A table has a dot in its name.
    """
    with database.unit():
        home = find_home(database)
        if home is None:
            raise SchemaMismatch(f"{database.settings.target} has no schema {database.settings.schema}")

        def rows(name: str) -> list[tuple[Any, ...]]:
            found = database.execute_tuned(_PLAIN, _sql(name), {"schema": home.oid}).fetchall()
            return [tuple(row) for row in found]

        order = tuple(key for key, _ in rows("order"))
        if dotted := [key for key in order if key.startswith("table ") and "." in key]:
            raise InvalidInput(f"migrations of tables with a dot in their names cannot be written: {', '.join(dotted)}")
        uses: dict[str, set[str]] = {}
        for user, used in rows("uses"):
            uses.setdefault(user, set()).add(used)
        catalog = read_catalog(database)
        return Objects(
            catalog=catalog,
            order=order,
            names=dict(rows("names")),
            enums=dict(rows("enums")),
            domains=dict(rows("domains")),
            functions={key: _function(home.schema, catalog[key], *rest) for key, *rest in rows("functions")},
            columns={key: Column(*rest) for key, *rest in rows("columns")},
            constraints={key: Constraint(*rest) for key, *rest in rows("constraints")},
            indexes=dict(rows("indexes")),
            triggers=dict(rows("triggers")),
            uses={user: frozenset(used) for user, used in uses.items()},
        )


def _function(schema: str, described: str, definition: str, signature: str, result: str | None) -> Function:
    private = "SECURITY DEFINER" in described and "EXECUTE BY PUBLIC" not in described
    revoked = (f"REVOKE EXECUTE ON FUNCTION {signature} FROM PUBLIC",) if private else ()
    # The schema is named when the migration runs.
    name = re.escape(schema)
    text = re.sub(rf"^(CREATE OR REPLACE \w+ ){name}\.", r"\1", definition.rstrip("\n"))
    own = re.compile(rf"^ SET search_path TO '?\"?{name}\"?'?, 'pg_temp'\n", re.MULTILINE)
    head, quote, body = text.partition("\nAS $")
    if not own.search(head + "\n"):
        return Function((text, *revoked), signature, result)
    text = own.sub("", head + "\n").removesuffix("\n") + quote + body
    quoted = signature.replace("'", "''")
    path = (
        f"DO $$ BEGIN\n        EXECUTE 'ALTER FUNCTION {quoted} SET search_path = '\n"
        "            || quote_ident(current_schema()) || ', pg_temp';\n    END $$"
    )
    return Function((text, path, *revoked), signature, result)

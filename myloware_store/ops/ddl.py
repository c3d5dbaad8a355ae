"""The whole schema as the models describe it, to compare the migrations with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from myloware_store.core.enums import ENUM_TYPES
from myloware_store.models import MODELS
from myloware_store.schema import FUNCTIONS, TRIGGERS, read_sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    import peewee

__all__ = ["comments", "create_all"]


def create_all(database: peewee.Database) -> None:
    """Create extensions, types, functions, tables, indexes, triggers and comments in the current schema of a database.

    Real databases are migrated instead. This is for the test that compares both, and for the catalog that `validate`
    compares with.
    """
    with database.bind_ctx(MODELS, bind_refs=False, bind_backrefs=False), database.atomic():
        database.execute_sql("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
        for name, enum in ENUM_TYPES.items():
            labels = ", ".join(f"'{label}'" for label in enum)
            database.execute_sql(f"CREATE TYPE {name} AS ENUM ({labels})")
        database.execute_sql("SET LOCAL check_function_bodies = off")
        for name in FUNCTIONS:
            database.execute_sql(read_sql(name))
        for model in MODELS:
            model.create_table(safe=False)
            for field in model._meta.sorted_fields:
                if storage := getattr(field, "storage", None):  # CREATE TABLE has no such clause on PostgreSQL 15
                    table, column = model._meta.table_name, field.column_name
                    database.execute_sql(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE {storage}")
        # The guards, a column of an index and what runs with the owner's rights must find what they use with any
        # search_path of a session.
        alter = """
            SELECT format('ALTER FUNCTION %%s SET search_path = %%I, pg_temp', oid::regprocedure, current_schema())
            FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
                AND (prorettype = 'trigger'::regtype OR prosecdef OR proname = 'content_search')
            UNION ALL
            SELECT format('REVOKE EXECUTE ON FUNCTION %%s FROM PUBLIC', oid::regprocedure)
            FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prosecdef
            """
        for (statement,) in database.execute_sql(alter).fetchall():
            database.execute_sql(statement)
        database.execute_sql(read_sql(TRIGGERS))
        for statement in comments(MODELS):
            database.execute_sql(statement.replace("%", "%%"))


def comments(models: Iterable[type[peewee.Model]]) -> list[str]:
    """Return a COMMENT ON for the docstring of each model and the `help_text` of each of its fields.

    A model without a docstring gets no comment, and neither does a field without a `help_text`.
    """
    found: list[str] = []
    for model in models:
        table = model._meta.table_name
        texts = {f"TABLE {_quoted(table)}": model.__doc__}
        for field in model._meta.sorted_fields:
            texts[f"COLUMN {_quoted(table)}.{_quoted(field.column_name)}"] = field.help_text
        for what, text in texts.items():
            if text:
                escaped = " ".join(text.split()).replace("'", "''")
                found.append(f"COMMENT ON {what} IS '{escaped}'")
    return found


def _quoted(name: str) -> str:
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"{}"'.format(name.replace('"', '""'))

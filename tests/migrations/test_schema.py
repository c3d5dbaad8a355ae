"""The schema, on the oldest and the newest server: as the models and `spec/` have it, up, down and up again."""

from __future__ import annotations

import ast
import re
import subprocess
from typing import TYPE_CHECKING

import attrs
import pytest

from myloware_store.embedded import find_binaries
from myloware_store.ops import catalog
from myloware_store.ops.catalog import CATALOG_FILE, expected_catalog, read_catalog
from myloware_store.ops.ddl import create_all
from myloware_store.ops.migrate import HISTORY_TABLE, migrate, migrations_path, rollback
from myloware_store.ops.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from myloware_store.db.database import StoreDatabase
    from myloware_store.settings import Settings

# What the two documents of the setup name, to the letter.
FIELDS = {
    "work_orders": "id, status, priority, workflow_id, tenant_id, created_by, metadata",
    "work_items": "id, work_order_id, type, content, status, result, processed_at",
    "attempts": "id, work_item_id, agent_id, status, input, output, error, duration_ms",
    "mem_docs": "id, work_item_id, type, content, embedding, metadata",
    "approval_events": "id, work_item_id, approver_id, decision, reason, policy_version",
    "dead_letters": "id, source, event_type, payload, error, retry_count",
    "connectors": "id, name, type, config, status, tenant_id, last_health_check",
    "tools": "id, name, description, connector_id, schema, is_active",
    "capabilities": "id, name, description, scope, permissions",
    "schemas": "id, name, version, document_type, schema_definition, is_active",
    "workflow_templates": "id, name, description, document_type, workflow_definition, is_active",
    "eval_results": "id, work_item_id, evaluation_type, score, metrics, passed",
    "audit_logs": "id, user_id, action, resource_type, resource_id, details, ip_address",
    "tool_capabilities": "tool_id, capability_id",
    "runs": "id",
}
LABELS = {
    "work_order_status": "PENDING, PROCESSING, COMPLETED, FAILED",
    "priority": "LOW, MEDIUM, HIGH, URGENT",
    "work_item_type": "INVOICE, TICKET, STATUS_REPORT",
    "work_item_status": "QUEUED, PROCESSING, COMPLETED, FAILED",
    "attempt_status": "STARTED, COMPLETED, FAILED, TIMEOUT",
    "mem_doc_type": "CONTEXT, KNOWLEDGE, TEMPLATE",
    "approval_decision": "APPROVED, REJECTED, ESCALATED",
    "connector_type": "SLACK, EMAIL, API, DATABASE",
    "connector_status": "ACTIVE, INACTIVE, ERROR",
}
INDEXES = {
    "work_orders_tenant_status_created_at_idx": "ON public.work_orders USING btree (tenant_id, status, created_at)",
    "work_items_work_order_status_type_idx": "ON public.work_items USING btree (work_order_id, status, type)",
    # What to_tsvector('english', content) gives, of what has ended and was indexed since.
    "work_items_content_fts_idx": (
        "ON public.work_items USING gin (content_search(content)) WHERE (searchable AND (processed_at IS NOT NULL))"
    ),
    "mem_docs_embedding_idx": "ON public.mem_docs USING ivfflat (embedding vector_cosine_ops)",
}


@pytest.fixture
def dump(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Return a function that dumps everything in the database but extensions and the history of migrations."""
    monkeypatch.delenv("MYLOWARE_PG_BINDIR", raising=False)  # pg_dump 18 reads every server
    command = [str(find_binaries() / "pg_dump"), "--schema-only", "--exclude-extension=*", settings.libpq_url]

    def run() -> str:
        excluding = [*command, f"--exclude-table={HISTORY_TABLE}*"]
        text = subprocess.run(excluding, capture_output=True, text=True, check=True).stdout
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", text)

    return run


def test_no_function_with_planner_settings_is_compiled(settings: Settings, database: StoreDatabase) -> None:
    """A method that is turned off can make a plan look dear enough for JIT, which takes 0.4 s a call."""
    migrate(settings)
    tuned = """
        SELECT proname, 'jit=off' = ANY (proconfig) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proconfig::text LIKE '%%enable_%%' ORDER BY 1
        """

    functions = ["claim_work_items", "finish_work_items", "index_work_items", "submit_work_order", "work_items_roll_up"]
    assert [(name, True) for name in functions] == database.execute_sql(tuned).fetchall()


def test_migrations_and_models_give_the_same_catalog(settings: Settings, database: StoreDatabase) -> None:
    """The migrations lead to the schema that the models describe, object by object, and to `catalog.json`."""
    create_all(database)
    described = read_catalog(database)
    database.execute_sql("DROP SCHEMA public CASCADE")
    database.execute_sql("CREATE SCHEMA public")
    migrate(settings)
    migrated = read_catalog(database)

    assert described == migrated
    assert expected_catalog() == migrated


def test_every_table_and_column_has_a_comment() -> None:
    """The docstrings of the models and the help texts of their fields, for everyone who looks with psql."""
    catalog = expected_catalog()
    described = {key.partition(" ")[2] for key in catalog if key.startswith("comment ")}

    assert {key.partition(" ")[2] for key in catalog if key.startswith(("table ", "column "))} == described
    assert "The document." == catalog["comment work_items.content"]


def test_the_catalog_file_is_as_its_command_writes_it(tmp_path: Path) -> None:
    """`python -m myloware_store.ops.catalog` would change nothing, not even the order."""
    catalog._write(tmp_path / "catalog.json")

    assert (tmp_path / "catalog.json").read_text(encoding="utf-8") == CATALOG_FILE.read_text(encoding="utf-8")


def test_a_rollback_leaves_everything_as_it_was(
    settings: Settings, database: StoreDatabase, dump: Callable[[], str]
) -> None:
    """After undoing the first migration, the database is exactly as before."""
    database.execute_sql("CREATE TABLE theirs (id int PRIMARY KEY, note text DEFAULT 'x')")
    database.execute_sql("CREATE TYPE mood AS ENUM ('good', 'bad')")
    before = dump()
    migrate(settings)
    up = dump()

    assert tuple(names())[::-1] == rollback(settings, count=len(names()))
    assert before == dump()
    assert before != up


def test_up_down_and_up_again_gives_the_same_schema(settings: Settings, dump: Callable[[], str]) -> None:
    """Migrating up a second time gives the same schema."""
    migrate(settings)
    first = dump()
    for _ in range(2):
        rollback(settings, count=len(names()))
        migrate(settings)

    assert first == dump()


def test_extensions_outlive_a_rollback(settings: Settings, database: StoreDatabase) -> None:
    """Other schemas may use `vector`: a rollback leaves it."""
    migrate(settings)
    rollback(settings)

    assert ("vector",) in database.execute_sql("SELECT extname FROM pg_extension").fetchall()


@pytest.mark.parametrize("schema", ["tenant_a", "old", 'Strange "schema" näme'])
def test_a_schema_of_its_own_holds_the_same(
    settings: Settings, connect: Callable[[Settings], StoreDatabase], dump: Callable[[], str], schema: str
) -> None:
    """With `?schema=` the whole schema is made there, under any name, and `public` stays empty."""
    mine = attrs.evolve(settings, schema=schema)
    empty = dump()
    migrate(mine)

    assert expected_catalog() == read_catalog(connect(mine))
    assert validate(connect(mine)).valid
    assert {} == read_catalog(connect(settings))
    rollback(mine)
    connect(settings).execute_sql('DROP SCHEMA "{}" CASCADE'.format(schema.replace('"', '""')))
    assert empty == dump()


def test_every_field_of_the_specification_is_there(settings: Settings, database: StoreDatabase) -> None:
    """Tables and columns have the names that the setup guide lists; only the table of seals is not in it."""
    migrate(settings)
    columns = {table: {column.name for column in database.get_columns(table, "public")} for table in FIELDS}

    assert {} == {table: wanted for table, names in FIELDS.items() if (wanted := {*names.split(", ")} - columns[table])}
    assert {*FIELDS, "audit_seals", HISTORY_TABLE} == set(database.get_tables("public"))


def test_every_type_of_the_specification_is_there(settings: Settings, database: StoreDatabase) -> None:
    """The nine enum types have exactly those labels, in that order."""
    migrate(settings)
    query = """
        SELECT typname, string_agg(enumlabel, ', ' ORDER BY enumsortorder)
        FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid GROUP BY typname
        """

    assert LABELS == dict(database.execute_sql(query).fetchall())


def test_every_index_of_the_specification_is_there(settings: Settings, database: StoreDatabase) -> None:
    """The indexes that the setup guide names have those names and definitions."""
    migrate(settings)
    query = "SELECT indexname, replace(indexdef, 'CREATE INDEX ' || indexname || ' ', '') FROM pg_indexes"
    found = dict(database.execute_sql(query).fetchall())

    assert INDEXES == {name: found[name] for name in INDEXES}


def test_every_foreign_key_is_served_by_an_index(settings: Settings, database: StoreDatabase) -> None:
    """For each foreign key there is an index that is led by the parent's id, among all rows that have a parent."""
    migrate(settings)
    query = """
        SELECT c.conrelid::regclass::text, a.attname
        FROM pg_constraint AS c
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) AND a.attname <> 'tenant_id'
        WHERE c.contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = c.conrelid
                AND COALESCE(pg_get_expr(i.indpred, i.indrelid) = '(' || a.attname || ' IS NOT NULL)', true)
                AND (i.indkey[0] = a.attnum OR (i.indkey[1] = a.attnum AND i.indkey[0] = ANY (c.conkey)))
        )
        """

    assert [] == database.execute_sql(query).fetchall()


def test_vectors_stand_in_their_rows(settings: Settings, database: StoreDatabase) -> None:
    """Embeddings are stored plain, with the other columns in the same page as far as they fit."""
    migrate(settings)
    database.execute_sql(
        "INSERT INTO mem_docs (tenant_id, type, content, embedding)"
        " SELECT 'acme', 'CONTEXT', repeat('word ', 200), array_fill(1, ARRAY[1536])::vector FROM generate_series(1, 9)"
    )
    query = """
        SELECT attstorage, reloptions, pg_relation_size(c.oid) / 8192, pg_relation_size(reltoastrelid)
        FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid
        WHERE relname = 'mem_docs' AND attname = 'embedding'
        """

    assert [("p", ["toast_tuple_target=8160"], 9, 0)] == database.execute_sql(query).fetchall()


def test_the_vector_column_and_its_operators_work(settings: Settings, database: StoreDatabase) -> None:
    """The troubleshooting line of the setup guide runs: embeddings have 1536 dimensions and distances."""
    migrate(settings)
    database.execute_sql(
        "INSERT INTO mem_docs (tenant_id, type, content, embedding)"
        " SELECT 'acme', 'CONTEXT', 'x', array_fill(0.5, ARRAY[1536])::vector"
    )

    assert [(0.0,)] == database.execute_sql("SELECT embedding <-> embedding FROM mem_docs LIMIT 1").fetchall()


@pytest.mark.parametrize(
    "content",
    [
        " ".join(f"w{number}" for number in range(140_000)),
        " ".join(f"{chr(0x4E00 + number % 20_000)}{number}" for number in range(95_000)),
        " ".join(f"a{number}-b{number}-c{number}" for number in range(45_000)),
    ],
    ids=["words", "ideographs", "compounds"],
)
def test_a_mebibyte_of_different_words_is_stored(settings: Settings, database: StoreDatabase, content: str) -> None:
    """More words than a tsvector holds are found as far as it goes: text up to the library's limit is stored."""
    migrate(settings)
    assert 2**19 < len(content.encode()) <= 2**20
    insert = "INSERT INTO mem_docs (tenant_id, type, content) VALUES ('acme', 'CONTEXT', %s)"
    database.execute_sql("SET search_path = ''")
    database.execute_sql(insert.replace("mem_docs", "public.mem_docs"), (content,))
    database.execute_sql("RESET search_path")
    first, *_ = content.split()
    query = "SELECT content = %s FROM mem_docs WHERE search @@ query_phrase(%s, false)"

    assert [(True,)] == database.execute_sql(query, (content, first)).fetchall()


def names() -> list[str]:
    """Return the names of the project's migrations."""
    return sorted(path.stem for path in migrations())


def migrations() -> list[Path]:
    """Return the files of the project's migrations."""
    return sorted(migrations_path().glob("[0-9][0-9][0-9]_*.py"))


@pytest.mark.parametrize("path", migrations(), ids=lambda path: path.stem)
def test_a_migration_is_frozen_and_can_be_undone(path: Path) -> None:
    """A migration imports nothing that moves on, and has a rollback that does something."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        str(node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    assert imported <= {"__future__", "typing", "peewee", "peewee_migrate"}
    assert {"migrate", "rollback"} <= functions.keys()
    assert any(not isinstance(node, ast.Expr | ast.Pass) for node in functions["rollback"].body)

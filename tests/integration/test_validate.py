"""`validate` names the differences between a database and the code."""

from __future__ import annotations

import re
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import attrs
import psycopg2
import pytest

from myloware_store.core.errors import DatabaseFault
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import find_binaries
from myloware_store.ops import validate as module
from myloware_store.ops.catalog import read_catalog
from myloware_store.ops.migrate import MigrationStatus, migrate
from myloware_store.ops.validate import Finding, validate
from myloware_store.settings import Settings
from tests.conftest import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator


def psql(database: StoreDatabase, sql: str) -> None:
    """Run SQL as a user would: psql, on a login whose search path is the server's."""
    command = [str(find_binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", plain_url(database)]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{sql}"


def plain_url(database: StoreDatabase) -> str:
    """Return the database's address without the schema."""
    return attrs.evolve(database.settings, schema="public").libpq_url


def found(database: StoreDatabase) -> set[tuple[str, str]]:
    """Return kind and name of every difference."""
    return {(finding.kind, finding.name) for finding in validate(database).findings}


@pytest.fixture
def tenant_db(myloware_dsn: str) -> Iterator[StoreDatabase]:
    """Yield a database that is migrated in `public` and in a schema of a tenant's, connected to the latter."""
    settings = attrs.evolve(Settings.load(myloware_dsn, environ={}, dotenv=None), schema="Tenant A")
    migrate(settings)
    database = StoreDatabase(settings)
    yield database
    database.close_all()


def test_a_migrated_database_is_valid(myloware_db: StoreDatabase) -> None:
    """Right after `migrate` nothing differs, and the versions are reported."""
    report = validate(myloware_db)

    assert () == report.findings
    assert report.valid
    assert {"server", "vector"} <= report.versions.keys()
    assert report.migrations.current


DAMAGES = {
    "a label with another name": (
        "ALTER TYPE priority RENAME VALUE 'URGENT' TO 'ASAP'",
        {("enum", "priority")},
    ),
    "a label missing in the middle": (
        """
        ALTER TYPE mem_doc_type RENAME TO old;
        CREATE TYPE mem_doc_type AS ENUM ('CONTEXT', 'TEMPLATE');
        ALTER TABLE mem_docs ALTER COLUMN type TYPE mem_doc_type USING type::text::mem_doc_type;
        DROP TYPE old
        """,
        {("enum", "mem_doc_type")},
    ),
    "a label missing at the end": (
        """
        ALTER TYPE connector_status RENAME TO old;
        CREATE TYPE connector_status AS ENUM ('ACTIVE', 'INACTIVE');
        ALTER TABLE connectors ALTER COLUMN status DROP DEFAULT,
            ALTER COLUMN status TYPE connector_status USING status::text::connector_status,
            ALTER COLUMN status SET DEFAULT 'INACTIVE';
        DROP TYPE old
        """,
        {("enum", "connector_status")},
    ),
    "a label too many": ("ALTER TYPE priority ADD VALUE 'NEVER' BEFORE 'LOW'", {("enum", "priority")}),
    "a label too many in a type that guards are made of": (
        "ALTER TYPE work_item_status ADD VALUE 'LOST'",
        {("enum", "work_item_status")},
    ),
    "another label too many in a type that guards are made of": (
        "ALTER TYPE work_order_status ADD VALUE 'LOST' BEFORE 'FAILED'",
        {("enum", "work_order_status")},
    ),
    "labels in another order": (
        """
        ALTER TYPE mem_doc_type RENAME TO old;
        CREATE TYPE mem_doc_type AS ENUM ('TEMPLATE', 'KNOWLEDGE', 'CONTEXT');
        ALTER TABLE mem_docs ALTER COLUMN type TYPE mem_doc_type USING type::text::mem_doc_type;
        DROP TYPE old
        """,
        {("enum", "mem_doc_type")},
    ),
    "two labels with other names": (
        "ALTER TYPE priority RENAME VALUE 'LOW' TO 'low'; ALTER TYPE priority RENAME VALUE 'HIGH' TO 'high'",
        {("enum", "priority")},
    ),
    "a type with another name": (
        "ALTER TYPE priority RENAME TO urgency",
        {("enum", "priority"), ("column", "work_orders.priority"), ("column", "work_items.priority")},
    ),
    "an enum type missing": (
        "DROP TYPE approval_decision CASCADE",
        {("enum", "approval_decision"), ("column", "approval_events.decision")},
    ),
    "a function missing": (
        "DROP FUNCTION refuse_change CASCADE",
        {
            ("function", "refuse_change()"),
            ("trigger", "approval_events.approval_events_append_only"),
            ("trigger", "audit_seals.audit_seals_append_only"),
        },
    ),
    "a function with another body": (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        {("function", "refuse_change()")},
    ),
    "a function that finds its tables by the session's path": (
        "ALTER FUNCTION work_items_guard() RESET search_path",
        {("function", "work_items_guard()")},
    ),
    "a SQL function that is less strict": (
        "ALTER FUNCTION content_sha256(text) CALLED ON NULL INPUT",
        {("function", "content_sha256(content text)")},
    ),
    "a table missing": ("DROP TABLE attempts", {("table", "attempts")}),
    "a table missing that others refer to": (
        "DROP TABLE capabilities CASCADE",
        {("table", "capabilities"), ("constraint", "tool_capabilities.tool_capabilities_capability_id_fkey")},
    ),
    "a table with another name": (
        "ALTER TABLE workflow_templates RENAME TO things",
        {("table", "workflow_templates"), ("constraint", "runs.runs_workflow_template_id_fkey")},
    ),
    "a view in the place of a renamed table": (
        "ALTER TABLE eval_results RENAME TO kept; CREATE VIEW eval_results AS SELECT * FROM kept",
        {("table", "eval_results")},
    ),
    "a materialised view in the place of a renamed table": (
        "ALTER TABLE eval_results RENAME TO kept; CREATE MATERIALIZED VIEW eval_results AS SELECT * FROM kept",
        {("table", "eval_results")},
    ),
    "a partitioned table in the place of a table": (
        """
        DROP TABLE eval_results;
        CREATE TABLE eval_results (id uuid PRIMARY KEY, work_item_id uuid) PARTITION BY RANGE (id);
        CREATE INDEX eval_results_work_item_id_idx ON eval_results (work_item_id)
        """,
        {("table", "eval_results")},
    ),
    "a table in another schema": (
        "CREATE SCHEMA apart; ALTER TABLE audit_logs SET SCHEMA apart",
        {("table", "audit_logs")},
    ),
    "a table that a crash empties and that hides its rows": (
        "ALTER TABLE audit_logs SET UNLOGGED; ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY",
        {("table", "audit_logs")},
    ),
    "a table that a crash empties": ("ALTER TABLE audit_logs SET UNLOGGED", {("table", "audit_logs")}),
    "a table that hides its rows": ("ALTER TABLE work_items ENABLE ROW LEVEL SECURITY", {("table", "work_items")}),
    "a column missing": ("ALTER TABLE approval_events DROP COLUMN reason", {("column", "approval_events.reason")}),
    "a column of another type": (
        "ALTER TABLE approval_events ALTER COLUMN reason TYPE varchar(10)",
        {("column", "approval_events.reason")},
    ),
    "a column of another type, with a default": (
        """
        ALTER TABLE dead_letters ALTER COLUMN retry_count DROP DEFAULT,
            ALTER COLUMN retry_count TYPE bigint, ALTER COLUMN retry_count SET DEFAULT 0
        """,
        {("column", "dead_letters.retry_count")},
    ),
    "a column that may be null": (
        "ALTER TABLE work_orders ALTER COLUMN created_by DROP NOT NULL",
        {("column", "work_orders.created_by")},
    ),
    "a column that may not be null": (
        "ALTER TABLE runs ALTER COLUMN error SET NOT NULL",
        {("column", "runs.error")},
    ),
    "a default missing": (
        "ALTER TABLE work_items ALTER COLUMN available_at DROP DEFAULT",
        {("column", "work_items.available_at")},
    ),
    "another default": (
        "ALTER TABLE work_items ALTER COLUMN max_attempts SET DEFAULT 1",
        {("column", "work_items.max_attempts")},
    ),
    "a default where there is none": (
        "ALTER TABLE runs ALTER COLUMN error SET DEFAULT 'none'",
        {("column", "runs.error")},
    ),
    "another generated expression": (
        """
        ALTER TABLE mem_docs DROP COLUMN search;
        ALTER TABLE mem_docs ADD COLUMN search tsvector GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED
        """,
        {("column", "mem_docs.search"), ("index", "mem_docs.mem_docs_search_idx")},
    ),
    "a generated column that is not": (
        "ALTER TABLE mem_docs ALTER COLUMN search DROP EXPRESSION",
        {("column", "mem_docs.search")},
    ),
    "a plain column that is generated": (
        """
        ALTER TABLE runs DROP COLUMN error;
        ALTER TABLE runs ADD COLUMN error text GENERATED ALWAYS AS (tenant_id) STORED
        """,
        {("column", "runs.error")},
    ),
    "a column with another name": (
        "ALTER TABLE work_items RENAME COLUMN content TO body",
        {
            ("column", "work_items.content"),
            ("column", "work_items.body"),
            ("constraint", "work_items.work_items_check"),
            ("index", "work_items.work_items_content_fts_idx"),
        },
    ),
    "a column of theirs with a name of their own": (
        'ALTER TABLE work_items ADD COLUMN "Net cost" numeric',
        {("column", "work_items.Net cost")},
    ),
    "a column of theirs": ("ALTER TABLE work_items ADD COLUMN cost numeric", {("column", "work_items.cost")}),
    "a check missing": (
        "ALTER TABLE attempts DROP CONSTRAINT attempts_check",
        {("constraint", "attempts.attempts_check")},
    ),
    "a check that is looser": (
        """
        ALTER TABLE eval_results DROP CONSTRAINT eval_results_score_check,
            ADD CONSTRAINT eval_results_score_check CHECK (score >= 0)
        """,
        {("constraint", "eval_results.eval_results_score_check")},
    ),
    "a check not validated": (
        """
        ALTER TABLE eval_results DROP CONSTRAINT eval_results_score_check,
            ADD CONSTRAINT eval_results_score_check CHECK (score >= 0 AND score <= 1) NOT VALID
        """,
        {("constraint", "eval_results.eval_results_score_check")},
    ),
    "a foreign key that does not cascade": (
        """
        ALTER TABLE attempts DROP CONSTRAINT attempts_work_item_id_fkey, ADD CONSTRAINT attempts_work_item_id_fkey
            FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id)
        """,
        {("constraint", "attempts.attempts_work_item_id_fkey")},
    ),
    "a primary key missing": (
        "ALTER TABLE audit_logs DROP CONSTRAINT audit_logs_pkey",
        {("constraint", "audit_logs.audit_logs_pkey")},
    ),
    "a unique constraint missing": (
        "ALTER TABLE schemas DROP CONSTRAINT schemas_name_version_key",
        {("constraint", "schemas.schemas_name_version_key")},
    ),
    "a primary key with another name": (
        "ALTER TABLE work_items RENAME CONSTRAINT work_items_pkey TO theirs",
        {("constraint", "work_items.work_items_pkey"), ("constraint", "work_items.theirs")},
    ),
    "another primary key": (
        """
        ALTER TABLE audit_logs DROP CONSTRAINT audit_logs_pkey,
            ADD CONSTRAINT theirs PRIMARY KEY (id, created_at)
        """,
        {("constraint", "audit_logs.audit_logs_pkey"), ("constraint", "audit_logs.theirs")},
    ),
    "foreign keys that nobody checks": (
        "ALTER TABLE runs DISABLE TRIGGER ALL; ALTER TABLE runs ENABLE TRIGGER USER",
        {("constraint", "runs.runs_work_order_id_fkey"), ("constraint", "runs.runs_workflow_template_id_fkey")},
    ),
    "a foreign key that the parent does not keep": (
        "ALTER TABLE connectors DISABLE TRIGGER ALL; ALTER TABLE connectors ENABLE TRIGGER USER",
        {("constraint", "tools.tools_connector_id_fkey")},
    ),
    "a constraint of theirs": (
        "ALTER TABLE work_items ADD CONSTRAINT short CHECK (length(content) < 10)",
        {("constraint", "work_items.short")},
    ),
    "an index missing": (
        "DROP INDEX work_items_work_order_status_type_idx",
        {("index", "work_items.work_items_work_order_status_type_idx")},
    ),
    "a unique index missing": (
        "DROP INDEX dead_letters_open_idx",
        {("index", "dead_letters.dead_letters_open_idx")},
    ),
    "an index with another name": (
        "ALTER INDEX work_items_claim_idx RENAME TO theirs",
        {("index", "work_items.work_items_claim_idx")},
    ),
    "an index whose name another one has": (
        "DROP INDEX work_items_claim_idx; CREATE INDEX work_items_claim_idx ON runs (status)",
        {("index", "work_items.work_items_claim_idx")},
    ),
    "an index on other columns": (
        """
        DROP INDEX work_orders_tenant_status_created_at_idx;
        CREATE INDEX work_orders_tenant_status_created_at_idx ON work_orders (tenant_id, created_at)
        """,
        {("index", "work_orders.work_orders_tenant_status_created_at_idx")},
    ),
    "an index with other options": (
        "ALTER INDEX work_items_content_fts_idx SET (gin_pending_list_limit = 65536)",
        {("index", "work_items.work_items_content_fts_idx")},
    ),
    "an invalid index": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'attempts_started_idx'::regclass",
        {("index", "attempts.attempts_started_idx")},
    ),
    "an invalid index of theirs": (
        """
        CREATE INDEX left_over ON attempts (agent_id);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'left_over'::regclass
        """,
        {("index", "attempts.left_over")},
    ),
    "a unique index of theirs": (
        """CREATE UNIQUE INDEX "Only ""one"" each" ON work_items (content)""",
        {("index", 'work_items.Only "one" each')},
    ),
    "the vector index missing": ("DROP INDEX mem_docs_embedding_idx", {("index", "mem_docs.mem_docs_embedding_idx")}),
    "the vector index on another distance": (
        """
        DROP INDEX mem_docs_embedding_idx;
        CREATE INDEX mem_docs_embedding_idx ON mem_docs USING hnsw (embedding vector_l2_ops)
        """,
        {("index", "mem_docs.mem_docs_embedding_idx")},
    ),
    "the vector index on some rows": (
        """
        DROP INDEX mem_docs_embedding_idx;
        CREATE INDEX mem_docs_embedding_idx ON mem_docs USING hnsw (embedding vector_cosine_ops)
        WHERE tenant_id = 'acme'
        """,
        {("index", "mem_docs.mem_docs_embedding_idx")},
    ),
    "the vector index invalid": (
        """
        DROP INDEX mem_docs_embedding_idx;
        CREATE INDEX mem_docs_embedding_idx ON mem_docs USING hnsw (embedding vector_cosine_ops) WITH (m = 8);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mem_docs_embedding_idx'::regclass
        """,
        {("index", "mem_docs.mem_docs_embedding_idx")},
    ),
    "a trigger missing": (
        "DROP TRIGGER work_items_roll_up_update ON work_items",
        {("trigger", "work_items.work_items_roll_up_update")},
    ),
    "a trigger disabled": (
        "ALTER TABLE audit_logs DISABLE TRIGGER audit_logs_append_only",
        {("trigger", "audit_logs.audit_logs_append_only")},
    ),
    "a trigger with another name": (
        "ALTER TRIGGER work_items_roll_up_insert ON work_items RENAME TO theirs",
        {("trigger", "work_items.work_items_roll_up_insert"), ("trigger", "work_items.theirs")},
    ),
    "a trigger that counts a second time": (
        """
        CREATE TRIGGER "Again" AFTER INSERT ON work_items
        REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up()
        """,
        {("trigger", "work_items.Again")},
    ),
    "a rule": ("CREATE RULE keep AS ON DELETE TO work_orders DO INSTEAD NOTHING", {("rule", "work_orders.keep")}),
    "a table that inherits": (
        'CREATE SCHEMA "A part"; CREATE TABLE "A part".orders () INHERITS (work_orders)',
        {("child", 'work_orders."A part".orders')},
    ),
    "a trigger with another condition": (
        """
        CREATE OR REPLACE TRIGGER attempts_transition AFTER UPDATE OF status ON attempts
        FOR EACH ROW WHEN (OLD.status = 'COMPLETED') EXECUTE FUNCTION refuse_transition()
        """,
        {("trigger", "attempts.attempts_transition")},
    ),
    "vectors stored apart from their rows": (
        "ALTER TABLE mem_docs ALTER COLUMN embedding SET STORAGE EXTERNAL",
        {("column", "mem_docs.embedding")},
    ),
    "vectors of another type": (
        """
        DROP INDEX mem_docs_embedding_idx, mem_docs_embedding_model_idx, mem_docs_missing_embedding_idx;
        ALTER TABLE mem_docs ALTER COLUMN embedding TYPE text USING embedding::text
        """,
        {
            ("column", "mem_docs.embedding"),
            ("index", "mem_docs.mem_docs_embedding_idx"),
            ("index", "mem_docs.mem_docs_embedding_model_idx"),
            ("index", "mem_docs.mem_docs_missing_embedding_idx"),
        },
    ),
    "the rest of the rows stored apart": (
        "ALTER TABLE mem_docs RESET (toast_tuple_target); ALTER TABLE runs SET (toast_tuple_target = 512)",
        {("table", "mem_docs"), ("table", "runs")},
    ),
    "the memory missing": ("DROP TABLE mem_docs", {("table", "mem_docs")}),
    "pgvector missing": (
        "DROP EXTENSION vector CASCADE",
        {
            ("extension", "vector"),
            ("column", "mem_docs.embedding"),
            ("index", "mem_docs.mem_docs_embedding_idx"),
            ("index", "mem_docs.mem_docs_embedding_model_idx"),
            ("index", "mem_docs.mem_docs_missing_embedding_idx"),
        },
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_reported(myloware_db: StoreDatabase, damage: str) -> None:
    """Each kind of difference is found, by itself and by name; no remedy is SQL that removes anything."""
    sql, expected = DAMAGES[damage]
    psql(myloware_db, sql)

    findings = validate(myloware_db).findings
    assert expected == {(finding.kind, finding.name) for finding in findings}
    assert [] == [finding for finding in findings if re.search("DROP|DELETE|TRUNCATE", finding.remedy)]


def test_a_finding_tells_what_is_expected_and_what_is_there(myloware_db: StoreDatabase) -> None:
    """A finding holds both definitions, and says where the expected one comes from."""
    myloware_db.execute_sql("ALTER TABLE approval_events ALTER COLUMN reason SET NOT NULL")

    (finding,) = validate(myloware_db).findings
    assert ("column", "approval_events.reason") == (finding.kind, finding.name)
    assert ("text", "text NOT NULL") == (finding.expected, finding.actual)
    assert "001_initial" in finding.remedy


def test_a_column_of_theirs_is_left_to_them(myloware_db: StoreDatabase) -> None:
    """Additions by others are named, without advice to remove them."""
    myloware_db.execute_sql("ALTER TABLE work_items ADD COLUMN cost numeric")

    (finding,) = validate(myloware_db).findings
    assert ("work_items.cost", None, "numeric") == (finding.name, finding.expected, finding.actual)
    assert finding.remedy.startswith("No migration created it.")


@pytest.mark.parametrize(
    ("table", "index", "remedy"),
    [
        ("mem_docs", "mem_docs_embedding_idx", "myloware-store index ensure"),
        ("dead_letters", "dead_letters_open_idx", "Run the expected statement"),
    ],
)
def test_a_dropped_index_has_a_remedy_of_its_own(
    myloware_db: StoreDatabase, table: str, index: str, remedy: str
) -> None:
    """The vector index is built from data by a command; any other is created by the statement that is shown."""
    myloware_db.execute_sql(f"DROP INDEX {index}")
    (finding,) = validate(myloware_db).findings
    assert (f"{table}.{index}", remedy) == (finding.name, finding.remedy[: len(remedy)])
    myloware_db.execute_sql(finding.expected or "")

    assert () == validate(myloware_db).findings


def test_a_disabled_trigger_is_enabled_by_its_remedy(myloware_db: StoreDatabase) -> None:
    """That is no matter of migrations."""
    myloware_db.execute_sql("ALTER TABLE connectors DISABLE TRIGGER USER")
    for finding in validate(myloware_db).findings:
        myloware_db.execute_sql(finding.remedy)

    assert () == validate(myloware_db).findings


def test_of_long_definitions_the_part_that_differs_is_shown(myloware_db: StoreDatabase) -> None:
    """The report shows a change at the end of a long function."""
    query = "SELECT pg_get_functiondef('work_items_roll_up'::regproc)"
    (source,) = myloware_db.execute_sql(query).fetchone()
    myloware_db.execute_sql(source.replace("ELSE 'COMPLETED'", "ELSE 'FAILED'").replace("%", "%%"))
    (finding,) = validate(myloware_db).findings

    assert "ELSE 'COMPLETED'" in (finding.expected or "")
    assert "ELSE 'FAILED'" in (finding.actual or "")


@pytest.mark.parametrize(
    "definition",
    [
        "ivfflat (embedding vector_cosine_ops)",
        "ivfflat (embedding vector_cosine_ops) WITH (lists = 7)",
        "hnsw (embedding vector_cosine_ops)",
        "hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 32)",
    ],
)
def test_any_cosine_index_of_that_name_is_valid(myloware_db: StoreDatabase, definition: str) -> None:
    """The vector index may be of either method, with any options."""
    myloware_db.execute_sql("DROP INDEX mem_docs_embedding_idx")
    myloware_db.execute_sql(f"CREATE INDEX mem_docs_embedding_idx ON mem_docs USING {definition}")

    assert () == validate(myloware_db).findings


def test_what_others_added_beside_us_is_none_of_our_business(myloware_db: StoreDatabase) -> None:
    """Tables, views, types, functions, indexes and triggers of others pass, whatever state they are in."""
    psql(
        myloware_db,
        """
        CREATE TABLE theirs (id int PRIMARY KEY, item uuid REFERENCES work_items (id), CHECK (id > 0));
        CREATE UNIQUE INDEX ON theirs (item);
        CREATE VIEW open_items AS SELECT * FROM work_items WHERE status = 'QUEUED';
        CREATE TYPE mood AS ENUM ('good');
        CREATE FUNCTION nudge() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NOTIFY nudge; RETURN NULL; END';
        CREATE TRIGGER nudge AFTER INSERT ON work_items EXECUTE FUNCTION nudge();
        CREATE INDEX by_agent ON attempts (agent_id);
        CREATE TABLE migratehistory (id serial, name text);
        """,
    )

    assert () == validate(myloware_db).findings


def test_an_empty_database_is_one_finding(myloware_db: StoreDatabase) -> None:
    """A database that was never migrated is one finding, and `migrate` is its remedy."""
    psql(myloware_db, "DROP SCHEMA public CASCADE; CREATE SCHEMA public;")

    assert (Finding("migration", "all", "applied", None, "myloware-store migrate"),) == validate(myloware_db).findings
    migrate(myloware_db)
    assert () == validate(myloware_db).findings


def test_a_lost_history_is_not_an_unmigrated_database(myloware_db: StoreDatabase) -> None:
    """If the tables exist and only their history is gone, `migrate` is not the remedy."""
    myloware_db.execute_sql("DROP TABLE myloware_migratehistory")
    (finding,) = validate(myloware_db).findings

    assert ("migration", ", ".join(OURS)) == (finding.kind, finding.name)
    assert "myloware-store baseline" == finding.remedy


def test_a_history_without_the_whole_schema_is_not_faked(myloware_db: StoreDatabase) -> None:
    """If a table differs, recording the migrations as applied is not the remedy."""
    myloware_db.execute_sql("DROP TABLE myloware_migratehistory")
    myloware_db.execute_sql("ALTER TABLE tools ADD COLUMN price int")
    (finding,) = validate(myloware_db).findings

    assert ("migration", ", ".join(OURS)) == (finding.kind, finding.name)
    assert "--fake" not in finding.remedy
    assert "tools.price" in (finding.actual or "")


@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ("CREATE TABLE tools (weight int)", "tools"),
        ("CREATE VIEW tools AS SELECT 1 AS weight", "tools"),
        ("CREATE TYPE priority AS ENUM ('HIGH')", "priority"),
        ("CREATE TABLE priority (weight int)", "priority"),
        ("CREATE FUNCTION refuse_change() RETURNS int LANGUAGE sql AS 'SELECT 1'", "refuse_change()"),
    ],
)
def test_what_has_a_name_of_ours_is_not_taken_for_the_schema(
    myloware_db: StoreDatabase, theirs: str, name: str
) -> None:
    """A foreign table, view, type or function stands in the way of a migration, and is not a reason to skip it."""
    psql(myloware_db, f"DROP SCHEMA public CASCADE; CREATE SCHEMA public; {theirs}")
    (finding,) = validate(myloware_db).findings

    assert ("migration", ", ".join(OURS)) == (finding.kind, finding.name)
    assert finding.remedy.startswith(f"If {name} ")
    assert "--fake" not in finding.remedy


def test_a_schema_that_does_not_exist_is_not_taken_for_public(myloware_dsn: str) -> None:
    """With `?schema=` of a schema not made yet, `migrate` is the remedy, and it makes one, whole and apart."""
    settings = attrs.evolve(Settings.load(myloware_dsn, environ={}, dotenv=None), schema="not_there")
    with closing(StoreDatabase(settings)) as database:
        assert {} == read_catalog(database)
        assert (Finding("migration", "all", "applied", None, "myloware-store migrate"),) == validate(database).findings
        migrate(settings)
        assert () == validate(database).findings


def lead_astray(database: StoreDatabase, damage: str) -> StoreDatabase:
    """Change a setting of the database or the role, and reconnect."""
    (name, user) = database.execute_sql("SELECT quote_ident(current_database()), quote_ident(current_user)").fetchone()
    psql(database, damage.format(database=name, user=user))
    database.close_idle()
    return database


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER DATABASE {database} SET search_path = nowhere",
        "ALTER ROLE {user} IN DATABASE {database} SET search_path = nowhere",
        "CREATE SCHEMA astray; ALTER DATABASE {database} SET search_path = astray, public",
        "ALTER DATABASE {database} SET session_replication_role = replica",
    ],
)
def test_a_setting_that_leads_astray_is_one_finding(myloware_db: StoreDatabase, damage: str) -> None:
    """A search path past our tables, or a session without triggers: the setting is named."""
    name = "session_replication_role" if "session_replication_role" in damage else "search_path"

    (finding,) = validate(lead_astray(myloware_db, damage)).findings
    assert ("setting", name) == (finding.kind, finding.name)
    assert name in finding.remedy


def test_a_database_without_public_is_one_finding(myloware_db: StoreDatabase) -> None:
    """The schema of the tables is gone, and nothing else is reported."""
    psql(myloware_db, "DROP SCHEMA public CASCADE")

    assert {("setting", "search_path")} == found(myloware_db)


def test_quoted_identifiers_are_no_difference(myloware_db: StoreDatabase) -> None:
    """Definitions are compared under the server's default."""
    with myloware_db.unit():
        myloware_db.execute_sql("SET quote_all_identifiers = on")
        assert () == validate(myloware_db).findings


def test_pgvector_out_of_reach_is_put_on_the_roles_path(myloware_db: StoreDatabase) -> None:
    """Only behind a pooler: otherwise new connections find the extension wherever it is."""
    psql(myloware_db, 'CREATE SCHEMA "a part"; ALTER EXTENSION vector SET SCHEMA "a part"')
    pooled = attrs.evolve(myloware_db.settings, pgbouncer=True)
    with closing(StoreDatabase(pooled)) as database:
        (finding,) = validate(database).findings
    assert ("extension", "vector", 'in "a part"') == (finding.kind, finding.name, finding.actual)
    with closing(StoreDatabase(myloware_db.settings)) as database:
        assert () == validate(database).findings
    psql(myloware_db, finding.remedy)
    with closing(StoreDatabase(pooled)) as database:
        assert () == validate(database).findings


def test_a_search_path_of_the_connections_own_is_named(myloware_dsn: str) -> None:
    """Also if the URL's own options lead past the tables."""
    settings = Settings.load(myloware_dsn, environ={}, dotenv=None).with_server(options="-csearch_path=nowhere")
    with closing(StoreDatabase(settings)) as database:
        (finding,) = validate(database).findings

    assert ("setting", "search_path", "nowhere") == (finding.kind, finding.name, finding.actual)


def test_a_newer_database_is_one_finding(myloware_db: StoreDatabase) -> None:
    """A migration that this version does not know is reported, and no difference that it made."""
    myloware_db.execute_sql(
        "INSERT INTO myloware_migratehistory (name, migrated_at) VALUES ('999_from_the_future', now())"
    )
    myloware_db.execute_sql("ALTER TABLE work_items ADD COLUMN from_the_future int")

    assert {("migration", "999_from_the_future")} == found(myloware_db)


def test_a_pending_migration_is_reported() -> None:
    """For a database that is behind, the missing migrations are named, and `migrate` is the remedy."""
    behind = MigrationStatus(("001_initial",), ("002_adds",), (), ())
    (finding,) = module._check_migrations(behind)

    assert Finding("migration", "002_adds", "applied", None, "myloware-store migrate") == finding


def test_an_edited_migration_is_reported(myloware_db: StoreDatabase) -> None:
    """A migration whose file changed after it was applied is reported."""
    myloware_db.execute_sql("UPDATE myloware_migratehistory SET digest = 'another'")

    assert {("migration", ", ".join(OURS))} == found(myloware_db)


@pytest.mark.myloware_db(mode="clone")  # what is written into the catalogs themselves, nothing else notices
def test_an_old_pgvector_is_reported(myloware_db: StoreDatabase) -> None:
    """A pgvector before 0.5.0 is named, with the version that is there."""
    myloware_db.execute_sql("UPDATE pg_extension SET extversion = '0.4.4' WHERE extname = 'vector'")

    assert (Finding("extension", "vector", "0.5.0 or newer", "0.4.4", "ALTER EXTENSION vector UPDATE;"),) == validate(
        myloware_db
    ).findings


@pytest.mark.parametrize(("version", "expected"), [("14.11 (Debian 14.11-1)", 1), ("15.5", 0), ("18beta1", 0)])
def test_a_server_before_15_is_reported(version: str, expected: int) -> None:
    """PostgreSQL 14 and older are named as too old."""
    assert expected == len(list(module._check_server({"server": version})))


@pytest.mark.parametrize(
    "damage",
    [
        "a function missing",
        "a table missing",
        "an index on other columns",
        "an enum type missing",
        "a trigger disabled",
    ],
)
def test_another_schema_is_looked_at_by_itself(tenant_db: StoreDatabase, damage: str) -> None:
    """In a schema other than `public` differences are found, though `public` is whole."""
    sql, expected = DAMAGES[damage]
    psql(tenant_db, f'SET search_path = "Tenant A", public; {sql}')

    assert expected == found(tenant_db)


def test_validate_writes_nothing(myloware_db: StoreDatabase) -> None:
    """It runs on a read-only connection."""
    with myloware_db.atomic():
        myloware_db.execute_sql("SET TRANSACTION READ ONLY")

        assert validate(myloware_db).valid


def test_a_locked_table_is_not_waited_for(myloware_db: StoreDatabase) -> None:
    """Whoever holds it, such as a migration, may do so for hours: the comparison ends with an error at once."""
    with closing(psycopg2.connect(**myloware_db.settings.connect_kwargs())) as other, other.cursor() as run:
        run.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseFault, match="lock timeout") as caught:
            validate(myloware_db)
    assert "55P03" == caught.value.sqlstate
    assert validate(myloware_db).valid

"""The sample data: complete, consistent, the same for ever, and never in anybody's way."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from myloware_store import (
    ApprovalDecision,
    Attempt,
    AttemptStatus,
    AuditSeal,
    Connector,
    HashingEmbedder,
    MemDoc,
    Schema,
    Settings,
    Store,
    WorkItem,
    WorkItemStatus,
    WorkOrder,
    WorkOrderStatus,
)
from myloware_store.core.enums import ENUM_TYPES
from myloware_store.core.errors import ConstraintViolation, InvalidInput, SchemaMismatch
from myloware_store.db.database import StoreDatabase
from myloware_store.models import MODELS
from myloware_store.ops.migrate import migrate
from myloware_store.ops.validate import validate
from myloware_store.seed import (
    ACME,
    ACME_INVOICE_ORDER_ID,
    ACME_LATE_FEE_DOC_ID,
    ACME_LEASED_ATTEMPT_ID,
    ACME_LEASED_ITEM_ID,
    ACME_REPORT_ORDER_ID,
    ACME_TIMED_OUT_ITEM_ID,
    ACME_UNEMBEDDED_DOC_ID,
    GLOBEX,
    GLOBEX_AWAITING_ITEM_ID,
    GLOBEX_REPLAYED_ITEM_ID,
    INITECH,
    LEASED_UNTIL,
    attempt_id,
    ids,
    seed,
)

TABLES = [model._meta.table_name for model in MODELS if model is not AuditSeal]
OWN = "(to_jsonb(t) ->> 'resource_type' IS NULL OR to_jsonb(t) ->> 'source' = 'application')"
"""No audit line that a trigger wrote."""
NAMED_IDS = {name: value for name, value in vars(ids).items() if name.endswith("_ID")}
TABLE_OF_KIND = {
    ids.Kind.ORDER: "work_orders",
    ids.Kind.ITEM: "work_items",
    ids.Kind.ATTEMPT: "attempts",
    ids.Kind.MEMORY: "mem_docs",
    ids.Kind.LETTER: "dead_letters",
    ids.Kind.CONNECTOR: "connectors",
    ids.Kind.TOOL: "tools",
    ids.Kind.CAPABILITY: "capabilities",
    ids.Kind.SCHEMA: "schemas",
    ids.Kind.TEMPLATE: "workflow_templates",
    ids.Kind.RUN: "runs",
    ids.Kind.EVALUATION: "eval_results",
}


@pytest.fixture
def seeded(myloware: Store) -> Store:
    """Return an open store with the sample data."""
    seed(myloware.db)
    return myloware


def rows(database: StoreDatabase, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    return list(database.execute_sql(sql, parameters).fetchall())


def image(database: StoreDatabase) -> dict[str, Any]:
    """Return every row of every table, with the transaction that wrote it."""
    return {
        table: rows(database, f"SELECT t.xmin::text, t::text FROM {table} AS t WHERE {OWN} ORDER BY t::text")
        for table in TABLES
    }


def test_every_table_has_rows(seeded: Store) -> None:
    """Every table has rows but that of the seals, which are made from audit lines."""
    counts = {table: rows(seeded.db, f"SELECT count(*) FROM {table} AS t WHERE {OWN}")[0][0] for table in TABLES}

    assert [table for table, count in counts.items() if count == 0] == []
    assert len(counts) == 15


def test_every_label_appears(seeded: Store) -> None:
    """Every label of each of the nine enum types stands in some row."""
    found: dict[str, set[str]] = {name: set() for name in ENUM_TYPES}
    columns = rows(
        seeded.db,
        "SELECT udt_name, table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND udt_name = ANY (%s)",
        list(ENUM_TYPES),
    )
    for name, table, column in columns:
        found[name] |= {label for (label,) in rows(seeded.db, f"SELECT DISTINCT {column}::text FROM {table}")}

    assert {name: set(labels) for name, labels in ENUM_TYPES.items()} == found
    assert len(found) == 9


def test_several_tenants(seeded: Store) -> None:
    """Three tenants have work, memory and connectors of their own."""
    for table in ("work_orders", "mem_docs", "connectors", "dead_letters", "tools", "audit_logs"):
        found = {tenant for (tenant,) in rows(seeded.db, f"SELECT tenant_id FROM {table} WHERE tenant_id <> '*'")}

        assert found == {ACME, GLOBEX, INITECH}


def test_orders_are_what_their_items_say(seeded: Store) -> None:
    """Counters and status of every order follow from its items, and every state occurs."""
    found = set()
    for order in WorkOrder.select():
        statuses = [item.status for item in seeded.work.items(order.id)]
        still_open = [s for s in statuses if s in (WorkItemStatus.QUEUED, WorkItemStatus.PROCESSING)]
        if set(statuses) == {WorkItemStatus.QUEUED} and order.status == WorkOrderStatus.PENDING:
            expected = WorkOrderStatus.PENDING
        elif still_open:
            expected = WorkOrderStatus.PROCESSING
        else:
            expected = WorkOrderStatus.FAILED if WorkItemStatus.FAILED in statuses else WorkOrderStatus.COMPLETED
        found.add(order.status)

        assert (expected, len(still_open), statuses.count(WorkItemStatus.FAILED)) == (
            order.status,
            order.open_items,
            order.failed_items,
        )
    assert found == set(WorkOrderStatus)


def test_the_ledger_of_attempts_balances(seeded: Store) -> None:
    """Every item counts its attempts, numbered from 1, and names the last; only a held item has a live one."""
    for item in WorkItem.select():
        attempts = list(item.attempts.order_by(Attempt.attempt_number))
        live = [attempt.id for attempt in attempts if attempt.status == AttemptStatus.STARTED]
        held = item.status == WorkItemStatus.PROCESSING and not item.awaiting_approval

        assert [attempt.attempt_number for attempt in attempts] == list(range(1, item.attempt_count + 1))
        assert item.current_attempt_id == (attempts[-1].id if attempts else None)
        assert live == ([item.current_attempt_id] if held else [])
        assert [attempt.id for attempt in attempts] == [attempt_id(item.id, n) for n in range(1, len(attempts) + 1)]


def test_failed_items_have_a_letter_or_a_rejection(seeded: Store) -> None:
    """An item that failed left an open dead letter with its content, or was rejected by a person."""
    for item in WorkItem.select().where(WorkItem.status == WorkItemStatus.FAILED):
        letters = [letter for letter in item.dead_letters if letter.replayed_at is None]
        rejections = [event for event in item.approval_events if event.decision == ApprovalDecision.REJECTED]

        assert len(letters) + len(rejections) == 1
        assert all(letter.payload["content"] == item.content for letter in letters)


def test_memory(seeded: Store) -> None:
    """Memory is embedded by the bundled embedder, but for one document that waits for its vector."""
    missing = [doc.id for doc in MemDoc.select().where(MemDoc.embedding.is_null())]
    with seeded.tenant(ACME):
        (best, *_) = seeded.memory.similar(HashingEmbedder()(["what late fee does Acme pay to a supplier?"])[0])

    assert missing == [ACME_UNEMBEDDED_DOC_ID]
    assert best.id == ACME_LATE_FEE_DOC_ID


def test_what_waits_goes_on(seeded: Store) -> None:
    """Work can continue from the sample data: items are claimed, decided, replayed; leased items are not taken back."""
    taken_back = seeded.work.reap()
    with seeded.tenant(ACME):
        claims = seeded.work.claim("agent", 10)
    pending = [item.id for item in seeded.approvals.pending()]
    decided = seeded.approvals.decide(
        GLOBEX_AWAITING_ITEM_ID, approver_id="someone", decision="APPROVED", policy_version="2025-01"
    )
    letters = seeded.dead_letters.list()
    replayed = seeded.dead_letters.replay([letter.id for letter in letters], by="someone")

    assert taken_back == {}
    assert ACME_TIMED_OUT_ITEM_ID in {claim.item_id for claim in claims}
    assert ACME_LEASED_ITEM_ID not in {claim.item_id for claim in claims}
    assert pending == [GLOBEX_AWAITING_ITEM_ID]
    assert decided.decision == ApprovalDecision.APPROVED
    assert replayed == {letter.id for letter in letters if letter.work_item_id is not None}


def test_nothing_ages(seeded: Store) -> None:
    """No time in the data is the time of seeding: all are in January 2025, or for leases and delays in 2099."""
    columns = rows(
        seeded.db,
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE udt_name = 'timestamptz' AND table_schema = 'public' AND table_name = ANY (%s)",
        TABLES,
    )
    times = {
        (table, column): time
        for table, column in columns
        for (time,) in rows(
            seeded.db,
            f"SELECT DISTINCT {column} FROM {table} AS t WHERE {column} IS NOT NULL AND {OWN}",
        )
        if not datetime(2025, 1, 1, tzinfo=UTC) < time < datetime(2025, 2, 1, tzinfo=UTC)
    }

    assert times == {
        ("attempts", "lease_expires_at"): LEASED_UNTIL,
        ("work_items", "available_at"): LEASED_UNTIL,
    }
    assert Attempt.get_by_id(ACME_LEASED_ATTEMPT_ID).lease_expires_at == LEASED_UNTIL


def test_named_ids(seeded: Store) -> None:
    """Every id that has a name names a row of its kind, of the tenant that the name begins with."""
    for name, row_id in NAMED_IDS.items():
        table = TABLE_OF_KIND[ids.Kind(int(str(row_id)[24:28], 16))]
        (found,) = rows(seeded.db, f"SELECT to_jsonb(t) FROM {table} AS t WHERE id = %s", str(row_id))

        assert row_id.version == 7
        assert found[0].get("tenant_id", "") in ("", name.partition("_")[0].lower())


def test_a_second_time_changes_nothing(seeded: Store) -> None:
    """Seeding again inserts nothing and rewrites no row."""
    before = image(seeded.db)
    report = seed(seeded.db)

    assert report.total == 0
    assert set(report.inserted) == set(TABLES)
    assert image(seeded.db) == before


def test_two_processes_at_once(myloware_dsn: str) -> None:
    """Of processes that seed at the same time, together they insert every row once."""
    program = """
import sys
from myloware_store import Settings
from myloware_store.db.database import StoreDatabase
from myloware_store.seed import seed

database = StoreDatabase(Settings.load(sys.argv[1]))
database.execute_sql("SELECT 1")
print("ready", flush=True)
sys.stdin.readline()
print(seed(database).total)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, myloware_dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    totals = [int(process.communicate(timeout=120)[0]) for process in processes]

    with closing(StoreDatabase(Settings.load(myloware_dsn))) as database:
        stored = sum(rows(database, f"SELECT count(*) FROM {table} AS t WHERE {OWN}")[0][0] for table in TABLES)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(totals) == [0, 0, stored]


def test_changes_of_the_user_stay(seeded: Store) -> None:
    """A row that the user changed stays as it is; one that was deleted comes back with all that belongs to it."""
    WorkOrder.update(metadata={"mine": True}).where(WorkOrder.id == ACME_REPORT_ORDER_ID).execute()
    before = image(seeded.db)
    WorkOrder.get_by_id(ACME_INVOICE_ORDER_ID).delete_instance()
    report = seed(seeded.db)

    assert {table: count for table, count in report.inserted.items() if count} == {
        "work_orders": 1,
        "work_items": 2,
        "attempts": 3,
        "runs": 1,
        "approval_events": 2,
        "eval_results": 2,
        "mem_docs": 1,
    }
    after = image(seeded.db)
    assert {t: [row for _, row in found] for t, found in after.items()} == {
        t: [row for _, row in found] for t, found in before.items()
    }


def test_names_that_are_taken(myloware: Store) -> None:
    """A name that the user has given already stays the user's: nothing of the sample is attached to it."""
    for tenant, name in (
        (ACME, "invoice-mailbox"),
        (ACME, "operations-chat"),
        (GLOBEX, "ledger"),
        (INITECH, "helpdesk"),
    ):
        Connector.create(tenant_id=tenant, name=name, type="API")
    Schema.create(name="purchase_order", version="9", document_type="MINE", schema_definition={}, is_active=True)

    report = seed(myloware.db)

    assert [table for table, count in report.inserted.items() if not count] == [
        "connectors",
        "tools",
        "tool_capabilities",
    ]
    assert [schema.document_type for schema in Schema.select().where(Schema.is_active)] == ["MINE"]


def test_all_or_nothing(myloware: Store) -> None:
    """If the last table refuses its rows, no table has any."""
    myloware.db.execute_sql("ALTER TABLE audit_logs ADD CONSTRAINT full_up CHECK (false)")

    with pytest.raises(ConstraintViolation):
        seed(myloware.db)

    assert {table: rows(myloware.db, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES} == dict.fromkeys(
        TABLES, 0
    )


def test_a_replayed_item_kept_its_history(seeded: Store) -> None:
    """The item whose dead letter was replayed is queued again, with the attempts that it had."""
    item = WorkItem.get_by_id(GLOBEX_REPLAYED_ITEM_ID)

    assert (item.status, item.attempt_count, item.max_attempts) == (WorkItemStatus.QUEUED, 2, 5)
    assert [letter.replayed_by for letter in item.dead_letters] == ["noor.haddad"]


@pytest.fixture
def unbound(empty_database: str) -> Iterator[StoreDatabase]:
    """Yield a database, of PostgreSQL 15 and of 18, that the models are not bound to."""
    with closing(StoreDatabase(Settings.load(empty_database))) as database:
        yield database


def test_other_servers(unbound: StoreDatabase) -> None:
    """A database that is not migrated is refused by a typed error; migrated, it is filled without an open store."""
    with pytest.raises(SchemaMismatch):
        seed(unbound)
    migrate(unbound)

    assert seed(unbound).total > 50
    assert seed(unbound).total == 0


def test_ids_are_fixed() -> None:
    """The ids are written down in tests and notes: they never change."""
    assert UUID("019438e9-4800-7000-8000-000100110000") == ACME_INVOICE_ORDER_ID
    assert UUID("019438e9-4800-7000-8000-000300130002") == ACME_LEASED_ATTEMPT_ID


@pytest.mark.parametrize("act", [seed, validate])
@pytest.mark.parametrize("database", ["postgresql://u:hunter2@h/x", None, Settings()])
def test_what_is_no_database_is_refused(act: Any, database: Any) -> None:
    """The error for a URL or settings names their type, and does not show them."""
    with pytest.raises(InvalidInput, match=r"must be a StoreDatabase, such as store\.db, not \w+$"):
        act(database)

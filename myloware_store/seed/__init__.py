"""Fills the tables with sample data that never ages: three tenants, every state, every label.

You can import the tenants, ids and times of `seed.ids` from here by name (`ACME`, `ACME_INVOICE_ORDER_ID`,
`attempt_id(...)` and so on); `seed.ids` describes each. All events are in January 2025, and leases end in 2099, so
a copy of a seeded database never goes stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.core.embedding import HashingEmbedder
from myloware_store.models import (
    ApprovalEvent,
    Attempt,
    AuditLog,
    Capability,
    Connector,
    DeadLetter,
    EvalResult,
    MemDoc,
    Run,
    Schema,
    Tool,
    ToolCapability,
    WorkflowTemplate,
    WorkItem,
    WorkOrder,
)
from myloware_store.ops.history import require_current, require_database
from myloware_store.seed import platform, records, work
from myloware_store.seed.ids import *  # noqa: F403  all of its names are public here
from myloware_store.seed.ids import ACME_UNEMBEDDED_DOC_ID

if TYPE_CHECKING:
    from uuid import UUID

    from myloware_store.db.database import StoreDatabase
    from myloware_store.seed.ledger import Row


@attrs.frozen
class SeedReport:
    """The result of `seed`.

    Attributes:
        inserted: For each table but `audit_seals`, how many rows were inserted now.
    """

    inserted: dict[str, int]

    @property
    def total(self) -> int:
        """How many rows were inserted now, 0 if all existed."""
        return sum(self.inserted.values())


def seed(database: StoreDatabase) -> SeedReport:
    """Insert the missing sample rows, in one transaction.

    An existing row, with the same id or unique name, is never changed, and no row is attached to a parent that
    could not be inserted. A second or concurrent call changes nothing.

    Args:
        database: A migrated database, such as `store.db`.

    Returns:
        How many rows were inserted into which table.

    Raises:
        InvalidInput: That is not a database.
        SchemaMismatch: The database is not migrated, or is newer than this version.
    """
    require_database(database)
    require_current(database)
    return database.transact(lambda: _fill(database))


def _fill(database: StoreDatabase) -> SeedReport:
    return SeedReport({table: _insert(database, model, rows) for table, model, rows in _tables()})


def _tables() -> list[tuple[str, Any, list[Row]]]:
    """Return the rows of every table, parents before children."""
    embedded = [row for row in records.MEMORY if row["id"] != ACME_UNEMBEDDED_DOC_ID]
    vectors = HashingEmbedder()([row["content"] for row in embedded])
    embeddings = {
        row["id"]: {"embedding": vector, "embedding_model": HashingEmbedder.name}
        for row, vector in zip(embedded, vectors, strict=True)
    }
    return [
        ("capabilities", Capability, platform.CAPABILITIES),
        ("schemas", Schema, platform.SCHEMAS),
        ("workflow_templates", WorkflowTemplate, platform.TEMPLATES),
        ("connectors", Connector, platform.CONNECTORS),
        ("tools", Tool, platform.TOOLS),
        ("tool_capabilities", ToolCapability, platform.GRANTS),
        ("work_orders", WorkOrder, work.ORDERS),
        ("work_items", WorkItem, work.ITEMS),
        ("attempts", Attempt, work.ATTEMPTS),
        ("runs", Run, records.RUNS),
        ("approval_events", ApprovalEvent, records.APPROVALS),
        ("dead_letters", DeadLetter, records.LETTERS),
        ("eval_results", EvalResult, records.EVALUATIONS),
        ("mem_docs", MemDoc, [{**row, **embeddings.get(row["id"], _NO_EMBEDDING)} for row in records.MEMORY]),
        ("audit_logs", AuditLog, records.AUDIT_LINES),
    ]


_NO_EMBEDDING = {"embedding": None, "embedding_model": None}
_PARENTS = {
    "work_order": WorkOrder,
    "work_item": WorkItem,
    "connector": Connector,
    "tool": Tool,
    "capability": Capability,
    "workflow_template": WorkflowTemplate,
}


def _insert(database: StoreDatabase, model: Any, rows: list[Row]) -> int:
    """Insert the missing rows whose parents exist, and return their number."""
    for key, parent in _PARENTS.items():
        parents = _stored(database, parent, [{"id": row[key]} for row in rows if row.get(key)])
        rows = [row for row in rows if not row.get(key) or row[key] in parents]
    if not rows:
        return 0
    return len(list(model.insert_many(rows).on_conflict_ignore().returning(model.created_at).execute(database)))


def _stored(database: StoreDatabase, model: Any, rows: list[Row]) -> set[UUID]:
    """Return the ids of the rows that exist in the database."""
    ids = {row["id"] for row in rows}
    found = model.select(model.id).where(model.id.in_(ids)).tuples().execute(database) if ids else []
    return {row_id for (row_id,) in found}

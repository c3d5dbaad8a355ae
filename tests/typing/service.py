"""A small service, for type checkers only: what an editor says of a line is what `assert_type` says here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

import numpy as np
import peewee
import pytest
from numpy.typing import NDArray

from myloware_store import (
    ApprovalEvent,
    Attempt,
    AttemptStatus,
    AuditLog,
    Capability,
    Claim,
    Connector,
    DeadLetter,
    EvalResult,
    HashingEmbedder,
    Hit,
    MemDoc,
    MemDocType,
    NeedsApproval,
    NewDoc,
    NewItem,
    Outcome,
    Priority,
    RetryPolicy,
    Run,
    Store,
    SubmitStatement,
    Tool,
    ToolCapability,
    Worker,
    WorkerReport,
    WorkflowTemplate,
    WorkItem,
    WorkItemStatus,
    WorkItemType,
    WorkOrder,
    WorkOrderStatus,
)
from pytest_myloware.factory import Factory


def submit(store: Store, texts: list[str]) -> UUID:
    """Submit mappings and `NewItem`s."""
    order = store.work.submit([NewItem(WorkItemType.INVOICE, text) for text in texts], priority="HIGH")
    assert_type(order, WorkOrder)
    store.work.submit([{"type": "TICKET", "content": "x"}, NewItem("TICKET", "y")], priority=Priority.LOW)
    store.work.submit([NewItem("TICKET", "z")], retry_policy=RetryPolicy(base=30, cap=86_400))
    store.work.submit([NewItem("TICKET", "z")], retry_policy={"jitter": 0.0}, unique_key="z")
    statement = store.work.submit_statement([NewItem("TICKET", "z")], driver="asyncpg", unique_key="z")
    assert_type(statement, SubmitStatement)
    return order.id


def handle(claim: Claim) -> Any:
    """Answer a claim, or ask a person."""
    assert_type(claim.lease_expires_at, datetime)
    assert_type(claim.cancelled, bool)
    return {"total": len(claim.content)} if claim.type is WorkItemType.TICKET else NeedsApproval({"total": 0})


def work(store: Store) -> None:
    """Run a worker, decide, and fail what is left."""
    assert_type(Worker(store, handle, types=["INVOICE"], timeout=5).run(drain=True), WorkerReport)
    for item in store.approvals.pending():
        decided = store.approvals.decide(item.id, approver_id="kim", decision="APPROVED", policy_version="1")
        assert_type(decided, ApprovalEvent)
        assert_type(decided.work_item_id, UUID)
    claims = store.work.claim("agent", n=2)
    assert_type(store.work.progress(claims[0], 50, "half of it"), bool)
    assert_type(store.work.fail(claims, [ValueError("no")] * len(claims)), dict[UUID, Outcome])
    assert_type(store.transact(lambda: store.work.release(claims)), set[UUID])
    assert_type(store.work.cancel_item(claims[0].item_id), bool)
    for letter in store.dead_letters.list():
        assert_type(letter, DeadLetter)
        assert_type(letter.work_item_id, UUID | None)
        assert_type(letter.payload, Any)


def columns(order_id: UUID) -> None:
    """Read and write columns of instances, and use those of classes in queries."""
    recent = WorkOrder.status == WorkOrderStatus.PENDING
    assert_type(recent, peewee.Expression)
    assert_type(WorkOrder.created_at.year == 2026, Any)
    for order in WorkOrder.select().where(recent, WorkOrder.id == order_id).order_by(WorkOrder.created_at.desc()):
        assert_type(order, WorkOrder)
        assert_type(order.id, UUID)
        assert_type(order.tenant_id, str)
        assert_type(order.status, WorkOrderStatus)
        assert_type(order.created_at, datetime)
        assert_type(order.created_at + timedelta(days=1), datetime)
        assert_type(order.cancelled_at, datetime | None)
        assert_type(order.workflow_id, str | None)
        assert_type(order.metadata, dict[str, Any])
        assert_type(order.open_items, int)
        order.status = "COMPLETED"
        assert_type(order.status, WorkOrderStatus)
        order.priority = Priority.URGENT
        order.open_items = WorkOrder.open_items + 1
        order.save()
        for item in order.items:
            assert_type(item, WorkItem)
            assert_type(item.work_order, WorkOrder)
            assert_type(item.work_order_id, UUID)
            assert_type(item.status, WorkItemStatus)
            assert_type(item.current_attempt_id, UUID | None)
            assert_type(item.awaiting_approval, bool)
            assert_type(item.attempts.first(), Attempt | None)
            item.work_order = order_id
            assert_type(item.work_order, WorkOrder)
    assert_type(WorkOrder.select().first(), WorkOrder | None)
    assert_type([*WorkOrder.select().iterator()], list[WorkOrder])
    assert_type(WorkOrder.select()[0], WorkOrder)
    assert_type(WorkOrder.get_or_none(WorkOrder.id == order_id), WorkOrder | None)
    assert_type(WorkOrder.create(created_by="me"), WorkOrder)
    assert_type(WorkOrder.get_or_create(idempotency_key="k", defaults={"created_by": "me"}), tuple[WorkOrder, bool])


def platform(run: Run, tool: Tool, capability: Capability, result: EvalResult, log: AuditLog) -> Iterator[object]:
    """Read the columns of the other models."""
    yield assert_type(run.workflow_template, WorkflowTemplate | None)
    yield assert_type(run.workflow_template_id, UUID | None)
    yield assert_type(tool.connector, Connector)
    yield assert_type(capability.permissions, list[Any])
    yield assert_type(result.score, float)
    yield assert_type(log.ip_address, str | None)
    yield from (assert_type(grant.tool_id, UUID) for grant in ToolCapability.select())
    yield from (assert_type(each, Tool) for each in capability.tools)


def remember(store: Store) -> NDArray[np.float32] | None:
    """Write, search and read memory."""
    vector = HashingEmbedder()(["x"])[0]
    ids = store.memory.upsert([NewDoc(MemDocType.CONTEXT, "x", vector), {"type": "CONTEXT", "content": "y"}])
    assert_type(ids, list[UUID])
    hits = store.memory.similar(vector, mode="exact") + store.memory.search_text("x", match="phrase")
    assert_type(hits, list[Hit])
    doc = MemDoc.get_by_id(ids[0])
    assert_type(doc.work_item, WorkItem | None)
    assert_type(doc.embedding, NDArray[np.float32] | None)
    doc.embedding = [1.0] * 1536
    assert_type(doc.embedding, NDArray[np.float32] | None)
    return doc.embedding


@pytest.fixture
def failed(myloware_factory: Factory) -> Attempt:
    """Make rows for tests."""
    attempt = myloware_factory.attempt(status=AttemptStatus.FAILED, work_item=myloware_factory.work_item(type="TICKET"))
    assert_type(attempt.duration_ms, int | None)
    return attempt


def refused(store: Store, order: WorkOrder, factory: Factory) -> None:
    """Make mistakes that both checkers report; a comment that is not needed would be an error as well."""
    order.status = 3  # type: ignore[assignment]  # neither a status nor its label
    order.metadata = "x"  # type: ignore[assignment]  # no object
    assert_type(order.no_such_column, Any)  # type: ignore[attr-defined]  # a misspelt column
    store.work.submit([NewItem("INVOICE")])  # type: ignore[call-arg]  # no content
    store.work.submit_statement([], driver="oracle")  # type: ignore[arg-type]  # no such driver
    store.approvals.decide(order.id, approver_id="kim", decision="MAYBE", policy_version="1")  # type: ignore[arg-type]
    store.memory.search_text("x", match="all")  # type: ignore[arg-type]  # no such way to match
    factory.work_order(colour="red")  # type: ignore[call-arg]  # no such field

"""Approvals, dead letters from outside, runs, evaluations and audit lines on a real database."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import (
    ApprovalDecision,
    ApprovalEvent,
    AuditLog,
    ConstraintViolation,
    DeadLetter,
    EvalResult,
    EvalSummary,
    InvalidInput,
    NotAwaitingApproval,
    NotFound,
    Run,
    WorkItem,
    WorkItemStatus,
    WorkOrderStatus,
)
from myloware_store.core.sql import queries_beside
from myloware_store.platform import records

if TYPE_CHECKING:
    from myloware_store import Store

_sql = queries_beside(records.__file__)


def submitted(store: Store) -> WorkItem:
    """A stored item of tenant acme."""
    with store.tenant("acme"):
        order = store.work.submit([{"type": "INVOICE", "content": "Invoice 17"}])
    return store.work.items(order.id)[0]


@pytest.fixture
def item(myloware: Store) -> WorkItem:
    """An item that waits in the queue."""
    return submitted(myloware)


@pytest.fixture
def parked(myloware: Store) -> WorkItem:
    """An item whose result waits for a decision."""
    submitted(myloware)
    (claim,) = myloware.work.claim("agent")
    myloware.work.finish([claim], [{"total": 9}], gate=True)
    return WorkItem.get_by_id(claim.item_id)


def decide(store: Store, item: WorkItem, decision: Any, **options: Any) -> ApprovalEvent:
    """Decide with the usual words."""
    return store.approvals.decide(
        item.id, approver_id="kim", decision=decision, reason="looked at it", policy_version="2026-1", **options
    )


def test_a_gated_item_waits_for_a_decision(myloware: Store, parked: WorkItem) -> None:
    """Its result is kept, it is not done, no one can claim it, and it is listed."""
    assert (WorkItemStatus.PROCESSING, True, {"total": 9}) == (parked.status, parked.awaiting_approval, parked.result)
    assert [parked] == myloware.approvals.pending()
    assert myloware.work.claim("agent") == []
    assert myloware.work.reap() == {}


@pytest.mark.parametrize(
    ("decision", "status", "order_status"),
    [
        ("APPROVED", WorkItemStatus.COMPLETED, WorkOrderStatus.COMPLETED),
        ("REJECTED", WorkItemStatus.FAILED, WorkOrderStatus.FAILED),
        ("ESCALATED", WorkItemStatus.PROCESSING, WorkOrderStatus.PROCESSING),
    ],
)
def test_a_decision_moves_item_and_order(
    myloware: Store, parked: WorkItem, decision: str, status: WorkItemStatus, order_status: WorkOrderStatus
) -> None:
    """And is written down."""
    event = decide(myloware, parked, decision)
    assert (ApprovalDecision(decision), "acme", "kim") == (event.decision, event.tenant_id, event.approver_id)
    assert status is WorkItem.get_by_id(parked.id).status
    assert order_status is myloware.work.get(parked.work_order_id).status
    assert (decision == "ESCALATED") == bool(myloware.approvals.pending())


def test_one_of_many_racing_decisions_wins(myloware: Store, parked: WorkItem) -> None:
    """The others learn that they came late, and leave no event."""
    barrier = threading.Barrier(6)

    def race(n: int) -> bool:
        barrier.wait()
        try:
            decide(myloware, parked, "APPROVED" if n % 2 else "REJECTED")
        except NotAwaitingApproval:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(race, range(6))) == 1
    assert ApprovalEvent.select().count() == 1


def test_a_parked_item_of_another_tenant_is_not_decided_on(myloware: Store, parked: WorkItem) -> None:
    """It goes on waiting, and there is no event."""
    with myloware.tenant("globex"), pytest.raises(NotFound):
        decide(myloware, parked, "APPROVED")
    assert [parked] == myloware.approvals.pending()
    assert 0 == ApprovalEvent.select().count()


def test_decisions_need_an_item_that_waits(myloware: Store, item: WorkItem) -> None:
    """Unknown items, other tenants' items and items that do not wait are typed errors."""
    with pytest.raises(NotAwaitingApproval, match="QUEUED"):
        decide(myloware, item, "APPROVED")
    with pytest.raises(NotFound):
        myloware.approvals.decide(uuid.uuid4(), approver_id="kim", decision="APPROVED", policy_version="1")
    with myloware.tenant("globex"), pytest.raises(NotFound):
        decide(myloware, item, "APPROVED")
    with pytest.raises(InvalidInput, match="MAYBE"):
        decide(myloware, item, "MAYBE")
    assert ApprovalEvent.select().count() == 0


def test_decisions_are_never_changed(myloware: Store, parked: WorkItem) -> None:
    """Not even by the models."""
    event = decide(myloware, parked, "ESCALATED")
    event.reason = "changed my mind"
    with pytest.raises(ConstraintViolation, match="append_only"):
        event.save()
    with pytest.raises(ConstraintViolation, match="append_only"):
        event.delete_instance()


def test_events_from_outside_are_kept(myloware: Store) -> None:
    """Source, type, any JSON payload and the error, for the tenant in force."""
    with myloware.tenant("acme"):
        letter = myloware.dead_letters.record("webhook", "invoice.paid", ["any", {"json": 1}], "no such invoice")
        assert [letter] == myloware.dead_letters.list()
    read = DeadLetter.get_by_id(letter.id)
    assert (["any", {"json": 1}], "acme", None) == (read.payload, read.tenant_id, read.work_item_id)
    with myloware.tenant("globex"):
        assert myloware.dead_letters.list() == []
    for bad in ({"source": ""}, {"payload": float("nan")}, {"error": None}):
        good: dict[str, Any] = {"source": "s", "event_type": "t", "payload": {}, "error": "e"}
        with pytest.raises(InvalidInput):
            myloware.dead_letters.record(**{**good, **bad})
    assert DeadLetter.select().count() == 1


@pytest.mark.parametrize("payload", [None, [], 0, "", False, {"a": None}])
def test_an_events_payload_is_any_json(myloware: Store, payload: Any) -> None:
    """JSON's null among them, which is no missing value."""
    letter = myloware.dead_letters.record("queue", "invoice.paid", payload, "")
    assert payload == letter.payload == DeadLetter.get_by_id(letter.id).payload
    assert payload == myloware.dead_letters.list()[0].payload


def test_a_run_starts_and_ends_once(myloware: Store, item: WorkItem) -> None:
    """COMPLETED, or FAILED with an error; ending it again is refused."""
    run = myloware.runs.start(item.work_order_id, context={"step": 1})
    assert (WorkOrderStatus.PROCESSING, "acme") == (run.status, run.tenant_id)
    assert Run.get_by_id(run.id).started_at == run.started_at
    done = myloware.runs.finish(run.id, context={"step": 2})
    assert (WorkOrderStatus.COMPLETED, {"step": 2}) == (done.status, done.context)
    assert run.started_at is not None
    assert done.finished_at is not None
    assert done.started_at == run.started_at < done.finished_at == Run.get_by_id(run.id).finished_at
    with pytest.raises(InvalidInput, match="COMPLETED"):
        myloware.runs.finish(run.id, error="too late")
    failed = myloware.runs.finish(myloware.runs.start(item.work_order_id).id, error="no model")
    assert (WorkOrderStatus.FAILED, "no model") == (failed.status, failed.error)
    with pytest.raises(NotFound):
        myloware.runs.start(uuid.uuid4())
    with pytest.raises(NotFound):
        myloware.runs.start(item.work_order_id, workflow_template_id=uuid.uuid4())
    assert Run.select().count() == 2


def test_racing_ends_of_a_run_make_one(myloware: Store, item: WorkItem) -> None:
    """The others learn how it ended."""
    run = myloware.runs.start(item.work_order_id)
    barrier = threading.Barrier(4)

    def end(n: int) -> str:
        barrier.wait()
        try:
            return str(myloware.runs.finish(run.id, error=None if n % 2 else "no model").status)
        except InvalidInput as late:
            return str(late)

    with ThreadPoolExecutor(4) as pool:
        ends = [*pool.map(end, range(4))]
    status = Run.get_by_id(run.id).status
    assert 1 == ends.count(status)
    assert 3 == sum(str(status) in each and "before" in each for each in ends)


def test_an_evaluation_is_recorded(myloware: Store, item: WorkItem) -> None:
    """With its numbers; scores outside 0 .. 1 are refused."""
    result = myloware.evals.record(item.id, evaluation_type="fields", score=0.5, passed=True, metrics={"n": 4})
    assert (0.5, {"n": 4}, "acme") == (result.score, result.metrics, result.tenant_id)
    for score in (1.1, -0.1, float("nan"), True, "1"):
        with pytest.raises(InvalidInput):
            myloware.evals.record(item.id, evaluation_type="fields", score=score, passed=True)  # type: ignore[arg-type]
    for passed in (1, None):
        with pytest.raises(InvalidInput, match="passed"):
            myloware.evals.record(item.id, evaluation_type="fields", score=1, passed=passed)  # type: ignore[arg-type]
    assert EvalResult.select().count() == 1


def test_evaluations_are_summed_up(myloware: Store, item: WorkItem) -> None:
    """By type, and narrowed by order, type and time; only those of the tenant in force."""
    other = submitted(myloware)
    for each, kind, score in (
        (item, "fields", 0.5),
        (item, "fields", 1.0),
        (item, "tone", 0.0),
        (other, "fields", 0.0),
    ):
        last = myloware.evals.record(each.id, evaluation_type=kind, score=score, passed=score > 0.4)
    with myloware.tenant("globex"):
        assert [] == myloware.evals.summary()
        with pytest.raises(NotFound):
            myloware.evals.summary(order_id=item.work_order_id)
    fields, tone = myloware.evals.summary()
    assert EvalSummary("fields", count=3, passed=2, mean_score=0.5, min_score=0.0, max_score=1.0) == fields
    assert EvalSummary("tone", count=1, passed=0, mean_score=0.0, min_score=0.0, max_score=0.0) == tone
    assert [fields] == myloware.evals.summary(evaluation_type="fields")
    (of_order,) = myloware.evals.summary(order_id=item.work_order_id, evaluation_type="fields")
    assert (2, 0.75) == (of_order.count, of_order.mean_score)
    assert 1 == myloware.evals.summary(since=last.created_at)[0].count
    assert 3 == sum(each.count for each in myloware.evals.summary(until=last.created_at))
    for bad in ({"since": "today"}, {"until": datetime(2026, 1, 1)}, {"evaluation_type": ""}, {"order_id": 7}):  # noqa: DTZ001
        with pytest.raises(InvalidInput, match=f"^{next(iter(bad))}: "):
            myloware.evals.summary(**bad)


def test_the_summary_of_an_order_reads_its_evaluations_only(myloware: Store, item: WorkItem) -> None:
    """By the index, however many there are of others."""
    with myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL enable_seqscan = off")
        values = {"tenant": "acme", "order_id": str(item.work_order_id), "evaluation_type": None}
        plan = myloware.db.execute_sql(
            f"EXPLAIN {_sql('summarize_evals')}", {**values, "since": None, "until": None}
        ).fetchall()
    assert "eval_results_work_item_id_idx" in str(plan)


def test_audit_lines_name_the_actor_in_force(myloware: Store, item: WorkItem) -> None:
    """They are listed for the tenant, the newest first, and can be narrowed to one resource."""
    with myloware.tenant("acme", actor="kim"):
        myloware.audit.record("item.read", "work_item", item.id, details={"why": "dispute"}, ip_address="::1")
        myloware.audit.record("order.read", "work_order", item.work_order_id)
        newest, oldest = myloware.audit.list(user_id="kim")
        assert ("order.read", "kim", "::1") == (newest.action, oldest.user_id, oldest.ip_address)
        assert [oldest] == myloware.audit.list(resource_type="work_item", resource_id=item.id)
        assert [newest] == myloware.audit.list(action="order.read", user_id="kim", until=datetime.now(UTC))
        assert [newest] == myloware.audit.list(since=newest.created_at)
        assert [oldest] == myloware.audit.list(user_id="kim", until=newest.created_at)
        assert [] == myloware.audit.list(user_id="lee")
    with myloware.tenant("globex"):
        assert myloware.audit.list() == []
    for bad in ({"since": "today"}, {"until": datetime(2026, 1, 1)}, {"action": ""}, {"user_id": 7}):  # noqa: DTZ001
        with pytest.raises(InvalidInput, match=f"^{next(iter(bad))}: "):
            myloware.audit.list(**bad)
    with pytest.raises(InvalidInput):
        myloware.audit.record("a", "b", "c", ip_address="nowhere")
    for told in ((None, "b", "c"), ("a", "", "c"), ("a", "b", None)):
        with pytest.raises(InvalidInput):
            myloware.audit.record(*told)
    with pytest.raises(ConstraintViolation, match="append_only"):
        newest.delete_instance()


@pytest.mark.parametrize(
    ("narrowed", "index"),
    [
        ({}, "audit_logs_tenant_id_created_at_idx"),
        ({"since": datetime(2026, 1, 1, tzinfo=UTC)}, "audit_logs_tenant_id_created_at_idx"),
        ({"action": "rare"}, "audit_logs_action_idx"),
        ({"user_id": "rare"}, "audit_logs_user_id_idx"),
        ({"resource_type": "rare", "resource_id": "1"}, "audit_logs_resource_idx"),
    ],
)
def test_what_audit_lines_are_narrowed_by_has_an_index(
    myloware: Store, myloware_assert_num_queries: Any, narrowed: dict[str, Any], index: str
) -> None:
    """A user of few lines is found among many without reading the others."""
    row = {"tenant_id": "acme", "user_id": "u", "action": "a", "resource_type": "t", "resource_id": "1"}
    began = datetime(2026, 2, 1, tzinfo=UTC)
    AuditLog.insert_many([{**row, "created_at": began + timedelta(seconds=n)} for n in range(5000)]).execute()
    myloware.db.execute_sql("ANALYZE audit_logs")
    with myloware.tenant("acme"), myloware_assert_num_queries(1) as queries:
        myloware.audit.list(**narrowed)
    assert index in queries.explain()

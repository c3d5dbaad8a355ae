"""The sample records beside the work: runs, decisions, dead letters, evaluations, memory and audit lines."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from myloware_store.core.enums import ApprovalDecision, MemDocType, WorkOrderStatus
from myloware_store.seed import ids
from myloware_store.seed.ids import ACME, GLOBEX, INITECH, Kind, at, attempt_id, fixed_id, related_id
from myloware_store.seed.ledger import Row
from myloware_store.seed.work import ATTEMPTS, ITEMS

__all__ = ["APPROVALS", "AUDIT_LINES", "EVALUATIONS", "LETTERS", "MEMORY", "RUNS"]

_ITEM = {row["id"]: row for row in ITEMS}
_ATTEMPT = {row["id"]: row for row in ATTEMPTS}


def _run(run_id: UUID, order_id: UUID, status: WorkOrderStatus, started_at: datetime | None, **values: Any) -> Row:
    row = {"id": run_id, "tenant_id": ACME, "work_order": order_id, "status": status, "started_at": started_at}
    row |= {"workflow_template": None, "context": {}, "error": None, "finished_at": None, **values}
    made_at = started_at or at(4, 16)
    return {**row, "created_at": made_at, "updated_at": row["finished_at"] or made_at}


RUNS: list[Row] = [
    _run(
        ids.ACME_COMPLETED_RUN_ID,
        ids.ACME_INVOICE_ORDER_ID,
        WorkOrderStatus.COMPLETED,
        at(0, 8, 1),
        workflow_template=ids.INVOICE_TEMPLATE_ID,
        context={"step": "booked", "approved": 1},
        finished_at=at(0, 10, 31),
    ),
    _run(
        ids.ACME_PROCESSING_RUN_ID,
        ids.ACME_TICKET_ORDER_ID,
        WorkOrderStatus.PROCESSING,
        at(1, 9),
        workflow_template=ids.TICKET_TEMPLATE_ID,
        context={"step": "triage"},
    ),
    _run(ids.ACME_PENDING_RUN_ID, ids.ACME_REPORT_ORDER_ID, WorkOrderStatus.PENDING, None),
    _run(
        ids.ACME_FAILED_RUN_ID,
        ids.ACME_DISPUTE_ORDER_ID,
        WorkOrderStatus.FAILED,
        at(2, 8),
        workflow_template=ids.OLD_INVOICE_TEMPLATE_ID,
        context={"step": "extract"},
        error="2 of 2 items failed",
        finished_at=at(2, 11, 1),
    ),
]


def _approval(item_id: UUID, place: int, decision: ApprovalDecision, created_at: datetime, **values: Any) -> Row:
    row = {"id": related_id(item_id, Kind.APPROVAL, place), "work_item": item_id, "decision": decision}
    row |= {"tenant_id": _ITEM[item_id]["tenant_id"], "created_at": created_at, "policy_version": "2025-01"}
    return {**row, **values}


APPROVALS: list[Row] = [
    _approval(
        ids.ACME_APPROVED_ITEM_ID,
        1,
        ApprovalDecision.ESCALATED,
        at(0, 9),
        approver_id="li.wei",
        reason="Above my limit of EUR 10,000",
    ),
    _approval(
        ids.ACME_APPROVED_ITEM_ID,
        2,
        ApprovalDecision.APPROVED,
        at(0, 10, 30),
        approver_id="amara.diallo",
        reason="Matches purchase order 4417",
    ),
    _approval(
        ids.ACME_REJECTED_ITEM_ID,
        1,
        ApprovalDecision.REJECTED,
        at(2, 11),
        approver_id="amara.diallo",
        reason="No contract with this supplier",
    ),
    _approval(
        ids.GLOBEX_AWAITING_ITEM_ID, 1, ApprovalDecision.ESCALATED, at(3, 9), approver_id="noor.haddad", reason=None
    ),
]


def _letter(letter_id: UUID, tenant: str, created_at: datetime, **values: Any) -> Row:
    row = {"id": letter_id, "tenant_id": tenant, "created_at": created_at, "updated_at": created_at}
    row |= {"work_item": None, "retry_count": 0, "replayed_at": None, "replayed_by": None}
    return {**row, **values}


def _item_letter(item_id: UUID, letter_id: UUID, **values: Any) -> Row:
    """The letter that the last attempt at an item left."""
    item = _ITEM[item_id]
    attempt = _ATTEMPT[attempt_id(item_id, item["attempt_count"])]
    return _letter(
        letter_id,
        item["tenant_id"],
        attempt["finished_at"],
        source="work_items",
        event_type=item["type"].value,
        payload={"work_item_id": str(item_id), "attempt_id": str(attempt["id"]), "content": item["content"]},
        error=attempt["error"],
        retry_count=item["attempt_count"] - 1,
        work_item=item_id,
        **values,
    )


LETTERS: list[Row] = [
    _item_letter(ids.ACME_BURIED_ITEM_ID, ids.ACME_ITEM_LETTER_ID),
    _item_letter(
        ids.GLOBEX_REPLAYED_ITEM_ID,
        ids.GLOBEX_ITEM_LETTER_ID,
        replayed_at=at(3, 12),
        replayed_by="noor.haddad",
        updated_at=at(3, 12),
    ),
    _item_letter(ids.INITECH_TIMED_OUT_ITEM_ID, ids.INITECH_ITEM_LETTER_ID),
    _letter(
        ids.ACME_WEBHOOK_LETTER_ID,
        ACME,
        at(1, 14),
        source="mail-gateway",
        event_type="message.received",
        payload={"message_id": "<7f3a@mail.northwind.example>", "attachments": 0},
        error="AttachmentMissing: the message promises an invoice and holds none",
        retry_count=3,
    ),
    _letter(
        ids.GLOBEX_WEBHOOK_LETTER_ID,
        GLOBEX,
        at(2, 6),
        source="portal-webhook",
        event_type="order.updated",
        payload={"order": "SO-20117", "status": "shipped"},
        error="HTTP 503 from the ledger",
        retry_count=5,
        replayed_at=at(2, 7),
        replayed_by="ops",
        updated_at=at(2, 7),
    ),
]


def _evaluation(item_id: UUID, kind: str, score: float, metrics: Row) -> Row:
    item = _ITEM[item_id]
    row = {"id": related_id(item_id, Kind.EVALUATION), "tenant_id": item["tenant_id"], "work_item": item_id}
    row |= {"evaluation_type": kind, "score": score, "metrics": metrics, "passed": score >= 0.8}  # noqa: PLR2004
    return {**row, "created_at": item["updated_at"]}


EVALUATIONS: list[Row] = [
    _evaluation(ids.ACME_RETRIED_ITEM_ID, "field_accuracy", 1.0, {"fields": 4, "right": 4}),
    _evaluation(ids.ACME_APPROVED_ITEM_ID, "field_accuracy", 0.75, {"fields": 4, "right": 3, "wrong": ["due"]}),
    _evaluation(ids.ACME_SOLVED_ITEM_ID, "answer_quality", 0.9, {"judge": "rubric-2", "criteria": 5}),
    _evaluation(ids.GLOBEX_REPORT_ITEM_ID, "summary_coverage", 0.4, {"sentences": 5, "covered": 2}),
]


def _memory(doc_id: UUID, tenant: str, kind: MemDocType, content: str, **values: Any) -> Row:
    row = {"id": doc_id, "tenant_id": tenant, "type": kind, "content": content, "work_item": None}
    return {**row, "metadata": {}, "created_at": at(0, 7), "updated_at": at(0, 7), **values}


def _item_memory(doc_id: UUID, item_id: UUID, content: str) -> Row:
    item = _ITEM[item_id]
    made = {"created_at": item["updated_at"], "updated_at": item["updated_at"], "metadata": {"agent": "memory-1"}}
    return _memory(doc_id, item["tenant_id"], MemDocType.CONTEXT, content, work_item=item_id, **made)


MEMORY: list[Row] = [
    _item_memory(
        ids.ACME_INVOICE_DOC_ID,
        ids.ACME_RETRIED_ITEM_ID,
        "Northwind Paper invoiced EUR 1,023.40 for copy paper (NW-2025-0031), due on 5 February 2025.",
    ),
    _item_memory(
        ids.ACME_SOLVED_DOC_ID,
        ids.ACME_SOLVED_ITEM_ID,
        "Drivers who change their telephone number must have it registered in their profile before they sign in.",
    ),
    _memory(
        ids.ACME_LATE_FEE_DOC_ID,
        ACME,
        MemDocType.KNOWLEDGE,
        "Acme pays a late fee only if the supplier announced it on the invoice, and never more than 2 % a month.",
        metadata={"source": "payment-policy", "version": 3, "tags": ["finance", "suppliers"]},
    ),
    _memory(
        ids.ACME_REMINDER_DOC_ID,
        ACME,
        MemDocType.TEMPLATE,
        "Dear {name}, our payment of {amount} for invoice {number} left on {date}. Kind regards, Acme accounts payable",
        metadata={"language": "en"},
    ),
    _memory(
        ids.ACME_UNEMBEDDED_DOC_ID,
        ACME,
        MemDocType.KNOWLEDGE,
        "The gate scanners are updated on the first Monday of every month, after 20:00.",
        metadata={"source": "operations-handbook"},
    ),
    _item_memory(
        ids.GLOBEX_REPORT_DOC_ID,
        ids.GLOBEX_REPORT_ITEM_ID,
        "The new plant in Tromso has its foundations; frost may delay the roof by two weeks.",
    ),
    _memory(
        ids.GLOBEX_LIMIT_DOC_ID,
        GLOBEX,
        MemDocType.KNOWLEDGE,
        "At Globex, invoices of more than GBP 10,000 need the approval of the head of finance.",
        metadata={"source": "approval-policy", "limit": 10000},
    ),
    _memory(
        ids.INITECH_BACKUP_DOC_ID,
        INITECH,
        MemDocType.KNOWLEDGE,
        "Print server logs are kept for 14 days and archived every night at 02:30.",
    ),
]


def _audit(number: int, tenant: str, created_at: datetime, user: str, action: str, **values: Any) -> Row:
    row = {"id": fixed_id(Kind.AUDIT, number), "tenant_id": tenant, "created_at": created_at, "user_id": user}
    return {**row, "action": action, "details": {}, "ip_address": None, **values}


def _about(kind: str, row_id: UUID) -> Row:
    return {"resource_type": kind, "resource_id": str(row_id)}


AUDIT_LINES: list[Row] = [
    _audit(0x01, "*", at(-3, 9), "amara.diallo", "schema.activate", **_about("schema", ids.ACTIVE_SCHEMA_ID)),
    _audit(0x11, ACME, at(0, 8), "intake", "work_order.submit", **_about("work_order", ids.ACME_INVOICE_ORDER_ID)),
    _audit(
        0x12,
        ACME,
        at(0, 10, 30),
        "amara.diallo",
        "approval.decide",
        details={"decision": "APPROVED", "amount": 21658.00},
        ip_address="203.0.113.24",
        **_about("work_item", ids.ACME_APPROVED_ITEM_ID),
    ),
    _audit(
        0x21,
        GLOBEX,
        at(3, 12),
        "noor.haddad",
        "dead_letter.replay",
        details={"extra_attempts": 3},
        ip_address="2001:db8::17",
        **_about("dead_letter", ids.GLOBEX_ITEM_LETTER_ID),
    ),
    _audit(
        0x31, INITECH, at(2, 13), "intake", "work_order.submit", **_about("work_order", ids.INITECH_TICKET_ORDER_ID)
    ),
]

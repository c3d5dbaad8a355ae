"""The sample orders: one in every state, with their items and attempts."""

from __future__ import annotations

from myloware_store.core.enums import Priority, WorkItemStatus, WorkItemType
from myloware_store.seed import ids
from myloware_store.seed.ids import ACME, GLOBEX, INITECH, LEASED_UNTIL, at
from myloware_store.seed.ledger import Item, Row, Try, new_order, timed_out

__all__ = ["ATTEMPTS", "ITEMS", "ORDERS"]

_INVOICE, _TICKET, _REPORT = WorkItemType.INVOICE, WorkItemType.TICKET, WorkItemType.STATUS_REPORT
_QUEUED, _PROCESSING = WorkItemStatus.QUEUED, WorkItemStatus.PROCESSING
_COMPLETED, _FAILED = WorkItemStatus.COMPLETED, WorkItemStatus.FAILED

_WORK: tuple[tuple[Row, tuple[Item, ...]], ...] = (
    (
        new_order(
            ids.ACME_INVOICE_ORDER_ID,
            ACME,
            at(0, 8),
            priority=Priority.HIGH,
            workflow_id="invoice-approval",
            metadata={"channel": "email", "batch": 118},
            idempotency_key="mail-118",
        ),
        (
            Item(
                ids.ACME_RETRIED_ITEM_ID,
                _INVOICE,
                _COMPLETED,
                "Invoice NW-2025-0031 from Northwind Paper to Acme. 40 boxes of copy paper at 21.50, total EUR 860.00"
                " plus 19 % VAT, EUR 1,023.40 in all. Due on 5 February 2025. A late fee of 2 % applies after that.",
                (
                    Try("reader-1", at(0, 8, 5), 31, "ModelTimeout: no answer within 30 s"),
                    Try("reader-2", at(0, 8, 6), 4),
                ),
                {"number": "NW-2025-0031", "supplier": "Northwind Paper", "total": 1023.40, "due": "2025-02-05"},
            ),
            Item(
                ids.ACME_APPROVED_ITEM_ID,
                _INVOICE,
                _COMPLETED,
                "Invoice 7741 from Halden Tools to Acme. One press brake, model HB-40, EUR 18,200.00 plus 19 % VAT,"
                " EUR 21,658.00 in all. Due within 30 days of 3 January 2025. Freight and assembly are included.",
                (Try("reader-1", at(0, 8, 7), 6),),
                {"number": "7741", "supplier": "Halden Tools", "total": 21658.00, "due": "2025-02-02"},
                moved_at=at(0, 10, 30),
            ),
        ),
    ),
    (
        new_order(ids.ACME_TICKET_ORDER_ID, ACME, at(1, 9), priority=Priority.URGENT, workflow_id="ticket-triage"),
        (
            Item(
                ids.ACME_LEASED_ITEM_ID,
                _TICKET,
                _PROCESSING,
                "Ticket 5120: the parcel scanner at gate 4 freezes after every twentieth parcel since the update of"
                " Monday evening. Restarting takes three minutes. Severity: high.",
                (timed_out("triage-1", at(1, 9, 1)), Try("triage-2", at(1, 9, 10), progress=60)),
            ),
            Item(
                ids.ACME_TIMED_OUT_ITEM_ID,
                _TICKET,
                _QUEUED,
                "Ticket 5121: the monthly export of customs data stops at 62 % without an error message. Expected: a"
                " file of about 90 MB, as in December.",
                (timed_out("triage-1", at(1, 9, 2)),),
                available_at=at(1, 9, 8),
            ),
            Item(
                ids.ACME_SOLVED_ITEM_ID,
                _TICKET,
                _COMPLETED,
                "Ticket 5119: a driver cannot sign in to the mobile app after changing his telephone number.",
                (Try("triage-2", at(1, 9, 3), 12),),
                {
                    "category": "access",
                    "answer": "Register the new number in the driver's profile, then sign in again.",
                },
            ),
        ),
    ),
    (
        new_order(
            ids.ACME_REPORT_ORDER_ID,
            ACME,
            at(4, 16),
            priority=Priority.LOW,
            created_by="scheduler",
            unique_key="weekly-report",
        ),
        (
            Item(
                ids.ACME_QUEUED_ITEM_ID,
                _REPORT,
                _QUEUED,
                "Status report, week 2: warehouse automation. Conveyor B is installed and tested. Open: the licence for"
                " the sorting software, expected on 14 January. Budget: 71 % spent, on track.",
            ),
            Item(
                ids.ACME_LATER_ITEM_ID,
                _REPORT,
                _QUEUED,
                "Status report, week 2: fleet renewal. Six of ten vans are delivered. The remaining four are delayed by"
                " the manufacturer to March.",
                available_at=LEASED_UNTIL,
            ),
        ),
    ),
    (
        new_order(ids.ACME_DISPUTE_ORDER_ID, ACME, at(2, 8), workflow_id="invoice-approval"),
        (
            Item(
                ids.ACME_BURIED_ITEM_ID,
                _INVOICE,
                _FAILED,
                "Invoice scan, page 1 of 1: [unreadable] ... total [unreadable] ... thank you for your business.",
                (
                    Try("reader-1", at(2, 8, 1), 8, "NoTotalFound: the page holds no readable amount"),
                    Try("reader-1", at(2, 8, 4), 8, "NoTotalFound: the page holds no readable amount"),
                ),
                max_attempts=2,
            ),
            Item(
                ids.ACME_REJECTED_ITEM_ID,
                _INVOICE,
                _FAILED,
                "Invoice 2025-9 from Quickfix Consulting to Acme. Consulting services, EUR 9,900.00. Payable at once.",
                (Try("reader-2", at(2, 8, 2), 5),),
                {"number": "2025-9", "supplier": "Quickfix Consulting", "total": 9900.00, "due": "2025-01-08"},
                moved_at=at(2, 11),
            ),
        ),
    ),
    (
        new_order(
            ids.GLOBEX_APPROVAL_ORDER_ID, GLOBEX, at(3, 7), priority=Priority.HIGH, metadata={"channel": "portal"}
        ),
        (
            Item(
                ids.GLOBEX_AWAITING_ITEM_ID,
                _INVOICE,
                _PROCESSING,
                "Invoice CR-88 from Cranfield Steel to Globex. 12 t of structural steel, GBP 14,640.00 including VAT."
                " Due on 31 January 2025.",
                (Try("reader-7", at(3, 7, 1), 7),),
                {"number": "CR-88", "supplier": "Cranfield Steel", "total": 14640.00, "due": "2025-01-31"},
                awaiting_approval=True,
            ),
        ),
    ),
    (
        new_order(ids.GLOBEX_REPLAYED_ORDER_ID, GLOBEX, at(3, 8), created_by="helpdesk"),
        (
            Item(
                ids.GLOBEX_REPLAYED_ITEM_ID,
                _TICKET,
                _QUEUED,
                "Ticket G-311: the price list on the portal still shows last year's prices for customers in Norway.",
                (
                    Try("triage-9", at(3, 8, 1), 2, "ConnectionRefused: ledger database"),
                    Try("triage-9", at(3, 8, 3), 2, "ConnectionRefused: ledger database"),
                ),
                moved_at=at(3, 12),
                available_at=at(3, 12),
            ),
            Item(
                ids.GLOBEX_DONE_ITEM_ID,
                _TICKET,
                _COMPLETED,
                "Ticket G-310: please resend the order confirmation of 6 January, the attachment was empty.",
                (Try("triage-9", at(3, 8, 2), 9),),
                {"category": "orders", "answer": "The confirmation was sent again, with its attachment."},
            ),
        ),
    ),
    (
        new_order(
            ids.GLOBEX_REPORT_ORDER_ID,
            GLOBEX,
            at(4, 15),
            priority=Priority.LOW,
            created_by="scheduler",
            unique_key="weekly-report",
        ),
        (
            Item(
                ids.GLOBEX_REPORT_ITEM_ID,
                _REPORT,
                _COMPLETED,
                "Status report, week 2: new plant in Tromso. Foundations finished. Risk: frost may delay the roof by"
                " two weeks. Next steps: order the cranes.",
                (Try("reporter-1", at(4, 15, 2), 15),),
                {"summary": "Foundations finished; frost may delay the roof.", "risks": ["frost"]},
            ),
        ),
    ),
    (
        new_order(ids.INITECH_TICKET_ORDER_ID, INITECH, at(2, 13), priority=Priority.URGENT),
        (
            Item(
                ids.INITECH_TIMED_OUT_ITEM_ID,
                _TICKET,
                _FAILED,
                "Ticket 17: attached is the full log of the print server, please find out why the cover sheets vanish.",
                tuple(timed_out("triage-3", at(2, 13, minute)) for minute in (1, 10, 20)),
                max_attempts=3,
            ),
        ),
    ),
    (
        new_order(ids.INITECH_INVOICE_ORDER_ID, INITECH, at(4, 9)),
        (
            Item(
                ids.INITECH_QUEUED_ITEM_ID,
                _INVOICE,
                _QUEUED,
                "Invoice 4400 from Chotchkie Catering to Initech. Lunch for 24 people on 9 January 2025, USD 412.80."
                " Due on receipt.",
            ),
        ),
    ),
)

ORDERS: list[Row] = [
    {**order, "updated_at": max(item.row(order)["updated_at"] for item in items)} for order, items in _WORK
]
ITEMS: list[Row] = [item.row(order) for order, items in _WORK for item in items]
ATTEMPTS: list[Row] = [row for order, items in _WORK for item in items for row in item.attempt_rows(order)]

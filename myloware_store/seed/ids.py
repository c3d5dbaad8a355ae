"""The fixed ids and times of the sample data.

The ids look like UUIDv7s of one moment, and end in three groups of four hexadecimal digits: the kind of row, its
number, and its place among the rows of the same item.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final
from uuid import UUID

ACME: Final = "acme"
GLOBEX: Final = "globex"
INITECH: Final = "initech"

LEASED_UNTIL: Final = datetime(2099, 12, 31, tzinfo=UTC)
"""The end of the lease of the running attempt."""


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """Return a time in the week of the sample data; day 0 is Monday, 6 January 2025, UTC."""
    return datetime(2025, 1, 6, tzinfo=UTC) + timedelta(days=day, hours=hour, minutes=minute)


class Kind(IntEnum):
    """The kind of row of an id."""

    ORDER = 1
    ITEM = 2
    ATTEMPT = 3
    MEMORY = 4
    APPROVAL = 5
    LETTER = 6
    CONNECTOR = 7
    TOOL = 8
    CAPABILITY = 9
    SCHEMA = 10
    TEMPLATE = 11
    RUN = 12
    EVALUATION = 13
    AUDIT = 14


def fixed_id(kind: Kind, number: int) -> UUID:
    """Return the id of a row by its kind and number; the tens digit of the number is the tenant, if it has one."""
    return UUID(f"019438e9-4800-7000-8000-{kind:04x}{number:04x}0000")


def related_id(row_id: UUID, kind: Kind, place: int = 1) -> UUID:
    """Return the id of a row of another kind that belongs to this one, such as an item's second attempt."""
    return UUID(f"{str(row_id)[:24]}{kind:04x}{str(row_id)[28:32]}{place:04x}")


def attempt_id(item_id: UUID, attempt_number: int) -> UUID:
    """Return the id of an attempt at a sample item; numbers begin with 1."""
    return related_id(item_id, Kind.ATTEMPT, attempt_number)


ACME_INVOICE_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x11)  # COMPLETED
ACME_TICKET_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x12)  # PROCESSING
ACME_REPORT_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x13)  # PENDING
ACME_DISPUTE_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x14)  # FAILED
GLOBEX_APPROVAL_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x21)  # PROCESSING
GLOBEX_REPLAYED_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x22)  # PROCESSING
GLOBEX_REPORT_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x23)  # COMPLETED
INITECH_TICKET_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x31)  # FAILED
INITECH_INVOICE_ORDER_ID: Final = fixed_id(Kind.ORDER, 0x32)  # PENDING

ACME_RETRIED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x11)  # COMPLETED by its second attempt
ACME_APPROVED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x12)  # COMPLETED after an escalation and an approval
ACME_LEASED_ITEM_ID: Final = fixed_id(
    Kind.ITEM, 0x13
)  # PROCESSING, its first attempt timed out, its second is under way
ACME_TIMED_OUT_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x14)  # QUEUED again after a timeout
ACME_SOLVED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x15)  # COMPLETED
ACME_QUEUED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x16)  # QUEUED, never tried
ACME_LATER_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x17)  # QUEUED, not to be claimed before 2099
ACME_BURIED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x18)  # FAILED, with an open dead letter
ACME_REJECTED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x19)  # FAILED by a person's decision
GLOBEX_AWAITING_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x21)  # PROCESSING, awaits approval
GLOBEX_REPLAYED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x22)  # QUEUED again by the replay of its dead letter
GLOBEX_DONE_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x23)  # COMPLETED
GLOBEX_REPORT_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x24)  # COMPLETED
INITECH_TIMED_OUT_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x31)  # FAILED by timeouts only, with an open dead letter
INITECH_QUEUED_ITEM_ID: Final = fixed_id(Kind.ITEM, 0x32)  # QUEUED, never tried

ACME_LEASED_ATTEMPT_ID: Final = attempt_id(ACME_LEASED_ITEM_ID, 2)  # STARTED

ACME_ITEM_LETTER_ID: Final = related_id(ACME_BURIED_ITEM_ID, Kind.LETTER)  # open
ACME_WEBHOOK_LETTER_ID: Final = fixed_id(Kind.LETTER, 0x1A)  # open, without an item
GLOBEX_ITEM_LETTER_ID: Final = related_id(GLOBEX_REPLAYED_ITEM_ID, Kind.LETTER)  # replayed
GLOBEX_WEBHOOK_LETTER_ID: Final = fixed_id(Kind.LETTER, 0x2A)  # replayed, without an item
INITECH_ITEM_LETTER_ID: Final = related_id(INITECH_TIMED_OUT_ITEM_ID, Kind.LETTER)  # open

ACME_INVOICE_DOC_ID: Final = related_id(ACME_RETRIED_ITEM_ID, Kind.MEMORY)  # CONTEXT of an item
ACME_SOLVED_DOC_ID: Final = related_id(ACME_SOLVED_ITEM_ID, Kind.MEMORY)  # CONTEXT of an item
ACME_LATE_FEE_DOC_ID: Final = fixed_id(Kind.MEMORY, 0x1A)  # KNOWLEDGE
ACME_REMINDER_DOC_ID: Final = fixed_id(Kind.MEMORY, 0x1B)  # TEMPLATE
ACME_UNEMBEDDED_DOC_ID: Final = fixed_id(Kind.MEMORY, 0x1C)  # KNOWLEDGE, without an embedding
GLOBEX_REPORT_DOC_ID: Final = related_id(GLOBEX_REPORT_ITEM_ID, Kind.MEMORY)  # CONTEXT of an item
GLOBEX_LIMIT_DOC_ID: Final = fixed_id(Kind.MEMORY, 0x2A)  # KNOWLEDGE
INITECH_BACKUP_DOC_ID: Final = fixed_id(Kind.MEMORY, 0x3A)  # KNOWLEDGE

ACME_MAIL_CONNECTOR_ID: Final = fixed_id(Kind.CONNECTOR, 0x11)  # EMAIL, ACTIVE
ACME_CHAT_CONNECTOR_ID: Final = fixed_id(Kind.CONNECTOR, 0x12)  # SLACK, ACTIVE
GLOBEX_LEDGER_CONNECTOR_ID: Final = fixed_id(Kind.CONNECTOR, 0x21)  # DATABASE, ERROR
INITECH_HELPDESK_CONNECTOR_ID: Final = fixed_id(Kind.CONNECTOR, 0x31)  # API, INACTIVE

ACME_READ_MAIL_TOOL_ID: Final = fixed_id(Kind.TOOL, 0x11)
ACME_POST_MESSAGE_TOOL_ID: Final = fixed_id(Kind.TOOL, 0x12)
GLOBEX_LOOKUP_TOOL_ID: Final = fixed_id(Kind.TOOL, 0x21)
INITECH_ANSWER_TOOL_ID: Final = fixed_id(Kind.TOOL, 0x31)  # not active

READ_CAPABILITY_ID: Final = fixed_id(Kind.CAPABILITY, 1)
WRITE_CAPABILITY_ID: Final = fixed_id(Kind.CAPABILITY, 2)
NOTIFY_CAPABILITY_ID: Final = fixed_id(Kind.CAPABILITY, 3)

OLD_SCHEMA_ID: Final = fixed_id(Kind.SCHEMA, 1)
ACTIVE_SCHEMA_ID: Final = fixed_id(Kind.SCHEMA, 2)
DRAFT_SCHEMA_ID: Final = fixed_id(Kind.SCHEMA, 3)

INVOICE_TEMPLATE_ID: Final = fixed_id(Kind.TEMPLATE, 1)  # active
TICKET_TEMPLATE_ID: Final = fixed_id(Kind.TEMPLATE, 2)  # active
OLD_INVOICE_TEMPLATE_ID: Final = fixed_id(Kind.TEMPLATE, 3)

ACME_COMPLETED_RUN_ID: Final = related_id(ACME_INVOICE_ORDER_ID, Kind.RUN)
ACME_PROCESSING_RUN_ID: Final = related_id(ACME_TICKET_ORDER_ID, Kind.RUN)
ACME_PENDING_RUN_ID: Final = related_id(ACME_REPORT_ORDER_ID, Kind.RUN)
ACME_FAILED_RUN_ID: Final = related_id(ACME_DISPUTE_ORDER_ID, Kind.RUN)

ACME_PASSED_EVAL_ID: Final = related_id(ACME_RETRIED_ITEM_ID, Kind.EVALUATION)
ACME_FAILED_EVAL_ID: Final = related_id(ACME_APPROVED_ITEM_ID, Kind.EVALUATION)

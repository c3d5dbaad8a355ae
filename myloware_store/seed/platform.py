"""The sample catalogue: connectors, tools and capabilities, schemas, workflow templates."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from myloware_store.core.enums import ConnectorStatus, ConnectorType
from myloware_store.seed import ids
from myloware_store.seed.ids import ACME, GLOBEX, INITECH, at
from myloware_store.seed.ledger import Row

__all__ = ["CAPABILITIES", "CONNECTORS", "GRANTS", "SCHEMAS", "TEMPLATES", "TOOLS"]

_MADE = {"created_at": at(-3, 8), "updated_at": at(-3, 8)}


def _connector(
    row_id: UUID,
    tenant: str,
    name: str,
    kind: ConnectorType,
    status: ConnectorStatus,
    *,
    checked_at: datetime | None = None,
    **config: Any,
) -> Row:
    row = {"id": row_id, "tenant_id": tenant, "name": name, "type": kind, "status": status, "config": config}
    return {**row, "last_health_check": checked_at, **_MADE}


CONNECTORS: list[Row] = [
    _connector(
        ids.ACME_MAIL_CONNECTOR_ID,
        ACME,
        "invoice-mailbox",
        ConnectorType.EMAIL,
        ConnectorStatus.ACTIVE,
        host="imap.acme.example",
        folder="Invoices",
        checked_at=at(4, 16, 55),
    ),
    _connector(
        ids.ACME_CHAT_CONNECTOR_ID,
        ACME,
        "operations-chat",
        ConnectorType.SLACK,
        ConnectorStatus.ACTIVE,
        channel="#operations",
        checked_at=at(4, 16, 55),
    ),
    _connector(
        ids.GLOBEX_LEDGER_CONNECTOR_ID,
        GLOBEX,
        "ledger",
        ConnectorType.DATABASE,
        ConnectorStatus.ERROR,
        host="ledger.globex.example",
        database="ledger",
        last_error="connection refused",
        checked_at=at(3, 8, 3),
    ),
    _connector(
        ids.INITECH_HELPDESK_CONNECTOR_ID,
        INITECH,
        "helpdesk",
        ConnectorType.API,
        ConnectorStatus.INACTIVE,
        base_url="https://helpdesk.initech.example/api/v2",
    ),
]


def _tool(row_id: UUID, tenant: str, connector: UUID, name: str, description: str, **values: Any) -> Row:
    row = {"id": row_id, "tenant_id": tenant, "connector": connector, "name": name, "description": description}
    return {**row, "is_active": True, **values, **_MADE}


def _arguments(**properties: str) -> Row:
    """A JSON Schema of required arguments, by their types."""
    kinds = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": kinds, "required": list(kinds)}


TOOLS: list[Row] = [
    _tool(
        ids.ACME_READ_MAIL_TOOL_ID,
        ACME,
        ids.ACME_MAIL_CONNECTOR_ID,
        "read_mail",
        "Read unseen messages with their attachments",
        schema=_arguments(limit="integer"),
    ),
    _tool(
        ids.ACME_POST_MESSAGE_TOOL_ID,
        ACME,
        ids.ACME_CHAT_CONNECTOR_ID,
        "post_message",
        "Post a message to the channel",
        schema=_arguments(text="string"),
    ),
    _tool(
        ids.GLOBEX_LOOKUP_TOOL_ID,
        GLOBEX,
        ids.GLOBEX_LEDGER_CONNECTOR_ID,
        "look_up_order",
        "Find an order by its number",
        schema=_arguments(number="string"),
    ),
    _tool(
        ids.INITECH_ANSWER_TOOL_ID,
        INITECH,
        ids.INITECH_HELPDESK_CONNECTOR_ID,
        "answer_ticket",
        "Write an answer to a ticket",
        schema=_arguments(ticket="integer", text="string"),
        is_active=False,
    ),
]


def _capability(row_id: UUID, name: str, scope: str, description: str, *permissions: str) -> Row:
    row = {"id": row_id, "name": name, "scope": scope, "description": description}
    return {**row, "permissions": list(permissions), **_MADE}


CAPABILITIES: list[Row] = [
    _capability(ids.READ_CAPABILITY_ID, "records.read", "records", "Read business records", "read", "search"),
    _capability(ids.WRITE_CAPABILITY_ID, "records.write", "records", "Change business records", "read", "write"),
    _capability(ids.NOTIFY_CAPABILITY_ID, "people.notify", "people", "Send messages to people", "send"),
]

GRANTS: list[Row] = [
    {"tenant_id": tenant, "tool": tool, "capability": capability, "created_at": _MADE["created_at"]}
    for tenant, tool, capability in (
        (ACME, ids.ACME_READ_MAIL_TOOL_ID, ids.READ_CAPABILITY_ID),
        (ACME, ids.ACME_POST_MESSAGE_TOOL_ID, ids.NOTIFY_CAPABILITY_ID),
        (GLOBEX, ids.GLOBEX_LOOKUP_TOOL_ID, ids.READ_CAPABILITY_ID),
        (INITECH, ids.INITECH_ANSWER_TOOL_ID, ids.WRITE_CAPABILITY_ID),
        (INITECH, ids.INITECH_ANSWER_TOOL_ID, ids.NOTIFY_CAPABILITY_ID),
    )
]


def _schema(row_id: UUID, name: str, version: str, definition: Row, *, is_active: bool = False) -> Row:
    row = {"id": row_id, "name": name, "version": version, "document_type": name.upper(), "is_active": is_active}
    return {**row, "schema_definition": definition, **_MADE}


# The active schema is for a type without sample items, because the sample documents are plain text.
SCHEMAS: list[Row] = [
    _schema(ids.OLD_SCHEMA_ID, "purchase_order", "1.0.0", _arguments(number="string", total="number")),
    _schema(
        ids.ACTIVE_SCHEMA_ID,
        "purchase_order",
        "1.1.0",
        _arguments(number="string", total="number", currency="string"),
        is_active=True,
    ),
    _schema(ids.DRAFT_SCHEMA_ID, "invoice", "0.9.0", _arguments(number="string", supplier="string", total="number")),
]


def _template(row_id: UUID, name: str, description: str, steps: list[str], *, is_active: bool = True) -> Row:
    row = {"id": row_id, "name": name, "description": description, "is_active": is_active}
    document_type = name.partition("-")[0].upper()
    return {**row, "document_type": document_type, "workflow_definition": {"steps": steps}, **_MADE}


TEMPLATES: list[Row] = [
    _template(
        ids.INVOICE_TEMPLATE_ID,
        "invoice-approval",
        "Read an invoice, have large ones approved, book them",
        ["extract", "check", "approve", "book"],
    ),
    _template(
        ids.TICKET_TEMPLATE_ID, "ticket-triage", "Sort tickets and answer simple ones", ["classify", "recall", "answer"]
    ),
    _template(
        ids.OLD_INVOICE_TEMPLATE_ID,
        "invoice-approval",
        "As before approvals came in",
        ["extract", "book"],
        is_active=False,
    ),
]

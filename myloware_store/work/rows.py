"""Values for the work engine's statements, and results from their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import UUID, SafeUUID

import attrs
from uuid_utils.compat import uuid7

from myloware_store.core.arguments import (
    as_count,
    as_enum,
    as_flag,
    as_list,
    as_name,
    as_number,
    as_object,
    as_seconds,
    known_keys,
)
from myloware_store.core.enums import Priority, WorkItemStatus, WorkItemType
from myloware_store.core.errors import InvalidInput
from myloware_store.core.results import Claim, NewItem, Outcome, RetryPolicy
from myloware_store.core.values import (
    MAX_TEXT_BYTES,
    dump_json,
    is_uuid,
    new_ids,
    read_label,
    require_text,
    text_array,
    uuid_array,
)
from myloware_store.db.tenancy import current_tenant
from myloware_store.orm.repository import writer
from myloware_store.orm.scalars import as_instant

__all__ = [
    "KNOWN_TYPES",
    "LARGEST_BATCH",
    "SHORTEST_LEASE",
    "as_claims",
    "as_outcomes",
    "copied_items",
    "error_text",
    "fence",
    "give_up",
    "new_order",
    "paired",
    "read_claims",
    "wanted",
    "wish",
]

KNOWN_TYPES = [kind.value for kind in WorkItemType]
"""The types that this version knows. A newer version may have added others to the database."""

LARGEST_BATCH = 1000
"""The most items of one claim."""

SHORTEST_LEASE = 0.001
"""The shortest lease, in seconds."""


def as_document(item: Any, place: str) -> tuple[str, str]:
    """Return the type and content of an item to submit, or raise InvalidInput."""
    if isinstance(item, NewItem):
        item = attrs.asdict(item, recurse=False)
    row = known_keys(item, ("type", "content"), place)
    if len(row) < 2:  # noqa: PLR2004  the two keys above
        raise InvalidInput(f"{place}: it needs a type and a content")
    content = require_text(row["content"], f"{place}: content", blank=False, max_bytes=MAX_TEXT_BYTES)
    return as_enum(row["type"], WorkItemType, f"{place}: type").value, content


def new_order(
    items: Iterable[NewItem | Mapping[str, Any]],
    *,
    priority: Priority | str,
    workflow_id: UUID | str | None,
    created_by: str | None,
    metadata: Mapping[str, Any] | None,
    idempotency_key: str | None,
    available_at: datetime | None,
    max_attempts: int,
    retry_policy: RetryPolicy | Mapping[str, float] | None,
    unique_key: str | None,
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return the documents and the parameters of an order to submit, or raise InvalidInput."""
    tenant, actor = writer()
    documents = [as_document(item, f"items[{n}]") for n, item in enumerate(as_list(items, "items"))]
    if not documents:
        raise InvalidInput("submit: an order needs at least one item")
    workflow = str(workflow_id) if is_uuid(workflow_id) else workflow_id
    key = None if idempotency_key is None else as_name(idempotency_key, "idempotency_key")
    values: dict[str, Any] = {
        "order_id": str(uuid7()),
        "tenant_id": tenant,
        "priority": as_enum(priority, Priority, "priority").value,
        "workflow_id": None if workflow is None else as_name(workflow, "workflow_id"),
        "created_by": as_name(actor if created_by is None else created_by, "created_by"),
        "metadata": dump_json(as_object(metadata, "metadata"), "metadata"),
        "key": key,
        "available_at": None if available_at is None else as_instant(available_at, "available_at"),
        "max_attempts": as_count(max_attempts, "max_attempts", most=1000),
        "retry_policy": as_retry_policy(retry_policy),
        "unique_key": None if unique_key is None else as_name(unique_key, "unique_key"),
        "item_ids": new_ids(len(documents)),
        "types": text_array(kind for kind, _ in documents),
        "contents": text_array(content for _, content in documents),
    }
    return documents, values


def copied_items(documents: Sequence[tuple[str, str]], order: Mapping[str, Any]) -> StringIO:
    """Return the items of an order as a file for COPY, in its text format."""
    available_at = order["available_at"] or order["created_at"]
    same = (order["order_id"], order["tenant_id"], order["priority"], available_at.isoformat(), order["max_attempts"])
    end = "\t".join(_copied(str(value)) for value in same)
    ids = order["item_ids"].strip("{}").split(",")
    rows = zip(ids, documents, strict=True)
    return StringIO("".join([f"{row}\t{kind}\t{_copied(text)}\t{end}\n" for row, (kind, text) in rows]), newline="\n")


def _copied(text: str) -> str:
    """Write a text as COPY does."""
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def as_retry_policy(policy: Any) -> str | None:
    """Return a policy as JSON, or None for None, or raise InvalidInput."""
    if policy is None:
        return None
    if not isinstance(policy, RetryPolicy):
        policy = RetryPolicy(**known_keys(policy, [*attrs.fields_dict(RetryPolicy)], "retry_policy"))
    checked = RetryPolicy(
        base=as_seconds(policy.base, "retry_policy: base", least=0.001),
        factor=as_number(policy.factor, "retry_policy: factor", least=1, most=1000),
        cap=as_seconds(policy.cap, "retry_policy: cap", least=0.001),
        jitter=as_number(policy.jitter, "retry_policy: jitter", least=0, most=1),
    )
    return dump_json(attrs.asdict(checked), "retry_policy")


def as_claims(claims: Iterable[Claim]) -> list[Claim]:
    """Return the claims as a list in which no item comes twice, or raise InvalidInput."""
    held = as_list(claims, "claims")
    for claim in held:
        if not isinstance(claim, Claim):
            raise InvalidInput(f"claims: {type(claim).__name__} is not a Claim")
        if not isinstance(claim.item_id, UUID) or not isinstance(claim.attempt_id, UUID):
            raise InvalidInput("claims: the ids of a claim are UUIDs, not text")
    if len({claim.item_id for claim in held}) != len(held):
        raise InvalidInput("claims: an item is named twice")
    return held


def paired(values: Any, claims: Sequence[Claim], name: str) -> list[Any]:
    """Return one value for each claim, or raise InvalidInput."""
    given = as_list(values, name)
    if len(given) != len(claims):
        raise InvalidInput(f"{name}: {len(given)} given for {len(claims)} claim{'' if len(claims) == 1 else 's'}")
    return given


def fence(claims: Sequence[Claim]) -> dict[str, str]:
    """Return the ids by which only the attempt that holds an item can end it."""
    return {
        "item_ids": uuid_array(claim.item_id for claim in claims),
        "attempt_ids": uuid_array(claim.attempt_id for claim in claims),
    }


def give_up(claims: Iterable[Claim]) -> None:
    """Tell whoever works on these claims that the results are no longer wanted."""
    for claim in claims:
        object.__setattr__(claim, "cancelled", True)  # the only attribute that changes


def error_text(error: Any) -> str:
    """Return an exception or text as text that can be stored: characters that PostgreSQL cannot store are replaced."""
    if isinstance(error, BaseException):
        try:
            told = str(error)
        except BaseException:  # noqa: BLE001  whatever an application's __str__ raises: the attempt has failed anyway
            told = ""
        text = f"{type(error).__name__}: {told}" if told else type(error).__name__
    elif isinstance(error, str):
        text = error or "unknown error"
    else:
        raise InvalidInput(f"errors: {type(error).__name__} is neither an exception nor text")
    return text[:10_000].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def as_outcomes(rows: list[tuple[Any, ...]]) -> dict[UUID, Outcome]:
    """Return the outcomes of a statement, by item."""
    return {
        item_id: Outcome(
            item_id=item_id,
            status=read_label(WorkItemStatus, status),
            available_at=None if available_at is None else available_at.astimezone(UTC),
            dead_letter_id=letter_id,
        )
        for item_id, status, available_at, letter_id in rows
    }


def wanted(types: Iterable[WorkItemType | str] | None, tenants: Iterable[str] | None) -> dict[str, list[str] | None]:
    """Return the types and tenants to claim, without repetitions, as parameters; None stands for all."""
    current = current_tenant()
    kinds = None if types is None else [as_enum(kind, WorkItemType, "types").value for kind in as_list(types, "types")]
    names = None if current is None else [current]
    if tenants is not None:
        given = [as_name(name, "tenants") for name in as_list(tenants, "tenants")]
        names = [name for name in given if current in {None, name}]
    return {
        "types": None if kinds is None else [*dict.fromkeys(kinds)],
        "tenants": None if names is None else [*dict.fromkeys(names)],
    }


def wish(
    agent_id: str,
    n: int,
    types: Iterable[WorkItemType | str] | None,
    tenants: Iterable[str] | None,
    lease: float,
    *,
    fair: bool,
) -> dict[str, Any]:
    """Return the parameters of a claim, checked."""
    count = as_count(n, "n", most=LARGEST_BATCH)
    return {
        "agent_id": as_name(agent_id, "agent_id"),
        "n": count,
        "attempt_ids": new_ids(count),
        **wanted(types, tenants),
        "known_types": KNOWN_TYPES,
        "lease": as_seconds(lease, "lease", least=SHORTEST_LEASE),
        "fair": as_flag(fair, "fair"),
    }


def read_claims(rows: Sequence[tuple[Any, ...]]) -> list[Claim]:
    """Return claims from rows, whose ids and times are text."""
    if not rows:
        return []
    expires = datetime.fromisoformat(rows[0][7]).astimezone(UTC)
    orders = {text: _as_uuid(text) for text in {row[6] for row in rows}}
    kinds = {label: read_label(WorkItemType, label) for label in {row[3] for row in rows}}
    return [
        Claim(
            item_id=_as_uuid(item_id),
            attempt_id=_as_uuid(attempt_id),
            attempt_number=number,
            type=kinds[kind],
            content=content,
            tenant_id=tenant_id,
            work_order_id=orders[order_id],
            lease_expires_at=expires,
        )
        for item_id, attempt_id, number, kind, content, tenant_id, order_id, *_ in rows
    ]


def _as_uuid(text: str) -> UUID:
    """Return the UUID of a text in PostgreSQL's form, in half the time of `UUID(text)`, which accepts other forms."""
    made = UUID.__new__(UUID)
    object.__setattr__(made, "int", int(text.replace("-", ""), 16))
    object.__setattr__(made, "is_safe", SafeUUID.unknown)
    return made

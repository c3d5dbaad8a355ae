"""Values for the work engine's statements, and results from their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

import attrs

from myloware_store.core.arguments import as_enum, as_list, as_name, as_number, as_seconds, known_keys
from myloware_store.core.enums import WorkItemStatus, WorkItemType
from myloware_store.core.errors import InvalidInput
from myloware_store.core.results import Claim, NewItem, Outcome, RetryPolicy
from myloware_store.core.values import MAX_TEXT_BYTES, dump_json, read_label, require_text
from myloware_store.db.tenancy import current_tenant

__all__ = [
    "KNOWN_TYPES",
    "as_claims",
    "as_document",
    "as_outcomes",
    "as_retry_policy",
    "error_text",
    "fence",
    "give_up",
    "paired",
    "wanted",
]

KNOWN_TYPES = [kind.value for kind in WorkItemType]
"""The types that this version knows. A newer version may have added others to the database."""


def as_document(item: Any, place: str) -> tuple[str, str]:
    """Return the type and content of an item to submit, or raise InvalidInput."""
    if isinstance(item, NewItem):
        item = attrs.asdict(item, recurse=False)
    row = known_keys(item, ("type", "content"), place)
    if len(row) < 2:  # noqa: PLR2004  the two keys above
        raise InvalidInput(f"{place}: it needs a type and a content")
    content = require_text(row["content"], f"{place}: content", blank=False, max_bytes=MAX_TEXT_BYTES)
    return as_enum(row["type"], WorkItemType, f"{place}: type").value, content


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


def fence(claims: Sequence[Claim]) -> dict[str, list[str]]:
    """Return the ids by which only the attempt that holds an item can end it."""
    return {
        "item_ids": [str(claim.item_id) for claim in claims],
        "attempt_ids": [str(claim.attempt_id) for claim in claims],
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

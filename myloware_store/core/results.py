"""What the repositories give back where a model says too much or too little.

Without slots: FastAPI's encoder, like others, takes an object for what `vars()` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs
import numpy as np

from myloware_store.core.enums import MemDocType, WorkItemStatus, WorkItemType
from myloware_store.core.vectors import Embedding

__all__ = [
    "Claim",
    "EvalSummary",
    "Hit",
    "MemoryDoc",
    "NewDoc",
    "NewItem",
    "Outcome",
    "Pruned",
    "TenantStats",
    "WorkStats",
]

_SAME = attrs.cmp_using(eq=np.array_equal, require_same_type=False)


@attrs.frozen(slots=False)
class Claim:
    """One item held by one attempt of an agent, until the lease ends.

    Attributes:
        item_id: The item.
        attempt_id: The attempt that holds it; `finish`, `fail` and `heartbeat` are fenced by it.
        attempt_number: 1 for the first try.
        type: The kind of document.
        content: The document.
        tenant_id: Whose it is.
        work_order_id: The order it belongs to.
        lease_expires_at: When the lease ends unless `heartbeat` extends it, by the database's clock, in UTC.
    """

    item_id: UUID
    attempt_id: UUID
    attempt_number: int
    type: WorkItemType
    content: str = attrs.field(repr=False)
    tenant_id: str
    work_order_id: UUID
    lease_expires_at: datetime


@attrs.frozen(slots=False)
class NewItem:
    """An item to submit. A mapping with the same keys is accepted in its place.

    Attributes:
        type: The kind of document.
        content: The document, a text of 1 MiB at most.
    """

    type: WorkItemType | str
    content: str = attrs.field(repr=False)


@attrs.frozen(slots=False)
class Outcome:
    """What became of an item whose attempt failed or timed out.

    Attributes:
        item_id: The item.
        status: QUEUED where it will be tried again, FAILED where it will not.
        available_at: When it can be claimed again, in UTC; None where it will not.
        dead_letter_id: The dead letter it ended as; None where it will be tried again.
    """

    item_id: UUID
    status: WorkItemStatus
    available_at: datetime | None
    dead_letter_id: UUID | None


@attrs.frozen(slots=False)
class EvalSummary:
    """What the evaluations of one type came to.

    Attributes:
        evaluation_type: What was measured.
        count: How many evaluations there are, at least 1.
        passed: How many of them passed.
        mean_score: The mean of their scores, 0 to 1.
        min_score: The lowest score.
        max_score: The highest score.
    """

    evaluation_type: str
    count: int
    passed: int
    mean_score: float
    min_score: float
    max_score: float


@attrs.frozen(slots=False)
class Hit:
    """A memory document found by a search.

    Attributes:
        id: The document.
        content: Its text.
        type: What it is for.
        metadata: Its metadata.
        work_item_id: The item it was made for, if any.
        score: What the hits are ordered by, the best first: from `similar` the similarity, else a number that is
            comparable within one answer only.
        similarity: Cosine similarity to the vector in -1 .. 1; None if the search had no vector, or the document
            has none.
        vector_rank: `hybrid`: its place among the most similar documents, from 1; None where it is not one of them.
        text_rank: `hybrid`: its place among those that match the text, from 1; None where it is not one of them.
        highlight: `search_text`: the passages that match, with the words between `**`, where it was asked for.
        embedding: The `(1536,) float32` vector, where it was asked for.
    """

    id: UUID
    content: str
    type: MemDocType
    metadata: dict[str, Any] = attrs.field(hash=False)
    work_item_id: UUID | None
    score: float
    similarity: float | None = None
    vector_rank: int | None = None
    text_rank: int | None = None
    highlight: str | None = None
    embedding: Embedding | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(slots=False)
class NewDoc:
    """A memory document to be stored; a mapping with these keys does as well.

    Attributes:
        type: What it is for.
        content: Its text, 1 MiB at most.
        embedding: Its vector, `(1536,)` real numbers; None lets the store's embedder make it, where there is one.
        metadata: A JSON object.
        work_item_id: The item it is made for, with which it is deleted.
        id: Its id; None makes a new one.
    """

    type: MemDocType | str
    content: str
    embedding: Any = attrs.field(default=None, eq=_SAME, hash=False)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, hash=False)
    work_item_id: UUID | str | None = None
    id: UUID | str | None = None


@attrs.frozen(slots=False)
class MemoryDoc:
    """A memory document as it is stored.

    Attributes:
        id: The document.
        tenant_id: Whose it is.
        content: Its text.
        type: What it is for.
        metadata: Its metadata.
        work_item_id: The item it was made for, if any.
        created_at: When it was first stored, in UTC.
        updated_at: When it last changed, in UTC.
        has_embedding: Whether it has a vector.
        embedding: The `(1536,) float32` vector, where it was asked for and there is one.
    """

    id: UUID
    tenant_id: str
    content: str
    type: MemDocType
    metadata: dict[str, Any] = attrs.field(hash=False)
    work_item_id: UUID | None
    created_at: datetime
    updated_at: datetime
    has_embedding: bool
    embedding: Embedding | None = attrs.field(default=None, eq=_SAME, hash=False)


@attrs.frozen(slots=False)
class TenantStats:
    """What a tenant has open, and what has ended lately.

    Attributes:
        tenant_id: Whose it is.
        ready: Items that can be claimed now.
        scheduled: Items that can be claimed later: submitted so, or waiting to be tried again.
        processing: Items that an attempt holds.
        expired: How many of those have a lease that ran out, and wait to be taken back.
        awaiting_approval: Items that wait for a decision.
        dead_letters: Dead letters that were not replayed.
        oldest_ready_seconds: For how long the oldest of the items that can be claimed has been there; None where there
            is none.
        completed: Attempts that succeeded within the window.
        failed: Attempts that failed within the window.
        timed_out: Attempts whose lease ran out, found within the window.
    """

    tenant_id: str
    ready: int
    scheduled: int
    processing: int
    expired: int
    awaiting_approval: int
    dead_letters: int
    oldest_ready_seconds: float | None
    completed: int
    failed: int
    timed_out: int


@attrs.frozen(slots=False)
class WorkStats:
    """What all tenants have open.

    Attributes:
        window_seconds: How far back the attempts that ended were counted.
        tenants: The counts of each tenant that has any, by name.
    """

    window_seconds: float
    tenants: tuple[TenantStats, ...]

    @property
    def total(self) -> TenantStats:
        """The counts of all tenants together, as those of a tenant `*`."""
        ages = [each.oldest_ready_seconds for each in self.tenants if each.oldest_ready_seconds is not None]
        counts = {
            field.name: sum(getattr(each, field.name) for each in self.tenants)
            for field in attrs.fields(TenantStats)
            if field.name not in {"tenant_id", "oldest_ready_seconds"}
        }
        return TenantStats(tenant_id="*", oldest_ready_seconds=max(ages, default=None), **counts)


@attrs.frozen(slots=False)
class Pruned:
    """How much was deleted.

    Attributes:
        orders: Orders that had ended.
        items: Their items.
        dead_letters: Letters that had been replayed.
    """

    orders: int
    items: int
    dead_letters: int

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            orders=self.orders + other.orders,
            items=self.items + other.items,
            dead_letters=self.dead_letters + other.dead_letters,
        )

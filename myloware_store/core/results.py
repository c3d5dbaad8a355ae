"""Arguments and results of the repositories that are not rows of one model.

They have no slots, because FastAPI and others encode an object by its `vars()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import attrs
import numpy as np

from myloware_store.core.enums import MemDocType, WorkItemStatus, WorkItemType
from myloware_store.core.vectors import Embedding

__all__ = [
    "AuditFinding",
    "AuditHead",
    "AuditReport",
    "Claim",
    "EvalSummary",
    "Hit",
    "MemoryDoc",
    "NewDoc",
    "NewItem",
    "Outcome",
    "Pruned",
    "RetryPolicy",
    "SubmitStatement",
    "TenantStats",
    "WorkStats",
]

_SAME = attrs.cmp_using(eq=np.array_equal, require_same_type=False)


@attrs.frozen(slots=False)
class Claim:
    """An item that an attempt of an agent holds until its lease ends.

    Attributes:
        item_id: The item.
        attempt_id: The attempt that holds it. `finish`, `fail` and `heartbeat` check it.
        attempt_number: The number of the attempt, from 1.
        type: The type of the document.
        content: The document.
        tenant_id: Its tenant.
        work_order_id: Its order.
        lease_expires_at: The end of the lease by the database's clock, in UTC. `heartbeat` extends it.
        cancelled: Whether the result is no longer wanted: `heartbeat` or `progress` has found that the attempt does not
            hold the item any more, or the worker has given up on the handler. It never becomes False again.
    """

    item_id: UUID
    attempt_id: UUID
    attempt_number: int
    type: WorkItemType
    content: str = attrs.field(repr=False)
    tenant_id: str
    work_order_id: UUID
    lease_expires_at: datetime
    cancelled: bool = attrs.field(default=False, eq=False)


@attrs.frozen(slots=False)
class NewItem:
    """An item to submit. A mapping with the same keys is accepted in its place.

    Attributes:
        type: The type of the document.
        content: The document, a text of at most 1 MiB.
    """

    type: WorkItemType | str
    content: str = attrs.field(repr=False)


@attrs.frozen(slots=False)
class RetryPolicy:
    """How long to wait before an item is tried again. A mapping with some of the keys is accepted in its place.

    After try n, it is `min(base * factor ** (n - 1), cap)` seconds, times a random number of `1 - jitter` to
    `1 + jitter`.

    Attributes:
        base: Seconds after the first try, at least 0.001.
        factor: The growth with each further try, 1 to 1000.
        cap: Most seconds, at least 0.001.
        jitter: The spread, 0 to 1, so that items that failed together do not come back together.
    """

    base: float = 2.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: float = 0.5


@attrs.frozen(slots=False)
class SubmitStatement:
    """A statement that stores an order, for another driver to execute. It returns the id of the order.

    Attributes:
        sql: The text, with the driver's placeholder.
        parameters: The parameters: a dict for SQLAlchemy, a tuple for the others.
    """

    sql: LiteralString
    parameters: Any = attrs.field(repr=False)


@attrs.frozen(slots=False)
class Outcome:
    """The state of an item after an attempt failed or timed out.

    Attributes:
        item_id: The item.
        status: QUEUED if it will be tried again, else FAILED.
        available_at: When it can be claimed again, in UTC, or None.
        dead_letter_id: Its dead letter, or None if it will be tried again.
    """

    item_id: UUID
    status: WorkItemStatus
    available_at: datetime | None
    dead_letter_id: UUID | None


@attrs.frozen(slots=False)
class EvalSummary:
    """A summary of the evaluations of one type.

    Attributes:
        evaluation_type: The type.
        count: The number of evaluations, at least 1.
        passed: The number of those that passed.
        mean_score: The mean score, 0 to 1.
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
    """A memory document that a search found.

    Attributes:
        id: The document, or its chunk.
        content: Its text.
        type: Its purpose.
        metadata: Its metadata.
        work_item_id: The item it was made for, if any.
        score: Hits are sorted by it, the highest first. From `similar` it is the similarity, else a number that is
            comparable only within one answer.
        similarity: Cosine similarity to the vector, -1 to 1, or None if the search or the document has no vector.
        vector_rank: `hybrid`: the rank by similarity, from 1, or None if it is not among the most similar documents.
        text_rank: `hybrid`: the rank by text, from 1, or None if the text does not match.
        highlight: `search_text` with `highlight=True`: the matching passages, with the words between `**`.
        embedding_model: The model of its embedding, None if it has no embedding or the model was not named.
        document_id: If it is a chunk, the document that it is a part of.
        chunk_no: The place of the chunk in its document, from 1.
        embedding: The `(1536,) float32` vector, with `with_embedding=True`.
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
    embedding_model: str | None = None
    document_id: UUID | None = None
    chunk_no: int | None = None
    embedding: Embedding | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(slots=False)
class NewDoc:
    """A memory document to store. A mapping with the same keys is accepted in its place.

    Attributes:
        type: Its purpose.
        content: Its text, at most 1 MiB.
        embedding: Its vector, `(1536,)` real numbers. By default the store's embedder makes it, if there is one.
        metadata: A JSON object.
        work_item_id: The item it is made for. It is deleted with the item.
        id: Its id, by default a new one.
        expires_at: The time from which it is not found any more, an aware datetime or an ISO text with an offset; by
            default it stays.
    """

    type: MemDocType | str
    content: str
    embedding: Any = attrs.field(default=None, eq=_SAME, hash=False)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, hash=False)
    work_item_id: UUID | str | None = None
    id: UUID | str | None = None
    expires_at: datetime | str | None = None


@attrs.frozen(slots=False)
class MemoryDoc:
    """A stored memory document.

    Attributes:
        id: The document.
        tenant_id: Its tenant.
        content: Its text.
        type: Its purpose.
        metadata: Its metadata.
        work_item_id: The item it was made for, if any.
        created_at: The time when it was first stored, in UTC.
        updated_at: The time of its last change, in UTC.
        has_embedding: Whether it has a vector.
        embedding: The `(1536,) float32` vector, with `with_embedding=True`, if there is one.
        embedding_model: The model of its embedding, None if it has no embedding or the model was not named.
        document_id: If it is a chunk, the document that it is a part of.
        chunk_no: The place of a chunk in its document, from 1; 0 for a document that is stored in chunks.
        expires_at: The time from which it is not found any more, in UTC, or None if it stays.
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
    embedding_model: str | None = None
    document_id: UUID | None = None
    chunk_no: int | None = None
    expires_at: datetime | None = None


@attrs.frozen(slots=False)
class TenantStats:
    """Counts of a tenant's open and recently ended work.

    Attributes:
        tenant_id: The tenant.
        ready: Items that can be claimed now.
        scheduled: Items that can be claimed later, on their first or a further try.
        processing: Items that an attempt holds.
        expired: Those of them whose lease has expired and that were not taken back yet.
        awaiting_approval: Items that wait for a decision.
        dead_letters: Dead letters that were not replayed.
        oldest_ready_seconds: The age of the oldest item that can be claimed, or None if there is none.
        completed: Attempts that succeeded within the window.
        failed: Attempts that failed within the window.
        timed_out: Attempts that were found expired within the window.
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
    """Counts of the work of all tenants.

    Attributes:
        window_seconds: The window in which ended attempts were counted.
        tenants: The counts of each tenant that has any, sorted by name.
        unindexed: Items that have ended and are not in the full-text index yet; 10,000 means as many or more.
        oldest_unindexed_seconds: How long ago the first of them ended, or None if there is none.
    """

    window_seconds: float
    tenants: tuple[TenantStats, ...]
    unindexed: int
    oldest_unindexed_seconds: float | None

    @property
    def total(self) -> TenantStats:
        """The counts of all tenants together, under the tenant `*`."""
        ages = [each.oldest_ready_seconds for each in self.tenants if each.oldest_ready_seconds is not None]
        counts = {
            field.name: sum(getattr(each, field.name) for each in self.tenants)
            for field in attrs.fields(TenantStats)
            if field.name not in {"tenant_id", "oldest_ready_seconds"}
        }
        return TenantStats(tenant_id="*", oldest_ready_seconds=max(ages, default=None), **counts)


@attrs.frozen(slots=False)
class Pruned:
    """The numbers of deleted rows.

    Attributes:
        orders: Ended orders.
        items: Their items.
        dead_letters: Replayed dead letters.
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


@attrs.frozen(slots=False)
class AuditHead:
    """The newest seal of a tenant's audit trail; with a copy of it, all lines up to it can be verified.

    Attributes:
        tenant_id: The tenant.
        number: The seal's number, from 1.
        hash: Its hash, in hexadecimal digits.
    """

    tenant_id: str
    number: int
    hash: str


@attrs.frozen(slots=False)
class AuditFinding:
    """Something in the audit trail that is not as it was sealed.

    Attributes:
        tenant_id: The tenant.
        kind: `edited`, `missing` or `inserted` for a line; `seal` for a seal that was changed or is missing; `head` for
            a trail that lacks what was exported.
        seal: The number of the seal.
        line_id: The line, if it is one.
        message: What is wrong.
    """

    tenant_id: str
    kind: str
    seal: int
    line_id: UUID | None
    message: str


@attrs.frozen(slots=False)
class AuditReport:
    """The outcome of a verification.

    Attributes:
        tenants: How many tenants have lines or seals.
        seals: How many seals were compared.
        lines: How many lines they are for, those that were pruned not counted.
        unsealed: How many lines have no seal yet. Nothing is known about them.
        pruned: The last seal whose lines were pruned, by tenant.
        findings: The differences.
    """

    tenants: int
    seals: int
    lines: int
    unsealed: int
    pruned: Mapping[str, int]
    findings: tuple[AuditFinding, ...]

    @property
    def intact(self) -> bool:
        """Whether all is as it was sealed."""
        return not self.findings

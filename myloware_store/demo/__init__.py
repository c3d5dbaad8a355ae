"""The main job, end to end: documents are submitted, worked on, approved, remembered and asked about.

What the processes of a service would do side by side is done here one after the other, by the same public calls, in
tenant `demo` only. Three things are put on so that there is something to see, and say so where they are stored: the
first attempt at one document fails and is tried again, one result is approved by a person who does not exist, and where
every file could be read, a notification that nobody takes ends as a dead letter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from myloware_store.demo.agent import AGENT, Agent
from myloware_store.demo.extraction import extract
from myloware_store.demo.reading import Document, Reading, Skipped
from myloware_store.demo.report import TENANT, DemoItem, DemoReport, Passage, count_rows
from myloware_store.embedding import Embedder, HashingEmbedder
from myloware_store.enums import ApprovalDecision, Priority, WorkItemType
from myloware_store.errors import InvalidInput, LeaseLost, NotAwaitingApproval, StoreError
from myloware_store.repositories.base import as_count
from myloware_store.values import require_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from myloware_store.models import WorkOrder
    from myloware_store.results import Claim
    from myloware_store.store import Store
    from myloware_store.vectors import Embedding

__all__ = ["DEFAULT_QUERY", "TENANT", "DemoItem", "DemoReport", "Passage", "Progress", "run_demo"]

DEFAULT_QUERY: Final = "What is the late fee on overdue invoices?"

Progress = Callable[[str, int, int], None]
"""Told what goes on: the stage (`submitted`, `processed`, `approved`), how much of it is done, and of how much."""


def run_demo(
    store: Store,
    reading: Reading,
    *,
    query: str = DEFAULT_QUERY,
    embedder: Embedder | None = None,
    answers: int = 3,
    patience: float = 60.0,
    progress: Progress | None = None,
) -> DemoReport:
    """Run documents through the whole life of the store, and answer a query from what it remembers.

    It can be run again, on the same documents too: each run makes an order of its own, while the memory of a text that
    is known already is replaced. Work of others that waits in tenant `demo` may be done along with it.

    Args:
        store: An open store.
        reading: What `documents.read_documents` gave.
        query: What to ask memory in the end.
        embedder: Turns texts into vectors, by default the bundled `HashingEmbedder`.
        answers: Most passages to answer with (1 to 100).
        patience: Seconds to wait for other workers of tenant `demo` that hold items of this order.
        progress: Called as the work goes on.

    Raises:
        InvalidInput: No document could be read, or an argument cannot be used; nothing was written.
        InvalidVector: The embedder gives something else than one usable vector a text.
        StoreError: Another worker held items of the order for longer than `patience`.
    """
    require_text(query, "query", blank=False)
    as_count(answers, "answers", most=100)
    with store.tenant(TENANT, actor="demo"):
        documents, skipped = _usable(reading)
        agent = Agent(store, embedder or HashingEmbedder(), {each.text: each.name for each in documents})
        (vector,) = agent.embed([query])
        demo = _Demo(store, documents, agent, progress or _silent)
        order_id = demo.submit(query).id
        run_id = store.runs.start(order_id, context={"query": query}).id
        held = demo.work(order_id, patience)
        if held:
            error = f"another worker of tenant {TENANT} holds {held} items of order {order_id}"
            store.runs.finish(run_id, error=error)
            raise StoreError(error)
        demo.approve(order_id)
        letter_ids = demo.bury(order_id, skipped)
        store.runs.finish(run_id, context={"query": query, "documents": len(documents)})
        return DemoReport(
            tenant_id=TENANT,
            order_id=order_id,
            run_id=run_id,
            status=store.work.get(order_id).status,
            items=demo.items(order_id),
            skipped=tuple(skipped),
            retried=demo.retried,
            approved=demo.approved,
            dead_letter_ids=letter_ids,
            counts=count_rows(store, order_id),
            query=query,
            passages=demo.recall(vector, answers),
        )


_SIMULATED = "simulated: the model did not answer in time"
_BATCH = 20
_LEASE_SECONDS = 300.0
_POLL_SECONDS = 0.1
_SIMILAR = 0.03
"""What texts without a word in common reach by chance, about 1 / sqrt(1536), is no answer."""


class _Demo:
    """One run of the demonstration."""

    def __init__(self, store: Store, documents: Sequence[Document], agent: Agent, progress: Progress) -> None:
        self.store = store
        self.documents = documents
        self.agent = agent
        self.progress = progress
        self.fails, self.gated = _roles(documents)
        self.parked: UUID | None = None
        self.retried: tuple[str, str] | None = None
        self.approved: str | None = None

    def submit(self, query: str) -> WorkOrder:
        """Submit the documents as one order."""
        order = self.store.work.submit(
            [{"type": document.type, "content": document.text} for document in self.documents],
            priority=Priority.HIGH,
            metadata={"documents": len(self.documents), "query": query},
            max_attempts=3,
        )
        self.audit("work_order.submit", "work_order", order.id, order.id)
        self.progress("submitted", len(self.documents), len(self.documents))
        return order

    def work(self, order_id: UUID, patience: float) -> int:
        """Claim and work until every item has ended, but the one that waits for a person; return how many have not."""
        total = len(self.documents)
        left: int = total
        deadline = time.monotonic() + patience
        while left > 0:
            claims = self.store.work.claim(AGENT, min(left, _BATCH), lease=_LEASE_SECONDS)
            if claims:
                self.attempt(order_id, claims)
            before, left = left, self.store.work.get(order_id).open_items - (self.parked is not None)
            if left < before:
                self.progress("processed", total - max(left, 0), total)
            if claims or left < before or self.store.work.reap():
                deadline = time.monotonic() + patience
            elif time.monotonic() > deadline:
                return left
            else:
                time.sleep(_POLL_SECONDS)
        return 0

    def attempt(self, order_id: UUID, claims: Sequence[Claim]) -> None:
        """Work on claims; one document fails at its first attempt, one is handed in for approval."""
        kept = []
        for claim in claims:
            if claim.work_order_id == order_id and claim.content == self.fails.text and claim.attempt_number == 1:
                self.store.work.fail([claim], [TimeoutError(_SIMULATED)], delay=0)
                self.audit("work_item.fail", "work_item", claim.item_id, order_id, error=_SIMULATED)
                self.retried = (self.fails.name, _SIMULATED)
            else:
                kept.append(claim)
        for finding in self.agent.study(kept):
            claim = finding.claim
            gate = claim.work_order_id == order_id and claim.content == self.gated.text
            try:
                self.agent.hand_in(finding, gate=gate)
            except LeaseLost:
                continue  # someone else has it now
            if gate:
                self.parked = claim.item_id

    def approve(self, order_id: UUID) -> None:
        """Decide about the item that waits, as a person would."""
        if self.parked is None:
            return
        try:
            self.store.approvals.decide(
                self.parked,
                approver_id="demo-approver",
                decision=ApprovalDecision.APPROVED,
                reason="simulated: stands for a person's look at the result",
                policy_version="demo-1",
            )
        except NotAwaitingApproval:
            return  # someone did look, and decided
        self.audit("approval.decide", "work_item", self.parked, order_id, decision=ApprovalDecision.APPROVED)
        self.approved = self.gated.name
        self.progress("approved", 1, 1)

    def bury(self, order_id: UUID, skipped: Sequence[Skipped]) -> tuple[UUID, ...]:
        """Keep the files that gave no document as dead letters, else a notification; return the letters' ids."""
        events = [
            ("demo-intake", "document.skipped", {"name": each.name, "reason": each.reason}, each.reason)
            for each in skipped
        ] or [("demo-notifier", "order.completed", {"to": "hooks.example"}, "simulated: hooks.example does not answer")]
        return tuple(
            self.store.dead_letters.record(source, event, {**payload, "order_id": str(order_id)}, error).id
            for source, event, payload, error in events
        )

    def items(self, order_id: UUID) -> tuple[DemoItem, ...]:
        """Tell what became of each document."""
        names = {document.text: document.name for document in self.documents}
        return tuple(
            DemoItem(
                item_id=item.id,
                name=names[item.content],
                type=item.type,
                status=item.status,
                attempts=item.attempt_count,
                result=item.result,
            )
            for item in self.store.work.items(order_id)
        )

    def recall(self, vector: Embedding, answers: int) -> tuple[Passage, ...]:
        """Find the passages that are most similar to the query."""
        return tuple(
            Passage(str(hit.metadata.get("document", "")), hit.content, hit.score, hit.id)
            for hit in self.store.memory.similar(vector, k=answers, min_similarity=_SIMILAR)
        )

    def audit(self, action: str, kind: str, resource_id: UUID, order_id: UUID, **details: str) -> None:
        """Write an audit line that names the order."""
        self.store.audit.record(action, kind, resource_id, details={"order_id": str(order_id), **details})


def _roles(documents: Sequence[Document]) -> tuple[Document, Document]:
    """Choose the document whose first attempt fails, and the one to approve: the invoice of the largest amount."""

    def largest_amount(document: Document) -> float:
        if document.type != WorkItemType.INVOICE:
            return -1.0
        return max((amount.value for amount in extract(document.text).amounts), default=0.0)

    gated = max(documents, key=largest_amount)
    return next((document for document in documents if document is not gated), gated), gated


def _usable(reading: Reading) -> tuple[list[Document], list[Skipped]]:
    """Leave out texts that come twice."""
    documents: dict[str, Document] = {}
    skipped = list(reading.skipped)
    for document in reading.documents:
        if document.text in documents:
            skipped.append(Skipped(document.name, f"the same text as {documents[document.text].name}"))
        else:
            documents[document.text] = document
    if not documents:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in skipped[:5])
        raise InvalidInput(f"there is no document to work on: {reasons or 'none was given'}")
    return list(documents.values()), skipped


def _silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""

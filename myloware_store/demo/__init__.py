"""The main job, end to end: submit documents, work on them, approve a result, remember the texts, ask a question.

The demonstration makes the calls of a service's processes one after the other, through the public interface, in tenant
`demo` only. It simulates three events, and marks them as simulated in the stored rows: the first attempt at one
document fails and is retried, an imaginary person approves one result, and if every file could be read, a notification
that cannot be delivered ends as a dead letter.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from myloware_store.core.arguments import as_count
from myloware_store.core.embedding import COMMON_WORDS, Embedder, HashingEmbedder, embed, fold, read_embedder
from myloware_store.core.enums import ApprovalDecision, MemDocType, Priority, WorkItemType
from myloware_store.core.errors import InvalidInput, LeaseLost, NotAwaitingApproval, StoreError
from myloware_store.core.values import require_text
from myloware_store.demo.reading import Document, Reading, Skipped, chunk
from myloware_store.demo.report import TENANT, DemoItem, DemoReport, Passage, count_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from myloware_store.core.results import Claim
    from myloware_store.store import Store

__all__ = ["DEFAULT_QUERY", "TENANT", "DemoItem", "DemoReport", "Passage", "Progress", "run_demo"]

DEFAULT_QUERY: Final = "What is the late fee on overdue invoices?"

Progress = Callable[[str, int, int], None]
"""Called with the stage (`submitted`, `processed`, `approved`), the number of items done, and the total."""

_AGENT = "demo-agent"
_SIMULATED = "simulated: the model did not answer in time"
_BATCH = 20
_LEASE_SECONDS = 300.0
_POLL_SECONDS = 0.1
_PASSAGE_CHARS, _MOST_PASSAGES = 600, 400
_MOST_WORDS, _LONGEST_TITLE = 8, 120
_SIMILAR = 0.1
"""The least similarity of an answer: four times what texts without a common word reach by chance, 1 / sqrt(1536)."""


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
    """Run documents through the whole life of the store, and answer a query from memory.

    You can run it again, also on the same documents: each run creates its own order, and replaces the memory of a known
    text. It may also process other work that waits in tenant `demo`.

    Args:
        store: An open store.
        reading: The result of `reading.read_documents`.
        query: The question for memory at the end.
        embedder: Turns texts into vectors, by default the bundled `HashingEmbedder`.
        answers: The most passages in the answer (1 to 100).
        patience: Seconds to wait for other workers of tenant `demo` that hold items of this order.
        progress: Called during the work.

    Raises:
        InvalidInput: No document could be read, or an argument cannot be used; nothing was written.
        InvalidVector: The embedder did not return one usable vector per text.
        StoreError: Another worker held items of the order for longer than `patience`.
    """
    require_text(query, "query", blank=False)
    as_count(answers, "answers", most=100)
    with store.tenant(TENANT, actor="demo"):
        documents, skipped = _usable(reading)
        demo = _Demo(store, documents, embedder or HashingEmbedder(), progress or (lambda *_: None))
        (vector,) = demo.embed([query])
        order_id = demo.submit(query)
        run_id = store.runs.start(order_id, context={"query": query}).id
        held = demo.work(order_id, patience)
        if held:
            error = f"another worker of tenant {TENANT} holds {held} items of order {order_id}"
            store.runs.finish(run_id, error=error)
            raise StoreError(error)
        demo.approve(order_id)
        letter_ids = demo.bury(order_id, skipped)
        store.runs.finish(run_id, context={"query": query, "documents": len(documents)})
        hits = store.memory.similar(vector, k=answers, min_similarity=_SIMILAR, model=demo.model)
        return DemoReport(
            tenant_id=TENANT,
            order_id=order_id,
            run_id=run_id,
            status=store.work.get(order_id).status,
            items=tuple(
                DemoItem(item.id, demo.names[item.content], item.type, item.status, item.attempt_count, item.result)
                for item in store.work.items(order_id)
            ),
            skipped=tuple(skipped),
            retried=demo.retried,
            approved=demo.approved,
            dead_letter_ids=letter_ids,
            counts=count_rows(store, order_id),
            query=query,
            passages=tuple(
                Passage(str(hit.metadata.get("document", "")), hit.content, hit.score, hit.id) for hit in hits
            ),
        )


class _Demo:
    """One run of the demonstration."""

    def __init__(self, store: Store, documents: Sequence[Document], embedder: Embedder, progress: Progress) -> None:
        self.store = store
        self.documents = documents
        self.embedder = embedder
        self.model, _ = read_embedder(embedder)
        self.progress = progress
        self.names = {document.text: document.name for document in documents}
        # The first invoice waits for approval, the first attempt at another document fails.
        self.gated = next((each for each in documents if each.type == WorkItemType.INVOICE), documents[0]).text
        self.fails = next((each for each in documents if each.text != self.gated), documents[0]).text
        self.parked: UUID | None = None
        self.retried: tuple[str, str] | None = None
        self.approved: str | None = None

    def embed(self, texts: Sequence[str]) -> list[Any]:
        """Embed texts, and check the vectors."""
        return list(embed(self.embedder, texts))

    def submit(self, query: str) -> UUID:
        """Submit the documents as one order."""
        order = self.store.work.submit(
            [{"type": document.type, "content": document.text} for document in self.documents],
            priority=Priority.HIGH,
            metadata={"documents": len(self.documents), "query": query},
            max_attempts=3,
        )
        self.audit("work_order.submit", "work_order", order.id, order.id)
        self.progress("submitted", len(self.documents), len(self.documents))
        order_id: UUID = order.id
        return order_id

    def work(self, order_id: UUID, patience: float) -> int:
        """Claim and work until every item has ended or waits for approval; return how many have not."""
        total = left = len(self.documents)
        deadline = time.monotonic() + patience
        while left > 0:
            claims = self.store.work.claim(_AGENT, min(left, _BATCH), lease=_LEASE_SECONDS)
            if claims:
                self.attempt(order_id, claims)
            before, left = left, int(self.store.work.get(order_id).open_items) - (self.parked is not None)
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
        """Work on claims; the first attempt at one document fails, and one result is submitted for approval."""
        passages = {}
        for claim in claims:
            if claim.work_order_id == order_id and claim.content == self.fails and claim.attempt_number == 1:
                self.store.work.fail([claim], [TimeoutError(_SIMULATED)], delay=0)
                self.audit("work_item.fail", "work_item", claim.item_id, order_id, error=_SIMULATED)
                self.retried = (self.names[self.fails], _SIMULATED)
            else:
                passages[claim] = self.passages(claim)
        every = [passage for several in passages.values() for passage in several]
        for passage, vector in zip(every, self.embed([passage["content"] for passage in every]), strict=True):
            passage["embedding"] = vector
        for claim, several in passages.items():
            gate = claim.work_order_id == order_id and claim.content == self.gated
            try:
                self.store.transact(partial(self.hand_in, claim, several, gate=gate))
            except LeaseLost:
                continue  # someone else has it now
            if gate:
                self.parked = claim.item_id

    def passages(self, claim: Claim) -> list[dict[str, Any]]:
        """Cut a document into passages to remember; the same text always gets the same ids."""
        digest = hashlib.sha256(claim.content.encode()).hexdigest()
        contents = chunk(claim.content, max(_PASSAGE_CHARS, len(claim.content) // _MOST_PASSAGES))
        return [
            {
                "id": uuid5(NAMESPACE_URL, f"myloware:demo:{digest}:{number}"),
                "type": MemDocType.CONTEXT,
                "content": content,
                "metadata": {"document": self.names.get(claim.content, ""), "passage": number},
                "work_item_id": claim.item_id,
            }
            for number, content in enumerate(contents, 1)
        ]

    def hand_in(self, claim: Claim, passages: list[dict[str, Any]], *, gate: bool) -> None:
        """Store memory, result, attempt, evaluation and audit line."""
        store, result = self.store, _study(claim.content)
        store.memory.upsert(passages, model=self.model)
        store.work.finish([claim], [result], gate=gate)
        found = {"title": len(result["title"]), "key_words": len(result["key_words"])}
        score = sum(map(bool, found.values())) / len(found)
        store.evals.record(claim.item_id, evaluation_type="completeness", score=score, passed=score == 1, metrics=found)
        details = {"order_id": str(claim.work_order_id), "attempt": claim.attempt_number, "gate": gate}
        store.audit.record("work_item.finish", "work_item", claim.item_id, user_id=_AGENT, details=details)

    def approve(self, order_id: UUID) -> None:
        """Decide about the waiting item, as a person would."""
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
        self.approved = self.names[self.gated]
        self.progress("approved", 1, 1)

    def bury(self, order_id: UUID, skipped: Sequence[Skipped]) -> tuple[UUID, ...]:
        """Record the skipped files as dead letters, or else a notification; return the letters' ids."""
        events = [
            ("demo-intake", "document.skipped", {"name": each.name, "reason": each.reason}, each.reason)
            for each in skipped
        ] or [("demo-notifier", "order.completed", {"to": "hooks.example"}, "simulated: hooks.example does not answer")]
        return tuple(
            self.store.dead_letters.record(source, event, {**payload, "order_id": str(order_id)}, error).id
            for source, event, payload, error in events
        )

    def audit(self, action: str, kind: str, resource_id: UUID, order_id: UUID, **details: str) -> None:
        """Write an audit line that names the order."""
        self.store.audit.record(action, kind, resource_id, details={"order_id": str(order_id), **details})


def _study(text: str) -> dict[str, Any]:
    """Return a stand-in for the answer of a model: the first line with a letter, and the most frequent words."""
    lines = (line.strip(" \t#*_|>=-") for line in text.splitlines() if any(map(str.isalpha, line)))
    words = Counter(word for word in map(str.lower, text.split()) if word.isalpha() and fold(word) not in COMMON_WORDS)
    return {
        "title": next(lines, "")[:_LONGEST_TITLE],
        "words": len(text.split()),
        "key_words": [word[:_LONGEST_TITLE] for word, _ in words.most_common(_MOST_WORDS)],
    }


def _usable(reading: Reading) -> tuple[list[Document], list[Skipped]]:
    """Leave out duplicate texts."""
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

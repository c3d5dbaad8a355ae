"""The agent of the demonstration: what it makes of the documents it claims, and how it hands that in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import attrs

from myloware_store.demo.extraction import Extract, completeness, extract
from myloware_store.demo.reading import chunk
from myloware_store.embedding import embed
from myloware_store.enums import MemDocType
from myloware_store.vectors import Embedding, as_embedding

if TYPE_CHECKING:
    from myloware_store.embedding import Embedder
    from myloware_store.results import Claim
    from myloware_store.store import Store

__all__ = ["AGENT", "Agent", "Finding"]

AGENT = "demo-agent"

_PASSAGE_CHARS, _MOST_PASSAGES = 600, 400
_PASSING_SCORE = 0.75


@attrs.frozen
class Finding:
    """What the agent made of a claim: what it read off the document, and the passages to remember."""

    claim: Claim
    extract: Extract
    passages: list[dict[str, Any]]


class Agent:
    """An agent that works on claims by plain rules.

    Args:
        store: The open store.
        embedder: Makes the vectors of the passages.
        names: The name of each document, by its text.
    """

    def __init__(self, store: Store, embedder: Embedder, names: Mapping[str, str]) -> None:
        self._store = store
        self._embedder = embedder
        self._names = names

    def study(self, claims: Sequence[Claim]) -> list[Finding]:
        """Read the claimed documents and embed their passages, all in one call; nothing is written."""
        findings = [self._find(claim) for claim in claims]
        passages = [passage for finding in findings for passage in finding.passages]
        vectors = self.embed([passage["content"] for passage in passages])
        for passage, vector in zip(passages, vectors, strict=True):
            passage["embedding"] = vector
        return findings

    def hand_in(self, finding: Finding, *, gate: bool = False) -> None:
        """Store result, attempt, memory, evaluation and audit line: all of them commit together, or none.

        Args:
            finding: What `study` gave for a claim.
            gate: Whether the result is to wait for a person's approval.

        Raises:
            LeaseLost: The claim does not hold its item any more.
        """
        self._store.transact(lambda: self._hand_in(finding, gate=gate))

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed texts, and check what the embedder gives.

        Raises:
            InvalidVector: It is not one usable vector a text.
            StoreError: It failed, which is this error's cause.
        """
        return [as_embedding(vector) for vector in embed(self._embedder, texts)]

    def _find(self, claim: Claim) -> Finding:
        found = extract(claim.content)
        contents = chunk(claim.content, max(_PASSAGE_CHARS, len(claim.content) // _MOST_PASSAGES))
        # The same text has the same memory, however often it is submitted.
        digest = hashlib.sha256(claim.content.encode()).hexdigest()
        passages = [
            {
                "id": uuid5(NAMESPACE_URL, f"myloware:demo:{digest}:{number}"),
                "type": MemDocType.CONTEXT,
                "content": content,
                "metadata": {"document": self._names.get(claim.content, ""), "title": found.title, "passage": number},
                "work_item_id": claim.item_id,
            }
            for number, content in enumerate(contents, 1)
        ]
        return Finding(claim, found, passages)

    def _hand_in(self, finding: Finding, *, gate: bool) -> None:
        store, claim = self._store, finding.claim
        store.memory.upsert(finding.passages)
        store.work.finish([claim], [finding.extract.as_result()], gate=gate)
        score, metrics = completeness(claim.type, finding.extract)
        store.evals.record(
            claim.item_id,
            evaluation_type="completeness",
            score=score,
            passed=score >= _PASSING_SCORE,
            metrics=metrics,
        )
        details = {"order_id": str(claim.work_order_id), "attempt": claim.attempt_number, "gate": gate}
        store.audit.record("work_item.finish", "work_item", claim.item_id, user_id=AGENT, details=details)

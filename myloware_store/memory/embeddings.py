"""Embeddings made in the background: which documents lack one, and the vectors set once they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from myloware_store.core.arguments import as_count, as_list, as_uuid
from myloware_store.core.errors import InvalidInput
from myloware_store.core.results import MemoryDoc
from myloware_store.core.values import require_text, shown
from myloware_store.core.vectors import as_embeddings, encode_texts
from myloware_store.memory.documents import DOC_COLUMNS, as_docs
from myloware_store.orm.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Embeddings"]

_MAX_SHARES = 1_024

# Index: mem_docs_missing_embedding_idx, read in its order.
MISSING = """
SELECT {columns}, NULL
FROM mem_docs AS m
WHERE m.embedding IS NULL AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
    AND (uuid_hash(m.id)::bigint + 2147483648) %% %(shares)s = %(share)s
ORDER BY m.created_at, m.id
LIMIT %(limit)s
"""

# Index: the primary key. The rows are locked in the order of their ids, as every batch does.
SET = """
WITH given AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(vectors)s::text[], %(hashes)s::bytea[])
        AS given (id, embedding, content_hash)
), found AS (
    SELECT m.id, given.embedding
    FROM mem_docs AS m JOIN given ON given.id = m.id
    WHERE (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
        AND (given.content_hash IS NULL OR m.content_hash = given.content_hash)
    ORDER BY m.id
    FOR NO KEY UPDATE OF m
)
UPDATE mem_docs AS m
SET embedding = found.embedding::vector,
    updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
FROM found
WHERE m.id = found.id
RETURNING m.id
"""


class Embeddings(Repository):
    """Embedding documents after they were stored."""

    def missing_embeddings(self, limit: int = 100, *, share: tuple[int, int] = (0, 1)) -> list[MemoryDoc]:
        """Return documents that have no embedding, oldest first.

        Nothing is locked or leased meanwhile: two that ask at once get the same documents, and do the same work twice.
        So each of several background embedders asks for a share of its own.

        Args:
            limit: Most documents to return (1 to 100,000).
            share: Which share of the documents, of how many: `(0, 4)` to `(3, 4)` for four embedders. The ids tell them
                apart, so that no document is in two shares.
        """
        values = {"limit": as_count(limit, "limit"), "share": 0, "shares": 1}
        number, shares = _pair(share)
        values["shares"] = as_count(shares, "share: of how many", most=_MAX_SHARES)
        values["share"] = as_count(number, "share", least=0, most=shares - 1)
        return as_docs(self._rows(MISSING.format(columns=DOC_COLUMNS), values))

    def set_embeddings(self, pairs: Iterable[Sequence[Any]]) -> set[UUID]:
        """Give documents their embeddings, in one statement; one that is there already is replaced.

        Args:
            pairs: `(doc, vector)` or `(id, vector, content)`: the vector is set only where the content still is the one
                that it was made for. `(id, vector)` sets it in any case. A `doc` is one that `missing_embeddings` or
                `get` returned, a vector has `(1536,)` real numbers.

        Returns:
            The ids of the documents that have the given embedding now; those that were deleted or have another content
            meanwhile are left out.

        Raises:
            InvalidInput: A pair is none, or an id comes twice; nothing was written.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
        """
        given = [_embedding(pair, f"pairs[{n}]") for n, pair in enumerate(as_list(pairs, "pairs"))]
        ids = [row_id for row_id, _, _ in given]
        if len(set(ids)) != len(ids):
            raise InvalidInput("pairs: an id comes twice")
        places = [f"pairs[{n}]: embedding" for n in range(len(given))]
        if not given:
            return set()
        values = {
            "ids": ids,
            "vectors": encode_texts(as_embeddings([vector for _, vector, _ in given], places)),
            "hashes": [content_hash for _, _, content_hash in given],
        }
        return {row_id for (row_id,) in self._rows(SET, values)}


def _embedding(pair: Any, place: str) -> tuple[str, Any, bytes | None]:
    """Return an id, its vector, and the hash of the content it was made for."""
    if not isinstance(pair, tuple | list) or len(pair) not in (2, 3):
        raise InvalidInput(f"{place}: {shown(pair)} is neither (doc, vector) nor (id, vector, content)")
    doc, vector, *rest = pair
    content = rest[0] if rest else doc.content if isinstance(doc, MemoryDoc) else None
    hashed = None if content is None else hashlib.sha256(require_text(content, f"{place}: content").encode()).digest()
    return str(as_uuid(doc, f"{place}: id")), vector, hashed


def _pair(share: Any) -> tuple[Any, Any]:
    if not isinstance(share, tuple | list) or len(share) != 2:  # noqa: PLR2004  a pair
        raise InvalidInput(f"share: {shown(share)} is not a pair such as (0, 4)")
    return share[0], share[1]

"""Memory documents found by similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from myloware_store.enums import MemDocType
from myloware_store.errors import InvalidInput
from myloware_store.repositories.base import Repository, as_count, as_enum, as_uuid, known_keys
from myloware_store.results import Hit
from myloware_store.values import shown
from myloware_store.vectors import encode_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Search"]

_FILTERS = ("type", "work_item_id")

# Every document is compared: exact at any size and under any filter. OFFSET 0 keeps the planner from an approximate
# index, which answers with too few rows where a filter is narrow.
SIMILAR = """
SELECT id, content, type, metadata, work_item_id, similarity
FROM (
    SELECT id, content, type, metadata, work_item_id, 1 - (embedding <=> %(vector)s::vector) AS similarity
    FROM mem_docs
    WHERE embedding IS NOT NULL
        AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
        AND (%(type)s::mem_doc_type IS NULL OR type = %(type)s::mem_doc_type)
        AND (%(item_id)s::uuid IS NULL OR work_item_id = %(item_id)s::uuid)
    OFFSET 0
) AS compared
WHERE %(least)s::float8 IS NULL OR similarity >= %(least)s::float8
ORDER BY similarity DESC, id
LIMIT %(k)s
"""


class Search(Repository):
    """Searches among the memory documents of the tenant in force."""

    def similar(
        self,
        vector: Any,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
        min_similarity: float | None = None,
    ) -> list[Hit]:
        """Return the k documents whose embeddings are most similar to a vector, best first.

        The search is exact: exactly min(k, matching documents) come back, ties in the order of their ids.

        Args:
            vector: `(1536,)` real numbers.
            k: Most documents to return (1 to 10,000).
            filter: A mapping; `type` and `work_item_id` narrow the search by equality.
            min_similarity: Only documents at least this similar, from -1 to 1.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds.
        """
        narrow = known_keys({} if filter is None else filter, _FILTERS, "filter")
        values = {
            "vector": encode_text(vector, "vector"),
            "k": as_count(k, "k", most=10_000),
            "type": None if "type" not in narrow else as_enum(narrow["type"], MemDocType, "type").value,
            "item_id": None if "work_item_id" not in narrow else str(as_uuid(narrow["work_item_id"], "work_item_id")),
            "least": None if min_similarity is None else _similarity(min_similarity),
        }
        return [
            Hit(
                id=row_id,
                content=content,
                type=MemDocType(kind),
                metadata=metadata,
                work_item_id=item_id,
                score=min(1.0, max(-1.0, similarity)),
                similarity=min(1.0, max(-1.0, similarity)),
            )
            for row_id, content, kind, metadata, item_id, similarity in self._rows(SIMILAR, values)
        ]


def _similarity(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise InvalidInput(f"min_similarity: {shown(value)} is not a number from -1 to 1")
    return float(value)

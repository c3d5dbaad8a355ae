"""Memory documents found by vector and text together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from myloware_store.core.arguments import as_count
from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import shown
from myloware_store.core.vectors import encode_literal
from myloware_store.memory.hits import MAX_HITS, find, hits_sql
from myloware_store.memory.near import FURTHEST, by_comparing
from myloware_store.memory.search import Search
from myloware_store.memory.text import TextSearch, text_legs, typed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from myloware_store.core.results import Hit

__all__ = ["HybridSearch"]

_MOST = 1_000_000

# A document outside of the vector's pool has no distance yet: it is NULL without a vector, and NaN for a zero vector.
_SIMILARITY = """
1 - COALESCE(r.distance, (
    SELECT least(2, greatest(0, distance)) FROM asked, LATERAL (SELECT m.embedding <=> asked.v) AS d (distance)
    WHERE distance <= %(furthest)s
))"""

FUSED = """
fused AS MATERIALIZED (
    SELECT id, n.distance, n.place AS vector_rank, f.place AS text_rank,
        COALESCE(%(vector_weight)s::float8 / (%(rrf_k)s + n.place), 0)
            + COALESCE(%(text_weight)s::float8 / (%(rrf_k)s + f.place), 0) AS score
    FROM (SELECT id, distance, row_number() OVER (ORDER BY distance, id) AS place FROM near) AS n
    FULL JOIN (SELECT id, row_number() OVER (ORDER BY score DESC, id) AS place FROM found) AS f USING (id)
    ORDER BY score DESC, id
    LIMIT %(k)s
)"""


class HybridSearch(Search, TextSearch):
    """Searches among the memory documents of the tenant in force by vector, by text, and by both."""

    def hybrid(
        self,
        vector: Any,
        q: str,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the settled name
        rrf_k: float = 60,
        weights: Sequence[float] = (1, 1),
        pool: int | None = None,
    ) -> list[Hit]:
        """Return the documents that are best by `similar` and `search_text` together, best first.

        Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): a document's `score` is the sum of
        `weight / (rrf_k + rank)` over the searches that found it; ties come in the order of their ids. Both searches
        see one snapshot, in one statement.

        Args:
            vector: `(1536,)` real numbers.
            q: The words, as for `search_text`.
            k: Most documents to return (1 to 10,000).
            filter: Which documents count, in the language of filters.
            rrf_k: 0 or more: the larger, the less the first ranks stand out. 60 is the paper's.
            weights: Of the vector and of the text, two numbers of 0 or more, not both 0.
            pool: How many documents of each search are ranked, from k to 10,000; 4 * k, at least 50, by default.

        Returns:
            Hits that tell their rank in both searches, None where a search's pool has them not.

        Raises:
            InvalidVector: The vector cannot be compared.
            InvalidInput: Another argument is out of its bounds.
        """
        count = as_count(k, "k", most=MAX_HITS)
        depth = (
            min(max(4 * count, 50), MAX_HITS) if pool is None else as_count(pool, "pool", least=count, most=MAX_HITS)
        )
        if not isinstance(weights, Sequence) or len(weights) != 2:  # noqa: PLR2004  the two searches
            raise InvalidInput(f"weights: {shown(weights)} is not a pair of numbers")
        vector_weight, text_weight = (_amount(weight, "weights") for weight in weights)
        if not vector_weight + text_weight:
            raise InvalidInput("weights: both are 0")
        condition = self._condition(filter)
        sent = encode_literal(vector, "vector")
        near = self._through_index(self._usable("auto"), sent, depth, condition) or by_comparing(condition, depth, sent)
        query = typed(q, "web")
        return find(
            self._db,
            hits_sql(
                f"{near.legs},{text_legs(query, condition.sql)},{FUSED}",
                "fused",
                order="r.score DESC, r.id",
                score="r.score",
                similarity=_SIMILARITY,
                vector_rank="r.vector_rank",
                text_rank="r.text_rank",
            ),
            {
                **near.parameters,
                **query.parameters,
                "furthest": FURTHEST,
                "depth": depth,
                "k": count,
                "rrf_k": _amount(rrf_k, "rrf_k"),
                "vector_weight": vector_weight,
                "text_weight": text_weight,
            },
            near.settings,
        )


def _amount(value: Any, name: str) -> float:
    """Return a number that is not negative, or raise InvalidInput."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise InvalidInput(f"{name}: {shown(value)} is not a number from 0 to {_MOST:,}")
    return float(value)

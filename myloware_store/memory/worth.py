"""What a hit is worth beside how well it matches: its age and its importance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.arguments import as_number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from myloware_store.core.results import Hit

__all__ = ["Worth"]

_MOST = 1_000_000


@attrs.frozen(kw_only=True)
class Worth:
    """How much more a search values documents that are new or important.

    The score of a hit is multiplied by `1 + recency * 0.5 ** (age / half_life)`, where `age` is the number of days
    since the document was created, and by `1 + importance * n`, where n is `metadata["importance"]`: a number from 0
    to 1 (one beyond counts as the nearer bound), and 0 if it is missing or something else. A similarity below 0 is
    divided by them.

    Attributes:
        half_life: Days after which recency counts half as much; 30 by default.
        recency: How much being new counts: with 1, a document of this moment counts twice. 0 by default.
        importance: How much being important counts: with 1, an importance of 1 counts twice. 0 by default.

    Raises:
        InvalidInput: A number is negative, too large or none, or `half_life` is 0.
    """

    half_life: float = 30
    recency: float = 0
    importance: float = 0

    def __attrs_post_init__(self) -> None:
        as_number(self.half_life, "half_life", least=1e-6, most=_MOST)
        as_number(self.recency, "recency", least=0, most=_MOST)
        as_number(self.importance, "importance", least=0, most=_MOST)

    def rank(self, hits: list[Hit], ages: Mapping[UUID, float]) -> list[Hit]:
        """Return hits with their new scores, the best first.

        Args:
            hits: The hits of a search.
            ages: Their ages in days.
        """
        valued = []
        for hit in hits:
            factor = self._factor(hit, ages.get(hit.id, math.inf))
            valued.append(attrs.evolve(hit, score=hit.score * factor if hit.score >= 0 else hit.score / factor))
        return sorted(valued, key=lambda hit: (-hit.score, hit.id))

    def _factor(self, hit: Hit, age: float) -> float:
        given = hit.metadata.get("importance")
        n = 0.0 if isinstance(given, bool) or not isinstance(given, int | float) else min(max(float(given), 0.0), 1.0)
        recent: float = 0.5 ** (age / self.half_life)
        return (1 + self.recency * recent) * (1 + self.importance * n)

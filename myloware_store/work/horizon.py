"""From where on claims look: not from the beginning of the queue every time.

What was claimed leaves dead entries at the front of the index. As long as an old snapshot lives (a long report, a dump)
no vacuum takes them away, and a claim that begins at the front reads past all of them, in vain. So a store remembers
how far its claims have come, and begins there; every few seconds, and whenever that gives too few, it begins at the
front.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from myloware_store.core.enums import Priority

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Horizon", "Horizons"]

URGENT_FIRST = (Priority.URGENT, Priority.HIGH, Priority.MEDIUM, Priority.LOW)

_SOONEST, _LATEST = 1.0, 10.0
"""Seconds between two looks from the front."""
_SHARE = 20
"""Between these, one is repeated after so many times what it took, so that it takes a twentieth of the time."""
_MOST_KEPT = 100


Place = tuple[datetime | str, UUID]
"""When an item of a priority became ready, and its id: claims take them in this order."""

_NOBODY = UUID(int=0)
FRONT: tuple[Place, ...] = (("-infinity", _NOBODY),) * len(URGENT_FIRST)


@attrs.frozen
class Horizon:
    """Behind which items the next claim of a kind begins.

    Attributes:
        places: By priority, urgent first, the place before which nothing was left.
        until: When it is forgotten, by `time.monotonic()`.
    """

    places: tuple[Place, ...] = FRONT
    until: float = 0.0

    def as_parameters(self) -> dict[str, list[str]]:
        """Return it as the claim's statement takes it."""
        return {
            "since": [moment if isinstance(moment, str) else moment.isoformat() for moment, _ in self.places],
            "behind": [str(item_id) for _, item_id in self.places],
        }


class Horizons:
    """The horizons of the kinds of claims that a store makes; threads may share them."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Horizon] = {}

    def get(self, kind: Hashable) -> Horizon:
        """Return where to begin, which is the front when nothing is known."""
        kept = self._kept.get(kind)
        return kept if kept is not None and time.monotonic() < kept.until else Horizon()

    def forget(self) -> None:
        """Begin at the front again: something may be ready that is older than what was claimed."""
        self._kept.clear()

    def move(
        self, kind: Hashable, horizon: Horizon, last: tuple[str, Place], *, full: bool, now: datetime, seconds: float
    ) -> None:
        """Note how far a claim has come.

        Args:
            kind: Which types and tenants it was about.
            horizon: Where it began.
            last: Priority and place of the last item that it took.
            full: Whether it took as many as it was to.
            now: The time of the statement, by the database's clock.
            seconds: What it took.
        """
        priority, place = last
        reached = URGENT_FIRST.index(Priority(priority)) if full else len(URGENT_FIRST)
        places = tuple(
            (now, _NOBODY) if lane < reached else place if lane == reached else known
            for lane, known in enumerate(horizon.places)
        )
        pause = min(max(_SOONEST, _SHARE * seconds), _LATEST)
        if len(self._kept) >= _MOST_KEPT:
            self.forget()
        self._kept[kind] = Horizon(places, horizon.until or time.monotonic() + pause)

"""Horizons: the places in the queue where the next claims begin.

Claimed items leave dead entries at the front of the index. While an old snapshot exists (a long report, a dump), vacuum
cannot remove them, and a claim that begins at the front has to read past all of them. So a store remembers where its
last claim ended and begins there. It begins at the front every few seconds, and whenever it finds too few items.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from myloware_store.core.enums import Priority
from myloware_store.core.values import text_array

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

__all__ = ["Horizon", "Horizons"]

URGENT_FIRST = (Priority.URGENT, Priority.HIGH, Priority.MEDIUM, Priority.LOW)

_SOONEST, _LATEST = 1.0, 10.0
"""Seconds between two claims from the front."""
_SHARE = 20
"""Within these bounds, the pause is so many times the duration of the claim, which then takes 5 % of the time."""
_MOST_KEPT = 100


Place = tuple[str, str]
"""When an item of a priority became ready, and its id, as text: the order of claims."""

_NOBODY = str(UUID(int=0))
FRONT: tuple[Place, ...] = (("-infinity", _NOBODY),) * len(URGENT_FIRST)


@attrs.frozen
class Horizon:
    """The items behind which the next claim of a kind begins.

    Attributes:
        places: For each priority, urgent first, the place before which no items were left.
        until: When to forget it, by `time.monotonic()`.
    """

    places: tuple[Place, ...] = FRONT
    until: float = 0.0

    def as_parameters(self) -> dict[str, str]:
        """Return it as parameters of the statement `claim`, array literals."""
        return {
            "since": text_array(moment for moment, _ in self.places),
            "behind": text_array(item_id for _, item_id in self.places),
        }


class Horizons:
    """The horizons of a store, one for each kind of claim; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Horizon] = {}

    def get(self, kind: Hashable) -> Horizon:
        """Return the horizon of a kind, by default the front of the queue."""
        kept = self._kept.get(kind)
        return kept if kept is not None and time.monotonic() < kept.until else Horizon()

    def forget(self) -> None:
        """Begin at the front again: older items than those claimed may be ready."""
        self._kept.clear()

    def move(
        self, kind: Hashable, horizon: Horizon, last: tuple[str, Place], *, full: bool, now: datetime, seconds: float
    ) -> None:
        """Record where a claim ended.

        Args:
            kind: The types and tenants of the claim.
            horizon: Where it began.
            last: The priority and place of its last item.
            full: Whether it found as many items as it asked for.
            now: The time of the statement, by the database's clock.
            seconds: How long it took.
        """
        priority, place = last
        reached = URGENT_FIRST.index(Priority(priority)) if full else len(URGENT_FIRST)
        places = tuple(
            (now.isoformat(), _NOBODY) if lane < reached else place if lane == reached else known
            for lane, known in enumerate(horizon.places)
        )
        pause = min(max(_SOONEST, _SHARE * seconds), _LATEST)
        if len(self._kept) >= _MOST_KEPT:
            self.forget()
        self._kept[kind] = Horizon(places, horizon.until or time.monotonic() + pause)

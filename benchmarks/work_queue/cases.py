"""What is measured of every contender, and what this project asks of its own figures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ASKED_OF_CLAIMS",
    "ASKED_OF_LAST_TENTH",
    "DRAIN",
    "JOINED",
    "LARGE",
    "SMALL",
    "SUBMIT",
    "WORKERS",
    "Case",
    "asked",
    "cases",
]

WORKERS = 4
DRAIN, JOINED, SUBMIT = "claim + finish", "finish_and_claim", "submit"
SMALL, LARGE = 1000, 14_000

# How many times our processor time an item is to cost another: (kind, batch, bytes of an item) to the ratio.
ASKED_OF_PGQUEUER = {
    (DRAIN, 1, SMALL): 1.0,
    (DRAIN, 50, SMALL): 0.8,
    (DRAIN, 1, LARGE): 1.0,
    (DRAIN, 50, LARGE): 0.8,
    (JOINED, 1, SMALL): 1.2,
    (JOINED, 1, LARGE): 1.2,
    (SUBMIT, 1, SMALL): 1.0,
    (SUBMIT, 1000, SMALL): 1.0,
    (SUBMIT, 1, LARGE): 0.7,
    (SUBMIT, 1000, LARGE): 0.7,
}
ASKED_OF_PROCRASTINATE = 1.5

# By its name: the queue beside whose p50 of a claim that of this one is seen, and how many times that it is at most.
ASKED_OF_CLAIMS = {
    "deep": ("1k", 1.5),
    "finished": ("1k", 1.5),
    "parked": ("middle", 2.0),
    "pinned": ("middle", 2.0),
    "many": ("middle", 1.5),
    "wanted": ("middle", 1.5),
}
ASKED_OF_LAST_TENTH = 0.9
"""The rate of the last tenth of a long run, divided by that of the second."""


@dataclass(frozen=True)
class Case:
    """One figure to take of every contender."""

    kind: str
    batch: int
    workers: int
    size: int
    items: int


def cases(parts: list[str], *, quick: bool) -> list[Case]:
    """Return what to measure."""
    found = []
    for size in (SMALL, LARGE):
        many = (1000 if quick else 10_000) // (1 if size == SMALL else 5)
        if "drain" in parts:
            for workers in (1, WORKERS):
                found.append(Case(DRAIN, 1, workers, size, 200 if quick else 1500))
                found.append(Case(DRAIN, 50, workers, size, many))
        if "submit" in parts:
            found.append(Case(SUBMIT, 1, 1, size, 100 if quick else 1000))
            found.append(Case(SUBMIT, 1000, 1, size, many))
    return found


def asked(kind: str, batch: int, size: int, other: str) -> float | None:
    """Return how many times our processor time an item is to cost this other contender, if anything is asked."""
    if other == "procrastinate":
        return ASKED_OF_PROCRASTINATE
    return ASKED_OF_PGQUEUER.get((kind, batch, size)) if other == "pgqueuer" else None

"""Storing the handlers' results in batches, and again after a lost connection."""

from __future__ import annotations

import logging
import random
from itertools import groupby
from typing import TYPE_CHECKING

import attrs
from psycopg2.errorcodes import READ_ONLY_SQL_TRANSACTION

from myloware_store.core.errors import ConnectionFailed, DatabaseFault, StoreError, TransactionConflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias
    from uuid import UUID

    from myloware_store.core.results import Claim
    from myloware_store.work.engine import Work
    from myloware_store.worker.threads import Handled

    Finish: TypeAlias = Callable[[list[Claim], list[Any]], set[UUID]]

__all__ = ["WorkerReport", "hand_in", "tolerate"]

_AWAY = (ConnectionFailed, TransactionConflict)
_PASSING = ("53", "57")  # SQLSTATE classes: insufficient resources, operator intervention (time-outs included)

_SHORTAGE_SECONDS = (1.0, 3.0)
"""The bounds of the delay of an item whose handler could not reach the database."""

_logger = logging.getLogger("myloware_store.worker")


@attrs.define(slots=False)
class WorkerReport:
    """The outcomes of a worker's claims.

    Attributes:
        finished: Results that were stored.
        parked: Results that were stored and wait for a decision.
        failed: Attempts that failed, including those of items that will be tried again.
        lost: Claims that were refused: their leases expired, they were cancelled, or their handlers ended them in
            another way.
        released: Claims that were released, for example because their handlers could not reach the database.
    """

    finished: int = 0
    parked: int = 0
    failed: int = 0
    lost: int = 0
    released: int = 0


def tolerate(error: StoreError, what: str) -> None:
    """Log an error after which the call can be repeated; raise any other."""
    if not _passes(error):
        raise error
    _logger.warning("%s: %s", what, error)


def hand_in(work: Work, handled: Iterable[Handled], settled: WorkerReport, finish: Finish) -> list[Handled]:
    """Finish or fail attempts by the answers of their handlers, and count the outcomes.

    Args:
        work: The work engine.
        handled: The answers.
        settled: The outcomes so far.
        finish: Called to finish items that need no decision.

    Returns:
        The answers that could not be stored because the server cannot be reached. Both calls can be repeated.
    """
    left: list[Handled] = []
    ordered = sorted(handled, key=_way)
    for _, group in groupby(ordered, key=_way):
        left += _settle(work, list(group), settled, finish)
    return left


def _passes(error: StoreError) -> bool:
    # The server cannot be reached, the pool is empty, a transaction conflicted, or the statement was cancelled.
    return isinstance(error, _AWAY) or (
        isinstance(error, DatabaseFault)
        and (error.sqlstate[:2] in _PASSING or error.sqlstate == READ_ONLY_SQL_TRANSACTION)
    )


def _way(handled: Handled) -> tuple[bool, bool, bool, bool, float]:
    delay = -1.0 if handled.delay is None else handled.delay
    return (handled.error is not None, handled.gate, handled.released, handled.retry, delay)


def _settle(work: Work, batch: list[Handled], settled: WorkerReport, finish: Finish) -> list[Handled]:
    """Store answers of one kind, count them, and return those that cannot be stored now."""
    try:
        accepted = _send(work, batch, finish)
    except StoreError as error:
        if len(batch) > 1 and not isinstance(error, _AWAY):  # one of them is at fault, or all together take too long
            return [left for one in batch for left in _settle(work, [one], settled, finish)]
        if _passes(error):
            _logger.warning("%d results will be stored later: %s", len(batch), error)
            return batch
        if batch[0].error is None:
            return _settle(work, [attrs.evolve(batch[0], error=error, gate=False, result=None)], settled, finish)
        _logger.warning("item %s: left until its lease expires: %s", batch[0].claim.item_id, error)
        accepted = set()
    held = [one for one in batch if one.claim.item_id in accepted]
    settled.lost += len(batch) - len(held)
    for one in batch:
        _tell(one, accepted=one.claim.item_id in accepted)
    if batch[0].released:
        settled.released += len(held)
    elif batch[0].error is not None:
        settled.failed += len(held)
    elif batch[0].gate:
        settled.parked += len(held)
    else:
        settled.finished += len(held)
    return []


def _send(work: Work, batch: list[Handled], finish: Finish) -> set[UUID]:
    """Send answers of one kind, and return the ids of the items that were accepted."""
    first, claims = batch[0], [one.claim for one in batch]
    if first.error is None:
        results = [one.result for one in batch]
        return work.finish(claims, results, gate=True) if first.gate else finish(claims, results)
    if first.released:
        return work.release(claims, delay=random.uniform(*_SHORTAGE_SECONDS))  # noqa: S311  only to spread the items
    errors = [one.error or "" for one in batch]
    return set(work.fail(claims, errors, retry=first.retry, delay=first.delay))


def _tell(one: Handled, *, accepted: bool) -> None:
    claim = one.claim
    if not accepted:
        what = "item %s: attempt %d was refused: its lease expired, it was cancelled, or it had already ended"
        _logger.warning(what, claim.item_id, claim.attempt_number)
    elif one.released:
        _logger.warning("item %s: released, the handler could not reach the database: %s", claim.item_id, one.error)
    elif one.error is not None:  # the text may quote the document; it is stored with the attempt
        kind = type(one.error).__name__
        _logger.warning("item %s: attempt %d failed: %s", claim.item_id, claim.attempt_number, kind)
        _logger.debug("item %s: attempt %d", claim.item_id, claim.attempt_number, exc_info=one.error)

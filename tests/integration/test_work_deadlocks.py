"""Batches that cut across orders, from several processes at once: they never deadlock."""

from __future__ import annotations

import multiprocessing
import random
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import LeaseLost, Priority, Store, WorkOrder
from tests.conftest import ROUNDS
from tests.integration.test_work_ledger import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Claim

PROCESSES = 4


def hunt(url: str, seed: int, rounds: int) -> None:
    """Make random calls in two threads that share their claims, so that two calls meet over the same ones, too."""
    claims: deque[Claim] = deque(maxlen=40)
    with Store.open(url) as store, ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(call_on, store, claims, random.Random(f"{seed} {n}"), rounds) for n in range(2)]:
            done.result()


def call_on(store: Store, claims: deque[Claim], draw: random.Random, rounds: int) -> None:
    """Make random calls, the usual ones more often."""
    work, letters = store.work, store.dead_letters

    def some() -> list[Claim]:
        given = {claim.item_id: claim for claim in [*claims]}
        return draw.sample([*given.values()], min(len(given), draw.randint(1, 8)))

    def ends(call: Callable[..., Any]) -> None:
        given = some()
        call(given, [draw.random()] * len(given))

    def claim() -> None:
        lease = draw.choice([60.0, 60.0, 0.01])
        wanted: dict[str, Any] = draw.choice([{}, {"fair": True}, {"types": ["TICKET"]}, {"tenants": ["acme", "me"]}])
        if draw.random() < 0.5:
            claims.extend(work.claim("agent", draw.randint(1, 8), lease=lease, **wanted))
        else:
            given, options = some(), {"lease": lease, **wanted}
            claims.extend(work.finish_and_claim(given, [1] * len(given), "agent", draw.randint(1, 8), **options)[1])

    def submit() -> None:
        with store.tenant(draw.choice(["acme", "me"])):
            items = [{"type": draw.choice(["TICKET", "INVOICE"]), "content": "x"} for _ in range(draw.randint(1, 6))]
            work.submit(items, priority=draw.choice([*Priority]), max_attempts=draw.randint(1, 3))

    def cancel() -> None:
        for order in WorkOrder.select().where(WorkOrder.open_items > 0).order_by(WorkOrder.id.desc()).limit(1):
            work.cancel(order.id)

    def whole(given: list[Claim], results: list[Any]) -> None:
        with suppress(LeaseLost):
            store.transact(partial(work.finish, given, results))

    calls: list[tuple[int, Callable[[], Any]]] = [
        (4, submit),
        (8, claim),
        (3, partial(ends, work.finish)),
        (1, partial(ends, whole)),
        (3, partial(ends, lambda given, texts: work.fail(given, [*map(str, texts)], delay=0))),
        (2, lambda: work.heartbeat(some())),
        (2, lambda: work.release(some())),
        (2, work.reap),
        (1, cancel),
        (1, lambda: letters.replay([letter.id for letter in letters.list(limit=5)], by="kim")),
        (1, lambda: work.index(5)),
    ]
    for call in draw.choices([call for _, call in calls], [weight for weight, _ in calls], k=rounds):
        call()


@pytest.mark.myloware_db(mode="clone")
def test_calls_of_many_processes_never_deadlock(myloware: Store, myloware_dsn: str) -> None:
    """Not once, as the server counts them: the engine would repeat the call that had to give way. The books balance."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(hunt, myloware_dsn, seed, 40 * ROUNDS) for seed in range(PROCESSES)]:
            done.result()

    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert (0,) == myloware.db.execute_sql(deadlocks).fetchone()
    assert [] == myloware.db.execute_sql(BROKEN).fetchall()

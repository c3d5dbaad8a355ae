"""Replies that are lost on their way: the client learns that it cannot know, repeats the call, and has one order."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from myloware_store import AmbiguousCommit, WorkItem, WorkOrder
from myloware_store.db.database import StoreDatabase
from myloware_store.work.engine import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store
    from tests.relay import Relay

CUTS = 20


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("needle", ["submit_work_order", "COMMIT"])
def test_a_repeated_submit_makes_one_order(
    myloware: Store,
    relayed: Callable[..., Relay],
    needle: str,
    sent: bool,  # noqa: FBT001
) -> None:
    """Of twenty statements of their own, and of twenty transactions, whether the server got the last word or not."""
    relay = relayed(myloware.settings.host, myloware.settings.port)
    keys = [uuid4().hex for _ in range(CUTS)]
    database = StoreDatabase(relay.before(myloware.settings))
    work = Work(database)

    def submit(key: str) -> Any:
        once = partial(work.submit, [{"type": "TICKET", "content": key}], idempotency_key=key)
        return database.transact(once) if needle == "COMMIT" else once()

    for number, key in enumerate(keys):
        relay.lose(needle, sent=sent)
        with pytest.raises(AmbiguousCommit):
            submit(key)
        assert number + sent == WorkOrder.select().count()
        assert submit(key).id == submit(key).id
    database.close_all()
    assert sorted(keys) == sorted(str(order.idempotency_key) for order in WorkOrder.select())


@pytest.mark.parametrize("sent", [True, False])
def test_a_repeated_finish_is_accepted_once(myloware: Store, relayed: Callable[..., Relay], *, sent: bool) -> None:
    """Twenty results, of which the reply is lost, are stored once."""
    relay = relayed(myloware.settings.host, myloware.settings.port)
    myloware.work.submit([{"type": "TICKET", "content": "The printer is on fire"}] * CUTS)
    database = StoreDatabase(relay.before(myloware.settings))
    work = Work(database)
    for number in range(CUTS):
        claims = myloware.work.claim("agent")
        relay.lose("finish_work_items", sent=sent)
        with pytest.raises(AmbiguousCommit):
            work.finish(claims, [number])
        assert {claims[0].item_id} == work.finish(claims, [number])
    database.close_all()
    assert list(range(CUTS)) == sorted(item.result for item in WorkItem.select())
    assert {1} == {item.attempt_count for item in WorkItem.select()}

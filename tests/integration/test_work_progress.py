"""How far running work is, and handlers that hear that nobody wants their results any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import Attempt, AttemptStatus, Claim, InvalidInput, Worker, WorkItem
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


def claimed(store: Store) -> Claim:
    """Submit an item, and claim it."""
    store.work.submit([INVOICE])
    (claim,) = store.work.claim("agent")
    return claim


def told(claim: Claim) -> tuple[int | None, str | None]:
    """Return what others read of an attempt's progress."""
    attempt = Attempt.get_by_id(claim.attempt_id)
    return attempt.progress, attempt.progress_message


def test_others_read_how_far_an_attempt_is(myloware: Store) -> None:
    """In whole percents, with a message that goes with them; it stays when the attempt has ended."""
    claim = claimed(myloware)
    assert told(claim) == (None, None)
    assert myloware.work.progress(claim, 40, "page 4 of 10")
    assert told(claim) == (40, "page 4 of 10")
    assert myloware.work.progress(claim, 99.9)
    assert told(claim) == (99, None)
    myloware.work.finish([claim], [1])
    assert told(claim) == (99, None)
    assert not claim.cancelled


@pytest.mark.parametrize(
    "lose",
    [
        lambda store, claim: store.work.cancel(claim.work_order_id),
        lambda store, claim: store.work.finish([claim], [1]),
        lambda store, claim: store.work.release([claim]),
        lambda _, claim: (
            Attempt.update(lease_expires_at=datetime.now(UTC) - timedelta(minutes=1))
            .where(Attempt.id == claim.attempt_id)
            .execute()
        ),
    ],
    ids=["the order was cancelled", "the attempt has ended", "the item was released", "the lease ran out"],
)
@pytest.mark.parametrize("hear", ["heartbeat", "progress"])
def test_a_claim_that_lost_its_item_is_cancelled(
    myloware: Store, lose: Callable[[Store, Claim], object], hear: str
) -> None:
    """It hears of it at the next heartbeat or progress, whatever the reason, and nothing is stored."""
    claim = claimed(myloware)
    myloware.work.progress(claim, 1, "begun")
    lose(myloware, claim)
    assert not claim.cancelled
    if hear == "heartbeat":
        assert set() == myloware.work.heartbeat([claim])
    else:
        assert not myloware.work.progress(claim, 2, "late")
        assert Attempt.select().where(Attempt.progress == 2).count() == 0
    assert claim.cancelled


def test_another_tenant_tells_no_progress(myloware: Store) -> None:
    """Under another tenant nothing is stored; the attempt goes on."""
    claim = claimed(myloware)
    with myloware.tenant("globex"):
        assert not myloware.work.progress(claim, 50)
    assert told(claim) == (None, None)
    assert myloware.work.progress(claim, 51)


@pytest.mark.parametrize(
    ("percent", "message"),
    [(-1, None), (101, None), (float("nan"), None), ("50", None), (True, None), (1, 7), (1, "\x00")],
)
def test_progress_is_a_percentage_and_a_text(myloware: Store, percent: Any, message: Any) -> None:
    """Anything else is refused before anything is written, and so is what is not a claim."""
    claim = claimed(myloware)
    with pytest.raises(InvalidInput):
        myloware.work.progress(claim, percent, message)
    with pytest.raises(InvalidInput):
        myloware.work.progress(claim.item_id, 1)  # type: ignore[arg-type]  # that is the point
    assert told(claim) == (None, None)


@pytest.mark.parametrize("reason", ["cancelled", "lost", "timeout"])
def test_a_running_handler_hears_that_it_is_not_wanted(myloware: Store, reason: str) -> None:
    """Its order was cancelled, another thread of the worker has the item, or it took too long: it can end."""
    order = myloware.work.submit([INVOICE])
    heard: list[str] = []

    def handle(claim: Claim) -> None:
        if claim.attempt_number > 1:
            until(lambda: heard)
            return
        if reason == "cancelled":
            myloware.work.cancel(order.id)
        elif reason == "lost":
            past = datetime.now(UTC) - timedelta(minutes=1)
            Attempt.update(lease_expires_at=past).where(Attempt.id == claim.attempt_id).execute()
            myloware.work.reap()
            WorkItem.update(available_at=past).execute()
            # The worker claims it again before it extends a lease.
            until(lambda: Attempt.select().where(Attempt.status == AttemptStatus.STARTED).count() == 1)
        until(lambda: claim.cancelled)
        heard.append(reason)

    worker = Worker(myloware, handle, threads=2, lease=1, timeout=0.1 if reason == "timeout" else None, reap_every=None)
    report = worker.run(drain=True)
    until(lambda: heard == [reason])  # a drain does not wait for a handler that took too long
    assert report.lost == (reason != "timeout")

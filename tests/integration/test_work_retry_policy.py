"""The delays between an item's tries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from myloware_store import Attempt, InvalidInput, RetryLater, RetryPolicy, Worker, WorkItem, WorkOrder
from myloware_store.core.errors import ConstraintViolation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from myloware_store import Store

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def delays(store: Store, tries: int) -> list[float]:
    """Fail every item so many times, by turns itself and by its lease, and return the delays."""
    seconds = []
    for number in range(tries):
        WorkItem.update(available_at=LONG_AGO).execute()
        claims = store.work.claim("agent", n=100)
        if number % 2:
            Attempt.update(lease_expires_at=LONG_AGO).where(Attempt.finished_at.is_null()).execute()
            outcomes = store.work.reap()
        else:
            outcomes = store.work.fail(claims, ["no luck"] * len(claims))
        for claim in claims:
            ended, again = Attempt.get_by_id(claim.attempt_id).finished_at, outcomes[claim.item_id].available_at
            assert ended is not None
            assert again is not None
            seconds.append(round((again - ended).total_seconds(), 3))
    return seconds


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RetryPolicy(jitter=0), [2, 4, 8, 16]),
        (RetryPolicy(base=1, factor=10, cap=50, jitter=0), [1, 10, 50, 50]),
        ({"base": 0.5, "factor": 1, "jitter": 0.0}, [0.5] * 4),
        ({"base": 90, "cap": 60, "jitter": 0}, [60] * 4),
    ],
)
def test_an_order_says_how_long_its_items_wait(
    myloware: Store, policy: RetryPolicy | Mapping[str, float], expected: list[float]
) -> None:
    """After a failure as after a lease that ran out; the order keeps it for all its tries."""
    order = myloware.work.submit([INVOICE], max_attempts=9, retry_policy=policy)
    assert expected == delays(myloware, 4)
    whole = policy if isinstance(policy, RetryPolicy) else RetryPolicy(**policy)
    assert order.retry_policy == WorkOrder.get_by_id(order.id).retry_policy == attrs.asdict(whole)


def test_each_order_has_its_own_policy(myloware: Store) -> None:
    """Items that fail together wait by their own orders'."""
    for base in (1, 5):
        myloware.work.submit([INVOICE], retry_policy=RetryPolicy(base=base, jitter=0))
    assert [1, 5] == delays(myloware, 1)


def test_without_a_policy_the_delay_doubles(myloware: Store) -> None:
    """From 2 seconds to an hour, times 0.5 to 1.5; and so does a policy of default values."""
    for policy in (None, RetryPolicy()):
        myloware.work.submit([INVOICE] * 20, max_attempts=20, retry_policy=policy)
    assert WorkOrder.select().where(WorkOrder.retry_policy.is_null()).count() == 1
    seconds = delays(myloware, 13)
    for number in range(13):
        middle = min(2 ** (number + 1), 3600)
        of_try = seconds[40 * number : 40 * (number + 1)]
        assert 0.5 * middle <= min(of_try) < middle < max(of_try) <= 1.5 * middle


def test_the_jitter_is_the_spread(myloware: Store) -> None:
    """Of 1, delays are between none and twice the time."""
    myloware.work.submit([INVOICE] * 50, retry_policy=RetryPolicy(base=100, jitter=1))
    seconds = delays(myloware, 1)
    assert 0 <= min(seconds) < 50
    assert 150 < max(seconds) <= 200


def test_no_number_of_tries_is_too_large(myloware: Store) -> None:
    """The steepest policy ends at its cap."""
    myloware.work.submit([INVOICE], max_attempts=1000, retry_policy=RetryPolicy(factor=1000, cap=86400, jitter=0))
    WorkItem.update(attempt_count=998).execute()
    assert [86400] == delays(myloware, 1)


def test_a_delay_that_is_given_comes_first(myloware: Store) -> None:
    """That of `fail`, or of a handler's RetryLater."""
    myloware.work.submit([INVOICE], retry_policy=RetryPolicy(base=5000, cap=5000))

    def handle(_: object) -> None:
        raise RetryLater("soon", delay=60)

    Worker(myloware, handle, threads=1, reap_every=None).run(drain=True)
    ended = Attempt.get().finished_at
    assert ended is not None
    assert 60 == (WorkItem.get().available_at - ended).total_seconds()


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(base=0),
        RetryPolicy(base=float("nan")),
        RetryPolicy(factor=0.5),
        RetryPolicy(factor=1001),
        RetryPolicy(cap=float("inf")),
        RetryPolicy(jitter=-0.1),
        RetryPolicy(jitter=1.1),
        RetryPolicy(base="2"),  # type: ignore[arg-type]  # that is the point
        {"base": True},
        {"tries": 3},
        [2, 2, 3600],
        "fast",
        0,
    ],
    ids=str,
)
def test_a_policy_out_of_its_bounds_is_refused(myloware: Store, policy: Any) -> None:
    """One error names the value, and nothing is stored."""
    with pytest.raises(InvalidInput, match="retry_policy"):
        myloware.work.submit([INVOICE], retry_policy=policy)
    assert WorkOrder.select().count() == 0


@pytest.mark.parametrize(
    "policy",
    [
        "[]",
        "{}",
        "null",
        '{"base": 0, "factor": 2, "cap": 9, "jitter": 0}',
        '{"base": "1", "factor": 2, "cap": 9, "jitter": 0}',
        '{"base": [1], "factor": 2, "cap": 9, "jitter": 0}',
        '{"base": 1, "factor": 2, "cap": 9}',
        '[{"base": 1, "factor": 2, "cap": 9, "jitter": 0}]',
        '{"base": 1, "factor": 2, "cap": 9, "jitter": 1e-400}',
    ],
)
def test_a_policy_by_hand_cannot_break_a_failure(myloware: Store, policy: str) -> None:
    """The column refuses whatever `fail` and `reap` could not compute with."""
    myloware.work.submit([INVOICE])
    with pytest.raises(ConstraintViolation):
        myloware.db.execute_sql("UPDATE work_orders SET retry_policy = %s", (policy,))
    myloware.db.execute_sql(
        "UPDATE work_orders SET retry_policy = %s", ('{"base": 7, "factor": 1, "cap": 9, "jitter": 0}',)
    )
    assert [7] == delays(myloware, 1)

"""Dead letters from outside: handed to whoever replays them, once each."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import AuditLog, DeadLetter, InvalidInput

if TYPE_CHECKING:
    from myloware_store import Store


def test_a_letter_from_outside_goes_to_the_handler(myloware: Store) -> None:
    """With its tenant in force; what the handler stores is committed with the replay."""
    with myloware.tenant("acme"):
        letter = myloware.dead_letters.record("webhook", "order.paid", {"total": 12.5}, "refused")
    got: list[DeadLetter] = []

    def handle(given: DeadLetter) -> None:
        got.append(given)
        myloware.audit.record("letter.replayed", "dead_letter", given.id)

    with myloware.tenant("globex"):
        assert set() == myloware.dead_letters.replay(letter.id, by="kim", handler=handle)
    assert {letter.id} == myloware.dead_letters.replay([letter.id], by="kim", handler=handle)
    assert set() == myloware.dead_letters.replay(letter.id, by="lee", handler=handle)
    (given,) = got
    assert ("webhook", "order.paid", {"total": 12.5}, "acme") == (
        given.source,
        given.event_type,
        given.payload,
        given.tenant_id,
    )
    line = AuditLog.get(AuditLog.source == "application")
    assert ("acme", "kim") == (line.tenant_id, line.user_id)
    assert "kim" == DeadLetter.get().replayed_by


def test_an_item_that_failed_again_is_queued_by_its_new_letter(myloware: Store) -> None:
    """The old one was replayed before: alone it does nothing, and together with the new one it stays as it was."""
    myloware.work.submit([{"type": "INVOICE", "content": "x"}])
    letters = []
    for by in ("kim", None):
        (outcome,) = myloware.work.fail(myloware.work.claim("agent"), ["never"], retry=False).values()
        letters.append(str(outcome.dead_letter_id))
        if by:
            assert {outcome.dead_letter_id} == myloware.dead_letters.replay(letters, by=by)
    old, new = letters
    assert set() == myloware.dead_letters.replay([old], by="lee")
    assert {outcome.dead_letter_id} == myloware.dead_letters.replay([old, new], by="lee")
    assert ["kim", "lee"] == [DeadLetter.get_by_id(letter).replayed_by for letter in letters]


def test_a_letter_from_outside_without_a_handler_is_an_error(myloware: Store) -> None:
    """Where nothing else was asked for; beside items it stays, and so does one that was replayed or is another's."""
    with myloware.tenant("acme"):
        letter = myloware.dead_letters.record("webhook", "order.paid", {}, "refused")
    with pytest.raises(InvalidInput, match="handler: none of these letters has an item"):
        myloware.dead_letters.replay(letter.id, by="kim")
    with myloware.tenant("globex"):
        assert set() == myloware.dead_letters.replay(letter.id, by="kim")
    myloware.work.submit([{"type": "INVOICE", "content": "x"}])
    (outcome,) = myloware.work.fail(myloware.work.claim("agent"), ["never"], retry=False).values()
    assert outcome.dead_letter_id is not None
    both = [letter.id, outcome.dead_letter_id]
    assert {outcome.dead_letter_id} == myloware.dead_letters.replay(both, by="kim")
    assert set() == myloware.dead_letters.replay(both, by="kim")
    assert [letter] == myloware.dead_letters.list()
    assert {letter.id} == myloware.dead_letters.replay(letter.id, by="kim", handler=print)
    assert set() == myloware.dead_letters.replay(letter.id, by="kim")


def test_a_letter_whose_handler_fails_is_not_replayed(myloware: Store) -> None:
    """Nor is what the handler stored; those before it are, those after it wait for the next time."""
    first, second, third = (myloware.dead_letters.record("s", "t", number, "e") for number in range(3))

    def handle(letter: DeadLetter) -> None:
        myloware.audit.record("letter.replayed", "dead_letter", letter.id)
        if letter.payload == 1:
            raise OSError("no answer")

    with pytest.raises(OSError, match="no answer"):
        myloware.dead_letters.replay([first.id, second.id, third.id], by="kim", handler=handle)
    assert {second.id, third.id} == {letter.id for letter in myloware.dead_letters.list()}
    assert [str(first.id)] == [line.resource_id for line in AuditLog.select().where(AuditLog.source == "application")]


def test_racing_replays_hand_each_letter_over_once(myloware: Store) -> None:
    """Eight press the button at once, items and outside letters together."""
    order = myloware.work.submit([{"type": "INVOICE", "content": "x"}] * 5)
    myloware.work.fail(myloware.work.claim("agent", n=5), ["never"] * 5, retry=False)
    for number in range(20):
        myloware.dead_letters.record("s", "t", number, "e")
    ids = [letter.id for letter in DeadLetter.select()]
    handled: Counter[int] = Counter()
    barrier = threading.Barrier(8)

    def press(_: int) -> list[Any]:
        barrier.wait()
        return [*myloware.dead_letters.replay(ids, by="kim", handler=lambda letter: handled.update([letter.payload]))]

    with ThreadPoolExecutor(8) as pool:
        replayed = [letter_id for part in pool.map(press, range(8)) for letter_id in part]
    assert sorted(ids) == sorted(replayed)
    assert dict.fromkeys(range(20), 1) == handled
    assert 5 == myloware.work.get(order.id).open_items


def test_what_is_no_handler_is_refused(myloware: Store) -> None:
    """Before anything is replayed."""
    letter = myloware.dead_letters.record("s", "t", 1, "e")

    async def later(_: DeadLetter) -> None:
        """Run when nobody waits for it any more."""

    for handler in ("print", later):
        with pytest.raises(InvalidInput):
            myloware.dead_letters.replay(letter.id, by="kim", handler=handler)  # type: ignore[arg-type]
    assert 1 == len(myloware.dead_letters.list())

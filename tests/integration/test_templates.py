"""Workflow templates on a real database: registered once, one active a name."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import InvalidInput, NotFound, VersionConflict, WorkflowTemplate

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

STEPS = {"steps": ["extract", "book"], "limit": 5}


def race(call: Callable[[int], Any], count: int = 6) -> list[Any]:
    """What the calls return when all begin at once."""
    barrier = threading.Barrier(count)

    def run(n: int) -> Any:
        barrier.wait()
        return call(n)

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(run, range(count))]


def test_a_template_is_registered_once(myloware: Store) -> None:
    """The same contents are the same row, whoever races; others are another version of the name."""
    rows = race(lambda _: myloware.templates.register("booking", "INVOICE", STEPS, description="books"))
    assert 1 == len({row.id for row in rows})
    first = rows[0]
    assert (STEPS, "INVOICE", "books", False) == (
        first.workflow_definition,
        first.document_type,
        first.description,
        first.is_active,
    )
    reordered = dict(reversed(STEPS.items()))
    assert first.id == myloware.templates.register("booking", "INVOICE", reordered, description="books").id
    others = [
        myloware.templates.register("booking", "TICKET", STEPS, description="books"),
        myloware.templates.register("booking", "INVOICE", {}, description="books"),
        myloware.templates.register("booking", "INVOICE", STEPS),
    ]
    assert 4 == len({first.id, *(row.id for row in others)})
    assert {first.id, *(row.id for row in others)} == {row.id for row in myloware.templates.list(name="booking")}


def test_a_template_that_was_changed_since_is_a_conflict(myloware: Store) -> None:
    """Nothing is handed over that was not asked for."""
    first = myloware.templates.register("booking", "INVOICE", STEPS)
    first.workflow_definition = {}
    first.save()
    with pytest.raises(VersionConflict, match="changed since"):
        myloware.templates.register("booking", "INVOICE", STEPS)


def test_exactly_one_is_active_however_many_race(myloware: Store) -> None:
    """Every activation succeeds, one after the other."""
    rows = [myloware.templates.register("booking", "INVOICE", {"n": n}) for n in range(6)]
    assert myloware.templates.active("booking") is None
    for _ in range(5):
        outcomes = race(lambda n: myloware.templates.activate(rows[n].id))
        assert [row.id for row in rows] == [row.id for row in outcomes]
        assert (
            1 == WorkflowTemplate.select().where(WorkflowTemplate.name == "booking", WorkflowTemplate.is_active).count()
        )
    last = myloware.templates.activate(rows[0])
    assert last == myloware.templates.active("booking")
    assert [last] == [
        row for row in myloware.templates.list(document_type="INVOICE", active=True) if row.name == "booking"
    ]
    with pytest.raises(NotFound):
        myloware.templates.activate(uuid.uuid4())
    assert last == myloware.templates.active("booking")
    assert [True, False] == [myloware.templates.deactivate("booking") for _ in range(2)]
    assert myloware.templates.active("booking") is None


@pytest.mark.parametrize(
    "bad",
    [{"name": ""}, {"document_type": "FOO"}, {"document_type": 1}, {"workflow_definition": None}, {"description": 1}],
)
def test_a_bad_template_is_refused(myloware: Store, bad: dict[str, Any]) -> None:
    """And nothing is stored."""
    before = WorkflowTemplate.select().count()
    with pytest.raises(InvalidInput):
        myloware.templates.register(**{"name": "n", "document_type": "TICKET", "workflow_definition": {}, **bad})
    with pytest.raises(InvalidInput, match=r"template_id \(what `register` returned, or its id\): 'booking' is not"):
        myloware.templates.activate("booking")
    assert before == WorkflowTemplate.select().count()

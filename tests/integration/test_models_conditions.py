"""Conditions and expressions on a real database: they compare, where writes are checked."""

from __future__ import annotations

import itertools
import math
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from peewee import Case, EnclosedNodeList, fn

from myloware_store import Capability, DeadLetter, EvalResult, InvalidInput, Priority, WorkItem, WorkOrder

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("myloware_db")

NOW = datetime.now(UTC)
METADATA = {"a": {"b": 5}, "l": [1, 2], "s": "x", "n": None, "f": 1.5, "t": True}

CYCLIC: list[Any] = []
CYCLIC.append(CYCLIC)


@pytest.fixture
def order() -> WorkOrder:
    """A stored order with nested metadata."""
    return WorkOrder.create(created_by="intake", metadata=METADATA)


@pytest.fixture
def item(order: WorkOrder) -> WorkItem:
    """Its item."""
    return WorkItem.create(work_order=order, type="INVOICE", content="Invoice 17")


ON_JSON: list[Callable[[Any], Any]] = [
    lambda of: of["a"]["b"] == 5,
    lambda of: of["a"]["b"] != 6,
    lambda of: of["a"]["b"] > 4,
    lambda of: of["a"]["b"].between(4, 6),
    lambda of: of["a"]["b"].in_([4, 5]),
    lambda of: of["a"]["b"].not_in([4, 6]),
    lambda of: of["a"]["b"].as_int() == 5,
    lambda of: of["f"].as_float() < 1.6,
    lambda of: of.path("a", "b") == 5,
    lambda of: of["a"] == {"b": 5},
    lambda of: of["l"] == [1, 2],
    lambda of: of["l"][0] == 1,
    lambda of: of["l"].contains(2),
    lambda of: of["l"].length() == 2,
    lambda of: of["s"] == "x",
    lambda of: of["s"].in_(["x", "y"]),
    lambda of: of["s"].as_text() == "x",
    lambda of: of["s"].startswith("x"),
    lambda of: of["t"] == True,  # noqa: E712  a condition
    lambda of: of["n"] == None,  # noqa: E711  a condition
    lambda of: of["gone"].is_null(),
    lambda of: of == METADATA,
    lambda of: of != [],
    lambda of: of.in_([METADATA, 5]),
    lambda of: of.contains({"a": {"b": 5}}),
    lambda of: of.contained_by({**METADATA, "more": 1}),
    lambda of: of.has_key("s"),
    lambda of: of.has_keys(["s", "a"]),
    lambda of: of.has_any_keys(["nobody", "a"]),
]


def test_json_compares_at_every_depth(order: WorkOrder) -> None:
    """What a column may hold at its top level is no rule for what a path is compared with."""
    WorkOrder.create(created_by="another", metadata={"n": 0})
    for number, condition in enumerate(ON_JSON):
        found = WorkOrder.select().where(condition(WorkOrder.metadata), WorkOrder.created_by == "intake")
        assert (number, [order]) == (number, list(found))


def test_json_of_every_kind_compares() -> None:
    """Lists, and columns that hold any JSON."""
    capability = Capability.create(name="read", scope="erp", permissions=["invoice:read", {"deep": [1]}])
    letter = DeadLetter.create(source="s", event_type="e", payload=[1, {"a": None}], error="x")
    assert [capability] == list(Capability.select().where(Capability.permissions[0] == "invoice:read"))
    assert [capability] == list(Capability.select().where(Capability.permissions.contains(["invoice:read"])))
    assert [capability] == list(Capability.select().where(Capability.permissions[1]["deep"] == [1]))
    assert [letter] == list(DeadLetter.select().where(DeadLetter.payload == [1, {"a": None}]))
    assert [letter] == list(DeadLetter.select().where(DeadLetter.payload[0].in_([1, 2])))


CONDITIONS = [
    (WorkOrder.created_by == "", False),
    (WorkOrder.created_by != "", True),
    (WorkOrder.created_by == "x" * 300, False),
    (WorkOrder.created_by.in_(["", "intake", " "]), True),
    (WorkOrder.created_by > "", True),
    (WorkOrder.created_by.between("", "z" * 300), True),
    (WorkOrder.created_by.contains("x" * 2_000_000), False),
    (WorkOrder.created_by.contains(""), True),
    (WorkOrder.created_by.startswith("int"), True),
    (WorkOrder.created_by % "in%", True),
    (WorkOrder.created_by.regexp("^.n"), True),
    (WorkOrder.created_by.concat("") == "intake", True),
    (fn.LOWER(WorkOrder.created_by) == "", False),
    (WorkOrder.open_items > 0.5, True),
    (WorkOrder.open_items < 10**12, True),
    (WorkOrder.open_items < 1e300, True),
    (WorkOrder.open_items == Decimal("1.0"), True),
    (WorkOrder.open_items == np.int64(1), True),
    (WorkOrder.open_items < np.float32(1.5), True),
    (WorkOrder.open_items / 2.0 == 0.5, True),
    (WorkOrder.open_items + 2**40 > 2**40, True),
    (WorkOrder.open_items.in_([0.5, 1]), True),
    (WorkOrder.created_at + timedelta(days=1) > NOW, True),
    (WorkOrder.created_at - timedelta(days=1) < NOW, True),
    (WorkOrder.created_at < datetime.max.replace(tzinfo=UTC), True),
    (WorkOrder.created_at.between(datetime.min.replace(tzinfo=UTC), NOW + timedelta(1)), True),
    (fn.now() - WorkOrder.created_at < timedelta(hours=1), True),
    (WorkOrder.priority == "MEDIUM", True),
    (WorkOrder.priority.in_([Priority.LOW, "MEDIUM"]), True),
    (WorkOrder.priority > Priority.LOW, True),
    (WorkOrder.priority == None, False),  # noqa: E711  a condition
    (WorkOrder.id == uuid.UUID(int=0), False),
    (WorkOrder.id.in_([]), False),
    (WorkOrder.id.not_in([str(uuid.UUID(int=0))]), True),
]


def test_conditions_compare(item: WorkItem) -> None:
    """A value that could not be stored compares like any other."""
    for number, (condition, holds) in enumerate(CONDITIONS):
        assert (number, holds) == (number, WorkOrder.select().where(condition).exists())


REFUSED: list[Callable[[], Any]] = [
    lambda: WorkOrder.created_by == "a\x00b",
    lambda: WorkOrder.created_by == "a\ud800",
    lambda: WorkOrder.created_by.contains("a\x00b"),
    lambda: WorkOrder.created_by.contains("\ud800"),
    lambda: WorkOrder.created_by == 5,
    lambda: WorkOrder.created_by == b"bytes",
    lambda: WorkOrder.priority == "SOON",
    lambda: WorkOrder.priority.in_(["LOW", "SOON"]),
    lambda: WorkOrder.status == Priority.LOW,
    lambda: WorkOrder.id == "not-a-uuid",
    lambda: WorkOrder.open_items == "1",
    lambda: WorkOrder.open_items == True,  # noqa: E712  a condition
    lambda: WorkOrder.created_at > datetime(2026, 1, 1),  # noqa: DTZ001  that is the point
    lambda: WorkOrder.created_at > "yesterday",
    lambda: WorkOrder.metadata["a"] == [math.nan],
    lambda: WorkOrder.metadata["a"] == "\x00",
    lambda: WorkOrder.metadata["a"] == {1, 2},
    lambda: WorkOrder.created_by == CYCLIC,
    lambda: WorkOrder.id.in_(CYCLIC),
    lambda: WorkOrder.metadata == CYCLIC,
    lambda: WorkOrder.metadata["a"].in_([CYCLIC]),
    lambda: WorkOrder.metadata.contains({"a": "\ud800"}),
    lambda: WorkOrder.metadata.contains({"a": object()}),
    lambda: WorkOrder.metadata.contains({"a": float("nan")}),
]


def test_what_cannot_be_compared_is_one_typed_error(order: WorkOrder) -> None:
    """Values that cannot be sent, or are of another kind than the column."""
    for condition in REFUSED:
        with pytest.raises(InvalidInput):
            list(WorkOrder.select().where(condition()))


def test_updates_calculate(item: WorkItem) -> None:
    """Expressions over columns are PostgreSQL's to calculate, with values of any size in them."""
    later = item.available_at + timedelta(minutes=5)
    changed = (
        WorkItem.update(
            available_at=WorkItem.available_at + timedelta(minutes=5),
            max_attempts=WorkItem.max_attempts * 2 + 1,
            content=WorkItem.content.concat(" of May"),
        )
        .where(WorkItem.id == item.id)
        .returning(WorkItem.available_at, WorkItem.max_attempts, WorkItem.content)
        .tuples()
    )
    assert [(later, 11, "Invoice 17 of May")] == list(changed.execute())
    WorkOrder.update(metadata=WorkOrder.metadata["a"]["b"].set([6])).execute()
    WorkOrder.update(metadata=WorkOrder.metadata.update({"z": 1})).execute()
    WorkOrder.update(metadata=WorkOrder.metadata["l"].remove()).execute()
    assert {"a": {"b": [6]}, "s": "x", "n": None, "f": 1.5, "t": True, "z": 1} == WorkOrder.get().metadata


BAD: list[dict[str, Any]] = [
    {"created_by": ""},
    {"created_by": "x" * 256},
    {"open_items": 1.5},
    {"open_items": 10**12},
    {"metadata": 5},
    {"metadata": []},
    {"created_at": timedelta(1)},
    {"priority": "SOON"},
    {"created_by": WorkOrder(created_by="a")},
    {"created_at": WorkOrder(created_by="a")},
]
WRITES: list[Callable[[dict[str, Any]], Any]] = [
    WorkOrder.update,
    lambda values: WorkOrder.update(**values).where(WorkOrder.created_by == ""),
    lambda values: WorkOrder.insert({"created_by": "a", **values}),
    lambda values: WorkOrder.insert_many([{"created_by": "a"}, {"created_by": "a", **values}]),
    lambda values: WorkOrder.insert_many([("b", *values.values())], fields=["workflow_id", *values]),
    lambda values: WorkOrder.insert(created_by="a").on_conflict(
        conflict_target=[WorkOrder.id], update={getattr(WorkOrder, name): values[name] for name in values}
    ),
    lambda values: WorkOrder.insert(created_by="a").on_conflict(conflict_target=["id"], update=values),
]


def test_every_write_is_checked(order: WorkOrder) -> None:
    """What conditions may be compared with is not what may be stored."""
    for write, values in itertools.product(WRITES, BAD):
        with pytest.raises(InvalidInput, match=r"^WorkOrder\."):
            write(values).execute()
    assert ([order], METADATA) == (list(WorkOrder.select()), WorkOrder.get().metadata)


def test_scores_compare(item: WorkItem) -> None:
    """Doubles, too, with whatever is a number."""
    result = EvalResult.create(work_item=item, evaluation_type="e", score=0.5, passed=True)
    for condition in (
        EvalResult.score < float("inf"),
        EvalResult.score > Decimal("0.1"),
        EvalResult.score.between(0, 10**30),
        EvalResult.score * 3 == 1.5,
        EvalResult.passed == True,  # noqa: E712  a condition
        EvalResult.work_item == item,
        EvalResult.work_item == str(item.id),
        EvalResult.work_item.in_([item, uuid.UUID(int=0)]),
        EvalResult.work_item.in_(WorkItem.select(WorkItem.id)),
    ):
        assert [result] == list(EvalResult.select().where(condition))
    urgent = Case(None, [(EvalResult.score > 0.4, "good")], "bad")
    assert [("good",)] == list(EvalResult.select(urgent).tuples())
    pair = EnclosedNodeList([EvalResult.score, EvalResult.passed])
    assert 1 == EvalResult.select().where(pair == (0.5, True)).count()

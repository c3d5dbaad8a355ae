"""Indexes on values of the metadata: built when asked, used by filters, listed, mended and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from myloware_store import InvalidInput, MetadataIndex, Store, VectorIndexError
from myloware_store.db.database import StoreDatabase
from myloware_store.memory.engine import Memory
from myloware_store.memory.filters import compile_filter, scope
from myloware_store.ops.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = ("a.b", "q'\"\\ %s {0}", "é")


@pytest.fixture
def memory(myloware: Store) -> Iterator[Memory]:
    """Yield a memory with numbers and texts, and documents that have neither."""
    docs: list[dict[str, Any]] = [
        {"type": "CONTEXT", "content": str(n), "metadata": {"amount": n, "due": {"at": f"2026-{n % 12 + 1:02}"}}}
        for n in range(300)
    ]
    odd = [{"amount": "7"}, {"amount": None}, {"due": {"at": "x" * 5_000}}, {"due": {"at": [1]}}, {"due": "x"}]
    docs += [{"type": "TEMPLATE", "content": "odd", "metadata": values} for values in odd]
    docs += [{"type": "TEMPLATE", "content": "odd", "metadata": {"a.b": {HOSTILE[1]: {"é": n}}}} for n in range(300)]
    with myloware.tenant("acme"):
        myloware.memory.upsert(docs)
    yield myloware.memory
    for index in myloware.memory.index.status().metadata_indexes:
        myloware.db.execute_sql(f"DROP INDEX {index.name}")


def plan(store: Store, filter_: Any, tenant: str | None = None) -> str:
    """Return the plan of a search under a filter."""
    condition = scope(compile_filter(filter_), tenant)
    rows = store.db.execute_sql(f"EXPLAIN SELECT id FROM mem_docs AS m WHERE {condition.sql}", condition.parameters)
    return "\n".join(line for (line,) in rows)


def test_an_index_serves_filters_by_order(myloware: Store, memory: Memory) -> None:
    """Chosen by the planner itself, for numbers and texts, with a tenant inside; what filters find stays the same."""
    filters: list[tuple[Any, Any, Any]] = [
        ("amount", "number", {"metadata.amount": {"gt": 280}}),
        ("amount", "number", {"metadata.amount": {"gte": 10, "lt": 20.5}}),
        ("due.at", "text", {"metadata.due.at": {"gt": "2026-12"}}),
        (("due", "at"), "text", {"metadata.due.at": {"gte": "2026-11", "lte": "2026-11~"}}),
        (HOSTILE, "number", {("metadata", *HOSTILE): {"lte": 20}}),
    ]
    before = [memory.count(filter_) for _, _, filter_ in filters]
    assert [19, 11, 1, 25, 21] == before
    for path, kind, filter_ in filters:
        index = memory.index_metadata(path, kind=kind)
        assert (kind, True) == (index.kind, index.valid)
        assert index.name in plan(myloware, filter_)
        assert index.name not in plan(myloware, {"not": filter_})
        served = plan(myloware, filter_, "acme")
        assert index.name in served
    assert before == [memory.count(filter_) for _, _, filter_ in filters]
    assert [600 + 5 - n for n in before] == [memory.count({"not": filter_}) for _, _, filter_ in filters]
    assert {("amount",), ("due", "at"), HOSTILE} == {one.path for one in memory.index.status().metadata_indexes}
    assert validate(myloware.db).valid


def test_it_is_built_once_listed_and_dropped(myloware: Store, memory: Memory) -> None:
    """A second call changes nothing, another kind is another index, and dropping it says whether it was there."""
    index = memory.index_metadata("amount")
    assert index == memory.index_metadata("amount")
    other = memory.index_metadata("amount", kind="text")
    assert {index, other} == set(memory.index.status().metadata_indexes)
    assert isinstance(index, MetadataIndex)
    assert index.size_bytes > 0
    assert memory.drop_metadata_index("amount", kind="text")
    assert not memory.drop_metadata_index("amount", kind="text")
    assert (index,) == memory.index.status().metadata_indexes
    assert validate(myloware.db).valid


def test_what_a_killed_build_left_is_named_and_mended(myloware: Store, memory: Memory) -> None:
    """An index that is not valid, or that was not described any more."""
    index = memory.index_metadata("amount")
    myloware.db.execute_sql(f"COMMENT ON INDEX {index.name} IS NULL")
    assert [None] == [one.path for one in memory.index.status().metadata_indexes]
    assert index == memory.index_metadata("amount")
    myloware.db.execute_sql(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index.name}'::regclass")
    assert [False] == [one.valid for one in memory.index.status().metadata_indexes]
    (finding,) = validate(myloware.db).findings
    assert f"mem_docs.{index.name}" == finding.name
    assert "index metadata" in finding.remedy
    assert memory.index_metadata("amount").valid
    assert validate(myloware.db).valid


def test_only_the_owner_builds_and_never_inside_a_transaction(myloware: Store, memory: Memory) -> None:
    """By typed errors; a role that finds the index there needs no right."""
    with myloware.db.atomic():
        for call in (memory.index_metadata, memory.drop_metadata_index):
            with pytest.raises(InvalidInput, match="transaction"):
                call("amount")
    myloware.db.execute_sql("DROP ROLE IF EXISTS metadata_reader")
    myloware.db.execute_sql("CREATE ROLE metadata_reader LOGIN")
    plain = StoreDatabase(attrs.evolve(myloware.settings, user="metadata_reader"))
    try:
        with pytest.raises(
            VectorIndexError, match=r"does not own mem_docs: have .* run `myloware-store index metadata`"
        ):
            Memory(plain).index_metadata("amount")
        assert () == memory.index.status().metadata_indexes
        assert memory.index_metadata("amount") == Memory(plain).index_metadata("amount")
    finally:
        plain.close_all()
        myloware.db.execute_sql("DROP ROLE metadata_reader")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "number"),
        ("a..b", "number"),
        ((), "number"),
        (("a", ""), "number"),
        ((1,), "number"),
        (5, "number"),
        ("metadata.amount", "number"),
        ("a" * 256, "number"),
        ("amount", "time"),
    ],
)
def test_bad_paths_are_refused(myloware: Store, path: Any, kind: Any) -> None:
    """By one typed error."""
    with pytest.raises(InvalidInput):
        myloware.memory.index_metadata(path, kind=kind)

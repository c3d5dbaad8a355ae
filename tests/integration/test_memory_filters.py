"""Filters over memory documents: the same answer as plain Python, every value bound, anything wrong refused."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myloware_store import InvalidInput, MemDocType, Store
from myloware_store.memory.filters import Condition, compile_filter, scope
from tests.conftest import ROUNDS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANTS, MODELS = ("acme", "globex"), ("small", "large")
_MISSING = object()
INSERT = """
INSERT INTO mem_docs (
    content, type, tenant_id, work_item_id, created_at, updated_at, expires_at, embedding_model, metadata
)
VALUES (
    %(content)s, %(type)s, %(tenant_id)s, %(work_item_id)s, %(created_at)s, %(updated_at)s, %(expires_at)s,
    %(embedding_model)s, %(metadata)s::jsonb
)
"""


def matches(store: Store, condition: Condition) -> set[int]:
    """Return the numbers of the documents that meet a condition."""
    rows = store.db.execute_sql(f"SELECT m.content FROM mem_docs AS m WHERE {condition.sql}", condition.parameters)
    return {int(content) for (content,) in rows}


def expected(doc: dict[str, Any], given: dict[str, Any]) -> bool:
    """Tell whether a document meets a filter, by the words of the language alone."""
    return all(_entry(doc, key, value) for key, value in given.items())


def _entry(doc: dict[str, Any], key: str, value: Any) -> bool:
    if key == "and":
        return all(expected(doc, part) for part in value)
    if key == "or":
        return any(expected(doc, part) for part in value)
    if key == "not":
        return not expected(doc, value)
    if isinstance(value, list):
        value = {"in": value}
    operators = value if isinstance(value, dict) else {"eq": value}
    there: Any = doc
    for part in key.split(".") if isinstance(key, str) else key:
        there = there.get(part, _MISSING) if isinstance(there, dict) else _MISSING
    lists = [name for name in operators if name in ("contains", "any", "all")]
    return all(isinstance(there, list) and _hold(there, name, operators[name], key) for name in lists) and all(
        _compare(there, name, operand, key) for name, operand in operators.items() if name not in lists
    )


def _compare(there: Any, operator: str, operand: Any, key: str) -> bool:
    null = there is None or there is _MISSING
    if operator == "exists":
        there_is = there is not _MISSING and (there is not None or "metadata" in key)
        return there_is is operand
    if operator == "ne":
        return not _compare(there, "eq", operand, key)
    if operator == "in":
        return any(_compare(there, "eq", one, key) for one in operand)
    if operand is None:
        return null
    if null or _kind(there) != _kind(operand):
        return False
    answers: dict[str, bool] = {"eq": there == operand}
    if _kind(operand) in ("number", "str", "datetime"):
        answers |= {"gt": there > operand, "gte": there >= operand, "lt": there < operand, "lte": there <= operand}
    return answers[operator]


def _hold(there: Any, operator: str, operand: Any, key: str) -> bool:
    wanted = [operand] if operator == "contains" else operand
    held = [any(_compare(one, "eq", value, key) for one in there) for value in wanted]
    return any(held) if operator == "any" else all(held)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


LONG = ["é" * 200, "é" * 200 + "a", "é" * 199 + "z"]
"""Texts around the length that an index on metadata has of them."""
scalars = st.sampled_from(
    [None, True, False, -1, 0, 9, 10, 10.0, 10.5, 1e300, 2**53 + 1, "", "9", "10", "Z", "a", "é", "%s", *LONG]
)
values = scalars.filter(lambda value: value is not None)
metadata = st.dictionaries(
    st.sampled_from(["a", "b", "0", "a.a", "%(f0)s", "q'\"{"]),
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab0"), inner, max_size=2)
    ),
    max_size=3,
)
dotted = st.sampled_from(["a", "b", "0", "a.a", "a.0", "b.a.b", "%(f0)s", "q'\"{"]).map("metadata.{}".format)
paths = dotted | st.sampled_from([("metadata", "a.a"), ("metadata", "b", "0")])
orders = st.sampled_from(["gt", "gte", "lt", "lte"])
comparable = st.sampled_from([0, 9, 10, 10.0, 10.5, 1e300, 2**53, "", "9", "Z", "a", "é", *LONG])
moments = st.integers(-2, 2).map(lambda hours: NOON + timedelta(hours=hours))
items = [str(uuid.UUID(int=n)) for n in range(1, 3)]


def plain(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Conditions by equality."""
    several = st.lists(values, max_size=3)
    return (
        values
        | several
        | st.dictionaries(st.sampled_from(["eq", "ne"]), values, min_size=1)
        | st.fixed_dictionaries({"in": several})
        | st.fixed_dictionaries({"exists": st.booleans()})
    )


def ordered(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Conditions by order."""
    return st.dictionaries(orders, values, min_size=1, max_size=2)


def listed(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Conditions on a list."""
    several = st.lists(values, max_size=3)
    return (
        st.fixed_dictionaries({"contains": values})
        | st.fixed_dictionaries({"any": several})
        | st.fixed_dictionaries({"all": several})
    )


leaves = st.one_of(
    st.fixed_dictionaries({}),
    st.fixed_dictionaries({"type": plain(st.sampled_from([None, *(str(kind) for kind in MemDocType)]))}),
    st.fixed_dictionaries({"tenant_id": plain(st.sampled_from([None, *TENANTS]))}),
    st.fixed_dictionaries({"work_item_id": plain(st.sampled_from([None, *items]))}),
    st.fixed_dictionaries({"embedding_model": plain(st.sampled_from([None, *MODELS]))}),
    st.dictionaries(st.sampled_from(["created_at", "updated_at"]), plain(moments) | ordered(moments), min_size=1),
    st.fixed_dictionaries({"expires_at": plain(moments | st.none()) | ordered(moments)}),
    st.dictionaries(paths, plain(scalars) | ordered(comparable) | listed(values), min_size=1, max_size=2),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)
documents = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from([str(kind) for kind in MemDocType]),
            "tenant_id": st.sampled_from(TENANTS),
            "work_item_id": st.sampled_from([None, *items]),
            "created_at": moments,
            "updated_at": moments,
            "expires_at": moments | st.none(),
            "embedding_model": st.sampled_from([None, *MODELS]),
            "metadata": metadata,
        }
    ),
    min_size=1,
    max_size=8,
)


@given(stored=documents, wanted=st.lists(filters, min_size=1, max_size=8))
@settings(max_examples=150 * ROUNDS, deadline=None, suppress_health_check=list(HealthCheck))
def test_filters_say_what_plain_python_says(
    myloware: Store, stored: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> None:
    """For any documents and any filter, and for its complement; under a tenant, what is that tenant's."""
    with myloware.db.atomic() as transaction:
        # No guards: a document may name any work item.
        myloware.db.execute_sql("SET LOCAL session_replication_role = replica")
        for n, doc in enumerate(stored):
            values = {**doc, "content": str(n), "metadata": orjson.dumps(doc["metadata"]).decode()}
            myloware.db.execute_sql(INSERT, values)
        for one in wanted:
            right = {n for n, doc in enumerate(stored) if expected(doc, one)}
            assert right == matches(myloware, compile_filter(one))
            assert set(range(len(stored))) - right == matches(myloware, compile_filter({"not": one}))
            acme = {n for n in right if stored[n]["tenant_id"] == "acme"}
            assert acme == matches(myloware, scope(compile_filter(one), "acme"))
        transaction.rollback()


def test_no_filter_lets_everything_pass() -> None:
    """None, `{}` and what is made of nothing compile to TRUE, and bind nothing."""
    nothings: tuple[dict[str, Any] | None, ...] = (
        None,
        {},
        {"and": []},
        {"and": [{}, {"or": [{}]}]},
        {"not": {"or": []}},
    )
    for nothing in nothings:
        assert Condition("TRUE", {}) == compile_filter(nothing)
    assert Condition("FALSE", {}) == compile_filter({"or": []})
    assert Condition("m.tenant_id = %(tenant)s", {"tenant": "acme"}) == scope(compile_filter(None), "acme")
    assert Condition("TRUE", {}) == scope(compile_filter(None), None)


def test_values_never_reach_the_sql() -> None:
    """Neither a value nor a key of the metadata, whatever is in it."""
    hostile = "'); DROP TABLE mem_docs; -- %s %(x)s"
    compiled = compile_filter({f"metadata.{hostile}": {"gt": hostile, "eq": hostile, "exists": True}})
    assert "DROP" not in compiled.sql
    assert all(name.startswith("f") and name[1:].isdigit() for name in compiled.parameters)


def test_times_may_be_text_with_an_offset() -> None:
    """As they come from JSON."""
    east = NOON.astimezone(timezone(timedelta(hours=3)))
    for value in (east, east.isoformat()):
        assert {"f0": "2026-03-01T15:00:00+03:00"} == compile_filter({"created_at": {"lt": value}}).parameters


def test_equality_on_metadata_is_served_by_its_index(myloware: Store) -> None:
    """Alone, as a list, inside and, and what a list holds."""
    for wanted in (
        {"metadata.a": {"contains": 1}},
        {("metadata", "a.b"): {"any": [1, 2]}},
        {"metadata.a": {"all": [1, 2]}},
        {"metadata.a.b": 1},
        {"metadata.a": [1, 2]},
        {"and": [{"metadata.a": 1}, {"metadata.b": {"gt": 1}}]},
    ):
        compiled = compile_filter(wanted)
        with myloware.db.atomic():
            myloware.db.execute_sql("SET LOCAL enable_seqscan = off")
            plan = myloware.db.execute_sql(
                f"EXPLAIN SELECT id FROM mem_docs AS m WHERE {compiled.sql}", compiled.parameters
            )
            assert "mem_docs_metadata_idx" in "\n".join(line for (line,) in plan)


def nested(depth: int) -> dict[str, Any]:
    """Return a filter of that depth."""
    inner: dict[str, Any] = {"type": "CONTEXT"}
    for _ in range(depth):
        inner = {"not": inner}
    return inner


def holding_itself() -> dict[str, Any]:
    """Return a filter that never ends."""
    whole: dict[str, Any] = {}
    whole["not"] = whole
    return whole


@pytest.mark.parametrize(
    "bad",
    [
        [],
        "type",
        {"colour": "red"},
        {1: "red"},
        {("type",): "CONTEXT"},
        {("metadata",): 1},
        {("metadata", ""): 1},
        {("metadata", 1): 1},
        {("metadata", *"a" * 17): 1},
        {("metadata", "a\x00"): 1},
        {"metadata.a": {"contains": None}},
        {"metadata.a": {"contains": [1]}},
        {"metadata.a": {"any": "abc"}},
        {"metadata.a": {"all": 5}},
        {"metadata.a": {"all": list(range(1_001))}},
        {"type": {"contains": "CONTEXT"}},
        {"created_at": {"any": [NOON]}},
        {"metadata": {"a": 1}},
        {"metadata.": 1},
        {"metadata.a..b": 1},
        {"metadata.a\x00": 1},
        {"metadata.\ud800": 1},
        {"metadata." + "a." * 16 + "a": 1},
        {"metadata." + "a" * 256: 1},
        {"metadata.a": {}},
        {"metadata.a": {"near": 1}},
        {"metadata.a": {1: 1}},
        {"metadata.a": {"in": "abc"}},
        {"metadata.a": {"in": {"eq": 1}}},
        {"metadata.a": {"in": 5}},
        {"metadata.a": {"in": [[1]]}},
        {"metadata.a": {"eq": [1]}},
        {"metadata.a": {"exists": 1}},
        {"metadata.a": {"gt": None}},
        {"metadata.a": {"gt": True}},
        {"metadata.a": {"gt": [1]}},
        {"metadata.a": float("nan")},
        {"metadata.a": {"lt": float("inf")}},
        {"metadata.a": 2**70},
        {"metadata.a": "a\x00"},
        {"metadata.a": "\ud800"},
        {"metadata.a": {"gt": "a\x00"}},
        {"metadata.a": "x" * 70_000},
        {"metadata.a": NOON},
        {"metadata.a": b"x"},
        {"type": "NOTE"},
        {"type": {"gt": "CONTEXT"}},
        {"work_item_id": "no-uuid"},
        {"work_item_id": {"lt": uuid.UUID(int=1)}},
        {"tenant_id": 5},
        {"tenant_id": {"gte": "acme"}},
        {"created_at": NOON.replace(tzinfo=None)},
        {"created_at": "yesterday"},
        {"created_at": {"gt": 5}},
        {"created_at": {"gt": None}},
        {"expires_at": {"gt": None}},
        {"updated_at": "yesterday"},
        {"embedding_model": 5},
        {"embedding_model": {"gt": "a"}},
        {"embedding_model": {"contains": "a"}},
        {"and": {"type": "CONTEXT"}},
        {"or": "type"},
        {"or": [None]},
        {"not": [{}]},
        {"metadata.a": list(range(1_001))},
        {"or": [{"metadata.a": {"gt": n}} for n in range(1_001)]},
        {"work_item_id": [uuid.UUID(int=1)] * 1_001},
        nested(17),
        nested(5_000),
        holding_itself(),
    ],
)
def test_what_is_no_filter_is_refused(bad: Any) -> None:
    """By one typed error."""
    with pytest.raises(InvalidInput, match=r"^filter\b"):
        compile_filter(bad)


@pytest.mark.parametrize(
    ("wrong", "way"),
    [
        ({"metadata": {"a": 1}}, r"write metadata\.a"),
        ({"metadata.a": {"b": 1}}, r"write metadata\.a\.b"),
        ({"metadata.due": NOON}, "ISO"),
        ({"metadata.due": {"gt": NOON.date()}}, "ISO"),
    ],
)
def test_what_people_write_first_is_refused_with_the_way(wrong: Any, way: str) -> None:
    """How a key inside an object and a time are written."""
    with pytest.raises(InvalidInput, match=way):
        compile_filter(wrong)


def test_filters_up_to_the_bounds_compile() -> None:
    """A thousand comparisons, and sixteen levels."""
    assert compile_filter({"metadata.a": list(range(1_000))}).parameters["f999"] == '{"a":999}'
    assert compile_filter(nested(16)).sql == "m.type = %(f0)s::mem_doc_type"


@pytest.mark.parametrize("operator", ["gt", "gte", "lt", "lte"])
def test_text_is_ordered_by_code_points_in_every_database(operator: str) -> None:
    """The comparison names its collation: the embedded servers have no other one, a configured server may."""
    assert ') COLLATE "C" ' in compile_filter({"metadata.name": {operator: "a"}}).sql


def test_equality_that_finds_nothing_says_that_the_values_are_in_lists(myloware: Store) -> None:
    """In every call that takes a filter, for the tenant in force; not if the answer is right to be empty."""
    memory, vector = myloware.memory, [1.0] * 1536
    with myloware.tenant("acme"):
        tagged = {"tags": ["urgent", "fee"], "dc.title": "x"}
        memory.upsert([{"type": "CONTEXT", "content": "fee", "embedding": vector, "metadata": tagged}])
        (hit,) = memory.similar(
            vector, filter={"metadata.tags": {"all": ["fee", "urgent"]}, ("metadata", "dc.title"): "x"}
        )
        assert tagged == hit.metadata
        for wrong in ({"metadata.tags": "urgent"}, {"type": "CONTEXT", "or": [{"metadata.tags": ["urgent", "new"]}]}):
            for call in (
                lambda wrong: memory.similar(vector, filter=wrong),
                lambda wrong: memory.search_text("fee", filter=wrong),
                lambda wrong: memory.hybrid(vector, "fee", filter=wrong),
                lambda wrong: memory.delete(filter=wrong),
            ):
                with pytest.warns(UserWarning, match="contains"):
                    assert not call(wrong)
        assert [] == memory.similar(vector, filter={"metadata.tags": "old"})
        assert [] == memory.search_text("nothing", filter={"metadata.tags": {"contains": "urgent"}})
    with myloware.tenant("globex"):
        assert [] == memory.similar(vector, filter={"metadata.tags": "urgent"})

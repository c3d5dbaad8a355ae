"""Whatever is called with whatever: errors have types, and neither the database, the pool nor another tenant is harmed.

`tox run -e fuzz` runs 10,000 examples.
"""

from __future__ import annotations

import inspect
import math
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myloware_store import (
    DIMENSIONS,
    ApprovalDecision,
    AuditHead,
    Claim,
    ConnectorStatus,
    ConnectorType,
    HashingEmbedder,
    MemDocType,
    NewDoc,
    NewItem,
    Priority,
    RetryPolicy,
    StoreError,
    WorkItemType,
    WorkOrder,
    Worth,
)
from myloware_store.orm.repository import Repository
from myloware_store.seed import ids
from tests.conftest import ROUNDS
from tests.integration.test_work_ledger import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

EXAMPLES = 200 * ROUNDS
MOST_CALLS = 6
BUILDING = {"drop_metadata_index", "index_metadata"}
"""Calls that build or drop an index, in transactions of their own: test_metadata_index.py has them."""
OTHERS = """
SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (
    {}
) AS t
"""
ACME = "acme"


@attrs.frozen
class Ref:
    """Something that exists, or existed: the n-th of its kind when the call is made, the newest first."""

    kind: str
    n: int
    as_text: bool = False

    def of(self, world: dict[str, list[Any]]) -> Any:
        """Return it."""
        known = world[self.kind]
        found = known[-1 - self.n % len(known)] if known else uuid.UUID(int=self.n)
        return str(found) if self.as_text and isinstance(found, uuid.UUID) else found


def ref(kind: str) -> st.SearchStrategy[Any]:
    """Return a strategy for something of a kind."""
    return st.builds(Ref, st.just(kind), st.integers(0, 9), st.booleans())


texts = st.sampled_from(["invoice overdue", '"a phrase" or x', "a" * 300, "Ünïcode 数"])
names = st.sampled_from(["purchase_order", "invoice", "invoice-approval", "read_mail", "a", "b"])
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | texts
json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
objects = st.dictionaries(texts | st.sampled_from(["password", "token", "importance", "a"]), json, max_size=3)
counts = st.sampled_from([1, 2, 5, 100])
shares = st.floats(0, 1)
moments = st.sampled_from(
    [datetime.now(UTC), datetime.now(UTC) - timedelta(days=400), datetime(2099, 1, 1, tzinfo=UTC)]
)
vectors = st.just(HashingEmbedder()(["invoice overdue"])[0])
item_types = st.sampled_from([*WorkItemType])
items = st.builds(NewItem, item_types, texts) | st.fixed_dictionaries({"type": item_types, "content": texts})
paths = st.sampled_from(["type", "tenant_id", "metadata.a", "created_at", "expires_at", "work_item_id"])
filters = st.recursive(
    st.dictionaries(paths, json, max_size=2),
    lambda inner: st.fixed_dictionaries({"and": st.lists(inner, max_size=2)}) | st.fixed_dictionaries({"not": inner}),
    max_leaves=3,
)
more = {"id": ref("doc"), "embedding": vectors, "metadata": objects, "work_item_id": ref("item"), "expires_at": moments}
doc_types = st.sampled_from([*MemDocType])
docs = st.fixed_dictionaries({"type": doc_types, "content": texts}, optional=more) | st.builds(NewDoc, doc_types, texts)
strange: list[Any] = [
    *("", " ", "x" * 256, "nul\x00", "x\ud800", b"\xff", "-x", "***", "***0123456789ab", "secret://x"),
    *(0, -1, 10**9, 2**70, 10**400, 1e308, 1e12, -0.0, math.nan, math.inf, object(), ..., int, (), {1}, range(3)),
    *([], {}, {"$secret": "v1"}, {"a": {1: 2}}, [math.nan], np.zeros(3), np.zeros(DIMENSIONS), uuid.UUID(int=0)),
    *(datetime(2026, 1, 1), datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), timedelta(1)),  # noqa: DTZ001
]
hostile = st.sampled_from(strange) | st.lists(st.sampled_from(strange), min_size=1, max_size=2) | json | st.text()
"""What no call expects."""


def failing(*_: object) -> None:
    """Fail as an application may: with an error of ours."""
    raise StoreError("the application failed")


functions = st.sampled_from([lambda *_: None, lambda *_: False, failing])


def named(strategy: st.SearchStrategy[Any], parameters: str) -> dict[str, st.SearchStrategy[Any]]:
    """Return one strategy for several parameters."""
    return dict.fromkeys(parameters.split(), strategy)


STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    **named(texts, "q action error message reason source content description"),
    **named(names, "name scope agent_id approver_id by user_id created_by policy_version event_type resource_type"),
    **named(names, "evaluation_type idempotency_key unique_key"),
    **named(objects, "metadata context details metrics config workflow_definition"),
    **named(counts, "limit n batch batch_size k fetch_k pool max_attempts extra_attempts percent"),
    **named(st.sampled_from([1, 60.0]), "lease delay window look_every"),
    **named(st.sampled_from([0, 0.001, 0.01]), "timeout every"),
    **named(moments, "available_at before since until expires_at if_unmodified_since"),
    **named(shares, "min_similarity score lam b k1 rrf_k text_boost"),
    **named(st.booleans(), "gate retry fair replayed passed is_active active with_embedding highlight chunk"),
    **named(vectors, "vector embedding"),
    **named(functions, "progress handler probe"),
    **named(
        st.sampled_from([{}, {"type": "object"}, {"properties": {"a": {"writeOnly": True}}}]),
        "schema schema_definition",
    ),
    **named(ref("item"), "resource_id item_id work_item_id"),
    **named(ref("template"), "template_id workflow_id workflow_template_id"),
    **named(ref("order"), "order_id"),
    **named(ref("run"), "run_id"),
    **named(ref("tool"), "tool"),
    **named(ref("capability"), "capability"),
    **named(ref("connector"), "connector"),
    **named(ref("claim"), "claim"),
    **named(ref("doc"), "doc_id"),
    "after": st.tuples(moments, ref("doc")),
    "claims": st.permutations([Ref("claim", 0), Ref("claim", 1)]),
    "decision": st.sampled_from([*ApprovalDecision]),
    "dedupe": st.sampled_from(["id", "content_hash"]),
    "docs": st.lists(docs, max_size=3),
    "document_type": st.sampled_from([*WorkItemType, *ConnectorType]),
    "documents": st.lists(st.tuples(item_types, texts), max_size=2),
    "driver": st.sampled_from(["psycopg2", "psycopg", "asyncpg", "sqlalchemy"]),
    "errors": st.lists(texts, min_size=2, max_size=2),
    "filter": filters,
    "heads": st.lists(st.builds(AuditHead, st.just(ACME), counts, st.just("00" * 32)), max_size=1),
    "ids": st.lists(ref("doc") | ref("letter"), max_size=3) | ref("doc") | ref("letter"),
    "ip_address": st.sampled_from(["127.0.0.1", "::1/64"]),
    "items": st.lists(items, min_size=1, max_size=3),
    "listener": st.none(),
    "match": st.sampled_from(["web", "any", "phrase"]),
    "mode": st.sampled_from(["auto", "exact", "ann"]),
    "model": st.sampled_from([None, HashingEmbedder.name, "other"]),
    "on_conflict": st.sampled_from(["update", "ignore", "error"]),
    "on_similar": st.sampled_from(["skip", "update", "keep"]),
    "order_by": st.sampled_from(["created_at", "-updated_at"]),
    "pairs": st.lists(st.tuples(ref("doc"), vectors), max_size=2),
    "payload": json,
    "per": st.sampled_from(["chunk", "document"]),
    "permissions": st.lists(names, max_size=2),
    "priority": st.sampled_from([*Priority]),
    "results": st.lists(json, min_size=2, max_size=2),
    "retry_policy": st.builds(RetryPolicy) | st.fixed_dictionaries({"base": shares}),
    "share": st.sampled_from([(0, 1), (1, 2)]),
    "status": st.sampled_from([*ConnectorStatus]),
    "tenant_id": st.just(ACME),
    "tenants": st.just([ACME]),
    "type": st.sampled_from([*MemDocType, *ConnectorType]),
    "types": st.lists(item_types, min_size=1, max_size=2),
    "version": st.sampled_from(["1.0.0", "1.1.0", "0.9.0", "2"]),
    "weights": st.sampled_from([(1, 1), (0, 1)]),
    "worth": st.builds(Worth),
}
"""A strategy for every parameter of the repositories, by its name."""


def calls(store: Store) -> dict[str, Callable[..., Any]]:
    """Return the public methods of the repositories, by their names."""
    parts = {name: part for name, part in vars(store).items() if isinstance(part, Repository)}
    return {
        f"{part}.{name}": method
        for part, repository in parts.items()
        for name, method in inspect.getmembers(repository, inspect.ismethod)
        if not name.startswith("_") and name not in BUILDING
    }


@st.composite
def arguments(draw: st.DrawFn, method: Callable[..., Any]) -> dict[str, Any]:
    """Draw arguments for a method, in one call of four one that it does not expect."""
    given = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if name == "timeout" or parameter.default is inspect.Parameter.empty or draw(st.booleans()):
            given[name] = draw(STRATEGIES[name])
    if given and draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(given)))
        given[name] = draw(hostile.filter(lambda value: name != "timeout" or not isinstance(value, int | float)))
    return given


def resolved(value: Any, world: dict[str, list[Any]]) -> Any:
    """Return a value with what its references stand for."""
    if isinstance(value, Ref):
        return value.of(world)
    if type(value) in {list, tuple}:
        return type(value)(resolved(each, world) for each in value)
    if type(value) is dict:
        return {key: resolved(each, world) for key, each in value.items()}
    return value


def sample_world() -> dict[str, list[Any]]:
    """Return the sample data's ids, of all tenants, by kind."""
    kinds = ("ORDER", "ITEM", "DOC", "CONNECTOR", "TOOL", "CAPABILITY", "TEMPLATE", "RUN", "LETTER")
    found = {
        kind.lower(): [value for name, value in vars(ids).items() if name.endswith(f"_{kind}_ID")] for kind in kinds
    }
    found["connector"] += ["invoice-mailbox", "a"]
    found["tool"] += ["read_mail", "a"]
    found["capability"] += ["records.read", "a"]
    return {**found, "claim": []}


def remember(result: Any, world: dict[str, list[Any]]) -> None:
    """Keep what a call has returned, for the calls after it."""
    for each in result if isinstance(result, list | tuple | set) else [result]:
        if isinstance(each, Claim):
            world["claim"].append(each)
        elif isinstance(each, WorkOrder):
            world["order"].append(each.id)
        elif isinstance(each, uuid.UUID):
            world["doc"].append(each)
            world["item"].append(each)
        elif isinstance(each, list | set):
            remember(each, world)


def others(store: Store) -> Any:
    """Return a digest of what the other tenants have. What has the tenant `*` belongs to all."""
    tables = (
        "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id' AND table_schema = 'public'"
    )
    rows = [
        f"SELECT '{t}', t::text FROM {t} AS t WHERE tenant_id NOT IN ('{ACME}', '*')"
        for (t,) in store.db.execute_sql(tables)
    ]
    return store.db.execute_sql(OTHERS.format("\n    UNION ALL ".join(sorted(rows)))).fetchone()


def test_every_parameter_has_a_strategy(myloware: Store) -> None:
    """A new call is fuzzed from its first day."""
    asked = {name for method in calls(myloware).values() for name in inspect.signature(method).parameters}
    assert set() == asked - STRATEGIES.keys()
    assert BUILDING <= {name for name, _ in inspect.getmembers(myloware.memory)}


@pytest.mark.filterwarnings("ignore::UserWarning")  # about models of embeddings
@pytest.mark.myloware_db(seed="sample")
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_call_does_harm(myloware: Store, data: st.DataObject) -> None:
    """A few calls in a row, with arguments of all sorts, in and outside of a transaction."""
    methods, world, before = calls(myloware), sample_world(), others(myloware)
    with myloware.tenant(ACME, actor="fuzz"):
        remember(myloware.work.claim("fuzz", 3), world)
        for _ in range(data.draw(st.integers(1, MOST_CALLS))):
            name = data.draw(st.sampled_from(sorted(methods)))
            values = resolved(data.draw(arguments(methods[name]), label=name), world)
            with suppress(StoreError):
                if data.draw(st.integers(0, 3)) == 0:
                    with myloware.db.atomic():
                        remember(methods[name](**values), world)
                else:
                    remember(methods[name](**values), world)
            assert (0, False) == (myloware.db.pool.in_use, myloware.db.transaction_open()), name
    assert [] == myloware.db.execute_sql(BROKEN).fetchall()
    assert before == others(myloware)

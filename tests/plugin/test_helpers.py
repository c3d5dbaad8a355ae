"""Rows from the factory, and counted statements."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest

from myloware_store import ToolCapability, WorkItem, WorkOrder
from myloware_store.core.enums import WorkItemStatus

if TYPE_CHECKING:
    from myloware_store import Store

MAKES = (
    "work_order",
    "work_item",
    "attempt",
    "mem_doc",
    "approval_event",
    "dead_letter",
    "audit_log",
    "audit_seal",
    "connector",
    "tool",
    "capability",
    "tool_capability",
    "schema",
    "workflow_template",
    "run",
    "eval_result",
)


@pytest.mark.parametrize("make", MAKES)
def test_factory_makes_valid_rows(myloware_factory: Any, make: str) -> None:
    """Each function inserts a valid row at every call, and returns its model."""
    first, second = getattr(myloware_factory, make)(), getattr(myloware_factory, make)()

    assert first == type(first).get_by_id(first._pk)
    assert first != second


@pytest.mark.parametrize("make", MAKES)
def test_factory_names_every_field(make: str) -> None:
    """Completion offers all that the model has, but for what the database generates."""
    factory = importlib.import_module("pytest_myloware.factory")
    hints = get_type_hints(getattr(factory.Factory, make), vars(factory) | {"ArrayLike": object})
    (fields,) = get_args(hints["fields"])
    named = hints["return"]._meta.combined.items()

    assert {name for name, field in named if not getattr(field, "generated", False)} == set(fields.__annotations__)


def test_factory_takes_fields_and_parents(myloware: Store, myloware_factory: Any) -> None:
    """Named fields override the defaults; children have the tenant of their parent."""
    order = myloware_factory.work_order(tenant_id="acme")
    item = myloware_factory.work_item(work_order=order, content="As said.", status="COMPLETED")
    with myloware.tenant("globex"):
        other = myloware_factory.work_item()

    assert ("acme", "As said.", WorkItemStatus.COMPLETED) == (item.tenant_id, item.content, item.status)
    assert item.processed_at is not None
    assert "globex" == other.tenant_id
    assert (2, 2) == (WorkOrder.select().count(), WorkItem.select().count())
    assert "initech" == myloware_factory.tool_capability(tenant_id="initech").tenant_id
    assert 1 == ToolCapability.select().count()


def test_statements_are_counted(myloware: Store, myloware_assert_num_queries: Any) -> None:
    """The exact number or a maximum is checked; BEGIN, COMMIT and savepoints do not count."""
    with myloware_assert_num_queries(2) as queries, myloware.db.atomic():
        myloware.db.execute_sql("SELECT 1")
        myloware.db.execute_sql("SELECT 1")
    with myloware_assert_num_queries(max=1):
        pass

    assert {"SELECT 1": 2} == queries.repeated
    assert "Result" in queries.explain()


def test_too_many_statements_are_shown(myloware: Store, myloware_assert_num_queries: Any) -> None:
    """The failure names the block, and lists the statements, repeated ones first, each with the line that sent it."""

    def run() -> None:
        with myloware_assert_num_queries(max=1):
            for number in (2, 1, 1):
                myloware.db.execute_sql(f"SELECT {number}")

    first = run.__code__.co_firstlineno
    expected = (
        rf"^tests/plugin/test_helpers\.py:{first + 1}: at most 1 statement expected, 3 ran:\n  2 times: SELECT 1\n"
        rf"  [0-9.]+ ms: SELECT 2  \(tests/plugin/test_helpers\.py:{first + 3}\)\n"
    )
    with pytest.raises(pytest.fail.Exception, match=expected):
        run()
    with pytest.raises(TypeError, match="the exact number, or max="), myloware_assert_num_queries():
        pass


def test_too_few_statements_fail_too(myloware_assert_num_queries: Any) -> None:
    """Without statements, the failure lists none."""

    def run() -> None:
        with myloware_assert_num_queries(2):
            pass

    with pytest.raises(pytest.fail.Exception, match=r"test_helpers\.py:\d+: 2 statements expected, 0 ran$"):
        run()


def test_a_statement_names_the_line_that_called_the_library(
    myloware: Store, myloware_factory: Any, myloware_assert_num_queries: Any
) -> None:
    """That line calls a repository, a model or the factory; in a thread that begins in the library, there is none."""
    order = myloware.work.submit([{"type": "INVOICE", "content": "x"}])
    with myloware_assert_num_queries(max=10) as queries:
        myloware.work.get(order.id)
        _ = [*WorkOrder.select()]
        myloware_factory.capability()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(myloware.work.get, order.id).result()

    first = int(queries.statements[0].place.rpartition(":")[2])
    assert [f"tests/plugin/test_helpers.py:{first + n}" for n in range(3)] + [""] == [
        query.place for query in queries.statements
    ]

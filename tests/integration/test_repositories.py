"""Repositories use the database that they are given, whatever store is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from myloware_store import Store
from myloware_store.db.database import StoreDatabase
from myloware_store.memory.engine import Memory
from myloware_store.models import MODELS
from myloware_store.ops.migrate import migrate
from myloware_store.platform.audit import Audit
from myloware_store.platform.connectors import Connectors
from myloware_store.platform.records import Evals, Runs
from myloware_store.platform.schemas import Schemas
from myloware_store.platform.templates import Templates
from myloware_store.platform.tools import Capabilities, Tools
from myloware_store.work.approvals import Approvals
from myloware_store.work.dead_letters import DeadLetters
from myloware_store.work.engine import Work

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEM = {"type": "INVOICE", "content": "Invoice 17"}


@pytest.fixture
def other(myloware: Store) -> Iterator[StoreDatabase]:
    """Give a database that is not the open store's: another schema."""
    settings = attrs.evolve(myloware.settings, schema="other")
    migrate(settings)
    database = StoreDatabase(settings)
    yield database
    database.close_all()


def test_nothing_meets_the_open_store(myloware: Store, other: StoreDatabase) -> None:
    """What is written is read again by the same repository, and the store has no row of it."""
    work, approvals, letters = Work(other), Approvals(other), DeadLetters(other)
    order = work.submit([ITEM], idempotency_key="once")
    assert order == work.submit([ITEM], idempotency_key="once") == work.get(order.id)
    (claim,) = work.claim("agent")
    work.finish([claim], [1], gate=True)
    assert [claim.item_id] == [item.id for item in approvals.pending()] == [item.id for item in work.items(order.id)]
    assert letters.record("webhook", "paid", None, "refused") == letters.list()[0]
    run = Runs(other).start(order.id)
    assert run == Runs(other).finish(run.id)
    assert claim.item_id == Evals(other).record(claim.item_id, evaluation_type="x", score=1, passed=True).work_item_id
    assert Audit(other).record("looked", "order", order.id) == Audit(other).list()[0]

    connectors, tools, capabilities = Connectors(other), Tools(other), Capabilities(other)
    connector = connectors.register("mail", "EMAIL")
    assert [connector] == [connectors.get("mail")] == connectors.list()
    tool = tools.register("send", "mail")
    assert [capabilities.register("mail.send", "mail")] == capabilities.list()
    tools.grant(tool, "mail.send")
    assert [tool] == tools.list() == tools.list(connector="mail") == tools.list(capability="mail.send")
    schema = Schemas(other).register("invoice", "1", "INVOICE", {})
    template = Templates(other).register("invoice", "INVOICE", {})
    assert ([schema], [template]) == (Schemas(other).list(), Templates(other).list())
    assert Templates(other).activate(template) == Templates(other).active("invoice")
    assert Templates(other).deactivate("invoice")
    Memory(other).upsert([{"type": "CONTEXT", "content": "x"}])

    with myloware.db.unit():
        assert [] == [model for model in MODELS if model.select().exists()]

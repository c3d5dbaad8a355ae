"""What an editor offers on public objects: documented names, and nothing of their insides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peewee
import pytest

import myloware_store
from myloware_store import Settings, Store, WorkOrder
from myloware_store.db.database import StoreDatabase
from myloware_store.models import MODELS
from myloware_store.orm.repository import Repository
from myloware_store.store import _Connection

DOCS = "".join(path.read_text() for path in (Path(__file__).parents[2] / "docs").glob("*.md"))
EXTRA = {"Tool": {"capabilities"}, "Capability": {"tools"}, "ToolCapability": {"id"}}
"""Relations through another table, and a name that Peewee leaves on models with a key of two columns."""


def offered(public: Any) -> set[str]:
    """The names on an object that have no underscore."""
    return {name for name in dir(public) if not name.startswith("_")}


def test_an_order_offers_its_columns_and_relations() -> None:
    """Beside Peewee's own names."""
    columns = {"id", "created_at", "tenant_id", "status", "priority", "workflow_id", "created_by", "metadata"}
    columns |= {
        "idempotency_key",
        "unique_key",
        "open_items",
        "failed_items",
        "cancelled_at",
        "retry_policy",
        "updated_at",
    }
    expected = columns | {"items", "runs", "DoesNotExist"}
    assert expected == offered(WorkOrder) - set(dir(peewee.Model))
    assert expected == offered(WorkOrder(created_by="me")) - set(dir(peewee.Model))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_offer_columns_and_relations(model: Any) -> None:
    """On classes and instances."""
    fields = {*model._meta.combined, *(key.backref for key in model._meta.backrefs), "DoesNotExist"}
    expected = fields | EXTRA.get(model.__name__, set())
    assert expected == offered(model) - set(dir(peewee.Model))
    assert expected == offered(model()) - set(dir(peewee.Model))


def test_the_store_and_its_parts_offer_what_the_guide_names() -> None:
    """Every call of a repository is in the docs, every attribute at least in its class."""
    database = StoreDatabase(Settings.load("postgresql://nobody@127.0.0.1:1/none", environ={}, dotenv=None))
    connection = object.__new__(_Connection)
    connection.database = database
    store = Store(connection)
    parts: dict[str, Any] = {name: part for name, part in vars(store).items() if isinstance(part, Repository)}
    assert len(parts) == 12
    assert {*parts, "open", "close", "db", "settings", "tenant", "transact", "keep_server"} == offered(Store) | {*parts}
    parts["memory.index"] = store.memory.index
    for part, repository in parts.items():
        for name in offered(repository):
            in_guide = any(text in DOCS for text in (f"{part.split('.')[-1]}.{name}", f"`{name}(", f"`{name}`"))
            assert in_guide or f"        {name}: " in (type(repository).__doc__ or ""), f"{part}.{name}"
    assert {"agent_id", "run", "stop"} == offered(myloware_store.Worker(store, print))

"""Connectors, their health, tools and what these are allowed, on a real database."""

from __future__ import annotations

import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import (
    Capability,
    Connector,
    ConnectorStatus,
    ConnectorType,
    InvalidInput,
    NotFound,
    StoreError,
    Tool,
    ToolCapability,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import Store

ACTIVE, INACTIVE, ERROR = ConnectorStatus.ACTIVE, ConnectorStatus.INACTIVE, ConnectorStatus.ERROR


@pytest.fixture
def acme(myloware: Store) -> Iterator[Store]:
    """A store with the tenant acme in force."""
    with myloware.tenant("acme"):
        yield myloware


@pytest.fixture
def tool(acme: Store) -> Tool:
    """A tool of acme that may read."""
    acme.connectors.register("ledger", "DATABASE", status="ACTIVE")
    acme.capabilities.register("read", "records", ["read"])
    tool = acme.tools.register("look_up", "ledger", schema={"required": ["number"]})
    acme.tools.grant("look_up", "read")
    return tool


def race(call: Callable[[int], Any], count: int = 6) -> list[Any]:
    """What the calls return when all begin at once, each under acme."""
    from myloware_store.db.tenancy import tenant_scope

    barrier = threading.Barrier(count)

    def run(n: int) -> Any:
        with tenant_scope("acme"):
            barrier.wait()
            return call(n)

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(run, range(count))]


def test_a_connector_is_registered_and_changed(acme: Store) -> None:
    """The same name again changes what is given, and keeps the rest."""
    first = acme.connectors.register("ledger", "DATABASE", config={"host": "a"})
    assert ("acme", ConnectorType.DATABASE, {"host": "a"}, INACTIVE, None) == (
        first.tenant_id,
        first.type,
        first.config,
        first.status,
        first.last_health_check,
    )
    checked = acme.connectors.record_health("ledger", "ACTIVE")
    same = acme.connectors.register("ledger", "DATABASE")
    assert (first.id, {"host": "a"}, ACTIVE) == (same.id, same.config, same.status)
    assert checked.last_health_check == same.last_health_check
    assert checked.updated_at == same.updated_at
    changed = acme.connectors.register("ledger", ConnectorType.API, config={}, status=INACTIVE)
    assert (first.id, ConnectorType.API, {}, INACTIVE) == (changed.id, changed.type, changed.config, changed.status)
    assert changed.updated_at > same.updated_at
    assert changed.last_health_check == checked.last_health_check


def test_racing_registrations_make_one_connector(acme: Store) -> None:
    """All get the same row."""
    assert 1 == len({row.id for row in race(lambda n: acme.connectors.register("ledger", "API", config={"n": n}))})
    assert 1 == Connector.select().where(Connector.tenant_id == "acme", Connector.name == "ledger").count()


def test_connectors_are_a_tenants_own(acme: Store) -> None:
    """Another tenant has one of the same name, and can neither read nor change this one."""
    mine = acme.connectors.register("ledger", "API")
    assert [mine] == [row for row in acme.connectors.list(type="API") if row.name == "ledger"]
    assert mine == acme.connectors.get("ledger") == acme.connectors.get(mine.id) == acme.connectors.get(mine)
    with acme.tenant("globex"):
        for calls in (acme.connectors.get, lambda row: acme.connectors.record_health(row, "ERROR")):
            for named in ("ledger", mine.id, mine):
                with pytest.raises(NotFound, match="there is no connector"):
                    calls(named)
        assert mine.id != acme.connectors.register("ledger", "API").id
        assert [] == [row for row in acme.connectors.list() if row.tenant_id != "globex"]
    assert INACTIVE is acme.connectors.get("ledger").status


def test_without_a_tenant_a_name_is_of_the_settings_tenant(myloware: Store) -> None:
    """As it would be written; an id is found whoever's it is."""
    with myloware.tenant("acme"):
        other = myloware.connectors.register("ledger", "API")
    mine = myloware.connectors.register("ledger", "API")
    assert "default" == mine.tenant_id
    assert mine == myloware.connectors.get("ledger")
    assert other == myloware.connectors.get(other.id)
    assert {mine.id, other.id} <= {row.id for row in myloware.connectors.list(status="INACTIVE")}


@pytest.mark.parametrize(
    ("outcome", "status"), [(None, ACTIVE), (True, ACTIVE), (0, ACTIVE), (False, ERROR), (OSError("secret"), ERROR)]
)
def test_a_check_records_its_outcome(
    acme: Store, caplog: pytest.LogCaptureFixture, outcome: Any, status: ConnectorStatus
) -> None:
    """By the database's clock; only the kind of an exception is told."""
    acme.connectors.register("ledger", "API", config={"password": "secret"})

    def probe(connector: Connector) -> Any:
        assert {"password": "secret"} == connector.config
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with caplog.at_level(logging.DEBUG):
        checked = acme.connectors.check("ledger", probe)
    ((now,),) = acme.db.execute_sql("SELECT now()").fetchall()
    assert status is checked.status is acme.connectors.get("ledger").status
    assert checked.last_health_check == checked.updated_at
    assert checked.last_health_check <= now
    assert isinstance(outcome, Exception) == ("its health check raised OSError" in caplog.text)
    assert "secret" not in caplog.text


def test_a_check_says_nothing_of_what_changed_meanwhile(acme: Store) -> None:
    """An operator who switches the connector off, or gives it another config, has the last word."""
    connector = acme.connectors.register("ledger", "API", config={"host": "a"}, status="ACTIVE")
    off = acme.connectors.check("ledger", lambda _: acme.connectors.record_health("ledger", "INACTIVE"))
    assert INACTIVE is off.status
    assert ACTIVE is acme.connectors.check("ledger", lambda _: None).status
    moved = acme.connectors.check(
        "ledger", lambda _: bool(acme.connectors.register("ledger", "API", config={})) and False
    )
    assert (ACTIVE, {}) == (moved.status, moved.config)
    spoilt = acme.connectors.check("ledger", lambda row: row.config.update(host="b"))
    assert (ACTIVE, {}) == (spoilt.status, spoilt.config)
    with pytest.raises(NotFound):
        acme.connectors.check(connector.id, lambda row: row.delete_instance())


def test_a_check_needs_a_plain_function(acme: Store) -> None:
    """What would run later has checked nothing."""
    acme.connectors.register("ledger", "API")

    async def later(_: Connector) -> None:
        """Do nothing yet."""

    for probe in (later, None, "ping"):
        with pytest.raises(InvalidInput):
            acme.connectors.check("ledger", probe)  # type: ignore[arg-type]
    assert acme.connectors.get("ledger").last_health_check is None


def test_a_configs_secrets_stay_out_of_sight(acme: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Of representations, log lines and errors, the database's among them."""
    secret = {"password": "hunter2"}
    calls: list[Callable[[], Any]] = [
        lambda: acme.connectors.register("", "API", config=secret),
        lambda: acme.connectors.register("ledger", secret),  # type: ignore[arg-type]
        lambda: acme.connectors.register("ledger", "API", config={**secret, "set": {"hunter2"}}),
        lambda: acme.connectors.register("ledger", "API", config=[secret]),  # type: ignore[arg-type]
        lambda: acme.connectors.register("ledger", "API", config=secret),
    ]
    acme.db.execute_sql("ALTER TABLE connectors ADD CONSTRAINT picky CHECK (name <> 'ledger') NOT VALID")
    with caplog.at_level(logging.DEBUG):
        for call in calls:
            with pytest.raises(StoreError) as caught:
                call()
            raised = caught.value
            assert "hunter2" not in f"{raised!r} {raised} {raised.__cause__} {raised.__context__}"
        connector = acme.connectors.register("other", "API", config=secret)
    acme.db.execute_sql("ALTER TABLE connectors DROP CONSTRAINT picky")
    assert "hunter2" not in repr(connector)
    assert "hunter2" not in str(connector)
    assert "hunter2" not in caplog.text
    assert secret == acme.connectors.reveal(connector)


@pytest.mark.parametrize(
    "bad", [{"name": ""}, {"name": None}, {"type": "FAX"}, {"type": 1}, {"config": "x"}, {"status": "UP"}]
)
def test_a_bad_connector_is_refused(acme: Store, bad: dict[str, Any]) -> None:
    """And nothing is stored."""
    before = Connector.select().count()
    with pytest.raises(InvalidInput):
        acme.connectors.register(**{"name": "ledger", "type": "API", **bad})
    assert before == Connector.select().count()


def test_a_tool_is_registered_and_changed(acme: Store, tool: Tool) -> None:
    """The same name again changes what is given, and keeps the rest and its grants."""
    assert ("acme", None, {"required": ["number"]}, True) == (
        tool.tenant_id,
        tool.description,
        tool.schema,
        tool.is_active,
    )
    other = acme.connectors.register("mail", "EMAIL", status="ACTIVE")
    changed = acme.tools.register("look_up", other.id, description="finds", is_active=False)
    assert (tool.id, other.id, "finds", tool.schema, False) == (
        changed.id,
        changed.connector_id,
        changed.description,
        changed.schema,
        changed.is_active,
    )
    assert (False, "finds") == ((again := acme.tools.register("look_up", "mail")).is_active, again.description)
    assert 1 == ToolCapability.select().where(ToolCapability.tool == tool).count()
    assert 1 == len({row.id for row in race(lambda n: acme.tools.register("new", "mail", schema={"const": n}))})


def test_a_tool_needs_a_connector_of_its_tenant(acme: Store) -> None:
    """And a schema that is one."""
    mine = acme.connectors.register("ledger", "API")
    with acme.tenant("globex"):
        for connector in ("ledger", mine, mine.id, uuid.uuid4()):
            with pytest.raises(NotFound, match="there is no connector"):
                acme.tools.register("t", connector)
    wrong: list[dict[str, Any]] = [{"schema": {"type": "x"}}, {"schema": []}, {"name": ""}, {"is_active": 1}]
    for bad in (*wrong, {"connector": 5}):
        with pytest.raises(InvalidInput):
            acme.tools.register(**{"name": "t", "connector": "ledger", **bad})
    assert Tool.get_or_none(Tool.name == "t") is None


def test_grants_come_and_go(acme: Store, tool: Tool) -> None:
    """Each call says whether it changed anything; names, ids and rows are taken."""
    read = Capability.get(Capability.name == "read")
    assert acme.tools.allowed(tool, read)
    assert not acme.tools.grant(tool.id, read.id)
    assert tool in acme.tools.list(capability="read")
    assert acme.tools.revoke("look_up", "read")
    assert not acme.tools.revoke("look_up", "read")
    assert not acme.tools.allowed("look_up", "read")
    assert tool not in acme.tools.list(capability=read)
    assert tool in acme.tools.list()
    acme.connectors.register("mail", "API")
    acme.tools.register("send", "mail")
    for ledger in ("ledger", tool.connector, tool.connector.id):
        assert [tool] == acme.tools.list(connector=ledger)
    assert [] == acme.tools.list(connector="mail", capability="read")
    with acme.tenant("globex"):
        assert [] == acme.tools.list(connector="ledger") == acme.tools.list(connector=tool.connector)
    assert 1 == sum(race(lambda _: acme.tools.grant("look_up", "read")))
    assert 1 == sum(race(lambda _: acme.tools.revoke("look_up", "read")))


def test_a_tool_is_allowed_what_it_was_granted_while_all_is_on(acme: Store, tool: Tool) -> None:
    """An inactive tool or connector allows nothing; a connector that does not answer is no matter of permission."""
    acme.connectors.record_health("ledger", "ERROR")
    assert acme.tools.allowed("look_up", "read")
    acme.connectors.record_health("ledger", "INACTIVE")
    assert not acme.tools.allowed("look_up", "read")
    acme.connectors.record_health("ledger", "ACTIVE")
    acme.tools.register("look_up", "ledger", is_active=False)
    assert not acme.tools.allowed(tool, "read")
    acme.tools.register("look_up", "ledger", is_active=True)
    assert acme.tools.allowed(tool, "read")


def test_what_is_not_there_is_allowed_nothing(acme: Store, tool: Tool) -> None:
    """Also another tenant's tool; to grant it or take something from it is an error."""
    acme.capabilities.register("write", "records")
    assert not acme.tools.allowed("none", "read")
    assert not acme.tools.allowed("look_up", "none")
    assert not acme.tools.allowed("look_up", "write")
    for call in (acme.tools.grant, acme.tools.revoke):
        for pair in (("none", "read"), ("look_up", "none"), (uuid.uuid4(), "read")):
            with pytest.raises(NotFound):
                call(*pair)
        with acme.tenant("globex"), pytest.raises(NotFound):
            call(tool, "read")
        with pytest.raises(InvalidInput):
            call("", "read")
    with acme.tenant("globex"):
        assert not acme.tools.allowed(tool, "read")
    with pytest.raises(InvalidInput):
        acme.tools.allowed("look_up", 5)  # type: ignore[arg-type]
    assert acme.tools.allowed(tool, "read")


def test_a_capability_is_registered_and_changed(myloware: Store) -> None:
    """One row a name, whoever races."""
    first = myloware.capabilities.register("fax", "paper", ["send"], description="old")
    again = myloware.capabilities.register("fax", "office", ["send", "read"])
    assert (first.id, "office", ["send", "read"], "old") == (
        again.id,
        again.scope,
        again.permissions,
        again.description,
    )
    assert [again] == myloware.capabilities.list(scope="office")
    assert 1 == len({row.id for row in race(lambda n: myloware.capabilities.register("new", str(n)))})
    for bad in ({"permissions": "read"}, {"permissions": [1]}, {"scope": ""}, {"name": None}):
        with pytest.raises(InvalidInput):
            myloware.capabilities.register(**{"name": "n", "scope": "s", **bad})  # type: ignore[arg-type]

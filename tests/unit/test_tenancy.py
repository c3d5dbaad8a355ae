"""The tenant in force: nested, per thread and task, and always a usable name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from myloware_store.core.errors import InvalidInput, NotOpen
from myloware_store.db.database import StoreDatabase
from myloware_store.db.proxy import default_tenant, proxy
from myloware_store.db.tenancy import current_actor, current_tenant, tenant_scope
from myloware_store.settings import Settings


def test_a_scope_holds_for_its_block() -> None:
    """Tenant and actor are in force inside the block, and what was before it is again afterwards."""
    with tenant_scope("acme", "ann"):
        with tenant_scope("other", "bob"):
            inner = (current_tenant(), current_actor())
        outer = (current_tenant(), current_actor())

    assert ("other", "bob") == inner
    assert ("acme", "ann") == outer
    assert (None, None) == (current_tenant(), current_actor())


def test_an_inner_scope_without_an_actor_keeps_the_outer_ones() -> None:
    """Whoever acts goes on acting when only the tenant is named anew."""
    with tenant_scope("acme", "ann"), tenant_scope("other"):
        assert "ann" == current_actor()


def test_a_scope_ends_with_an_error() -> None:
    """An error that leaves the block takes the tenant out of force."""
    with pytest.raises(KeyError), tenant_scope("acme"):
        raise KeyError

    assert current_tenant() is None


def test_threads_do_not_meet() -> None:
    """A scope of one thread is not in force in another."""
    with tenant_scope("acme"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_tenant).result() is None


def test_tasks_do_not_meet() -> None:
    """Tasks that take turns keep their own tenants."""

    async def named(tenant: str) -> str | None:
        with tenant_scope(tenant):
            await asyncio.sleep(0)
            return current_tenant()

    async def both() -> list[str | None]:
        return list(await asyncio.gather(named("a"), named("b")))

    assert ["a", "b"] == asyncio.run(both())


def test_a_scope_decorates_plain_functions() -> None:
    """It is in force in each of their calls, also in a call inside a call."""
    depths: list[str | None] = []

    @tenant_scope("acme")
    def call(depth: int) -> str | None:
        depths.append(current_tenant())
        return call(depth - 1) if depth else current_tenant()

    assert "acme" == call(2)
    assert (["acme"] * 3, None) == (depths, current_tenant())


async def asynchronous() -> None:
    """Run later."""


def generator() -> Iterator[None]:
    """Run later."""
    yield


@pytest.mark.parametrize("fn", [asynchronous, generator])
def test_a_scope_decorates_nothing_that_runs_after_it(fn: Any) -> None:
    """The body of an async function or generator would run without the tenant."""
    with pytest.raises(InvalidInput, match="plain function"):
        tenant_scope("acme")(fn)


@pytest.mark.parametrize("bad", ["", "   ", "x" * 256, "a\x00b", "a\ud800", None, 7, b"acme"])
def test_a_tenant_that_could_not_be_stored_is_refused(bad: Any) -> None:
    """A scope takes only what the column takes, and puts nothing in force otherwise."""
    with pytest.raises(InvalidInput, match="tenant_id"), tenant_scope(bad):
        pass

    assert current_tenant() is None


@pytest.mark.parametrize("bad", ["", "a\x00b", 7])
def test_an_actor_that_could_not_be_stored_is_refused(bad: Any) -> None:
    """The same holds for the actor."""
    with pytest.raises(InvalidInput, match="actor"), tenant_scope("acme", bad):
        pass


def test_the_default_tenant_is_that_of_the_open_stores_settings() -> None:
    """Rows without a tenant belong to the settings' one, and to `default` while no store is open."""
    before = proxy.obj
    try:
        proxy.initialize(None)
        without = default_tenant()
        proxy.initialize(StoreDatabase(Settings(tenant_id="acme")))
        within = default_tenant()
    finally:
        proxy.initialize(before)

    assert ("default", "acme") == (without, within)


def test_a_model_without_a_store_says_what_to_do() -> None:
    """While no store is open, the proxy answers with one typed error, and still with hasattr's False."""
    before = proxy.obj
    try:
        proxy.initialize(None)
        with pytest.raises(NotOpen, match=r"Store\.open"):
            proxy.execute_sql("SELECT 1")
        assert not hasattr(proxy, "execute_sql")
    finally:
        proxy.initialize(before)

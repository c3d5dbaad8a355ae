"""A standby that takes over under load: with synchronous replication nothing that was acknowledged is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.faults.conftest import Load, Server

STREAMING = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"


def test_a_standby_is_promoted_under_load(
    prepared: Callable[..., Server], loading: Callable[..., AbstractContextManager[Load]]
) -> None:
    """Clients that name both servers go on with the new primary, by themselves."""
    primary = prepared("first", synchronous_standby_names="*")
    standby = prepared("second", primary_conninfo=f"host={primary.data} port=5432 user=postgres")
    (standby.data / "standby.signal").touch()
    primary.start()
    standby.start()
    until(lambda: primary.ask(STREAMING))
    hosts = quote(f"{primary.data},{standby.data}", safe=",")
    url = f"postgresql://postgres@/myloware?host={hosts}&port=5432&target_session_attrs=read-write"
    with loading(url) as load:
        primary.kill()
        standby.ask("SELECT pg_promote()")
        load.goes_on()
    assert [] == load.lost(standby)

"""A server whose clock jumps under load, as told by Debian's faketime: forward and back, by seconds and by an hour."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from myloware_store import Settings
from myloware_store.db.database import StoreDatabase
from myloware_store.work.engine import Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.faults.conftest import Load, Server

JUMPS = ["+5", "+0", "-5", "+0", "+3600", "+0", "-3600", "+0"]
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def test_a_clock_that_jumps(
    prepared: Callable[..., Server], loading: Callable[..., AbstractContextManager[Load]], place: Path
) -> None:
    """Nothing that was acknowledged is lost or done twice; what was queued in the future waits for it."""
    if not LIBRARIES:
        pytest.skip("faketime is not installed (Debian: apt-get install faketime)")
    clock = place / "clock"
    clock.write_text("+0")
    server = prepared()
    server.environ = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    server.start()

    def ahead() -> float:
        ((seconds,),) = server.ask(f"SELECT extract(epoch FROM clock_timestamp())::float8 - {time.time()}")
        return float(seconds)

    with loading(server.url()) as load:
        for jump in JUMPS:
            clock.write_text(jump)
            load.goes_on()
            assert ahead() == pytest.approx(float(jump), abs=2)
    database = StoreDatabase(Settings.load(server.url()))
    assert ([], []) == (load.lost(server), list(Work(database).recount()))
    database.close_all()

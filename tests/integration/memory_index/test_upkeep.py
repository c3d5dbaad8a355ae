"""The thread that keeps the vector index good: it builds when it should, and is in nobody's way."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import attrs
import psycopg2
import pytest

from myloware_store import Store, Worker
from myloware_store.memory import index as memory_index
from myloware_store.memory.index import upkeep
from myloware_store.memory.index.session import find_builder
from myloware_store.memory.index.upkeep import Upkeep
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from myloware_store import Settings
    from tests.integration.memory_index.conftest import Corpus

    Tend: TypeAlias = Callable[[Settings], Upkeep]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and take a few hundred rows for many."""
    monkeypatch.setattr(upkeep, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(upkeep, "LOAD", 0.01)
    monkeypatch.setattr(memory_index, "LEAST_ROWS", 500)


@pytest.fixture
def blocker(loaded: Store) -> Iterator[psycopg2.extensions.connection]:
    """Yield a connection whose transaction a build waits for."""
    connection = psycopg2.connect(**loaded.settings.connect_kwargs())
    connection.set_session(isolation_level="REPEATABLE READ")
    with connection.cursor() as run:
        run.execute("SELECT FROM mem_docs LIMIT 1")
    yield connection
    connection.close()


@pytest.fixture
def tend() -> Iterator[Tend]:
    """Yield a function that starts a thread, which is stopped afterwards."""
    with contextlib.ExitStack() as stack:

        def start(settings: Settings) -> Upkeep:
            tending = Upkeep(settings)
            stack.callback(tending.stop, 60)
            return tending

        yield start


def test_an_index_comes_by_itself_and_stays_good(loaded: Store, corpus: Corpus, tend: Tend) -> None:
    """It is built for many rows, to the target that the last `ensure` had, and again when they are many more."""
    tending = tend(loaded.settings)
    until(lambda: loaded.memory.index.status().used)
    loaded.memory.index.ensure(0.9)
    for _ in range(4):  # never so many at once that the index is used no more
        corpus.load(loaded.db, corpus.clustered(corpus.rows // 2))
    until(lambda: loaded.memory.index.status().rows_at_build > 2 * corpus.rows)
    until(lambda: not loaded.memory.index.status().stale)
    tending.stop(60)
    assert loaded.memory.index.status().target_recall == 0.9


def test_a_load_is_measured_when_it_has_ended(loaded: Store, corpus: Corpus, tend: Tend) -> None:
    """Its pages are there before, but its documents cannot be seen."""
    index = loaded.memory.index
    before = index.ensure().status
    with loaded.db.atomic():
        corpus.load(loaded.db, corpus.clustered(corpus.rows // 2))
        tending = tend(loaded.settings)
        tending._stopped.wait(0.5)
        assert index.status().measured_at == before.measured_at
    until(lambda: index.status().measured_at != before.measured_at)


def test_few_rows_need_none(loaded: Store, corpus: Corpus, tend: Tend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built, however often it looks."""
    looks = []
    look = Upkeep._look

    def counted(*given: object) -> None:
        look(*given)  # type: ignore[arg-type]
        looks.append(given)

    monkeypatch.setattr(memory_index, "LEAST_ROWS", 5000)
    monkeypatch.setattr(Upkeep, "_look", counted)
    tending = tend(loaded.settings)
    until(lambda: len(looks) > 2)
    tending.stop(60)
    assert loaded.memory.index.status().rows_at_build == 0


def test_it_does_not_wait_for_another_builder(
    loaded: Store, tend: Tend, blocker: psycopg2.extensions.connection
) -> None:
    """One builds, the other looks again later; who stops cancels, and leaves nothing locked."""
    first, second = tend(loaded.settings), tend(loaded.settings)
    until(lambda: find_builder(loaded.db))
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    until(lambda: loaded.db.execute_sql(sessions, ("myloware-store index",)).fetchone() == (1,))
    for one in (first, second):
        one.stop(60)
    until(lambda: find_builder(loaded.db) is None)
    blocker.rollback()
    assert loaded.memory.index.ensure().status.used


def test_a_role_that_may_not_build_says_nothing(loaded: Store, tend: Tend, caplog: pytest.LogCaptureFixture) -> None:
    """It is not an error to be another role than the owner."""
    loaded.db.execute_sql("DROP ROLE IF EXISTS upkeep_reader")
    loaded.db.execute_sql("CREATE ROLE upkeep_reader LOGIN")
    try:
        tending = tend(attrs.evolve(loaded.settings, user="upkeep_reader"))
        tending._stopped.wait(0.2)
        tending.stop(60)
    finally:
        loaded.db.execute_sql("DROP ROLE upkeep_reader")
    assert (loaded.memory.index.status().used, caplog.records) == (False, [])


def test_errors_are_logged(loaded: Store, tend: Tend, caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on after a server that does not answer, and its message shows no password."""
    with caplog.at_level(logging.WARNING, "myloware_store.upkeep"):
        tending = tend(attrs.evolve(loaded.settings, port=1, password="secret"))
        until(lambda: len(caplog.records) > 1)
        tending.stop(60)
    assert "the vector index is not looked after: ConnectionFailed" in caplog.text
    assert "secret" not in caplog.text


def test_a_program_ends_beside_a_build(loaded: Store, blocker: psycopg2.extensions.connection) -> None:
    """At once, and the server ends the build."""
    program = """
import sys, time
from myloware_store import Settings, memory
from myloware_store.db.database import StoreDatabase
from myloware_store.memory import index
from myloware_store.memory.index import session, upkeep
index.LEAST_ROWS, upkeep.LOOK_EVERY = 500, 0.01
settings = Settings.load(sys.argv[1], environ={}, dotenv=None)
database, tending = StoreDatabase(settings), upkeep.Upkeep(settings)
while not session.find_builder(database):
    time.sleep(0.01)
"""
    command = [sys.executable, "-c", program, loaded.settings.url]
    subprocess.run(command, check=True, timeout=30, env={**os.environ})
    until(lambda: find_builder(loaded.db) is None)
    blocker.rollback()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_worker_has_one(loaded: Store, monkeypatch: pytest.MonkeyPatch, *, wanted: bool) -> None:
    """Beside the reaper, unless the settings say no."""
    connection = loaded._require()
    monkeypatch.setattr(connection, "settings", attrs.evolve(loaded.settings, upkeep=wanted, embedded=False))
    loaded.work.submit([{"type": "TICKET", "content": "x"}])
    names: list[str] = []
    Worker(loaded, lambda _claim: names.extend(thread.name for thread in threading.enumerate())).run(drain=True)
    assert ("myloware-upkeep" in names) is wanted

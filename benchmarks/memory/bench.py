"""The server of a run, a migrated database for each part of it, and the clock."""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras

from myloware_store import Store
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.migrate import migrate
from myloware_store.settings import Settings

_PREFIX = "myloware-bench-memory-"
_DATABASE = "bench"


class Raw:
    """A plain psycopg2 connection in autocommit mode."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        connection.autocommit = True
        psycopg2.extras.register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]

    def rows(self, sql: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def index_used(self, sql: str, values: Any = None) -> str:
        """Return the index that the plan of a statement scans first; `none` where it scans none."""
        plan = "\n".join(line for (line,) in self.rows("EXPLAIN " + sql, values))
        found = re.search(r"Index(?: Only)? Scan (?:using|on) (\S+)", plan)
        return found[1] if found else "none"


class Steps:
    """Is the `progress` of a call, and tells how long each of its steps took."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def __call__(self, what: str, *_: object) -> None:
        """Note that a step goes on, or that another one begins."""
        step = what.partition(":")[0]
        if not self._begun or self._begun[-1][0] != step:
            self._begun.append((step, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each step until now, in the order in which they began."""
        ends = [moment for _, moment in self._begun[1:]] + [time.monotonic()]
        taken: dict[str, float] = {}
        for (step, begin), end in zip(self._begun, ends, strict=True):
            taken[step] = taken.get(step, 0.0) + end - begin
        return taken


@dataclass(frozen=True)
class Bench:
    """What every part of a run needs.

    Attributes:
        server: The running server.
        quick: Whether the sizes are small.
    """

    server: EmbeddedServer
    quick: bool

    @property
    def url(self) -> str:
        """The URL of the database."""
        return self.server.url(_DATABASE)

    @contextmanager
    def database(self) -> Iterator[tuple[Store, Raw]]:
        """Give a new, migrated, empty database, as a store and as a plain connection; drop it afterwards."""
        self._drop()
        self.server.ensure_database(_DATABASE)
        settings = Settings.load(self.url, environ={}, dotenv=None)
        migrate(settings)
        try:
            with (
                Store.open(settings=settings) as store,
                closing(psycopg2.connect(**self.server.connect_kwargs(_DATABASE))) as connection,
            ):
                yield store, Raw(connection)
        finally:
            self._drop()

    def _drop(self) -> None:
        with closing(psycopg2.connect(**self.server.connect_kwargs("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")


@contextmanager
def running(*, quick: bool) -> Iterator[Bench]:
    """Run a server of its own in a temporary folder, which goes away with it, also on SIGTERM."""

    def end(*_: object) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, end)
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    folder.chmod(0o711)
    try:
        with EmbeddedServer(folder / "server") as server:
            yield Bench(server, quick)
    finally:
        shutil.rmtree(folder)


def _sweep() -> None:
    """Remove what runs that were killed have left; their servers have ended by themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:  # it runs, as somebody else
            continue


def timed(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """Return what a call returns, and its milliseconds."""
    begin = time.perf_counter()
    result = work(*given)
    return result, (time.perf_counter() - begin) * 1e3


def paired(ours: Callable[[Any], object], raw: Callable[[Any], object], inputs: Sequence[Any]) -> dict[str, float]:
    """Time two ways of doing the same in turns, each first every other time; give the medians and their ratio."""
    for warm in inputs[:3]:
        ours(warm)
        raw(warm)
    mine, theirs = [], []
    for number, given in enumerate(inputs):
        for way in (0, 1) if number % 2 else (1, 0):
            if way:
                theirs.append(timed(raw, given)[1])
            else:
                mine.append(timed(ours, given)[1])
    first, second = statistics.median(mine), statistics.median(theirs)
    return {"ours_ms": first, "raw_ms": second, "ratio": first / second}

"""What one statement costs through the pool, against psycopg2 alone and Peewee's own pool.

Run it with the URL of any PostgreSQL database: `python benchmarks/pool_checkout.py postgresql://...`
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING

import psycopg2
from playhouse.pool import PooledPostgresqlDatabase

from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
STATEMENTS = 3000


def microseconds(work: Callable[[], object], times: int = STATEMENTS) -> float:
    """Return the median over the rounds of what one call takes."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            work()
        rounds.append((time.perf_counter() - start) / times * 1e6)
    return statistics.median(rounds)


def per_second(work: Callable[[], object], threads: int) -> float:
    """Return how often this many threads together do the work in a second."""

    def run() -> None:
        for _ in range(STATEMENTS // threads):
            work()

    crew = [threading.Thread(target=run) for _ in range(threads)]
    start = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return STATEMENTS / (time.perf_counter() - start)


def main(url: str) -> None:
    """Print the table."""
    settings = Settings.load(url, environ={}, dotenv=None)
    ours = StoreDatabase(settings)
    arguments = settings.connect_kwargs()
    theirs = PooledPostgresqlDatabase(arguments.pop("dbname"), max_connections=10, timeout=10, **arguments)
    raw = psycopg2.connect(**settings.connect_kwargs())
    raw.autocommit = True

    def on_raw() -> None:
        with raw.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()

    def on_theirs() -> None:
        with theirs.connection_context():
            theirs.execute_sql("SELECT 1").fetchall()

    def alone() -> None:
        ours.execute_sql("SELECT 1").fetchall()

    def soiled() -> None:
        with ours.unit():
            ours.execute_sql("SET work_mem = '8MB'")

    def transaction() -> None:
        with ours.atomic():
            ours.execute_sql("SELECT 1")

    print(f"psycopg2, a connection held                {microseconds(on_raw):8.1f} us")
    with ours.unit():
        print(f"ours, inside a unit                        {microseconds(alone):8.1f} us")
    print(f"ours, a unit of its own                    {microseconds(alone):8.1f} us")
    print(f"Peewee's pool, connection_context          {microseconds(on_theirs):8.1f} us")
    print(f"ours, a transaction (3 statements)         {microseconds(transaction):8.1f} us")
    print(f"ours, a unit that changed its session (2)  {microseconds(soiled):8.1f} us")
    print(f"ours, 50 threads on 10 connections         {per_second(alone, 50):8.0f} /s")
    print(f"Peewee's, 50 threads on 10 connections     {per_second(on_theirs, 50):8.0f} /s")
    ours.close_all()
    theirs.close_all()
    raw.close()


if __name__ == "__main__":
    main(sys.argv[1])

"""procrastinate, pgqueuer and awa-pg, each in its fastest configuration that keeps its durability and its retries.

procrastinate and pgqueuer are used through the lowest public calls that fetch and finish: `JobManager.fetch_job` and
`finish_job`, `Queries.dequeue` and `log_jobs`. It leaves out what their workers
add (looking up and calling the task, its logging, buffers and polling) and so is the fairer choice here, as nobody else
runs a handler either. procrastinate fetches one job at a time; its worker with a concurrency of n fetches n of them one
by one and finishes each by itself over a pool, and so is it done here where the batch is n. Both have the drivers and
loops that their pages recommend: psycopg 3 with its pool; asyncpg under uvloop.

awa-pg has no calls that claim and complete, so its own worker runs, in Rust, with a Python handler that only counts. A
worker process claims and completes in batches of the size of the case. With batches of one it handles one job at a
time, as the others do; with larger ones it may hold four batches, which is faster than one. Its maintenance (rotating
and truncating its partitions) runs meanwhile, and is counted. Jobs go in by COPY, or by `insert` if there is one.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import time
import uuid
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from benchmarks.work_queue.contenders import JOIN, Baseline, Contender, Joined, Ours
from myloware_store.work.engine import Work

__all__ = ["CONTENDERS", "PEERS"]

FLUSH = 0.05
"""Seconds in which the last jobs of awa-pg that were handled are completed in the database, too."""


class Procrastinate(Contender):
    """procrastinate, on its psycopg 3 connector."""

    tables = "procrastinate_jobs, procrastinate_events"

    def __init__(self, url: str) -> None:
        procrastinate = importlib.import_module("procrastinate")
        jobs = importlib.import_module("procrastinate.jobs")
        self._done = jobs.Status.SUCCEEDED
        self._runner = asyncio.Runner()
        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
        self._task = self._app.task(name="bench", queue="bench")(_handle)
        self._worker_id = self._runner.run(self._open())

    @staticmethod
    def install(url: str) -> None:
        """Make the tables."""
        procrastinate = importlib.import_module("procrastinate")
        with procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url)).open() as app:
            app.schema_manager.apply_schema()

    def drain(self, batch: int, most: int) -> int:
        """Claim and finish until nothing is left, or so many are finished; return how many were."""
        return self._runner.run(self._drain(batch, most))

    async def _open(self) -> Any:
        await self._app.open_async()
        return await self._app.job_manager.register_worker()

    async def _drain(self, batch: int, most: int) -> int:
        manager, done = self._app.job_manager, 0
        while done < most:
            jobs: list[Any] = []
            while len(jobs) < batch and (job := await manager.fetch_job(["bench"], self._worker_id)) is not None:
                jobs.append(job)
            if not jobs:
                break
            await asyncio.gather(*[manager.finish_job(job, self._done, delete_job=False) for job in jobs])
            done += len(jobs)
        return done

    def submit(self, contents: list[str]) -> None:
        """Put these into the queue with one call."""
        if len(contents) == 1:
            self._runner.run(self._task.defer_async(content=contents[0]))
        else:
            self._runner.run(self._task.batch_defer_async(*[{"content": content} for content in contents]))

    def close(self) -> None:
        """Let go of the connections."""
        self._runner.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        await self._app.close_async()


async def _handle(content: str) -> None:
    """Do nothing: no handler is run."""


class Pgqueuer(Contender):
    """pgqueuer, on asyncpg."""

    tables = "pgqueuer, pgqueuer_log"

    def __init__(self, url: str) -> None:
        ports = importlib.import_module("pgqueuer.ports.repository")
        uvloop = importlib.import_module("uvloop")
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        asyncpg = importlib.import_module("asyncpg")
        self._connection = self._runner.run(_connected(asyncpg, url))
        self._queries = importlib.import_module("pgqueuer.queries").Queries.from_asyncpg_connection(self._connection)
        self._wanted = {"bench": ports.EntrypointExecutionParameter(0)}
        self._id = uuid.uuid4()

    @staticmethod
    def install(url: str) -> None:
        """Make the tables."""
        queue = Pgqueuer(url)
        queue._runner.run(queue._queries.install())
        queue.close()

    def drain(self, batch: int, most: int) -> int:
        """Claim and finish until nothing is left, or so many are finished; return how many were."""
        return self._runner.run(self._drain(batch, most))

    async def _claim(self, batch: int) -> list[Any]:
        jobs: list[Any] = await self._queries.dequeue(
            batch_size=batch,
            entrypoints=self._wanted,
            queue_manager_id=self._id,
            global_concurrency_limit=None,
            heartbeat_timeout=timedelta(seconds=30),
        )
        return jobs

    async def _drain(self, batch: int, most: int) -> int:
        done = 0
        while done < most and (jobs := await self._claim(batch)):
            await self._queries.log_jobs([(job, "successful", None) for job in jobs])
            done += len(jobs)
        return done

    def submit(self, contents: list[str]) -> None:
        """Put these into the queue with one call."""
        if len(contents) == 1:
            self._runner.run(self._queries.enqueue("bench", contents[0].encode()))
        else:
            payloads = [content.encode() for content in contents]
            self._runner.run(self._queries.enqueue(["bench"] * len(payloads), payloads, [0] * len(payloads)))

    def close(self) -> None:
        """Let go of the connections."""
        self._runner.run(self._connection.close())
        self._runner.close()


async def _connected(asyncpg: Any, url: str) -> Any:
    return await asyncpg.connect(url)


@dataclass
class _Item:
    content: str


class Awa(Contender):
    """awa-pg, on its queue storage; its loop is in a thread, because its workers call handlers at any time."""

    def __init__(self, url: str) -> None:
        self._awa = importlib.import_module("awa")
        self._url = _with_host(url)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    @classmethod
    def install(cls, url: str) -> None:
        """Make the tables."""
        cls.empty(url)

    @classmethod
    def empty(cls, url: str) -> None:
        """Make the tables anew: what is in its ring of partitions does not go otherwise before it is finished."""
        with closing(importlib.import_module("awa").Client(_with_host(url))) as client:
            client.migrate()
            client.install_queue_storage(reset=True)

    def prepare(self, batch: int, expected: int) -> None:
        """Start the workers on a queue that is paused."""
        self._handled, self._expected, self.finished.value = 0, expected, 0
        self.idle = FLUSH if batch else 0.0
        self._client = self._awa.Client(self._url, 2)
        self._runtime = self._run(self._started(batch)) if batch else None

    async def _started(self, batch: int) -> Any:
        os.environ["AWA_COMPLETION_BATCH_SIZE"] = str(batch)
        self._client.pause_queue("bench")
        runtime = self._awa.AsyncClient(self._url)

        async def handle(_: Any) -> None:
            self._handled += 1
            with self.finished.get_lock():
                self.finished.value += 1

        runtime.task(_Item, queue="bench")(handle)
        queue = {"name": "bench", "max_workers": batch if batch == 1 else 4 * batch, "claim_batch_size": batch}
        await runtime.start([queue])
        await asyncio.sleep(0.5)
        return runtime

    def rest(self) -> None:
        """Stop the workers."""
        if self._runtime is not None:
            self._run(self._stopped(self._runtime))
        self._client.close()

    async def _stopped(self, runtime: Any) -> None:
        await runtime.shutdown()
        await runtime.close()

    def drain(self, _batch: int, _most: int) -> int:
        """Let the workers go until those of all processes have finished all; return how many were finished here."""
        self._client.resume_queue("bench")
        while self.finished.value < self._expected:
            time.sleep(0.005)
        time.sleep(self.idle)
        return self._handled

    def _run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result()

    def submit(self, contents: list[str]) -> None:
        """Put these into the queue with one call."""
        if len(contents) == 1:
            self._client.insert(_Item(contents[0]), queue="bench")
        else:
            self._client.enqueue_many_copy([_Item(content) for content in contents], queue="bench")

    def close(self) -> None:
        """Let go of the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)


def _with_host(url: str) -> str:
    """Name a host, which its driver wants even beside the folder of a socket."""
    return url.replace("@/", "@localhost/")


CONTENDERS: dict[str, type[Contender]] = {
    "ours": Ours,
    **({"joined": Joined} if hasattr(Work, JOIN) else {}),
    "baseline": Baseline,
    "procrastinate": Procrastinate,
    "pgqueuer": Pgqueuer,
    "awa-pg": Awa,
}
"""By name; the peers need their packages."""

PEERS = {"procrastinate": "procrastinate", "pgqueuer": "pgqueuer", "awa-pg": "awa"}
"""The module of each."""

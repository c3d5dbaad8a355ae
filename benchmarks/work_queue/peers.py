"""procrastinate and pgqueuer, used through the lowest public calls that fetch and finish.

Those are `JobManager.fetch_job` and `finish_job`, `Queries.dequeue` and `log_jobs`. It leaves out what their workers
add (looking up and calling the task, its logging, buffers and polling) and so is the fairer choice here, as nobody else
runs a handler either. procrastinate fetches one job at a time; its worker with a concurrency of n fetches n of them one
by one and finishes each by itself over a pool, and so is it done here where the batch is n. Both have the drivers and
loops that their pages recommend: psycopg 3 with its pool; asyncpg under uvloop.
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from datetime import timedelta
from typing import Any

from benchmarks.work_queue.contenders import Baseline, Contender, Ours

__all__ = ["CONTENDERS", "PEERS"]


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

    def claim(self) -> int:
        """Claim one, and return how many that were."""
        job = self._runner.run(self._app.job_manager.fetch_job(["bench"], self._worker_id))
        return int(job is not None)

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

    def claim(self) -> int:
        """Claim one, and return how many that were."""
        return len(self._runner.run(self._claim(1)))

    def close(self) -> None:
        """Let go of the connections."""
        self._runner.run(self._connection.close())
        self._runner.close()


async def _connected(asyncpg: Any, url: str) -> Any:
    return await asyncpg.connect(url)


CONTENDERS: dict[str, type[Contender]] = {
    "ours": Ours,
    "baseline": Baseline,
    "procrastinate": Procrastinate,
    "pgqueuer": Pgqueuer,
}
"""By name; the peers need their packages."""

PEERS = ("procrastinate", "pgqueuer")

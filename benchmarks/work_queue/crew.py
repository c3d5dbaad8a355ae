"""Worker processes for the comparison of work queues, and the databases they work on."""

from __future__ import annotations

import functools
import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg2

from benchmarks.work_queue.peers import CONTENDERS

if TYPE_CHECKING:
    from types import TracebackType

    from myloware_store.embedded import EmbeddedServer

__all__ = ["Crew", "Queue", "Took", "documents"]

DOCUMENTS = 200

# Ids in the order of the numbers, as those of `submit` are in the order of time.
_ID = "(lpad(to_hex({n}), 8, '0') || substr(gen_random_uuid()::text, 9))::uuid"

LOAD_ORDERS = f"""
INSERT INTO work_orders (id, tenant_id, created_by)
SELECT {_ID.format(n="n")}, 'bench', 'bench' FROM generate_series(1, %(orders)s) AS n
"""
LOAD_ITEMS = f"""
INSERT INTO work_items (id, tenant_id, work_order_id, type, content, priority, available_at)
SELECT {_ID.format(n="o.n * %(each)s + k")}, 'bench', o.id, 'INVOICE', t.content, 'MEDIUM',
    now() - interval '1 day' + (o.n * %(each)s + k) * interval '1 millisecond'
FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM work_orders) AS o,
    generate_series(0, %(each)s - 1) AS k, texts AS t
WHERE t.n = (o.n * %(each)s + k) %% %(documents)s
ORDER BY o.n, k
"""
INDEX = "work_items_content_fts_idx"


@functools.cache
def documents(size: int) -> list[str]:
    """Return texts of this many bytes, in words as unevenly used as those of a language."""
    draw = random.Random(7)
    letters = "etaoinshrdlucmfwygpbvk"
    words = ["".join(draw.choices(letters, k=draw.randint(3, 10))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    texts = [" ".join(draw.choices(words, weights, k=size // 4)) for _ in range(DOCUMENTS)]
    return [text[:size] for text in texts]


class Took(NamedTuple):
    """What something took."""

    seconds: float
    client: float
    """Processor seconds of the workers."""
    server: float
    """Processor seconds of their backends; 0 where the system does not tell."""
    answers: list[Any]


class Crew:
    """Processes that work on one queue, each with its own connection, started once for the whole run."""

    def __init__(self, contender: str, url: str, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._watch = psycopg2.connect(url)
        self._watch.autocommit = True
        self._workers = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(contender, url, theirs), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))
        self._ask(size, "ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, pipe in self._workers:
            pipe.close()
            process.join(10)
        self._watch.close()

    def _ask(self, workers: int, *command: Any) -> Took:
        before = self._server_seconds()
        for _, pipe in self._workers[:workers]:
            pipe.send(command)
        replies = [pipe.recv() for _, pipe in self._workers[:workers]]
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        begins, ends, client, answers = zip(*replies, strict=True)
        server = self._server_seconds() - before
        return Took(max(ends) - min(begins), sum(client), server, list(answers))

    def _server_seconds(self) -> float:
        """Return the processor seconds of the backends that serve this queue's workers."""
        with self._watch.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND backend_type = 'client backend'"
            )
            files = [Path(f"/proc/{pid}/schedstat") for (pid,) in cursor.fetchall()]
        return sum(int(file.read_text().split()[0]) for file in files if file.exists()) / 1e9

    def drain(self, workers: int, batch: int, expected: int | None = None, most: int = 1 << 30) -> Took:
        """Have so many workers claim and finish until none is left, or each has finished `most`."""
        took = self._ask(workers, "drain", batch, most)
        if expected is not None and sum(took.answers) != expected:
            raise RuntimeError(f"{sum(took.answers)} items were finished of {expected}")
        return took

    def submit(self, size: int, batch: int, calls: int) -> Took:
        """Have one worker submit batches of items of this size."""
        self._ask(1, "learn", size)
        return self._ask(1, "submit", size, batch, calls)

    def claims(self, calls: int) -> Took:
        """Have one worker claim an item so many times; the answer has the milliseconds of each."""
        return self._ask(1, "claims", calls)


def _serve(contender: str, url: str, pipe: Connection) -> None:
    """Do what the crew's leader asks for, until it hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    queue = CONTENDERS[contender](url)

    def submit(size: int, batch: int, calls: int) -> None:
        texts = documents(size)
        for call in range(calls):
            queue.submit([texts[(call * batch + n) % len(texts)] for n in range(batch)])

    def claims(calls: int) -> list[float]:
        times = []
        for _ in range(calls):
            begin = time.perf_counter()
            if queue.claim() != 1:
                raise RuntimeError("there was nothing to claim")
            times.append((time.perf_counter() - begin) * 1e3)
        return times

    does: dict[str, Callable[..., Any]] = {
        "ready": lambda: None,
        "learn": lambda size: len(documents(size)),
        "drain": queue.drain,
        "submit": submit,
        "claims": claims,
    }
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            queue.close()
            return
        begin, used = time.monotonic(), time.process_time()  # monotonic is one clock for all processes
        try:
            done = does[name](*arguments)
            pipe.send((begin, time.monotonic(), time.process_time() - used, done))
        except Exception as error:  # noqa: BLE001  the leader raises it
            pipe.send(RuntimeError(f"{contender}: {type(error).__name__}: {error}"))


class Queue:
    """A contender's database: made, filled and emptied here."""

    def __init__(self, server: EmbeddedServer, contender: str, name: str) -> None:
        self.contender, self.name = contender, name
        self.url = server.url(name)
        server.ensure_database(name)
        CONTENDERS[contender].install(self.url)
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    @property
    def is_store(self) -> bool:
        """Whether the tables are this library's."""
        return self.contender in ("ours", "baseline")

    def empty(self) -> None:
        """Take out whatever is in it."""
        self.cursor.execute(f"TRUNCATE {CONTENDERS[self.contender].tables} CASCADE")

    def index(self, *, wanted: bool) -> None:
        """Have the full-text index or not."""
        if wanted:
            self.cursor.execute(
                f"CREATE INDEX IF NOT EXISTS {INDEX} ON work_items USING gin (content_search(content))"
                " WHERE searchable AND processed_at IS NOT NULL"
            )
        else:
            self.cursor.execute(f"DROP INDEX IF EXISTS {INDEX}")

    def fill(self, crew: Crew, size: int, items: int, each: int) -> None:
        """Put items of this size into the empty queue, so many of them an order."""
        if self.is_store:
            self.texts(size)
            self.cursor.execute(LOAD_ORDERS, {"orders": items // each})
            self.cursor.execute(LOAD_ITEMS, {"each": each, "documents": DOCUMENTS})
        else:
            crew.submit(size, 100, items // 100)

    def texts(self, size: int) -> None:
        """Have the documents in a table, to be copied by the server."""
        self.cursor.execute("CREATE TABLE IF NOT EXISTS texts (n int PRIMARY KEY, content text)")
        self.cursor.execute("TRUNCATE texts")
        rows = list(enumerate(documents(size)))
        self.cursor.execute(
            "INSERT INTO texts SELECT * FROM unnest(%s, %s)", [[n for n, _ in rows], [text for _, text in rows]]
        )

    def settle(self) -> None:
        """Leave no work of the past to the time that is taken next."""
        self.cursor.execute("VACUUM (ANALYZE)")
        self.cursor.execute("CHECKPOINT")

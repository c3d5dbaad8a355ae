"""This library's engine, and what one would write by hand instead, behind the calls that every contender answers.

`ours` is `store.work`, on a connection that is held (`db.unit()`), as a worker does; `joined` is the same, and finishes
a batch and claims the next with one call. `baseline` is psycopg2 on the same tables, indexes and triggers: a statement
that claims and inserts the attempts, and one that finishes, fenced by the attempt. It checks no argument, does not ask
whether the lease has ended, and does not know a repeated finish.
"""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import psycopg2

from myloware_store.db.database import StoreDatabase
from myloware_store.ops.migrate import migrate
from myloware_store.settings import Settings
from myloware_store.work.engine import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Baseline", "Contender", "Joined", "Ours"]

INDEX = "work_items_content_fts_idx"
JOIN = "finish_and_claim"
RESULT = {"ok": True, "note": "as it should be"}

CLAIM = """
WITH ready AS MATERIALIZED (
    SELECT id FROM work_items
    WHERE status = 'QUEUED' AND available_at <= now()
    ORDER BY priority DESC, available_at, id
    LIMIT %s
    FOR NO KEY UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE work_items AS w
    SET status = 'PROCESSING', attempt_count = w.attempt_count + 1, current_attempt_id = gen_random_uuid(),
        updated_at = now()
    FROM ready WHERE w.id = ready.id
    RETURNING w.id, w.current_attempt_id, w.attempt_count, w.type, w.content, w.tenant_id, w.work_order_id,
        w.priority, w.available_at
),
started AS (
    INSERT INTO attempts (id, tenant_id, work_item_id, agent_id, attempt_number, lease_expires_at)
    SELECT current_attempt_id, tenant_id, id, %s, attempt_count, now() + interval '60 seconds' FROM claimed
)
SELECT id, current_attempt_id, attempt_count, type, content, tenant_id, work_order_id
FROM claimed ORDER BY priority DESC, available_at, id
"""
FINISH = """
WITH given AS (
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::jsonb[]) AS given (item_id, attempt_id, output)
),
finished AS (
    UPDATE work_items AS w
    SET status = 'COMPLETED', result = given.output, processed_at = now(), updated_at = now()
    FROM given
    WHERE w.id = given.item_id AND w.status = 'PROCESSING' AND w.current_attempt_id = given.attempt_id
    RETURNING w.id, given.attempt_id, given.output
),
ended AS (
    UPDATE attempts AS a
    SET status = 'COMPLETED', output = finished.output, finished_at = now(), updated_at = now(),
        duration_ms = extract(epoch FROM now() - a.started_at) * 1000
    FROM finished WHERE a.id = finished.attempt_id
)
SELECT id FROM finished
"""
SUBMIT = """
WITH made AS (
    INSERT INTO work_orders (id, tenant_id, created_by) VALUES (%s, 'bench', 'bench')
)
INSERT INTO work_items (id, tenant_id, work_order_id, type, content, priority)
SELECT given.id, 'bench', %s, 'INVOICE', given.content, 'MEDIUM'
FROM unnest(%s::uuid[], %s::text[]) AS given (id, content)
"""


class Contender(Protocol):
    """A queue in a database of its own.

    It may have `prepare(batch, expected)` and `rest()`, which are called, untimed, before and after draining and
    submitting: in batches of this size or (0) submitting, and how many items all workers are going to finish.
    """

    tables: ClassVar[str] = ""
    """What to truncate for an empty queue."""
    idle: float = 0.0
    """Seconds at the end of the last drain in which nothing was finished."""
    finished: Any = None
    """A counter that the workers share, for those that do not see for themselves when nothing is left."""

    def __init__(self, url: str) -> None: ...

    @staticmethod
    def install(url: str) -> None:
        """Make the tables."""

    @classmethod
    def empty(cls, url: str) -> None:
        """Take out whatever is in the queue."""
        with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {cls.tables} CASCADE")

    def drain(self, batch: int, most: int) -> int:
        """Claim and finish until nothing is left, or so many are finished; return how many were."""

    def submit(self, contents: list[str]) -> None:
        """Put these into the queue with one call."""

    def close(self) -> None:
        """Let go of the connections."""


class Ours(Contender):
    """This library."""

    tables = "work_orders, work_items, attempts"

    def __init__(self, url: str) -> None:
        self._database = StoreDatabase(Settings.load(url, environ={}, dotenv=None))
        self._work = Work(self._database)

    @staticmethod
    def install(url: str) -> None:
        """Make the tables."""
        migrate(Settings.load(url, environ={}, dotenv=None))

    def drain(self, batch: int, most: int) -> int:
        """Claim and finish until nothing is left, or so many are finished; return how many were."""
        done = 0
        with self._database.unit():
            while done < most and (claims := self._work.claim("bench", batch)):
                done += len(self._work.finish(claims, [RESULT] * len(claims)))
        return done

    def submit(self, contents: list[str]) -> None:
        """Put these into the queue with one call."""
        with self._database.unit():
            self._work.submit(({"type": "INVOICE", "content": content} for content in contents), created_by="bench")

    def claim(self, tenants: Sequence[str] | None = None) -> int:
        """Claim one, of these tenants where they are given, and return how many that were."""
        with self._database.unit():
            return len(self._work.claim("bench", types=tenants and ["INVOICE"], tenants=tenants))

    def index(self) -> int:
        """Index what was finished for full-text search, until nothing is left; return how many items that were."""
        done, index = 0, getattr(self._work, "index", lambda _: 0)
        with self._database.unit():
            while found := index(500):
                done += found
        return done

    def merge(self) -> None:
        """Merge what the full-text index has pending into its tree, as autovacuum does otherwise."""
        self._database.execute_sql(f"SELECT gin_clean_pending_list('{INDEX}')")

    def close(self) -> None:
        """Let go of the connections."""
        self._database.close_all()


class Joined(Ours):
    """This library, finishing a batch and claiming the next with one call."""

    def drain(self, batch: int, most: int) -> int:
        """Claim and finish until nothing is left, or so many are finished; return how many were."""
        done, finish_and_claim = 0, getattr(self._work, JOIN)
        with self._database.unit():
            claims = self._work.claim("bench", batch)
            while claims and done + len(claims) < most:
                accepted, claims = finish_and_claim(claims, [RESULT] * len(claims), "bench", n=batch)
                done += len(accepted)
                claims = claims or self._work.claim("bench", batch)
            return done + (len(self._work.finish(claims, [RESULT] * len(claims))) if claims else 0)


class Baseline(Contender):
    """The same tables by hand."""

    tables = Ours.tables

    @staticmethod
    def install(url: str) -> None:
        """Make the tables."""
        Ours.install(url)

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()

    def drain(self, batch: int, most: int) -> int:
        """Claim and finish until nothing is left, or so many are finished; return how many were."""
        done, cursor = 0, self._cursor
        while done < most:
            cursor.execute(CLAIM, [batch, "bench"])
            rows = cursor.fetchall()
            if not rows:
                break
            outputs = [json.dumps(RESULT) for _ in rows]
            cursor.execute(FINISH, [[row[0] for row in rows], [row[1] for row in rows], outputs])
            done += len(cursor.fetchall())
        return done

    def submit(self, contents: list[str]) -> None:
        """Put these into the queue with one call."""
        order_id = str(uuid.uuid4())
        self._cursor.execute(SUBMIT, [order_id, order_id, [str(uuid.uuid4()) for _ in contents], contents])

    def claim(self, tenants: Sequence[str] | None = None) -> int:
        """Claim one, of any tenant, and return how many that were."""
        if tenants is not None:
            raise NotImplementedError
        self._cursor.execute(CLAIM, [1, "bench"])
        return len(self._cursor.fetchall())

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

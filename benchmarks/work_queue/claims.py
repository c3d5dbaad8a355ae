"""How long a claim takes beside many other rows: deep queues, finished items, parked ones, a snapshot that is kept."""

from __future__ import annotations

import statistics
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import psycopg2

from benchmarks.work_queue.crew import Crew, Queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.embedded import EmbeddedServer

__all__ = ["claim_times"]

CONTENDERS = ("ours", "baseline")

# As a superuser who turns the triggers off: the orders' counters are written here as they would have been.
LOAD = """
SET session_replication_role = replica;
DROP INDEX work_items_content_fts_idx;
INSERT INTO work_orders (id, tenant_id, created_by, status, open_items)
SELECT (lpad(to_hex(%(first)s + n), 8, '0') || '-0000-7000-8000-000000000000')::uuid, 'bench', 'bench',
    CASE WHEN %(done)s THEN 'COMPLETED' ELSE 'PENDING' END::work_order_status, CASE WHEN %(done)s THEN 0 ELSE 100 END
FROM generate_series(0, %(rows)s / 100 - 1) AS n;
INSERT INTO work_items (id, tenant_id, work_order_id, type, content, priority, available_at, status, processed_at,
    result, attempt_count, current_attempt_id)
SELECT (lpad(to_hex(%(first)s + n), 8, '0') || substr(gen_random_uuid()::text, 9))::uuid, 'bench',
    (lpad(to_hex(%(first)s + n / 100), 8, '0') || '-0000-7000-8000-000000000000')::uuid,
    'INVOICE', 'An invoice with the number ' || n, %(priority)s::priority,
    now() + %(from)s::interval + n * interval '1 millisecond',
    CASE WHEN %(done)s THEN 'COMPLETED' ELSE 'QUEUED' END::work_item_status, CASE WHEN %(done)s THEN now() END,
    CASE WHEN %(done)s THEN '{"ok": true}'::jsonb END, %(done)s::int, CASE WHEN %(done)s THEN gen_random_uuid() END
FROM generate_series(0, %(rows)s - 1) AS n;
INSERT INTO attempts (id, tenant_id, work_item_id, agent_id, status, output, finished_at, duration_ms)
SELECT current_attempt_id, tenant_id, id, 'bench', 'COMPLETED', result, now(), 1 FROM work_items
WHERE %(done)s AND status = 'COMPLETED';
"""


def load(queue: Queue, first: int, rows: int, start: str, *, priority: str = "MEDIUM", done: bool = False) -> None:
    """Write many short items; `first` sets their ids apart from others, `start` is when the first is due."""
    values = {"first": first, "rows": rows, "from": start, "priority": priority, "done": done}
    queue.cursor.execute(LOAD, values)
    queue.cursor.execute("RESET session_replication_role")
    queue.index(wanted=True)


def claim_times(server: EmbeddedServer, rounds: int, calls: int, largest: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure, and yield for each queue its name and what a claim takes, by contender.

    Args:
        server: Where the databases are made.
        rounds: How often each is measured, turn by turn.
        calls: Claims of one item in a round.
        largest: Rows of the deepest queue; the others have 1,000 and a tenth of it.
    """
    middle, churn = largest // 10, largest // 50
    queues = {
        "1k": f"{1000:,} queued",
        "middle": f"{middle:,} queued",
        "deep": f"{largest:,} queued",
        "finished": f"{largest:,} queued, as many finished",
        "parked": f"{middle:,} queued, as many parked at top priority",
        "churned": f"{middle:,} queued, after {churn:,} were worked off",
        "pinned": f"{middle:,} queued, after {churn:,} were worked off under an old snapshot",
    }
    rows = {"1k": 1000 + 2 * rounds * calls, "deep": largest, "finished": largest}
    with ExitStack() as stack:
        made: dict[str, Queue] = {}
        crews: dict[str, dict[str, Crew]] = {}
        for name in queues:
            queue = made[name] = stack.enter_context(Queue(server, "ours", f"claims_{name}"))
            load(queue, 0, rows.get(name, middle), "-1 day")
            if name == "finished":
                load(queue, 1 << 28, largest, "-2 days", done=True)
            if name == "parked":
                load(queue, 1 << 28, middle, "1 day", priority="URGENT")
            queue.settle()
            crews[name] = {each: stack.enter_context(Crew(each, queue.url, 1)) for each in CONTENDERS}
        taken: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in queues}
        for _ in range(rounds):
            for name, queue in made.items():
                worked_off = churn if name in ("churned", "pinned") else 0
                taken[name].append(claim_once(queue, crews[name], calls, worked_off, pin=name == "pinned"))
    for name, title in queues.items():
        found = {}
        for each in CONTENDERS:
            times, cpu = zip(*(turn[each] for turn in taken[name]), strict=True)
            found[each] = {"p50_ms": statistics.median(times), "cpu_ms": statistics.median(cpu), "rounds": times}
        yield title, found


def claim_once(
    queue: Queue, crews: dict[str, Crew], calls: int, worked_off: int, *, pin: bool
) -> dict[str, tuple[float, float]]:
    """Return by contender the median milliseconds of a claim after some items were worked off, and its processor's."""
    found = {}
    with closing(psycopg2.connect(queue.url)) as pinning:
        if pin:
            pinning.set_session(isolation_level="REPEATABLE READ")
            pinning.cursor().execute("SELECT 1 FROM work_items LIMIT 1")
        if worked_off:
            crews["ours"].drain(1, 50, most=worked_off)
        for each, crew in crews.items():
            took = crew.claims(calls)
            found[each] = (statistics.median(took.answers[0]), (took.client + took.server) * 1e3 / calls)
    if worked_off:
        queue.settle()
    return found

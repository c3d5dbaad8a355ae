"""How long a claim takes beside many other rows.

Those are deep queues, finished items, parked ones, dead ones that an old snapshot keeps, and those of other tenants.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg2

from benchmarks.work_queue.contenders import INDEX
from benchmarks.work_queue.crew import Crew, Queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.embedded import EmbeddedServer

__all__ = ["claim_times"]

CONTENDERS = ("ours", "baseline")
OTHERS = 1 << 28
"""Where the ids of the second rows of a queue begin."""

TENANT = "'bench' || CASE WHEN %(tenants)s = 1 THEN '' ELSE ({order} %% %(tenants)s)::text END"
# As a superuser who turns the triggers off: the orders' counters are written here as they would have been.
LOAD = f"""
SET session_replication_role = replica;
INSERT INTO work_orders (id, tenant_id, created_by, status, open_items)
SELECT (lpad(to_hex(%(first)s + n), 8, '0') || '-0000-7000-8000-000000000000')::uuid, {TENANT.format(order="n")},
    'bench', CASE WHEN %(done)s THEN 'COMPLETED' ELSE 'PENDING' END::work_order_status,
    CASE WHEN %(done)s THEN 0 ELSE 100 END
FROM generate_series(0, %(count)s / 100 - 1) AS n;
INSERT INTO work_items (id, tenant_id, work_order_id, type, content, priority, available_at, status, processed_at,
    result, attempt_count, current_attempt_id)
SELECT (lpad(to_hex(%(first)s + n), 8, '0') || substr(gen_random_uuid()::text, 9))::uuid,
    {TENANT.format(order="n / 100")},
    (lpad(to_hex(%(first)s + n / 100), 8, '0') || '-0000-7000-8000-000000000000')::uuid,
    (enum_range(NULL::work_item_type))[1 + n %% %(types)s], 'An invoice with the number ' || n, %(priority)s::priority,
    now() + %(start)s::interval + n * interval '1 millisecond',
    CASE WHEN %(done)s THEN 'COMPLETED' ELSE 'QUEUED' END::work_item_status, CASE WHEN %(done)s THEN now() END,
    CASE WHEN %(done)s THEN '{{"ok": true}}'::jsonb END, %(done)s::int, CASE WHEN %(done)s THEN gen_random_uuid() END
FROM generate_series(0, %(count)s - 1) AS n;
INSERT INTO attempts (id, tenant_id, work_item_id, agent_id, status, output, finished_at, duration_ms)
SELECT current_attempt_id, tenant_id, id, 'bench', 'COMPLETED', result, now(), 1 FROM work_items
WHERE %(done)s AND status = 'COMPLETED';
"""


@dataclass(frozen=True)
class Rows:
    """Many short items to write."""

    count: int
    start: str
    """When the first is due, from now."""
    first: int = 0
    """Sets their ids apart from others'."""
    priority: str = "MEDIUM"
    done: bool = False
    tenants: int = 1
    types: int = 1


def load(queue: Queue, rows: Rows) -> None:
    """Write these, and the full-text index after them."""
    queue.cursor.execute("SELECT pg_get_indexdef(%s::regclass)", [INDEX])
    ((definition,),) = queue.cursor.fetchall()
    queue.cursor.execute(f"DROP INDEX {INDEX}")
    queue.cursor.execute(LOAD, asdict(rows))
    queue.cursor.execute("RESET session_replication_role")
    queue.cursor.execute(definition)


def claim_times(server: EmbeddedServer, rounds: int, calls: int, largest: int) -> Iterator[dict[str, Any]]:
    """Measure, and yield for each queue its name, its title and what a claim takes, by contender.

    Args:
        server: Where the databases are made.
        rounds: How often each is measured, turn by turn.
        calls: Claims of one item in a round.
        largest: Rows of the deepest queue; the others have 1,000 and a tenth of it.
    """
    middle, churn, claimed = largest // 10, largest // 50, 2 * rounds * calls
    shallow, deep = Rows(1000 + claimed, "-1 day"), Rows(largest, "-1 day")
    many = Rows(middle, "-1 day", tenants=1000, types=3)
    queues = {
        "1k": (f"{1000:,} queued", [shallow]),
        "middle": (f"{middle:,} queued", [replace(deep, count=middle)]),
        "deep": (f"{largest:,} queued", [deep]),
        "finished": (
            f"{largest:,} queued, as many finished",
            [deep, replace(deep, start="-2 days", first=OTHERS, done=True)],
        ),
        "parked": (
            f"{middle:,} queued, as many parked at top priority",
            [replace(deep, count=middle), Rows(middle, "1 day", first=OTHERS, priority="URGENT")],
        ),
        "churned": (f"{middle:,} queued, after {churn:,} were worked off", [replace(deep, count=middle)]),
        "pinned": (
            f"{middle:,} queued, after {churn:,} were worked off under an old snapshot",
            [replace(deep, count=middle)],
        ),
        "many": (f"{middle:,} queued, of 1,000 tenants and 3 types", [many]),
        "wanted": (
            f"{middle:,} queued, of 1,000 tenants and 3 types, before those of the tenant and type claimed",
            [many, replace(shallow, start="-1 hour", first=OTHERS)],
        ),
    }
    with ExitStack() as stack:
        made: dict[str, Queue] = {}
        crews: dict[str, dict[str, Crew]] = {}
        for name, (_, written) in queues.items():
            queue = made[name] = stack.enter_context(Queue(server, "ours", f"claims_{name}"))
            for rows in written:
                load(queue, rows)
            queue.settle()
            contenders = CONTENDERS[:1] if name == "wanted" else CONTENDERS
            crews[name] = {each: stack.enter_context(Crew(each, queue.url, 1)) for each in contenders}
        taken: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in queues}
        for _ in range(rounds):
            for name, queue in made.items():
                worked_off = churn if name in ("churned", "pinned") else 0
                tenants = ["bench"] if name == "wanted" else None
                taken[name].append(claim_once(queue, crews[name], calls, worked_off, tenants, pin=name == "pinned"))
    for name, (title, _) in queues.items():
        found = {}
        for each in crews[name]:
            times, cpu = zip(*(turn[each] for turn in taken[name]), strict=True)
            found[each] = {"p50_ms": statistics.median(times), "cpu_ms": statistics.median(cpu), "rounds": times}
        yield {"name": name, "queue": title, "found": found}


def claim_once(
    queue: Queue, crews: dict[str, Crew], calls: int, worked_off: int, tenants: list[str] | None, *, pin: bool
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
            took = crew.claims(calls, tenants)
            found[each] = (statistics.median(took.answers[0]), (took.client + took.server) * 1e3 / calls)
    if worked_off:
        queue.settle()
    return found

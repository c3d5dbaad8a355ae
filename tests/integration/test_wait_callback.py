"""A program under a wait callback, as psycogreen and eventlet set it: without COPY, and without select.poll."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = '''
import select, sys, threading
import numpy as np
from psycopg2 import extensions
from myloware_store import MemDoc, MemoryConflict, Store

del select.poll, select.epoll  # as eventlet.monkey_patch() does
waits = []

def wait(connection):
    """Wait as psycopg2.extras.wait_select does."""
    while (state := connection.poll()) != extensions.POLL_OK:
        waits.append(state)
        reads, writes = [connection.fileno()], []
        if state == extensions.POLL_WRITE:
            reads, writes = writes, reads
        select.select(reads, writes, [])

extensions.set_wait_callback(wait)
vectors = np.random.default_rng(1).standard_normal((50, 1536), dtype=np.float32)

def docs(kind):
    return [{"type": "CONTEXT", "content": f"{kind} {n}", "embedding": vectors[n]} for n in range(50)]

def refused(call, error):
    try:
        call()
    except error as refusal:
        return str(refusal)

with Store.open(sys.argv[1]) as store:
    ids = store.memory.upsert(docs("upserted"))
    again = [{"id": row_id, **doc} for row_id, doc in zip(ids, docs("changed"))]
    print(len(ids), store.memory.upsert(again) == ids)
    print(store.memory.bulk_load(iter(docs("loaded")), batch_size=20), MemDoc.select().count())
    print(sorted(hit.content for hit in store.memory.similar(vectors[7], k=2)))
    taken = [*docs("more")[:3], {"id": ids[0], "type": "CONTEXT", "content": "taken"}]
    print(refused(lambda: store.memory.bulk_load(taken), MemoryConflict).replace(str(ids[0]), "ID"))
    print(MemDoc.select().count(), store.db.pool.in_use)
    threading.Timer(0.2, lambda: store.work.submit([{"type": "TICKET", "content": "late"}])).start()
    store.work.wait_for_work(60)
    print(len(store.work.claim("agent")), bool(waits))
'''

TAKEN = "docs[3]: the id ID is there already, or comes twice"


def test_memory_and_work_do_without_copy(myloware_dsn: str) -> None:
    """Documents go as parameters, with the same results and the same errors, and a listener waits by select."""
    command = [sys.executable, "-c", PROGRAM, myloware_dsn]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    lines = ["50 True", "50 100", "['changed 7', 'loaded 7']", TAKEN, "100 0", "1 True"]
    assert ("", lines) == (done.stderr, done.stdout.splitlines())


UNDER_EVENTLET = """
import eventlet
eventlet.monkey_patch()

import sys
from myloware_store import Store, Worker

with Store.open(sys.argv[1]) as store:
    store.work.submit([{"type": "TICKET", "content": "x"}] * 50)
    print(Worker(store, lambda claim: 1, threads=3).run(drain=True).finished)
    print(store.work.wait_for_work(0.1))
"""


def test_a_worker_runs_under_eventlet(myloware_dsn: str) -> None:
    """Its threads, which all wake the same loop, do not stand in each other's way, and a wait for work ends in time."""
    command = [sys.executable, "-W", "ignore", "-c", UNDER_EVENTLET, myloware_dsn]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert ("", ["50", "False"]) == (done.stderr, done.stdout.splitlines())

"""Documents that expire: found up to a moment of the server's clock, as if deleted from then on, and deleted later."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from myloware_store import DIMENSIONS, MemDoc, MemoryConflict, NewDoc, NotFound, Store, Worker
from myloware_store.memory.writing import COPY_ROWS

if TYPE_CHECKING:
    from uuid import UUID

ONES = np.ones(DIMENSIONS, np.float32)
PAST, FUTURE = datetime(2020, 2, 29, 12, tzinfo=UTC), datetime(2100, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
DOC: dict[str, Any] = {"type": "CONTEXT", "content": "late fee", "embedding": ONES, "metadata": {"a": 1}}


def expired(store: Store, **changes: Any) -> UUID:
    """Store a document that expired, and return its id."""
    (doc_id,) = store.memory.upsert([{**DOC, "expires_at": PAST, **changes}])
    return doc_id


def test_an_expired_document_is_found_by_nothing(myloware: Store) -> None:
    """No search, no reading and no writing by its id; one that expires later is."""
    memory = myloware.memory
    gone, gone_bare = expired(myloware), expired(myloware, embedding=None)
    (here,) = memory.upsert([{**DOC, "expires_at": FUTURE}])
    for filter_ in (None, {"metadata.a": 1}):
        for mode in ("auto", "exact", "ann"):
            assert [here] == [hit.id for hit in memory.similar(ONES, mode=mode, filter=filter_)]
        assert [here] == [hit.id for hit in memory.mmr(ONES, filter=filter_)]
        assert [here] == [hit.id for hit in memory.hybrid(ONES, "fee", filter=filter_)]
        for match in ("web", "any", "phrase"):
            assert [here] == [hit.id for hit in memory.search_text("fee", match=match, filter=filter_)]
    assert [here] == [hit.id for hit in memory.search_text("-receipt")]
    assert [here] == [doc.id for doc in memory.get([gone, here, gone_bare])]
    assert [] == memory.missing_embeddings()
    assert set() == memory.set_embeddings([(gone_bare, ONES)])
    with pytest.raises(NotFound):
        memory.update(gone, expires_at=None)
    assert 3 == memory.delete(filter={"metadata.a": 1})


def test_unspaced_text_that_expired_is_not_found(myloware: Store) -> None:
    """Nor is what no text index serves."""
    expired(myloware, content="部署手册")
    assert [] == myloware.memory.search_text("部署")


@pytest.mark.parametrize("n", [1, COPY_ROWS])
def test_the_time_comes_back_as_it_was_stored(myloware: Store, n: int) -> None:
    """To the microsecond, by parameters and by COPY, and changed by an update."""
    given = [NewDoc("CONTEXT", str(i), expires_at=FUTURE.isoformat()) for i in range(n)]
    found = myloware.memory.get(myloware.memory.upsert(given))
    assert [FUTURE] * n == [doc.expires_at for doc in found]
    myloware.memory.bulk_load([{"type": "TEMPLATE", "content": "x", "expires_at": FUTURE}])
    assert FUTURE == MemDoc.get(MemDoc.type == "TEMPLATE").expires_at
    assert FUTURE + timedelta(1) == myloware.memory.update(found[0], expires_at=FUTURE + timedelta(1)).expires_at
    assert myloware.memory.update(found[0], expires_at=None).expires_at is None
    myloware.memory.update(found[0], expires_at=PAST)
    assert [] == myloware.memory.get(found[0].id)


@pytest.mark.parametrize("on_conflict", ["update", "ignore", "error"])
@pytest.mark.parametrize("n", [1, COPY_ROWS])
def test_an_id_that_expired_is_stored_as_new(myloware: Store, n: int, on_conflict: Any) -> None:
    """By any upsert, with the time that it comes with; a document that is there is treated as asked."""
    ids = [expired(myloware, content=str(i)) for i in range(n)]
    again = [{"id": doc_id, "type": "TEMPLATE", "content": "new"} for doc_id in ids]
    assert ids == myloware.memory.upsert(again, on_conflict=on_conflict)
    found = myloware.memory.get(ids)
    assert [("new", {}, False, None)] * n == [
        (doc.content, doc.metadata, doc.has_embedding, doc.expires_at) for doc in found
    ]
    if on_conflict == "error":
        with pytest.raises(MemoryConflict):
            myloware.memory.upsert(again, on_conflict=on_conflict)


@pytest.mark.parametrize("on_conflict", ["update", "ignore", "error"])
def test_a_content_that_expired_stands_for_no_other(myloware: Store, on_conflict: Any) -> None:
    """An id that nothing finds is never returned for a new document."""
    gone = expired(myloware)
    ids = myloware.memory.upsert([DOC], dedupe="content_hash", on_conflict=on_conflict)
    assert ids == [doc.id for doc in myloware.memory.get(ids)]
    assert [gone] != ids
    assert 1 == myloware.memory.prune()


def test_expired_documents_are_pruned_in_batches(myloware: Store) -> None:
    """Those of the tenant in force, without waiting for rows that somebody has locked."""
    for tenant in ("acme", "globex"):
        with myloware.tenant(tenant):
            gone = [expired(myloware, content=str(n)) for n in range(3)]
            myloware.memory.upsert([DOC, {**DOC, "expires_at": FUTURE}])
    with myloware.tenant("acme"):
        assert [2, 1, 0] == [myloware.memory.prune(2) for _ in range(3)]
    with myloware.db.atomic():
        myloware.db.execute_sql("SELECT FROM mem_docs WHERE id = %s FOR UPDATE", (str(gone[0]),))
        assert 2 == in_a_thread(myloware.memory.prune)
    assert 1 == myloware.memory.prune()
    assert 4 == MemDoc.select().count()


def test_a_worker_prunes(myloware: Store) -> None:
    """Beside its work, for all tenants."""
    with myloware.tenant("acme"):
        expired(myloware)
    myloware.work.submit([{"type": "TICKET", "content": "x"}])

    def handle(_: object) -> None:
        while MemDoc.select().count():
            pass

    assert 1 == Worker(myloware, handle, threads=1, reap_every=0.01).run(drain=True).finished


def in_a_thread(call: Any) -> Any:
    """Call a function on another connection."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(60)


def test_chunks_expire_with_their_document(myloware: Store) -> None:
    """Also if the time is set later, or the content changes; they are neither listed nor counted for themselves."""
    text = "The late fee is five percent.\n\n" * 100
    (doc,) = myloware.memory.upsert(
        [{"type": "CONTEXT", "content": text, "expires_at": datetime.now(UTC) + timedelta(hours=1)}], chunk=True
    )
    assert 1 < len(myloware.memory.chunks(doc))
    assert ([doc], 1) == ([one.id for one in myloware.memory.list()], myloware.memory.count())
    myloware.memory.update(doc, content=text + "It is due.")
    assert {myloware.memory.get(doc)[0].expires_at} == {chunk.expires_at for chunk in myloware.memory.chunks(doc)}
    myloware.memory.update(doc, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert ([], []) == (myloware.memory.search_text("late fee"), myloware.memory.chunks(doc))
    assert (0, 1) == (myloware.memory.count(), myloware.memory.prune())
    assert (0,) == myloware.db.execute_sql("SELECT count(*) FROM mem_docs").fetchone()

"""Memory documents changed, deleted and embedded later: whoever else is at them, nothing is lost unseen."""

from __future__ import annotations

import json
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import attrs
import numpy as np
import pytest
import uuid_utils

from myloware_store import (
    DIMENSIONS,
    HashingEmbedder,
    InvalidInput,
    InvalidVector,
    MemDoc,
    MemDocType,
    MemoryConflict,
    MemoryDoc,
    NewDoc,
    NotFound,
    Store,
)
from tests.integration.conftest import until_blocked

ONES = np.ones(DIMENSIONS, np.float32)
DOC = {"type": "CONTEXT", "content": "first", "embedding": ONES, "metadata": {"n": 1}}


def stored(store: Store, **changes: Any) -> MemoryDoc:
    """Store a document and return it."""
    (doc,) = store.memory.get(store.memory.upsert([{**DOC, **changes}]))
    return doc


def embedding(store: Store, doc_id: uuid.UUID) -> Any:
    """Return the vector of a document as a list, or None."""
    (doc,) = store.memory.get(doc_id, with_embedding=True)
    return None if doc.embedding is None else doc.embedding.tolist()


def test_an_update_changes_what_is_given(myloware: Store) -> None:
    """The rest stays; the document comes back as it is now."""
    doc = stored(myloware)
    order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = myloware.work.items(order.id)
    changed = myloware.memory.update(doc.id, type="TEMPLATE", metadata={"a": None}, work_item_id=item.id)
    assert ("first", MemDocType.TEMPLATE, {"a": None}, item.id, True) == (
        changed.content,
        changed.type,
        changed.metadata,
        changed.work_item_id,
        changed.has_embedding,
    )
    assert doc.created_at == changed.created_at
    assert doc.updated_at < changed.updated_at
    cleared = myloware.memory.update(doc, metadata=None, work_item_id=None, embedding=-ONES)
    assert ({}, None) == (cleared.metadata, cleared.work_item_id)
    assert (-ONES).tolist() == embedding(myloware, doc.id)
    assert myloware.memory.update(doc.id, embedding=None).has_embedding is False


def test_an_embedding_goes_with_the_content_it_describes(myloware: Store, myloware_dsn: str) -> None:
    """It stays with the same content, goes with another one, and an embedder makes a new one."""
    doc = stored(myloware)
    assert myloware.memory.update(doc.id, content="first").has_embedding
    assert not myloware.memory.update(doc.id, content="second").has_embedding
    assert myloware.memory.update(doc.id, content="third", embedding=ONES).has_embedding
    hashing = HashingEmbedder()
    myloware.close()
    with Store.open(myloware_dsn, embedder=hashing) as store:
        store.memory.update(doc.id, content="fourth")
        assert hashing(["fourth"])[0].tolist() == embedding(store, doc.id)


def test_of_two_updates_of_what_was_read_one_is_refused(myloware: Store) -> None:
    """Whoever read the document before another changed it is told, and changes nothing."""
    doc = stored(myloware)
    start = threading.Barrier(4)

    def change(n: int) -> MemoryDoc | MemoryConflict:
        start.wait()
        try:
            return myloware.memory.update(doc.id, content=f"by {n}", if_unmodified_since=doc.updated_at)
        except MemoryConflict as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(change, range(4)))
    (won,) = [answer for answer in answers if isinstance(answer, MemoryDoc)]
    assert [won.content] == [doc.content for doc in myloware.memory.get(doc.id)]
    with myloware.db.atomic():
        again = myloware.memory.update(doc.id, metadata={}, if_unmodified_since=won.updated_at)
        with pytest.raises(MemoryConflict):
            myloware.memory.update(doc.id, metadata={}, if_unmodified_since=won.updated_at)
        assert myloware.memory.update(doc.id, metadata={}, if_unmodified_since=again.updated_at)


def test_a_document_that_is_stored_anew_meanwhile_is_changed(myloware: Store) -> None:
    """An update that waited for the one that is deleted finds the one that has its id now."""
    memory = myloware.memory
    (name,) = memory.upsert([{"type": "CONTEXT", "content": "before"}])
    with ThreadPoolExecutor(1) as pool:
        with myloware.db.atomic():
            memory.delete(name)
            memory.upsert([{"id": name, "type": "CONTEXT", "content": "anew"}])
            change = pool.submit(memory.update, name, metadata={"n": 1})
            until_blocked(myloware, change)
        assert ("anew", {"n": 1}) == (change.result().content, change.result().metadata)


def test_every_change_makes_a_document_later(myloware: Store) -> None:
    """Also in one transaction, by whatever operation, and where the clock was ahead."""
    doc = stored(myloware)
    times = [doc.updated_at]
    with myloware.db.atomic():
        ahead = datetime(2999, 1, 1, tzinfo=UTC)
        myloware.db.execute_sql("UPDATE mem_docs SET updated_at = %s", (ahead,))
        times.append(ahead)
        times.append(myloware.memory.update(doc.id, content="x").updated_at)
        myloware.memory.upsert([{**DOC, "id": doc.id}])
        times.append(myloware.memory.get(doc.id)[0].updated_at)
        myloware.memory.set_embeddings([(doc.id, ONES)])
        times.append(myloware.memory.get(doc.id)[0].updated_at)
    assert sorted(set(times)) == times


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, InvalidInput),
        ({"content": ""}, InvalidInput),
        ({"content": "a\x00"}, InvalidInput),
        ({"content": None}, InvalidInput),
        ({"content": "x" * (2**20 + 1)}, InvalidInput),
        ({"type": "NOTE"}, InvalidInput),
        ({"type": None}, InvalidInput),
        ({"metadata": []}, InvalidInput),
        ({"metadata": {"x": float("inf")}}, InvalidInput),
        ({"embedding": np.zeros(DIMENSIONS)}, InvalidVector),
        ({"embedding": [1.0]}, InvalidVector),
        ({"embedding": np.full(DIMENSIONS, np.nan)}, InvalidVector),
        ({"work_item_id": "x"}, InvalidInput),
        ({"work_item_id": uuid.uuid4()}, NotFound),
        ({"content": "x", "if_unmodified_since": 5}, InvalidInput),
        ({"content": "x", "if_unmodified_since": datetime(2026, 1, 1)}, InvalidInput),  # noqa: DTZ001  no offset
        ({"content": "x", "if_unmodified_since": datetime(2020, 1, 1, tzinfo=UTC)}, MemoryConflict),
    ],
)
def test_a_bad_update_changes_nothing(myloware: Store, changes: dict[str, Any], error: type[Exception]) -> None:
    """One typed error, and the document is as it was."""
    doc = stored(myloware)
    with pytest.raises(error):
        myloware.memory.update(doc.id, **changes)
    (now,) = myloware.memory.get(doc.id)
    assert (doc.content, doc.type, doc.metadata, doc.updated_at, True) == (
        now.content,
        now.type,
        now.metadata,
        now.updated_at,
        now.has_embedding,
    )


def test_other_tenants_documents_and_items_are_not_found(myloware: Store) -> None:
    """They are neither changed, deleted, embedded nor seen."""
    with myloware.tenant("acme"):
        doc = stored(myloware)
        order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = myloware.work.items(order.id)
    with myloware.tenant("globex"):
        mine = stored(myloware)
        with pytest.raises(NotFound):
            myloware.memory.update(doc.id, content="x")
        with pytest.raises(NotFound):
            myloware.memory.update(mine.id, work_item_id=item.id)
        assert 0 == myloware.memory.delete(doc.id)
        assert 0 == myloware.memory.delete(filter={"tenant_id": "acme"})
        assert set() == myloware.memory.set_embeddings([(doc.id, -ONES)])
    with pytest.raises(NotFound):
        myloware.memory.update(mine.id, work_item_id=item.id)
    assert ONES.tolist() == embedding(myloware, doc.id)


def test_documents_are_deleted_by_id_or_filter(myloware: Store) -> None:
    """It is told how many; what does not exist is passed over."""
    ids = myloware.memory.upsert([{**DOC, "metadata": {"n": n}} for n in range(10)])
    assert 2 == myloware.memory.delete([ids[0], ids[1], ids[0], uuid.uuid4()])
    assert 1 == myloware.memory.delete(str(ids[2]))
    assert 0 == myloware.memory.delete([])
    assert 3 == myloware.memory.delete(filter={"metadata.n": {"gte": 7}})
    with myloware.tenant("acme"):
        myloware.memory.upsert([DOC])
        assert 1 == myloware.memory.delete(filter={"created_at": {"exists": True}})
    assert [3, 4, 5, 6] == sorted(doc.metadata["n"] for doc in MemDoc.select())
    assert 4 == myloware.memory.delete(filter={"created_at": {"exists": True}})


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"ids": [], "filter": {"type": "CONTEXT"}},
        {"filter": {}},
        {"filter": {"and": []}},
        {"filter": {"not": {"or": []}}},
        {"filter": {"colour": 1}},
        {"ids": ["no-uuid"]},
        {"ids": 5},
    ],
)
def test_nothing_is_deleted_by_accident(myloware: Store, wrong: dict[str, Any]) -> None:
    """A filter that lets everything pass is refused, as is none at all, and both."""
    myloware.memory.upsert([DOC])
    with pytest.raises(InvalidInput):
        myloware.memory.delete(**wrong)
    assert 1 == MemDoc.select().count()


def test_what_lacks_an_embedding_is_found_oldest_first(myloware: Store) -> None:
    """In shares that are apart and leave none out, by an index that holds nothing else."""
    bare = {"type": "CONTEXT", "content": "x"}
    ids = [myloware.memory.upsert([{**bare, "content": f"{n}"}])[0] for n in range(12)]
    myloware.memory.upsert([DOC])
    assert ids == [doc.id for doc in myloware.memory.missing_embeddings()]
    assert ids[:5] == [doc.id for doc in myloware.memory.missing_embeddings(5)]
    shares = [[doc.id for doc in myloware.memory.missing_embeddings(share=(n, 3))] for n in range(3)]
    assert sorted(ids) == sorted(row_id for share in shares for row_id in share)
    with myloware.tenant("acme"):
        assert [] == myloware.memory.missing_embeddings()
    with myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL enable_seqscan = off")
        myloware.db.execute_sql("SET LOCAL enable_sort = off")
        plan = myloware.db.execute_sql(
            "EXPLAIN SELECT id FROM mem_docs WHERE embedding IS NULL AND chunk_no IS DISTINCT FROM 0"
            " ORDER BY created_at, id LIMIT 10"
        )
        assert "mem_docs_missing_embedding_idx" in "\n".join(line for (line,) in plan)
    for wrong in (
        {"limit": 0},
        {"share": (3, 3)},
        {"share": 1},
        {"share": (0, 0)},
        {"share": (-1, 2)},
        {"share": "01"},
    ):
        with pytest.raises(InvalidInput):
            myloware.memory.missing_embeddings(**wrong)


def test_embeddings_are_set_later(myloware: Store) -> None:
    """On the content they were made for; what was deleted or changed meanwhile is left out."""
    ids = myloware.memory.upsert([{"type": "CONTEXT", "content": f"{n}"} for n in range(5)])
    kept, changed, gone, forced, texted = myloware.memory.missing_embeddings()
    assert ids == [doc.id for doc in (kept, changed, gone, forced, texted)]
    myloware.memory.update(changed.id, content="newer")
    myloware.memory.update(kept.id, metadata={"other": 1})
    myloware.memory.update(forced.id, content="newer")
    myloware.memory.delete(gone.id)
    pairs = [(kept, ONES), (changed, ONES), (gone, ONES), (str(forced.id), ONES), (texted.id, -ONES, "4")]
    assert {kept.id, forced.id, texted.id} == myloware.memory.set_embeddings(pairs)
    assert [changed.id] == [doc.id for doc in myloware.memory.missing_embeddings()]
    assert set() == myloware.memory.set_embeddings([(texted.id, ONES, "older")])
    assert (-ONES).tolist() == embedding(myloware, texted.id)
    assert set() == myloware.memory.set_embeddings([])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (5, InvalidInput),
        ("ab", InvalidInput),
        ((uuid.uuid4(),), InvalidInput),
        (("no-uuid", ONES), InvalidInput),
        ((uuid.uuid4(), ONES, 5), InvalidInput),
        ((uuid.uuid4(), ONES, "x", 1), InvalidInput),
        ((uuid.uuid4(), None), InvalidVector),
        ((uuid.uuid4(), ONES[:-1]), InvalidVector),
        ((uuid.uuid4(), ONES * 0), InvalidVector),
        ((uuid.uuid4(), ONES * np.nan), InvalidVector),
    ],
)
def test_one_bad_embedding_sets_none(myloware: Store, wrong: Any, error: type[Exception]) -> None:
    """One typed error for all; the same goes for an id that comes twice."""
    doc = stored(myloware)
    for bad in (wrong, (doc.id, ONES)):
        with pytest.raises(error if bad is wrong else InvalidInput):
            myloware.memory.set_embeddings([(doc.id, -ONES), bad])
    assert ONES.tolist() == embedding(myloware, doc.id)


def test_vectors_that_are_read_are_each_documents_own(myloware: Store) -> None:
    """In the order asked for, between documents that have none."""
    vectors = np.eye(3, DIMENSIONS, dtype=np.float32) + 1
    given = [{**DOC, "embedding": None if n == 1 else vectors[n]} for n in range(3)]
    ids = myloware.memory.upsert(given)
    found = myloware.memory.get(ids[::-1], with_embedding=True)
    assert ids[::-1] == [doc.id for doc in found]
    assert [vectors[2].tolist(), None, vectors[0].tolist()] == [
        None if doc.embedding is None else doc.embedding.tolist() for doc in found
    ]


def test_documents_that_are_equal_compare_and_hash_so(myloware: Store) -> None:
    """New ones and stored ones, whatever kind of sequence their vectors are."""
    ones, twos = np.ones(DIMENSIONS, dtype=np.float32), np.full(DIMENSIONS, 2.0)
    same = [NewDoc("CONTEXT", "x", vector, {"a": 1}) for vector in (ones, ones.copy(), [1.0] * DIMENSIONS)]
    assert [same[0]] * 3 == same
    assert 1 == len(set(same))
    other = [NewDoc("CONTEXT", "x", each, {"a": n}) for each, n in [(twos, 1), (None, 1), (ones, 2)]]
    assert [True] * 3 == [same[0] != each for each in other]
    assert NewDoc("CONTEXT", "x") == NewDoc(MemDocType.CONTEXT, "x")
    (doc_id,) = myloware.memory.upsert(same[:1])
    (one,), (two,), (bare,) = (myloware.memory.get(doc_id, with_embedding=with_it) for with_it in (True, True, False))
    assert (True, False, 1) == (one == two, one == bare, len({one, two}))
    assert 1 == len({*myloware.memory.search_text("x"), *myloware.memory.search_text("x")})


def test_encoders_see_what_is_returned(myloware: Store) -> None:
    """FastAPI takes an object for what `vars()` returns, and writes ids, types and times as text."""
    myloware.memory.upsert([{"type": "CONTEXT", "content": "late fee", "metadata": {"a": [1]}}])
    myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (hit,) = myloware.memory.search_text("late")
    found: list[Any] = [
        hit,
        *myloware.memory.get(hit.id),
        *myloware.work.claim("agent"),
        myloware.work.stats().tenants[0],
    ]
    for each in found:
        assert attrs.asdict(each) == vars(each)
        assert vars(each) == vars(pickle.loads(pickle.dumps(each)))
        json.dumps(vars(each), default=str)


def test_ids_of_another_library_are_taken(myloware: Store) -> None:
    """A native `uuid_utils.UUID` wherever there is room for an id: in calls, lists, models, conditions and records."""
    made: Any = uuid_utils.uuid7()
    expected = [uuid.UUID(str(made))]
    assert expected == myloware.memory.upsert([{"id": made, "type": "CONTEXT", "content": "x"}])
    assert expected == [doc.id for doc in myloware.memory.get(made)] == [doc.id for doc in myloware.memory.get([made])]
    assert expected == [doc.id for doc in MemDoc.select().where(MemDoc.id == made)]
    assert expected == [MemDoc(id=made).id]
    myloware.audit.record("read", "mem_doc", made)
    assert [str(made)] == [line.resource_id for line in myloware.audit.list(resource_id=made)]
    assert str(made) == myloware.work.submit([{"type": "TICKET", "content": "x"}], workflow_id=made).workflow_id

"""Near-duplicates of what is stored: skipped, put in its place, or kept, as the caller chooses."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from myloware_store import DIMENSIONS, HashingEmbedder, InvalidInput, MemDoc, Store
from myloware_store.memory.writing import COPY_ROWS
from tests.integration.conftest import until_blocked

if TYPE_CHECKING:
    from numpy.typing import NDArray


def turned(degrees: float, *, plane: int = 0) -> NDArray[np.float32]:
    """Return a vector turned by an angle, whose cosine is its similarity to that of 0 degrees in the same plane."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[[2 * plane, 2 * plane + 1]] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return vector


def doc(content: str, degrees: float | None, **values: Any) -> dict[str, Any]:
    """Return a document with such a vector, or without one."""
    embedding = None if degrees is None else turned(degrees)
    return {"type": "CONTEXT", "content": content, "embedding": embedding, **values}


CLOSE = float(np.cos(np.radians(10.5)))


def closest(known: dict[uuid.UUID, float], angle: float) -> uuid.UUID | None:
    """Return the nearest of these, if it is near enough."""
    similarity = {row_id: float(np.cos(np.radians(other - angle))) for row_id, other in known.items()}
    best = max(similarity, key=similarity.__getitem__, default=None)
    return best if best is not None and similarity[best] >= CLOSE else None


def stored() -> dict[str, uuid.UUID]:
    """Return the contents that are stored, with their ids."""
    return {row.content: row.id for row in MemDoc.select()}


def test_a_near_duplicate_is_skipped_updated_or_kept(myloware: Store) -> None:
    """The id that stands for it is returned; what is farther away, or has no vector, is stored."""
    memory = myloware.memory
    (first,) = memory.upsert([doc("first", 0)])
    near, far, bare = doc("near", 10), doc("far", 30), doc("bare", None)

    ids = memory.upsert([near, far, bare], min_similarity=CLOSE)
    assert {"first": first, "far": ids[1], "bare": ids[2]} == stored()
    assert first == ids[0]
    named = {**near, "id": uuid.uuid4(), "metadata": {"n": 1}}
    assert [first] == memory.upsert([named], min_similarity=CLOSE, on_similar="update")
    (now,) = memory.get(first, with_embedding=True)
    assert ("near", {"n": 1}) == (now.content, now.metadata)
    assert np.array_equal(turned(10), np.asarray(now.embedding))
    (kept,) = memory.upsert([doc("kept", 10)], min_similarity=CLOSE, on_similar="keep")
    assert {"near", "far", "bare", "kept"} == stored().keys()
    assert kept == stored()["kept"]


def test_a_near_duplicate_left_out_takes_no_chunks_of_others_along(myloware_dsn: str) -> None:
    """The chunks after it keep their own vectors."""
    embed = HashingEmbedder()
    near = {"type": "CONTEXT", "content": "Dogs bark at night, and wake up all of the neighbours' cats."}
    far = {"type": "CONTEXT", "content": "\n\n".join(f"Cats miaow {n} times. {'purr ' * 150}" for n in range(9))}
    with Store.open(myloware_dsn, embedder=embed) as store:
        (first,) = store.memory.upsert([near])
        ids = store.memory.upsert([{**near, "content": near["content"] + ".."}, far], chunk=True, min_similarity=0.99)
        assert first == ids[0]
        chunks = list(MemDoc.select().where(MemDoc.document_id.is_null(False)))
        assert {ids[1]} == {chunk.document_id for chunk in chunks}
        assert len(chunks) > 1
        for chunk in chunks:
            assert np.allclose(embed([chunk.content])[0], np.asarray(chunk.embedding), atol=1e-6)


def test_a_near_duplicate_is_found_behind_many_chunks(myloware_dsn: str) -> None:
    """They are nearer, and stand for nothing."""
    with Store.open(myloware_dsn, embedder=HashingEmbedder()) as store:
        letters = [{"type": "CONTEXT", "content": f"Yours sincerely\nLetter {n}"} for n in range(12)]
        store.memory.upsert(letters, chunk=str.splitlines)
        (first,) = store.memory.upsert([{"type": "CONTEXT", "content": "Yours sincerely"}], min_similarity=0.9)
        assert [first] == store.memory.upsert([{"type": "CONTEXT", "content": "sincerely yours"}], min_similarity=0.9)


def test_a_near_duplicate_that_changes_meanwhile_is_not_replaced(myloware: Store) -> None:
    """The change stays, and the new document is stored."""
    memory = myloware.memory
    (old,) = memory.upsert([doc("old", 0)])
    with ThreadPoolExecutor() as pool:
        with myloware.db.atomic():
            memory.update(old, content="other", embedding=turned(90))
            near = pool.submit(memory.upsert, [doc("near", 10)], min_similarity=CLOSE, on_similar="update")
            until_blocked(myloware, near)
        (new,) = near.result()
    assert {"other": old, "near": new} == stored()


def test_tenant_type_and_item_belong_to_what_is_alike(myloware: Store) -> None:
    """As for equal contents. An expired document stands for none."""
    order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = myloware.work.items(order.id)
    kinds: list[dict[str, Any]] = [{}, {"type": "TEMPLATE"}, {"work_item_id": item.id}]
    ids = [myloware.memory.upsert([doc("x", 0, **kind)], min_similarity=CLOSE)[0] for kind in kinds]
    with myloware.tenant("globex"):
        ids += myloware.memory.upsert([doc("x", 0)], min_similarity=CLOSE)
    assert 4 == len(set(ids))
    for kind, there in zip(kinds, ids, strict=False):
        assert [there] == myloware.memory.upsert([doc("y", 5, **kind)], min_similarity=CLOSE)
    myloware.memory.update(ids[0], expires_at="2020-01-01T00:00:00Z")
    assert ids[:1] != myloware.memory.upsert([doc("y", 5)], min_similarity=CLOSE)


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("n", [8, COPY_ROWS])
def test_batches_are_compared_with_themselves(myloware: Store, n: int, update: bool) -> None:  # noqa: FBT001
    """Each document with the stored ones, then with those before it: as numpy says."""
    rng = np.random.default_rng(n)
    there = {uuid.uuid4(): float(angle) for angle in rng.uniform(0, 360, 4)}
    myloware.memory.upsert([doc(str(angle), angle, id=row_id) for row_id, angle in there.items()])
    angles = [float(angle) for angle in rng.uniform(0, 360, n)]
    given = [uuid.uuid4() for _ in angles]
    expected: list[uuid.UUID] = []
    new: dict[uuid.UUID, float] = {}
    contents = {row_id: str(angle) for row_id, angle in there.items()}
    for row_id, angle in zip(given, angles, strict=True):
        stand = closest(there, angle) or closest(new, angle) or row_id
        if stand == row_id:
            new[row_id] = angle
        if update or stand == row_id:
            contents[stand] = str(angle)
        expected.append(stand)
    batch = [doc(str(angle), angle, id=row_id) for row_id, angle in zip(given, angles, strict=True)]

    ids = myloware.memory.upsert(batch, min_similarity=CLOSE, on_similar="update" if update else "skip")

    assert expected == ids
    assert contents == {row.id: row.content for row in MemDoc.select()}
    assert len(contents) < len(there) + n


def test_documents_that_are_there_are_not_compared(myloware: Store) -> None:
    """By id or content they are what they were: `on_conflict` decides; a copy of a skipped one is skipped with it."""
    memory = myloware.memory
    one, other = memory.upsert([doc("one", 0), doc("other", 5)])
    again = [doc("other, changed", 1, id=other)]
    assert [other] == memory.upsert(again, min_similarity=CLOSE)
    batch = [doc("one", 1), doc("new", 3), doc("new", 3), doc("far", 90)]
    ids = memory.upsert(batch, min_similarity=CLOSE, dedupe="content_hash", on_conflict="ignore")
    assert one == ids[0]
    assert ids[1] == ids[2]
    assert {"one": one, "other, changed": other, "far": ids[3]} == stored()
    ids = memory.upsert(batch[1:3], min_similarity=CLOSE, dedupe="content_hash", on_similar="update")
    assert ids[0] == ids[1] in (one, other)
    assert 3 == MemDoc.select().count()


@pytest.mark.parametrize("on_similar", ["skip", "update"])
def test_a_document_that_the_batch_changes_stands_for_no_other(myloware: Store, on_similar: Any) -> None:
    """What it was is gone after the batch: the new document would be lost with it."""
    (changed,) = myloware.memory.upsert([doc("old", 0)])
    batch = [doc("near the old", 5), doc("changed", 90, id=changed)]
    ids = myloware.memory.upsert(batch, min_similarity=CLOSE, on_similar=on_similar)
    assert {"near the old": ids[0], "changed": changed} == stored()


def test_two_processes_store_one_of_two_near_duplicates(myloware: Store) -> None:
    """Whoever comes second sees what the first has stored."""
    start = threading.Barrier(4)

    def store(n: int) -> uuid.UUID:
        start.wait()
        (row_id,) = myloware.memory.upsert([doc(str(n), n)], min_similarity=CLOSE)
        return row_id

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(store, range(4))) == set(stored().values())
    assert 1 == MemDoc.select().count()


@pytest.mark.parametrize(
    "bad",
    [
        {"min_similarity": 1.1},
        {"min_similarity": -0.1},
        {"min_similarity": True},
        {"on_similar": "ask"},
        {"on_similar": "update"},
        {"on_similar": "keep"},
        {"min_similarity": 0.9, "on_similar": "update", "on_conflict": "ignore"},
    ],
)
def test_bad_options_are_refused(myloware: Store, bad: dict[str, Any]) -> None:
    """Before anything is stored."""
    with pytest.raises(InvalidInput):
        myloware.memory.upsert([doc("x", 0)], **bad)
    assert {} == stored()


def test_equal_vectors_are_alike_to_the_last_digit(myloware: Store) -> None:
    """With a least similarity of 1, in one batch and after it."""
    vectors = np.random.default_rng(3).normal(size=(20, DIMENSIONS))
    batch = [{"type": "CONTEXT", "content": f"{n}", "embedding": vectors[n % 20]} for n in range(40)]
    ids = myloware.memory.upsert(batch, min_similarity=1)
    assert ids[:20] == ids[20:] == myloware.memory.upsert(batch[20:], min_similarity=1)

"""Batches of memory documents: by COPY or by parameters, once by id or by content, all of them or none."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg2
import pytest

from myloware_store import (
    DIMENSIONS,
    ConstraintViolation,
    InvalidInput,
    InvalidVector,
    MemDoc,
    MemDocType,
    MemoryConflict,
    NewDoc,
    NotFound,
    Store,
)
from myloware_store.memory import rows
from myloware_store.memory.writing import COPY_ROWS
from myloware_store.ops.migrate import migrate
from myloware_store.settings import Settings
from tests.integration.conftest import until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

MANY = COPY_ROWS + 10
SIZES = (3, MANY)
"""A batch that goes by parameters, and one that goes by COPY."""


def vectors(n: int, seed: int = 7) -> NDArray[np.float32]:
    """Vectors, the same for a seed."""
    return np.random.default_rng(seed).normal(size=(n, DIMENSIONS)).astype(np.float32)


def docs(n: int, word: str = "passage") -> list[dict[str, Any]]:
    """Documents with embeddings, of text that is not ASCII, and metadata."""
    return [
        {
            "type": "KNOWLEDGE",
            "content": f"{word} {i} é\t\\.\n☃",
            "embedding": vector,
            "metadata": {"n": i, "ü": [None]},
        }
        for i, vector in enumerate(vectors(n))
    ]


def same(one: Any, other: Any) -> bool:
    """Tell whether two vectors are the same to the bit."""
    return np.array_equal(one, other)


def contents() -> list[str]:
    """Return what is stored."""
    return sorted(doc.content for doc in MemDoc.select())


@pytest.fixture(params=["upsert", "upsert many", "bulk_load"])
def write(request: pytest.FixtureRequest, myloware: Store) -> Callable[[list[Any]], Any]:
    """Give each way to write documents, of which the first are others than those given."""
    if request.param == "bulk_load":
        return lambda given: myloware.memory.bulk_load(iter([*docs(5, "other"), *given]), batch_size=2)
    return lambda given: myloware.memory.upsert([*docs(3 if request.param == "upsert" else MANY, "other"), *given])


@pytest.mark.parametrize("n", SIZES)
def test_batches_come_back_as_they_were_stored(myloware: Store, n: int) -> None:
    """Of any size, in their order, with and without vector, metadata, item and id."""
    order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = myloware.work.items(order.id)
    chosen = uuid.uuid4()
    given: list[Any] = [
        *docs(n),
        NewDoc("CONTEXT", "bare"),
        NewDoc(MemDocType.TEMPLATE, "whole", [1.0] * DIMENSIONS, {"a": 1}, item.id, chosen),
    ]
    ids = myloware.memory.upsert(given)
    found = myloware.memory.get(ids, with_embedding=True)
    assert ids == [doc.id for doc in found]
    for doc, before in zip(found, docs(n), strict=False):
        assert (before["content"], before["metadata"]) == (doc.content, doc.metadata)
        assert same(before["embedding"], doc.embedding)
    bare, whole = found[-2:]
    assert ("bare", {}, None, None, "default") == (
        bare.content,
        bare.metadata,
        bare.embedding,
        bare.work_item_id,
        bare.tenant_id,
    )
    assert (chosen, "whole", {"a": 1}, item.id) == (whole.id, whole.content, whole.metadata, whole.work_item_id)
    assert whole.embedding is not None
    assert [1.0] * DIMENSIONS == whole.embedding.tolist()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dedupe", ["id", "content_hash"])
def test_what_becomes_of_documents_that_are_there(myloware: Store, n: int, dedupe: Any) -> None:
    """By id or by content: replaced, left alone, or all refused."""
    ids = myloware.memory.upsert(docs(n))
    first = myloware.memory.get(ids)
    again: list[dict[str, Any]] = [{**doc, "metadata": {"again": True}} for doc in docs(n)]
    if dedupe == "id":
        again = [{**doc, "id": row_id} for doc, row_id in zip(again, ids, strict=True)]
    new = {"type": "CONTEXT", "content": "new"}

    with pytest.raises(MemoryConflict):
        myloware.memory.upsert([new, *again], on_conflict="error", dedupe=dedupe)
    assert n == MemDoc.select().count()
    assert ids == myloware.memory.upsert([*again, new], on_conflict="ignore", dedupe=dedupe)[:n]
    assert [doc.metadata for doc in first] == [doc.metadata for doc in myloware.memory.get(ids)]
    assert ids == myloware.memory.upsert(again, dedupe=dedupe)
    changed = myloware.memory.get(ids)
    assert [{"again": True}] * n == [doc.metadata for doc in changed]
    assert all(after.updated_at > before.updated_at for before, after in zip(first, changed, strict=True))
    assert [doc.created_at for doc in first] == [doc.created_at for doc in changed]
    assert n + 1 == MemDoc.select().count()


def test_the_same_content_of_another_kind_is_another_document(myloware: Store) -> None:
    """Tenant, type and item belong to what makes two the same; an id that is given counts for new ones only."""
    order = myloware.work.submit([{"type": "TICKET", "content": "x"}] * 2)
    one, other = (item.id for item in myloware.work.items(order.id))
    same: dict[str, Any] = {"type": "CONTEXT", "content": "same"}
    kinds = [same, {**same, "type": "TEMPLATE"}, {**same, "work_item_id": one}, {**same, "work_item_id": other}]
    ids = myloware.memory.upsert(kinds, dedupe="content_hash")
    assert 4 == len(set(ids))
    assert ids == myloware.memory.upsert([{**doc, "id": uuid.uuid4()} for doc in kinds], dedupe="content_hash")
    with myloware.tenant("globex"):
        (foreign,) = myloware.memory.upsert([same], dedupe="content_hash")
    assert foreign not in ids


def test_the_same_content_twice_in_a_batch_is_one_document(myloware: Store) -> None:
    """As if they came one after the other: the last values count, and a vector is not lost."""
    vector = vectors(1)[0]
    batch = [
        {"type": "CONTEXT", "content": "same", "embedding": vector, "metadata": {"n": 1}},
        {"type": "CONTEXT", "content": "same", "metadata": {"n": 2}},
    ]
    first, second = myloware.memory.upsert(batch, dedupe="content_hash")
    assert first == second
    (doc,) = myloware.memory.get(first, with_embedding=True)
    assert {"n": 2} == doc.metadata
    assert same(vector, doc.embedding)
    with pytest.raises(MemoryConflict):
        myloware.memory.upsert([{"type": "CONTEXT", "content": "x"}] * 2, dedupe="content_hash", on_conflict="error")
    with pytest.raises(InvalidInput, match="stands for another"):
        myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "id": first}, batch[1]], dedupe="content_hash")
    assert ["same"] == contents()


def test_an_embedding_stays_with_its_content(myloware: Store) -> None:
    """A document stored again without a vector keeps the one it has as long as its content is the same."""
    (doc_id,) = myloware.memory.upsert(docs(1))
    content = docs(1)[0]["content"]
    myloware.memory.upsert([{"id": doc_id, "type": "CONTEXT", "content": content}])
    assert [True] == [doc.has_embedding for doc in myloware.memory.get(doc_id)]
    myloware.memory.upsert([{"id": doc_id, "type": "CONTEXT", "content": "other"}])
    assert [False] == [doc.has_embedding for doc in myloware.memory.get(doc_id)]


BAD: list[tuple[Any, type[Exception]]] = [
    ({"type": "NOTE", "content": "x"}, InvalidInput),
    ({"type": "CONTEXT", "content": " "}, InvalidInput),
    ({"type": "CONTEXT", "content": 5}, InvalidInput),
    ({"content": "x"}, InvalidInput),
    ({"type": "CONTEXT", "content": "a\x00"}, InvalidInput),
    ({"type": "CONTEXT", "content": "\ud800"}, InvalidInput),
    ({"type": "CONTEXT", "content": "x" * (2**20 + 1)}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "colour": 1}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "metadata": {"x": float("nan")}}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "metadata": {"x": "a\x00"}}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "metadata": {"x": {1}}}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "metadata": "text"}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "metadata": []}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "metadata": 0}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "embedding": np.zeros(DIMENSIONS)}, InvalidVector),
    ({"type": "CONTEXT", "content": "x", "embedding": np.full(DIMENSIONS, np.nan)}, InvalidVector),
    ({"type": "CONTEXT", "content": "x", "embedding": np.ones(DIMENSIONS - 1)}, InvalidVector),
    ({"type": "CONTEXT", "content": "x", "embedding": np.ones(DIMENSIONS, bool)}, InvalidVector),
    ({"type": "CONTEXT", "content": "x", "embedding": "[1]"}, InvalidVector),
    ({"type": "CONTEXT", "content": "x", "id": "no-uuid"}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "expires_at": "tomorrow"}, InvalidInput),
    ({"type": "CONTEXT", "content": "x", "work_item_id": uuid.uuid4()}, NotFound),
    (NewDoc("CONTEXT", ""), InvalidInput),
    ("text", InvalidInput),
    (None, InvalidInput),
]


@pytest.mark.parametrize(("bad", "error"), BAD)
def test_one_bad_document_stores_nothing(write: Callable[[list[Any]], Any], bad: Any, error: type[Exception]) -> None:
    """One typed error for the batch, whichever way it goes, and an empty table."""
    with pytest.raises(error):
        write([bad])
    assert MemDoc.select().count() == 0


def test_an_id_twice_is_refused(myloware: Store, write: Callable[[list[Any]], Any]) -> None:
    """In one batch; bulk_load tells also where it came batches ago."""
    doc = {**docs(1)[0], "id": uuid.uuid4()}
    with pytest.raises((InvalidInput, MemoryConflict), match="twice"):
        write([doc, doc])
    with pytest.raises(MemoryConflict, match=rf"^docs\[4\]: .*{doc['id']}"):
        myloware.memory.bulk_load([doc, *docs(3), doc], batch_size=1)
    assert MemDoc.select().count() == 0


@pytest.mark.parametrize("on_conflict", ["update", "ignore", "error"])
@pytest.mark.parametrize("n", SIZES)
def test_another_tenants_document_is_never_touched(myloware: Store, n: int, on_conflict: Any) -> None:
    """Its id is taken: the whole batch is refused, and it stays as it was."""
    with myloware.tenant("acme"):
        (doc_id,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "theirs"}])
    taken = {"id": doc_id, "type": "CONTEXT", "content": "taken over"}
    with myloware.tenant("globex"):
        with pytest.raises(InvalidInput, match=str(doc_id)):
            myloware.memory.upsert([*docs(n), taken], on_conflict=on_conflict)
        with pytest.raises(MemoryConflict):
            myloware.memory.bulk_load([*docs(n), taken])
    assert ["theirs"] == contents()


def test_another_tenants_item_is_not_found(myloware: Store, write: Callable[[list[Any]], Any]) -> None:
    """Under a tenant; without one in force a document takes its item's tenant."""
    with myloware.tenant("acme"):
        order = myloware.work.submit([{"type": "TICKET", "content": "x"}])
    (item,) = myloware.work.items(order.id)
    with myloware.tenant("globex"), pytest.raises(NotFound):
        write([{"type": "CONTEXT", "content": "x", "work_item_id": item.id}])
    assert MemDoc.select().count() == 0
    write([{"type": "CONTEXT", "content": "made for it", "work_item_id": item.id}])
    assert ["made for it"] == [doc.content for doc in MemDoc.select().where(MemDoc.tenant_id == "acme")]


@pytest.mark.parametrize(
    "options",
    [
        {"on_conflict": "skip"},
        {"on_conflict": None},
        {"on_conflict": []},
        {"dedupe": "content"},
        {"dedupe": np.ones(2)},
    ],
)
def test_unknown_ways_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """Also where there is nothing to store."""
    with pytest.raises(InvalidInput):
        myloware.memory.upsert([], **options)


def test_many_documents_inside_a_callers_transaction(myloware: Store) -> None:
    """Twice in one transaction, which goes on after a batch was refused, and takes all along when it is rolled back."""
    with myloware.db.atomic() as transaction:
        myloware.memory.upsert(docs(MANY, "first"))
        with pytest.raises(InvalidInput):
            myloware.memory.upsert([*docs(MANY, "bad"), {"type": "NOTE", "content": "x"}])
        myloware.memory.upsert(docs(MANY, "second"))
        myloware.memory.bulk_load(docs(MANY, "third"))
        with pytest.raises(MemoryConflict):
            myloware.memory.bulk_load([{**docs(1)[0], "id": MemDoc.select().get().id}])
        assert 3 * MANY == MemDoc.select().count()
        transaction.rollback()
    assert 0 == MemDoc.select().count()


def test_nothing_is_left_in_the_session(myloware: Store) -> None:
    """The connection goes back to the pool without the table that a large batch is copied to."""
    with myloware.db.unit():
        myloware.memory.upsert(docs(MANY))
        rows = myloware.db.execute_sql("SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'")
        assert [] == rows.fetchall()


@pytest.fixture
def limited_url(myloware_dsn: str) -> Iterator[str]:
    """Give the URL for a role that may write documents, and make no temporary tables."""
    name = f"limited_{uuid.uuid4().hex[:8]}"
    settings = Settings.load(myloware_dsn, environ={}, dotenv=None)
    with closing(psycopg2.connect(settings.libpq_url)) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute(f"CREATE ROLE {name} LOGIN")
        run.execute(f"REVOKE TEMPORARY ON DATABASE {settings.dbname} FROM PUBLIC")
        run.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")
        yield f"postgresql://{name}@/{settings.dbname}?host={settings.host}&port={settings.port}"
        run.execute(f"GRANT TEMPORARY ON DATABASE {settings.dbname} TO PUBLIC")
        run.execute(f"DROP OWNED BY {name}")
        run.execute(f"DROP ROLE {name}")


def test_a_role_without_temporary_tables_stores_large_batches_too(
    limited_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By parameters, in parts that a message can carry."""
    monkeypatch.setattr(rows, "_STATEMENT_CHARS", 100_000)
    with Store.open(limited_url) as store:
        given = [*docs(MANY), {"type": "CONTEXT", "content": "no vector"}]
        ids = store.memory.upsert(given)
        found = store.memory.get(ids, with_embedding=True)
        assert [doc["content"] for doc in given] == [doc.content for doc in found]
        assert all(same(one, doc.embedding) for one, doc in zip(vectors(MANY), found, strict=False))
        assert found[-1].embedding is None


def test_documents_load_under_row_level_security_too(myloware_dsn: str, limited_url: str) -> None:
    """Over a temporary table, because it allows no COPY."""
    settings = Settings.load(myloware_dsn, environ={}, dotenv=None)
    with closing(psycopg2.connect(settings.libpq_url)) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute(
            "ALTER TABLE mem_docs ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON mem_docs USING (tenant_id = 'acme')"
        )
    with Store.open(limited_url) as store, store.tenant("acme"):
        assert MANY == store.memory.bulk_load(docs(MANY)) == store.memory.count()


def test_two_processes_store_the_same_content_once(myloware: Store) -> None:
    """Whoever comes second gets the first one's ids, in batches of either kind, in any order."""
    start = threading.Barrier(4)

    def store(seed: int) -> dict[str, uuid.UUID]:
        mine = [{"type": "CONTEXT", "content": f"fact {i}"} for i in range(MANY)]
        np.random.default_rng(seed).shuffle(mine)
        mine = mine if seed % 2 else mine[:5]
        start.wait()
        ids = myloware.memory.upsert(mine, dedupe="content_hash", on_conflict="ignore" if seed < 2 else "update")
        return {doc["content"]: row_id for doc, row_id in zip(mine, ids, strict=True)}

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(store, range(4)))
    stored = {doc.content: doc.id for doc in MemDoc.select()}
    assert MANY == MemDoc.select().count() == len(stored)
    assert all(stored[content] == row_id for answer in answers for content, row_id in answer.items())


@pytest.mark.myloware_db(mode="clone")
def test_equal_contents_are_found_by_their_index(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a table that was never analyzed, too: others would read all documents of a type for each content."""
    myloware.memory.upsert(docs(MANY))
    plans: list[str] = []
    execute = myloware.db.execute_sql

    def explained(sql: str, values: Any = None, **options: Any) -> Any:
        if "given.content_hash" in sql:
            plans.extend(line for (line,) in execute(f"EXPLAIN {sql}", values))
        return execute(sql, values, **options)

    monkeypatch.setattr(myloware.db, "execute_sql", explained)
    myloware.memory.upsert(docs(MANY), dedupe="content_hash")
    assert "mem_docs_tenant_id_content_hash_idx" in str(plans)


def test_a_document_whose_content_changes_meanwhile_stands_for_no_other(myloware: Store) -> None:
    """The change stays, and the content is stored as a new document."""
    memory = myloware.memory
    (old,) = memory.upsert([{"type": "CONTEXT", "content": "fact"}])
    with ThreadPoolExecutor() as pool:
        with myloware.db.atomic():
            memory.update(old, content="correction")
            again = pool.submit(memory.upsert, [{"type": "CONTEXT", "content": "fact"}], dedupe="content_hash")
            until_blocked(myloware, again)
        (new,) = again.result()
    assert [(old, "correction"), (new, "fact")] == [(doc.id, doc.content) for doc in memory.list()]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_the_same_content_is_stored_once_whatever_the_isolation(myloware: Store, level: str) -> None:
    """Who has waited for another batch sees what it stored, also where the role's transactions keep their snapshot."""
    myloware.db.execute_sql(f"ALTER DATABASE {myloware.settings.dbname} SET default_transaction_isolation = '{level}'")
    waits = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    fact = [{"type": "CONTEXT", "content": "fact"}]
    try:
        myloware.db.close_idle()
        with ThreadPoolExecutor(1) as thread:
            with myloware.db.atomic():
                first = myloware.memory.upsert(fact, dedupe="content_hash")
                second = thread.submit(myloware.memory.upsert, fact, dedupe="content_hash")
                while not myloware.db.execute_sql(waits).fetchone()[0]:
                    assert not second.done()
            assert first == second.result()
    finally:
        myloware.db.execute_sql(f"ALTER DATABASE {myloware.settings.dbname} RESET default_transaction_isolation")
    assert ["fact"] == contents()


def test_documents_deleted_while_they_are_stored(myloware: Store) -> None:
    """Upserts and deletes of the same documents, at once and in any order, neither fail nor wait in a circle."""
    ids = [uuid.UUID(int=i) for i in range(1, MANY + 1)]
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        start.wait()
        for turn in range(6):
            mine = [ids[i] for i in random.permutation(MANY)]
            if (seed + turn) % 3 == 0:
                myloware.memory.delete(mine)
            else:
                batch = [{"id": row_id, "type": "CONTEXT", "content": f"by {seed}"} for row_id in mine]
                assert mine == myloware.memory.upsert(batch, on_conflict="ignore" if turn % 2 else "update")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert MemDoc.select().count() in (0, MANY)


def test_a_bulk_load_streams(myloware: Store) -> None:
    """The documents are drawn as they are sent, the iterable may use the store, and progress is told."""
    drawn: list[int] = []
    told: list[tuple[int, int]] = []

    def each() -> Iterator[dict[str, Any]]:
        for i, doc in enumerate(docs(25)):
            drawn.append(MemDoc.select().count())
            yield {**doc, "metadata": {"i": i}}

    assert 25 == myloware.memory.bulk_load(each(), progress=lambda sent: told.append((sent, len(drawn))), batch_size=10)
    assert [(10, 10), (20, 20), (25, 25)] == told
    assert [0] * 10 + [10] * 10 + [20] * 5 == drawn
    assert 25 == MemDoc.select().where(MemDoc.search.is_null(False), MemDoc.content_hash.is_null(False)).count()
    assert 0 == myloware.memory.bulk_load([])


def test_documents_without_item_or_embedding_are_stored_under_array_nulls_off(myloware: Store) -> None:
    """No NULL is taken for a text."""
    given = [{"type": "CONTEXT", "content": word} for word in "ab"]
    with myloware.db.unit():
        myloware.db.execute_sql("SET array_nulls = off")
        ids = myloware.memory.upsert(given)
        assert ids == myloware.memory.upsert(given, dedupe="content_hash")
        assert set(ids) == myloware.memory.set_embeddings(zip(ids, vectors(2), strict=True))
    assert [(None, True)] * 2 == [(doc.work_item_id, doc.has_embedding) for doc in myloware.memory.get(ids)]


def test_a_bulk_load_takes_its_time(myloware: Store) -> None:
    """No time-out of the server's ends it, or lasts beyond it; those of the caller's own transaction stay."""
    sql = """
        SELECT DISTINCT setting FROM pg_settings
        WHERE name IN ('transaction_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')
        """
    told: list[Any] = []

    def each() -> Iterator[dict[str, Any]]:
        told.append(myloware.db.execute_sql(sql).fetchall())
        yield docs(1)[0]

    with myloware.db.unit():
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            myloware.db.execute_sql(f"SET {name} = 60000")
        if myloware.db.server_version >= 170000:
            myloware.db.execute_sql("SET transaction_timeout = 60000")
        myloware.memory.bulk_load(each())
        with myloware.db.atomic():
            myloware.memory.bulk_load(each())
    assert [[("0",)], [("60000",)]] == told


def test_a_bulk_load_that_fails_stores_nothing(myloware: Store) -> None:
    """Whatever failed, the documents, their source, or who is told: its own error comes through."""

    def broken() -> Iterator[dict[str, Any]]:
        yield from docs(5)
        raise OSError("the file ends here")

    def tell(_: int) -> None:
        raise KeyError("told")

    with pytest.raises(OSError, match="ends here"):
        myloware.memory.bulk_load(broken(), batch_size=2)
    with pytest.raises(KeyError):
        myloware.memory.bulk_load(docs(5), progress=tell)
    for wrong in ("text", {"type": "CONTEXT"}, 5, None):
        with pytest.raises(InvalidInput):
            myloware.memory.bulk_load(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        myloware.memory.bulk_load(docs(1), progress=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        myloware.memory.bulk_load(docs(1), batch_size=0)
    assert 0 == MemDoc.select().count()


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("at", [0, 5, 6, 12])
def test_a_bulk_load_whose_transaction_was_ended_says_so(myloware: Store, end: str, at: int) -> None:
    """By the source of the documents, between two of them or after the last one: what follows is not stored alone."""

    def each() -> Iterator[dict[str, Any]]:
        for i, doc in enumerate(docs(12)):
            if i == at:
                getattr(myloware.db, end)()
            yield doc
        if at == 12:
            getattr(myloware.db, end)()

    with pytest.raises(InvalidInput, match="the transaction was ended"):
        myloware.memory.bulk_load(each(), batch_size=5)
    assert (at // 5 * 5 if end == "commit" else 0) == MemDoc.select().count()
    assert 12 == myloware.memory.bulk_load(docs(12, "again"))


def test_an_id_that_is_there_ends_a_bulk_load(myloware: Store) -> None:
    """With one typed error, and nothing of it is stored; other constraints keep their names."""
    (doc_id,) = myloware.memory.upsert(docs(1))
    with pytest.raises(MemoryConflict, match=rf"^docs\[5\]: .*{doc_id}"):
        myloware.memory.bulk_load([*docs(5, "new"), {**docs(1)[0], "id": doc_id}], batch_size=4)
    assert 1 == MemDoc.select().count()
    myloware.db.execute_sql("ALTER TABLE mem_docs ADD CONSTRAINT short CHECK (length(content) < 20)")
    with pytest.raises(ConstraintViolation, match="short"):
        myloware.memory.bulk_load(docs(5, "a much longer passage"))


def test_the_embedder_is_given_texts_in_bounded_batches(myloware_dsn: str) -> None:
    """256 a call at most, in upsert and bulk_load."""
    calls: list[int] = []

    def embed(texts: Any) -> NDArray[np.float32]:
        calls.append(len(texts))
        return vectors(len(texts))

    texts = [{"type": "CONTEXT", "content": f"text {i}"} for i in range(300)]
    with Store.open(myloware_dsn, embedder=embed) as store:
        ids = store.memory.upsert([*texts, *docs(2)])
        store.memory.bulk_load([*docs(2), *texts], batch_size=200)
        found = store.memory.get([ids[0], ids[-1]], with_embedding=True)
    assert [256, 44, 198, 102] == calls
    assert same(vectors(1)[0], found[0].embedding)
    assert same(vectors(2)[1], found[1].embedding)


def test_both_servers_store_documents(empty_database: str) -> None:
    """The oldest PostgreSQL and pgvector, and the newest: every way in and out."""
    migrate(Settings.load(empty_database, environ={}, dotenv=None))
    with Store.open(empty_database) as store:
        memory = store.memory
        ids = memory.upsert(docs(MANY))
        assert ids == memory.upsert(docs(MANY), dedupe="content_hash", on_conflict="ignore")
        assert 5 == memory.bulk_load(docs(5, "loaded"))
        found = memory.get(ids, with_embedding=True)
        assert all(same(doc.embedding, vector) for doc, vector in zip(found, vectors(MANY), strict=True))
        changed = memory.update(ids[0], content="other", if_unmodified_since=found[0].updated_at)
        assert [changed.id] == [doc.id for doc in memory.missing_embeddings()]
        assert {changed.id} == memory.set_embeddings([(changed, vectors(1)[0])])
        assert 6 == memory.delete(filter={"or": [{"metadata.n": {"lt": 3}}]})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"content": " "}, "content: the text is empty"),
        ({"type": "NOTE"}, "type: 'NOTE' is not one of"),
        ({"embedding": [0.0] * DIMENSIONS}, "embedding: all numbers are zero"),
        ({"metadata": {"x": float("nan")}}, "metadata: the JSON holds NaN"),
        ({"id": 7}, "id: 7 is not a UUID"),
        ({"title": "x"}, "unknown key 'title'"),
        ({"work_item_id": uuid.UUID(int=7)}, "there is no work item 00000000-0000-0000-0000-000000000007"),
    ],
)
def test_an_error_says_which_document(myloware: Store, wrong: dict[str, Any], told: str) -> None:
    """Also of a generator, whichever batch it falls in; nothing is stored."""
    many = docs(5)
    many[3] |= wrong
    for store in (
        lambda: myloware.memory.upsert(many),
        lambda: myloware.memory.upsert(NewDoc(**doc) if "title" not in doc else doc for doc in many),
        lambda: myloware.memory.bulk_load(iter(many), batch_size=2),
    ):
        with pytest.raises((InvalidInput, NotFound)) as refused:
            store()
        assert str(refused.value).startswith(f"docs[3]: {told}")
    assert MemDoc.select().count() == 0


def test_a_conflict_says_which_document(myloware: Store) -> None:
    """An id that comes twice, is another tenant's, or is there already; and a content that is."""
    many = docs(3)
    with myloware.tenant("globex"):
        (foreign,) = myloware.memory.upsert(docs(1, "foreign"))
    (there,) = myloware.memory.upsert(docs(1, "there"))
    same_id = uuid.uuid4()
    with pytest.raises(InvalidInput, match=r"docs\[2\]: the id .* comes twice, first in docs\[0\]"):
        myloware.memory.upsert([many[0] | {"id": same_id}, many[1], many[2] | {"id": same_id}])
    with pytest.raises(InvalidInput, match=r"docs\[1\]: the id .* is taken by another tenant's document"):
        myloware.memory.upsert([many[0], many[1] | {"id": foreign}])
    with pytest.raises(MemoryConflict, match=r"docs\[1\]: there is a document .* already"):
        myloware.memory.upsert([many[0], many[1] | {"id": there}], on_conflict="error")
    with pytest.raises(MemoryConflict, match=r"docs\[2\]: there is a document .* of the same content"):
        myloware.memory.upsert([*many[:2], *docs(1, "there")], on_conflict="error", dedupe="content_hash")

"""Embedding models in one memory: of which length their vectors are, and that those of two models never mix."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from myloware_store import DIMENSIONS, InvalidInput, InvalidVector, MemDoc, Store, StoreError, Truncated


@attrs.define
class Model:
    """An embedder whose vectors depend on the text and on the model."""

    name: str | None = "small"
    dimensions: int | None = None
    calls: list[list[str]] = attrs.Factory(list)

    def __call__(self, texts: Any) -> Any:
        """Embed the texts."""
        self.calls.append(list(texts))
        return np.stack([self.of(text) for text in texts])

    def of(self, text: str) -> Any:
        """Return the vector of a text."""
        seed = [*text.encode(), *(self.name or "").encode()]
        return np.random.default_rng(seed).normal(size=self.dimensions or DIMENSIONS).astype(np.float32)


def doc(content: str, **values: Any) -> dict[str, Any]:
    """Return a document to store."""
    return {"type": "CONTEXT", "content": content, **values}


def cosine(one: Any, other: Any) -> float:
    """Return the cosine of two vectors."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("dimensions", [384, 768, 1024])
def test_shorter_vectors_are_padded_wherever_one_is_given(myloware_dsn: str, dimensions: int) -> None:
    """Made or given, stored or searched for; similarities are those of the short vectors."""
    model = Model(dimensions=dimensions)
    with Store.open(myloware_dsn, embedder=model) as store:
        memory = store.memory
        ids = memory.upsert([doc("made"), doc("given", embedding=model.of("given"))])
        ids += memory.upsert([doc("set"), doc("updated"), doc("whole", embedding=[1.0] * DIMENSIONS)])
        assert {ids[2]} == memory.set_embeddings([(ids[2], model.of("set"))])
        memory.update(ids[3], embedding=model.of("updated"))
        for text, wanted in zip(["made", "given", "set", "updated"], ids, strict=False):
            (best, second) = memory.similar(model.of(text), k=2, with_embedding=True)
            assert wanted == best.id
            assert pytest.approx(1) == best.score
            if second.id != ids[4]:
                assert pytest.approx(cosine(model.of(text), model.of(second.content)), abs=1e-6) == second.score
            assert [*model.of(text), *[0.0] * (DIMENSIONS - dimensions)] == list(np.asarray(best.embedding))
            assert wanted == memory.hybrid(best.embedding, text)[0].id == memory.mmr(model.of(text))[0].id


def test_a_length_that_was_not_declared_is_refused_with_the_way(myloware_dsn: str) -> None:
    """Shorter vectors need an embedder that declares them; longer ones the provider's parameter, or truncation."""
    short, long = np.ones(384), np.ones(3072)
    with Store.open(myloware_dsn) as store:
        with pytest.raises(InvalidVector, match="`dimensions = 384`"):
            store.memory.upsert([doc("x", embedding=short)])
        with pytest.raises(InvalidVector, match=r"dimensions=1536.*Truncated"):
            store.memory.similar(long)
    undeclared: Any = lambda texts: np.ones((len(texts), 3072))  # noqa: E731
    with Store.open(myloware_dsn, embedder=undeclared) as store, pytest.raises(InvalidVector, match="Truncated"):
        store.memory.upsert([doc("x")])
    for wrong in (Model(dimensions=3072), Model(dimensions=0), Model(name=""), Model(name=7)):  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match=r"Truncated" if wrong.dimensions == 3072 else "embedder"):
            Store.open(myloware_dsn, embedder=wrong)


def test_longer_vectors_are_truncated_when_asked(myloware_dsn: str) -> None:
    """The first numbers are kept, under a name of their own."""
    long = Model(dimensions=3072)
    whole, half = Truncated(long), Truncated(long, 768)
    assert ("small:1536", "small:768", None) == (whole.name, half.name, Truncated(Model(name=None)).name)
    for model, kept in ((whole, 1536), (half, 768)):
        with Store.open(myloware_dsn, embedder=model) as store:
            (stored,) = store.memory.get(store.memory.upsert([doc("a text")]), with_embedding=True)
            assert np.array_equal(long.of("a text")[:kept], np.asarray(stored.embedding)[:kept])
            assert stored.id == store.memory.similar(model(["a text"])[0])[0].id
    wrong: list[Any] = [(long, 3072), (Model(dimensions=384), 768), (Model(dimensions=384),)]
    for given in wrong:
        with pytest.raises(InvalidInput, match="dimensions"):
            Truncated(*given)
    with pytest.raises(InvalidInput, match="embedder: str is not callable"):
        Truncated("small")  # type: ignore[arg-type]


OLD, NEW = Model("old"), Model("new")


def models(store: Store) -> dict[str, str | None]:
    """Return the recorded models by content."""
    rows = store.db.execute_sql("SELECT content, embedding_model FROM mem_docs").fetchall()
    return dict(rows)


def test_whatever_writes_an_embedding_records_its_model(myloware_dsn: str) -> None:
    """By default the embedder's, for given vectors the one that is named; without an embedding there is none."""
    with Store.open(myloware_dsn, embedder=NEW) as store:
        memory, given = store.memory, OLD.of("x")
        both = [doc("made"), doc("given", embedding=given)]
        ids = memory.upsert([*both, doc("unnamed", embedding=given, id=memory.upsert([doc("z")])[0])], model=None)
        assert {"made": "new", "given": None, "unnamed": None} == models(store)
        memory.upsert([doc("given", embedding=given, id=ids[1])], model="old")
        memory.upsert([doc("given again", id=ids[2])])
        assert {"made": "new", "given": "old", "given again": "new"} == models(store)
        memory.bulk_load([doc("loaded"), doc("loaded given", embedding=given)], model="old")
        memory.upsert([doc(f"copied {n}", embedding=given) for n in range(50)], model="old")
        recorded = models(store)
        assert ("new", "old", "old") == (recorded["loaded"], recorded["loaded given"], recorded["copied 7"])
        memory.set_embeddings([(ids[0], given)], model="old")
        assert ["old", "new"] == [
            memory.get(ids[0])[0].embedding_model,
            memory.update(ids[0], content="made new").embedding_model,
        ]
        changed = [
            memory.update(ids[0], embedding=given, model="old"),
            memory.update(ids[0], metadata={"a": 1}),
            memory.update(ids[0], embedding=given),
            memory.update(ids[0], embedding=None),
        ]
        assert ["old", "old", "new", None] == [each.embedding_model for each in changed]
    with Store.open(myloware_dsn) as store:
        assert "old" == store.memory.update(ids[1], content="given").embedding_model
        assert None is store.memory.update(ids[1], content="changed").embedding_model
        store.memory.upsert([doc("loaded", id=next(each.id for each in MemDoc.select() if each.content == "loaded"))])
        assert "new" == models(store)["loaded"]


@pytest.fixture
def mixed(myloware_dsn: str) -> Any:
    """Give a store of the new model, with as many documents of the old one."""
    with Store.open(myloware_dsn, embedder=OLD) as store:
        store.memory.upsert([doc(f"old {n}") for n in range(30)])
    with Store.open(myloware_dsn, embedder=NEW) as store:
        store.memory.upsert([doc(f"new {n}") for n in range(30)])
        yield store


def test_searches_compare_vectors_of_one_model(mixed: Store) -> None:
    """The embedder's, or the one that is named: all of its documents are found and no others, by whatever plan."""
    memory = mixed.memory
    memory.index.ensure()
    for mode in ("auto", "exact", "ann"):
        for k in (5, 30, 60):
            for chosen in (None, {"type": "CONTEXT"}):
                options: Any = {"k": k, "mode": mode, "filter": chosen}
                for model, hits in (
                    ("new", memory.similar(NEW.of("new 7"), **options)),
                    ("old", memory.similar(OLD.of("old 7"), **options, model="old")),
                ):
                    assert {model} == {hit.embedding_model for hit in hits}
                    assert (min(k, 30), f"{model} 7") == (len(hits), hits[0].content)
    assert {"new"} == {hit.embedding_model for hit in memory.mmr(NEW.of("x"), k=40)}


def test_hybrid_finds_documents_of_other_models_by_their_text(mixed: Store) -> None:
    """Without a similarity, which would mean nothing; all those of the asked model have one."""
    hits = mixed.memory.hybrid(NEW.of("new 7"), "old 7", k=60)
    assert {"new": False, "old": True} == {str(hit.embedding_model): hit.similarity is None for hit in hits}
    assert 30 == sum(hit.vector_rank is not None for hit in hits)
    assert "old 7" in {hit.content for hit in hits[:2]}


def test_a_model_that_no_embedding_has_is_told(mixed: Store) -> None:
    """With those that there are, whatever the search; text hits are still found."""
    memory, vector = mixed.memory, NEW.of("new 7")
    searches: list[Any] = [
        lambda **given: memory.similar(vector, **given),
        lambda **given: memory.similar(vector, per="document", **given),
        lambda **given: memory.mmr(vector, **given),
        lambda **given: memory.hybrid(vector, "old", **given),
    ]
    for search in searches:
        for model in ("mew", None):
            with pytest.warns(UserWarning, match=r"('mew'|model's name), only of 'new', 'old':"):
                assert {None} >= {hit.similarity for hit in search(model=model)}
        # What finds nothing for another reason says nothing.
        assert [] == search(filter={"metadata.a": 1})
        with mixed.tenant("acme"):
            assert [] == search(model="mew")
    assert [] != memory.hybrid(vector, "old", model="mew", weights=(0, 1))
    with mixed.tenant("acme"):
        memory.upsert([doc("unnamed", embedding=vector)], model=None, min_similarity=0.9)
        memory.upsert([doc("of a third", embedding=vector)], model="third", min_similarity=0.9)
        with pytest.warns(UserWarning, match="only of 'third', one without a name:"):
            assert [] == memory.similar(vector)


def test_nothing_mixes_silently_where_no_model_is_named(mixed: Store, myloware_dsn: str) -> None:
    """A store without a named embedder searches all; hits of several models are an error that names them."""
    mixed.close()
    with Store.open(myloware_dsn) as store:
        memory = store.memory
        searches: list[Any] = [memory.similar, memory.mmr, lambda v: memory.hybrid(v, "old new", k=60)]
        for search in searches:
            with pytest.raises(InvalidInput, match=r"'new', 'old'.*model="):
                search(NEW.of("new 7"))
        assert "new 7" == store.memory.similar(NEW.of("new 7"), k=1)[0].content
        assert "old 7" == store.memory.similar(OLD.of("old 7"), model="old")[0].content
        store.memory.delete(filter={"created_at": {"exists": True}})
        store.memory.upsert([doc(f"{n}", embedding=OLD.of(f"{n}")) for n in range(3)])
        unnamed: list[Any] = [{}, {"model": None}]
        for options in unnamed:
            assert "1" == store.memory.similar(OLD.of("1"), **options)[0].content


def test_a_memory_moves_to_a_new_model_while_it_is_searched(myloware_dsn: str) -> None:
    """Oldest first; whoever is killed half way leaves the rest to the next call; all are found at each step."""
    with Store.open(myloware_dsn, embedder=OLD) as store:
        store.memory.upsert([doc(f"text {n}") for n in range(6)])
        store.memory.upsert([doc("unnamed", embedding=OLD.of("unnamed"))], model=None)
    with Store.open(myloware_dsn) as store:
        store.memory.upsert([doc("never embedded")])
        assert ["never embedded"] == [each.content for each in store.memory.missing_embeddings()]
        with pytest.raises(InvalidInput, match="name"):
            store.memory.reembed()

    def stop(done: int) -> None:
        found = {hit.content for hit in store.memory.similar(NEW.of("x"), k=20)}
        left = {hit.content for hit in store.memory.similar(OLD.of("x"), k=20, model="old")}
        assert {f"text {n}" for n in range(done)} == found
        assert {f"text {n}" for n in range(done, 6)} == left
        if done == 4:
            raise KeyboardInterrupt

    with Store.open(myloware_dsn, embedder=NEW) as store:
        assert [*(f"text {n}" for n in range(6)), "unnamed", "never embedded"] == [
            each.content for each in store.memory.missing_embeddings()
        ]
        with pytest.raises(KeyboardInterrupt):
            store.memory.reembed(batch_size=2, progress=stop)
        assert 4 == store.memory.reembed()
        assert 0 == store.memory.reembed()
        assert {"new"} == set(models(store).values())
        assert pytest.approx(1) == store.memory.similar(NEW.of("unnamed"), k=1)[0].score
        assert 8 == len(store.memory.missing_embeddings(model="old"))


def test_shares_of_a_move_are_disjoint_and_together_all(mixed: Store) -> None:
    """So several processes move a memory at once."""
    with mixed.tenant("acme"):
        mixed.memory.upsert([doc("of acme", embedding=OLD.of("x"))], model="old")
        assert ["of acme"] == [each.content for each in mixed.memory.missing_embeddings()]
    parts = [mixed.memory.missing_embeddings(share=(n, 3)) for n in range(3)]
    assert 31 == sum(map(len, parts)) == len({each.id for part in parts for each in part})
    with pytest.raises(InvalidInput, match="batch_size"):
        mixed.memory.reembed(batch_size=0)
    assert 31 == sum(mixed.memory.reembed(share=(n, 3), batch_size=4) for n in range(3))


def test_documents_of_other_models_are_found_through_an_index(mixed: Store) -> None:
    """However many there are of the asked model."""
    mixed.db.execute_sql(
        "INSERT INTO mem_docs (tenant_id, type, content, embedding, embedding_model)"
        " SELECT 'default', 'CONTEXT', n::text, embedding, 'new' FROM mem_docs, generate_series(1, 60) AS n"
    )
    mixed.db.execute_sql("ANALYZE mem_docs")
    scans = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'mem_docs'"
    with mixed.db.atomic():
        before = mixed.db.execute_sql(scans).fetchone()
        assert 30 == len(mixed.memory.missing_embeddings())
        assert before == mixed.db.execute_sql(scans).fetchone()


def test_a_move_that_may_not_change_the_documents_ends(myloware: Store, myloware_dsn: str) -> None:
    """With an error, instead of embedding the same documents for ever."""
    myloware.memory.upsert([doc("x")])
    myloware.db.execute_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER refuse BEFORE UPDATE ON mem_docs FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    myloware.close()
    with Store.open(myloware_dsn, embedder=NEW) as store, pytest.raises(StoreError, match="reembed"):
        store.memory.reembed()

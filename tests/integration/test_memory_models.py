"""Embedding models in one memory: of which length their vectors are, and that those of two models never mix."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from myloware_store import DIMENSIONS, InvalidInput, InvalidVector, Store, Truncated


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
    with pytest.raises(InvalidInput, match="dimensions"):
        Truncated(long, 3072)

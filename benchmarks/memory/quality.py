"""Whether searches find what was meant, in real texts: the reciprocal rank of known answers, by kind of query.

Text search stands beside BM25 in memory (bm25s, over words and, in scripts without blanks, pairs of characters),
`hybrid` beside its two searches, and all of them beside other libraries; every query is asked of each in turn.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from benchmarks.memory.bench import Bench, Raw, timed
from benchmarks.memory.contest import fill
from benchmarks.memory.corpus import Truth, Vectors, row_id, row_number
from benchmarks.memory.loading import emptied
from benchmarks.memory.model import MODEL, embed
from benchmarks.memory.peers import PEERS, Peer
from benchmarks.memory.recall import Row
from benchmarks.memory.texts import CATALOGUES, SOURCES, Texts, english, languages
from myloware_store import Store
from myloware_store.memory.index.state import METHODS

NEEDED = ("bm25s", "sentence-transformers", MODEL, *SOURCES, *CATALOGUES)
K = 10
HELD_OUT = 200
UPSERTED = 1_000

UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"

PLAIN = """
CREATE OR REPLACE FUNCTION content_search(content text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT AS
$$ BEGIN RETURN to_tsvector('pg_catalog.english', content); END $$
"""
"""What stores a document's words without our analysis."""
ANALYSE = "SELECT sum(length(content_search(content))) FROM mem_docs"

Search = Callable[[int], list[int]]
"""From the number of a query to those of the documents found, best first."""


def quality(bench: Bench, rows: int) -> Row:
    """Measure in English and in other languages; say which packages are missing, if any are."""
    missing = [name for name in NEEDED if not installed(name)]
    if missing:
        return {"missing": missing}
    count, asked, each = (1_000, 50, 100) if bench.quick else (min(rows, 8_000), 100, 400)
    return {
        "English": measured(bench, english(count, asked), PEERS),
        "other languages": measured(bench, languages(each, asked), {}),
    }


def installed(name: str) -> bool:
    """Tell whether a distribution is installed."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def measured(bench: Bench, texts: Texts, others: dict[str, Callable[[str], Peer]]) -> Row:
    """Load documents and ask all queries; measure the index, and what it costs to store."""
    vectors, asked = embed(texts.documents), embed([query.text for query in texts.queries])
    docs = [
        {"id": row_id(number), "type": "CONTEXT", "content": text, "embedding": vector, "metadata": {"department": "9"}}
        for number, (text, vector) in enumerate(zip(texts.documents, vectors, strict=True))
    ]
    with bench.database() as (store, raw), ExitStack() as opened:
        stored = storing(store, raw, docs[:UPSERTED])
        store.memory.bulk_load(docs)
        recalls = [recall(store, method, vectors, asked) for method in METHODS]
        searches = ours(store, texts, asked)
        for name, open_peer in others.items():
            try:
                peer = open_peer(bench.url)
            except ImportError:
                continue
            opened.enter_context(closing(peer))
            peer.add([{**docs[0], "embedding": vectors[0].tolist()}])  # some make their tables only now
            fill(raw, peer)
            searches |= by_peer(f"{name} {version(name)}", peer, texts, asked)
        return {
            "documents": len(docs),
            "queries": len(texts.queries),
            "storing": stored,
            "recall": recalls,
            "searches": ranked(texts, searches),
        }


def storing(store: Store, raw: Raw, docs: list[Row]) -> Row:
    """Compare `upsert`, and the analysis of the texts alone, with the same by to_tsvector; leave the table empty."""
    ((analysis,),) = raw.rows("SELECT pg_get_functiondef('content_search(text)'::regprocedure)")
    ways: dict[str, str] = {"ours": analysis, "plain": PLAIN}
    times = defaultdict(list)
    for _ in range(5):
        for way, definition in ways.items():
            raw.rows(definition)
            emptied(raw)
            times["upsert", way].append(timed(store.memory.upsert, docs)[1])
            times["analysis", way].append(
                timed(raw.rows, "SELECT sum(length(content_search(content))) FROM mem_docs")[1]
            )
    raw.rows(analysis)
    emptied(raw)
    return {
        what: statistics.median(times[what, "ours"]) / statistics.median(times[what, "plain"])
        for what in ("upsert", "analysis")
    }


def recall(store: Store, method: Any, vectors: Vectors, asked: Vectors) -> Row:
    """Build and tune an index, and compare what it finds for queries, none of them a document, with the truth."""
    store.memory.index.swap(method)
    store.memory.index.ensure()
    truth = Truth(vectors, asked[:: max(1, len(asked) // HELD_OUT)][:HELD_OUT])
    everything = np.ones(len(vectors), bool)
    shares = []
    for number, query in enumerate(truth.queries):
        hits = store.memory.similar(query, k=K, mode="ann")
        shares.append(truth.recall(number, [row_number(hit.id) for hit in hits], K, everything))
    status = store.memory.index.status()
    return {"method": method, "true": statistics.mean(shares), "recorded": status.recall, "used": status.used}


def ours(store: Store, texts: Texts, asked: Vectors) -> dict[str, Search]:
    """Return BM25 in memory, and the searches of the library."""
    words, memory = bm25(texts.documents), store.memory

    def numbers(hits: Any) -> list[int]:
        return [row_number(hit.id) for hit in hits]

    return {
        "bm25s": lambda number: words(texts.queries[number].text),
        "search_text": lambda number: numbers(memory.search_text(texts.queries[number].text, k=K)),
        "search_text, any": lambda number: numbers(memory.search_text(texts.queries[number].text, k=K, match="any")),
        "similar": lambda number: numbers(memory.similar(asked[number], k=K)),
        "hybrid": lambda number: numbers(memory.hybrid(asked[number], texts.queries[number].text, k=K)),
    }


def by_peer(name: str, peer: Peer, texts: Texts, asked: Vectors) -> dict[str, Search]:
    """Return the searches of another library, by vector and, if it has one, by vector and text."""
    vectors = asked.tolist()
    found: dict[str, Search] = {
        f"{name}, vector": lambda number: [row_number(one) for one in peer.search(vectors[number], K, None)]
    }
    hybrid = peer.hybrid
    if hybrid is not None:
        found[f"{name}, both"] = lambda number: [
            row_number(one) for one in hybrid(vectors[number], texts.queries[number].text, K)
        ]
    return found


def ranked(texts: Texts, searches: dict[str, Search]) -> list[Row]:
    """Ask every query of every search in turn; give mean reciprocal rank and recall at 10 by kind, and milliseconds."""
    ranks: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in searches}
    times: dict[str, list[float]] = defaultdict(list)
    for search in searches.values():
        search(0)
    for number, query in enumerate(texts.queries):
        for name, search in searches.items():
            found, ms = timed(search, number)
            ranks[name][query.kind].append(found.index(query.answer) + 1 if query.answer in found else 0)
            times[name].append(ms)
    return [
        {
            "search": name,
            "mrr": {kind: statistics.mean(1 / one if one else 0 for one in each) for kind, each in of_kind.items()},
            "recall": {kind: statistics.mean(one > 0 for one in each) for kind, each in of_kind.items()},
            "p50": float(np.quantile(times[name], 0.5)),
            "p95": float(np.quantile(times[name], 0.95)),
        }
        for name, of_kind in ranks.items()
    ]


def bm25(documents: list[str]) -> Callable[[str], list[int]]:
    """Return a search by BM25 in memory."""
    import bm25s

    index = bm25s.BM25()
    index.index([tokens(text) for text in documents], show_progress=False)

    def search(query: str) -> list[int]:
        known = [token for token in tokens(query) if token in index.vocab_dict]
        if not known:
            return []
        found, _ = index.retrieve([known], k=K, show_progress=False)
        return [int(number) for number in found[0]]

    return search


def tokens(text: str) -> list[str]:
    """Return the words of a text, and the pairs of characters where no blanks divide words."""
    text = text.lower()
    found = re.findall(r"[^\W_]+", re.sub(UNSPACED, " ", text))
    for run in re.findall(f"{UNSPACED}+", text):
        found += [run[begin : begin + 2] for begin in range(max(1, len(run) - 1))]
    return found

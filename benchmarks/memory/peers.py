"""Other libraries that keep embeddings in PostgreSQL, each used as its manual says, on the same server and documents.

Each stores the first documents itself, which is timed; the others are copied into its table by one statement, so that
the run ends, and the HNSW index that it makes or documents is built again over all of them (m = 16,
ef_construction = 64). Embeddings are computed before, and handed over where each library takes its own.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import psycopg2

from benchmarks.memory.corpus import DIMENSIONS

# No peer may call home, nor leave files in the user's folder.
os.environ.update(
    MEM0_TELEMETRY="False",
    MEM0_DIR=tempfile.gettempdir(),
    ANONYMIZED_TELEMETRY="False",
    LANGSMITH_TRACING="false",
    LANGCHAIN_TRACING_V2="false",
)

Doc = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """What is measured of a library.

    Attributes:
        table: The table with its embeddings.
        copy: The statements that copy documents from `mem_docs` into its tables, without those it has.
        columns: What it reads of a document, for the same search by hand.
        vector: The embedding's column.
        add: Stores documents.
        search: Gives the ids of the k documents nearest to a vector, of one department or of all.
        close: Closes its connections.
        hybrid: Gives the ids of the k documents best by a vector and a text together; None if it has no such search.
    """

    table: str
    copy: tuple[str, ...]
    columns: str
    vector: str
    add: Callable[[list[Doc]], object]
    search: Callable[[Any, int, str | None], list[str]]
    close: Callable[[], object]
    hybrid: Callable[[Any, str, int], list[str]] | None = None


def sqlalchemy_url(url: str, driver: str) -> str:
    """Return a libpq URL as SQLAlchemy wants it."""
    return url.replace("postgresql://", f"postgresql+{driver}://")


def equality(department: str | None) -> dict[str, str] | None:
    """Return the filter as most libraries take it."""
    return None if department is None else {"department": department}


def langchain(url: str) -> Peer:
    """Open langchain-postgres' PGVectorStore, with the department in a column of its own, as its filters need."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_postgres import Column, PGEngine, PGVectorStore
    from langchain_postgres.v2.hybrid_search_config import HybridSearchConfig
    from langchain_postgres.v2.indexes import HNSWIndex

    table = "bench_langchain"
    engine = PGEngine.from_connection_string(sqlalchemy_url(url, "psycopg"))
    both = HybridSearchConfig(tsv_column="words", primary_top_k=50, secondary_top_k=50)
    columns = [Column("department", "TEXT")]
    engine.init_vectorstore_table(table, DIMENSIONS, metadata_columns=columns, hybrid_search_config=both)
    unused = DeterministicFakeEmbedding(size=DIMENSIONS)
    store = PGVectorStore.create_sync(engine, unused, table, metadata_columns=["department"], hybrid_search_config=both)
    store.apply_vector_index(HNSWIndex())
    store.apply_hybrid_search_index()

    def add(docs: list[Doc]) -> None:
        store.add_embeddings(
            [doc["content"] for doc in docs],
            [doc["embedding"] for doc in docs],
            [doc["metadata"] for doc in docs],
            [str(doc["id"]) for doc in docs],
        )

    def search(vector: Any, k: int, department: str | None) -> list[str]:
        found = store.similarity_search_by_vector(vector, k=k, filter=equality(department), hybrid_search_config=None)
        return [doc.id for doc in found]

    def hybrid(vector: Any, text: str, k: int) -> list[str]:
        asked = dataclasses.replace(both, fts_query=text)
        return [doc.id for doc in store.similarity_search_by_vector(vector, k=k, hybrid_search_config=asked)]

    copy = """
        INSERT INTO bench_langchain (langchain_id, content, embedding, words, department, langchain_metadata)
        SELECT id, content, embedding, to_tsvector('english', content), metadata->>'department', metadata FROM mem_docs
        ON CONFLICT DO NOTHING
    """

    def close() -> None:
        engine._run_as_sync(engine.close())  # noqa: SLF001  it has no other way without a loop

    columns_read = "langchain_id, content, langchain_metadata"
    return Peer(table, (copy,), columns_read, "embedding", add, search, close, hybrid)


def langgraph(url: str) -> Peer:
    """Open LangGraph's PostgresStore, which embeds texts itself: a table gives it the vector of each."""
    from langgraph.store.base import PutOp
    from langgraph.store.postgres import PostgresStore

    known: dict[str, Any] = {}
    index = {
        "dims": DIMENSIONS,
        "embed": lambda texts: [known[text] for text in texts],
        "fields": ["text"],
        "ann_index_config": {"kind": "hnsw", "vector_type": "vector"},
    }
    opened = ExitStack()
    store = opened.enter_context(PostgresStore.from_conn_string(url, index=index))
    store.setup()

    def add(docs: list[Doc]) -> None:
        known.update({doc["content"]: doc["embedding"] for doc in docs})
        puts = [PutOp(("docs",), str(doc["id"]), {**doc["metadata"], "text": doc["content"]}, None) for doc in docs]
        for begin in range(0, len(docs), 100):
            store.batch(puts[begin : begin + 100])

    def search(vector: Any, k: int, department: str | None) -> list[str]:
        known["asked"] = vector
        return [item.key for item in store.search(("docs",), query="asked", filter=equality(department), limit=k)]

    copy_values = """
        INSERT INTO store (prefix, key, value)
        SELECT 'docs', id::text, metadata || jsonb_build_object('text', content) FROM mem_docs
        ON CONFLICT DO NOTHING
    """
    copy_vectors = """
        INSERT INTO store_vectors (prefix, key, field_name, embedding)
        SELECT 'docs', id::text, 'text', embedding FROM mem_docs
        ON CONFLICT DO NOTHING
    """
    return Peer("store_vectors", (copy_values, copy_vectors), "prefix, key", "embedding", add, search, opened.close)


def llama_index(url: str) -> Peer:
    """Open LlamaIndex' PGVectorStore with the HNSW parameters of its manual."""
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import (
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
    )
    from llama_index.vector_stores.postgres import PGVectorStore

    store = PGVectorStore.from_params(
        connection_string=sqlalchemy_url(url, "psycopg2"),
        async_connection_string=sqlalchemy_url(url, "asyncpg"),
        table_name="bench_llama",
        embed_dim=DIMENSIONS,
        hybrid_search=True,
        text_search_config="english",
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40},
    )

    def add(docs: list[Doc]) -> None:
        store.add(
            [
                TextNode(id_=str(doc["id"]), text=doc["content"], metadata=doc["metadata"], embedding=doc["embedding"])
                for doc in docs
            ]
        )

    def search(vector: Any, k: int, department: str | None) -> list[str]:
        kept = None
        if department is not None:
            kept = MetadataFilters(filters=[MetadataFilter(key="department", value=department)])
        found = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=k, filters=kept))
        return [node.node_id for node in found.nodes]

    def hybrid(vector: Any, text: str, k: int) -> list[str]:
        # It lists what is near and then what has the words, and does not rank them together.
        half = k // 2
        asked = VectorStoreQuery(
            query_embedding=vector,
            query_str=text,
            similarity_top_k=half,
            sparse_top_k=half,
            mode=VectorStoreQueryMode.HYBRID,
        )
        return [node.node_id for node in store.query(asked).nodes]

    copy = """
        INSERT INTO data_bench_llama (text, metadata_, node_id, embedding)
        SELECT content, metadata::json, id::text, embedding FROM mem_docs AS m
        WHERE NOT EXISTS (SELECT FROM data_bench_llama AS l WHERE l.node_id = m.id::text)
    """

    def close() -> None:
        store._engine.dispose()  # noqa: SLF001  its own close() needs a loop

    return Peer("data_bench_llama", (copy,), "id, node_id, text, metadata_", "embedding", add, search, close, hybrid)


def mem0(url: str) -> Peer:
    """Open mem0's PGVector store, without the language model that stands before it."""
    from mem0.vector_stores.pgvector import PGVector

    table = "bench_mem0"
    store = PGVector(
        dbname=None,
        collection_name=table,
        embedding_model_dims=DIMENSIONS,
        user=None,
        password=None,
        host=None,
        port=None,
        diskann=False,
        hnsw=True,
        connection_string=url,
    )

    def add(docs: list[Doc]) -> None:
        payloads = [{**doc["metadata"], "data": doc["content"]} for doc in docs]
        store.insert([doc["embedding"] for doc in docs], payloads, [str(doc["id"]) for doc in docs])

    def search(vector: Any, k: int, department: str | None) -> list[str]:
        return [str(hit.id) for hit in store.search("", vector, top_k=k, filters=equality(department))]

    copy = """
        INSERT INTO bench_mem0 (id, vector, payload)
        SELECT id, embedding, metadata || jsonb_build_object('data', content) FROM mem_docs
        ON CONFLICT DO NOTHING
    """
    return Peer(table, (copy,), "id, payload", "vector", add, search, store.connection_pool.close)


def timescale(url: str) -> Peer:
    """Open timescale-vector with an HNSW index; the extension vectorscale, which it asks for, is not on the server."""
    from timescale_vector import client

    table = "bench_timescale"
    store = client.Sync(url, table, DIMENSIONS, max_db_connections=2)
    tables = store.builder.get_create_query().replace("CREATE EXTENSION IF NOT EXISTS vectorscale;", "")
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(tables)
    store.create_embedding_index(client.HNSWIndex())

    def add(docs: list[Doc]) -> None:
        store.upsert([(doc["id"], doc["metadata"], doc["content"], doc["embedding"]) for doc in docs])

    def search(vector: Any, k: int, department: str | None) -> list[str]:
        return [str(row["id"]) for row in store.search(vector, limit=k, filter=equality(department))]

    copy = """
        INSERT INTO bench_timescale (id, metadata, contents, embedding)
        SELECT id, metadata, content, embedding FROM mem_docs
        ON CONFLICT DO NOTHING
    """
    return Peer(table, (copy,), "id, metadata, contents", "embedding", add, search, store.close)


PEERS: dict[str, Callable[[str], Peer]] = {
    "langchain-postgres": langchain,
    "langgraph-checkpoint-postgres": langgraph,
    "llama-index-vector-stores-postgres": llama_index,
    "mem0ai": mem0,
    "timescale-vector": timescale,
}
"""By the name of the distribution on PyPI."""

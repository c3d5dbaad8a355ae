"""The agents' memory: documents with embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from peewee import SQL, Check

from myloware_store.core.enums import MemDocType
from myloware_store.orm.base import TenantEntity
from myloware_store.orm.fields import (
    BytesField,
    EmbeddingField,
    EnumField,
    JsonField,
    ParentKey,
    SearchField,
    TenantForeignKey,
    UuidField,
)
from myloware_store.orm.scalars import CheckedIntegerField, CheckedTextField, NameField, ServerDefault, TimestampField
from myloware_store.work.models import WorkItem

if TYPE_CHECKING:
    from myloware_store.orm.queries import Select

__all__ = ["MemDoc"]


class MemDoc(TenantEntity):
    """A document of an agent's memory. If it was made for an item, it is deleted with it."""

    if TYPE_CHECKING:
        work_item_id: UuidField[UUID | None]
        document_id: UuidField[UUID | None]
        chunks: Select[Any]

    work_item = TenantForeignKey(WorkItem, backref="mem_docs", null=True, help_text="The item that it was made for.")
    type = EnumField(MemDocType, help_text="Context of a task, general knowledge, or a template.")
    content = CheckedTextField(blank=False, help_text="The text.")
    embedding = EmbeddingField(null=True, help_text="Its vector; one of another length is padded with zeros.")
    embedding_model = NameField(null=True, help_text="The model that made the vector.")
    metadata = JsonField(kind=dict, default=dict, help_text="Data of the caller's, an object.")
    expires_at = TimestampField(null=True, help_text="Searches do not find it afterwards, and workers delete it.")
    # A long document has chunk_no 0 and no embedding; its chunks are numbered from 1. The trigger mem_docs_guard keeps
    # them in its tenant. A key over both columns would need a second unique index: an upsert that meets another one of
    # the same id fails on the index that it does not name.
    document: ParentKey[MemDoc | None] = ParentKey(  # type: ignore[call-overload]
        "self",
        backref="chunks",
        null=True,
        constraint_name="mem_docs_document_id_fkey",
        help_text="The long document that this is a chunk of.",
    )
    chunk_no = CheckedIntegerField(null=True, help_text="0 for a long document, from 1 for its chunks.")
    content_hash = BytesField(
        null=True,
        constraints=[SQL("GENERATED ALWAYS AS (content_sha256(content)) STORED")],
        help_text="SHA-256 of the text.",
    )
    search = SearchField(
        null=True,
        constraints=[SQL("GENERATED ALWAYS AS (content_search(content)) STORED")],
        help_text="The words of the text, for searches.",
    )
    # Not the transaction's time: searches compare exactly what was written since the index was built or measured.
    updated_at = TimestampField(
        constraints=[ServerDefault("statement_timestamp()")],
        help_text="When the row was last written, by the time of the statement.",
    )

    class Meta:
        table_name = "mem_docs"
        # Keeps the other columns of a row in line beside its vector, up to the size of a page.
        table_settings = ["WITH (toast_tuple_target = 8160)"]
        constraints = [
            Check("content <> '' AND (document_id IS NOT NULL) = (COALESCE(chunk_no, 0) > 0)", "mem_docs_check"),
        ]
        indexes = [
            SQL("CREATE INDEX mem_docs_tenant_id_work_item_id_type_idx ON mem_docs (tenant_id, work_item_id, type)"),
            SQL("CREATE INDEX mem_docs_tenant_id_type_created_at_idx ON mem_docs (tenant_id, type, created_at)"),
            SQL("CREATE INDEX mem_docs_tenant_id_content_hash_idx ON mem_docs (tenant_id, content_hash)"),
            SQL("CREATE INDEX mem_docs_created_at_idx ON mem_docs (created_at, id, tenant_id)"),
            SQL("CREATE INDEX mem_docs_updated_at_idx ON mem_docs (updated_at, id, tenant_id)"),
            SQL("CREATE INDEX mem_docs_expires_at_idx ON mem_docs (expires_at) WHERE expires_at IS NOT NULL"),
            SQL(
                "CREATE INDEX mem_docs_missing_embedding_idx ON mem_docs (created_at, id)"
                " WHERE embedding IS NULL AND chunk_no IS DISTINCT FROM 0"
            ),
            SQL(
                "CREATE INDEX mem_docs_embedding_model_idx ON mem_docs (embedding_model, created_at, id)"
                " WHERE embedding IS NOT NULL"
            ),
            SQL("CREATE INDEX mem_docs_embedding_idx ON mem_docs USING ivfflat (embedding vector_cosine_ops)"),
            SQL(
                "CREATE INDEX mem_docs_document_id_idx ON mem_docs (document_id, chunk_no)"
                " WHERE document_id IS NOT NULL"
            ),
            SQL("CREATE INDEX mem_docs_search_idx ON mem_docs USING gin (search)"),
            SQL("CREATE INDEX mem_docs_metadata_idx ON mem_docs USING gin (metadata jsonb_path_ops)"),
        ]

"""Memory documents on their way in, checked."""

from __future__ import annotations

from typing import Any

from uuid_utils.compat import uuid7

from myloware_store.enums import MemDocType
from myloware_store.errors import InvalidInput
from myloware_store.repositories.base import as_enum, as_object, as_uuid, known_keys
from myloware_store.values import MAX_TEXT_BYTES, dump_json, require_text
from myloware_store.vectors import encode_text

__all__ = ["checked"]

_KEYS = ("id", "type", "content", "embedding", "metadata", "work_item_id")


def checked(doc: Any) -> dict[str, Any]:
    """Return a document with every value in the form in which it is sent, or raise InvalidInput or InvalidVector."""
    row = known_keys(doc, _KEYS, "doc")
    for key in ("type", "content"):
        if key not in row:
            raise InvalidInput(f"doc: it needs a {key}")
    item_id = row.get("work_item_id")
    embedding = row.get("embedding")
    return {
        "id": str(uuid7() if row.get("id") is None else as_uuid(row["id"], "id")),
        "type": as_enum(row["type"], MemDocType, "type").value,
        "content": require_text(row["content"], "content", blank=False, max_bytes=MAX_TEXT_BYTES),
        "embedding": None if embedding is None else encode_text(embedding),
        "metadata": dump_json(as_object(row.get("metadata"), "metadata"), "metadata"),
        "work_item_id": None if item_id is None else str(as_uuid(item_id, "work_item_id")),
    }

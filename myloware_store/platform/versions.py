"""The base of schemas and workflow templates: versions of a name, of which one at most is active."""

from __future__ import annotations

import builtins
from typing import Any, ClassVar, Generic, TypeVar

from myloware_store.core.arguments import as_count, as_flag, as_name
from myloware_store.core.sql import queries_beside
from myloware_store.orm.repository import Repository
from myloware_store.platform.models import Schema, WorkflowTemplate

__all__ = ["Versions"]

_sql = queries_beside(__file__)

_Version = TypeVar("_Version", Schema, WorkflowTemplate)


class Versions(Repository, Generic[_Version]):
    """Versions of a name; all tenants share them."""

    _model: ClassVar[Any]

    def _activate(self, wanted: str, values: dict[str, str]) -> builtins.list[_Version]:
        """Make the version that meets a condition the active one of its name, and return it; empty if there is none."""
        table = self._model._meta.table_name
        sql = _sql("activate").format(table=table, wanted=wanted)
        return self._stored(self._model, sql, values, contested=f"{table}_active_idx")

    def deactivate(self, name: str) -> bool:
        """Deactivate the active version of a name.

        Args:
            name: The name.

        Returns:
            Whether a version was active.

        Raises:
            InvalidInput: The name is not such a text.
        """
        model = self._model
        query = model.update(is_active=False).where(model.name == as_name(name, "name"), model.is_active)
        return bool(query.bind(self._db).execute())

    def list(
        self,
        *,
        name: str | None = None,
        document_type: str | None = None,
        active: bool | None = None,
        limit: int = 100,
    ) -> builtins.list[_Version]:
        """Return versions by name, newest first.

        Args:
            name: Only versions of this name.
            document_type: Only versions for this type of document; several names may be active for one type.
            active: True for active versions only, False for the others only.
            limit: Most versions to return (1 to 100,000).

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        model = self._model
        query: Any = self._select(model)
        if name is not None:
            query = query.where(model.name == as_name(name, "name"))
        if document_type is not None:
            query = query.where(model.document_type == as_name(document_type, "document_type"))
        if active is not None:
            query = query.where(model.is_active == as_flag(active, "active"))
        query = query.order_by(model.name, model.created_at.desc(), model.id.desc())
        return [*query.limit(as_count(limit, "limit"))]

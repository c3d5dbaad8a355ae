"""Workflow templates: versions of a name, of which one at most is active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import orjson

from myloware_store.core.arguments import as_enum, as_name, as_text, as_uuid, require_object
from myloware_store.core.enums import WorkItemType, WorkItemTypeLabel
from myloware_store.core.errors import NotFound, VersionConflict
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json
from myloware_store.platform.models import WorkflowTemplate
from myloware_store.platform.versions import Versions

__all__ = ["Templates"]

_sql = queries_beside(__file__)


class Templates(Versions[WorkflowTemplate]):
    """Reusable workflows; all tenants share them."""

    _model = WorkflowTemplate

    def register(
        self,
        name: str,
        document_type: WorkItemType | WorkItemTypeLabel,
        workflow_definition: Mapping[str, Any],
        *,
        description: str | None = None,
    ) -> WorkflowTemplate:
        """Store a template, not active yet. Registering the same contents again returns the first, active or not.

        The id is made from the contents (a UUIDv5), so several services that register it at their start create one row.

        Args:
            name: The name of the workflow; templates of one name are its versions.
            document_type: The type of work items that it is for.
            workflow_definition: The steps, a JSON object of any form, 4 MiB at most.
            description: What it does.

        Returns:
            The stored template.

        Raises:
            InvalidInput: An argument cannot be stored.
            VersionConflict: The template that was stored with these contents has been changed since.
        """
        definition = require_object(workflow_definition, "workflow_definition")
        values = {
            "name": as_name(name, "name"),
            "document_type": as_enum(document_type, WorkItemType, "document_type").value,
            "description": as_text(description, "description"),
            "definition": dump_json(definition, "workflow_definition"),
        }
        contents = orjson.dumps({**values, "definition": definition}, option=orjson.OPT_SORT_KEYS).decode()
        rows = self._stored(
            WorkflowTemplate, _sql("register_template"), {"id": str(uuid5(NAMESPACE_OID, contents)), **values}
        )
        if not rows:
            raise VersionConflict(f"template {name} was registered with these contents, and changed since")
        return rows[0]

    def activate(self, template_id: WorkflowTemplate | UUID | str) -> WorkflowTemplate:
        """Make a template the active one of its name. Concurrent calls leave exactly one active.

        Args:
            template_id: Its id, or the template that `register` returned. (Several templates may have one name.)

        Returns:
            The template as stored.

        Raises:
            InvalidInput: It is neither, such as a name.
            NotFound: The template does not exist; the active one stays active.
        """
        values = {"id": str(as_uuid(template_id, "template_id (what `register` returned, or its id)"))}
        rows = self._activate("id = %(id)s", values)
        if not rows:
            raise NotFound(f"there is no workflow template {values['id']}")
        return rows[0]

    def active(self, name: str) -> WorkflowTemplate | None:
        """Return the active template of a name, or None.

        Args:
            name: The name of the workflow.

        Raises:
            InvalidInput: The name is not such a text.
        """
        named = WorkflowTemplate.name == as_name(name, "name")
        return self._select(WorkflowTemplate).where(named, WorkflowTemplate.is_active).first()

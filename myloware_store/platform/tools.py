"""Tools, which agents call through connectors, and the capabilities granted to them."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_count, as_flag, as_list, as_name, as_text
from myloware_store.core.errors import NotFound
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json
from myloware_store.orm.repository import Repository, named_or_id
from myloware_store.platform.audit import Audit
from myloware_store.platform.json_schemas import as_json_schema
from myloware_store.platform.models import Capability, Connector, Tool, ToolCapability

__all__ = ["Capabilities", "Tools"]

_sql = queries_beside(__file__)


class Tools(Repository):
    """Tools, by name within the tenant in force (else the settings' tenant).

    Methods take the name, id or row of a tool, connector or capability.
    """

    def register(
        self,
        name: str,
        connector: Connector | UUID | str,
        *,
        description: str | None = None,
        schema: Mapping[str, Any] | None = None,
        is_active: bool | None = None,
    ) -> Tool:
        """Store a tool in the tenant of its connector, or update the one of this name.

        An existing tool keeps its id and its grants. Its connector is replaced; everything else is replaced only if
        given.

        Args:
            name: Its name, unique within the tenant.
            connector: The connector that it is called through.
            description: What it does, for the agents.
            schema: A JSON Schema of its arguments; by default `{}` for a new tool, which allows anything.
            is_active: Whether it may be used at all; by default True for a new tool.

        Returns:
            The stored tool.

        Raises:
            NotFound: The connector does not exist, or is another tenant's.
            InvalidInput: The schema is not a valid JSON Schema, or another argument cannot be stored.
        """
        connector_id, owner, connector_name = named_or_id(connector, "connector")
        values = {
            "id": str(uuid7()),
            "owner": owner,
            "connector_id": connector_id,
            "connector_name": connector_name,
            "name": as_name(name, "name"),
            "description": as_text(description, "description"),
            "schema": None if schema is None else dump_json(as_json_schema(schema, "schema"), "schema"),
            "is_active": None if is_active is None else as_flag(is_active, "is_active"),
        }
        rows = self._stored(Tool, _sql("register_tool"), values)
        if not rows:
            raise NotFound(f"there is no connector {connector_name or connector_id}")
        return rows[0]

    def grant(self, tool: Tool | UUID | str, capability: Capability | UUID | str) -> bool:
        """Grant a capability to a tool.

        Args:
            tool: The tool.
            capability: The capability.

        Returns:
            Whether the grant is new.

        Raises:
            NotFound: The tool does not exist or is another tenant's, or the capability does not exist.
        """
        return self._of_pair("grant", tool, capability)

    def revoke(self, tool: Tool | UUID | str, capability: Capability | UUID | str) -> bool:
        """Take a capability from a tool.

        Args:
            tool: The tool.
            capability: The capability.

        Returns:
            Whether the tool had it.

        Raises:
            NotFound: The tool does not exist or is another tenant's, or the capability does not exist.
        """
        return self._of_pair("revoke", tool, capability)

    def allowed(self, tool: Tool | UUID | str, capability: Capability | UUID | str) -> bool:
        """Return whether a tool may use a capability now.

        It may if it has the grant, is active, and its connector is not INACTIVE. A connector whose last health check
        failed (ERROR) does not matter: an outage is not a question of permission. A refusal is recorded in the audit
        trail, with the action `refuse`.

        Args:
            tool: The tool. If it does not exist or is another tenant's, the answer is False.
            capability: The capability. If it does not exist, the answer is False.

        Raises:
            InvalidInput: An argument is not a name, id or row.
        """
        pair = _pair(tool, capability)
        ((allowed,),) = self._rows(_sql("tool_and_capability") + _sql("allowed"), pair, reads=True)
        if not allowed:
            details = {"capability": pair["capability_name"] or pair["capability_id"]}
            Audit(self._db).record("refuse", "tools", pair["tool_name"] or pair["tool_id"] or "", details=details)
        return bool(allowed)

    def list(
        self,
        *,
        connector: Connector | UUID | str | None = None,
        capability: Capability | UUID | str | None = None,
        limit: int = 100,
    ) -> builtins.list[Tool]:
        """Return tools by name, active or not.

        Args:
            connector: Only tools of this connector.
            capability: Only tools that have this capability.
            limit: Most tools to return (1 to 100,000).

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        query = self._select(Tool)
        if connector is not None:
            # Index: tools_connector_id_idx, connectors_tenant_id_name_key.
            row_id, owner, name = named_or_id(connector, "connector")
            named = Connector.select(Connector.id).where(Connector.tenant_id == owner, Connector.name == name)
            query = query.where(Tool.connector.in_(named) if name else Tool.connector == row_id)
        if capability is not None:
            row_id, _, name = named_or_id(capability, "capability")
            wanted = Capability.name == name if name else Capability.id == row_id
            granted = ToolCapability.select(ToolCapability.tool).join(Capability).where(wanted)
            query = query.where(Tool.id.in_(granted))
        return [*query.order_by(Tool.name, Tool.tenant_id).limit(as_count(limit, "limit"))]

    def _of_pair(self, name: str, tool: Any, capability: Any) -> bool:
        rows = self._rows(_sql("tool_and_capability") + _sql(name), _pair(tool, capability))
        if not rows:
            named = [name or row_id for row_id, _, name in (named_or_id(tool, "tool"), named_or_id(capability, ""))]
            raise NotFound(f"there is no tool {named[0]}, or no capability {named[1]}")
        return bool(rows[0][0])


class Capabilities(Repository):
    """Permissions that tools can be granted; all tenants share them."""

    def register(
        self, name: str, scope: str, permissions: Iterable[str] = (), *, description: str | None = None
    ) -> Capability:
        """Store a capability, or replace the scope and permissions of the one of this name.

        Args:
            name: Its name, such as `records.read`.
            scope: The kind of thing that it is about, such as `records`.
            permissions: The permissions, such as `read`, `search`.
            description: What it is for; by default the stored description stays.

        Returns:
            The stored capability.

        Raises:
            InvalidInput: An argument cannot be stored.
        """
        permitted = [as_name(permission, "permissions") for permission in as_list(permissions, "permissions")]
        values = {
            "id": str(uuid7()),
            "name": as_name(name, "name"),
            "scope": as_name(scope, "scope"),
            "description": as_text(description, "description"),
            "permissions": dump_json(permitted, "permissions"),
        }
        return self._stored(Capability, _sql("register_capability"), values)[0]

    def list(self, *, scope: str | None = None, limit: int = 100) -> builtins.list[Capability]:
        """Return capabilities by name.

        Args:
            scope: Only capabilities of this scope.
            limit: Most capabilities to return (1 to 100,000).

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        query = self._select(Capability)
        if scope is not None:
            query = query.where(Capability.scope == as_name(scope, "scope"))
        return [*query.order_by(Capability.name).limit(as_count(limit, "limit"))]


def _pair(tool: Any, capability: Any) -> dict[str, str | None]:
    tool_id, owner, tool_name = named_or_id(tool, "tool")
    capability_id, _, capability_name = named_or_id(capability, "capability")
    return {
        "owner": owner,
        "tool_id": tool_id,
        "tool_name": tool_name,
        "capability_id": capability_id,
        "capability_name": capability_name,
    }

"""Connectors: the systems outside that a tenant's agents reach, and whether they answer."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from psycopg2.extras import Json
from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_count, as_enum, as_name, require_object
from myloware_store.core.enums import ConnectorStatus, ConnectorType
from myloware_store.core.errors import InvalidInput, NotFound
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json
from myloware_store.db.transactions import require_plain
from myloware_store.orm.repository import Repository, named_or_id, writer
from myloware_store.platform.models import Connector

__all__ = ["Connectors"]

_logger = logging.getLogger(__name__)
_sql = queries_beside(__file__)


class Connectors(Repository):
    """Systems outside, by name within a tenant: the one in force, else the settings'.

    A connector is named by its name, or by its id or row. A `config` may hold secrets: no representation, log line or
    error shows it.
    """

    def register(
        self,
        name: str,
        type: ConnectorType | str,  # noqa: A002  as the column is called
        *,
        config: Mapping[str, Any] | None = None,
        status: ConnectorStatus | str | None = None,
    ) -> Connector:
        """Store a connector, or change the one of this name.

        Registered again, a connector keeps its id, its tools and its last health check. Its type becomes the one given;
        its config and status are replaced where they are given, and stay where they are not.

        Args:
            name: Its name, one of its tenant's.
            type: What kind of system it is.
            config: How to reach it, a JSON object, 4 MiB at most; by default `{}` for a new one.
            status: Its status; by default INACTIVE for a new one.

        Raises:
            InvalidInput: One of them cannot be stored.
        """
        if not isinstance(type, str):  # a config that was given in its place is not shown
            raise InvalidInput(f"type: not one of {', '.join(ConnectorType)}")
        values = {
            "id": str(uuid7()),
            "owner": writer()[0],
            "name": as_name(name, "name"),
            "type": as_enum(type, ConnectorType, "type").value,
            "config": None if config is None else _secret(require_object(config, "config")),
            "status": None if status is None else as_enum(status, ConnectorStatus, "status").value,
        }
        return self._stored(Connector, _sql("register_connector"), values)[0]

    def get(self, connector: Connector | UUID | str) -> Connector:
        """Return a connector.

        Args:
            connector: Its name, id or row.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        row_id, owner, name = named_or_id(connector, "connector")
        wanted = (Connector.tenant_id == owner) & (Connector.name == name) if name else Connector.id == row_id
        found: Connector | None = self._select(Connector).where(wanted).first()
        if found is None:
            raise _not_found(row_id, name)
        return found

    def list(
        self,
        *,
        type: ConnectorType | str | None = None,  # noqa: A002  as the column is called
        status: ConnectorStatus | str | None = None,
        limit: int = 100,
    ) -> builtins.list[Connector]:
        """Return connectors by name.

        Args:
            type: Only those of this kind.
            status: Only those of this status.
            limit: Most connectors to return (1 to 100,000).
        """
        query = self._select(Connector)
        if type is not None:
            query = query.where(Connector.type == as_enum(type, ConnectorType, "type"))
        if status is not None:
            query = query.where(Connector.status == as_enum(status, ConnectorStatus, "status"))
        return [*query.order_by(Connector.name, Connector.tenant_id).limit(as_count(limit, "limit"))]

    def record_health(self, connector: Connector | UUID | str, status: ConnectorStatus | str) -> Connector:
        """Record the outcome of a health check: the status, and when, by the database's clock.

        Args:
            connector: Its name, id or row.
            status: What the check found.

        Raises:
            NotFound: There is no such connector, or it is another tenant's.
        """
        return self._record(connector, as_enum(status, ConnectorStatus, "status"), None)

    def check(self, connector: Connector | UUID | str, probe: Callable[[Connector], Any]) -> Connector:
        """Run a health check and record its outcome: ACTIVE, or ERROR where it raised or returned False.

        Nothing is recorded where the type or config was changed, or the connector switched off (INACTIVE), while the
        check ran: the outcome says nothing of what is there now. Call it outside of transactions, which would wait for
        the check as well.

        Args:
            connector: Its name, id or row.
            probe: Called with the connector. Of what it raises only the kind is logged: messages may quote the config.

        Returns:
            The connector as it is stored afterwards.

        Raises:
            NotFound: There is no such connector, or it is another tenant's; also where it went away meanwhile.
            InvalidInput: The probe is no plain function.
        """
        require_plain(probe, "probe")
        probed = self.get(connector)
        # The probe may do with the row what it likes.
        before = {"probed_type": probed.type, "probed_config": _secret(probed.config), "probed_status": probed.status}
        row_id, name = probed.id, probed.name
        try:
            healthy = probe(probed) is not False
        except Exception as error:  # noqa: BLE001  whatever it raises, the connector does not answer
            _logger.warning("connector %s: its health check raised %s", name, error.__class__.__name__)
            healthy = False
        return self._record(row_id, ConnectorStatus.ACTIVE if healthy else ConnectorStatus.ERROR, before)

    def _record(self, connector: Any, status: ConnectorStatus, probed: dict[str, Any] | None) -> Connector:
        row_id, owner, name = named_or_id(connector, "connector")
        before = probed or {"probed_type": None, "probed_config": None, "probed_status": None}
        values = {"id": row_id, "owner": owner, "name": name, "status": status.value, **before}
        rows = self._stored(Connector, _sql("record_health"), values)
        if rows:
            return rows[0]
        if probed is None:
            raise _not_found(row_id, name)
        return self.get(connector)


def _secret(config: Mapping[str, Any]) -> Json:
    """Return what psycopg2 sends as JSON; its representation shows nothing of it."""
    text = dump_json(config, "config")
    return Json(None, dumps=lambda _: text)


def _not_found(row_id: str | None, name: str | None) -> NotFound:
    return NotFound(f"there is no connector {name or row_id}")

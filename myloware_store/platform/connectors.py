"""Connectors: the external systems that a tenant's agents use, and their health."""

from __future__ import annotations

import builtins
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_count, as_enum, as_name, require_object
from myloware_store.core.enums import ConnectorStatus, ConnectorStatusLabel, ConnectorType, ConnectorTypeLabel
from myloware_store.core.errors import InvalidInput, NotFound, TransactionConflict
from myloware_store.core.quiet import FramesDropped, Hidden
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json
from myloware_store.db.transactions import require_plain
from myloware_store.orm.repository import Repository, named_or_id, stored_row, writer
from myloware_store.platform.models import Connector
from myloware_store.platform.secrets import Place, leaves, marked_by, revealed, seal

__all__ = ["Connectors"]

_logger = logging.getLogger(__name__)
_sql = queries_beside(__file__)
_TRIES = 20


class Connectors(Repository):
    """External systems, by name within the tenant in force (else the settings' tenant).

    Methods take a connector's name, id or row. The secrets in a `config` are stored encrypted, and connectors that are
    returned have masks in place of them. Representations, log lines and errors show nothing of a config.
    """

    def register(
        self,
        name: str,
        type: ConnectorType | ConnectorTypeLabel,  # noqa: A002  as the column is called
        *,
        config: Mapping[str, Any] | None = None,
        status: ConnectorStatus | ConnectorStatusLabel | None = None,
    ) -> Connector:
        """Store a connector, or update the one of this name.

        An existing connector keeps its id, its tools and its last health check. Its type is replaced; its config and
        status are replaced only if given. A mask in the config keeps the secret that it stands for.

        Args:
            name: Its name, unique within the tenant.
            type: The kind of system.
            config: How to reach it, a JSON object, 4 MiB at most; by default `{}` for a new connector.
            status: Its status; by default INACTIVE for a new connector.

        Returns:
            The stored connector, with masks in place of its secrets.

        Raises:
            InvalidInput: An argument cannot be stored, or a mask stands for no secret of the connector.
            MissingKey: The config contains a secret, and there is no key to encrypt it.
            TransactionConflict: Others changed the connector again and again in the meantime.
        """
        given = Hidden(config)
        del config
        with FramesDropped():
            if not isinstance(type, str):  # do not show a config that was passed by mistake
                raise InvalidInput(f"type: not one of {', '.join(ConnectorType)}")
            values = {
                "id": str(uuid7()),
                "owner": writer()[0],
                "name": as_name(name, "name"),
                "type": as_enum(type, ConnectorType, "type").value,
                "config": None,
                "status": None if status is None else as_enum(status, ConnectorStatus, "status").value,
                "bound": False,
                "seen": None,
            }
            if given.value is None:
                return self._stored(Connector, _sql("register_connector"), values)[0]
            return self._register(values, given)

    def get(self, connector: Connector | UUID | str) -> Connector:
        """Return a connector.

        Args:
            connector: Its name, id or row.

        Raises:
            NotFound: The connector does not exist, or is another tenant's.
        """
        row_id, owner, name = named_or_id(connector, "connector")
        wanted = (Connector.tenant_id == owner) & (Connector.name == name) if name else Connector.id == row_id
        found = self._select(Connector).where(wanted).first()
        if found is None:
            raise _not_found(row_id, name)
        return found

    def list(
        self,
        *,
        type: ConnectorType | ConnectorTypeLabel | None = None,  # noqa: A002  as the column is called
        status: ConnectorStatus | ConnectorStatusLabel | None = None,
        limit: int = 100,
    ) -> builtins.list[Connector]:
        """Return connectors by name.

        Args:
            type: Only connectors of this kind.
            status: Only connectors of this status.
            limit: Most connectors to return (1 to 100,000).

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        query = self._select(Connector)
        if type is not None:
            query = query.where(Connector.type == as_enum(type, ConnectorType, "type"))
        if status is not None:
            query = query.where(Connector.status == as_enum(status, ConnectorStatus, "status"))
        return [*query.order_by(Connector.name, Connector.tenant_id).limit(as_count(limit, "limit"))]

    def record_health(
        self, connector: Connector | UUID | str, status: ConnectorStatus | ConnectorStatusLabel
    ) -> Connector:
        """Record the outcome of a health check: the status, and the database's time.

        Args:
            connector: Its name, id or row.
            status: The new status.

        Returns:
            The connector as stored.

        Raises:
            InvalidInput: The status is not a `ConnectorStatus`.
            NotFound: The connector does not exist, or is another tenant's.
        """
        return self._record(connector, as_enum(status, ConnectorStatus, "status"), None)

    def reveal(self, connector: Connector | UUID | str) -> dict[str, Any]:
        """Return the config of a connector with its secrets in the clear, for the one who connects.

        Args:
            connector: Its name, id or row.

        Returns:
            The config. References (`secret://...`) are resolved.

        Raises:
            NotFound: The connector does not exist, or is another tenant's.
            MissingKey: The key of a secret is missing.
            UnreadableSecret: A secret does not open: it was altered or moved, or the key is wrong.
            SecretsError: A reference cannot be resolved.
        """
        with FramesDropped():
            return self._revealed(*self._read(connector))

    def check(self, connector: Connector | UUID | str, probe: Callable[[Connector], Any]) -> Connector:
        """Run a health check and record its outcome: ACTIVE, or ERROR if it raises or returns False.

        Nothing is recorded if the type or config was changed, or the connector set INACTIVE, while the check ran: the
        outcome is then about something else. Call it outside of transactions, which would stay open during the check.

        Args:
            connector: Its name, id or row.
            probe: A plain function, called with the connector, whose config has the secrets in the clear. If it raises,
                only the type of the exception is logged, because messages may quote the config.

        Returns:
            The connector as stored afterwards.

        Raises:
            NotFound: The connector does not exist, is another tenant's, or was deleted during the check.
            InvalidInput: The probe is not a plain function.
            SecretsError: A secret cannot be read, as by `reveal`; nothing was recorded.
        """
        require_plain(probe, "probe")
        probed, stored = self._read(connector)
        # The probe may change the row.
        before = {"probed_type": probed.type, "probed_config": stored, "probed_status": probed.status}
        row_id, name = probed.id, probed.name
        with FramesDropped():
            probed.__data__["config"] = self._revealed(probed, stored)
        try:
            healthy = probe(probed) is not False
        except Exception as error:  # noqa: BLE001  any exception: the check failed
            _logger.warning("connector %s: its health check raised %s", name, error.__class__.__name__)
            healthy = False
        return self._record(row_id, ConnectorStatus.ACTIVE if healthy else ConnectorStatus.ERROR, before)

    def _register(self, values: dict[str, Any], given: Hidden) -> Connector:
        config = json.loads(dump_json(require_object(given.value, "config"), "config"))
        for _ in range(_TRIES):
            (seen,) = self._named(_sql("connector_to_register"), values, reads=True)
            row_id = values["id"] if seen["id"] is None else seen["id"]
            stored = None if seen["id"] is None else json.loads(seen["config"])
            marked = marked_by(seen["definitions"], config)
            secrets = self._db.settings.secrets
            sealed = seal(config, Place(values["owner"], row_id), secrets, marked=marked, stored=stored)
            found = leaves(sealed, secrets)
            bound = sealed != config or any(leaf.sealed for leaf in found)
            told = {"id": row_id, "config": dump_json(sealed, "config"), "bound": bound, "seen": seen["config"]}
            rows = self._stored(Connector, _sql("register_connector"), {**values, **told})
            if rows:
                return rows[0]
        raise TransactionConflict("others changed the connector in the meantime, again and again; run it again")

    def _read(self, connector: Any) -> tuple[Connector, str]:
        """Return a connector, and its config as JSON text as it is stored."""
        row_id, owner, name = named_or_id(connector, "connector")
        rows = self._named(_sql("read_connector"), {"id": row_id, "owner": owner, "name": name}, reads=True)
        if not rows:
            raise _not_found(row_id, name)
        return stored_row(Connector, rows[0]), rows[0]["stored"]

    def _revealed(self, connector: Connector, stored: str) -> dict[str, Any]:
        place = Place(connector.tenant_id, str(connector.id))
        return revealed(json.loads(stored), place, self._db.settings.secrets)

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


def _not_found(row_id: str | None, name: str | None) -> NotFound:
    return NotFound(f"there is no connector {name or row_id}")

"""The column `config` of connectors, whose secrets are encrypted before SQL and masked when they are read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import peewee
from psycopg2.extras import Json
from uuid_utils.compat import uuid7

from myloware_store.core.enums import ConnectorType
from myloware_store.core.errors import InvalidInput, NotFound
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json, require_uuid
from myloware_store.db.proxy import StoreProxy, secrets_of
from myloware_store.orm.fields import JsonField
from myloware_store.orm.scalars import field_name, passes
from myloware_store.platform.secrets import Path, Place, Sealed, marked_by, masked, refuse_open, seal

if TYPE_CHECKING:
    from myloware_store.orm.base import BaseModel
    from myloware_store.settings.secrets import Secrets

__all__ = ["ConfigField", "sealed_to_insert", "sealed_to_update"]

_sql = queries_beside(__file__)


class ConfigField(JsonField[dict[str, Any]]):
    """A `jsonb` object with secrets. It returns masks in place of them, and stores only configs that were sealed.

    Statements that are for no certain row, such as `Connector.update(...)`, may write a config without secrets. A
    condition must not contain a secret either, since it could not match, and would show it to the server.
    """

    bulky = False  # every write returns it, with masks
    of_one_row = True

    @property
    def secrets(self) -> Secrets:
        """The keys and names of the database that the model is bound to."""
        return secrets_of(self.model._meta.database)

    def python_value(self, value: Any) -> Any:
        return masked(value, self.secrets)  # psycopg2 has parsed it

    def check(self, value: Any) -> Any:
        return super().check(self._without_secrets(value))

    def operand(self, value: Any) -> Any:
        return super().operand(self._without_secrets(value))

    def dump(self, value: Any) -> str:
        # psycopg2 calls it while it sends a statement, so this cannot look up a schema.
        if value and not isinstance(value, Sealed):
            refuse_open(value, self.secrets)
        return super().dump(value)

    def path(self, *keys: Any) -> Any:
        """Return the expression for a value in the config that is no secret."""
        return _Path(self, keys)

    def __getitem__(self, key: Any) -> Any:
        return self.path(key)

    def _without_secrets(self, value: Any) -> Any:
        value = value.adapted if isinstance(value, Json) else value
        if value and not isinstance(value, Sealed):
            plain = _plain(value)
            refuse_open(plain, self.secrets, _marked(self.model, plain, *ConnectorType))
        return value


class _Path(peewee.JSONPath):
    """A path into a config. It must not lead to a secret: only the ciphertext could be compared, or be replaced."""

    def __init__(self, field: ConfigField, keys: Any = (), as_text: bool = False) -> None:  # noqa: FBT001, FBT002
        super().__init__(field, keys, as_text)
        if secret := next(filter(field.secrets.marks, keys), None):
            raise InvalidInput(f"{field_name(field)}: {secret} is a secret: connectors.reveal() returns it")


def sealed_to_insert(model: type[BaseModel], row: dict[Any, Any]) -> dict[Any, Any]:
    """Return the values by field to insert, with the secrets of the config encrypted for the new row.

    If the tenant or the id is an SQL expression, the config stays as it is, and the field refuses secrets.
    """
    fields = model._meta.fields
    config = row.get(fields["config"])
    if passes(config) or isinstance(config, Sealed):
        return row
    row_id = row.setdefault(fields["id"], uuid7())
    tenant_id, kind = row[fields["tenant_id"]], row.get(fields["type"])
    plain = _plain(config)
    marked = _marked(model, plain, kind)
    if isinstance(tenant_id, str) and not isinstance(row_id, peewee.Node):
        place = Place(tenant_id, str(require_uuid(row_id, "id")))
        row[fields["config"]] = seal(plain, place, secrets_of(model._meta.database), marked=marked)
    return row


def sealed_to_update(instance: BaseModel, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values to update a stored row with, with the secrets of the config encrypted for it.

    Raises:
        NotFound: The row no longer exists.
    """
    config = values.get("config")
    if passes(config):
        return values
    database = instance._meta.database
    found = database.execute_sql(_sql("lock_connector"), {"id": str(instance._pk)}).fetchone()
    if found is None:
        raise NotFound(f"{type(instance).__name__} {instance._pk}: no such row to update")
    tenant_id, kind, stored = found
    plain = _plain(config)
    marked = _marked(type(instance), plain, instance.__data__.get("type") or kind)
    place = Place(tenant_id, str(instance._pk))
    sealed = seal(plain, place, secrets_of(database), marked=marked, stored=json.loads(stored))
    return {**values, "config": sealed}


def _plain(config: Any) -> Any:
    """Return a config as its JSON says, or raise InvalidInput."""
    return json.loads(dump_json(config.adapted if isinstance(config, Json) else config, "config"))


def _marked(model: Any, config: Any, *types: Any) -> frozenset[Path]:
    """Return the paths of the secrets that the active schemas of some types of connectors declare."""
    database = model._meta.database
    labels = [str(kind) for kind in types if isinstance(kind, str)]
    if not (config and labels) or (isinstance(database, StoreProxy) and database.obj is None):
        return frozenset()
    rows = database.execute_sql(_sql("definitions_of_types"), {"types": labels}, reads=True).fetchall()
    return marked_by([definition for (definition,) in rows], config)

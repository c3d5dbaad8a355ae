"""The keys that encrypt the secrets of all connectors, and their encryption with the current one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs

from myloware_store.core.errors import SecretsError, SettingsError
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json
from myloware_store.platform.secrets import Leaf, Place, leaves, marked_by, opened, resealed

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

__all__ = ["Problem", "Rotation", "SecretsStatus", "rotate", "status"]

_sql = queries_beside(__file__)
_BATCH = 500
_DAMAGED = "damaged"


@attrs.frozen
class Problem:
    """A connector with a secret that cannot be read.

    Attributes:
        tenant_id: Its tenant.
        connector: Its name.
        reason: Why, without any part of the secret.
    """

    tenant_id: str
    connector: str
    reason: str


@attrs.frozen
class SecretsStatus:
    """How the secrets of the connectors are stored.

    Attributes:
        current: The id of the key that encrypts; None without keys.
        keys: How many connectors have secrets that a key encrypts, by its id.
        unencrypted: How many connectors have secrets that are not encrypted.
        unreadable: The connectors with secrets that do not open.
    """

    current: str | None
    keys: dict[str, int]
    unencrypted: int
    unreadable: tuple[Problem, ...]

    @property
    def stale(self) -> bool:
        """Whether a secret is unencrypted, or encrypted with another key than the current one, or does not open."""
        return bool(self.unencrypted or self.unreadable or self.keys.keys() - {self.current})


@attrs.frozen
class Rotation:
    """What was encrypted with the current key.

    Attributes:
        current: The id of the key.
        connectors: How many connectors were changed.
        secrets: How many secrets of theirs.
        unreadable: The connectors that stay as they are, since a secret of theirs does not open.
    """

    current: str
    connectors: int
    secrets: int
    unreadable: tuple[Problem, ...]


@attrs.frozen
class _Row:
    """A connector as it is stored."""

    row_id: UUID
    tenant_id: str
    name: str
    kind: str
    config: str = attrs.field(repr=False)

    @property
    def place(self) -> Place:
        return Place(self.tenant_id, str(self.row_id))


class _Connectors:
    """The connectors of a database."""

    def __init__(self, database: StoreDatabase) -> None:
        self.database = database
        self.secrets = database.settings.secrets
        self._definitions: dict[str, list[dict[str, Any]]] = {}

    def __iter__(self) -> Iterator[_Row]:
        after = UUID(int=0)
        while batch := self._read("connectors_after", after=str(after), limit=_BATCH):
            yield from batch
            after = batch[-1].row_id

    def again(self, row: _Row) -> _Row | None:
        return next(iter(self._read("connector_again", id=str(row.row_id))), None)

    def leaves(self, row: _Row) -> list[Leaf]:
        config = json.loads(row.config)
        if row.kind not in self._definitions:
            found = self.database.execute_sql(_sql("definitions_of_types"), {"types": [row.kind]}, reads=True)
            self._definitions[row.kind] = [definition for (definition,) in found]
        return list(leaves(config, self.secrets, marked_by(self._definitions[row.kind], config)))

    def replace(self, row: _Row, fresh: list[tuple[Leaf, dict[str, str]]]) -> bool:
        """Replace secrets, unless the connector was changed since it was read."""
        config = "config"
        values: dict[str, Any] = {"id": str(row.row_id), "tenant_id": row.tenant_id, "seen": row.config}
        for n, (leaf, sealed) in enumerate(fresh):
            config = f"jsonb_set({config}, %(path{n})s::text[], %(sealed{n})s::jsonb, false)"
            values |= {f"path{n}": [str(at) for at in leaf.path], f"sealed{n}": dump_json(sealed, leaf.name)}
        replaced = self.database.execute_sql(_sql("replace_secrets").format(config=config), values)
        return bool(replaced.rowcount)

    def _read(self, query: str, **values: Any) -> list[_Row]:
        return [_Row(*row) for row in self.database.execute_sql(_sql(query), values, reads=True)]


def status(database: StoreDatabase) -> SecretsStatus:
    """Return how the secrets of all connectors are stored. Each is opened, and not shown."""
    connectors = _Connectors(database)
    keys: Counter[str] = Counter()
    unencrypted, unreadable = 0, []
    for row in connectors:
        found = connectors.leaves(row)
        keys.update({leaf.key_id or _DAMAGED for leaf in found if leaf.sealed})
        unencrypted += any(leaf.open for leaf in found)
        try:
            for leaf in found:
                if leaf.sealed:
                    opened(leaf, row.place, connectors.secrets)
        except SecretsError as error:
            unreadable.append(Problem(row.tenant_id, row.name, str(error)))
    return SecretsStatus(connectors.secrets.current_id, dict(sorted(keys.items())), unencrypted, tuple(unreadable))


def rotate(database: StoreDatabase, progress: Callable[[str], None] = lambda _: None) -> Rotation:
    """Encrypt the secrets of all connectors with the current key, also those that are not encrypted yet.

    Each connector is changed by one statement, unless somebody changed it in the meantime; then it is read again. A
    rotation that was interrupted continues where it ended: what has the current key stays.

    Args:
        database: The database, of a role that sees the connectors of all tenants.
        progress: Called with a text from time to time.

    Raises:
        SettingsError: There is no current key.
    """
    connectors = _Connectors(database)
    secrets = connectors.secrets
    current = secrets.current_id
    if current is None:
        raise SettingsError("there is no key to encrypt with: set MYLOWARE_SECRET_KEYS, the current key first")
    changed, count, unreadable = 0, 0, []
    for first in connectors:
        row: _Row | None = first
        while row is not None:
            stale = [leaf for leaf in connectors.leaves(row) if leaf.open or (leaf.sealed and leaf.key_id != current)]
            try:
                fresh = [(leaf, resealed(leaf, row.place, secrets)) for leaf in stale]
            except SecretsError as error:
                unreadable.append(Problem(row.tenant_id, row.name, str(error)))
                break
            if not fresh:
                break
            if connectors.replace(row, fresh):
                changed, count = changed + 1, count + len(fresh)
                progress(f"Rotating: {changed} connectors")
                break
            row = connectors.again(row)
    return Rotation(current, changed, count, tuple(unreadable))

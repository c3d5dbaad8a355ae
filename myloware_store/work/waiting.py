"""Waiting for work: told by the database where it can tell, looking by the clock where it cannot."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from myloware_store.core.arguments import as_enum, as_list, as_name, as_seconds
from myloware_store.core.enums import WorkItemType
from myloware_store.core.errors import InvalidInput
from myloware_store.core.sql import queries_beside
from myloware_store.db.listening import Listener
from myloware_store.db.tenancy import current_tenant
from myloware_store.orm.repository import Repository

__all__ = ["KNOWN_TYPES", "Waiting", "wanted"]

_sql = queries_beside(__file__)

KNOWN_TYPES = [kind.value for kind in WorkItemType]
"""The types that this version can work on: a newer one may have added others to the database."""

_LOOK_SECONDS = 5.0
"""How often a waiting worker looks by itself: what it hears may be lost with its session."""
_LOOK_DEAF_SECONDS = 0.25
"""How often where it cannot listen."""


class Waiting(Repository):
    """What a worker does while there is nothing to claim."""

    def wait_for_work(
        self,
        timeout: float = 30.0,
        *,
        types: Iterable[WorkItemType | str] | None = None,
        tenants: Iterable[str] | None = None,
        listener: Listener | None = None,
        look_every: float | None = None,
    ) -> bool:
        """Wait until there is something to claim.

        A trigger sends NOTIFY for whatever becomes claimable, submitted in whichever way. Items that become available
        by the clock (a retry's delay, `available_at`) end the wait when their time comes.

        Args:
            timeout: Most seconds to wait.
            types: Only items of these types.
            tenants: Only items of these tenants; under a tenant in force it can only narrow.
            listener: An open `Listener`, to be used again and again; by default a session is opened for this call.
            look_every: Seconds between two looks at the queue, in case a NOTIFY was lost with its session: by default
                5, or 0.25 if it cannot listen (behind PgBouncer).

        Returns:
            Whether there was something to claim, which another worker may have taken since.

        Raises:
            InvalidInput: An argument is out of its bounds.
            ConnectionFailed: The server cannot be reached: wait again.
        """
        deadline = time.monotonic() + as_seconds(timeout, "timeout")
        values = {**wanted(types, tenants), "known_types": KNOWN_TYPES}
        if not isinstance(listener, Listener | None):
            raise InvalidInput(f"listener: {type(listener).__name__} is not a Listener")
        every = None if look_every is None else as_seconds(look_every, "look_every", least=0.01)
        if self._due(values) <= 0:
            return True
        if listener is not None:
            return self._wait(deadline, values, listener, every)
        with Listener(self._db) as own:
            return self._wait(deadline, values, own, every)

    def _wait(self, deadline: float, values: dict[str, Any], listener: Listener, every: float | None) -> bool:
        while True:
            armed = listener.arm()
            due = self._due(values)
            if due <= 0:
                return True
            left = deadline - time.monotonic()
            if left <= 0 or not listener.wait(
                min(left, due, every or (_LOOK_SECONDS if armed else _LOOK_DEAF_SECONDS))
            ):
                return False

    def _due(self, values: dict[str, Any]) -> float:
        """Give the seconds until the first item can be claimed; infinity where none is queued."""
        if values["tenants"] is not None:
            statement = _sql("due_by_tenant")
        else:
            statement = _sql("due") if values["types"] is None else _sql("due_by_type")
        ((seconds,),) = self._rows(statement, values)
        return float("inf") if seconds is None else float(seconds)


def wanted(types: Iterable[WorkItemType | str] | None, tenants: Iterable[str] | None) -> dict[str, list[str] | None]:
    """Return the types and tenants that a claim is narrowed to, each once, as parameters; None is all of them."""
    current = current_tenant()
    kinds = None if types is None else [as_enum(kind, WorkItemType, "types").value for kind in as_list(types, "types")]
    names = None if current is None else [current]
    if tenants is not None:
        given = [as_name(name, "tenants") for name in as_list(tenants, "tenants")]
        names = [name for name in given if current in {None, name}]
    return {
        "types": None if kinds is None else [*dict.fromkeys(kinds)],
        "tenants": None if names is None else [*dict.fromkeys(names)],
    }

"""The tenant and the actor in force, kept in context variables so that threads and tasks do not meet."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import attrs

from myloware_store.values import MAX_NAME_CHARS, require_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["current_actor", "current_tenant", "tenant_scope"]


@attrs.frozen
class _Scope:
    tenant_id: str | None = None
    actor: str | None = None


_scope: ContextVar[_Scope] = ContextVar("myloware_scope", default=_Scope())  # noqa: B039 - frozen


@contextmanager
def tenant_scope(tenant_id: str, actor: str | None = None) -> Iterator[None]:
    """Put a tenant in force while the block runs, for this thread or task.

    A thread started inside the block begins without a tenant: open a scope there too.

    Args:
        tenant_id: 1 to 255 characters, not all of them blank.
        actor: Who acts, for the audit trail; an enclosing scope's actor stays in force where it is None.

    Raises:
        InvalidInput: One of them is no such text.
    """
    require_text(tenant_id, "tenant_id", blank=False, max_chars=MAX_NAME_CHARS)
    if actor is not None:
        require_text(actor, "actor", blank=False, max_chars=MAX_NAME_CHARS)
    token = _scope.set(_Scope(tenant_id, current_actor() if actor is None else actor))
    try:
        yield
    finally:
        _scope.reset(token)


def current_tenant() -> str | None:
    """Return the tenant in force, None where there is none."""
    return _scope.get().tenant_id


def current_actor() -> str | None:
    """Return who acts, None where nobody is named."""
    return _scope.get().actor

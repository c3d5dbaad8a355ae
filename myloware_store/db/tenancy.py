"""The tenant and the actor in force, in context variables: each thread and task has its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import attrs

from myloware_store.core.values import MAX_NAME_CHARS, require_text
from myloware_store.db.transactions import require_plain

__all__ = ["NO_SCOPE", "current_actor", "current_scope", "current_tenant", "scope_kept", "tenant_scope"]

NO_SCOPE = ("", "", "")
"""No tenant, no actor and the role of the login, as the server is told; names have at least one character."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@attrs.define
class _Scope:
    tenant_id: str | None = None
    actor: str | None = None
    role: str | None = None
    outer: _Scope | None = None
    ended: bool = False


_scope: ContextVar[_Scope] = ContextVar("myloware_scope", default=_Scope())  # noqa: B039 - never changed


class TenantScope(AbstractContextManager[None]):
    """A tenant in force, as a `with` block or as a decorator of a plain function."""

    def __init__(self, tenant_id: str, actor: str | None, role: str | None) -> None:
        self._named = tenant_id, actor, role

    def __enter__(self) -> None:
        tenant_id, actor, role = self._named
        outer = _current()
        self._scope = _Scope(tenant_id, outer.actor if actor is None else actor, role or outer.role, outer)
        self._before = _scope.set(self._scope)

    def __exit__(self, *_error: object) -> None:
        try:
            _scope.reset(self._before)
        except ValueError:  # another thread, with another context, ends it
            self._scope.ended = True

    def __call__(self, fn: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        """Decorate a plain function."""
        require_plain(fn)

        @wraps(fn)
        def scoped(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
            with TenantScope(*self._named):
                return fn(*args, **options)

        return scoped


def tenant_scope(tenant_id: str, actor: str | None = None, *, role: str | None = None) -> TenantScope:
    """Put a tenant in force while the block runs, for this thread or task.

    A thread started inside the block begins without a tenant: open a scope there, too.

    Args:
        tenant_id: 1 to 255 characters, not all of them blank.
        actor: Who acts, for the audit trail; by default the actor of the enclosing scope.
        role: The database role under which statements run; by default that of the enclosing scope, or of the login.

    Raises:
        InvalidInput: An argument is not such a text.
    """
    require_text(tenant_id, "tenant_id", blank=False, max_chars=MAX_NAME_CHARS)
    if actor is not None:
        require_text(actor, "actor", blank=False, max_chars=MAX_NAME_CHARS)
    return TenantScope(tenant_id, actor, role)


@contextmanager
def scope_kept() -> Iterator[None]:
    """Restore the tenant and actor after the block, even if scopes were left open in it."""
    before = _scope.get()
    try:
        yield
    finally:
        _scope.set(before)


def current_tenant() -> str | None:
    """Return the tenant in force, or None."""
    return _current().tenant_id


def current_actor() -> str | None:
    """Return the actor in force, or None."""
    return _current().actor


def current_scope() -> tuple[str, str, str]:
    """Return the tenant, the actor and the role in force, each empty if there is none."""
    scope = _current()
    return scope.tenant_id or "", scope.actor or "", scope.role or ""


def _current() -> _Scope:
    scope = _scope.get()
    while scope.ended and scope.outer is not None:
        scope = scope.outer
    return scope

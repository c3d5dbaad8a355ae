"""Wait until a database can be used, and fail at once if waiting cannot help."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import ConnectionFailed, DatabaseFault, InvalidInput, WaitTimeout
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.history import require_current, status
from myloware_store.ops.target import opened, reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.settings import Settings

__all__ = ["WaitReport", "wait_until_ready"]

_INTERVAL = 0.25  # seconds
_MOST = 1e9
_SHORTEST = 2  # seconds; libpq waits no shorter for a connection
_LONGEST = 10
_ANSWER = 1  # seconds that a server has for an answer at least
# A login that was refused, a role that may not connect, and a pooler that refuses our options.
_HOPELESS = {"28P01", "28000", "42501", "08004"}
# libpq's own words about certificates, service files and parameters.
_WRONG = re.compile(r"SSL was required|does not support SSL|certificate|service file|definition of service|invalid ")
_MISSING_DATABASE = "3D000"


@attrs.frozen
class WaitReport:
    """A database that is ready.

    Attributes:
        settings: The database, with the address of its server.
        seconds: How long it took.
    """

    settings: Settings
    seconds: float


def wait_until_ready(
    settings: Settings,
    *,
    timeout: float = 60.0,
    migrated: bool = True,
    progress: Callable[..., None] = lambda *_: None,
) -> WaitReport:
    """Wait until a database can be reached, and has the migrations of this version.

    Nothing is started, created or migrated.

    Args:
        settings: The database; an embedded server is waited for.
        timeout: How many seconds to wait. 0 asks once.
        migrated: Whether to wait for the migrations, too.
        progress: Called with the reason for each wait, four times a second.

    Raises:
        InvalidInput: `timeout` is not a number of seconds.
        WaitTimeout: The time is over; the message has the last reason.
        ConnectionFailed: The server refused the login, or the address is wrong.
        SchemaMismatch: The database is newer than this version, or not UTF-8.
        EmbeddedServerError: The embedded server cannot be used.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= _MOST:
        raise InvalidInput(f"timeout must be a number of seconds from 0 to {_MOST:g}")
    begin = time.monotonic()
    while True:
        left = begin + timeout - time.monotonic()
        reached, reason = _look(settings, left, migrated=migrated)
        if reason is None:
            return WaitReport(reached, time.monotonic() - begin)
        progress(f"Waiting: {reason}")
        left = begin + timeout - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"not ready within {timeout:g} s: {reason}")
        time.sleep(min(_INTERVAL, left))


def _look(settings: Settings, left: float, *, migrated: bool) -> tuple[Settings, str | None]:
    """Return the settings, and the reason to wait; None if there is none."""
    if settings.embedded and not settings.host and not EmbeddedServer.running(settings.embedded_home):
        return settings, f"the embedded server in {settings.embedded_home} does not run (`myloware-store up` starts it)"
    with reach(settings) as target:
        patience = min(max(math.ceil(left), _SHORTEST), _LONGEST)
        try:
            with (
                opened(target.settings.with_server(connect_timeout=patience)) as database,
                database.transaction() as look,
            ):
                # A lock on the history of migrations must not outlast the deadline.
                limit = f"{min(max(left, _ANSWER), _LONGEST)}s"
                database.execute_sql("SELECT set_config('statement_timeout', %s, true)", (limit,))
                if not migrated:
                    return target.settings, None
                found = status(database)
                newer = set(found.unknown).difference(found.compatible)
                if found.pending and not newer:
                    look.rollback()  # if there is no history, that error has ended the transaction
                    lacks = f"lacks {', '.join(found.pending)}" if found.applied else "is not migrated"
                    return target.settings, f"the database {settings.target} {lacks}"
                require_current(database)
        except DatabaseFault as fault:
            if isinstance(fault, ConnectionFailed) and (fault.sqlstate in _HOPELESS or _WRONG.search(str(fault))):
                raise
            missing = "; somebody must create it" if fault.sqlstate == _MISSING_DATABASE else ""
            return target.settings, f"{fault}{missing}"
        return target.settings, None

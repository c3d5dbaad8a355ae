"""Translates the driver's errors to the library's: names and codes are kept, values and secrets are not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import peewee
import psycopg2
from psycopg2 import errorcodes

from myloware_store.core import errors
from myloware_store.settings.url import SECRET_PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import Diagnostics

    from myloware_store.settings import Settings

__all__ = ["DRIVER_ERRORS", "connect_fault", "lost_fault", "misuse", "read_rows", "statement_fault"]

_Fault = TypeVar("_Fault", bound=errors.StoreError)
_Rows = TypeVar("_Rows")

DRIVER_ERRORS = (psycopg2.Error, ValueError, TypeError, LookupError, OverflowError, RecursionError)
"""The errors that psycopg2 raises: its own, and plain ones for values that it cannot send or read."""


class OperationalFault(errors.DatabaseFault, peewee.OperationalError):
    """The statement was stopped from outside."""


class ProgrammingFault(errors.DatabaseFault, peewee.ProgrammingError):
    """The statement is wrong."""


class InternalFault(errors.DatabaseFault, peewee.InternalError):
    """The server is in a state in which it cannot run the statement, such as a failed transaction."""


class UnreadableFault(errors.DatabaseFault, peewee.DataError):
    """The server sent a value that Python cannot represent; the statement itself was carried out."""


class NotSupportedFault(errors.DatabaseFault, peewee.NotSupportedError):
    """The server cannot do this."""


class InterfaceFault(errors.DatabaseFault, peewee.InterfaceError):
    """The driver was used in a way that it does not allow."""


_BY_DRIVER_CLASS: tuple[tuple[type[Exception], type[errors.DatabaseFault]], ...] = (
    (psycopg2.InterfaceError, InterfaceFault),
    (psycopg2.OperationalError, OperationalFault),
    (psycopg2.ProgrammingError, ProgrammingFault),
    (psycopg2.NotSupportedError, NotSupportedFault),
    (psycopg2.InternalError, InternalFault),
    (psycopg2.DatabaseError, errors.DatabaseFault),
)
# libpq's messages about failed connections, with our own words and the server's SQLSTATE, which libpq does not report
# for a failed login. The first match counts, so answers of a server come before failures to reach one.
_CONNECT_REASONS = (
    (r"(password|SASL) authentication failed", "the server refused the password", "28P01"),
    (
        r"no password supplied",
        "the server asks for a password and none is set (DATABASE_PASSWORD does not count beside DATABASE_URL)",
        "28P01",
    ),
    (r"role .* (does not exist|is not permitted)", "the role does not exist or may not log in", "28000"),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects", "the server's pg_hba.conf does not let this client in", "28000"),
    (r"database .* does not exist", "the database does not exist", "3D000"),
    (r"permission denied for database", "the role may not connect to this database", "42501"),
    (
        r"too many (clients|connections)|slots are reserved|no more connections allowed",
        "the server has no connection left",
        "53300",
    ),
    (
        r"system is (starting up|shutting down|not (yet )?accepting connections)|in recovery mode",
        "the server is starting up, recovering or shutting down",
        "57P03",
    ),
    (r"terminating connection", "the server ended the connection", "57P01"),
    (
        r"session is read-only|server is in hot standby mode",
        "the server is read-only, and target_session_attrs asks for one that is not",
        "08001",
    ),
    (
        r"session is not read-only|server is not in hot standby mode",
        "the server is no standby, and target_session_attrs asks for one",
        "08001",
    ),
    (
        r"unsupported startup parameter: options",
        "a pooler stands between that takes no options: add pgbouncer=true, and set the search_path on the role",
        "08004",
    ),
    (r"not translate host name", "no such host is known", "08001"),
    (r"timeout expired|timed out", "it did not answer in time", "08001"),
    (r"Connection refused|\.s\.PGSQL\..*No such file", "no server listens there", "08001"),
    (r"Network is unreachable|No route to host", "the network does not reach it", "08001"),
    (r"server closed the connection", "the server closed the connection", "08006"),
)
# SQLSTATE classes whose messages contain only names and resources. Messages of other classes, and those raised by
# PL/pgSQL, may contain values.
_TELLING = ("0A", "25", "26", "34", "3D", "3F", "42", "53", "55", "57", "58")
_MISSING = {"42P01", "42703", "42704", "3F000"}  # a table, a column, a type or other object, a schema
_MOVED = re.compile(
    r"\w+ (cannot move from [A-Z]+ to [A-Z]+[a-z ]*)"
)  # raised by our triggers, with labels and fixed words only
_LONG = 6  # characters; a shorter password may be part of other words
_TOO_MUCH = "a text has too many different words for its full-text entry of 1 MB, or a value is too large"
_KNOWN_STATES: dict[str, tuple[type[errors.DatabaseFault], str]] = {
    errorcodes.SERIALIZATION_FAILURE: (
        errors.TransactionConflict,
        "the transaction failed: it conflicts with a concurrent transaction (serialization failure); run it again",
    ),
    errorcodes.DEADLOCK_DETECTED: (
        errors.TransactionConflict,
        "the transaction failed: it and another transaction waited for each other (deadlock); run it again",
    ),
    errorcodes.LOCK_NOT_AVAILABLE: (
        errors.TransactionConflict,
        "the transaction failed: another transaction holds a lock it needs (lock timeout); run it again",
    ),
    "MW002": (  # of schema/tenancy.sql
        errors.TenantRequired,
        (
            "row-level security is enforced, and no tenant is in force: use store.tenant(...), or log in as a worker's"
            " role"
        ),
    ),
}


def statement_fault(error: Exception, *, returned: str | None = None) -> Exception:
    """Translate an error of a statement whose connection still works.

    Args:
        error: The error.
        returned: The signal for which the statement was cancelled, if its handler returned.

    Returns:
        An error of `core.errors`, with the driver's error at `driver_error` and not in the traceback. An error that is
        not about the database is returned unchanged.
    """
    if returned and isinstance(error, psycopg2.Error) and error.pgcode == errorcodes.QUERY_CANCELED:
        message = f"the statement was cancelled, since {returned} came while it waited, and its handler returned"
        conflict = errors.TransactionConflict(f"{message}; run it again", sqlstate=errorcodes.QUERY_CANCELED)
        return _keeping(error, conflict)
    if isinstance(error, psycopg2.Error):
        return _keeping(error, _by_state(error, error.pgcode or ""))
    if isinstance(error, errors.StoreError) or not _of_the_driver(error):
        return error
    return _keeping(error, _unsendable(error))


def read_rows(fetch: Callable[[], _Rows]) -> _Rows:
    """Return the rows that a cursor fetches.

    Raises:
        DatabaseFault: Python cannot represent a value, such as a date after the year 9999.
    """
    try:
        return fetch()
    except (ValueError, OverflowError, RecursionError) as error:
        fault = UnreadableFault(
            "Python cannot represent a value that the server sent: it is too large, nested too deeply, or a date"
            " outside of the years 1 to 9999; read it as text, with a ::text cast"
        )
        fault = _keeping(error, fault)
    raise fault


def connect_fault(error: Exception, settings: Settings) -> errors.ConnectionFailed:
    """Translate the error of a connection that could not be opened."""
    text = str(error)
    known = ((reason, sqlstate) for pattern, reason, sqlstate in _CONNECT_REASONS if re.search(pattern, text))
    # For other reasons (certificates, Kerberos, service files), libpq's own words without secrets.
    reason, sqlstate = next(known, (_without_secrets(text, settings), "08001"))
    fault = errors.ConnectionFailed(f"cannot connect to {settings.target}: {reason}", sqlstate=sqlstate)
    return _keeping(error, fault)


def lost_fault(
    error: Exception | None,
    settings: Settings,
    *,
    committing: bool,
    pooled: bool = False,
    late: float | None = None,
) -> errors.ConnectionFailed:
    """Translate a connection that broke while it was in use.

    Args:
        error: The driver's error.
        settings: The settings of the database.
        committing: Whether the server may have committed the last statement.
        pooled: Whether the connection went through a pooler.
        late: The `call_timeout` that has passed, if that is why.
    """
    sqlstate = getattr(error, "pgcode", None) or "08006"
    lost = f"the connection to {settings.target} was lost"
    if late is not None:
        lost += f" (it was closed, because no reply had come within {late:g} s: call_timeout)"
    if committing:
        message = (
            f"{lost} before the server replied to a COMMIT, or to a statement outside of a transaction, which may have"
            " been stored or not; look before you run it again"
        )
        return _keeping(error, errors.AmbiguousCommit(message, sqlstate=sqlstate))
    # PgBouncer closes the connection, and libpq does not read the reason.
    hint = (
        "; if this happens in every transaction, PgBouncer is in statement mode, which does not support them"
        if pooled and late is None
        else ""
    )
    fault = errors.ConnectionFailed(f"{lost}; an open transaction was rolled back{hint}", sqlstate=sqlstate)
    return _keeping(error, fault)


def misuse(message: str) -> errors.DatabaseFault:
    """Return the error for a wrong use of the library."""
    return InterfaceFault(message)


def _keeping(error: Exception | None, fault: _Fault) -> _Fault:
    # Not as __cause__ or __context__, because a traceback would print the driver's message, with values of rows.
    fault.driver_error = error.with_traceback(None) if error is not None else None
    return fault


def _of_the_driver(error: Exception) -> bool:
    """Return whether the driver itself raised this, rather than an application's code that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(module).startswith(("myloware_store.", "psycopg2."))


def _unsendable(error: Exception) -> errors.StoreError:
    if isinstance(error, UnicodeEncodeError):
        return errors.InvalidInput("a text contains a lone surrogate, which is not valid Unicode")
    if isinstance(error, RecursionError):
        return errors.InvalidInput("a value is nested too deeply to be sent")
    if isinstance(error, ValueError) and "NUL" in str(error):
        return errors.InvalidInput("a text contains a NUL character, which PostgreSQL cannot store")
    if isinstance(error, ValueError | OverflowError):
        return errors.InvalidInput("a value cannot be sent; it may be too large")
    return ProgrammingFault(
        "the statement's placeholders do not match its parameters (write '%%' for a '%' that is not a placeholder), or"
        " it is not a statement"
    )


def _without_secrets(text: str, settings: Settings) -> str:
    own = "" if callable(settings.password) else settings.password
    secrets = [own, *(value for key, value in settings.params.items() if key in SECRET_PARAMETERS)]
    for secret in map(re.escape, filter(None, secrets)):
        # A short secret may be part of other words; it is replaced only if it stands alone, as libpq quotes values.
        pattern = secret if len(secret) >= _LONG else rf"(?<=[\"'=:]){secret}(?=[\"'@\s]|$)"
        text = re.sub(pattern, "***", text)
    return " ".join(text.split())


def _by_state(error: psycopg2.Error, state: str) -> errors.StoreError:
    found = error.diag
    kind, message = _kind_and_message(error, found, state)
    return kind(message, sqlstate=state, constraint=found.constraint_name or "", table=found.table_name or "")


def _kind_and_message(error: psycopg2.Error, found: Diagnostics, state: str) -> tuple[type[errors.DatabaseFault], str]:
    if state.startswith(("23", "2F")) or state == errorcodes.RAISE_EXCEPTION:
        return errors.ConstraintViolation, f"{_refused_by(found)} ({_condition(state)})"
    if state in _KNOWN_STATES:
        return _KNOWN_STATES[state]
    if state.startswith(("22", "54")):
        cause = _TOO_MUCH if state == errorcodes.PROGRAM_LIMIT_EXCEEDED else "the server refused a value"
        return errors.InvalidData, f"{cause}: {_condition(state)}{_type_named(found)}"
    if state in _MISSING:
        return errors.MissingObject, f"{_told(found)} ({state}); if it is not migrated, run `myloware-store migrate`"
    kind = next(fault for driver, fault in _BY_DRIVER_CLASS if isinstance(error, driver))
    if not state:
        # The driver's own error, such as a type that it cannot adapt: it contains types and no values.
        return kind, str(error).strip() or type(error).__name__
    return kind, f"{_told(found)} ({_condition(state)})"


def _condition(state: str) -> str:
    try:
        return f"{errorcodes.lookup(state).lower()}, {state}"
    except KeyError:
        return state


def _refused_by(found: Diagnostics) -> str:
    if found.constraint_name:
        rule = f"constraint {found.constraint_name}"
    elif found.sqlstate == errorcodes.NOT_NULL_VIOLATION:
        rule = f"column {found.column_name}, which must not be null,"
    else:
        rule = "a trigger"
    moved = _MOVED.fullmatch(found.message_primary or "")
    return f"{rule} on {found.table_name or 'a table'} refused the row{f': it {moved[1]}' if moved else ''}"


def _type_named(found: Diagnostics) -> str:
    named = re.search(r"for (?:type|enum) ([\w. ]+)(?=$|:|\()", found.message_primary or "")
    return f", for type {named[1].strip()}" if named else ""


def _told(found: Diagnostics) -> str:
    message = found.message_primary or "the server refused the statement"
    state = found.sqlstate or ""
    if found.source_file == "pl_exec.c" or not state.startswith(_TELLING):
        return "the server refused the statement"
    if message.startswith("COPY from stdin failed"):
        return "the file to copy from could not be read"  # the message of the application's error may quote values
    if state == errorcodes.SYNTAX_ERROR:
        # The word in the message may be a value: only plain words and operators are shown.
        return message if re.search(r'near "([A-Za-z_]\w*|[^\w\s\'"]+)"$', message) else "syntax error"
    return message

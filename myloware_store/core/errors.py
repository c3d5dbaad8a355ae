"""Every error the library raises, in one tree under `StoreError`.

Errors that a database driver started also inherit the matching Peewee class, so that code written against Peewee
(`get_or_create`, `except IntegrityError`) keeps working.
"""

from __future__ import annotations

import attrs
import peewee

__all__ = [
    "AmbiguousCommit",
    "ConnectionFailed",
    "ConstraintViolation",
    "DatabaseFault",
    "DocumentProblem",
    "EmbeddedServerError",
    "IdempotencyConflict",
    "InvalidData",
    "InvalidDocument",
    "InvalidInput",
    "InvalidVector",
    "LeaseLost",
    "MemoryConflict",
    "MigrationError",
    "MissingExtension",
    "MissingObject",
    "NotAwaitingApproval",
    "NotFound",
    "NotOpen",
    "PoolTimeout",
    "SchemaMismatch",
    "SettingsError",
    "StoreError",
    "TransactionConflict",
    "VectorIndexError",
    "VersionConflict",
    "WaitTimeout",
]


class StoreError(Exception):
    """The root of every error this library raises.

    Where a database driver raised something first, that is at `driver_error`, out of every traceback: its message and
    its details may quote row values.
    """

    driver_error: Exception | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave the driver's error, and what it quotes, in the process that met it."""
        return {name: value for name, value in vars(self).items() if name != "driver_error"}

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self.args, self.__getstate__())


class SettingsError(StoreError):
    """A setting, URL or environment variable cannot be used; the message names it and never its secret."""


class NotOpen(StoreError, AttributeError):
    """A model was used while no store is open."""


class EmbeddedServerError(StoreError):
    """The embedded server cannot be found, started or reached; the message says the ways out."""


class InvalidInput(StoreError, ValueError):
    """A value was refused before anything was written; the message names the field and the rule."""


class InvalidVector(InvalidInput):
    """An embedding has the wrong shape, is zero, or holds NaN or infinite numbers."""


@attrs.frozen(slots=False)
class DocumentProblem:
    """One rule of a schema that a document breaks; it quotes the schema and the names of keys, never values.

    Attributes:
        document: Which of the documents of the call, counted from 0.
        schema: The schema's name and version.
        path: Where in the document, such as `$.lines[3].total`.
        message: Which rule.
    """

    document: int
    schema: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"document {self.document}, {self.schema}, {self.path}: {self.message}"


class InvalidDocument(InvalidInput):
    """Documents do not fit the active schemas of their types; `problems` has the first 20 of what is wrong."""

    def __init__(self, message: str, problems: tuple[DocumentProblem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class VersionConflict(StoreError):
    """A version that was registered before is registered again with other contents."""


class NotFound(StoreError, LookupError):
    """The row that was named does not exist (or belongs to another tenant)."""


class IdempotencyConflict(StoreError):
    """The idempotency key was used before, with other items."""


class NotAwaitingApproval(StoreError):
    """The item is not parked for a decision, or someone else decided first."""


class MemoryConflict(StoreError):
    """A memory document is there already, or was changed since it was read; nothing was written."""


class LeaseLost(StoreError):
    """A claim holds its item no longer: the lease ran out, or the attempt has ended."""


class WaitTimeout(StoreError, TimeoutError):
    """What was waited for has not come in time."""


class DatabaseFault(StoreError, peewee.DatabaseError):
    """The database refused a statement; `sqlstate` tells why (empty where the server gave none)."""

    def __init__(self, message: str, *, sqlstate: str = "", constraint: str = "", table: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.table = table


class InvalidData(DatabaseFault, InvalidInput, peewee.DataError):
    """The server refused a value: out of range, too long, too large, or not of its type."""


class ConstraintViolation(DatabaseFault, peewee.IntegrityError):
    """A constraint or trigger refused the row; `constraint` and `table` name it."""


class ConnectionFailed(DatabaseFault, peewee.OperationalError):
    """The server cannot be reached, refused the login, or went away."""


class PoolTimeout(ConnectionFailed):
    """No pooled connection came free within `pool_timeout`."""


class AmbiguousCommit(ConnectionFailed):
    """The connection was lost before the server said that it had committed: what was written may be stored or not.

    That goes for a COMMIT, and for a statement outside of a transaction, which commits by itself.
    """


class TransactionConflict(DatabaseFault, peewee.OperationalError):
    """The transaction met another one (serialization failure, deadlock or lock timeout) and was rolled back.

    With the SQLSTATE 57014: a statement was cancelled for a signal whose handler returned.
    """


class MissingExtension(StoreError):
    """The server does not offer an extension that the schema needs, or the role may not create it."""


class SchemaMismatch(StoreError):
    """The database is not migrated, or was migrated by a newer version of this library."""


class MissingObject(SchemaMismatch, DatabaseFault, peewee.ProgrammingError):
    """A statement named a table, column, type or schema that the database does not have."""


class VectorIndexError(StoreError):
    """The vector index could not be built, changed or measured; searches go on, exact where it is not good."""


class MigrationError(StoreError):
    """A migration could not run or was refused; the database is as it was before that migration."""

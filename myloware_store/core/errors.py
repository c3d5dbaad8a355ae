"""All errors of the library, in one tree under `StoreError`.

Errors of the database driver also inherit the matching Peewee class, so that code written against Peewee
(`get_or_create`, `except IntegrityError`) keeps working.
"""

from __future__ import annotations

import attrs
import peewee

__all__ = [
    "AmbiguousCommit",
    "BackupError",
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
    "MissingKey",
    "MissingObject",
    "NotAwaitingApproval",
    "NotFound",
    "NotOpen",
    "PoolTimeout",
    "SchemaMismatch",
    "SecretsError",
    "SettingsError",
    "StoreError",
    "TenantRequired",
    "TransactionConflict",
    "UniqueKeyConflict",
    "UnreadableSecret",
    "VectorIndexError",
    "VersionConflict",
    "WaitTimeout",
]


class StoreError(Exception):
    """The base class of all errors of this library.

    `driver_error` holds the driver's exception, if there is one. It is not in the traceback, because its message can
    quote values of rows.
    """

    driver_error: Exception | None = None

    def __getstate__(self) -> dict[str, object]:
        """Omit the driver's error when this one is pickled."""
        return {name: value for name, value in vars(self).items() if name != "driver_error"}

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self.args, self.__getstate__())


class SettingsError(StoreError):
    """A setting, URL or environment variable is invalid. The message names it, and never shows a secret."""


class NotOpen(StoreError, AttributeError):
    """A model was used while no store is open."""


class EmbeddedServerError(StoreError):
    """The embedded server cannot be found, started or reached. The message says what to do."""


class InvalidInput(StoreError, ValueError):
    """A value was refused before anything was written. The message names the field and the rule."""


class InvalidVector(InvalidInput):
    """An embedding has the wrong shape, is zero, or holds NaN or infinite numbers."""


@attrs.frozen(slots=False)
class DocumentProblem:
    """A rule of a schema that a document breaks. It quotes the schema and the names of keys, never values.

    Attributes:
        document: The number of the document in the call, from 0.
        schema: The schema's name and version.
        path: The place in the document, such as `$.lines[3].total`.
        message: The rule.
    """

    document: int
    schema: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"document {self.document}, {self.schema}, {self.path}: {self.message}"


class InvalidDocument(InvalidInput):
    """Documents do not fit the active schemas of their types. `problems` lists the first 20 problems."""

    def __init__(self, message: str, problems: tuple[DocumentProblem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class VersionConflict(StoreError):
    """A version was registered before with other contents."""


class NotFound(StoreError, LookupError):
    """The row does not exist, or belongs to another tenant."""


class IdempotencyConflict(StoreError):
    """The idempotency key was used before with other items."""


class UniqueKeyConflict(StoreError):
    """An order cannot be opened again, because another one with the same `unique_key` is open."""


class NotAwaitingApproval(StoreError):
    """The item is not parked for a decision, or someone else decided first."""


class MemoryConflict(StoreError):
    """A memory document exists already, or was changed since it was read. Nothing was written."""


class LeaseLost(StoreError):
    """A claim no longer holds its item: the lease expired, the attempt has ended, or the item was cancelled."""


class WaitTimeout(StoreError, TimeoutError):
    """The wait ended without a result."""


class DatabaseFault(StoreError, peewee.DatabaseError):
    """The database refused a statement. `sqlstate` is the code of the reason, or empty if the server sent none."""

    def __init__(self, message: str, *, sqlstate: str = "", constraint: str = "", table: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.table = table


class InvalidData(DatabaseFault, InvalidInput, peewee.DataError):
    """The server refused a value: out of range, too long, too large, or not of its type."""


class ConstraintViolation(DatabaseFault, peewee.IntegrityError):
    """A constraint or trigger refused the row. `constraint` and `table` name it."""


class ConnectionFailed(DatabaseFault, peewee.OperationalError):
    """The server cannot be reached, refused the login, or went away."""


class PoolTimeout(ConnectionFailed):
    """No connection of the pool became free within `pool_timeout`."""


class AmbiguousCommit(ConnectionFailed):
    """The connection was lost during a commit. The changes may or may not be stored.

    This happens at a COMMIT, and at a statement outside of a transaction, which commits by itself.
    """


class TransactionConflict(DatabaseFault, peewee.OperationalError):
    """The transaction conflicted with another one (serialization failure, deadlock, lock timeout) and was rolled back.

    With SQLSTATE 57014, a signal cancelled the statement, and its handler returned.
    """


class TenantRequired(DatabaseFault, peewee.ProgrammingError):
    """Row-level security is enforced for this role, and no tenant is in force: use `store.tenant(...)`."""


class MissingExtension(StoreError):
    """The server lacks an extension that the schema needs, or the role may not create it."""


class SchemaMismatch(StoreError):
    """The database is not migrated, or was migrated by a newer version of this library."""


class MissingObject(SchemaMismatch, DatabaseFault, peewee.ProgrammingError):
    """A statement named a table, column, type or schema that the database does not have."""


class VectorIndexError(StoreError):
    """An index of the memory could not be built, changed or measured. Searches still work, and are exact if needed."""


class MigrationError(StoreError):
    """A migration failed or was refused. The database is as it was before that migration."""


class SecretsError(StoreError):
    """A secret of a connector could not be encrypted, decrypted or resolved. The message quotes nothing of it."""


class MissingKey(SecretsError):
    """There is no key for a secret, so it was neither stored nor read. `MYLOWARE_SECRET_KEYS` sets the keys."""


class UnreadableSecret(SecretsError):
    """An encrypted value does not open: it was altered, or moved to another row, tenant or field, or the key is wrong.

    A value of no known form does not open either.
    """


class BackupError(StoreError):
    """A backup could not be made, read or restored. A file or database of that name is as it was."""

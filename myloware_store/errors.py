"""Every error the library raises, in one tree under `StoreError`.

Errors that a database driver started also inherit the matching Peewee class, so that code written against Peewee
(`get_or_create`, `except IntegrityError`) keeps working.
"""

from __future__ import annotations

import peewee

__all__ = [
    "AmbiguousCommit",
    "ConnectionFailed",
    "ConstraintViolation",
    "DatabaseFault",
    "EmbeddedServerError",
    "IdempotencyConflict",
    "InvalidInput",
    "InvalidVector",
    "LeaseLost",
    "MigrationError",
    "MissingExtension",
    "NotFound",
    "PoolTimeout",
    "SchemaMismatch",
    "SettingsError",
    "StoreError",
    "TransactionConflict",
]


class StoreError(Exception):
    """The root of every error this library raises."""


class SettingsError(StoreError):
    """A setting, URL or environment variable cannot be used; the message names it and never its secret."""


class EmbeddedServerError(StoreError):
    """The embedded server cannot be found, started or reached; the message says the ways out."""


class InvalidInput(StoreError, ValueError):
    """A value was refused before anything was written; the message names the field and the rule."""


class InvalidVector(InvalidInput):
    """An embedding has the wrong shape, is zero, or holds NaN or infinite numbers."""


class NotFound(StoreError, LookupError):
    """The row that was named does not exist (or belongs to another tenant)."""


class IdempotencyConflict(StoreError):
    """The idempotency key was used before, with other items."""


class LeaseLost(StoreError):
    """The claim's lease ran out and the item is no longer held by this attempt."""


class DatabaseFault(StoreError, peewee.DatabaseError):
    """The database refused a statement; `sqlstate` tells why (empty where the server gave none)."""

    def __init__(self, message: str, *, sqlstate: str = "", constraint: str = "", table: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.table = table


class ConstraintViolation(DatabaseFault, peewee.IntegrityError):
    """A constraint or trigger refused the row; `constraint` and `table` name it."""


class ConnectionFailed(DatabaseFault, peewee.OperationalError):
    """The server cannot be reached, refused the login, or went away."""


class PoolTimeout(ConnectionFailed):
    """No pooled connection came free within `pool_timeout`."""


class AmbiguousCommit(ConnectionFailed):
    """The connection was lost while committing: the transaction may or may not have been stored."""


class TransactionConflict(DatabaseFault, peewee.OperationalError):
    """The transaction met another one (serialization failure, deadlock or lock timeout) and was rolled back."""


class MissingExtension(StoreError):
    """The server does not offer an extension that the schema needs, or the role may not create it."""


class SchemaMismatch(StoreError):
    """The database is not migrated, or was migrated by a newer version of this library."""


class MigrationError(StoreError):
    """A migration could not run or was refused; the database is as it was before that migration."""

"""Index the audit lines in the order in which they are sealed, while others read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import peewee
    from peewee_migrate import Migrator

BACKWARD_COMPATIBLE = True

MIGRATE = (
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_logs_epoch_idx ON audit_logs USING btree (tenant_id, epoch, id)",
)

ROLLBACK = ("DROP INDEX CONCURRENTLY IF EXISTS audit_logs_epoch_idx",)


def migrate(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Apply it."""
    for statement in MIGRATE:
        migrator.sql(statement)


def rollback(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Undo it."""
    for statement in ROLLBACK:
        migrator.sql(statement)

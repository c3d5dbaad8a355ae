"""Back up a database, verify the backup, and restore it: pg_dump and pg_restore, with proof that all of it is there."""

from __future__ import annotations

from myloware_store.ops.backup.contents import Contents, Difference
from myloware_store.ops.backup.file import Manifest
from myloware_store.ops.backup.making import BackupReport, backup
from myloware_store.ops.backup.restoring import RestoreReport, VerificationReport, restore, verify_backup

__all__ = [
    "BackupReport",
    "Contents",
    "Difference",
    "Manifest",
    "RestoreReport",
    "VerificationReport",
    "backup",
    "restore",
    "verify_backup",
]

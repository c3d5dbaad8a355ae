"""Make a backup: pg_dump, the counts and the checksums in one snapshot, written beside and renamed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import BackupError
from myloware_store.core.sql import queries_beside
from myloware_store.db.deadlines import call_timeout
from myloware_store.db.statements import LIFT_DEADLINES
from myloware_store.ops.backup.contents import list_tables, read_contents
from myloware_store.ops.backup.file import Manifest, new_file, os_errors_named, read_manifest, seal, take_path
from myloware_store.ops.backup.programs import find_program, login_environment
from myloware_store.ops.history import target_settings
from myloware_store.ops.target import opened, reach

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from myloware_store.db.database import StoreDatabase
    from myloware_store.ops.backup.programs import Program
    from myloware_store.settings import Settings

__all__ = ["BackupReport", "backup", "require_direct"]

_sql = queries_beside(__file__)
_CHUNK = 1 << 20
# Level 1 compresses vectors to 111 % of the size at level 6, in a sixth of the time.
_OPTIONS = ("--format=custom", "--compress=1", "--encoding=UTF8", "--no-password", "--lock-wait-timeout=10000")
_MEGABYTE = 1_000_000


@attrs.frozen
class BackupReport:
    """A backup that was made, or read.

    Attributes:
        path: The file.
        bytes: Its size.
        manifest: What it says of itself: when it was made, of which versions, and what the database held.
    """

    path: Path
    bytes: int
    manifest: Manifest


@call_timeout(None)
def backup(
    target: Settings | StoreDatabase,
    path: Path | str,
    *,
    overwrite: bool = False,
    progress: Callable[..., None] = lambda *_: None,
) -> BackupReport:
    """Write the whole database to a file, with counts and checksums of its tables from the same snapshot.

    The file is written beside `path` and gets its name when it has been read back whole, so that a file of that name is
    always complete. Its owner alone can read it. Readers and writers go on meanwhile; changes of the schema wait.

    Args:
        target: The database, or its settings; it is dumped whole, whatever schema the settings name.
        path: The file.
        overwrite: Whether to replace an existing file.
        progress: Called with the current step, and if known, how many of how many parts are done.

    Returns:
        The file, its size, and what it holds.

    Raises:
        InvalidInput: `path` is not a path.
        BackupError: The file exists or cannot be written, pg_dump is missing, too old or failed, or the connection goes
            through PgBouncer. There is no new file, and an existing one is as it was.
        ConnectionFailed: The server cannot be reached.
        EmbeddedServerError: The embedded server cannot be started, or there is no embedded database.
    """
    path = take_path(path)
    with reach(target_settings(target)) as reached, opened(reached.settings) as database, database.unit():
        require_direct(database)
        major = database.server_version // 10_000
        why = f"the server is PostgreSQL {major}"
        dump, restore = find_program("pg_dump", major, why), find_program("pg_restore", major, why)
        with os_errors_named(path), new_file(path, overwrite=overwrite) as file:
            manifest = _write(database, dump, file, progress)
            file.flush()
            progress("Reading it back")
            written = Path(file.name)
            with written.open("rb") as dumped, restore.running("--file=/dev/null", stdin=dumped) as output:
                output.read()
            read_manifest(written, progress)
    return BackupReport(path, path.stat().st_size, manifest)


def require_direct(database: StoreDatabase) -> None:
    """Raise BackupError if the connection goes through a pooler in transaction mode."""
    if database.shares_sessions():
        raise BackupError(
            "backup and restore need a direct connection, but this one goes through a pooler in transaction mode"
            " (PgBouncer): connect to the PostgreSQL server itself, without pgbouncer=true"
        )


def _write(database: StoreDatabase, dump: Program, file: IO[bytes], progress: Callable[..., None]) -> Manifest:
    digest = hashlib.sha256()
    tables = ", ".join(table for table, _ in list_tables(database)).replace("%", "%%")
    with database.transaction("REPEATABLE READ"):
        database.execute_sql("SET TRANSACTION READ ONLY")
        database.execute_sql(LIFT_DEADLINES, (True,))
        # Before the snapshot is taken, or a TRUNCATE in between would empty the table for pg_dump, too.
        if tables:
            database.execute_sql(f"SET LOCAL lock_timeout = '10s'; LOCK TABLE {tables} IN ACCESS SHARE MODE")
        (snapshot, name, server) = database.execute_sql(_sql("snapshot")).fetchone()
        # An ALTER TABLE that waits for our lock is in the way of pg_dump's: one of the three must give up.
        options = (*_OPTIONS, f"--snapshot={snapshot}")
        address = f"--dbname={database.settings.libpq_url}"
        written = 0
        with dump.running(*options, address, env=login_environment(database.settings)) as output:
            while chunk := output.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                written += len(chunk)
                progress(f"Dumping: {written / _MEGABYTE:.0f} MB")
        manifest = Manifest(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            database=name,
            server_version=server,
            dump_version=dump.major,
            library_version=version("myloware-store"),
            extensions=dict(database.execute_sql(_sql("versions")).fetchall()),
            contents=read_contents(database, progress),
        )
    seal(file, digest, manifest)
    return manifest

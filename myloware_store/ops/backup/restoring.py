"""Restore a backup in one transaction, which commits only a database that holds what the backup says."""

from __future__ import annotations

import re
import secrets
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import attrs

from myloware_store.core.errors import BackupError, ConnectionFailed, DatabaseFault, SchemaMismatch, StoreError
from myloware_store.core.sql import queries_beside
from myloware_store.db.deadlines import call_timeout
from myloware_store.db.statements import LIFT_DEADLINES
from myloware_store.ops.backup.contents import Contents, Difference, compare, read_contents
from myloware_store.ops.backup.file import os_errors_named, read_manifest, take_path
from myloware_store.ops.backup.making import require_direct
from myloware_store.ops.backup.programs import find_program
from myloware_store.ops.catalog import split_key
from myloware_store.ops.history import available_migrations, migrations_path, target_settings
from myloware_store.ops.scratch import scratch_database
from myloware_store.ops.target import opened, reach
from myloware_store.ops.validate import ValidationReport, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store.db.database import StoreDatabase
    from myloware_store.ops.backup.file import Manifest
    from myloware_store.ops.backup.programs import Program
    from myloware_store.settings import Settings

__all__ = ["RestoreReport", "VerificationReport", "restore", "verify_backup"]

_sql = queries_beside(__file__)
_TRIES = 5
_BLOCK = 65536
# The comment on an extension is its own, and only its owner can write it.
_OMITTED = r"\d+; \d+ \d+ COMMENT - EXTENSION "
# Like grants, policies name roles.
_OF_ROLES = r"|\d+; \d+ \d+ (?:POLICY|ROW SECURITY) "
_UUID_OSSP = r"|\d+; \d+ \d+ EXTENSION - uuid-ossp "
_HINTS = {
    "42501": "; restore as a superuser, or let an administrator create the extension in an empty database, and add"
    " --no-owner",
    "53200": "; raise max_locks_per_transaction: each table and large object takes a lock until the end",
    "42704": "; --no-owner restores without the roles of the backup",
}
_COPY = re.compile(rb"COPY (.*) FROM stdin;\n", re.DOTALL)
# Only there: the same lines in a function or a comment are to stay.
_HEADER = re.compile(r"\A(?:(?:--|SET |\\restrict ).*\n|\n)*")
_NOT_SQL = re.compile(r"^\\restrict .*|^SET transaction_timeout = 0;", re.MULTILINE)
_UNRESTRICT = re.compile(r"\\unrestrict \w+\s*\Z")
# A name or a literal; backslashes have no meaning in them.
_QUOTED = re.compile(rb"'[^']*'|\"[^\"]*\"")


@attrs.frozen
class RestoreReport:
    """A backup that was restored, or was not because the result differed.

    Attributes:
        settings: The database, with the address of its server.
        manifest: What the backup says of itself.
        differences: The differences between the backup and the result; if there are any, nothing was restored.
        validation: The comparison with the schema that this version expects; None if nothing was restored.
        replaced: The new name of the database that was replaced, with all of its data; None if there was none.
    """

    settings: Settings
    manifest: Manifest
    differences: tuple[Difference, ...]
    validation: ValidationReport | None
    replaced: str | None


@attrs.frozen
class VerificationReport:
    """A backup that was read whole.

    Attributes:
        path: The file.
        manifest: What it says of itself.
        restored: Whether it was restored to a temporary database, too.
        differences: The differences between the backup and that database.
    """

    path: Path
    manifest: Manifest
    restored: bool
    differences: tuple[Difference, ...]


@call_timeout(None)
def restore(
    target: Settings | StoreDatabase,
    path: Path | str,
    *,
    replace: bool = False,
    owners: bool = True,
    progress: Callable[..., None] = lambda *_: None,
) -> RestoreReport:
    """Restore a backup to an empty database, or to one that does not exist yet.

    All of it is one transaction, which also compares the catalog, the counts and the checksums with those of the
    backup, and is rolled back if they differ. Restore only files that you trust: a backup can hold any statement.

    Args:
        target: The database, or its settings.
        path: The file of `backup`.
        replace: Put the restored database in the place of one that is not empty. It is restored beside that one, which
            is then renamed: its sessions end, and its settings and grants go to the new one.
        owners: Whether tables get the owners, grants and row-level security that they had. Their roles must exist.
        progress: Called with the current step, and if known, how many of how many parts are done.

    Returns:
        The differences from the backup, and from the schema that this version expects.

    Raises:
        InvalidInput: `path` is not a path.
        BackupError: The file is damaged, pg_restore is missing or too old, the server is older than the backup's, the
            database is not empty, or the server refused the data. The database is as it was.
        SchemaMismatch: The backup has migrations that this version does not know.
        ConnectionFailed: The server cannot be reached.
        EmbeddedServerError: The embedded server cannot be started.
    """
    path = take_path(path)
    manifest = read_manifest(path, progress)
    with reach(target_settings(target), create=True) as reached, ExitStack() as undo:
        settings = reached.settings
        name, program, occupants = _examine(settings, manifest)
        if occupants and not replace:
            raise BackupError(
                f"the database {name} is not empty ({', '.join(occupants)}, ...): restore to an empty one or to one"
                " that does not exist, or add --replace (replace=True)"
            )
        fresh = f"myloware_restore_{secrets.token_hex(6)}" if occupants else name
        if occupants is None or occupants:
            _create(settings, fresh)
            undo.callback(_drop, settings, fresh)
        if occupants:
            _require_same_locale(settings, name, fresh)
        differences = _load(attrs.evolve(settings, dbname=fresh), path, manifest, program, progress, owners=owners)
        if differences:
            return RestoreReport(settings, manifest, differences, None, None)
        replaced = _exchange(settings, name, fresh) if occupants else None
        undo.pop_all()
        with opened(settings) as database:
            return RestoreReport(settings, manifest, (), validate(database), replaced)


@call_timeout(None)
def verify_backup(
    path: Path | str,
    *,
    target: Settings | StoreDatabase | None = None,
    progress: Callable[..., None] = lambda *_: None,
) -> VerificationReport:
    """Read a backup whole, and restore it to a temporary database if a server is named.

    Args:
        path: The file of `backup`.
        target: A server that may create the temporary database, which is dropped afterwards; for the embedded
            database, a temporary server is started instead. None only reads the file.
        progress: Called with the current step, and if known, how many of how many parts are done.

    Returns:
        What the backup says of itself, and how the restored database differs from it.

    Raises:
        InvalidInput: `path` is not a path.
        BackupError: The file is damaged, pg_restore is missing or too old, the server is older than the backup's, or
            it refused the data.
        SchemaMismatch: The backup has migrations that this version does not know.
        ConnectionFailed: The server cannot be reached.
        EmbeddedServerError: The temporary server cannot be started.
    """
    path = take_path(path)
    manifest = read_manifest(path, progress)
    if target is None:
        return VerificationReport(path, manifest, restored=False, differences=())
    settings = target_settings(target)
    with scratch_database(None if settings.embedded else settings) as scratch:
        with opened(scratch) as database, database.unit():
            program = _require_fit(database, manifest)
        differences = _load(scratch, path, manifest, program, progress, owners=False, keep=False)
    return VerificationReport(path, manifest, restored=True, differences=differences)


def _examine(settings: Settings, manifest: Manifest) -> tuple[str, Program, list[str] | None]:
    """Return the database's name, the pg_restore to use, and what is in the database; None if it does not exist."""
    try:
        with opened(settings) as database, database.unit():
            program = _require_fit(database, manifest)
            (name,) = database.execute_sql("SELECT current_database()").fetchone()
            return name, program, [found for (found,) in database.execute_sql(_sql("occupants")).fetchall()]
    except ConnectionFailed as fault:
        if fault.sqlstate != "3D000" or not settings.dbname:
            raise
    with _server(settings) as database, database.unit():
        return settings.dbname, _require_fit(database, manifest), None


def _require_fit(database: StoreDatabase, manifest: Manifest) -> Program:
    """Raise an error if the server or this version is too old for a backup, else return the pg_restore to use."""
    require_direct(database)
    server = database.server_version // 10_000
    if server < manifest.server_major:
        raise BackupError(
            f"the backup is of PostgreSQL {manifest.server_version}, but the server is PostgreSQL {server}: restore to"
            " the same version or a newer one"
        )
    if unknown := set(manifest.contents.migrations).difference(available_migrations(migrations_path())):
        raise SchemaMismatch(
            f"the backup has migrations that this version of myloware-store does not know"
            f" ({', '.join(sorted(unknown))}): upgrade myloware-store, which was version {manifest.library_version}"
        )
    written = f"the backup was written by pg_dump {manifest.dump_version}"
    return find_program("pg_restore", manifest.dump_version, written)


def _load(
    settings: Settings,
    path: Path,
    manifest: Manifest,
    program: Program,
    progress: Callable[..., None],
    *,
    owners: bool,
    keep: bool = True,
) -> tuple[Difference, ...]:
    """Fill an empty database in one transaction, and keep the result if it does not differ from the backup."""
    settings = attrs.evolve(settings, schema=manifest.contents.schema or settings.schema)
    try:
        with opened(settings) as database, database.unit(), database.transaction() as transaction:
            _fill(database, path, manifest, program, progress, owners=owners)
            progress("Analyzing")
            database.execute_sql("RESET search_path")
            database.execute_sql("ANALYZE")
            differences = compare(manifest.contents, read_contents(database, progress))
            if differences or not keep:
                transaction.rollback()
    except ConnectionFailed:
        raise
    except DatabaseFault as fault:
        reason = str(fault).partition("; if it is not migrated")[0]
        hint = _HINTS.get(fault.sqlstate, "")
        raise BackupError(f"the server refused the backup, and nothing was restored: {reason}{hint}") from None
    return differences


def _fill(
    database: StoreDatabase,
    path: Path,
    manifest: Manifest,
    program: Program,
    progress: Callable[..., None],
    *,
    owners: bool,
) -> None:
    database.execute_sql(LIFT_DEADLINES, (True,))
    omitted = re.compile(_OMITTED + ("" if owners else _OF_ROLES) + ("" if _takes_uuid_ossp(database) else _UUID_OSSP))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as chosen:
        with _output(program, path, "--list") as lines:
            chosen.writelines(line for line in map(bytes.decode, lines) if not omitted.match(line))
            chosen.flush()
        options = ["--file=-", f"--use-list={chosen.name}", *(() if owners else ("--no-owner", "--no-privileges"))]
        progress("Creating tables")
        with _output(program, path, "--section=pre-data", *options) as output:
            _run(database, output.read())
        with _output(program, path, "--section=data", *options) as output:
            _copy_tables(database, output, manifest.contents.rows, progress)
        progress("Building indexes")
        with _output(program, path, "--section=post-data", *options) as output:
            _run(database, output.read())
    if not owners:
        _keep_private(database, manifest.contents)


def _keep_private(database: StoreDatabase, contents: Contents) -> None:
    """Revoke what nobody may call, where the privileges of a backup are left out."""
    described = {split_key(key)[2]: text for key, text in contents.catalog.items() if key.startswith("function ")}
    private = [
        name for name, text in described.items() if "SECURITY DEFINER" in text and "EXECUTE BY PUBLIC" not in text
    ]
    values = {"schema": contents.schema, "private": private}
    for (statement,) in database.execute_sql(_sql("private_functions"), values).fetchall():
        database.execute_sql(statement)


def _takes_uuid_ossp(database: StoreDatabase) -> bool:
    """Whether uuid-ossp can be created: many servers don't offer or cannot load it, and the store does not need it."""
    with suppress(DatabaseFault), database.atomic() as block:
        database.execute_sql('CREATE EXTENSION IF NOT EXISTS "uuid-ossp"')
        block.rollback()
        return True
    return False


@contextmanager
def _output(program: Program, path: Path, *options: str) -> Iterator[IO[bytes]]:
    with os_errors_named(path), path.open("rb") as file, program.running(*options, stdin=file) as output:
        yield output


def _run(database: StoreDatabase, script: bytes) -> None:
    """Run statements of pg_restore, without psql's commands and a setting that PostgreSQL 16 does not have."""
    text = _HEADER.sub(lambda header: _NOT_SQL.sub("", header[0]), script.decode())
    text = _UNRESTRICT.sub("", text)
    if text.strip():
        database.execute_sql(text.replace("%", "%%"))  # the driver would read % as a placeholder


def _copy_tables(database: StoreDatabase, output: IO[bytes], total: int, progress: Callable[..., None]) -> None:
    """Copy the rows of tables, and run the statements between them: values of sequences, and large objects."""
    done = 0
    for statement in _statements(output):
        if not (copied := _COPY.fullmatch(statement)):
            _run(database, statement)
            continue
        table = copied[1].decode().partition(" (")[0]
        rows = _Rows(output, partial(progress, f"Restoring {table}"), done, total)
        try:
            database.copy(statement.decode().rstrip(";\n"), rows)
        except DatabaseFault as fault:
            # The driver catches what is raised in read(), by the progress or by a signal before its first line.
            if ".read() call" in str(fault.driver_error):
                raise (rows.error or KeyboardInterrupt()) from None
            raise
        done = rows.done


def _statements(output: IO[bytes]) -> Iterator[bytes]:
    """Yield the statements in pg_restore's output of data, whose names and literals can have several lines.

    The rows of a COPY are to be read before the next one. Comments, psql's commands, and the transactions around large
    objects are left out.
    """
    statement = b""
    for line in output:
        if not statement and (line.startswith((b"--", b"\\")) or line in {b"\n", b"BEGIN;\n", b"COMMIT;\n"}):
            continue
        statement += line
        if line.endswith(b";\n") and not re.search(rb"['\"]", _QUOTED.sub(b"", statement)):
            yield statement
            statement = b""


class _Rows:
    """The rows of one COPY in pg_restore's output, as a file."""

    def __init__(self, lines: IO[bytes], progress: Callable[..., None], done: int, total: int) -> None:
        self._lines = lines
        self._progress = progress
        self._total = total
        self._ended = False
        self.done = done
        self.error: BaseException | None = None

    def read(self, _: int = -1) -> bytes:
        """Return the next rows, nothing after the last."""
        block: list[bytes] = []
        size = 0
        while not self._ended and size < _BLOCK:
            line = self._lines.readline()
            self._ended = line in {b"\\.\n", b""}  # it ends early if pg_restore has failed, which is noticed later
            if not self._ended:
                block.append(line)
                size += len(line)
        self.done += len(block)
        try:
            self._progress(self.done, self._total)
        except BaseException as error:
            self.error = error
            raise
        return b"".join(block)


@contextmanager
def _server(settings: Settings) -> Iterator[StoreDatabase]:
    """Yield the server's own database, from which others can be created and renamed."""
    with opened(attrs.evolve(settings, dbname="postgres", schema="public")) as database:
        yield database


def _create(settings: Settings, name: str) -> None:
    with _server(settings) as server:
        try:
            server.execute_sql(f"CREATE DATABASE {_quoted(name)} TEMPLATE template0")
        except ConnectionFailed:
            raise
        except DatabaseFault as fault:
            hint = "; have an administrator create an empty one, and restore to that"
            refused = f"the database {name} cannot be created: {fault}{hint if fault.sqlstate == '42501' else ''}"
            raise BackupError(refused) from None


def _drop(settings: Settings, name: str) -> None:
    with suppress(StoreError), _server(settings) as server:
        server.execute_sql(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")


def _require_same_locale(settings: Settings, name: str, fresh: str) -> None:
    with _server(settings) as server:
        if server.execute_sql(_sql("same_locale"), {"name": name, "fresh": fresh}).fetchone() != (True,):
            raise BackupError(
                f"the locale or encoding of the database {name} is not the server's default, which a new one gets:"
                " create an empty database with that locale, restore to it, and rename both"
            )


def _exchange(settings: Settings, name: str, fresh: str) -> str:
    """Put a restored database in the place of another one, and return the new name of that one."""
    # A name has 63 bytes at most.
    aside = f"{name.encode()[:33].decode(errors='ignore')}_replaced_{datetime.now(UTC):%Y%m%d%H%M%S%f}"
    places = {"name": name, "fresh": fresh}
    with _server(settings) as server, server.unit():
        for left in reversed(range(_TRIES)):
            try:
                server.execute_sql(_sql("end_sessions"), places)
                with server.transaction():
                    _hand_over(server, places)
                    server.execute_sql(f"ALTER DATABASE {_quoted(name)} RENAME TO {_quoted(aside)}")
                    server.execute_sql(f"ALTER DATABASE {_quoted(fresh)} RENAME TO {_quoted(name)}")
            except ConnectionFailed:
                raise
            except DatabaseFault as fault:
                # Somebody has connected again.
                if fault.sqlstate != "55006" or not left:
                    raise BackupError(f"the database {name} cannot be replaced, and is as it was: {fault}") from None
            else:
                break
    return aside


def _hand_over(server: StoreDatabase, places: dict[str, str]) -> None:
    """Give the owner, the connection limit, the grants and the settings of one database to another."""
    fresh = _quoted(places["fresh"])
    owner, limit, granted = server.execute_sql(_sql("database_owner"), places).fetchone()
    server.execute_sql(f"ALTER DATABASE {fresh} OWNER TO {owner.replace('%', '%%')}")
    server.execute_sql(f"ALTER DATABASE {fresh} CONNECTION LIMIT {limit}")
    if granted:
        server.execute_sql(f"REVOKE ALL ON DATABASE {fresh} FROM PUBLIC")
    for (grant,) in server.execute_sql(_sql("database_grants"), places).fetchall():
        server.execute_sql(grant.replace("%", "%%"))
    for statement, setting, value in server.execute_sql(_sql("database_settings"), places).fetchall():
        server.execute_sql("SELECT set_config(%s, %s, true)", (setting, value))
        server.execute_sql(statement.replace("%", "%%"))


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""').replace("%", "%%"))  # the driver would read % as a placeholder

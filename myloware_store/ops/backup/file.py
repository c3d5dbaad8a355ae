"""The file of a backup: a dump in pg_dump's custom format, a manifest behind it, and a last line that seals both.

pg_restore reads the dump and ignores the rest. The manifest says what the database held in the snapshot of the dump; it
cannot be lost or exchanged, as a file of its own could.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs

from myloware_store.core.errors import BackupError, InvalidInput
from myloware_store.ops.backup.contents import Contents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Manifest", "new_file", "os_errors_named", "read_manifest", "seal", "take_path"]

# The length of the manifest, and the SHA-256 of all bytes before it.
_LENGTH = "myloware-backup 1 {:016} "
_SEAL = re.compile(rb"myloware-backup 1 (\d{16}) ([0-9a-f]{64})\n")
_DIGEST_SIZE = 65
_SIZE = len(_LENGTH.format(0)) + _DIGEST_SIZE
_MAGIC = b"PGDMP"
_CHUNK = 1 << 20


@attrs.frozen
class Manifest:
    """What a backup says of itself.

    Attributes:
        created_at: When it was made, in UTC, as ISO 8601.
        database: The name of the database.
        server_version: The version of its server, such as `15.5`.
        dump_version: The major version of the pg_dump that wrote it.
        library_version: The version of this library that made it.
        extensions: The extensions in the database, and their versions.
        contents: What the database held.
    """

    created_at: str
    database: str
    server_version: str
    dump_version: int
    library_version: str
    extensions: dict[str, str]
    contents: Contents

    @property
    def server_major(self) -> int:
        """The major version of the server."""
        return int(re.split(r"\D", self.server_version)[0])


def take_path(path: object) -> Path:
    """Return the path of a backup; raise InvalidInput for anything else."""
    if not isinstance(path, Path | str) or "\0" in str(path):
        raise InvalidInput(f"path must be a path, not {type(path).__name__}")
    return Path(path)


@contextmanager
def os_errors_named(path: Path) -> Iterator[None]:
    """Raise BackupError for an error of the operating system, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}") from None


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """Yield a file beside `path`, which gets that name when the block ends without an error, and else is deleted.

    It can be read by its owner only. It is on disk before it gets its name.

    Raises:
        BackupError: `path` exists and is not to be overwritten, or is not a file.
    """
    if os.path.lexists(path) and not overwrite:
        raise BackupError(f"{path} exists: choose another name, or add --overwrite (overwrite=True)")
    if path.exists() and not path.is_file():
        raise BackupError(f"{path} is not a file")
    partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with open(partial, "xb", opener=_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            partial.replace(path)
        else:
            _link(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _link(partial: Path, path: Path) -> None:
    """Rename a file, unless the new name has been taken in the meantime."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise BackupError(f"{path} was created by someone else while the backup was made") from None
    except OSError:  # a file system without hard links
        partial.rename(path)
    else:
        partial.unlink()


def seal(file: IO[bytes], digest: Any, manifest: Manifest) -> None:
    """Append the manifest and the last line.

    Args:
        file: The file, at the end of the dump.
        digest: The SHA-256 of the dump.
        manifest: The manifest.
    """
    text = json.dumps(attrs.asdict(manifest)).encode()
    text += _LENGTH.format(len(text)).encode()
    digest.update(text)
    file.write(text + f"{digest.hexdigest()}\n".encode())


def read_manifest(path: Path, show: Callable[..., None] = lambda *_: None) -> Manifest:
    """Read a backup whole and return its manifest.

    Raises:
        BackupError: It cannot be read, is not a backup, is cut short, or a byte of it has changed.
    """
    with os_errors_named(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _SIZE, 0))
        found = _SEAL.fullmatch(file.read())
        file.seek(0)
        if not found:
            dumped = file.read(len(_MAGIC)) == _MAGIC
            raise BackupError(
                f"{path} is not complete: it was cut short or changed, or pg_dump made it without `myloware-store"
                " backup`"
                if dumped
                else f"{path} is not a backup of `myloware-store backup`"
            )
        digest, left = hashlib.sha256(), size - _DIGEST_SIZE
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
            show("Reading the backup", size - left, size)
        if digest.hexdigest().encode() != found[2]:
            raise BackupError(f"{path} is damaged: its bytes are not those that were written")
        length = int(found[1])
        file.seek(size - _SIZE - length)
        text = file.read(length)
    values = json.loads(text)
    contents = values.pop("contents")
    contents["migrations"] = tuple(contents["migrations"])
    contents["tables"] = {table: tuple(sums) for table, sums in contents["tables"].items()}
    return Manifest(**values, contents=Contents(**contents))

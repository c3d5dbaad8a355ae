"""The account that the embedded server runs as: our own, unless we are root, which PostgreSQL refuses."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

import attrs

from myloware_store.core.errors import EmbeddedServerError

__all__ = ["Account", "private_folder", "server_account"]

ACCOUNTS = ("postgres", "_postgres", "nobody")
"""Accounts that root may run the server as; the first that exists is used."""


@attrs.frozen
class Account:
    """The account that the server runs as if we are root."""

    name: str
    uid: int
    gid: int

    def barred_from(self, path: Path) -> Path | None:
        """Return the first folder above `path`, or `path` itself, that this account cannot enter or read."""
        for part in (*reversed(path.parents), path):
            status = part.stat()
            shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
            needed = 0o1 if stat.S_ISDIR(status.st_mode) else 0o4
            if not (status.st_mode >> shift) & needed:
                return part
        return None


def server_account() -> Account | None:
    """Return the account to run the server as; None means our own.

    Raises:
        EmbeddedServerError: We are root, and none of the accounts exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists: create one "
        "(useradd --system postgres), or run as a plain user, or set DATABASE_URL to a server."
    )


def private_folder(path: Path, account: Account | None) -> None:
    """Create a folder that only the server's account can enter, or accept an existing one.

    Raises:
        EmbeddedServerError: The path is a link or a file, or a folder that others own or can enter.
    """
    owner = account.uid if account else os.geteuid()
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise EmbeddedServerError(f"{path} is not a folder that only we can enter ({error}): remove it.") from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid not in {owner, os.geteuid()}:
            raise EmbeddedServerError(f"{path} belongs to uid {status.st_uid}, not to {owner}: remove it.")
        if status.st_mode & 0o077:
            raise EmbeddedServerError(f"{path} can be entered by others: remove it, or make it private (chmod 700).")
        if account and status.st_uid != account.uid:  # new, or left by a start that was killed at this point
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)

"""The place of the embedded server of a home folder.

This is the home folder itself, with one exception: root must run PostgreSQL as another account, which may be unable to
enter the home (a clone inside a 0700 home folder). Then a link in the home, created once, leads to a system folder
with the data. This module never changes the mode or the owner of files that it did not create.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import stat
import sys
from pathlib import Path

import attrs

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded.account import Account, server_account
from myloware_store.embedded.locks import is_held, locked, open_lock

__all__ = ["SYSTEM_FOLDER", "Place", "find_place", "make_place", "write_new"]

SYSTEM_FOLDER = Path(
    "/Library/Application Support/myloware-store" if sys.platform == "darwin" else "/var/lib/myloware-store"
)
"""Root's folder for data and programs that the server's account could not reach elsewhere."""

HARMLESS = {".DS_Store", ".gitignore", ".gitkeep", "lost+found"}
"""Entries of a folder that still counts as empty."""

SOCKET_LIMIT = 100
"""The most bytes of a socket's path; the kernels' limits are 104 (macOS) and 108 (Linux)."""


@attrs.frozen
class Place:
    """The folder of one server's cluster, locks and log."""

    home: Path
    folder: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """The cluster."""
        return self.folder / "pgdata"

    @property
    def log(self) -> Path:
        """The output of initdb and the server."""
        return self.folder / "log"

    @property
    def start_lock(self) -> Path:
        """Held while starting or stopping the server, and while joining or leaving it."""
        return self.folder / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Held, shared, by every user of the server."""
        return self.folder / "users.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the supervisor and every process of the server while they are alive."""
        return self.folder / "server.lock"

    @property
    def control(self) -> Path:
        """The pipe for commands to the supervisor."""
        return self.folder / "control"

    @property
    def state(self) -> Path:
        """The supervisor's description of a server that is ready."""
        return self.folder / "server.json"

    @property
    def keep(self) -> Path:
        """Its existence keeps the server running without users."""
        return self.folder / "keep"

    @property
    def unsynced(self) -> Path:
        """Marks a cluster that was last written without fsync; its text is `disposable` if that was always so."""
        return self.folder / "unsynced"

    @property
    def near_socket_dir(self) -> Path:
        """The socket's folder if the kernel and libpq accept its path."""
        return self.folder / "run"

    @property
    def far_socket_dir(self) -> Path:
        """The socket's folder otherwise: a private one with a short name."""
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(f"/tmp/myloware-{os.geteuid()}-{digest}")  # noqa: S108  verified by private_folder

    @property
    def socket_dir(self) -> Path:
        """The socket's folder."""
        path = self.near_socket_dir / ".s.PGSQL.5432"
        usable = str(path).isprintable() and not set(str(path)) & set(",\"'\\")
        return self.near_socket_dir if usable and len(os.fsencode(path)) <= SOCKET_LIMIT else self.far_socket_dir


def find_place(home: Path) -> Place | None:
    """Return the existing place of a home, or None, without changing anything."""
    account = server_account()
    linked = _linked_folder(home) if account else None
    if linked:
        return _with_owner(Place(home, linked, account))
    return _with_owner(Place(home, home, account)) if (home / "users.lock").exists() else None


def make_place(home: Path) -> Place:
    """Return the home's place, creating the folders if necessary.

    Raises:
        EmbeddedServerError: The home belongs to someone else, contains other files, or cannot be used.
    """
    account = server_account()
    with contextlib.suppress(FileExistsError):
        home.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o711 if account else 0o700
        home.mkdir(mode=mode)
        home.chmod(mode)  # regardless of the umask
        write_new(home / ".gitignore", b"*\n")
    _check_owner(home)
    with locked(home, f"the folder {home}"):
        linked = _linked_folder(home) if account else None
        if linked:
            write_new(linked / "home", os.fsencode(home))  # it may have been moved
            return _with_owner(Place(home, linked, account))
        ours = (home / "users.lock").exists()
        strange = set() if ours else {entry.name for entry in home.iterdir() if not _is_link(entry)} - HARMLESS
        if strange:
            raise EmbeddedServerError(
                f"{home} contains other files ({', '.join(sorted(strange)[:3])}): name an empty or new folder."
            )
        place = _with_owner(Place(home, home, account))
        barred = place.account.barred_from(home) if place.account else None
        if place.account and barred and ours:
            raise EmbeddedServerError(
                f"The data in {home} belongs to a server that runs as {place.account.name!r}, which can no longer "
                f"enter {barred}: let it in (chmod o+x), or move the folder to a place that it can enter."
            )
        if account and barred:
            place = Place(home, _system_folder(home, account), account)
        os.close(open_lock(place.users_lock))
        return place


def write_new(path: Path, content: bytes) -> None:
    """Write a file, replacing any existing one; a link is removed, not followed."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _check_owner(home: Path) -> None:
    """Refuse a home that is not a folder, or that others own or may write to."""
    status = home.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise EmbeddedServerError(f"{home} is a file: name a folder for the embedded server.")
    if status.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{home} belongs to another user (uid {status.st_uid}): name your own folder, or run as that user."
        )
    if status.st_mode & stat.S_IWOTH:
        raise EmbeddedServerError(f"Everyone can write to {home}: name a private folder, or chmod o-w it.")


def _with_owner(place: Place) -> Place:
    """Return the place with the account that owns its data, even if the preferred account has changed."""
    if place.account:
        with contextlib.suppress(FileNotFoundError, KeyError):
            entry = pwd.getpwuid(place.data.stat().st_uid)
            if entry.pw_uid != 0:
                return attrs.evolve(place, account=Account(entry.pw_name, entry.pw_uid, entry.pw_gid))
    return place


def _linked_folder(home: Path) -> Path | None:
    """Return the system folder that the home links to, if it exists and was created for this home."""
    link = home / "server"
    if not _is_link(link):
        return None
    folder = link.readlink()
    try:
        made_for = Path(os.fsdecode((folder / "home").read_bytes()))
    except OSError:
        return None
    copied = made_for != home and _is_link(made_for / "server") and (made_for / "server").readlink() == folder
    return None if copied else folder  # a copy of a home gets its own place, a moved home keeps its place


def _is_link(path: Path) -> bool:
    """Return whether this is the link from a home to a system folder."""
    return path.name == "server" and path.is_symlink() and path.readlink().parent == SYSTEM_FOLDER


def _system_folder(home: Path, account: Account) -> Path:
    """Create a system folder for a home, and the link to it."""
    base = system_base(account)
    _forget_tests(base)
    folder = base / secrets.token_hex(8)
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    write_new(folder / "home", os.fsencode(home))
    link = home / "server"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    return folder


def _forget_tests(base: Path) -> None:
    """Remove the data of test servers whose home is gone; data that was ever durable is never removed."""
    for mark in base.glob("*/unsynced"):
        folder = mark.parent
        with contextlib.suppress(OSError):
            if mark.read_text() != "disposable":
                continue
            link = Path(os.fsdecode((folder / "home").read_bytes())) / "server"
            linked = _is_link(link) and link.readlink() == folder
            if not linked and not is_held(folder / "server.lock") and not is_held(folder / "users.lock"):
                shutil.rmtree(folder)


def system_base(account: Account) -> Path:
    """Return the system folder, creating it if necessary.

    Raises:
        EmbeddedServerError: Others than root can write to it, or the account cannot enter it.
    """
    if not SYSTEM_FOLDER.exists():
        fresh = SYSTEM_FOLDER.with_name(f"{SYSTEM_FOLDER.name}.{secrets.token_hex(4)}.new")
        fresh.mkdir(parents=True)
        fresh.chmod(0o755)
        with contextlib.suppress(OSError):  # someone else was faster
            fresh.rename(SYSTEM_FOLDER)
        if fresh.exists():
            fresh.rmdir()
    status = SYSTEM_FOLDER.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise EmbeddedServerError(f"{SYSTEM_FOLDER} is not a folder that only root can write to.")
    barred = account.barred_from(SYSTEM_FOLDER)
    if barred:
        raise EmbeddedServerError(
            f"The server's account {account.name!r} cannot enter {barred}: name a home folder that it can reach."
        )
    return SYSTEM_FOLDER

"""Where the embedded server of a home folder lives.

That is the home folder itself, but for one case: root must run PostgreSQL as another account, and the home may lie
where that account cannot enter (a clone beneath a 0700 home folder). Then a link in the home, made once, leads to a
system folder that holds the data. Nothing here changes the mode or the owner of what it did not make.
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
"""Where root keeps what the server's account could not reach elsewhere."""

HARMLESS = {".DS_Store", ".gitignore", ".gitkeep", "lost+found"}
"""What a folder may hold and still count as empty."""

SOCKET_LIMIT = 100
"""Bytes that the path of a socket may have; the kernels end at 104 (macOS) and 108 (Linux)."""


@attrs.frozen
class Place:
    """The folder that holds one server's cluster, locks and log."""

    home: Path
    folder: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """The cluster."""
        return self.folder / "pgdata"

    @property
    def log(self) -> Path:
        """What initdb and the server print."""
        return self.folder / "log"

    @property
    def start_lock(self) -> Path:
        """Held by who is about to start or stop the server, or to join or leave it as the last."""
        return self.folder / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Held, shared, by everyone who uses the server."""
        return self.folder / "users.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the supervisor and every process of the server: held means alive."""
        return self.folder / "server.lock"

    @property
    def control(self) -> Path:
        """The pipe through which the supervisor is told to stop."""
        return self.folder / "control"

    @property
    def state(self) -> Path:
        """What the supervisor says of a server that is ready."""
        return self.folder / "server.json"

    @property
    def keep(self) -> Path:
        """The mark that the running server outlives its users."""
        return self.folder / "keep"

    @property
    def unsynced(self) -> Path:
        """The mark of a cluster that was last written without fsync; it reads `disposable` if that was always so."""
        return self.folder / "unsynced"

    @property
    def near_socket_dir(self) -> Path:
        """The socket's folder, where its path is one that the kernel and libpq accept."""
        return self.folder / "run"

    @property
    def far_socket_dir(self) -> Path:
        """The socket's folder otherwise: a private one with a short name of its own."""
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(f"/tmp/myloware-{os.geteuid()}-{digest}")  # noqa: S108  verified by private_folder

    @property
    def socket_dir(self) -> Path:
        """The socket's folder."""
        path = self.near_socket_dir / ".s.PGSQL.5432"
        usable = str(path).isprintable() and not set(str(path)) & set(",\"'\\")
        return self.near_socket_dir if usable and len(os.fsencode(path)) <= SOCKET_LIMIT else self.far_socket_dir


def find_place(home: Path) -> Place | None:
    """Return the place that a home already has, changing nothing; None where there is none."""
    account = server_account()
    linked = _linked_folder(home) if account else None
    if linked:
        return _with_owner(Place(home, linked, account))
    return _with_owner(Place(home, home, account)) if (home / "users.lock").exists() else None


def make_place(home: Path) -> Place:
    """Return the home's place, making the folders if need be.

    Raises:
        EmbeddedServerError: The home belongs to someone else, holds something else, or cannot be used.
    """
    account = server_account()
    with contextlib.suppress(FileExistsError):
        home.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o711 if account else 0o700
        home.mkdir(mode=mode)
        home.chmod(mode)  # whatever the umask took away
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
                f"{home} holds something else ({', '.join(sorted(strange)[:3])}): name an empty or new folder."
            )
        place = _with_owner(Place(home, home, account))
        barred = place.account.barred_from(home) if place.account else None
        if place.account and barred and ours:
            raise EmbeddedServerError(
                f"The data in {home} belongs to a server that runs as {place.account.name!r}, which cannot enter "
                f"{barred} any more: let it in (chmod o+x), or move the folder to where it can."
            )
        if account and barred:
            place = Place(home, _system_folder(home, account), account)
        os.close(open_lock(place.users_lock))
        return place


def write_new(path: Path, content: bytes) -> None:
    """Write a file of our own in place of whatever has its name; a link there is removed, not followed."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _check_owner(home: Path) -> None:
    """Refuse a home that is no folder, or that others own or may write to."""
    status = home.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise EmbeddedServerError(f"{home} is a file: name a folder for the embedded server.")
    if status.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{home} belongs to another user (uid {status.st_uid}): name a folder of your own, or run as that user."
        )
    if status.st_mode & stat.S_IWOTH:
        raise EmbeddedServerError(f"Everyone can write to {home}: name a private folder, or chmod o-w it.")


def _with_owner(place: Place) -> Place:
    """Return the place with the account that owns its data: accounts come and go, and the data stays as it is."""
    if place.account:
        with contextlib.suppress(FileNotFoundError, KeyError):
            entry = pwd.getpwuid(place.data.stat().st_uid)
            if entry.pw_uid != 0:
                return attrs.evolve(place, account=Account(entry.pw_name, entry.pw_uid, entry.pw_gid))
    return place


def _linked_folder(home: Path) -> Path | None:
    """Return the system folder that the home leads to, if it is there and was made for this home."""
    link = home / "server"
    if not _is_link(link):
        return None
    folder = link.readlink()
    try:
        made_for = Path(os.fsdecode((folder / "home").read_bytes()))
    except OSError:
        return None
    copied = made_for != home and _is_link(made_for / "server") and (made_for / "server").readlink() == folder
    return None if copied else folder  # a copy of a home gets a place of its own, a home that was moved keeps it


def _is_link(path: Path) -> bool:
    """Say whether this is the link from a home to a system folder."""
    return path.name == "server" and path.is_symlink() and path.readlink().parent == SYSTEM_FOLDER


def _system_folder(home: Path, account: Account) -> Path:
    """Make a system folder for a home, and the link that leads there."""
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
    """Remove the data of test servers whose home is gone; what was ever durable is never removed."""
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
    """Return the system folder, made if need be.

    Raises:
        EmbeddedServerError: It is not root's alone, or the account cannot enter it.
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

"""Where the embedded server of a home folder lives, and the account it runs as.

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
import stat
import sys
from pathlib import Path

import attrs

from myloware_store.embedded_locks import locked, open_lock
from myloware_store.errors import EmbeddedServerError

__all__ = ["SYSTEM_FOLDER", "Account", "Place", "find_place", "make_place", "private_folder", "server_account"]

SYSTEM_FOLDER = Path(
    "/Library/Application Support/myloware-store" if sys.platform == "darwin" else "/var/lib/myloware-store"
)
"""Where root keeps what the server's account could not reach elsewhere."""

ACCOUNTS = ("postgres", "_postgres", "nobody")
"""Accounts that root runs the server as, the first that exists."""

HARMLESS = {".DS_Store", ".gitignore", ".gitkeep", "lost+found"}
"""What a folder may hold and still count as empty."""

SOCKET_LIMIT = 100
"""Bytes that the path of a socket may have; the kernels end at 104 (macOS) and 108 (Linux)."""


@attrs.frozen
class Account:
    """An account that the server runs as, because root may not."""

    name: str
    uid: int
    gid: int

    def barred_from(self, path: Path) -> Path | None:
        """Return the first folder on the way to `path`, or `path` itself, that this account cannot enter or read."""
        for part in (*reversed(path.parents), path):
            status = part.stat()
            shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
            needed = 0o1 if stat.S_ISDIR(status.st_mode) else 0o4
            if not (status.st_mode >> shift) & needed:
                return part
        return None


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
        """The mark that the cluster was last written without fsync."""
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


def server_account() -> Account | None:
    """Return the account to run the server as: None is our own.

    Raises:
        EmbeddedServerError: This is root, and none of the accounts exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists: make one "
        "(useradd --system postgres), or run as a plain user, or set DATABASE_URL to a server."
    )


def find_place(home: Path) -> Place | None:
    """Return the place that a home already has, changing nothing; None where there is none."""
    account = server_account()
    linked = _linked_folder(home) if account else None
    if linked:
        return Place(home, linked, account)
    return Place(home, home, account) if (home / "users.lock").exists() else None


def make_place(home: Path) -> Place:
    """Return the home's place, making the folders if need be.

    Raises:
        EmbeddedServerError: The home belongs to someone else, holds something else, or cannot be used.
    """
    account = server_account()
    with contextlib.suppress(FileExistsError):
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o711 if account else 0o700)
    _check_owner(home, account)
    with locked(home, f"the folder {home}"):
        linked = _linked_folder(home) if account else None
        if linked:
            return Place(home, linked, account)
        ours = (home / "users.lock").exists()
        strange = set() if ours else {entry.name for entry in home.iterdir()} - HARMLESS
        if strange:
            raise EmbeddedServerError(
                f"{home} holds something else ({', '.join(sorted(strange)[:3])}): name an empty or new folder."
            )
        barred = account.barred_from(home) if account else None
        if account and barred and ours:
            raise EmbeddedServerError(
                f"The data in {home} belongs to a server that runs as {account.name!r}, which cannot enter {barred} "
                "any more: let it in (chmod o+x), or move the folder to where it can."
            )
        folder = _system_folder(home, account) if account and barred else home
        os.close(open_lock(folder / "users.lock"))
        return Place(home, folder, account)


def private_folder(path: Path, account: Account | None) -> None:
    """Make a folder that only the server's account can enter, or accept one that is so already.

    Raises:
        EmbeddedServerError: Something else is there: a link, or a folder that others own or can enter.
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
        if account and status.st_uid == os.geteuid():  # ours and new, or left by a start that was killed here
            os.fchown(descriptor, account.uid, account.gid)
        elif status.st_uid != owner:
            raise EmbeddedServerError(f"{path} belongs to uid {status.st_uid}, not to {owner}: remove it.")
        if status.st_mode & 0o077:
            raise EmbeddedServerError(f"{path} can be entered by others: remove it, or make it private (chmod 700).")
    finally:
        os.close(descriptor)


def _check_owner(home: Path, account: Account | None) -> None:
    """Refuse a home that is no folder, or that others own or may write to."""
    status = home.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise EmbeddedServerError(f"{home} is a file: name a folder for the embedded server.")
    owners = {os.geteuid(), account.uid} if account else {os.geteuid()}
    if status.st_uid not in owners:
        raise EmbeddedServerError(
            f"{home} belongs to another user (uid {status.st_uid}): name a folder of your own, or run as that user."
        )
    if status.st_mode & stat.S_IWOTH:
        raise EmbeddedServerError(f"Everyone can write to {home}: name a private folder, or chmod o-w it.")


def _linked_folder(home: Path) -> Path | None:
    """Return the system folder that the home leads to, if it is there and was made for this home."""
    try:
        folder = (home / "server").readlink()
        made_for = Path(os.fsdecode((folder / "home").read_bytes()))
    except OSError:
        return None
    if folder.parent != SYSTEM_FOLDER:
        return None
    if made_for != home:
        with contextlib.suppress(OSError):
            if (made_for / "server").readlink() == folder:
                return None  # this home is a copy of the other one, and gets a place of its own
        (folder / "home").write_bytes(os.fsencode(home))  # the home was moved
    return folder


def _system_folder(home: Path, account: Account) -> Path:
    """Make a system folder for a home, and the link that leads there."""
    base = system_base(account)
    folder = base / secrets.token_hex(8)
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    (folder / "home").write_bytes(os.fsencode(home))
    link = home / "server"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    return folder


def system_base(account: Account) -> Path:
    """Return the system folder, made if need be.

    Raises:
        EmbeddedServerError: It is not root's alone, or the account cannot enter it.
    """
    with contextlib.suppress(FileExistsError):
        SYSTEM_FOLDER.mkdir(parents=True)
        SYSTEM_FOLDER.chmod(0o755)
    status = SYSTEM_FOLDER.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise EmbeddedServerError(f"{SYSTEM_FOLDER} is not a folder that only root can write to.")
    barred = account.barred_from(SYSTEM_FOLDER)
    if barred:
        raise EmbeddedServerError(
            f"The server's account {account.name!r} cannot enter {barred}: name a home folder that it can reach."
        )
    return SYSTEM_FOLDER

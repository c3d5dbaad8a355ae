"""The public face of the embedded server: start, share, keep and stop it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from myloware_store.core.errors import EmbeddedServerError, InvalidInput
from myloware_store.settings.url import EMBEDDED_PARAMETERS

if sys.platform != "win32":
    from myloware_store.embedded import locks
    from myloware_store.embedded.binaries import find_binaries
    from myloware_store.embedded.place import Place, find_place, make_place, write_new
    from myloware_store.embedded.processes import holders
    from myloware_store.embedded.start import ensure_running, read_state, stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["EmbeddedServer", "find_binaries"]

NAME_LIMIT = 63
"""The most bytes of a name in PostgreSQL."""

UNANSWERABLE = ("PGSERVICE", "PGTZ", "PGDATESTYLE", "PGGEQO")
"""Variables that libpq always reads, whatever the connection's parameters; a bad value ends the connection."""


class EmbeddedServer:
    """A private PostgreSQL server, which runs while it has users.

    Any number of objects, threads and processes may use one home. The first starts the server, and it stops after the
    last has closed it or died. A forked child is a user, too, until it closes the object or ends. An object that is
    dropped without `close` uses the server until its process ends.

    Args:
        home: The server's folder, created if necessary. If we are root and the server's account cannot enter it, it
            gets a link to a system folder with the data.
        testing: Trade durability for speed (no fsync). It takes effect at the start of the server: users who join a
            running one get its mode. A home may be opened either way; before it is durable again, it is synced to disk.
    """

    def __init__(self, home: Path | str, *, testing: bool = False) -> None:
        _check_platform(sys.platform)
        self.home = _resolved(home)
        self.testing = testing
        self._place: Place | None = None
        self._users: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Use the server, starting it if it does not run.

        Call it again to restart a server that has died.

        Raises:
            EmbeddedServerError: It cannot be found, created or started; the message says why and what to do.
        """
        with _os_errors_named(self.home):
            binaries = find_binaries()
            place = make_place(self.home)
            with locks.locked(place.start_lock, f"another start or stop of the server in {self.home}"):
                users = locks.open_lock(place.users_lock) if self._users is None else self._users
                try:
                    locks.acquire(users, f"the server in {self.home} to stop", shared=True)
                    ensure_running(place, binaries, testing=self.testing)
                except BaseException:
                    if self._users is None:
                        os.close(users)
                    raise
                self._users, self._place = users, place

    def close(self) -> None:
        """Stop using the server; the last user waits until it has stopped.

        Raises:
            EmbeddedServerError: It did not stop in time.
        """
        place = self._place
        if self._users is None or place is None:
            return
        with (
            _os_errors_named(self.home),
            locks.locked(place.start_lock, f"another start or stop of the server in {self.home}"),
        ):
            users, self._users = self._users, None
            if users is None:  # another thread was faster
                return
            os.close(users)  # a copy in a forked process still holds the lock
            with locks.shielded(locks.open_lock(place.users_lock)) as probe:
                if not place.keep.exists() and not locks.is_shared(probe):
                    stop(place)

    def keep(self) -> None:
        """Keep the server running without users, until `down`, a reboot or its death.

        Raises:
            EmbeddedServerError: This object does not use the server.
        """
        if self._users is None or self._place is None:
            raise EmbeddedServerError(f"The server in {self.home} is not open here: start() it, then keep() it.")
        with _os_errors_named(self.home):
            write_new(self._place.keep, b"")

    @classmethod
    def down(cls, home: Path | str, *, force: bool = False) -> bool:
        """Stop the server of a home, kept or not.

        Args:
            home: The server's folder.
            force: Stop it even if it has users.

        Returns:
            Whether there was a server to stop.

        Raises:
            EmbeddedServerError: It has users, or it did not stop in time.
        """
        home = _resolved(home)
        with _os_errors_named(home):
            place = find_place(home)
            if place is None:
                return False
            with locks.locked(place.start_lock, f"another start or stop of the server in {home}"):
                if not locks.is_held(place.server_lock):
                    return False
                pids = ", ".join(map(str, holders(place.users_lock))) or "unknown"
                with locks.shielded(locks.open_lock(place.users_lock)) as users:
                    if not force and locks.is_shared(users):
                        raise EmbeddedServerError(
                            f"The server in {home} is in use (by pid {pids}): close it there, or stop it with"
                            " `down --force`."
                        )
                    place.keep.unlink(missing_ok=True)
                    stop(place)
            return True

    @classmethod
    def running(cls, home: Path | str) -> bool:
        """Return whether the home's server runs (or is just starting or stopping)."""
        home = _resolved(home)
        with _os_errors_named(home):
            place = find_place(home)
            return place is not None and locks.is_held(place.server_lock)

    @classmethod
    def made(cls, home: Path | str) -> bool:
        """Return whether there is a cluster in the home, without changing anything."""
        home = _resolved(home)
        with _os_errors_named(home):
            place = find_place(home)
            return place is not None and place.data.exists()

    @property
    def data_dir(self) -> Path:
        """The folder of the cluster."""
        return self._where().data

    @property
    def log_path(self) -> Path:
        """The file that initdb and the server write to."""
        return self._where().log

    @property
    def socket_dir(self) -> Path:
        """The folder of the running server's socket."""
        return Path(read_state(self._where())["socket_dir"])

    @property
    def pid(self) -> int:
        """The running server's process id."""
        return int(read_state(self._where())["pid"])

    def url(self, dbname: str = "myloware") -> str:
        """Return the libpq URL of a database on the running server."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql://postgres@/{quote(dbname, safe='')}?host={host}&port=5432"

    def connect_kwargs(self, dbname: str = "myloware") -> dict[str, Any]:
        """Return the arguments of `psycopg2.connect` for a database on the running server.

        They override libpq's environment, in which PGHOSTADDR would lead to another server.
        """
        return {**EMBEDDED_PARAMETERS, **self.address(dbname)}

    def address(self, dbname: str = "myloware") -> dict[str, Any]:
        """Return the address of a database on the running server, for `Settings.with_server`."""
        return {"host": str(self.socket_dir), "port": 5432, "user": "postgres", "dbname": dbname}

    def ensure_database(self, name: str = "myloware") -> None:
        """Create a database if it does not exist; safe in concurrent calls.

        Raises:
            InvalidInput: A database cannot have that name.
            EmbeddedServerError: The server could not be reached, or refused, or another one answered.
        """
        import psycopg2
        from psycopg2 import errors, sql

        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= NAME_LIMIT:
            raise InvalidInput(f"A database's name is printable text of 1 to {NAME_LIMIT} bytes, not {name!r:.80}.")
        try:
            connection = psycopg2.connect(**self.connect_kwargs("postgres"))
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SELECT encode(textsend(current_setting('data_directory')), 'hex')")
                    (data,) = cursor.fetchone()
                    self._require_ours(Path(os.fsdecode(bytes.fromhex(data))))  # a path need not be UTF-8
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
                    if cursor.fetchone() is None:
                        with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                            create = sql.SQL("CREATE DATABASE {} TEMPLATE template0")
                            cursor.execute(create.format(sql.Identifier(name)))
            finally:
                connection.close()
        except psycopg2.Error as error:
            unset = ", ".join(filter(os.environ.get, UNANSWERABLE))
            hint = f" libpq reads {unset} from the environment, and a connection cannot override it." if unset else ""
            raise EmbeddedServerError(
                f"The database {name!r} could not be created: {' '.join(str(error).split())}{hint}"
            ) from error

    def _require_ours(self, data: Path) -> None:
        if data != self.data_dir:
            raise EmbeddedServerError(
                f"The socket in {self.socket_dir} leads to another server, with its data in {data}; the embedded"
                f" server's data is in {self.data_dir}. Nothing was changed."
            )

    def _where(self) -> Place:
        place = self._place or find_place(self.home)
        if place is None:
            raise EmbeddedServerError(f"There is no server in {self.home}: start() it first.")
        return place


def _resolved(home: Path | str) -> Path:
    """Return the home's real path, if it can be one."""
    try:
        path = Path(home).absolute().resolve()
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # links in a circle, NUL, a number
        raise EmbeddedServerError(f"{str(home)[-255:]!r} cannot be the embedded server's folder: {error}") from error
    if "\n" in str(path) or "\r" in str(path):
        raise EmbeddedServerError(f"{str(home)!r} cannot be the embedded server's folder: it has a line break.")
    return path


def _check_platform(platform: str) -> None:
    if platform not in ("linux", "darwin"):
        raise EmbeddedServerError(
            f"The embedded server runs on Linux and macOS, not on {platform}: set DATABASE_URL to a PostgreSQL server "
            "with pgvector."
        )


@contextlib.contextmanager
def _os_errors_named(home: Path) -> Iterator[None]:
    """Turn errors of the operating system into one that names the folder."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(
            f"The embedded server cannot use {home}: {error}. Name a folder on a local disk that you can write to "
            "(embedded:PATH), or set DATABASE_URL to a server."
        ) from error

"""Create, rename and drop databases on the test server, through one connection."""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import psycopg2
from psycopg2.sql import SQL, Identifier, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

__all__ = ["Maintenance", "Server"]

_END_SECONDS = 10.0  # to wait for a backend to end
_POLL_SECONDS = 0.001
_KEY = "hashtextextended(%s, 0)"


class Server(Protocol):
    """A PostgreSQL server for tests."""

    @property
    def description(self) -> str:
        """Its address, for the last lines of a run."""

    def url(self, dbname: str) -> str:
        """Return the libpq URL of a database on it."""

    def connect_kwargs(self, dbname: str) -> dict[str, Any]:
        """Return the arguments of `psycopg2.connect` for a database on it."""

    def stay(self) -> str:
        """Keep it running after the tests, and return the command that ends it, if any."""


class Maintenance:
    """A connection to the server's `postgres` database, in autocommit mode.

    Args:
        server: The server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection: connection = psycopg2.connect(**server.connect_kwargs("postgres"))
        self._connection.autocommit = True

    def close(self) -> None:
        """Close the connection, and release the keys held on it."""
        self._connection.close()

    @cached_property
    def superuser(self) -> bool:
        """Whether the role is a superuser."""
        return self._rows("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(True,)]

    @cached_property
    def owner(self) -> str:
        """The role, unless it is a superuser: other roles cannot use its templates."""
        ((role,),) = self._rows("SELECT current_user")
        return "" if self.superuser else role

    @cached_property
    def versions(self) -> tuple[str, str | None]:
        """The versions of PostgreSQL and, if the server offers it, of pgvector."""
        query = """
            SELECT current_setting('server_version'),
                (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')
            """
        ((postgres, pgvector),) = self._rows(query)
        return postgres, pgvector

    @cached_property
    def _strategy(self) -> str:
        # Copying files takes two checkpoints: half the time of logging without fsync, several times it with fsync.
        return "file_copy" if self._rows("SHOW fsync") == [("off",)] else "wal_log"

    def names(self, prefix: str) -> list[str]:
        """List the role's databases with a prefix."""
        query = """
            SELECT datname FROM pg_database
            WHERE starts_with(datname, %s) AND pg_has_role(datdba, 'MEMBER') ORDER BY datname
            """
        return [name for (name,) in self._rows(query, (prefix,))]

    def exists(self, name: str) -> bool:
        """Tell whether there is such a database."""
        return self._rows("SELECT FROM pg_database WHERE datname = %s", (name,)) != []

    def create(self, name: str, *, template: str | None = None) -> None:
        """Create a database, empty or as a copy of another one; the sessions on the other one end."""
        if template is None:
            # A plain role cannot create the extension, but an administrator may have created it in template1.
            template = "template0" if self.superuser else "template1"
            self._run("CREATE DATABASE {name} TEMPLATE {template}", name=name, template=template)
        else:
            self.end_sessions(template)
            statement = "CREATE DATABASE {name} TEMPLATE {template} STRATEGY " + self._strategy
            self._run(statement, name=name, template=template)

    def drop(self, name: str) -> None:
        """End the sessions on a database and drop it, if it exists.

        DROP DATABASE would end them too, but polls every 100 ms.
        """
        self.end_sessions(name)
        if self._rows("SELECT datistemplate FROM pg_database WHERE datname = %s", (name,)) == [(True,)]:
            self._run("ALTER DATABASE {name} IS_TEMPLATE false", name=name)
        self._run("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=name)

    def configure(self, name: str, setting: str) -> None:
        """Set the default of a setting, such as `lock_timeout=10000`, for the sessions on a database."""
        self._run(f"ALTER DATABASE {{name}} SET {setting}", name=name)

    def rename(self, name: str, to: str) -> None:
        """End the sessions on a database and rename it."""
        self.end_sessions(name)
        self._run("ALTER DATABASE {name} RENAME TO {to}", name=name, to=to)

    def make_template(self, name: str, to: str) -> None:
        """Rename a complete database, and allow no more connections to it."""
        self._run("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false", name=name)
        self.rename(name, to)

    def note(self, name: str, **notes: str | None) -> None:
        """Write notes into the comment on a database, which `psql -l+` shows."""
        statement = SQL("COMMENT ON DATABASE {name} IS {notes}")
        with self._connection.cursor() as cursor:
            cursor.execute(statement.format(name=Identifier(name), notes=Literal(json.dumps(notes))))

    def notes(self, name: str) -> dict[str, str]:
        """Read the notes on a database."""
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        notes = self._rows(query, (name,))
        return dict(json.loads(notes[0][0])) if notes and notes[0][0] else {}

    def end_sessions(self, name: str) -> None:
        """End the sessions and prepared transactions on a database, and wait until they are gone.

        Raises:
            TimeoutError: One of them did not end.
        """
        deadline = time.monotonic() + _END_SECONDS
        end = """
            SELECT pid::text, pg_terminate_backend(pid), NULL FROM pg_stat_activity
            WHERE datname = %s AND backend_type = 'client backend'
            UNION ALL
            SELECT NULL, NULL, gid FROM pg_prepared_xacts WHERE database = %s
            """
        while left := self._rows(end, (name, name)):
            self._roll_back_prepared(name, [gid for _, _, gid in left if gid is not None])
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sessions on {name} do not end: {left}")
            time.sleep(_POLL_SECONDS)

    def _roll_back_prepared(self, name: str, prepared: list[str]) -> None:
        if not prepared:
            return
        with closing(psycopg2.connect(**self.server.connect_kwargs(name))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for gid in prepared:
                    cursor.execute("ROLLBACK PREPARED %s", (gid,))

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold a key exclusively while the block runs."""
        self._rows(f"SELECT pg_advisory_lock({_KEY})", (key,))
        try:
            yield
        finally:
            self._rows(f"SELECT pg_advisory_unlock({_KEY})", (key,))

    def hold(self, key: str) -> None:
        """Hold a key, shared with others, until `release`, or until the connection or the process ends."""
        self._rows(f"SELECT pg_advisory_lock_shared({_KEY})", (key,))

    def release(self, key: str) -> None:
        """Release a key."""
        self._rows(f"SELECT pg_advisory_unlock_shared({_KEY})", (key,))

    def drop_unless_held(self, name: str, key: str) -> None:
        """Drop a database unless another process holds a key."""
        if self._rows(f"SELECT pg_try_advisory_lock({_KEY})", (key,)) == [(True,)]:
            try:
                self.drop(name)
            finally:
                self._rows(f"SELECT pg_advisory_unlock({_KEY})", (key,))

    def _rows(self, query: str, params: tuple[object, ...] | None = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, params)
            return cursor.fetchall()

    def _run(self, statement: str, **names: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(SQL(statement).format(**{key: Identifier(name) for key, name in names.items()}))

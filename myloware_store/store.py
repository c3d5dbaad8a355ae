"""The store: what a service opens, with the repositories on it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from myloware_store.core.errors import InvalidInput, SettingsError, StoreError
from myloware_store.db.database import StoreDatabase
from myloware_store.db.proxy import proxy
from myloware_store.db.tenancy import tenant_scope
from myloware_store.memory.engine import Memory
from myloware_store.orm.repository import Repository
from myloware_store.platform.connectors import Connectors
from myloware_store.platform.records import Audit, Evals, Runs
from myloware_store.platform.schemas import Schemas
from myloware_store.platform.templates import Templates
from myloware_store.platform.tools import Capabilities, Tools
from myloware_store.settings import Settings
from myloware_store.work.approvals import Approvals
from myloware_store.work.dead_letters import DeadLetters
from myloware_store.work.engine import Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from myloware_store.core.embedding import Embedder
    from myloware_store.embedded import EmbeddedServer

__all__ = ["Store"]

_T = TypeVar("_T")


class _Connection:
    """The one database of this process, shared by every store that is open on it."""

    def __init__(self, settings: Settings, given: StoreDatabase | None = None) -> None:
        self.asked = settings
        self.users = 0
        self.given = given
        self.server: EmbeddedServer | None = None
        with ExitStack() as undo:
            if settings.embedded:
                self.server = _start_embedded(settings)
                undo.callback(self.server.close)
                settings = settings.with_server(**self.server.address())
            self.settings = settings
            self.database = given or StoreDatabase(settings)
            if given is None:
                undo.callback(self.database.close_all)
                _make_current(self)
            undo.pop_all()
        proxy.initialize(self.database)

    def close(self) -> None:
        proxy.initialize(None)
        if self.given is None:
            self.database.close_all()
        if self.server is not None:
            self.server.close()


class _Closed:
    """What stands for the repositories of a closed store."""

    def __getattr__(self, name: str) -> Any:
        raise StoreError("the store is closed")


_lock = threading.RLock()
_open: _Connection | None = None


class Store:
    """An open store: the database, and the operations on it.

    Make one with `Store.open()`; it is safe to share between threads, and the models are bound to it while it is open.

    Attributes:
        work: Orders, items and attempts.
        approvals: Decisions about items that wait for one.
        dead_letters: Events that failed for good.
        memory: Documents with embeddings.
        runs: Executions of workflows.
        evals: Evaluations of items.
        connectors: Systems outside that agents reach.
        tools: What agents call through connectors, and what it is allowed.
        capabilities: Permissions that tools can be granted.
        schemas: JSON Schemas that documents are checked against.
        templates: Reusable workflows.
        audit: Who did what.
    """

    def __init__(self, connection: _Connection, embedder: Embedder | None = None) -> None:
        self._connection: _Connection | None = connection
        database = connection.database
        self.work = Work(database)
        self.approvals = Approvals(database)
        self.dead_letters = DeadLetters(database)
        self.memory = Memory(database, embedder)
        self.runs = Runs(database)
        self.evals = Evals(database)
        self.connectors = Connectors(database)
        self.tools = Tools(database)
        self.capabilities = Capabilities(database)
        self.schemas = Schemas(database)
        self.templates = Templates(database)
        self.audit = Audit(database)

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        database: StoreDatabase | None = None,
        embedder: Embedder | None = None,
    ) -> Self:
        """Open the store on a database.

        The embedded server is started, migrated, and held while the store is open. A configured database must be
        migrated already (`myloware-store migrate`): a service never changes a schema by starting.

        Args:
            url: A libpq URL (Prisma's parameters are understood), or `embedded:` or `embedded:FOLDER`. By default the
                environment decides: `DATABASE_URL`, else `DATABASE_HOST` and so on, else `.env`, else embedded.
            settings: Settings that were read before, instead of a URL.
            database: A `myloware_store.db.database.StoreDatabase(settings)` of your own, instead of either. The caller
                must migrate it and close it (`close_all()`): the store leaves its connections open.
            embedder: Embeds memory documents that come without a vector.

        Returns:
            The store, to be closed, or used in a `with` statement. Opening the same database again shares it.

        Raises:
            SettingsError: The settings cannot be used, or another database is open in this process.
            InvalidInput: The embedder cannot be called.
            ConnectionFailed: The server cannot be reached or refuses the login.
            SchemaMismatch: The database is not migrated, or is newer than this library.
            EmbeddedServerError: The embedded server cannot be found or started.
        """
        global _open  # noqa: PLW0603  the models are bound to one database a process
        if (url is not None) + (settings is not None) + (database is not None) > 1:
            raise SettingsError("open: give a URL, settings or a database, not several of them")
        if settings is not None and not isinstance(settings, Settings):
            raise SettingsError(f"settings: {type(settings).__name__} is not Settings; a URL is the first argument")
        if database is not None and not isinstance(database, StoreDatabase):
            raise SettingsError(f"database: {type(database).__name__} is not a StoreDatabase")
        if embedder is not None and not callable(embedder):
            raise InvalidInput(f"embedder: {type(embedder).__name__} is not callable")
        wanted = database.settings if database is not None else settings or Settings.load(url)
        with _lock:
            if _open is None:
                _open = _Connection(wanted, database)
            elif _open.asked != wanted or database not in (None, _open.database):
                raise SettingsError(
                    f"a store is open on {_open.settings.safe_url}; the models are bound to it: close it before"
                    f" opening {wanted.safe_url}"
                )
            _open.users += 1
            return cls(_open, embedder)

    @property
    def db(self) -> StoreDatabase:
        """The Peewee database, with its pool and transactions."""
        return self._require().database

    @property
    def settings(self) -> Settings:
        """The settings in use, the embedded server's address filled in."""
        return self._require().settings

    def tenant(self, tenant_id: str, *, actor: str | None = None) -> AbstractContextManager[None]:
        """Put a tenant in force for this thread or task: repositories then read and write its rows only.

        Args:
            tenant_id: The tenant.
            actor: Who acts, for `created_by` and audit lines.
        """
        return tenant_scope(tenant_id, actor)

    def transact(self, fn: Callable[[], _T], *, retries: int = 5) -> _T:
        """Run a function in one transaction, again where it met another one (SQLSTATE 40001, 40P01).

        Args:
            fn: Called without arguments, once a try.
            retries: How many times to try again.
        """
        return self.db.transact(fn, retries=retries)

    def keep_server(self) -> None:
        """Leave the embedded server running when the store closes, until `myloware-store down`."""
        server = self._require().server
        if server is not None:
            server.keep()

    def close(self) -> None:
        """Close the store; the last one to close gives up the connections and the embedded server."""
        global _open  # noqa: PLW0603  see open()
        with _lock:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            for name, part in vars(self).items():
                if isinstance(part, Repository):
                    setattr(self, name, _Closed())
            connection.users -= 1
            if connection.users == 0:
                _open = None
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        connection = self._connection
        return f"<Store {connection.settings.safe_url}>" if connection else "<Store, closed>"

    def _require(self) -> _Connection:
        if self._connection is None:
            raise StoreError("the store is closed")
        return self._connection


def _start_embedded(settings: Settings) -> EmbeddedServer:
    from myloware_store.embedded import EmbeddedServer

    server = EmbeddedServer(settings.embedded_home)
    server.start()
    try:
        server.ensure_database()
    except BaseException:
        server.close()
        raise
    return server


def _make_current(connection: _Connection) -> None:
    """See to it that the schema is this version's."""
    from myloware_store.ops.migrate import migrate, require_current

    if connection.server is not None:
        migrate(connection.settings)
    require_current(connection.database)

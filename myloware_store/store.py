"""The store, which a service opens, with its repositories."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from myloware_store.core.embedding import read_embedder
from myloware_store.core.errors import SettingsError, StoreError
from myloware_store.db.database import StoreDatabase
from myloware_store.db.proxy import proxy
from myloware_store.db.tenancy import tenant_scope
from myloware_store.memory.engine import Memory
from myloware_store.memory.index.upkeep import Upkeep
from myloware_store.orm.repository import Repository
from myloware_store.platform.audit import Audit
from myloware_store.platform.connectors import Connectors
from myloware_store.platform.records import Evals, Runs
from myloware_store.platform.schemas import Schemas
from myloware_store.platform.templates import Templates
from myloware_store.platform.tools import Capabilities, Tools
from myloware_store.settings import Settings
from myloware_store.settings.secrets import Secrets
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
    """The database of this process, shared by all open stores."""

    def __init__(self, settings: Settings, given: StoreDatabase | None = None) -> None:
        self.asked = settings
        self.users = 0
        self.given = given
        self.server: EmbeddedServer | None = None
        self.upkeep: Upkeep | None = None
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
        if self.server is not None and settings.upkeep:
            self.upkeep = Upkeep(settings)
        proxy.initialize(self.database)

    def close(self) -> None:
        proxy.initialize(None)
        if self.upkeep is not None:
            self.upkeep.stop(_STOPPING)
        if self.given is None:
            self.database.close_all()
        if self.server is not None:
            self.server.close()


class _Closed:
    """The repositories of a closed store."""

    def __getattr__(self, name: str) -> Any:
        raise StoreError("the store is closed")


_STOPPING = 2.0  # seconds for the end of a build in the background

_lock = threading.RLock()
_open: _Connection | None = None


class Store:
    """An open store: the database, and the operations on it.

    Create one with `Store.open()`. It is safe to share between threads. The models are bound to it while it is open.

    Attributes:
        work: Orders, items and attempts.
        approvals: Decisions about parked items.
        dead_letters: Events that failed for good.
        memory: Documents with embeddings.
        runs: Runs of workflows.
        evals: Evaluations of items.
        connectors: External systems that agents use.
        tools: Tools that agents call through connectors, and their grants.
        capabilities: Permissions that tools can be granted.
        schemas: JSON Schemas of documents.
        templates: Reusable workflows.
        audit: The audit trail.
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
        secrets: Secrets | None = None,
        password: str | Callable[[], str] | None = None,
    ) -> Self:
        """Open the store on a database.

        The embedded server is started and migrated, and kept running while the store is open; a thread builds and tunes
        its vector index when the memory needs one (`Settings.upkeep`). Any other database must be migrated first
        (`myloware-store migrate`), because the start of a service must not change a schema.

        Args:
            url: A libpq URL (Prisma's parameters are accepted), or `embedded:` or `embedded:FOLDER`. By default it is
                taken from the environment: `DATABASE_URL`, else `DATABASE_HOST` and so on, else `.env`, else embedded.
            settings: Settings, instead of a URL.
            database: A `myloware_store.db.database.StoreDatabase(settings)`, instead of a URL or settings. The caller
                must migrate it and close it (`close_all()`); the store leaves its connections open.
            embedder: Embeds memory documents that come without a vector.
            secrets: Keys for the secrets of connectors, and a function that resolves references. What it lacks is taken
                from the settings; with `database`, set `Settings.secrets`. A store that is open already lends its own.
            password: The password of the URL or settings, or a function that returns it, such as a token of a cloud. It
                is called for each new connection, by several threads at once.

        Returns:
            The store, to close or to use in a `with` statement. Stores on the same database share it.

        Raises:
            SettingsError: The settings are not valid, or another database is open in this process.
            InvalidInput: The embedder is not callable, or its `name` or `dimensions` cannot be used.
            ConnectionFailed: The server cannot be reached or refuses the login.
            SchemaMismatch: The database is not migrated, or is newer than this library.
            EmbeddedServerError: The embedded server cannot be found or started.
        """
        global _open  # noqa: PLW0603  the models are bound to one database in each process
        if (url is not None) + (settings is not None) + (database is not None) > 1:
            raise SettingsError("open: give a URL, settings or a database, not several of them")
        if settings is not None and not isinstance(settings, Settings):
            raise SettingsError(f"settings: {type(settings).__name__} is not Settings; a URL is the first argument")
        if database is not None and not isinstance(database, StoreDatabase):
            raise SettingsError(f"database: {type(database).__name__} is not a StoreDatabase")
        if database is not None and (secrets, password) != (None, None):
            raise SettingsError("open: secrets and the password of a database are in its settings")
        read_embedder(embedder)
        given = database.settings if database is not None else settings or Settings.load(url)
        wanted = _completed(given, secrets, password)
        with _lock:
            if _open is not None and (settings, database, secrets) == (None, None, None):
                wanted = attrs.evolve(wanted, secrets=_open.asked.secrets)
            if _open is None:
                _open = _Connection(wanted, database)
            elif _open.asked != wanted or database not in (None, _open.database):
                place = _open.settings.safe_url
                other = "it with other settings" if wanted.safe_url == place else wanted.safe_url
                raise SettingsError(
                    f"a store is open on {place}, and the models are bound to it: close it before you open {other}"
                )
            _open.users += 1
            return cls(_open, embedder)

    @property
    def db(self) -> StoreDatabase:
        """The Peewee database, with its pool and transactions."""
        return self._require().database

    @property
    def settings(self) -> Settings:
        """The settings in use, with the address of the embedded server."""
        return self._require().settings

    def tenant(self, tenant_id: str, *, actor: str | None = None) -> AbstractContextManager[None]:
        """Put a tenant in force for this thread or task: repositories then read and write only its rows.

        Args:
            tenant_id: The tenant, 1 to 255 characters.
            actor: Who acts, for `created_by` and audit lines; by default the actor of the enclosing scope.

        Returns:
            A context manager, which also decorates plain functions.

        Raises:
            InvalidInput: An argument is not such a text.
        """
        return tenant_scope(tenant_id, actor)

    def transact(self, fn: Callable[[], _T], *, retries: int = 5) -> _T:
        """Run a function in one transaction, and again after a serialization failure or deadlock.

        Args:
            fn: A plain function without parameters. It may run several times.
            retries: How many times to retry; by default 5.

        Returns:
            The result of the function.

        Raises:
            InvalidInput: `fn` is not a plain function.
            TransactionConflict: The last retry conflicted, too.
            AmbiguousCommit: The connection was lost during COMMIT, which is not retried.
        """
        return self.db.transact(fn, retries=retries)

    def keep_server(self) -> None:
        """Keep the embedded server running after the store is closed, until `myloware-store down`."""
        server = self._require().server
        if server is not None:
            server.keep()

    def close(self) -> None:
        """Close the store. The last one to close also closes the connections and stops the embedded server."""
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
    """Migrate an embedded database, and require the schema of this version."""
    from myloware_store.ops.migrate import migrate, require_current

    if connection.server is not None:
        migrate(connection.settings)
    require_current(connection.database)


def _completed(settings: Settings, secrets: Secrets | None, password: str | Callable[[], str] | None) -> Settings:
    """Return settings with what was given beside them."""
    if secrets is not None:
        if not isinstance(secrets, Secrets):
            raise SettingsError(f"secrets: {type(secrets).__name__} is not Secrets")
        settings = attrs.evolve(settings, secrets=secrets.over(settings.secrets))
    return settings if password is None else attrs.evolve(settings, password=password)

"""The Peewee database: pooled, one connection a unit of work, with typed errors and whole-transaction retries."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import peewee
import psycopg2
from psycopg2 import errorcodes, extensions

from myloware_store.core.errors import ConnectionFailed, DatabaseFault, InvalidInput
from myloware_store.db.driver_errors import DRIVER_ERRORS, connect_fault, lost_fault, misuse, statement_fault
from myloware_store.db.interrupts import watch
from myloware_store.db.pool import ConnectionPool
from myloware_store.db.statements import Rows, Stream, copy
from myloware_store.db.thread_connection import ThreadConnection
from myloware_store.db.transactions import Blocks, Manual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store.db.thread_connection import Held
    from myloware_store.settings import Settings

__all__ = ["StoreDatabase"]

_Result = TypeVar("_Result")
_logger = logging.getLogger("peewee")

# Which backend answers, whether there is pgvector, and the search_path that leads to it if the connection's does not.
# A path without `public` is meant so.
_LOOK = """
SELECT pg_backend_pid(), nspname IS NOT NULL, CASE WHEN nspname <> ALL (current_schemas(true) || name 'public')
    THEN concat_ws(', ', nullif(current_setting('search_path'), ''), quote_ident(nspname)) END
FROM (SELECT) AS one
LEFT JOIN (pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace AND extname = 'vector') ON true
"""
_BACKEND = "SELECT pg_backend_pid()"
_TRIES = 3


class StoreDatabase(Blocks, peewee.PostgresqlDatabase):
    """A PostgreSQL database for Peewee, shared by all threads.

    A statement outside of every block takes a connection from the pool and returns it before its rows are handed over.
    `unit()`, `atomic()`, `transaction()`, `manual_commit()`, `connection_context()` and `with db:` hold one connection
    for the thread until the outermost of them ends; `connect()` holds one until `close()`, or until the thread ends. A
    connection goes back without an open transaction. A setting, a session lock or a temporary table stays in its
    session, for whoever uses it next: use `SET LOCAL`, or `cursor()`, after which the session is reset.

    Rows are read whole; to stream a large result, use `playhouse.postgres_ext.ServerSide` inside a transaction.

    Two things differ from Peewee's own: `rollback()` succeeds on a connection that was lost (the server has rolled
    back), and `commit()` raises where the server rolled back instead, since an earlier statement had failed.

    Args:
        settings: Which database, and how many connections.
    """

    _adapter: Any
    _isolation_level: Any
    _notify_hooks: Callable[..., None]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool = ConnectionPool(self.open_session, limit=settings.connection_limit, timeout=settings.pool_timeout)
        self._threads = ThreadConnection(self.pool)
        # The arguments of psycopg2.connect stay out of `connect_params`, where a password could be read.
        super().__init__(settings.dbname or "default")
        self.server_encoding: str | None = None
        self._vector_known = False
        self._vector_path: str | None = None
        self._pooler: bool | None = None

    @property
    def _state(self) -> Held:
        return self._threads.held

    @_state.setter
    def _state(self, _: object) -> None:
        """Leave out Peewee's own."""

    @contextmanager
    def unit(self) -> Iterator[None]:
        """Hold one connection while the block runs, and return it clean; inside another unit, use that one's.

        A transaction that the block left open is rolled back. Between transactions a connection that was lost is
        replaced.

        Raises:
            PoolTimeout: No connection came free in time.
            ConnectionFailed: The server cannot be reached.
        """
        with self._state.unit():
            yield

    def transaction_open(self) -> bool:
        """Tell whether the server has a transaction open for this thread, by a block or begun by hand."""
        return self._state.in_transaction()

    def copy(self, sql: str, stream: Any) -> int:
        """Run a COPY from or to a file object, and return how many rows it moved."""
        reads = "STDIN" not in str(sql).upper()
        return self._perform(lambda cursor: copy(cursor, sql, stream, reads=reads), reads=reads)

    def connect(self, reuse_if_open: bool = False) -> bool:  # noqa: FBT001, FBT002 - Peewee's signature
        """Hold a connection for this thread until `close()`."""
        if not self._state.closed:
            if not reuse_if_open:
                raise misuse("this thread holds a connection already")
            return False
        self._state.check_out()
        self._state.pinned = True
        return True

    def close(self) -> bool:
        """Return the connection that `connect()` took; an open unit or transaction keeps it until it ends."""
        state = self._state
        state.pinned = False
        if state.closed or state.held:
            return False
        state.check_in()
        return True

    def open_session(self) -> extensions.connection:
        """Open a connection outside of the pool, in autocommit mode; whoever asks for it closes it.

        Its search_path ends in the schema of the extension `vector`, wherever that is. The first connections look.

        Raises:
            ConnectionFailed: The server cannot be reached or refuses the login.
        """
        try:
            connection = self._connect()
            if not self._vector_known:
                with connection.cursor() as run:
                    run.execute(_LOOK)
                    ((pid, self._vector_known, path),) = run.fetchall()
                self._pooler = None if pid != connection.get_backend_pid() else False
                # A pooler takes no options: there the path is set on the role.
                if path and self._pooler is False and not self.settings.pgbouncer:
                    connection.close()
                    self._vector_path = path
                    connection = self._connect()
        except DRIVER_ERRORS as error:
            fault = connect_fault(error, self.settings)
        else:
            self.server_version = connection.server_version
            self.server_encoding = connection.get_parameter_status("server_encoding")
            return connection
        raise fault

    def shares_sessions(self) -> bool:
        """Tell whether a pooler stands between that gives every transaction another session.

        Nothing of a session lasts there: no LISTEN, no lock. A pooler makes up the number of the backend that it says
        at login. If it pools sessions, a backend stays with its connection all the same.

        Raises:
            ConnectionFailed: The server cannot be reached or refuses the login.
        """
        if self.settings.pgbouncer:
            return True
        if self._pooler is None:
            try:
                self._pooler = self._meets_a_pooler()
            except DRIVER_ERRORS as error:
                fault = connect_fault(error, self.settings)
                raise fault from None
        return self._pooler

    def _meets_a_pooler(self) -> bool:
        with closing(self._connect()) as first, first.cursor() as run:
            for _ in range(_TRIES):
                run.execute(_BACKEND)
                before = run.fetchall()
                if before == [(first.get_backend_pid(),)]:
                    return False
                # A transaction of another connection takes the backend that this one had last.
                with closing(self._connect()) as other, other.cursor() as second:
                    other.autocommit = False
                    second.execute(_BACKEND)
                    if before == second.fetchall():
                        return True
                    run.execute(_BACKEND)
                    if before != run.fetchall():
                        return True
        return False

    def _connect(self) -> extensions.connection:
        # No name for the arguments: tools that print the variables of a traceback would print the password.
        connection: extensions.connection = psycopg2.connect(**self.settings.connect_kwargs(self._vector_path))
        connection.autocommit = True
        return connection

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        self.pool.close_idle()

    def close_all(self) -> None:
        """Close the connections that are not in use, and those in use as they come back."""
        self.close()
        self.pool.close_all()

    def connection(self) -> extensions.connection:
        """Give psycopg2's connection, held as by `connect()`; nobody uses it again, whatever was done to it."""
        if self._state.closed:
            self.connect()
        self._state.soiled = True
        self._state.reusable = False
        return self._state.live()

    def cursor(self, named_cursor: object = None) -> extensions.cursor:
        """Give a psycopg2 cursor, with the driver's own errors, on a connection held as by `connect()`."""
        if self._state.closed:
            self.connect()
        self._state.soiled = True
        return self._new_cursor(named=bool(named_cursor))

    def execute(self, query: Any, named_cursor: object = None, array_size: int | None = None, **options: Any) -> Any:
        """Run a Peewee query; with `named_cursor` its rows are streamed, inside a transaction or unit."""
        try:
            sql, params = self.get_sql_context(**options).sql(query).query()
        except RecursionError:
            raise InvalidInput("a value in the query is nested too deeply, or holds itself") from None
        reads = isinstance(query, peewee.SelectBase)
        cursor = self.execute_sql(sql, params, named_cursor=named_cursor, reads=reads)
        if not named_cursor:
            return cursor
        from playhouse.postgres_ext import FetchManyCursor

        return FetchManyCursor(cursor, array_size)

    def execute_sql(self, sql: str, params: Any = None, named_cursor: object = None, *, reads: bool = False) -> Any:
        """Run one statement, and return its rows as a cursor that needs no connection any more.

        Args:
            sql: The statement.
            params: Its parameters.
            named_cursor: Whether to stream the rows, inside a transaction or unit.
            reads: Whether the statement only reads. If the connection is lost before the reply comes, a statement that
                may write raises AmbiguousCommit outside of a transaction, one that reads ConnectionFailed.
        """
        named = bool(named_cursor)
        if named and self._state.closed:
            raise misuse("rows are streamed inside db.atomic() or db.unit(): they come through an open connection")
        return self._execute(sql, params, named=named, reads=reads)

    def execute_tuned(self, settings: Mapping[str, str | int], sql: str, params: Any = None) -> Any:
        """Run one SELECT under settings that hold for it alone, sent with it, and return its rows as a cursor.

        Outside of a transaction they end with the statement's own. Inside the caller's transaction a savepoint gives
        back what was in force there, also after an error, in a second round trip.

        Args:
            settings: Names of the server's settings, and their values; never a user's input.
            sql: The statement; it must not write.
            params: Its parameters.
        """
        if not settings:
            return self._execute(sql, params, reads=True)
        tuning = "".join(f"SET LOCAL {name} = {value}; " for name, value in settings.items())
        if not self.transaction_open():
            return self._execute(sql, params, prefix=tuning, reads=True)
        try:
            return self._execute(sql, params, prefix="SAVEPOINT myloware_tuned; " + tuning, reads=True)
        finally:
            # Where the connection is lost, or the transaction had failed before, there is nothing to give back.
            with suppress(DatabaseFault):
                undo = "ROLLBACK TO SAVEPOINT myloware_tuned; RELEASE SAVEPOINT myloware_tuned"
                self._perform(lambda cursor: cursor.execute(undo), reads=True)

    def _execute(self, sql: str, params: Any, *, named: bool = False, prefix: str = "", reads: bool) -> Any:
        """Run a statement; what is sent before it neither writes nor outlives it."""
        if params is None:
            params = ()
        elif isinstance(params, str | bytes) or not isinstance(params, Sequence | Mapping):
            raise InvalidInput(f"params: {type(params).__name__} is neither a sequence nor a mapping")

        def run(cursor: extensions.cursor) -> Any:
            self._state.soiled |= named  # rows are still to come from this connection, and no other
            cursor.execute(prefix + sql, params)
            return Stream(cursor, partial(self._perform, reads=True)) if named else Rows(cursor)

        self._log_query(sql, params)
        start = time.perf_counter()
        try:
            result = self._perform(run, named=named, reads=reads)
        except Exception as error:
            if self.query_hooks:
                self._notify_hooks(sql, params, start, error)
            raise
        if self.query_hooks:
            self._notify_hooks(sql, params, start, None)
        return result

    def begin(self, isolation_level: Any = None) -> None:
        """Begin a transaction; outside of every block its connection is held until `commit()` or `rollback()`."""
        if self.transaction_open():
            raise misuse("a transaction is open already: db.atomic() makes a savepoint in it")
        level = self._adapter.isolation_level_str(isolation_level or self._isolation_level)
        statement = f"BEGIN TRANSACTION ISOLATION LEVEL {level}" if level else "BEGIN"
        try:
            self._perform(lambda cursor: cursor.execute(statement), reads=True)
        except BaseException:  # such as KeyboardInterrupt, which comes when the server has begun
            if self.transaction_open():
                self.rollback()
            raise

    def commit(self) -> None:
        """Commit the transaction.

        Raises:
            AmbiguousCommit: The connection was lost while the server was committing.
            DatabaseFault: An earlier statement had failed, so that the server rolled back (SQLSTATE 25P02).
        """
        if self._state.closed:
            raise misuse("there is no open connection to commit on")

        def run(cursor: extensions.cursor) -> str | None:
            cursor.execute("COMMIT")
            if cursor.statusmessage != "ROLLBACK":
                self._state.saves.clear()
            return cursor.statusmessage

        try:
            outcome = self._perform(run, commits=True)
        finally:
            self._state.doomed = False
            self._state.settle()
        if outcome == "ROLLBACK":
            raise DatabaseFault(
                "the transaction was rolled back instead of committed: an earlier statement in it had failed",
                sqlstate="25P02",
            )

    def rollback(self) -> None:
        """Roll the transaction back; a connection that was lost, or is gone, counts as rolled back."""
        self._state.take_back_saves()
        if not self._state.closed:
            with suppress(ConnectionFailed):
                self._perform(lambda cursor: cursor.execute("ROLLBACK"), reads=True)
            self._state.doomed = False
            self._state.settle()

    def note_save(self, row: peewee.Model, names: Sequence[str]) -> None:
        """Remember that these fields were saved: they count as changed again if the block around is rolled back."""
        state = self._state
        if state.transactions and not isinstance(state.transactions[-1], Manual):
            state.saves.append((weakref.ref(row), names))

    def pop_transaction(self) -> Any:
        """Leave the innermost transaction, for Peewee's transaction blocks."""
        state = self._state
        if state.orphans and not state.transactions:
            state.orphans -= 1
            return None
        popped = state.transactions.pop()
        if isinstance(popped, Manual) and not (state.closed or state.held):
            state.check_in()
        return popped

    def _perform(
        self,
        action: Callable[[extensions.cursor], _Result],
        *,
        named: bool = False,
        reads: bool = False,
        commits: bool = False,
    ) -> _Result:
        """Do something with a cursor, translate what the driver raises, and return a connection that nothing holds."""
        state = self._state
        statement = None
        state.begin()
        try:
            connection = state.live()
            sent, in_transaction = not connection.closed, state.in_transaction()
            # A transaction that was begun by hand may also be ended so, by any statement.
            in_block = in_transaction and bool(state.transactions) and not isinstance(state.transactions[-1], Manual)
            statement = watch(connection)
            try:
                return action(self._new_cursor(named=named))
            except DRIVER_ERRORS as caught:
                error = caught
            # Outside of the handler: the driver's error, which may quote row values, becomes no __context__, also of
            # what the handler of a signal raises at the next call.
            committing = sent and (commits or not (reads or in_block))
            returned = statement.returned() if statement is not None else None
            fault = self._fault(error, connection, committing=committing, returned=returned)
            state.doomed |= in_transaction and isinstance(fault, ConnectionFailed)
            if getattr(error, "pgcode", None) == errorcodes.READ_ONLY_SQL_TRANSACTION:
                # After a failover this server may be a standby: a new connection finds the one that can be written.
                state.reusable = False
                self.pool.close_idle()
        finally:
            if statement is not None:
                statement.end()
            state.end()
        raise fault

    def _fault(
        self, error: Exception, connection: extensions.connection, *, committing: bool, returned: str | None = None
    ) -> Exception:
        lost = connection.closed or connection.get_transaction_status() == extensions.TRANSACTION_STATUS_UNKNOWN
        if lost and isinstance(error, psycopg2.Error):
            pooled = self._pooler is not False
            return lost_fault(error, self.settings, committing=committing, pooled=pooled)
        return statement_fault(error, returned=returned)

    def _new_cursor(self, *, named: bool) -> extensions.cursor:
        connection: extensions.connection = self._state.conn
        cursor: extensions.cursor = self._adapter.server_side_cursor(connection) if named else connection.cursor()
        return cursor

    def _log_query(self, sql: str, params: Any) -> None:
        # Peewee's own line has the parameters in it, and with them whatever is secret in a row.
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug("%s [%d parameters]", sql, len(params or ()))

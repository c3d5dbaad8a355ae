"""The Peewee database: pooled connections, units of work, typed errors, and retries of whole transactions."""

from __future__ import annotations

import logging
import re
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
from myloware_store.db import deadlines
from myloware_store.db.driver_errors import DRIVER_ERRORS, connect_fault, lost_fault, misuse, statement_fault
from myloware_store.db.interrupts import watch
from myloware_store.db.pool import ConnectionPool
from myloware_store.db.statements import PreparedStatements, Rows, Stream, copy, execute_after
from myloware_store.db.tenancy import NO_SCOPE, current_scope
from myloware_store.db.thread_connection import ThreadConnection
from myloware_store.db.transactions import Blocks, Manual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from myloware_store.db.thread_connection import Held
    from myloware_store.settings import Settings

__all__ = ["StoreDatabase"]

_Result = TypeVar("_Result")
_logger = logging.getLogger("peewee")

# The backend that answers, whether pgvector is installed, and a search_path with its schema if the connection's path
# lacks it. A path without `public` is left as it is.
_LOOK = """
SELECT pg_backend_pid(), nspname IS NOT NULL, CASE WHEN nspname <> ALL (current_schemas(true) || name 'public')
    THEN concat_ws(', ', nullif(current_setting('search_path'), ''), quote_ident(nspname)) END
FROM (SELECT) AS one
LEFT JOIN (pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace AND extname = 'vector') ON true
"""
_BACKEND = "SELECT pg_backend_pid()"
_CHECK_CLIENT = """
SELECT set_config(name, %s, false) FROM pg_settings WHERE name = 'client_connection_check_interval' AND setting = '0'
"""
# Ends a transaction by hand, or may do so before another statement.
_ENDS = re.compile(
    r"(?:^|;|\*/)\s*(?:COMMIT|END|PREPARE\s+TRANSACTION|(?:ROLLBACK|ABORT)\b(?!\s+TO\b))\b", re.IGNORECASE
)
# Statements that run outside of transactions only, or begin one. They read no rows, and nothing follows them.
_ALONE = re.compile(
    r"\s*(?:ALTER|BEGIN|CHECKPOINT|CLUSTER|CREATE\s+(?:DATABASE|SUBSCRIPTION|TABLESPACE|(?:UNIQUE\s+)?INDEX)"
    r"|DISCARD|DROP|REINDEX|ROLLBACK|START|VACUUM)\b[^;]*;?\s*\Z",
    re.IGNORECASE,
)
# A statement with one of these words may set back what the server was told, and leave a transaction open.
_UNDO = ("ROLLBACK", "CHAIN", "BEGIN", "TRANSACTION")
_SCOPE = "SET LOCAL myloware.tenant = %s; SET LOCAL myloware.actor = %s; "
_ROLE = "SET LOCAL role = %s; "
_NO_ROLE = "SET LOCAL role TO DEFAULT; "
_TRIES = 3
_CHECKED_AT_MOST = 0.1  # seconds between two looks of the server for a vanished client


class StoreDatabase(Blocks, peewee.PostgresqlDatabase):
    """A PostgreSQL database for Peewee, shared by all threads.

    A statement outside of every block takes a connection from the pool, and returns it before its rows are returned.
    `unit()`, `atomic()`, `transaction()`, `manual_commit()`, `connection_context()` and `with db:` hold one connection
    for the thread until the outermost of them ends; `connect()` holds one until `close()`, or until the thread ends. A
    connection is returned without an open transaction. The tenant and the actor in force are sent with each statement,
    as the settings `myloware.tenant` and `myloware.actor` of its transaction; not with those of a `cursor()`.
    Settings, session locks and temporary tables stay in the session for its next user: use `SET LOCAL`, or use
    `cursor()`, after which the session is reset on the server (but not the attributes of psycopg2's connection
    object).

    Results are read whole; to stream a large one, use `playhouse.postgres_ext.ServerSide` inside a transaction.

    Two methods differ from Peewee's: `rollback()` succeeds on a connection that was lost (the server has rolled back),
    and `commit()` raises an error if the server rolled back instead, because an earlier statement had failed.

    Args:
        settings: The settings of the database and the pool.
    """

    _adapter: Any
    _isolation_level: Any
    _notify_hooks: Callable[..., None]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool = ConnectionPool(
            self.open_session,
            limit=settings.connection_limit,
            timeout=settings.pool_timeout,
            call_timeout=settings.call_timeout,
        )
        self._threads = ThreadConnection(self.pool)
        # The arguments of psycopg2.connect stay out of `connect_params`, where a password could be read.
        super().__init__(settings.dbname or "default")
        self.server_encoding: str | None = None
        self._vector_known = False
        self._vector_path: str | None = None
        self._pooler: bool | None = None
        self._prepared = PreparedStatements()

    @property
    def _state(self) -> Held:
        return self._threads.held

    @_state.setter
    def _state(self, _: object) -> None:
        """Ignore Peewee's own state."""

    @contextmanager
    def unit(self) -> Iterator[None]:
        """Hold one connection while the block runs, and return it clean. Units can be nested.

        A transaction that the block leaves open is rolled back. A connection that is lost between transactions is
        replaced.

        Raises:
            PoolTimeout: No connection became free in time.
            ConnectionFailed: The server cannot be reached.
        """
        with self._state.unit():
            yield

    def call_timeout(self, seconds: float | None) -> AbstractContextManager[None]:
        """Set the deadline of this thread's or task's calls while the block runs, instead of `Settings.call_timeout`.

        Args:
            seconds: How long one call may wait for the server; None for ever, such as for a statement of an hour.

        Raises:
            InvalidInput: It is not a number of seconds from 0.001 on.
        """
        return deadlines.call_timeout(seconds)

    def transaction_open(self) -> bool:
        """Return whether this thread has an open transaction, by a block or begun by hand."""
        return self._state.in_transaction()

    def copy(self, sql: str, stream: Any) -> int:
        """Run a COPY from or to a file object, and return how many rows it copied."""
        receives = "STDIN" in str(sql).upper()
        # COPY (query) TO can write, too.
        reads = not (receives or re.match(r"\s*COPY\s*\(", str(sql), re.IGNORECASE))

        def run(cursor: extensions.cursor) -> int:
            return self._in_scope(
                cursor, sql, lambda scope: copy(cursor, scope.decode() + str(sql), stream, receives=receives)
            )

        return self._perform(run, reads=reads)

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
        """Open a connection outside of the pool, in autocommit mode; the caller must close it.

        Its search_path includes the schema of the extension `vector`, which the first connections look up.

        Raises:
            ConnectionFailed: The server cannot be reached or refuses the login.
        """
        try:
            connection = self._connect()
            if not self._vector_known:
                with self._watched(connection), connection.cursor() as run:
                    run.execute(_LOOK)
                    ((pid, self._vector_known, path),) = run.fetchall()
                self._pooler = None if pid != connection.get_backend_pid() else False
                # A pooler does not accept options: set the path on the role there.
                if path and self._pooler is False and not self.settings.pgbouncer:
                    connection.close()
                    self._vector_path = path
                    connection = self._connect()
            self._end_abandoned(connection)
        except DRIVER_ERRORS as error:
            fault = connect_fault(error, self.settings)
        else:
            self.server_version = connection.server_version
            self.server_encoding = connection.get_parameter_status("server_encoding")
            return connection
        raise fault

    def _end_abandoned(self, connection: extensions.connection) -> None:
        """Let the server end a statement whose call was given up: one after the other could wait for the same lock."""
        seconds = deadlines.timeout_in_force(self.settings.call_timeout)
        if seconds is not None and self._pooler is False and not self.settings.pgbouncer:
            try:
                with self._watched(connection), connection.cursor() as run:
                    run.execute(_CHECK_CLIENT, (f"{max(seconds, _CHECKED_AT_MOST):.3f}s",))
            except psycopg2.Error:
                if connection.closed:
                    raise  # servers that cannot check for vanished clients only refuse it

    def _watched(self, connection: extensions.connection) -> AbstractContextManager[None]:
        return deadlines.watched(connection, self.settings.call_timeout)

    def shares_sessions(self) -> bool:
        """Return whether a pooler gives each transaction another session, so that LISTEN and session locks do not work.

        A pooler invents the backend number that it reports at login. If it pools whole sessions, each connection still
        keeps its backend.

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
        with closing(self._connect()) as first, self._watched(first), first.cursor() as run:
            for _ in range(_TRIES):
                run.execute(_BACKEND)
                before = run.fetchall()
                if before == [(first.get_backend_pid(),)]:
                    return False
                # A transaction of another connection gets the backend that this one had last.
                with closing(self._connect()) as other, self._watched(other), other.cursor() as second:
                    other.autocommit = False
                    second.execute(_BACKEND)
                    if before == second.fetchall():
                        return True
                    run.execute(_BACKEND)
                    if before != run.fetchall():
                        return True
        return False

    def _connect(self) -> extensions.connection:
        # No variable for the arguments: tools that print the variables of a traceback would print the password.
        connection: extensions.connection = psycopg2.connect(**self.settings.connect_kwargs(self._vector_path))
        connection.autocommit = True
        return connection

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        self.pool.close_idle()

    def close_all(self) -> None:
        """Close the connections that are not in use, and the others when they are returned."""
        self.close()
        self.pool.close_all()

    def connection(self) -> extensions.connection:
        """Return psycopg2's connection, held as by `connect()`; it is closed afterwards instead of used again."""
        if self._state.closed:
            self.connect()
        self._state.soiled = True
        self._state.reusable = False
        return self._state.live()

    def cursor(self, named_cursor: object = None) -> extensions.cursor:
        """Return a psycopg2 cursor, with the driver's own errors, on a connection held as by `connect()`."""
        if self._state.closed:
            self.connect()
        self._state.soiled = True
        return self._new_cursor(named=bool(named_cursor))

    def execute(self, query: Any, named_cursor: object = None, array_size: int | None = None, **options: Any) -> Any:
        """Run a Peewee query; with `named_cursor`, stream its rows inside a transaction or unit."""
        try:
            sql, params = self.get_sql_context(**options).sql(query).query()
        except RecursionError:
            raise InvalidInput("a value in the query is nested too deeply, or contains itself") from None
        # A common table expression can write.
        reads = isinstance(query, peewee.SelectBase) and not getattr(query, "_cte_list", None)
        cursor = self.execute_sql(sql, params, named_cursor=named_cursor, reads=reads)
        if not named_cursor:
            return cursor
        from playhouse.postgres_ext import FetchManyCursor

        return FetchManyCursor(cursor, array_size)

    def execute_sql(self, sql: str, params: Any = None, named_cursor: object = None, *, reads: bool = False) -> Any:
        """Run one statement, and return its rows as a cursor that no longer needs the connection.

        Args:
            sql: The statement.
            params: Its parameters.
            named_cursor: Whether to stream the rows, inside a transaction or unit.
            reads: Whether the statement only reads. If the connection is lost before the reply comes, a statement that
                may write raises AmbiguousCommit outside of a transaction, one that reads ConnectionFailed.
        """
        named = bool(named_cursor)
        if named and self._state.closed:
            raise misuse("rows can be streamed only inside db.atomic() or db.unit(), which hold the connection")
        return self._execute(sql, params, named=named, reads=reads)

    def execute_prepared(self, sql: str, params: Mapping[str, Any]) -> Rows:
        """Run one statement that may write, which a session that runs it often parses only once.

        From the fifth time on, the session keeps it as a prepared statement. Not inside a transaction, where an error
        could not be repaired, nor behind a pooler.
        """
        rows: Rows = self._execute(sql, params, reads=False, prepared=True)
        return rows

    def execute_tuned(self, settings: Mapping[str, str | int], sql: str, params: Any = None) -> Any:
        """Run one SELECT under settings that apply to it alone, and return its rows as a cursor.

        The settings are sent with the statement. Inside the caller's transaction a savepoint restores the earlier
        values, even after an error, in a second round trip.

        Args:
            settings: Names of the server's settings and their values; never pass a user's input.
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
            # If the connection is lost, or the transaction had failed before, there is nothing to restore.
            with suppress(DatabaseFault):
                undo = "ROLLBACK TO SAVEPOINT myloware_tuned; RELEASE SAVEPOINT myloware_tuned"
                self._perform(lambda cursor: cursor.execute(undo), reads=True)

    def _execute(
        self, sql: str, params: Any, *, named: bool = False, prefix: str = "", reads: bool, prepared: bool = False
    ) -> Any:
        """Run a statement after a prefix of others, which must neither write nor outlast it."""
        if params is None:
            params = ()
        elif isinstance(params, str | bytes) or not isinstance(params, Sequence | Mapping):
            raise InvalidInput(f"params: {type(params).__name__} is neither a sequence nor a mapping")

        def run(cursor: extensions.cursor) -> Any:
            self._state.soiled |= named  # later rows come from this connection only
            if prepared and self._pooler is False and not (self.settings.pgbouncer or self._state.in_transaction()):
                self._in_scope(cursor, sql, lambda scope: self._prepared.execute(cursor, sql, params, scope))
            else:
                self._in_scope(cursor, sql, lambda scope: execute_after(scope, cursor, prefix + sql, params))
            if named:
                return Stream(cursor, partial(self._perform, reads=True), self.settings.call_timeout)
            return Rows(cursor)

        self._log_query(sql, params)
        start = time.perf_counter()
        try:
            result = self._perform(run, sql, named=named, reads=reads)
        except Exception as error:
            if self.query_hooks:
                self._notify_hooks(sql, params, start, error)
            raise
        if self.query_hooks:
            self._notify_hooks(sql, params, start, None)
        return result

    def _in_scope(self, cursor: extensions.cursor, sql: object, run: Callable[[bytes], _Result]) -> _Result:
        """Call a function with the statements that tell the server who is in force, if it does not know.

        Args:
            cursor: The driver's cursor.
            sql: The statement that the function runs.
            run: The function.
        """
        state = self._state
        status = cursor.connection.get_transaction_status()
        told, state.told = state.told, None
        if status == extensions.TRANSACTION_STATUS_INERROR:
            return run(b"")  # only a rollback is possible
        scope = current_scope()
        if status == extensions.TRANSACTION_STATUS_IDLE:
            told = NO_SCOPE
            if _ALONE.match(str(sql)):
                scope = NO_SCOPE
        result = run(b"" if told == scope else cursor.mogrify(*_telling(scope, told)))
        shouted = str(sql).upper()
        state.told = None if any(word in shouted for word in _UNDO) else scope
        return result

    def begin(self, isolation_level: Any = None) -> None:
        """Begin a transaction; outside of a block, hold the connection until `commit()` or `rollback()`."""
        if self.transaction_open():
            raise misuse("a transaction is open already: db.atomic() makes a savepoint in it")
        level = self._adapter.isolation_level_str(isolation_level or self._isolation_level)
        statement = f"BEGIN TRANSACTION ISOLATION LEVEL {level}" if level else "BEGIN"
        self._state.told = NO_SCOPE
        try:
            self._perform(lambda cursor: cursor.execute(statement), reads=True)
        except BaseException:  # such as a KeyboardInterrupt after the server has begun
            if self.transaction_open():
                self.rollback()
            raise

    def commit(self) -> None:
        """Commit the transaction.

        Raises:
            AmbiguousCommit: The connection was lost while the server was committing.
            DatabaseFault: An earlier statement had failed, so the server rolled back (SQLSTATE 25P02).
        """
        if self._state.closed:
            raise misuse("there is no open connection to commit on")

        def run(cursor: extensions.cursor) -> str | None:
            cursor.execute("COMMIT")
            if cursor.statusmessage != "ROLLBACK":
                self._state.saves.clear()
            return cursor.statusmessage

        try:
            outcome = self._perform(run, "COMMIT")
        finally:
            self._state.doomed = False
            self._state.settle()
        if outcome == "ROLLBACK":
            raise DatabaseFault(
                "the transaction was rolled back instead of committed: an earlier statement in it had failed",
                sqlstate="25P02",
            )

    def rollback(self) -> None:
        """Roll the transaction back. If the connection was lost, the server has rolled back already."""
        self._state.take_back_saves()
        if not self._state.closed:
            with suppress(ConnectionFailed):
                self._perform(lambda cursor: cursor.execute("ROLLBACK"), reads=True)
            self._state.doomed = False
            self._state.settle()

    def note_save(self, row: peewee.Model, names: Sequence[str]) -> None:
        """Remember that these fields were saved, to mark them as changed again if the block is rolled back."""
        state = self._state
        if state.transactions and not isinstance(state.transactions[-1], Manual):
            state.saves.append((weakref.ref(row), names))

    def pop_transaction(self) -> Any:
        """Remove the innermost transaction block, for Peewee."""
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
        sql: object = "",
        *,
        named: bool = False,
        reads: bool = False,
    ) -> _Result:
        """Call a function with a cursor, translate the driver's errors, and return the connection if nothing holds it.

        Args:
            action: The function.
            sql: The statement, which may end the transaction of a block.
            named: Whether the cursor is a server-side cursor.
            reads: Whether the statement only reads.
        """
        state = self._state
        statement = call = None
        state.begin()
        try:
            connection = state.live()
            sent, in_transaction = not connection.closed, state.in_transaction()
            # A transaction that was begun by hand can also be ended by hand, with any statement.
            in_block = in_transaction and bool(state.transactions) and not isinstance(state.transactions[-1], Manual)
            statement = watch(connection)
            call = deadlines.watch(connection, self.settings.call_timeout)
            try:
                return action(self._new_cursor(named=named))
            except DRIVER_ERRORS as caught:
                error = caught
            except BaseException:  # what a signal handler raises must not hide that the transaction was lost
                state.doomed |= in_transaction and _is_lost(connection)
                raise
            # Outside of the except block, so that the driver's error, which may quote values of rows, does not become
            # the __context__ of this error, or of one that a signal handler raises.
            committing = sent and not (reads or (in_block and not _ENDS.search(str(sql))))
            returned = statement.returned() if statement is not None else None
            late = call.seconds if call is not None and call.passed else None
            fault = self._fault(error, connection, committing=committing, returned=returned, late=late)
            state.doomed |= in_transaction and isinstance(fault, ConnectionFailed)
            if getattr(error, "pgcode", None) == errorcodes.READ_ONLY_SQL_TRANSACTION:
                # After a failover this server may be a standby: a new connection finds the new primary.
                state.reusable = False
                self.pool.close_idle()
        finally:
            if call is not None:
                call.end()
            if statement is not None:
                statement.end()
            state.end()
        raise fault

    def _fault(
        self,
        error: Exception,
        connection: extensions.connection,
        *,
        committing: bool,
        returned: str | None = None,
        late: float | None = None,
    ) -> Exception:
        if _is_lost(connection) and isinstance(error, psycopg2.Error):
            pooled = self._pooler is not False
            return lost_fault(error, self.settings, committing=committing, pooled=pooled, late=late)
        return statement_fault(error, returned=returned)

    def _new_cursor(self, *, named: bool) -> extensions.cursor:
        connection: extensions.connection = self._state.conn
        cursor: extensions.cursor = self._adapter.server_side_cursor(connection) if named else connection.cursor()
        return cursor

    def _log_query(self, sql: str, params: Any) -> None:
        # Peewee's own log line contains the parameters, and with them the values of rows.
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug("%s [%d parameters]", sql, len(params or ()))


def _telling(scope: tuple[str, str, str], told: tuple[str, str, str] | None) -> tuple[str, tuple[str, ...]]:
    """Return the statements, and their parameters, for a scope after another one; None is any."""
    *names, role = scope
    if role:
        return _SCOPE + _ROLE, scope
    # The role of the login may differ from its name: libpq's options can set it.
    return (_SCOPE if told is not None and not told[-1] else _NO_ROLE + _SCOPE), tuple(names)


def _is_lost(connection: extensions.connection) -> bool:
    return bool(connection.closed) or connection.get_transaction_status() == extensions.TRANSACTION_STATUS_UNKNOWN

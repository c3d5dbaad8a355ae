"""The rows of a statement, read whole or streamed, and COPY."""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import psycopg2
from psycopg2 import errors

from myloware_store.core.errors import InvalidInput
from myloware_store.db.deadlines import call_on, watched
from myloware_store.db.driver_errors import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psycopg2.extensions import connection, cursor

    from myloware_store.db.deadlines import Call

__all__ = ["LIFT_DEADLINES", "PreparedStatements", "Rows", "Stream", "copy", "execute_after"]

_OFTEN = 5
"""How often a session runs a statement before it prepares it, as in psycopg 3."""

# transaction_timeout exists since PostgreSQL 17.
LIFT_DEADLINES = """
SELECT set_config(name, '0', %s) FROM pg_settings WHERE name IN
    ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout')
"""
"""Turns off time-outs, to the end of the transaction if its parameter is true, else of the session."""


class Rows:
    """The result of one statement, read whole, with a cursor's interface.

    It needs no connection. psycopg2's own cursors lose their rows when their connection is closed, which another thread
    can cause once the connection is back in the pool.
    """

    __slots__ = ("_left", "arraysize", "closed", "description", "rowcount", "statusmessage")

    def __init__(self, source: cursor) -> None:
        self.description = source.description
        self.rowcount = source.rowcount
        self.statusmessage = source.statusmessage
        self.arraysize = 100
        self.closed = False
        self._left: Iterator[Any] = iter(read_rows(source.fetchall) if source.description else ())
        source.close()

    def fetchone(self) -> Any:
        """Return the next row, or None after the last."""
        return next(self._left, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return up to `size` further rows."""
        return [row for _, row in zip(range(size or self.arraysize), self._left, strict=False)]

    def fetchall(self) -> list[Any]:
        """Return all further rows."""
        return list(self._left)

    def close(self) -> None:
        """Drop the rows."""
        self.closed = True
        self._left = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self._left

    def __next__(self) -> Any:
        return next(self._left)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class PreparedStatements:
    """The statements that sessions have prepared."""

    def __init__(self) -> None:
        self._runs: WeakKeyDictionary[connection, dict[str, int]] = WeakKeyDictionary()

    def execute(self, source: cursor, sql: str, params: Mapping[str, Any], prefix: bytes = b"") -> None:
        """Run a statement outside of a transaction, and prepare it if the session has run it often.

        Args:
            source: The driver's cursor.
            sql: The statement.
            params: Its parameters.
            prefix: Settings for this statement alone.
        """
        runs = self._runs.setdefault(source.connection, {})
        runs[sql] = runs.get(sql, 0) + 1
        if runs[sql] < _OFTEN:
            execute_after(prefix, source, sql, params)
            return
        prepare, execute = _prepared(sql)
        try:
            if runs[sql] == _OFTEN:
                source.execute(prepare)
            execute_after(prefix, source, execute, params)
        except (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement, errors.FeatureNotSupported):
            # The session was reset, or a migration has changed the columns of the result.
            source.execute("DEALLOCATE ALL")
            runs.clear()
            execute_after(prefix, source, sql, params)


def execute_after(prefix: bytes, source: cursor, sql: str, params: Any) -> None:
    """Run a statement in the same round trip as others, whose results nobody needs."""
    if not prefix:
        source.execute(sql, params)
    elif source.name:  # psycopg2 declares a cursor for the statement
        with source.connection.cursor() as plain:
            plain.execute(prefix)
        source.execute(sql, params)
    else:
        source.execute(prefix + source.mogrify(sql, params))


@cache
def _prepared(sql: str) -> tuple[str, str]:
    """Return the statements that prepare and execute one with named parameters."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", sql)
    label = f"myloware_{hashlib.sha256(sql.encode()).hexdigest()[:16]}"
    return f"PREPARE {label} AS {numbered}", f"EXECUTE {label} ({', '.join(f'%({name})s' for name in names)})"


class Stream:
    """A server-side cursor whose errors are translated.

    Args:
        source: The driver's cursor.
        perform: Runs a function on the connection, and translates the driver's errors.
        call_timeout: How many seconds its end waits for the server; None for no limit.
    """

    def __init__(
        self, source: cursor, perform: Callable[[Callable[[cursor], Any]], Any], call_timeout: float | None
    ) -> None:
        self.itersize = source.itersize
        self._source = source
        self._perform = perform
        self._call_timeout = call_timeout

    @property
    def description(self) -> Any:
        """The columns, known after the first fetch."""
        return self._source.description

    @property
    def closed(self) -> bool:
        """Whether the cursor is closed."""
        return bool(self._source.closed)

    def fetchmany(self, size: int) -> list[Any]:
        """Return up to `size` further rows."""
        rows: list[Any] = self._perform(lambda _: read_rows(partial(self._source.fetchmany, size)))
        return rows

    def close(self) -> None:
        """Close the cursor on the server, if the server can be reached."""
        with suppress(psycopg2.Error), watched(self._source.connection, self._call_timeout):
            self._source.close()


class _Moving:
    """The file of a COPY: whenever it is read or written, the server waits for us, or has sent something."""

    def __init__(self, file: Any, call: Call) -> None:
        self._file = file
        self._call = call

    def read(self, size: int = -1) -> Any:
        """Read what to send."""
        return self._move(self._file.read, size)

    def write(self, data: Any) -> Any:
        """Write what was received."""
        return self._move(self._file.write, data)

    def _move(self, move: Callable[[Any], Any], argument: Any) -> Any:
        self._call.pause()
        try:
            return move(argument)
        finally:
            self._call.renew()


class _MovingText(_Moving, io.TextIOBase):  # type: ignore[misc]  # its `read` and `write` take what the driver passes
    """The same for text, which the driver decodes."""


def copy(source: cursor, sql: Any, stream: Any, *, receives: bool) -> int:
    """Run a COPY from or to a file object, and return how many rows it moved.

    Args:
        source: The driver's cursor.
        sql: The COPY.
        stream: The file object.
        receives: Whether it copies from the file to the database.

    Raises:
        InvalidInput: The stream is not a file object, is closed, or has the wrong direction.
    """
    way = "read" if receives else "write"
    if not callable(getattr(stream, way, None)) or getattr(stream, "closed", False):
        raise InvalidInput(f"stream: this {type(stream).__name__} is not an open file to {way}")
    call = call_on(source.connection)
    if call is not None:
        stream = (_MovingText if isinstance(stream, io.TextIOBase) else _Moving)(stream, call)
    try:
        source.copy_expert(sql, stream)
    except psycopg2.Error:
        raise
    except BaseException:
        # The file failed, and rows are still arriving: another statement discards them.
        with suppress(psycopg2.Error):
            source.execute("SELECT 1")
        raise
    return source.rowcount

"""Any nesting of blocks, errors and lost connections stores exactly what was committed, and holds nothing after it."""

from __future__ import annotations

import random
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store.core.errors import ConnectionFailed, DatabaseFault
from myloware_store.db.database import StoreDatabase
from myloware_store.settings import Settings
from tests.conftest import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEEPEST = 5


class Thrown(Exception):
    """Leaves blocks up to a level."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.level = level


class Program:
    """A random program on a database, and what it must have stored when it ends."""

    def __init__(self, database: StoreDatabase, end: Callable[[int], None], choices: random.Random) -> None:
        self.database = database
        self.end = end
        self.choices = choices
        self.stored: set[int] = set()
        self.frames: list[set[int]] = []  # what each open transaction and savepoint has written
        self.lost = False  # the connection went away amid the transaction
        self.failed = False  # a statement failed in the transaction
        self.number = 0

    @property
    def broken(self) -> bool:
        """Whether the transaction cannot go on."""
        return self.lost or self.failed

    def run(self) -> None:
        """Run it to its end."""
        with suppress(Thrown):
            self.steps(0, manual=False)

    def steps(self, depth: int, *, manual: bool) -> None:
        """Do a few things in a row."""
        for _ in range(self.choices.randint(1, 4)):
            step = self.choices.random()
            if step < 0.4:
                self.insert()
            elif step < 0.5:
                self.fail()
            elif step < 0.58:
                self.lose()
            elif step < 0.67:
                raise Thrown(self.choices.randint(0, depth))
            elif depth < DEEPEST:
                self.block(depth + 1, manual=manual)

    def insert(self) -> None:
        """Write a row, which must work unless the transaction cannot go on."""
        self.number += 1
        try:
            self.database.execute_sql("INSERT INTO fuzzed VALUES (%s)", (self.number,))
        except DatabaseFault as fault:
            self.expect(fault)
        else:
            assert not self.broken
            (self.frames[-1] if self.frames else self.stored).add(self.number)

    def fail(self) -> None:
        """Run a statement that the server refuses."""
        with pytest.raises(DatabaseFault):
            self.database.execute_sql("SELECT 1 / 0")
        self.failed |= bool(self.frames) and not self.lost

    def lose(self) -> None:
        """Have the server end the connection that is held, if one is."""
        held = self.database._state.conn
        if held is not None and not held.closed:
            self.end(held.get_backend_pid())
            self.lost |= bool(self.frames)

    def expect(self, fault: DatabaseFault) -> None:
        """Check that an error says why the transaction cannot go on."""
        assert self.lost if isinstance(fault, ConnectionFailed) else self.failed and fault.sqlstate == "25P02"

    def block(self, depth: int, *, manual: bool) -> None:
        """Open one block of some kind, and leave it in some way."""
        kinds: list[Callable[[], None]] = [
            lambda: self.held(self.database.unit(), depth, manual=manual),
            lambda: self.held(self.database.connection_context(), depth, manual=manual),
        ]
        if not manual:
            kinds += 3 * [lambda: self.transaction(self.database.atomic(), depth)]
            kinds += [lambda: self.transaction(self.database, depth)]
            if self.frames:
                kinds += [lambda: self.transaction(self.database.savepoint(), depth)]
            else:
                kinds += [
                    lambda: self.transaction(self.database.transaction(), depth),
                    self.by_hand,
                    self.by_hand_twice,
                ]
        try:
            self.choices.choice(kinds)()
        except Thrown as thrown:
            if thrown.level < depth:
                raise

    def held(self, block: Any, depth: int, *, manual: bool) -> None:
        """Run steps inside a block that is no transaction."""
        with block:
            self.steps(depth, manual=manual)

    def transaction(self, block: Any, depth: int) -> None:
        """Run steps inside a transaction or savepoint."""
        outermost, failed = not self.frames, self.failed
        try:
            block.__enter__()
        except DatabaseFault as fault:
            assert not outermost
            self.expect(fault)
            return
        self.frames.append(set())
        thrown: Thrown | None = None
        try:
            self.steps(depth, manual=False)
        except Thrown as error:
            thrown = error
        try:
            block.__exit__(type(thrown) if thrown else None, thrown, None)
        except DatabaseFault as fault:
            assert thrown is None, "it hides what the block raised"
            self.expect(fault)
            written: set[int] = set()
        else:
            assert thrown or not self.broken, "it passes for stored"
            written = set() if thrown else self.frames[-1]
        self.leave(written, failed=failed and not outermost)
        if thrown:
            raise thrown

    def by_hand(self) -> None:
        """Begin a transaction without a block, and commit it or roll it back."""
        self.database.begin()
        self.frames.append(set())
        for _ in range(self.choices.randint(0, 3)):
            self.choices.choice([self.insert, self.insert, self.fail, self.lose])()
        written: set[int] = set()
        if self.choices.random() < 0.7:
            try:
                self.database.commit()
            except DatabaseFault as fault:
                self.expect(fault)
            else:
                assert not self.broken, "it passes for stored"
                written = self.frames[-1]
        else:
            self.database.rollback()
        self.leave(written, failed=False)

    def by_hand_twice(self) -> None:
        """Run two transactions by hand inside a block for that."""
        with self.database.manual_commit():
            self.by_hand()
            self.by_hand()

    def leave(self, written: set[int], *, failed: bool) -> None:
        """Note that the innermost transaction or savepoint has ended."""
        self.frames.pop()
        if self.frames:
            self.frames[-1] |= written
            self.failed = self.failed if self.lost else failed
        else:
            self.stored |= written
            self.lost = self.failed = False


@pytest.fixture
def end(plain_url: str) -> Iterator[Callable[[int], None]]:
    """Give a way to end a server process."""
    with closing(psycopg2.connect(plain_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield lambda pid: cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


@pytest.mark.parametrize("seed", range(60 * ROUNDS))
def test_what_was_committed_is_stored_and_nothing_else(plain_url: str, end: Callable[[int], None], seed: int) -> None:
    """Whatever a program did, the table has what it committed, no error hid another, and no connection is held."""
    database = StoreDatabase(Settings.load(plain_url, environ={}, dotenv=None))
    database.execute_sql("CREATE TABLE IF NOT EXISTS fuzzed (number int PRIMARY KEY)")
    database.execute_sql("TRUNCATE fuzzed")
    program = Program(database, end, random.Random(seed))

    program.run()

    assert database.is_closed()
    assert program.stored == {number for (number,) in database.execute_sql("SELECT number FROM fuzzed")}
    assert (database.pool.limit, [], []) == (database.pool._places, database._state.transactions, database._state.ctx)
    database.close_all()

"""Tests of every style: unittest's classes, coroutines, hypothesis' examples, resets by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

HELPERS = """
import asyncio, unittest
import psycopg2, pytest
from contextlib import closing
from hypothesis import HealthCheck, given, settings, strategies as st

given_fixtures = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)

def count(store):
    ((n,),) = store.db.execute_sql("SELECT count(*) FROM capabilities").fetchall()
    return n

def add(store, name):
    store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES (%s, 'all')", (name,))
"""


def test_unittest_classes(project: Project) -> None:
    """A `TestCase` takes the fixtures by an autouse fixture, and `setUp` writes into the test's database."""
    result = project.run(
        HELPERS
        + """
class TestIt(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def stored(self, myloware):
        self.store = myloware

    def setUp(self):
        add(self.store, "set up")

    def test_first(self):
        self.assertEqual(count(self.store), 1)
        add(self.store, "first")

    def test_second(self):
        self.assertEqual(count(self.store), 1)
        add(self.store, "second")

    @given_fixtures
    @given(st.text("abc"))
    def test_examples(self, text):
        self.assertEqual(count(self.store), 1)
        add(self.store, "name" + text)
"""
    )

    result.assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["restore", "rollback", "clone"])
def test_coroutines(project: Project, mode: str) -> None:
    """An async test writes in its loop's thread, and in others; hypothesis' examples may be coroutines too."""
    result = project.run(
        HELPERS
        + """
pytestmark = pytest.mark.asyncio

@pytest.mark.parametrize("time", ["first", "second"])
async def test_it(myloware, time):
    assert count(myloware) == 0
    add(myloware, "loop")
    await asyncio.sleep(0)
    await asyncio.to_thread(add, myloware, "thread")
    assert count(myloware) == 2

@given_fixtures
@given(st.text("abc"))
async def test_examples(myloware, text):
    assert count(myloware) == 0
    add(myloware, "name" + text)
    await asyncio.sleep(0)
""",
        f"--myloware-mode={mode}",
    )

    result.assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["restore", "rollback", "clone"])
def test_examples_begin_alike(project: Project, mode: str) -> None:
    """Every example of a hypothesis test finds what the fixtures made, whatever the one before has written."""
    result = project.run(
        HELPERS
        + """
@pytest.fixture
def named(myloware):
    add(myloware, "fixture")

SEEN = []

@given_fixtures
@given(text=st.text("abc"))
def test_examples(named, myloware, text):
    assert count(myloware) == 1
    add(myloware, "name" + text)
    with myloware.db.atomic():
        myloware.db.execute_sql("DELETE FROM capabilities WHERE name = 'fixture'")
    SEEN.append(text)

def test_there_were_several():
    assert len(SEEN) > 3

@given_fixtures
@given(text=st.text("abc"))
def test_examples_without_fixtures_data(myloware, text):
    assert count(myloware) == 0
    add(myloware, "name" + text)

@given_fixtures
@given(text=st.text("abc"))
def test_by_url(myloware_dsn, text):
    with closing(psycopg2.connect(myloware_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM capabilities")
        assert cursor.fetchall() == [(0,)]
        cursor.execute("INSERT INTO capabilities (name, scope) VALUES ('x', 'x')")

class TestMethods:
    @given_fixtures
    @given(text=st.text("abc"))
    def test_method(self, named, myloware, text):
        assert count(myloware) == 1
        add(myloware, "name" + text)

def test_after(myloware):
    assert count(myloware) == 0
""",
        f"--myloware-mode={mode}",
    )

    result.assert_outcomes(passed=6)
    assert [] == project.leftovers()


def test_failing_example_is_shrunk(project: Project) -> None:
    """Hypothesis finds the smallest example that fails, since none depends on those before it."""
    result = project.run(
        HELPERS
        + """
@given_fixtures
@given(number=st.integers(0, 100))
def test_fails(myloware, number):
    add(myloware, f"name {number}")
    assert number < 37
"""
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*number=37,*"])


def test_health_check(project: Project) -> None:
    """Hypothesis warns of function-scoped fixtures as ever: it cannot know that examples are reset."""
    result = project.run(
        HELPERS
        + """
@given(st.integers())
def test_it(myloware, number):
    pass

@pytest.mark.usefixtures("myloware")
@settings(max_examples=3, database=None)
@given(number=st.integers())
def test_unnamed(number):
    pass
"""
    )

    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*function-scoped fixture 'myloware'*"])


@pytest.mark.parametrize("mode", ["restore", "rollback", "clone"])
def test_reset(project: Project, mode: str) -> None:
    """`myloware_reset` goes back to how it was when the test asked for it, any number of times."""
    result = project.run(
        HELPERS
        + """
@pytest.fixture
def named(myloware):
    add(myloware, "fixture")

def test_reset(named, myloware, myloware_reset):
    for _ in range(3):
        assert count(myloware) == 1
        add(myloware, "test")
        myloware.db.execute_sql("UPDATE capabilities SET scope = 'other'")
        myloware_reset()
    assert myloware.db.execute_sql("SELECT name, scope FROM capabilities").fetchall() == [("fixture", "all")]

def test_fixtures_connections_stay(myloware, myloware_dsn, connected, myloware_reset):
    myloware_reset()
    connected.cursor().execute("SELECT 1")

@pytest.fixture
def connected(myloware_dsn):
    with closing(psycopg2.connect(myloware_dsn)) as connection:
        yield connection

def test_after(myloware):
    assert count(myloware) == 0
""",
        f"--myloware-mode={mode}",
    )

    result.assert_outcomes(passed=3)


def test_reset_cannot_undo_ddl(project: Project) -> None:
    """It says so, and the next test has the schema as it was."""
    result = project.run(
        HELPERS
        + """
def test_reset(myloware, myloware_reset):
    myloware.db.execute_sql("CREATE TABLE extra (id int)")
    myloware_reset()

def test_after(myloware):
    assert myloware.db.execute_sql("SELECT to_regclass('extra')").fetchall() == [(None,)]
"""
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*putting back rows does not undo*"])


def test_no_transaction_outlives_a_reset(project: Project) -> None:
    """An open one of the test's own is an error, one of another thread is ended: neither commits into later tests."""
    result = project.run(
        HELPERS
        + """
import contextlib, threading
from myloware_store import StoreError

def test_first(myloware):
    assert count(myloware) == 0

def test_own(myloware, myloware_reset):
    with myloware.db.atomic():
        add(myloware, "own")
        myloware_reset()

def test_threads(myloware, myloware_reset):
    written, go_on = threading.Event(), threading.Event()

    def write():
        with contextlib.suppress(StoreError), myloware.db.atomic():
            add(myloware, "thread")
            written.set()
            go_on.wait()

    thread = threading.Thread(target=write)
    thread.start()
    written.wait()
    myloware_reset()
    go_on.set()
    thread.join()

def test_after(myloware):
    assert count(myloware) == 0
""",
    )

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*a transaction is open: leave it before the database is put back*"])

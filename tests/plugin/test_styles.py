"""Tests in every style: unittest classes, coroutines, hypothesis examples, explicit resets."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """A `TestCase` gets the store through an autouse fixture, and `setUp` writes into the test's database."""
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


def test_coroutines(project: Project) -> None:
    """The writes of an async test are undone, in the loop's thread and in others; so are those of async examples."""
    result = project.run_in_every_mode(
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
"""
    )

    result.assert_outcomes(passed=3 * 3)


def test_examples_begin_alike(project: Project) -> None:
    """Every example of a hypothesis test begins with the rows of the fixtures, whatever the previous one wrote."""
    result = project.run_in_every_mode(
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
"""
    )

    result.assert_outcomes(passed=3 * 6)
    assert [] == project.leftovers()


def test_failing_example_is_shrunk(project: Project) -> None:
    """Hypothesis finds the smallest failing example, since no example depends on the previous ones."""
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
    """Hypothesis still warns of function-scoped fixtures: it cannot know that the database is reset."""
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


def test_reset(project: Project) -> None:
    """`myloware_reset` returns to the state in which the test requested it, any number of times."""
    result = project.run_in_every_mode(
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
"""
    )

    result.assert_outcomes(passed=3 * 3)


def test_reset_cannot_undo_ddl(project: Project) -> None:
    """A reset after DDL is an error, and the next test has the former schema."""
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
    result.stdout.fnmatch_lines(["*restoring rows does not undo*"])


def test_no_transaction_outlives_a_reset(project: Project) -> None:
    """A reset in a transaction is an error, and it ends other threads' transactions: none commits into later tests."""
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
    result.stdout.fnmatch_lines(["*a transaction is open: end it before myloware_reset*"])

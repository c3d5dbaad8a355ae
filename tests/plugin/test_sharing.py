"""Databases shared by the tests of a class or module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

COUNT = """
import psycopg2, pytest
from contextlib import closing

def names(store):
    rows = store.db.execute_sql("SELECT name FROM capabilities ORDER BY name")
    return [name for (name,) in rows if name[:1].islower()]

def add(store, name):
    store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES (%s, 'all')", (name,))
"""

NESTED = (
    COUNT
    + """
@pytest.fixture(scope="module")
def of_module(myloware_module):
    add(myloware_module, "module")
    add(myloware_module, "to go")

@pytest.fixture(scope="class")
def of_class(of_module, myloware_class):
    add(myloware_class, "class")
    myloware_class.db.execute_sql("DELETE FROM capabilities WHERE name = 'to go'")

def test_before_the_module_has_begun(myloware):
    add(myloware, "early")
    assert names(myloware) == ["early"]

def test_module(of_module, myloware):
    assert names(myloware) == ["module", "to go"]
    add(myloware, "test")

@pytest.mark.usefixtures("of_class")
class TestOne:
    @pytest.mark.parametrize("time", ["first", "second"])
    def test_class(self, myloware, myloware_dsn, time):
        assert names(myloware) == ["class", "module"]
        add(myloware, "test")
        myloware.db.execute_sql("DELETE FROM capabilities WHERE name = 'module'")
        myloware.db.execute_sql("UPDATE capabilities SET scope = 'other'")
        with closing(psycopg2.connect(myloware_dsn)) as connection, connection:
            connection.cursor().execute("INSERT INTO capabilities (name, scope) VALUES ('x', 'x')")

    @pytest.mark.myloware_db(mode="rollback")
    def test_rolled_back(self, myloware):
        assert names(myloware) == ["class", "module"]
        add(myloware, "test")

    @pytest.fixture
    def of_test(self, myloware):
        add(myloware, "fixture")

    def test_reset(self, of_test, myloware, myloware_reset):
        for _ in range(2):
            assert names(myloware) == ["class", "fixture", "module"]
            add(myloware, "test")
            myloware.db.execute_sql("TRUNCATE capabilities CASCADE")
            myloware_reset()

    def test_after_it(self, myloware):
        assert names(myloware) == ["class", "module"]

class TestTwo:
    def test_module_again(self, of_module, myloware):
        assert names(myloware) == ["module", "to go"]

@pytest.mark.usefixtures("of_class")
class TestThree:
    def test_class(self, myloware):
        assert names(myloware) == ["class", "module"]

def test_the_module_again(of_module, myloware):
    assert names(myloware) == ["module", "to go"]
"""
)


def test_levels(project: Project) -> None:
    """A class in a module sees the rows of both; the rows of each are undone after it."""
    project.write(COUNT + "def test_seed(myloware):\n    assert names(myloware) == []\n", "test_z_last")

    project.run(NESTED).assert_outcomes(passed=11)

    assert [] == project.leftovers()


def test_class_that_changes_the_schema(project: Project) -> None:
    """A fixture of the class may use DDL; it is undone after the class."""
    result = project.run(
        COUNT
        + """
@pytest.fixture(scope="class")
def table(myloware_class):
    myloware_class.db.execute_sql("CREATE TABLE extra (id serial PRIMARY KEY, n int)")
    myloware_class.db.execute_sql("INSERT INTO extra (n) VALUES (1)")
    add(myloware_class, "class")

@pytest.mark.usefixtures("table")
class TestTable:
    @pytest.mark.parametrize("time", ["first", "second"])
    def test_write(self, myloware, time):
        assert myloware.db.execute_sql("SELECT id, n FROM extra").fetchall() == [(1, 1)]
        assert names(myloware) == ["class"]
        myloware.db.execute_sql("INSERT INTO extra (n) VALUES (2)")
        add(myloware, "test")

def test_after(myloware):
    assert myloware.db.execute_sql("SELECT to_regclass('extra')").fetchall() == [(None,)]
    assert names(myloware) == []
"""
    )

    result.assert_outcomes(passed=3)


def test_test_that_changes_the_shared_schema(project: Project) -> None:
    """DDL in a test of such a class is an error for it and the later tests; the message says what to do."""
    result = project.run(
        COUNT
        + """
@pytest.mark.usefixtures("myloware_class")
class TestTable:
    def test_ddl(self, myloware):
        myloware.db.execute_sql("CREATE TABLE extra (id int)")

    def test_next(self, myloware):
        pass

def test_after(myloware):
    assert myloware.db.execute_sql("SELECT to_regclass('extra')").fetchall() == [(None,)]
"""
    )

    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*give that test a database of its own*"])


def test_class_cannot_have_two_seeds(project: Project) -> None:
    """A marker with another seed inside such a class is an error."""
    result = project.run("""
        import pytest

        @pytest.mark.usefixtures("myloware_class")
        class TestSeed:
            @pytest.mark.myloware_db(seed="sample")
            def test_seed(self, myloware):
                pass
    """)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cannot have another seed*"])


def test_connections_of_the_class_stay(project: Project) -> None:
    """A connection that a fixture of the class opened stays open after a test; one that a test opened is closed."""
    result = project.run(
        COUNT
        + """
@pytest.fixture(scope="class")
def held(myloware_class):
    with closing(psycopg2.connect(myloware_class.settings.url)) as connection:
        connection.autocommit = True
        yield connection

OPENED = []

class TestHeld:
    @pytest.mark.parametrize("time", ["first", "second", "third"])
    def test_use(self, held, myloware, myloware_dsn, time):
        add(myloware, "test")
        held.cursor().execute("SELECT 1")
        assert all(each.closed or not alive(each) for each in OPENED)
        OPENED.append(psycopg2.connect(myloware_dsn))

    def test_with_examples(self, held, myloware, myloware_reset):
        add(myloware, "test")
        myloware_reset()
        held.cursor().execute("SELECT 1")

    def test_after_examples(self, held, myloware):
        held.cursor().execute("SELECT 1")

def alive(connection):
    try:
        connection.cursor().execute("SELECT 1")
    except psycopg2.Error:
        return False
    return True
"""
    )

    result.assert_outcomes(passed=5)


def test_sequences_of_the_class(project: Project) -> None:
    """Sequences keep the numbers that the class used, and return the ones that a test used."""
    project.pytester.makeconftest("""
import pytest

def loose(url):
    import psycopg2
    connection = psycopg2.connect(url)
    with connection:
        connection.cursor().execute("CREATE SEQUENCE loose")
    connection.close()

@pytest.fixture(scope="session")
def myloware_migrations():
    return loose
""")

    result = project.run("""
        import pytest

        def take(store):
            return store.db.execute_sql("SELECT nextval('loose')").fetchall()

        @pytest.fixture(scope="class")
        def taken(myloware_class):
            return take(myloware_class)

        @pytest.mark.usefixtures("taken")
        class TestTake:
            @pytest.mark.parametrize("time", ["first", "second"])
            def test_take(self, myloware, time):
                assert [(2,)] == take(myloware)

        def test_after(myloware):
            assert [(1,)] == take(myloware)
    """)

    result.assert_outcomes(passed=3)

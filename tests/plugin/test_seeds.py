"""The contents of the template, and when it is rebuilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

SEEDS = """
import pytest

def names(store):
    return [name for (name,) in store.db.execute_sql("SELECT name FROM capabilities ORDER BY 1")]

def of_test(store):
    assert store.work.submit([{"type": "TICKET", "content": "It is broken."}], created_by="seed")
    store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('function', 'all')")

def test_default(myloware):
    assert names(myloware) == ["file"]

@pytest.mark.myloware_db(seed="none")
def test_none(myloware):
    assert names(myloware) == []

@pytest.mark.myloware_db(seed="sample")
def test_sample(myloware):
    assert len(names(myloware)) > 2

@pytest.mark.myloware_db(seed=of_test)
@pytest.mark.parametrize("time", ["first", "second"])
def test_function(myloware, time):
    assert names(myloware) == ["function"]
    myloware.db.execute_sql("DELETE FROM capabilities")

@pytest.mark.myloware_db(seed=of_test, mode="clone")
def test_clone(myloware):
    assert names(myloware) == ["function"]
"""
FILE = """
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def myloware_seed():
    return Path(__file__).with_name("seed.sql")
"""


def test_seeds_of_every_kind(project: Project) -> None:
    """A seed is a file of SQL, the sample data, nothing, or a function; a marker overrides the fixture."""
    project.pytester.makeconftest(FILE)
    seed = project.pytester.path / "seed.sql"
    seed.write_text("INSERT INTO capabilities (name, scope) VALUES ('file', '100%')")

    first = project.run(SEEDS)
    again = project.run(SEEDS)
    seed.write_text("INSERT INTO capabilities (name, scope) VALUES ('edited', 'all')")
    edited = project.run(SEEDS.replace('["file"]', '["edited"]'), "-k", "test_default")

    first.assert_outcomes(passed=6)
    again.assert_outcomes(passed=6)
    edited.assert_outcomes(passed=1)
    assert sorted(["hit"] * 3 + ["built"]) == sorted(templates(again)), (
        "a function may read anything: it is called in every run"
    )
    assert ["built"] == templates(edited)
    assert [] == project.leftovers()


def test_function_with_a_version(project: Project) -> None:
    """A function with a version is called again only when the version changes."""
    tests = """
        import pytest

        def versioned(store):
            with open("called", "a") as called:
                called.write("x")

        versioned.version = VERSION

        @pytest.fixture(scope="session")
        def myloware_seed():
            return versioned

        def test_it(myloware):
            pass
    """

    for version in (1, 1, 2):
        project.run(tests.replace("VERSION", str(version))).assert_outcomes(passed=1)

    assert "xx" == project.pytester.path.joinpath("called").read_text()


def test_seed_that_fails(project: Project) -> None:
    """The error of a seed is shown, and no incomplete template stays."""
    before = project.names()

    result = project.run("""
        import pytest

        def broken(store):
            raise LookupError("no such customer")

        @pytest.fixture(scope="session")
        def myloware_seed():
            return broken

        def test_one(myloware): pass
        def test_two(myloware): pass
    """)

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*LookupError: no such customer"])
    assert [name for name in before if "template" in name] == project.names()


def test_migrations(project: Project) -> None:
    """Folders and functions follow the library's own migrations; editing a folder rebuilds the template."""
    folder = project.pytester.mkdir("migrations")
    migration = folder / "001_more.py"
    body = "def migrate(migrator, database, *, fake=False):\n    migrator.sql('CREATE TABLE {} (id int)')\n"
    migration.write_text(body.format("first"))
    project.pytester.makeconftest("""
        from contextlib import closing
        from pathlib import Path
        import psycopg2, pytest

        def by_function(url):
            with closing(psycopg2.connect(url)) as connection, connection:
                connection.cursor().execute("CREATE TABLE by_function (id int)")

        by_function.version = 1

        @pytest.fixture(scope="session")
        def myloware_migrations():
            return [Path(__file__).with_name("migrations"), by_function]
    """)
    tests = """
        def test_tables(myloware):
            query = "SELECT to_regclass('first'), to_regclass('second'), to_regclass('by_function')"
            assert [(FIRST, SECOND, "by_function")] == myloware.db.execute_sql(query).fetchall()
    """

    built = project.run(tests.replace("FIRST", "'first'").replace("SECOND", "None"))
    hit = project.run()
    migration.write_text(body.format("second"))
    edited = project.run(tests.replace("FIRST", "None").replace("SECOND", "'second'"))
    (folder / "rows.csv").touch()
    with_file = project.run()

    runs = (built, hit, edited, with_file)
    assert [["built"], ["hit"], ["built"], ["built"]] == [templates(result) for result in runs]
    for result in runs:
        result.assert_outcomes(passed=1)


def test_folder_without_migrations(project: Project) -> None:
    """A folder that does not exist is an error."""
    result = project.run("""
        import pytest

        @pytest.fixture(scope="session")
        def myloware_migrations():
            return "nowhere"

        def test_it(myloware): pass
    """)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*myloware_migrations: there is no migration in nowhere*"])


def templates(result: object) -> list[str]:
    """Return for each template of a run whether it was built or hit."""
    lines: list[str] = result.outlines  # type: ignore[attr-defined]  # pytest.RunResult
    return [line.rpartition(" ")[2] for line in lines if ", template " in line]


def test_functions_have_templates_of_their_own(project: Project) -> None:
    """Functions with one name, closures with different values, and other callables have different templates."""
    result = project.run("""
        import functools, pytest

        def put(name, store):
            store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES (%s, 'all')", (name,))

        def seeded(name):
            return lambda store: put(name, store)

        class Seeded:
            def __call__(self, store):
                put("object", store)

        SEEDS = {"1": seeded("1"), "2": seeded("2"), "part": functools.partial(put, "part"), "object": Seeded()}

        @pytest.mark.parametrize("name", [
            pytest.param(name, marks=pytest.mark.myloware_db(seed=seed)) for name, seed in SEEDS.items()
        ])
        def test_rows(myloware, name):
            assert myloware.db.execute_sql("SELECT name FROM capabilities").fetchall() == [(name,)]
    """)

    result.assert_outcomes(passed=4)


def test_unlogged_tables_have_their_rows_after_a_crash(project: Project) -> None:
    """Unlogged tables become logged in test databases, since the template would lose their rows in a crash."""
    result = project.run("""
        import pytest

        def unlogged(store):
            store.db.execute_sql("CREATE UNLOGGED TABLE cache AS SELECT 1 AS number")

        @pytest.mark.myloware_db(seed=unlogged)
        def test_rows(myloware):
            query = "SELECT relpersistence FROM pg_class WHERE relname = 'cache'"
            assert myloware.db.execute_sql(query).fetchall() == [("p",)]
    """)

    result.assert_outcomes(passed=1)

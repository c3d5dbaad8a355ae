"""An error that affects all tests is reported in full once; the last lines of a run sum up."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest

from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Project

THREE = """
def test_one(myloware):
    pass

def test_two(myloware):
    pass

def test_three(myloware):
    pass
"""
FILES = """
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def myloware_migrations():
    return Path(__file__).with_name("migrations")

@pytest.fixture(scope="session")
def myloware_seed():
    return Path(__file__).with_name("seed.sql")
"""

BROKEN = """
import pytest

def broken(store):
    with open("calls", "a") as calls:
        calls.write("x")
    raise RuntimeError("the seed is wrong")

@pytest.fixture(scope="session")
def myloware_seed():
    return broken
"""


def count(result: pytest.RunResult, text: str) -> int:
    """Count the lines with a text."""
    return sum(text in line for line in result.outlines)


def test_no_server(project: Project) -> None:
    """The first test says what was tried and what to do; the others refer to it."""
    result = project.run(THREE, "--myloware-dsn=postgresql://me@127.0.0.1:1/postgres")

    result.assert_outcomes(errors=3)
    assert 1 == count(result, "What to do: ")
    assert 2 == count(result, "no PostgreSQL server for the tests: see the error of test_project.py::test_one")


def test_where_lines_are_not_cut(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI, pytest's summary prints whole messages: there too, the other tests only refer to the first one."""
    monkeypatch.setenv("CI", "true")

    result = project.run(THREE, "--myloware-dsn=postgresql://me@127.0.0.1:1/postgres")

    ends = [line.rpartition(": ")[2] for line in result.outlines if line.startswith("ERROR test_project.py::test_t")]
    assert ["see the error of test_project.py::test_one"] * 2 == ends


@pytest.mark.parametrize(
    ("migration", "seed", "broken"),
    [
        (
            'migrator.sql("CREATE TABL numbers (id int)")',
            "SELECT 1",
            "migrations: 002_numbers failed: syntax error at *",
        ),
        ('raise RuntimeError("100% wrong")', "SELECT 1", "migrations: 002_numbers failed: RuntimeError: 100% wrong*"),
        ("pass", "INSERT INTO nowhere VALUES (1)", 'seed.sql: relation "nowhere" does not exist*'),
    ],
)
def test_broken_file(project: Project, migration: str, seed: str, broken: str) -> None:
    """The error of a migration or seed names its file, without the traceback of the code that ran it."""
    project.pytester.makeconftest(FILES)
    folder = project.pytester.mkdir("migrations")
    (folder / "001_nothing.py").write_text("def migrate(migrator, database, *, fake=False):\n    pass\n")
    (folder / "002_numbers.py").write_text(f"def migrate(migrator, database, *, fake=False):\n    {migration}\n")
    (project.pytester.path / "seed.sql").write_text(seed)

    result = project.run(THREE)

    result.assert_outcomes(errors=3)
    file = broken.partition(":")[0]
    result.stdout.fnmatch_lines(["*ERROR at setup of test_one *", f"myloware_*: {project.pytester.path}/{file}: *"])
    assert broken.partition("*")[2].strip("*") in result.stdout.str()
    assert 2 == count(result, "see the error of test_project.py::test_one")
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*peewee.py*")


def test_broken_function(project: Project) -> None:
    """A failing function is called once, and reported with its traceback; later tests don't try again."""
    result = project.run(BROKEN + THREE)

    result.assert_outcomes(errors=3)
    assert "x" == (project.pytester.path / "calls").read_text()
    assert 1 == count(result, "E       RuntimeError: the seed is wrong")
    result.stdout.fnmatch_lines(["*RuntimeError: the seed is wrong", "the template database could not be built: *"])


def test_names_of_tests_that_cost_a_database(project: Project) -> None:
    """The last lines name the first three tests after which a new copy was needed."""
    result = project.run("""
        import pytest

        @pytest.mark.parametrize("number", range(5))
        def test_ddl(myloware, number):
            myloware.db.execute_sql("CREATE TABLE made (id int)")
    """)

    result.stdout.fnmatch_lines(
        [
            "new copies after a test left DDL, a lock or the like: 5",
            "  test_project.py::test_ddl?0?, test_project.py::test_ddl?1?, test_project.py::test_ddl?2? and 2 more",
        ]
    )


@pytest.fixture
def broken_home(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of a server that cannot start, with the kept database of a failed test."""
    home = project.server.home.parent / "broken"
    monkeypatch.setenv("MYLOWARE_TEST_HOME", str(home))
    failed = project.run("def test_it(myloware): assert False", "--myloware-keep=failed")
    (ending,) = [line.partition("end it with: ")[2] for line in failed.outlines if "end it with: " in line]
    EmbeddedServer.down(shlex.split(ending)[-1].removeprefix("embedded:"))
    (EmbeddedServer(home / "server").data_dir / "global" / "pg_control").unlink()
    return home


def test_kept_databases_are_not_removed(project: Project, broken_home: Path) -> None:
    """A server that does not start is created again, but not while it has kept databases."""
    version = EmbeddedServer(broken_home / "server").data_dir / "PG_VERSION"

    refused = project.run(THREE)
    assert version.exists()
    for kept in broken_home.glob("kept"):
        os.utime(kept, (0, 0))
    anew = project.run()

    refused.assert_outcomes(errors=3)
    refused.stdout.fnmatch_lines([f"*databases that you kept are in {broken_home}/server: *"])
    anew.assert_outcomes(passed=3)

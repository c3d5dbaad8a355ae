"""The report of a failed test, kept databases, and timings."""

from __future__ import annotations

import re
import shlex
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

from myloware_store.embedded import EmbeddedServer, find_binaries

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

HELPERS = """
import psycopg2, pytest

KEPT = []

def add(store, name):
    store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES (%s, 'all')", (name,))
"""

FAILING = (
    HELPERS
    + """
def seeded(store):
    add(store, "old")
    add(store, "gone")

pytestmark = pytest.mark.myloware_db(seed=seeded)

def test_changes(myloware):
    add(myloware, "new")
    myloware.db.execute_sql("UPDATE capabilities SET scope = 'other' WHERE name = 'old'")
    myloware.db.execute_sql("DELETE FROM capabilities WHERE name = 'gone'")
    assert False, "as it must"

def test_nothing_changed(myloware):
    assert False

def test_schema(myloware):
    myloware.db.execute_sql("CREATE TABLE made (id int)")
    myloware.db.execute_sql("DROP TABLE tool_capabilities")
    assert False

def test_aborted(myloware):
    add(myloware, "new")
    with myloware.db.atomic():
        myloware.db.execute_sql("SELECT 1 / 0")

def test_locked(myloware, myloware_dsn):
    connection = psycopg2.connect(myloware_dsn)
    KEPT.append(connection)
    connection.cursor().execute("LOCK TABLE capabilities")
    assert False

def test_thread(myloware, myloware_dsn):
    connection = psycopg2.connect(myloware_dsn)
    with connection:
        connection.cursor().execute("INSERT INTO capabilities (name, scope) VALUES ('100%', 'all')")
    connection.close()
    assert False

def test_passes(myloware):
    add(myloware, "unseen")
"""
)


@pytest.mark.parametrize("mode", ["restore", "rollback", "clone"])
def test_changed_rows_are_shown(project: Project, mode: str) -> None:
    """A failure report lists the rows that the test changed, table by table."""
    result = project.run(FAILING, f"--myloware-mode={mode}")

    result.assert_outcomes(failed=6, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ test_changes _*",
            "*myloware: changes in the test's database*",
            "capabilities: 1 added, 1 changed, 1 removed",
            "  + *name=new*",
            "  ~ *scope: all -> other*",
            "  - *",
            "*_ test_nothing_changed _*",
            "*_ test_schema _*",
            "tool_capabilities: dropped",
            "made: created",
            "*_ test_locked _*",
            "the database cannot be read: *",
            "*_ test_thread _*",
            "  + *name=100%*",
        ]
    )
    result.stdout.no_fnmatch_line("*name=unseen*")
    shown = re.findall(r"changes in the test's database", result.stdout.str())
    assert 5 == len(shown), "all but one changed something, or cannot be read"


def test_failed_databases_are_kept(project: Project) -> None:
    """`--myloware-keep=failed`: psql opens a failed test's database as the test left it, in any mode."""
    home = project.pytester.path / "home"
    home.mkdir(mode=0o711)
    result = None
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MYLOWARE_TEST_HOME", str(home))
        for parent in home.parents[:3]:  # as root the server runs under another account
            parent.chmod(parent.stat().st_mode | 0o111)
        result = project.run(
            HELPERS
            + """
@pytest.mark.parametrize("mode", [
    pytest.param(mode, marks=pytest.mark.myloware_db(mode=mode)) for mode in ("restore", "rollback", "clone")
])
def test_fails(myloware, mode):
    add(myloware, "of " + mode)
    assert False

@pytest.fixture(scope="class")
def of_class(myloware_class):
    add(myloware_class, "class")

@pytest.mark.usefixtures("of_class")
class TestClass:
    def test_fails(self, myloware):
        add(myloware, "of test")
        assert False, "only what the test has added is shown"

    def test_passes(self, myloware):
        rows = myloware.db.execute_sql("SELECT name FROM capabilities").fetchall()
        assert rows == [("class",)]

def test_passes(myloware):
    assert myloware.db.execute_sql("SELECT name FROM capabilities").fetchall() == []
""",
            "--myloware-keep=failed",
        )

    result.assert_outcomes(failed=4, passed=2)
    result.stdout.fnmatch_lines(
        ["*only what the test*", "*changes in the test's database*", "capabilities: 1 added", "  + *of test*"]
    )
    lines = [line.strip() for line in result.outlines]
    urls = [shlex.split(line)[1] for line in lines if line.startswith("psql ")]
    found = []
    for url in urls:
        asked = [str(find_binaries() / "psql"), url, "-Atc", "SELECT name FROM capabilities ORDER BY 1"]
        found.append(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")[:-1])
    assert [["of restore"], ["of rollback"], ["of clone"], ["class", "of test"]] == found

    (ending,) = [line.partition("end it with: ")[2] for line in lines if "end it with: " in line]
    assert EmbeddedServer.running(home / "server")
    subprocess.run(shlex.split(ending), check=True, capture_output=True)
    assert not EmbeddedServer.running(home / "server")


def test_kept_of_workers(project: Project) -> None:
    """The last lines list the databases kept by pytest-xdist's workers, also if the run ends with its first failure."""
    fails = """
@pytest.mark.parametrize("number", range(4))
def test_it(myloware, number):
    assert myloware.db.execute_sql('SELECT count(*) FROM capabilities').fetchone() == (0,)
    add(myloware, 'kept')
    assert False, "as it should"
"""
    project.write(HELPERS + fails, "test_fails")

    parallel = project.run(None, "--myloware-keep=failed", "-n2")
    assert 4 == sum("as it should" in line and line.startswith("E ") for line in parallel.outlines)
    assert 4 == sum(line.startswith("kept for ") for line in parallel.outlines)
    alone = project.run(None, "--myloware-keep=failed", "-x")

    for result in (parallel, alone):
        url = next(line for line in result.outlines if line.startswith("  psql ")).split("'")[1]
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as run:
            run.execute("SELECT name FROM capabilities")
            assert [("kept",)] == run.fetchall()
    with closing(psycopg2.connect(**project.server.connect_kwargs("postgres"))) as connection:
        connection.autocommit = True
        for name in project.leftovers():
            assert name.startswith("myloware_kept_")
            connection.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")
    project.server.keep()
    project.server._where().keep.unlink()


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_timings(project: Project, workers: tuple[str, ...]) -> None:
    """`--myloware-timings` lists the tests that spent most time on the database, with the slowest statement's plan."""
    tests = """
        def test_slow(myloware):
            myloware.db.execute_sql("SELECT pg_sleep(0.2)")
            myloware.db.execute_sql("SELECT count(*) FROM work_items WHERE content = %s", ("x",))

        def test_fast(myloware):
            myloware.db.execute_sql("SELECT 1")

        def test_without():
            pass
    """

    all_of_them = project.run(tests, "--myloware-timings", *workers)
    one = project.run(None, "--myloware-timings=1", *workers)

    all_of_them.stdout.fnmatch_lines(
        [
            "*= myloware: time on the database =*",
            "* ms  test_project.py::test_slow  (* ms in 2 statements, * ms isolation)",
            "*slowest: * ms: SELECT pg_sleep(0.2)  (test_project.py:*)",
            "*Result*",
            "* ms  test_project.py::test_fast  (* ms in 1 statement, *",
        ]
    )
    all_of_them.stdout.no_fnmatch_line("* ms  test_project.py::test_without*")
    one.stdout.no_fnmatch_line("* ms  test_project.py::test_fast*")


def test_a_test_that_locks_itself_out_fails(project: Project) -> None:
    """A statement waits for a lock only as long as the ini file says; the report names it and the blocking session."""
    result = project.run(
        HELPERS
        + """
def test_row(myloware, myloware_dsn):
    add(myloware, "row")
    with myloware.db.atomic():
        myloware.db.execute_sql("UPDATE capabilities SET scope = 'a'")
        connection = psycopg2.connect(myloware_dsn)
        connection.cursor().execute("UPDATE capabilities SET scope = 'b'")

def test_ddl(myloware, myloware_dsn):
    connection = psycopg2.connect(myloware_dsn)
    connection.cursor().execute("SELECT FROM capabilities")
    myloware.db.execute_sql("ALTER TABLE capabilities ADD other int")

def test_other_failures_have_no_such_section(myloware):
    assert False

def test_options_win(myloware, myloware_dsn):
    connection = psycopg2.connect(myloware_dsn, options="-c lock_timeout=17min")
    cursor = connection.cursor()
    cursor.execute("SHOW lock_timeout")
    assert ("1500ms",) == myloware.db.execute_sql("SHOW lock_timeout").fetchone()
    assert ("17min",) == cursor.fetchone()
""",
        *("-o", "myloware_lock_timeout=1.5"),
    )

    result.assert_outcomes(failed=3, passed=1)
    result.stdout.fnmatch_lines(
        [
            "E * canceling statement due to lock timeout",
            "*myloware: lock waits*",
            "session *: UPDATE capabilities SET scope = 'b'",
            "  waited for session *, idle in transaction: UPDATE capabilities SET scope = 'a'",
            "E * another transaction holds a lock it needs (lock timeout)*",
            "session *: ALTER TABLE capabilities ADD other int",
            "  waited for session *, idle in transaction: SELECT FROM capabilities",
        ]
    )
    assert 2 == result.stdout.str().count("myloware: lock waits")

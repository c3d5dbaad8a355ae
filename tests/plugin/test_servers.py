"""The servers that tests run on (named, of pytest-postgresql, embedded), and the databases that runs leave there."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.plugin.conftest import Project
    from tests.relay import Relay

WRITES = """
import os, psycopg2, pytest
from contextlib import closing

@pytest.mark.parametrize("number", range(8))
def test_write(myloware, myloware_dsn, number):
    assert myloware.db.execute_sql("SELECT count(*) FROM capabilities").fetchall() == [(0,)]
    with closing(psycopg2.connect(myloware_dsn)) as connection, connection:
        connection.cursor().execute("INSERT INTO capabilities (name, scope) VALUES ('x', 'x')")
    myloware.db.execute_sql("SELECT pg_sleep(0.02)")
    assert myloware.db.execute_sql("SELECT count(*) FROM capabilities").fetchall() == [(1,)]
"""


@pytest.fixture
def plain_role(project: Project) -> Iterator[str]:
    """Return the URL of the server for a role that may only create databases; vector is in template1."""
    name = f"plain_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(**project.server.connect_kwargs("template1"))) as connection, connection:
        connection.cursor().execute("CREATE EXTENSION IF NOT EXISTS vector")
    with closing(psycopg2.connect(**project.server.connect_kwargs("postgres"))) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE ROLE {name} LOGIN CREATEDB")
        yield project.server.url("postgres").replace("postgres@", f"{name}@")
        with connection.cursor() as run:
            run.execute(
                "SELECT datname FROM pg_database AS d JOIN pg_roles AS r ON r.oid = datdba WHERE rolname = %s", [name]
            )
            for (database,) in run.fetchall():
                run.execute(f"ALTER DATABASE {database} IS_TEMPLATE false")
                run.execute(f"DROP DATABASE {database}")
            run.execute(f"DROP ROLE {name}")


def test_plain_role(project: Project, plain_role: str) -> None:
    """Without a superuser, restore becomes clone, and the run says so; rollback works; class and reset are errors."""
    project.run(WRITES).assert_outcomes(passed=8)
    with closing(psycopg2.connect(**project.server.connect_kwargs("postgres"))) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE myloware_test_0123456789ab_main_0")  # not the role's to drop

    result = project.run(
        WRITES
        + """
@pytest.mark.myloware_db(mode="rollback")
@pytest.mark.parametrize("time", ["first", "second"])
def test_rolled_back(myloware, time):
    assert myloware.db.execute_sql("SELECT count(*) FROM capabilities").fetchall() == [(0,)]
    myloware.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('x', 'x')")

def test_class(myloware_class): pass
def test_reset(myloware_reset): pass
""",
        f"--myloware-dsn={plain_role}",
    )

    result.assert_outcomes(passed=10, errors=2)
    result.stdout.fnmatch_lines(
        [
            "myloware_class, * needs a superuser on the test server",
            "mode clone instead of restore: *",
        ]
    )
    assert ["myloware_test_0123456789ab_main_0"] == project.leftovers()


def test_libpqs_environment_leads_no_test_astray(
    project: Project, hostile: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests run on the embedded server whatever the PG* variables say, and so do the reports of failures."""
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    (project.pytester.path / "seed.sql").write_text("INSERT INTO capabilities (name, scope) VALUES ('seed', 'x')")

    result = project.run("""
        import pathlib, pytest
        from myloware_store import Capability, Store

        @pytest.mark.parametrize("mode", [
            pytest.param(mode, marks=pytest.mark.myloware_db(mode=mode)) for mode in ("restore", "rollback", "clone")
        ])
        def test_modes(myloware, mode):
            myloware.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('x', 'x')")
            assert myloware.db.execute_sql("SELECT current_setting('search_path')").fetchall() == [('"$user", public',)]

        @pytest.mark.myloware_db(seed=str(pathlib.Path("seed.sql").resolve()))
        def test_seeded(myloware_factory, myloware):
            Capability.insert(name="mine", scope="x").execute()
            assert 1 == Capability.select().count()
    """)

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*capabilities: 1 added*"])
    assert [] == project.leftovers()


def test_a_named_server_is_the_one_that_is_named(
    project: Project, relayed: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests fail if PGHOSTADDR leads to another server than the project names."""
    port = relayed(str(project.server.socket_dir), 5432).port
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    project.pytester.makeconftest(f"""
        from pytest_postgresql import factories

        named = factories.postgresql_noproc(host="db.example.com", port={port}, user="postgres")
    """)

    of_a_fixture = project.run("def test_it(myloware): pass")
    by_url = project.run(None, f"--myloware-dsn=postgresql://postgres@db.example.com:{port}/postgres")

    for result in (of_a_fixture, by_url):
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"*names *db.example.com:{port}/*, and PGHOSTADDR another server: unset it*"])


def test_plain_role_without_vector(project: Project, plain_role: str) -> None:
    """The error says where to create the extension, since the database of the test is gone by then."""
    with closing(psycopg2.connect(**project.server.connect_kwargs("template1"))) as connection, connection:
        connection.cursor().execute("DROP EXTENSION vector")
    result = project.run("def test_any(myloware): pass", f"--myloware-dsn={plain_role}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*have a superuser run `CREATE EXTENSION vector` in the database template1*"])


def test_plain_role_with_vector_elsewhere(project: Project, plain_role: str) -> None:
    """The extension may be in another schema of template1, as on Supabase (`extensions`)."""
    with closing(psycopg2.connect(**project.server.connect_kwargs("template1"))) as connection, connection:
        run = connection.cursor()
        run.execute("CREATE SCHEMA extensions; GRANT USAGE ON SCHEMA extensions TO PUBLIC")
        run.execute("ALTER EXTENSION vector SET SCHEMA extensions")
    body = """
import numpy as np
import pytest

@pytest.mark.parametrize("number", range(2))
def test_search(myloware, number):
    vector = np.eye(1536, dtype=np.float32)[0]
    ids = myloware.memory.upsert([{"type": "CONTEXT", "content": "x", "embedding": vector}])
    assert ids == [hit.id for hit in myloware.memory.similar(vector)]
"""
    try:
        project.run(body, f"--myloware-dsn={plain_role}").assert_outcomes(passed=2)
    finally:
        with closing(psycopg2.connect(**project.server.connect_kwargs("template1"))) as connection, connection:
            connection.cursor().execute("DROP SCHEMA extensions CASCADE")


def test_fixture_of_pytest_postgresql(project: Project) -> None:
    """A process or noproc fixture of the project provides the server; if there are several, the ini key names one."""
    kwargs = project.server.connect_kwargs()
    project.pytester.makeconftest(f"""
        from pytest_postgresql import factories

        first = factories.postgresql_noproc(host={kwargs["host"]!r}, port={kwargs["port"]}, user="postgres")
    """)

    one = project.run(WRITES)
    with (project.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write("\nsecond = factories.postgresql_noproc(host='127.0.0.1', port=1, user='postgres')\n")
    several = project.run()
    named = project.run(None, "-o", "myloware_server_fixture=first")

    one.assert_outcomes(passed=8)
    one.stdout.fnmatch_lines(["*from the fixture first), template *"])
    several.assert_outcomes(errors=8)
    several.stdout.fnmatch_lines(["*several servers of pytest-postgresql (first, second): name one in the ini key*"])
    named.assert_outcomes(passed=8)


def test_killed_run_leaves_nothing_for_long(project: Project) -> None:
    """The next run drops the databases of a killed run, and keeps those of a live one."""
    project.write("""
        import os, signal

        def test_die(myloware):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    killed = project.pytester.runpytest_subprocess()
    assert -signal.SIGKILL == killed.ret
    left = project.leftovers()
    assert ["myloware_test"] == [name[:13] for name in left]

    result = project.run(f"""
        import psycopg2
        from contextlib import closing

        def test_it(myloware, myloware_server):
            with closing(psycopg2.connect(**myloware_server.connect_kwargs("postgres"))) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'myloware_test%'")
                    names = [name for (name,) in cursor.fetchall()]
            assert 1 == len(names)
            assert {left[0]!r} not in names
    """)

    result.assert_outcomes(passed=1)
    assert [] == project.leftovers()


def test_run_killed_while_it_builds(project: Project) -> None:
    """After a run was killed while it built a template, the next run builds it, and no incomplete one stays."""
    seed = """
import os, signal, pathlib, pytest

def dying(store):
    if not pathlib.Path("died").exists():
        pathlib.Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('seeded', 'all')")

dying.version = 1

@pytest.fixture(scope="session")
def myloware_seed():
    return dying

def test_it(myloware):
    assert myloware.db.execute_sql("SELECT name FROM capabilities").fetchall() == [("seeded",)]
"""
    project.write(seed)

    assert -signal.SIGKILL == project.pytester.runpytest_subprocess().ret
    assert ["myloware_build"] == [name[:14] for name in project.leftovers()]
    project.run().assert_outcomes(passed=1)

    assert [] == project.leftovers()


def test_two_runs_and_four_workers(project: Project) -> None:
    """Concurrent runs build a template once, share the server, and use different databases."""
    project.write(WRITES + "def test_template(myloware_template):\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "--myloware-recreate", "-p", "no:cacheprovider"]
    plain = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    parallel = subprocess.Popen([*command, "-n4"], stdout=subprocess.PIPE, text=True)

    printed = [run.communicate()[0] for run in (plain, parallel)]

    for output in printed:
        assert "9 passed" in output, output
    assert [] == project.leftovers()


def test_server_ends_with_the_last_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server starts for a run and ends with it; its templates stay."""
    home = project.server.home.parent / "of_its_own"
    monkeypatch.setenv("MYLOWARE_TEST_HOME", str(home))

    built = project.run(WRITES)
    hit = project.run()

    built.stdout.fnmatch_lines([f"*embedded in {home}), template * built"])
    hit.stdout.fnmatch_lines([f"*embedded in {home}), template * hit"])
    hit.assert_outcomes(passed=8)
    assert not type(project.server).running(home / "server")


def test_foreign_home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that is not a folder of this account is an error."""
    file = project.pytester.path / "file"
    file.touch()
    monkeypatch.setenv("MYLOWARE_TEST_HOME", str(file))

    result = project.run("def test_it(myloware): pass")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["  - the embedded server: *file*"])


def test_unused_costs_nothing(project: Project) -> None:
    """Without a test that uses a database, a run neither imports the library nor starts a server."""
    result = project.run(
        """
        import sys

        def test_nothing():
            assert not {"myloware_store", "psycopg2", "peewee", "attrs", "numpy"} & set(sys.modules)
            loaded = {name for name in sys.modules if name.startswith("pytest_myloware.")}
            assert loaded == {f"pytest_myloware.{name}" for name in ("errors", "fixtures", "options", "plugin")}
    """,
        "-p",
        "no:pytest_postgresql",
        "-p",
        "no:postgresql",
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:cov",
    )

    result.assert_outcomes(passed=1)


def test_coverage_is_not_hidden(project: Project) -> None:
    """Coverage counts the lines that run when the library is imported, although the plugin was loaded before."""
    tests = """
        def test_import():
            from myloware_store import Store
    """

    result = project.run(tests, "--cov=myloware_store", "--cov-report=term")

    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r".*/enums\.py .* 100%"])


def test_markers_are_no_part_of_the_schema(project: Project) -> None:
    """`validate` accepts the database of a test, in any mode."""
    result = project.run("""
        import pytest
        from myloware_store.ops.validate import validate

        @pytest.mark.parametrize("mode", [
            pytest.param(mode, marks=pytest.mark.myloware_db(mode=mode)) for mode in ("restore", "rollback", "clone")
        ])
        def test_it(myloware, mode):
            assert validate(myloware.db).findings == ()
    """)

    result.assert_outcomes(passed=3)

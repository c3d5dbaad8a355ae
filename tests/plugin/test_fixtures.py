"""The fixtures as another project's test suite meets them."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project


@pytest.fixture
def named_server(myloware_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the server of this project's own run for the other project's."""
    monkeypatch.setenv("MYLOWARE_TEST_URL", myloware_server.url("postgres"))


ISOLATED = """
import psycopg2, pytest
from contextlib import closing

@pytest.mark.parametrize("time", ["first", "second"])
def test_write(myloware_dsn, time):
    with closing(psycopg2.connect(myloware_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO capabilities (name, scope) VALUES ('read', 'all')")
        cursor.execute("SELECT count(*) FROM capabilities")
        assert cursor.fetchone() == (1,)
"""

DATABASES = """
import psycopg2, pytest
from contextlib import closing

def names(server):
    with closing(psycopg2.connect(**server.connect_kwargs("postgres"))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'myloware_test_%'")
        return cursor.fetchall()
"""


def test_a_project_that_uses_no_fixture_pays_nothing(project: Project) -> None:
    """Neither the library nor a server is there for tests that do not ask for them."""
    result = project.run("""
        import sys

        def test_nothing():
            assert not {"myloware_store", "psycopg2", "peewee"} & set(sys.modules)
    """)

    result.assert_outcomes(passed=1)
    assert [] == project.left_behind()


def test_every_test_has_a_migrated_database_of_its_own(project: Project, named_server: None) -> None:
    """What one test commits, the next does not see."""
    project.run(ISOLATED).assert_outcomes(passed=2)


def test_nothing_is_left_behind(project: Project) -> None:
    """The server ends with the run, and its folder goes."""
    project.run(ISOLATED).assert_outcomes(passed=2)

    assert [] == project.left_behind()


def test_failed_tests_leave_nothing_behind_either(project: Project) -> None:
    """A test that fails with its connection open costs no more than itself."""
    result = project.run("""
        import psycopg2
        kept = []

        def test_fails(myloware_dsn):
            kept.append(psycopg2.connect(myloware_dsn))
            kept[0].cursor().execute("LOCK TABLE capabilities")
            assert False

        def test_passes(myloware_dsn):
            pass
    """)

    result.assert_outcomes(failed=1, passed=1)
    assert [] == project.left_behind()


def test_remains_of_killed_runs_are_swept(project: Project) -> None:
    """Folders of servers that ended long ago go; what is young, or not the plugin's, stays."""
    for name, age in (("myloware-00000000000a", 7200), ("myloware-00000000000b", 60), ("myloware-precious", 7200)):
        (project.tmp / name / "server").mkdir(parents=True)
        os.utime(project.tmp / name, (time.time() - age, time.time() - age))

    project.run(ISOLATED).assert_outcomes(passed=2)

    assert ["myloware-00000000000b", "myloware-precious"] == project.left_behind()


def test_database_is_dropped_after_its_test(project: Project, named_server: None) -> None:
    """Databases do not pile up, not even one that a session was left on."""
    result = project.run(
        DATABASES
        + """
kept = []

def test_one(myloware_dsn, myloware_server):
    kept.append(psycopg2.connect(myloware_dsn))
    kept.append(kept[0].info.dbname)
    assert (kept[1],) in names(myloware_server)

def test_two(myloware_server):
    assert (kept[1],) not in names(myloware_server)
"""
    )

    result.assert_outcomes(passed=2)


def test_other_databases_sessions_are_left_alone(project: Project, named_server: None) -> None:
    """Only sessions on the database that goes are ended."""
    result = project.run("""
        import psycopg2
        kept = []

        def test_one(myloware_dsn, myloware_server):
            kept.append(psycopg2.connect(**myloware_server.connect_kwargs("postgres")))

        def test_two():
            with kept[0].cursor() as cursor:
                cursor.execute("SELECT 1")
    """)

    result.assert_outcomes(passed=2)


def test_workers_share_one_server_and_one_template(project: Project) -> None:
    """Under pytest-xdist the server and the template are made once, and each worker has databases of its own."""
    result = project.run(
        """
        import json, os, pathlib, pytest

        @pytest.mark.parametrize("number", range(3))
        def test_note(myloware_dsn, myloware_server, myloware_template, number):
            name = f"seen-{os.environ['PYTEST_XDIST_WORKER']}-{number}"
            pathlib.Path(name).write_text(json.dumps([myloware_server.pid, myloware_template, myloware_dsn]))
        """,
        "-n2",
        "--dist=each",
    )

    result.assert_outcomes(passed=6)
    seen = [json.loads(path.read_text()) for path in project.pytester.path.glob("seen-gw?-?")]
    servers, templates, databases = (set(column) for column in zip(*seen, strict=True))
    assert (1, 1, 6) == (len(servers), len(templates), len(databases))
    assert [] == project.left_behind()


def test_server_can_be_named(project: Project, named_server: None) -> None:
    """With MYLOWARE_TEST_URL the run uses that server and starts none."""
    result = project.run(
        ISOLATED
        + """
def test_no_server_of_our_own(myloware_server):
    assert not hasattr(myloware_server, "pid")
"""
    )

    result.assert_outcomes(passed=3)
    assert [] == project.left_behind()


def test_template_is_built_once_for_each_state_of_the_migrations(project: Project, named_server: None) -> None:
    """A second run on the same server finds the first one's template."""
    tests = """
        import psycopg2, pathlib
        from contextlib import closing

        def test_note(myloware_server, myloware_template):
            with closing(psycopg2.connect(**myloware_server.connect_kwargs("postgres"))) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT oid FROM pg_database WHERE datname = %s", (myloware_template,))
                    with pathlib.Path("seen").open("a") as seen:
                        seen.write(f"{cursor.fetchone()[0]}\\n")
    """

    project.run(tests).assert_outcomes(passed=1)
    project.run(tests).assert_outcomes(passed=1)

    first, second = (project.pytester.path / "seen").read_text().split()
    assert first == second


def test_half_built_template_is_built_anew(project: Project) -> None:
    """A run that was killed while it migrated the template does not spoil the next."""
    result = project.run("""
        import psycopg2
        from contextlib import closing
        from pytest_myloware.databases import clone, ensure_template

        def test_again(myloware_server, myloware_template):
            with closing(psycopg2.connect(**myloware_server.connect_kwargs("postgres"))) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(f"ALTER DATABASE {myloware_template} IS_TEMPLATE false")
                    cursor.execute(f"DROP DATABASE {myloware_template}")
                    cursor.execute(f"CREATE DATABASE {myloware_template}")

            assert ensure_template(myloware_server) == myloware_template
            with clone(myloware_server, myloware_template) as url, closing(psycopg2.connect(url)) as connection:
                connection.cursor().execute("SELECT 1 FROM capabilities")
    """)

    result.assert_outcomes(passed=1)


def test_unreachable_server_is_named_in_the_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong MYLOWARE_TEST_URL fails the tests that need it, and says where it looked."""
    monkeypatch.setenv("MYLOWARE_TEST_URL", f"postgresql://nobody@/postgres?host={project.tmp}")

    result = project.run(ISOLATED)

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines([f"*OperationalError:*{project.tmp}*"])


def test_plugin_does_not_hide_coverage(project: Project) -> None:
    """Lines that run when the library is imported count, although the plugin was loaded before."""
    tests = """
        def test_import():
            import myloware_store
    """

    result = project.run(tests, "--cov=myloware_store", "--cov-report=term")

    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r".*/enums\.py .* 100%"])


def test_store_and_models_share_one_database(project: Project, named_server: None) -> None:
    """What the models write, the store's repositories read in the same transaction."""
    result = project.run("""
        from myloware_store import WorkOrder

        def test_both(myloware, myloware_db):
            assert myloware.db is myloware_db
            with myloware_db.atomic():
                order = WorkOrder.create(tenant_id="acme", created_by="me")
                assert myloware.work.get(order.id).created_by == "me"
    """)

    result.assert_outcomes(passed=1)


def test_store_is_closed_between_tests(project: Project, named_server: None) -> None:
    """Each test's store is its own, and the models follow it."""
    result = project.run("""
        import pytest
        from myloware_store import WorkOrder

        @pytest.mark.parametrize("time", ["first", "second"])
        def test_store(myloware, time):
            assert WorkOrder.select().count() == 0
            myloware.work.submit([{"type": "TICKET", "content": "It is broken."}], created_by="me")
            assert WorkOrder.select().count() == 1
    """)

    result.assert_outcomes(passed=2)

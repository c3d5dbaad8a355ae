"""Options, ini keys and markers, and the messages for invalid ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.plugin.conftest import Project

ONE = "def test_it(myloware):\n    pass\n"


def test_header_and_closing_section(project: Project) -> None:
    """A run says how tests get their databases, on which server, and whether it built the template."""
    result = project.run(ONE)
    again = project.run(None, "--myloware-recreate", "--myloware-mode=clone")
    quiet = project.run("def test_nothing():\n    pass\n")

    result.stdout.fnmatch_lines(
        [
            "myloware: mode restore, seed none, server: found or started when it is needed",
            "*= myloware =*",
            f"PostgreSQL 1*, pgvector 0.* (embedded in {project.server.home.parent}), template myloware_template_* ?*t",
        ]
    )
    again.stdout.fnmatch_lines(["myloware: mode clone,*", "*template myloware_template_* built"])
    quiet.stdout.no_fnmatch_line("*= myloware =*")


def test_wrong_values(project: Project) -> None:
    """An invalid ini key or option ends pytest before a test runs."""
    wrong_mode = project.run(ONE, "-o", "myloware_mode=fast")
    wrong_seed = project.run(None, "-o", "myloware_seed=some")
    wrong_timeout = project.run(None, "-o", "myloware_lock_timeout=soon")
    wrong_option = project.run(None, "--myloware-mode=fast")

    wrong_mode.stderr.fnmatch_lines(["ERROR: myloware_mode is one of restore, rollback, clone, not 'fast'"])
    wrong_seed.stderr.fnmatch_lines(["ERROR: myloware_seed is one of sample, none, not 'some'"])
    wrong_timeout.stderr.fnmatch_lines(
        ["ERROR: myloware_lock_timeout is a number of seconds from 0 to 86400, not 'soon'"]
    )
    wrong_option.stderr.fnmatch_lines(["*--myloware-mode: invalid choice: 'fast'*"])
    assert {4} == {int(result.ret) for result in (wrong_mode, wrong_seed, wrong_timeout, wrong_option)}


def test_markers(project: Project) -> None:
    """The innermost marker with a key counts; invalid keys and values are errors that show them."""
    result = project.run(
        """
        import pytest

        pytestmark = pytest.mark.myloware_db(mode="clone", seed="sample")

        def orders(store):
            return store.db.execute_sql("SELECT count(*) FROM work_orders").fetchall()[0][0]

        def marked(store):
            query = "SELECT count(*) FROM pg_namespace WHERE nspname = 'myloware_test'"
            return store.db.execute_sql(query).fetchall()[0][0]

        def test_module(myloware):
            assert (9, 0) == (orders(myloware), marked(myloware))

        @pytest.mark.myloware_db(mode="restore")
        class TestInner:
            def test_class(self, myloware):
                assert (9, 1) == (orders(myloware), marked(myloware))

            @pytest.mark.myloware_db(seed="none", mode="rollback")
            def test_function(self, myloware):
                assert (0, 1, True) == (orders(myloware), marked(myloware), myloware.db.in_transaction())

        @pytest.mark.myloware_db("clone")
        def test_argument(myloware): pass

        @pytest.mark.myloware_db(speed="high")
        def test_keyword(myloware): pass

        @pytest.mark.myloware_db(mode="fast")
        def test_mode(myloware): pass

        @pytest.mark.myloware_db(seed="some")
        def test_seed(myloware): pass

        @pytest.mark.myloware_db(seed=["some"])
        def test_list(myloware): pass

        @pytest.mark.myloware_db(seed="there_is_none.sql")
        def test_file(myloware): pass
        """,
        "--strict-markers",
    )

    result.assert_outcomes(passed=3, errors=6)
    result.stdout.fnmatch_lines(
        [
            "the marker myloware_db takes mode= and seed=, not ('clone',)",
            "the marker myloware_db takes mode= and seed=, not {'speed': 'high'}",
            "the mode is one of restore, rollback, clone, not 'fast'",
            "myloware_seed is 'sample', 'none', a .sql file or a function of an open store, not 'some'",
            "myloware_seed is 'sample', 'none', a .sql file or a function of an open store, not ?'some'?",
            "myloware_seed: * 'there_is_none.sql'",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_ini_mode(project: Project) -> None:
    """The ini key sets the mode; the option overrides it."""
    tests = """
        def test_it(myloware, pytestconfig):
            assert myloware.db.in_transaction()
    """

    project.run(tests, "-o", "myloware_mode=rollback").assert_outcomes(passed=1)
    project.run(None, "-o", "myloware_mode=rollback", "--myloware-mode=clone").assert_outcomes(failed=1)


def test_recreate(project: Project) -> None:
    """`--myloware-recreate` rebuilds the template once a run, for all workers."""
    tests = """
        import psycopg2, pytest
        from contextlib import closing

        @pytest.mark.parametrize("number", range(4))
        def test_it(myloware_template, myloware_server, number, tmp_path_factory):
            with closing(psycopg2.connect(**myloware_server.connect_kwargs("postgres"))) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT oid FROM pg_database WHERE datname = %s", (myloware_template,))
                    with open(%r, "a") as seen:
                        seen.write(f"{cursor.fetchone()[0]}\\n")
    """
    seen = project.pytester.path / "seen"
    tests = tests.replace("%r", repr(str(seen)))

    project.run(tests).assert_outcomes(passed=4)
    project.run(None).assert_outcomes(passed=4)
    first = seen.read_text().split()
    again = project.run(None, "--myloware-recreate", "-n2")
    again.assert_outcomes(passed=4)
    second = seen.read_text().split()[len(first) :]

    assert (1, 1) == (len(set(first)), len(set(second)))
    assert set(first).isdisjoint(second)
    again.stdout.fnmatch_lines(["*, template * built"])
    again.stdout.no_fnmatch_line("*, template * hit")


def test_other_databases_are_never_used(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not use the server that `DATABASE_URL` and `.env` name."""
    elsewhere = "postgresql://nobody@127.0.0.1:1/precious"
    for name, value in {"DATABASE_URL": elsewhere, "DATABASE_HOST": "127.0.0.1", "PGPORT": "1"}.items():
        monkeypatch.setenv(name, value)
    project.pytester.path.joinpath(".env").write_text(f"DATABASE_URL={elsewhere}\nMYLOWARE_TEST_URL={elsewhere}\n")

    project.run(ONE).assert_outcomes(passed=1)


def test_no_server(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server, the error says what was tried and what to do, and contains no password."""
    monkeypatch.setenv("MYLOWARE_TEST_URL", "postgresql://me:s3cret@127.0.0.1:1/postgres")
    refused = project.run(ONE)
    wrong = project.run(None, "--myloware-dsn=mysql://here")
    embedded = project.run(None, "--myloware-dsn=embedded:")
    monkeypatch.delenv("MYLOWARE_TEST_URL")
    monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(project.pytester.path))
    none = project.run(None)

    refused.stdout.fnmatch_lines(
        [
            "no PostgreSQL server for the tests",
            "  - MYLOWARE_TEST_URL (postgresql://me:*@127.0.0.1:1/postgres): *refused*",
            "What to do: *",
        ]
    )
    refused.stdout.no_fnmatch_line("*s3cret*")
    wrong.stdout.fnmatch_lines(["  - --myloware-dsn: *"])
    embedded.stdout.fnmatch_lines(["  - --myloware-dsn names an embedded server*"])
    none.stdout.fnmatch_lines(
        [
            "  - --myloware-dsn and MYLOWARE_TEST_URL: not set",
            "  - a process or noproc fixture of pytest-postgresql in the project: there is none",
            "  - the embedded server: *",
        ]
    )
    for result in (refused, wrong, embedded, none):
        result.assert_outcomes(errors=1)

"""No test sees what an earlier one left in the database or the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project


def test_models_follow_the_store_again(project: Project) -> None:
    """A model that a test bound to another database is bound to the store in the next test."""
    result = project.run("""
        import peewee, pytest
        from myloware_store import Capability

        def test_bind(myloware_db):
            Capability.bind(peewee.SqliteDatabase(":memory:"))

        def test_after(myloware_db):
            assert Capability.select().count() == 0
    """)

    result.assert_outcomes(passed=2)


def test_uncommitted_writes_of_a_modules_session_end_with_the_test(project: Project) -> None:
    """A module's connection is closed after a test that left uncommitted writes on it."""
    result = project.run("""
        import psycopg2, pytest
        from contextlib import closing

        @pytest.fixture(scope="module")
        def engine(myloware_module):
            with closing(psycopg2.connect(myloware_module.settings.url)) as connection:
                yield connection

        def test_idle(engine, myloware):
            with engine, engine.cursor() as cursor:
                cursor.execute("INSERT INTO capabilities (name, scope) VALUES ('committed', 'all')")

        def test_write(engine, myloware):
            engine.cursor().execute("INSERT INTO capabilities (name, scope) VALUES ('open', 'all')")

        def test_commit(engine, myloware):
            with pytest.raises(psycopg2.Error):
                engine.commit()
            assert myloware.db.execute_sql("SELECT name FROM capabilities").fetchall() == []
    """)

    result.assert_outcomes(passed=3)


def test_what_interrupts_the_way_back_spoils_nothing(project: Project) -> None:
    """After an exception during the reset, the next test begins with a new database."""
    result = project.run("""
        import pytest
        from pytest_myloware.isolation.slot import Slot

        def write(store):
            store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('x', 'all')")

        def test_interrupted(myloware, monkeypatch):
            write(myloware)
            restore = Slot._restore

            def interrupted(self):
                Slot._restore = restore
                raise RuntimeError("a time-out")

            Slot._restore = interrupted

        def test_after(myloware):
            assert myloware.db.execute_sql("SELECT count(*) FROM capabilities").fetchone() == (0,)
    """)

    result.assert_outcomes(passed=2, errors=1)


@pytest.mark.parametrize("mode", ["restore", "rollback"])
def test_forked_child_that_goes_on_with_the_run(project: Project, mode: str) -> None:
    """A forked child whose `sys.exit` pytest caught can neither use nor drop the databases of its parent."""
    result = project.run(
        """
        import os, sys, pytest

        @pytest.fixture(scope="class")
        def shared(myloware_class):
            myloware_class.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('shared', 'all')")

        def fork_and_write(store, rows):
            child = os.fork()
            if child == 0:
                sys.exit("a child")
            assert os.waitpid(child, 0)[1] == 256
            store.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('x', 'all')")
            assert store.db.execute_sql("SELECT count(*) FROM capabilities").fetchone() == (rows + 1,)

        @pytest.mark.usefixtures("shared")
        class TestShared:
            def test_fork(self, myloware):
                fork_and_write(myloware, 1)

            def test_after(self, myloware):
                assert myloware.db.execute_sql("SELECT name FROM capabilities").fetchall() == [("shared",)]

        def test_fork(myloware):
            fork_and_write(myloware, 0)

        def test_after(myloware):
            assert myloware.db.execute_sql("SELECT count(*) FROM capabilities").fetchone() == (0,)
        """,
        f"--myloware-mode={mode}",
    )

    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*this process was forked by a test*"])
    assert [] == project.leftovers()


def test_tenant_that_was_entered_by_hand(project: Project) -> None:
    """A tenant scope that a test never leaves ends with the test; a module fixture's scope continues."""
    result = project.run("""
        import pytest
        from myloware_store.db.tenancy import current_tenant

        @pytest.fixture(scope="module")
        def of_module(myloware_module):
            with myloware_module.tenant("module"):
                yield

        def test_enter(myloware):
            myloware.tenant("left").__enter__()

        def test_after(myloware):
            assert current_tenant() is None

        def test_enter_in_module(of_module, myloware):
            myloware.tenant("left").__enter__()

        def test_after_in_module(of_module, myloware):
            assert current_tenant() == "module"
    """)

    result.assert_outcomes(passed=4)


def test_transaction_that_a_test_of_a_class_left_open(project: Project) -> None:
    """The next tests of the class begin outside of it."""
    result = project.run("""
        import pytest
        from myloware_store import Capability

        @pytest.fixture(scope="class", autouse=True)
        def shared(myloware_class):
            Capability.create(name="shared", scope="all")

        def state(db):
            return db.transaction_open(), Capability.select().where(Capability.scope == "all").count()

        class TestClass:
            def test_by_hand(self, myloware_db):
                myloware_db.begin("REPEATABLE READ")
                Capability.create(name="own", scope="all")

            def test_block(self, myloware_db):
                assert state(myloware_db) == (False, 1)
                myloware_db.atomic().__enter__()
                Capability.create(name="own", scope="all")

            def test_after(self, myloware_db):
                assert state(myloware_db) == (False, 1)
    """)

    result.assert_outcomes(passed=3)

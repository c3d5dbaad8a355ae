"""What tests leave behind, in the database and in the process, is not there for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.plugin.conftest import Project


def test_models_follow_the_store_again(project: Project) -> None:
    """A test that has bound a model to another database leaves it to the next test as it was."""
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
    """A connection that a module keeps is ended where a test has left it in the middle of writing."""
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
    """An exception amid putting back makes the next test begin with a new database."""
    result = project.run("""
        import pytest
        from pytest_myloware.slot import Slot

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

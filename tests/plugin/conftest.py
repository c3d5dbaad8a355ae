"""Projects whose tests run in an inner pytest, and databases that restore themselves."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg2
import pytest

from myloware_store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OUTER = (
    *("MYLOWARE_TEST_URL", "PYTEST_ADDOPTS"),
    *("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"),  # the inner run would take them for its own
    *("CI", "BUILD_NUMBER"),  # make pytest's summary longer
)


class Project(NamedTuple):
    """A folder with tests, and the server of its test runs."""

    pytester: pytest.Pytester
    server: EmbeddedServer

    def write(self, tests: str, name: str = "test_project") -> Path:
        """Write a module of tests."""
        return self.pytester.makepyfile(**{name: tests})

    def run(self, tests: str | None = None, *options: str) -> pytest.RunResult:
        """Run pytest on the project, with warnings as errors; write `tests` into it first."""
        if tests is not None:
            self.write(tests)
        return self.pytester.runpytest_subprocess("-W", "error", "-p", "no:randomly", *options)

    def run_in_every_mode(self, tests: str) -> pytest.RunResult:
        """Run the same tests in one pytest, as three modules, each in a mode."""
        self.pytester.makeconftest("""
            import pytest

            def pytest_collection_modifyitems(items):
                for item in items:
                    mode = item.module.__name__.removeprefix("test_")
                    item.add_marker(pytest.mark.myloware_db(mode=mode))
            """)
        for mode in ("clone", "restore", "rollback"):
            self.write(tests, f"test_{mode}")
        return self.run()

    def names(self) -> list[str]:
        """List the plugin's databases on the server."""
        kwargs = self.server.connect_kwargs("postgres")
        with closing(psycopg2.connect(**kwargs)) as connection, connection.cursor() as run:
            run.execute("SELECT datname FROM pg_database WHERE datname LIKE 'myloware%' ORDER BY 1")
            return [name for (name,) in run.fetchall()]

    def leftovers(self) -> list[str]:
        """List the plugin's databases that no later run uses."""
        return [name for name in self.names() if not name.startswith("myloware_template_")]


@pytest.fixture(scope="session")
def inner_home() -> Iterator[Path]:
    """Return a home for the server of inner test runs, which differs from the outer run's."""
    base = importlib.import_module("pytest_myloware.server.home").base_folder()
    home = Path(tempfile.mkdtemp(prefix="myloware-inner-", dir=base))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def inner_server(inner_home: Path) -> Iterator[EmbeddedServer]:
    """Start that server, so that no inner run has to."""
    with EmbeddedServer(inner_home / "server", testing=True) as server:
        yield server


@pytest.fixture
def project(
    pytester: pytest.Pytester, inner_home: Path, inner_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Return an empty project."""
    for name in _OUTER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MYLOWARE_TEST_HOME", str(inner_home))
    monkeypatch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(pytester.path / ".hypothesis"))
    pytester.makeini("[pytest]\nmyloware_seed = none\nasyncio_default_fixture_loop_scope = function\n")
    return Project(pytester, inner_server)


class Subject:
    """A database that is restored, and its first state."""

    _ROWS = """
        SELECT c.oid::regclass::text, CASE c.relkind WHEN 'S' THEN 'row(last_value, is_called)' ELSE 't' END
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'S') AND n.nspname IN ('public', 'other') ORDER BY 1
        """

    def __init__(self, slot: Any) -> None:
        self.slot = slot
        slot.begin()
        self.before = self.state()

    def state(self) -> dict[str, list[str]]:
        """Read every row and sequence."""
        with closing(psycopg2.connect(self.slot.url)) as connection, connection.cursor() as run:
            run.execute(self._ROWS)
            state = {}
            for table, shown in run.fetchall():
                run.execute(f"SELECT {shown}::text FROM ONLY {table} AS t ORDER BY 1")
                state[table] = [row for (row,) in run.fetchall()]
            return state

    def execute(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        with closing(psycopg2.connect(self.slot.url)) as connection, connection.cursor() as run:
            connection.autocommit = True
            for statement in statements:
                run.execute(statement)

    def check(self) -> None:
        """Restore the database, and compare it with its first state."""
        self.slot.end()
        self.slot.begin()
        assert self.before == self.state()


@pytest.fixture(scope="module")
def make_subject(myloware_server: Any) -> Iterator[Callable[[str], Subject]]:
    """Return a function that creates such a database with a schema."""
    maintenance = importlib.import_module("pytest_myloware.server.maintenance").Maintenance(myloware_server)
    marking = importlib.import_module("pytest_myloware.template.marking")
    slots = importlib.import_module("pytest_myloware.isolation.slot")
    made: list[Any] = []

    def make(schema: str) -> Subject:
        template = f"subject_{uuid.uuid4().hex[:12]}"
        maintenance.create(template)
        with closing(psycopg2.connect(myloware_server.url(template))) as connection, connection.cursor() as run:
            run.execute(schema)
            connection.commit()
            marking.mark_database(run)
            connection.commit()
        made.append(slots.Slot(maintenance, f"{template}_slot", template, restorable=True))
        return Subject(made[-1])

    yield make
    for slot in made:
        slot.drop()
        maintenance.drop(slot.template)
    maintenance.close()

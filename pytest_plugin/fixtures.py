"""The fixtures; they import the library when a test first uses one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .options import OPTIONS, REQUEST, SUMMARY, run_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import Store
    from myloware_store.db.database import StoreDatabase

    from .factory import Factory
    from .isolation.databases import Databases
    from .isolation.lease import Lease
    from .report.queries import AssertNumQueries
    from .server.maintenance import Server


@pytest.fixture(scope="session")
def myloware_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """Return the PostgreSQL server of the run.

    That is the server of `--myloware-dsn` or `MYLOWARE_TEST_URL`, else of the project's process or noproc fixture of
    pytest-postgresql, else an embedded one without fsync, shared by the workers.

    Yields:
        An object with `url(dbname)` and `connect_kwargs(dbname)`.
    """
    from .server.finding import open_server

    with open_server(pytestconfig.stash[OPTIONS], pytestconfig.stash[REQUEST]) as server:
        yield server


@pytest.fixture(scope="session")
def myloware_migrations() -> Any:
    """Return the migrations that follow the library's own; override it.

    Returns:
        A folder of peewee-migrate's, a function of the database's URL (`alembic upgrade` and the like), or a list of
        those. The template is rebuilt when a folder changes, and in each run if there is a function without an
        attribute `version`.
    """
    return ()


@pytest.fixture(scope="session")
def myloware_seed(pytestconfig: pytest.Config) -> Any:
    """Return the rows that tests begin with, by default those of the ini key `myloware_seed`; override it.

    Returns:
        `"sample"` (three tenants, every state; the ids are in `myloware_store.seed`), `"none"`, the path of a file of
        SQL, or a function of an open store. The template is rebuilt when the file changes, and in each run for a
        function without an attribute `version`.
    """
    return pytestconfig.stash[OPTIONS].seed


@pytest.fixture(scope="session")
def _myloware_databases(
    pytestconfig: pytest.Config, myloware_server: Server, myloware_migrations: Any
) -> Iterator[Databases]:
    from .isolation.databases import Databases

    databases = Databases(myloware_server, run_name(pytestconfig), myloware_migrations, pytestconfig.stash[OPTIONS])
    yield databases
    if not databases.inherited:
        pytestconfig.stash[SUMMARY].append(databases.summary())
        databases.close()


@pytest.fixture(scope="session")
def myloware_template(_myloware_databases: Databases, myloware_seed: Any) -> str:
    """Return the name of the migrated and seeded template database; nobody can connect to it, only copy it."""
    name: str = _myloware_databases.template(myloware_seed).name
    return name


@pytest.fixture
def _myloware_lease(pytestconfig: pytest.Config, _myloware_databases: Databases, myloware_seed: Any) -> Iterator[Lease]:
    from .isolation.lease import lend

    with lend(pytestconfig.stash[REQUEST].node, _myloware_databases, myloware_seed) as lease:
        yield lease


@pytest.fixture
def myloware_dsn(_myloware_lease: Lease) -> str:
    """Return the libpq URL of this test's database, for a service that runs as a process."""
    return _myloware_lease.hand_out()


@pytest.fixture
def myloware(_myloware_lease: Lease) -> Iterator[Store]:
    """Return an open `Store` on this test's database, with the models bound to it."""
    with _myloware_lease.open_store() as store:
        yield store


@pytest.fixture
def myloware_db(myloware: Store) -> StoreDatabase:
    """Return the Peewee database of this test's store, with the models bound to it."""
    return myloware.db


@pytest.fixture
def myloware_reset(_myloware_lease: Lease, myloware: Store) -> Callable[[], None]:  # noqa: ARG001  opens it
    """Return a function that puts the database back in the middle of the test.

    It returns to the state in which the test asked for this fixture. Hypothesis tests don't need it: each of their
    examples begins in that state.
    """
    _myloware_lease.accept()
    return _myloware_lease.reset


@pytest.fixture(scope="class")
def myloware_class(_myloware_databases: Databases, myloware_seed: Any) -> Iterator[Store]:
    """Return an open `Store` for a test class: every test of the class finds the rows written through it.

    Write them in fixtures of the class. The writes of a test are undone after it, as always.
    """
    from .isolation.lease import share

    with share(_myloware_databases, myloware_seed) as store:
        yield store


@pytest.fixture(scope="module")
def myloware_module(_myloware_databases: Databases, myloware_seed: Any) -> Iterator[Store]:
    """Return an open `Store` for a test module, as `myloware_class` does for a class."""
    from .isolation.lease import share

    with share(_myloware_databases, myloware_seed) as store:
        yield store


@pytest.fixture
def myloware_factory(myloware: Store) -> Factory:  # noqa: ARG001  binds the models
    """Return functions that insert a valid row with its parents, such as `myloware_factory.work_item()`."""
    from .factory import Factory

    return Factory()


@pytest.fixture
def myloware_assert_num_queries(myloware: Store) -> AssertNumQueries:
    """Return a counter of statements: a `with` block of it fails the test if the number differs."""
    from .report.queries import AssertNumQueries

    return AssertNumQueries(myloware.db)

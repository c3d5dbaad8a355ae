"""The fixtures; the library is imported when one of them is used, and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .options import OPTIONS, SUMMARY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import Store
    from myloware_store.db.database import StoreDatabase

    from .databases import Databases
    from .factory import Factory
    from .lease import Lease
    from .maintenance import Server
    from .queries import AssertNumQueries

__all__ = ["run_name"]

_RUN = pytest.StashKey[str]()


def run_name(config: pytest.Config) -> str:
    """Name the test run: the same in every pytest-xdist worker."""
    if _RUN not in config.stash:
        import uuid

        given: str | None = getattr(config, "workerinput", {}).get("myloware_run")
        config.stash[_RUN] = given or uuid.uuid4().hex[:12]
    return config.stash[_RUN]


@pytest.fixture(scope="session")
def myloware_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give the PostgreSQL server of the run.

    That of `--myloware-dsn` or `MYLOWARE_TEST_URL`, else of a process or noproc fixture that the project has made with
    pytest-postgresql, else an embedded one without fsync, shared by the workers.

    Yields:
        An object with `url(dbname)` and `connect_kwargs(dbname)`.
    """
    from .servers import open_server

    with open_server(request.config.stash[OPTIONS], request) as server:
        yield server


@pytest.fixture(scope="session")
def myloware_migrations() -> Any:
    """Give what follows the library's own migrations: override it.

    Returns:
        A folder of peewee-migrate's, or a function that is given the database's URL (`alembic upgrade` and the like),
        or a list of those. The template is built anew when a folder changes; where there is a function, for each run,
        unless the function has an attribute `version`.
    """
    return ()


@pytest.fixture(scope="session")
def myloware_seed(pytestconfig: pytest.Config) -> Any:
    """Give the data that tests begin with, by default what the ini key `myloware_seed` says: override it.

    Returns:
        `"sample"` (three tenants, every state; the ids are in `myloware_store.seed`), `"none"`, the path of a file of
        SQL, or a function that is given an open store. The template is built anew when the file changes, and for each
        run where there is a function, unless the function has an attribute `version`.
    """
    return pytestconfig.stash[OPTIONS].seed


@pytest.fixture(scope="session")
def _myloware_databases(
    pytestconfig: pytest.Config, myloware_server: Server, myloware_migrations: Any
) -> Iterator[Databases]:
    from .databases import Databases

    databases = Databases(myloware_server, run_name(pytestconfig), myloware_migrations, pytestconfig.stash[OPTIONS])
    yield databases
    if not databases.inherited:
        pytestconfig.stash[SUMMARY].append(databases.summary())
        databases.close()


@pytest.fixture(scope="session")
def myloware_template(_myloware_databases: Databases, myloware_seed: Any) -> str:
    """Give the name of the migrated and seeded template database: copy it, nobody can connect to it."""
    name: str = _myloware_databases.template(myloware_seed).name
    return name


@pytest.fixture
def _myloware_lease(
    request: pytest.FixtureRequest, _myloware_databases: Databases, myloware_seed: Any
) -> Iterator[Lease]:
    from .lease import lend

    with lend(request, _myloware_databases, myloware_seed) as lease:
        yield lease


@pytest.fixture
def myloware_dsn(_myloware_lease: Lease) -> str:
    """Give the libpq URL of this test's database, for a service that is started as a process."""
    return _myloware_lease.hand_out()


@pytest.fixture
def myloware(_myloware_lease: Lease) -> Iterator[Store]:
    """Give an open `Store` on this test's database, with the models bound to it."""
    with _myloware_lease.open_store() as store:
        yield store


@pytest.fixture
def myloware_db(myloware: Store) -> StoreDatabase:
    """Give the Peewee database of this test's store, with the models bound to it."""
    return myloware.db


@pytest.fixture
def myloware_reset(_myloware_lease: Lease, myloware: Store) -> Callable[[], None]:  # noqa: ARG001  opens it
    """Give a function that puts the database back in the middle of the test.

    It goes back to how it was when the test asked for this fixture. Tests with hypothesis need it not: each of their
    examples begins so.
    """
    _myloware_lease.accept()
    return _myloware_lease.reset


@pytest.fixture(scope="class")
def myloware_class(_myloware_databases: Databases, myloware_seed: Any) -> Iterator[Store]:
    """Give an open `Store` for a test class: what is written through it is there for every test of the class.

    What a test writes itself is undone after it, as ever. Write in fixtures of the class, and not in tests.
    """
    from .lease import share

    with share(_myloware_databases, myloware_seed) as store:
        yield store


@pytest.fixture(scope="module")
def myloware_module(_myloware_databases: Databases, myloware_seed: Any) -> Iterator[Store]:
    """Give an open `Store` for a test module, as `myloware_class` does for a class."""
    from .lease import share

    with share(_myloware_databases, myloware_seed) as store:
        yield store


@pytest.fixture
def myloware_factory(myloware: Store) -> Factory:  # noqa: ARG001  binds the models
    """Give functions that insert a valid row with all that it needs, such as `myloware_factory.work_item()`."""
    from .factory import Factory

    return Factory()


@pytest.fixture
def myloware_assert_num_queries(myloware: Store) -> AssertNumQueries:
    """Give a counter of statements: a `with` block of it fails the test where more run than it was told."""
    from .queries import AssertNumQueries

    return AssertNumQueries(myloware.db)

"""The command-line options and ini keys, and the keys under which the plugin keeps things on pytest's objects.

Every pytest run imports this module, so it imports only pytest.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, cast

import pytest

__all__ = [
    "FAILED",
    "LEASE",
    "MODES",
    "OPTIONS",
    "REQUEST",
    "STORE_ENVIRON",
    "SUMMARY",
    "TEST_URL",
    "Lent",
    "Mode",
    "Options",
    "add_options",
    "read_options",
    "run_name",
]

Mode = Literal["restore", "rollback", "clone"]
MODES = ("restore", "rollback", "clone")
SEEDS = ("sample", "none")
TEST_URL = "MYLOWARE_TEST_URL"
STORE_ENVIRON = {"MYLOWARE_UPKEEP": "off", "MYLOWARE_SECRET_KEYS": f"test:{'A' * 43}="}
"""The settings of stores in tests. Their key, known to all, encrypts secrets of connectors as a service's would."""
_LONGEST = 86400


class Options(NamedTuple):
    """The options of a run, from the command line, the ini file and the environment.

    Attributes:
        url: The libpq URL of a test server; None: find or start one.
        url_source: The option or variable that named it.
        server_fixture: A fixture of pytest-postgresql for the server; None: look for one.
        mode: How to isolate tests, unless their marker names a mode.
        seed: The rows to begin with, unless a marker or the fixture `myloware_seed` names others.
        recreate: Rebuild the template.
        keep: Keep the databases of failed tests.
        timings: How many of the slowest tests to list.
        lock_timeout: Seconds that a statement waits for a lock before it fails; 0: no limit.
    """

    url: str | None
    url_source: str
    server_fixture: str | None
    mode: Mode
    seed: str
    recreate: bool
    keep: bool
    timings: int
    lock_timeout: float


class Lent(Protocol):
    """The database of a test, as hooks and reports use it."""

    def each_example_reset(self, hypothesis: Any) -> AbstractContextManager[None]:
        """Reset the database before every example of a hypothesis test but the first."""

    @property
    def waits(self) -> str:
        """The lock waits since the test began."""

    def changes(self) -> str:
        """Describe the test's changes so far."""

    def timing(self) -> dict[str, Any]:
        """Return the time spent on the database."""


OPTIONS = pytest.StashKey[Options]()
"""On the configuration: the options."""

SUMMARY = pytest.StashKey[list[dict[str, Any]]]()
"""On the configuration: the summary of each process of the run."""

REQUEST = pytest.StashKey[pytest.FixtureRequest]()
"""On the configuration: the request of the fixture that is being set up."""

LEASE = pytest.StashKey[Lent]()
"""On a test: its database."""

_RUN = pytest.StashKey[str]()

FAILED = pytest.StashKey[bool]()
"""On a test: whether it has failed already."""


def add_options(parser: pytest.Parser) -> None:
    """Define the options; each name has the plugin's prefix, since pytest refuses two plugins with one name."""
    group = parser.getgroup("myloware", "databases for tests, by myloware-store")
    group.addoption(
        "--myloware-dsn",
        metavar="URL",
        help=f"a PostgreSQL server for tests, by a libpq URL (default: {TEST_URL}, else one is found or started)",
    )
    group.addoption("--myloware-mode", choices=MODES, help="how tests are isolated (default: restore)")
    group.addoption("--myloware-recreate", action="store_true", help="rebuild the template database")
    group.addoption(
        "--myloware-keep", choices=("failed",), help="keep the database of every failed test, and say how to open it"
    )
    group.addoption(
        "--myloware-timings",
        nargs="?",
        type=int,
        const=10,
        default=0,
        metavar="N",
        help="list the N tests that spent most time on the database, and their slowest statements (default: 10)",
    )
    parser.addini("myloware_mode", f"how tests are isolated: {', '.join(MODES)} (default: restore)")
    parser.addini("myloware_seed", f"the rows that tests begin with: {', '.join(SEEDS)} (default: sample)")
    parser.addini("myloware_lock_timeout", "seconds that a statement waits for a lock; 0: no limit (default: 10)")
    parser.addini("myloware_server_fixture", "the name of a pytest-postgresql process or noproc fixture to use")


def read_options(config: pytest.Config) -> Options:
    """Read the options.

    Raises:
        pytest.UsageError: An ini key has an invalid value.
    """
    named = config.getoption("--myloware-dsn")
    return Options(
        url=named or os.environ.get(TEST_URL) or None,
        url_source="--myloware-dsn" if named else TEST_URL,
        server_fixture=config.getini("myloware_server_fixture") or None,
        mode=cast("Mode", config.getoption("--myloware-mode") or _one_of(config, "myloware_mode", MODES)),
        seed=_one_of(config, "myloware_seed", SEEDS),
        recreate=config.getoption("--myloware-recreate"),
        keep=config.getoption("--myloware-keep") == "failed",
        timings=config.getoption("--myloware-timings"),
        lock_timeout=_seconds(config, "myloware_lock_timeout", "10"),
    )


def run_name(config: pytest.Config) -> str:
    """Return the name of the test run, the same in every pytest-xdist worker."""
    if _RUN not in config.stash:
        import uuid

        given: str | None = getattr(config, "workerinput", {}).get("myloware_run")
        config.stash[_RUN] = given or uuid.uuid4().hex[:12]
    return config.stash[_RUN]


def _seconds(config: pytest.Config, key: str, default: str) -> float:
    value = config.getini(key) or default
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST:
        raise pytest.UsageError(f"{key} is a number of seconds from 0 to {_LONGEST}, not {value!r}")
    return seconds


def _one_of(config: pytest.Config, key: str, values: tuple[str, ...]) -> str:
    value = config.getini(key) or values[0]
    if value not in values:
        raise pytest.UsageError(f"{key} is one of {', '.join(values)}, not {value!r}")
    return str(value)

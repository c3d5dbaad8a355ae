"""The plugin's options and ini keys, what they say together, and what the plugin keeps on pytest's objects.

Imported at the start of every pytest run, so it imports nothing but pytest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import pytest

if TYPE_CHECKING:
    from .lease import Lease  # noqa: F401  the key's type

__all__ = [
    "FAILED",
    "LEASE",
    "MODES",
    "OPTIONS",
    "SUMMARY",
    "TEST_URL",
    "Mode",
    "Options",
    "Unusable",
    "add_options",
    "read_options",
]

Mode = Literal["restore", "rollback", "clone"]
MODES = ("restore", "rollback", "clone")
SEEDS = ("sample", "none")
TEST_URL = "MYLOWARE_TEST_URL"
_LOCK_TIMEOUT, _LONGEST = "10", 86400


class Options(NamedTuple):
    """What the command line, the ini file and the environment ask for.

    Attributes:
        url: A test server, by a libpq URL; None: find or start one.
        url_source: Who named it.
        server_fixture: A fixture of pytest-postgresql that gives the server; None: look for one.
        mode: How tests are kept apart, where their marker does not say.
        seed: The data they begin with, where neither a marker nor the fixture `myloware_seed` says.
        recreate: Build the template anew.
        keep: Keep the databases of failed tests.
        timings: How many of the slowest tests to list; 0: none.
        lock_timeout: Seconds that a statement waits for a lock before it fails; 0: for ever.
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


OPTIONS = pytest.StashKey[Options]()
"""On the configuration: what the run was asked for."""

SUMMARY = pytest.StashKey[list[dict[str, Any]]]()
"""On the configuration: what each process of the run has used."""

LEASE = pytest.StashKey["Lease"]()
"""On a test: the database that it has."""

FAILED = pytest.StashKey[bool]()
"""On a test: whether it has failed already."""


class Unusable(pytest.fail.Exception):  # type: ignore[misc,name-defined]  # mypy does not see it
    """What many tests need cannot be had: the first of them says why, without a traceback, the others name it."""

    msg: str

    def __init__(self, message: str) -> None:
        super().__init__(message, pytrace=False)
        self._is_told = False

    def told(self, test: str) -> None:
        """Say from now on where it was told, after the message's first line."""
        if not self._is_told:
            self._is_told = True
            self.msg = f"{self.msg.splitlines()[0]}: see the error of {test}"


def add_options(parser: pytest.Parser) -> None:
    """Define the options; every name has the plugin's prefix, since two plugins with one name stop pytest."""
    group = parser.getgroup("myloware", "databases for tests, by myloware-store")
    group.addoption(
        "--myloware-dsn",
        metavar="URL",
        help=f"a PostgreSQL server for tests, by a libpq URL (default: {TEST_URL}, else one is found or started)",
    )
    group.addoption("--myloware-mode", choices=MODES, help="how tests are kept apart (default: restore)")
    group.addoption("--myloware-recreate", action="store_true", help="build the template database anew")
    group.addoption(
        "--myloware-keep", choices=("failed",), help="keep the database of every failed test, and say how to look at it"
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
    parser.addini("myloware_mode", f"how tests are kept apart: {', '.join(MODES)} (default: restore)")
    parser.addini("myloware_seed", f"the data that tests begin with: {', '.join(SEEDS)} (default: sample)")
    parser.addini("myloware_lock_timeout", "seconds that a statement waits for a lock; 0: for ever (default: 10)")
    parser.addini("myloware_server_fixture", "the name of a pytest-postgresql process or noproc fixture to use")


def read_options(config: pytest.Config) -> Options:
    """Read what was asked for.

    Raises:
        pytest.UsageError: An ini key has a value that it cannot have.
    """
    named = config.getoption("--myloware-dsn")
    url = named or os.environ.get(TEST_URL) or None
    return Options(
        url=url,
        url_source="--myloware-dsn" if named else TEST_URL,
        server_fixture=config.getini("myloware_server_fixture") or None,
        mode=cast("Mode", config.getoption("--myloware-mode") or _one_of(config, "myloware_mode", MODES)),
        seed=_one_of(config, "myloware_seed", SEEDS),
        recreate=config.getoption("--myloware-recreate"),
        keep=config.getoption("--myloware-keep") == "failed",
        timings=config.getoption("--myloware-timings"),
        lock_timeout=_seconds(config, "myloware_lock_timeout", _LOCK_TIMEOUT),
    )


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

"""The plugin's entry point: options, marker and hooks; imports nothing but pytest.

The library is imported inside the fixtures: loaded here it would cost every pytest run its import, and hide its own
coverage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .fixtures import (
    _myloware_databases,
    _myloware_lease,
    myloware,
    myloware_assert_num_queries,
    myloware_class,
    myloware_db,
    myloware_dsn,
    myloware_factory,
    myloware_migrations,
    myloware_module,
    myloware_reset,
    myloware_seed,
    myloware_server,
    myloware_template,
    run_name,
)
from .options import FAILED, LEASE, OPTIONS, SUMMARY, Unusable, add_options, read_options

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "_myloware_databases",
    "_myloware_lease",
    "myloware",
    "myloware_assert_num_queries",
    "myloware_class",
    "myloware_db",
    "myloware_dsn",
    "myloware_factory",
    "myloware_migrations",
    "myloware_module",
    "myloware_reset",
    "myloware_seed",
    "myloware_server",
    "myloware_template",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Define the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and describe the marker."""
    config.stash[OPTIONS] = read_options(config)
    config.stash[SUMMARY] = []
    config.addinivalue_line(
        "markers",
        "myloware_db(mode=..., seed=...): how the test's database is put back (restore, rollback, clone), and the data"
        " it begins with ('sample', 'none', a .sql file, a function of an open store)",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say how tests get their databases."""
    options = config.stash[OPTIONS]
    source = options.url_source if options.url else options.server_fixture or "found or started when it is needed"
    return f"myloware: mode {options.mode}, seed {options.seed}, server: {source}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each pytest-xdist worker which run it belongs to."""
    node.workerinput["myloware_run"] = run_name(node.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Let every example of a hypothesis test begin with the same database."""
    lease = item.stash.get(LEASE, None)
    hypothesis = getattr(getattr(item, "obj", None), "hypothesis", None)
    if lease is None or hypothesis is None:
        return (yield)
    from .examples import each_example_reset

    with each_example_reset(lease, hypothesis):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note failures, with what the test had changed by then, and the time that the database took."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        if call.excinfo is not None and isinstance(call.excinfo.value, Unusable):
            call.excinfo.value.told(item.nodeid)
        if call.when == "call":
            from .outcome import add_sections

            add_sections(item, report)
    if call.when == "teardown" and item.config.stash[OPTIONS].timings:
        from .timings import add_timing

        add_timing(item, report)
    return report


@pytest.hookimpl(trylast=True)  # when the fixtures are torn down
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a pytest-xdist worker has used to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["myloware"] = session.config.stash[SUMMARY]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a pytest-xdist worker has used."""
    node.config.stash[SUMMARY] += getattr(node, "workeroutput", {}).get("myloware", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the tests ran on, and what took longest."""
    if not config.stash[SUMMARY]:
        return
    from .outcome import summary_lines
    from .timings import timing_lines

    terminalreporter.section("myloware")
    for line in summary_lines(config.stash[SUMMARY]):
        terminalreporter.write_line(line)
    if lines := timing_lines(terminalreporter, config.stash[OPTIONS].timings):
        terminalreporter.section("myloware: time on the database")
        for line in lines:
            terminalreporter.write_line(line)

"""The plugin's entry point: options, marker and hooks.

It imports only pytest. The library is imported inside the fixtures: imported here, it would slow down every pytest run
and escape its own coverage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .errors import Unusable
from .options import FAILED, LEASE, OPTIONS, REQUEST, SUMMARY, add_options, read_options, run_name

if TYPE_CHECKING:
    from collections.abc import Generator

pytest_plugins = [f"{__package__}.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Define the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and describe the marker."""
    config.stash[OPTIONS] = read_options(config)
    config.stash[SUMMARY] = []
    config.addinivalue_line(
        "markers",
        "myloware_db(mode=..., seed=...): how the test is isolated (restore, rollback, clone), and the rows it begins"
        " with ('sample', 'none', a .sql file, a function of an open store)",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say how tests get their databases."""
    options = config.stash[OPTIONS]
    source = options.url_source if options.url else options.server_fixture or "found or started when it is needed"
    return f"myloware: mode {options.mode}, seed {options.seed}, server: {source}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the run's name to each pytest-xdist worker."""
    node.workerinput["myloware_run"] = run_name(node.config)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Pass requests to the two fixtures that need them.

    An argument `request` costs every test as much as BEGIN, even if the fixture's value is cached: pytest defines a
    fixture for it and inspects its signature.
    """
    if fixturedef.argname in {"_myloware_lease", "myloware_server"}:
        request.config.stash[REQUEST] = request


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Begin every example of a hypothesis test with the same database."""
    lease = item.stash.get(LEASE, None)
    hypothesis = getattr(getattr(item, "obj", None), "hypothesis", None)
    if lease is None or hypothesis is None:
        return (yield)
    with lease.each_example_reset(hypothesis):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add a failed test's changes and lock waits to its report, and the time spent on the database to every report."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        if call.excinfo is not None and isinstance(call.excinfo.value, Unusable):
            call.excinfo.value.reported(item.nodeid)
        if call.when == "call":
            from .report.outcome import add_sections

            add_sections(item, report)
    if call.when == "teardown" and item.config.stash[OPTIONS].timings:
        from .report.outcome import add_timing

        add_timing(item, report)
    return report


@pytest.hookimpl(trylast=True)  # when the fixtures are torn down
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a pytest-xdist worker's summary to the process that prints it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["myloware"] = session.config.stash[SUMMARY]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receive the summary of a pytest-xdist worker."""
    node.config.stash[SUMMARY] += getattr(node, "workeroutput", {}).get("myloware", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the server, and list the slowest tests."""
    if not config.stash[SUMMARY]:
        return
    from .report.outcome import summary_lines, timing_lines

    terminalreporter.section("myloware")
    for line in summary_lines(config.stash[SUMMARY]):
        terminalreporter.write_line(line)
    if lines := timing_lines(terminalreporter, config.stash[OPTIONS].timings):
        terminalreporter.section("myloware: time on the database")
        for line in lines:
            terminalreporter.write_line(line)

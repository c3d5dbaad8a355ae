"""No test sees what an earlier one did to its database, in any mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

MIGRATION = """
def migrate(migrator, database, *, fake=False):
    migrator.sql("CREATE TYPE shade AS ENUM ('light', 'dark')")
    migrator.sql("CREATE TABLE numbers (id serial PRIMARY KEY, n int, shade shade DEFAULT 'dark')")
    migrator.sql("CREATE SEQUENCE loose")
    migrator.sql("INSERT INTO numbers (n) VALUES (10), (20)")
"""

CONFTEST = """
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def myloware_migrations():
    return Path(__file__).with_name("migrations")
"""

# After each case, a test compares its database with the state that the first test found.
PAIRS = """
import pytest
import survival

FOUND = []

@pytest.fixture
def url(request):
    return lambda: request.getfixturevalue("myloware_dsn")

def test_first(myloware):
    FOUND.append(survival.state(myloware, sequences=True))

@pytest.mark.parametrize("case", survival.CASES)
class Test:
    def test_write(self, myloware, url, case):
        survival.CASES[case](myloware, url)

    def test_is_as_before(self, myloware, case, myloware_mode):
        with_sequences = myloware_mode != "rollback"
        assert FOUND[0][: 2 + with_sequences] == survival.state(myloware, sequences=with_sequences)

    def test_write_again(self, myloware, url, case):
        survival.CASES[case](myloware, url)

    @pytest.mark.myloware_db(mode="restore")
    def test_is_as_before_in_mode_restore(self, myloware, case):
        assert FOUND[0] == survival.state(myloware, sequences=True)

@pytest.fixture
def myloware_mode(pytestconfig):
    return pytestconfig.getoption("--myloware-mode")
"""
CASES = 20


@pytest.mark.parametrize("mode", ["restore", "rollback", "clone"])
def test_nothing_reaches_the_next_test(project: Project, mode: str) -> None:
    """Whatever a test commits, locks, kills or leaves open, the next one begins with the same rows and schema.

    In mode rollback, only sequences continue, and a test in mode restore resets those too.
    """
    folder = project.pytester.mkdir("migrations")
    (folder / "001_numbers.py").write_text(MIGRATION)
    project.pytester.makeconftest(CONFTEST)
    project.pytester.makepyfile(survival=Path(__file__).with_name("survival.py").read_text())

    result = project.run(PAIRS, f"--myloware-mode={mode}")

    result.assert_outcomes(passed=1 + 4 * CASES)
    assert [] == project.leftovers()

"""A project of somebody else's, whose tests run in a pytest of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Project(NamedTuple):
    """A folder with tests, and the folder that its test runs use for temporary files."""

    pytester: pytest.Pytester
    tmp: Path

    def run(self, tests: str, *options: str) -> pytest.RunResult:
        """Run pytest, with warnings as errors, on one file of tests."""
        self.pytester.makepyfile(test_project=tests)
        return self.pytester.runpytest_subprocess("-W", "error", *options)

    def left_behind(self) -> list[str]:
        """List what its runs left in the folder for temporary files."""
        return sorted(path.name for path in self.tmp.iterdir() if not path.name.startswith("pytest-of-"))


@pytest.fixture
def project(pytester: pytest.Pytester, reachable_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give an empty project on no server in particular."""
    tmp = reachable_tmp / pytester.path.name
    tmp.mkdir(mode=0o711)
    monkeypatch.setenv("TMPDIR", str(tmp))
    monkeypatch.delenv("MYLOWARE_TEST_URL", raising=False)
    # What pytest-xdist tells its workers would be taken for the inner run's.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return Project(pytester, tmp)

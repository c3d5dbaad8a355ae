"""The tests that the pages on testing show pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

DOCS = Path(__file__).parents[2] / "docs"
FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["testing.md", "test-databases.md"])
def test_examples_pass(project: Project, page: str) -> None:
    """Each code block that names its file passes as a test module."""
    files = dict(FILE.findall((DOCS / page).read_text(encoding="utf-8")))
    tests = sum(code.count("def test_") for code in files.values())
    for name, code in files.items():
        (project.pytester.path / name).write_text(code, encoding="utf-8")

    result = project.pytester.runpytest_subprocess("-W", "error", "-o", "myloware_seed=sample")

    assert tests >= 2
    result.assert_outcomes(passed=tests)

"""The example service, with the built wheel in an environment of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.packaging.conftest import run

if TYPE_CHECKING:
    import pytest

    from tests.packaging.conftest import Dists, Environment

EXAMPLE = Path(__file__).parents[2] / "examples" / "invoices"


def test_its_suite_passes(
    dists: Dists, empty_environment: Environment, reachable_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel with its extra `test` is all that the example's tests need."""
    monkeypatch.setenv("MYLOWARE_TEST_HOME", str(reachable_tmp / "example"))
    empty_environment.pip("install", "--quiet", f"{dists.wheel}[test]")
    project = shutil.copytree(EXAMPLE, empty_environment.folder / "invoices")

    # As its README says, in its own folder, from which the worker's process imports too.
    printed = run(["env", "-u", "PYTHONSAFEPATH", empty_environment.python, "-m", "pytest"], cwd=project)

    assert "12 passed" in printed

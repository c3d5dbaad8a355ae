"""The types of the installed wheel, as a service that depends on it sees them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packaging.conftest import ROOT, run

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment


@pytest.mark.parametrize("checker", [["mypy", "--strict", "--python-executable"], ["pyright", "--pythonpath"]])
def test_a_service_is_checked_with_the_wheel_alone(installed: Environment, tmp_path: Path, checker: list[str]) -> None:
    """Neither the checkout nor the stubs that the project's own checks use are there."""
    service = shutil.copy(ROOT / "tests/typing/service.py", tmp_path)
    run([sys.executable, "-m", *checker, installed.python, service], cwd=tmp_path)

"""The distributions as a release would build them, and clean environments to install them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = (".*", "build", "dist", "*.egg-info", "__pycache__")
"""Files that a clean checkout does not have: caches, environments, and leftovers of builds."""


class Dists(NamedTuple):
    """The files that a release consists of."""

    sdist: Path
    wheel: Path


class Environment(NamedTuple):
    """A virtual environment with only the packages that a test installs."""

    folder: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """The folder of its packages."""
        base = str(self.folder)
        return Path(sysconfig.get_path("purelib", "venv", vars={"base": base, "platbase": base}))

    def pip(self, *arguments: str | Path) -> str:
        """Run this project's pip on the environment, which has none of its own."""
        return run([sys.executable, "-m", "pip", "--python", self.python, *arguments], cwd=self.folder)

    def run(self, name: str, *arguments: str | Path) -> str:
        """Run one of its programs in its own folder and return its output."""
        return run([self.folder / "bin" / name, *arguments], cwd=self.folder)


def run(command: list[str | Path], *, cwd: Path) -> str:
    """Run a command that must succeed, without the checkout on its path, and return its output."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**outer, "PYTHONSAFEPATH": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout as a fresh clone has it, so that nothing left from other builds gets in."""
    return shutil.copytree(
        ROOT, tmp_path_factory.mktemp("checkout") / "myloware", ignore=shutil.ignore_patterns(*LEFT_BEHIND)
    )


@pytest.fixture(scope="session")
def dists(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Dists:
    """Build the sdist from the checkout and the wheel from the sdist, as a release does."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", folder, checkout], cwd=folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Dists(sdist, wheel)


@pytest.fixture(scope="session")
def sibling_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a project that also has a `migrations` folder."""
    folder = tmp_path_factory.mktemp("sibling")
    source = shutil.copytree(Path(__file__).parent / "sibling", folder / "source")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, source], cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture
def empty_environment(tmp_path: Path) -> Environment:
    """Return a new virtual environment."""
    venv.create(tmp_path / "venv", with_pip=False)
    return Environment(tmp_path / "venv")


@pytest.fixture(scope="session")
def installed(dists: Dists, sibling_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment with the wheel, its dependencies, the sibling and pytest. Only to be looked at."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    environment = Environment(folder)
    environment.pip("install", "--quiet", dists.wheel, sibling_wheel, "pytest")
    return environment

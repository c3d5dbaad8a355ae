"""The contents of the wheel."""

from __future__ import annotations

import configparser
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.packaging.conftest import Dists

INSTALLED_AS = {
    "myloware_store": "myloware_store",
    "migrations": "myloware_store_migrations",
    "pytest_plugin": "pytest_myloware",
}
"""The checkout's folders and the names of the packages they become."""


@pytest.fixture(scope="module")
def wheel(dists: Dists) -> Iterator[zipfile.ZipFile]:
    """Open the wheel."""
    with zipfile.ZipFile(dists.wheel) as archive:
        yield archive


@pytest.fixture(scope="module")
def files(wheel: zipfile.ZipFile) -> set[str]:
    """List the wheel's files, but for its metadata."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def read_metadata(wheel: zipfile.ZipFile, name: str) -> str:
    """Read one file of the wheel's metadata folder."""
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_wheel_holds_every_file_of_the_three_packages_and_no_other(checkout: Path, files: set[str]) -> None:
    """Modules, migrations and data all ship; tests, benchmarks and docs do not."""
    expected = {
        str(Path(package, path.relative_to(checkout / folder)))
        for folder, package in INSTALLED_AS.items()
        for path in (checkout / folder).rglob("*")
        if path.is_file()
    }

    assert expected == files


@pytest.mark.parametrize("package", INSTALLED_AS.values())
def test_every_package_says_that_it_is_typed(files: set[str], package: str) -> None:
    """Type checkers read annotations only from packages marked with py.typed."""
    assert f"{package}/py.typed" in files


def test_wheel_holds_the_migrations_and_their_settings(files: set[str]) -> None:
    """An installed wheel can bring a database up to date by itself."""
    assert "myloware_store_migrations/conf.py" in files
    assert any(name.startswith("myloware_store_migrations/001_") for name in files)


def test_wheel_holds_the_demo_documents(files: set[str]) -> None:
    """`myloware-store demo` with no path has documents to run through."""
    assert any(name.startswith("myloware_store/demo/documents/") for name in files)


def test_entry_points_are_the_command_and_the_plugin(wheel: zipfile.ZipFile) -> None:
    """One command line, one pytest plugin."""
    parser = configparser.ConfigParser()
    parser.read_string(read_metadata(wheel, "entry_points.txt"))

    assert {"myloware-store": "myloware_store.cli:main"} == dict(parser["console_scripts"])
    assert {"myloware": "pytest_myloware.plugin"} == dict(parser["pytest11"])


def test_metadata_is_valid(wheel: zipfile.ZipFile) -> None:
    """A registry would take it: every field passes the standard's own validation."""
    metadata = Metadata.from_email(read_metadata(wheel, "METADATA"), validate=True)

    assert "myloware-store" == metadata.name
    assert "MIT" == metadata.license_expression
    assert ">=3.11" == str(metadata.requires_python)
    assert "text/markdown" == metadata.description_content_type
    assert {"embedded", "test", "dev"} <= set(metadata.provides_extra or ())


def test_wheel_is_the_same_on_every_platform(dists: Dists) -> None:
    """Nothing in it is compiled."""
    assert dists.wheel.name.endswith("-py3-none-any.whl")

"""The wheel in a clean environment, beside a stranger's that has a `migrations` folder too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.packaging.conftest import Dists, Environment

OURS = "myloware-store"
SIBLING = "myloware-sibling"


def migrations_of(environment: Environment) -> tuple[str, str]:
    """Read the first migration of either project from where it is installed; empty where there is none."""
    folders = (environment.site_packages / name for name in ("myloware_store_migrations", "migrations"))
    ours, sibling = ("".join(p.read_text() for p in folder.glob("001_*.py")) for folder in folders)
    return ours, sibling


def test_both_projects_keep_their_migrations(
    empty_environment: Environment, dists: Dists, sibling_wheel: Path, checkout: Path
) -> None:
    """Installed in either order, neither wheel overwrites the other's files."""
    (ours,) = (path.read_text() for path in (checkout / "migrations").glob("001_*.py"))
    (sibling,) = (p.read_text() for p in (checkout / "tests/packaging/sibling/migrations").glob("001_*.py"))

    for first, second in ((dists.wheel, sibling_wheel), (sibling_wheel, dists.wheel)):
        empty_environment.pip("install", "--quiet", "--no-deps", "--force-reinstall", first)
        empty_environment.pip("install", "--quiet", "--no-deps", "--force-reinstall", second)

        assert (ours, sibling) == migrations_of(empty_environment)


def test_uninstalling_one_leaves_the_other(empty_environment: Environment, dists: Dists, sibling_wheel: Path) -> None:
    """Each project's files go with it, and only those."""
    empty_environment.pip("install", "--quiet", "--no-deps", dists.wheel, sibling_wheel)
    ours, sibling = migrations_of(empty_environment)

    empty_environment.pip("uninstall", "--quiet", "--yes", SIBLING)
    assert (ours, "") == migrations_of(empty_environment)

    empty_environment.pip("install", "--quiet", "--no-deps", sibling_wheel)
    empty_environment.pip("uninstall", "--quiet", "--yes", OURS)
    assert ("", sibling) == migrations_of(empty_environment)
    assert not list(empty_environment.site_packages.glob("*myloware_store*"))


def test_requirements_are_met(installed: Environment) -> None:
    """After installing the wheel, pip finds its requirements."""
    assert "No broken requirements found.\n" == installed.pip("check")


def test_command_line_runs(installed: Environment) -> None:
    """`myloware-store --help` names its commands."""
    printed = installed.run("myloware-store", "--help")

    for command in ("up", "down", "migrate", "status", "seed", "reset", "validate", "ping", "demo"):
        assert f"  {command} " in printed


def test_migrations_path_leads_into_the_installed_wheel(installed: Environment) -> None:
    """`pw_migrate migrate --directory "$(myloware-store migrations-path)"` finds the migrations there."""
    printed = Path(installed.run("myloware-store", "migrations-path").rstrip("\n"))

    assert installed.site_packages / "myloware_store_migrations" == printed
    assert (printed / "conf.py").is_file()
    assert list(printed.glob("001_*.py"))


def test_pytest_finds_the_plugin(installed: Environment, tmp_path: Path) -> None:
    """After installing the wheel, its fixtures are available, each with a description."""
    printed = installed.run("python", "-m", "pytest", "--fixtures", "-p", "no:cacheprovider", tmp_path)

    named = {line.split()[0] for line in printed.splitlines() if line.startswith("myloware") and " -- " in line}
    assert {
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
    } == named
    assert "no docstring available" not in printed


def test_plugin_loads_nothing_but_pytest(installed: Environment) -> None:
    """The entry point costs other projects' test runs nothing, and hides nobody's coverage."""
    code = """
import sys, json, pytest
before = set(sys.modules)
import pytest_myloware.plugin, pytest_myloware.fixtures
print(json.dumps(sorted(set(sys.modules) - before)))
"""

    imported = json.loads(installed.run("python", "-c", code))

    modules = ("errors", "fixtures", "options", "plugin")
    assert ["pytest_myloware", *(f"pytest_myloware.{module}" for module in modules)] == imported


def test_import_leaves_the_heavy_libraries_alone(installed: Environment) -> None:
    """The whole library does not pay for the command line, migrations, schemas or tests; its name alone for nothing."""
    code = "import sys, json; from myloware_store import *; print(json.dumps(sorted(sys.modules)))"

    imported = set(json.loads(installed.run("python", "-c", code)))
    code = code.replace("from myloware_store import *", "import myloware_store")
    named = set(json.loads(installed.run("python", "-c", code)))

    assert not {"peewee", "psycopg2", "numpy"} & named
    assert not {"click", "rich", "dotenv", "jsonschema", "peewee_migrate", "pytest"} & imported


def test_import_does_no_input_or_output(installed: Environment) -> None:
    """Beyond reading modules, `import myloware_store` opens nothing, connects nowhere and starts nothing."""
    code = """
import sys, json, attrs, numpy, orjson, peewee, pgvector, psycopg2, uuid_utils.compat

CODE = (".py", ".pyc", ".so", ".pyd", ".dylib")
seen = []

def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith(CODE) and "w" not in str(arguments[1]):
        return
    if event == "open" or event.startswith(("socket.", "subprocess.", "shutil.", "tempfile.")) or event in {
        "os.exec", "os.fork", "os.forkpty", "os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.spawn",
        "os.system", "os.putenv", "signal.pthread_kill", "sqlite3.connect", "urllib.Request",
    }:
        seen.append([event, repr(arguments)])

sys.addaudithook(watch)
from myloware_store import *
watching = list(seen)
open(sys.executable, "rb").close()
print(json.dumps([watching, seen[-1][0]]))
"""

    seen, last = json.loads(installed.run("python", "-B", "-c", code))

    assert [] == seen
    assert "open" == last, "the hook itself must be at work"

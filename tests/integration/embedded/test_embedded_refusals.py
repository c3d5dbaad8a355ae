"""Folders that the embedded server refuses, and its messages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded import EmbeddedServer, server
from myloware_store.embedded.place import make_place

if TYPE_CHECKING:
    from tests.integration.embedded.conftest import Stage

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def refusal(stage: Stage, home: Path | str) -> str:
    """Return what the error says when a home is opened."""

    def body() -> str:
        with pytest.raises(EmbeddedServerError) as caught:
            EmbeddedServer(home, testing=True).start()
        return str(caught.value)

    return str(stage.run(body))


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return the names, modes and owners in a folder and above it, to be compared."""
    found = [*folder.parents, *folder.rglob("*")] if folder.is_dir() else [*folder.parents]
    return sorted((str(path), path.lstat().st_mode, path.lstat().st_uid) for path in found)


def test_a_home_that_is_a_file(stage: Stage) -> None:
    """A file is not replaced by a folder."""
    stage.run(lambda: stage.home.write_text("precious"))
    assert "is a file" in refusal(stage, stage.home)
    assert "Not a directory" in refusal(stage, stage.home / "below")
    assert "precious" == stage.home.read_text()


def test_a_home_that_holds_something_else(stage: Stage) -> None:
    """A folder with other things in it is left as it is, by name and mode."""

    def fill() -> None:
        (stage.home / "src").mkdir(parents=True)
        (stage.home / "notes.txt").write_text("precious")

    stage.run(fill)
    before = listing(stage.home)
    assert "contains other files (notes.txt, src)" in refusal(stage, stage.home)
    assert before == listing(stage.home)


def test_a_home_that_only_looks_full(stage: Stage) -> None:
    """Files that systems and version control add to empty folders don't matter."""

    def body() -> Any:
        stage.home.mkdir()
        (stage.home / ".gitignore").write_text("*\n")
        stage.seed(make_place(stage.home).folder)
        with EmbeddedServer(stage.home, testing=True) as server:
            return stage.ask(server, "SELECT 1"), (stage.home / ".gitignore").exists()

    assert (1, True) == stage.run(body)


def test_a_home_of_another_user(one_stage: Stage) -> None:
    """A plain user does not use a folder of root's, even one that it can enter."""
    for folder in (Path("/usr"), Path("/usr/share")):
        assert "belongs to another user" in refusal(one_stage, folder)


def test_a_home_that_everyone_can_write_to(stage: Stage) -> None:
    """If others could replace the files, no server is created."""
    stage.run(stage.home.mkdir)
    stage.home.chmod(0o777)
    assert "Everyone can write" in refusal(stage, stage.home)
    assert 0o777 == stage.home.stat().st_mode & 0o777


def test_a_home_in_a_folder_that_cannot_be_written(one_stage: Stage) -> None:
    """The error for a missing right names the path and the alternatives, and is not a bare OSError."""
    locked = one_stage.folder / "locked"
    locked.mkdir(mode=0o555)
    said = refusal(one_stage, locked / "home")
    assert str(locked / "home") in said
    assert "Permission denied" in said
    assert "DATABASE_URL" in said


@pytest.mark.parametrize("name", ["line\nbreak", "nul\0", "loop"])
def test_a_path_that_cannot_be(one_stage: Stage, name: str) -> None:
    """A path with a line break or NUL, or a circle of links, is refused before anything is made."""
    (one_stage.folder / "loop").symlink_to("loop")
    said = refusal(one_stage, f"{one_stage.folder}/{name}")
    assert "cannot be" in said or "symbolic links" in said
    assert [one_stage.folder / "loop"] == list(one_stage.folder.iterdir())


@pytest.mark.parametrize("home", [5, None, b"x"])
def test_a_home_that_is_no_path(home: Any) -> None:
    """A value that is not a path is refused by every method."""
    for ask in (EmbeddedServer, EmbeddedServer.down, EmbeddedServer.running, EmbeddedServer.made):
        with pytest.raises(EmbeddedServerError, match="cannot be the embedded server's folder"):
            ask(home)


def test_data_of_another_version(one_stage: Stage) -> None:
    """A cluster of another major version is named as such, with the way to open it, and not started."""
    home = one_stage.prepare(ruin=True)
    (home / "pgdata" / "PG_VERSION").write_text("14\n")
    said = refusal(one_stage, home)
    assert "created by PostgreSQL 14" in said
    assert "MYLOWARE_PG_BINDIR" in said


def test_data_that_is_no_cluster(one_stage: Stage) -> None:
    """A data folder without a version is not a cluster, and nothing is written into it."""
    home = one_stage.prepare(ruin=True)
    (home / "pgdata" / "PG_VERSION").unlink()
    before = listing(home / "pgdata")
    assert "is not a PostgreSQL cluster" in refusal(one_stage, home)
    assert before == listing(home / "pgdata")


def test_a_link_where_the_socket_folder_should_be(stage: Stage) -> None:
    """A link is never followed."""
    home = stage.prepare()
    target = stage.folder / "target"

    def plant() -> None:
        target.mkdir()
        (home / "run").symlink_to(target)

    stage.run(plant)
    mode = target.stat().st_mode
    assert "not a folder that only we can enter" in refusal(stage, home)
    assert [] == list(target.iterdir())
    assert mode == target.stat().st_mode


def test_a_socket_folder_that_others_can_enter(stage: Stage) -> None:
    """A socket folder with open modes is refused, and its mode and owner stay as they are."""
    home = stage.prepare()
    stage.run((home / "run").mkdir)
    (home / "run").chmod(0o755)
    before = (home / "run").stat()
    assert "can be entered by others" in refusal(stage, home)
    after = (home / "run").stat()
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)


def test_nothing_that_was_there_changes(stage: Stage) -> None:
    """Opening and closing leaves the modes and owners of every folder above as they were."""
    deep = stage.folder / "a" / "b"
    stage.run(lambda: deep.mkdir(parents=True))
    stage.prepare(deep / "home")
    before = listing(deep / "home")

    def body() -> None:
        with EmbeddedServer(deep / "home", testing=True) as server:
            stage.ask(server, "SELECT 1")

    stage.run(body)
    after = {path: (mode, owner) for path, mode, owner in listing(deep / "home")}
    changed = [path for path, mode, owner in before if path in after and after[path] != (mode, owner)]
    assert [] == changed


def test_a_home_is_private(stage: Stage) -> None:
    """Other accounts cannot read the files of a home, even under an open umask."""

    def body() -> dict[str, int]:
        os.umask(0)
        stage.seed(make_place(stage.home).folder)
        with EmbeddedServer(stage.home, testing=True):
            return {path.name: path.stat().st_mode & 0o066 for path in (stage.home, *stage.home.iterdir())}

    modes = stage.run(body)
    assert [] == [name for name in modes if modes[name]]
    assert {"home", "pgdata", "run", "log", "users.lock", "server.json", "unsynced"} <= set(modes)


@pytest.mark.parametrize("platform", ["win32", "cygwin", "freebsd14", "emscripten"])
def test_other_platforms_are_told(platform: str) -> None:
    """On systems other than Linux and macOS, the error says so and names the alternative."""
    with pytest.raises(EmbeddedServerError, match=rf"not on {platform}: set DATABASE_URL"):
        server._check_platform(platform)


def test_a_socket_that_leads_to_another_server(one_stage: Stage) -> None:
    """Before any other statement, the server's data folder is checked: another server is refused."""
    home = one_stage.prepare(ruin=True)
    other = one_stage.prepare(one_stage.folder / "other")

    def body() -> tuple[str, list[str]]:
        with EmbeddedServer(home, testing=True) as server, EmbeddedServer(other, testing=True) as stranger:
            socket = server.socket_dir / ".s.PGSQL.5432"
            socket.rename(socket.with_name("aside"))
            socket.symlink_to(stranger.socket_dir / socket.name)
            try:
                server.ensure_database("mine")
            except EmbeddedServerError as error:
                names = one_stage.ask(stranger, "SELECT array_agg(datname::text) FROM pg_database")
                return str(error), names
            finally:
                socket.unlink()
                socket.with_name("aside").rename(socket)
        raise AssertionError

    said, names = one_stage.run(body)
    assert f"with its data in {other / 'pgdata'}" in said
    assert "mine" not in names

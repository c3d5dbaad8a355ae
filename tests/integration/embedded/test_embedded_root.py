"""The embedded server under root: its account, its folders out of that account's reach, and other users' traps."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded import EmbeddedServer, account, find_binaries, place
from myloware_store.embedded.account import server_account
from myloware_store.embedded.binaries import major_version, reachable_binaries
from myloware_store.embedded.place import find_place, make_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.embedded.conftest import Line, Plain, Stage

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

STRANGER = 54321
"""A uid that nobody here has."""


@pytest.fixture(autouse=True)
def system(root_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the system folder on the stage, not there yet."""
    folder = root_stage.folder / "system"
    monkeypatch.setattr(place, "SYSTEM_FOLDER", folder)
    return folder


@pytest.fixture
def closed(root_stage: Stage) -> Path:
    """Return a folder that only root can enter."""
    folder = root_stage.folder / "root"
    folder.mkdir(mode=0o700)
    return folder


def write(stage: Stage, home: Path, *, testing: bool = True) -> Path:
    """Store something in a home's server, made new from a ready cluster, and return where its data is."""

    def body() -> Path:
        place = make_place(home)
        if not place.data.exists():
            stage.seed(place.folder)
        with EmbeddedServer(home, testing=testing) as server:
            stage.ask(server, "CREATE TABLE IF NOT EXISTS kept (v int); INSERT INTO kept VALUES (1)")
            return server.data_dir

    found: Path = stage.run(body)
    return found


def count(stage: Stage, home: Path) -> Any:
    """Return how often something was stored in a home, or nothing if never."""

    def body() -> Any:
        with EmbeddedServer(home, testing=True) as server:
            if stage.ask(server, "SELECT to_regclass('kept') IS NULL"):
                return None
            return stage.ask(server, "SELECT count(*) FROM kept")

    return stage.run(body)


def test_the_server_runs_as_an_unprivileged_account(root_stage: Stage) -> None:
    """Root's server is a process of the account `postgres`, else `nobody`, with no group of root's."""
    root_stage.prepare()
    account = server_account()
    assert account is not None

    def body() -> tuple[int, str]:
        with EmbeddedServer(root_stage.home, testing=True) as server:
            status = Path(f"/proc/{server.pid}/status").read_text()
            groups = next(line for line in status.splitlines() if line.startswith("Groups:"))
            return Path(f"/proc/{server.pid}").stat().st_uid, groups.removeprefix("Groups:").strip()

    assert (account.uid, "") == root_stage.run(body)
    assert account.uid == pwd.getpwnam(account.name).pw_uid


def test_nobody_serves_where_there_is_no_postgres(root_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an account `postgres` it is `nobody`; data keep their account when `postgres` comes later."""
    nobody = pwd.getpwnam("nobody").pw_uid
    with monkeypatch.context() as patch:
        patch.setattr(account, "ACCOUNTS", ("no-such-account", "nobody"))
        assert count(root_stage, root_stage.home) is None
    assert nobody == (root_stage.home / "pgdata").stat().st_uid
    write(root_stage, root_stage.home)
    assert 1 == count(root_stage, root_stage.home)


def test_without_any_account_the_ways_out_are_named(root_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """If root can use no account, the error says what to do."""
    monkeypatch.setattr(account, "ACCOUNTS", ("root", "no-such-account"))
    with pytest.raises(EmbeddedServerError, match=r"does not run as root.*useradd.*DATABASE_URL"):
        EmbeddedServer(root_stage.home).start()
    assert not root_stage.home.exists()


def test_a_home_out_of_reach_keeps_its_data_in_a_system_folder(root_stage: Stage, closed: Path, system: Path) -> None:
    """Beneath a 0700 folder the home gets a link to a folder of its own, which serves every later start."""
    home = closed / "project" / ".myloware"
    data = write(root_stage, home)
    assert data.is_relative_to(system)
    assert data.parent == (home / "server").readlink()
    assert 1 == count(root_stage, home)
    assert 0o700 == closed.stat().st_mode & 0o777
    assert root_stage.run(lambda: EmbeddedServer.running(home)) is False
    closed.chmod(0o711)
    assert 1 == count(root_stage, home)


def test_processes_that_race_for_a_system_folder_share_it(root_stage: Stage, closed: Path, system: Path) -> None:
    """Four processes that open a new home out of reach at once get one server, under a strict umask too."""

    def hold(line: Line) -> None:
        os.umask(0o077)
        with EmbeddedServer(closed / "home", testing=True) as server:
            line.tell(server.pid)
            line.wait()

    children = [root_stage.spawn(hold) for _ in range(4)]
    assert 1 == len({child.receive() for child in children})
    for child in children:
        child.tell()
        child.join()
    assert 1 == len([path for path in system.iterdir() if path.is_dir()])


def test_a_moved_home_keeps_its_data_and_a_copy_gets_its_own(root_stage: Stage, closed: Path) -> None:
    """`mv` takes the data along; `cp -a` does not make two homes of one server; `rm -r` starts afresh."""
    home = closed / "home"
    data = write(root_stage, home)
    moved = home.rename(closed / "moved")
    assert 1 == count(root_stage, moved)
    copy = Path(shutil.copytree(moved, closed / "copy", symlinks=True))
    assert count(root_stage, copy) is None
    assert data != write(root_stage, copy)
    assert 1 == count(root_stage, moved)
    shutil.rmtree(moved)
    assert count(root_stage, moved) is None


def test_only_data_of_tests_is_forgotten_with_its_home(root_stage: Stage, closed: Path) -> None:
    """A new home deletes the leftovers of removed test homes; data that was ever durable stays."""
    tested = write(root_stage, closed / "tested")
    durable = write(root_stage, closed / "durable", testing=False)
    write(root_stage, closed / "durable", testing=True)
    used = write(root_stage, closed / "used")
    shutil.rmtree(closed / "tested")
    shutil.rmtree(closed / "durable")
    write(root_stage, closed / "new")
    assert (False, True, True) == (tested.exists(), durable.exists(), used.exists())


def test_a_home_that_went_out_of_reach_is_not_replaced(root_stage: Stage) -> None:
    """If a parent folder becomes inaccessible later, the server does not silently start with new data elsewhere."""
    above = root_stage.folder / "above"
    above.mkdir(mode=0o755)
    root_stage.prepare(above / "home")
    above.chmod(0o700)
    with pytest.raises(EmbeddedServerError, match=rf"can no longer enter {above}"):
        make_place(above / "home")


def test_a_system_folder_that_others_can_write_to(root_stage: Stage, closed: Path, system: Path) -> None:
    """Root's data is never stored where others could replace it."""
    system.mkdir()
    system.chmod(0o777)
    with pytest.raises(EmbeddedServerError, match="not a folder that only root can write to"):
        make_place(closed / "home")
    system.rmdir()
    system.symlink_to(closed)
    with pytest.raises(EmbeddedServerError, match="not a folder that only root can write to"):
        make_place(closed / "home")


def test_a_system_folder_out_of_reach(root_stage: Stage, closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If even the system folder cannot be entered, the error names the folder that prevents it."""
    monkeypatch.setattr(place, "SYSTEM_FOLDER", closed / "system")
    with pytest.raises(EmbeddedServerError, match=rf"cannot enter {closed}: name a home"):
        make_place(closed / "home")


@pytest.mark.parametrize("owner", ["stranger", "server's account"])
def test_a_home_of_another_user(root_stage: Stage, owner: str) -> None:
    """Root does not use a folder that belongs to someone else, be it the server's account, nor changes it."""
    account = server_account()
    assert account is not None
    uid = STRANGER if owner == "stranger" else account.uid
    root_stage.home.mkdir()
    os.chown(root_stage.home, uid, uid)
    with pytest.raises(EmbeddedServerError, match=rf"belongs to another user \(uid {uid}\)"):
        EmbeddedServer(root_stage.home).start()
    assert (uid, []) == (root_stage.home.stat().st_uid, list(root_stage.home.iterdir()))


def test_a_home_in_another_users_folder(root_stage: Stage, plain: Plain) -> None:
    """A new home in a user's folder works for root, and that user cannot use it."""
    os.chown(root_stage.folder, plain.uid, plain.gid)
    write(root_stage, root_stage.home)

    def trespass() -> None:
        plain.become()
        EmbeddedServer(root_stage.home).start()

    with pytest.raises(EmbeddedServerError, match=r"belongs to another user \(uid 0\)"):
        root_stage.run(trespass)


def test_a_user_without_a_name(root_stage: Stage, plain: Plain) -> None:
    """For a uid without an account, as in containers, the error says why initdb would fail, and what to do."""
    os.chown(root_stage.folder, STRANGER, STRANGER)

    def body() -> None:
        attrs.evolve(plain, uid=STRANGER, gid=STRANGER).become()
        EmbeddedServer(root_stage.home).start()

    with pytest.raises(EmbeddedServerError, match=f"uid {STRANGER} has none in /etc/passwd"):
        root_stage.run(body)


@pytest.fixture
def far(root_stage: Stage) -> Iterator[tuple[Path, Path]]:
    """Yield a home whose path is too long for a socket, and the fallback folder for that."""
    home = root_stage.folder / ("x" * 100)
    root_stage.prepare(home)
    place = find_place(home)
    assert place is not None
    folder = place.socket_dir
    assert folder.parent == Path("/tmp")
    yield home, folder
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        folder.rmdir()


@pytest.mark.parametrize("trap", ["folder", "open folder", "link", "file"])
def test_a_socket_folder_that_someone_else_made(
    root_stage: Stage, far: tuple[Path, Path], plain: Plain, trap: str
) -> None:
    """Another user's file in place of the socket's folder is refused, and neither followed nor changed."""
    home, folder = far
    target = root_stage.folder / "target"
    target.mkdir()

    def plant() -> None:
        plain.become()
        if trap == "link":
            folder.symlink_to(target)
        elif trap == "file":
            folder.touch()
        else:
            folder.mkdir(mode=0o700)
            folder.chmod(0o777 if trap == "open folder" else 0o700)

    root_stage.run(plant)
    before = folder.lstat()
    try:
        with pytest.raises(EmbeddedServerError, match="remove it"):
            EmbeddedServer(home, testing=True).start()
        assert (before.st_uid, before.st_mode) == (folder.lstat().st_uid, folder.lstat().st_mode)
        assert [] == list(target.iterdir())
    finally:
        if trap == "file":
            folder.unlink()


def test_other_users_cannot_connect(root_stage: Stage, far: tuple[Path, Path], plain: Plain) -> None:
    """The socket of a fallback folder is out of reach for another account, which would be superuser there."""

    def serve(line: Line) -> None:
        with EmbeddedServer(far[0], testing=True) as server:
            line.tell(server.connect_kwargs("postgres"))
            line.wait()

    holder = root_stage.spawn(serve)
    address = holder.receive()

    def connect(*, stranger: bool) -> bool:
        if stranger:
            os.setgid(STRANGER)
            os.setuid(STRANGER)
        try:
            with closing(psycopg2.connect(**address)):
                return True
        except psycopg2.OperationalError:
            return False

    assert root_stage.run(lambda: connect(stranger=False)) is True
    assert root_stage.run(lambda: connect(stranger=True)) is False
    holder.tell()
    holder.join()


def test_programs_out_of_reach_are_copied_once(
    root_stage: Stage, closed: Path, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs beneath a 0700 folder are copied for the account by the first of three racing processes, and serve."""
    package = find_binaries().parent.parent
    for tree in (package / find_binaries().parent.name, package.with_name(f"{package.name}.libs")):
        shutil.copytree(tree, closed / tree.relative_to(package.parent))
    hidden = closed / find_binaries().relative_to(package.parent)
    account = server_account()

    def body(line: Line) -> None:
        os.umask(0o077)
        line.wait()
        line.tell(reachable_binaries(hidden, account))

    children = [root_stage.spawn(body) for _ in range(3)]
    for child in children:
        child.tell()
    (copy,) = {child.receive() for child in children}
    assert copy.is_relative_to(system)
    assert {"binaries.lock", copy.relative_to(system).parts[0]} == {path.name for path in system.iterdir()}
    assert major_version(find_binaries()) == major_version(copy)

    monkeypatch.setenv("MYLOWARE_PG_BINDIR", str(hidden))
    root_stage.prepare()

    def serve() -> str:
        with EmbeddedServer(root_stage.home, testing=True) as server:
            root_stage.ask(server, "CREATE EXTENSION vector")
            return str(Path(f"/proc/{server.pid}/exe").readlink())

    assert str(copy / "postgres") == root_stage.run(serve)


def test_programs_that_cannot_be_copied(root_stage: Stage, closed: Path) -> None:
    """A bin folder that is no install of its own cannot be copied; the error names it."""
    (closed / "bin").mkdir()
    for name in ("postgres", "initdb"):
        (closed / "bin" / name).touch()
    with pytest.raises(EmbeddedServerError, match=f"cannot reach {closed}/bin: install PostgreSQL in a place"):
        reachable_binaries(closed / "bin", server_account())


def test_without_the_right_to_look_at_other_processes(root_stage: Stage) -> None:
    """Root in a container may not look into other accounts' processes (no CAP_SYS_PTRACE); all works the same."""
    root_stage.prepare()
    program = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from myloware_store.embedded import EmbeddedServer\n"
        "for _ in range(2):\n"
        "    with EmbeddedServer(sys.argv[1], testing=True) as server:\n"
        "        try: sys.exit(os.readlink(f'/proc/{server.pid}/cwd'))\n"
        "        except PermissionError: pass\n"
        "    assert not EmbeddedServer.running(sys.argv[1])\n"
        "EmbeddedServer(sys.argv[1], testing=True).start()\n"
    )

    def body(_: Line) -> None:
        drop = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
        os.execvp(drop[0], [*drop, sys.executable, "-c", program, str(root_stage.home), *sys.path])

    assert 0 == root_stage.spawn(body).join()
    root_stage.eventually(root_stage.is_clean, "the server that was left open stops")

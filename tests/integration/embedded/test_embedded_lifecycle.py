"""The embedded server's life: who starts it, who shares it, who ends it."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psycopg2
import pytest

from myloware_store.core.errors import EmbeddedServerError, InvalidInput
from myloware_store.embedded import EmbeddedServer, start
from myloware_store.embedded.locks import open_lock, try_lock

if TYPE_CHECKING:
    from tests.integration.embedded.conftest import Line, Stage

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_a_new_home_serves_vectors_and_keeps_its_data(stage: Stage) -> None:
    """A durable server starts in a new folder, and its data is there the next time."""

    def write() -> Any:
        with EmbeddedServer(stage.home) as server:
            stage.ask(server, "CREATE EXTENSION vector; CREATE TABLE kept AS SELECT '[1,2]'::vector AS v")
            return stage.ask(server, "SELECT current_setting('fsync')")

    def read() -> Any:
        with EmbeddedServer(stage.home) as server:
            return stage.ask(server, "SELECT v::text FROM kept")

    assert "on" == stage.run(write)
    assert stage.is_clean()
    assert "[1,2]" == stage.run(read)
    assert "*\n" == stage.run((stage.home / ".gitignore").read_text)


def test_a_new_cluster_has_a_utf8_ctype(one_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the first that the system has, so that typographic characters end words."""
    monkeypatch.setattr(start, "LC_CTYPES", ["xx_XX.UTF-8", *start.LC_CTYPES])

    def body() -> Any:
        with EmbeddedServer(one_stage.home, testing=True) as server:
            words = one_stage.ask(server, "SELECT to_tsvector('english', '“late fees”, «facture»')::text")
            return words, one_stage.ask(server, "SELECT string_agg(DISTINCT datctype, ' ') FROM pg_database")

    assert ("'factur':3 'fee':2 'late':1", "C.UTF-8") == one_stage.run(body)


def test_the_last_close_waits_for_the_end(stage: Stage) -> None:
    """When `close` of the only holder returns, neither server nor supervisor is left."""
    stage.prepare()

    def body() -> tuple[bool, bool, bool]:
        server = EmbeddedServer(stage.home, testing=True)
        before = EmbeddedServer.running(stage.home)
        server.start()
        during = EmbeddedServer.running(stage.home)
        server.close()
        server.close()
        return before, during, EmbeddedServer.running(stage.home)

    assert (False, True, False) == stage.run(body)
    assert stage.is_clean()


def test_processes_share_one_server(stage: Stage) -> None:
    """A second process joins the first one's server, and keeps it when the first one leaves."""
    stage.prepare()
    first = stage.holder()
    pid = first.receive()
    second = stage.holder()
    assert pid == second.receive()
    first.tell()
    assert 0 == first.join()
    assert stage.alive(pid)
    second.tell()
    assert 0 == second.join()
    assert not stage.alive(pid)


def test_processes_race_for_a_new_home(stage: Stage) -> None:
    """Five processes that open a new home at once make one cluster and one server."""
    children = [stage.holder() for _ in range(5)]
    assert 1 == len({child.receive() for child in children})
    for child in children:
        child.tell()
    assert [0] * 5 == [child.join() for child in children]
    assert stage.is_clean()


def test_objects_of_one_process_count_each(one_stage: Stage) -> None:
    """Two objects on one home are two holders: closing one leaves the server to the other."""
    one_stage.prepare()

    def body() -> tuple[bool, bool]:
        one, two = EmbeddedServer(one_stage.home, testing=True), EmbeddedServer(one_stage.home, testing=True)
        one.start()
        two.start()
        same = one.pid == two.pid
        one.close()
        one_stage.ask(two, "SELECT 1")
        one.start()
        two.close()
        one_stage.ask(one, "SELECT 1")
        one.close()
        return same, EmbeddedServer.running(one_stage.home)

    assert (True, False) == one_stage.run(body)


@pytest.mark.parametrize("shared", [True, False], ids=["one object", "an object each"])
def test_threads_start_and_close_together(one_stage: Stage, shared: bool) -> None:  # noqa: FBT001  a parameter of pytest
    """Eight threads that open and close one home at once get one server, and end it once."""
    one_stage.prepare()

    def body() -> tuple[int, list[BaseException], bool]:
        common = EmbeddedServer(one_stage.home, testing=True)
        barrier = threading.Barrier(8)
        pids: set[int] = set()
        errors: list[BaseException] = []

        def work() -> None:
            server = common if shared else EmbeddedServer(one_stage.home, testing=True)
            try:
                barrier.wait()
                server.start()
                pids.add(server.pid)
                barrier.wait()
                server.close()
            except BaseException as error:  # noqa: BLE001  reported by the test
                errors.append(error)
                barrier.abort()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(pids), errors, EmbeddedServer.running(one_stage.home)

    assert (1, [], False) == one_stage.run(body)


def test_a_forked_child_does_not_end_its_parents_server(one_stage: Stage) -> None:
    """A child that inherited the object may close it: the parent's server stays, and the parent can end it."""
    one_stage.prepare()

    def body() -> tuple[int, int, bool]:
        server = EmbeddedServer(one_stage.home, testing=True)
        server.start()
        child = os.fork()
        if child == 0:
            server.close()
            os._exit(7)
        _, status = os.waitpid(child, 0)
        answer = one_stage.ask(server, "SELECT 1")
        server.close()
        return os.waitstatus_to_exitcode(status), answer, EmbeddedServer.running(one_stage.home)

    assert (7, 1, False) == one_stage.run(body)


def test_a_forked_child_holds_the_server_while_it_lives(stage: Stage) -> None:
    """The parent's `close` leaves the server to a child that was forked from it, until that child ends."""
    stage.prepare()

    def parent(line: Line) -> None:
        server = EmbeddedServer(stage.home, testing=True)
        server.start()
        if os.fork() == 0:
            line.wait()
            line.tell(stage.ask(server, "SELECT 2"))
            os._exit(0)
        server.close()
        line.tell(EmbeddedServer.running(stage.home))

    process = stage.spawn(parent)
    assert process.receive() is True
    process.receive()  # the parent's end
    process.tell()
    assert 2 == process.receive()
    stage.eventually(stage.is_clean, "the child's end stops the server")


def test_a_program_started_meanwhile_does_not_hold_the_server(one_stage: Stage) -> None:
    """Descriptors of locks are not passed on to other programs."""
    one_stage.prepare()

    def body() -> bool:
        with EmbeddedServer(one_stage.home, testing=True):
            program = subprocess.Popen(["sleep", "60"], close_fds=False)
        running = EmbeddedServer.running(one_stage.home)
        program.kill()
        program.wait()
        return running

    assert one_stage.run(body) is False


def test_keep_outlives_the_holders_until_down(stage: Stage) -> None:
    """A kept server stays when its holders are gone, may be joined, and goes with `down`."""
    stage.prepare()

    def keep() -> int:
        with EmbeddedServer(stage.home, testing=True) as server:
            server.keep()
            return server.pid

    def join() -> tuple[int, int]:
        with EmbeddedServer(stage.home, testing=True) as server:
            return server.pid, stage.ask(server, "SELECT 1")

    pid = stage.run(keep)
    assert (pid, 1) == stage.run(join)
    assert stage.run(lambda: EmbeddedServer.running(stage.home)) is True
    assert stage.run(lambda: EmbeddedServer.down(stage.home)) is True
    assert not stage.alive(pid)
    assert stage.is_clean()
    assert stage.run(lambda: EmbeddedServer.down(stage.home)) is False


def test_keep_ends_with_the_server_it_was_said_of(one_stage: Stage) -> None:
    """After a crash or a reboot nothing is pinned: the next server goes with its holder."""
    one_stage.prepare()

    def keep() -> None:
        with EmbeddedServer(one_stage.home, testing=True) as server:
            server.keep()

    one_stage.run(keep)
    one_stage.kill_all()
    one_stage.eventually(one_stage.is_clean, "all killed")
    assert one_stage.run(lambda: EmbeddedServer.running(one_stage.home)) is False
    one_stage.run(lambda: EmbeddedServer(one_stage.home, testing=True).start())
    one_stage.eventually(one_stage.is_clean, "the next server stops with its holder")


def test_keep_needs_an_open_server(one_stage: Stage) -> None:
    """`keep` on an object that holds nothing is an error and not a silent wish."""
    with pytest.raises(EmbeddedServerError, match="not open here"):
        one_stage.run(EmbeddedServer(one_stage.home).keep)


def test_down_refuses_a_server_in_use_unless_forced(stage: Stage) -> None:
    """`down` names the processes that hold the server; with `force` it stops it under them."""
    stage.prepare()
    holder = stage.holder()
    pid = holder.receive()
    with pytest.raises(EmbeddedServerError, match=rf"in use \(by pid {holder.pid}\)"):
        stage.run(lambda: EmbeddedServer.down(stage.home))
    assert stage.alive(pid)
    assert stage.run(lambda: EmbeddedServer.down(stage.home, force=True)) is True
    assert not stage.alive(pid)
    holder.tell()
    assert 0 == holder.join()


def test_down_waits_for_a_server_that_is_being_stopped(one_stage: Stage) -> None:
    """A server whose holders are gone and that is about to stop by itself is not called in use."""
    home = one_stage.prepare()

    def body() -> tuple[bool, bool]:
        with EmbeddedServer(home, testing=True) as server:
            server.keep()
        users = open_lock(home / "users.lock")
        assert try_lock(users)  # as the supervisor does from then on
        return EmbeddedServer.down(home), EmbeddedServer.running(home)

    assert (True, False) == one_stage.run(body)


def test_down_and_running_change_nothing_where_there_is_no_home(one_stage: Stage) -> None:
    """Asking about a home that was never made does not make it."""
    assert (False, False) == one_stage.run(
        lambda: (EmbeddedServer.running(one_stage.home), EmbeddedServer.down(one_stage.home))
    )
    assert not one_stage.home.exists()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("with space", True),
        ("größe", True),
        ("a,b", False),
        ('it\'s "quoted"\\', False),
        ("deep/" + "x" * 90, False),
        ("per%cent?host=&x=#y", True),
    ],
)
def test_any_path_serves(one_stage: Stage, name: str, near: bool) -> None:  # noqa: FBT001  a parameter of pytest
    """Spaces, quotes, commas, other scripts and long paths work, by URL and by arguments; the socket stays private."""
    home = one_stage.folder / name
    home.parent.mkdir(exist_ok=True, parents=True)
    home.parent.chmod(0o755)
    one_stage.prepare(home)

    def body() -> tuple[int, int, str, int]:
        with EmbeddedServer(home, testing=True) as server:
            with closing(psycopg2.connect(server.url("postgres"))) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                row = cursor.fetchone()
            assert row is not None
            return row[0], one_stage.ask(server, "SELECT 1"), str(server.socket_dir), server.socket_dir.stat().st_mode

    by_url, by_arguments, socket_dir, mode = one_stage.run(body)
    assert (1, 1) == (by_url, by_arguments)
    assert near == (socket_dir == str(home / "run"))
    assert len(os.fsencode(socket_dir)) + len("/.s.PGSQL.5432") <= 100
    assert 0o700 == mode & 0o777
    assert near == os.path.exists(socket_dir)  # noqa: PTH110  a fallback goes with the server


def test_the_url_names_its_parts_for_libpq(one_stage: Stage) -> None:
    """The URL has the superuser, the port and the encoded socket folder, whatever PGPORT and PGHOST say."""
    one_stage.prepare()

    def body() -> tuple[str, str, int]:
        os.environ.update(PGPORT="1", PGHOST="nowhere.invalid", PGUSER="nobody", PGDATABASE="none")
        with EmbeddedServer(one_stage.home, testing=True) as server:
            return server.url("a b"), str(server.socket_dir), one_stage.ask(server, "SELECT 1")

    url, socket_dir, answer = one_stage.run(body)
    assert url.startswith("postgresql://postgres@/a%20b?host=%2F")
    assert f"postgresql://postgres@/a b?host={socket_dir}&port=5432" == unquote(url)
    assert 1 == answer


def test_addresses_need_a_running_server(one_stage: Stage) -> None:
    """Asking a server that does not run for its address says so."""
    with pytest.raises(EmbeddedServerError, match=r"start\(\) it first"):
        one_stage.run(lambda: EmbeddedServer(one_stage.home).url())
    one_stage.prepare()
    with pytest.raises(EmbeddedServerError, match="does not run"):
        one_stage.run(lambda: EmbeddedServer(one_stage.home).connect_kwargs())
    assert one_stage.home / "pgdata" == one_stage.run(lambda: EmbeddedServer(one_stage.home).data_dir)
    assert one_stage.home / "log" == one_stage.run(lambda: EmbeddedServer(one_stage.home).log_path)


def test_a_database_is_made_once(one_stage: Stage) -> None:
    """Four processes that ensure one database at once all succeed, with the name taken literally."""
    one_stage.prepare()
    name = 'odd "name"; --'

    def ensure(line: Line) -> None:
        with EmbeddedServer(one_stage.home, testing=True) as server:
            line.tell()
            line.wait()
            server.ensure_database(name)
            server.ensure_database(name)
            line.tell(one_stage.ask(server, "SELECT current_database()", name))
            line.wait()

    children = [one_stage.spawn(ensure) for _ in range(4)]
    for child in children:
        child.receive()
    for child in children:
        child.tell()
    assert [name] * 4 == [child.receive() for child in children]


@pytest.mark.parametrize("name", ["", "nul\0", "ä" * 32, "\ud800", 5, None])
def test_a_database_name_must_be_possible(one_stage: Stage, name: Any) -> None:
    """A name that PostgreSQL would refuse or cut is refused before anything is asked."""
    with pytest.raises(InvalidInput, match="database's name"):
        one_stage.run(lambda: EmbeddedServer(one_stage.home).ensure_database(name))

"""Failures that the embedded server survives: killed processes, stale files, reused pids, hanging neighbours."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store.core.errors import ConnectionFailed, EmbeddedServerError
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer, locks, start, supervisor
from myloware_store.embedded.binaries import find_binaries
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.embedded.conftest import Line, Stage

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

psutil: Any = importlib.import_module("psutil")


def supervisors(stage: Stage) -> list[int]:
    """Return the pids of the supervisors that play on this stage."""
    return [pid for pid, command in stage.processes().items() if "embedded/supervisor.py" in command]


def reopen(stage: Stage) -> Any:
    """Open the home once more, ask something and close it."""

    def body() -> Any:
        with EmbeddedServer(stage.home, testing=True) as server:
            return stage.ask(server, "SELECT 1")

    return stage.run(body)


def test_a_killed_holder_leaves_no_server(stage: Stage) -> None:
    """After kill -9 of the only holder the server and its supervisor end by themselves."""
    stage.prepare()
    holder = stage.holder()
    holder.receive()
    holder.kill()
    stage.eventually(stage.is_clean, "server and supervisor end")
    assert 1 == reopen(stage)


def test_a_killed_holder_leaves_the_server_to_the_others(stage: Stage) -> None:
    """Kill -9 of the process that started the server does not touch it while another one holds it."""
    stage.prepare()
    starter = stage.holder()
    pid = starter.receive()
    other = stage.holder()
    other.receive()
    starter.kill()
    third = stage.holder()
    assert pid == third.receive()
    other.kill()
    third.kill()
    stage.eventually(stage.is_clean, "server and supervisor end")


def test_killed_during_initdb(stage: Stage) -> None:
    """Who is killed while the cluster is made leaves no process and nothing that is taken for a cluster."""
    starter = stage.holder()
    stage.eventually(lambda: any(stage.home.glob("pgdata.*.new/base")), "initdb is at work")
    starter.kill()
    stage.eventually(stage.is_clean, "initdb ends with who wanted it")
    assert 1 == reopen(stage)
    assert [] == list(stage.home.glob("pgdata.*"))


def test_everything_killed_during_initdb(one_stage: Stage) -> None:
    """Kill -9 of starter and supervisor in the middle of initdb leaves a home that the next one can use."""
    starter = one_stage.holder()
    one_stage.eventually(lambda: any(one_stage.home.glob("pgdata.*.new/base")), "initdb is at work")
    for pid in supervisors(one_stage):
        os.kill(pid, signal.SIGKILL)
    starter.kill()
    assert 1 == reopen(one_stage)
    assert [] == list(one_stage.home.glob("pgdata.*"))


def test_killed_during_start(one_stage: Stage) -> None:
    """Who is killed while the server starts leaves no process, and the next one starts it."""
    one_stage.prepare()
    starter = one_stage.holder()
    one_stage.eventually((one_stage.home / "control").exists, "the supervisor is about to start")
    starter.kill()
    assert 1 == reopen(one_stage)
    assert one_stage.is_clean()


@pytest.mark.parametrize("victim", ["supervisor", "server"])
def test_a_killed_server_is_started_again(stage: Stage, victim: str) -> None:
    """If the supervisor or the server is killed, no process is left, and `start` on the open object starts anew."""
    stage.prepare()

    def body(line: Line) -> None:
        server = EmbeddedServer(stage.home, testing=True)
        server.start()
        line.tell(server.pid)
        line.wait()
        server.start()
        line.tell((server.pid, stage.ask(server, "SELECT 1")))
        server.close()

    holder = stage.spawn(body)
    pid = holder.receive()
    os.kill(pid if victim == "server" else supervisors(stage)[0], signal.SIGKILL)
    stage.eventually(lambda: not stage.alive(pid), "the server is gone")
    holder.tell()
    again, answer = holder.receive()
    assert pid != again
    assert 1 == answer
    assert 0 == holder.join()
    assert stage.is_clean()


def test_a_start_does_not_take_a_dead_server_for_a_running_one(stage: Stage) -> None:
    """If the server has died and its supervisor has not noticed yet, `start` waits and starts it anew."""
    stage.prepare()

    def body(line: Line) -> None:
        server = EmbeddedServer(stage.home, testing=True)
        server.start()
        line.tell(server.pid)
        line.wait()
        server.start()
        line.tell(stage.ask(server, "SELECT 1"))
        server.close()

    holder = stage.spawn(body)
    pid = holder.receive()
    (supervisor,) = supervisors(stage)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        stage.eventually(lambda: not stage.alive(pid), "the server is gone")
        holder.tell()
        assert not holder.pipe.poll(0.2)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert 1 == holder.receive()
    assert 0 == holder.join()
    assert stage.is_clean()


def test_a_server_that_recovers_from_a_crash_stops_at_once(one_stage: Stage) -> None:
    """Asked politely while it recovers, PostgreSQL 18 waits for ever: it is ended, and recovers at the next start."""
    home = one_stage.prepare(ruin=True)

    def body(line: Line) -> None:
        server = EmbeddedServer(home, testing=True)
        server.start()
        segment = one_stage.ask(server, "SELECT pg_walfile_name(pg_current_wal_lsn())")
        with closing(psycopg2.connect(**server.connect_kwargs("postgres"))) as connection:
            log = home / "pgdata" / "pg_wal" / segment
            log.rename(log.with_name("aside"))
            os.mkfifo(log)  # who opens it to read waits: the recovery does not end
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        one_stage.eventually(lambda: "57P03" == refusal(server), "the server recovers")
        server.close()
        log.with_name("aside").rename(log)
        line.tell()

    one_stage.spawn(body).receive()
    assert 1 == reopen(one_stage)


def refusal(server: EmbeddedServer) -> str | None:
    """Return the SQLSTATE of the error with which a connection fails."""
    try:
        StoreDatabase(Settings.load(server.url("postgres"), environ={}, dotenv=None)).open_session().close()
    except ConnectionFailed as error:
        return error.sqlstate
    return None


def test_all_killed_at_once(stage: Stage) -> None:
    """After a crash of everything, files that say `ready` are not believed, and the next start recovers."""
    stage.prepare()
    holder = stage.holder()
    holder.receive()
    stage.kill_all()
    holder.kill()
    stage.eventually(stage.is_clean, "all killed")
    assert (stage.home / "pgdata" / "postmaster.pid").exists()
    assert stage.run(lambda: EmbeddedServer.running(stage.home)) is False
    assert 1 == reopen(stage)


@pytest.mark.parametrize("kind", ["reused", "zombie", "beyond"])
def test_a_stale_pid_file_names_somebody_else(one_stage: Stage, kind: str) -> None:
    """A pid file left by a crash does not hinder the start, and who has that pid now is left alone."""
    one_stage.prepare()

    def body() -> tuple[int, int | None]:
        stranger = subprocess.Popen(["true" if kind == "zombie" else "sleep", "60"], start_new_session=True)
        if kind == "zombie":
            one_stage.eventually(lambda: not one_stage.alive(stranger.pid), "the program ends, unwaited")
        pid = stranger.pid if kind != "beyond" else 2**22 + 1
        socket_dir = one_stage.home / "run"
        socket_dir.mkdir(mode=0o700, exist_ok=True)
        lines = f"{pid}\n{one_stage.home}/pgdata\n1700000000\n5432\n{socket_dir}\n\n  1234567    999999\nready   \n"
        (one_stage.home / "pgdata" / "postmaster.pid").write_text(lines)
        (socket_dir / ".s.PGSQL.5432.lock").write_text(lines)
        (one_stage.home / "server.json").write_text(json.dumps({"pid": pid, "socket_dir": str(socket_dir)}))
        with EmbeddedServer(one_stage.home, testing=True) as server:
            answer = one_stage.ask(server, "SELECT 1")
            assert server.pid != pid
        status = stranger.poll()
        stranger.kill()
        stranger.wait()
        return answer, status

    assert (1, 0 if kind == "zombie" else None) == one_stage.run(body)


def test_a_stopped_server_still_ends(stage: Stage) -> None:
    """A postmaster frozen by SIGSTOP is woken and ended by the last close."""
    stage.prepare()

    def body() -> None:
        with EmbeddedServer(stage.home, testing=True) as server:
            os.kill(server.pid, signal.SIGSTOP)

    began = time.monotonic()
    stage.run(body)
    assert time.monotonic() - began < supervisor.ESCALATION[0][1]
    assert stage.is_clean()


def test_a_supervisor_told_to_end_ends_the_server(stage: Stage) -> None:
    """SIGTERM to the supervisor, as at the end of a service or a machine, stops the server in order."""
    stage.prepare()
    holder = stage.holder()
    holder.receive()
    os.kill(supervisors(stage)[0], signal.SIGTERM)
    stage.eventually(lambda: stage.run(lambda: not EmbeddedServer.running(stage.home)), "the server stops")
    assert not (stage.home / "pgdata" / "postmaster.pid").exists()
    holder.tell()
    assert 0 == holder.join()


def serve_by_hand(home: Path, *, lock: int | None = None) -> subprocess.Popen[bytes]:
    """Start a server on a home's cluster without a supervisor, and wait until it is ready."""
    command = [str(find_binaries() / "postgres"), "-D", str(home / "pgdata"), "-k", str(home), "-h", ""]
    locks = [] if lock is None else [lock]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=locks)
    file = home / "pgdata" / "postmaster.pid"
    while not (file.exists() and file.read_text().rstrip().endswith("ready")):
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_a_server_of_someone_else_is_left_alone(one_stage: Stage) -> None:
    """A server that was started by hand on our cluster is neither joined nor stopped: the error names it."""
    home = one_stage.prepare()

    def body() -> tuple[int, str, int | None, bool]:
        process = serve_by_hand(home)
        with pytest.raises(EmbeddedServerError, match="not started from here") as caught:
            EmbeddedServer(home, testing=True).start()
        answer = process.pid, str(caught.value), process.poll(), EmbeddedServer.down(home)
        process.send_signal(signal.SIGINT)
        process.wait()
        return answer

    pid, message, status, downed = one_stage.run(body)
    assert f"pid {pid}" in message
    assert (None, False) == (status, downed)


@pytest.mark.parametrize("how", ["start", "down"])
def test_a_server_without_its_supervisor_is_stopped(
    one_stage: Stage, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a server outlives its supervisor, the next start or `down` asks it to stop."""
    home = one_stage.prepare()
    monkeypatch.setattr(start, "DEAF", 0.1)

    def body() -> tuple[int, bool]:
        lock = locks.open_lock(home / "server.lock")
        assert locks.try_lock(lock)
        orphan = serve_by_hand(home, lock=lock)
        os.close(lock)
        assert EmbeddedServer.running(home)
        if how == "down":
            EmbeddedServer.down(home)
        else:
            with EmbeddedServer(home, testing=True) as server:
                one_stage.ask(server, "SELECT 1")
                assert orphan.pid != server.pid
        return orphan.wait(), EmbeddedServer.running(home)

    assert (0, False) == one_stage.run(body)


@pytest.mark.parametrize("file", ["start.lock", "users.lock", "server.lock"])
def test_every_wait_ends(one_stage: Stage, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that a hung process never gives back ends in an error, and not in a hang."""
    home = one_stage.prepare()
    monkeypatch.setattr(locks, "PATIENCE", 0.3)

    def body() -> None:
        lock = locks.open_lock(home / file)
        assert locks.try_lock(lock)
        EmbeddedServer(home, testing=True).start()

    with pytest.raises(EmbeddedServerError, match=r"Waited 0 s|not ready after 0 s"):
        one_stage.run(body)


def test_a_stop_that_takes_too_long_is_an_error(one_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the supervisor does not answer, `close` says so with the end of the log."""
    home = one_stage.prepare()
    monkeypatch.setattr(start, "STOP_PATIENCE", 0.3)

    def body(line: Line) -> None:
        server = EmbeddedServer(home, testing=True)
        server.start()
        line.tell()
        line.wait()
        server.close()

    holder = one_stage.spawn(body)
    holder.receive()
    (supervisor,) = supervisors(one_stage)
    os.kill(supervisor, signal.SIGSTOP)
    holder.tell()
    with pytest.raises(EmbeddedServerError, match=r"(?s)did not stop within 0 s.*ready to accept connections"):
        holder.receive()
    os.kill(supervisor, signal.SIGCONT)


def test_a_server_that_cannot_start_tells_why(one_stage: Stage) -> None:
    """The error for a broken configuration quotes PostgreSQL's log, of this start only."""
    home = one_stage.prepare(ruin=True)
    with (home / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    (home / "log").write_text("an old story\n")
    if one_stage.plain:
        os.chown(home / "log", one_stage.plain.uid, one_stage.plain.gid)

    with pytest.raises(EmbeddedServerError, match=r"(?s)did not start.*no_such_setting") as caught:
        one_stage.run(lambda: EmbeddedServer(home, testing=True).start())
    assert "old story" not in str(caught.value)


def test_nothing_of_our_environment_reaches_the_server(one_stage: Stage) -> None:
    """The server's environment is its own: no PG*, no LD_*, no secret of the process that started it."""
    home = one_stage.prepare()

    def body() -> dict[str, str]:
        os.environ.update(PGPORT="1", PGDATA="/nowhere", LD_BIND_NOW="1", LANG="tr_TR.UTF-8", API_KEY="secret")
        with EmbeddedServer(home, testing=True) as server:
            found: dict[str, str] = psutil.Process(server.pid).environ()
            return found

    assert {"PATH", "LC_ALL"} == set(one_stage.run(body))


def test_the_server_listens_on_its_socket_only(one_stage: Stage) -> None:
    """No TCP port is opened, and no account but ours can enter the socket's folder."""
    home = one_stage.prepare()

    def body() -> tuple[Any, list[int], int]:
        with EmbeddedServer(home, testing=True) as server:
            kinds = {item.family for item in psutil.Process(server.pid).net_connections("all")}
            addresses = one_stage.ask(server, "SHOW listen_addresses")
            return addresses, sorted(kinds - {socket.AF_UNIX}), server.socket_dir.stat().st_mode & 0o777

    assert ("", [], 0o700) == one_stage.run(body)


def test_the_profiles_differ_in_durability_only(one_stage: Stage) -> None:
    """`testing` turns fsync off; a durable start of the same home turns it on again and syncs the cluster first."""
    home = one_stage.prepare(ruin=True)

    def settings(*, testing: bool) -> str:
        with EmbeddedServer(home, testing=testing) as server:
            names = ("fsync", "synchronous_commit", "full_page_writes", "TimeZone", "max_connections")
            return " ".join(str(one_stage.ask(server, f"SHOW {name}")) for name in names)

    assert "off off off UTC 100" == one_stage.run(lambda: settings(testing=True))
    assert (home / "unsynced").exists()
    assert "on on on UTC 100" == one_stage.run(lambda: settings(testing=False))
    assert not (home / "unsynced").exists()


def test_a_small_shm_is_not_used(one_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """If /dev/shm is as small as in containers, parallel work keeps its memory elsewhere."""
    home = one_stage.prepare()
    monkeypatch.setattr(start, "SHM_NEEDED", 2**62)

    def body() -> Any:
        with EmbeddedServer(home, testing=True) as server:
            return one_stage.ask(server, "SHOW dynamic_shared_memory_type")

    assert "mmap" == one_stage.run(body)


def test_who_joins_takes_the_running_server_as_it_is(one_stage: Stage) -> None:
    """A durable opener of a running testing server gets that server, unchanged."""
    home = one_stage.prepare()
    holder = one_stage.holder()
    holder.receive()

    def body() -> Any:
        with EmbeddedServer(home, testing=False) as server:
            return one_stage.ask(server, "SHOW fsync")

    assert "off" == one_stage.run(body)


def test_the_log_stays_small_and_discreet(one_stage: Stage) -> None:
    """A large log is moved at a start and emptied while running; it contains no failed statements."""
    home = one_stage.prepare()

    def body() -> tuple[int, int, str]:
        (home / "log").write_bytes(b"x" * (start.LOG_LIMIT + 1))
        with EmbeddedServer(home, testing=True) as server:
            aside = (home / "log.1").stat().st_size
            with pytest.raises(Exception, match="division by zero"):
                one_stage.ask(server, "SELECT 1/0 AS secret_figure")
            said = server.log_path.read_text()
            with server.log_path.open("ab") as log:
                log.write(b"x" * (supervisor.LOG_LIMIT + 1))
            one_stage.eventually(lambda: server.log_path.stat().st_size < 1024, "the log is emptied")
            return aside, server.log_path.stat().st_mode & 0o777, said

    aside, mode, said = one_stage.run(body)
    assert start.LOG_LIMIT < aside
    assert 0o600 == mode
    assert "ready to accept connections" in said
    assert "secret_figure" not in said


def test_a_python_host_that_is_no_python_still_finds_one(one_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a host such as uWSGI, `sys.executable` is the host; the supervisor then runs beside `sys.exec_prefix`."""
    python = one_stage.plain.python if one_stage.plain else sys.executable
    (one_stage.folder / "bin").mkdir()
    (one_stage.folder / "bin" / "python3").symlink_to(python)
    one_stage.prepare()

    def body() -> Any:
        sys.executable, sys.exec_prefix = "/usr/sbin/uwsgi", str(one_stage.folder)
        with EmbeddedServer(one_stage.home, testing=True) as server:
            return one_stage.ask(server, "SELECT 1")

    assert 1 == one_stage.run(body)

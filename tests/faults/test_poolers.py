"""PgBouncer in its three modes, before a server that is killed under load."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from myloware_store import ConnectionFailed, Settings
from myloware_store.db.database import StoreDatabase
from tests.integration.conftest import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.faults.conftest import Load, Server

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CONFIGURATION = """
[databases]
myloware = host={host} port=5432 dbname=myloware user=postgres
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = any
pool_mode = {mode}
default_pool_size = 5
server_login_retry = 0.1
ignore_startup_parameters = extra_float_digits
"""


@pytest.fixture
def pooled(prepared: Callable[..., Server], place: Path) -> Iterator[Callable[[str], tuple[Server, str]]]:
    """Give a function that starts a server and PgBouncer in a mode before it, and gives its URL."""
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str) -> tuple[Server, str]:
        server = prepared().start()
        owner = server.data.stat()
        folder = place / "pooler"
        folder.mkdir()
        (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(host=server.data, folder=folder, mode=mode))
        os.chown(folder, owner.st_uid, owner.st_gid)
        command = [str(PROGRAM), "--quiet", str(folder / "pgbouncer.ini")]
        account = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        started.append(subprocess.Popen(command, **account))  # type: ignore[call-overload]
        until((folder / ".s.PGSQL.6432").exists)
        return server, f"postgresql://postgres@/myloware?host={folder}&port=6432"

    yield start
    for process in started:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("told", ["", "&pgbouncer=true"])
def test_no_acknowledged_write_is_lost(
    pooled: Callable[[str], tuple[Server, str]],
    loading: Callable[..., AbstractContextManager[Load]],
    mode: str,
    told: str,
) -> None:
    """Whether the library was told of the pooler or not."""
    server, url = pooled(mode)
    with loading(url + told) as load:
        for _ in range(3):
            server.kill()
            server.start()
            load.goes_on()
    assert [] == load.lost(server)


def test_statement_mode_is_refused(pooled: Callable[[str], tuple[Server, str]]) -> None:
    """A transaction is one typed error there, which names the mode."""
    _, url = pooled("statement")
    database = StoreDatabase(Settings.load(url))
    with pytest.raises(ConnectionFailed, match="PgBouncer is in statement mode"):
        database.transact(lambda: database.execute_sql("SELECT 1"))
    database.close_all()

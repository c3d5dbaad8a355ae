"""Disks that fill up under load: clients get one typed error, the server comes back, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.faults.conftest import Load, Server

SIZE = 200_000_000
DISK_FULL = "OperationalFault 53100"


@contextmanager
def small_disk(place: Path, folder: Path) -> Iterator[Path]:
    """Move a folder of a server to a file system of its own, and give a file to fill the rest of it with."""
    disk = place / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", disk], check=False)
    if done.returncode:
        pytest.skip("only root may mount a file system, and not in every container")
    try:
        owner = folder.stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        subprocess.run(["cp", "-a", folder, disk / "moved"], check=True)
        shutil.rmtree(folder)
        folder.symlink_to(disk / "moved")
        os.chown(folder, owner.st_uid, owner.st_gid, follow_symlinks=False)
        yield disk / "ballast"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(ballast: Path, spare: int) -> None:
    """Fill a file system but for so many bytes."""
    free = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - spare)


def test_a_full_disk_of_data(
    prepared: Callable[..., Server], loading: Callable[..., AbstractContextManager[Load]], place: Path
) -> None:
    """Writes are refused with SQLSTATE 53100 until there is room, and go on by themselves."""
    server = prepared()
    with small_disk(place, server.data / "base") as ballast:
        server.start()
        with loading(server.url()) as load:
            fill(ballast, spare=200_000)
            until(load.faults)
            ballast.unlink()
            load.goes_on()
            assert {DISK_FULL} == load.faults()
            server.kill()
            server.start()
            load.goes_on()
        assert [] == load.lost(server)
        server.kill()


def test_a_full_disk_of_wal(
    prepared: Callable[..., Server], loading: Callable[..., AbstractContextManager[Load]], place: Path
) -> None:
    """The server stops rather than lose a write, and comes back when there is room."""
    server = prepared(min_wal_size="32MB", wal_recycle="off")
    with small_disk(place, server.data / "pg_wal") as ballast:
        server.start()
        with loading(server.url()) as load:
            fill(ballast, spare=100_000)
            server.ask("SELECT pg_switch_wal()")
            until(server.ended)
            ballast.unlink()
            server.start()
            load.goes_on()
        assert "No space left on device" in server.log.read_text()
        assert load.lost_connections_only()
        assert [] == load.lost(server)
        server.kill()

"""How much memory the embedded server is given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from myloware_store.embedded import sizing

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


@pytest.mark.parametrize(
    ("membership", "folder", "name"),
    [
        ("0::/\n", "", "memory.max"),
        ("0::/system.slice/app.service\n", "system.slice", "memory.max"),
        ("5:devices:/\n4:memory:/docker/a:b\n0::/\n", "memory", "memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, folder: str, name: str
) -> None:
    """Of version 2 or 1, on the process's own group or one above it; `max` is none."""
    monkeypatch.setattr(sizing, "CGROUPS", tmp_path)
    monkeypatch.setattr(sizing, "MEMBERSHIP", tmp_path / "membership")
    physical = sizing.available_memory()
    assert physical == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    (tmp_path / "membership").write_text(membership)
    limit = tmp_path / folder / name
    limit.parent.mkdir(exist_ok=True)
    limit.write_text("max\n")
    assert sizing.available_memory() == physical
    limit.write_text(f"{64 * 1024**2}\n")
    assert sizing.available_memory() == 64 * 1024**2


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (GIB // 4, ("128MB", "256MB", "64MB")),
        (4 * GIB, ("682MB", "2048MB", "128MB")),
        (64 * GIB, ("1024MB", "32768MB", "512MB")),
    ],
)
def test_the_server_takes_a_modest_part(memory: int, expected: tuple[str, ...]) -> None:
    """A sixth for its own pages, up to 1 GB; what the system caches is half."""
    names = ("shared_buffers", "effective_cache_size", "maintenance_work_mem")
    assert expected == tuple(sizing.size_settings(memory, 4)[name] for name in names)


@pytest.mark.parametrize(("processors", "workers"), [(1, "0"), (2, "0"), (4, "2"), (64, "8")])
def test_a_build_leaves_a_processor(processors: int, workers: str) -> None:
    """One process leads, and a search has its own."""
    assert sizing.size_settings(GIB, processors)["max_parallel_workers"] == workers

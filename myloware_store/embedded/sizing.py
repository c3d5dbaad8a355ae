"""The settings of the embedded server that follow the size of the machine or its container."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["available_memory", "size_settings"]

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""The folder of the limits that containers and services have, and the file that names those of this process."""

MIB = 1024**2


def size_settings(memory: int, processors: int) -> dict[str, str]:
    """Return the server's settings for so many bytes of memory and so many processors.

    A scan of a table larger than a quarter of shared_buffers reads it from the system again each time: comparing 20,000
    vectors (160 MB) took 40 ms with 128 MB, and 23 ms from 640 MB on. Pages take memory only once they are used. While
    an index is built, by one process and parallel workers, a processor is left for a search.
    """
    return {
        "shared_buffers": _megabytes(memory / 6, 128, 1024),
        "effective_cache_size": _megabytes(memory / 2, 256),
        "maintenance_work_mem": _megabytes(memory / 32, 64, 512),
        "max_parallel_workers": str(min(8, max(0, processors - 2))),
        "huge_pages": "off",
        "random_page_cost": "1.1",
    }


def available_memory() -> int:
    """Return the bytes of memory of this machine, or of this process's control groups if these have less."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits()])


def _limits() -> list[int]:
    """Return the limits of the control groups, of version 2 or 1, that this process is in."""
    found = []
    with contextlib.suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
            group = Path(path)
            for part in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # no such group in this container, or "max"
                    found.append(int((root / part.relative_to("/") / name).read_text()))
    return found


def _megabytes(size: float, least: int, most: int = 1024**2) -> str:
    return f"{min(most, max(least, int(size / MIB)))}MB"

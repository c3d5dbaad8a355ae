"""The plugin's entry point: makes the fixtures known to pytest, and imports nothing but pytest.

The library is imported inside the fixtures: loaded here it would cost every pytest run its import, and hide its own
coverage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .fixtures import HOME, myloware, myloware_db, myloware_dsn, myloware_server, myloware_template, server_home

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["myloware", "myloware_db", "myloware_dsn", "myloware_server", "myloware_template"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each pytest-xdist worker the one folder whose server they share."""
    node.workerinput["myloware_home"] = str(server_home(node.config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the embedded server's folder once every worker is done with it."""
    home: Path | None = config.stash.get(HOME, None)
    if home is not None and home.exists() and not hasattr(config, "workerinput"):
        import shutil

        shutil.rmtree(home)

"""The lines that a command prints so that one can go on from there; each works as it is printed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from myloware_store.errors import EmbeddedServerError

if TYPE_CHECKING:
    from myloware_store.settings import Settings

__all__ = ["down_line", "psql_line", "python_lines", "this_command"]

_NAME = "myloware-store"
_PROGRAM = """\
from myloware_store import Store, WorkOrder
store = Store.open({url})
for order in WorkOrder.select().order_by(WorkOrder.created_at): print(order.tenant_id, order.id, order.status)

store.close()"""


def this_command() -> str:
    """Return how to call this command line from the shell it was called from."""
    found = shutil.which(_NAME)
    for script in (Path(sys.argv[0]), Path(sys.executable).with_name(_NAME)):
        if script.name == _NAME and script.is_file():
            return _NAME if found and script.samefile(found) else shlex.quote(str(script))
    return f"{shlex.quote(sys.executable)} -m myloware_store"


def down_line(settings: Settings) -> str:
    """Return the line that stops an embedded server."""
    home = settings.embedded_home
    option = "" if home == Path.cwd() / ".myloware" else f" --url {shlex.quote(f'embedded:{home}')}"
    return f"{this_command()} down{option}"


def psql_line(settings: Settings, command: str = "") -> str | None:
    """Return the line that opens psql on a running database; None where there is no psql.

    Args:
        settings: The database; its password is not part of the line.
        command: SQL to run, instead of the prompt.
    """
    psql = _psql()
    option = f" -c {shlex.quote(command)}" if command else ""
    return f"{shlex.quote(psql)} {shlex.quote(settings.libpq_url)}{option}" if psql else None


def python_lines(settings: Settings) -> str:
    """Return a short program that reads from the database."""
    url = repr(f"embedded:{settings.embedded_home}") if settings.embedded else ""
    return _PROGRAM.format(url=url)


def _psql() -> str | None:
    """Return a psql that runs: the system's (on Debian that may be a wrapper around nothing), else the embedded one."""
    found = shutil.which("psql")
    if found:
        try:
            subprocess.run([found, "--version"], check=True, capture_output=True, timeout=30)  # noqa: S603  the psql on PATH
        except (OSError, subprocess.SubprocessError):
            pass
        else:
            return "psql"
    from myloware_store.embedded import find_binaries

    try:
        program = find_binaries() / "psql"
    except EmbeddedServerError:
        return None
    return str(program) if program.is_file() else None

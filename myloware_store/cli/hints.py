"""The lines that a command prints for the next steps; each works as printed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from myloware_store.core.errors import EmbeddedServerError

if TYPE_CHECKING:
    from uuid import UUID

    from myloware_store.settings import Settings

__all__ = ["look_at_orders", "look_at_passages", "this_command"]

_NAME = "myloware-store"
# These lines work in a shell, in a file and in the interactive Python.
_ORDERS = """\
from myloware_store import Store, WorkOrder
store = Store.open({url})
for order in WorkOrder.select().order_by(WorkOrder.created_at): print(order.tenant_id, order.id, order.status)

store.close()"""
_PASSAGES = """\
from myloware_store import HashingEmbedder, Store
store = Store.open({url})
with store.tenant({tenant!r}): hits = store.memory.similar(HashingEmbedder()([{query!r}])[0], k=3)

for hit in hits: print(round(hit.similarity, 2), hit.metadata, hit.content[:100])

store.close()"""
# In double quotes for the shell: it contains nothing that the shell expands.
_ITEMS = """ -c "SELECT type, status, attempt_count, result ->> 'title' AS title FROM work_items\
 WHERE work_order_id = '{}'\""""


def this_command() -> str:
    """Return a command that runs this command line in the user's shell, in any folder."""
    found = shutil.which(_NAME)
    for script in (Path(sys.argv[0]), Path(sys.executable).with_name(_NAME)):
        if script.name == _NAME and script.is_file():
            return _NAME if found and script.samefile(found) else shlex.quote(str(script.absolute()))
    return f"{shlex.quote(sys.executable)} -m myloware_store"


def look_at_orders(settings: Settings) -> dict[str, str]:
    """Return the next steps for a running database: `psql` and `python` to look at it, `down` to stop its server."""
    return _lines(settings, "", _ORDERS)


def look_at_passages(settings: Settings, *, order_id: UUID, tenant: str, query: str) -> dict[str, str]:
    """Return the next steps after a demonstration: `psql` lists its items, `python` repeats its query."""
    return _lines(settings, _ITEMS.format(order_id), _PASSAGES, tenant=tenant, query=query)


def _lines(settings: Settings, option: str, program: str, **values: str) -> dict[str, str]:
    psql, home = _psql(), settings.embedded_home
    lines = {"psql": f"{shlex.quote(psql)} {shlex.quote(settings.libpq_url)}{option}"} if psql else {}
    lines["python"] = program.format(url=repr(f"embedded:{home}") if settings.embedded else "", **values)
    if settings.embedded:
        lines["down"] = f"{this_command()} down --url {shlex.quote(f'embedded:{home}')}"
    return lines


def _psql() -> str | None:
    """Return a psql that runs: the system's (on Debian it may be a wrapper without a psql), else the embedded one."""
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

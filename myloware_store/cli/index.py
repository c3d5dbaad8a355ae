"""`myloware-store index`: how the vector index is, and what makes it good again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from myloware_store.cli.options import Given, example, pass_given, where_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import IndexChange
    from myloware_store.memory.index import MemoryIndex
    from myloware_store.memory.index.session import Progress
    from myloware_store.settings import Settings

__all__ = ["index"]

DONE, FINDING = 0, 1


@click.group(epilog=example("myloware-store index status", "myloware-store index ensure --target-recall 0.98"))
def index() -> None:
    """Look after the vector index of the memory.

    Searches are right whatever its state: it decides how fast they are. After a large load, and now and then, run
    `index ensure`: it does what is needed. No one who reads or writes meanwhile is kept waiting.
    """


@index.command(epilog=example("myloware-store index status"))
@where_options
@pass_given
def status(given: Given) -> int:
    """Say how the index is.

    Exit 1 where `index ensure` has something to do.
    """
    from myloware_store.cli import index_reports

    with _reached(given) as (settings, found):
        report = found.status()
    index_reports.status(settings, report, as_json=given.json)
    return FINDING if report.stale else DONE


@index.command(epilog=example("myloware-store index ensure", "myloware-store index ensure --target-recall 0.98"))
@where_options
@click.option(
    "--target-recall",
    type=float,
    default=0.95,
    show_default=True,
    help="The share of the exact answer that a search shall find.",
)
@pass_given
def ensure(given: Given, *, target_recall: float) -> int:
    """Do what the index needs to be good, and nothing where it is.

    It is built, measured or tuned, and what killed builds have left is dropped.
    """
    return _change(given, lambda found, tell: found.ensure(target_recall, progress=tell))


@index.command(epilog=example("myloware-store index rebuild"))
@where_options
@pass_given
def rebuild(given: Given) -> int:
    """Build the index anew, and measure it."""
    return _change(given, lambda found, tell: found.rebuild(progress=tell))


@index.command(epilog=example("myloware-store index swap hnsw"))
@where_options
@click.argument("method", type=click.Choice(["ivfflat", "hnsw"]))
@pass_given
def swap(given: Given, *, method: str) -> int:
    """Build the index anew as METHOD, and measure it."""
    kind: Any = method
    return _change(given, lambda found, tell: found.swap(kind, progress=tell))


def _change(given: Given, work: Callable[[MemoryIndex, Progress], IndexChange]) -> int:
    from myloware_store.cli import index_reports
    from myloware_store.cli.console import progress

    with _reached(given) as (settings, found), progress() as tell:
        change = work(found, tell)
    index_reports.change(settings, change, as_json=given.json)
    return FINDING if change.status.stale else DONE


@contextmanager
def _reached(given: Given) -> Iterator[tuple[Settings, MemoryIndex]]:
    from myloware_store.memory.engine import Memory
    from myloware_store.ops.bring_up import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database:
        yield target.settings, Memory(database).index

"""`myloware-store index`: show the state of the vector index, and improve it; index the contents of work items."""

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
KINDS = ("number", "text")


@click.group(epilog=example("myloware-store index status", "myloware-store index ensure --target-recall 0.98"))
def index() -> None:
    """Maintain the indexes of memory and of work items.

    They make searches fast; results are correct whatever their state. Workers, and stores on the embedded server, look
    after the vector index of the memory. Without them, run `index ensure` after a large load, and from time to time.
    Readers and writers don't wait for it.
    """


@index.command(epilog=example("myloware-store index status"))
@where_options
@pass_given
def status(given: Given) -> int:
    """Show the state of the index.

    Exit 1 if `index ensure` has something to do.
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
    help="The share of the exact answer that a search must find.",
)
@pass_given
def ensure(given: Given, *, target_recall: float) -> int:
    """Build, tune or re-measure the index if needed.

    This also drops the leftovers of killed builds.
    """
    return _change(given, lambda found, show: found.ensure(target_recall, progress=show))


@index.command(epilog=example("myloware-store index rebuild"))
@where_options
@pass_given
def rebuild(given: Given) -> int:
    """Rebuild the index, and measure it."""
    return _change(given, lambda found, show: found.rebuild(progress=show))


@index.command(epilog=example("myloware-store index swap hnsw"))
@where_options
@click.argument("method", type=click.Choice(["ivfflat", "hnsw"]))
@pass_given
def swap(given: Given, *, method: str) -> int:
    """Rebuild the index as METHOD, and measure it."""
    kind: Any = method
    return _change(given, lambda found, show: found.swap(kind, progress=show))


@index.command(
    epilog=example("myloware-store index metadata amount", "myloware-store index metadata invoice.due --kind text")
)
@where_options
@click.argument("path")
@click.option("--kind", type=click.Choice(KINDS), default="number", show_default=True, help="What filters compare.")
@click.option("--drop", is_flag=True, help="Drop the index.")
@pass_given
def metadata(given: Given, *, path: str, kind: str, drop: bool) -> int:
    """Index the values at a PATH of the metadata, for filters by order.

    PATH is the part after `metadata.` in a filter. `index status` lists these indexes.
    """
    from myloware_store.cli import index_reports
    from myloware_store.cli.console import progress
    from myloware_store.memory.index.metadata import build_metadata_index, drop_metadata_index
    from myloware_store.ops.history import require_current
    from myloware_store.ops.target import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database, progress() as show:
        require_current(database)
        if drop:
            index_reports.dropped(target.settings, drop_metadata_index(database, path, kind), as_json=given.json)
        else:
            built = build_metadata_index(database, path, kind, show)
            index_reports.metadata(target.settings, built, as_json=given.json)
    return DONE


@index.command(epilog=example("myloware-store index items"))
@where_options
@pass_given
def items(given: Given) -> int:
    """Put the contents of all ended work items into the full-text index.

    Workers do this by themselves, beside their work. Use it after a large import, or if no worker runs.
    """
    from myloware_store.cli import index_reports
    from myloware_store.cli.console import progress
    from myloware_store.ops.history import require_current
    from myloware_store.ops.target import opened, reach
    from myloware_store.work.engine import Work

    indexed = 0
    with reach(given.settings()) as target, opened(target.settings) as database, progress() as show:
        require_current(database)
        while batch := Work(database).index():
            indexed += batch
            show(f"Indexing: {indexed} items")
    index_reports.items(target.settings, indexed, as_json=given.json)
    return DONE


def _change(given: Given, work: Callable[[MemoryIndex, Progress], IndexChange]) -> int:
    from myloware_store.cli import index_reports
    from myloware_store.cli.console import progress

    with _reached(given) as (settings, found), progress() as show:
        change = work(found, show)
    index_reports.change(settings, change, as_json=given.json)
    return FINDING if change.status.stale else DONE


@contextmanager
def _reached(given: Given) -> Iterator[tuple[Settings, MemoryIndex]]:
    from myloware_store.memory.engine import Memory
    from myloware_store.ops.target import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database:
        yield target.settings, Memory(database).index

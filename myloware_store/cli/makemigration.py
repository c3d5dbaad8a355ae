"""`myloware-store makemigration`: write the migrations that lead to the models, and say what to review."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from myloware_store.cli.options import Given, example, json_option, pass_given, server_option, server_settings

if TYPE_CHECKING:
    from myloware_store.ops.makemigration import Draft

__all__ = ["makemigration"]

DONE, FINDING = 0, 1


@click.command(
    epilog=example(
        "myloware-store makemigration add_due_date --models invoices.models --directory migrations",
        "myloware-store makemigration add_due_date  # the store's own, in a clone of it",
    )
)
@click.argument("name")
@click.option("--models", metavar="MODULE", help="The module of your service's models, by default the store's.")
@click.option(
    "--directory",
    metavar="FOLDER",
    help="The folder of migrations, by default that of the store, or `migrations` with --models.",
)
@server_option
@json_option
@pass_given
def makemigration(given: Given, *, name: str, models: str | None, directory: str | None, server: str | None) -> int:
    """Write the migrations from the files to the models.

    NAME is small letters, digits and underscores. The difference is found, and the new files are tried, in a scratch
    database. Exit 1 if a part of it must be written by hand.
    """
    from myloware_store.cli.console import progress
    from myloware_store.ops import makemigration as work

    sys.path.insert(0, "")  # as for `python -m`
    with progress() as show:
        show("Comparing in a scratch database")
        draft = work.makemigration(name, models=models, directory=directory, server=server_settings(server))
    _report(draft, own=models is None, as_json=given.json)
    return FINDING if draft.unexpressed else DONE


def _report(draft: Draft, *, own: bool, as_json: bool) -> None:
    from myloware_store.cli.console import Screen, print_json

    files = list(map(str, draft.files))
    if as_json:
        print_json({"files": files, "review": draft.review, "unexpressed": draft.unexpressed})
        return
    screen = Screen()
    for file in files:
        screen.verbatim(f"Wrote {file}")
    if draft.unexpressed:
        screen.line("\nWrite these by hand:")
        for key, reason in draft.unexpressed.items():
            screen.line(f"- {key}: {reason}")
    if draft.review:
        screen.line("\nReview:")
        for note in draft.review:
            screen.line(f"- {note}")
    if files:
        again = ", run `python -m myloware_store.ops.catalog`" if own else ""
        screen.line(f"\nNext: read the files{again}, and run the tests.")
    elif not draft.unexpressed:
        screen.line("Nothing to do: the migrations lead to the models.")

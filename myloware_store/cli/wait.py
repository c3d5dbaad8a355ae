"""`myloware-store wait`: for containers and CI, until the database can be used."""

from __future__ import annotations

import click

from myloware_store.cli.options import Given, example, pass_given, where_options

__all__ = ["wait"]

DONE = 0


@click.command(epilog=example("myloware-store wait", "myloware-store wait --for reachable --timeout 120"))
@where_options
@click.option("--timeout", type=float, default=60.0, show_default=True, help="How many seconds to wait.")
@click.option(
    "--for",
    "what",
    type=click.Choice(["migrated", "reachable"]),
    default="migrated",
    show_default=True,
    help="What to wait for: the migrations of this version, or only a connection.",
)
@pass_given
def wait(given: Given, *, timeout: float, what: str) -> int:
    """Wait until the database is reachable and migrated.

    Exit 1 if it is not in time. Exit 2 at once if waiting cannot help: the password or the role is refused, the
    address is wrong, or the database is newer than this version. `wait` starts and migrates nothing.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.consent import Refused
    from myloware_store.cli.console import Screen, print_json, progress
    from myloware_store.core.errors import SchemaMismatch
    from myloware_store.ops.waiting import wait_until_ready

    with progress() as show:
        try:
            report = wait_until_ready(given.settings(), timeout=timeout, migrated=what == "migrated", progress=show)
        except SchemaMismatch as error:
            raise Refused(str(error)) from None
    address = reports.name_of(report.settings)
    if given.json:
        print_json({"url": address, what: True, "seconds": round(report.seconds, 3)})
    else:
        Screen().facts({"Database": address, "State": f"{what}, after {report.seconds:.1f} s"})
    return DONE

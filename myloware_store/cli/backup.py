"""`myloware-store backup`, `verify-backup` and `restore`, and their reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from myloware_store.cli.options import Given, example, name_option, pass_given, where_options, yes_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from myloware_store.cli.console import Screen
    from myloware_store.ops.backup import Difference, Manifest

__all__ = ["backup", "restore", "verify_backup"]

DONE, FINDING = 0, 1
_MEGABYTE = 1_000_000


@click.command(epilog=example("myloware-store backup store.backup", "myloware-store backup --overwrite store.backup"))
@where_options
@click.argument("file", type=click.Path())
@click.option("--overwrite", is_flag=True, help="Replace an existing FILE.")
@pass_given
def backup(given: Given, *, file: str, overwrite: bool) -> int:
    """Write the whole database to FILE.

    FILE has pg_dump's custom format, and behind it the number of rows and a checksum of every table, of the same
    snapshot. It gets its name when it has been read back whole. Only its owner can read it.

    The database is written whole, whatever schema the URL names; roles belong to the server, and are not part of it.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.console import Screen, print_json, progress
    from myloware_store.ops.backup import backup as work
    from myloware_store.ops.target import reach

    with reach(given.settings()) as target, progress() as show:
        report = work(target.settings, file, overwrite=overwrite, progress=show)
    if given.json:
        facts = {"file": report.path, "bytes": report.bytes, **_facts(report.manifest)}
        print_json({"url": reports.name_of(target.settings), **facts})
        return DONE
    screen = Screen()
    size = f"{report.bytes / _MEGABYTE:.1f} MB"
    screen.facts(
        {"Database": reports.name_of(target.settings), "File": f"{report.path}, {size}", **_rows(report.manifest)}
    )
    return DONE


@click.command(
    "verify-backup",
    epilog=example("myloware-store verify-backup store.backup", "myloware-store verify-backup --restore store.backup"),
)
@where_options
@click.argument("file", type=click.Path())
@click.option(
    "--restore",
    "restored",
    is_flag=True,
    help="Also restore it to a temporary database on the server that is configured, else on a temporary server.",
)
@pass_given
def verify_backup(given: Given, *, file: str, restored: bool) -> int:
    """Check that a backup is whole.

    It reads every byte of FILE; no server is needed. With --restore, it also compares the catalog, the number of rows
    and the checksums of a restored copy. Exit 1 if the backup is damaged or the copy differs.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.console import Screen, print_json, progress
    from myloware_store.ops.backup import verify_backup as work

    with progress() as show:
        report = work(file, target=given.settings() if restored else None, progress=show)
    if given.json:
        facts = {"restored": report.restored, "differences": reports.as_dicts(report.differences)}
        print_json({"file": report.path, **_facts(report.manifest), **facts})
    else:
        screen = Screen()
        checked = "whole, and its restored copy equal" if report.restored else "whole"
        verdict = "the restored copy differs" if report.differences else checked
        screen.facts({"File": f"{report.path}, {verdict}", **_rows(report.manifest)})
        _list(screen, report.differences)
    return FINDING if report.differences else DONE


@click.command(
    epilog=example(
        "myloware-store restore store.backup",
        "myloware-store restore --replace --yes --database myloware store.backup",
    )
)
@where_options
@click.argument("file", type=click.Path())
@click.option("--replace", is_flag=True, help="Put it in the place of a database that is not empty (asks first).")
@click.option("--no-owner", is_flag=True, help="Leave out owners, grants and row-level security.")
@yes_option
@name_option
@pass_given
def restore(given: Given, *, file: str, replace: bool, no_owner: bool, yes: bool, database: str | None) -> int:
    """Restore a backup, and compare the result.

    The database must be empty, or not exist yet. All of FILE is restored, or nothing: exit 1 if the catalog, the
    number of rows or a checksum would differ from the backup, or if the schema is not the one of this version.

    --replace asks for the database's name, also in production. It restores to a new database first, ends the sessions
    of the old one, and renames both; the old one stays under its new name.
    """
    from myloware_store.cli import hints, reports
    from myloware_store.cli.consent import require_name
    from myloware_store.cli.console import Screen, print_json, progress
    from myloware_store.ops.backup import restore as work

    settings = given.settings()
    if replace:
        require_name(settings, "replace all data in", yes=yes, database=database)
    with progress() as show:
        report = work(settings, file, replace=replace, owners=not no_owner, progress=show)
    findings = report.validation.findings if report.validation else ()
    if given.json:
        facts = {
            "restored": not report.differences,
            "differences": reports.as_dicts(report.differences),
            "replaced": report.replaced,
            "findings": reports.as_dicts(findings),
        }
        print_json({"url": reports.name_of(report.settings), "file": file, **_facts(report.manifest), **facts})
        return FINDING if report.differences or findings else DONE
    screen = Screen()
    rows = {"Database": reports.name_of(report.settings), "Backup": file, **_rows(report.manifest)}
    if report.differences:
        screen.facts({**rows, "Restored": "nothing, because the result would differ from the backup"})
        _list(screen, report.differences)
        return FINDING
    screen.facts({**rows, "Restored": "equal to the backup"})
    if report.replaced:
        screen.line(f"\nThe old database is now {report.replaced}. Drop it when you don't need it any more.")
    command = hints.this_command()
    if findings:
        screen.line(f"\nThe schema is not the one of this version: `{command} validate` says what to do.")
    screen.line(f"\n`{command} index ensure` measures the vector index again; workers do so by themselves.")
    return FINDING if findings else DONE


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "created_at": manifest.created_at,
        "database": manifest.database,
        "server_version": manifest.server_version,
        "migrations": manifest.contents.migrations,
        "tables": {table: rows for table, (rows, _) in manifest.contents.tables.items()},
    }


def _rows(manifest: Manifest) -> dict[str, object]:
    contents = manifest.contents
    return {
        "Made": f"{manifest.created_at} from {manifest.database}, PostgreSQL {manifest.server_version}",
        "Contents": f"{contents.rows} rows in {len(contents.tables)} tables",
    }


def _list(screen: Screen, differences: Sequence[Difference]) -> None:
    for difference in differences:
        screen.line(f"\n{difference.name}", style="bold")
        screen.line(f"- {difference.expected or 'nothing'}")
        screen.line(f"+ {difference.actual or 'nothing'}")

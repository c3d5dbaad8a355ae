"""The commands for the schema: its migrations, and what differs from it."""

from __future__ import annotations

import click

from myloware_store.cli.options import (
    Given,
    example,
    json_option,
    name_option,
    pass_given,
    server_option,
    server_settings,
    where_options,
    yes_option,
)

__all__ = [
    "baseline",
    "docs",
    "drift",
    "lint",
    "migrate",
    "migrations_path",
    "rollback",
    "status",
    "validate",
]

DONE, FINDING = 0, 1

directory_option = click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False),
    help="The folder of migrations; by default that of this package.",
)


@click.command(
    epilog=example("myloware-store migrate --plan", "myloware-store migrate", "myloware-store migrate --to 001_initial")
)
@where_options
@click.option("--plan", is_flag=True, help="Only show pending migrations, their SQL and obstacles; exit 1 if any.")
@click.option("--to", metavar="NAME", help="The last migration to apply; by default all.")
@directory_option
@pass_given
def migrate(given: Given, *, plan: bool, to: str | None, directory: str | None) -> int:
    """Apply the pending migrations.

    One process at a time migrates, under a lock and with time-outs; each migration runs in its own transaction. One
    that does not get a lock on a table in time is rolled back, and tried again for a minute.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.console import progress
    from myloware_store.ops import migrate as work
    from myloware_store.ops.target import reach

    settings = given.settings()
    if plan:
        report = work.migrate(settings, plan=True, to=to, directory=directory)
        reports.migrate(settings, report, as_json=given.json)
        return FINDING if report.pending else DONE
    with reach(settings, create=True) as target, progress() as show:
        show("Migrating")
        report = work.migrate(target.settings, to=to, directory=directory)
    reports.migrate(target.settings, report, as_json=given.json)
    return DONE


@click.command(epilog=example("myloware-store rollback", "myloware-store rollback --count 2 --yes"))
@where_options
@click.option("--count", metavar="N", type=click.IntRange(min=1), default=1, help="How many; by default one.")
@directory_option
@yes_option
@name_option
@pass_given
def rollback(given: Given, *, count: int, directory: str | None, yes: bool, database: str | None) -> int:
    """Undo the last migration (asks first).

    The data in everything that the migration made is lost. `rollback` refuses to run if MYLOWARE_ENV is production. If
    the server is not on this machine, you must type the database's name.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.consent import ROLLBACK, require_consent
    from myloware_store.ops import migrate as work
    from myloware_store.ops.history import status
    from myloware_store.ops.target import reach

    settings = given.settings()
    with reach(settings) as target:
        last = ", ".join(reversed(status(target.settings, directory=directory).applied[-count:]))
    require_consent(settings, ROLLBACK.format(last or "migrations"), yes=yes, database=database)
    undone = work.rollback(settings, count=count, directory=directory)
    reports.rollback(settings, undone, as_json=given.json)
    return DONE


@click.command(epilog=example("myloware-store baseline", "myloware-store baseline --to 001_initial"))
@where_options
@click.option("--to", metavar="NAME", help="The last migration to record; by default the last one.")
@server_option
@pass_given
def baseline(given: Given, *, to: str | None, server: str | None) -> int:
    """Record migrations of a database that exists.

    Nothing is run. The schema must be what the migrations create: exit 1 if it differs, and nothing is recorded.
    """
    from myloware_store.cli import reports
    from myloware_store.ops.drift import baseline
    from myloware_store.ops.target import reach

    with reach(given.settings()) as target:
        reports.baseline(
            target.settings, baseline(target.settings, to=to, server=server_settings(server)), as_json=given.json
        )
    return DONE


@click.command(
    epilog=example("myloware-store lint", "myloware-store lint --all", "myloware-store lint 002_add_owner --json")
)
@where_options
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Examine every migration in the folder.")
@directory_option
@pass_given
def lint(given: Given, *, names: tuple[str, ...], everything: bool, directory: str | None) -> int:
    """Find SQL in migrations that blocks or hurts.

    By default the migrations that the database lacks are examined; with NAMEs or --all, no database is needed. Exit 1
    with a list of hazards. `-- squawk-ignore RULE` in a statement permits it.
    """
    from myloware_store.cli import reports
    from myloware_store.ops.history import status
    from myloware_store.ops.lint import lint
    from myloware_store.ops.target import reach

    if not (names or everything):
        with reach(given.settings()) as target:
            names = status(target.settings, directory=directory).pending
    hazards = lint(None if everything else names, directory=directory)
    reports.lint(hazards, as_json=given.json)
    return FINDING if hazards else DONE


@click.command("migrations-path", epilog=example('pw_migrate migrate --directory "$(myloware-store migrations-path)"'))
@json_option
@pass_given
def migrations_path(given: Given) -> int:
    """Print the folder of the migrations, for pw_migrate."""
    from myloware_store.cli import reports
    from myloware_store.ops import migrate as work

    reports.path(work.migrations_path(), as_json=given.json)
    return DONE


@click.command(epilog=example("myloware-store status"))
@where_options
@directory_option
@pass_given
def status(given: Given, *, directory: str | None) -> int:
    """Show which migrations are applied.

    Exit 1 if one is pending, was edited later, or is unknown to this version, or if the schema has drifted (which is
    not examined with --directory).
    """
    from myloware_store.cli import reports
    from myloware_store.ops.history import status
    from myloware_store.ops.target import opened, reach
    from myloware_store.ops.validate import validate

    with reach(given.settings()) as target, opened(target.settings) as database:
        report = None if directory else validate(database)
        found = report.migrations if report else status(database, directory=directory)
    reports.status(target.settings, found, report.findings if report else None, as_json=given.json)
    return DONE if found.current and not (report and report.findings) else FINDING


@click.command(
    epilog=example("myloware-store drift", "myloware-store drift --to 001_initial --server postgresql:///postgres")
)
@where_options
@click.option("--to", metavar="NAME", help="Compare with what this migration leads to; by default the last applied.")
@server_option
@pass_given
def drift(given: Given, *, to: str | None, server: str | None) -> int:
    """Show how the schema differs from its migrations.

    Exit 1 if a definition differs. `validate` says how to fix it.
    """
    from myloware_store.cli import reports
    from myloware_store.ops import drift as work
    from myloware_store.ops.target import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database:
        differences = work.drift(database, to=to, server=server_settings(server))
    reports.drift(target.settings, differences, as_json=given.json)
    return FINDING if differences else DONE


@click.command(epilog=example("myloware-store validate"))
@where_options
@pass_given
def validate(given: Given) -> int:
    """Compare the database with the expected schema.

    Exit 1 with a list of differences, and how to fix them.
    """
    from myloware_store.cli import reports
    from myloware_store.ops import validate as work
    from myloware_store.ops.target import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database:
        report = work.validate(database)
    reports.validate(target.settings, report, as_json=given.json)
    return DONE if report.valid else FINDING


@click.command(epilog=example("myloware-store docs", "myloware-store docs docs/data-dictionary.md"))
@json_option
@click.argument("file", type=click.Path(dir_okay=False, writable=True), required=False)
@pass_given
def docs(given: Given, *, file: str | None) -> int:
    """Write the data dictionary, with diagrams.

    It has every table with its columns, keys, indexes and triggers, as Markdown with Mermaid diagrams; needs no
    database. Without FILE it is printed.
    """
    from myloware_store.cli import reports
    from myloware_store.ops.dictionary import data_dictionary

    reports.docs(data_dictionary(), file, as_json=given.json)
    return DONE

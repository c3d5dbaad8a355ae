"""The command line: arguments and exit codes; `ops` and the library do the work, `reports.py` prints it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from myloware_store.cli.audit import audit
from myloware_store.cli.backup import backup, restore, verify_backup
from myloware_store.cli.doctor import doctor
from myloware_store.cli.index import index
from myloware_store.cli.makemigration import makemigration
from myloware_store.cli.migrations import (
    baseline,
    docs,
    drift,
    lint,
    migrate,
    migrations_path,
    rollback,
    status,
    validate,
)
from myloware_store.cli.options import Given, example, name_option, pass_given, where_options, yes_option
from myloware_store.cli.secrets import secrets
from myloware_store.cli.tenancy import roles, tenancy
from myloware_store.cli.wait import wait

if TYPE_CHECKING:
    from myloware_store import Settings, Store

__all__ = ["cli", "main"]

DONE, FINDING = 0, 1
_MOST_NAMES = 5


@click.command(epilog=example("myloware-store up", "myloware-store up --json"))
@where_options
@click.option("--migrate", is_flag=True, help="Also migrate a configured database.")
@click.option(
    "--seed/--no-seed", default=None, help="Add sample data; by default only to an embedded database without rows."
)
@yes_option
@name_option
@pass_given
def up(given: Given, *, migrate: bool, seed: bool | None, yes: bool, database: str | None) -> int:
    """Start, migrate, seed and validate the embedded database.

    An embedded database without rows gets sample data; any other only with --seed. The server runs until `down`.

    A configured database is only validated. --migrate also migrates it, and --seed adds sample data, after asking as
    `seed` does.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.consent import SAMPLE_DATA, refuse_production, require_consent
    from myloware_store.cli.console import progress
    from myloware_store.ops.bring_up import bring_up

    settings = given.settings()
    if seed and settings.embedded:
        refuse_production(settings, SAMPLE_DATA)
    elif seed:
        require_consent(settings, SAMPLE_DATA, yes=yes, database=database)
    with progress() as show:
        report = bring_up(settings, migrate=migrate, seed=seed, show=show)
    reports.up(report, as_json=given.json)
    return DONE if report.validation.valid else FINDING


@click.command(epilog=example("myloware-store down", "myloware-store down --url embedded:/srv/store"))
@where_options
@click.option("--force", is_flag=True, help="Stop it even if programs are using it.")
@pass_given
def down(given: Given, *, force: bool) -> int:
    """Stop the embedded server of this folder; its data stays.

    `down` stops embedded servers only: for that of another folder, use --url embedded:FOLDER. A server that
    DATABASE_URL names is ignored.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.consent import Refused
    from myloware_store.embedded import EmbeddedServer

    settings = given.embedded()
    if settings is None:
        raise Refused("`down` stops embedded servers only: use --url embedded:FOLDER")
    reports.down(
        settings.embedded_home, stopped=EmbeddedServer.down(settings.embedded_home, force=force), as_json=given.json
    )
    return DONE


@click.command(
    epilog=example("myloware-store demo", 'myloware-store demo --query "which invoices are overdue?" papers/')
)
@where_options
@click.argument("paths", nargs=-1, type=click.Path(exists=True), metavar="[PATH]...")
@click.option("--query", metavar="TEXT", help="The question for memory at the end.")
@click.option("--configured", is_flag=True, help="Use the configured database, in tenant `demo` only.")
@pass_given
def demo(given: Given, *, paths: tuple[str, ...], query: str | None, configured: bool) -> int:
    """Run documents through the life cycle of a work order.

    PATHs are text and Markdown files, or folders of them; the default is a set of sample documents. They become a work
    order; one attempt fails and is retried, one result is approved, every text is remembered, and memory answers a
    query.

    The demo uses the embedded database of this folder, whose server then runs until `down`.
    """
    from myloware_store import Store, WorkOrderStatus
    from myloware_store.cli import reports
    from myloware_store.cli.consent import SAMPLE_DATA, Refused, refuse_production
    from myloware_store.cli.console import progress
    from myloware_store.demo import DEFAULT_QUERY, run_demo
    from myloware_store.demo.reading import BUNDLED, read_documents

    settings = given.settings() if configured else given.embedded()
    if settings is None:
        raise Refused("that is your own database: --configured lets the demo write to its tenant `demo`")
    refuse_production(settings, SAMPLE_DATA)
    with progress() as show:
        show("Reading")
        reading = read_documents(paths or BUNDLED)
        if reading.ignored:
            more = len(reading.ignored) - _MOST_NAMES
            names = ", ".join(reading.ignored[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
            click.echo(f"note: ignoring files that are not text or Markdown: {names}", err=True)
        show("Opening the store")
        with Store.open(settings=settings) if configured else _embedded(settings) as store:
            report = run_demo(store, reading, query=DEFAULT_QUERY if query is None else query, progress=show)
            store.keep_server()
            settings = store.settings
    reports.demo(settings, report, as_json=given.json)
    return DONE if report.status == WorkOrderStatus.COMPLETED else FINDING


@click.command(
    epilog=example(
        "myloware-store ping", "myloware-store ping --url postgresql://myloware@db.example.com/myloware --json"
    )
)
@where_options
@pass_given
def ping(given: Given) -> int:
    """Show which server answers; exit 2 if none does.

    It starts no server: if the embedded server does not run, `ping` says so.
    """
    from myloware_store.cli import reports
    from myloware_store.ops.bring_up import ping

    reports.ping(*ping(given.settings()), as_json=given.json)
    return DONE


@click.command(epilog=example("myloware-store recount"))
@where_options
@pass_given
def recount(given: Given) -> int:
    """Correct orders whose counters are wrong.

    Items that were written while triggers were off are not counted; `validate` finds such orders.
    """
    from myloware_store.cli import reports
    from myloware_store.ops.history import require_current
    from myloware_store.ops.target import opened, reach
    from myloware_store.work.engine import Work

    with reach(given.settings()) as target, opened(target.settings) as database:
        require_current(database)
        with database.atomic():
            database.execute_sql("SET LOCAL lock_timeout = '30s'")
            corrected = Work(database).recount()
    reports.recount(target.settings, corrected, as_json=given.json)
    return DONE


@click.command(epilog=example("myloware-store prune"))
@where_options
@pass_given
def prune(given: Given) -> int:
    """Delete expired documents of the memory.

    Workers do this by themselves, beside their work. Searches don't find expired documents before either.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.console import progress
    from myloware_store.memory.engine import Memory
    from myloware_store.ops.history import require_current
    from myloware_store.ops.target import opened, reach

    pruned = 0
    with reach(given.settings()) as target, opened(target.settings) as database, progress() as show:
        require_current(database)
        while batch := Memory(database).prune():
            pruned += batch
            show(f"Pruning: {pruned} documents")
    reports.prune(target.settings, pruned, as_json=given.json)
    return DONE


@click.command(epilog=example("myloware-store seed", "myloware-store seed --yes --database myloware_staging"))
@where_options
@yes_option
@name_option
@pass_given
def seed(given: Given, *, yes: bool, database: str | None) -> int:
    """Add sample data to every table (asks first).

    Existing rows stay unchanged. `seed` refuses to run if MYLOWARE_ENV is production. If the server is not on this
    machine, you must type the database's name.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.consent import SAMPLE_DATA, require_consent
    from myloware_store.ops.bring_up import put_samples
    from myloware_store.ops.target import reach

    settings = given.settings()
    require_consent(settings, SAMPLE_DATA, yes=yes, database=database)
    with reach(settings, create=True) as target:
        reports.seed(target.settings, put_samples(target), as_json=given.json)
    return DONE


@click.command(epilog=example("myloware-store reset", "myloware-store reset --yes --seed"))
@where_options
@click.option("--seed", "sample_data", is_flag=True, help="Add sample data afterwards.")
@yes_option
@name_option
@pass_given
def reset(given: Given, *, sample_data: bool, yes: bool, database: str | None) -> int:
    """Destroy all of the store's data (asks first).

    It drops the store's tables and creates them again; other objects in the database stay. `reset` refuses to run if
    MYLOWARE_ENV is production. If the server is not on this machine, you must type the database's name.
    """
    from myloware_store.cli import reports
    from myloware_store.cli.consent import DESTRUCTION, require_consent
    from myloware_store.ops import migrate as migrations
    from myloware_store.ops.bring_up import put_samples
    from myloware_store.ops.target import reach

    settings = given.settings()
    require_consent(settings, DESTRUCTION, yes=yes, database=database)
    with reach(settings, create=True) as target:
        applied = migrations.reset(target.settings).applied
        seeded = put_samples(target) if sample_data else None
    reports.reset(target.settings, applied, seeded, as_json=given.json)
    return DONE


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order of this file, which is the order of their use."""
        return list(self.commands)


@click.group(
    cls=_Group,
    epilog=example("myloware-store up", "myloware-store --url postgresql://myloware@db.example.com/myloware status"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="myloware-store", message="%(prog)s %(version)s")
@where_options
def cli() -> None:
    """The MyloWare data store: work orders, agent memory, approvals and audit in PostgreSQL.

    The database is the one that --url or --env-file names, else DATABASE_URL, else DATABASE_HOST and so on, else
    .env, else an embedded server in .myloware/ of this folder.

    Exit codes: 0 done, 1 a finding (something pending, invalid or failed) or a declined prompt, 2 wrong
    usage or no connection.
    """


# In the order of their use.
for _command in (
    *(up, down, demo, ping, wait),
    *(makemigration, lint, migrate, rollback, baseline, migrations_path),
    *(status, drift, validate, doctor, docs),
    *(backup, verify_backup, restore),
    *(roles, tenancy, secrets, audit),
    *(index, recount, prune, seed, reset),
):
    cli.add_command(_command)


def _embedded(settings: Settings) -> Store:
    from myloware_store import EmbeddedServerError, Store

    try:
        return Store.open(settings=settings)
    except EmbeddedServerError as error:
        message = f"{error}\nThe demo uses the server of DATABASE_URL only with --configured."
    raise EmbeddedServerError(message)


def main() -> None:
    """Run the command line and exit with its code."""
    from myloware_store.cli.exits import run

    sys.exit(run(cli, sys.argv[1:]))

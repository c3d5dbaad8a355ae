"""`myloware-store roles` and `tenancy`: who may do what, and whether the database keeps tenants apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from myloware_store.cli.options import Given, example, pass_given, where_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.ops.roles import RoleNames
    from myloware_store.ops.tenancy import Tenancy
    from myloware_store.settings import Settings

__all__ = ["roles", "tenancy"]

DONE, FINDING = 0, 1
_NAMES = (
    click.option("--owner", metavar="NAME", default="myloware_owner", help="The role that owns the tables."),
    click.option("--app", metavar="NAME", default="myloware_app", help="The role of services."),
    click.option("--worker", metavar="NAME", default="myloware_worker", help="The role of workers."),
    click.option("--readonly", metavar="NAME", default="myloware_readonly", help="The role of readers."),
)


def _names_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_NAMES):
        function = option(function)
    return where_options(function)


def _named(names: dict[str, str]) -> RoleNames:
    from myloware_store.ops.roles import RoleNames

    return RoleNames(**names)


@click.command(epilog=example("myloware-store roles", "myloware-store roles --apply --app billing"))
@_names_options
@click.option("--apply", is_flag=True, help="Run the statements, instead of printing them.")
@pass_given
def roles(given: Given, /, *, apply: bool, **names: str) -> int:
    """Print, or run, the SQL of separate roles.

    Only what is missing is printed, or run.

    The owner migrates, and services never log in as it. Services read and write rows; no DDL, no TRUNCATE. Workers
    claim for all tenants. Readers read. docs/tenancy.md describes the rights of each.

    Run it as a superuser or as the role that owns the tables, and again after a migration. Exit 1 if something is
    missing, or could not be done. The roles get no passwords.
    """
    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of
    from myloware_store.ops.roles import set_up_roles
    from myloware_store.ops.target import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database:
        found = set_up_roles(database, _named(names), apply=apply)
    refused = [one for one in found if one.refused]
    if given.json:
        statements = [attrs.asdict(one) for one in found]
        print_json({"url": name_of(target.settings), "applied": apply, "statements": statements})
    else:
        screen = Screen()
        for one in found:
            if one.refused is None and not apply:
                screen.verbatim(f"{one.sql};")
        for one in refused:
            screen.verbatim(f"-- not possible for this role: {one.refused}\n{one.sql};")
        if apply:
            screen.line(f"{len(found) - len(refused)} statements run, {len(refused)} refused.")
        elif not found:
            screen.line("Nothing is missing.")
    return FINDING if refused or (found and not apply) else DONE


@click.group(epilog=example("myloware-store tenancy status", "myloware-store tenancy enforce"))
def tenancy() -> None:
    """Let the database keep tenants apart.

    It does so by row-level security.

    Without it, which is the default, the library's calls keep to the tenant in force, and other statements see all
    rows.
    """


@tenancy.command(epilog=example("myloware-store tenancy enforce", "myloware-store tenancy enforce --app billing"))
@_names_options
@pass_given
def enforce(given: Given, /, **names: str) -> int:
    """Bind services and readers to the tenant in force.

    Run `roles --apply` first, and this as the owner of the tables. The owner, superusers and roles with BYPASSRLS are
    not bound. Exit 1 if something is not right afterwards.
    """
    from myloware_store.ops import tenancy as work

    return _reported(given, lambda database: work.enforce(database, _named(names)))


@tenancy.command(epilog=example("myloware-store tenancy relax"))
@where_options
@pass_given
def relax(given: Given) -> int:
    """Turn row-level security off, and remove the policies."""
    from myloware_store.ops import tenancy as work

    return _reported(given, work.relax)


@tenancy.command(epilog=example("myloware-store tenancy status", "myloware-store tenancy status --json"))
@_names_options
@pass_given
def status(given: Given, /, **names: str) -> int:
    """Show what is enforced.

    Exit 1 if a table or a role is not as `tenancy enforce` leaves it.
    """
    from myloware_store.ops import tenancy as work

    return _reported(given, lambda database: work.read_tenancy(database, _named(names)))


def _reported(given: Given, do: Callable[[Any], Tenancy]) -> int:
    from myloware_store.ops.target import opened, reach

    with reach(given.settings()) as target, opened(target.settings) as database:
        found = do(database)
    _report(target.settings, found, as_json=given.json)
    return FINDING if found.problems else DONE


def _report(settings: Settings, found: Tenancy, *, as_json: bool) -> None:
    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of

    if as_json:
        print_json({"url": name_of(settings), "enforced": found.enforced, **attrs.asdict(found)})
        return
    screen = Screen()
    made = [table for table in found.tables if table.as_made]
    bound = sorted({role for table in made for role in table.roles})
    screen.facts(
        {
            "Database": name_of(settings),
            "Tenancy": "enforced" if found.enforced else "not enforced",
            "Tables": f"{len(made)} of {len(found.tables)}",
            **({"Bound": ", ".join(bound)} if bound else {}),
        }
    )
    for problem in found.problems:
        screen.line(f"- {problem}")

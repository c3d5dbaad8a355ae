"""`myloware-store audit`: read, seal, verify, export and prune the audit trail."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from myloware_store.cli.options import Given, example, name_option, pass_given, where_options, yes_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import AuditHead, AuditLog, AuditReport
    from myloware_store.platform.audit import Audit
    from myloware_store.settings import Settings

__all__ = ["audit"]

DONE, FINDING = 0, 1
_PAGE = 1000


class _Time(click.ParamType[datetime]):
    """A date or time in ISO 8601; without an offset, in UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware datetime."""
        try:
            given = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-11-29 or 2026-11-29T12:30+01:00", param, ctx)
        return given if given.tzinfo else given.replace(tzinfo=UTC)


_FILTERS = (
    click.option("--tenant", "tenant_id", metavar="ID", help="Only this tenant's; * for tables that tenants share."),
    click.option("--actor", "user_id", metavar="NAME", help="Only what this user, service or role did."),
    click.option("--action", metavar="WORD", help="Only this action: insert, update, delete ..."),
    click.option("--type", "resource_type", metavar="TABLE", help="Only actions on this table or type of resource."),
    click.option("--id", "resource_id", metavar="ID", help="Only actions on this row or resource."),
    click.option("--since", type=_Time(), metavar="TIME", help="Only from this time on, ISO 8601."),
    click.option("--until", type=_Time(), metavar="TIME", help="Only before this time, ISO 8601."),
)
_EXPORT = (
    click.option("--export", "file", type=click.Path(dir_okay=False), help="Write the heads to this file, signed."),
    click.option(
        "--key", type=click.Path(exists=True, dir_okay=False), help="The Ed25519 private key to sign with, PEM."
    ),
)


def _with(options: tuple[Any, ...]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    def add(function: Callable[..., int]) -> Callable[..., int]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@click.group(epilog=example("myloware-store audit log --actor kim --since 2026-11-01", "myloware-store audit verify"))
def audit() -> None:
    """Read the audit trail, and prove that nobody changed it.

    docs/audit.md says what is recorded, and what a verification shows.
    """


@audit.command(epilog=example("myloware-store audit log --tenant acme --type connectors --limit 20"))
@where_options
@_with(_FILTERS)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most lines to show.")
@click.option("--after", metavar="LINE", help="Continue behind this line of an earlier output.")
@pass_given
def log(given: Given, /, **filters: Any) -> int:
    """Show audit lines, newest first."""
    with _reached(given, filters["tenant_id"]) as (settings, trail):
        lines = trail.list(**filters)
    _report_lines(settings, lines, more=len(lines) == filters["limit"], as_json=given.json)
    return DONE


@audit.command(epilog=example("myloware-store audit export --since 2026-11-01 audit.jsonl"))
@where_options
@_with(_FILTERS)
@click.argument("file", type=click.Path(dir_okay=False))
@pass_given
def export(given: Given, /, *, file: str, tenant_id: str | None, **filters: Any) -> int:
    """Write audit lines to FILE as JSON lines, by tenant, newest first."""
    from myloware_store.cli.console import progress

    written = 0
    with (
        _reached(given, tenant_id) as (settings, trail),
        progress() as show,
        Path(file).open("w", encoding="utf-8") as out,
    ):
        for tenant in [tenant_id] if tenant_id else trail.tenants():  # a tenant's lines have an index in this order
            last = None
            while lines := trail.list(tenant_id=tenant, limit=_PAGE, after=last, **filters):
                out.writelines(f"{json.dumps(_as_dict(line), ensure_ascii=False)}\n" for line in lines)
                last = lines[-1]
                written += len(lines)
                show(f"Exporting: {written} lines")
    _report(settings, {"file": file, "lines": written}, as_json=given.json)
    return DONE


@audit.command(
    epilog=example("myloware-store audit seal", "myloware-store audit seal --export heads.json --key audit.key")
)
@where_options
@_with(_EXPORT)
@pass_given
def seal(given: Given, *, file: str | None, key: str | None) -> int:
    """Seal the lines that have no seal yet; workers do this by themselves."""
    _require_both(file, key)
    with _reached(given) as (settings, trail):
        sealed = trail.seal()
        heads = trail.heads()
    _write(file, key, heads)
    facts = {"sealed": sealed, "tenants": len(heads), **({"file": file} if file else {})}
    _report(settings, facts, as_json=given.json)
    return DONE


@audit.command(epilog=example("myloware-store audit heads --export heads.json --key audit.key"))
@where_options
@_with(_EXPORT)
@pass_given
def heads(given: Given, *, file: str | None, key: str | None) -> int:
    """Show the newest seal of every tenant, to be kept elsewhere: hash, number, tenant."""
    import attrs

    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of

    _require_both(file, key)
    with _reached(given) as (settings, trail):
        found = trail.heads()
    _write(file, key, found)
    if given.json:
        print_json({"url": name_of(settings), "heads": [attrs.asdict(head) for head in found], "file": file})
        return DONE
    screen = Screen()
    for head in found:
        screen.verbatim(f"{head.hash} {head.number} {head.tenant_id}")
    if not found:
        screen.line("Nothing is sealed yet.")
    return DONE


@audit.command(epilog=example("myloware-store audit verify --heads heads.json --public-key audit.pub"))
@where_options
@click.option(
    "--heads", "file", type=click.Path(exists=True, dir_okay=False), help="Compare with heads that were exported."
)
@click.option(
    "--public-key", type=click.Path(exists=True, dir_okay=False), help="The Ed25519 public key of their signature, PEM."
)
@pass_given
def verify(given: Given, *, file: str | None, public_key: str | None) -> int:
    """Compare the audit trail with its seals; exit 1 if it was changed."""
    from myloware_store.cli.console import progress
    from myloware_store.platform.heads import read_heads

    if bool(file) != bool(public_key):
        raise click.UsageError("--heads and --public-key belong together")
    kept = read_heads(Path(file).read_bytes(), Path(public_key).read_bytes()) if file and public_key else []
    with _reached(given) as (settings, trail), progress() as show:
        report = trail.verify(heads=kept, progress=show)
    _report_verification(settings, report, heads=len(kept) if file else None, as_json=given.json)
    return DONE if report.intact else FINDING


@audit.command(epilog=example("myloware-store audit prune --before 2025-01-01"))
@where_options
@click.option("--before", type=_Time(), metavar="TIME", required=True, help="Delete what was sealed before, ISO 8601.")
@yes_option
@name_option
@pass_given
def prune(given: Given, *, before: datetime, yes: bool, database: str | None) -> int:
    """Delete old lines in whole seals (asks for the database's name).

    The seals stay, so that the rest can still be verified. The audit trail records it. The role needs DELETE on
    audit_logs, as the owner of the tables has it. `--yes` needs `--database`, too.
    """
    from myloware_store.cli.consent import PRUNING, require_name

    require_name(given.settings(), PRUNING.format(before), yes=yes, database=database)
    with _reached(given) as (settings, trail):
        deleted = trail.prune(before)
    _report(settings, {"deleted": deleted, "before": before.isoformat()}, as_json=given.json)
    return DONE


@contextmanager
def _reached(given: Given, tenant_id: str | None = None) -> Iterator[tuple[Settings, Audit]]:
    from myloware_store.db.tenancy import tenant_scope
    from myloware_store.ops.history import require_current
    from myloware_store.ops.target import opened, reach
    from myloware_store.platform.audit import Audit

    scope = tenant_scope(tenant_id) if tenant_id else nullcontext()  # what a role sees that tenancy binds
    with reach(given.settings()) as target, opened(target.settings) as database, scope:
        require_current(database)
        yield target.settings, Audit(database)


def _require_both(file: str | None, key: str | None) -> None:
    if bool(file) != bool(key):
        raise click.UsageError("--export and --key belong together")


def _write(file: str | None, key: str | None, heads: list[AuditHead]) -> None:
    from myloware_store.platform.heads import sign_heads

    if file and key:
        Path(file).write_bytes(sign_heads(heads, Path(key).read_bytes()))


def _as_dict(line: AuditLog) -> dict[str, Any]:
    values = {field.name: getattr(line, field.name) for field in type(line)._meta.sorted_fields}
    return {**values, "id": str(line.id), "created_at": line.created_at.isoformat()}


def _report(settings: Settings, facts: dict[str, Any], *, as_json: bool) -> None:
    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of

    if as_json:
        print_json({"url": name_of(settings), **facts})
    else:
        Screen().facts({"Database": name_of(settings), **{name.capitalize(): value for name, value in facts.items()}})


def _report_lines(settings: Settings, lines: list[AuditLog], *, more: bool, as_json: bool) -> None:
    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of

    after = str(lines[-1].id) if more else None
    if as_json:
        print_json({"url": name_of(settings), "lines": [_as_dict(line) for line in lines], "after": after})
        return
    screen = Screen()
    for line in lines:
        what = f"{line.action} {line.resource_type} {line.resource_id}"
        screen.verbatim(f"{line.created_at:%Y-%m-%d %H:%M:%S} {line.tenant_id} {line.user_id}: {what}")
        if line.details:
            screen.verbatim(f"  {json.dumps(line.details, ensure_ascii=False)}")
    if not lines:
        screen.line("There is no such line.")
    if after:
        screen.line(f"Continue with --after {after}")


def _report_verification(settings: Settings, report: AuditReport, *, heads: int | None, as_json: bool) -> None:
    import attrs

    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of

    if as_json:
        print_json({"url": name_of(settings), "intact": report.intact, **attrs.asdict(report)})
        return
    screen = Screen()
    screen.facts(
        {
            "Database": name_of(settings),
            "Compared": f"{report.lines} lines with {report.seals} seals of {report.tenants} tenants",
            "Without seal": f"{report.unsealed} lines",
            **({} if heads is None else {"Heads": f"{heads} compared, the signature is valid"}),
            "Findings": len(report.findings) or "none",
        }
    )
    for tenant, number in report.pruned.items():
        screen.line(f"{tenant}: the lines up to seal {number} were pruned.")
    for one in report.findings:
        of = "" if one.kind == "seal" else f"seal {one.seal}: "  # a seal's own finding names it
        screen.line(f"{one.tenant_id}: {of}{one.message}", style="bold red")

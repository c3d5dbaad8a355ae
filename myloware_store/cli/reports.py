"""The report of each command: the JSON object for programs, and the text for people."""

from __future__ import annotations

import difflib
import re
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.cli import hints
from myloware_store.cli.console import Screen, print_json
from myloware_store.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from myloware_store.demo.report import DemoItem, DemoReport
    from myloware_store.ops.bring_up import Answer, UpReport
    from myloware_store.ops.catalog import Difference
    from myloware_store.ops.lint import Hazard
    from myloware_store.ops.migrate import MigrationReport, MigrationStatus
    from myloware_store.ops.validate import Finding, ValidationReport
    from myloware_store.settings import Settings

__all__ = [
    "as_dicts",
    "baseline",
    "demo",
    "docs",
    "down",
    "drift",
    "lint",
    "migrate",
    "name_of",
    "path",
    "ping",
    "prune",
    "recount",
    "reset",
    "rollback",
    "seed",
    "status",
    "up",
    "validate",
]

_LINE_ENDS = re.compile(
    r"(?<=;) | (?=(?:BEGIN|DECLARE|ELSE|FROM|WHERE|ORDER BY|CHECK|USING|AS) )|(?<= THEN) |(?<= LOOP) "
)
_SHORT = 240
"""How many characters of an answer are shown; the best is shown in full."""


def up(report: UpReport, *, as_json: bool) -> None:
    """Report a database that was brought up, and how to look at it."""
    settings, findings = report.settings, report.validation.findings
    applied, pending = report.validation.migrations.applied, report.validation.migrations.pending
    following = hints.look_at_orders(settings) if report.validation.migrations.current else {}
    if as_json:
        facts = {
            "migrations_applied": applied,
            "migrated_now": report.migrated,
            "seeded": report.seeded,
            "valid": report.validation.valid,
            "findings": as_dicts(findings),
            "files": report.files,
            "next": following,
        }
        print_json({"url": _url(settings), **_versions(report.answer), **facts})
        return
    rows = {
        "Database": _url(settings),
        "Server": _server(report.answer),
        "Migrations": f"{len(applied)} applied, {len(report.migrated) or 'none'} of them now"
        + (f", {len(pending)} pending" if pending else ""),
        "Sample data": _seeded(report.seeded),
        "Schema": _verdict(findings),
        **({"Files": report.files} if report.files else {}),
    }
    screen = Screen()
    screen.facts(rows)
    _list(screen, findings)
    _look(screen, settings, following)


def down(home: Path, *, stopped: bool, as_json: bool) -> None:
    """Report whether an embedded server was stopped."""
    if as_json:
        print_json({"stopped": stopped, "home": home})
    elif stopped:
        Screen().verbatim(f"The embedded server in {home} has stopped; its data stays.")
    else:
        Screen().verbatim(f"No embedded server runs in {home}.")


def demo(settings: Settings, report: DemoReport, *, as_json: bool) -> None:
    """Report the outcome for each document, the stored rows, and the answers of memory."""
    following = hints.look_at_passages(settings, order_id=report.order_id, tenant=report.tenant_id, query=report.query)
    if as_json:
        print_json({"url": _url(settings), **attrs.asdict(report), "next": following})
        return
    screen = Screen()
    screen.facts(
        {
            "Database": _url(settings),
            "Tenant": report.tenant_id,
            "Work order": f"{report.order_id}, {report.status}",
        }
    )
    screen.line()
    rows = [(item.name, item.type, item.status, item.attempts, _title(item)) for item in report.items]
    screen.table(("document", "type", "status", "tries", "title"), rows)
    screen.line()
    if report.retried:
        name, error = report.retried
        screen.line(f"Retried: {name} ({error})")
    if report.approved:
        screen.line(f"Approved by a person: {report.approved}")
    if report.skipped:
        screen.line()
        letters = zip(report.skipped, report.dead_letter_ids, strict=True)
        buried = [(skipped.name, letter_id, skipped.reason) for skipped, letter_id in letters]
        screen.table(("skipped", "dead letter", "why"), buried)
    else:
        (letter_id,) = report.dead_letter_ids
        screen.line(f"Dead letter: {letter_id} (simulated: a notification that could not be delivered)")
    screen.line()
    screen.table(("table", "rows"), report.counts.items(), numbers=1)
    screen.line(f"\nQuestion for memory: {report.query}", style="bold")
    for place, passage in enumerate(report.passages):
        screen.line(f"\n{passage.similarity:.2f}  {passage.document}", style="bold")
        screen.line(passage.content if place == 0 else textwrap.shorten(passage.content, _SHORT, placeholder=" ..."))
    if not report.passages:
        screen.line("No match: nothing in memory is similar to the question.")
    _look(screen, settings, following)


def ping(settings: Settings, answer: Answer, *, as_json: bool) -> None:
    """Report the answer of a server."""
    if as_json:
        facts = {"database": answer.database, "standby": answer.standby, "milliseconds": round(answer.milliseconds, 3)}
        print_json({"url": _url(settings), **_versions(answer), **facts})
        return
    rows = {
        "Database": _url(settings),
        "Server": _server(answer) + (", a read-only standby" if answer.standby else ""),
        "Round trip": f"{answer.milliseconds:.2f} ms",
    }
    Screen().facts(rows)


def migrate(settings: Settings, report: MigrationReport, *, as_json: bool) -> None:
    """Report which migrations were applied, or would be."""
    if as_json:
        facts = {"applied": report.applied, "pending": report.pending, "obstacle": report.obstacle}
        print_json({"url": name_of(settings), **facts, "planned": as_dicts(report.planned)})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings)})
    for name in report.applied:
        screen.line(f"applied {name}")
    for name in report.pending:
        screen.line(f"pending {name}")
    for obstacle in (report.obstacle or "").splitlines():
        screen.line(f"They cannot be applied yet: {obstacle}.")
    if not report.applied and not report.pending:
        screen.line("Nothing is pending.")
    for plan in report.planned:
        screen.line(f"\n-- {plan.name}{f': {plan.note}' if plan.note else ''}", style="bold")
        for statement in plan.statements:
            screen.verbatim(f"{statement}\n;" if "--" in statement.splitlines()[-1] else f"{statement};")


def rollback(settings: Settings, undone: Sequence[str], *, as_json: bool) -> None:
    """Report which migrations were undone."""
    if as_json:
        print_json({"url": name_of(settings), "undone": undone})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings)})
    for name in undone:
        screen.line(f"undone {name}")


def lint(hazards: Sequence[Hazard], *, as_json: bool) -> None:
    """Report the statements of migrations that may hurt."""
    if as_json:
        print_json({"hazards": as_dicts(hazards)})
        return
    screen = Screen()
    for hazard in hazards:
        screen.line(f"{hazard.migration}: {hazard.rule}", style="bold")
        if hazard.statement:
            screen.verbatim(hazard.statement)
        screen.line(f"{hazard.message} {hazard.help or ''}".rstrip() + "\n")
    if hazards:
        told = f"{len(hazards)} hazard{'s' if len(hazards) > 1 else ''}"
        screen.line(f"{told}. A comment in the statement permits one: -- squawk-ignore RULE")
    else:
        screen.line("No hazard found.")


def docs(text: str, file: str | None, *, as_json: bool) -> None:
    """Write the data dictionary to a file, else print it."""
    if file is not None:
        try:
            Path(file).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot write {file}: {error.strerror}") from None
    if as_json:
        print_json({"file": file} if file else {"markdown": text})
    elif file is None:
        sys.stdout.write(text)
    else:
        Screen().verbatim(f"written: {file}")


def path(folder: Path, *, as_json: bool) -> None:
    """Print a path verbatim, for `$(...)`."""
    if as_json:
        print_json({"path": folder})
    else:
        sys.stdout.write(f"{folder}\n")


def status(settings: Settings, found: MigrationStatus, findings: Sequence[Finding] | None, *, as_json: bool) -> None:
    """Report the migrations and, if the schema was examined, the number of differences from the expected one."""
    if as_json:
        states = {
            name: getattr(found, name) for name in ("applied", "pending", "edited", "unknown", "late", "compatible")
        }
        drifted = sum(finding.kind != "migration" for finding in findings or ())
        print_json({"url": name_of(settings), "current": found.current and not findings, **states, "drifted": drifted})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings), **({} if findings is None else {"Schema": _verdict(findings)})})
    screen.line()
    states = {
        **dict.fromkeys(found.applied, "applied"),
        **dict.fromkeys(found.pending, "pending"),
        **dict.fromkeys(found.late, "pending, and sorts before an applied one"),
        **dict.fromkeys(found.edited, "edited since it was applied"),
        **dict.fromkeys(found.unknown, "applied by a newer version"),
        **dict.fromkeys(found.compatible, "applied by a newer version, backward compatible"),
    }
    screen.table(("migration", "state"), states.items())
    findings = findings or ()
    _list(screen, [finding for finding in findings if finding.kind in {"server", "setting", "extension"}])
    if found.pending and not found.late:
        screen.line(f"\n`{hints.this_command()} migrate` applies what is pending.")
    if any(finding.kind != "migration" for finding in findings) or found.edited or found.unknown or found.late:
        screen.line(f"\n`{hints.this_command()} validate` lists the differences and how to fix them.")


def validate(settings: Settings, report: ValidationReport, *, as_json: bool) -> None:
    """Report every difference with its remedy."""
    if as_json:
        facts = {"valid": report.valid, "versions": report.versions, "findings": as_dicts(report.findings)}
        print_json({"url": name_of(settings), **facts})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings), "Schema": _verdict(report.findings)})
    _list(screen, report.findings)


def drift(settings: Settings, differences: Sequence[Difference], *, as_json: bool) -> None:
    """Report the differences from what the migrations create, as a diff."""
    if as_json:
        print_json({"url": name_of(settings), "differences": as_dicts(differences)})
        return
    screen = Screen()
    told = f"{len(differences)} difference{'s' if len(differences) > 1 else ''}" if differences else "none"
    screen.facts({"Database": name_of(settings), "Drift": told})
    styles = {"-": "red", "+": "green"}
    for one in differences:
        screen.line(f"\n{one.kind} {one.full_name}", style="bold")
        before, after = _in_lines(one.expected), _in_lines(one.actual)
        for line in list(difflib.unified_diff(before, after, n=1, lineterm=""))[3:]:
            screen.verbatim("..." if line.startswith("@@") else line, styles.get(line[0], ""))


def _in_lines(definition: str | None) -> list[str]:
    """Return a definition, which has one line, as lines; it ends a line where a program usually does."""
    return _LINE_ENDS.split(definition) if definition else []


def baseline(settings: Settings, recorded: Sequence[str], *, as_json: bool) -> None:
    """Report which migrations were recorded as applied."""
    if as_json:
        print_json({"url": name_of(settings), "recorded": recorded})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings)})
    for name in recorded:
        screen.line(f"recorded {name}")
    if not recorded:
        screen.line("They are recorded already.")


def recount(settings: Settings, corrected: Collection[UUID], *, as_json: bool) -> None:
    """Report the orders whose counters were corrected."""
    orders = sorted(map(str, corrected))
    if as_json:
        print_json({"url": name_of(settings), "corrected": orders})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings), "Orders": f"{len(orders)} corrected"})
    for order in orders:
        screen.line(order)


def prune(settings: Settings, pruned: int, *, as_json: bool) -> None:
    """Report how many expired documents were deleted."""
    if as_json:
        print_json({"url": name_of(settings), "pruned": pruned})
    else:
        Screen().facts({"Database": name_of(settings), "Pruned": f"{pruned} expired documents"})


def seed(settings: Settings, inserted: Mapping[str, int], *, as_json: bool) -> None:
    """Report how many rows of sample data each table got."""
    if as_json:
        print_json({"url": name_of(settings), "inserted": inserted})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings), "Sample data": _seeded(inserted)})
    if any(inserted.values()):
        screen.line()
        rows = [(name, count) for name, count in inserted.items() if count]
        screen.table(("table", "rows"), rows, numbers=1)


def reset(settings: Settings, applied: Sequence[str], inserted: Mapping[str, int] | None, *, as_json: bool) -> None:
    """Report a database that was reset."""
    if as_json:
        print_json({"url": name_of(settings), "applied": applied, "inserted": inserted})
        return
    rows = {
        "Database": name_of(settings),
        "Migrations": f"{len(applied)} applied; the old data is gone",
        "Sample data": _seeded(inserted),
    }
    Screen().facts(rows)


def _look(screen: Screen, settings: Settings, following: Mapping[str, str]) -> None:
    """Print the lines for looking at the data, each ready to be copied."""
    python = f"Python ({shlex.quote(sys.executable)}{'' if settings.embedded else ', with its URL in DATABASE_URL'})"
    titles = {"psql": "Look at it with psql", "python": f"Look at it in {python}", "down": "The server runs until"}
    for key, lines in following.items():
        screen.line(f"\n{titles[key]}:", style="bold")
        screen.verbatim(lines)


def _title(item: DemoItem) -> str:
    return str(item.result.get("title", "")) if isinstance(item.result, dict) else ""


def _url(settings: Settings) -> str:
    """Return the address of a server that keeps running, for any program."""
    return settings.url if settings.embedded else settings.safe_url


def name_of(settings: Settings) -> str:
    """Return the address for this library, which starts the embedded server on demand."""
    return f"embedded:{settings.embedded_home}" if settings.embedded else settings.safe_url


def _versions(answer: Answer) -> dict[str, Any]:
    return {"server_version": answer.server_version, "pgvector_version": answer.pgvector_version}


def _server(answer: Answer) -> str:
    vector = f"pgvector {answer.pgvector_version}" if answer.pgvector_version else "no pgvector in this database"
    return f"PostgreSQL {answer.server_version}, {vector}"


def _seeded(inserted: Mapping[str, int] | None) -> str:
    if inserted is None:
        return "none added"
    rows = sum(inserted.values())
    return f"{rows} rows added" if rows else "already there"


def _verdict(findings: Sequence[Finding]) -> str:
    return f"{len(findings)} finding{'s' if len(findings) > 1 else ''}" if findings else "valid"


def as_dicts(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return results as JSON objects."""
    return [attrs.asdict(one) for one in found]


def _list(screen: Screen, findings: Sequence[Finding]) -> None:
    for finding in findings:
        screen.line(f"\n{finding.kind} {finding.name}", style="bold")
        screen.verbatim(f"expected: {finding.expected or 'nothing of that name'}")
        screen.verbatim(f"found:    {finding.actual or 'nothing'}")
        screen.verbatim(f"to fix:   {finding.remedy}")

"""Find statements in migrations that would block or hurt a busy database, before they run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import SettingsError
from myloware_store.ops.concurrently import is_concurrent
from myloware_store.ops.history import available_migrations, migrations_folder, require_named
from myloware_store.ops.planning import has_rollback, read_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Hazard", "lint"]

_NOT_OURS = {
    "require-lock-timeout",  # `migrate` sets both time-outs
    "require-statement-timeout",
    "unused-ignore",  # squawk does not know our own rules
}
_IGNORED = re.compile(r"--\s*squawk-ignore\b(?!-file)([^\n]*)")
_IGNORED_IN_FILE = re.compile(r"--\s*squawk-ignore-file\b([^\n]*)")
_COMMENT = r"--[^\n]*|/\*.*?\*/"
_QUOTED = re.compile(
    rf"""{_COMMENT}|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*\""""
    r"|(?P<do>\bDO\s+(?:LANGUAGE\s+\w+\s+)?)?(?P<tag>\$\w*\$)(?P<body>.*?)(?P=tag)",
    re.IGNORECASE | re.DOTALL,
)
_PARENTHESES = re.compile(r"\(([^()]*)\)")
_ALL_ROWS = re.compile(
    r"\b(?:(?P<update>UPDATE\s+(?:ONLY\s+)?(?!SET\b)[\w.]+(?:\s*\*)?(?:\s+(?:AS\s+)?\w+)?\s+SET\b)|DELETE\s+FROM\b"
    r"|TRUNCATE\s+(?!ON\b|OR\b)\w)(?![^;]*\bWHERE\b)",
    re.IGNORECASE,
)
_RULES = (
    (
        "vacuum-full",
        re.compile(r"^\s*(?:VACUUM\s*\(?[^;]*\bFULL\b|CLUSTER\b)", re.IGNORECASE),
        "It rewrites the table, and nobody can read it meanwhile.",
        "Let autovacuum work; use pg_repack or pg_squeeze where space must be returned.",
    ),
    (
        "prefer-jsonb",
        re.compile(r"^\s*(?:CREATE|ALTER)\s+(?:\w+\s+)*?TABLE\b.*\bjson\b(?!\s*\()", re.IGNORECASE | re.DOTALL),
        "The type json has no equality, so that SELECT DISTINCT and GROUP BY fail, and no index.",
        "Use jsonb.",
    ),
)


@attrs.frozen
class Hazard:
    """A statement that may hurt.

    Attributes:
        migration: The name of its migration.
        rule: The rule, in squawk's notation. `-- squawk-ignore RULE` in the statement turns it off.
        statement: The beginning of the statement.
        message: What it does.
        help: What to do instead, if the rule says it.
    """

    migration: str
    rule: str
    statement: str
    message: str
    help: str | None


def lint(names: Iterable[str] | None = None, *, directory: Path | str | None = None) -> tuple[Hazard, ...]:
    """Examine the SQL of migrations with squawk, and by rules that it lacks; needs no database.

    The rules beside squawk's: `unbounded-update`, `unbounded-delete`, `vacuum-full`, `prefer-jsonb`,
    `concurrently-first`, `missing-rollback` and `unread`, for statements that depend on the rows of a database. A
    `.squawk.toml` in the working directory is read.

    Args:
        names: The migrations, by default all in the folder.
        directory: Their folder, by default the installed one.

    Raises:
        InvalidInput: There is no migration of that name.
        MigrationError: The folder contains no migration, or a file cannot be read.
        SettingsError: squawk is not installed.
    """
    folder = migrations_folder(directory)
    chosen = available_migrations(folder) if names is None else tuple(names)
    for name in chosen:
        require_named(folder, name)
    return tuple(hazard for name in chosen for hazard in _lint_one(folder, name))


def _lint_one(folder: Path, name: str) -> Iterator[Hazard]:
    plan = read_plan(folder, name)
    yield from _ask_squawk(name, plan.statements)
    begun = False
    everywhere = " ".join(_IGNORED_IN_FILE.findall("\n".join(plan.statements)))
    for statement in plan.statements:
        ignored = " ".join([everywhere, *_IGNORED.findall(statement)])
        for rule, message, help_ in _own_rules(statement, begun=begun):
            if rule not in ignored:
                yield Hazard(name, rule, _beginning(statement), message, help_)
        begun |= not _precedes(statement)
    if plan.note:
        yield Hazard(name, "unread", "", f"Not all of its SQL is known: {plan.note}.", "Review it by hand.")
    if not has_rollback(folder, name):
        yield Hazard(name, "missing-rollback", "", "It cannot be undone.", "Write a rollback(), if only for tests.")


def _own_rules(statement: str, *, begun: bool) -> Iterator[tuple[str, str, str]]:
    bare = _without_texts(statement)
    for found in _all_rows(bare):
        kind = "update" if found["update"] else "delete"
        yield (
            f"unbounded-{kind}",
            "It writes every row in one transaction, which locks them all and leaves as many dead ones.",
            "Write in batches outside of the migration; or add WHERE, if it only affects a few.",
        )
    for rule, pattern, message, help_ in _RULES:
        if pattern.search(bare):
            yield rule, message, help_
    if begun and is_concurrent(statement):
        yield (
            "concurrently-first",
            "`migrate` refuses CONCURRENTLY after other statements of the same migration.",
            "Move it to the beginning, or to a file of its own.",
        )


def _without_texts(statement: str) -> str:
    """Return a statement without its comments, texts, quoted names and function bodies; the body of DO is kept."""

    def plain(found: re.Match[str]) -> str:
        if found["do"]:
            return f"DO {_without_texts(found['body'])}"
        return {"-": " ", "/": " ", '"': "_"}.get(found[0][0], "''")

    return _QUOTED.sub(plain, statement)


def _all_rows(bare: str) -> Iterator[re.Match[str]]:
    # From the inside out, so that the WHERE of a subquery is not taken for that of the statement around it.
    while inner := _PARENTHESES.findall(bare):
        for text in inner:
            yield from _in_parts(text)
        bare = _PARENTHESES.sub(" ", bare)
    yield from _in_parts(bare)


def _in_parts(text: str) -> Iterator[re.Match[str]]:
    for part in text.split(";"):
        yield from _ALL_ROWS.finditer(part)


def _ask_squawk(name: str, statements: Sequence[str]) -> Iterator[Hazard]:
    lines, script, begun = [0], [], False
    for statement in statements:
        if not begun and not _precedes(statement):
            script.append("BEGIN;")  # on the line of the next statement
            begun = True
        script.append(f"{statement}\n;\n")  # the statement may end in a comment
        lines.append(lines[-1] + script[-1].count("\n"))
    run = subprocess.run(  # noqa: S603  squawk, with our own arguments
        [_squawk(), "--reporter=json", "--pg-version=15.0", f"--stdin-filepath={name}.sql"],
        input="".join(script) + ("COMMIT;" if begun else ""),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found = json.loads(run.stdout or "[]")
    except ValueError:
        raise SettingsError(f"squawk failed: {(run.stderr or run.stdout).strip()[:1000]}") from None
    for one in found:
        if one["rule_name"] in _NOT_OURS:
            continue
        statement = statements[min(bisect_right(lines, one["line"]), len(statements)) - 1]
        yield Hazard(name, one["rule_name"], _beginning(statement), one["message"], one["help"])


def _precedes(statement: str) -> bool:
    """Return whether CONCURRENTLY may still follow."""
    return is_concurrent(statement) or _beginning(statement).upper().startswith("SET LOCAL")


def _squawk() -> str:
    path = str(Path(sys.executable).parent)
    program = shutil.which("squawk", path=path) or shutil.which("squawk")
    if program is None:
        raise SettingsError("lint needs squawk: pip install 'myloware-store[lint]'")
    return program


def _beginning(statement: str) -> str:
    return " ".join(re.sub(_COMMENT, "", statement, flags=re.DOTALL).split())[:100]

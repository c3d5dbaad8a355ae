"""Turns every end of a command into an exit code, and errors into one clear line."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING

import click

from myloware_store.core.errors import (
    ConnectionFailed,
    EmbeddedServerError,
    InvalidInput,
    SettingsError,
    StoreError,
    TenantRequired,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]

DONE, FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

_MISUSES = (ConnectionFailed, EmbeddedServerError, InvalidInput, SettingsError)
"""The errors with exit code 2; every other error of the store has 1."""

_LOCKED = "55P03"
_UNSEEN = (
    "row-level security keeps this role to one tenant, and this command reads all of them: run it as the owner of the"
    " tables or as the role of workers (`audit log` and `export` take --tenant)"
)
_IN_URL = re.compile(r"(://[^:/@\s]*:).*@")
_IN_PARAMETER = re.compile(
    r"(\w*(?:password|secret(?:_keys)?|scram_\w+_key)\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|\S+?)(\)?(?=[\s'\"]|$))",
    re.IGNORECASE,
)
"""Passwords in a misplaced address, which click quotes in its message."""


def run(group: click.Group, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code.

    Errors are printed to stderr, and with `--json` also as an object to stdout. Errors that are neither ours nor
    click's are raised.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, for example by `>&-`
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the locale cannot write
    try:
        try:
            # Not group.main(), which has its own exit code for a closed pipe.
            with group.make_context("myloware-store", list(arguments)) as context:
                code = group.invoke(context)
        except click.exceptions.Exit as end:
            code = end.exit_code
        except (click.ClickException, click.Abort, StoreError, KeyboardInterrupt) as error:
            code = _report(error, as_json="--json" in arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code or DONE


def _report(error: BaseException, *, as_json: bool) -> int:
    """Print an error, and return its exit code."""
    from myloware_store.cli import console

    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        message, code = "interrupted", INTERRUPTED
    elif isinstance(error, click.Abort):
        message, code = "no answer: nothing was changed; --yes continues without asking", MISUSED
    elif isinstance(error, click.ClickException):
        message, code = _masked(error.format_message()), error.exit_code
    else:
        message, code = str(error), MISUSED if isinstance(error, _MISUSES) else FAILED
        if isinstance(error, TenantRequired):
            message = _UNSEEN
        if getattr(error, "sqlstate", None) == _LOCKED:
            message += "; `myloware-store doctor` says who holds the lock"
    if as_json:
        console.print_json({"error": message, "kind": type(error).__name__, "exit_code": code})
    if isinstance(error, click.Abort | KeyboardInterrupt):
        click.echo(err=True)  # end the line of the prompt, or of the terminal's ^C
    if isinstance(error, click.UsageError):
        usage = io.StringIO()
        error.show(usage)
        sys.stderr.write(_masked(usage.getvalue()))
    else:
        console.complain(message)
    return code


def _masked(text: str) -> str:
    return _IN_PARAMETER.sub(r"\1***\2", _IN_URL.sub(r"\1***@", text))

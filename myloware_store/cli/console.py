"""Prints text to any terminal or file, and JSON for programs."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["Screen", "complain", "print_json", "progress"]

_LEAST_VALUE = 40
"""The least columns for a value beside its name; on a narrower terminal the value starts on its own line."""

_FILE_WIDTH = 120
_MOST_ROWS = 30
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `exits.run` handle it; rich would exit with 1."""
        raise BrokenPipeError


class Screen:
    """Prints reports as text; values are printed literally, never read as markup."""

    def __init__(self, *, error: bool = False) -> None:
        # rich's own NO_COLOR keeps bold and dim, which are escape codes, too.
        plain = bool(os.environ.get("NO_COLOR"))
        self.console = _Console(
            stderr=error, color_system=None if plain else "auto", markup=False, emoji=False, highlight=False
        )
        if not self.console.is_terminal and "COLUMNS" not in os.environ:
            self.console.width = _FILE_WIDTH

    def line(self, text: str = "", style: str = "") -> None:
        """Print a sentence, wrapped at the terminal's width."""
        self.console.print(Text(_harmless(text), style=style))

    def verbatim(self, text: str, style: str = "") -> None:
        """Print text to be copied, without adding line breaks."""
        self.console.print(Text(_harmless(text), style=style), soft_wrap=True)

    def facts(self, rows: Mapping[str, object]) -> None:
        """Print names and values in two columns, without wrapping the values."""
        width = max(map(len, rows)) + 2
        between = "\n" if self.console.width < width + _LEAST_VALUE else ""
        for name, value in rows.items():
            text = Text.assemble((f"{name:{width}}{between}", "bold"), _harmless(value))
            self.console.print(text, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 0) -> None:
        """Print a table; on a narrow terminal wrap its first and last column, and only count rows after the 30th.

        Args:
            columns: The names of the columns.
            rows: The cells.
            numbers: How many of the last columns are numbers.
        """
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for place, column in enumerate(columns):
            right = place >= len(columns) - numbers
            table.add_column(
                Text(column, style="bold"),
                justify="right" if right else "left",
                overflow="fold",
                no_wrap=0 < place < len(columns) - 1,
            )
        cells = [[Text(_harmless(cell)) for cell in row] for row in rows]
        for row in cells[:_MOST_ROWS]:
            table.add_row(*row)
        self.console.print(table)
        if len(cells) > _MOST_ROWS:
            self.line(f"and {len(cells) - _MOST_ROWS} more")


def _harmless(value: object) -> str:
    """Escape control characters, which a terminal would obey."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(value))


def print_json(report: Mapping[str, Any]) -> None:
    """Print a report as one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(report, default=str) + "\n")


def complain(message: str) -> None:
    """Print an error to stderr, without adding line breaks."""
    Screen(error=True).verbatim(f"error: {message}")


@contextmanager
def progress() -> Iterator[Callable[..., None]]:
    """Show progress while the block runs, if stderr is a terminal.

    Yields:
        A function to call with the current step, and if known, how many of how many parts are done.
    """
    console = Screen(error=True).console
    if not console.is_terminal:
        yield lambda *_: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, visible=False)

        def show(what: str, done: int = 0, total: int | None = None) -> None:
            bars.update(task, description=what, completed=done, total=total, visible=True)

        yield show

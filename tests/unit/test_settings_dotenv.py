"""The `.env` file: read by python-dotenv, refused if it cannot be read, and nothing in it shows."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import dotenv.main  # noqa: F401  loaded before a test forbids opening files
import pytest

from myloware_store.core.errors import SettingsError
from myloware_store.settings import Settings
from myloware_store.settings.environment import put_aside

if TYPE_CHECKING:
    from pathlib import Path


def test_a_line_that_cannot_be_read_is_warned_of_and_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """python-dotenv leaves such a line out, and logs a warning with its number and nothing of its value."""
    filed = tmp_path / ".env"
    filed.write_text("OTHER=1\nDATABASE_PASSWORD='hunter2's'\nDATABASE_HOST=h\n")

    settings = Settings.load(environ={}, dotenv=filed)

    assert ("h", "") == (settings.host, settings.password)
    assert [("WARNING", "line 2")] == [(each.levelname, each.message[-6:]) for each in caplog.records]


def test_a_file_is_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for a line, also if no database is named and the file is searched for empty variables."""
    filed = tmp_path / ".env"
    filed.write_text("OTHER=1\nDATABASE_PASSWORD='hunter2's'\n")

    assert Settings.load(environ={}, dotenv=filed).embedded
    assert 1 == len(caplog.records)


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("a${EARLIER}c", "a'quoted'c"),
        ('"a${NONE:-b}c"', "abc"),
        ("a$EARLIER", "a$EARLIER"),
        ("'it\\'s'", "it's"),
    ],
)
def test_variables_are_filled_in(tmp_path: Path, written: str, password: str) -> None:
    """`${NAME}` is a variable of the file or of the environment, and a backslash keeps a quote."""
    filed = tmp_path / ".env"
    filed.write_text(f"EARLIER=\"'quoted'\"\nDATABASE_PASSWORD={written}\n")

    assert password == Settings.load(environ={}, dotenv=filed).password


def test_a_nul_in_the_file_is_refused(tmp_path: Path) -> None:
    """A NUL could not be sent to the server."""
    filed = tmp_path / ".env"
    filed.write_text("DATABASE_PASSWORD='hunter2\0'\n")

    with pytest.raises(SettingsError, match="DATABASE_PASSWORD"):
        Settings.load(environ={}, dotenv=filed)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The operating system's reason is in the error, here that too many files are open."""
    filed = tmp_path / ".env"
    filed.write_text("DATABASE_HOST=h\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(SettingsError, match=r"\.env cannot be read: Too many open files"):
            Settings.load(environ={}, dotenv=filed)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("dotenv", [5, b".env", ["x"]])
def test_a_file_that_is_no_path_is_refused(dotenv: Any) -> None:
    """A value that cannot name a file is refused by its type."""
    with pytest.raises(SettingsError, match="dotenv must be a path"):
        Settings.load(environ={}, dotenv=dotenv)


@pytest.mark.parametrize("environ", [5, "DATABASE_URL", {"DATABASE_URL": 5}, {"MYLOWARE_TENANT": b"x"}])
def test_an_environment_of_something_else_than_text_is_refused(environ: Any) -> None:
    """An environment maps text to text."""
    with pytest.raises(SettingsError, match=r"must be (text|a mapping)"):
        Settings.load(environ=environ, dotenv=None)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ()),
        ({"DATABASE_URL": "postgresql://h/x"}, ()),
        ({"DATABASE_HOST": "other"}, ("DATABASE_PASSWORD",)),
        ({"DATABASE_HOST": "other", "DATABASE_PASSWORD": "x"}, ()),
    ],
)
def test_what_the_environment_puts_aside_can_be_told(
    tmp_path: Path, environ: dict[str, str], expected: tuple[str, ...]
) -> None:
    """One real variable puts the file's group aside; the names that are then missing can be shown."""
    filed = tmp_path / ".env"
    filed.write_text("DATABASE_HOST=h\nDATABASE_PASSWORD=hunter2\n")

    assert expected == put_aside(environ, filed)

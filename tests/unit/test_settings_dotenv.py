"""The `.env` file: nothing in it is passed over in silence, and nothing in it shows."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store.core.errors import SettingsError
from myloware_store.settings import Settings
from myloware_store.settings.environment import put_aside

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('DATABASE_URL="postgresql://u:hunter2@h/x\n', 1),
        ("DATABASE_HOST=h\n\n  DATABASE_PASSWORD='hunter2's'\n", 3),
        ('OTHER=1\r\nDATABASE_PASSWORD="hunter2" more\r\n', 2),
        ("DATABASE_URL 'postgresql://u:hunter2@h/x'\n", 1),
        ('# a comment\nSECRET="hunter2\nDATABASE_URL="postgresql://h/x"\n', 2),
        ("export MYLOWARE_ENV='production\n", 1),
        ("OTHER=1\nDATABASE_URL:postgresql://u:hunter2@h/x?schema=public\n", 2),
        ("DATABASE_HOST: h\n", 1),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_not_shown(tmp_path: Path, text: str, line: int) -> None:
    """Passed over, such a line would have the store open another database than the one that is meant."""
    filed = tmp_path / ".env"
    filed.write_bytes(text.encode())

    with pytest.raises(SettingsError, match=rf"\.env, line {line}: cannot be read") as caught:
        Settings.load(environ={}, dotenv=filed)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_line_of_somebody_else_may_be_whatever_it_likes(tmp_path: Path) -> None:
    """The file belongs to the whole project: what is not ours stands in nobody's way."""
    filed = tmp_path / ".env"
    filed.write_text("OTHER='it's\nif true; then :; fi\nDATABASE_HOST=h\n")

    assert "h" == Settings.load(environ={}, dotenv=filed).host


def test_a_line_that_is_not_needed_may_be_broken(tmp_path: Path) -> None:
    """What is named elsewhere is used; whether this is production is looked for in the file all the same."""
    filed = tmp_path / ".env"
    filed.write_text("DATABASE_PASSWORD='it's'\nSHADOW_DATABASE_URL='it's'\n")
    real = {"DATABASE_HOST": "real"}

    assert "h" == Settings.load("postgresql://h/x", environ={}, dotenv=filed).host
    assert "real" == Settings.load(environ=real, dotenv=filed).host
    assert () == put_aside(real, filed)

    filed.write_text("MYLOWARE_ENV='production's'\n")
    with pytest.raises(SettingsError, match="line 1"):
        Settings.load("postgresql://h/x", environ=real, dotenv=filed)


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("'a${USER}c'", "a${USER}c"),
        ("a${USER}c", "akimc"),
        ('"a${USER}c"', "akimc"),
        ('"a${NONE:-b}c"', "abc"),
        ("a$USER", "a$USER"),
        ("'it\\'s'", "it's"),
        ("${EARLIER}", "'quoted'"),
    ],
)
def test_variables_are_filled_in_but_between_single_quotes(tmp_path: Path, written: str, password: str) -> None:
    """As in a shell, `${NAME}` is a variable of the environment or the file, unless single quotes stand around it."""
    filed = tmp_path / ".env"
    filed.write_text(f"EARLIER=\"'quoted'\"\nDATABASE_PASSWORD={written}\n")

    assert password == Settings.load(environ={"USER": "kim"}, dotenv=filed).password


@pytest.mark.parametrize("dotenv", [5, b".env", ["x"]])
def test_a_file_that_is_no_path_is_refused(dotenv: Any) -> None:
    """What cannot name a file is refused by its type."""
    with pytest.raises(SettingsError, match="dotenv must be a path"):
        Settings.load(environ={}, dotenv=dotenv)


def test_a_path_that_the_system_refuses_is_refused(tmp_path: Path) -> None:
    """A path that is too long is told in a line that is not."""
    with pytest.raises(SettingsError, match="cannot be read: File name too long") as caught:
        Settings.load(environ={}, dotenv=tmp_path / ("x" * 5000))

    assert 400 > len(str(caught.value))


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

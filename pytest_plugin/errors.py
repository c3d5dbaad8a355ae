"""The errors that a test run reports without a traceback."""

from __future__ import annotations

import pytest

__all__ = ["NoServer", "SharedDatabaseAltered", "Unusable"]


class Unusable(pytest.fail.Exception):  # type: ignore[misc,name-defined]  # mypy does not see it
    """Something that many tests need is missing: the first test says why, the others refer to it."""

    msg: str

    def __init__(self, message: str) -> None:
        super().__init__(message, pytrace=False)
        self._is_reported = False

    def reported(self, test: str) -> None:
        """Refer to that test from now on, after the message's first line."""
        if not self._is_reported:
            self._is_reported = True
            self.msg = f"{self.msg.splitlines()[0]}: see the error of {test}"


class NoServer(Unusable):
    """No server can be reached; the message lists the attempts and the remedies."""


class SharedDatabaseAltered(pytest.fail.Exception):  # type: ignore[misc,name-defined]  # mypy does not see it
    """A database with the data of a class or module cannot be put back."""

    def __init__(self, message: str) -> None:
        super().__init__(message, pytrace=False)

"""Commands whose server falls silent in the middle of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from myloware_store import Settings
from myloware_store.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cli.conftest import Shell
    from tests.relay import Relay


@pytest.mark.parametrize("command", ["status", "validate", "doctor", "recount"])
def test_a_command_that_nobody_answers_ends(
    shell: Shell,
    myloware_dsn: str,
    relayed: Callable[..., Relay],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """Without any setting, with exit code 2: nobody need press Ctrl-C."""
    monkeypatch.setattr(options, "_CALL_TIMEOUT", 0.3)
    settings = Settings.load(myloware_dsn)
    relay = relayed(settings.host, settings.port)
    answers = itertools.count()
    relay.answers.hears = lambda data: relay.answers.flows.clear() if data[:1] == b"T" and next(answers) > 1 else None

    done = shell.run(command, DATABASE_URL=relay.before(settings).url)

    assert (2, True) == (done.returncode, "no reply had come within 0.3 s: call_timeout" in done.stderr)

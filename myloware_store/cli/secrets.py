"""`myloware-store secrets`: which keys encrypt the secrets of connectors, and how to rotate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from myloware_store.cli.options import Given, example, json_option, pass_given, where_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from myloware_store.platform.rotation import Problem
    from myloware_store.settings import Settings

__all__ = ["secrets"]

DONE, FINDING = 0, 1


@click.group(epilog=example("myloware-store secrets status", "myloware-store secrets rotate"))
def secrets() -> None:
    """Look after the encryption of connectors' secrets.

    MYLOWARE_SECRET_KEYS has the keys, the current one first. No command shows a secret.
    """


@secrets.command(epilog=example("myloware-store secrets status"))
@where_options
@pass_given
def status(given: Given) -> int:
    """Show how many connectors use which key.

    Exit 1 if a secret is unencrypted, has another key than the current one, or does not open.
    """
    from myloware_store.ops.history import require_current
    from myloware_store.ops.target import opened, reach
    from myloware_store.platform.rotation import status

    with reach(given.settings()) as target, opened(target.settings) as database:
        require_current(database)
        found = status(database)
    facts = {
        "Current key": found.current or "none",
        **{f"Key {key_id}": f"{count} connectors" for key_id, count in found.keys.items()},
        "Unencrypted": f"{found.unencrypted} connectors",
    }
    _report(target.settings, found, facts, found.unreadable, as_json=given.json)
    return FINDING if found.stale else DONE


@secrets.command(epilog=example("myloware-store secrets rotate"))
@where_options
@pass_given
def rotate(given: Given) -> int:
    """Encrypt all secrets with the current key.

    This includes secrets that are not encrypted yet. It can be interrupted and run again. Exit 1 if a secret does not
    open; its connector stays as it is.
    """
    from myloware_store.cli.console import progress
    from myloware_store.ops.history import require_current
    from myloware_store.ops.target import opened, reach
    from myloware_store.platform.rotation import rotate

    with reach(given.settings()) as target, opened(target.settings) as database, progress() as show:
        require_current(database)
        done = rotate(database, show)
    facts = {"Current key": done.current, "Rotated": f"{done.secrets} secrets of {done.connectors} connectors"}
    _report(target.settings, done, facts, done.unreadable, as_json=given.json)
    return FINDING if done.unreadable else DONE


@secrets.command(
    "generate-key",
    epilog=example("myloware-store secrets generate-key", "myloware-store secrets generate-key --id 2026-q3"),
)
@json_option
@click.option("--id", "key_id", metavar="ID", help="The id of the key, by default today's date.")
@pass_given
def generate_key(given: Given, *, key_id: str | None) -> int:
    """Print a new key for MYLOWARE_SECRET_KEYS.

    Keep a copy of it in a safe place: without the key, the secrets are lost.
    """
    import os
    from base64 import urlsafe_b64encode
    from datetime import UTC, datetime

    from myloware_store.cli.console import print_json
    from myloware_store.settings.secrets import KEY_BYTES, Secrets

    key_id = key_id or datetime.now(UTC).date().isoformat()
    text = f"{key_id}:{urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()}"
    Secrets(keys=text)  # refuses an id that cannot be used
    if given.json:
        print_json({"id": key_id, "key": text})
    else:
        click.echo(text)
    return DONE


def _report(
    settings: Settings, found: Any, facts: dict[str, str], unreadable: Sequence[Problem], *, as_json: bool
) -> None:
    import attrs

    from myloware_store.cli.console import Screen, print_json
    from myloware_store.cli.reports import name_of

    if as_json:
        print_json({"url": name_of(settings), **attrs.asdict(found)})
        return
    screen = Screen()
    screen.facts({"Database": name_of(settings), **facts, "Unreadable": f"{len(unreadable)} connectors"})
    if unreadable:
        screen.line()
        screen.table(
            ["Tenant", "Connector", "Reason"], [(one.tenant_id, one.connector, one.reason) for one in unreadable]
        )

"""`myloware-store secrets`: which keys encrypt the secrets of connectors, and their rotation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

import attrs

from myloware_store import Connector, Secrets, Store
from myloware_store.db.database import StoreDatabase
from myloware_store.platform import rotation

if TYPE_CHECKING:
    import pytest

    from tests.integration.cli.conftest import Shell

OLD, NEW, WRONG = (
    f"{name}:{urlsafe_b64encode(bytes([number]) * 32).decode()}"
    for name, number in (("old", 1), ("new", 2), ("old", 3))
)
CLEAR = """
    INSERT INTO connectors (tenant_id, name, type, config)
    SELECT 'acme', 'c' || n, 'SLACK', jsonb_build_object('password', 'canary' || n, 'rate', 0.12345678901234567890123,
        'l', jsonb_build_array(jsonb_build_object('hook', 'canary' || n)))
    FROM generate_series(1, 3) AS n
"""
HOOKS = """
    INSERT INTO schemas (name, version, document_type, is_active, schema_definition)
    VALUES ('slack', '1', 'SLACK', true,
        '{"properties": {"l": {"items": {"properties": {"hook": {"writeOnly": true}}}}}}')
"""


def test_secrets_are_rotated(shell: Shell, myloware_dsn: str) -> None:
    """From the clear to a key, and from one to the next; what has the current key stays, and so does the rest."""
    shell.ask(myloware_dsn, HOOKS + ";" + CLEAR)

    def report(*words: str, code: int = 0, keys: str) -> dict[str, Any]:
        return shell.report("secrets", *words, "--url", myloware_dsn, code=code, MYLOWARE_SECRET_KEYS=keys)

    before = report("status", code=1, keys=OLD)
    assert ("old", {}, 3) == (before["current"], before["keys"], before["unencrypted"])
    first = report("rotate", keys=OLD)
    assert ("old", 3, 6, []) == (first["current"], first["connectors"], first["secrets"], first["unreadable"])
    assert ({"old": 3}, 0) == ((now := report("status", keys=OLD))["keys"], now["unencrypted"])
    shell.ask(myloware_dsn, CLEAR.replace("'c' ||", "'d' ||"))
    assert {"old": 3} == report("status", code=1, keys=f"{NEW},{OLD}")["keys"]
    assert (6, 12) == ((done := report("rotate", keys=f"{NEW},{OLD}"))["connectors"], done["secrets"])
    assert (0, 0) == ((done := report("rotate", keys=NEW))["connectors"], done["secrets"])
    assert {"new": 6} == report("status", keys=NEW)["keys"]

    told = shell.ask(myloware_dsn, "SELECT string_agg(config::text, '') FROM connectors WHERE tenant_id = 'acme'")
    assert "canary" not in told
    assert 6 == told.count("0.12345678901234567890123")
    text = shell.run("secrets", "status", "--url", myloware_dsn, MYLOWARE_SECRET_KEYS=NEW).stdout
    assert ("Current key", "6 connectors") == (text[text.index("Current") :][:11], text[text.index("6 conn") :][:12])


def test_a_rotation_leaves_what_it_cannot_read(shell: Shell, myloware_dsn: str) -> None:
    """It names these connectors, rotates the others, and ends with 1; without keys it is misuse."""
    shell.ask(myloware_dsn, CLEAR)
    url = ("--url", myloware_dsn)
    shell.report("secrets", "rotate", *url, MYLOWARE_SECRET_KEYS=OLD)
    shell.ask(myloware_dsn, "UPDATE connectors SET name = 'moved', id = gen_random_uuid() WHERE name = 'c2'")
    before = shell.ask(myloware_dsn, "SELECT config::text FROM connectors WHERE name = 'moved'")

    done = shell.report("secrets", "rotate", *url, code=1, MYLOWARE_SECRET_KEYS=f"{NEW},{OLD}")
    assert (2, ["moved"]) == (done["connectors"], [one["connector"] for one in done["unreadable"]])
    assert before == shell.ask(myloware_dsn, "SELECT config::text FROM connectors WHERE name = 'moved'")
    text = shell.run("secrets", "rotate", *url, MYLOWARE_SECRET_KEYS=f"{NEW},{WRONG}")
    assert (1, True) == (text.returncode, "config.password does not open" in text.stdout)
    lost = shell.report("secrets", "status", *url, code=1, MYLOWARE_SECRET_KEYS=NEW)
    assert ({"new": 2, "old": 1}, 1) == (lost["keys"], len(lost["unreadable"]))
    for keys in ("", "off"):
        assert (
            "no key to encrypt with"
            in shell.report("secrets", "rotate", *url, code=2, MYLOWARE_SECRET_KEYS=keys)["error"]
        )


def test_a_key_is_generated(shell: Shell, myloware_dsn: str) -> None:
    """It can be used as it is printed; each is another one."""
    printed = [shell.run("secrets", "generate-key").stdout.strip() for _ in range(2)]
    assert printed[0] != printed[1]
    named = shell.report("secrets", "generate-key", "--id", "q3")
    assert ("q3", "q3:") == (named["id"], named["key"][:3])
    assert "id:base64" in shell.report("secrets", "generate-key", "--id", "a b", code=2)["error"]
    shell.ask(myloware_dsn, CLEAR)
    for keys in (printed[0], f"{named['key']},{printed[0]}"):
        assert 3 == shell.report("secrets", "rotate", "--url", myloware_dsn, MYLOWARE_SECRET_KEYS=keys)["connectors"]


def rotating(store: Store, keys: str) -> StoreDatabase:
    """Return the database of a store with other keys."""
    return StoreDatabase(attrs.evolve(store.settings, secrets=Secrets(keys=keys)))


def test_a_change_during_a_rotation_is_kept(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a connector and its update, somebody else changes it: the rotation looks again."""
    myloware.connectors.register("ledger", "API", config={"password": "old"})
    row = myloware.connectors.register("gone", "API", config={"password": "x"})
    plain, changes = rotation._Connectors.replace, iter(["new", "newer"])

    def late(self: Any, seen: Any, fresh: Any) -> bool:
        if seen.name == "gone":
            row.delete_instance()
        elif change := next(changes, None):
            myloware.connectors.register("ledger", "API", config={"password": change})
        return plain(self, seen, fresh)

    monkeypatch.setattr(rotation._Connectors, "replace", late)
    database = rotating(myloware, f"{NEW},test:{'A' * 43}=")
    done = rotation.rotate(database)
    monkeypatch.undo()

    assert (1, 1, ()) == (done.connectors, done.secrets, done.unreadable)
    assert {"new": 1} == rotation.status(database).keys
    before, myloware.connectors._db = myloware.connectors._db, database
    assert {"password": "newer"} == myloware.connectors.reveal("ledger")
    myloware.connectors._db = before
    database.close_all()


def test_a_killed_rotation_continues(myloware: Store, myloware_dsn: str) -> None:
    """Each connector is one statement: killed after some, the next run does the others, and none is lost."""
    for n in range(6):
        myloware.connectors.register(f"c{n}", "API", config={"password": f"canary{n}"})
    keys = f"{NEW},test:{'A' * 43}="
    program = f"""
import os, signal
from myloware_store import Settings
from myloware_store.db.database import StoreDatabase
from myloware_store.platform.rotation import rotate

def kill(told):
    if "3 connectors" in told:
        os.kill(os.getpid(), signal.SIGKILL)

rotate(StoreDatabase(Settings.load({myloware_dsn!r})), kill)
"""
    killed = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "MYLOWARE_SECRET_KEYS": keys}, check=False
    )
    assert -signal.SIGKILL == killed.returncode
    database = rotating(myloware, keys)
    assert {"new": 3, "test": 3} == rotation.status(database).keys
    assert 3 == rotation.rotate(database).connectors
    proxied = Connector._meta.database
    before = proxied.obj
    myloware.connectors._db = database
    assert [f"canary{n}" for n in range(6)] == [myloware.connectors.reveal(f"c{n}")["password"] for n in range(6)]
    myloware.connectors._db = before
    database.close_all()

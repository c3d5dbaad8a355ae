"""One secret, and one key, looked for in all that can be seen: nobody finds either."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

from myloware_store import Connector, Secrets, Settings, Store, StoreError
from myloware_store.ops.backup.programs import find_program, login_environment
from myloware_store.ops.migrate import migrate
from tests.conftest import on_one_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store.embedded import EmbeddedServer
    from tests.integration.cli.conftest import Shell

CANARY = "canary-5c1d"
KEY = urlsafe_b64encode(b"the key that nobody may ever see").decode()
KEYS = f"k:{KEY}"
LOGGED = (
    "-c log_statement=all -c log_min_error_statement=debug5 -c log_min_messages=debug1 -c log_error_verbosity=verbose"
)
PICKY = "ALTER TABLE connectors ADD CONSTRAINT picky CHECK (name <> 'picky') NOT VALID"
SHAPES = "SELECT string_agg(t::text, '') FROM {} AS t"


def config() -> dict[str, Any]:
    """Return a config with the canary in it."""
    return {"host": "db", "password": CANARY, "accounts": [{"api_key": CANARY, "user": "kim"}], "t": "secret://v/a"}


def told_by(error: BaseException) -> str:
    """Return all that an error shows: its traceback, the variables of the library's frames, the driver's error."""
    stack = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    frames = [f"{frame.name} {frame.locals}" for frame in stack if "/tests/" not in frame.filename]
    driver = getattr(error, "driver_error", None)
    detail = driver.diag.message_detail if isinstance(driver, psycopg2.Error) else ""
    shown = "".join(traceback.format_exception(error))
    return "".join([shown, repr(error), *frames, f"{driver!r}{detail}", repr(error.__context__)])


def leak(*_: object) -> str:
    """Fail with the canary in the message."""
    raise ValueError(CANARY)


@on_one_server
def test_the_canary_is_seen_nowhere(
    shell: Shell,
    postgres: EmbeddedServer,
    empty_database: str,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Not in the database or its log, nor in backups, errors, tracebacks, logs, warnings, dumps or commands' output."""
    plain = Settings.load(empty_database, environ={"MYLOWARE_SECRET_KEYS": KEYS}, dotenv=None)
    migrate(plain)
    settings = attrs.evolve(plain, params={**plain.params, "options": LOGGED})
    begin = postgres.log_path.stat().st_size
    seen: list[str] = [repr(settings), str(settings), repr(settings.secrets), settings.url]

    with caplog.at_level(logging.DEBUG), Store.open(settings=settings, secrets=Secrets(resolve=leak)) as store:
        connectors = store.connectors
        one = connectors.register("one", "API", config=config())
        other = Connector.create(name="two", type="API", config=config())
        Connector.bulk_create([Connector(name="three", type="API", config=config())])
        Connector.insert(name="four", type="API", config=config()).execute()
        Connector.insert_many([{"name": "five", "type": "API", "config": config()}]).execute()
        other.config["password"] = f"{CANARY}2"
        other.save()
        for row in (one, other, connectors.get("two"), *connectors.list(), *Connector.select()):
            seen += [repr(row), str(row), repr(row.config), json.dumps(row.config), repr(pickle.dumps(row.config))]

        store.db.execute_sql(PICKY)
        picky = {"name": "picky", "type": "API"}
        other.config["password"], other.name = f"{CANARY}3", "picky"
        calls: list[Callable[[], Any]] = [
            lambda: connectors.register("picky", "API", config=config()),
            lambda: connectors.register("", "API", config=config()),
            lambda: connectors.register("x", "API", config={**config(), "set": {CANARY}}),
            lambda: connectors.register("x", "API", config={**config(), "token": "***"}),
            lambda: Connector.create(**picky, config=config()),
            lambda: Connector.create(**picky, config={**config(), "token": "***"}),
            lambda: Connector.bulk_create([Connector(**picky, config=config())]),
            lambda: Connector.insert(**picky, config=config()).execute(),
            other.save,
            lambda: connectors.reveal("one"),
            lambda: connectors.check("one", lambda _: None),
            lambda: connectors.reveal("moved"),
        ]
        store.db.execute_sql("UPDATE connectors SET id = gen_random_uuid(), name = 'moved' WHERE name = 'five'")
        for call in calls:
            with pytest.raises(StoreError) as caught:
                call()
            seen.append(told_by(caught.value))
        store.db.query_hooks.append(lambda *shown: seen.append(repr(shown)))
        connectors.register("one", "API", config={**config(), "host": "db2", "t": ""})
        assert CANARY == connectors.reveal("one")["password"]
        connectors.check("one", leak)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # the process has ended
                seen.append(path.read_text(errors="replace"))
        queries = "SELECT string_agg(query, '') FROM pg_stat_activity"
        ((tables,),) = store.db.execute_sql(
            "SELECT array_agg(oid::regclass::text) FROM pg_class WHERE relkind = 'r' AND relname !~ '^(pg|sql)_'"
        )
        seen += [str(store.db.execute_sql(sql).fetchone()) for sql in (queries, *map(SHAPES.format, tables))]
        version = store.db.server_version
        assert "one" in str(store.db.execute_sql(SHAPES.format("connectors")).fetchone())

    # What `backup` writes, uncompressed.
    with find_program("pg_dump", version // 10_000, "the server is new").running(
        "--dbname", plain.libpq_url, env=login_environment(plain)
    ) as dump:
        seen.append(dump.read().decode())
    assert "two" in seen[-1]
    url = ("--url", empty_database)
    for words in ("secrets status", "secrets rotate", "secrets rotate --json", "secrets status --json"):
        done = shell.run(*words.split(), *url, MYLOWARE_SECRET_KEYS=f"next:{'A' * 43}=,{KEYS}")
        assert "moved" in done.stdout + done.stderr
        seen.append(done.stdout + done.stderr)
    seen += [caplog.text, *(str(warning.message) for warning in recwarn)]
    written = postgres.log_path.read_bytes()[begin:].decode(errors="replace")
    assert all(word in written for word in ("INSERT INTO", "$secret", "picky", "DETAIL"))
    seen.append(written)

    hidden = (CANARY, KEY, KEY[:20], repr(b"the key that nobody"))
    assert [] == [text[:2000] for text in seen if any(word in text for word in hidden)]

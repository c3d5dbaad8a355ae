"""Secrets of connectors: encrypted before SQL, masked when read, and kept when a mask is written back."""

from __future__ import annotations

import json
import re
import threading
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from psycopg2.extras import Json

from myloware_store import (
    Connector,
    InvalidInput,
    MissingKey,
    Secrets,
    SecretsError,
    Settings,
    SettingsError,
    Store,
    Tool,
    UnreadableSecret,
)
from myloware_store.db.database import StoreDatabase
from tests.integration.conftest import until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MASK = re.compile(r"\*\*\*[0-9a-f]{12}")
CLEAR = {
    "host": "db",
    "password": "hunter2",
    "accounts": [{"user": "a", "token": "first token"}, {"user": "b", "token": "second token"}],
}


def key(number: int) -> str:
    """Return a key as text."""
    return urlsafe_b64encode(bytes([number]) * 32).decode()


def stored(name: str = "ledger") -> Any:
    """Return a config as the database has it."""
    sql = "SELECT config::text FROM connectors WHERE name = %s"
    return json.loads(Connector._meta.database.execute_sql(sql, (name,)).fetchone()[0])


@contextmanager
def keys_of(store: Store, **given: Any) -> Iterator[Store]:
    """Open the store's database with other keys."""
    settings = attrs.evolve(store.settings, secrets=Secrets(**given))
    database, before = StoreDatabase(settings), store.connectors._db
    proxied = Connector._meta.database
    bound = proxied.obj
    store.connectors._db = database
    proxied.initialize(database)
    try:
        yield store
    finally:
        store.connectors._db = before
        proxied.initialize(bound)
        database.close_all()


def test_a_secret_is_encrypted_and_masked(myloware: Store) -> None:
    """The database has the ciphertext, the caller masks, and only `reveal` returns the secret."""
    row = myloware.connectors.register("ledger", "API", config=CLEAR)

    told = stored()
    assert "db" == told["host"]
    assert ["$secret"] == [*told["password"]]
    assert re.fullmatch(r"v1:test:[0-9a-f]{12}:[A-Za-z0-9_-]+", told["password"]["$secret"])
    assert not any(secret in json.dumps(told) for secret in ("hunter2", "first token", "second token"))
    listed = next(each for each in myloware.connectors.list() if each.name == "ledger")
    for seen in (row, myloware.connectors.get("ledger"), listed, Connector.get(Connector.name == "ledger")):
        assert "db" == seen.config["host"]
        assert MASK.fullmatch(seen.config["password"])
        assert [MASK.fullmatch(each["token"]) is not None for each in seen.config["accounts"]] == [True, True]
    assert CLEAR == myloware.connectors.reveal("ledger") == myloware.connectors.reveal(row.id)


def test_names_mark_secrets(myloware: Store) -> None:
    """A name that ends with the words of one is one, in any spelling."""
    secrets = ["password", "smtp_password", "clientSecret", "X-API-Key", "APIKEY", "accessToken"]
    others = ["max_tokens", "token_url", "secretary", "key", "host", "passwords"]
    row = myloware.connectors.register("ledger", "API", config=dict.fromkeys([*secrets, *others], "x"))
    assert {*others} == {name for name, value in row.config.items() if value == "x"}


def test_what_is_inside_of_a_secret_is_secret(myloware: Store) -> None:
    """Values of all kinds come back as they were; what can be no secret stays readable."""
    plain: dict[str, Any] = {"on": True, "none": None, "empty": "", "l": []}
    config = {"credentials": {"user": "kim", "pin": 1234, "factor": 0.5, **plain}}
    row = myloware.connectors.register("ledger", "API", config=config)
    assert plain == {name: value for name, value in row.config["credentials"].items() if not MASK.fullmatch(str(value))}
    assert config == myloware.connectors.reveal("ledger")
    assert int is type(myloware.connectors.reveal("ledger")["credentials"]["pin"])


def test_a_schema_of_the_type_declares_secrets(myloware: Store) -> None:
    """`writeOnly` and `format: password` do, wherever the schema says so; other types are not touched."""
    hook = {"$ref": "#/$defs/hook"}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"hook": {"type": "string", "writeOnly": True, "minLength": 99}},
        "properties": {"hooks": {"items": hook}, "url": {"anyOf": [{"type": "null"}, {"format": "password"}]}},
        "if": {"required": ["never"]},
        "then": {"properties": {"late": {"writeOnly": True}}},
        "not": {"properties": {"host": {"writeOnly": True}}},
    }
    myloware.schemas.register("slack", "1", "SLACK", schema)
    myloware.schemas.activate("slack", "1")
    config = {"hooks": ["https://a", "https://b"], "url": "https://c", "host": "d", "late": "e"}

    slack = myloware.connectors.register("chat", "SLACK", config=config)
    other = myloware.connectors.register("other", "API", config=config)
    made = Connector.create(name="made", type="SLACK", config=config)

    for row in (slack, made):
        assert "d" == row.config["host"]
        assert all(MASK.fullmatch(each) for each in (*row.config["hooks"], row.config["url"], row.config["late"]))
        assert config == myloware.connectors.reveal(row)
    assert config == other.config
    made.config = {"url": "https://new"}
    made.save()
    assert MASK.fullmatch(made.config["url"])
    with pytest.raises(InvalidInput, match=r"config\.url: a secret is encrypted for one row"):
        Connector.update(config={"url": "https://x"}).where(Connector.id == made.id).execute()


def test_a_mask_keeps_its_secret(myloware: Store) -> None:
    """A config that is read, changed and written back keeps its secrets, also as JSON, moved or shortened."""
    row = myloware.connectors.register("ledger", "API", config=CLEAR)
    before = stored()
    form = json.loads(json.dumps(row.config))

    form["host"] = "db2"
    row = myloware.connectors.register("ledger", "API", config=form)
    assert {**CLEAR, "host": "db2"} == myloware.connectors.reveal("ledger")
    assert before["password"] == stored()["password"]

    del form["accounts"][0]
    myloware.connectors.register("ledger", "API", config=form)
    assert [{"user": "b", "token": "second token"}] == myloware.connectors.reveal("ledger")["accounts"]

    row = Connector.get(Connector.name == "ledger")
    row.config["host"] = "db3"
    row.config["token"] = "new"
    row.save()
    assert MASK.fullmatch(row.config["token"])
    revealed = myloware.connectors.reveal("ledger")
    assert ("db3", "new", "hunter2") == (revealed["host"], revealed["token"], revealed["password"])


def test_a_mask_that_stands_for_nothing_is_refused(myloware: Store) -> None:
    """Of another row, of a secret that was replaced, or made up: nothing is stored."""
    row = myloware.connectors.register("ledger", "API", config={"password": "hunter2"})
    myloware.connectors.register("other", "API", config={"password": "other"})
    calls: list[Callable[[], Any]] = [
        lambda: myloware.connectors.register("other", "API", config=row.config),
        lambda: myloware.connectors.register("third", "API", config=row.config),
        lambda: myloware.connectors.register("third", "API", config={"password": "***"}),
        lambda: myloware.connectors.register("other", "API", config={"password": "***"}),
        lambda: Connector.create(name="third", type="API", config=row.config),
        lambda: Connector.update(config=row.config).where(Connector.name == "other").execute(),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=r"config\.password"):
            call()
    assert {"password": "other"} == myloware.connectors.reveal("other")
    assert None is Connector.get_or_none(Connector.name == "third")
    myloware.connectors.register("ledger", "API", config={"password": "changed"})
    row.config["host"] = "db"
    with pytest.raises(InvalidInput, match="read the row again"):
        row.save()
    assert {"password": "changed"} == myloware.connectors.reveal("ledger")


def test_the_same_secret_again_changes_nothing(myloware: Store) -> None:
    """A service that registers its connectors at every start leaves them as they are."""
    first = myloware.connectors.register("ledger", "API", config=CLEAR)
    before = stored()
    again = myloware.connectors.register("ledger", "API", config=CLEAR)
    assert (before, first.updated_at) == (stored(), again.updated_at)


@pytest.mark.parametrize(
    "way", ["create", "save", "insert", "insert_many", "bulk_create", "bulk_update", "Json", "pairs"]
)
def test_every_way_of_the_models_encrypts(myloware: Store, way: str) -> None:
    """And what the way returns has masks."""
    values: dict[str, Any] = {"name": "ledger", "type": "API", "config": {"password": "hunter2"}}
    row = None
    if way == "create":
        row = Connector.create(**values)
    elif way == "save":
        row = Connector(**values)
        row.save()
    elif way == "insert":
        Connector.insert(values).execute()
    elif way == "insert_many":
        Connector.insert_many([{"name": "plain", "type": "API"}, values]).execute()
    elif way == "bulk_create":
        row = Connector(**values)
        Connector.bulk_create([row, Connector(name="plain", type="API")])
    elif way == "bulk_update":
        row = Connector.create(name="ledger", type="API", config={"password": "old", "host": "db"})
        row.config = {"password": "hunter2"}
        Connector.bulk_update([row], ["config"])
    elif way == "Json":
        row = Connector.create(**{**values, "config": Json(values["config"])})
    else:
        Connector.insert_many([("ledger", "API", values["config"])], ["name", "type", "config"]).execute()

    assert "hunter2" not in json.dumps(stored())
    assert {"password": "hunter2"} == myloware.connectors.reveal("ledger")
    if row is not None:
        assert MASK.fullmatch(row.config["password"])
        assert not row.is_dirty()


def test_no_statement_of_the_models_contains_a_secret(myloware: Store) -> None:
    """What is for no certain row, and conditions, refuse secrets before SQL."""
    row = myloware.connectors.register("ledger", "API", config={"password": "hunter2", "host": "db"})
    before, config = stored(), {"password": "stolen"}
    field: Any = Connector.config
    calls: list[Callable[[], Any]] = [
        lambda: Connector.update(config=config).execute(),
        lambda: Connector.update(config=Json(config)).execute(),
        lambda: Connector.update({"config": config}).execute(),
        lambda: Connector.update(config=field.update(config)).execute(),
        lambda: Connector.update(config=field["nested"].set(config)).execute(),
        lambda: Connector.update(config=field["password"].set("stolen")).execute(),
        lambda: list(Connector.select().where(field == config)),
        lambda: list(Connector.select().where(field.contains(config))),
        lambda: list(Connector.select().where(field["password"] == "stolen")),
        lambda: list(Connector.select().where(field.path("a", "password").as_text() == "stolen")),
        lambda: Connector.get_or_create(name="ledger", type="API", config=config),
        lambda: (
            Connector.insert(name="ledger", type="API")
            .on_conflict(conflict_target=[Connector.tenant_id, Connector.name], update={"config": config})
            .execute()
        ),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match="secret"):
            call()
    assert before == stored()
    assert 1 == Connector.update(config={"host": "plain"}).where(Connector.id == row.id).execute()
    assert 1 == Connector.update(config=field["host"].set("db")).where(field["host"] == "plain").execute()


def test_racing_registrations_lose_no_secret(myloware: Store) -> None:
    """Each is encrypted for the row that there is in the end, whoever inserted it."""
    barrier = threading.Barrier(6)

    def register(n: int) -> Any:
        barrier.wait()
        return myloware.connectors.register("ledger", "API", config={"password": f"p{n}", "host": n}).id

    with ThreadPoolExecutor(6) as pool:
        assert 1 == len({*pool.map(register, range(6))})
    revealed = myloware.connectors.reveal("ledger")
    assert f"p{revealed['host']}" == revealed["password"]


def test_a_save_waits_for_another_of_the_same_secret(myloware: Store) -> None:
    """A mask is looked up under a lock: a secret that is replaced meanwhile does not come back."""
    row = myloware.connectors.register("ledger", "API", config={"password": "old"})
    row.config["host"] = "db"
    with ThreadPoolExecutor(1) as pool, myloware.db.atomic():
        myloware.connectors.register("ledger", "API", config={"password": "new"})
        call = pool.submit(row.save)
        until_blocked(myloware, call)
    with pytest.raises(InvalidInput, match="read the row again"):
        call.result()
    assert {"password": "new"} == myloware.connectors.reveal("ledger")


def test_secrets_in_the_callers_transaction(myloware: Store) -> None:
    """Nothing is stored if it is rolled back."""
    with myloware.db.atomic() as block:
        myloware.connectors.register("ledger", "API", config={"password": "x"})
        row = Connector.create(name="made", type="API", config={"password": "y"})
        row.config["host"] = "db"
        row.save()
        assert {"password": "y", "host": "db"} == myloware.connectors.reveal(row)
        block.rollback()
    assert not {"ledger", "made"} & {each.name for each in myloware.connectors.list()}


def test_deep_configs_are_stored_whole_or_refused(myloware: Store) -> None:
    """At the depth at which JSON itself is refused."""
    deep: dict[str, Any] = {"password": "x"}
    for _ in range(120):
        deep = {"a": [deep]}
    myloware.connectors.register("deep", "API", config=deep)
    assert deep == myloware.connectors.reveal("deep")
    with pytest.raises(InvalidInput, match="not JSON"):
        myloware.connectors.register("deep", "API", config={"a": [[[[[[[[[[[[[[deep]]]]]]]]]]]]]]})


def test_an_upsert_through_the_models_loses_no_secret(myloware: Store) -> None:
    """The row that exists keeps its id, so it cannot take over what was encrypted for another one."""
    myloware.connectors.register("ledger", "API", config={"password": "hunter2"})
    query = Connector.insert(name="ledger", type="API", config={"password": "new"})
    for kept in (["config"], [Connector.config]):
        with pytest.raises(InvalidInput, match=r"connectors\.register"):
            query.on_conflict(conflict_target=[Connector.tenant_id, Connector.name], preserve=kept).execute()
    assert {"password": "hunter2"} == myloware.connectors.reveal("ledger")


MOVES = {
    "row": "UPDATE connectors SET config = (SELECT config FROM connectors WHERE name = 'other') WHERE name = 'ledger'",
    "tenant": "UPDATE connectors SET tenant_id = 'globex' WHERE name = 'ledger'",
    "field": "UPDATE connectors SET config = jsonb_build_object('token', config->'password') WHERE name = 'ledger'",
    "altered": "UPDATE connectors SET config = replace(config::text, right(config::text, 9), 'AAAAAA\"}}')::jsonb",
    "short": "UPDATE connectors SET config = regexp_replace(config::text, ':[^:]*\"}}', ':AAAA\"}}')::jsonb",
    "form": 'UPDATE connectors SET config = \'{"password": {"$secret": "v9"}}\' WHERE name = \'ledger\'',
}


@pytest.mark.parametrize("move", MOVES)
def test_a_ciphertext_opens_only_at_its_place(myloware: Store, move: str) -> None:
    """Moved to another row, tenant or field, or altered, it is refused, when read and when kept."""
    myloware.connectors.register("other", "API", config={"password": "other"})
    row = myloware.connectors.register("ledger", "API", config={"password": "hunter2"})
    myloware.db.execute_sql(MOVES[move].replace("%", "%%"))
    before = stored()
    for call in (myloware.connectors.reveal, lambda one: myloware.connectors.check(one, lambda _: None)):
        with pytest.raises(UnreadableSecret, match=r"config\.(password|token)") as caught:
            call(row.id)
        assert caught.value.__context__ is None
    assert before == stored()
    masked = myloware.connectors.get(row.id).config
    assert all(value.startswith("***") for value in masked.values())
    other = stored("other")
    with pytest.raises(UnreadableSecret):
        myloware.connectors.register("third", "API", config=other)


def test_keys_are_found_by_their_ids(myloware: Store) -> None:
    """The first encrypts, all decrypt; a wrong or a missing one is an error that changes nothing."""
    with keys_of(myloware, keys=f"old:{key(1)}"):
        myloware.connectors.register("ledger", "API", config={"password": "hunter2"})
    before = stored()
    assert before["password"]["$secret"].startswith("v1:old:")
    with keys_of(myloware, keys=f"new:{key(2)},old:{key(1)}"):
        assert {"password": "hunter2"} == myloware.connectors.reveal("ledger")
        myloware.connectors.register("other", "API", config={"password": "x"})
        assert stored("other")["password"]["$secret"].startswith("v1:new:")
    with keys_of(myloware, keys=f"old:{key(3)}"), pytest.raises(UnreadableSecret, match="the key old"):
        myloware.connectors.reveal("ledger")
    with keys_of(myloware, keys=f"new:{key(2)}"), pytest.raises(MissingKey, match="the key old"):
        myloware.connectors.reveal("ledger")
    with keys_of(myloware):
        with pytest.raises(MissingKey, match="the key old"):
            myloware.connectors.reveal("ledger")
        calls: list[Callable[[], Any]] = [
            lambda: myloware.connectors.register("third", "API", config={"password": "x"}),
            lambda: Connector.create(name="third", type="API", config={"password": "x"}),
        ]
        for call in calls:
            with pytest.raises(MissingKey, match=r"config\.password is a secret.*MYLOWARE_SECRET_KEYS"):
                call()
        assert {"host": "db"} == myloware.connectors.register("third", "API", config={"host": "db"}).config
    assert before == stored()


def test_keys_come_from_a_function(myloware: Store) -> None:
    """It is asked for the id; what it raises or returns wrongly is told without its words."""
    asked: list[str] = []

    def keys(key_id: str) -> bytes:
        asked.append(key_id)
        return bytes(32)

    with keys_of(myloware, keys=keys, current="kms-1"):
        myloware.connectors.register("ledger", "API", config={"password": "hunter2"})
        assert {"password": "hunter2"} == myloware.connectors.reveal("ledger")
    assert ["kms-1", "kms-1"] == asked
    wrongs: list[Any] = [(lambda _: 1 / 0, "ZeroDivisionError"), (lambda _: b"short", "other than 32 bytes")]
    for wrong, words in wrongs:
        with keys_of(myloware, keys=wrong, current="kms-1"), pytest.raises(MissingKey, match=words) as caught:
            myloware.connectors.reveal("ledger")
        assert caught.value.__context__ is None


def test_references_are_resolved_when_asked(myloware: Store) -> None:
    """With the tenant, so that the resolver can keep tenants apart; they are no secrets themselves."""
    config = {"password": "secret://vault/ledger#password", "user": "kim"}
    assert config == myloware.connectors.register("ledger", "API", config=config).config == stored()
    with pytest.raises(SecretsError, match=r"config\.password is a reference"):
        myloware.connectors.reveal("ledger")
    with keys_of(myloware, resolve=lambda reference, tenant: f"{tenant} {reference[-8:]}"):
        assert {"password": "default password", "user": "kim"} == myloware.connectors.reveal("ledger")
    with (
        keys_of(myloware, resolve=lambda *_: dict[str, str]()["hunter2"]),
        pytest.raises(SecretsError, match="KeyError") as caught,
    ):
        myloware.connectors.reveal("ledger")
    assert "hunter2" not in f"{caught.value}{caught.value.__context__}"


def test_secrets_can_stay_unencrypted(myloware: Store) -> None:
    """By request; they are masked, and encrypted as soon as they are written with a key."""
    with keys_of(myloware, keys="off"):
        row = myloware.connectors.register(
            "ledger", "API", config={"host": "db", "password": "hunter2", "l": [{"pwd": "x"}]}
        )
        assert ("***", "hunter2") == (row.config["password"], stored()["password"])
        row.config["host"] = "db2"
        with pytest.raises(InvalidInput, match=r"config\.l\[0\]\.pwd"):
            row.save()  # the mask does not say which element of the list it is of
        myloware.connectors.register("ledger", "API", config={"host": "db", "password": "hunter2"})
    row = myloware.connectors.get("ledger")
    row.config["host"] = "db3"
    row.save()
    assert {"host": "db3", "password": "hunter2"} == myloware.connectors.reveal("ledger")
    assert "hunter2" not in json.dumps(stored())


def test_names_are_a_setting(myloware: Store) -> None:
    """In place of the default ones, or beside them."""
    names = Secrets.load({"MYLOWARE_SECRET_NAMES": "+webhook-url, hooks"}).names
    with keys_of(myloware, keys="off", names=names):
        row = myloware.connectors.register(
            "ledger", "API", config={"password": "x", "slackWebhookUrl": "y", "url": "z"}
        )
        assert {"password": "***", "slackWebhookUrl": "***", "url": "z"} == row.config
    with keys_of(myloware, names=Secrets.load({"MYLOWARE_SECRET_NAMES": "hooks"}).names):
        assert {"password": "x", "hooks": "***"} == {
            **myloware.connectors.register("plain", "API", config={"password": "x"}).config,
            "hooks": Connector.config.python_value({"hooks": "z"})["hooks"],
        }


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": "a"},
        {"keys": "a:b"},
        {"keys": f"a:{key(1)[:-4]}"},
        {"keys": f"a:{key(1)},a:{key(2)}"},
        {"keys": f"a b:{key(1)}"},
        {"keys": f"a:{key(1)}", "current": "b"},
        {"keys": 5},
        {"keys": lambda _: b""},
        {"resolve": "x"},
        {"names": ["!"]},
    ],
)
def test_keys_that_cannot_be_used_are_refused(wrong: dict[str, Any]) -> None:
    """When they are given, and without being shown."""
    with pytest.raises(SettingsError) as caught:
        Secrets(**wrong)
    assert key(1)[:9] not in str(caught.value)


def test_settings_carry_the_keys_unseen(myloware: Store) -> None:
    """From the environment, through changes of the settings, and to `Store.open`."""
    environ = {"MYLOWARE_SECRET_KEYS": f"b:{key(2)}, a:{key(1)}", "MYLOWARE_SECRET_NAMES": "hooks"}
    settings = attrs.evolve(Settings.load("embedded:", environ=environ, dotenv=None), schema="other")
    assert ("b", bytes([1]) * 32) == (settings.secrets.current_id, settings.secrets.key("a"))
    assert key(2)[:9] not in f"{settings!r}{settings}{settings.secrets}"
    given = Secrets(resolve=lambda *_: "x").over(settings.secrets)
    assert ("b", frozenset({"hooks"})) == (given.current_id, given.names)
    assert given.resolve is not None
    assert f"c:{key(3)}" == Secrets(keys=f"c:{key(3)}").over(settings.secrets).keys
    wrongs: list[dict[str, Any]] = [{"secrets": "x"}, {"secrets": Secrets(), "database": myloware.db}]
    for wrong in wrongs:
        with pytest.raises(SettingsError, match="secrets"):
            Store.open(**wrong)
    with pytest.raises(SettingsError, match="MYLOWARE_SECRET_KEYS"):
        Settings.load("embedded:", environ={"MYLOWARE_SECRET_KEYS": "nonsense"}, dotenv=None)


def test_a_second_store_has_the_secrets_of_the_first(myloware_dsn: str) -> None:
    """Unless it names others, which is refused."""
    with Store.open(myloware_dsn, secrets=Secrets(keys=f"a:{key(1)}", resolve=lambda *_: "x")) as first:
        with Store.open(myloware_dsn) as second:
            assert first.settings.secrets == second.settings.secrets
        with pytest.raises(SettingsError, match="a store is open"):
            Store.open(myloware_dsn, secrets=Secrets(keys=f"b:{key(2)}"))


def test_a_connector_of_a_tool_has_masks(myloware: Store) -> None:
    """Joined, loaded through a tool, and as dicts and tuples."""
    myloware.connectors.register("ledger", "API", config={"password": "hunter2"})
    myloware.tools.register("look_up", "ledger")
    tool = Tool.select(Tool, Connector).join(Connector).where(Tool.name == "look_up").get()
    loaded = Tool.get(Tool.name == "look_up").connector
    query = Connector.select(Connector.config).where(Connector.name == "ledger")
    for config in (tool.connector.config, loaded.config, query.dicts().get()["config"], query.tuples().get()[0]):
        assert MASK.fullmatch(config["password"])


def test_the_extra_is_named(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package `cryptography` all works but secrets."""
    import sys

    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert {"host": "db"} == myloware.connectors.register("ledger", "API", config={"host": "db"}).config
    with pytest.raises(SecretsError, match=r"install myloware-store\[secrets\]"):
        myloware.connectors.register("ledger", "API", config={"password": "x"})

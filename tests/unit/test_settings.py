"""Settings: the choice of the database, precedence, and that no secret shows."""

from __future__ import annotations

import copy
import math
import os
import pickle
import traceback
from pathlib import Path
from typing import Any

import attrs
import pytest

from myloware_store.core.errors import SettingsError
from myloware_store.settings import Settings

URL = "postgresql://u:hunter2@db.example:5433/shop"


def load(url: str | None = None, **environ: str) -> Settings:
    """Load settings from the arguments only."""
    return Settings.load(url, environ=environ, dotenv=None)


def test_nothing_set_means_the_embedded_server_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database named, the embedded server in `.myloware` under the working folder is meant."""
    monkeypatch.chdir(tmp_path)

    settings = load()

    assert (True, tmp_path / ".myloware", False) == (settings.embedded, settings.embedded_home, settings.configured)


@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("embedded:", ".myloware"),
        ("embedded:data", "data"),
        ("embedded:with space", "with space"),
        ("EMBEDDED:data", "data"),
        (" embedded:data\n", "data"),
    ],
)
def test_embedded_urls_name_a_folder_under_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, home: str
) -> None:
    """`embedded:` with a path means the embedded server there."""
    monkeypatch.chdir(tmp_path)

    settings = load(url)

    assert (True, tmp_path / home, False) == (settings.embedded, settings.embedded_home, settings.configured)


@pytest.mark.parametrize("url", ["embedded:/srv/store", "embedded:///srv/store"])
def test_embedded_urls_take_an_absolute_path(url: str) -> None:
    """An absolute path is taken as it is, whichever way it is written."""
    assert Path("/srv/store") == load(url).embedded_home


def test_a_working_folder_that_is_gone_is_a_settings_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the working folder was deleted, there is no place for the embedded server."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(SettingsError, match="embedded server's folder"):
        load()


def test_the_embedded_server_has_no_address_before_it_runs() -> None:
    """An embedded store whose server was not started refuses to connect, rather than to some other server."""
    with pytest.raises(SettingsError, match="not running"):
        load("embedded:").connect_kwargs()


def test_the_embedded_servers_address_is_filled_in() -> None:
    """`with_server` gives settings that connect to the server named, other parameters included."""
    settings = load("embedded:").with_server(host="/run/x", port=5432, user="postgres", dbname="m", sslmode="disable")

    found = settings.connect_kwargs()

    assert {"host": "/run/x", "port": "5432", "user": "postgres", "dbname": "m", "sslmode": "disable"} == {
        key: found[key] for key in ("host", "port", "user", "dbname", "sslmode")
    }
    assert settings.embedded


@pytest.mark.parametrize("word", ["production", "PRODUCTION", " prod "])
def test_production_with_nothing_set_is_refused(word: str) -> None:
    """In production an embedded database never stands in for one that somebody forgot to name."""
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        load(MYLOWARE_ENV=word)


def test_production_takes_a_named_database() -> None:
    """In production a named database is used, and the settings know where they are."""
    assert load(MYLOWARE_ENV="production", DATABASE_URL=URL).production
    assert not load(DATABASE_URL=URL).production


def test_the_parts_have_the_defaults_of_the_specification() -> None:
    """With one DATABASE_* part set, the host is localhost, the port 5432 and the database myloware."""
    settings = load(DATABASE_USER="myloware")

    assert ("localhost", 5432, "myloware", "myloware") == (
        settings.host,
        settings.port,
        settings.dbname,
        settings.user,
    )
    assert settings.configured


def test_every_part_is_read() -> None:
    """All five parts reach the connection as they are written."""
    settings = load(
        DATABASE_HOST="::1",
        DATABASE_PORT="5433",
        DATABASE_NAME="shop",
        DATABASE_USER="me",
        DATABASE_PASSWORD=" p@ss/w%rd\t",
    )

    assert ("::1", 5433, "shop", "me", " p@ss/w%rd\t") == (
        settings.host,
        settings.port,
        settings.dbname,
        settings.user,
        settings.password,
    )


def test_the_argument_beats_the_url_and_the_url_beats_the_parts(tmp_path: Path) -> None:
    """The precedence is: argument, DATABASE_URL, parts, file, embedded."""
    filed = tmp_path / ".env"
    filed.write_text("DATABASE_URL=postgresql://file/x\n")
    everything = {"DATABASE_URL": "postgresql://url/x", "DATABASE_HOST": "part"}

    hosts = [
        Settings.load("postgresql://argument/x", environ=everything, dotenv=filed).host,
        Settings.load(environ=everything, dotenv=filed).host,
        Settings.load(environ={"DATABASE_HOST": "part"}, dotenv=filed).host,
        Settings.load(environ={}, dotenv=filed).host,
        Settings.load(environ={}, dotenv=tmp_path / "none").host,
    ]

    assert ["argument", "url", "part", "file", ""] == hosts


@pytest.mark.parametrize(
    "name",
    ["DATABASE_URL", "DATABASE_HOST", "DATABASE_PORT", "DATABASE_NAME", "DATABASE_USER", "DATABASE_PASSWORD"],
)
def test_one_real_variable_puts_the_files_whole_group_aside(tmp_path: Path, name: str) -> None:
    """A password from `.env` is never sent to a host from the environment."""
    filed = tmp_path / ".env"
    filed.write_text(
        "DATABASE_HOST=filehost\nDATABASE_NAME=filename\nDATABASE_USER=fileuser\nDATABASE_PASSWORD=filed\n"
    )
    real = {"DATABASE_URL": "postgresql://h/x", "DATABASE_PORT": "5433"}.get(name, "real")

    settings = Settings.load(environ={name: real}, dotenv=filed)

    assert not {"filehost", "filename", "fileuser", "filed"} & {
        settings.host,
        settings.dbname,
        settings.user,
        settings.password,
    }


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_an_empty_variable_counts_as_not_set(tmp_path: Path, empty: str) -> None:
    """Compose files pass unset variables as empty ones: they put nothing of the file's aside."""
    filed = tmp_path / ".env"
    filed.write_text(f"DATABASE_URL={URL}\nMYLOWARE_TENANT=acme\n")

    settings = Settings.load(environ={"DATABASE_URL": empty, "MYLOWARE_TENANT": empty}, dotenv=filed)

    assert ("db.example", "acme") == (settings.host, settings.tenant_id)


@pytest.mark.parametrize(
    ("environ", "filed", "names"),
    [
        ({"DATABASE_URL": ""}, "", "DATABASE_URL is"),
        ({"DATABASE_HOST": " ", "DATABASE_PASSWORD": ""}, "", "DATABASE_HOST, DATABASE_PASSWORD are"),
        ({}, "DATABASE_URL=${SECRET:-}\n", "DATABASE_URL is"),
        ({}, "DATABASE_URL=''\n", "DATABASE_URL is"),
    ],
)
def test_a_name_that_came_out_empty_is_refused(tmp_path: Path, environ: dict[str, str], filed: str, names: str) -> None:
    """A secret that is missing does not lead to an embedded database, which would go with its container."""
    (tmp_path / ".env").write_text(filed)

    with pytest.raises(SettingsError, match=f"^{names} set and empty"):
        Settings.load(environ=environ, dotenv=tmp_path / ".env")


def test_other_variables_are_read_from_the_file_on_their_own(tmp_path: Path) -> None:
    """MYLOWARE_ENV and MYLOWARE_TENANT of the file hold beside a database from the environment."""
    filed = tmp_path / ".env"
    filed.write_text("MYLOWARE_ENV=production\nMYLOWARE_TENANT=acme\n")

    settings = Settings.load(environ={"DATABASE_URL": URL, "MYLOWARE_TENANT": "other"}, dotenv=filed)

    assert (True, "other") == (settings.production, settings.tenant_id)


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading `.env` sets no variable of the process."""
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(f"DATABASE_URL={URL}\nOTHER=1\n")
    before = dict(os.environ)

    settings = Settings.load()

    assert "db.example" == settings.host
    assert before == dict(os.environ)


def test_a_file_in_utf8_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """A `.env` that an editor on Windows wrote is understood."""
    filed = tmp_path / ".env"
    filed.write_bytes(b"\xef\xbb\xbf" + f'DATABASE_URL="{URL}"\r\n'.encode())

    assert "db.example" == Settings.load(environ={}, dotenv=filed).host


def test_a_folder_called_env_is_ignored(tmp_path: Path) -> None:
    """A virtual environment named `.env` is not a file of settings."""
    (tmp_path / ".env").mkdir()

    assert Settings.load(environ={}, dotenv=tmp_path / ".env").embedded


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """The error for a `.env` that is not UTF-8 names the file, without its content."""
    filed = tmp_path / ".env"
    filed.write_bytes(b"DATABASE_PASSWORD=hunter2\xff\n")

    with pytest.raises(SettingsError, match=r"\.env cannot be read: it is not UTF-8") as caught:
        Settings.load(environ={}, dotenv=filed)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("port", ["0", "65536", "-1", "5432x", "1e3", "٥٤٣٢", "5432,5433", "99999999999999999999"])
def test_a_garbage_port_is_refused(port: str) -> None:
    """DATABASE_PORT must be a port."""
    with pytest.raises(SettingsError, match="1 to 65535"):
        load(DATABASE_PORT=port)


def test_a_host_with_credentials_in_it_is_refused_without_showing_it() -> None:
    """A host that begins with user and password would be printed with the first failed connection."""
    pasted = URL.removeprefix("postgresql://").partition("/")[0]

    with pytest.raises(SettingsError, match="host") as caught:
        load(DATABASE_HOST=pasted)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["DATABASE_HOST", "DATABASE_NAME"])
def test_a_url_in_the_place_of_a_part_is_refused_without_showing_it(name: str) -> None:
    """A whole URL given as host or name holds a password, which libpq would print."""
    with pytest.raises(SettingsError, match="DATABASE_URL") as caught:
        load(**{name: URL})

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "name", ["DATABASE_HOST", "DATABASE_NAME", "DATABASE_USER", "DATABASE_PASSWORD", "DATABASE_URL"]
)
@pytest.mark.parametrize("bad", ["hunter2\x00", "hunter2\udcff"])
def test_text_that_no_server_can_be_told_is_refused_without_showing_it(name: str, bad: str) -> None:
    """NUL and bytes that are not UTF-8 are refused by the variable's name."""
    with pytest.raises(SettingsError, match=name) as caught:
        load(**{name: bad})

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_environment_sets_a_deadline_unless_the_url_does() -> None:
    """Also for a database that single variables name; 0 turns it off, and connecting takes no longer either."""
    of_environment = load(DATABASE_HOST="h", MYLOWARE_CALL_TIMEOUT=" 2.5 ")
    of_url = load(MYLOWARE_CALL_TIMEOUT="5", DATABASE_URL="postgresql://h/d?call_timeout=30")

    assert (2.5, 30.0) == (of_environment.call_timeout, of_url.call_timeout)
    assert ("3", "10") == tuple(one.connect_kwargs()["connect_timeout"] for one in (of_environment, of_url))
    assert (math.inf, None) == (load(URL, MYLOWARE_CALL_TIMEOUT="0").call_timeout, load(URL).call_timeout)
    with pytest.raises(SettingsError, match="MYLOWARE_CALL_TIMEOUT"):
        load(URL, MYLOWARE_CALL_TIMEOUT="-1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"connection_limit": 0}, "connection_limit"),
        ({"connection_limit": True}, "connection_limit"),
        ({"connection_limit": 1.5}, "connection_limit"),
        ({"pool_timeout": 0}, "pool_timeout"),
        ({"pool_timeout": math.nan}, "pool_timeout"),
        ({"pool_timeout": "1"}, "pool_timeout"),
        ({"pool_timeout": 1e300}, "pool_timeout"),
        ({"pool_timeout": 10**400}, "pool_timeout"),
        ({"call_timeout": 0}, "call_timeout"),
        ({"call_timeout": "30"}, "call_timeout"),
        ({"schema": ""}, "schema"),
        ({"schema": "é" * 32}, "schema"),
        ({"tenant_id": " "}, "tenant"),
        ({"tenant_id": "x" * 256}, "tenant"),
        ({"host": None}, "host"),
        ({"port": 70000}, "port"),
        ({"params": 5}, "params"),
        ({"params": {"sslmode": 1}}, "sslmode"),
        ({"params": {1: "require"}}, "params"),
        ({"embedded_home": 5}, "embedded_home"),
        ({"pgbouncer": "false"}, "pgbouncer"),
        ({"production": 1}, "production"),
    ],
)
def test_settings_made_by_hand_are_checked_too(changes: dict[str, Any], message: str) -> None:
    """Every way to make settings refuses what cannot be used."""
    with pytest.raises(SettingsError, match=message):
        attrs.evolve(load(URL), **changes)


def test_no_secret_shows_in_any_representation() -> None:
    """Neither repr, str, formatting nor a masked URL shows a password, whichever parameter holds it."""
    settings = load(f"{URL}?sslpassword=hunter3")

    shown = f"{settings!r} {settings} {settings.safe_url} {settings.target} {settings.libpq_url}"

    assert "hunter" not in shown
    assert "postgresql://u:***@db.example:5433/shop?sslpassword=***" == settings.safe_url


def test_settings_travel_to_another_process() -> None:
    """Settings survive pickling and copying, so that multiprocessing can pass them on."""
    settings = load(f"{URL}?sslmode=require")

    assert settings == pickle.loads(pickle.dumps(settings))
    assert settings == copy.deepcopy(settings)
    assert {settings} == {load(f"{URL}?sslmode=require")}


def test_nothing_changes_settings_once_they_are_made() -> None:
    """Settings that are shared stay as they are: parameters are a copy that cannot be written to."""
    given = {"sslmode": "require"}
    settings = Settings(params=given)
    given["sslmode"] = "disable"

    with pytest.raises(TypeError):
        settings.params["sslmode"] = "disable"  # type: ignore[index]

    assert {"sslmode": "require"} == settings.params == attrs.evolve(settings, host="h").params


def test_every_connection_has_a_deadline_a_name_and_keepalives() -> None:
    """A server that cannot be reached ends in an error by itself, unless the URL says otherwise."""
    plain, asked = load(URL).connect_kwargs(), load(f"{URL}?connect_timeout=3&application_name=mine").connect_kwargs()

    named = (plain["connect_timeout"], plain["fallback_application_name"], plain["keepalives"])
    assert ("10", "myloware_store", "1") == named
    assert ("3", "mine") == (asked["connect_timeout"], asked["application_name"])


@pytest.mark.parametrize(("name", "url"), [("PGSERVICE", URL), ("PGCONNECT_TIMEOUT", URL), ("", f"{URL}?service=s")])
def test_a_timeout_of_libpqs_own_is_left_to_it(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our default goes before neither a service file nor the environment."""
    if name:
        monkeypatch.setenv(name, "7")

    assert "connect_timeout" not in load(url).connect_kwargs()


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("%2Frun%2Fpostgresql", True),
        ("", True),
        ("localhost,127.0.0.1", True),
        ("db.example", False),
        ("10.0.0.1", False),
        ("localhost,db.example", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_only_sockets_and_loopback_addresses_are_local(host: str, local: bool) -> None:  # noqa: FBT001
    """A host counts as local only if all of it is."""
    assert local == load(f"postgresql://{host}/x").local


def test_a_local_name_with_a_foreign_address_is_not_local() -> None:
    """The connection goes to hostaddr, regardless of host."""
    assert not load("postgresql://localhost/x?hostaddr=10.0.0.1").local


@pytest.mark.parametrize(("given", "expected"), [({}, True), ({"MYLOWARE_UPKEEP": " Off "}, False)])
def test_upkeep_can_be_turned_off(given: dict[str, str], *, expected: bool) -> None:
    """It is on by default."""
    assert Settings.load("embedded:", environ=given, dotenv=None).upkeep is expected


def test_upkeep_is_on_or_off() -> None:
    """Another word is refused by the variable's name."""
    with pytest.raises(SettingsError, match="MYLOWARE_UPKEEP must be on or off"):
        Settings.load("embedded:", environ={"MYLOWARE_UPKEEP": "no"}, dotenv=None)

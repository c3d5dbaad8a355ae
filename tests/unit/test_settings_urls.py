"""Database URLs: libpq's and Prisma's are understood alike, and none that is refused shows its password."""

from __future__ import annotations

import math
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myloware_store.core.errors import SettingsError
from myloware_store.settings import Settings

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def load(url: str) -> Settings:
    """Load settings from a URL alone."""
    return Settings.load(url, environ={}, dotenv=None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:1/d", {"host": "h", "port": 1, "user": "u", "password": "p", "dbname": "d"}),
        ("postgres://u:p@h/d", {"host": "h", "port": "", "user": "u", "password": "p", "dbname": "d"}),
        ("POSTGRESQL://h/d", {"host": "h", "dbname": "d"}),
        (" postgresql://h/d\n", {"host": "h", "dbname": "d"}),
        ("postgresql://u:p%40s%2Fs%3Aw%25@h/d", {"password": "p@s/s:w%", "host": "h"}),
        ("postgresql://u:p?w@h/d?sslmode=require", {"password": "p?w", "host": "h", "params": {"sslmode": "require"}}),
        ("postgresql://[::1]:5433/d", {"host": "::1", "port": 5433}),
        ("postgresql://[fe80::1%25eth0]/d", {"host": "fe80::1%eth0"}),
        ("postgresql://%2Frun%2Fpg/d", {"host": "/run/pg", "dbname": "d"}),
        ("postgresql:///d?host=/run/pg&port=5433", {"host": "/run/pg", "port": 5433, "dbname": "d"}),
        ("postgresql://a:1,b:2/d?target_session_attrs=read-write", {"host": "a,b", "port": "1,2"}),
        ("postgresql://a,b:2/d", {"host": "a,b", "port": ",2"}),
        ("postgresql://", {"host": "", "port": "", "dbname": "", "user": ""}),
        ("postgresql://h/%E4%BD%A0", {"dbname": "你"}),
        (
            "host=h port=1 dbname='my db' password='p\\'w'",
            {"host": "h", "port": 1, "dbname": "my db", "password": "p'w"},
        ),
        ("service=shop", {"host": "", "params": {"service": "shop"}}),
        ("postgresql://h/d?user=a%40b&options=-c%20geqo%3Doff", {"user": "a@b", "params": {"options": "-c geqo=off"}}),
        ("postgresql://h/d?ssl=true", {"params": {"sslmode": "require"}}),
        (
            "postgresql://myloware:myloware_dev_password@localhost:5432/myloware?schema=public",
            {"host": "localhost", "port": 5432, "dbname": "myloware", "schema": "public", "params": {}},
        ),
    ],
)
def test_libpqs_urls_are_understood(url: str, expected: dict[str, object]) -> None:
    """Whatever libpq takes as an address, the settings take, with the same meaning."""
    settings = load(url)

    assert expected == {name: getattr(settings, name) for name in expected}
    assert settings.configured


def test_prismas_parameters_are_honoured_and_kept_from_libpq() -> None:
    """schema, connection_limit, pool_timeout and pgbouncer set the settings, and the others pass."""
    settings = load(
        "postgresql://h/d?schema=foo&connection_limit=3&sslmode=require&pool_timeout=2.5&pgbouncer=true"
        "&connect_timeout=4&statement_cache_size=0"
    )

    assert ("foo", 3, 2.5, True) == (
        settings.schema,
        settings.connection_limit,
        settings.pool_timeout,
        settings.pgbouncer,
    )
    assert {"sslmode": "require", "connect_timeout": "4"} == settings.params


@pytest.mark.parametrize("name", ["pool_timeout", "call_timeout"])
def test_a_timeout_of_zero_waits_for_ever_as_in_prisma(name: str) -> None:
    """Prisma's 0 turns the deadline off."""
    assert (math.inf, 2.5) == tuple(getattr(load(f"postgresql://h/d?{name}={text}"), name) for text in ("0", "2.5"))


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        ("foo", '-c search_path="foo",public'),
        ("My%20Schema", '-c search_path="My\\ Schema",public'),
        ("a%22b", '-c search_path="a""b",public'),
        ("a%5Cb", '-c search_path="a\\\\b",public'),
        ("a%2Cb", '-c search_path="a,b",public'),
    ],
)
def test_a_schema_leads_the_search_path(schema: str, options: str) -> None:
    """A schema goes to the server in the startup options, quoted as an identifier and escaped for them."""
    assert options == load(f"postgresql://h/d?schema={schema}").connect_kwargs()["options"]


def test_options_of_the_url_stay_beside_the_schema() -> None:
    """The URL's own options are kept, and the schema's come after them."""
    settings = load("postgresql://h/d?options=-c%20geqo%3Doff&schema=foo")

    assert '-c geqo=off -c search_path="foo",public' == settings.connect_kwargs()["options"]


@pytest.mark.parametrize("query", ["", "?schema=public", "?schema=", "?schema=foo&pgbouncer=true"])
def test_no_startup_options_are_sent_where_none_are_needed(query: str) -> None:
    """PgBouncer refuses startup options; the public schema needs none."""
    assert "options" not in load(f"postgresql://h/d{query}").connect_kwargs()


@pytest.mark.parametrize(
    "query",
    [
        "connection_limit=0",
        "connection_limit=-1",
        "connection_limit=",
        "connection_limit=ten",
        "connection_limit=1.5",
        "connection_limit=999999",
        "pool_timeout=-1",
        "pool_timeout=soon",
        "pool_timeout=inf",
        "pool_timeout=nan",
        "call_timeout=soon",
        "pgbouncer=maybe",
        "sslaccept=strict",
        "sslidentity=x.p12",
        "socket_timeout=5",
        "sslmod=require",
        "schema=app&max_connections=5",
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_named(query: str) -> None:
    """A wrong value, a parameter that only Prisma has, or one that nobody knows, is refused by its name."""
    with pytest.raises(SettingsError, match=query.rpartition("&")[2].partition("=")[0]):
        load(f"postgresql://u:hunter2@h/d?{query}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@x@h/d",
        "postgresql://u:hunter2/x@h/d",
        "postgresql://u:1234/hunter2@h/d",
        "postgresql://u:x/hunter2?y@h/d",
        "postgresql://u:hunter2%zz@h/d",
        "postgresql://u:hunter2%00@h/d",
        "postgresql://u:hunter2%ff@h/d",
        "postgresql://u:hunter2\n@h/d",
        "postgresql://u:hunter2\x00@h/d",
        "postgresql://u:hunter2\ud800@h/d",
        "postgresql://u:hunter2@[::1/d",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:hunter2@h:99999/d",
        "postgresql://u:hunter2@h/d?nonsense=hunter2",
        "postgresql://u:hunter2@h/d?hunter2",
        "postgresql://u:x/y?hunter2=z@h/d",
        "postgresql://u@h/d?password=a&hunter2=b",
        "mysql://u:hunter2@h/d",
        "prisma://accelerate.example/?api_key=hunter2",
        "prisma+postgres://u:hunter2@h/d",
        "postgresql+psycopg2://u:hunter2@h/d",
        "sqlite:///hunter2.db",
        "postgresql:u:hunter2@h/d",
        "hunter2",
        "hunter2=1",
        "password=hunter2 nonsense=1",
        "password='hunter2",
        "",
        " ",
    ],
)
def test_no_refusal_shows_the_password(url: str) -> None:
    """Whatever is wrong with a URL, the whole traceback shows no part of the password."""
    with pytest.raises(SettingsError) as caught:
        load(url)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["mysql", "prisma", "mongodb+srv", "sqlite"])
def test_another_database_is_refused_by_name(scheme: str) -> None:
    """The message says which scheme was given and which are served."""
    with pytest.raises(SettingsError, match=rf"{scheme.replace('+', '.')}.*postgresql://"):
        load(f"{scheme}://h/d")


def test_a_url_of_sqlalchemy_is_named() -> None:
    """The message says how to change it."""
    with pytest.raises(SettingsError, match=r"is a SQLAlchemy URL: write postgresql:// without the driver$"):
        load("postgresql+psycopg2://h/d")


SETTINGS = st.builds(
    Settings,
    host=st.sampled_from(["h", "::1", "fe80::1%eth0", "/run/a b", "@abstract", "a,b", "10.0.0.1", ""]),
    port=st.sampled_from(["", 1, 65535, "1,2"]),
    user=st.just("") | TEXT,
    password=st.just("") | TEXT,
    dbname=st.just("") | TEXT,
    params=st.dictionaries(st.sampled_from(["sslmode", "options", "sslrootcert", "application_name"]), TEXT),
    schema=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=15),
    connection_limit=st.integers(1, 1000),
    pool_timeout=st.one_of(st.just(math.inf), st.integers(1, 10**6).map(lambda ms: ms / 1000)),
    call_timeout=st.sampled_from([None, math.inf, 0.5, 30.0]),
    pgbouncer=st.booleans(),
    configured=st.just(True),
)


@given(settings=SETTINGS)
def test_a_url_says_all_that_the_settings_say(settings: Settings) -> None:
    """Any settings, written as a URL and read again, are the same."""
    assert settings == load(settings.url)


@given(
    password=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=6, max_size=20),
    where=st.sampled_from("abc"),
)
def test_a_password_written_without_encoding_never_shows(password: str, where: str) -> None:
    """A password put into a URL as it is may be misread or refused, but no message and no repr shows it."""

    def shown(password: str) -> str:
        urls = {"a": f"postgresql://me:{password}@h/d", "b": f"postgres://:{password}@h"}
        try:
            settings = load(urls.get(where, f"host=h password={password}"))
        except SettingsError as error:
            return "".join(traceback.format_exception(error))
        return f"{settings!r} {settings.safe_url} {settings.target}"

    secret = password.strip()
    # A password such as "public" or "postgr" stands in there without being shown.
    always = shown("Zq7_Zq7_Zq7") + "".join(traceback.format_exception(SettingsError()))
    if len(secret) >= 6 and secret not in always:
        assert secret not in shown(password)

"""Database addresses as text: libpq's own parser reads them, after Prisma's parameters are taken out."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from psycopg2 import ProgrammingError
from psycopg2.extensions import libpq_version, parse_dsn

from myloware_store.core.errors import SettingsError

__all__ = ["EMBEDDED_PARAMETERS", "POOL_PARAMETERS", "SECRET_PARAMETERS", "check_text", "format_url", "parse_url"]

POOL_PARAMETERS = ("schema", "connection_limit", "pool_timeout", "call_timeout", "pgbouncer")
"""Prisma's parameters that this library supports, and `call_timeout`; libpq would refuse them."""

SECRET_PARAMETERS = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
"""libpq's parameters that are never shown."""

EMBEDDED_PARAMETERS = {
    name: value
    for since, name, value in (
        (0, "application_name", "myloware_store"),
        (0, "channel_binding", "disable"),
        (0, "client_encoding", "UTF8"),
        (0, "connect_timeout", "30"),
        (0, "gssencmode", "disable"),
        (0, "hostaddr", ""),
        (0, "options", ""),
        (0, "passfile", ""),
        (0, "requirepeer", ""),
        (0, "ssl_max_protocol_version", ""),
        (0, "ssl_min_protocol_version", ""),
        (0, "sslmode", "disable"),
        (0, "sslrootcert", ""),
        (0, "target_session_attrs", "any"),
        (160_000, "load_balance_hosts", "disable"),
        (160_000, "require_auth", "none,password,md5,scram-sha-256,gss,sspi"),
        (160_000, "sslcertmode", "disable"),
        (170_000, "sslnegotiation", "postgres"),
        (180_000, "max_protocol_version", "3.0"),
        (180_000, "min_protocol_version", "3.0"),
    )
    if libpq_version() >= since
}
"""Parameters of every connection to the embedded server. libpq's environment and service files would set any that are
missing, even `hostaddr`. An older libpq does not look for parameters that it does not know."""

# We cache no statements by name, so there is no cache to size.
_WITHOUT_EFFECT = frozenset({"statement_cache_size"})
_REFUSED = {
    "socket_timeout": "use call_timeout=SECONDS",
    "sslaccept": "use sslmode=verify-full (strict) or sslmode=require (accept_invalid_certs)",
    "sslidentity": "use sslcert and sslkey, a certificate and key in PEM form",
    "max_connection_lifetime": "the pool keeps connections as long as they work",
    "max_idle_connection_lifetime": "the pool keeps connections as long as they work",
    "single_use_connections": "use connection_limit=1",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORMS = "postgresql://user:password@host:port/name?parameter=value, host=... dbname=..., or embedded:PATH"


def check_text(name: str, value: object, *, control: bool = False) -> str:
    """Return `value` if it is text that can be sent to a server, else raise without showing it.

    Args:
        name: The name of the value in the message.
        value: The value.
        control: Whether control characters other than NUL are allowed (a password may contain them).

    Raises:
        SettingsError: It is not text, not valid Unicode, or contains NUL or control characters.
    """
    if not isinstance(value, str):
        raise SettingsError(f"{name} must be text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{name} is not valid UTF-8 text") from None
    if "\x00" in value or (not control and _CONTROL.search(value)):
        raise SettingsError(f"{name} contains a control character")
    return value


def parse_url(text: str, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Parse a libpq URL or key=value string.

    Args:
        text: The address, which may contain a password: no message shows any of it.
        name: Its name in messages, such as `DATABASE_URL`.

    Returns:
        libpq's parameters, and the given ones of `POOL_PARAMETERS`.

    Raises:
        SettingsError: It is not a PostgreSQL address, or contains an unsupported parameter.
    """
    scheme = _SCHEME.match(text)
    pool: dict[str, str] = {}
    if scheme:
        if scheme[1].lower().startswith("postgresql+"):
            raise SettingsError(f"{name} is a SQLAlchemy URL: write postgresql:// without the driver")
        if scheme[1].lower() not in {"postgresql", "postgres"}:
            raise SettingsError(f"{name} names {scheme[1]}, but only PostgreSQL is supported: use {_FORMS}")
        text, pool = _without_prisma("postgresql://" + text[scheme.end() :], name)
    elif "=" not in text:
        raise SettingsError(f"{name} is not a database address: use {_FORMS}")
    try:
        return parse_dsn(text), pool
    except (ProgrammingError, UnicodeError) as error:
        reason = _unknown_parameter(str(error), text) or _reason(str(error))
    # Outside the handler: libpq's message quotes the address with its password.
    raise SettingsError(f"{name} cannot be read: {reason}")


def format_url(parameters: dict[str, str]) -> str:
    """Write `parameters` (libpq's names) as a URL, everything percent-encoded."""
    rest = dict(parameters)
    user, password, dbname = (quote(rest.pop(key, ""), safe="") for key in ("user", "password", "dbname"))
    credentials = user + (f":{password}" if password else "")
    netloc = ""
    if rest.get("host") and not re.search(r"[/,@]", rest["host"]) and "," not in rest.get("port", ""):
        host = quote(rest.pop("host"), safe=":")
        port = rest.pop("port", "")
        netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in rest.items())
    return f"postgresql://{credentials + '@' if credentials else ''}{netloc}/{dbname}{'?' + query if query else ''}"


def _without_prisma(url: str, name: str) -> tuple[str, dict[str, str]]:
    """Split off the parameters that only Prisma knows."""
    rest = url[len("postgresql://") :]
    credentials = re.match(r"[^@/]*@", rest)
    start = len(url) - len(rest) + (credentials.end() if credentials else 0)
    address, mark, query = url[start:].partition("?")
    if "@" in address:
        raise SettingsError(
            f"{name} cannot be read: in the password, write '@' as %40, '/' %2F, ':' %3A, '?' %3F, '#' %23 and '%' %25"
        )
    pool: dict[str, str] = {}
    kept = []
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key in POOL_PARAMETERS:
            pool[key] = unquote(value)
        elif key in _REFUSED:
            raise SettingsError(f"{name}: only Prisma supports the parameter {key}; {_REFUSED[key]}")
        elif key not in _WITHOUT_EFFECT:
            kept.append(pair)
    return url[:start] + address + (mark + "&".join(kept) if any(kept) else ""), pool


def _unknown_parameter(message: str, url: str) -> str | None:
    """Name the parameter that libpq does not know, unless it may be part of an unencoded secret."""
    named = re.search(r'invalid URI query parameter: "([A-Za-z_]\w*)"', message)
    query = url.partition("?")[2]
    secret = "@" in query or any(f"{name}=" in query for name in SECRET_PARAMETERS)
    return f"libpq does not know the parameter {named[1]}" if named and not secret else None


def _reason(message: str) -> str:
    """Return the reason of libpq's message without the quoted address."""
    for pattern, reason in (
        ("percent-encoded", "a '%' must be followed by two hexadecimal digits (write '%' itself as %25)"),
        ("codec can't decode", "a percent-encoded part is not valid UTF-8"),
        ("query parameter", "libpq does not know one of the parameters after '?', or it lacks its value"),
        ("connection option", "libpq does not know one of the options"),
        ("IPv6", "put an IPv6 address between '[' and ']'"),
    ):
        if pattern in message:
            return reason
    return f"use {_FORMS}"

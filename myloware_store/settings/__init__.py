"""Settings: the database to use, from a URL, the environment or `.env`, without showing any secret."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import attrs

from myloware_store.core.errors import ConnectionFailed, SettingsError
from myloware_store.settings import url as dsn
from myloware_store.settings.environment import DATABASE_VARIABLES, left_empty, read_file, read_variables
from myloware_store.settings.secrets import Secrets

__all__ = ["Settings"]

_PLAIN = ("host", "port", "dbname", "user", "password")
_EMBEDDED_HOME = ".myloware"
_MAX_CONNECTIONS = 262_143  # PostgreSQL's own limit
_MAX_NAME = 63  # bytes of a PostgreSQL identifier
_MAX_TENANT = 255
_MAX_TIMEOUT = 10**9
_MAX_PORT = 65_535
_DEFAULT_LIMIT = 10
_DEFAULT_TIMEOUT = 10.0
# An unreachable server is an error after ten seconds an address, a peer that vanished after a minute.
_TIMEOUTS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def _masked(params: Mapping[str, str]) -> str:
    return repr({key: "***" if key in dsn.SECRET_PARAMETERS else value for key, value in params.items()})


def _read_only(params: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(params, Mapping):
        raise SettingsError(f"params must be a mapping of text to text, not {type(params).__name__}")
    checked = {dsn.check_text("a name in params", key): value for key, value in params.items()}
    return MappingProxyType({key: dsn.check_text(key, value, control=True) for key, value in checked.items()})


def _folder(home: Path | str) -> Path:
    if not isinstance(home, Path | str):
        raise SettingsError(f"embedded_home must be a path, not {type(home).__name__}")
    return Path(home)


def _flag(_: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise SettingsError(f"{attribute.name} must be True or False, not {type(value).__name__}")


def _secrets(_: object, attribute: attrs.Attribute[Secrets], value: object) -> None:
    if not isinstance(value, Secrets):
        raise SettingsError(f"{attribute.name} must be Secrets, not {type(value).__name__}")


@attrs.frozen
class Settings:
    """The address of the database and how to use it; `Settings.load()` reads them.

    Only `password`, `ask_password()`, `url` and `connect_kwargs()` show the password: no representation, message or
    error does.

    Args:
        embedded: Whether to use the embedded server; `with_server()` fills in its address once it runs.
        embedded_home: The folder of the embedded server.
        host: A name, an address, a socket folder, or several with commas; empty leaves it to libpq.
        port: A number, or text with one number per host; empty leaves it to libpq.
        dbname: The database; empty leaves it to libpq.
        user: The role; empty leaves it to libpq.
        password: Its password, or a function that returns it and is called for each connection.
        params: Every other libpq parameter (sslmode, options, ...); stored as a read-only copy.
        schema: The schema of the tables; any other than `public` is put first in the connection's search_path.
        connection_limit: The most connections that one process opens.
        pool_timeout: How many seconds a thread waits for a free connection; infinity waits forever.
        call_timeout: How many seconds a call waits for the server, before its connection is given up; infinity waits
            forever. None waits forever, too, except in a `Worker` and on the command line, which have defaults.
        pgbouncer: Whether connections go through PgBouncer in transaction mode: then no startup options are sent, and a
            schema other than `public` must be set on the role.
        tenant_id: The tenant of rows that don't name one.
        upkeep: Whether workers, and stores on the embedded server, build and tune the vector index in the background.
        production: Whether this is production: no embedded server by default, no reset, no sample data.
        configured: Whether a database was named, rather than the embedded server.
        secrets: How the secrets of connectors are encrypted, recognised and resolved.
    """

    embedded: bool = attrs.field(default=False, validator=_flag)
    embedded_home: Path = attrs.field(default=Path(_EMBEDDED_HOME), converter=_folder)
    host: str = ""
    port: int | str = ""
    dbname: str = ""
    user: str = ""
    password: str | Callable[[], str] = attrs.field(default="", repr=False)
    params: Mapping[str, str] = attrs.field(factory=dict, converter=_read_only, repr=_masked, hash=False)
    schema: str = "public"
    connection_limit: int = _DEFAULT_LIMIT
    pool_timeout: float = _DEFAULT_TIMEOUT
    call_timeout: float | None = None
    pgbouncer: bool = attrs.field(default=False, validator=_flag)
    tenant_id: str = "default"
    upkeep: bool = attrs.field(default=True, validator=_flag)
    production: bool = attrs.field(default=False, validator=_flag)
    configured: bool = attrs.field(default=False, validator=_flag)
    secrets: Secrets = attrs.field(factory=Secrets, validator=_secrets)

    def __attrs_post_init__(self) -> None:
        """Refuse values that cannot be sent to a server."""
        for name in ("host", "dbname", "user", "schema", "tenant_id"):
            dsn.check_text(name, getattr(self, name))
        if not callable(self.password):
            dsn.check_text("password", self.password, control=True)
        if re.search(r"[^,]@", self.host):
            raise SettingsError("the database's host must not contain '@': set the user and password separately")
        # The port is not shown: an unencoded '/' in a URL's password turns part of the password into the port.
        for part in str(self.port).split(","):
            if part and not (re.fullmatch(r"[0-9]{1,5}", part) and 1 <= int(part) <= _MAX_PORT):
                raise SettingsError(f"the database's port must be a whole number from 1 to {_MAX_PORT}")
        if not 1 <= len(self.schema.encode()) <= _MAX_NAME:
            raise SettingsError(f"schema must be a name of 1 to {_MAX_NAME} bytes")
        limit = self.connection_limit
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MAX_CONNECTIONS:
            raise SettingsError(f"connection_limit must be a whole number from 1 to {_MAX_CONNECTIONS}")
        _check_timeout("pool_timeout", self.pool_timeout)
        if self.call_timeout is not None:
            _check_timeout("call_timeout", self.call_timeout)
        if not self.tenant_id.strip() or len(self.tenant_id) > _MAX_TENANT:
            raise SettingsError(f"the tenant (MYLOWARE_TENANT) must be 1 to {_MAX_TENANT} characters")

    @classmethod
    def load(
        cls,
        url: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        dotenv: Path | str | None = ".env",
    ) -> Self:
        """Read the settings: `url`, else DATABASE_URL, else DATABASE_HOST and so on, else `.env`, else embedded.

        Args:
            url: A libpq URL (Prisma's schema, connection_limit, pool_timeout and pgbouncer are understood), a libpq
                key=value string, or `embedded:` with an optional folder.
            environ: The environment, by default the process's own. It is never changed.
            dotenv: A file of further variables, or None. A real DATABASE_* variable overrides all of those in the file.

        Raises:
            SettingsError: A setting cannot be used or is empty, or no database is named and MYLOWARE_ENV is
                production.
        """
        environ, filed = os.environ if environ is None else environ, read_file(dotenv)
        values = read_variables(environ, filed, named=url is not None)
        common: dict[str, Any] = {
            "production": values.get("MYLOWARE_ENV", "").strip().lower() in {"production", "prod"},
            "tenant_id": values.get("MYLOWARE_TENANT", "default"),
            "upkeep": _switch("MYLOWARE_UPKEEP", values.get("MYLOWARE_UPKEEP", "on")),
            "secrets": Secrets.load(values),
        }
        if "MYLOWARE_CALL_TIMEOUT" in values:
            common["call_timeout"] = _timeout("MYLOWARE_CALL_TIMEOUT", values["MYLOWARE_CALL_TIMEOUT"].strip())
        if url is not None:
            return cls(**{**common, **_from_text(url, "the database URL")})
        if "DATABASE_URL" in values:
            return cls(**{**common, **_from_text(values["DATABASE_URL"], "DATABASE_URL")})
        if any(name in values for name in DATABASE_VARIABLES):
            return cls(**_from_variables(values), **common)
        if empty := left_empty(environ, filed):
            raise SettingsError(
                f"{', '.join(empty)} {'is' if len(empty) == 1 else 'are'} set and empty: name a database, or unset"
                f" {'it' if len(empty) == 1 else 'them'} for the embedded server"
            )
        if common["production"]:
            raise SettingsError(
                "MYLOWARE_ENV is production and no database is named: set DATABASE_URL, or DATABASE_HOST and so on"
            )
        return cls(embedded=True, embedded_home=_home(_EMBEDDED_HOME), **common)

    @property
    def local(self) -> bool:
        """Whether the server is on this machine: every host is a socket or a loopback address."""
        hosts = [*self.host.split(","), *self.params.get("hostaddr", "").split(",")]
        return all(re.fullmatch(r"|[/@].*|localhost|127\.[0-9.]+|::1", host) for host in hosts)

    @property
    def target(self) -> str:
        """The user, server and database for messages: `user@host:port/dbname`."""
        place = self.host + (f":{self.port}" if self.port else "") if self.host else "the local socket"
        return f"{self.user + '@' if self.user else ''}{place}{'/' + self.dbname if self.dbname else ''}"

    @property
    def url(self) -> str:
        """The address with its password, for other programs; print it only for the embedded server."""
        return dsn.format_url({**self._libpq(), **self._login(), **self._pool()})

    @property
    def safe_url(self) -> str:
        """The address with its secrets masked; `embedded:FOLDER` for an embedded server that is not running."""
        if self.embedded and not self.host:
            return f"embedded:{self.embedded_home}"
        shown = {key: "***" if key in dsn.SECRET_PARAMETERS else value for key, value in self._libpq().items()}
        return dsn.format_url({**shown, **self._pool()}).replace("%2A%2A%2A", "***")

    @property
    def libpq_url(self) -> str:
        """The address for psql and pg_dump: no secrets (pass PGPASSWORD), and the schema as search_path."""
        shown = {key: value for key, value in self._libpq().items() if key not in dsn.SECRET_PARAMETERS}
        own = {"hostaddr": ""} if self._of_embedded_server() else {}  # or PGHOSTADDR would name another server
        return dsn.format_url({**own, **shown, **self._options()})

    def connect_kwargs(self, search_path: str | None = None) -> dict[str, Any]:
        """Return the arguments for `psycopg2.connect`, password included.

        Args:
            search_path: The connection's search_path, by default the one for `schema`.

        Raises:
            SettingsError: The settings are for the embedded server, and its address was not filled in. Or the function
                for the password did not return text.
            ConnectionFailed: The function for the password raised an error.
        """
        if self.embedded and not self.host:
            raise SettingsError("the embedded server is not running yet: open the store, or use with_server()")
        defaults = {"fallback_application_name": "myloware_store", "client_encoding": "UTF8"}
        # Parameters that we name override service files and the environment, so leave these to libpq.
        if not ("service" in self.params or "PGSERVICE" in os.environ):
            patience = min(float(_TIMEOUTS["connect_timeout"]), self.call_timeout or math.inf)
            timeouts = {**_TIMEOUTS, "connect_timeout": f"{math.ceil(patience)}"}
            defaults |= {key: value for key, value in timeouts.items() if f"PG{key.upper()}" not in os.environ}
        own = dsn.EMBEDDED_PARAMETERS if self._of_embedded_server() else {}
        return {**defaults, **own, **self._libpq(), **self._login(), **self._options(search_path)}

    def ask_password(self) -> str:
        """Return the password; call the function for it, if it is one.

        Raises:
            ConnectionFailed: The function raised an error, which is its `driver_error`; its message may be secret.
            SettingsError: The function did not return text.
        """
        if not callable(self.password):
            return self.password
        try:
            given = self.password()
        except Exception as error:  # noqa: BLE001  whatever a token service's client raises
            fault = ConnectionFailed(
                f"cannot connect to {self.target}: the function for the password raised {type(error).__name__}",
                sqlstate="08001",
            )
            fault.driver_error = error.with_traceback(None)
        else:
            return dsn.check_text("the password that its function returned", given, control=True)
        raise fault  # not in the handler: a traceback would show the function's error

    def with_server(self, **parts: Any) -> Self:
        """Return these settings with the address of a running server filled in.

        Args:
            parts: host, port, dbname, user, password; any other libpq parameter is added to `params`.
        """
        given = {key: value for key, value in parts.items() if value is not None}
        plain = {key: value for key, value in given.items() if key in _PLAIN}
        rest = {key: str(value) for key, value in given.items() if key not in _PLAIN}
        return attrs.evolve(self, **plain, params={**self.params, **rest})

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the settings with a plain dictionary of parameters; a read-only view cannot be pickled."""
        values = {name: getattr(self, name) for name in attrs.fields_dict(type(self))}
        return partial(type(self), **{**values, "params": dict(self.params)}), ()

    def _of_embedded_server(self) -> bool:
        """Return whether these lead to an embedded server, also by its printed URL; see `embedded/place.py`."""
        far = re.fullmatch(r"/tmp/myloware-\d+-[0-9a-f]{16}", self.host)  # noqa: S108  a name that is only compared
        near = self.host.startswith("/") and os.path.exists(f"{self.host}/../users.lock")  # noqa: PTH110  never raises
        return self.embedded or bool(far) or near

    def _libpq(self) -> dict[str, str]:
        plain = {key: str(value) for key in _PLAIN if not callable(value := getattr(self, key))}
        return {**{key: value for key, value in plain.items() if value}, **self.params}

    def _login(self) -> dict[str, str]:
        return {"password": self.ask_password()} if callable(self.password) else {}

    def _options(self, path: str | None = None) -> dict[str, str]:
        if path is None:
            if self.pgbouncer or self.schema == "public":
                return {}
            path = '"{}",public'.format(self.schema.replace('"', '""'))
        setting = "-c search_path=" + re.sub(r"([\\\s])", r"\\\1", path)
        return {"options": f"{self.params['options']} {setting}" if "options" in self.params else setting}

    def _pool(self) -> dict[str, str]:
        return {
            **({"schema": self.schema} if self.schema != "public" else {}),
            **({"connection_limit": str(self.connection_limit)} if self.connection_limit != _DEFAULT_LIMIT else {}),
            **({"pool_timeout": _seconds(self.pool_timeout)} if self.pool_timeout != _DEFAULT_TIMEOUT else {}),
            **({"call_timeout": _seconds(self.call_timeout)} if self.call_timeout is not None else {}),
            **({"pgbouncer": "true"} if self.pgbouncer else {}),
        }


def _switch(name: str, text: str) -> bool:
    if text.strip().lower() not in {"on", "off"}:
        raise SettingsError(f"{name} must be on or off")
    return text.strip().lower() == "on"


def _check_timeout(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise SettingsError(f"{name} must be a number of seconds above 0 (infinity waits forever)")
    if _MAX_TIMEOUT < value < math.inf:
        raise SettingsError(f"{name} must be {_MAX_TIMEOUT} seconds at most (infinity waits forever)")


def _timeout(name: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise SettingsError(f"{name} must be a number of seconds (0 waits forever)")
    return float(text) or math.inf  # as in Prisma, 0 means no deadline


def _seconds(value: float) -> str:
    return "0" if math.isinf(value) else repr(value)


def _from_text(text: object, name: str) -> dict[str, Any]:
    text = dsn.check_text(name, text.strip() if isinstance(text, str) else text)
    if text[:9].lower() == "embedded:":
        return {"embedded": True, "embedded_home": _home(text[9:] or _EMBEDDED_HOME)}
    libpq, pool = dsn.parse_url(text, name)
    found: dict[str, Any] = {key: libpq.pop(key) for key in _PLAIN if key in libpq}
    found["port"] = _plain_port(found.get("port", ""))
    return {**found, **_pool_settings(pool, name), "params": libpq, "configured": True}


def _from_variables(values: Mapping[str, str]) -> dict[str, Any]:
    for name in ("DATABASE_HOST", "DATABASE_NAME"):
        if "://" in values.get(name, ""):
            raise SettingsError(f"{name} contains a URL: put it in DATABASE_URL")
    if not re.fullmatch(r"\s*[0-9]{1,5}\s*", values.get("DATABASE_PORT", "5432")):
        raise SettingsError(f"DATABASE_PORT must be a whole number from 1 to {_MAX_PORT}")
    return {
        "host": values.get("DATABASE_HOST", "localhost").strip(),
        "port": int(values.get("DATABASE_PORT", "5432")),
        "dbname": values.get("DATABASE_NAME", "myloware").strip(),
        "user": values.get("DATABASE_USER", "").strip(),
        "password": values.get("DATABASE_PASSWORD", ""),
        "configured": True,
    }


def _plain_port(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else text


def _pool_settings(given: Mapping[str, str], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if given.get("schema"):
        found["schema"] = given["schema"]
    if "connection_limit" in given:
        if not re.fullmatch(r"[0-9]{1,6}", given["connection_limit"]):
            raise SettingsError(f"{name}: connection_limit must be a whole number above 0")
        found["connection_limit"] = int(given["connection_limit"])
    for timeout in ("pool_timeout", "call_timeout"):
        if timeout in given:
            found[timeout] = _timeout(f"{name}: {timeout}", given[timeout])
    if "pgbouncer" in given:
        if given["pgbouncer"].lower() not in {"true", "false"}:
            raise SettingsError(f"{name}: pgbouncer must be true or false")
        found["pgbouncer"] = given["pgbouncer"].lower() == "true"
    return found


def _home(text: str) -> Path:
    try:
        return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - keeps `..` as written
    except OSError as error:
        raise SettingsError(f"the embedded server's folder {text!r} cannot be found: {error.strerror}") from None

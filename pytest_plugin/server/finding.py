"""Find the server that tests run on: a named one, else pytest-postgresql's, else the embedded one."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import closing, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2

from myloware_store.core.errors import EmbeddedServerError, StoreError
from myloware_store.embedded import EmbeddedServer
from myloware_store.settings import Settings

from ..errors import NoServer
from ..options import TEST_URL
from .home import KEPT, find_home, has_kept_databases, sweep_homes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from ..options import Options
    from .maintenance import Server

__all__ = ["open_server"]

_CONNECT_SECONDS = 3
_FACTORIES = {"pytest_postgresql.factories.process", "pytest_postgresql.factories.noprocess"}


@attrs.frozen
class _NamedServer:
    """A server that somebody else runs."""

    settings: Settings
    description: str

    def url(self, dbname: str) -> str:
        return attrs.evolve(self.settings, dbname=dbname).url

    def connect_kwargs(self, dbname: str) -> dict[str, Any]:
        return attrs.evolve(self.settings, dbname=dbname).connect_kwargs()

    def stay(self) -> str:
        return ""


class _EmbeddedServer(EmbeddedServer):
    """The embedded server, held by this run."""

    @property
    def description(self) -> str:
        return f"embedded in {self.home.parent}"

    def stay(self) -> str:
        self.keep()
        (self.home.parent / KEPT).touch()
        return shlex.join([sys.executable, "-m", "myloware_store", "down", "--url", f"embedded:{self.home}"])


@contextmanager
def open_server(options: Options, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Hold the server while the block runs.

    `DATABASE_URL` and `.env` are ignored: tests must not reach real data.

    Raises:
        NoServer: No server can be reached.
    """
    if options.url:
        yield _named(options.url, options.url_source)
        return
    fixture = options.server_fixture or _project_fixture(request)
    if fixture:
        yield _of_executor(fixture, request)
        return
    server = _start_embedded()
    try:
        yield server
    finally:
        server.close()


def _named(url: str, source: str) -> Server:
    try:
        settings = Settings.load(url, environ={}, dotenv=None)
        server = _NamedServer(settings, f"{settings.host or 'local'}, from {source}")
        if settings.embedded:
            raise NoServer(_no_server(f"{source} names an embedded server; leave it out to get one"))
    except StoreError as error:
        raise NoServer(_no_server(f"{source}: {error}")) from None
    _reach(server, source)
    return server


def _reach(server: _NamedServer, source: str) -> None:
    kwargs = {**server.connect_kwargs("postgres"), "connect_timeout": _CONNECT_SECONDS}
    try:
        with closing(psycopg2.connect(**kwargs)) as connection:
            reached = connection.info.dsn_parameters.get("hostaddr", "")
    except psycopg2.OperationalError as error:
        raise NoServer(_no_server(f"{source} ({server.settings.safe_url}): {str(error).strip()}")) from None
    if reached != server.settings.params.get("hostaddr", "") and "service" not in server.settings.params:
        raise NoServer(_no_server(f"{source} names {server.settings.target}, and PGHOSTADDR another server: unset it"))


def _project_fixture(request: pytest.FixtureRequest) -> str | None:
    """Find the process or noproc fixture that the project made with pytest-postgresql's factories.

    Raises:
        NoServer: There are several.
    """
    found = set()
    for plugin in request.config.pluginmanager.get_plugins():
        # pytest-postgresql's own plugin has one of each, whether the project uses it or not.
        if isinstance(plugin, ModuleType) and plugin.__name__ != "pytest_postgresql.plugin":
            found |= {
                name
                for name, value in vars(plugin).items()
                if getattr(value, "__module__", None) in _FACTORIES and "<locals>" in getattr(value, "__qualname__", "")
            }
    if len(found) > 1:
        raise NoServer(
            f"the project has several servers of pytest-postgresql ({', '.join(sorted(found))}):"
            " name one in the ini key myloware_server_fixture"
        )
    return found.pop() if found else None


def _of_executor(fixture: str, request: pytest.FixtureRequest) -> Server:
    executor = request.getfixturevalue(fixture)
    parts = {"host": executor.host, "port": executor.port, "user": executor.user, "password": executor.password}
    if executor.options:
        parts["options"] = executor.options
    settings = Settings.load("postgresql:///postgres", environ={}, dotenv=None).with_server(**parts)
    server = _NamedServer(settings, f"{executor.host}:{executor.port}, from the fixture {fixture}")
    _reach(server, f"the fixture {fixture}")
    return server


def _start_embedded() -> _EmbeddedServer:
    try:
        sweep_homes()
        home = find_home()
        server = _EmbeddedServer(home / "server", testing=True)
        try:
            server.start()
            server.ensure_database("postgres")
        except EmbeddedServerError as error:
            # Replace the data of an earlier run if they are broken. Without data, there is another reason.
            if not (home / "server").exists() or EmbeddedServer.running(home / "server"):
                raise
            if has_kept_databases(home):
                raise EmbeddedServerError(
                    f"{error}\n    The databases that you kept are in {home / 'server'}: remove that folder when you no"
                    " longer need them, and the next run creates it again."
                ) from None
            shutil.rmtree(home / "server")
            server.start()
    except (EmbeddedServerError, OSError) as error:
        raise NoServer(_no_server(f"the embedded server: {error}", named=False)) from None
    return server


def _no_server(failure: str, *, named: bool = True) -> str:
    tried = [failure]
    if not named:
        tried = [
            f"--myloware-dsn and {TEST_URL}: not set",
            "a process or noproc fixture of pytest-postgresql in the project: there is none",
            failure,
        ]
    lines = "\n".join(f"  - {each}" for each in tried)
    return (
        f"no PostgreSQL server for the tests\nTried:\n{lines}\n"
        "What to do: start that server, or leave it unnamed to get an embedded one"
        " (pip install 'myloware-store[test]'), or name one: --myloware-dsn=postgresql://USER@HOST/postgres"
    )

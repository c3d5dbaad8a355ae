"""The server that tests run on: one that is named, else pytest-postgresql's, else the embedded one."""

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

from .home import find_home, keeps, note_kept, sweep_homes
from .options import TEST_URL, Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from .maintenance import Server
    from .options import Options

__all__ = ["NoServer", "open_server"]

_CONNECT_SECONDS = 3
_FACTORIES = {"pytest_postgresql.factories.process", "pytest_postgresql.factories.noprocess"}


class NoServer(Unusable):
    """No server can be reached; the message lists what was tried, and what to do."""


@attrs.frozen
class _NamedServer:
    """A server that someone else runs."""

    settings: Settings
    description: str

    def url(self, dbname: str) -> str:
        return attrs.evolve(self.settings, dbname=dbname).url

    def connect_kwargs(self, dbname: str) -> dict[str, Any]:
        return attrs.evolve(self.settings, dbname=dbname).connect_kwargs()

    def stay(self) -> str:
        return ""


class _EmbeddedServer(EmbeddedServer):
    """The embedded server, as this run holds it."""

    @property
    def description(self) -> str:
        return f"embedded in {self.home.parent}"

    def stay(self) -> str:
        self.keep()
        note_kept(self.home.parent)
        return shlex.join([sys.executable, "-m", "myloware_store", "down", "--url", f"embedded:{self.home}"])


@contextmanager
def open_server(options: Options, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Hold the server while the block runs.

    `DATABASE_URL` and `.env` are never looked at: tests must not reach somebody's data.

    Raises:
        NoServer: There is none.
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
    """Find the process or noproc fixture that the project has made with pytest-postgresql's factories.

    Raises:
        NoServer: There are several.
    """
    found = set()
    for plugin in request.config.pluginmanager.get_plugins():
        # The plugin itself brings one of each, whether the project wants it or not.
        if not isinstance(plugin, ModuleType) or plugin.__name__ == "pytest_postgresql.plugin":
            continue
        for name, value in vars(plugin).items():
            made = getattr(value, "__module__", None) in _FACTORIES and "<locals>" in getattr(value, "__qualname__", "")
            if made:
                found.add(name)
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
            # What broke while nobody was looking is made anew; what is not there yet failed for another reason.
            if not (home / "server").exists() or EmbeddedServer.running(home / "server"):
                raise
            if keeps(home):
                raise EmbeddedServerError(
                    f"{error}\n    The databases that you kept are in {home / 'server'}: remove that folder when you no"
                    " longer need them, and it is made anew."
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

"""Servers of the oldest and the newest PostgreSQL that the project supports, for its own tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest

from myloware_store.embedded import EmbeddedServer
from myloware_store.ops.history import available_migrations, migrations_path
from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = available_migrations(migrations_path())
"""The project's migrations, in their order."""
OLD_POSTGRES = "pgserver==0.0.9"
"""The distribution whose wheels hold PostgreSQL 15.5 with pgvector 0.5.1."""
OLD_POSTGRES_PYTHON = "3.11"
"""A Python that it has wheels for. Only the server in it is used, so it need not be the one that runs."""
ROUNDS = int(os.environ.get("MYLOWARE_TEST_ROUNDS", "1"))
"""What the numbers of rounds of fuzz tests and races are multiplied by; `tox run -e long` sets it."""
LONG = ROUNDS > 1
"""Whether tests also try the combinations that add little."""
NOWHERE = "127.255.255.254"
"""An address of this machine at which nobody listens."""


@pytest.fixture(scope="session", autouse=True)
def no_database_named() -> Iterator[None]:
    """Remove the environment's database variables, so that no test uses a database that it did not create."""
    kept = {"MYLOWARE_TEST_URL", "MYLOWARE_TEST_HOME", "MYLOWARE_PG_BINDIR"}
    with pytest.MonkeyPatch.context() as environment:
        for name in set(os.environ) - kept:
            if name.startswith(("DATABASE_", "MYLOWARE_", "PG")):
                environment.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_heard() -> None:
    """Let Ctrl-C end processes of the tests: a run in the background of a script starts with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def reachable_tmp() -> Iterator[Path]:
    """Yield a folder that any account can enter: as root, servers run under another account."""
    folder = Path(tempfile.mkdtemp(prefix="myloware-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_15_binaries(pytestconfig: pytest.Config, reachable_tmp: Path) -> Path:
    """Unpack PostgreSQL 15.5 with pgvector 0.5.1, downloaded once into pytest's cache, and give its `bin` folder."""
    cache = pytestconfig.cache
    assert cache is not None, "the download is kept in pytest's cache: run without `-p no:cacheprovider`"
    kept = cache.mkdir("postgres-15")
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wheels = list(kept.glob("*.whl"))
        if not wheels:
            with tempfile.TemporaryDirectory(dir=kept) as part:
                _download(OLD_POSTGRES, Path(part))
                wheels = [found.rename(kept / found.name) for found in Path(part).glob("*.whl")]

    target = reachable_tmp / "postgres-15"
    with zipfile.ZipFile(wheels[0]) as wheel:
        for member in wheel.infolist():
            path = Path(wheel.extract(member, target))
            path.chmod(0o755 if path.is_dir() else member.external_attr >> 16 & 0o777)
    target.chmod(0o755)
    return target / "pgserver" / "pginstall" / "bin"


def _download(requirement: str, folder: Path) -> None:
    """Fetch a wheel with pip, whatever Python it is for."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    wanted = ["--no-deps", "--only-binary=:all:", f"--python-version={OLD_POSTGRES_PYTHON}", requirement]
    done = subprocess.run([*pip, *wanted, "--dest", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the tests on PostgreSQL 15 need {requirement}:\n{done.stderr}"


@pytest.fixture(scope="session", params=["15", "18"])
def postgres(request: pytest.FixtureRequest, reachable_tmp: Path) -> Iterator[EmbeddedServer]:
    """Yield a running server, first of the oldest PostgreSQL and pgvector supported, then of the newest."""
    server = EmbeddedServer(reachable_tmp / f"server-{request.param}", testing=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("MYLOWARE_PG_BINDIR", raising=False)
        if request.param == "15":
            binaries: Path = request.getfixturevalue("postgres_15_binaries")
            environment.setenv("MYLOWARE_PG_BINDIR", str(binaries))
        server.start()
    yield server
    server.close()


on_one_server = pytest.mark.parametrize("postgres", ["15", "18"] if LONG else ["18"], indirect=True)
"""Marks a test whose subject is the same on every server: it runs on the oldest, too, in `tox run -e long` only."""


@pytest.fixture
def empty_database(postgres: EmbeddedServer) -> Iterator[str]:
    """Yield the URL of an empty database on each of those servers, dropped afterwards."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    with closing(psycopg2.connect(**postgres.connect_kwargs("postgres"))) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute(f"CREATE DATABASE {name}")
        yield postgres.url(name)
        run.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which every variable of libpq names another server or is invalid."""
    service = tmp_path / "pg_service.conf"
    service.write_text(f"[elsewhere]\nhostaddr={NOWHERE}\noptions=-c search_path=nowhere\n")
    return {
        "PGAPPNAME": "somebody",
        "PGCHANNELBINDING": "require",
        "PGCLIENTENCODING": "nonsense",
        "PGCONNECT_TIMEOUT": "nonsense",
        "PGDATABASE": "elsewhere",
        "PGDATESTYLE": "German",
        "PGGEQO": "off",
        "PGGSSENCMODE": "require",
        "PGHOST": NOWHERE,
        "PGHOSTADDR": NOWHERE,
        "PGLOADBALANCEHOSTS": "nonsense",
        "PGMAXPROTOCOLVERSION": "nonsense",
        "PGMINPROTOCOLVERSION": "nonsense",
        "PGOPTIONS": "-c search_path=nowhere -c default_transaction_read_only=on",
        "PGPASSFILE": str(tmp_path),
        "PGPASSWORD": "wrong",
        "PGPORT": "1",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGREQUIREPEER": "nobody-of-that-name",
        "PGREQUIRESSL": "1",
        "PGSERVICE": "elsewhere",
        "PGSERVICEFILE": str(service),
        "PGSSLCERTMODE": "nonsense",
        "PGSSLMAXPROTOCOLVERSION": "nonsense",
        "PGSSLMINPROTOCOLVERSION": "nonsense",
        "PGSSLMODE": "nonsense",
        "PGSSLNEGOTIATION": "nonsense",
        "PGSSLROOTCERT": "system",
        "PGTARGETSESSIONATTRS": "standby",
        "PGTZ": "Asia/Tokyo",
        "PGUSER": "somebody",
    }


@pytest.fixture
def relayed() -> Iterator[Callable[[str, int | str], Relay]]:
    """Yield a function that opens a port on this machine to a server."""
    with contextlib.ExitStack() as stack:
        yield lambda host, port: stack.enter_context(closing(Relay(host, port)))

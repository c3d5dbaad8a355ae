"""What a database for each test costs: this plugin beside pytest-postgresql, pytest-django and py-pglite.

Run it in an environment with `myloware-store[test]` and those three: `python benchmarks/databases.py`. Every contender
runs 60 tests that write to the same kind of tables, on one server without fsync in memory (py-pglite brings its own);
the number is the median of set-up plus tear-down as pytest reports them, less those of tests with an empty fixture.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from myloware_store.embedded import EmbeddedServer, find_binaries

TESTS = 60
ROUNDS = 3
ROWS = (100, 10_000)

RECORDER = """
import json, os
times = {}
def pytest_runtest_logreport(report):
    if report.when != "call":
        times[report.nodeid] = times.get(report.nodeid, 0.0) + report.duration
    elif report.failed:
        raise SystemExit(report.longreprtext)
def pytest_sessionfinish():
    with open(os.environ["TIMES"], "w") as out:
        json.dump(list(times.values()), out)
"""

EMPTY = """
import pytest
@pytest.fixture
def server(): return 1
@pytest.fixture
def store(server): yield 1
@pytest.fixture
def database(store): return 1
@pytest.mark.parametrize("n", range({tests}))
def test_write(database, n): pass
"""

OURS = """
import pytest
from myloware_store import Capability, MemDoc, WorkOrder
@pytest.mark.parametrize("n", range({tests}))
def test_write(myloware_db, n):
    WorkOrder.create(tenant_id="t", created_by="me")
    MemDoc.update(content="changed").where(MemDoc.content == "document 1").execute()
    Capability.delete().where(Capability.name == "capability 1").execute()
"""

OURS_CONFTEST = """
import pathlib, pytest
@pytest.fixture(scope="session")
def myloware_seed():
    return pathlib.Path(__file__).with_name("seed.sql")
"""

SEED = """
INSERT INTO capabilities (name, scope) SELECT 'capability ' || n, 's' FROM generate_series(1, {n}) AS n;
INSERT INTO schemas (name, version, document_type, schema_definition)
    SELECT 'schema ' || n, '1', 'INVOICE', '{{}}' FROM generate_series(1, {n}) AS n;
INSERT INTO workflow_templates (name, document_type, workflow_definition)
    SELECT 'template ' || n, 'INVOICE', '{{}}' FROM generate_series(1, {n}) AS n;
INSERT INTO connectors (tenant_id, name, type)
    SELECT 't' || n % 5, 'connector ' || n, 'API' FROM generate_series(1, {n}) AS n;
INSERT INTO tools (tenant_id, name, connector_id) SELECT tenant_id, name, id FROM connectors;
INSERT INTO tool_capabilities (tenant_id, tool_id, capability_id)
    SELECT t.tenant_id, t.id, c.id FROM tools AS t JOIN capabilities AS c ON substr(c.name, 12) = substr(t.name, 11);
INSERT INTO work_orders (tenant_id, created_by) SELECT 't' || n % 5, 'seed' FROM generate_series(1, {n}) AS n;
INSERT INTO work_items (tenant_id, work_order_id, type, content)
    SELECT tenant_id, id, 'INVOICE', 'An invoice for ' || id FROM work_orders;
INSERT INTO attempts (tenant_id, work_item_id, agent_id) SELECT tenant_id, id, 'agent' FROM work_items;
INSERT INTO mem_docs (tenant_id, type, content)
    SELECT 't' || n % 5, 'CONTEXT', 'document ' || n FROM generate_series(1, {n}) AS n;
INSERT INTO approval_events (tenant_id, work_item_id, approver_id, decision, policy_version)
    SELECT tenant_id, id, 'boss', 'APPROVED', '1' FROM work_items;
INSERT INTO dead_letters (tenant_id, source, event_type, payload, error)
    SELECT 't' || n % 5, 'crm', 'event', '{{}}', 'failed' FROM generate_series(1, {n}) AS n;
INSERT INTO runs (tenant_id, work_order_id) SELECT tenant_id, id FROM work_orders;
INSERT INTO eval_results (tenant_id, work_item_id, evaluation_type, score, passed)
    SELECT tenant_id, id, 'accuracy', 1, true FROM work_items;
INSERT INTO audit_logs (tenant_id, user_id, action, resource_type, resource_id)
    SELECT 't' || n % 5, 'user', 'read', 'order', n::text FROM generate_series(1, {n}) AS n;
"""

# The same schema and rows, in the template that pytest-postgresql itself makes and copies for every test.
PYTEST_POSTGRESQL = """
import pathlib, pytest
from pytest_postgresql import factories
from myloware_store.ops.migrate import migrate
from myloware_store.settings import Settings

def load(host, port, user, dbname, password=None, **_):
    settings = Settings.load("postgresql:///x", environ={{}}, dotenv=None)
    settings = settings.with_server(host=host, port=port, user=user, dbname=dbname)
    migrate(settings)
    import psycopg
    with psycopg.connect(host=host, port=port, user=user, dbname=dbname) as connection:
        connection.execute(pathlib.Path(__file__).with_name("seed.sql").read_text())

server = factories.postgresql_noproc(host={host!r}, port=5432, user="postgres", dbname="ppg", load=[load])
database = factories.postgresql("server")

@pytest.mark.parametrize("n", range({tests}))
def test_write(database, n):
    database.execute("INSERT INTO work_orders (tenant_id, created_by) VALUES ('t', 'me')")
    database.execute("UPDATE mem_docs SET content = 'changed' WHERE content = 'document 1'")
    database.execute("DELETE FROM capabilities WHERE name = 'capability 1'")
    database.commit()
"""

# Fifteen tables of Django's own making; its tests begin with empty ones.
DJANGO = """
import pytest
from django.apps import apps
@pytest.mark.django_db(transaction={transaction})
@pytest.mark.parametrize("n", range({tests}))
def test_write(n):
    for number in (1, 2, 3):
        apps.get_model("shop", f"Table{{number}}").objects.create(name="x")
"""
DJANGO_SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["shop"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "django", "USER": "postgres",
    "HOST": {host!r}, "PORT": 5432}}}}
"""
DJANGO_MODELS = """
from django.db import models
for number in range(15):
    meta = type("Meta", (), {"app_label": "shop"})
    name = models.CharField(max_length=50)
    fields = {"__module__": __name__, "Meta": meta, "name": name}
    globals()[f"Table{number}"] = type(f"Table{number}", (models.Model,), fields)
"""

PGLITE = """
import pytest
from py_pglite import PGliteConfig, PGliteManager
import psycopg

@pytest.fixture(scope="session")
def manager():
    with PGliteManager(PGliteConfig()) as manager:
        manager.wait_for_ready_basic()
        with psycopg.connect(manager.get_dsn()) as connection:
            for number in range(15):
                connection.execute(f"CREATE TABLE t{{number}} (id bigserial PRIMARY KEY, name text)")
        yield manager

@pytest.fixture
def database(manager):
    with psycopg.connect(manager.get_dsn()) as connection:
        yield connection
        connection.rollback()
        connection.execute("TRUNCATE " + ", ".join(f"t{{number}}" for number in range(15)) + " RESTART IDENTITY")

@pytest.mark.parametrize("n", range({tests}))
def test_write(database, n):
    for number in (1, 2, 3):
        database.execute(f"INSERT INTO t{{number}} (name) VALUES ('x')")
    database.commit()
"""


def run(folder: Path, *options: str, plugins: tuple[str, ...] = (), **environment: str) -> list[float] | str:
    """Run a project's tests; give the milliseconds of each, or the last line of what went wrong."""
    times = folder / "times.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "recorder", *options]
    for plugin in {"cov", "xdist", "postgresql", "django"}.difference(plugins):
        command += ["-p", f"no:{plugin}"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "TIMES": str(times), **environment}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
    except subprocess.TimeoutExpired:
        return "no end after 300 s"
    if done.returncode or not times.exists():
        return ([*done.stdout.splitlines(), *done.stderr.splitlines()] or ["no output"])[-1][:100]
    return [seconds * 1e3 for seconds in json.loads(times.read_text())]


def project(base: Path, name: str, **files: str) -> Path:
    """Write a project, and give its folder."""
    folder = base / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recorder.py").write_text(RECORDER)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)
    return folder


def contenders(base: Path, server: EmbeddedServer) -> dict[str, tuple[Path, dict[str, object]]]:
    """Write every project: its folder, and the arguments it is run with."""
    host = str(server.socket_dir)
    dsn = {"MYLOWARE_TEST_URL": server.url("postgres")}
    found: dict[str, tuple[Path, dict[str, object]]] = {}
    found["an empty fixture"] = (project(base, "empty", test_it__py=EMPTY.format(tests=TESTS)), {})
    for rows in ROWS:
        seed, ours = SEED.format(n=rows // 15), OURS.format(tests=TESTS)
        folder = project(base, f"ours{rows}", seed__sql=seed, conftest__py=OURS_CONFTEST, test_it__py=ours)
        for mode in ("rollback", "restore", "clone"):
            found[f"myloware {mode}, {rows} rows"] = (folder, {"options": (f"--myloware-mode={mode}",), **dsn})
        theirs = PYTEST_POSTGRESQL.format(host=host, tests=TESTS)
        folder = project(base, f"ppg{rows}", test_it__py=theirs, seed__sql=seed)
        found[f"pytest-postgresql, {rows} rows"] = (folder, {"plugins": ("postgresql",)})
    for name, transaction in (("db", False), ("transaction=True", True)):
        folder = project(
            base,
            f"django{transaction}",
            test_it__py=DJANGO.format(tests=TESTS, transaction=transaction),
            settings__py=DJANGO_SETTINGS.format(host=host),
        )
        (folder / "shop").mkdir(exist_ok=True)
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "models.py").write_text(DJANGO_MODELS)
        found[f"pytest-django {name}, no rows"] = (
            folder,
            {"plugins": ("django",), "options": ("--create-db",), "DJANGO_SETTINGS_MODULE": "settings"},
        )
    found["py-pglite, truncate, no rows"] = (project(base, "pglite", test_it__py=PGLITE.format(tests=TESTS)), {})
    return found


def seconds(command: list[str], folder: Path, **environment: str) -> float:
    """Return how long a command takes, with no plugin of pytest's that it does not name."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def tests_apart(base: Path, server: EmbeddedServer) -> None:
    """Print what keeping tests apart costs."""
    medians: dict[str, list[float]] = {}
    reasons = {}
    for _ in range(ROUNDS):
        for name, (folder, arguments) in contenders(base, server).items():
            keywords = dict(arguments)
            options = keywords.pop("options", ())
            measured = run(folder, *options, **keywords)  # type: ignore[misc,arg-type]  # kept apart by name
            if isinstance(measured, str):
                reasons[name] = measured
            else:
                medians.setdefault(name, []).append(statistics.median(measured))
    empty = min(medians["an empty fixture"])
    print(
        f"set-up plus tear-down of a test, less the {empty:.2f} ms of empty fixtures ({ROUNDS} runs of {TESTS} tests)"
    )
    for name, values in medians.items():
        print(
            f"  {name:<36} {max(0.0, statistics.median(values) - empty):8.2f} ms   (best run {min(values) - empty:.2f})"
        )
    for name, reason in reasons.items():
        print(f"  {name:<36} not run: {reason}")


def one_test(base: Path, home: Path) -> None:
    """Print how long a run of one test takes, with the server running and from cold, beside initdb and plain pytest."""
    folder = project(
        base, "one", test_it__py=OURS.format(tests=1), conftest__py=OURS_CONFTEST, seed__sql=SEED.format(n=7)
    )
    # -p makes pytest read every package's entry points, which it does in any case where it loads plugins by itself.
    plain = project(base, "plain", test_it__py="def test_it(): pass\n", nothing__py="")
    bare = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ours = [*bare, "-p", "pytest_myloware.plugin"]
    seconds(ours, folder, MYLOWARE_TEST_HOME=str(home))  # builds the template
    cold = [seconds(ours, folder, MYLOWARE_TEST_HOME=str(home)) for _ in range(7)]
    with EmbeddedServer(home / "server", testing=True):
        warm = [seconds(ours, folder, MYLOWARE_TEST_HOME=str(home)) for _ in range(7)]
    without = [seconds(bare, plain) for _ in range(7)]
    imports = [seconds([sys.executable, "-c", "import myloware_store"], plain) for _ in range(7)]
    pairs = [(seconds([*ours, "--co"], plain), seconds([*bare, "-p", "nothing", "--co"], plain)) for _ in range(25)]
    initdb = []
    for _ in range(3):
        with tempfile.TemporaryDirectory(dir=base) as target:
            Path(target).chmod(0o777)
            command = [str(find_binaries() / "initdb"), "--no-sync", "--pgdata", f"{target}/data", "-U", "postgres"]
            if os.geteuid() == 0:
                command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
            initdb.append(seconds(command, base))
    print("one test, wall")
    print(f"  plain pytest, no fixture               {statistics.median(without):8.3f} s")
    print(f"  import myloware_store                  {statistics.median(imports):8.3f} s")
    print(f"  with the server running                {statistics.median(warm):8.3f} s   (best {min(warm):.3f})")
    print(f"  from cold, template cached             {statistics.median(cold):8.3f} s   (best {min(cold):.3f})")
    print(f"  initdb alone                           {statistics.median(initdb):8.3f} s")
    extra = statistics.median(with_it - without_it for with_it, without_it in pairs) * 1e3
    print(f"  pytest --co, over an empty plugin      {extra:8.2f} ms  ({statistics.median(p[0] for p in pairs):.3f} s)")


def main() -> None:
    """Print both tables."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # pytest would compile every plugin at every start
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="myloware-bench-", dir=memory if memory.is_dir() else None))
    base.chmod(0o711)
    try:
        with EmbeddedServer(base / "server", testing=True) as server:
            tests_apart(base / "projects", server)
        home = base / "home"
        home.mkdir(mode=0o711)
        one_test(base / "projects", home)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()

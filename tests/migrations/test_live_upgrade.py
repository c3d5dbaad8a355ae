"""Upgrades under the traffic of processes of the old and of the new version: of a column, and of our own migrations."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import myloware_store
from myloware_store.ops.migrate import migrate, migrations_path, status
from myloware_store.ops.validate import validate
from myloware_store.platform.audit import Audit
from tests.conftest import OURS, on_one_server

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase
    from myloware_store.settings import Settings

OLD, NEW = "progress_message", "progress_note"
PATIENCE = 60.0

EXPAND = f'''
BACKWARD_COMPATIBLE = True

def migrate(migrator, database, *, fake=False):
    migrator.sql("ALTER TABLE attempts ADD COLUMN {NEW} text")
    migrator.sql("""
        CREATE FUNCTION attempts_rename() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                NEW.{NEW} := COALESCE(NEW.{NEW}, NEW.{OLD});
                NEW.{OLD} := NEW.{NEW};
            ELSIF NEW.{NEW} IS DISTINCT FROM OLD.{NEW} THEN
                NEW.{OLD} := NEW.{NEW};
            ELSE
                NEW.{NEW} := NEW.{OLD};
            END IF;
            RETURN NEW;
        END $$
        """)
    migrator.sql("""
        CREATE TRIGGER attempts_rename BEFORE INSERT OR UPDATE ON attempts
        FOR EACH ROW EXECUTE FUNCTION attempts_rename()
        """)
'''
FILL = f"""
WITH batch AS (
    SELECT id FROM attempts WHERE {NEW} IS DISTINCT FROM {OLD} ORDER BY id LIMIT 20 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE attempts SET {NEW} = {OLD} FROM batch WHERE attempts.id = batch.id RETURNING 1
"""
CONTRACT = f"""
def migrate(migrator, database, *, fake=False):
    migrator.sql("DROP TRIGGER attempts_rename ON attempts")
    migrator.sql("DROP FUNCTION attempts_rename()")
    migrator.sql("ALTER TABLE attempts DROP COLUMN {OLD}")
"""

SERVICE = """
import json, os, sys, uuid
from myloware_store import Attempt, Store, Worker

url, column, stop = sys.argv[1:]

def handle(claim):
    assert store.work.progress(claim, 50, claim.content)
    assert claim.content == getattr(Attempt.get_by_id(claim.attempt_id), column)
    return {"by": column}

with Store.open(url) as store:
    finished = failed = 0
    while True:
        ending = os.path.exists(stop)
        order = store.work.submit([{"type": "TICKET", "content": f"{column} {uuid.uuid4()}"} for _ in range(4)])
        report = Worker(store, handle, threads=2).run(drain=True)
        finished, failed = finished + report.finished, failed + report.failed + report.lost
        print(finished, flush=True)
        if ending:
            print(json.dumps({"finished": finished, "failed": failed}))
            break
"""


class Service:
    """A process of one version, which submits orders and works on anybody's until it is stopped."""

    def __init__(
        self, settings: Settings, column: str, folder: Path, *, library: Path | None = None, program: str = SERVICE
    ) -> None:
        self.stop = folder / f"stop-{time.monotonic_ns()}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "MYLOWARE_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, settings.url, column, str(self.stop)],
            env={**kept, **({"PYTHONPATH": str(library)} if library else {})},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def works(self) -> None:
        """Return once it has finished some items more."""
        assert self.process.stdout is not None
        for _ in range(3):
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]

    def ends(self) -> dict[str, Any]:
        """Stop it between two orders, and return its counts."""
        self.stop.touch()
        out, err = self.process.communicate(timeout=PATIENCE)
        assert (0, "") == (self.process.returncode, err)
        counts: dict[str, Any] = json.loads(out.splitlines()[-1])
        return counts


def next_version(folder: Path) -> Path:
    """Copy the package and rename the column in its models, statements and catalog."""
    package = Path(myloware_store.__file__).parent
    copy = folder / "next" / "myloware_store"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("work/models.py", "work/queries.sql", "ops/catalog.json"):
        text = (copy / name).read_text(encoding="utf-8")
        assert OLD in text
        (copy / name).write_text(re.sub(rf"\b{OLD}\b", NEW, text), encoding="utf-8")
    migrations = copy.parent / "myloware_store_migrations"
    shutil.copytree(migrations_path(), migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "902_expand.py").write_text(EXPAND)
    return copy.parent


@on_one_server
def test_a_column_is_renamed_while_old_and_new_code_run(
    settings: Settings, database: StoreDatabase, tmp_path: Path
) -> None:
    """Expand, deploy, fill, contract: no process sees an error, no item is lost, and no value."""
    migrate(settings)
    new_library = next_version(tmp_path)
    folder = new_library / "myloware_store_migrations"
    old = Service(settings, OLD, tmp_path)
    old.works()

    assert ("902_expand",) == migrate(settings, directory=folder).applied
    old.works()
    new = Service(settings, NEW, tmp_path, library=new_library)
    restarted = Service(settings, OLD, tmp_path)
    for service in (new, restarted, old):
        service.works()
    while database.execute_sql(FILL).fetchall():
        pass
    assert [] == database.execute_sql(f"SELECT 1 FROM attempts WHERE {NEW} IS DISTINCT FROM {OLD}").fetchall()

    ended = [old.ends(), restarted.ends()]
    (folder / "903_contract.py").write_text(CONTRACT)
    new.works()
    assert ("903_contract",) == migrate(settings, directory=folder).applied
    new.works()
    ended.append(new.ends())

    assert [0, 0, 0] == [counts["failed"] for counts in ended]
    items = "SELECT count(*), count(*) FILTER (WHERE status = 'COMPLETED') FROM work_items"
    total = sum(counts["finished"] for counts in ended)
    assert (total, total) == database.execute_sql(items).fetchone()
    wrong = (
        f"SELECT 1 FROM attempts AS a JOIN work_items AS i ON i.id = work_item_id WHERE {NEW} IS DISTINCT FROM content"
    )
    assert [] == database.execute_sql(wrong).fetchall()
    assert status(settings, directory=folder).current


OWN_SERVICE = """
import json, os, sys, uuid
from myloware_store import Store, Worker

url, name, stop = sys.argv[1:]

def handle(claim):
    store.audit.record("handle", "work_item", claim.item_id, user_id=name)
    store.connectors.register(name, "EMAIL", config={"n": claim.content})
    assert store.audit.list(action="handle", resource_type="work_item", resource_id=claim.item_id)
    store.dead_letters.record(name, "handled", {}, error="none")
    return {"by": name}

with Store.open(url) as store:
    finished = failed = 0
    while True:
        ending = os.path.exists(stop)
        store.work.submit([{"type": "TICKET", "content": f"{name} {uuid.uuid4()}"} for _ in range(4)])
        report = Worker(store, handle, threads=2).run(drain=True)
        finished, failed = finished + report.finished, failed + report.failed + report.lost
        print(finished, flush=True)
        if ending:
            print(json.dumps({"finished": finished, "failed": failed}))
            break
"""


def first_version(folder: Path) -> Path:
    """Copy the package with the first migration only, without what the later ones have made known to it."""
    package = Path(myloware_store.__file__).parent
    copy = folder / "first" / "myloware_store"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    later = {
        "platform/models.py": r"    source = _WordField\((?s:.*?)\n(?=    class Meta)",
        "worker/leases.py": r".*self\._seal\).*\n",
    }
    for name, part in later.items():
        text = (copy / name).read_text(encoding="utf-8")
        assert 1 == len(re.findall(part, text))
        (copy / name).write_text(re.sub(part, "", text), encoding="utf-8")
    migrations = copy.parent / "myloware_store_migrations"
    shutil.copytree(migrations_path(), migrations, ignore=shutil.ignore_patterns("__pycache__", "00[2-9]*"))
    return copy.parent


@on_one_server
def test_our_own_migrations_are_applied_while_old_and_new_code_run(
    settings: Settings, database: StoreDatabase, tmp_path: Path
) -> None:
    """From the first to the newest: no process sees an error, no item and no audit line is lost."""
    migrate(settings, to=OURS[0])
    library = first_version(tmp_path)

    def start(name: str, **options: Any) -> Service:
        return Service(settings, name, tmp_path, program=OWN_SERVICE, **options)

    old = start("old", library=library)
    old.works()
    assert OURS[1:] == migrate(settings).applied
    old.works()
    services = [start("restarted", library=library), start("new"), old]
    for service in services:
        service.works()
    ended = [service.ends() for service in services]

    assert [0, 0, 0] == [counts["failed"] for counts in ended]
    total = sum(counts["finished"] for counts in ended)
    items = "SELECT count(*), count(*) FILTER (WHERE status = 'COMPLETED') FROM work_items"
    assert (total, total) == database.execute_sql(items).fetchone()
    handled = "SELECT count(DISTINCT resource_id), count(DISTINCT user_id) FROM audit_logs WHERE action = 'handle'"
    assert (total, 3) == database.execute_sql(handled).fetchone()
    audit = Audit(database)
    audit.seal()
    report = audit.verify()
    assert (True, 0) == (report.intact, report.unsealed)
    written = "SELECT count(*) FROM audit_logs WHERE resource_type = 'work_orders' AND source = 'database'"
    assert database.execute_sql(written).fetchone()[0] > 0
    assert status(settings).current
    assert validate(database).valid

"""The lines of `docs/backup.md`: what is dumped and restored is whole, on a real server and on the embedded one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from myloware_store.db.database import StoreDatabase
from myloware_store.ops.migrate import migrate
from myloware_store.ops.target import opened
from myloware_store.ops.validate import validate
from myloware_store.platform.audit import Audit
from myloware_store.seed import seed
from myloware_store.settings import Settings
from myloware_store.work.engine import Work
from tests.conftest import on_one_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.embedded import EmbeddedServer

CHECKOUT = Path(__file__).parents[2]
BACKUP, RECOVERY, DUMP, RESTORE, EMBEDDED_DUMP, EMBEDDED_RESTORE = re.findall(
    r"```bash\n(.*?)```", (CHECKOUT / "docs" / "backup.md").read_text(encoding="utf-8"), re.DOTALL
)


def test_the_readme_shows_the_same_lines() -> None:
    """Its commands for your own server are those that these tests run."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```bash\n(myloware-store backup .*?)```", readme, re.DOTALL)
    tested = (BACKUP + RECOVERY + DUMP + RESTORE).splitlines()
    assert [line for line in shown.splitlines() if line not in tested] == []


def bash(script: str, cwd: Path, *bins: str) -> str:
    """Run lines of the documentation as a reader would, and return their output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "MYLOWARE_", "PG"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), *bins, os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env={**kept, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def contents(bins: str, url: str) -> str:
    """Return every row of every table as text."""
    command = [f"{bins}/pg_dump", "--data-only", "--no-owner", url]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", dumped)


@pytest.fixture(scope="module")
def filled(postgres: EmbeddedServer) -> Iterator[StoreDatabase]:
    """Yield the database `myloware` of the role `myloware`, migrated and filled, on either server."""
    server = StoreDatabase(Settings.load(postgres.url("postgres"), environ={}, dotenv=None))
    server.execute_sql("CREATE ROLE myloware LOGIN SUPERUSER")
    server.execute_sql("CREATE DATABASE myloware OWNER myloware")
    settings = Settings.load(postgres.url("myloware"), environ={}, dotenv=None)
    migrate(settings)
    with opened(settings) as database:
        seed(database)
        live_through_something(database)
        Audit(database).seal()
        yield database
    server.execute_sql("DROP DATABASE myloware WITH (FORCE)")
    server.execute_sql("DROP ROLE myloware")
    server.close_all()


@pytest.fixture
def myloware_server_database(filled: StoreDatabase) -> Iterator[StoreDatabase]:
    """Yield that database, and drop the one that the test restores."""
    yield filled
    filled.execute_sql("DROP DATABASE IF EXISTS restored WITH (FORCE)")


@on_one_server
def test_the_commands_make_verify_and_restore_a_backup(
    postgres: EmbeddedServer, myloware_server_database: StoreDatabase, tmp_path: Path
) -> None:
    """The documented lines leave a copy that is valid and holds every row."""
    address = f"export DATABASE_URL='{postgres.url('myloware')}'\n"
    printed = bash(address + BACKUP, tmp_path)
    assert "its restored copy equal" in printed
    recovery = RECOVERY.replace("@localhost/", f"@{quote(str(postgres.socket_dir), '')}/")

    assert "equal to the backup" in bash(recovery, tmp_path)

    (bins,) = myloware_server_database.execute_sql("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    assert contents(bins, postgres.url("myloware")) == contents(bins, postgres.url("restored"))


def test_a_backup_of_a_server_restores_whole(
    postgres: EmbeddedServer, myloware_server_database: StoreDatabase, tmp_path: Path
) -> None:
    """Dumped and restored by the documented lines, the copy is valid and holds every row."""
    place = str(postgres.socket_dir)
    (bins,) = myloware_server_database.execute_sql("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    script = (DUMP + RESTORE).replace("-h localhost", f"-h '{place}'").replace("@localhost/", f"@{quote(place, '')}/")
    bash(script, tmp_path, bins)
    restored = StoreDatabase(Settings.load(postgres.url("restored"), environ={}, dotenv=None))
    try:
        assert validate(restored).valid
        assert (0,) != restored.execute_sql("SELECT count(*) FROM mem_docs WHERE embedding IS NOT NULL").fetchone()
        assert contents(bins, postgres.url("myloware")) == contents(bins, postgres.url("restored"))
        (works,) = restored.execute_sql("UPDATE work_orders SET metadata = '{}' RETURNING 1").fetchone()
        assert 1 == works
    finally:
        restored.close_all()


def test_a_schema_dump_makes_the_same_schema(
    postgres: EmbeddedServer, myloware_server_database: StoreDatabase, tmp_path: Path
) -> None:
    """The schema alone restores too; only the history of migrations is missing, and `validate` says so."""
    place = str(postgres.socket_dir)
    (bins,) = myloware_server_database.execute_sql("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    script = (DUMP + RESTORE.replace("backup.sql", "schema.sql").replace("validate", "--version")).replace(
        "-h localhost", f"-h '{place}'"
    )
    bash(script, tmp_path, bins)
    restored = StoreDatabase(Settings.load(postgres.url("restored"), environ={}, dotenv=None))
    try:
        assert ["migration"] == [finding.kind for finding in validate(restored).findings]
        assert (0,) == restored.execute_sql("SELECT count(*) FROM work_orders").fetchone()
    finally:
        restored.close_all()


@pytest.mark.parametrize("options", ["", "--disable-triggers", "--inserts --rows-per-insert=1"])
def test_data_alone_restores_into_a_migrated_database(
    postgres: EmbeddedServer, myloware_server_database: StoreDatabase, tmp_path: Path, options: str
) -> None:
    """Orders come back as they were, status, counters and times, though their items are counted as they come in."""
    place = str(postgres.socket_dir)
    (bins,) = myloware_server_database.execute_sql("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    bash(f"PGHOST='{place}' createdb -U myloware restored", tmp_path, bins)
    settings = Settings.load(postgres.url("restored"), environ={}, dotenv=None)
    migrate(settings)
    text = (CHECKOUT / "docs" / "backup.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"`pg_dump -h localhost (.*--data-only[^`]*)`", text)
    load = "psql -U myloware -q -v ON_ERROR_STOP=1 restored < data.sql"
    bash(f"export PGHOST='{place}'\npg_dump {options} {line}\n{load}", tmp_path, bins)

    before, after = (Counter(rows(bins, postgres.url(name))) for name in ("myloware", "restored"))
    assert Counter() == before - after
    # Without --disable-triggers, the load is an action, too.
    assert [] == [row for row in after - before if not re.search(r"\tinsert\t.*\tdatabase\tmyloware\t", row)]
    with closing(StoreDatabase(settings)) as restored:
        report = Audit(restored).verify()
    assert (True, True) == (report.intact, report.seals > 0)


def live_through_something(database: StoreDatabase) -> None:
    """Put orders into states that are not those of items that come in."""
    for name, sql in {
        "back in the queue": """
            UPDATE work_items SET status = 'PROCESSING' WHERE work_order_id = {order};
            UPDATE work_items SET status = 'QUEUED' WHERE work_order_id = {order};
            """,
        "emptied": "DELETE FROM work_items WHERE work_order_id = {order}",
        "claimed later": """
            UPDATE work_items SET status = 'PROCESSING', updated_at = now() + interval '1 day'
            WHERE work_order_id = {order}
            """,
        "grown": """
            INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at)
            SELECT tenant_id, id, 'INVOICE', 'more', 'FAILED', now() FROM work_orders WHERE id = {order}
            """,
    }.items():
        order = f"(SELECT id FROM work_orders WHERE created_by = '{name}')"
        insert = """
            INSERT INTO work_orders (tenant_id, created_by) VALUES ('acme', %s);
            INSERT INTO work_items (tenant_id, work_order_id, type, content)
            SELECT tenant_id, id, 'TICKET', 'x' || n FROM work_orders, generate_series(1, 2) AS n WHERE created_by = %s
            """
        database.execute_sql(insert, (name, name))
        database.execute_sql(sql.format(order=order))


def rows(bins: str, url: str) -> list[str]:
    """Return every row of every table but the history of migrations, in an order that does not depend on its past."""
    command = [f"{bins}/pg_dump", "--data-only", "--no-owner", "--exclude-table=myloware_migratehistory*", url]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(line for line in dumped.splitlines() if not re.match(r"\\(un)?restrict ", line))


def test_orders_that_were_not_counted_are_counted_anew(myloware_db: StoreDatabase) -> None:
    """`validate` finds them, and a recount corrects every wrong order and leaves the others unchanged."""
    myloware_db.execute_sql(
        """
        INSERT INTO work_orders (tenant_id, created_by) SELECT 'acme', 'order ' || n FROM generate_series(1, 4) AS n;
        INSERT INTO work_items (tenant_id, work_order_id, type, content, status, processed_at)
        SELECT tenant_id, id, 'TICKET', 'x', 'FAILED', now() FROM work_orders WHERE created_by <> 'order 4';
        SET session_replication_role = replica;
        DELETE FROM work_items USING work_orders AS o WHERE work_order_id = o.id AND created_by = 'order 1';
        UPDATE work_items SET status = 'COMPLETED' FROM work_orders AS o
        WHERE work_order_id = o.id AND created_by = 'order 2';
        INSERT INTO work_items (tenant_id, work_order_id, type, content, priority)
        SELECT tenant_id, id, 'TICKET', 'x', priority FROM work_orders WHERE created_by > 'order 2';
        RESET session_replication_role
        """
    )
    (finding,) = validate(myloware_db).findings
    assert "order" == finding.kind
    assert "4 orders" in (finding.actual or "")
    assert 4 == len(Work(myloware_db).recount())
    assert set() == Work(myloware_db).recount()
    query = "SELECT status::text, open_items, failed_items FROM work_orders ORDER BY created_by"

    assert [("FAILED", 0, 0), ("COMPLETED", 0, 0), ("PROCESSING", 1, 1), ("PENDING", 1, 0)] == myloware_db.execute_sql(
        query
    ).fetchall()
    assert () == validate(myloware_db).findings


def test_a_plain_role_restores_where_vector_is_there(
    postgres: EmbeddedServer, myloware_server_database: StoreDatabase, tmp_path: Path
) -> None:
    """Who may not create extensions restores a dump without comments, once an administrator has created `vector`."""
    role, place = f"plain_{uuid.uuid4().hex[:8]}", str(postgres.socket_dir)
    (bins,) = myloware_server_database.execute_sql("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    myloware_server_database.execute_sql(f"CREATE ROLE {role} LOGIN")
    script = f"""
    export PGHOST='{place}'
    pg_dump -U myloware --no-comments --no-owner myloware > backup.sql
    createdb -U myloware -O {role} restored
    psql -U myloware -q -c 'CREATE EXTENSION vector' restored
    psql -U {role} -q -v ON_ERROR_STOP=1 --single-transaction restored < backup.sql
    """
    bash(script, tmp_path, bins)
    restored = StoreDatabase(Settings.load(postgres.url("restored"), environ={}, dotenv=None))
    try:
        assert validate(restored).valid
        assert contents(bins, postgres.url("myloware")) == contents(bins, postgres.url("restored"))
    finally:
        restored.execute_sql(f"REASSIGN OWNED BY {role} TO postgres")
        restored.execute_sql("ALTER DATABASE restored OWNER TO postgres")
        restored.execute_sql(f"DROP OWNED BY {role}")
        restored.execute_sql(f"DROP ROLE {role}")
        restored.close_all()


def test_a_url_of_prismas_is_cut_as_documented(
    postgres: EmbeddedServer, myloware_server_database: StoreDatabase, tmp_path: Path
) -> None:
    """The documented way to drop `?schema=` from a URL leaves one that pg_dump takes."""
    (bins,) = myloware_server_database.execute_sql("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    line = 'pg_dump "${DATABASE_URL%%\\?*}"'
    assert line in (CHECKOUT / "docs" / "backup.md").read_text(encoding="utf-8")
    url = f"postgresql://myloware@{quote(str(postgres.socket_dir), '')}/myloware?schema=public&connection_limit=5"

    assert "CREATE TABLE public.work_orders" in bash(f"DATABASE_URL='{url}'\n{line}", tmp_path, bins)


def test_a_backup_of_the_embedded_server_restores_whole(reachable_tmp: Path) -> None:
    """The lines for the embedded server run as they stand, from its own folder with its own programs."""
    place = reachable_tmp / f"backup-{uuid.uuid4().hex[:8]}"
    place.mkdir(mode=0o755)
    rows = """
    query="SELECT count(*) FROM work_items"
    test "$("$bin/psql" -tAc "$query" "$url")" -gt 0
    test "$("$bin/psql" -tAc "$query" "$url")" = "$("$bin/psql" -tAc "$query" "$url&dbname=restored")"
    """
    try:
        bash(EMBEDDED_DUMP + EMBEDDED_RESTORE + rows, place)
    finally:
        bash("myloware-store down", place)

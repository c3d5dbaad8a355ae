"""`doctor` finds what is wrong with a running database, says how one sees it, and what mends it."""

from __future__ import annotations

import re
import uuid
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest
from click.testing import CliRunner
from psycopg2 import extensions

from myloware_store import InvalidInput, Store
from myloware_store.cli import cli
from myloware_store.db.database import StoreDatabase
from myloware_store.memory.index.build import record
from myloware_store.memory.index.state import read_state
from myloware_store.ops import doctor
from myloware_store.ops.doctor import Finding, examine
from myloware_store.ops.migrate import migrate
from myloware_store.ops.target import opened
from myloware_store.settings import Settings
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store.embedded import EmbeddedServer

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}
DURABLE = {"fsync", "full_page_writes", "synchronous_commit", "random_page_cost", "idle_in_transaction_session_timeout"}
"""The settings of test servers that the doctor finds."""


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return the limits, to be changed so that a test can cause a finding at once."""
    changed = dict(doctor.LIMITS)
    monkeypatch.setattr(doctor, "LIMITS", changed)
    return changed


def found(database: StoreDatabase, check: str) -> list[Finding]:
    """Return the findings of a check."""
    return [finding for finding in examine(database).findings if finding.check == check]


def one(database: StoreDatabase, check: str, subject: str) -> Finding:
    """Return the finding of a check about an object."""
    (finding,) = [finding for finding in found(database, check) if finding.subject == subject]
    return finding


def mend(database: StoreDatabase, remedy: str) -> None:
    """Do what a finding says: SQL up to the last semicolon, or a command."""
    if remedy.startswith("myloware-store"):
        CliRunner().invoke(cli, [*remedy.split()[1:], "--url", database.settings.url], catch_exceptions=False)
        return
    for statement in remedy[: remedy.rindex(";")].split(";"):
        database.execute_sql(statement.replace("%", "%%"))


@contextmanager
def session(database: StoreDatabase, role: str | None = None) -> Iterator[Any]:
    """Yield a cursor of another session, in a transaction."""
    kwargs = database.settings.connect_kwargs() | ({"user": role} if role else {})
    with closing(psycopg2.connect(**kwargs)) as connection, connection.cursor() as run:
        yield run


@contextmanager
def waiting(database: StoreDatabase) -> Iterator[Callable[[str], Callable[[], bool]]]:
    """Yield a function that begins a statement in another session, and returns one that says whether it has ended."""
    with closing(psycopg2.connect(**database.settings.connect_kwargs(), async_=True)) as connection:
        until(lambda: connection.poll() == extensions.POLL_OK)
        cursor = connection.cursor()

        def begin(sql: str) -> Callable[[], bool]:
            cursor.execute(sql)
            return lambda: connection.poll() == extensions.POLL_OK

        yield begin


def count(database: StoreDatabase) -> None:
    """Let the server's statistics include all that this session did."""
    database.execute_sql("SELECT pg_stat_force_next_flush()")
    database.execute_sql("SELECT 1")


def test_a_sound_database_has_no_findings(myloware: Store) -> None:
    """But for the settings of a test server; every check was made, in the caller's transaction, too."""
    order = myloware.work.submit([INVOICE])
    myloware.work.finish(myloware.work.claim("agent"), [1])
    myloware.memory.upsert([{"type": "CONTEXT", "content": "a"}])
    with myloware.db.atomic():
        report = examine(myloware.db)
        assert order.id == myloware.work.get(order.id).id

    assert [] == [finding for finding in report.findings if finding.subject not in DURABLE]
    assert () == report.unseen
    assert {"locks", "counters", "vector_index", "schema", "replication"} < set(report.sound)


CAUSES = {
    "extension": (
        "UPDATE pg_extension SET extversion = '0.5.1' WHERE extname = 'vector'",
        ("info", "vector", "version 0.5.1 is installed, and the server offers"),
    ),
    "extension missing": ("DROP EXTENSION vector CASCADE", ("critical", "vector", "is not installed")),
    "locale": (
        "UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()",
        ("critical", "collation", "sorted by version 0 of the collation"),
    ),
    "schema": ("DROP INDEX audit_logs_action_idx", ("warning", "audit_logs.audit_logs_action_idx", "missing")),
    "schema differs": (
        "ALTER TABLE audit_logs ADD COLUMN more text NOT NULL DEFAULT '', ALTER COLUMN action DROP NOT NULL",
        ("critical", "schema", r"2 difference\(s\) from .*: audit_logs.action, audit_logs.more"),
    ),
    "vacuum": (
        """
        ALTER TABLE capabilities SET (autovacuum_vacuum_threshold = 1000000); -- or autovacuum may come first
        SELECT pg_stat_reset_single_table_counters('capabilities'::regclass);
        INSERT INTO capabilities (name, scope) SELECT n, 's' FROM generate_series(1, 100) AS n;
        DELETE FROM capabilities;
        ANALYZE capabilities
        """,
        ("warning", "capabilities", "100 dead rows beside 0 live ones"),
    ),
    "vacuum off": (
        "ALTER TABLE tools SET (autovacuum_enabled = false)",
        ("warning", "tools", "autovacuum is off"),
    ),
    "vacuum never": (
        "CREATE TABLE extra AS SELECT generate_series(1, 10) AS n",
        ("warning", "extra", "never analyzed, and has 8192 bytes"),
    ),
    "invalid_indexes": (
        """
        CREATE INDEX broken ON capabilities (scope);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass
        """,
        ("warning", "broken", "its build failed"),
    ),
    "duplicate_indexes": (
        "CREATE INDEX twin ON dead_letters (work_item_id)",
        ("warning", "twin", "of dead_letters_work_item_id_idx"),
    ),
    "duplicate_indexes prefix": (
        "CREATE INDEX head ON audit_logs (tenant_id, action)",
        ("info", "head", "the first of audit_logs_action_idx"),
    ),
    "unused_indexes": ("CREATE INDEX lonely ON capabilities (scope)", ("info", "lonely", "no query on this server")),
    "foreign_keys": (
        "CREATE TABLE extra (capability_id uuid REFERENCES capabilities)",
        ("info", "extra.extra_capability_id_fkey", "each delete of a row of capabilities reads all of 0 bytes"),
    ),
    "foreign_keys of a tenant": (
        """
        CREATE TABLE extra (
            tenant_id text, parent uuid, FOREIGN KEY (tenant_id, parent) REFERENCES work_orders (tenant_id, id)
        );
        CREATE INDEX ON extra (tenant_id);
        INSERT INTO extra VALUES ('a')
        """,
        ("warning", "extra.extra_tenant_id_parent_fkey", "each delete of a row of work_orders reads all of 8192 bytes"),
    ),
    "constraints": (
        "ALTER TABLE capabilities ADD CONSTRAINT odd CHECK (scope <> 'odd') NOT VALID",
        ("warning", "capabilities.odd", "NOT VALID"),
    ),
    "leases": (
        "UPDATE attempts SET lease_expires_at = now() - interval '1 hour'",
        ("warning", "attempts", r"1 attempt\(s\) hold items, and their leases have ended, the first 01:00:\d\d ago"),
    ),
    "queue": (
        "UPDATE work_items SET available_at = now() - interval '2 hours' WHERE status = 'QUEUED'",
        (
            "warning",
            "work_items",
            r"1 item\(s\) can be claimed, .* INVOICE and priority MEDIUM, has waited for 02:00:\d\d",
        ),
    ),
    "unindexed": (
        "UPDATE work_items SET processed_at = now() - interval '3 hours' WHERE status = 'COMPLETED'",
        ("info", "work_items", r"1 ended item\(s\) are not in the full-text index, the first for 03:00:\d\d"),
    ),
    "expired": (
        """
        INSERT INTO mem_docs (tenant_id, type, content, expires_at)
        VALUES ('a', 'CONTEXT', 'a', now() - interval '2 hours')
        """,
        ("info", "mem_docs", r"1 expired document\(s\) are not deleted, the first for 02:00:\d\d"),
    ),
    "counters": (
        "SET session_replication_role = replica; UPDATE work_orders SET open_items = 7; RESET session_replication_role",
        ("critical", "work_orders", r"1 order\(s\) do not agree with their items; \S+ is stored as \w+, 7 open"),
    ),
    "vector_index": ("DROP INDEX mem_docs_embedding_idx", ("warning", "mem_docs_embedding_idx", "there is no index")),
    "vector_index invalid": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mem_docs_embedding_idx'::regclass",
        ("warning", "mem_docs_embedding_idx", "it is invalid"),
    ),
    "vector_index left": (
        "CREATE INDEX mem_docs_embedding_idx_new ON mem_docs USING ivfflat (embedding vector_cosine_ops)",
        ("warning", "mem_docs_embedding_idx_new", "a build that was killed left it behind"),
    ),
}
BY_HAND = {"extension", "schema differs", "leases", "queue"}
"""Those whose remedy is not a statement or a command that mends them at once."""


@pytest.mark.myloware_db(mode="clone")
@pytest.mark.parametrize("case", CAUSES)
def test_a_cause_is_found_and_its_remedy_mends_it(myloware: Store, limits: dict[str, float], case: str) -> None:
    """The finding has the severity, the object and the numbers; after the remedy it is gone."""
    db, check = myloware.db, case.partition(" ")[0]
    sql, (severity, subject, evidence) = CAUSES[case]
    limits |= {"small": 0, "dead": 100, "unused": 0}
    myloware.work.submit([INVOICE] * 3)
    done, _ = myloware.work.claim("agent", 2)
    myloware.work.finish([done], [1])
    assert [] == [finding for finding in found(db, check) if finding.subject == subject]
    db.execute_sql(sql)
    count(db)

    finding = one(db, check, subject)

    assert severity == finding.severity
    assert re.search(evidence, finding.evidence), finding
    if case not in BY_HAND:
        mend(db, finding.remedy)
        assert [] == [left for left in found(db, check) if left.subject == subject]


@pytest.mark.myloware_db(mode="clone")
@pytest.mark.parametrize(
    ("name", "bad", "good", "severity"),
    [
        ("track_counts", "off", "on", "warning"),
        ("synchronous_commit", "off", "on", "info"),
        ("idle_in_transaction_session_timeout", "0", "60000", "info"),
        ("random_page_cost", "4", "1.1", "info"),
        ("maintenance_work_mem", "16MB", "64MB", "info"),
    ],
)
def test_settings_that_hurt(myloware_db: StoreDatabase, name: str, bad: str, good: str, severity: str) -> None:
    """The remedy changes the setting where it was made, here at the database."""
    for value, expected in ((bad, [severity]), (good, [])):
        myloware_db.execute_sql(f"ALTER DATABASE {myloware_db.settings.dbname} SET {name} = '{value}'")
        database = StoreDatabase(myloware_db.settings)
        settings = [finding for finding in found(database, "settings") if finding.subject == name]
        assert expected == [finding.severity for finding in settings]
        for finding in settings:
            assert f"ALTER DATABASE {database.settings.dbname} RESET {name};" == finding.remedy
        database.close_all()


def test_a_memory_larger_than_the_cache(myloware: Store, limits: dict[str, float]) -> None:
    """Exact searches are then slow."""
    limits["buffers"] = 0
    myloware.memory.upsert([{"type": "CONTEXT", "content": "a"}])

    assert one(myloware.db, "settings", "shared_buffers").remedy.endswith("Then restart the server.")


@pytest.mark.myloware_db(mode="clone")
def test_few_connections_left(myloware_db: StoreDatabase, limits: dict[str, float]) -> None:
    """Of the server, and of the database."""
    name = myloware_db.settings.dbname
    myloware_db.execute_sql(f"ALTER DATABASE {name} CONNECTION LIMIT 1")
    limits["connections"] = 1.0

    server, database = found(myloware_db, "connections")

    assert ("warning", "critical") == (database.severity, server.severity)
    assert (f"database {name}", "1 of 1 connections are in use") == (server.subject, server.evidence)
    assert re.fullmatch(r"\d+ of \d+ connections are in use", database.evidence)
    assert server.remedy.endswith(f"ALTER DATABASE {name} CONNECTION LIMIT 12.")


@pytest.mark.parametrize("limit", ["idle", "transaction"])
def test_a_forgotten_transaction(myloware_db: StoreDatabase, limits: dict[str, float], limit: str) -> None:
    """The remedy ends the session that left it open."""
    with session(myloware_db) as run:
        run.execute("SELECT pg_backend_pid()")
        (pid,) = run.fetchone()
        assert [] == found(myloware_db, "transactions")
        limits[limit] = 0

        (finding,) = found(myloware_db, "transactions")

        assert ("warning", f"server process {pid}") == (finding.severity, finding.subject)
        assert re.search(r"has had a transaction open for 00:00:\d\d, idle for 00:00:\d\d", finding.evidence)
        mend(myloware_db, finding.remedy)
        until(lambda: not found(myloware_db, "transactions"))


def test_a_session_that_others_wait_for(myloware: Store, limits: dict[str, float]) -> None:
    """It holds a lock; the remedy ends it, and the others go on."""
    db = myloware.db
    update = "UPDATE capabilities SET scope = 'b'"
    db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('a', 'a')")
    limits["waiting"] = 0
    with session(db) as holder, waiting(db) as run:
        holder.execute(update)
        holder.execute("SELECT pg_backend_pid()")
        (pid,) = holder.fetchone()
        done = run(update)
        until(lambda: found(db, "locks"))

        (finding,) = found(db, "locks")

        assert ("warning", f"server process {pid}") == (finding.severity, finding.subject)
        assert "1 session(s) wait for its locks, the first for 00:00:" in finding.evidence
        assert ", idle in transaction" in finding.evidence
        mend(db, finding.remedy)
        until(done)


def test_a_prepared_transaction_that_others_wait_for(myloware_db: StoreDatabase, limits: dict[str, float]) -> None:
    """It has no process; the remedy rolls it back."""
    gid = f"doctor-{uuid.uuid4()}"
    with session(myloware_db) as run:
        run.execute(f"INSERT INTO capabilities (name, scope) VALUES ('a', 'a'); PREPARE TRANSACTION '{gid}'")
    assert [] == found(myloware_db, "prepared_transactions")
    limits |= {"prepared": 0, "waiting": 0}

    (finding,) = found(myloware_db, "prepared_transactions")

    assert ("warning", gid) == (finding.severity, finding.subject)
    with waiting(myloware_db) as run:
        done = run("INSERT INTO capabilities (name, scope) VALUES ('a', 'a')")
        until(lambda: found(myloware_db, "locks"))
        assert ["a prepared transaction"] == [one.subject for one in found(myloware_db, "locks")]
        mend(myloware_db, finding.remedy)
        until(done)
    assert [] == found(myloware_db, "prepared_transactions")


@pytest.mark.myloware_db(mode="clone")
def test_an_index_that_is_being_built(myloware_db: StoreDatabase, plain_role: str) -> None:
    """It is invalid until it is complete, and no finding, whoever looks."""
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    with session(myloware_db) as writer, waiting(myloware_db) as run, as_role(myloware_db, plain_role) as plain:
        writer.execute("INSERT INTO capabilities (name, scope) VALUES ('a', 'a')")
        done = run("CREATE INDEX CONCURRENTLY slow ON capabilities (scope)")
        until(lambda: myloware_db.execute_sql(invalid).fetchone()[0])

        assert [] == found(myloware_db, "invalid_indexes") + found(plain, "invalid_indexes")
        writer.connection.rollback()
        until(done)


def test_old_transaction_ids(myloware_db: StoreDatabase, limits: dict[str, float]) -> None:
    """Long before the server stops accepting writes."""
    limits["xids"] = 0

    (finding,) = found(myloware_db, "wraparound")

    assert ("critical", f"database {myloware_db.settings.dbname}") == (finding.severity, finding.subject)


@pytest.mark.myloware_db(mode="clone")
def test_a_service_that_logs_in_as_the_owner(myloware_db: StoreDatabase, limits: dict[str, float]) -> None:
    """One that logs in as another role is none."""
    limits["service"] = 0
    name = f"owner_{uuid.uuid4().hex[:8]}"
    myloware_db.execute_sql(f"CREATE ROLE {name} LOGIN; ALTER TABLE work_items OWNER TO {name}")
    url = attrs.evolve(myloware_db.settings, user=name).libpq_url

    with closing(psycopg2.connect(url, application_name="billing")):
        finding = one(myloware_db, "owner_logins", f"role {name}")
        assert "1 session(s) of billing are logged in as it" in finding.evidence
        myloware_db.execute_sql("ALTER TABLE work_items OWNER TO CURRENT_USER")
        assert f"role {name}" not in [each.subject for each in found(myloware_db, "owner_logins")]
    myloware_db.execute_sql(f"DROP ROLE {name}")


@pytest.mark.myloware_db(mode="clone")
def test_a_table_of_free_space(myloware_db: StoreDatabase, limits: dict[str, float]) -> None:
    """Its pages are counted, and those that its rows would fill."""
    limits["bloat"] = 0
    fill = "INSERT INTO capabilities (name, scope) SELECT n::text, repeat('s', 200) FROM generate_series(1, 1000) AS n"
    for sql in (fill, "DELETE FROM capabilities WHERE name <> '1000'", "VACUUM (ANALYZE) capabilities"):
        myloware_db.execute_sql(sql)

    finding = one(myloware_db, "bloat", "capabilities")

    assert "info" == finding.severity
    assert re.match(r"it has \d+ kB, and its rows need about 8192 bytes", finding.evidence)
    mend(myloware_db, finding.remedy)
    assert [] == found(myloware_db, "bloat")


@pytest.mark.myloware_db(mode="clone")
def test_a_table_that_is_read_whole(myloware_db: StoreDatabase, limits: dict[str, float]) -> None:
    """If that happens often to a large one."""
    limits |= {"large": 5, "scans": 2}
    myloware_db.execute_sql("CREATE TABLE extra AS SELECT generate_series(1, 10) AS n; ANALYZE extra")
    for _ in range(3):
        myloware_db.execute_sql("SELECT count(*) FROM extra")
    count(myloware_db)

    finding = one(myloware_db, "sequential_scans", "extra")

    assert "info" == finding.severity
    assert re.match(r"queries have read all of its 10 rows \d+ times since", finding.evidence)


def test_dead_letters_that_wait(myloware: Store) -> None:
    """For a day they are news; then somebody has forgotten them."""
    myloware.dead_letters.record("mail", "bounce", {}, "no such address")
    assert "info" == one(myloware.db, "dead_letters", "dead_letters").severity
    myloware.db.execute_sql("UPDATE dead_letters SET created_at = created_at - interval '2 days'")

    finding = one(myloware.db, "dead_letters", "dead_letters")

    assert "warning" == finding.severity
    assert finding.evidence.startswith("1 letter(s) wait for a decision, the first for 2 days")


@pytest.mark.parametrize("check", ["unindexed", "expired", "queue"])
def test_counting_ends(myloware: Store, limits: dict[str, float], check: str) -> None:
    """A great number is not counted to its end."""
    limits |= {"most": 1, "unindexed": -1, "expired": 0, "queue": -1}
    myloware.work.submit([INVOICE] * 4)
    myloware.work.finish(myloware.work.claim("agent", 2), [1, 1])
    myloware.db.execute_sql(
        "INSERT INTO mem_docs (tenant_id, type, content, expires_at)"
        " SELECT 'a', 'CONTEXT', 'a', now() FROM generate_series(1, 2)"
    )

    (finding,) = found(myloware.db, check)

    assert ("warning", "at least 1 ") == (finding.severity, finding.evidence[:11])


BELOW = "its recall is 0.500, under the target of 0.95"


@pytest.mark.parametrize(
    ("recall", "tunings", "expected"),
    [
        (0.5, (), ("warning", f"searches compare all documents: {BELOW}", "myloware-store index swap hnsw")),
        (0.5, ((10, 5),), ("warning", BELOW, "myloware-store index ensure")),
        (None, ((10, 5),), ("info", "it was rebuilt and not measured", "myloware-store index ensure")),
    ],
)
def test_an_index_with_a_low_recall(
    myloware: Store,
    monkeypatch: pytest.MonkeyPatch,
    recall: float | None,
    tunings: Any,
    expected: tuple[str, str, str],
) -> None:
    """Searches do not use it, and read all vectors; one that was not measured yet is used."""
    monkeypatch.setattr(doctor, "LEAST_ROWS", 0)
    state = read_state(myloware.db)
    (now,) = myloware.db.execute_sql("SELECT now()").fetchone()
    measured = {"recall": recall, "tunings": tunings, "measured_at": now, "measured_rows": state.live_rows}
    record(myloware.db, attrs.evolve(state, rows=1, target_recall=0.95, **measured))

    finding = one(myloware.db, "vector_index", "mem_docs_embedding_idx")

    assert expected == (finding.severity, finding.evidence.partition(", and nothing")[0], finding.remedy)


def test_fix_recounts_and_says_which(myloware: Store) -> None:
    """The orders whose counters were wrong are right again, and no others are written, whatever tenant is in force."""
    orders = [myloware.work.submit([INVOICE]).id for _ in range(2)]
    assert () == examine(myloware.db, fix=True).recounted
    with myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL session_replication_role = replica")
        myloware.db.execute_sql("UPDATE work_orders SET open_items = 7 WHERE id = %s", (orders[0],))

    with myloware.tenant("another"):
        report = examine(myloware.db, fix=True)

    assert (orders[0],) == report.recounted
    assert "counters" in report.sound
    assert [1, 1] == [myloware.work.get(order).open_items for order in orders]


@pytest.fixture
def plain_role(myloware_db: StoreDatabase) -> Iterator[str]:
    """Yield a role that may read the tables, and no more."""
    role = f"plain_{uuid.uuid4().hex[:8]}"
    myloware_db.execute_sql(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    yield role
    myloware_db.execute_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@contextmanager
def as_role(database: StoreDatabase, role: str) -> Iterator[StoreDatabase]:
    """Yield the database for another role."""
    other = StoreDatabase(attrs.evolve(database.settings, user=role))
    yield other
    other.close_all()


@pytest.mark.myloware_db(mode="clone")
def test_a_plain_role_sees_less_and_is_told(
    myloware_db: StoreDatabase, plain_role: str, limits: dict[str, float]
) -> None:
    """Each thing hidden from it has the GRANT that shows it; all else is examined."""
    limits["idle"] = 0
    myloware_db.execute_sql("REVOKE SELECT ON attempts FROM " + plain_role)
    with as_role(myloware_db, plain_role) as plain, session(myloware_db) as run:
        run.execute("SELECT 1")
        report = examine(plain)
        hidden = {unseen.check: unseen.remedy for unseen in report.unseen}

        assert {"transactions", "leases", "bloat"} == hidden.keys()
        assert f"GRANT pg_read_all_stats TO {plain_role};" == hidden["transactions"]
        assert {"schema", "counters", "queue", "vector_index", "locks"} < set(report.sound)
        for remedy in hidden.values():
            mend(myloware_db, remedy)
        assert () == examine(plain).unseen
        assert "transactions" in {finding.check for finding in examine(plain).findings}


@pytest.mark.myloware_db(mode="clone")
@pytest.mark.parametrize("schema", ["jobs", "public"])
def test_a_role_without_any_right(myloware_db: StoreDatabase, schema: str) -> None:
    """The server is examined, and the GRANT for the rest is named."""
    role = f"plain_{uuid.uuid4().hex[:8]}"
    settings = attrs.evolve(myloware_db.settings, schema=schema)
    migrate(settings)
    myloware_db.execute_sql(f"CREATE ROLE {role} LOGIN; REVOKE USAGE ON SCHEMA {schema} FROM public")
    with opened(attrs.evolve(settings, user=role)) as plain:
        report = examine(plain)
    myloware_db.execute_sql(f"DROP ROLE {role}")

    assert f"GRANT USAGE ON SCHEMA {schema} TO {role};" in {unseen.remedy for unseen in report.unseen}
    assert "schema" not in {finding.check for finding in report.findings}
    assert {"locks", "connections"} < set(report.sound)


@pytest.mark.myloware_db(mode="clone")
def test_row_level_security_is_told(myloware_db: StoreDatabase, plain_role: str) -> None:
    """Counts are of the rows that the role sees."""
    myloware_db.execute_sql("ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY")
    with as_role(myloware_db, plain_role) as plain:
        (unseen,) = [unseen for unseen in examine(plain).unseen if unseen.check == "row_security"]

    assert "row-level security hides rows of dead_letters from this role" == unseen.reason


@pytest.mark.parametrize(
    ("limit", "reason"), [("lock_timeout", "held a lock"), ("statement_timeout", "did not end within")]
)
def test_a_locked_table_does_not_stop_the_doctor(
    myloware_db: StoreDatabase, monkeypatch: pytest.MonkeyPatch, limit: str, reason: str
) -> None:
    """The checks that need it are listed, and the others are made, inside the caller's transaction, too."""
    monkeypatch.setattr(doctor, "_LIMIT", f"SET LOCAL {limit} = '20ms'")
    with session(myloware_db) as run, myloware_db.atomic():
        run.execute("LOCK TABLE attempts")
        before = myloware_db.execute_sql(f"SHOW {limit}").fetchall()
        report = examine(myloware_db)
        after = myloware_db.execute_sql(f"SHOW {limit}").fetchall()

    assert {"leases"} <= {unseen.check for unseen in report.unseen if reason in unseen.reason}
    assert {"queue", "counters", "locks"} < set(report.sound)
    assert before == after


def test_before_and_after_migrating(postgres: EmbeddedServer) -> None:
    """Of an empty database, the server and the locale are examined, and `migrate` is named; after it, everything is."""
    name = f"bare_{uuid.uuid4().hex[:8]}"
    with closing(psycopg2.connect(**postgres.connect_kwargs("postgres"))) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute(f"CREATE DATABASE {name} TEMPLATE template0 LC_CTYPE 'C'")
        settings = Settings.load(postgres.url(name), environ={}, dotenv=None)
        with opened(settings) as database:
            bare = examine(database)
            migrate(settings)
            migrated = examine(database)
        run.execute(f"DROP DATABASE {name}")

    assert not bare.healthy
    critical = [finding for finding in bare.findings if finding.severity == "critical"]
    assert ["vector", "fsync", "full_page_writes", "tables"] == [finding.subject for finding in critical]
    assert critical == list(bare.findings[:4])
    assert "Start the server without -c fsync=off." == critical[1].remedy
    assert critical[3].remedy.startswith("myloware-store migrate")
    (locale,) = [finding for finding in bare.findings if finding.check == "locale"]
    assert locale.evidence.startswith("it is C:")
    assert {"settings", "locale"} == {finding.check for finding in migrated.findings}
    assert () == bare.unseen + migrated.unseen


@pytest.mark.myloware_db(mode="clone")
def test_a_schema_of_its_own(myloware_dsn: str) -> None:
    """With ?schema=, that schema is examined, and no other."""
    settings = attrs.evolve(Settings.load(myloware_dsn, environ={}, dotenv=None), schema="Jobs %")
    migrate(settings)
    with opened(settings) as jobs, opened(attrs.evolve(settings, schema="public")) as public:
        jobs.execute_sql(
            "INSERT INTO dead_letters (tenant_id, source, event_type, payload, error) VALUES ('a', 's', 'e', '{}', 'e')"
        )
        jobs.execute_sql("ALTER TABLE dead_letters SET (autovacuum_enabled = off)")

        jobs.execute_sql("DROP INDEX dead_letters_open_idx; CREATE INDEX again ON work_items (work_order_id)")
        public.execute_sql("CREATE INDEX again ON work_items (type)")

        assert ["dead_letters"] == [finding.subject for finding in found(jobs, "dead_letters")]
        assert () == examine(jobs).unseen
        assert [] == found(public, "dead_letters") + found(public, "vacuum")
        for check in ("vacuum", "duplicate_indexes", "schema"):
            (finding,) = found(jobs, check)
            mend(public, finding.remedy)  # the path of psql is another, too
            assert [] == found(jobs, check)
        assert (True,) == public.execute_sql("SELECT to_regclass('public.again') IS NOT NULL").fetchone()


def test_the_documentation_lists_every_check(myloware_db: StoreDatabase) -> None:
    """But for the one that finds nothing."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    report = examine(myloware_db)

    checks = {*report.sound, *(finding.check for finding in report.findings)}
    assert checks - {"row_security"} == {*re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)}


def test_only_a_database_can_be_examined() -> None:
    """Not its URL."""
    with pytest.raises(InvalidInput, match="StoreDatabase"):
        examine("postgresql:///myloware")  # type: ignore[arg-type]

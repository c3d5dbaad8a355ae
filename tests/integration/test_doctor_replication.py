"""`doctor` and `backup` on a durable primary and on its standby, which are real servers."""

from __future__ import annotations

import subprocess
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import attrs
import psycopg2
import pytest

from myloware_store import DatabaseFault, Settings, Store
from myloware_store.db.database import StoreDatabase
from myloware_store.embedded import EmbeddedServer
from myloware_store.ops import doctor
from myloware_store.ops.backup import backup, verify_backup
from myloware_store.ops.doctor import Finding, examine
from myloware_store.ops.migrate import migrate
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


@attrs.frozen
class Pair:
    """A primary and its standby."""

    primary: StoreDatabase
    standby: StoreDatabase

    def caught_up(self) -> None:
        """Wait until the standby has replayed what the primary has written."""
        (lsn,) = self.primary.execute_sql("SELECT pg_logical_emit_message(true, 'test', '')").fetchone()
        reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        until(lambda: self.standby.execute_sql(reached, (lsn,)).fetchone()[0])


@pytest.fixture(scope="module")
def servers(reachable_tmp: Path) -> Iterator[Pair]:
    """Yield a migrated database on a durable server, and the same on a standby that streams from it."""
    homes = [reachable_tmp / f"{name}-{uuid.uuid4().hex[:8]}" for name in ("primary", "standby")]
    with EmbeddedServer(homes[0]) as made:
        made.ensure_database()
        migrate(Settings.load(made.url(), environ={}, dotenv=None))
        address = f"host={made.socket_dir} port=5432 user=postgres application_name=second"
    subprocess.run(["cp", "-a", *homes], check=True)
    (homes[1] / "pgdata" / "standby.signal").touch()
    with (homes[1] / "pgdata" / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = '{address}'\n")
        settings.write("wal_receiver_status_interval = 1\nwal_retrieve_retry_interval = '100ms'\n")
    with EmbeddedServer(homes[0]) as primary, EmbeddedServer(homes[1]) as standby:
        databases = [StoreDatabase(Settings.load(one.url(), environ={}, dotenv=None)) for one in (primary, standby)]
        yield Pair(*databases)
        for database in databases:
            database.close_all()


@pytest.fixture
def pair(servers: Pair) -> Pair:
    """Return the servers once the standby streams."""
    streams = "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'"
    until(lambda: servers.primary.execute_sql(streams).fetchone())
    servers.caught_up()
    return servers


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return the limits, to be changed so that a test can cause a finding at once."""
    changed = dict(doctor.LIMITS)
    monkeypatch.setattr(doctor, "LIMITS", changed)
    return changed


def found(database: StoreDatabase, check: str) -> list[Finding]:
    """Return the findings of a check."""
    return [finding for finding in examine(database).findings if finding.check == check]


def mend(database: StoreDatabase, finding: Finding) -> None:
    """Do what a finding says."""
    for statement in finding.remedy.removesuffix(";").split(";"):
        database.execute_sql(statement)


def test_a_durable_server_is_healthy(pair: Pair) -> None:
    """With work that is done and memory that is searched: nothing is worse than worth knowing, and all was seen."""
    with Store.open(settings=pair.primary.settings) as store:
        order = store.work.submit([INVOICE])
        claims = store.work.claim("agent", 10)
        store.work.finish(claims, [1] * len(claims))
        store.memory.upsert([{"type": "CONTEXT", "content": "a"}])
        assert 0 == store.work.get(order.id).open_items
    pair.caught_up()

    for database in (pair.primary, pair.standby):
        report = examine(database)
        assert [] == [one for one in report.findings if one.severity != "info"]
        assert report.healthy
        assert () == report.unseen
        assert {"replication", "counters", "schema", "vector_index", "vacuum"} < set(report.sound)


def test_a_standby_that_was_paused(pair: Pair, limits: dict[str, float]) -> None:
    """The primary sees how far it is behind, and the standby why."""
    limits |= {"wal": 0, "lag": 0}
    pair.standby.execute_sql("SELECT pg_wal_replay_pause()")
    pair.primary.execute_sql("INSERT INTO capabilities (name, scope) VALUES (%s, 'a')", (uuid.uuid4().hex,))

    until(lambda: found(pair.primary, "replication"))
    (behind,) = found(pair.primary, "replication")
    (paused,) = found(pair.standby, "replication")

    assert ("warning", "standby second") == (behind.severity, behind.subject)
    assert ("warning", "this standby") == (paused.severity, paused.subject)
    assert "because it was paused" in paused.evidence
    mend(pair.standby, paused)
    pair.caught_up()
    assert [] == found(pair.standby, "replication")


def test_a_slow_standby(pair: Pair, limits: dict[str, float]) -> None:
    """It has received much that it has not replayed."""
    assert [] == found(pair.standby, "replication")
    limits |= {"behind": -1, "lag": -1}

    (finding,) = found(pair.standby, "replication")

    assert ("warning", "this standby") == (finding.severity, finding.subject)
    assert finding.evidence.startswith("it has not replayed 0 bytes of what it has received; its last transaction")


def test_a_standby_without_its_primary(pair: Pair, limits: dict[str, float]) -> None:
    """It says that it receives nothing, and how old its data are."""
    limits["lag"] = 0
    assert [] == found(pair.standby, "replication")
    (address,) = pair.standby.execute_sql("SHOW primary_conninfo").fetchone()
    try:
        pair.standby.execute_sql("ALTER SYSTEM SET primary_conninfo = 'host=/nonexistent'")
        pair.standby.execute_sql("SELECT pg_reload_conf()")
        until(lambda: found(pair.standby, "replication"))
        (finding,) = found(pair.standby, "replication")
    finally:
        pair.standby.execute_sql(f"ALTER SYSTEM SET primary_conninfo = '{address}'")
        pair.standby.execute_sql("SELECT pg_reload_conf()")

    assert ("warning", "this standby") == (finding.severity, finding.subject)
    assert finding.evidence.startswith("it receives nothing from its primary; its last transaction is of ")


def test_a_forgotten_slot(pair: Pair, limits: dict[str, float]) -> None:
    """Nobody reads it, and it keeps WAL until the disk is full."""
    pair.primary.execute_sql("SELECT pg_create_physical_replication_slot('forgotten', true)")
    (finding,) = found(pair.primary, "replication_slots")
    assert ("info", "forgotten") == (finding.severity, finding.subject)
    limits["wal"] = -1

    (finding,) = found(pair.primary, "replication_slots")

    assert "warning" == finding.severity
    assert finding.evidence.startswith("nobody reads it, and it keeps ")
    mend(pair.primary, finding)
    assert [] == found(pair.primary, "replication_slots")


def test_a_slot_that_has_lost_wal(pair: Pair) -> None:
    """Its reader cannot go on."""
    slots = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lost'"
    pair.primary.execute_sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    pair.primary.execute_sql("SELECT pg_reload_conf(), pg_create_physical_replication_slot('lost', true)")
    for _ in range(3):
        pair.primary.execute_sql("SELECT pg_logical_emit_message(true, 'test', ''), pg_switch_wal()")
    pair.caught_up()  # the standby has no slot, and must not lose the same
    pair.primary.execute_sql("CHECKPOINT")
    pair.primary.execute_sql("ALTER SYSTEM RESET max_slot_wal_keep_size")
    assert [("lost",)] == pair.primary.execute_sql(slots).fetchall()

    (finding,) = found(pair.primary, "replication_slots")

    assert ("warning", "lost") == (finding.severity, finding.subject)
    assert finding.evidence.startswith("it has lost WAL")
    mend(pair.primary, finding)
    assert [] == found(pair.primary, "replication_slots")


def test_autovacuum_is_off(pair: Pair) -> None:
    """The remedy turns it on again."""
    pair.primary.execute_sql("ALTER SYSTEM SET autovacuum = off")
    pair.primary.execute_sql("SELECT pg_reload_conf()")
    until(lambda: [one for one in found(pair.primary, "settings") if one.subject == "autovacuum"])
    (finding,) = [one for one in found(pair.primary, "settings") if one.subject == "autovacuum"]

    mend(pair.primary, finding)

    assert "warning" == finding.severity
    until(lambda: pair.primary.execute_sql("SHOW autovacuum").fetchone() == ("on",))


def test_a_role_that_may_not_see_the_standbys(pair: Pair) -> None:
    """It gets to know that there are some, and the GRANT."""
    role = f"plain_{uuid.uuid4().hex[:8]}"
    pair.primary.execute_sql(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    plain = StoreDatabase(attrs.evolve(pair.primary.settings, user=role))
    (unseen,) = [unseen for unseen in examine(plain).unseen if unseen.check == "replication"]
    plain.close_all()
    pair.primary.execute_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")

    assert f"GRANT pg_read_all_stats TO {role};" == unseen.remedy


def test_counters_are_not_mended_on_a_standby(pair: Pair) -> None:
    """They are found there, and `fix` is an error that says why."""
    with Store.open(settings=pair.primary.settings) as store:
        order = store.work.submit([INVOICE])
    with closing(psycopg2.connect(pair.primary.settings.libpq_url)) as connection, connection.cursor() as run:
        run.execute("SET session_replication_role = replica")
        run.execute("UPDATE work_orders SET open_items = 7 WHERE id = %s", (str(order.id),))
        connection.commit()
    pair.caught_up()

    with pytest.raises(DatabaseFault, match="read-only"):
        examine(pair.standby, fix=True)

    assert (order.id,) == examine(pair.primary, fix=True).recounted


def test_a_standby_is_backed_up(pair: Pair, tmp_path: Path) -> None:
    """Without the rows of unlogged tables, which it does not have."""
    pair.primary.execute_sql("CREATE UNLOGGED TABLE volatile AS SELECT 17 AS n")
    try:
        pair.caught_up()
        report = backup(pair.standby, tmp_path / "b")
    finally:
        pair.primary.execute_sql("DROP TABLE volatile")

    assert () == verify_backup(report.path, target=pair.primary).differences

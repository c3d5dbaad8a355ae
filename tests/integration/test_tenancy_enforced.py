"""Roles with separate rights, and row-level security that keeps a service to the tenant in force."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import psycopg2
import pytest

from myloware_store import (
    AuditLog,
    DatabaseFault,
    DeadLetter,
    InvalidInput,
    MemDoc,
    SettingsError,
    Store,
    TenantRequired,
    Worker,
    WorkItem,
    WorkOrder,
    WorkOrderStatus,
)
from myloware_store.cli import cli
from myloware_store.cli.exits import run
from myloware_store.db.database import StoreDatabase
from myloware_store.db.transactions import again_after_conflicts
from myloware_store.ops.backup import backup, verify_backup
from myloware_store.ops.catalog import expected_catalog
from myloware_store.ops.roles import RoleNames, set_up_roles
from myloware_store.ops.target import opened
from myloware_store.ops.tenancy import enforce, read_tenancy, relax
from myloware_store.ops.validate import validate
from myloware_store.settings import Settings

pytestmark = pytest.mark.myloware_db(mode="clone")
INVOICE = {"type": "INVOICE", "content": "Invoice 17 with a late fee"}
OWNED = sorted(re.findall(r"^column (\w+)\.tenant_id$", "\n".join(expected_catalog()), re.MULTILINE))
VECTORS = np.random.default_rng(5).normal(size=(400, 1536)).astype("f4")


@attrs.frozen
class Deployment:
    """A database with roles of its own."""

    settings: Settings
    names: RoleNames

    def open(self, role: str) -> Store:
        """Open a store as one of the roles."""
        return Store.open(settings=attrs.evolve(self.settings, user=getattr(self.names, role)))


def drop(database: StoreDatabase, *names: str) -> None:
    """Drop roles, and what they own."""
    given = [f'REASSIGN OWNED BY "{name}" TO CURRENT_USER; DROP OWNED BY "{name}"' for name in names]
    for statement in (*given, *(f'DROP ROLE "{name}"' for name in names)):
        again_after_conflicts(partial(database.execute_sql, statement))  # with autovacuum's ANALYZE


@pytest.fixture
def deployment(myloware_dsn: str) -> Iterator[Deployment]:
    """Give a database whose roles are set up, without row-level security."""
    prefix = f"t{uuid.uuid4().hex[:8]}"
    names = RoleNames(*(f"{prefix} {name}" for name in ("owner", "app", "worker", "readonly")))
    settings = Settings.load(myloware_dsn, environ={}, dotenv=None)
    with opened(settings) as database:
        assert not [one.refused for one in set_up_roles(database, names, apply=True) if one.refused]
        yield Deployment(settings, names)
        drop(database, *attrs.astuple(names))


@pytest.fixture
def enforced(deployment: Deployment) -> Deployment:
    """Give a database that keeps services to their tenant."""
    with opened(attrs.evolve(deployment.settings, user=deployment.names.owner)) as database:
        assert () == enforce(database, deployment.names).problems
    return deployment


def counts(store: Store) -> dict[str, int]:
    """Count the rows that a role sees in each table, without naming a tenant."""
    return {table: store.db.execute_sql(f"SELECT count(*) FROM {table}").fetchone()[0] for table in OWNED}


def everything(store: Store) -> dict[str, Any]:
    """Use every part of the library that has tenants, and return what differs if rows are missing."""
    work, memory = store.work, store.memory
    keyed = work.submit([INVOICE, {"type": "TICKET", "content": "printer"}], idempotency_key="key", max_attempts=1)
    assert (
        keyed.id
        == work.submit([INVOICE, {"type": "TICKET", "content": "printer"}], idempotency_key="key", max_attempts=1).id
    )
    (gated,) = work.claim("agent", 1)
    assert {gated.item_id} == work.heartbeat([gated]) == work.finish([gated], [1], gate=True)
    assert [gated.item_id] == [item.id for item in store.approvals.pending()]
    store.approvals.decide(gated.item_id, approver_id="kim", decision="APPROVED", policy_version="1")
    (failing,) = work.claim("agent", 1, types=["TICKET", "INVOICE"])
    work.fail([failing], ["no luck"])
    (letter,) = store.dead_letters.list()
    assert {letter.id} == store.dead_letters.replay([letter.id], by="kim")
    (again,) = work.claim("agent", 1, fair=True)
    assert 1 == work.progress(again, 40)
    assert {again.item_id} == work.release([again])
    ((accepted, claims),) = [work.finish_and_claim(work.claim("agent"), [1], "agent", 1)]
    assert (1, []) == (len(accepted), claims)
    assert WorkOrderStatus.COMPLETED == work.get(keyed.id).status == work.wait(keyed.id, 1).status
    assert 2 == len(work.items(keyed.id))
    open_order = work.submit([INVOICE] * 3)
    assert 3 == len(work.search("late fee", limit=10)) - 1
    (item, *_) = work.items(open_order.id)
    assert {item.id} < work.cancel(open_order.id)
    work.index()
    assert 4 == len(work.search("late fee"))
    store.dead_letters.record("mail", "bounce", {}, "no such box")
    run = store.runs.start(keyed.id)
    store.runs.finish(run.id)
    store.evals.record(gated.item_id, evaluation_type="quality", score=0.5, passed=True)
    store.audit.record("looked", "order", str(keyed.id))

    docs = [{"type": "CONTEXT", "content": f"memo {n} about a late fee", "embedding": VECTORS[n]} for n in range(100)]
    ids = memory.upsert(docs[:60]) + memory.upsert(docs[60:62], dedupe="content_hash")
    assert 38 == memory.bulk_load(docs[62:])
    assert 3 == memory.bulk_load(
        [{"type": "KNOWLEDGE", "content": f"note {n}", "metadata": {"n": n}} for n in range(3)]
    )
    assert ids[:1] == memory.upsert([{**docs[0], "id": ids[0], "work_item_id": gated.item_id}])
    assert "late" in memory.get(ids[0], with_embedding=True)[0].content
    memory.update(ids[0], metadata={"a": 1})
    assert 3 == len(memory.set_embeddings([(doc.id, VECTORS[200]) for doc in memory.missing_embeddings()]))
    store.connectors.register("ledger", "DATABASE", config={"host": "db"})
    store.tools.register("lookup", "ledger")
    store.capabilities.register(f"read {uuid.uuid4()}", "ledger", ["read"])
    assert 1 == memory.delete(ids[1])
    return {
        "similar": [len(memory.similar(VECTORS[0], k=k)) for k in (1, 10, 50, 400)],
        "ann": [len(memory.similar(VECTORS[0], k=k, mode="ann")) for k in (1, 10, 50, 400)],
        "filtered": len(memory.similar(VECTORS[0], k=400, filter={"type": "CONTEXT"})),
        "by metadata": len(memory.similar(VECTORS[0], k=400, filter={"metadata.n": {"gte": 1}})),
        "text": len(memory.search_text("late fees", k=400)),
        "misspelled": len(memory.search_text("laate", k=400)),
        "prefix": len(memory.search_text("fe", k=400, match="prefix")),
        "hybrid": len(memory.hybrid(VECTORS[0], "late fee", k=400)),
        "list": len(memory.list(limit=1000)),
        "count": memory.count(),
        "models": (WorkOrder.select().count(), WorkItem.select().where(WorkItem.type == "INVOICE").count()),
    }


def test_a_service_works_as_ever_under_row_level_security(enforced: Deployment) -> None:
    """Every call of the library returns what it returns without, and another tenant's rows stay as they were."""
    with enforced.open("owner") as store:
        with store.tenant("acme"):
            free = everything(store)
        store.db.execute_sql("UPDATE work_orders SET idempotency_key = NULL")
        before = counts(store)
    with enforced.open("app") as store, store.tenant("globex", actor="intake"):
        assert free == everything(store)
        seen = counts(store)
        store.transact(lambda: store.audit.record("one", "more", "line"))
        WorkOrder.create(created_by="kim").delete_instance()
        store.work.prune(datetime.now(UTC))
    with enforced.open("worker") as store:
        assert {**before, "audit_logs": 0} == {
            table: store.db.execute_sql(f"SELECT count(*) FROM {table} WHERE tenant_id = 'acme'").fetchone()[0]
            for table in OWNED
        } | {"audit_logs": 0}
        assert seen["mem_docs"] == before["mem_docs"]


def test_rows_of_others_are_neither_seen_nor_written(enforced: Deployment) -> None:
    """Neither by raw statements, nor through the models, nor by the functions that run with the owner's rights."""
    with enforced.open("worker") as store, store.tenant("acme"):
        order = store.work.submit([INVOICE])
        (held,) = store.work.claim("agent")
        (doc,) = store.memory.upsert([{"type": "CONTEXT", "content": "a late fee"}])
        store.work.submit([INVOICE])
    with enforced.open("app") as store, store.tenant("globex"):
        execute = store.db.execute_sql
        assert {0} == {seen for table, seen in counts(store).items() if table != "audit_logs"}
        assert (
            0
            == execute("UPDATE work_orders SET tenant_id = 'globex'").rowcount
            == execute("DELETE FROM mem_docs").rowcount
        )
        with pytest.raises(DatabaseFault, match="row-level security"):
            execute("INSERT INTO work_orders (tenant_id, created_by) VALUES ('acme', 'kim')")
        with pytest.raises(InvalidInput, match="another tenant"):
            store.memory.upsert([{"id": doc, "type": "CONTEXT", "content": "stolen"}])
        assert [] == store.work.claim("thief", 10) == store.work.claim("thief", 10, tenants=["acme"])
        assert (
            [] == store.work.claim("thief", fair=True) == store.work.search("late") == store.memory.search_text("late")
        )
        assert set() == store.work.finish([held], ["stolen"])
        given = (
            "1, 'thief', 60, ARRAY[gen_random_uuid()], NULL, ARRAY['acme'], false, NULL, NULL, ARRAY['INVOICE'], false"
        )
        assert [] == execute(f"SELECT * FROM claim_in_tenant({given}, ARRAY[%s]::uuid[])", (order.id,)).fetchall()
    with enforced.open("worker") as store:
        assert {held.item_id} == store.work.finish([held], [1])
        assert WorkOrderStatus.COMPLETED == store.work.get(order.id).status


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.work.claim("agent"),
        lambda store: store.work.submit([INVOICE]),
        lambda store: store.work.finish(store.work.claim("agent"), [1]),
        lambda store: store.work.search("late"),
        lambda store: store.memory.upsert([{"type": "CONTEXT", "content": "x"}]),
        lambda store: store.memory.similar(VECTORS[0]),
        lambda store: store.memory.search_text("late"),
        lambda store: store.audit.list(),
        lambda store: store.work.stats(),
        lambda _: list(WorkOrder.select()),
        lambda _: DeadLetter.select().count(),
        lambda _: MemDoc.create(type="CONTEXT", content="x"),
    ],
)
def test_without_a_tenant_a_service_gets_one_error(
    request: pytest.FixtureRequest, call: Callable[[Store], object]
) -> None:
    """Rather than nothing, as if there were no rows."""
    enforced: Deployment = request.getfixturevalue("enforced")
    with enforced.open("app") as store, pytest.raises(TenantRequired, match=r"use store\.tenant"):
        call(store)


def test_enforcing_and_relaxing_need_no_restart(deployment: Deployment) -> None:
    """Open stores notice, and `validate` accepts both, but nothing in between."""
    owner = attrs.evolve(deployment.settings, user=deployment.names.owner)
    with deployment.open("app") as store, opened(owner) as database:
        store.work.submit([INVOICE])
        assert not read_tenancy(database).enforced
        assert enforce(database, deployment.names).enforced
        assert OWNED == [table.table for table in read_tenancy(database).tables if table.as_made]
        with pytest.raises(TenantRequired):
            store.work.claim("agent")
        with store.tenant("default"):
            (claim,) = store.work.claim("agent")
        assert validate(database).valid
        for broken in (
            "ALTER TABLE runs FORCE ROW LEVEL SECURITY",
            "ALTER TABLE runs DISABLE ROW LEVEL SECURITY",
            "DROP POLICY tenant_isolation ON runs",
            "ALTER POLICY tenant_isolation ON runs USING (true)",
            "ALTER POLICY tenant_isolation ON runs WITH CHECK (true)",
            "CREATE POLICY more ON runs USING (true)",
        ):
            database.execute_sql(broken)
            (finding,) = validate(database).findings
            assert "runs" == finding.name
            database.execute_sql("DROP POLICY IF EXISTS more ON runs")
            assert () == enforce(database, deployment.names).problems
        assert not relax(database).enforced
        assert validate(database).valid
        assert {claim.item_id} == store.work.finish([claim], [1])


def test_the_rights_of_each_role(deployment: Deployment) -> None:
    """Services change rows and nothing else; what is append-only stays; nobody but the owner changes tables."""
    with deployment.open("app") as store:
        store.audit.record("looked", "order", "1")
        for refused in (
            "CREATE TABLE more (id int)",
            "ALTER TABLE runs ADD COLUMN more int",
            "TRUNCATE runs CASCADE",
            "CREATE TRIGGER more AFTER INSERT ON runs EXECUTE FUNCTION refuse_change()",
            "UPDATE audit_logs SET user_id = 'kim'",
            "DELETE FROM audit_logs",
            "INSERT INTO audit_logs (source, db_role, epoch) VALUES ('database', 'somebody', 1)",
            "INSERT INTO audit_seals DEFAULT VALUES",
            "DELETE FROM approval_events",
            "DELETE FROM myloware_migratehistory",
            "SET session_replication_role = replica",
            f'SET ROLE "{deployment.names.owner}"',
        ):
            with pytest.raises(DatabaseFault) as caught:
                store.db.execute_sql(refused)
            assert "42501" == caught.value.sqlstate
    with deployment.open("worker") as store:
        assert 0 < store.audit.seal()
    with deployment.open("readonly") as store:
        assert store.audit.verify().intact
        assert 1 == AuditLog.select().where(AuditLog.action == "looked").count()
        with pytest.raises(DatabaseFault, match="permission denied"):
            store.work.submit([INVOICE])
    with opened(attrs.evolve(deployment.settings, user=deployment.names.owner)) as database:
        assert validate(database).valid
        assert [] == set_up_roles(database, deployment.names, apply=False)


def test_a_reader_sees_the_trail_of_one_tenant_in_a_shell(
    enforced: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other commands read all tenants, and say who may run them."""
    with enforced.open("app") as store, store.tenant("acme"):
        store.connectors.register("ledger", "DATABASE")
    log = ["audit", "log", "--url", attrs.evolve(enforced.settings, user=enforced.names.readonly).libpq_url]

    assert 0 == run(cli, [*log, "--tenant", "acme"])
    assert "insert connectors" in capsys.readouterr().out
    assert 1 == run(cli, log)
    assert "as the owner of the tables" in capsys.readouterr().err


def test_the_history_of_migrations_is_the_owners_in_any_schema(deployment: Deployment) -> None:
    """Without it, the owner cannot migrate, and no service starts."""
    settings = attrs.evolve(deployment.settings, schema="jobs")
    with opened(settings) as database:
        database.execute_sql(f'REVOKE ALL ON myloware_migratehistory FROM "{deployment.names.app}"')
        database.execute_sql("ALTER TABLE myloware_migratehistory OWNER TO CURRENT_USER")
        database.execute_sql("ALTER SCHEMA public RENAME TO jobs")
        done = [one.sql for one in set_up_roles(database, deployment.names, apply=True)]
        assert f'GRANT SELECT ON jobs.myloware_migratehistory TO "{deployment.names.app}"' in done
        assert f'ALTER TABLE jobs.myloware_migratehistory OWNER TO "{deployment.names.owner}"' in done
        assert [] == set_up_roles(database, deployment.names, apply=False)


def test_roles_are_found_by_doing_it(deployment: Deployment, myloware_dsn: str) -> None:
    """What is missing is printed, and not done; what this role may not do is left out, and told."""
    with opened(deployment.settings) as database:
        database.execute_sql(f'REVOKE INSERT ON runs FROM "{deployment.names.app}"')
        (missing,) = set_up_roles(database, deployment.names, apply=False)
        assert f'GRANT INSERT ON public.runs TO "{deployment.names.app}"' == missing.sql
        assert [missing] == set_up_roles(database, deployment.names, apply=True)
        assert [] == set_up_roles(database, deployment.names, apply=True)
        database.execute_sql(f'GRANT EXECUTE ON FUNCTION audit_rows() TO "{deployment.names.app}"')
        (missing,) = set_up_roles(database, deployment.names, apply=True)
        assert f'REVOKE EXECUTE ON FUNCTION public.audit_rows() FROM "{deployment.names.app}"' == missing.sql
        database.execute_sql(f'ALTER ROLE "{deployment.names.worker}" NOBYPASSRLS')
        database.execute_sql(f'REVOKE INSERT ON runs FROM "{deployment.names.app}"')
    with opened(attrs.evolve(deployment.settings, user=deployment.names.owner)) as database:
        refused, granted = set_up_roles(database, deployment.names, apply=True)
        assert f'ALTER ROLE "{deployment.names.worker}" BYPASSRLS' == refused.sql
        assert "(insufficient_privilege, 42501)" in (refused.refused or "")
        assert None is granted.refused
        (problem,) = enforce(database, deployment.names).problems
        assert f'"{deployment.names.worker}" is bound' in problem
        odd = f'{deployment.names.app} 100 % "'
        quoted = '"{}"'.format(odd.replace('"', '""'))
        with closing(psycopg2.connect(deployment.settings.libpq_url)) as admin, admin, admin.cursor() as run:
            run.execute(f"CREATE ROLE {quoted}")
        assert quoted in enforce(database, attrs.evolve(deployment.names, readonly=odd)).tables[0].roles
        enforce(database, deployment.names)
        with closing(psycopg2.connect(deployment.settings.libpq_url)) as admin, admin, admin.cursor() as run:
            run.execute(f"DROP ROLE {quoted}")
        with pytest.raises(InvalidInput, match="the role nobody does not exist"):
            enforce(database, attrs.evolve(deployment.names, app="nobody"))
        with pytest.raises(InvalidInput, match="not four different names"):
            attrs.evolve(deployment.names, app="x", worker="x")


def test_roles_are_complete_at_once_for_tables_that_the_owner_made(deployment: Deployment) -> None:
    """Its default privileges gave services more than they may have, which their workers have through them."""
    with opened(deployment.settings) as database:
        database.execute_sql(f'REVOKE INSERT ON audit_seals FROM "{deployment.names.worker}"')
        database.execute_sql(f'GRANT INSERT, UPDATE, DELETE ON audit_seals TO "{deployment.names.app}"')
        assert 2 == len(set_up_roles(database, deployment.names, apply=True))
        assert [] == set_up_roles(database, deployment.names, apply=False)


def test_roles_that_existed_with_other_rights_lose_them(enforced: Deployment) -> None:
    """Until then, `status` names what binds no longer."""
    names = enforced.names
    with opened(enforced.settings) as database:
        for given, undone, problems in (
            ("GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", 2),
            (f'GRANT "{names.worker}" TO "{names.readonly}"', f'REVOKE "{names.worker}" FROM "{names.readonly}"', 1),
            (
                f'GRANT DELETE ON audit_logs TO "{names.app}"',
                f'REVOKE DELETE ON public.audit_logs FROM "{names.app}"',
                1,
            ),
            (f'ALTER ROLE "{names.app}" CREATEROLE', f'ALTER ROLE "{names.app}" NOCREATEROLE', 0),
            (f'ALTER ROLE "{names.app}" BYPASSRLS', f'ALTER ROLE "{names.app}" NOBYPASSRLS', 1),
        ):
            database.execute_sql(given)
            assert problems == len(read_tenancy(database, names).problems)
            assert undone in [one.sql for one in set_up_roles(database, names, apply=True)]
            assert () == read_tenancy(database, names).problems
            assert [] == set_up_roles(database, names, apply=False)


def test_a_role_that_may_create_roles_sets_up_most_of_it(deployment: Deployment) -> None:
    """As on managed servers, where nobody is a superuser: it says what is left to do."""
    admin = f"admin_{uuid.uuid4().hex[:8]}"
    names = RoleNames(*(f"{admin}_{name}" for name in ("owner", "app", "worker", "readonly")))
    with opened(deployment.settings) as database:
        database.execute_sql(f"CREATE ROLE {admin} LOGIN CREATEROLE")
        database.execute_sql(f'REASSIGN OWNED BY "{deployment.names.owner}" TO {admin}')
        database.execute_sql(f"GRANT ALL ON SCHEMA public TO {admin} WITH GRANT OPTION")
        with opened(attrs.evolve(deployment.settings, user=admin)) as limited:
            left = [one for one in set_up_roles(limited, names, apply=True) if one.refused]
            assert [f"ALTER ROLE {names.worker} BYPASSRLS"] == [one.sql for one in left]
            assert left == set_up_roles(limited, names, apply=True)
        with opened(attrs.evolve(deployment.settings, user=names.owner)) as limited:
            assert 1 == len(enforce(limited, names).problems)
            database.execute_sql(f"ALTER ROLE {names.worker} BYPASSRLS")
            assert () == read_tenancy(limited, names).problems
        with Store.open(settings=attrs.evolve(deployment.settings, user=names.app)) as store, store.tenant("acme"):
            store.work.submit([INVOICE])
            assert 1 == len(store.work.claim("agent"))
        drop(database, *attrs.astuple(names), admin)


def test_the_vector_index_is_used_and_misses_nothing_of_a_small_tenant(deployment: Deployment) -> None:
    """Recall holds, and k documents are found where there are k."""
    random = np.random.default_rng(8)
    topics = random.normal(size=(20, 1536))
    vectors = (topics[random.integers(20, size=700)] + 0.5 * random.normal(size=(700, 1536))).astype("f4")
    with deployment.open("owner") as store:
        for tenant, part in (("acme", vectors[:640]), ("globex", vectors[640:])):
            with store.tenant(tenant):
                store.memory.bulk_load({"type": "CONTEXT", "content": "x", "embedding": vector} for vector in part)
        store.memory.index.least_rows = 500
        store.memory.index.sample = 15
        assert store.memory.index.ensure().status.used
        enforce(store.db, deployment.names)
    with deployment.open("app") as store:
        store.memory.index.least_rows = 500
        with store.tenant("acme"):
            assert store.memory.index.status().used
        for tenant, rows in (("acme", 640), ("globex", 60)):
            with store.tenant(tenant):
                for k in (10, 60):
                    exact = {hit.id for hit in store.memory.similar(vectors[0], k=k, mode="exact")}
                    found = {hit.id for hit in store.memory.similar(vectors[0], k=k, mode="ann")}
                    assert min(k, rows) == len(exact) == len(found)
                    assert 0.9 * k <= len(exact & found)


def test_a_handler_sees_its_tenant_only(enforced: Deployment) -> None:
    """The worker claims for all tenants, and takes the role of services for each handler."""
    seen: list[tuple[str, int, str]] = []
    with enforced.open("worker") as store:
        for tenant in ("acme", "globex"):
            with store.tenant(tenant):
                store.work.submit([INVOICE])

        def handle(claim: Any) -> None:
            (role,) = store.db.execute_sql("SELECT current_user").fetchone()
            (orders,) = store.db.execute_sql("SELECT count(*) FROM work_orders").fetchone()
            store.transact(lambda: store.work.finish([claim], [None]))
            seen.append((claim.tenant_id, orders, role))

        Worker(store, handle, threads=1).run(drain=True)
        assert [("acme", 1), ("globex", 1)] == sorted((tenant, orders) for tenant, orders, _ in seen)
        assert {enforced.names.app} == {role for _, _, role in seen}
        assert enforced.names.worker == store.db.execute_sql("SELECT current_user").fetchone()[0]
        assert 2 == store.db.execute_sql("SELECT count(*) FROM work_orders").fetchone()[0]


def test_a_worker_that_may_not_take_the_role_stops(enforced: Deployment) -> None:
    """Before it claims anything."""
    with opened(enforced.settings) as database:
        database.execute_sql(f'REVOKE "{enforced.names.app}" FROM "{enforced.names.worker}"')
        database.execute_sql(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{enforced.names.worker}"')
    with enforced.open("worker") as store:
        with store.tenant("acme"):
            store.work.submit([INVOICE])
        with pytest.raises(SettingsError, match="roles --apply"):
            Worker(store, lambda _: None).run(drain=True)
        assert 1 == WorkItem.select().where(WorkItem.status == "QUEUED").count()


def test_enforce_waits_for_a_table_in_use(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock time-out is no end; what was changed stays."""
    monkeypatch.setattr("myloware_store.ops.tenancy._LIMITS", "SET LOCAL lock_timeout = '20ms'")
    owner = attrs.evolve(deployment.settings, user=deployment.names.owner)
    with closing(psycopg2.connect(deployment.settings.libpq_url)) as reader, opened(owner) as database:
        reader.cursor().execute("SELECT FROM runs")
        attempts: list[None] = []

        def release(_: float) -> None:
            attempts.append(None)
            if len(attempts) > 1:
                reader.rollback()

        monkeypatch.setattr("myloware_store.ops.tenancy.time.sleep", release)
        assert () == enforce(database, deployment.names).problems
        assert len(attempts) > 1


def test_a_backup_is_verified_where_its_roles_are_unknown(enforced: Deployment, tmp_path: Path) -> None:
    """Policies name roles, as grants do: both are left out there."""
    owner = attrs.evolve(enforced.settings, user=enforced.names.owner)
    backup(owner, tmp_path / "backup")
    with opened(enforced.settings) as database:
        database.execute_sql(f'ALTER ROLE "{enforced.names.app}" RENAME TO "{enforced.names.app} elsewhere"')
        try:
            assert () == verify_backup(tmp_path / "backup", target=enforced.settings).differences
        finally:
            database.execute_sql(f'ALTER ROLE "{enforced.names.app} elsewhere" RENAME TO "{enforced.names.app}"')


def test_a_migration_runs_where_tenancy_is_enforced(enforced: Deployment, myloware_dsn: str) -> None:
    """Tables keep their policies, and a service that has its own schema is not touched."""
    with opened(attrs.evolve(enforced.settings, user=enforced.names.owner)) as database:
        database.execute_sql("ALTER TABLE runs ADD COLUMN more text")
        database.execute_sql("ALTER TABLE runs DROP COLUMN more")
        assert validate(database).valid
        database.execute_sql("CREATE TABLE theirs (tenant_id text)")
        assert "theirs" not in [table.table for table in read_tenancy(database).tables]

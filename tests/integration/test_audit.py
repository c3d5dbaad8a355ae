"""The audit trail that triggers write: every action, by whom, what changed, in the same transaction, and no secret."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from myloware_store import AuditLog, Capability, Connector, MemDoc, Run, WorkOrder
from myloware_store.core.errors import ConstraintViolation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from myloware_store import Store

SECRET = "hunter2-hunter2"
AUDITED = (
    *("approval_events", "capabilities", "connectors", "dead_letters", "mem_docs", "runs", "schemas"),
    *("tool_capabilities", "tools", "work_orders", "workflow_templates"),
)
LEDGER = {"work_items", "attempts", "eval_results", "audit_logs", "audit_seals"}


def lines(store: Store, table: str) -> list[tuple[str, str, str]]:
    """Return tenant, actor and action of the lines about a table, oldest first."""
    found = AuditLog.select().where(AuditLog.resource_type == table).order_by(AuditLog.id)
    return [(line.tenant_id, line.user_id, line.action) for line in found]


def last(table: str) -> AuditLog:
    """Return the newest line about a table."""
    line = AuditLog.select().where(AuditLog.resource_type == table).order_by(AuditLog.id.desc()).first()
    assert line is not None
    return line


@pytest.mark.parametrize("make", AUDITED)
def test_every_audited_table_has_its_lines(myloware: Store, myloware_factory: Any, make: str) -> None:
    """One action, one line: an insert, a deletion, and TRUNCATE; of the memory only what is lost."""
    one = {"approval_events": "approval_event", "capabilities": "capability", "tool_capabilities": "tool_capability"}
    row = getattr(myloware_factory, one.get(make, make[:-1]))()
    key = f"{row.tool_id} {row.capability_id}" if make == "tool_capabilities" else str(row.id)
    tenant = getattr(row, "tenant_id", "*")
    if make != "mem_docs":
        line = last(make)
        assert (tenant, "postgres", "insert", key) == (line.tenant_id, line.user_id, line.action, line.resource_id)
        assert ("database", "postgres") == (line.source, line.db_role)
    if make == "approval_events":
        myloware.db.execute_sql("DELETE FROM work_items")
    else:
        row.delete_instance()
    line = last(make)
    assert (tenant, "delete", key) == (line.tenant_id, line.action, line.resource_id)
    myloware.db.execute_sql(f"TRUNCATE {make} CASCADE")
    line = last(make)
    assert ("*", "truncate", "*") == (line.tenant_id, line.action, line.resource_id)


def test_every_table_is_audited_or_a_ledger_of_its_own(myloware: Store) -> None:
    """A table that comes later has to say which of the two it is."""
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'myloware_migratehistory'"
    assert {*AUDITED, *LEDGER} == {name for (name,) in myloware.db.execute_sql(tables).fetchall()}
    audited = "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname ~ '_audit_'"
    assert {*AUDITED} == {name for (name,) in myloware.db.execute_sql(audited).fetchall()}


def test_an_update_has_what_was_and_what_is(myloware: Store) -> None:
    """Of the changed columns; of one that is left out, the name."""
    with myloware.tenant("acme", actor="kim"):
        myloware.connectors.register("mail", "EMAIL", config={"password": SECRET})
        myloware.connectors.register("mail", "API", config={"password": SECRET * 2})

    line = last("connectors")
    assert ("acme", "kim", "update") == (line.tenant_id, line.user_id, line.action)
    assert {"before": {"type": "EMAIL"}, "after": {"type": "API"}, "hidden": ["config"]} == line.details
    assert SECRET not in json.dumps([line.details for line in AuditLog.select()])


def test_a_health_check_that_finds_what_was_known_is_no_action(myloware: Store) -> None:
    """It only moves times; one that finds something else is recorded."""
    myloware.connectors.register("mail", "EMAIL", status="ACTIVE")
    myloware.connectors.check("mail", lambda _: True)
    assert ["insert"] == [action for *_, action in lines(myloware, "connectors")]
    myloware.connectors.check("mail", lambda _: False)

    details = last("connectors").details
    assert ("ACTIVE", "ERROR") == (details["before"]["status"], details["after"]["status"])


def test_a_statement_that_changes_nothing_leaves_no_line(myloware: Store) -> None:
    """Such as the registration of an equal schema."""
    for _ in range(2):
        myloware.schemas.register("invoice", "1", "INVOICE", {"type": "object"})
    myloware.db.execute_sql("DELETE FROM schemas WHERE name = 'nothing'")
    myloware.db.execute_sql("UPDATE schemas SET name = name")

    assert [("*", "postgres", "insert")] == lines(myloware, "schemas")


def test_a_line_is_committed_with_its_action_or_not_at_all(myloware: Store) -> None:
    """A rollback undoes both."""
    with myloware.db.atomic() as block:
        myloware.connectors.register("mail", "EMAIL")
        block.rollback()

    assert (0, 0) == (Connector.select().count(), AuditLog.select().count())


def test_one_line_holds_a_thousand_ids_at_most(myloware: Store) -> None:
    """By tenant; a single row is named by the line itself."""
    insert = """
        INSERT INTO work_orders (tenant_id, created_by)
        SELECT CASE WHEN n <= 2500 THEN 'acme' ELSE 'globex' END, 'me' FROM generate_series(1, 2501) AS n
        """
    for sql, action in ((insert, "insert"), ("DELETE FROM work_orders", "delete")):
        myloware.db.execute_sql(sql)
        found = AuditLog.select().where(AuditLog.action == action)
        sizes = [(line.tenant_id, len(line.details.get("ids", [line.resource_id]))) for line in found]
        assert [("acme", 500), ("acme", 1000), ("acme", 1000), ("globex", 1)] == sorted(sizes)
    assert "*" != next(line.resource_id for line in AuditLog.select() if line.tenant_id == "globex")


def test_an_order_takes_its_own_with_it(myloware: Store, myloware_factory: Any) -> None:
    """What goes by cascade has lines like everything else; items and attempts have none."""
    order = myloware_factory.work_order(tenant_id="acme")
    item = myloware_factory.work_item(work_order=order)
    myloware_factory.mem_doc(work_item=item)
    myloware_factory.approval_event(work_item=item)
    myloware_factory.run(work_order=order)
    WorkOrder.delete().execute()

    deleted = AuditLog.select(AuditLog.resource_type).where(AuditLog.action == "delete").tuples()
    assert ["approval_events", "mem_docs", "runs", "work_orders"] == sorted(name for (name,) in deleted)
    assert (0, 0) == (Run.select().count(), MemDoc.select().count())


def test_a_changed_key_has_two_lines(myloware: Store, myloware_factory: Any) -> None:
    """One for the row that was, one for the row that is."""
    row = myloware_factory.capability()
    myloware.db.execute_sql("UPDATE capabilities SET id = %s", (new := str(uuid.uuid4()),))

    changed = AuditLog.select(AuditLog.resource_id).where(AuditLog.action == "update").tuples()
    assert {str(row.id), new} == {key for (key,) in changed}


def test_a_row_that_is_moved_has_a_line_in_both_tenants(myloware: Store, myloware_factory: Any) -> None:
    """The one that loses it sees that it did."""
    myloware_factory.connector(tenant_id="acme")
    myloware.db.execute_sql("UPDATE connectors SET tenant_id = 'globex'")

    moved = AuditLog.select(AuditLog.tenant_id).where(AuditLog.action == "update").tuples()
    assert ["acme", "globex"] == sorted(tenant for (tenant,) in moved)


def test_an_actor_of_any_length_is_recorded(myloware: Store) -> None:
    """Set by hand, it can be longer than a name; it must not stop the work."""
    with myloware.db.atomic():
        myloware.db.execute_sql("SELECT set_config('myloware.actor', repeat('x', 1000), true)")
        myloware.db.execute_sql("INSERT INTO capabilities (name, scope) VALUES ('a', 'b')")
    assert "x" * 255 == last("capabilities").user_id


@pytest.fixture
def app(myloware: Store) -> Iterator[Callable[..., Any]]:
    """Yield a function that runs SQL as a role with the rights of a service on the tables, and on the trail to add."""
    role = f"app_{uuid.uuid4().hex[:8]}"
    myloware.db.execute_sql(f"CREATE ROLE {role} LOGIN")
    myloware.db.execute_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    myloware.db.execute_sql(f"REVOKE ALL ON audit_logs, audit_seals FROM {role}")
    columns = "id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address"
    myloware.db.execute_sql(f"GRANT SELECT, INSERT ({columns}) ON audit_logs TO {role}")
    with closing(psycopg2.connect(**{**myloware.settings.connect_kwargs(), "user": role})) as connection:
        connection.autocommit = True

        def run(sql: str, *parameters: Any) -> Any:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else None

        run.role = role  # type: ignore[attr-defined]
        yield run
    myloware.db.execute_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


NAMES = "tenant_id, user_id, action, resource_type, resource_id"
LINE = f"INSERT INTO audit_logs ({NAMES}{{}}) VALUES ('a', 'b', 'c', 'd', 'e'{{}})"


def test_a_role_without_rights_on_the_trail_is_recorded_in_it(myloware: Store, app: Any) -> None:
    """Its lines name the role, whoever it says to be."""
    app("SET myloware.actor = 'the boss'")
    app("INSERT INTO connectors (tenant_id, name, type) VALUES ('acme', 'mail', 'EMAIL')")
    app(LINE.format("", ""))

    line = last("connectors")
    assert ("the boss", app.role, "database") == (line.user_id, line.db_role, line.source)
    assert (app.role, "application") == (last("d").db_role, last("d").source)


FORBIDDEN = (
    *("DELETE FROM audit_logs", "UPDATE audit_logs SET user_id = 'x'", "TRUNCATE audit_logs"),
    *("ALTER TABLE connectors DISABLE TRIGGER ALL", "SET session_replication_role = replica"),
    *("DROP TRIGGER connectors_audit_delete ON connectors", "INSERT INTO audit_seals DEFAULT VALUES"),
    "SET myloware.audit_prune = 'on'; DELETE FROM audit_logs",
    *(LINE.format(f", {column}", f", {value}") for column, value in (("source", "'database'"), ("epoch", "0"))),
    *(LINE.format(f", {column}", f", {value}") for column, value in (("db_role", "'x'"), ("created_at", "now()"))),
    "SELECT nextval('audit_seals_epoch_seq')",
    f"INSERT INTO audit_logs ({NAMES}, details) VALUES ('a', 'b', 'prune', 'audit_logs', '*', '{{\"seal\": 9}}')",
    *(
        f"CREATE TEMP TABLE runs (LIKE public.runs); CREATE TRIGGER t BEFORE INSERT ON runs EXECUTE FUNCTION {name}()"
        for name in ("audit_rows", "audit_ids", "audit_stamp")
    ),
)


def test_a_service_can_neither_change_nor_skip_nor_forge_lines(app: Any) -> None:
    """It lacks the rights, though it may write every other table."""
    for sql in FORBIDDEN:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            app(sql)


def test_a_table_of_the_same_name_catches_no_line(myloware: Store, app: Any) -> None:
    """A temporary table stands first on every search path but that of the functions."""
    app("CREATE TEMP TABLE audit_logs (LIKE public.audit_logs)")
    app("INSERT INTO connectors (tenant_id, name, type) VALUES ('acme', 'mail', 'EMAIL')")

    assert [("acme", app.role, "insert")] == lines(myloware, "connectors")


def test_a_cascade_made_by_hand_is_recorded_too(myloware: Store, app: Any) -> None:
    """A trigger on a temporary table runs a statement in the depth of a cascade."""
    app("INSERT INTO connectors (tenant_id, name, type) VALUES ('acme', 'mail', 'EMAIL')")
    app(
        "CREATE TEMP TABLE t (x int); CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN DELETE FROM public.connectors; RETURN NULL; END';"
        " CREATE TRIGGER f AFTER INSERT ON t EXECUTE FUNCTION pg_temp.f(); INSERT INTO t VALUES (1)"
    )

    assert ["insert", "delete"] == [action for *_, action in lines(myloware, "connectors")]


def test_a_refused_capability_is_recorded(myloware: Store, myloware_factory: Any) -> None:
    """With the tool and the capability, also if there is none of that name; what is allowed has no line."""
    grant = myloware_factory.tool_capability()
    with myloware.tenant(grant.tenant_id, actor="agent-7"):
        Connector.update(status="ACTIVE").execute()
        assert myloware.tools.allowed(grant.tool, grant.capability)
        assert not myloware.tools.allowed("shredder", "files.delete")

    found = AuditLog.select().where(AuditLog.action == "refuse")
    told = [(line.user_id, line.resource_type, line.resource_id, line.details, line.source) for line in found]
    assert [("agent-7", "tools", "shredder", {"capability": "files.delete"}, "application")] == told


def test_the_owner_deletes_by_prune_only(myloware: Store) -> None:
    """The guard is against slips: the owner could drop it."""
    myloware.audit.record("read", "report", "1")
    for sql in ("DELETE FROM audit_logs", "UPDATE audit_logs SET user_id = 'x'"):
        with pytest.raises(ConstraintViolation, match="audit_logs_append_only"):
            myloware.db.execute_sql(sql)
    with pytest.raises(ConstraintViolation, match="audit_logs_append_only"), myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL myloware.audit_prune = 'on'; UPDATE audit_logs SET user_id = 'x'")


def test_lines_are_filtered_and_continued(myloware: Store) -> None:
    """By tenant, and behind a line or its id."""
    for tenant in ("acme", "acme", "globex"):
        with myloware.tenant(tenant):
            Capability.create(name=uuid.uuid4().hex, scope="x")
            myloware.connectors.register(uuid.uuid4().hex, "API")
    newest, oldest = myloware.audit.list(tenant_id="acme")

    assert [oldest] == myloware.audit.list(tenant_id="acme", after=newest)
    assert [oldest] == myloware.audit.list(tenant_id="acme", after=str(newest.id))
    assert 3 == len(myloware.audit.list(tenant_id="*", resource_type="capabilities"))
    with myloware.tenant("globex"):
        assert [] == myloware.audit.list(tenant_id="acme")

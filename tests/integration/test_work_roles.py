"""The work engine for a role that owns nothing, in a schema of its own."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

from myloware_store import Store, WorkOrderStatus
from myloware_store.ops.migrate import migrate
from myloware_store.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

INVOICE = {"type": "INVOICE", "content": "Invoice 17"}


@pytest.fixture
def service_url(myloware_dsn: str) -> Iterator[str]:
    """Give the URL for a role with the rights that docs/deploy.md names, in a schema that is not public."""
    name = f"service_{uuid.uuid4().hex[:8]}"
    jobs = myloware_dsn + ("&" if "?" in myloware_dsn else "?") + "schema=jobs"
    settings = Settings.load(jobs, environ={}, dotenv=None)
    with closing(psycopg2.connect(settings.libpq_url)) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute("CREATE SCHEMA jobs")
        migrate(settings)
        run.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA jobs FROM PUBLIC")
        run.execute(f"CREATE ROLE {name} LOGIN")
        run.execute(f"GRANT USAGE ON SCHEMA jobs TO {name}")
        run.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobs TO {name}")
        run.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA jobs TO {name}")
        yield f"postgresql://{name}@/{settings.dbname}?host={settings.host}&port={settings.port}&schema=jobs"
        run.execute("DROP SCHEMA jobs CASCADE")
        run.execute(f"DROP OWNED BY {name}")
        run.execute(f"DROP ROLE {name}")


@pytest.mark.myloware_db(mode="clone")
def test_a_role_that_owns_nothing_works(service_url: str) -> None:
    """With the rights to read and write rows and to call functions, in whichever schema they are."""
    with Store.open(service_url) as store:
        work = store.work
        order = work.submit([INVOICE] * 4)
        first, second, third, fourth = work.claim("agent", 2) + work.claim("agent", 2, fair=True)
        assert {first.item_id} == work.finish([first], [1])
        assert {second.item_id} == work.finish([second], [2], gate=True)
        store.approvals.decide(second.item_id, approver_id="kim", decision="APPROVED", policy_version="1")
        work.fail([third], ["no luck"], retry=False)
        (letter,) = store.dead_letters.list()
        assert {letter.id} == store.dead_letters.replay([letter.id], by="kim")
        work.release([fourth])
        assert 2 == len(work.finish(work.claim("agent", 2, tenants=["default"]), [3, 4]))
        assert WorkOrderStatus.COMPLETED == work.get(order.id).status

"""`drift` shows what differs from the migrations that a database has, and `baseline` records those that it matches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from myloware_store.core.errors import InvalidInput, MigrationError, SchemaMismatch
from myloware_store.ops.drift import baseline, drift
from myloware_store.ops.migrate import migrate, migrations_path, status
from myloware_store.ops.validate import validate
from tests.conftest import OURS, on_one_server

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase
    from myloware_store.settings import Settings

HISTORY = "myloware_migratehistory"


def names(differences: Any) -> list[tuple[str, str]]:
    """Return kind and name of each difference."""
    return [(one.kind, one.full_name) for one in differences]


def test_a_migrated_database_has_not_drifted(settings: Settings, database: StoreDatabase) -> None:
    """Right after `migrate` nothing differs, and no scratch database is made."""
    migrate(settings)

    assert () == drift(database, server=attrs.evolve(settings, port=1))


@on_one_server
def test_every_difference_is_shown_whole(settings: Settings, database: StoreDatabase) -> None:
    """Changed, missing and added objects, also harmless additions to our tables; nothing of others."""
    migrate(settings)
    database.execute_sql("ALTER TABLE attempts ALTER COLUMN agent_id DROP NOT NULL")
    database.execute_sql("DROP INDEX runs_work_order_id_idx")
    database.execute_sql("CREATE INDEX theirs ON runs (error)")
    database.execute_sql("CREATE TABLE unrelated (id int)")
    database.execute_sql("COMMENT ON TABLE runs IS 'ours'")

    column, missing, added = drift(database)
    assert ("column", "attempts", "agent_id", "name_text NOT NULL", "name_text") == attrs.astuple(column)
    assert ("CREATE INDEX runs_work_order_id_idx ON runs USING btree (work_order_id)", None) == (
        missing.expected,
        missing.actual,
    )
    assert (None, "CREATE INDEX theirs ON runs USING btree (error)") == (added.expected, added.actual)
    assert [False, False, True] == [one.harmless for one in (column, missing, added)]


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder with another migration, in the place of the installed one."""
    folder = Path(shutil.copytree(migrations_path(), tmp_path / "migrations"))
    (folder / "902_more.py").write_text(
        "def migrate(migrator, database, *, fake=False):\n    migrator.sql('ALTER TABLE runs ADD COLUMN extra int')\n"
    )
    for name in ("myloware_store.ops.drift", "myloware_store.ops.history"):
        monkeypatch.setattr(f"{name}.migrations_path", lambda: folder)
    return folder


@on_one_server
def test_a_database_that_is_behind_is_compared_with_what_it_has(
    settings: Settings, database: StoreDatabase, more: Path
) -> None:
    """The scratch database gets as many migrations as the database has, and is dropped."""
    migrate(settings, to=OURS[-1])
    database.execute_sql("ALTER TABLE runs DROP COLUMN error")

    assert [("column", "runs.error")] == names(drift(database, server=settings))
    found = database.execute_sql("SELECT datname FROM pg_database WHERE datname LIKE 'myloware_scratch%%'").fetchall()
    assert [] == found


@on_one_server
def test_drift_refuses_what_it_cannot_compare(settings: Settings, database: StoreDatabase) -> None:
    """An unknown name, and a newer database."""
    migrate(settings)
    with pytest.raises(InvalidInput, match="there is no migration 909_x"):
        drift(database, to="909_x")
    with pytest.raises(InvalidInput, match="database must be a StoreDatabase"):
        drift(settings)  # type: ignore[arg-type]
    database.execute_sql(f"INSERT INTO {HISTORY} (name, migrated_at) VALUES ('902_newer', now())")
    with pytest.raises(SchemaMismatch, match="902_newer"):
        drift(database)


@on_one_server
def test_a_database_without_its_history_is_taken_over(settings: Settings, database: StoreDatabase) -> None:
    """As if it had been migrated, digests included."""
    migrate(settings)
    rows = f"SELECT name, digest, backward_compatible FROM {HISTORY} ORDER BY id"
    before = database.execute_sql(rows).fetchall()
    database.execute_sql(f"DROP TABLE {HISTORY}")
    assert "myloware-store baseline" == validate(database).findings[0].remedy

    assert OURS == baseline(settings)
    assert before == database.execute_sql(rows).fetchall()
    assert validate(database).valid
    assert () == migrate(settings).applied


@on_one_server
def test_a_schema_that_differs_is_not_recorded(settings: Settings, database: StoreDatabase) -> None:
    """The error names the differences; harmless additions are none."""
    migrate(settings)
    database.execute_sql(f"DROP TABLE {HISTORY}")
    database.execute_sql("CREATE INDEX theirs ON runs (error)")
    database.execute_sql("ALTER TABLE runs DROP COLUMN error")

    with pytest.raises(MigrationError, match=rf"is not what {OURS[-1]} leads to: runs\.error; .* Nothing was recorded"):
        baseline(settings)
    assert () == status(settings).applied
    database.execute_sql("ALTER TABLE runs ADD COLUMN error text")
    assert OURS == baseline(settings)


@on_one_server
def test_an_empty_database_is_refused_and_a_history_kept(settings: Settings, database: StoreDatabase) -> None:
    """The first has to be migrated; in the second there is nothing to record."""
    with pytest.raises(MigrationError, match=rf"is not what {OURS[-1]} leads to: .*, \.\.\.;"):
        baseline(settings)
    assert OURS == migrate(settings).applied
    assert () == baseline(settings)
    with pytest.raises(InvalidInput, match="there is no migration 909_x"):
        baseline(settings, to="909_x")


@on_one_server
def test_an_older_schema_is_taken_over_and_migrated(settings: Settings, database: StoreDatabase, more: Path) -> None:
    """`to` records as many as the schema has; `migrate` applies the rest."""
    migrate(settings, to=OURS[-1])
    database.execute_sql(f"DROP TABLE {HISTORY}")

    assert OURS == baseline(settings, to=OURS[-1], server=settings)
    with pytest.raises(MigrationError, match=f"{OURS[-1]} is recorded already: `myloware-store migrate`"):
        baseline(settings)
    assert ("902_more",) == migrate(settings, directory=more).applied
    assert (*OURS, "902_more") == status(settings, directory=more).applied

"""`makemigration`: each kind of difference, written, applied to rows and undone, on the oldest and newest server."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from myloware_store import WorkItem
from myloware_store.core.errors import InvalidInput, MigrationError
from myloware_store.db.database import StoreDatabase
from myloware_store.ops.catalog import read_catalog
from myloware_store.ops.ddl import create_all
from myloware_store.ops.lint import lint
from myloware_store.ops.makemigration import Draft, _written, makemigration
from myloware_store.ops.makemigration.rendering import render
from myloware_store.ops.makemigration.steps import Difference, Phase, Step
from myloware_store.ops.migrate import migrate, rollback
from myloware_store.ops.scratch import PREFIX
from myloware_store.seed import seed
from myloware_store.settings import Settings
from tests.conftest import OURS, on_one_server

if TYPE_CHECKING:
    import peewee

    from myloware_store.embedded import EmbeddedServer
    from tests.migrations.conftest import Folder

BASE = """
CREATE TYPE mood AS ENUM ('low', 'high');
CREATE DOMAIN short AS text CHECK (length(VALUE) < 99);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note = 'it''s 1 %'; RETURN NEW; END $$;
CREATE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN n * 2;
CREATE TABLE parents (id integer PRIMARY KEY, code text);
CREATE TABLE notes (
    id serial PRIMARY KEY, parent_id integer REFERENCES parents, note text, n integer DEFAULT 1, m mood, s short,
    v vector(3), double integer GENERATED ALWAYS AS (n * 2) STORED, CONSTRAINT notes_n_check CHECK (n > 0)
);
CREATE TABLE "Order" ("user" integer PRIMARY KEY);
COMMENT ON COLUMN notes.double IS 'twice';
CREATE INDEX notes_note_idx ON notes (note);
CREATE INDEX notes_double_idx ON notes (double);
CREATE INDEX parents_code_idx ON parents (lower(code));
CREATE TRIGGER touched BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION touch();
"""
ROWS = """
INSERT INTO parents VALUES (1, 'a'), (2, 'b');
INSERT INTO notes (parent_id, n, m, s, v) SELECT 1 + i % 2, i, 'low', 'x', '[1,2,3]' FROM generate_series(1, 9) AS i;
INSERT INTO "Order" VALUES (1);
"""
FILE = """def migrate(migrator, database, *, fake=False):
    migrator.sql({sql!r})


def rollback(migrator, database, *, fake=False):
    migrator.sql("DROP TABLE notes, parents; DROP FUNCTION touch, twice; DROP TYPE mood, short")
"""


@attrs.frozen
class Service:
    """A service whose folder has one migration, `BASE` with rows, and whose models are SQL."""

    place: Path
    folder: Path
    server: Settings

    def module(self, text: str) -> str:
        """Write a module, and return its name."""
        name = f"models_{uuid.uuid4().hex}"
        (self.place / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    def write(self, sql: str) -> None:
        """Replace the first migration."""
        (self.folder / "001_base.py").write_text(FILE.format(sql=sql.replace("%", "%%")), encoding="utf-8")

    def draft(self, change: str = "", *, base: str = BASE, name: str = "change") -> Draft:
        """Write the migrations that lead to the base and a change."""
        sql = (base + change).replace("%", "%%")
        models = self.module(f"def create_all(database):\n    database.execute_sql({sql!r})\n")
        return makemigration(name, models=models, directory=self.folder, server=self.server)


@pytest.fixture
def server(postgres: EmbeddedServer) -> Settings:
    """Return the settings of the servers on which scratch databases are made."""
    return Settings.load(postgres.url("postgres"), environ={}, dotenv=None)


@pytest.fixture
def service(tmp_path: Path, server: Settings, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Return a service."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "migrations"
    folder.mkdir()
    given = Service(tmp_path, folder, server)
    given.write(BASE + ROWS)
    return given


def names(draft: Draft) -> list[str]:
    """Return the names of the written files."""
    return [path.stem for path in draft.files]


def statements(path: Path, constant: str = "MIGRATE") -> list[str]:
    """Return what a migration runs, on one line each."""
    return [" ".join(each.split()) for each in runpy.run_path(str(path)).get(constant, ())]


def scratch_databases(server: Settings) -> list[tuple[str]]:
    """Return the scratch databases that are left."""
    database = StoreDatabase(server)
    query = "SELECT datname FROM pg_database WHERE datname LIKE %s"
    found: list[tuple[str]] = database.execute_sql(query, (f"{PREFIX}%",)).fetchall()
    database.close_all()
    return found


CHANGED = r"""
CREATE TYPE mood AS ENUM ('none', 'low', 'mid', 'high');
CREATE TYPE kind AS ENUM ('it''s', '100%', 'k');
CREATE DOMAIN short AS text CHECK (length(VALUE) < 99);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.text = 'it''s 2 %'; RETURN NEW; END $$;
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    -- Don't; "quotes", \ and % stay as they are.
    RAISE NOTICE USING MESSAGE = '%
  two lines';
    RETURN NEW;
END $$;
CREATE TABLE parents (id integer PRIMARY KEY, code text UNIQUE);
CREATE TABLE notes (
    id serial PRIMARY KEY, parent_id integer NOT NULL REFERENCES parents ON DELETE CASCADE, n bigint DEFAULT 2 NOT NULL,
    m mood DEFAULT 'mid', s short, v vector(3), double integer GENERATED ALWAYS AS (n * 2) STORED,
    text varchar(50) DEFAULT '%', CONSTRAINT notes_n_check CHECK (n > 0 AND n < 1000), CHECK (s <> 'no')
);
CREATE TABLE "Order" ("user" integer PRIMARY KEY, "when" text COLLATE "C" NOT NULL DEFAULT 'x');
CREATE UNLOGGED TABLE logs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), kind kind DEFAULT 'it''s', s short, v vector(3),
    code text REFERENCES parents (code), number bigint GENERATED BY DEFAULT AS IDENTITY
) WITH (toast_tuple_target = 4096);
ALTER TABLE logs ALTER v SET STORAGE PLAIN;
COMMENT ON TABLE logs IS 'Kept in memory';
COMMENT ON COLUMN notes.double IS 'it''s computed';
CREATE INDEX notes_text_idx ON notes (text, lower(text)) WHERE text <> '%';
CREATE UNIQUE INDEX notes_double_idx ON notes (double);
CREATE INDEX logs_v_idx ON logs USING hnsw (v vector_cosine_ops) WITH (m = 8);
CREATE TRIGGER touched BEFORE INSERT OR UPDATE OF n ON notes FOR EACH ROW EXECUTE FUNCTION touch();
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON notes DEFERRABLE FOR EACH ROW EXECUTE FUNCTION later();
CREATE TRIGGER later BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION later();
"""


def test_every_kind_of_change_is_applied_and_undone(
    service: Service, settings: Settings, database: StoreDatabase
) -> None:
    """Run as the service would, on tables with rows, the files lead to the models, and back."""
    draft = service.draft(CHANGED, base="")
    assert ["002_change_labels", "003_change", "004_change_indexes", "005_change_validate"] == names(draft)
    assert {} == draft.unexpressed
    assert () == service.draft(CHANGED, base="").files

    migrate(settings)
    migrate(settings, directory=service.folder, to="001_base")
    before = read_catalog(database)
    migrate(settings, directory=service.folder)
    after = read_catalog(database)
    rollback(settings, directory=service.folder, count=4)
    assert {**before, "enum mood": "ENUM ('none', 'low', 'mid', 'high')"} == read_catalog(database)
    database.execute_sql('DROP TABLE notes, parents, "Order"; DROP FUNCTION touch, twice; DROP TYPE mood, short')
    database.execute_sql(CHANGED.replace("%", "%%"))
    assert read_catalog(database) == after


OWN_CHANGE = """
DROP TYPE IF EXISTS connector_type CASCADE;
CREATE TYPE connector_type AS ENUM ('SLACK', 'EMAIL', 'TEAMS', 'API', 'DATABASE');
ALTER TABLE connectors ADD type connector_type NOT NULL DEFAULT 'API';
ALTER TABLE connectors ALTER type DROP DEFAULT;
COMMENT ON COLUMN connectors.type IS 'Its kind.';
ALTER TABLE work_items ADD due_at timestamptz, ADD CHECK (due_at > created_at);
COMMENT ON COLUMN work_items.due_at IS 'When it is due: 100% of it.';
CREATE INDEX work_items_due_idx ON work_items (tenant_id, due_at) WHERE due_at IS NOT NULL;
DROP INDEX work_items_approval_idx;
CREATE OR REPLACE FUNCTION work_items_inherit_priority() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    NEW.priority = 'HIGH'; -- 100%
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER work_items_priority BEFORE INSERT ON work_items
FOR EACH ROW WHEN (NEW.priority IS NULL AND NEW.due_at IS NULL) EXECUTE FUNCTION work_items_inherit_priority();
ALTER TABLE runs ALTER error SET NOT NULL;
ALTER TABLE runs ADD UNIQUE (error);
"""


def test_the_stores_own_migrations_are_written(
    settings: Settings, database: StoreDatabase, folder: Folder, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`migrate` applies them to sample data, indexes outside of the transaction, and `rollback` undoes them."""

    def changed(database: peewee.Database) -> None:
        create_all(database)
        database.execute_sql(OWN_CHANGE.replace("%", "%%"))

    place = folder()
    migrate(settings, directory=place)
    before = read_catalog(database)
    monkeypatch.setattr("myloware_store.ops.makemigration.create_all", changed)
    draft = makemigration("due_dates", directory=place, server=server)
    first = int(OURS[-1][:3]) + 1
    labels, changes, indexes = names(draft)
    assert f"{first:03}_due_dates_labels" == labels
    assert [f"{first + 1:03}_due_dates", f"{first + 2:03}_due_dates_indexes"] == [changes, indexes]
    # Only the first one adds, and nothing else.
    assert [True, False, False] == ["\nBACKWARD_COMPATIBLE = True\n" in path.read_text() for path in draft.files]
    assert Draft((), (), {}) == makemigration("again", directory=place, server=server)
    assert [] == [(hazard.rule, hazard.statement) for hazard in lint(names(draft), directory=place)]

    seed(database)
    migrate(settings, directory=place, to=changes)
    assert any("runs.error becomes NOT NULL: fill the rows that lack it" in note for note in draft.review)
    database.execute_sql("UPDATE runs SET error = id::text")
    migrate(settings, directory=place)
    after = read_catalog(database)
    rollback(settings, directory=place, count=3)
    stay = {"enum connector_type": after["enum connector_type"]}
    assert {**before, **stay} == read_catalog(database)
    with database.atomic() as block:
        database.execute_sql("DROP SCHEMA public CASCADE")
        database.execute_sql("CREATE SCHEMA public")
        changed(database)
        assert after == read_catalog(database)
        block.rollback()


@on_one_server
def test_the_files_are_laid_out_as_this_projects_are(service: Service) -> None:
    """The formatter and the linter find nothing, not even in long definitions."""
    draft = service.draft(
        "ALTER TABLE notes ADD long text DEFAULT repeat('x', 100) || '"
        + "long " * 40
        + """' CHECK (long <> 'a' AND
        long <> 'b' AND long <> 'c' AND long <> 'd' AND long <> 'e' AND long <> 'f' AND long <> 'g' AND long <> 'h');
        CREATE INDEX i ON notes (lower(note), upper(note), n, m, id, parent_id, (n * 2), (n * 3), (n * 4), (n * 5));
        CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql IMMUTABLE RETURN a || '\\"' || lower(a) || upper(a)
            || replace(replace(a, 'aaaaaaaaaaaaaaa', 'b'), 'c', 'ddddddddddddddddd') || a || a || a || a || a || a;
        """
    )
    config = ["--config", str(Path(__file__).parents[2] / "pyproject.toml")]
    ignored = "N999,INP001,ARG001,RUF001"
    for command in (["format", "--check"], ["check", "--extend-ignore", ignored]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, *map(str, draft.files)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stdout + done.stderr


NOTES = {
    'DROP TABLE "Order"': "the rows of Order are lost",
    "ALTER TABLE notes DROP note": "the data of notes.note are lost",
    "ALTER TABLE notes ADD t text": "if t is note renamed, its data would be lost",
    "ALTER TABLE notes ADD u uuid DEFAULT gen_random_uuid()": "adding notes.u rewrites the table",
    "ALTER TABLE parents ADD sh short": "adding parents.sh rewrites the table",
    "ALTER TABLE parents ALTER code TYPE varchar(9)": "new type of parents.code may round values",
    "ALTER TABLE notes ALTER v SET STORAGE PLAIN": "rows move to the new storage",
    "DROP TRIGGER touched ON notes": "trigger notes.touched is dropped",
    "DROP FUNCTION touch": "touch() is dropped: code must not call it",
    "ALTER TABLE notes ALTER m SET NOT NULL": "notes.m becomes NOT NULL: fill the rows that lack it",
    "ALTER TABLE notes ADD UNIQUE (n)": "notes.notes_n_key fails if rows have equal values",
    "ALTER TABLE notes ADD CHECK (s <> '')": "rows that break notes.notes_s_check make the next migration fail",
    "ALTER TABLE notes ADD EXCLUDE (n WITH =)": "notes.notes_n_excl builds an index",
    "ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD PRIMARY KEY (id, s)": "notes.s becomes NOT NULL",
    "ALTER TABLE notes DROP double, ADD double integer GENERATED ALWAYS AS (n * 3) STORED": "double is computed again",
    "DROP INDEX parents_code_idx": "index parents.parents_code_idx is dropped",
    "CREATE INDEX notes_n_idx ON notes (n)": None,
    "ALTER TABLE notes ADD d timestamptz NOT NULL DEFAULT now()": None,
    "ALTER TABLE parents ADD b boolean DEFAULT false": None,
}


@on_one_server
def test_what_a_reviewer_must_know_is_said(service: Service) -> None:
    """In a comment of the file, and in the report; what hurts nobody is not mentioned."""
    draft = service.draft(";".join(NOTES))
    text = " ".join("".join(path.read_text() for path in draft.files).replace("# ", "").split())

    assert [] == [note for note in draft.review if f"REVIEW: {note}." not in text]
    assert [] == [note for note in NOTES.values() if note and not any(note in said for said in draft.review)]
    assert [] == [note for note in draft.review if "notes_n_idx" in note or "notes.d " in note or "parents.b " in note]
    assert () == service.draft(";".join(NOTES)).files


@on_one_server
def test_a_column_that_rows_cannot_have_is_pointed_out(service: Service) -> None:
    """NOT NULL without a default fails in the try if there are rows, and is written with a comment if not."""
    changed = BASE.replace("code text", "code text, due date NOT NULL")
    with pytest.raises(MigrationError, match="column due, which must not be null, on parents"):
        service.draft(base=changed)
    service.write(BASE)

    (note,) = service.draft(base=changed).review
    assert "parents.due is NOT NULL without a default: this fails on a table with rows" in note
    assert "With rows, a rollback fails: due is NOT NULL" in service.draft(name="back").review[0]


IMPOSSIBLE = {
    "enum mood": ("('low', 'high')", "('high', 'low')", "a label is removed, renamed or moved"),
    "domain short": ("< 99", "< 98", "a domain changed"),
    "table parents": ("CREATE TABLE parents", "CREATE UNLOGGED TABLE parents", "becomes logged or unlogged"),
    "column notes.id": ("id serial", "id integer", "its own sequence"),
    "column notes.double": ("double integer GENERATED ALWAYS AS (n * 2) STORED", "double integer", "a generated one"),
    "table Order": ("COMMENT", 'ALTER TABLE "Order" ENABLE ROW LEVEL SECURITY; COMMENT', "has row-level security"),
    "column Order.user": ('("user" integer', '("user" integer DEFAULT 1', "nothing of its table was written"),
    "table view": ("COMMENT", "CREATE VIEW view AS SELECT 1 AS one; COMMENT", "no plain table"),
    "rule notes.r": ("COMMENT", "CREATE RULE r AS ON DELETE TO notes DO INSTEAD NOTHING; COMMENT", "rules"),
}


@on_one_server
def test_what_cannot_be_written_is_said(service: Service) -> None:
    """Other changes are written; the file and the report name what is missing."""
    changed = BASE.replace("REFERENCES parents", "")
    service.write(changed)
    for old, new, _ in IMPOSSIBLE.values():
        changed = changed.replace(old, new, 1)
    draft = service.draft("CREATE TABLE more (id integer)", base=changed)

    assert IMPOSSIBLE.keys() == draft.unexpressed.keys()
    assert [] == [key for key, (_, _, reason) in IMPOSSIBLE.items() if reason not in draft.unexpressed[key]]
    (file,) = draft.files
    assert ["CREATE TABLE more ( id integer )"] == statements(file)
    assert [] == [key for key in IMPOSSIBLE if f"- by hand: {key}: " not in file.read_text()]


@on_one_server
def test_a_partition_is_no_table_of_its_own(service: Service) -> None:
    """It is not written, as the partitioned table is not."""
    draft = service.draft(
        "CREATE TABLE whole (n integer) PARTITION BY HASH (n); CREATE TABLE part (n integer); "
        "ALTER TABLE whole ATTACH PARTITION part FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    )

    assert {"table whole", "column whole.n", "table part", "column part.n"} == draft.unexpressed.keys()
    assert () == draft.files


@on_one_server
def test_comments_on_what_exists_are_written(service: Service) -> None:
    """They are added and changed without another change of their table."""
    comments = "COMMENT ON TABLE notes IS '100% it''s'; COMMENT ON COLUMN notes.note IS 'x'"
    (file,) = service.draft(comments).files

    assert comments.replace("%", "%%").split("; ") == statements(file)


@on_one_server
def test_a_table_with_a_dot_in_its_name_is_refused(service: Service) -> None:
    """Its keys in the catalog would be those of another table's columns."""
    with pytest.raises(InvalidInput, match=r"with a dot in their names .*table a\.b"):
        service.draft('CREATE TABLE "a.b" (id integer)')


TABLE = "CREATE TABLE extra (run_id uuid, CONSTRAINT f FOREIGN KEY (run_id) REFERENCES runs(id){})"


@pytest.mark.parametrize(
    ("statement", "unexpressed", "compatible"),
    [
        (TABLE.format(" ON DELETE CASCADE"), {}, True),
        (TABLE.format(""), {}, False),
        ("CREATE INDEX i ON runs (error)", {}, True),
        ("CREATE INDEX i ON runs (error)", {"enum run_status": "a label is removed"}, False),
    ],
)
def test_a_draft_is_compatible_only_if_it_is_known_to_be(
    statement: str, unexpressed: dict[str, str], *, compatible: bool
) -> None:
    """Old code could not delete what new rows refer to, and nobody knows what will be written by hand."""
    step = Step(Phase.MAIN, (statement,), ("SELECT 1",))
    (text,) = render("extra", Difference((step,), unexpressed), 2).values()

    assert compatible == ("\nBACKWARD_COMPATIBLE = True\n" in text)


@on_one_server
def test_a_new_label_and_its_first_use_are_two_migrations(service: Service) -> None:
    """PostgreSQL refuses a label in the transaction that adds it; a rollback says that it leaves it."""
    draft = service.draft(
        base=BASE.replace("('low', 'high')", "('none', 'low', 'high')").replace("m mood", "m mood DEFAULT 'none'")
    )

    labels, main = draft.files
    assert ["002_change_labels", "003_change"] == names(draft)
    assert ["ALTER TYPE mood ADD VALUE IF NOT EXISTS 'none' BEFORE 'low'"] == statements(labels)
    assert "the labels of mood stay" in statements(labels, "ROLLBACK")[0]
    assert ["ALTER TABLE notes ALTER COLUMN m SET DEFAULT 'none'::mood"] == statements(main)


@on_one_server
def test_a_scan_does_not_run_under_the_lock_of_its_change(service: Service) -> None:
    """Checks and NOT NULL come as NOT VALID, are validated in the next migration, and only then become final."""
    change = "ALTER TABLE notes ADD CHECK (note <> ''), ALTER m SET NOT NULL; ALTER TABLE notes ADD pc text"
    first, second = service.draft(change).files

    assert [
        "ALTER TABLE notes ADD COLUMN pc text",
        "ALTER TABLE notes ADD CONSTRAINT notes_m_is_set CHECK (m IS NOT NULL) NOT VALID",
        "ALTER TABLE notes ADD CONSTRAINT notes_note_check CHECK ((note <> ''::text)) NOT VALID",
    ] == statements(first)
    assert [
        "ALTER TABLE notes VALIDATE CONSTRAINT notes_note_check",
        "ALTER TABLE notes VALIDATE CONSTRAINT notes_m_is_set",
        "ALTER TABLE notes ALTER COLUMN m SET NOT NULL",
        "-- squawk-ignore ban-drop-constraint ALTER TABLE notes DROP CONSTRAINT notes_m_is_set",
    ] == statements(second)


@on_one_server
def test_an_index_on_an_existing_table_is_built_beside_its_writers(service: Service) -> None:
    """A new table's indexes are plain."""
    change = "CREATE INDEX i ON notes (n); CREATE TABLE fresh (id integer); CREATE INDEX f ON fresh (id)"
    first, second = service.draft(change).files

    assert ["CREATE TABLE fresh ( id integer )", "CREATE INDEX f ON fresh USING btree (id)"] == statements(first)
    assert ["CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON notes USING btree (n)"] == statements(second)


@on_one_server
def test_embeddings_of_another_dimension_fail_rather_than_vanish(service: Service) -> None:
    """With rows, the try in the scratch database fails, and nothing is written."""
    changed = BASE.replace("vector(3)", "vector(4)")
    with pytest.raises(MigrationError, match="refused a value: data_exception"):
        service.draft(base=changed)
    service.write(BASE)

    (note,) = service.draft(base=changed).review
    assert "embeddings of vector(3) cannot become vector(4)" in note


@on_one_server
@pytest.mark.parametrize("shorter", ["varchar(3)", "char(3)"])
def test_texts_that_are_too_long_fail_rather_than_shrink(service: Service, shorter: str) -> None:
    """An explicit cast would cut them."""
    with pytest.raises(MigrationError, match="string_data_right_truncation"):
        service.draft(base=BASE.replace("note text", f"note {shorter}"))


@on_one_server
def test_a_function_with_another_result_is_made_anew_with_its_dependants(service: Service) -> None:
    """CREATE OR REPLACE keeps names, arguments and results; triggers and overloads follow."""
    changed = BASE.replace("twice(n integer) RETURNS integer", "twice(number integer) RETURNS integer").replace(
        "RETURN n * 2", "RETURN number * 2"
    )
    (file,) = service.draft(base=changed.replace("1 %", "2 %")).files

    up = statements(file)
    assert "SET LOCAL check_function_bodies = off" == up[0]
    assert "CREATE OR REPLACE FUNCTION touch()" in up[1]
    assert "DROP ROUTINE twice(n integer)" == up[2]
    assert "CREATE OR REPLACE FUNCTION twice(number integer)" in up[3]


@on_one_server
def test_a_difference_that_cannot_be_applied_is_not_written(service: Service) -> None:
    """What the order of steps does not solve fails in the scratch database, with PostgreSQL's reason."""
    changed = BASE.replace("integer LANGUAGE sql IMMUTABLE RETURN n * 2", "bigint LANGUAGE sql IMMUTABLE RETURN n")
    used = "CREATE INDEX twice_idx ON notes (twice(n));"
    service.write(BASE + used)
    with pytest.raises(MigrationError, match=r"nothing was written: 002_change failed: .*depend"):
        service.draft(base=changed + used)

    assert ["001_base.py"] == [path.name for path in service.folder.iterdir()]
    assert [] == scratch_databases(service.server)


@on_one_server
def test_models_describe_tables_and_leave_the_rest_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `create_all`, types, functions, triggers and comments of the folder stay, and so does the store."""
    # Which its models would be backrefs of for the rest of the process.
    monkeypatch.setattr(WorkItem._meta, "backrefs", {**WorkItem._meta.backrefs})
    monkeypatch.setattr(WorkItem._meta, "model_backrefs", WorkItem._meta.model_backrefs.copy())
    models = service.module(
        '''import peewee
from peewee import Check, Model
from myloware_store import WorkItem

class Base(Model):
    pass

class Note(Base):
    """A note."""
    number = peewee.IntegerField(null=True, constraints=[Check("number > 0")])
    item = peewee.ForeignKeyField(WorkItem, null=True, on_delete="CASCADE", backref="+")

    class Meta:
        table_name = "notes"

class Page(Base):
    id = peewee.BigAutoField()
    note = peewee.ForeignKeyField(Note)
    title = peewee.TextField(unique=True)
'''
    )
    base = """
    CREATE TYPE mood AS ENUM ('low');
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TABLE notes (id serial PRIMARY KEY, number integer, gone text);
    CREATE TRIGGER touched BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE INDEX ours ON work_items (updated_at);
    """
    service.write(base)
    draft = makemigration("pages", models=models, directory=service.folder, server=service.server)

    first, second = draft.files
    page, *more = statements(first)
    assert page.startswith("CREATE TABLE page ( id bigserial, note_id integer NOT NULL, title text NOT NULL,")
    assert page.endswith("CONSTRAINT page_note_id_fkey FOREIGN KEY (note_id) REFERENCES notes(id) )")
    key = "FOREIGN KEY (item_id) REFERENCES work_items(id) ON DELETE CASCADE"
    assert [
        "CREATE INDEX page_note_id ON page USING btree (note_id)",
        "CREATE UNIQUE INDEX page_title ON page USING btree (title)",
        "ALTER TABLE notes ADD COLUMN item_id uuid",
        "ALTER TABLE notes ADD CONSTRAINT notes_number_check CHECK ((number > 0)) NOT VALID",
        f"ALTER TABLE notes ADD CONSTRAINT notes_item_id_fkey {key} NOT VALID",
        "ALTER TABLE notes DROP COLUMN gone",
    ] == more
    assert "CREATE INDEX CONCURRENTLY IF NOT EXISTS note_item_id ON notes USING btree (item_id)" in statements(second)
    again = makemigration("again", models=models, directory=service.folder, server=service.server)
    assert Draft((), (), {}) == again


@on_one_server
def test_models_with_types_of_their_own_need_create_all(service: Service) -> None:
    """The message says so."""
    models = service.module(
        "import peewee\n\nclass Mood(peewee.Field):\n    field_type = 'mood'\n\n"
        "class Note(peewee.Model):\n    mood = Mood()\n"
    )
    with pytest.raises(MigrationError, match="types or functions are made by `create_all`"):
        makemigration("change", models=models, directory=service.folder, server=service.server)


@on_one_server
def test_the_first_migration_of_a_service_is_written(service: Service) -> None:
    """An empty folder is enough."""
    (service.folder / "001_base.py").unlink()
    draft = service.draft(name="initial")

    assert ["001_initial"] == names(draft)
    assert () == service.draft().files


@on_one_server
def test_the_sample_service_has_nothing_to_migrate(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its models and its migration agree."""
    example = Path(__file__).parents[2] / "examples" / "invoices"
    monkeypatch.syspath_prepend(example)
    shutil.copytree(example / "migrations", service.folder, dirs_exist_ok=True)
    (service.folder / "001_base.py").unlink()
    draft = makemigration("nothing", models="invoices.models", directory=service.folder, server=service.server)

    assert Draft((), (), {}) == draft


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Add-Due"}, "name must be small letters, digits and underscores, not 'Add-Due'"),
        ({"name": "a\n"}, "name must be small letters"),
        ({"models": "no_such_module"}, r"cannot import 'no_such_module': ModuleNotFoundError"),
        ({"models": "colorsys"}, "colorsys defines no Peewee model"),
        ({"directory": "/nowhere"}, "there is no folder '/nowhere': create it"),
        ({"directory": 1}, "directory must be a path, not int"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    """Before any server is asked."""
    given: dict[str, object] = {"name": "change", "models": "colorsys", "directory": tmp_path, **arguments}
    with pytest.raises(InvalidInput, match=message):
        makemigration(**given)  # type: ignore[arg-type]
    assert [] == [*tmp_path.iterdir()]


@on_one_server
def test_a_broken_migration_is_named(service: Service) -> None:
    """The message has the file and the reason, and no scratch database is left."""
    (service.folder / "002_broken.py").write_text("def migrate(migrator, database, **_):\n    migrator.sql('NO')\n")
    with pytest.raises(MigrationError, match="002_broken failed: syntax error"):
        service.draft()
    with pytest.raises(MigrationError, match="creating what the models describe failed: "):
        service.draft("NO")


@on_one_server
@pytest.mark.parametrize(
    ("error", "raised"), [("ValueError", MigrationError), ("KeyboardInterrupt", KeyboardInterrupt)]
)
def test_no_scratch_database_is_left(service: Service, error: str, raised: type[BaseException]) -> None:
    """However it ends, the database is dropped."""
    models = service.module(f"def create_all(database):\n    raise {error}\n")
    with pytest.raises(raised):
        makemigration("change", models=models, directory=service.folder, server=service.server)

    assert [] == scratch_databases(service.server)


def test_files_of_the_same_number_are_not_replaced(tmp_path: Path) -> None:
    """If somebody else has written one of the files meanwhile, none is written."""
    (tmp_path / "003_change.py").write_text("theirs")
    with pytest.raises(MigrationError, match=r"cannot write .*003_change.py: File exists"):
        _written(tmp_path, {"002_change_labels": "ours", "003_change": "ours"})

    assert [("003_change.py", "theirs")] == [(path.name, path.read_text()) for path in tmp_path.iterdir()]


@on_one_server
def test_the_number_has_three_digits(service: Service) -> None:
    """peewee-migrate ignores files of another form."""
    (service.folder / "999_last.py").write_text("def migrate(*_, **__): pass\n\n\ndef rollback(*_, **__): pass\n")
    with pytest.raises(MigrationError, match="there is no number after 999_last"):
        service.draft("CREATE TABLE t (id integer)")

"""`lint` finds what would hurt a busy database in the SQL of migrations, and accepts the project's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from myloware_store.core.errors import InvalidInput, MigrationError, SettingsError
from myloware_store.ops.lint import lint

Folder = Any


def rules(folder: Folder, *statements: str) -> list[str]:
    """Return the rules that a migration of these statements breaks."""
    lines = "\n".join(f"migrator.sql({statement.replace('%', '%%')!r})" for statement in statements)
    place: Path = folder(_902_new=lines)
    with (place / "902_new.py").open("a") as file:
        file.write("def rollback(migrator, database, *, fake=False): pass\n")
    return [hazard.rule for hazard in lint(["902_new"], directory=place)]


def test_the_projects_migrations_hurt_nobody() -> None:
    """Every migration of the package passes."""
    assert () == lint()


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE runs ADD COLUMN n text NOT NULL", "adding-required-field"),
        ("CREATE INDEX i ON runs (error)", "require-concurrent-index-creation"),
        ("ALTER TABLE runs ADD CHECK (error <> '')", "constraint-missing-not-valid"),
        ("ALTER TABLE runs ALTER COLUMN error TYPE varchar", "changing-column-type"),
        ("ALTER TABLE runs RENAME COLUMN error TO e", "renaming-column"),
        ("UPDATE runs SET error = 'where'", "unbounded-update"),
        ("UPDATE ONLY public.runs AS r SET error = NULL -- WHERE id = 1", "unbounded-update"),
        ("UPDATE runs SET error = (SELECT 'x' FROM attempts WHERE id = runs.id)", "unbounded-update"),
        ("DELETE FROM runs", "unbounded-delete"),
        ("WITH gone AS (DELETE FROM runs RETURNING id) SELECT 1 FROM gone WHERE true", "unbounded-delete"),
        ("DO $$ BEGIN DELETE FROM runs; PERFORM 1 WHERE true; END $$", "unbounded-delete"),
        ("-- all of\nTRUNCATE runs", "unbounded-delete"),
        ("DO $$ BEGIN TRUNCATE runs; END $$", "unbounded-delete"),
        ('UPDATE "the runs" AS "r" SET error = "where"', "unbounded-update"),
        ("VACUUM (ANALYZE, FULL) runs", "vacuum-full"),
        ("vacuum full", "vacuum-full"),
        ("CLUSTER runs", "vacuum-full"),
        ("ALTER TABLE runs ADD COLUMN j json", "prefer-jsonb"),
        ("CREATE TABLE t (id bigint, j json NOT NULL)", "prefer-jsonb"),
    ],
)
def test_what_hurts_is_found(folder: Folder, statement: str, rule: str) -> None:
    """Each of these would block others, write all rows at once or be regretted."""
    assert rule in rules(folder, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET error = NULL WHERE error = ''",
        "DELETE FROM runs USING attempts WHERE runs.id = attempts.id",
        "INSERT INTO runs (id) VALUES (NULL) ON CONFLICT (id) DO UPDATE SET error = 'x'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $f$ DELETE FROM runs $f$",
        "CREATE TRIGGER t BEFORE UPDATE OR DELETE ON runs FOR EACH ROW EXECUTE FUNCTION refuse_change()",
        "CREATE TRIGGER t BEFORE TRUNCATE ON runs FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        "UPDATE runs SET error = E'it\\'s; ' WHERE error = ''",
        """UPDATE runs SET "it's; --" = NULL WHERE error = ''""",
        "COMMENT ON TABLE runs IS $x$it's DELETE FROM runs -- $x$",
        "SELECT 1 FROM runs FOR UPDATE",
        "COMMENT ON TABLE runs IS 'DELETE FROM runs; VACUUM FULL'",
        "ALTER TABLE runs ADD COLUMN j jsonb DEFAULT '{}'::jsonb",
        "-- squawk-ignore unbounded-update\nUPDATE runs SET error = NULL",
        "-- squawk-ignore require-concurrent-index-creation\nCREATE INDEX i ON runs (error)",
    ],
)
def test_what_does_not_hurt_is_accepted(folder: Folder, statement: str) -> None:
    """Bounded writes, mere words, and what a comment in the statement permits."""
    assert [] == rules(folder, statement)


def test_concurrently_is_right_at_the_beginning_only(folder: Folder) -> None:
    """As `migrate` runs it; and squawk knows that it is outside of the transaction there."""
    build = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON runs (error)"
    use = "ALTER TABLE runs ADD CONSTRAINT one UNIQUE USING INDEX i"

    assert [] == rules(
        folder, "-- long\nSET LOCAL statement_timeout = '1h'", build.replace("INDEX", "UNIQUE INDEX", 1), use
    )
    assert "concurrently-first" in rules(folder, "SELECT 1", build)


def test_a_comment_permits_for_a_whole_file(folder: Folder) -> None:
    """`-- squawk-ignore-file` in one statement holds for all of them."""
    statements = (
        "-- squawk-ignore-file unbounded-delete, require-concurrent-index-creation\nSELECT 1",
        "DELETE FROM t",
    )

    assert [] == rules(folder, *statements, "CREATE INDEX i ON runs (error)")


def test_a_finding_says_where_and_what_to_do(folder: Folder) -> None:
    """The migration, its statement, the reason and the way out."""
    place: Path = folder(_902_new="migrator.sql('SELECT 1')\nmigrator.sql('-- all of\\nthem\\n')")
    place = folder(
        _902_new="migrator.sql('SELECT 1 -- one')\nmigrator.sql('/* x */ CREATE INDEX i ON\\n runs (error)')"
    )
    index, rollback = lint(["902_new"], directory=place)

    assert ("902_new", "CREATE INDEX i ON runs (error)") == (index.migration, index.statement)
    assert "concurrently" in str(index.help)
    assert "missing-rollback" == rollback.rule


def test_what_cannot_be_read_is_said(folder: Folder) -> None:
    """Statements that depend on rows are not examined, and the report says so."""
    place = folder(_902_new="for row in database.execute_sql('SELECT 1'): migrator.sql('DELETE FROM runs')")

    assert "unread" in [hazard.rule for hazard in lint(["902_new"], directory=place)]


def test_wrong_names_and_files_are_errors(folder: Folder) -> None:
    """A name that no file has, and a file that is no Python."""
    with pytest.raises(InvalidInput, match="there is no migration 909_x"):
        lint(["909_x"])
    place: Path = folder()
    (place / "902_broken.py").write_text("def migrate(:\n")
    with pytest.raises(MigrationError, match="902_broken cannot be read: SyntaxError"):
        lint(directory=place)


def test_without_squawk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is an extra of its own."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SettingsError, match=r"pip install 'myloware-store\[lint\]'"):
        lint()


def test_a_configuration_of_squawk_is_read(folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A `.squawk.toml` in the working directory turns rules off for a project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".squawk.toml").write_text('excluded_rules = ["renaming-column"]\n')

    assert [] == rules(folder, "ALTER TABLE runs RENAME COLUMN error TO e")

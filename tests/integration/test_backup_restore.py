"""Backups are whole or not there, and a restored database holds what the backup says, or nothing."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import uuid
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

from myloware_store import BackupError, InvalidInput, SchemaMismatch, Settings
from myloware_store.ops.backup import Manifest, backup, restore, verify_backup
from myloware_store.ops.backup.file import read_manifest, seal
from myloware_store.ops.backup.programs import find_program, login_environment
from myloware_store.ops.migrate import migrate
from myloware_store.ops.target import opened
from myloware_store.ops.validate import validate
from myloware_store.seed import seed
from tests.conftest import on_one_server
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from myloware_store.embedded import EmbeddedServer

# Tables and values that are easy to lose on the way.
ODD = r"""
CREATE SCHEMA "per%cent";
CREATE TABLE "per%cent"."a ""t b" (
    id serial PRIMARY KEY, "co,l" text DEFAULT '100 %', f float8, b bytea, t timestamptz, j json, d interval,
    twice float8 GENERATED ALWAYS AS (f * 2) STORED
);
INSERT INTO "per%cent"."a ""t b" ("co,l", f, b, t, j, d) VALUES
    (E'\\.', 'NaN', '\x00ff', '2024-02-29 12:00:00+05:30', '{"a":  1, "a": 2}', '1 mon -3 days'),
    (E'tab\t, line\n, back\\slash', 1e-300, NULL, 'infinity', NULL, NULL),
    ('日本', -0.0, '', '0044-03-15 BC', '[]', '0'),
    ('日本', 0.1, '', '0044-03-15 BC', '[]', '0');
CREATE FUNCTION "per%cent".body() RETURNS text LANGUAGE sql AS $$
SELECT '
COPY nothing FROM stdin;
\restrict x
%s'
$$;
CREATE TABLE "per%cent".parts (n int) PARTITION BY RANGE (n);
CREATE TABLE "per%cent".part PARTITION OF "per%cent".parts FOR VALUES FROM (0) TO (10);
INSERT INTO "per%cent".parts SELECT generate_series(1, 9);
CREATE TABLE "per%cent".nothing ();
INSERT INTO "per%cent".nothing DEFAULT VALUES;
COMMENT ON FUNCTION "per%cent".body() IS '
\restrict x
SET transaction_timeout = 0;
\unrestrict x
';
CREATE TABLE "per%cent"."COPY o'a FROM stdin;
" ("
\." int);
INSERT INTO "per%cent"."COPY o'a FROM stdin;
" VALUES (17);
SELECT lo_from_bytea(0, 'a large object');
SELECT lo_from_bytea(17, '');
COMMENT ON LARGE OBJECT 17 IS '"
-- it''s
COMMIT;
';
"""


def settings_of(url: str) -> Settings:
    """Return the settings of a database."""
    return Settings.load(url, environ={}, dotenv=None)


def ask(url: str, statement: str) -> Any:
    """Run a statement and return the first value."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as run:
        connection.autocommit = True
        run.execute(statement)
        row = run.fetchone() if run.description else None
        return row[0] if row else None


@pytest.fixture(scope="module")
def source(postgres: EmbeddedServer) -> Iterator[str]:
    """Yield the URL of a database with sample data and oddities."""
    name = f"source_{uuid.uuid4().hex[:8]}"
    ask(postgres.url("postgres"), f"CREATE DATABASE {name}")
    settings = settings_of(postgres.url(name))
    migrate(settings)
    with opened(settings) as database:
        seed(database)
        database.execute_sql(ODD.replace("%", "%%"))
    yield postgres.url(name)
    ask(postgres.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def made(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a backup of that database."""
    path = tmp_path_factory.mktemp("backups") / "-ö store.backup"
    backup(settings_of(source), path)
    return path


@pytest.fixture
def new_url(postgres: EmbeddedServer) -> Iterator[Callable[[str], str]]:
    """Yield a function that returns the URL of a new database that does not exist; all are dropped afterwards."""
    token = uuid.uuid4().hex[:8]
    yield lambda name: postgres.url(f"{name}_{token}")
    server = postgres.url("postgres")
    while name := ask(server, f"SELECT datname FROM pg_database WHERE datname ~ '_{token}(_|$)'"):
        ask(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def altered(path: Path, copy: Path, change: Callable[[Manifest], Manifest]) -> Path:
    """Write a copy of a backup whose manifest says something else."""
    manifest = read_manifest(path)
    length = int(path.read_bytes()[-100:].split()[2])
    dump = path.read_bytes()[: -100 - length]
    with copy.open("wb") as file:
        file.write(dump)
        seal(file, hashlib.sha256(dump), change(manifest))
    return copy


def databases(postgres: EmbeddedServer) -> set[str]:
    """Return the names of the server's databases."""
    names: list[str] = ask(postgres.url("postgres"), "SELECT array_agg(datname::text) FROM pg_database")
    return set(names)


def test_a_backup_restores_whole(source: str, made: Path, new_url: Callable[[str], str]) -> None:
    """Every row, definition, sequence and large object is there again, and the schema is valid."""
    url = new_url("restored")

    report = restore(settings_of(url), made)

    assert ((), None) == (report.differences, report.replaced)
    assert report.validation is not None
    assert report.validation.valid
    odd = """SELECT string_agg(o::text, ';' ORDER BY id) FROM "per%cent"."a ""t b" AS o"""
    assert ask(source, odd) == ask(url, odd)
    assert ask(source, 'SELECT "per%cent".body()') == ask(url, 'SELECT "per%cent".body()')
    told = """SELECT concat(obj_description('"per%cent".body'::regproc), obj_description(17, 'pg_largeobject'))"""
    assert ask(source, told) == ask(url, told)
    assert 5 == ask(url, """SELECT nextval('"per%cent"."a ""t b_id_seq"')""")
    assert b"a large object" == bytes(ask(url, "SELECT lo_get(oid) FROM pg_largeobject_metadata WHERE oid <> 17"))
    again = backup(settings_of(url), made.with_name("again"))
    assert read_manifest(made).contents == again.manifest.contents


def test_only_its_owner_reads_a_backup(source: str, made: Path) -> None:
    """It has mode 0600, nothing is left beside it, and pg_restore reads it as it is."""
    assert 0o600 == stat.S_IMODE(made.stat().st_mode)
    assert not list(made.parent.glob("*.partial-*"))
    program = find_program("pg_restore", read_manifest(made).dump_version, "")
    listed = subprocess.run(
        [program.path, "--list", f"./{made.name}"], cwd=made.parent, capture_output=True, check=True
    )
    assert b"TABLE DATA public work_items" in listed.stdout


def test_a_backup_that_was_cut_or_changed_is_refused(source: str, made: Path, tmp_path: Path) -> None:
    """Wherever it was cut, and whichever byte is another, nothing of it is used."""
    whole = made.read_bytes()
    for length in (0, 3, 99, 100, 5000, len(whole) // 2, len(whole) - 101, len(whole) - 100, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(BackupError, match=r"is not complete|is not a backup|is damaged"):
            verify_backup(tmp_path / "cut")
    for place in (0, 100, len(whole) // 2, len(whole) - 200, len(whole) - 100, len(whole) - 80, len(whole) - 2):
        changed = bytearray(whole)
        changed[place] ^= 4
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(BackupError, match=r"is not complete|is damaged"):
            restore(settings_of(source), tmp_path / "changed", replace=True)


def test_what_is_no_backup_is_named(source: str, tmp_path: Path) -> None:
    """A dump without a manifest, another file, a folder, and nothing."""
    program = find_program("pg_dump", 18, "")
    plain = tmp_path / "plain"
    subprocess.run([program.path, "-Fc", "-s", f"--file={plain}", source], check=True)
    for path, words in ((plain, "pg_dump made it"), (tmp_path, "directory"), (tmp_path / "no", "No such file")):
        with pytest.raises(BackupError, match=words):
            verify_backup(path)
    with pytest.raises(InvalidInput, match="path"):
        verify_backup(17)  # type: ignore[arg-type]


@on_one_server
def test_an_existing_file_is_kept(source: str, tmp_path: Path) -> None:
    """Unless it is to be overwritten, and the new backup is whole."""
    path = tmp_path / "kept"
    path.write_text("precious")
    with pytest.raises(BackupError, match="exists"):
        backup(settings_of(source), path)
    with pytest.raises(BackupError, match="not a file"):
        backup(settings_of(source), "/dev/null", overwrite=True)
    with pytest.raises(BackupError, match="No such file"):
        backup(settings_of(source), tmp_path / "nowhere" / "file")
    with pytest.raises(BackupError, match="No space left"):
        backup(settings_of(source), tmp_path / "kept", overwrite=True, progress=_fill_up)
    assert "precious" == path.read_text()
    assert [path] == list(tmp_path.iterdir())

    backup(settings_of(source), path, overwrite=True)

    assert verify_backup(path).manifest.contents.rows > 0


def _fill_up(what: str, *_: object) -> None:
    if what.startswith("Dumping"):
        raise OSError(28, os.strerror(28))


@on_one_server
def test_a_backup_that_is_killed_leaves_no_file(source: str, tmp_path: Path) -> None:
    """Only its own partial one, which no later backup touches; pg_dump ends, too."""
    path = tmp_path / "store.backup"
    lock = 'LOCK TABLE ONLY "per%cent".parts IN ACCESS EXCLUSIVE MODE'  # pg_dump waits for it
    here = "application_name = 'pg_dump' AND datname = current_database()"
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE {here}"
    with closing(psycopg2.connect(source)) as blocker, blocker.cursor() as run:
        run.execute(lock)
        command = [sys.executable, "-m", "myloware_store", "backup", str(path)]
        environ = {**os.environ, "DATABASE_URL": source}
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: ask(source, waiting))
            finally:
                process.kill()
    until(lambda: not ask(source, waiting))

    (left,) = tmp_path.iterdir()
    assert left.name.startswith("store.backup.partial-")
    assert 0o600 == stat.S_IMODE(left.stat().st_mode)
    backup(settings_of(source), path)
    assert {left, path} == set(tmp_path.iterdir())


def test_what_is_too_old_is_said_before_anything_is_done(
    postgres: EmbeddedServer, made: Path, tmp_path: Path, new_url: Callable[[str], str]
) -> None:
    """A server, a client program or a library that is older than the backup's."""
    before = databases(postgres)
    changes: dict[str, Any]
    for changes, words in (
        ({"server_version": "99.1"}, "PostgreSQL 99.1, but the server is PostgreSQL 1"),
        ({"dump_version": 99}, "pg_restore 99 or newer is needed, but .* is version"),
    ):
        changed = altered(made, tmp_path / "x", partial(attrs.evolve, **changes))
        with pytest.raises(BackupError, match=words):
            restore(settings_of(new_url("old")), changed)

    def newer(known: Manifest) -> Manifest:
        return attrs.evolve(known, contents=attrs.evolve(known.contents, migrations=("001_initial", "999_later")))

    with pytest.raises(SchemaMismatch, match="999_later"):
        restore(settings_of(new_url("old")), altered(made, tmp_path / "x", newer))
    with pytest.raises(BackupError, match="pg_dump 99 or newer is needed"):
        find_program("pg_dump", 99, "the server is PostgreSQL 99")
    assert before == databases(postgres)


def test_a_result_that_differs_is_not_kept(
    postgres: EmbeddedServer, made: Path, tmp_path: Path, new_url: Callable[[str], str]
) -> None:
    """Another checksum, count or definition: the differences are listed, and the database is gone."""
    before = databases(postgres)

    def other(known: Manifest) -> Manifest:
        contents = known.contents
        tables = {**contents.tables, "public.work_items": (1, "17")}
        catalog = {**contents.catalog, "column work_items.content": "text", "column work_items.more": "text"}
        return attrs.evolve(known, contents=attrs.evolve(contents, tables=tables, catalog=catalog))

    report = restore(settings_of(new_url("other")), altered(made, tmp_path / "x", other))

    assert None is report.validation
    assert [
        ("column work_items.content", "text", "text NOT NULL"),
        ("column work_items.more", "text", None),
    ] == [(one.name, one.expected, one.actual) for one in report.differences[:2]]
    assert "rows of public.work_items" == report.differences[2].name
    assert before == databases(postgres)


@on_one_server
@pytest.mark.parametrize("step", ["Reading the backup", "Creating", "Restoring", "Building", "Computing"])
def test_a_restore_that_is_interrupted_leaves_nothing(
    postgres: EmbeddedServer, made: Path, new_url: Callable[[str], str], step: str
) -> None:
    """By Ctrl-C at any step."""
    before = databases(postgres)

    def interrupt(what: str, *_: object) -> None:
        if what.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(settings_of(new_url("stopped")), made, progress=interrupt)

    assert before == databases(postgres)


def test_a_database_with_data_is_replaced_on_request(
    postgres: EmbeddedServer, source: str, made: Path, new_url: Callable[[str], str]
) -> None:
    """The new one gets its name, settings and grants; the old one is kept, and its sessions end."""
    url, server = new_url("live"), postgres.url("postgres")
    name = settings_of(url).dbname
    ask(server, f'CREATE DATABASE "{name}"')
    ask(url, "CREATE TABLE precious AS SELECT 17 AS n")
    ask(server, f"""ALTER DATABASE "{name}" SET search_path = public, "per%cent" """)
    ask(server, f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
    ask(server, f'ALTER DATABASE "{name}" CONNECTION LIMIT 9')
    with pytest.raises(BackupError, match=r"is not empty \(public.precious"):
        restore(settings_of(url), made)

    with closing(psycopg2.connect(url)) as session, session.cursor() as run:
        report = restore(settings_of(url), made, replace=True)
        with pytest.raises(psycopg2.OperationalError):
            run.execute("SELECT 1")

    assert report.validation is not None
    assert report.validation.valid
    assert ask(source, "SELECT count(*) FROM work_items") == ask(url, "SELECT count(*) FROM work_items")
    assert 'public, "per%cent"' == ask(url, "SHOW search_path")
    assert 9 == ask(server, f"SELECT datconnlimit FROM pg_database WHERE datname = '{name}'")
    assert not ask(server, f"SELECT has_database_privilege('pg_monitor', '{name}', 'CONNECT')")
    assert 17 == ask(postgres.url(str(report.replaced)), "SELECT n FROM precious")


def test_a_role_that_owns_nothing_restores_where_vector_is_there(
    postgres: EmbeddedServer, made: Path, new_url: Callable[[str], str]
) -> None:
    """Else it hears what to do; `owners=False` leaves the roles of the backup out."""
    url, server, role = new_url("plain"), postgres.url("postgres"), f"plain_{uuid.uuid4().hex[:8]}"
    settings = attrs.evolve(settings_of(url), user=role)
    ask(server, f"CREATE ROLE {role} LOGIN")
    try:
        with pytest.raises(BackupError, match="have an administrator create an empty one"):
            restore(settings, made)
        ask(server, f'CREATE DATABASE "{settings.dbname}" OWNER {role}')
        with pytest.raises(BackupError, match="let an administrator create the extension"):
            restore(settings, made)
        ask(url, "CREATE EXTENSION vector")
        with pytest.raises(BackupError, match=r"nothing was restored.*--no-owner"):
            restore(settings, made)

        report = restore(settings, made, owners=False)

        assert () == report.differences
        with opened(settings) as database:
            assert validate(database).valid
    finally:
        ask(server, f'DROP DATABASE IF EXISTS "{settings.dbname}" WITH (FORCE)')
        ask(server, f"DROP ROLE {role}")


@on_one_server
def test_an_owner_replaces_a_database_that_is_vacuumed(
    postgres: EmbeddedServer, new_url: Callable[[str], str], tmp_path: Path
) -> None:
    """Only a superuser may end autovacuum's session."""
    url, server, role = new_url("vacuumed"), postgres.url("postgres"), f"owner_{uuid.uuid4().hex[:8]}"
    settings = attrs.evolve(settings_of(url), user=role)
    ask(server, f"CREATE ROLE {role} LOGIN CREATEDB")
    ask(server, f'CREATE DATABASE "{settings.dbname}" OWNER {role}')
    ask(server, "ALTER SYSTEM SET autovacuum_naptime = '1s'")
    ask(server, "SELECT pg_reload_conf()")
    try:
        slow = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
        ask(settings.url, f"CREATE TABLE t WITH ({slow}) AS SELECT repeat('x', 100) FROM generate_series(1, 100000)")
        ask(settings.url, "DELETE FROM t")
        backup(settings, tmp_path / "b")
        vacuums = "backend_type = 'autovacuum worker' AND datname"
        until(lambda: ask(server, f"SELECT 1 FROM pg_stat_activity WHERE {vacuums} = '{settings.dbname}'"))

        assert restore(settings, tmp_path / "b", replace=True).replaced
    finally:
        ask(server, "ALTER SYSTEM RESET autovacuum_naptime")
        ask(server, f'DROP DATABASE IF EXISTS "{settings.dbname}" WITH (FORCE)')
        ask(server, f"DROP OWNED BY {role}")


@on_one_server
def test_a_backup_is_verified_on_a_server(postgres: EmbeddedServer, source: str, made: Path, tmp_path: Path) -> None:
    """In a temporary database, which is dropped, also if it differs."""
    before = databases(postgres)

    assert () == verify_backup(made, target=settings_of(source)).differences

    def other(known: Manifest) -> Manifest:
        return attrs.evolve(known, contents=attrs.evolve(known.contents, tables={}))

    wrong = verify_backup(altered(made, tmp_path / "x", other), target=settings_of(source))
    assert wrong.differences
    assert before == databases(postgres)


@on_one_server
def test_a_backup_with_policies_is_verified_where_its_roles_are_not(source: str, tmp_path: Path) -> None:
    """As on a temporary server."""
    role = f"bound_{uuid.uuid4().hex[:8]}"
    ask(source, f"CREATE ROLE {role}; CREATE POLICY p ON runs TO {role} USING (true)")
    try:
        backup(settings_of(source), tmp_path / "b")
    finally:
        ask(source, f"DROP POLICY p ON runs; DROP ROLE {role}")

    assert () == verify_backup(tmp_path / "b", target=settings_of(source)).differences


@on_one_server
def test_verifying_keeps_no_subscription(new_url: Callable[[str], str], tmp_path: Path) -> None:
    """A database that has one cannot be dropped."""
    url = new_url("subscriber")
    settings = settings_of(url)
    server = attrs.evolve(settings, dbname="postgres").url
    ask(server, f'CREATE DATABASE "{settings.dbname}"')
    ask(url, "CREATE SUBSCRIPTION s CONNECTION 'port=1' PUBLICATION p WITH (connect = false, slot_name = NONE)")
    try:
        backup(settings, tmp_path / "b")

        assert () == verify_backup(tmp_path / "b", target=settings).differences
    finally:
        ask(url, "DROP SUBSCRIPTION s")


@pytest.mark.parametrize("postgres", ["15"], indirect=True)
def test_a_newer_server_holds_the_same(postgres: EmbeddedServer, made: Path) -> None:
    """Definitions and checksums do not depend on the version; without a server, a temporary one is started."""
    report = verify_backup(made, target=settings_of("embedded:/nowhere"))

    assert (True, ()) == (report.restored, report.differences)
    assert "15" == report.manifest.server_version[:2]


@on_one_server
def test_a_schema_of_its_own_and_prismas_parameters_are_no_obstacle(
    postgres: EmbeddedServer, new_url: Callable[[str], str], tmp_path: Path
) -> None:
    """A store in a schema, under a URL that pg_dump itself would refuse."""
    url = new_url("tenant")
    ask(postgres.url("postgres"), f'CREATE DATABASE "{settings_of(url).dbname}"')
    settings = settings_of(f"{url}&schema=my%20own&connection_limit=2&pool_timeout=3&sslmode=prefer")
    migrate(settings)

    backup(settings, tmp_path / "b")
    report = restore(settings, tmp_path / "b", replace=True)

    assert ("my own", ()) == (report.manifest.contents.schema, report.differences)
    assert report.validation is not None
    assert report.validation.valid
    # The path can also be a setting of the database, which a backup does not have; so can the way of quoting.
    for setting in ("search_path = 'my own', public, other", "quote_all_identifiers = on"):
        ask(postgres.url("postgres"), f"""ALTER DATABASE "{settings.dbname}" SET {setting}""")
    other = "CREATE SCHEMA other CREATE TABLE parent (id int PRIMARY KEY)"
    ask(url, f"""{other}; CREATE TABLE "my own".child (id int REFERENCES other.parent)""")
    backup(settings_of(url), tmp_path / "c")
    assert () == restore(settings_of(new_url("copy")), tmp_path / "c").differences


@on_one_server
def test_a_pooler_is_refused(source: str, made: Path, tmp_path: Path) -> None:
    """A snapshot, and a transaction of several statements, need one session."""
    pooled = attrs.evolve(settings_of(source), pgbouncer=True)
    for call in (
        lambda: backup(pooled, tmp_path / "b"),
        lambda: restore(pooled, made),
        lambda: verify_backup(made, target=pooled),
    ):
        with pytest.raises(BackupError, match="PgBouncer"):
            call()
    assert [] == list(tmp_path.iterdir())


def test_no_command_line_has_the_password() -> None:
    """It goes to pg_dump in its environment."""
    settings = settings_of("postgresql://kim:s3cr3t@db.example.com/store?schema=x&sslmode=require")

    assert "s3cr3t" not in settings.libpq_url
    assert "s3cr3t" == login_environment(settings)["PGPASSWORD"]


@on_one_server
def test_without_a_client_program_there_is_one_clear_error(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an empty PATH, the embedded server's programs are found; an old one on the PATH is passed over."""
    monkeypatch.setenv("PATH", str(tmp_path))
    backup(settings_of(source), tmp_path / "b")
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 14.1'\n")
    old.chmod(0o755)
    assert find_program("pg_dump", 15, "").path != old
    with pytest.raises(BackupError, match=f"{old} is version 14, .* is version 18; install"):
        find_program("pg_dump", 99, "the server is PostgreSQL 99")

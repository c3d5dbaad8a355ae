"""The SQL that lies in a marked database: what notes a write or a change of the schema, and what puts rows back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EVENTS", "GUARDS", "SCHEMA", "Copied", "functions", "sequence_states"]

SCHEMA = """
    CREATE SCHEMA myloware_test;

    CREATE SEQUENCE myloware_test.ddl;

    -- No trigger can be put on large objects. Who writes one leaves a younger row, or one less.
    CREATE VIEW myloware_test.large_objects AS
    SELECT count(*) AS rows, sum(xmin::text::bigint) AS written
    FROM (SELECT xmin FROM pg_largeobject UNION ALL SELECT xmin FROM pg_largeobject_metadata) AS parts;

    CREATE TABLE myloware_test.made AS TABLE myloware_test.large_objects;

    -- Every table with the sequence that its writes advance and how many rows its copy has, which is the table
    -- copy_<number>. A tree of partitions or of inheritance has one sequence, since triggers fire for the table that a
    -- statement names.
    CREATE TABLE myloware_test.tables (
        number integer PRIMARY KEY,
        source regclass NOT NULL,
        marker regclass NOT NULL,
        rows bigint NOT NULL
    );

    CREATE FUNCTION myloware_test.mark() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        PERFORM pg_catalog.nextval(TG_ARGV[0]::pg_catalog.oid::pg_catalog.regclass);
        RETURN NULL;
    END
    $$;

    -- What concerns temporary objects only ends with its session.
    CREATE FUNCTION myloware_test.note_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_catalog.pg_event_trigger_ddl_commands()
            WHERE schema_name IS NULL OR schema_name NOT IN ('pg_temp', 'myloware_test')
        ) THEN
            PERFORM pg_catalog.nextval('myloware_test.ddl');
        END IF;
    END
    $$;

    CREATE FUNCTION myloware_test.note_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_catalog.pg_event_trigger_dropped_objects()
            WHERE NOT is_temporary AND (schema_name IS NULL OR schema_name NOT IN ('pg_toast', 'myloware_test'))
        ) THEN
            PERFORM pg_catalog.nextval('myloware_test.ddl');
        END IF;
    END
    $$;

    -- A type cannot be dropped while copies have columns of it. They go with it, and come back with it.
    CREATE FUNCTION myloware_test.drop_copies() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        copy pg_catalog.text;
    BEGIN
        PERFORM pg_catalog.nextval('myloware_test.ddl');
        FOR copy IN
            SELECT relname FROM pg_catalog.pg_class
            WHERE relnamespace = 'myloware_test'::pg_catalog.regnamespace
                AND (pg_catalog.starts_with(relname, 'copy_') OR pg_catalog.starts_with(relname, 'below_'))
                AND relkind = 'r'
        LOOP
            EXECUTE pg_catalog.format('DROP TABLE myloware_test.%I', copy);
        END LOOP;
    END
    $$;

    -- The other sessions on the database, and whether they have written something that they have not committed.
    CREATE FUNCTION myloware_test.sessions() RETURNS TABLE (pid integer, writing boolean) LANGUAGE sql AS $$
        SELECT s.pid, s.backend_xid IS NOT NULL FROM pg_stat_get_activity(NULL) AS s
        WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND s.backend_type = 'client backend' AND s.pid <> pg_backend_pid()
    $$;

    -- Whether there was a change that putting back rows does not undo.
    CREATE FUNCTION myloware_test.altered() RETURNS boolean LANGUAGE sql AS $$
        SELECT pg_sequence_last_value('myloware_test.ddl') IS NOT NULL
            OR EXISTS (TABLE myloware_test.large_objects EXCEPT TABLE myloware_test.made)
            OR EXISTS (
                SELECT FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
                WHERE d.datname = current_database() AND (
                    s.setrole <> 0
                    -- The plugin's own, which the session that puts things back knows.
                    OR s.setconfig IS DISTINCT FROM ARRAY[current_setting('myloware_test.set', true)]
                )
            )
            OR EXISTS (
                SELECT FROM pg_prepared_xact() AS p JOIN pg_database AS d ON d.oid = p.dbid
                WHERE d.datname = current_database()
            )
            -- What CREATE INDEX CONCURRENTLY leaves where it fails: it ends no command then.
            OR EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)
    $$;

    CREATE FUNCTION myloware_test.written() RETURNS boolean LANGUAGE sql AS $$
        SELECT myloware_test.altered()
            OR EXISTS (SELECT FROM myloware_test.tables WHERE pg_sequence_last_value(marker) IS NOT NULL)
    $$;

    -- Take the copies that were taken at a depth for those below again, and what differs for written.
    CREATE FUNCTION myloware_test.leave(depth integer) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        t record;
        n bigint;
    BEGIN
        FOR t IN SELECT * FROM myloware_test.tables LOOP
            IF to_regclass(format('myloware_test.below_%s_%s', depth, t.number)) IS NOT NULL THEN
                EXECUTE format('DROP TABLE myloware_test.copy_%s', t.number);
                EXECUTE format('ALTER TABLE myloware_test.below_%s_%s RENAME TO copy_%2$s', depth, t.number);
                EXECUTE format('SELECT count(*) FROM myloware_test.copy_%s', t.number) INTO n;
                UPDATE myloware_test.tables SET rows = n WHERE number = t.number;
                PERFORM nextval(t.marker);
            END IF;
        END LOOP;
        DELETE FROM myloware_test.sequences AS s WHERE s.depth = leave.depth;
    END
    $$;
    """

# A test that empties every table of every schema empties these too; who puts rows back fires no such triggers.
GUARDS = """
    DO $$
    DECLARE
        name text;
    BEGIN
        FOR name IN
            SELECT relname FROM pg_class WHERE relnamespace = 'myloware_test'::regnamespace AND relkind = 'r'
        LOOP
            EXECUTE format(
                'CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON myloware_test.%I'
                ' FOR EACH STATEMENT EXECUTE FUNCTION myloware_test.mark(%L)',
                name, 'myloware_test.ddl'::regclass::oid
            );
        END LOOP;
    END
    $$;
    """

EVENTS = """
    CREATE EVENT TRIGGER myloware_test_ddl ON ddl_command_end EXECUTE FUNCTION myloware_test.note_ddl();
    ALTER EVENT TRIGGER myloware_test_ddl ENABLE ALWAYS;
    CREATE EVENT TRIGGER myloware_test_copies ON ddl_command_start
        WHEN TAG IN ('DROP COLLATION', 'DROP DOMAIN', 'DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP TYPE')
        EXECUTE FUNCTION myloware_test.drop_copies();
    ALTER EVENT TRIGGER myloware_test_copies ENABLE ALWAYS;
    CREATE EVENT TRIGGER myloware_test_drop ON sql_drop EXECUTE FUNCTION myloware_test.note_drop();
    ALTER EVENT TRIGGER myloware_test_drop ENABLE ALWAYS;
    """


class Copied(NamedTuple):
    """A table with a copy.

    Attributes:
        number: The copy is `copy_<number>`.
        name: The table, quoted.
        columns: Those that can be inserted into, quoted.
        same_key: The condition that a row `a` of it is the row `s` of the copy; None where it has no key.
        marker: The number of the sequence that its writes advance.
    """

    number: int
    name: str
    columns: str
    same_key: str | None
    marker: int


def functions(tables: Iterable[Copied], sequences: Iterable[tuple[int, str]]) -> str:
    """Write the functions whose statements stand ready in the session that calls them, planned once."""
    now = sequence_states(sequences)
    changed = "(now.last_value, now.is_called) IS DISTINCT FROM (k.last_value, k.is_called)"
    # After all else, since a sequence forgets nothing when what came before it fails.
    forget = """
            PERFORM setval(marker, 1, false) FROM (
                SELECT DISTINCT marker FROM myloware_test.tables WHERE pg_sequence_last_value(marker) IS NOT NULL
            ) AS m;"""
    return f"""
        CREATE FUNCTION myloware_test.restore(
            myloware_baseline xid, myloware_spared integer[],
            OUT myloware_ended bigint, OUT myloware_altered boolean, OUT myloware_next xid
        ) LANGUAGE plpgsql AS $myloware_test$
        BEGIN
            IF current_setting('session_replication_role') <> 'replica' THEN
                RAISE EXCEPTION 'rows are put back without their triggers: SET session_replication_role = replica';
            END IF;
            myloware_next := myloware_baseline;
            SELECT count(pg_terminate_backend(s.pid)) INTO myloware_ended
            FROM myloware_test.sessions() AS s WHERE s.writing OR s.pid <> ALL (myloware_spared);
            myloware_altered := myloware_ended = 0 AND myloware_test.altered();
            IF myloware_ended > 0 OR myloware_altered THEN
                RETURN;
            END IF;
            {"".join(_restore_table(table) for table in tables)}
            PERFORM setval(k.oid::regclass, k.last_value, k.is_called)
            FROM myloware_test.sequences AS k JOIN ({now}) AS now USING (oid)
            WHERE k.depth = (SELECT max(s.depth) FROM myloware_test.sequences AS s) AND {changed};
            {forget}
            myloware_next := COALESCE(pg_current_xact_id_if_assigned()::xid, myloware_baseline);
        END
        $myloware_test$;

        CREATE FUNCTION myloware_test.accept(depth integer) RETURNS xid LANGUAGE plpgsql AS $myloware_test$
        DECLARE
            t record;
            n bigint;
        BEGIN
            FOR t IN SELECT * FROM myloware_test.tables WHERE pg_sequence_last_value(marker) IS NOT NULL LOOP
                IF to_regclass(format('myloware_test.below_%s_%s', depth, t.number)) IS NULL THEN
                    EXECUTE format('ALTER TABLE myloware_test.copy_%s RENAME TO below_%s_%1$s', t.number, depth);
                    EXECUTE format(
                        'CREATE TABLE myloware_test.copy_%s (LIKE myloware_test.below_%s_%1$s INCLUDING INDEXES)',
                        t.number, depth
                    );
                ELSE
                    EXECUTE format('TRUNCATE myloware_test.copy_%s', t.number);
                END IF;
                EXECUTE format('INSERT INTO myloware_test.copy_%s SELECT * FROM ONLY %s', t.number, t.source);
                GET DIAGNOSTICS n = ROW_COUNT;
                UPDATE myloware_test.tables SET rows = n WHERE number = t.number;
            END LOOP;
            DELETE FROM myloware_test.sequences AS s WHERE s.depth = accept.depth;
            INSERT INTO myloware_test.sequences SELECT accept.depth, now.* FROM ({now}) AS now;
            {forget}
            RETURN pg_current_xact_id()::xid;
        END
        $myloware_test$;
        """


def _restore_table(table: Copied) -> str:
    number, name, columns, _, marker = table
    copy = f"myloware_test.copy_{number}"
    insert = f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {copy} AS s"
    if table.same_key:
        put_back = f"""
                DELETE FROM ONLY {name} AS a WHERE age(a.xmin) < age(myloware_baseline);
                IF (SELECT count(*) FROM ONLY {name})
                    <> (SELECT t.rows FROM myloware_test.tables AS t WHERE t.number = {number})
                THEN
                    {insert} WHERE NOT EXISTS (SELECT FROM ONLY {name} AS a WHERE {table.same_key});
                END IF;"""
    else:
        put_back = f"""
                DELETE FROM ONLY {name};
                {insert};"""
    return f"""
            IF pg_sequence_last_value({marker}) IS NOT NULL THEN{put_back}
            END IF;"""


def sequence_states(sequences: Iterable[tuple[int, str]]) -> str:
    """Write a query of the state of sequences, given by number and name."""
    nothing = "SELECT 0::oid AS oid, 0::int8 AS last_value, false AS is_called WHERE false"
    states = (f"SELECT {oid}::oid, last_value, is_called FROM {name}" for oid, name in sequences)
    return " UNION ALL ".join([nothing, *states])

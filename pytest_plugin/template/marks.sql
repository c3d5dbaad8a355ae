-- The schema of a marked database: the marks of writes and of DDL, and the functions that read them.
-- template/marking.py adds the copies, and the functions that depend on the tables: restore and accept.

CREATE SCHEMA myloware_test;

CREATE SEQUENCE myloware_test.ddl;

-- Large objects cannot have triggers, but a write to one leaves a younger row, or one row less.
CREATE VIEW myloware_test.large_objects AS
SELECT count(*) AS rows, sum(xmin::text::bigint) AS written
FROM (SELECT xmin FROM pg_largeobject UNION ALL SELECT xmin FROM pg_largeobject_metadata) AS parts;

CREATE TABLE myloware_test.made AS TABLE myloware_test.large_objects;

-- Every table, the sequence that writes to it advance, and the number of rows of its copy, the table copy_<number>.
-- A tree of partitions or of inheritance has one sequence: triggers fire for the table that a statement names.
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

-- Temporary objects end with their session.
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

-- A type cannot be dropped while copies have columns of it: drop the copies first. A rollback brings them back.
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

-- The other sessions on the database, and whether they have uncommitted writes.
CREATE FUNCTION myloware_test.sessions() RETURNS TABLE (pid integer, writing boolean) LANGUAGE sql STABLE AS $$
    SELECT s.pid, s.backend_xid IS NOT NULL FROM pg_stat_get_activity(NULL) AS s
    WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND s.backend_type = 'client backend' AND s.pid <> pg_backend_pid()
$$;

-- Whether there was a change that restoring rows does not undo.
CREATE FUNCTION myloware_test.altered() RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_sequence_last_value('myloware_test.ddl') IS NOT NULL
        OR EXISTS (TABLE myloware_test.large_objects EXCEPT TABLE myloware_test.made)
        OR EXISTS (
            SELECT FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
            WHERE d.datname = current_database() AND (
                s.setrole <> 0
                -- The plugin's own setting, known to the session that restores.
                OR s.setconfig IS DISTINCT FROM ARRAY[current_setting('myloware_test.set', true)]
            )
        )
        OR EXISTS (
            SELECT FROM pg_prepared_xact() AS p JOIN pg_database AS d ON d.oid = p.dbid
            WHERE d.datname = current_database()
        )
        -- CREATE INDEX CONCURRENTLY leaves an invalid index when it fails, and fires no event trigger then.
        OR EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)
$$;

-- Return to the copies below a depth, and count the tables that were copied at it as written.
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

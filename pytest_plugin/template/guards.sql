-- The last step of marking, when the copies are there.

-- A test that empties every table of every schema empties the copies too. Restoring fires none of these triggers.
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

CREATE EVENT TRIGGER myloware_test_ddl ON ddl_command_end EXECUTE FUNCTION myloware_test.note_ddl();
ALTER EVENT TRIGGER myloware_test_ddl ENABLE ALWAYS;
CREATE EVENT TRIGGER myloware_test_copies ON ddl_command_start
    WHEN TAG IN ('DROP COLLATION', 'DROP DOMAIN', 'DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP TYPE')
    EXECUTE FUNCTION myloware_test.drop_copies();
ALTER EVENT TRIGGER myloware_test_copies ENABLE ALWAYS;
CREATE EVENT TRIGGER myloware_test_drop ON sql_drop EXECUTE FUNCTION myloware_test.note_drop();
ALTER EVENT TRIGGER myloware_test_drop ENABLE ALWAYS;

-- The statements of backups: what a database holds, and how one is put in the place of another.

-- name: tables
-- Every table with rows of its own, and its columns that are stored, not computed from others. Tables of extensions
-- are not dumped, nor are unlogged ones on a standby.
SELECT format('%%I.%%I', n.nspname, c.relname),
    COALESCE(
        (
            SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ),
        ''
    )
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
ORDER BY 1

-- name: plain_output
-- Values as text that depends on no setting, to the end of the transaction; hidden rows are an error.
SELECT set_config(name, value, true) FROM (VALUES
    ('timezone', 'UTC'), ('datestyle', 'ISO, MDY'), ('intervalstyle', 'postgres'), ('bytea_output', 'hex'),
    ('extra_float_digits', '1'), ('lc_monetary', 'C'), ('search_path', ''), ('row_security', 'off'), ('jit', 'off'),
    ('quote_all_identifiers', 'off')
) AS plain (name, value)

-- name: occupants
-- Tables, views, sequences, functions and types of no extension.
SELECT name FROM (
    SELECT format('%%I.%%I', relnamespace::regnamespace, relname) AS name, relnamespace AS home,
        'pg_class'::regclass AS kind, oid
    FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL
    SELECT format('%%I.%%I()', pronamespace::regnamespace, proname), pronamespace, 'pg_proc'::regclass, oid FROM pg_proc
    UNION ALL
    SELECT format('%%I.%%I', typnamespace::regnamespace, typname), typnamespace, 'pg_type'::regclass, oid
    FROM pg_type WHERE typtype IN ('e', 'd', 'r')
) AS found
JOIN pg_namespace AS n ON n.oid = home
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = kind AND objid = found.oid AND deptype = 'e')
ORDER BY kind DESC, 1
LIMIT 4

-- name: snapshot
SELECT pg_export_snapshot(), current_database(), current_setting('server_version')

-- name: versions
SELECT extname, extversion FROM pg_extension ORDER BY 1

-- name: end_sessions
-- Only a superuser may end autovacuum's, which have no role; the renaming ends them.
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname IN (%(name)s, %(fresh)s) AND usesysid IS NOT NULL AND pid <> pg_backend_pid()

-- name: same_locale
-- The names of the columns of ICU and built-in locales differ between versions.
SELECT count(
    DISTINCT (encoding, datcollate, datctype, datlocprovider, to_jsonb(d) -> 'daticulocale', to_jsonb(d) -> 'datlocale')
) = 1
FROM pg_database AS d
WHERE datname IN (%(name)s, %(fresh)s)

-- name: private_functions
-- Functions with their owner's rights that nobody else could call: everybody may call a new function.
SELECT format('REVOKE EXECUTE ON FUNCTION %%s FROM PUBLIC', oid::regprocedure)
FROM pg_proc
WHERE pronamespace = to_regnamespace(%(schema)s) AND prosecdef
    AND format('%%s(%%s)', proname, pg_get_function_identity_arguments(oid)) = ANY (%(private)s)

-- name: database_owner
SELECT quote_ident(pg_get_userbyid(datdba)), datconnlimit, datacl IS NOT NULL FROM pg_database WHERE datname = %(name)s

-- name: database_grants
SELECT concat(
    'GRANT ', privilege_type, ' ON DATABASE ', quote_ident(%(fresh)s), ' TO ',
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END
)
FROM pg_database, aclexplode(datacl) WHERE datname = %(name)s

-- name: database_settings
-- Of the database, and of roles in it: the beginning of the statement, the name, and the value.
SELECT concat(
        'ALTER ', 'ROLE ' || quote_ident(rolname) || ' IN ', 'DATABASE ', quote_ident(%(fresh)s), ' SET ',
        quote_ident(split_part(setting, '=', 1)), ' FROM CURRENT'
    ),
    split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
FROM pg_db_role_setting AS s
JOIN pg_database AS d ON d.oid = setdatabase AND datname = %(name)s
LEFT JOIN pg_roles AS r ON r.oid = setrole
CROSS JOIN unnest(setconfig) AS setting

-- The doctor's checks. Each row of a statement is a finding: severity, subject, evidence, remedy.
--
-- A row of severity `unseen` is something that this role cannot see, with what hides it, and what would show it. The
-- parameters are the limits in doctor.py, the oid of the schema (`home`), and the names of the expected indexes (`ours`).

-- name: extension
SELECT 'critical', 'vector', 'the extension is not installed in this database', 'CREATE EXTENSION vector;'
WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector')
UNION ALL
SELECT 'info', 'vector', format('version %%s is installed, and the server offers %%s', extversion, default_version),
    'ALTER EXTENSION vector UPDATE;'
FROM pg_extension JOIN pg_available_extensions ON name = extname
WHERE extname = 'vector' AND extversion <> default_version

-- name: locale
SELECT 'info', 'LC_CTYPE',
    format(
        'it is %%s: up to PostgreSQL 18, the text search parser takes every character beyond ASCII for a letter, in your'
        ' own queries; the searches of this library do not depend on it', datctype
    ),
    'createdb --template=template0 --lc-ctype=C.UTF-8 NEW, and move the data with pg_dump and pg_restore'
FROM pg_database WHERE datname = current_database() AND datctype IN ('C', 'POSIX')
UNION ALL
SELECT 'critical', 'collation',
    format(
        'the indexes on text were sorted by version %%s of the collation, and the system now has %%s: queries may miss'
        ' rows, and unique indexes may accept duplicates', datcollversion, pg_database_collation_actual_version(oid)
    ),
    format('REINDEX DATABASE %%1$I; ALTER DATABASE %%1$I REFRESH COLLATION VERSION;', datname)
FROM pg_database
WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)

-- name: settings
SELECT bad.severity, s.name, format('it is %%s: %%s', current_setting(s.name), bad.harm),
    CASE
        WHEN s.source = 'command line' THEN format('Start the server without -c %%s=%%s.', s.name, s.setting)
        WHEN s.source = 'database' THEN format('ALTER DATABASE %%I RESET %%s;', current_database(), s.name)
        WHEN s.source = 'user' THEN format('ALTER ROLE %%I RESET %%s;', session_user, s.name)
        WHEN s.source = 'database user' THEN
            format('ALTER ROLE %%I IN DATABASE %%I RESET %%s;', session_user, current_database(), s.name)
        WHEN s.source = 'client' THEN format('Remove %%s from the options in the URL or in PGOPTIONS.', s.name)
        ELSE format(E'ALTER SYSTEM SET %%s = %%L;\nSELECT pg_reload_conf();', s.name, bad.better)
    END || CASE s.context WHEN 'postmaster' THEN ' Then restart the server.' ELSE '' END
FROM pg_settings AS s
JOIN (
    VALUES
    ('fsync', 'critical', 'on', 'a crash of the machine can destroy the database'),
    ('full_page_writes', 'critical', 'on', 'a crash of the machine can leave pages half written'),
    ('autovacuum', 'warning', 'on', 'dead rows stay, and tables and indexes grow'),
    ('track_counts', 'warning', 'on', 'autovacuum does not see which tables need it'),
    ('synchronous_commit', 'info', 'on', 'a crash can lose the commits of the last moments'),
    ('idle_in_transaction_session_timeout', 'info', '10min', 'a forgotten transaction keeps its locks for ever'),
    ('random_page_cost', 'info', '1.1', 'the planner takes the disk for one that has to seek, and avoids indexes'),
    ('maintenance_work_mem', 'info', '256MB', 'VACUUM reads the indexes of large tables several times'),
    (
        'shared_buffers', 'info', '1GB',
        'exact searches read a table larger than a quarter of it from the system each time, and mem_docs is larger'
    )
) AS bad (name, severity, better, harm) USING (name)
WHERE CASE s.name
    WHEN 'idle_in_transaction_session_timeout' THEN s.setting = '0'
    WHEN 'random_page_cost' THEN s.setting::float8 > 2
    WHEN 'maintenance_work_mem' THEN s.setting::int < 64 * 1024
    WHEN 'shared_buffers' THEN
        s.setting::bigint < 1024 * 1024 / 8
        AND pg_relation_size(to_regclass('mem_docs')) > %(buffers)s * s.setting::bigint * 8192
    ELSE s.setting = 'off'
END

-- name: connections
WITH sessions AS (
    SELECT datid, usesysid FROM pg_stat_activity
    WHERE backend_type = 'client backend' OR (backend_type IS NULL AND datid IS NOT NULL)
),
room (subject, most, used, raise) AS (
    SELECT 'server',
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - COALESCE(current_setting('reserved_connections', true)::int, 0),
        (SELECT count(*) FROM sessions),
        'ALTER SYSTEM SET max_connections = ' || 2 * current_setting('max_connections')::int || ' and restart'
    UNION ALL
    SELECT format('database %%I', datname), datconnlimit, (SELECT count(*) FROM sessions WHERE datid = d.oid),
        format('ALTER DATABASE %%I CONNECTION LIMIT %%s', datname, 2 * datconnlimit + 10)
    FROM pg_database AS d WHERE datname = current_database() AND datconnlimit >= 0
    UNION ALL
    SELECT format('role %%I', rolname), rolconnlimit, (SELECT count(*) FROM sessions WHERE usesysid = r.oid),
        format('ALTER ROLE %%I CONNECTION LIMIT %%s', rolname, 2 * rolconnlimit + 10)
    FROM pg_roles AS r WHERE rolname = session_user AND rolconnlimit >= 0
)
SELECT CASE WHEN used >= most THEN 'critical' ELSE 'warning' END, subject,
    format('%%s of %%s connections are in use', used, most),
    'Lower connection_limit in the URLs of the services, put PgBouncer in front, or ' || raise || '.'
FROM room WHERE most - used < %(connections)s * most

-- name: transactions
(
    SELECT 'warning', format('server process %%s', pid),
        format(
            '%%s (role %%s) has had a transaction open for %%s%%s: it keeps its locks, and VACUUM from removing dead rows',
            COALESCE(NULLIF(application_name, ''), 'a program'), usename,
            date_trunc('second', clock_timestamp() - xact_start),
            CASE WHEN state LIKE 'idle in transaction%%' THEN
                format(', idle for %%s', date_trunc('second', clock_timestamp() - state_change)) ELSE '' END
        ),
        format('SELECT pg_terminate_backend(%%s);', pid)
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        AND (
            xact_start < clock_timestamp() - %(transaction)s * interval '1 second'
            OR (
                state LIKE 'idle in transaction%%'
                AND state_change < clock_timestamp() - %(idle)s * interval '1 second'
            )
        )
    ORDER BY xact_start
)
UNION ALL
SELECT 'unseen', 'transactions', format('the sessions of other roles (now %%s) hide their state', count(*)),
    format('GRANT pg_read_all_stats TO %%I;', current_user)
FROM pg_stat_activity WHERE datname = current_database() AND backend_type IS NULL
HAVING count(*) > 0

-- name: locks
-- The sessions that wait for no lock themselves, and for which others wait. Rows of pg_locks are shown to every role.
WITH waiting AS (
    SELECT pid, since, pg_blocking_pids(pid) AS blockers
    FROM (SELECT pid, min(waitstart) AS since FROM pg_locks WHERE NOT granted GROUP BY pid) AS l
    JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database()
),
blocking AS (
    SELECT blocker, count(DISTINCT w.pid) AS waiters, clock_timestamp() - min(since) AS longest
    FROM waiting AS w CROSS JOIN unnest(blockers) AS blocker
    WHERE blocker NOT IN (SELECT pid FROM waiting)
    GROUP BY blocker
    HAVING min(since) < clock_timestamp() - %(waiting)s * interval '1 second'
)
SELECT 'warning', CASE blocker WHEN 0 THEN 'a prepared transaction' ELSE format('server process %%s', blocker) END,
    format(
        '%%s session(s) wait for its locks, the first for %%s%%s', waiters, date_trunc('second', longest),
        CASE WHEN a.pid IS NOT NULL THEN format(
            '; it is %%s (role %%s)%%s', COALESCE(NULLIF(application_name, ''), 'a program'), usename, ', ' || state
        ) END
    ),
    CASE blocker WHEN 0 THEN 'SELECT gid FROM pg_prepared_xacts; -- and ROLLBACK PREPARED or COMMIT PREPARED it'
        ELSE format('SELECT pg_terminate_backend(%%s);', blocker) END
FROM blocking LEFT JOIN pg_stat_activity AS a ON a.pid = blocker
ORDER BY longest DESC

-- name: prepared_transactions
SELECT 'warning', gid,
    format(
        'prepared by %%s %%s ago, and neither committed nor rolled back: it keeps its locks, and VACUUM from removing'
        ' dead rows', owner, date_trunc('second', statement_timestamp() - prepared)
    ),
    format('ROLLBACK PREPARED %%1$L; -- or COMMIT PREPARED %%1$L', gid)
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < statement_timestamp() - %(prepared)s * interval '1 second'
ORDER BY prepared

-- name: replication_slots
SELECT CASE WHEN wal_status = 'lost' OR kept > %(wal)s THEN 'warning' ELSE 'info' END, slot_name,
    CASE WHEN wal_status = 'lost' THEN 'it has lost WAL that its reader needs, which has to be set up again'
        ELSE format(
            '%%s, and it keeps %%s of WAL', CASE WHEN active THEN 'its reader is behind' ELSE 'nobody reads it' END,
            pg_size_pretty(kept)
        ) END,
    CASE WHEN active THEN 'Look at the load, the disk and the network of its reader.'
        ELSE format('SELECT pg_drop_replication_slot(%%L);', slot_name) END
FROM (
    SELECT slot_name::text, active, wal_status,
        CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END AS kept
    FROM pg_replication_slots
) AS s
WHERE wal_status = 'lost' OR kept > %(wal)s OR (kept IS NOT NULL AND NOT active)

-- name: replication
-- On the primary, how far its standbys are behind. On a standby, whether it replays what it receives, and receives.
SELECT 'warning', format('standby %%s', COALESCE(NULLIF(application_name, ''), client_addr::text, pid::text)),
    format('it is %%s behind, %%s of WAL', COALESCE(replay_lag::text, 'an unknown time'), pg_size_pretty(behind)),
    'On the standby: myloware-store doctor'
FROM (
    SELECT *, CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) END AS behind
    FROM pg_stat_replication
) AS r
WHERE replay_lag > %(lag)s * interval '1 second' OR behind > %(wal)s
UNION ALL
SELECT 'unseen', 'replication', 'the state of the standbys is hidden from this role',
    format('GRANT pg_read_all_stats TO %%I;', current_user)
FROM pg_stat_replication WHERE state IS NULL
HAVING count(*) > 0
UNION ALL
SELECT 'warning', 'this standby',
    harm || format('; its last transaction is of %%s ago', COALESCE(date_trunc('second', age)::text, 'an unknown time')),
    remedy
FROM (
    SELECT
        CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END AS paused,
        pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) AS behind,
        EXISTS (SELECT FROM pg_stat_wal_receiver) AS receives,
        clock_timestamp() - pg_last_xact_replay_timestamp() AS age
) AS standby
CROSS JOIN LATERAL (
    VALUES
    (paused, 'it does not replay what it receives, because it was paused', 'SELECT pg_wal_replay_resume();'),
    (NOT paused AND NOT receives, 'it receives nothing from its primary', 'Look at the log of the standby, and at primary_conninfo.'),
    (
        NOT paused AND receives AND behind > %(behind)s,
        format('it has not replayed %%s of what it has received', pg_size_pretty(behind)),
        'Look at its load and disk, and at long queries there: SELECT * FROM pg_stat_activity;'
    )
) AS states (holds, harm, remedy)
WHERE holds AND (age > %(lag)s * interval '1 second') IS NOT FALSE

-- name: wraparound
SELECT CASE WHEN age > 1.5 * %(xids)s THEN 'critical' ELSE 'warning' END, format('database %%I', datname),
    format(
        'its oldest transaction is %%s million transactions old; before 2,147 million, the server stops accepting'
        ' writes', age / 1000000
    ),
    'VACUUM (FREEZE); -- after ending old transactions, prepared transactions and replication slots'
FROM (
    SELECT datname, greatest(age(datfrozenxid), mxid_age(datminmxid)) AS age FROM pg_database
    WHERE datname = current_database()
) AS d
WHERE age > %(xids)s

-- name: schema
WITH histories AS (
    SELECT relnamespace, relnamespace = %(home)s AS ours, has_schema_privilege(relnamespace, 'USAGE') AS usable
    FROM pg_class WHERE relname = 'myloware_migratehistory' AND relkind = 'r'
)
SELECT 'unseen', 'tables', format('this role may not use the schema %%s', relnamespace::regnamespace),
    format('GRANT USAGE ON SCHEMA %%s TO %%I;', relnamespace::regnamespace, current_user)
FROM histories WHERE NOT usable AND (ours OR %(home)s = 0)
UNION ALL
SELECT 'critical', 'tables', format('there are none (search_path: %%s)', current_setting('search_path')),
    'myloware-store migrate; if it refuses, myloware-store validate says why'
WHERE NOT EXISTS (SELECT FROM histories WHERE ours OR (NOT usable AND %(home)s = 0))

-- name: vacuum
SELECT 'warning', s.relid::regclass::text,
    format(
        '%%s dead rows beside %%s live ones; last vacuumed: %%s', n_dead_tup, n_live_tup,
        COALESCE(date_trunc('second', vacuumed)::text, 'never, or not known')
    ),
    format('VACUUM (ANALYZE) %%s;', s.relid::regclass)
FROM pg_stat_all_tables AS s
JOIN pg_class AS c ON c.oid = s.relid
CROSS JOIN LATERAL (SELECT greatest(last_vacuum, last_autovacuum) AS vacuumed) AS v
WHERE c.relnamespace = %(home)s AND n_dead_tup >= %(dead)s AND n_dead_tup > n_live_tup / 2
    AND (vacuumed > statement_timestamp() - %(vacuumed)s * interval '1 second') IS NOT TRUE
UNION ALL
SELECT 'warning', oid::regclass::text, 'autovacuum is off for this table: its dead rows stay',
    format('ALTER TABLE %%s RESET (autovacuum_enabled);', oid::regclass)
FROM pg_class
WHERE relnamespace = %(home)s AND relkind = 'r' AND reloptions && ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off']
UNION ALL
SELECT 'warning', oid::regclass::text,
    format('it was never analyzed, and has %%s: the planner guesses', pg_size_pretty(pg_relation_size(oid))),
    format('ANALYZE %%s;', oid::regclass)
FROM pg_class
WHERE relnamespace = %(home)s AND relkind IN ('r', 'm') AND reltuples < 0 AND pg_relation_size(oid) > %(small)s

-- name: bloat
-- The pages that the rows would fill, by the statistics of ANALYZE. A row has a header of 24 bytes, padding and a pointer.
SELECT 'info', oid::regclass::text,
    format(
        'it has %%s, and its rows need about %%s: the rest is free space, which new rows fill',
        pg_size_pretty(relpages * page), pg_size_pretty(needed * page)
    ),
    format('VACUUM (FULL, ANALYZE) %%s; -- it locks the table, which pg_repack does not', oid::regclass)
FROM (
    SELECT c.oid, c.relpages::bigint, current_setting('block_size')::bigint AS page,
        ceil(c.reltuples / greatest(1, floor(8168 / (32 + sum(s.avg_width * (1 - s.null_frac))))))::bigint AS needed
    FROM pg_class AS c
    JOIN pg_stats AS s ON s.tablename = c.relname AND NOT s.inherited
        AND s.schemaname = (SELECT nspname FROM pg_namespace WHERE oid = %(home)s)
    WHERE c.relnamespace = %(home)s AND c.relkind = 'r' AND c.reltuples >= 0
    GROUP BY c.oid, c.relpages, c.reltuples
) AS sizes
WHERE (relpages - needed) * page > %(bloat)s AND relpages > 2 * needed
UNION ALL
SELECT 'unseen', 'bloat', format('the statistics of %%s are hidden from this role', string_agg(relname, ', ')),
    format(
        'GRANT SELECT ON %%s TO %%I;', string_agg(oid::regclass::text, ', '), current_user
    )
FROM pg_class
WHERE relnamespace = %(home)s AND relkind = 'r' AND NOT has_table_privilege(oid, 'SELECT')
HAVING count(*) > 0

-- name: invalid_indexes
-- Not those of the embeddings, which have a check of their own, nor those being built. (Of another role's build only the
-- process is shown, not the index.)
SELECT 'warning', i.oid::regclass::text, 'its build failed: writers keep it up to date, and no query uses it',
    CASE WHEN i.relname ~ '_cc(new|old)[0-9]*$' THEN format('DROP INDEX CONCURRENTLY %%s;', i.oid::regclass)
        ELSE format('REINDEX INDEX CONCURRENTLY %%s;', i.oid::regclass) END
FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE i.relnamespace = %(home)s AND i.relkind = 'i' AND NOT (x.indisvalid AND x.indisready)
    AND i.relname !~ '^mem_docs_embedding_idx'
    AND NOT EXISTS (
        SELECT FROM pg_stat_progress_create_index JOIN pg_locks USING (pid)
        WHERE relation = x.indrelid AND mode = 'ShareUpdateExclusiveLock'
    )

-- name: duplicate_indexes
WITH shapes AS (
    SELECT i.oid, i.oid::regclass::text AS name, x.indrelid, i.relam, x.indisunique, i.reloptions,
        EXISTS (SELECT FROM pg_constraint WHERE conindid = i.oid AND contype IN ('p', 'u', 'x')) AS backs,
        i.relname = ANY (%(ours)s) AS ours,
        x.indkey::text AS columns, x.indclass::text AS classes, x.indcollation::text AS collations,
        x.indoption::text AS options, x.indnatts = x.indnkeyatts AS plain, x.indnullsnotdistinct, x.indimmediate,
        COALESCE(pg_get_expr(x.indexprs, x.indrelid), '') AS expressions,
        COALESCE(pg_get_expr(x.indpred, x.indrelid), '') AS condition
    FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS am ON am.oid = i.relam
    WHERE i.relnamespace = %(home)s AND i.relkind = 'i' AND x.indisvalid AND am.amname NOT IN ('ivfflat', 'hnsw')
),
pairs AS (
    SELECT d.oid, d.name, k.name AS keeper,
        (d.columns, d.classes, d.collations, d.options, d.expressions, d.indnullsnotdistinct, d.indimmediate)
            = (k.columns, k.classes, k.collations, k.options, k.expressions, k.indnullsnotdistinct, k.indimmediate)
            AND d.reloptions IS NOT DISTINCT FROM k.reloptions
            AND (k.ours, k.backs, k.indisunique, -k.oid::bigint) > (d.ours, d.backs, d.indisunique, -d.oid::bigint)
            AND (k.indisunique OR NOT d.indisunique) AS same,
        NOT d.indisunique AND d.plain AND d.expressions = '' AND k.expressions = ''
            AND d.relam = (SELECT oid FROM pg_am WHERE amname = 'btree')
            AND starts_with(k.columns, d.columns || ' ') AND starts_with(k.classes, d.classes || ' ')
            AND starts_with(k.collations, d.collations || ' ') AND starts_with(k.options, d.options || ' ') AS prefix
    FROM shapes AS d JOIN shapes AS k ON k.indrelid = d.indrelid AND k.relam = d.relam AND k.oid <> d.oid
        AND k.condition = d.condition
    WHERE NOT d.ours AND NOT d.backs
)
SELECT DISTINCT ON (oid) CASE WHEN same THEN 'warning' ELSE 'info' END, name,
    CASE WHEN same THEN format('it has the columns and the condition of %%s', keeper)
        ELSE format('its columns are the first of %%s, which serves the same queries', keeper) END,
    format('DROP INDEX CONCURRENTLY %%s;', name)
FROM pairs WHERE same OR prefix
ORDER BY oid, same DESC, keeper

-- name: unused_indexes
-- Not those that the schema expects. Statistics that were never reset count since the server's start, or longer.
SELECT 'info', i.oid::regclass::text,
    format(
        'no query on this server has used its %%s since %%s', pg_size_pretty(pg_relation_size(i.oid)),
        date_trunc('second', since)
    ),
    format('DROP INDEX CONCURRENTLY %%s;', i.oid::regclass)
FROM pg_stat_all_indexes AS s
JOIN pg_index AS x ON x.indexrelid = s.indexrelid
JOIN pg_class AS i ON i.oid = s.indexrelid
CROSS JOIN (
    SELECT COALESCE(stats_reset, pg_postmaster_start_time()) AS since FROM pg_stat_database
    WHERE datname = current_database()
) AS statistics
WHERE i.relnamespace = %(home)s AND s.idx_scan = 0 AND x.indisvalid AND NOT x.indisunique
    AND NOT x.indisexclusion AND i.relname <> ALL (%(ours)s)
    AND since < statement_timestamp() - %(unused)s * interval '1 second'
    AND pg_relation_size(i.oid) > %(small)s

-- name: foreign_keys
-- An index serves a key if it begins with a column of it, `tenant_id` and another one, or knows that a column is not null.
SELECT CASE WHEN pg_relation_size(f.conrelid) > %(small)s THEN 'warning' ELSE 'info' END,
    format('%%s.%%s', f.conrelid::regclass, f.conname),
    format(
        'no index serves the foreign key: each delete of a row of %%s reads all of %%s', f.confrelid::regclass,
        pg_size_pretty(pg_relation_size(f.conrelid))
    ),
    format('CREATE INDEX CONCURRENTLY ON %%s (%%s);', f.conrelid::regclass, (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname = 'tenant_id', attnum) FROM pg_attribute
        WHERE attrelid = f.conrelid AND attnum = ANY (f.conkey)
    ))
FROM pg_constraint AS f
WHERE f.connamespace = %(home)s AND f.contype = 'f' AND f.conparentid = 0
    AND NOT EXISTS (
        SELECT FROM pg_index AS x
        JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
        WHERE x.indrelid = f.conrelid AND x.indisvalid AND x.indkey[0] = ANY (f.conkey)
            AND (a.attname <> 'tenant_id' OR cardinality(f.conkey) = 1 OR x.indkey[1] = ANY (f.conkey))
            AND COALESCE(pg_get_expr(x.indpred, x.indrelid), '(a IS NOT NULL)') ~ '^\(\w+ IS NOT NULL\)$'
    )

-- name: sequential_scans
-- Not mem_docs: exact searches read all of it on purpose. Statistics that were never reset are no older than the tables.
SELECT 'info', relid::regclass::text,
    format(
        'queries have read all of its %%s rows %%s times since %%s, and used an index %%s times', n_live_tup, seq_scan,
        date_trunc('second', since), COALESCE(idx_scan, 0)
    ),
    format(
        'Find the query, and an index for it: SELECT calls, query FROM pg_stat_statements WHERE query ~ %%L ORDER BY'
        ' total_exec_time DESC LIMIT 10;', relname
    )
FROM pg_stat_all_tables
CROSS JOIN (
    SELECT COALESCE(stats_reset, (SELECT min(migrated_at) FROM myloware_migratehistory)) AS since FROM pg_stat_database
    WHERE datname = current_database()
) AS statistics
WHERE relid IN (SELECT oid FROM pg_class WHERE relnamespace = %(home)s) AND relname <> 'mem_docs'
    AND n_live_tup >= %(large)s AND seq_tup_read >= seq_scan * n_live_tup / 2
    AND seq_scan > %(scans)s * greatest(1, extract(epoch FROM statement_timestamp() - since) / 86400)

-- name: constraints
SELECT 'warning', format('%%s.%%s', conrelid::regclass, conname),
    'it is NOT VALID: rows from before it was added may break it',
    format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I;', conrelid::regclass, conname)
FROM pg_constraint
WHERE connamespace = %(home)s AND contype IN ('c', 'f', 'n') AND NOT convalidated
    AND pg_get_constraintdef(oid) LIKE '%%NOT VALID'

-- name: owner_logins
-- A migration does not take so long; a service does. The embedded server has one role.
SELECT 'info', format('role %%s', usename),
    format(
        '%%s session(s) of %%s are logged in as it, the oldest for %%s: %%s', count(*),
        string_agg(DISTINCT COALESCE(NULLIF(application_name, ''), 'unnamed programs'), ', '),
        date_trunc('second', max(clock_timestamp() - backend_start)),
        CASE WHEN rolsuper THEN 'a superuser may do anything, and row-level security does not bind it'
            ELSE 'it owns the tables, may drop them, and row-level security does not bind it' END
    ),
    'myloware-store roles --apply, and let services log in as myloware_app, workers as myloware_worker'
FROM pg_stat_activity AS a JOIN pg_roles AS r ON r.oid = a.usesysid
WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    AND NOT %(embedded)s
    AND clock_timestamp() - a.backend_start > %(service)s * interval '1 second'
    AND (rolsuper OR EXISTS (SELECT FROM pg_class WHERE relnamespace = %(home)s AND relname = 'work_items' AND relowner = r.oid))
GROUP BY a.usename, rolsuper

-- name: row_security
SELECT 'unseen', 'rows', format('row-level security hides rows of %%s from this role', string_agg(relname, ', ')),
    'run this as the owner of the tables, or as a role with BYPASSRLS, such as that of workers'
FROM pg_class WHERE relnamespace = %(home)s AND row_security_active(oid)
HAVING count(*) > 0

-- name: leases
-- Index: attempts_started_idx.
SELECT 'warning', 'attempts',
    format(
        '%%s attempt(s) hold items, and their leases have ended, the first %%s ago: nobody takes the items back',
        count(*), date_trunc('second', statement_timestamp() - min(lease_expires_at))
    ),
    'Run a worker, which does it by itself, or store.work.reap() in Python.'
FROM attempts
WHERE status = 'STARTED' AND lease_expires_at < statement_timestamp() - %(lease)s * interval '1 second'
HAVING count(*) > 0

-- name: queue
-- Index: work_items_claim_idx.
SELECT 'warning', 'work_items',
    format(
        '%%s item(s) can be claimed, and the first, of type %%s and priority %%s, has waited for %%s',
        (
            SELECT CASE WHEN count(*) = %(most)s THEN 'at least ' ELSE '' END || count(*)
            FROM (
                SELECT FROM work_items WHERE status = 'QUEUED' AND available_at <= statement_timestamp() LIMIT %(most)s
            ) AS queued
        ),
        first.type, lane.priority, date_trunc('second', statement_timestamp() - first.available_at)
    ),
    'Run more workers, or a worker for this type: Worker(store, handle).run()'
FROM unnest(ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW']::priority[]) AS lane (priority)
CROSS JOIN LATERAL (
    SELECT w.type, w.available_at FROM work_items AS w
    WHERE w.status = 'QUEUED' AND w.priority = lane.priority AND w.attempt_count < w.max_attempts
    ORDER BY w.available_at, w.id
    LIMIT 1
) AS first
WHERE first.available_at < statement_timestamp() - %(queue)s * interval '1 second'
ORDER BY first.available_at
LIMIT 1

-- name: dead_letters
-- Index: dead_letters_open_idx.
SELECT CASE WHEN min(created_at) < statement_timestamp() - %(letter)s * interval '1 second' THEN 'warning' ELSE 'info' END,
    'dead_letters',
    format(
        '%%s letter(s) wait for a decision, the first for %%s', count(*),
        date_trunc('second', statement_timestamp() - min(created_at))
    ),
    'store.dead_letters.list() in Python, and replay(ids, by=...) what should be tried again; letters without an item'
    ' need handler=...'
FROM dead_letters WHERE replayed_at IS NULL
HAVING count(*) > 0

-- name: unindexed
-- Index: work_items_unindexed_idx, read in its order as far as the LIMIT.
SELECT CASE WHEN count(*) = %(most)s THEN 'warning' ELSE 'info' END, 'work_items',
    format(
        '%%s ended item(s) are not in the full-text index, the first for %%s: a search reads each of them',
        CASE WHEN count(*) = %(most)s THEN 'at least ' ELSE '' END || count(*),
        date_trunc('second', statement_timestamp() - min(processed_at))
    ),
    'myloware-store index items'
FROM (
    SELECT processed_at FROM work_items WHERE NOT searchable AND processed_at IS NOT NULL
    ORDER BY processed_at LIMIT %(most)s
) AS first
HAVING min(processed_at) < statement_timestamp() - %(unindexed)s * interval '1 second'

-- name: expired
-- Index: mem_docs_expires_at_idx.
SELECT CASE WHEN count(*) = %(most)s THEN 'warning' ELSE 'info' END, 'mem_docs',
    format(
        '%%s expired document(s) are not deleted, the first for %%s',
        CASE WHEN count(*) = %(most)s THEN 'at least ' ELSE '' END || count(*),
        date_trunc('second', statement_timestamp() - min(expires_at))
    ),
    'myloware-store prune'
FROM (
    SELECT expires_at FROM mem_docs WHERE expires_at <= statement_timestamp() AND document_id IS NULL
    ORDER BY expires_at LIMIT %(most)s
) AS first
HAVING min(expires_at) < statement_timestamp() - %(expired)s * interval '1 second'

-- name: counters
-- This reads all items: about half a second for a million.
SELECT 'critical', 'work_orders',
    format(
        '%%s order(s) do not agree with their items; %%s is stored as %%s, and has %%s open, %%s failed',
        count(*) OVER (), order_id, stored, open, failed
    ),
    'myloware-store doctor --fix'
FROM miscounted_work_orders(NULL) LIMIT 1

-- name: grants
SELECT format(
    'GRANT USAGE ON SCHEMA %%1$s TO %%2$I; GRANT SELECT ON ALL TABLES IN SCHEMA %%1$s TO %%2$I;'
    ' GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %%1$s TO %%2$I;', schema, current_user
)
FROM (VALUES (%s)) AS home (schema)

-- name: recount
SELECT * FROM recount_work_orders(NULL)

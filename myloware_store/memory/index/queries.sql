-- The statements of the vector index.

-- name: state
-- The index, and an estimate of the rows with an embedding: one too many makes a search exact too early, one too few
-- makes it miss rows. Each vector has a page of its own, so there are at most as many as the file has pages. The rows
-- that the last vacuum or build counted on a page leave out dead rows and free space. (The server's statistics lag by
-- ten seconds, and start at 0 in a clone and after a crash.)
SELECT am.amname,
    x.indisvalid AND x.indisready AND x.indislive AND x.indpred IS NULL AND x.indnkeyatts = 1
        AND o.opcname = 'vector_cosine_ops',
    i.reloptions,
    pg_relation_filenode(i.oid),
    obj_description(i.oid, 'pg_class'),
    LEAST(
        pages.n, CASE WHEN t.reltuples > 0 AND t.relpages > 0 THEN ceil(t.reltuples * pages.n / t.relpages)::bigint END
    ),
    (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
    (
        SELECT bool_or(indisvalid) FROM pg_index
        WHERE indrelid = t.oid
            AND indexrelid IN (to_regclass('mem_docs_embedding_idx_new'), to_regclass('mem_docs_embedding_idx_old'))
    ),
    row_security_active(t.oid)
        AND (SELECT bool_and(polname = 'tenant_isolation') FROM pg_policy WHERE polrelid = t.oid) IS NOT TRUE
FROM (SELECT to_regclass('mem_docs') AS oid) AS our
LEFT JOIN pg_class AS t ON t.oid = our.oid
LEFT JOIN LATERAL (SELECT pg_relation_size(t.oid) / current_setting('block_size')::bigint AS n) AS pages ON true
LEFT JOIN (pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid)
    ON x.indrelid = t.oid AND i.relname = 'mem_docs_embedding_idx'
LEFT JOIN pg_am AS am ON am.oid = i.relam
LEFT JOIN pg_opclass AS o ON o.oid = x.indclass[0]

-- name: leftovers
-- Builds that were given up, ours and those of REINDEX CONCURRENTLY.
SELECT i.relname FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('mem_docs')
    AND (
        i.relname IN ('mem_docs_embedding_idx_new', 'mem_docs_embedding_idx_old')
        OR i.relname ~ '^mem_docs_embedding_idx_cc(new|old)[0-9]*$' AND NOT x.indisvalid
    )
ORDER BY i.relname

-- name: metadata_indexes
SELECT i.relname, obj_description(i.oid, 'pg_class'), x.indisvalid AND x.indisready AND x.indislive,
    pg_relation_size(i.oid)
FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('mem_docs') AND i.relname ~ '^mem_docs_metadata_.*_(number|text)_[0-9a-f]{8}_idx$'
ORDER BY i.relname

-- name: quoted
SELECT string_agg(' -> ' || quote_literal(key) || '::text', '' ORDER BY n)
FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS given (key, n)

-- name: memory
-- In kilobytes. The server does not tell its memory; effective_cache_size says how much of it caches files.
SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'),
    (SELECT setting::bigint FROM pg_settings WHERE name = 'effective_cache_size')
        * current_setting('block_size')::bigint / 1024,
    current_setting('max_parallel_maintenance_workers')::int, current_setting('max_parallel_workers')::int

-- name: built
SELECT x.indisvalid AND x.indisready, i.reltuples::bigint, pg_relation_filenode(i.oid)
FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = 'mem_docs'::regclass AND i.relname = %s

-- name: count_fresh
-- Index: mem_docs_updated_at_idx.
SELECT count(*) FROM (SELECT FROM mem_docs WHERE updated_at >= %(since)s LIMIT %(most)s) AS fresh

-- name: count_embedded
SELECT count(*) FROM (SELECT FROM mem_docs WHERE embedding IS NOT NULL LIMIT %(most)s) AS embedded

-- name: size
-- The table's name raises an error if the database is not migrated.
SELECT COALESCE(pg_relation_size(to_regclass(%s)), 0), 'mem_docs'::regclass

-- name: pages
-- There are no more rows with an embedding: each vector has a page of its own.
SELECT COALESCE(pg_relation_size(to_regclass('mem_docs')), 0) / current_setting('block_size')::bigint

-- name: writers
-- The transactions that have written documents and are open.
SELECT virtualtransaction FROM pg_locks
WHERE relation = to_regclass('mem_docs') AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: sample
-- Whole pages are drawn. Each holds one vector, since vectors are stored in line.
SELECT vector_send(embedding) FROM mem_docs TABLESAMPLE SYSTEM (%(percent)s)
WHERE embedding IS NOT NULL
ORDER BY random() LIMIT %(n)s

-- name: sample_fresh
-- Index: mem_docs_updated_at_idx, if few rows are that young.
SELECT vector_send(embedding) FROM mem_docs
WHERE embedding IS NOT NULL AND updated_at >= %(since)s
ORDER BY random() LIMIT %(n)s

-- name: vectors
SELECT vector_send(embedding) FROM mem_docs WHERE embedding IS NOT NULL

-- name: approximate
-- Index: mem_docs_embedding_idx.
SELECT embedding <=> %(query)s::vector FROM mem_docs
ORDER BY embedding <=> %(query)s::vector LIMIT %(k)s

-- name: approximate_with_fresh
-- As in a search through ivfflat: documents of which the index may know nothing are compared exactly.
SELECT distance FROM (
    (
        SELECT id, embedding <=> %(query)s::vector AS distance FROM mem_docs
        ORDER BY embedding <=> %(query)s::vector LIMIT %(k)s
    )
    UNION
    (
        SELECT id, (embedding <=> %(query)s::vector) + 0.0 AS distance FROM mem_docs
        WHERE embedding IS NOT NULL AND updated_at >= %(since)s
        ORDER BY 2 LIMIT %(k)s
    )
) AS found
ORDER BY distance LIMIT %(k)s

-- name: through_index
-- Every other plan is priced out: this measures the index, not the planner's choice.
SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_sort', 'off', true), set_config(%s, %s, true)

-- name: builder
-- The server process that builds or changes the index.
SELECT pid FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = 1836674153
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND objid = hashtext(to_regclass('mem_docs')::oid::text)::oid

-- name: rights
SELECT pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner), quote_ident(current_user), pg_is_in_recovery(),
    current_setting('transaction_read_only')::boolean
FROM pg_class AS c
WHERE c.oid = 'mem_docs'::regclass

-- name: progress
-- The blocks or tuples of the phase, or the transactions that it waits for. The columns of other roles' builds are empty.
SELECT phase, current_locker_pid,
    CASE WHEN lockers_total > 0 THEN lockers_done WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END,
    CASE WHEN lockers_total > 0 THEN lockers_total WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END
FROM pg_stat_progress_create_index
WHERE pid = %s

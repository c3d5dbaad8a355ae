-- Work items found by their words; what has ended gets into the full-text index here, off the path of the work.

-- Indexes a batch of items that have ended, those that ended first, and returns how many. It skips what others have locked.
CREATE FUNCTION index_work_items(most int, of_tenant text) RETURNS int LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    indexed int;
    outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
    counts text;
BEGIN
    -- No counter of an order changes: see triggers.sql.
    counts := set_config('myloware.counts', pg_trigger_depth()::text, true);
    -- Index: work_items_unindexed_idx. After a megabyte of contents the batch is full, so that none takes long.
    WITH ended AS MATERIALIZED (
        SELECT id, processed_at, octet_length(content) AS size FROM work_items
        WHERE NOT searchable AND processed_at IS NOT NULL AND (of_tenant IS NULL OR tenant_id = of_tenant)
        ORDER BY processed_at
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ),
    measured AS (
        SELECT id, sum(size) OVER (ORDER BY processed_at, id) - size AS size_before FROM ended
    )
    -- Looked up in an array: the plan is made once, maybe for an empty table, and can only use the primary key.
    UPDATE work_items SET searchable = true
    WHERE id = ANY (ARRAY(SELECT id FROM measured WHERE size_before < 1000000));
    GET DIAGNOSTICS indexed = ROW_COUNT;
    counts := set_config('myloware.counts', outside, true);
    RETURN indexed;
END
$$;

-- Returns the items that match a query, newest first. One statement, so one snapshot, in which each item is in one of the
-- parts: it has ended and is in the index, or not yet, it is QUEUED or PROCESSING. An item is PROCESSING in a PROCESSING
-- order only. A content that has more words than the index holds is found by a blank, and read.
-- Indexes: work_items_content_fts_idx, work_items_unindexed_idx, one of the claims',
-- work_orders_tenant_status_created_at_idx (the recursion skips in it from one tenant to the next) and
-- work_items_work_order_status_type_idx. OFFSET 0 keeps the planner from reading these whole.
CREATE FUNCTION search_work_items(query tsquery, most int, of_tenant text) RETURNS SETOF uuid LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    IF row_security_active('work_items') AND tenancy_enforced('work_items') THEN
        RETURN QUERY SELECT search_in_tenant(query, most);
        RETURN;
    END IF;
    RETURN QUERY
    WITH RECURSIVE owners (name) AS (
        (
            SELECT tenant_id FROM work_orders
            WHERE of_tenant IS NULL OR tenant_id = of_tenant
            ORDER BY tenant_id LIMIT 1
        )
        UNION ALL
        SELECT (SELECT o.tenant_id FROM work_orders AS o WHERE o.tenant_id > owners.name ORDER BY o.tenant_id LIMIT 1)
        FROM owners WHERE owners.name IS NOT NULL AND of_tenant IS NULL
    ),
    unindexed AS (
        SELECT id, created_at, tenant_id, content FROM work_items WHERE NOT searchable AND processed_at IS NOT NULL
        UNION ALL
        SELECT id, created_at, tenant_id, content FROM work_items WHERE status = 'QUEUED'
        UNION ALL
        SELECT w.*
        FROM owners CROSS JOIN LATERAL (
            SELECT id FROM work_orders WHERE tenant_id = owners.name AND status = 'PROCESSING' OFFSET 0
        ) AS o
        CROSS JOIN LATERAL (
            SELECT id, created_at, tenant_id, content FROM work_items
            WHERE work_order_id = o.id AND status = 'PROCESSING' OFFSET 0
        ) AS w
    ),
    found AS (
        SELECT id, created_at, tenant_id FROM work_items
        WHERE searchable AND processed_at IS NOT NULL AND content_search(content) @@ (query && !!$q$' '$q$::tsquery)
        UNION ALL
        SELECT id, created_at, tenant_id FROM work_items
        WHERE searchable AND processed_at IS NOT NULL AND content_search(content) @@ $q$' '$q$::tsquery
            AND content_matches(content, query)
        UNION ALL
        SELECT id, created_at, tenant_id FROM unindexed WHERE content_matches(content, query)
    )
    SELECT id FROM found
    WHERE numnode(query) > 0 AND (of_tenant IS NULL OR tenant_id = of_tenant)
    ORDER BY created_at DESC, id DESC
    LIMIT most;
END
$$;

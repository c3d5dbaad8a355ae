-- What has ended gets into the full-text index here, off the path of the work.

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

-- Takes items, the attempts that hold them, and one output each. Returns the accepted items: those that are held, and
-- those that an equal call finished before, whose reply was lost. With `wholly`, nothing is written unless all are
-- accepted. Items are locked in the order of their ids; then the roll-up locks orders in the order of theirs.
-- Its plans are cached: see submit.sql.
CREATE FUNCTION finish_work_items(
    item_ids uuid[], attempt_ids uuid[], outputs jsonb[], gated bool, of_tenant text, wholly bool
) RETURNS SETOF uuid LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    held uuid[];
    holders uuid[];
    finished_before uuid[] := '{}';
BEGIN
    SELECT COALESCE(array_agg(h.id), '{}'), COALESCE(array_agg(h.attempt_id), '{}') INTO held, holders
    FROM (SELECT * FROM unnest(item_ids, attempt_ids) AS g (item_id, attempt_id) ORDER BY item_id) AS given
    CROSS JOIN LATERAL (
        SELECT w.id, a.id AS attempt_id
        FROM work_items AS w JOIN attempts AS a ON a.id = w.current_attempt_id
        WHERE w.id = given.item_id AND w.status = 'PROCESSING' AND NOT w.awaiting_approval
            AND a.id = given.attempt_id AND a.finished_at IS NULL AND a.lease_expires_at > statement_timestamp()
            AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
        FOR NO KEY UPDATE OF w, a
    ) AS h;

    IF cardinality(held) < cardinality(item_ids) THEN
        finished_before := ARRAY(
            SELECT f.id
            FROM unnest(item_ids, attempt_ids) AS given (item_id, attempt_id)
            CROSS JOIN LATERAL (
                SELECT w.id
                FROM work_items AS w JOIN attempts AS a ON a.id = w.current_attempt_id
                WHERE w.id = given.item_id AND a.id = given.attempt_id AND a.status = 'COMPLETED'
                    AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
                    AND gated = (
                        w.awaiting_approval
                        OR EXISTS (
                            SELECT FROM approval_events
                            WHERE work_item_id = w.id AND decision <> 'ESCALATED' OFFSET 0
                        )
                    )
                OFFSET 0
            ) AS f
        );
        IF wholly AND cardinality(held || finished_before) < cardinality(item_ids) THEN
            RETURN QUERY SELECT unnest(held || finished_before);
            RETURN;
        END IF;
    END IF;

    WITH finished AS (
        UPDATE work_items AS w
        SET result = outputs[array_position(item_ids, w.id)], awaiting_approval = gated,
            status = CASE WHEN gated THEN 'PROCESSING' ELSE 'COMPLETED' END::work_item_status,
            processed_at = CASE WHEN NOT gated THEN statement_timestamp() END, updated_at = statement_timestamp()
        WHERE w.id = ANY (held)
    )
    UPDATE attempts AS a
    SET status = 'COMPLETED', output = outputs[array_position(attempt_ids, a.id)],
        finished_at = statement_timestamp(), updated_at = statement_timestamp(),
        duration_ms = least(
            greatest(
                0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000
            ),
            2147483647
        )
    WHERE a.id = ANY (holders);
    RETURN QUERY SELECT unnest(held || finished_before);
END
$$;

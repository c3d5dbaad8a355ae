-- Takes items in the order of their ids, the attempts that hold them, and a JSON array of one output each. Returns the
-- items that are refused: not those that are held, nor those that an equal call finished before, whose reply was lost.
-- With `wholly`, nothing is written if any is refused. With `claiming`, the orders are left to claim_work_items(): one
-- in `ended` for each item. Items are locked in the order of their ids, then attempts, then
-- orders, each in the order of theirs: arrays leave the planner no choice but the indexes of the primary keys, which
-- return rows in that order. Its plans are cached: see submit.sql.
CREATE FUNCTION finish_work_items(
    item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated bool, of_tenant text, wholly bool, claiming bool,
    OUT refused uuid[], OUT ended uuid[]
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    done CONSTANT work_item_status := CASE WHEN gated THEN 'PROCESSING' ELSE 'COMPLETED' END;
    held uuid[];
    outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
    counts text;
BEGIN
    IF row_security_active('work_items') AND tenancy_enforced('work_items') THEN
        SELECT f.refused, f.ended INTO refused, ended
        FROM finish_in_tenant(item_ids, attempt_ids, outputs, gated, wholly, claiming) AS f;
        RETURN;
    END IF;
    IF wholly THEN
        BEGIN
            SELECT f.refused INTO refused
            FROM finish_work_items(item_ids, attempt_ids, outputs, gated, of_tenant, false, false) AS f;
            IF refused <> '{}' THEN
                RAISE EXCEPTION USING ERRCODE = 'MW001';
            END IF;
        EXCEPTION WHEN SQLSTATE 'MW001' THEN  -- undoes what it wrote
        END;
        RETURN;
    END IF;

    counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
    WITH finished AS (
        UPDATE work_items AS w
        SET status = done, awaiting_approval = gated, result = outputs -> width_bucket(w.id, item_ids) - 1,
            processed_at = CASE WHEN NOT gated THEN statement_timestamp() END, updated_at = statement_timestamp()
        WHERE w.id = ANY (item_ids) AND w.status IS NOT DISTINCT FROM 'PROCESSING' AND NOT w.awaiting_approval
            AND w.current_attempt_id = attempt_ids[width_bucket(w.id, item_ids)]
            AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
            AND EXISTS (
                SELECT FROM attempts AS a
                WHERE a.id = w.current_attempt_id AND a.finished_at IS NULL
                    AND a.lease_expires_at > statement_timestamp()
                OFFSET 0
            )
        RETURNING w.id, w.current_attempt_id, w.work_order_id
    ),
    ended AS (
        UPDATE attempts AS a
        SET status = 'COMPLETED', output = outputs -> width_bucket(a.work_item_id, item_ids) - 1,
            finished_at = statement_timestamp(), updated_at = statement_timestamp(),
            duration_ms = least(
                greatest(
                    0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000
                ),
                2147483647
            )
        WHERE a.id = ANY (ARRAY(SELECT current_attempt_id FROM finished))
    )
    SELECT array_agg(id), array_agg(work_order_id) INTO held, ended FROM finished;
    ended := CASE WHEN gated THEN '{}' ELSE COALESCE(ended, '{}') END;

    IF NOT claiming AND ended <> '{}' THEN
        UPDATE work_orders AS o
        SET open_items = o.open_items - cardinality(array_positions(ended, o.id)),
            updated_at = statement_timestamp(),
            status = CASE
                WHEN o.open_items > cardinality(array_positions(ended, o.id)) THEN 'PROCESSING'
                WHEN o.failed_items > 0 THEN 'FAILED'
                ELSE 'COMPLETED'
            END::work_order_status
        WHERE o.id = ANY (ended);
    END IF;
    counts := set_config('myloware.counts', outside, true);
    IF cardinality(held) = cardinality(item_ids) THEN
        refused := '{}';
        RETURN;
    END IF;
    refused := ARRAY(
        SELECT given.item_id FROM unnest(item_ids, attempt_ids) AS given (item_id, attempt_id)
        WHERE NOT EXISTS (
            SELECT FROM work_items AS w JOIN attempts AS a ON a.id = w.current_attempt_id
            WHERE w.id = given.item_id AND a.id = given.attempt_id AND a.status = 'COMPLETED'
                AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
                AND gated = (
                    w.awaiting_approval
                    OR EXISTS (
                        SELECT FROM approval_events WHERE work_item_id = w.id AND decision <> 'ESCALATED' OFFSET 0
                    )
                )
            OFFSET 0
        )
    );
END
$$;

-- Updates an order's counters and status with its items, no matter who writes them. Only submit, claim and finish do
-- so themselves (`myloware.counts`, see triggers.sql). Its plans are cached: see submit.sql.

CREATE FUNCTION work_items_roll_up() RETURNS trigger LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET enable_nestloop = off
AS $$
DECLARE
    ids uuid[];
    opened int[];
    failures int[];
    moves bool[];
    latest timestamptz[];
    claimable bool;
    released bool;
BEGIN
    -- TRUNCATE fires this, too, and leaves no item in any order.
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE work_orders SET open_items = 0, failed_items = 0, updated_at = now()
        WHERE open_items <> 0 OR failed_items <> 0;
        RETURN NULL;
    END IF;

    -- Per order: the change of its open and failed items, whether an item has left the queue, and whether one
    -- can be claimed.
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(d.moved), array_agg(d.latest),
            bool_or(d.ready)
        INTO ids, opened, failures, moves, latest, claimable
        FROM (
            SELECT work_order_id AS id,
                count(*) FILTER (WHERE status IN ('QUEUED', 'PROCESSING')) AS open,
                count(*) FILTER (WHERE status = 'FAILED') AS failed,
                bool_or(status <> 'QUEUED') AS moved,
                -- Restoring a dump is not a change of the order.
                max(created_at) AS latest,
                bool_or(status = 'QUEUED' AND available_at <= statement_timestamp()) AS ready
            FROM new_rows GROUP BY work_order_id
        ) AS d;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(false)
        INTO ids, opened, failures, moves
        FROM (
            SELECT work_order_id AS id,
                -count(*) FILTER (WHERE status IN ('QUEUED', 'PROCESSING')) AS open,
                -count(*) FILTER (WHERE status = 'FAILED') AS failed
            FROM old_rows GROUP BY work_order_id
        ) AS d;
    ELSE
        SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(d.moved), bool_or(d.ready),
            bool_or(d.free)
        INTO ids, opened, failures, moves, claimable, released
        FROM (
            SELECT work_order_id AS id, sum(open) AS open, sum(failed) AS failed, bool_or(moved) AS moved,
                bool_or(ready) AS ready, bool_or(free) AS free
            FROM (
                SELECT work_order_id,
                    (status IN ('QUEUED', 'PROCESSING'))::int AS open,
                    (status = 'FAILED')::int AS failed,
                    status <> 'QUEUED' AS moved,
                    status = 'QUEUED' AND available_at <= statement_timestamp() AS ready,
                    status <> 'PROCESSING' OR awaiting_approval AS free
                FROM new_rows
                UNION ALL
                SELECT work_order_id,
                    -(status IN ('QUEUED', 'PROCESSING'))::int, -(status = 'FAILED')::int, false, false, false
                FROM old_rows
            ) AS changes
            GROUP BY work_order_id
        ) AS d;
        -- The functions end an attempt in the statement that moves its item. After an UPDATE by hand it is still
        -- open, and would prevent the item's next claim.
        IF released THEN
            UPDATE attempts AS a
            SET status = CASE
                    WHEN a.lease_expires_at <= statement_timestamp() THEN 'TIMEOUT' ELSE 'FAILED'
                END::attempt_status,
                error = 'its item was moved by hand', finished_at = statement_timestamp(),
                updated_at = statement_timestamp(),
                duration_ms = least(
                    greatest(
                        0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000
                    ),
                    2147483647
                )
            WHERE a.finished_at IS NULL AND a.work_item_id = ANY (
                ARRAY(SELECT id FROM new_rows WHERE status <> 'PROCESSING' OR awaiting_approval)
            );
        END IF;
    END IF;
    IF ids IS NULL THEN
        RETURN NULL;
    END IF;

    -- Waiting workers hold this lock shared. If no worker holds it, skip NOTIFY, so that no commit waits for
    -- NOTIFY's lock; a worker that begins to wait gets the lock once this transaction is visible.
    IF claimable AND NOT pg_try_advisory_xact_lock(1836674167, TG_RELID::int) THEN
        PERFORM pg_notify('myloware_work', TG_RELID::text);
    END IF;

    -- Always in the order of their ids, so that two statements never deadlock. The rest after a DELETE is counted
    -- once the order is locked.
    IF cardinality(ids) > 1 OR TG_OP = 'DELETE' THEN
        PERFORM FROM work_orders AS o JOIN unnest(ids, opened, failures, moves) AS d (id, open, failed, moved)
            ON d.id = o.id
        WHERE o.id = ANY (ids)
            AND (TG_OP <> 'UPDATE' OR d.open <> 0 OR d.failed <> 0 OR (d.moved AND o.status = 'PENDING'))
        ORDER BY o.id FOR NO KEY UPDATE OF o;
    END IF;
    UPDATE work_orders AS o
    SET open_items = o.open_items + d.open,
        failed_items = o.failed_items + d.failed,
        updated_at = CASE WHEN TG_OP = 'INSERT' THEN greatest(o.updated_at, least(d.latest, now())) ELSE now() END,
        status = CASE
            WHEN o.open_items + d.open > 0 AND o.status = 'PENDING' AND NOT d.moved THEN 'PENDING'
            WHEN o.open_items + d.open > 0 THEN 'PROCESSING'
            -- An order without items keeps its status.
            WHEN TG_OP <> 'INSERT' AND NOT EXISTS (SELECT FROM work_items WHERE work_order_id = o.id OFFSET 0)
                THEN o.status
            WHEN o.failed_items + d.failed > 0 THEN 'FAILED'
            ELSE 'COMPLETED'
        END::work_order_status
    FROM unnest(ids, opened, failures, moves, latest) AS d (id, open, failed, moved, latest)
    WHERE o.id = ANY (ids) AND o.id = d.id
        AND (TG_OP <> 'UPDATE' OR d.open <> 0 OR d.failed <> 0 OR (d.moved AND o.status = 'PENDING'));
    RETURN NULL;
END
$$;

-- The orders whose counters or status do not agree with their items, and what would.
CREATE FUNCTION miscounted_work_orders(
    of_tenant text
) RETURNS TABLE (order_id uuid, stored text, open int, failed int, due text) LANGUAGE sql STABLE
AS $$
    WITH counted AS (
        SELECT o.id, o.status, o.open_items, o.failed_items, count(w.id) AS items,
            count(*) FILTER (WHERE w.status IN ('QUEUED', 'PROCESSING'))::int AS open,
            count(*) FILTER (WHERE w.status = 'FAILED')::int AS failed
        FROM work_orders AS o LEFT JOIN work_items AS w ON w.work_order_id = o.id
        WHERE of_tenant IS NULL OR o.tenant_id = of_tenant
        GROUP BY o.id
    ),
    expected AS (
        SELECT *,
            CASE
                WHEN items = 0 OR (open > 0 AND status = 'PENDING') THEN status
                WHEN open > 0 THEN 'PROCESSING'
                WHEN failed > 0 THEN 'FAILED'
                ELSE 'COMPLETED'
            END AS due
        FROM counted
    )
    SELECT id, concat(status, ', ', open_items, ' open, ', failed_items, ' failed'), open, failed, due::text
    FROM expected WHERE (open_items, failed_items, status) <> (open, failed, due)
    ORDER BY id
$$;

-- Corrects them. Statements that change items lock their orders last. Once an order is locked here, such a statement has
-- either been committed, and its items are counted, or it will change what is stored here.
CREATE FUNCTION recount_work_orders(of_tenant text) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    ids CONSTANT uuid[] := ARRAY(SELECT order_id FROM miscounted_work_orders(of_tenant));
    outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
    counts text;
BEGIN
    PERFORM FROM work_orders WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
    RETURN QUERY
    UPDATE work_orders AS o
    SET open_items = m.open, failed_items = m.failed, status = m.due::work_order_status,
        updated_at = statement_timestamp()
    FROM miscounted_work_orders(of_tenant) AS m
    WHERE o.id = m.order_id AND o.id = ANY (ids)
    RETURNING o.id;
    counts := set_config('myloware.counts', outside, true);
END
$$;

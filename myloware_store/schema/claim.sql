-- The time of a claim does not grow with the queue: an index returns the ready items of one priority in order, no
-- matter how many others are parked until later. Every branch goes from one such range to the next, most urgent first,
-- and stops when it has enough: a LATERAL subquery under a LIMIT runs no further than necessary. NO KEY UPDATE: an item
-- does not count as locked because someone is inserting a child row.
--
-- No item's time is NULL: with NULLS FIRST, the planner can use only the index by tenant or type. Otherwise it would
-- choose work_items_claim_idx when it expects a matching item soon, and skip a million others. Its plans are cached:
-- see submit.sql.
CREATE FUNCTION claim_work_items(
    most int, agent text, lease float8, attempt_ids uuid[],
    of_types text[], of_tenants text[], fairly bool, since timestamptz[], behind uuid[], known_types text[],
    mending bool, ended uuid[]
) RETURNS TABLE (
    item_id text, attempt_id text, attempt_number int, type text, content text, tenant_id text,
    work_order_id text, lease_expires_at text, priority text, available_at text
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET enable_sort = off
AS $$
#variable_conflict use_column
DECLARE
    urgent_first CONSTANT priority[] := ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW'];
    ends CONSTANT timestamptz := statement_timestamp() + lease * interval '1 second';
    front CONSTANT timestamptz[] := array_fill('-infinity'::timestamptz, ARRAY[4]);
    -- Compared as text: neither the caller nor the database needs to know all types of the other.
    kinds CONSTANT text[] := COALESCE(of_types, known_types);
    places tid[];
    look int := most;
    looked int;
    outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
    counts text;
    told text;
    broken uuid;
BEGIN
    IF row_security_active('work_items') AND tenancy_enforced('work_items') THEN
        RETURN QUERY SELECT * FROM claim_in_tenant(
            most, agent, lease, attempt_ids, of_types, of_tenants, fairly, since, behind, known_types, mending, ended
        );
        RETURN;
    END IF;
    IF mending THEN
        LOOP
            BEGIN
                RETURN QUERY SELECT * FROM claim_work_items(
                    most, agent, lease, attempt_ids, of_types, of_tenants, fairly, since, behind, known_types,
                    false, ended
                );
                RETURN;
            EXCEPTION WHEN unique_violation THEN
                GET STACKED DIAGNOSTICS told = PG_EXCEPTION_DETAIL;  -- Key (work_item_id...)=(...) already exists.
                IF broken = substring(told FROM '[0-9a-f]{8}-[0-9a-f-]{27}')::uuid THEN
                    RAISE;
                END IF;
                broken := substring(told FROM '[0-9a-f]{8}-[0-9a-f-]{27}');
                -- Rows were written by hand: a queued item has an attempt that has not ended, or its count was
                -- reduced. It keeps as many tries as it had left, as far as they can be counted; an item without
                -- any is left out.
                UPDATE attempts AS a
                SET status = 'FAILED', error = 'its item was in the queue', finished_at = statement_timestamp(),
                    updated_at = statement_timestamp()
                WHERE a.work_item_id = broken AND a.finished_at IS NULL;
                UPDATE work_items AS w
                SET attempt_count = made.tries,
                    max_attempts = least(w.max_attempts::bigint - w.attempt_count + made.tries, 2147483647)
                FROM (SELECT max(attempt_number) AS tries FROM attempts WHERE work_item_id = broken) AS made
                WHERE w.id = broken AND w.attempt_count < made.tries;
            END;
        END LOOP;
    END IF;
    -- The rows are updated where they were locked: their places do not change in between.
    -- In each priority, begin after the time and id up to which the caller knows that nothing is left; if that
    -- finds too few items, begin at the front.
    LOOP
        IF fairly THEN
            -- Every tenant gets its share before any gets more; unused shares go to others. The order of the
            -- tenants is random each time, so that claims of one item are shared, too.
            -- Index: work_items_claim_tenant_idx; the recursion skips in it from one tenant to the next.
            places := ARRAY(
                WITH RECURSIVE found (name) AS (
                    (
                        SELECT w.tenant_id FROM work_items AS w
                        WHERE w.status = 'QUEUED' AND of_tenants IS NULL
                        ORDER BY w.tenant_id LIMIT 1
                    )
                    UNION ALL
                    SELECT (
                        SELECT w.tenant_id FROM work_items AS w
                        WHERE w.status = 'QUEUED' AND w.tenant_id > found.name
                        ORDER BY w.tenant_id LIMIT 1
                    )
                    FROM found WHERE found.name IS NOT NULL
                ),
                drawn AS MATERIALIZED (
                    SELECT name FROM (SELECT name FROM found UNION SELECT unnest(of_tenants)) AS t (name)
                    WHERE name IS NOT NULL
                    ORDER BY random()
                ),
                sharing AS MATERIALIZED (
                    SELECT name, most / count(*) OVER ()
                        + CASE WHEN row_number() OVER () <= mod(most, count(*) OVER ()) THEN 1 ELSE 0 END AS share
                    FROM (
                        SELECT t.name FROM drawn AS t CROSS JOIN LATERAL (
                            SELECT FROM unnest(urgent_first) AS lane (priority) CROSS JOIN LATERAL (
                                SELECT FROM work_items AS w
                                WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                                    AND w.status = 'QUEUED' AND w.priority = lane.priority
                                    AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                                ORDER BY w.available_at NULLS FIRST, w.id
                                LIMIT 1
                            ) AS r
                            LIMIT 1
                        ) AS any_ready
                        LIMIT most
                    ) AS t
                ),
                shared AS MATERIALIZED (
                    SELECT r.id, r.place FROM sharing AS t CROSS JOIN LATERAL (
                        SELECT r.id, r.place FROM unnest(urgent_first) AS lane (priority) CROSS JOIN LATERAL (
                            SELECT w.id, w.ctid AS place FROM work_items AS w
                            WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                                AND w.status = 'QUEUED' AND w.priority = lane.priority
                                AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                            ORDER BY w.available_at NULLS FIRST, w.id
                            LIMIT t.share
                            FOR NO KEY UPDATE SKIP LOCKED
                        ) AS r
                        LIMIT t.share
                    ) AS r
                ),
                others AS MATERIALIZED (
                    SELECT r.place FROM drawn AS t CROSS JOIN unnest(urgent_first) AS lane (priority)
                    CROSS JOIN LATERAL (
                        SELECT w.ctid AS place FROM work_items AS w
                        WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                            AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                            AND w.id <> ALL (SELECT id FROM shared)
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT most
                        FOR NO KEY UPDATE SKIP LOCKED
                    ) AS r
                    LIMIT most - (SELECT count(*) FROM shared)
                )
                (SELECT place FROM shared UNION ALL SELECT place FROM others) LIMIT most
            );
        ELSIF of_tenants IS NOT NULL THEN
            -- Read the first items of each range, then take the due number from each: only taken items are
            -- locked. If others hold the first items of a range, the next ones are taken.
            -- Index: work_items_claim_tenant_idx, which contains the type, so that other types are skipped in it.
            WITH seen AS MATERIALIZED (
                SELECT t.name, lane.*, r.available_at, r.id
                FROM unnest(of_tenants) AS t (name)
                CROSS JOIN unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                CROSS JOIN LATERAL (
                    SELECT w.available_at, w.id FROM work_items AS w
                    WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                        AND w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts
                    ORDER BY w.available_at NULLS FIRST, w.id
                    LIMIT look
                ) AS r
            ),
            lane AS MATERIALIZED (
                SELECT name, priority, start, after_id, count(*) AS due
                FROM (SELECT * FROM seen ORDER BY priority DESC, available_at, id LIMIT look) AS first
                GROUP BY name, priority, start, after_id
                ORDER BY priority DESC
            )
            SELECT ARRAY(
                SELECT r.place FROM lane CROSS JOIN LATERAL (
                    SELECT w.ctid AS place FROM work_items AS w
                    WHERE w.tenant_id = lane.name AND w.type::text = ANY (kinds)
                        AND w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts
                    ORDER BY w.available_at NULLS FIRST, w.id
                    LIMIT lane.due
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS r
                LIMIT most
            ), (SELECT sum(due) FROM lane)
            INTO places, looked;
        ELSIF of_types IS NOT NULL THEN
            -- The same with the index work_items_claim_type_idx.
            WITH seen AS MATERIALIZED (
                SELECT t.name, lane.*, r.available_at, r.id
                FROM unnest(of_types::work_item_type[]) AS t (name)
                CROSS JOIN unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                CROSS JOIN LATERAL (
                    SELECT w.available_at, w.id FROM work_items AS w
                    WHERE w.type = t.name AND w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts
                    ORDER BY w.available_at NULLS FIRST, w.id
                    LIMIT look
                ) AS r
            ),
            lane AS MATERIALIZED (
                SELECT name, priority, start, after_id, count(*) AS due
                FROM (SELECT * FROM seen ORDER BY priority DESC, available_at, id LIMIT look) AS first
                GROUP BY name, priority, start, after_id
                ORDER BY priority DESC
            )
            SELECT ARRAY(
                SELECT r.place FROM lane CROSS JOIN LATERAL (
                    SELECT w.ctid AS place FROM work_items AS w
                    WHERE w.type = lane.name AND w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts
                    ORDER BY w.available_at NULLS FIRST, w.id
                    LIMIT lane.due
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS r
                LIMIT most
            ), (SELECT sum(due) FROM lane)
            INTO places, looked;
        ELSE
            -- Index: work_items_claim_idx.
            places := ARRAY(
                SELECT r.place FROM unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                CROSS JOIN LATERAL (
                    SELECT w.ctid AS place FROM work_items AS w
                    WHERE w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts AND w.type::text = ANY (kinds)
                    ORDER BY w.available_at, w.id
                    LIMIT most
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS r
                LIMIT most
            );
        END IF;
        EXIT WHEN cardinality(places) = most;
        IF since <> front THEN
            since := front;
            behind := array_fill('00000000-0000-0000-0000-000000000000'::uuid, ARRAY[4]);
        ELSIF looked = look THEN
            look := 10 * look;  -- others hold some of these
        ELSE
            EXIT;
        END IF;
    END LOOP;

    IF places = '{}' AND ended = '{}' THEN
        RETURN;
    END IF;
    counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
    RETURN QUERY
    WITH claimed AS (
        UPDATE work_items AS w
        SET status = 'PROCESSING', attempt_count = w.attempt_count + 1, updated_at = statement_timestamp(),
            current_attempt_id = attempt_ids[array_position(places, w.ctid)]
        WHERE w.ctid = ANY (places)
        RETURNING w.id, w.current_attempt_id, w.attempt_count, w.type, w.content, w.tenant_id, w.work_order_id,
            w.priority, w.available_at
    ),
    started AS (
        INSERT INTO attempts (id, tenant_id, work_item_id, agent_id, attempt_number, started_at, lease_expires_at)
        SELECT current_attempt_id, tenant_id, id, agent, attempt_count, statement_timestamp(), ends FROM claimed
    ),
    -- The first item of an order moves it on. The orders of items that were finished before (see finish.sql) are
    -- counted here, too: all are locked at once, in the order of their ids. IS NOT DISTINCT FROM leaves the planner
    -- only the index of the primary key.
    counted AS (
        UPDATE work_orders AS o
        SET open_items = o.open_items - cardinality(array_positions(ended, o.id)),
            updated_at = statement_timestamp(),
            status = CASE
                WHEN o.id <> ALL (ended) OR o.open_items > cardinality(array_positions(ended, o.id))
                    THEN 'PROCESSING'
                WHEN o.failed_items > 0 THEN 'FAILED'
                ELSE 'COMPLETED'
            END::work_order_status
        WHERE o.id = ANY (ARRAY(
            SELECT p.id FROM work_orders AS p
            WHERE p.id = ANY (ARRAY(SELECT DISTINCT work_order_id FROM claimed) || ended)
                AND (p.status IS NOT DISTINCT FROM 'PENDING' OR p.id = ANY (ended))
            ORDER BY p.id FOR NO KEY UPDATE
        ))
    )
    -- Python has no times before the year 1.
    SELECT c.id::text, c.current_attempt_id::text, c.attempt_count, c.type::text, c.content, c.tenant_id::text,
        c.work_order_id::text, ends::text, c.priority::text, greatest(c.available_at, '0002-01-01 00:00+00')::text
    FROM claimed AS c
    ORDER BY c.priority DESC, c.available_at, c.id;
    counts := set_config('myloware.counts', outside, true);
END
$$;

"""The functions that submit, claim and finish items, whose plans the server keeps.

To plan these statements costs more than to run them: as functions of PL/pgSQL they are planned once a session, whatever
pooler is in between. A plan that is kept must not depend on how full the tables were when it was made, so each is given
one way only: rows are found by `id = ANY (...)` of a variable, one by one in a LATERAL, or in the order of an index up
to a LIMIT. What would read a table or a partial index as a whole is turned off or not offered: `finished_at IS NULL`
and not the status that indexes are partial by; OFFSET 0 in an EXISTS, which keeps it from being hashed as a whole.
"""

from __future__ import annotations

__all__ = ["CLAIM_WORK_ITEMS", "FINISH_WORK_ITEMS", "KEPT_PLANS", "SUBMIT_WORK_ORDER"]

KEPT_PLANS = """
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
""".strip()

# Nothing is stored where the schemas that the documents were checked against (`stamps`, as `schemas.active` read them)
# are not the active ones any more: `holds` says so. No order comes back where its key was used before.
# Indexes: schemas_active_idx, work_orders_tenant_id_idempotency_key_key.
SUBMIT_WORK_ORDER = f"""
CREATE FUNCTION submit_work_order(
    order_id uuid, of_tenant text, urgency priority, workflow text, author text, details jsonb, key text,
    item_ids uuid[], item_types work_item_type[], contents text[], available timestamptz, tries int,
    document_types text[], stamps text[]
) RETURNS TABLE (
    holds bool, id uuid, created_at timestamptz, tenant_id text, status work_order_status, priority priority,
    workflow_id text, created_by text, metadata jsonb, idempotency_key text, open_items int, failed_items int,
    cancelled_at timestamptz, updated_at timestamptz
) LANGUAGE plpgsql
{KEPT_PLANS}
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH checked AS MATERIALIZED (
        SELECT (
            SELECT COALESCE(array_agg(s.stamp ORDER BY s.stamp COLLATE "C"), '{{}}') = stamps
            FROM (
                SELECT concat_ws(' ', id, xmin, ctid) AS stamp FROM schemas
                WHERE is_active AND document_type = ANY (document_types)
            ) AS s
        ) AS holds
    ),
    made AS (
        INSERT INTO work_orders (id, tenant_id, priority, workflow_id, created_by, metadata, idempotency_key)
        SELECT order_id, of_tenant, urgency, workflow, author, details, key FROM checked WHERE holds
        ON CONFLICT ON CONSTRAINT work_orders_tenant_id_idempotency_key_key DO NOTHING
        RETURNING *
    ),
    items AS (
        INSERT INTO work_items (id, tenant_id, work_order_id, type, content, priority, available_at, max_attempts)
        SELECT given.id, made.tenant_id, made.id, given.type, given.content, made.priority,
            COALESCE(available, statement_timestamp()), tries
        FROM made, unnest(item_ids, item_types, contents) AS given (id, type, content)
    )
    SELECT c.holds, m.id, m.created_at, m.tenant_id, m.status, m.priority, m.workflow_id, m.created_by, m.metadata,
        m.idempotency_key, m.open_items, m.failed_items, m.cancelled_at, m.updated_at
    FROM checked AS c LEFT JOIN made AS m ON true;
END
$$
"""

# In time that does not grow with the queue: an index gives the ready items of one priority in order, whatever is parked
# beside them until later. So every branch goes from one such range to the next, most urgent first, and stops as soon as
# it has enough: a LATERAL subquery under a LIMIT is run no further than it has to. NO KEY UPDATE: a child row that
# someone is inserting does not make an item look locked.
#
# No item's time is NULL: asking for NULLS FIRST leaves the planner no index but the one of the tenant or type. It would
# else take work_items_claim_idx where it hopes to meet a fitting item soon, and read past a million of others.
CLAIM_WORK_ITEMS = f"""
CREATE FUNCTION claim_work_items(
    most int, agent text, lease float8, attempt_ids uuid[],
    of_types work_item_type[], of_tenants text[], fairly bool, since timestamptz[], behind uuid[]
) RETURNS TABLE (
    item_id uuid, attempt_id uuid, attempt_number int, type work_item_type, content text, tenant_id text,
    work_order_id uuid, lease_expires_at timestamptz, priority priority, available_at timestamptz
) LANGUAGE plpgsql
{KEPT_PLANS}
SET enable_sort = off
AS $$
#variable_conflict use_column
DECLARE
    urgent_first CONSTANT priority[] := ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW'];
    ends CONSTANT timestamptz := statement_timestamp() + lease * interval '1 second';
    front CONSTANT timestamptz[] := array_fill('-infinity'::timestamptz, ARRAY[4]);
    ready uuid[];
BEGIN
    -- Begin, in each priority, behind the time and id before which the caller says that nothing is left; where that
    -- gives too few, begin at the front.
    LOOP
        IF fairly THEN
            -- Every tenant gets its share before anyone gets more; what some leave goes to others. The order of the
            -- tenants is drawn each time, so that also claims of one item each are shared out.
            -- Index: work_items_claim_tenant_idx, which the recursion goes through from one tenant to the next.
            ready := ARRAY(
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
                    SELECT name, (most + count(*) OVER () - 1) / count(*) OVER () AS share
                    FROM (
                        SELECT t.name FROM drawn AS t CROSS JOIN LATERAL (
                            SELECT FROM unnest(urgent_first) AS lane (priority) CROSS JOIN LATERAL (
                                SELECT FROM work_items AS w
                                WHERE w.tenant_id = t.name AND (of_types IS NULL OR w.type = ANY (of_types))
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
                    SELECT r.id FROM sharing AS t CROSS JOIN LATERAL (
                        SELECT r.id FROM unnest(urgent_first) AS lane (priority) CROSS JOIN LATERAL (
                            SELECT w.id FROM work_items AS w
                            WHERE w.tenant_id = t.name AND (of_types IS NULL OR w.type = ANY (of_types))
                                AND w.status = 'QUEUED' AND w.priority = lane.priority
                                AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                            ORDER BY w.available_at NULLS FIRST, w.id
                            LIMIT t.share
                            FOR NO KEY UPDATE SKIP LOCKED
                        ) AS r
                        LIMIT t.share
                    ) AS r
                    LIMIT most
                ),
                others AS MATERIALIZED (
                    SELECT r.id FROM drawn AS t CROSS JOIN unnest(urgent_first) AS lane (priority)
                    CROSS JOIN LATERAL (
                        SELECT w.id FROM work_items AS w
                        WHERE w.tenant_id = t.name AND (of_types IS NULL OR w.type = ANY (of_types))
                            AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                            AND w.id <> ALL (SELECT id FROM shared)
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT most
                        FOR NO KEY UPDATE SKIP LOCKED
                    ) AS r
                    LIMIT most - (SELECT count(*) FROM shared)
                )
                (SELECT id FROM shared UNION ALL SELECT id FROM others) LIMIT most
            );
        ELSIF of_tenants IS NOT NULL THEN
            -- See what each range would give, then take from each what is due from it: only what is taken is
            -- locked. Where others hold the first of a range, those that come after them are taken.
            -- Index: work_items_claim_tenant_idx, which has the type, too: other types are passed over in it.
            ready := ARRAY(
                WITH seen AS MATERIALIZED (
                    SELECT t.name, lane.*, r.available_at, r.id
                    FROM unnest(of_tenants) AS t (name)
                    CROSS JOIN unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                    CROSS JOIN LATERAL (
                        SELECT w.available_at, w.id FROM work_items AS w
                        WHERE w.tenant_id = t.name AND (of_types IS NULL OR w.type = ANY (of_types))
                            AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp()
                            AND (w.available_at, w.id) > (lane.start, lane.after_id)
                            AND w.attempt_count < w.max_attempts
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT most
                    ) AS r
                ),
                lane AS MATERIALIZED (
                    SELECT name, priority, start, after_id, count(*) AS due
                    FROM (SELECT * FROM seen ORDER BY priority DESC, available_at, id LIMIT most) AS first
                    GROUP BY name, priority, start, after_id
                )
                SELECT r.id FROM lane CROSS JOIN LATERAL (
                    SELECT w.id FROM work_items AS w
                    WHERE w.tenant_id = lane.name AND (of_types IS NULL OR w.type = ANY (of_types))
                        AND w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts
                    ORDER BY w.available_at NULLS FIRST, w.id
                    LIMIT lane.due
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS r
                LIMIT most
            );
        ELSIF of_types IS NOT NULL THEN
            -- Index: work_items_claim_type_idx, in the same way.
            ready := ARRAY(
                WITH seen AS MATERIALIZED (
                    SELECT t.name, lane.*, r.available_at, r.id
                    FROM unnest(of_types) AS t (name)
                    CROSS JOIN unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                    CROSS JOIN LATERAL (
                        SELECT w.available_at, w.id FROM work_items AS w
                        WHERE w.type = t.name AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp()
                            AND (w.available_at, w.id) > (lane.start, lane.after_id)
                            AND w.attempt_count < w.max_attempts
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT most
                    ) AS r
                ),
                lane AS MATERIALIZED (
                    SELECT name, priority, start, after_id, count(*) AS due
                    FROM (SELECT * FROM seen ORDER BY priority DESC, available_at, id LIMIT most) AS first
                    GROUP BY name, priority, start, after_id
                )
                SELECT r.id FROM lane CROSS JOIN LATERAL (
                    SELECT w.id FROM work_items AS w
                    WHERE w.type = lane.name AND w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts
                    ORDER BY w.available_at NULLS FIRST, w.id
                    LIMIT lane.due
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS r
                LIMIT most
            );
        ELSE
            -- Index: work_items_claim_idx.
            ready := ARRAY(
                SELECT r.id FROM unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                CROSS JOIN LATERAL (
                    SELECT w.id FROM work_items AS w
                    WHERE w.status = 'QUEUED' AND w.priority = lane.priority
                        AND w.available_at <= statement_timestamp()
                        AND (w.available_at, w.id) > (lane.start, lane.after_id)
                        AND w.attempt_count < w.max_attempts
                    ORDER BY w.available_at, w.id
                    LIMIT most
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS r
                LIMIT most
            );
        END IF;
        EXIT WHEN cardinality(ready) = most OR since = front;
        since := front;
        behind := array_fill('00000000-0000-0000-0000-000000000000'::uuid, ARRAY[4]);
    END LOOP;

    IF ready = '{{}}' THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH claimed AS (
        UPDATE work_items AS w
        SET status = 'PROCESSING', attempt_count = w.attempt_count + 1, updated_at = statement_timestamp(),
            current_attempt_id = attempt_ids[array_position(ready, w.id)]
        WHERE w.id = ANY (ready)
        RETURNING w.*
    ),
    started AS (
        INSERT INTO attempts (id, tenant_id, work_item_id, agent_id, attempt_number, started_at, lease_expires_at)
        SELECT current_attempt_id, tenant_id, id, agent, attempt_count, statement_timestamp(), ends
        FROM claimed
    )
    -- Python has no times before the year 1.
    SELECT c.id, c.current_attempt_id, c.attempt_count, c.type, c.content, c.tenant_id, c.work_order_id, ends,
        c.priority, greatest(c.available_at, '0002-01-01 00:00+00')
    FROM claimed AS c
    ORDER BY c.priority DESC, c.available_at, c.id;
END
$$
"""

# Given are items, the attempts that hold them, and one output each. Returned are the items that are accepted: those
# that are held, and those that a call which meant the same has finished, whose reply was lost. `wholly`: all of them,
# or nothing is written. Items are locked in the order of their ids, then by the roll-up orders in that of theirs.
FINISH_WORK_ITEMS = f"""
CREATE FUNCTION finish_work_items(
    item_ids uuid[], attempt_ids uuid[], outputs jsonb[], gated bool, of_tenant text, wholly bool
) RETURNS SETOF uuid LANGUAGE plpgsql
{KEPT_PLANS}
AS $$
DECLARE
    held uuid[];
    holders uuid[];
    finished_before uuid[] := '{{}}';
BEGIN
    SELECT COALESCE(array_agg(h.id), '{{}}'), COALESCE(array_agg(h.attempt_id), '{{}}') INTO held, holders
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
                        OR EXISTS (SELECT FROM approval_events WHERE work_item_id = w.id OFFSET 0)
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
        duration_ms = least(extract(epoch FROM statement_timestamp() - a.started_at) * 1000, 2147483647)
    WHERE a.id = ANY (holders);
    RETURN QUERY SELECT unnest(held || finished_before);
END
$$
"""

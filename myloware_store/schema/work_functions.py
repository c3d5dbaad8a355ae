"""The functions that submit and finish items, and what the one that claims shares with them: plans that are kept.

To plan these statements costs more than to run them: as functions of PL/pgSQL they are planned once a session, whatever
pooler is in between. A plan that is kept must not depend on how full the tables were when it was made, so each is given
one way only: rows are found by `id = ANY (...)` of a variable, one by one in a LATERAL, or in the order of an index up
to a LIMIT. What would read a table or a partial index as a whole is turned off or not offered: `finished_at IS NULL`
and not the status that indexes are partial by; OFFSET 0 in an EXISTS, which keeps it from being hashed as a whole.

A sort that is needed though it is turned off counts as a cost of 1e10. A server with LLVM compiles plans of such a cost
at every call, which takes 0.4 s: so `jit` is off, too.

Labels are text in what the functions take and give: an enum type that one of them named could not be made anew.
"""

from __future__ import annotations

__all__ = ["FINISH_WORK_ITEMS", "KEPT_PLANS", "SUBMIT_WORK_ORDER"]

KEPT_PLANS = """
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
""".strip()

# Nothing is stored where the schemas that the documents were checked against (`stamps`, as `schemas.active` read them)
# are not the active ones any more: `holds` says so. No order comes back where its key was used before.
# Indexes: schemas_active_idx, work_orders_tenant_id_idempotency_key_key.
SUBMIT_WORK_ORDER = f"""
CREATE FUNCTION submit_work_order(
    order_id uuid, of_tenant text, of_priority text, workflow text, author text, details jsonb, key text,
    item_ids uuid[], item_types text[], contents text[], available timestamptz, tries int,
    document_types text[], stamps text[]
) RETURNS TABLE (
    holds bool, id uuid, created_at timestamptz, tenant_id text, status text, priority text,
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
        SELECT order_id, of_tenant, of_priority::priority, workflow, author, details, key FROM checked WHERE holds
        ON CONFLICT ON CONSTRAINT work_orders_tenant_id_idempotency_key_key DO NOTHING
        RETURNING *
    ),
    items AS (
        INSERT INTO work_items (id, tenant_id, work_order_id, type, content, priority, available_at, max_attempts)
        SELECT given.id, made.tenant_id, made.id, given.type::work_item_type, given.content, made.priority,
            COALESCE(available, statement_timestamp()), tries
        FROM made, unnest(item_ids, item_types, contents) AS given (id, type, content)
    )
    SELECT c.holds, m.id, m.created_at, m.tenant_id, m.status::text, m.priority::text, m.workflow_id, m.created_by,
        m.metadata, m.idempotency_key, m.open_items, m.failed_items, m.cancelled_at, m.updated_at
    FROM checked AS c LEFT JOIN made AS m ON true;
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
        duration_ms = least(
            greatest(0, extract(epoch FROM statement_timestamp() - a.started_at) * 1000), 2147483647
        )
    WHERE a.id = ANY (holders);
    RETURN QUERY SELECT unnest(held || finished_before);
END
$$
"""

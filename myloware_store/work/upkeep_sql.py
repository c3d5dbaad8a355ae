"""The statements that count the work there is, and delete what is over."""

from __future__ import annotations

__all__ = ["PRUNE_LETTERS", "PRUNE_ORDERS", "STATS", "TENANTS"]

# Read is what is open, not what is over. Indexes: work_items_claim_tenant_idx, attempts_started_idx,
# work_items_approval_idx, dead_letters_open_idx, attempts_finished_at_idx.
STATS = """
WITH queued AS (
    SELECT tenant_id, count(*) FILTER (WHERE available_at <= statement_timestamp()) AS ready,
        count(*) FILTER (WHERE available_at > statement_timestamp()) AS scheduled,
        extract(epoch FROM statement_timestamp() - min(available_at))::float8 AS oldest
    FROM work_items
    WHERE status = 'QUEUED' AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    GROUP BY tenant_id
),
held AS (
    SELECT tenant_id, count(*) AS processing,
        count(*) FILTER (WHERE lease_expires_at <= statement_timestamp()) AS expired
    FROM attempts
    WHERE status = 'STARTED' AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    GROUP BY tenant_id
),
parked AS (
    SELECT tenant_id, count(*) AS awaiting_approval FROM work_items
    WHERE awaiting_approval AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    GROUP BY tenant_id
),
letters AS (
    SELECT tenant_id, count(*) AS dead_letters FROM dead_letters
    WHERE replayed_at IS NULL AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    GROUP BY tenant_id
),
ended AS (
    SELECT tenant_id, count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
        count(*) FILTER (WHERE status = 'FAILED') AS failed, count(*) FILTER (WHERE status = 'TIMEOUT') AS timed_out
    FROM attempts
    WHERE finished_at > statement_timestamp() - %(window)s * interval '1 second'
        AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    GROUP BY tenant_id
)
SELECT tenant_id, COALESCE(ready, 0), COALESCE(scheduled, 0), COALESCE(processing, 0), COALESCE(expired, 0),
    COALESCE(awaiting_approval, 0), COALESCE(dead_letters, 0), CASE WHEN ready > 0 THEN oldest END,
    COALESCE(completed, 0), COALESCE(failed, 0), COALESCE(timed_out, 0)
FROM queued FULL JOIN held USING (tenant_id) FULL JOIN parked USING (tenant_id) FULL JOIN letters USING (tenant_id)
    FULL JOIN ended USING (tenant_id)
ORDER BY tenant_id
"""

TENANTS = """
SELECT tenant_id FROM work_orders WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
UNION
SELECT tenant_id FROM dead_letters WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
ORDER BY tenant_id
"""

# Index: work_orders_tenant_status_created_at_idx. Of the next orders, as many as have a batch of items together;
# kept are those that ended later, or that a letter may open again.
PRUNE_ORDERS = """
WITH following AS MATERIALIZED (
    SELECT o.id, o.created_at, o.updated_at,
        (SELECT count(*) FROM work_items AS w WHERE w.work_order_id = o.id) AS items
    FROM work_orders AS o
    WHERE o.tenant_id = %(tenant_id)s AND o.status = %(status)s AND o.created_at < %(before)s
        AND (o.created_at, o.id) > (%(after_time)s, %(after_id)s)
    ORDER BY o.created_at, o.id
    LIMIT %(orders)s
),
batch AS MATERIALIZED (
    SELECT * FROM (SELECT *, sum(items) OVER (ORDER BY created_at, id) - items AS items_before FROM following) AS f
    WHERE items_before < %(items)s
),
over AS MATERIALIZED (
    SELECT o.id, b.items FROM batch AS b JOIN work_orders AS o ON o.id = b.id
    WHERE o.status = %(status)s AND o.updated_at < %(before)s AND NOT EXISTS (
        SELECT FROM work_items AS w JOIN dead_letters AS d ON d.work_item_id = w.id AND d.replayed_at IS NULL
        WHERE w.work_order_id = o.id
    )
    FOR UPDATE OF o SKIP LOCKED
),
gone AS (
    DELETE FROM work_orders AS o USING over WHERE o.id = over.id RETURNING over.items
)
SELECT created_at, id, (SELECT count(*) FROM gone), (SELECT COALESCE(sum(items), 0)::bigint FROM gone)
FROM batch ORDER BY created_at DESC, id DESC LIMIT 1
"""

# Index: dead_letters_tenant_id_created_at_idx.
PRUNE_LETTERS = """
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters
    WHERE tenant_id = %(tenant_id)s AND created_at < %(before)s AND replayed_at < %(before)s
    ORDER BY created_at LIMIT %(items)s
    FOR UPDATE SKIP LOCKED
)
RETURNING id
"""

"""The statements of the work engine, one round trip each.

Locks are always taken in the same order, items by id and then (by the roll-up trigger) orders by id, so that no two of
these statements wait for each other in a circle.
"""

from __future__ import annotations

__all__ = ["CANCEL", "FAIL", "FAILED_BEFORE", "FINISH", "HEARTBEAT", "LOCK_OPEN", "REAP", "RELEASE", "SUBMIT"]

# The function is in `schema/submit.sql`.
SUBMIT = """
SELECT * FROM submit_work_order(
    %(order_id)s::uuid, %(tenant_id)s, %(priority)s, %(workflow_id)s, %(created_by)s, %(metadata)s, %(key)s,
    %(item_ids)s::uuid[], %(types)s::text[], %(contents)s::text[], %(available_at)s, %(max_attempts)s,
    %(document_types)s::text[], %(stamps)s::text[]
)
"""

# The item is never touched: only the attempt's lease moves. Locked in the order of the items, as in the others.
HEARTBEAT = """
WITH held AS MATERIALIZED (
    SELECT id FROM attempts
    WHERE id = ANY (%(attempt_ids)s::uuid[]) AND status = 'STARTED' AND lease_expires_at > statement_timestamp()
        AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    ORDER BY work_item_id
    FOR NO KEY UPDATE
)
UPDATE attempts AS a SET lease_expires_at = statement_timestamp() + %(lease)s * interval '1 second',
    updated_at = statement_timestamp()
FROM held WHERE a.id = held.id
RETURNING a.work_item_id
"""

_GIVEN_CLAIMS = """
held AS MATERIALIZED (
    SELECT w.id, a.id AS attempt_id, given.n, w.attempt_count < w.max_attempts AS tries_left
    FROM unnest(%(item_ids)s::uuid[], %(attempt_ids)s::uuid[]) WITH ORDINALITY AS given (item_id, attempt_id, n)
    JOIN work_items AS w ON w.id = given.item_id AND w.current_attempt_id = given.attempt_id
    JOIN attempts AS a ON a.id = given.attempt_id
    WHERE w.status = 'PROCESSING' AND NOT w.awaiting_approval
        AND a.status = 'STARTED' AND a.lease_expires_at > statement_timestamp()
        AND (%(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s)
    ORDER BY w.id
    FOR NO KEY UPDATE OF w, a
)
"""

# The function is in `schema/finish.sql`.
FINISH = """
SELECT * FROM finish_work_items(
    %(item_ids)s::uuid[], %(attempt_ids)s::uuid[], %(outputs)s::jsonb[], %(gate)s, %(tenant)s, %(whole)s
)
"""

# The attempt is forgotten: what is left of it is its id on the item, by which a repeated call is known.
RELEASE = f"""
WITH {_GIVEN_CLAIMS},
released_before AS MATERIALIZED (
    SELECT w.id
    FROM unnest(%(item_ids)s::uuid[], %(attempt_ids)s::uuid[]) AS given (item_id, attempt_id)
    JOIN work_items AS w ON w.id = given.item_id AND w.current_attempt_id = given.attempt_id
    WHERE w.status = 'QUEUED' AND NOT EXISTS (SELECT FROM attempts WHERE id = given.attempt_id)
        AND (%(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s)
),
accepted AS MATERIALIZED (
    SELECT * FROM held
    WHERE NOT %(whole)s
        OR (SELECT count(*) FROM held) + (SELECT count(*) FROM released_before) = cardinality(%(item_ids)s::uuid[])
),
queued AS (
    UPDATE work_items AS w
    SET status = 'QUEUED', attempt_count = w.attempt_count - 1, updated_at = statement_timestamp(),
        available_at = CASE
            WHEN %(delay)s::float8 IS NULL THEN w.available_at
            ELSE statement_timestamp() + %(delay)s::float8 * interval '1 second'
        END
    FROM accepted WHERE w.id = accepted.id
),
forgotten AS (
    DELETE FROM attempts AS a USING accepted WHERE a.id = accepted.attempt_id
)
SELECT id FROM held UNION SELECT id FROM released_before
"""

# What follows an attempt that did not succeed: `held` has id, attempt_id, n, again, error and accepted.
_SETTLE = """
moved AS (
    UPDATE work_items AS w
    SET status = CASE WHEN held.again THEN 'QUEUED' ELSE 'FAILED' END::work_item_status,
        available_at = CASE
            WHEN held.again THEN statement_timestamp() + interval '1 second' * COALESCE(
                %(delay)s::float8, least(3600, power(2, least(w.attempt_count, 12))) * (0.5 + random())
            )
            ELSE w.available_at
        END,
        processed_at = CASE WHEN NOT held.again THEN statement_timestamp() END,
        updated_at = statement_timestamp()
    FROM held WHERE w.id = held.id AND held.accepted
    RETURNING w.id, w.tenant_id, w.type, w.content, w.status, w.available_at, w.attempt_count,
        held.attempt_id, held.n, held.again, held.error
),
ended AS (
    UPDATE attempts AS a
    SET status = {status}, error = moved.error, finished_at = statement_timestamp(),
        updated_at = statement_timestamp(),
        duration_ms = least(greatest(0, extract(epoch FROM statement_timestamp() - a.started_at) * 1000), 2147483647)
    FROM moved WHERE a.id = moved.attempt_id
),
buried AS (
    INSERT INTO dead_letters (id, tenant_id, source, event_type, payload, error, retry_count, work_item_id)
    SELECT (%(letter_ids)s::uuid[])[n], tenant_id, 'work_items', type::text,
        jsonb_build_object('work_item_id', id, 'attempt_id', attempt_id, 'content', content),
        error, attempt_count - 1, id
    FROM moved WHERE NOT again
    -- An item has one open letter, which somebody may have written by hand.
    ON CONFLICT (work_item_id) WHERE replayed_at IS NULL DO UPDATE
    SET source = EXCLUDED.source, event_type = EXCLUDED.event_type, payload = EXCLUDED.payload, error = EXCLUDED.error,
        retry_count = EXCLUDED.retry_count, updated_at = statement_timestamp()
    RETURNING id, work_item_id
)
SELECT held.id, moved.status, CASE WHEN moved.again THEN moved.available_at END, buried.id
FROM held LEFT JOIN moved ON moved.id = held.id LEFT JOIN buried ON buried.work_item_id = held.id
"""

FAIL = f"""
WITH {_GIVEN_CLAIMS.replace("held AS", "fenced AS")},
held AS (
    SELECT id, attempt_id, n, %(retry)s AND tries_left AS again, (%(errors)s::text[])[n] AS error,
        NOT %(whole)s OR (SELECT count(*) FROM fenced) = cardinality(%(item_ids)s::uuid[]) AS accepted
    FROM fenced
),
{_SETTLE.replace("{status}", "'FAILED'")}
"""

# What an earlier call has failed in the same words, and where that left it: the reply was lost.
FAILED_BEFORE = """
SELECT w.id, w.status, CASE WHEN w.status = 'QUEUED' THEN w.available_at END, d.id
FROM unnest(%(item_ids)s::uuid[], %(attempt_ids)s::uuid[], %(errors)s::text[]) AS given (item_id, attempt_id, error)
JOIN work_items AS w ON w.id = given.item_id AND w.current_attempt_id = given.attempt_id
JOIN attempts AS a ON a.id = given.attempt_id AND a.status = 'FAILED' AND a.error = given.error
LEFT JOIN dead_letters AS d ON d.work_item_id = w.id AND d.replayed_at IS NULL
WHERE %(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s
"""

# Index: attempts_lease_idx. A lease without an end is never taken back. An attempt that was written by hand may hold
# nothing: it is ended, and its item stays as it is.
REAP = f"""
WITH expired AS MATERIALIZED (
    SELECT w.id, a.id AS attempt_id, a.lease_expires_at, w.attempt_count < w.max_attempts AS again,
        w.status = 'PROCESSING' AND NOT w.awaiting_approval AS holds
    FROM attempts AS a JOIN work_items AS w ON w.id = a.work_item_id
    WHERE a.status = 'STARTED' AND a.lease_expires_at <= statement_timestamp()
        AND (%(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s)
    ORDER BY a.lease_expires_at
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF w, a SKIP LOCKED
),
held AS (
    SELECT id, attempt_id, row_number() OVER () AS n, again,
        'the lease ran out at ' || lease_expires_at::text AS error, true AS accepted
    FROM expired WHERE holds
),
strays AS (
    UPDATE attempts AS a
    SET status = 'TIMEOUT', error = 'it held no item', finished_at = statement_timestamp(),
        updated_at = statement_timestamp()
    FROM expired WHERE a.id = expired.attempt_id AND NOT expired.holds
),
{_SETTLE.replace("{status}", "'TIMEOUT'")}
"""

# Index: work_items_work_order_status_type_idx, for both.
LOCK_OPEN = """
SELECT id FROM work_items
WHERE work_order_id = %(order_id)s AND status IN ('QUEUED', 'PROCESSING')
    AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
ORDER BY id
FOR NO KEY UPDATE
"""

# A trigger lets queued items fail in the wake of the order's `cancelled_at` only.
CANCEL = """
WITH asked AS MATERIALIZED (
    SELECT id FROM work_orders
    WHERE id = %(order_id)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
),
ended AS (
    UPDATE work_items AS w
    SET status = 'FAILED', awaiting_approval = false, processed_at = statement_timestamp(),
        updated_at = statement_timestamp()
    FROM asked WHERE w.work_order_id = asked.id AND w.status IN ('QUEUED', 'PROCESSING')
    RETURNING w.id
),
stopped AS (
    UPDATE attempts AS a
    SET status = 'FAILED', error = 'the order was cancelled', finished_at = statement_timestamp(),
        updated_at = statement_timestamp(),
        duration_ms = least(greatest(0, extract(epoch FROM statement_timestamp() - a.started_at) * 1000), 2147483647)
    FROM ended WHERE a.work_item_id = ended.id AND a.status = 'STARTED'
),
marked AS (
    UPDATE work_orders SET cancelled_at = statement_timestamp(), updated_at = statement_timestamp()
    WHERE id IN (SELECT id FROM asked) AND (SELECT count(*) FROM ended) > 0
)
SELECT ended.id FROM asked LEFT JOIN ended ON true
"""

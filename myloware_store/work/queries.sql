-- The statements of the work engine, one round trip each.
--
-- All statements take locks in the same order, items by id, then attempts by id, then orders by id (the roll-up trigger
-- does), so they never deadlock. The functions are in schema/*.sql.

-- name: submit
SELECT * FROM submit_work_order(
    %(order_id)s::uuid, %(tenant_id)s, %(priority)s, %(workflow_id)s, %(created_by)s, %(metadata)s, %(key)s,
    %(item_ids)s::uuid[], %(types)s::text[], %(contents)s::text[], %(available_at)s, %(max_attempts)s,
    %(document_types)s::text[], %(stamps)s::text[], %(retry_policy)s, %(unique_key)s
)

-- name: copy_items
COPY work_items (id, type, content, work_order_id, tenant_id, priority, available_at, max_attempts) FROM STDIN

-- name: count
-- Until the end of the transaction; see schema/triggers.sql.
SELECT set_config('myloware.counts', %(counts)s, true)

-- name: claim
SELECT * FROM claim_work_items(
    %(n)s, %(agent_id)s, %(lease)s, %(attempt_ids)s::uuid[], %(types)s::text[], %(tenants)s::text[], %(fair)s,
    %(since)s::timestamptz[], %(behind)s::uuid[], %(known_types)s::text[],
    %(mending)s, '{}'
)

-- name: handler_role
-- The role that tenancy binds, where it does not bind this one, and whether this one may take it.
SELECT r.rolname, pg_has_role(r.oid, 'MEMBER')
FROM pg_class AS c
JOIN pg_policy AS p ON p.polrelid = c.oid AND p.polname = 'tenant_isolation'
JOIN pg_roles AS r ON r.oid = ANY (p.polroles)
WHERE c.oid = 'work_items'::regclass AND c.relrowsecurity AND NOT row_security_active(c.oid)
    AND has_table_privilege(r.oid, c.oid, 'INSERT')
LIMIT 1

-- name: due
-- The seconds until the first item can be claimed: one index look-up for each name and priority, in the indexes of the
-- claims. No item's time is NULL, but with NULLS FIRST the planner can use only those.
SELECT min(extract(epoch FROM first.available_at - statement_timestamp()))::float8
FROM unnest(ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW']::priority[]) AS lane (priority)
CROSS JOIN LATERAL (
    SELECT w.available_at FROM work_items AS w
    WHERE w.type::text = ANY (%(known_types)s::text[])
        AND w.status = 'QUEUED' AND w.priority = lane.priority AND w.attempt_count < w.max_attempts
    ORDER BY w.available_at, w.id
    LIMIT 1
) AS first

-- name: due_by_type
SELECT min(extract(epoch FROM first.available_at - statement_timestamp()))::float8
FROM unnest(%(types)s::work_item_type[]) AS t (name) CROSS JOIN unnest(ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW']::priority[]) AS lane (priority)
CROSS JOIN LATERAL (
    SELECT w.available_at FROM work_items AS w
    WHERE w.type = t.name
        AND w.status = 'QUEUED' AND w.priority = lane.priority AND w.attempt_count < w.max_attempts
    ORDER BY w.available_at NULLS FIRST, w.id
    LIMIT 1
) AS first

-- name: due_by_tenant
SELECT min(extract(epoch FROM first.available_at - statement_timestamp()))::float8
FROM unnest(%(tenants)s::text[]) AS t (name) CROSS JOIN unnest(ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW']::priority[]) AS lane (priority)
CROSS JOIN LATERAL (
    SELECT w.available_at FROM work_items AS w
    WHERE w.tenant_id = t.name AND w.type::text = ANY (COALESCE(%(types)s::text[], %(known_types)s::text[]))
        AND w.status = 'QUEUED' AND w.priority = lane.priority AND w.attempt_count < w.max_attempts
    ORDER BY w.available_at NULLS FIRST, w.id
    LIMIT 1
) AS first

-- name: heartbeat
-- Only the attempt is written, not the item. IS NOT DISTINCT FROM leaves the planner the primary key; otherwise it might
-- read all of attempts_started_idx, and the entries of attempts that have ended in it.
WITH held AS MATERIALIZED (
    SELECT id FROM attempts
    WHERE id = ANY (%(attempt_ids)s::uuid[]) AND status IS NOT DISTINCT FROM 'STARTED' AND lease_expires_at > statement_timestamp()
        AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE attempts AS a SET lease_expires_at = statement_timestamp() + %(lease)s * interval '1 second',
    updated_at = statement_timestamp()
FROM held WHERE a.id = held.id
RETURNING a.work_item_id

-- name: progress
UPDATE attempts
SET progress = %(percent)s, progress_message = %(message)s, updated_at = statement_timestamp()
WHERE id = %(attempt_id)s AND status = 'STARTED' AND lease_expires_at > statement_timestamp()
    AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
RETURNING id

-- name: finish
SELECT refused FROM finish_work_items(
    %(item_ids)s::uuid[], %(attempt_ids)s::uuid[], %(outputs)s::jsonb, %(gate)s, %(tenant)s, %(whole)s, false
)

-- name: finish_and_claim
-- The claim counts the orders of the finished items together with its own, so that all are locked in their order.
SELECT finished.refused, claimed.*
FROM finish_work_items(
    %(item_ids)s::uuid[], %(held_attempt_ids)s::uuid[], %(outputs)s::jsonb, %(gate)s, %(tenant)s, false, true
) AS finished
LEFT JOIN claim_work_items(
    %(n)s, %(agent_id)s, %(lease)s, %(attempt_ids)s::uuid[], %(types)s::text[], %(tenants)s::text[], %(fair)s,
    %(since)s::timestamptz[], %(behind)s::uuid[], %(known_types)s::text[],
    %(mending)s, finished.ended
) AS claimed ON true

-- name: fence
-- The beginning of `release` and of `fail`, not a statement by itself: lock the items that the given attempts may hold, and
-- then, in `live`, those of the attempts whose leases have not ended.
WITH fenced AS MATERIALIZED (
    SELECT w.id, given.attempt_id, given.n, w.attempt_count < w.max_attempts AS tries_left
    FROM unnest(%(item_ids)s::uuid[], %(attempt_ids)s::uuid[]) WITH ORDINALITY AS given (item_id, attempt_id, n)
    JOIN work_items AS w ON w.id = given.item_id AND w.current_attempt_id = given.attempt_id
    WHERE w.status = 'PROCESSING' AND NOT w.awaiting_approval
        AND (%(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s)
    ORDER BY w.id
    FOR NO KEY UPDATE OF w
),
live AS MATERIALIZED (
    SELECT id FROM attempts
    WHERE id = ANY (ARRAY(SELECT attempt_id FROM fenced))
        AND status IS NOT DISTINCT FROM 'STARTED' AND lease_expires_at > statement_timestamp()
    ORDER BY id
    FOR NO KEY UPDATE
),

-- name: release
-- The attempt is deleted. Its id stays on the item, so that a repeated call is recognized.
held AS (
    SELECT fenced.* FROM fenced JOIN live ON live.id = fenced.attempt_id
),
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

-- name: fail
held AS (
    SELECT fenced.id, attempt_id, n, %(retry)s AND tries_left AS again, (%(errors)s::text[])[n] AS error,
        'FAILED'::attempt_status AS ended_as,
        NOT %(whole)s OR (SELECT count(*) FROM live) = cardinality(%(item_ids)s::uuid[]) AS accepted
    FROM fenced JOIN live ON live.id = fenced.attempt_id
),

-- name: failed_before
-- Items that an earlier call, whose reply was lost, failed with the same error, and their state since then.
SELECT w.id, w.status, CASE WHEN w.status = 'QUEUED' THEN w.available_at END, d.id
FROM unnest(%(item_ids)s::uuid[], %(attempt_ids)s::uuid[], %(errors)s::text[]) AS given (item_id, attempt_id, error)
JOIN work_items AS w ON w.id = given.item_id AND w.current_attempt_id = given.attempt_id
JOIN attempts AS a ON a.id = given.attempt_id AND a.status = 'FAILED' AND a.error = given.error
LEFT JOIN dead_letters AS d ON d.work_item_id = w.id AND d.replayed_at IS NULL
WHERE %(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s

-- name: reap
-- Index: attempts_started_idx. A lease without an end never expires. An attempt that was written by hand may not hold its
-- item: it is ended, and the item stays as it is.
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
        'the lease expired at ' || lease_expires_at::text AS error,
        'TIMEOUT'::attempt_status AS ended_as, true AS accepted
    FROM expired WHERE holds
),
strays AS (
    UPDATE attempts AS a
    SET status = 'TIMEOUT', error = 'it held no item', finished_at = statement_timestamp(),
        updated_at = statement_timestamp()
    FROM expired WHERE a.id = expired.attempt_id AND NOT expired.holds
),

-- name: give_up
-- The end of `fail` and of `reap`, not a statement by itself: queue the items in `held` again, or make dead letters.
moved AS (
    UPDATE work_items AS w
    SET status = CASE WHEN held.again THEN 'QUEUED' ELSE 'FAILED' END::work_item_status,
        available_at = CASE
            WHEN held.again THEN statement_timestamp() + interval '1 second' * COALESCE(
                %(delay)s::float8,
                -- The order's policy; through logarithms, because a power may be too large for a float.
                (
                    SELECT exp(least(ln(p.base) + ln(p.factor) * (w.attempt_count - 1), ln(p.cap)))
                        * (1 + p.jitter * (2 * random() - 1))
                    FROM work_orders AS o CROSS JOIN LATERAL
                        jsonb_to_record(o.retry_policy) AS p (base float8, factor float8, cap float8, jitter float8)
                    WHERE o.id = w.work_order_id
                ),
                least(3600, power(2, least(w.attempt_count, 12))) * (0.5 + random())
            )
            ELSE w.available_at
        END,
        processed_at = CASE WHEN NOT held.again THEN statement_timestamp() END,
        updated_at = statement_timestamp()
    FROM held WHERE w.id = held.id AND held.accepted
    RETURNING w.id, w.tenant_id, w.type, w.content, w.status, w.available_at, w.attempt_count,
        held.attempt_id, held.n, held.again, held.error, held.ended_as
),
ended AS (
    UPDATE attempts AS a
    SET status = moved.ended_as, error = moved.error, finished_at = statement_timestamp(),
        updated_at = statement_timestamp(),
        duration_ms = least(greatest(0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000), 2147483647)
    FROM moved WHERE a.id = moved.attempt_id
),
buried AS (
    INSERT INTO dead_letters (id, tenant_id, source, event_type, payload, error, retry_count, work_item_id)
    SELECT (%(letter_ids)s::uuid[])[n], tenant_id, 'work_items', type::text,
        jsonb_build_object('work_item_id', id, 'attempt_id', attempt_id, 'content', content),
        error, attempt_count - 1, id
    FROM moved WHERE NOT again
    -- An item has at most one open letter, which may have been written by hand.
    ON CONFLICT (work_item_id) WHERE replayed_at IS NULL DO UPDATE
    SET source = EXCLUDED.source, event_type = EXCLUDED.event_type, payload = EXCLUDED.payload, error = EXCLUDED.error,
        retry_count = EXCLUDED.retry_count, updated_at = statement_timestamp()
    RETURNING id, work_item_id
)
SELECT held.id, moved.status, CASE WHEN moved.again THEN moved.available_at END, buried.id
FROM held LEFT JOIN moved ON moved.id = held.id LEFT JOIN buried ON buried.work_item_id = held.id

-- name: search
SELECT w.*
FROM search_work_items({query}, %(limit)s, %(tenant)s) AS found (id)
JOIN work_items AS w ON w.id = found.id
ORDER BY w.created_at DESC, w.id DESC

-- name: index
SELECT index_work_items(%(limit)s, %(tenant)s)

-- name: lock_open
-- Index: work_items_work_order_status_type_idx, also for `cancel`.
WITH open AS MATERIALIZED (
    SELECT id FROM work_items
    WHERE work_order_id = %(order_id)s AND status IN ('QUEUED', 'PROCESSING')
        AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    ORDER BY id
    FOR NO KEY UPDATE
)
SELECT id FROM attempts
WHERE work_item_id = ANY (ARRAY(SELECT id FROM open)) AND status = 'STARTED'
ORDER BY id
FOR NO KEY UPDATE

-- name: lock_item
SELECT FROM work_items
WHERE id = %(item_id)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
FOR NO KEY UPDATE

-- name: cancel
-- The trigger work_items_guard lets queued items fail only together with their `cancelled_at`.
WITH asked AS MATERIALIZED (
    SELECT id FROM work_orders
    WHERE id = %(order_id)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
),
ended AS (
    UPDATE work_items AS w
    SET status = 'FAILED', awaiting_approval = false, cancelled_at = statement_timestamp(),
        processed_at = statement_timestamp(), updated_at = statement_timestamp()
    FROM asked WHERE w.work_order_id = asked.id AND w.status IN ('QUEUED', 'PROCESSING')
    RETURNING w.id
),
marked AS (
    UPDATE work_orders SET cancelled_at = statement_timestamp(), updated_at = statement_timestamp()
    WHERE id IN (SELECT id FROM asked) AND (SELECT count(*) FROM ended) > 0
),

-- name: cancel_item
WITH asked AS MATERIALIZED (
    SELECT id FROM work_items
    WHERE id = %(item_id)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
),
ended AS (
    UPDATE work_items AS w
    SET status = 'FAILED', awaiting_approval = false, cancelled_at = statement_timestamp(),
        processed_at = statement_timestamp(), updated_at = statement_timestamp()
    FROM asked WHERE w.id = asked.id AND w.status IN ('QUEUED', 'PROCESSING')
    RETURNING w.id
),

-- name: stop
-- The end of `cancel` and of `cancel_item`, not a statement by itself: end the attempts at the items in `ended`.
stopped AS (
    UPDATE attempts AS a
    SET status = 'FAILED', error = %(error)s, finished_at = statement_timestamp(),
        updated_at = statement_timestamp(),
        duration_ms = least(greatest(0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000), 2147483647)
    FROM ended WHERE a.work_item_id = ended.id AND a.status = 'STARTED'
)
SELECT ended.id FROM asked LEFT JOIN ended ON true

-- name: decide
-- Index: the primary key. The first of concurrent decisions locks the item; the others then find it decided.
WITH parked AS MATERIALIZED (
    SELECT id, tenant_id FROM work_items
    WHERE id = %(item_id)s AND awaiting_approval AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    FOR NO KEY UPDATE
),
decided AS (
    UPDATE work_items AS w
    SET status = CASE %(decision)s WHEN 'APPROVED' THEN 'COMPLETED' ELSE 'FAILED' END::work_item_status,
        awaiting_approval = false, processed_at = statement_timestamp(), updated_at = statement_timestamp()
    FROM parked WHERE w.id = parked.id AND %(decision)s <> 'ESCALATED'
)
INSERT INTO approval_events (id, tenant_id, work_item_id, approver_id, decision, reason, policy_version, created_at)
SELECT %(event_id)s, tenant_id, id, %(approver_id)s, %(decision)s, %(reason)s, %(policy_version)s,
    statement_timestamp()
FROM parked
RETURNING approval_events.*

-- name: replay
-- The items are locked first, as everywhere. Items that somebody else has just replayed are no longer FAILED.
WITH items AS MATERIALIZED (
    SELECT w.id, w.processed_at
    FROM work_items AS w JOIN dead_letters AS d ON d.work_item_id = w.id AND d.tenant_id = w.tenant_id
    WHERE d.id = ANY (%(ids)s::uuid[]) AND d.replayed_at IS NULL AND w.status = 'FAILED'
        AND (%(tenant)s::text IS NULL OR d.tenant_id = %(tenant)s)
    ORDER BY w.id
    FOR NO KEY UPDATE OF w
),
replayed AS (
    UPDATE dead_letters AS d
    -- Not before the failure, even if the clock was set back since: the trigger work_items_guard compares the two.
    SET replayed_at = greatest(statement_timestamp(), items.processed_at), replayed_by = %(by)s,
        updated_at = statement_timestamp()
    FROM items WHERE d.work_item_id = items.id AND d.id = ANY (%(ids)s::uuid[]) AND d.replayed_at IS NULL
    RETURNING d.id
),
queued AS (
    UPDATE work_items AS w
    SET status = 'QUEUED', processed_at = NULL, searchable = false, available_at = statement_timestamp(),
        max_attempts = w.attempt_count + %(extra_attempts)s, updated_at = statement_timestamp()
    WHERE w.id IN (SELECT id FROM items)
)
SELECT id FROM replayed

-- name: hand_over
-- A letter that somebody else is replaying is skipped.
WITH free AS MATERIALIZED (
    SELECT id FROM dead_letters
    WHERE id = %(id)s AND work_item_id IS NULL AND replayed_at IS NULL
        AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE dead_letters AS d
SET replayed_at = statement_timestamp(), replayed_by = %(by)s, updated_at = statement_timestamp()
FROM free WHERE d.id = free.id
RETURNING d.*

-- name: need_handler
-- Whether letters without an item are among the given ones, and no others. Index: the primary key.
SELECT COALESCE(bool_and(work_item_id IS NULL) AND bool_or(replayed_at IS NULL), false)
FROM dead_letters
WHERE id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)

-- name: stats
-- Queued items are not read: they are the open items of the orders, but for those that are held, parked or scheduled.
-- The recursion skips from one tenant with queued items to the next. Indexes: work_items_claim_tenant_idx,
-- work_orders_tenant_status_created_at_idx, attempts_started_idx, work_items_approval_idx, dead_letters_open_idx,
-- attempts_finished_at_idx.
WITH RECURSIVE found (name) AS (
    (
        SELECT w.tenant_id FROM work_items AS w
        WHERE w.status = 'QUEUED' AND (%(tenant)s::text IS NULL OR w.tenant_id = %(tenant)s)
        ORDER BY w.tenant_id LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT w.tenant_id FROM work_items AS w
        WHERE w.status = 'QUEUED' AND w.tenant_id > found.name AND %(tenant)s::text IS NULL
        ORDER BY w.tenant_id LIMIT 1
    )
    FROM found WHERE found.name IS NOT NULL
),
held AS MATERIALIZED (
    SELECT tenant_id, count(*) AS processing,
        count(*) FILTER (WHERE lease_expires_at <= statement_timestamp()) AS expired
    FROM attempts
    WHERE status = 'STARTED' AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    GROUP BY tenant_id
),
parked AS MATERIALIZED (
    SELECT tenant_id, count(*) AS awaiting_approval FROM work_items
    WHERE awaiting_approval AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    GROUP BY tenant_id
),
queued AS (
    SELECT found.name AS tenant_id, later.scheduled, first.oldest,
        greatest(0, open.items - later.scheduled - COALESCE(processing, 0) - COALESCE(awaiting_approval, 0)) AS ready
    FROM found
    LEFT JOIN held ON held.tenant_id = found.name
    LEFT JOIN parked ON parked.tenant_id = found.name
    CROSS JOIN LATERAL (
        SELECT sum(o.open_items) AS items FROM work_orders AS o
        WHERE o.tenant_id = found.name AND o.status IN ('PENDING', 'PROCESSING')
    ) AS open
    CROSS JOIN LATERAL (
        SELECT count(*) AS scheduled
        FROM unnest(ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW']::priority[]) AS lane (priority)
        JOIN work_items AS w ON w.tenant_id = found.name AND w.status = 'QUEUED' AND w.priority = lane.priority
            AND w.available_at > statement_timestamp()
    ) AS later
    CROSS JOIN LATERAL (
        SELECT extract(epoch FROM statement_timestamp() - min(r.available_at))::float8 AS oldest
        FROM unnest(ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW']::priority[]) AS lane (priority)
        CROSS JOIN LATERAL (
            SELECT w.available_at FROM work_items AS w
            WHERE w.tenant_id = found.name AND w.status = 'QUEUED' AND w.priority = lane.priority
            ORDER BY w.available_at NULLS FIRST LIMIT 1
        ) AS r
    ) AS first
    WHERE found.name IS NOT NULL
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

-- name: recount
SELECT * FROM recount_work_orders(%(tenant)s)

-- name: unindexed
-- Index: work_items_unindexed_idx, read in its order as far as the LIMIT.
SELECT count(*), extract(epoch FROM statement_timestamp() - min(processed_at))::float8
FROM (
    SELECT processed_at FROM work_items
    WHERE NOT searchable AND processed_at IS NOT NULL AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    ORDER BY processed_at
    LIMIT 10000
) AS first

-- name: tenants
SELECT tenant_id FROM work_orders WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
UNION
SELECT tenant_id FROM dead_letters WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
ORDER BY tenant_id

-- name: prune_orders
-- Indexes: work_orders_tenant_status_created_at_idx, work_items_work_order_status_type_idx. Deletes as many of the next
-- orders as have a batch of items together; of an order that has more, a batch of its items. Skips orders that ended
-- later, and those with a dead letter that may open them again (not looked for again in the large order `begun`).
-- No batch reads a whole large order: the index returns the first items, OFFSET 0 makes the planner look up their
-- letters one by one, and the array makes it delete the items by their primary key.
WITH following AS MATERIALIZED (
    SELECT o.id, o.created_at,
        (SELECT count(*) FROM (
            SELECT FROM work_items WHERE work_order_id = o.id ORDER BY status, type LIMIT %(items)s + 1
        ) AS w) AS items
    FROM work_orders AS o
    WHERE o.tenant_id = %(tenant_id)s AND o.status = %(status)s AND o.created_at < %(before)s
        AND (o.created_at, o.id) > (%(after_time)s, %(after_id)s)
    ORDER BY o.created_at, o.id
    LIMIT %(orders)s
),
batch AS MATERIALIZED (
    SELECT *, items > %(items)s AS large
    FROM (SELECT *, sum(items) OVER (ORDER BY created_at, id) - items AS items_before FROM following) AS f
    WHERE items_before = 0 OR items_before + items <= %(items)s
),
over AS MATERIALIZED (
    SELECT o.id, o.updated_at, b.items, b.large FROM batch AS b JOIN work_orders AS o ON o.id = b.id
    WHERE o.status = %(status)s AND o.updated_at < %(before)s AND (
        (b.large AND o.id = %(begun)s::uuid) OR NOT EXISTS (
            SELECT FROM work_items AS w JOIN dead_letters AS d ON d.work_item_id = w.id AND d.replayed_at IS NULL
            WHERE w.work_order_id = o.id
        )
    )
    FOR UPDATE OF o SKIP LOCKED
),
gone AS (
    DELETE FROM work_orders AS o USING over WHERE o.id = over.id AND NOT over.large RETURNING over.items
),
-- Failed items go last: while one is left, work_items_roll_up() leaves the order FAILED.
part AS MATERIALIZED (
    SELECT w.id FROM over CROSS JOIN LATERAL (
        SELECT id FROM work_items
        WHERE work_order_id = over.id AND NOT EXISTS (
            SELECT FROM dead_letters AS d WHERE d.work_item_id = work_items.id AND d.replayed_at IS NULL OFFSET 0
        )
        ORDER BY status, type
        LIMIT %(items)s
    ) AS w
    WHERE over.large
),
lessened AS (
    DELETE FROM work_items WHERE id = ANY (ARRAY(SELECT id FROM part)) AND status NOT IN ('QUEUED', 'PROCESSING')
    RETURNING id
)
SELECT created_at, id, (SELECT count(*) FROM gone),
    (SELECT COALESCE(sum(items), 0)::bigint FROM gone) + (SELECT count(*) FROM lessened),
    (SELECT updated_at FROM over WHERE over.large AND EXISTS (SELECT FROM lessened))
FROM batch ORDER BY created_at DESC, id DESC LIMIT 1

-- name: prune_on
-- work_items_roll_up() set the time to now; with it, the order would no longer count as ended before.
UPDATE work_orders SET updated_at = %(ended_at)s WHERE id = %(order_id)s

-- name: prune_letters
-- Index: dead_letters_tenant_id_created_at_idx.
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters
    WHERE tenant_id = %(tenant_id)s AND created_at < %(before)s AND replayed_at < %(before)s
    ORDER BY created_at LIMIT %(items)s
    FOR UPDATE SKIP LOCKED
)
RETURNING id

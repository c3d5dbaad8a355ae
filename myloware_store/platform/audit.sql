-- The statements of the audit trail. A line's place is its epoch and its id; audit_logs_epoch_idx has a tenant's lines in
-- that order. Everything is hashed by the server's own functions, over forms of the values that depend neither on its
-- version nor on settings: JSON arrays, with times in UTC. The place before all lines is that of an epoch below any int.

-- name: line_hash
sha256(convert_to(jsonb_build_array(
    l.id, l.created_at AT TIME ZONE 'UTC', l.tenant_id, l.user_id, l.action, l.resource_type, l.resource_id, l.details,
    l.ip_address::text, l.source, l.db_role, l.epoch
)::text, 'UTF8'))

-- name: seal_hash
encode(sha256(convert_to(jsonb_build_array(
    s.form, s.id, s.created_at AT TIME ZONE 'UTC', s.tenant_id, s.number, s.epoch, s.last_id, s.line_count,
    encode(sha256(s.lines), 'hex'), s.previous_hash
)::text, 'UTF8')), 'hex')

-- name: tenants
-- Those that have lines or seals, found one by one in the indexes.
WITH RECURSIVE with_lines AS (
    (SELECT tenant_id FROM audit_logs ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant_id FROM audit_logs WHERE tenant_id > w.tenant_id ORDER BY tenant_id LIMIT 1)
    FROM with_lines AS w WHERE w.tenant_id IS NOT NULL
),
with_seals AS (
    (SELECT tenant_id FROM audit_seals ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant_id FROM audit_seals WHERE tenant_id > w.tenant_id ORDER BY tenant_id LIMIT 1)
    FROM with_seals AS w WHERE w.tenant_id IS NOT NULL
)
SELECT tenant_id FROM (SELECT tenant_id FROM with_lines UNION SELECT tenant_id FROM with_seals) AS t
WHERE tenant_id IS NOT NULL AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
ORDER BY tenant_id

-- name: has_unsealed
-- False also while the newest seal is younger than `every` seconds; after the clock was put back, its time is to come.
SELECT COALESCE(
    (SELECT created_at FROM audit_seals WHERE tenant_id = %(of)s ORDER BY number DESC LIMIT 1)
        NOT BETWEEN statement_timestamp() - %(every)s * interval '1 second' AND statement_timestamp(),
    true
) AND EXISTS (
    SELECT FROM audit_logs
    WHERE tenant_id = %(of)s AND (epoch, id) > (
        COALESCE((SELECT epoch FROM audit_seals WHERE tenant_id = %(of)s ORDER BY number DESC LIMIT 1), -2147483649),
        COALESCE(
            (SELECT last_id FROM audit_seals WHERE tenant_id = %(of)s ORDER BY number DESC LIMIT 1),
            '00000000-0000-0000-0000-000000000000'
        )
    )
)

-- name: begin_epoch
SELECT nextval('audit_seals_epoch_seq')

-- name: finished_epoch
-- The last epoch that gets no more lines: those before have neither a lock of a transaction that writes lines of them, nor
-- will they get one. This is a statement of its own because the next one must see what such transactions have committed.
SELECT least(%(epoch)s, min(objid::int8)) - 1 FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'audit_seals_epoch_seq'::regclass::oid AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: seal
-- Seals the next lines of a tenant; returns how many there were, and whether no other sealer came first.
WITH last AS MATERIALIZED (
    SELECT number, epoch, last_id, hash FROM audit_seals WHERE tenant_id = %(of)s ORDER BY number DESC LIMIT 1
),
next AS MATERIALIZED (
    SELECT l.id, l.epoch, {line_hash} AS hash
    FROM audit_logs AS l
    WHERE l.tenant_id = %(of)s AND l.epoch <= %(finished)s AND (l.epoch, l.id) > (
        COALESCE((SELECT epoch FROM last), -2147483649),
        COALESCE((SELECT last_id FROM last), '00000000-0000-0000-0000-000000000000')
    )
    ORDER BY l.epoch, l.id
    LIMIT %(most)s
),
s AS MATERIALIZED (
    SELECT %(id)s::uuid AS id, statement_timestamp() AS created_at, %(of)s::text AS tenant_id,
        COALESCE((SELECT number FROM last), 0) + 1 AS number,
        (SELECT epoch FROM next ORDER BY epoch DESC, id DESC LIMIT 1) AS epoch,
        (SELECT id FROM next ORDER BY epoch DESC, id DESC LIMIT 1) AS last_id,
        (SELECT count(*) FROM next)::int AS line_count,
        (SELECT string_agg(uuid_send(id) || hash, ''::bytea ORDER BY epoch, id) FROM next) AS lines,
        1 AS form,
        (SELECT hash FROM last) AS previous_hash
),
stored AS (
    INSERT INTO audit_seals
        (id, created_at, tenant_id, number, epoch, last_id, line_count, lines, form, previous_hash, hash)
    SELECT s.*, {seal_hash} FROM s WHERE s.line_count > 0
    ON CONFLICT (tenant_id, number) DO NOTHING
    RETURNING line_count
)
SELECT (SELECT line_count FROM s), EXISTS (SELECT FROM stored)

-- name: heads
SELECT h.tenant_id, h.number, h.hash, h.created_at
FROM unnest(%(tenants)s::text[]) AS t (tenant_id)
CROSS JOIN LATERAL (
    SELECT * FROM audit_seals AS s WHERE s.tenant_id = t.tenant_id ORDER BY number DESC LIMIT 1
) AS h
ORDER BY h.tenant_id

-- name: pruned_to
-- Index: audit_logs_action_idx.
SELECT COALESCE(max(CASE WHEN details ->> 'seal' ~ '^[0-9]{1,9}$' THEN (details ->> 'seal')::int END), 0)
FROM audit_logs WHERE tenant_id = %(of)s AND action = 'prune' AND resource_type = 'audit_logs'

-- name: check_seals
-- The next seals of a tenant beside the lines that are there now, from behind those of the seal before.
SELECT s.number, s.hash, s.previous_hash, {seal_hash} = s.hash, found.line_count, found.lines IS NOT DISTINCT FROM s.lines
FROM (
    SELECT * FROM audit_seals WHERE tenant_id = %(of)s AND number > %(after)s ORDER BY number LIMIT %(most)s
) AS s
CROSS JOIN LATERAL (
    SELECT count(*) AS line_count, string_agg(uuid_send(l.id) || {line_hash}, ''::bytea ORDER BY l.epoch, l.id) AS lines
    FROM audit_logs AS l
    WHERE {in_seal}
) AS found
ORDER BY s.number

-- name: in_seal
l.tenant_id = s.tenant_id AND (l.epoch, l.id) <= (s.epoch, s.last_id) AND (l.epoch, l.id) > (
    COALESCE((
        SELECT epoch FROM audit_seals AS p WHERE p.tenant_id = s.tenant_id AND p.number < s.number
        ORDER BY number DESC LIMIT 1
    ), -2147483649),
    COALESCE((
        SELECT last_id FROM audit_seals AS p WHERE p.tenant_id = s.tenant_id AND p.number < s.number
        ORDER BY number DESC LIMIT 1
    ), '00000000-0000-0000-0000-000000000000')
)

-- name: compare_seal
SELECT s.lines, ARRAY(
    SELECT uuid_send(l.id) || {line_hash} FROM audit_logs AS l WHERE {in_seal} ORDER BY l.epoch, l.id LIMIT %(most)s
)
FROM audit_seals AS s WHERE s.tenant_id = %(of)s AND s.number = %(number)s

-- name: count_unsealed
SELECT count(*) FROM audit_logs
WHERE tenant_id = %(of)s AND (epoch, id) > (
    COALESCE((SELECT epoch FROM audit_seals WHERE tenant_id = %(of)s ORDER BY number DESC LIMIT 1), -2147483649),
    COALESCE(
        (SELECT last_id FROM audit_seals WHERE tenant_id = %(of)s ORDER BY number DESC LIMIT 1),
        '00000000-0000-0000-0000-000000000000'
    )
)

-- name: prunable
-- The last of a tenant's next seals that were all made before a time.
SELECT max(number) FROM (
    SELECT number, bool_and(created_at < %(before)s) OVER (ORDER BY number) AS old
    FROM audit_seals WHERE tenant_id = %(of)s AND number > %(after)s
    ORDER BY number LIMIT %(most)s
) AS s WHERE old

-- name: prune
WITH gone AS (
    DELETE FROM audit_logs AS l USING audit_seals AS s
    WHERE s.tenant_id = %(of)s AND s.number > %(after)s AND s.number <= %(seal)s AND {in_seal}
    RETURNING 1
)
SELECT count(*) FROM gone

-- The audit trail: one line for every action on the tables that triggers.sql names, in the action's own transaction. The
-- functions run as the owner of the tables, so that a role needs no rights on audit_logs to be recorded in it. Their
-- plans are cached, and one that was made for a million rows would be compiled at every later call: `jit` is off.

-- The id of a line, a UUIDv7: the milliseconds since 1970 in place of a random UUID's first 48 bits, and the version.
CREATE FUNCTION audit_id() RETURNS uuid LANGUAGE sql VOLATILE
RETURN encode(
    set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::int8) FROM 3) FROM 1 FOR 6
    ), 52, 1), 53, 1),
    'hex'
)::uuid;

-- The epoch of a new line: the number of sealings so far. A transaction keeps a shared lock on its lines' epochs, so
-- that a sealing, which begins a new epoch, sees in pg_locks which epochs may still get lines. A writer that read the
-- number before a new epoch began, and got its lock after, reads again. The clock is a sequence because what it holds
-- does not depend on the transaction's snapshot.
CREATE FUNCTION audit_epoch() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    clock CONSTANT regclass := 'audit_seals_epoch_seq';
    epoch int;
BEGIN
    LOOP
        epoch := COALESCE(pg_sequence_last_value(clock), 0);
        PERFORM pg_advisory_xact_lock_shared(clock::oid::int, epoch);
        IF epoch = COALESCE(pg_sequence_last_value(clock), 0) THEN
            RETURN epoch;
        END IF;
    END LOOP;
END
$$;

-- Writes a line for every row: what it was, what it is. The arguments are the columns that no line shows.
CREATE FUNCTION audit_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $$
DECLARE
    hidden CONSTANT text[] := TG_ARGV;
    who CONSTANT text := left(COALESCE(NULLIF(current_setting('myloware.actor', true), ''), session_user), 255);
    epoch CONSTANT int := audit_epoch();
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), COALESCE(j ->> 'tenant_id', '*'), who, 'insert', TG_TABLE_NAME,
            COALESCE(j ->> 'id', (j ->> 'tool_id') || ' ' || (j ->> 'capability_id')),
            jsonb_build_object('after', j - hidden), inet_client_addr(), 'database', session_user, epoch
        FROM (SELECT to_jsonb(r) AS j FROM new_rows AS r) AS n;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), COALESCE(j ->> 'tenant_id', '*'), who, 'delete', TG_TABLE_NAME,
            COALESCE(j ->> 'id', (j ->> 'tool_id') || ' ' || (j ->> 'capability_id')),
            jsonb_build_object('before', j - hidden), inet_client_addr(), 'database', session_user, epoch
        FROM (SELECT to_jsonb(r) AS j FROM old_rows AS r) AS o;
    ELSE
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), COALESCE(j ->> 'tenant_id', '*'), who, 'update', TG_TABLE_NAME,
            COALESCE(j ->> 'id', (j ->> 'tool_id') || ' ' || (j ->> 'capability_id')),
            jsonb_build_object('before', COALESCE(before, '{}'), 'after', COALESCE(after, '{}'))
                || CASE WHEN unseen IS NULL THEN '{}' ELSE jsonb_build_object('hidden', unseen) END,
            inet_client_addr(), 'database', session_user, epoch
        FROM (
            SELECT COALESCE(n.j, o.j) AS j, c.*
            FROM (SELECT to_jsonb(r) AS j FROM old_rows AS r) AS o
            -- A row whose key or tenant was changed has a line for what it was, and one for what it is.
            FULL JOIN (SELECT to_jsonb(r) AS j FROM new_rows AS r) AS n
                ON COALESCE(o.j ->> 'id', (o.j ->> 'tool_id') || ' ' || (o.j ->> 'capability_id'))
                    = COALESCE(n.j ->> 'id', (n.j ->> 'tool_id') || ' ' || (n.j ->> 'capability_id'))
                AND COALESCE(o.j ->> 'tenant_id', '*') = COALESCE(n.j ->> 'tenant_id', '*')
            CROSS JOIN LATERAL (
                SELECT jsonb_object_agg(key, o.j -> key) FILTER (WHERE key <> ALL (hidden)) AS before,
                    jsonb_object_agg(key, n.j -> key) FILTER (WHERE key <> ALL (hidden)) AS after,
                    jsonb_agg(key) FILTER (WHERE key = ANY (hidden)) AS unseen,
                    -- A health check that finds what the one before found is no action.
                    bool_or(key <> 'last_health_check') AS changed
                FROM jsonb_object_keys(COALESCE(n.j, o.j)) AS _ (key)
                WHERE key <> 'updated_at' AND (o.j -> key) IS DISTINCT FROM (n.j -> key)
            ) AS c
            WHERE c.changed
        ) AS changes;
    END IF;
    RETURN NULL;
END
$$;

-- Writes a line for every tenant, with the ids of the rows, a thousand at most; and one for a TRUNCATE.
CREATE FUNCTION audit_ids() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $$
DECLARE
    who CONSTANT text := left(COALESCE(NULLIF(current_setting('myloware.actor', true), ''), session_user), 255);
    epoch CONSTANT int := audit_epoch();
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, ip_address, source, db_role, epoch)
        VALUES (
            audit_id(), '*', who, 'truncate', TG_TABLE_NAME, '*', inet_client_addr(), 'database', session_user, epoch
        );
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), tenant_id, who, 'insert', TG_TABLE_NAME,
            CASE WHEN count(*) = 1 THEN min(id::text) ELSE '*' END,
            CASE WHEN count(*) = 1 THEN '{}' ELSE jsonb_build_object('ids', jsonb_agg(id)) END,
            inet_client_addr(), 'database', session_user, epoch
        FROM (
            SELECT tenant_id, id, (row_number() OVER (PARTITION BY tenant_id) - 1) / 1000 AS part FROM new_rows
        ) AS numbered
        GROUP BY tenant_id, part;
    ELSE
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), tenant_id, who, 'delete', TG_TABLE_NAME,
            CASE WHEN count(*) = 1 THEN min(id::text) ELSE '*' END,
            CASE WHEN count(*) = 1 THEN '{}' ELSE jsonb_build_object('ids', jsonb_agg(id)) END,
            inet_client_addr(), 'database', session_user, epoch
        FROM (
            SELECT tenant_id, id, (row_number() OVER (PARTITION BY tenant_id) - 1) / 1000 AS part FROM old_rows
        ) AS numbered
        GROUP BY tenant_id, part;
    END IF;
    RETURN NULL;
END
$$;

-- Sets the columns of an application's line that its writer must not choose.
CREATE FUNCTION audit_stamp() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    -- `verify` believes such a line: it says what was pruned.
    IF NEW.resource_type = 'audit_logs' AND NOT has_table_privilege(
        COALESCE(NULLIF(current_setting('role'), 'none')::name, session_user), 'audit_logs', 'DELETE'
    ) THEN
        RAISE EXCEPTION 'only a role that may prune audit_logs may record it' USING ERRCODE = 'insufficient_privilege';
    END IF;
    NEW.epoch := audit_epoch();
    NEW.db_role := session_user;
    RETURN NEW;
END
$$;

-- `myloware-store audit prune` deletes sealed lines; it alone sets the parameter.
CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('myloware.audit_prune', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = TG_TABLE_NAME || ' is append-only';
END
$$;

-- Planning the statements of these functions costs more than running them. PL/pgSQL plans them once per session, behind
-- any pooler. A cached plan must not depend on how full the tables were when it was made, so each statement has only
-- one possible plan: it finds rows by `id = ANY (...)` of a variable, one by one in a LATERAL, or in the order of an
-- index up to a LIMIT. Plans that read a whole table or partial index are turned off or made impossible: `finished_at
-- IS NULL` instead of the status in the predicate of partial indexes; OFFSET 0 in an EXISTS, which prevents hashing it
-- as a whole. A necessary sort that is turned off costs 1e10, and a server with LLVM compiles plans of such a cost at
-- every call, which takes 0.4 s: so `jit` is off, too.
--
-- The functions take and return labels as text: an enum type that one of them named could not be recreated.

-- Stores nothing if the schemas that the documents were checked against (`stamps`, as `schemas.active` read them)
-- are no longer the active ones; then `holds` is false. Returns no time if its key was used before, or the order with
-- its unique key is open.
-- Indexes: schemas_active_idx, work_orders_tenant_id_idempotency_key_key, work_orders_unique_key_idx.
CREATE FUNCTION submit_work_order(
    order_id uuid, of_tenant text, of_priority text, workflow text, author text, details jsonb, key text,
    item_ids uuid[], item_types text[], contents text[], available timestamptz, tries int,
    document_types text[], stamps text[], retries jsonb, alone text
) RETURNS TABLE (holds bool, created_at timestamptz, metadata jsonb) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    due CONSTANT timestamptz := COALESCE(available, statement_timestamp());
    urgency CONSTANT priority := of_priority;
    outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
    counts text;
BEGIN
    holds := stamps = ARRAY(
        SELECT concat_ws(' ', id, xmin, ctid) COLLATE "C" FROM schemas
        WHERE is_active AND document_type = ANY (document_types)
        ORDER BY 1
    );
    IF holds THEN
        counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
        INSERT INTO work_orders AS o
            (id, tenant_id, priority, workflow_id, created_by, metadata, idempotency_key, unique_key, retry_policy,
            open_items)
        VALUES (order_id, of_tenant, urgency, workflow, author, details, key, alone, retries, cardinality(item_ids))
        ON CONFLICT DO NOTHING
        RETURNING o.created_at, o.metadata INTO created_at, metadata;
        IF FOUND THEN
            IF contents <> '{}' THEN  -- otherwise the caller copies the items into the table
                INSERT INTO work_items
                    (id, tenant_id, work_order_id, type, content, priority, available_at, max_attempts)
                SELECT given.id, of_tenant, order_id, given.type, given.content, urgency, due, tries
                FROM unnest(item_ids, item_types::work_item_type[], contents) AS given (id, type, content);
            END IF;
            -- As work_items_roll_up() does.
            IF due <= statement_timestamp()
                AND NOT pg_try_advisory_xact_lock(1836674167, 'work_items'::regclass::oid::int) THEN
                PERFORM pg_notify('myloware_work', 'work_items'::regclass::oid::text);
            END IF;
        END IF;
        counts := set_config('myloware.counts', outside, true);
    END IF;
    RETURN NEXT;
END
$$;

-- Stores an order in the transaction of another driver, from the parameters as JSON, and returns its id. In contrast to
-- `Work.submit`, which looks up what kept an order from being stored, it does everything in one statement. It can be
-- repeated. In `json_to_record`, a column of type json keeps a string a string: metadata and policy are text.
CREATE FUNCTION submit_work_order_json(given json) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    o record;
    stored record;
    first_id uuid;
BEGIN
    SELECT * INTO o FROM json_to_record(given) AS g (
        order_id uuid, tenant_id text, priority text, workflow_id text, created_by text, metadata text, key text,
        item_ids uuid[], types text[], contents text[], available_at timestamptz, max_attempts int,
        document_types text[], stamps text[], retry_policy text, unique_key text
    );
    LOOP
        SELECT s.holds, s.created_at INTO stored
        FROM submit_work_order(
            o.order_id, o.tenant_id, o.priority, o.workflow_id, o.created_by, o.metadata::jsonb, o.key,
            o.item_ids, o.types, o.contents, o.available_at, o.max_attempts,
            o.document_types, o.stamps, o.retry_policy::jsonb, o.unique_key
        ) AS s;
        IF NOT stored.holds AND EXISTS (SELECT FROM work_orders WHERE id = o.order_id) THEN
            RETURN o.order_id;  -- it was stored before they changed
        ELSIF NOT stored.holds THEN
            RAISE EXCEPTION USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'the active schemas have changed since this statement was made; make it again';
        ELSIF stored.created_at IS NOT NULL THEN
            RETURN o.order_id;
        END IF;
        SELECT id INTO first_id FROM work_orders WHERE tenant_id = o.tenant_id AND idempotency_key = o.key;
        IF FOUND AND ARRAY(
            SELECT type::text || ' ' || content AS item FROM work_items
            WHERE work_order_id = first_id ORDER BY item
        ) <> ARRAY(
            SELECT type || ' ' || content AS item FROM unnest(o.types, o.contents) AS g (type, content)
            ORDER BY item
        ) THEN
            RAISE EXCEPTION USING
                ERRCODE = 'unique_violation', TABLE = 'work_orders',
                CONSTRAINT = 'work_orders_tenant_id_idempotency_key_key',
                MESSAGE = 'the idempotency key was used before, with other items, for order ' || first_id;
        ELSIF NOT FOUND THEN
            SELECT id INTO first_id FROM work_orders
            WHERE id = o.order_id
                OR (tenant_id = o.tenant_id AND unique_key = o.unique_key AND status IN ('PENDING', 'PROCESSING'))
            ORDER BY id = o.order_id DESC LIMIT 1;
        END IF;
        IF first_id IS NOT NULL THEN
            RETURN first_id;
        END IF;
        -- The order with the unique key has ended meanwhile.
    END LOOP;
END
$$;

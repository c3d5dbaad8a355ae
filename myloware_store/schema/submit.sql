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
-- are no longer the active ones; then `holds` is false. Returns no order if its key was used before, or the order
-- with its unique key is open.
-- Indexes: schemas_active_idx, work_orders_tenant_id_idempotency_key_key, work_orders_unique_key_idx.
CREATE FUNCTION submit_work_order(
    order_id uuid, of_tenant text, of_priority text, workflow text, author text, details jsonb, key text,
    item_ids uuid[], item_types text[], contents text[], available timestamptz, tries int,
    document_types text[], stamps text[], retries jsonb, alone text
) RETURNS TABLE (
    holds bool, id uuid, created_at timestamptz, tenant_id text, status text, priority text,
    workflow_id text, created_by text, metadata jsonb, idempotency_key text, unique_key text, open_items int,
    failed_items int, cancelled_at timestamptz, retry_policy jsonb, updated_at timestamptz
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH checked AS MATERIALIZED (
        SELECT (
            SELECT COALESCE(array_agg(s.stamp ORDER BY s.stamp COLLATE "C"), '{}') = stamps
            FROM (
                SELECT concat_ws(' ', id, xmin, ctid) AS stamp FROM schemas
                WHERE is_active AND document_type = ANY (document_types)
            ) AS s
        ) AS holds
    ),
    made AS (
        INSERT INTO work_orders
            (id, tenant_id, priority, workflow_id, created_by, metadata, idempotency_key, unique_key, retry_policy)
        SELECT order_id, of_tenant, of_priority::priority, workflow, author, details, key, alone, retries
        FROM checked WHERE holds
        ON CONFLICT DO NOTHING
        RETURNING *
    ),
    items AS (
        INSERT INTO work_items (id, tenant_id, work_order_id, type, content, priority, available_at, max_attempts)
        SELECT given.id, made.tenant_id, made.id, given.type::work_item_type, given.content, made.priority,
            COALESCE(available, statement_timestamp()), tries
        FROM made, unnest(item_ids, item_types, contents) AS given (id, type, content)
    )
    SELECT c.holds, m.id, m.created_at, m.tenant_id, m.status::text, m.priority::text, m.workflow_id, m.created_by,
        m.metadata, m.idempotency_key, m.unique_key, m.open_items, m.failed_items, m.cancelled_at,
        m.retry_policy::jsonb, m.updated_at
    FROM checked AS c LEFT JOIN made AS m ON true;
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
        IF NOT stored.holds THEN
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
                OR (tenant_id = o.tenant_id AND unique_key = o.unique_key AND status IN ('PENDING', 'PROCESSING'));
        END IF;
        IF first_id IS NOT NULL THEN
            RETURN first_id;
        END IF;
        -- The order with the unique key has ended meanwhile.
    END LOOP;
END
$$;

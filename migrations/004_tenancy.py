# ruff: noqa: E501
"""Functions for row-level security, which `myloware-store tenancy enforce` turns on.

While it is on, claims, finishes and searches keep to the tenant in force. While it is off, they cost what they did before.
See myloware_store/schema/tenancy.sql.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import peewee
    from peewee_migrate import Migrator

BACKWARD_COMPATIBLE = True

MIGRATE = (
    "SET LOCAL check_function_bodies = off",
    """
    CREATE OR REPLACE FUNCTION claim_work_items(most integer, agent text, lease double precision, attempt_ids uuid[],
        of_types text[], of_tenants text[], fairly boolean, since timestamp with time zone[], behind uuid[],
        known_types text[], mending boolean, ended uuid[])
     RETURNS TABLE(item_id text, attempt_id text, attempt_number integer, type text, content text, tenant_id text,
        work_order_id text, lease_expires_at text, priority text, available_at text)
     LANGUAGE plpgsql
     SET plan_cache_mode TO 'force_generic_plan'
     SET enable_seqscan TO 'off'
     SET enable_bitmapscan TO 'off'
     SET jit TO 'off'
     SET enable_sort TO 'off'
    AS $function$
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
$function$
    """,
    """
    CREATE OR REPLACE FUNCTION finish_work_items(item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated boolean,
        of_tenant text, wholly boolean, claiming boolean, OUT refused uuid[], OUT ended uuid[])
     RETURNS record
     LANGUAGE plpgsql
     SET plan_cache_mode TO 'force_generic_plan'
     SET enable_seqscan TO 'off'
     SET enable_bitmapscan TO 'off'
     SET jit TO 'off'
    AS $function$
DECLARE
    done CONSTANT work_item_status := CASE WHEN gated THEN 'PROCESSING' ELSE 'COMPLETED' END;
    held uuid[];
    outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
    counts text;
BEGIN
    IF row_security_active('work_items') AND tenancy_enforced('work_items') THEN
        SELECT f.refused, f.ended INTO refused, ended
        FROM finish_in_tenant(item_ids, attempt_ids, outputs, gated, wholly, claiming) AS f;
        RETURN;
    END IF;
    IF wholly THEN
        BEGIN
            SELECT f.refused INTO refused
            FROM finish_work_items(item_ids, attempt_ids, outputs, gated, of_tenant, false, false) AS f;
            IF refused <> '{}' THEN
                RAISE EXCEPTION USING ERRCODE = 'MW001';
            END IF;
        EXCEPTION WHEN SQLSTATE 'MW001' THEN  -- undoes what it wrote
        END;
        RETURN;
    END IF;

    counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
    WITH finished AS (
        UPDATE work_items AS w
        SET status = done, awaiting_approval = gated, result = outputs -> width_bucket(w.id, item_ids) - 1,
            processed_at = CASE WHEN NOT gated THEN statement_timestamp() END, updated_at = statement_timestamp()
        WHERE w.id = ANY (item_ids) AND w.status IS NOT DISTINCT FROM 'PROCESSING' AND NOT w.awaiting_approval
            AND w.current_attempt_id = attempt_ids[width_bucket(w.id, item_ids)]
            AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
            AND EXISTS (
                SELECT FROM attempts AS a
                WHERE a.id = w.current_attempt_id AND a.finished_at IS NULL
                    AND a.lease_expires_at > statement_timestamp()
                OFFSET 0
            )
        RETURNING w.id, w.current_attempt_id, w.work_order_id
    ),
    ended AS (
        UPDATE attempts AS a
        SET status = 'COMPLETED', output = outputs -> width_bucket(a.work_item_id, item_ids) - 1,
            finished_at = statement_timestamp(), updated_at = statement_timestamp(),
            duration_ms = least(
                greatest(
                    0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000
                ),
                2147483647
            )
        WHERE a.id = ANY (ARRAY(SELECT current_attempt_id FROM finished))
    )
    SELECT array_agg(id), array_agg(work_order_id) INTO held, ended FROM finished;
    ended := CASE WHEN gated THEN '{}' ELSE COALESCE(ended, '{}') END;

    IF NOT claiming AND ended <> '{}' THEN
        UPDATE work_orders AS o
        SET open_items = o.open_items - cardinality(array_positions(ended, o.id)),
            updated_at = statement_timestamp(),
            status = CASE
                WHEN o.open_items > cardinality(array_positions(ended, o.id)) THEN 'PROCESSING'
                WHEN o.failed_items > 0 THEN 'FAILED'
                ELSE 'COMPLETED'
            END::work_order_status
        WHERE o.id = ANY (ended);
    END IF;
    counts := set_config('myloware.counts', outside, true);
    IF cardinality(held) = cardinality(item_ids) THEN
        refused := '{}';
        RETURN;
    END IF;
    refused := ARRAY(
        SELECT given.item_id FROM unnest(item_ids, attempt_ids) AS given (item_id, attempt_id)
        WHERE NOT EXISTS (
            SELECT FROM work_items AS w JOIN attempts AS a ON a.id = w.current_attempt_id
            WHERE w.id = given.item_id AND a.id = given.attempt_id AND a.status = 'COMPLETED'
                AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
                AND gated = (
                    w.awaiting_approval
                    OR EXISTS (
                        SELECT FROM approval_events WHERE work_item_id = w.id AND decision <> 'ESCALATED' OFFSET 0
                    )
                )
            OFFSET 0
        )
    );
END
$function$
    """,
    """
    CREATE OR REPLACE FUNCTION search_work_items(query tsquery, most integer, of_tenant text)
     RETURNS SETOF uuid
     LANGUAGE plpgsql
     STABLE
     SET plan_cache_mode TO 'force_custom_plan'
    AS $function$
BEGIN
    IF row_security_active('work_items') AND tenancy_enforced('work_items') THEN
        RETURN QUERY SELECT search_in_tenant(query, most);
        RETURN;
    END IF;
    RETURN QUERY
    WITH RECURSIVE owners (name) AS (
        (
            SELECT tenant_id FROM work_orders
            WHERE of_tenant IS NULL OR tenant_id = of_tenant
            ORDER BY tenant_id LIMIT 1
        )
        UNION ALL
        SELECT (SELECT o.tenant_id FROM work_orders AS o WHERE o.tenant_id > owners.name ORDER BY o.tenant_id LIMIT 1)
        FROM owners WHERE owners.name IS NOT NULL AND of_tenant IS NULL
    ),
    unindexed AS (
        SELECT id, created_at, tenant_id, content FROM work_items WHERE NOT searchable AND processed_at IS NOT NULL
        UNION ALL
        SELECT id, created_at, tenant_id, content FROM work_items WHERE status = 'QUEUED'
        UNION ALL
        SELECT w.*
        FROM owners CROSS JOIN LATERAL (
            SELECT id FROM work_orders WHERE tenant_id = owners.name AND status = 'PROCESSING' OFFSET 0
        ) AS o
        CROSS JOIN LATERAL (
            SELECT id, created_at, tenant_id, content FROM work_items
            WHERE work_order_id = o.id AND status = 'PROCESSING' OFFSET 0
        ) AS w
    ),
    found AS (
        SELECT id, created_at, tenant_id FROM work_items
        WHERE searchable AND processed_at IS NOT NULL AND content_search(content) @@ (query && !!$q$' '$q$::tsquery)
        UNION ALL
        SELECT id, created_at, tenant_id FROM work_items
        WHERE searchable AND processed_at IS NOT NULL AND content_search(content) @@ $q$' '$q$::tsquery
            AND content_matches(content, query)
        UNION ALL
        SELECT id, created_at, tenant_id FROM unindexed WHERE content_matches(content, query)
    )
    SELECT id FROM found
    WHERE numnode(query) > 0 AND (of_tenant IS NULL OR tenant_id = of_tenant)
    ORDER BY created_at DESC, id DESC
    LIMIT most;
END
$function$
    """,
    """
    CREATE OR REPLACE FUNCTION tenant_in_force()
     RETURNS text
     LANGUAGE plpgsql
     STABLE PARALLEL SAFE
    AS $function$
DECLARE
    tenant CONSTANT text := NULLIF(current_setting('myloware.tenant', true), '');
BEGIN
    IF tenant IS NULL THEN
        RAISE EXCEPTION 'row-level security is enforced, and no tenant is in force' USING ERRCODE = 'MW002';
    END IF;
    RETURN tenant;
END
$function$
    """,
    """
    CREATE OR REPLACE FUNCTION tenancy_enforced(of_table text)
     RETURNS boolean
     LANGUAGE sql
     STABLE
    AS $function$
    SELECT row_security_active(of_table)
        AND (SELECT bool_and(polname = 'tenant_isolation') FROM pg_policy WHERE polrelid = of_table::regclass) IS TRUE
$function$
    """,
    """
    CREATE OR REPLACE FUNCTION claim_in_tenant(most integer, agent text, lease double precision, attempt_ids uuid[],
        of_types text[], of_tenants text[], fairly boolean, since timestamp with time zone[], behind uuid[],
        known_types text[], mending boolean, ended uuid[])
     RETURNS TABLE(item_id text, attempt_id text, attempt_number integer, type text, content text, tenant_id text,
        work_order_id text, lease_expires_at text, priority text, available_at text)
     LANGUAGE plpgsql
     SECURITY DEFINER
    AS $function$
#variable_conflict use_column
DECLARE
    tenant CONSTANT text := tenant_in_force();
BEGIN
    RETURN QUERY SELECT * FROM claim_work_items(
        most, agent, lease, attempt_ids, of_types,
        CASE WHEN of_tenants IS NULL OR tenant = ANY (of_tenants) THEN ARRAY[tenant] ELSE '{}' END,
        fairly, since, behind, known_types, mending,
        ARRAY(
            SELECT o.id FROM unnest(ended) AS given (id) JOIN work_orders AS o ON o.id = given.id
            WHERE o.tenant_id = tenant
        )
    );
END
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION claim_in_tenant(most integer, agent text, lease double precision, attempt_ids uuid[], of_types text[], of_tenants text[], fairly boolean, since timestamp with time zone[], behind uuid[], known_types text[], mending boolean, ended uuid[]) SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    """
    REVOKE EXECUTE ON FUNCTION claim_in_tenant(most integer, agent text, lease double precision, attempt_ids uuid[],
        of_types text[], of_tenants text[], fairly boolean, since timestamp with time zone[], behind uuid[],
        known_types text[], mending boolean, ended uuid[]) FROM PUBLIC
    """,
    """
    CREATE OR REPLACE FUNCTION finish_in_tenant(item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated boolean,
        wholly boolean, claiming boolean, OUT refused uuid[], OUT ended uuid[])
     RETURNS record
     LANGUAGE plpgsql
     SECURITY DEFINER
    AS $function$
BEGIN
    SELECT f.refused, f.ended INTO refused, ended
    FROM finish_work_items(item_ids, attempt_ids, outputs, gated, tenant_in_force(), wholly, claiming) AS f;
END
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION finish_in_tenant(item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated boolean, wholly boolean, claiming boolean, OUT refused uuid[], OUT ended uuid[]) SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    """
    REVOKE EXECUTE ON FUNCTION finish_in_tenant(item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated boolean,
        wholly boolean, claiming boolean, OUT refused uuid[], OUT ended uuid[]) FROM PUBLIC
    """,
    """
    CREATE OR REPLACE FUNCTION search_in_tenant(query tsquery, most integer)
     RETURNS SETOF uuid
     LANGUAGE plpgsql
     STABLE SECURITY DEFINER
    AS $function$
BEGIN
    RETURN QUERY SELECT search_work_items(query, most, tenant_in_force());
END
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION search_in_tenant(query tsquery, most integer) SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    "REVOKE EXECUTE ON FUNCTION search_in_tenant(query tsquery, most integer) FROM PUBLIC",
    """
    CREATE OR REPLACE FUNCTION match_in_tenant(query tsquery)
     RETURNS SETOF uuid
     LANGUAGE sql
     STABLE SECURITY DEFINER
    AS $function$
    SELECT id FROM mem_docs
    WHERE search @@ query AND tenant_id = COALESCE(NULLIF(current_setting('myloware.tenant', true), ''), tenant_in_force())
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION match_in_tenant(query tsquery) SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    "REVOKE EXECUTE ON FUNCTION match_in_tenant(query tsquery) FROM PUBLIC",
)

ROLLBACK = (
    "SET LOCAL check_function_bodies = off",
    "DROP ROUTINE match_in_tenant(query tsquery)",
    "DROP ROUTINE search_in_tenant(query tsquery, most integer)",
    """
    DROP ROUTINE finish_in_tenant(item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated boolean, wholly boolean,
        claiming boolean, OUT refused uuid[], OUT ended uuid[])
    """,
    """
    DROP ROUTINE claim_in_tenant(most integer, agent text, lease double precision, attempt_ids uuid[], of_types text[],
        of_tenants text[], fairly boolean, since timestamp with time zone[], behind uuid[], known_types text[], mending
        boolean, ended uuid[])
    """,
    "DROP ROUTINE tenancy_enforced(of_table text)",
    "DROP ROUTINE tenant_in_force()",
    "DROP ROUTINE search_work_items(query tsquery, most integer, of_tenant text)",
    """
    CREATE OR REPLACE FUNCTION finish_work_items(item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated boolean,
        of_tenant text, wholly boolean, claiming boolean, OUT refused uuid[], OUT ended uuid[])
     RETURNS record
     LANGUAGE plpgsql
     SET plan_cache_mode TO 'force_generic_plan'
     SET enable_seqscan TO 'off'
     SET enable_bitmapscan TO 'off'
     SET jit TO 'off'
    AS $function$
    DECLARE
        done CONSTANT work_item_status := CASE WHEN gated THEN 'PROCESSING' ELSE 'COMPLETED' END;
        held uuid[];
        outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
        counts text;
    BEGIN
        IF wholly THEN
            BEGIN
                SELECT f.refused INTO refused
                FROM finish_work_items(item_ids, attempt_ids, outputs, gated, of_tenant, false, false) AS f;
                IF refused <> '{}' THEN
                    RAISE EXCEPTION USING ERRCODE = 'MW001';
                END IF;
            EXCEPTION WHEN SQLSTATE 'MW001' THEN  -- undoes what it wrote
            END;
            RETURN;
        END IF;

        counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
        WITH finished AS (
            UPDATE work_items AS w
            SET status = done, awaiting_approval = gated, result = outputs -> width_bucket(w.id, item_ids) - 1,
                processed_at = CASE WHEN NOT gated THEN statement_timestamp() END, updated_at = statement_timestamp()
            WHERE w.id = ANY (item_ids) AND w.status IS NOT DISTINCT FROM 'PROCESSING' AND NOT w.awaiting_approval
                AND w.current_attempt_id = attempt_ids[width_bucket(w.id, item_ids)]
                AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
                AND EXISTS (
                    SELECT FROM attempts AS a
                    WHERE a.id = w.current_attempt_id AND a.finished_at IS NULL
                        AND a.lease_expires_at > statement_timestamp()
                    OFFSET 0
                )
            RETURNING w.id, w.current_attempt_id, w.work_order_id
        ),
        ended AS (
            UPDATE attempts AS a
            SET status = 'COMPLETED', output = outputs -> width_bucket(a.work_item_id, item_ids) - 1,
                finished_at = statement_timestamp(), updated_at = statement_timestamp(),
                duration_ms = least(
                    greatest(
                        0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000
                    ),
                    2147483647
                )
            WHERE a.id = ANY (ARRAY(SELECT current_attempt_id FROM finished))
        )
        SELECT array_agg(id), array_agg(work_order_id) INTO held, ended FROM finished;
        ended := CASE WHEN gated THEN '{}' ELSE COALESCE(ended, '{}') END;

        IF NOT claiming AND ended <> '{}' THEN
            UPDATE work_orders AS o
            SET open_items = o.open_items - cardinality(array_positions(ended, o.id)),
                updated_at = statement_timestamp(),
                status = CASE
                    WHEN o.open_items > cardinality(array_positions(ended, o.id)) THEN 'PROCESSING'
                    WHEN o.failed_items > 0 THEN 'FAILED'
                    ELSE 'COMPLETED'
                END::work_order_status
            WHERE o.id = ANY (ended);
        END IF;
        counts := set_config('myloware.counts', outside, true);
        IF cardinality(held) = cardinality(item_ids) THEN
            refused := '{}';
            RETURN;
        END IF;
        refused := ARRAY(
            SELECT given.item_id FROM unnest(item_ids, attempt_ids) AS given (item_id, attempt_id)
            WHERE NOT EXISTS (
                SELECT FROM work_items AS w JOIN attempts AS a ON a.id = w.current_attempt_id
                WHERE w.id = given.item_id AND a.id = given.attempt_id AND a.status = 'COMPLETED'
                    AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
                    AND gated = (
                        w.awaiting_approval
                        OR EXISTS (
                            SELECT FROM approval_events WHERE work_item_id = w.id AND decision <> 'ESCALATED' OFFSET 0
                        )
                    )
                OFFSET 0
            )
        );
    END
    $function$
    """,
    """
    CREATE OR REPLACE FUNCTION claim_work_items(most integer, agent text, lease double precision, attempt_ids uuid[],
        of_types text[], of_tenants text[], fairly boolean, since timestamp with time zone[], behind uuid[],
        known_types text[], mending boolean, ended uuid[])
     RETURNS TABLE(item_id text, attempt_id text, attempt_number integer, type text, content text, tenant_id text,
        work_order_id text, lease_expires_at text, priority text, available_at text)
     LANGUAGE plpgsql
     SET plan_cache_mode TO 'force_generic_plan'
     SET enable_seqscan TO 'off'
     SET enable_bitmapscan TO 'off'
     SET jit TO 'off'
     SET enable_sort TO 'off'
    AS $function$
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
    $function$
    """,
)


def migrate(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Apply it."""
    for statement in MIGRATE:
        migrator.sql(statement)


def rollback(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Undo it."""
    for statement in ROLLBACK:
        migrator.sql(statement)

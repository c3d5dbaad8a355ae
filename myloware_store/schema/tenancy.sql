-- `myloware-store tenancy enforce` creates the policies. Under row-level security, the server runs a condition before the policy only if its function is marked LEAKPROOF, and
-- the equality of enums and `@@` are not: their indexes are not used. These functions run with the rights of the owner,
-- whom policies do not bind, and narrow themselves to the tenant in force. PUBLIC may not call them.

-- Returns the tenant in force in this transaction, or raises an error: with no tenant, the policies would hide everything.
CREATE FUNCTION tenant_in_force() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    tenant CONSTANT text := NULLIF(current_setting('myloware.tenant', true), '');
BEGIN
    IF tenant IS NULL THEN
        RAISE EXCEPTION 'row-level security is enforced, and no tenant is in force' USING ERRCODE = 'MW002';
    END IF;
    RETURN tenant;
END
$$;

-- Returns whether our policies apply to this role, and no others do, of which the functions below would know nothing.
CREATE FUNCTION tenancy_enforced(of_table text) RETURNS bool LANGUAGE sql STABLE AS $$
    SELECT row_security_active(of_table)
        AND (SELECT bool_and(polname = 'tenant_isolation') FROM pg_policy WHERE polrelid = of_table::regclass) IS TRUE
$$;

CREATE FUNCTION claim_in_tenant(
    most int, agent text, lease float8, attempt_ids uuid[],
    of_types text[], of_tenants text[], fairly bool, since timestamptz[], behind uuid[], known_types text[],
    mending bool, ended uuid[]
) RETURNS TABLE (
    item_id text, attempt_id text, attempt_number int, type text, content text, tenant_id text,
    work_order_id text, lease_expires_at text, priority text, available_at text
) LANGUAGE plpgsql SECURITY DEFINER AS $$
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
$$;

CREATE FUNCTION finish_in_tenant(
    item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated bool, wholly bool, claiming bool,
    OUT refused uuid[], OUT ended uuid[]
) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    SELECT f.refused, f.ended INTO refused, ended
    FROM finish_work_items(item_ids, attempt_ids, outputs, gated, tenant_in_force(), wholly, claiming) AS f;
END
$$;

-- Index: work_items_content_fts_idx.
CREATE FUNCTION search_in_tenant(query tsquery, most int) RETURNS SETOF uuid LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY SELECT search_work_items(query, most, tenant_in_force());
END
$$;

-- Returns the documents that match, one at a time: a caller may read the first ones only.
-- Index: mem_docs_search_idx, or that of the tenant if it has few documents.
CREATE FUNCTION match_in_tenant(query tsquery) RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT id FROM mem_docs
    WHERE search @@ query AND tenant_id = COALESCE(NULLIF(current_setting('myloware.tenant', true), ''), tenant_in_force())
$$;

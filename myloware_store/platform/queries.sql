-- The statements of the platform's repositories, one round trip each.

-- name: connector_to_register
-- The connector of a name as it is stored, if it is, and the active schemas of the type that it is to have.
-- Index: connectors_tenant_id_name_key.
SELECT c.id, c.config::text AS config, s.definitions
FROM (
    SELECT COALESCE(jsonb_agg(schema_definition), '[]') AS definitions
    FROM schemas
    WHERE is_active AND document_type = %(type)s
) AS s
LEFT JOIN connectors AS c ON c.tenant_id = %(owner)s AND c.name = %(name)s

-- name: definitions_of_types
SELECT schema_definition FROM schemas WHERE is_active AND document_type = ANY (%(types)s)

-- name: lock_connector
-- Index: the primary key.
SELECT tenant_id, type, config::text FROM connectors WHERE id = %(id)s FOR NO KEY UPDATE

-- name: read_connector
-- Index: the primary key, or connectors_tenant_id_name_key.
SELECT c.*, c.config::text AS stored
FROM connectors AS c
WHERE (id = %(id)s OR (tenant_id = %(owner)s AND name = %(name)s))
    AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)

-- name: connectors_after
-- A batch of connectors of all tenants. Index: the primary key.
SELECT id, tenant_id, name, type::text, config::text
FROM connectors
WHERE id > %(after)s
ORDER BY id
LIMIT %(limit)s

-- name: connector_again
SELECT id, tenant_id, name, type::text, config::text FROM connectors WHERE id = %(id)s

-- name: replace_secrets
-- {config} is the config with its secrets replaced, each by one `jsonb_set`, so that the rest keeps its numbers as they are.
UPDATE connectors SET config = {config}, updated_at = statement_timestamp()
WHERE id = %(id)s AND tenant_id = %(tenant_id)s AND config = %(seen)s::jsonb

-- name: register_connector
-- Index: connectors_tenant_id_name_key. What is not given (NULL) stays as it was. A config that is bound to its row, for it
-- contains secrets, replaces only the one that was seen of the row with this id.
INSERT INTO connectors AS c (id, tenant_id, name, type, config, status)
VALUES (%(id)s, %(owner)s, %(name)s, %(type)s, COALESCE(%(config)s::jsonb, '{}'),
    COALESCE(%(status)s::connector_status, 'INACTIVE'))
ON CONFLICT (tenant_id, name) DO UPDATE
SET type = EXCLUDED.type, config = COALESCE(%(config)s::jsonb, c.config),
    status = COALESCE(%(status)s::connector_status, c.status),
    updated_at = CASE
        WHEN (c.type, c.config, c.status) IS DISTINCT FROM (EXCLUDED.type, COALESCE(%(config)s::jsonb, c.config),
            COALESCE(%(status)s::connector_status, c.status)) THEN statement_timestamp()
        ELSE c.updated_at
    END
WHERE NOT %(bound)s OR (c.id = EXCLUDED.id AND c.config = %(seen)s::jsonb)
RETURNING c.*

-- name: record_health
-- Index: the primary key, or connectors_tenant_id_name_key. `probed` is how the connector was when its check began.
UPDATE connectors
SET status = %(status)s, last_health_check = statement_timestamp(), updated_at = statement_timestamp()
WHERE (id = %(id)s OR (tenant_id = %(owner)s AND name = %(name)s))
    AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    AND (%(probed_type)s::connector_type IS NULL OR (
        type = %(probed_type)s AND config = %(probed_config)s::jsonb
        AND (status <> 'INACTIVE' OR %(probed_status)s = 'INACTIVE')))
RETURNING connectors.*

-- name: register_tool
-- Index: connectors_tenant_id_name_key, tools_tenant_id_name_key. What is not given (NULL) stays as it was.
INSERT INTO tools AS t (id, tenant_id, name, description, connector_id, schema, is_active)
SELECT %(id)s, c.tenant_id, %(name)s, %(description)s, c.id, COALESCE(%(schema)s::jsonb, '{}'),
    COALESCE(%(is_active)s, true)
FROM connectors AS c
WHERE (c.id = %(connector_id)s OR (c.tenant_id = %(owner)s AND c.name = %(connector_name)s))
    AND (%(tenant)s::text IS NULL OR c.tenant_id = %(tenant)s)
ON CONFLICT (tenant_id, name) DO UPDATE
SET connector_id = EXCLUDED.connector_id, description = COALESCE(%(description)s, t.description),
    schema = COALESCE(%(schema)s::jsonb, t.schema), is_active = COALESCE(%(is_active)s, t.is_active),
    updated_at = statement_timestamp()
RETURNING t.*

-- name: register_capability
-- Index: capabilities_name_key. What is not given (NULL) stays as it was.
INSERT INTO capabilities AS c (id, name, description, scope, permissions)
VALUES (%(id)s, %(name)s, %(description)s, %(scope)s, %(permissions)s::jsonb)
ON CONFLICT (name) DO UPDATE
SET scope = EXCLUDED.scope, permissions = EXCLUDED.permissions,
    description = COALESCE(EXCLUDED.description, c.description), updated_at = statement_timestamp()
RETURNING c.*

-- name: tool_and_capability
-- The beginning of the next three statements: the two, or no row if one of them is missing.
-- Index: tools_tenant_id_name_key, capabilities_name_key.
WITH pair AS MATERIALIZED (
    SELECT t.id AS tool_id, t.tenant_id, c.id AS capability_id
    FROM tools AS t CROSS JOIN capabilities AS c
    WHERE (t.id = %(tool_id)s OR (t.tenant_id = %(owner)s AND t.name = %(tool_name)s))
        AND (%(tenant)s::text IS NULL OR t.tenant_id = %(tenant)s)
        AND (c.id = %(capability_id)s OR c.name = %(capability_name)s)
)

-- name: grant
, granted AS (
    INSERT INTO tool_capabilities (tool_id, capability_id, tenant_id)
    SELECT tool_id, capability_id, tenant_id FROM pair
    ON CONFLICT DO NOTHING
    RETURNING tool_id
)
SELECT EXISTS (SELECT FROM granted) FROM pair

-- name: revoke
, revoked AS (
    DELETE FROM tool_capabilities AS g USING pair
    WHERE g.tool_id = pair.tool_id AND g.capability_id = pair.capability_id
    RETURNING g.tool_id
)
SELECT EXISTS (SELECT FROM revoked) FROM pair

-- name: allowed
SELECT EXISTS (
    SELECT FROM pair
    JOIN tool_capabilities AS g ON g.tool_id = pair.tool_id AND g.capability_id = pair.capability_id
    JOIN tools AS t ON t.id = pair.tool_id
    JOIN connectors AS c ON c.id = t.connector_id
    WHERE t.is_active AND c.status <> 'INACTIVE'
)

-- name: register_schema
-- Index: schemas_name_version_key. The update changes nothing; it lets the statement return an equal version that exists.
INSERT INTO schemas AS s (id, name, version, document_type, schema_definition)
VALUES (%(id)s, %(name)s, %(version)s, %(document_type)s, %(definition)s::jsonb)
ON CONFLICT (name, version) DO UPDATE SET name = s.name
    WHERE s.document_type = EXCLUDED.document_type AND s.schema_definition = EXCLUDED.schema_definition
RETURNING s.*

-- name: activate
-- {table} is `schemas` or `workflow_templates`, {wanted} the condition that one row of it meets.
--
-- All versions of the name are locked first, in the order of their ids, so that this statement sees what another
-- activation has changed. It cannot see a version that is being added as the active one: the unique index refuses
-- this statement then, and it is run again.
WITH wanted AS MATERIALIZED (
    SELECT id, name FROM {table} WHERE {wanted}
),
versions AS MATERIALIZED (
    SELECT v.id, v.is_active FROM {table} AS v WHERE v.name = (SELECT name FROM wanted)
    ORDER BY v.id
    FOR NO KEY UPDATE
),
retired AS (
    UPDATE {table} AS t SET is_active = false, updated_at = statement_timestamp()
    FROM versions AS v
    WHERE t.id = v.id AND v.is_active AND v.id <> (SELECT id FROM wanted)
        AND EXISTS (SELECT FROM versions AS kept WHERE kept.id = (SELECT id FROM wanted))
    RETURNING t.id
)
UPDATE {table} AS t
SET is_active = true, updated_at = CASE WHEN v.is_active THEN t.updated_at ELSE statement_timestamp() END
FROM versions AS v
WHERE t.id = v.id AND v.id = (SELECT id FROM wanted) AND (SELECT count(*) FROM retired) >= 0
RETURNING t.*

-- name: active_schemas
-- The stamps of the active schemas. A stamp differs from that of every other row, and from that of the same row before a
-- change: an update by another transaction changes xmin, one by the same transaction ctid. Index: schemas_active_idx.
SELECT concat_ws(' ', id, xmin, ctid) FROM schemas WHERE is_active AND document_type = ANY (%(document_types)s)

-- name: active_definitions
SELECT concat_ws(' ', id, xmin, ctid), document_type, name, version, schema_definition::text
FROM schemas
WHERE is_active AND document_type = ANY (%(document_types)s)

-- name: register_template
-- Index: the primary key, which is made from the contents. The update changes nothing: it returns the first.
INSERT INTO workflow_templates AS t (id, name, description, document_type, workflow_definition)
VALUES (%(id)s, %(name)s, %(description)s, %(document_type)s, %(definition)s::jsonb)
ON CONFLICT (id) DO UPDATE SET name = t.name
    WHERE t.name = EXCLUDED.name AND t.document_type = EXCLUDED.document_type
        AND t.workflow_definition = EXCLUDED.workflow_definition
        AND t.description IS NOT DISTINCT FROM EXCLUDED.description
RETURNING t.*

-- name: start_run
-- Index: the primary keys.
INSERT INTO runs (id, tenant_id, work_order_id, workflow_template_id, status, context, started_at)
SELECT %(id)s, o.tenant_id, o.id, %(template_id)s, 'PROCESSING', %(context)s::jsonb, statement_timestamp()
FROM work_orders AS o
WHERE o.id = %(order_id)s AND (%(tenant)s::text IS NULL OR o.tenant_id = %(tenant)s)
    AND (%(template_id)s::uuid IS NULL OR EXISTS (SELECT FROM workflow_templates WHERE id = %(template_id)s))
RETURNING runs.*

-- name: finish_run
-- Index: the primary key.
UPDATE runs
SET status = %(status)s, error = %(error)s, context = COALESCE(%(context)s::jsonb, context),
    finished_at = statement_timestamp(), updated_at = statement_timestamp()
WHERE id = %(id)s AND finished_at IS NULL AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
RETURNING runs.*

-- name: summarize_evals
-- Index, for one order: work_items_work_order_status_type_idx, eval_results_work_item_id_idx.
SELECT evaluation_type, count(*), count(*) FILTER (WHERE passed), avg(score), min(score), max(score)
FROM eval_results
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
    AND (%(order_id)s::uuid IS NULL
        OR work_item_id = ANY (ARRAY(SELECT id FROM work_items WHERE work_order_id = %(order_id)s)))
    AND (%(evaluation_type)s::text IS NULL OR evaluation_type = %(evaluation_type)s)
    AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s)
GROUP BY evaluation_type
ORDER BY evaluation_type

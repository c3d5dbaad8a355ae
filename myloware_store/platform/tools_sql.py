"""The statements about tools and capabilities, one round trip each."""

from __future__ import annotations

__all__ = ["ALLOWED", "GRANT", "REGISTER_CAPABILITY", "REGISTER_TOOL", "REVOKE"]

# Index: connectors_tenant_id_name_key, tools_tenant_id_name_key. What is not given (NULL) stays as it was.
REGISTER_TOOL = """
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
RETURNING id, created_at, tenant_id, name, description, connector_id, schema, is_active, updated_at
"""

# Index: tools_tenant_id_name_key, capabilities_name_key. Nothing is found where one of the two is missing.
PAIR = """
WITH pair AS MATERIALIZED (
    SELECT t.id AS tool_id, t.tenant_id, c.id AS capability_id
    FROM tools AS t CROSS JOIN capabilities AS c
    WHERE (t.id = %(tool_id)s OR (t.tenant_id = %(owner)s AND t.name = %(tool_name)s))
        AND (%(tenant)s::text IS NULL OR t.tenant_id = %(tenant)s)
        AND (c.id = %(capability_id)s OR c.name = %(capability_name)s)
)"""

GRANT = (
    PAIR
    + """,
granted AS (
    INSERT INTO tool_capabilities (tool_id, capability_id, tenant_id)
    SELECT tool_id, capability_id, tenant_id FROM pair
    ON CONFLICT DO NOTHING
    RETURNING tool_id
)
SELECT EXISTS (SELECT FROM granted) FROM pair
"""
)

REVOKE = (
    PAIR
    + """,
revoked AS (
    DELETE FROM tool_capabilities AS g USING pair
    WHERE g.tool_id = pair.tool_id AND g.capability_id = pair.capability_id
    RETURNING g.tool_id
)
SELECT EXISTS (SELECT FROM revoked) FROM pair
"""
)

ALLOWED = (
    PAIR
    + """
SELECT EXISTS (
    SELECT FROM pair
    JOIN tool_capabilities AS g ON g.tool_id = pair.tool_id AND g.capability_id = pair.capability_id
    JOIN tools AS t ON t.id = pair.tool_id
    JOIN connectors AS c ON c.id = t.connector_id
    WHERE t.is_active AND c.status <> 'INACTIVE'
)
"""
)

# Index: capabilities_name_key. What is not given (NULL) stays as it was.
REGISTER_CAPABILITY = """
INSERT INTO capabilities AS c (id, name, description, scope, permissions)
VALUES (%(id)s, %(name)s, %(description)s, %(scope)s, %(permissions)s::jsonb)
ON CONFLICT (name) DO UPDATE
SET scope = EXCLUDED.scope, permissions = EXCLUDED.permissions,
    description = COALESCE(EXCLUDED.description, c.description), updated_at = statement_timestamp()
RETURNING id, created_at, name, description, scope, permissions, updated_at
"""

"""The statement by which one version of a name becomes the active one, the same for schemas and workflow templates."""

from __future__ import annotations

__all__ = ["activation"]


def activation(table: str, wanted: str, returned: str) -> str:
    """Return the statement that makes the wanted row of a table active, and the others of its name not.

    All rows of the name are locked first, in the order of their ids: what another activation has changed meanwhile is
    seen then. Of a row that someone adds and activates in that moment the statement knows nothing, and the unique index
    refuses it: it is run again.

    Args:
        table: `schemas` or `workflow_templates`.
        wanted: The condition that one row of it meets.
        returned: The columns to return, of the row as `t`; no row comes back where there is none to activate.
    """
    return f"""
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
RETURNING {returned}
"""

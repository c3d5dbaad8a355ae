"""What the statements about versions share: how one becomes the active one of its name, and which schemas are so."""

from __future__ import annotations

__all__ = ["ACTIVE", "DEFINITIONS", "activation"]

_STAMP = "concat_ws(' ', id, xmin, ctid)"
"""What tells a row from others, and from itself before a change: `xmin` is another one after an update by another
transaction, `ctid` after one by the same."""

# Index: schemas_active_idx.
_ACTIVE = "is_active AND document_type = ANY (%(document_types)s)"

# It asks for little, since it is for every check.
ACTIVE = f"SELECT {_STAMP} FROM schemas WHERE {_ACTIVE}"
DEFINITIONS = f"""
SELECT {_STAMP}, document_type, name, version, schema_definition::text FROM schemas WHERE {_ACTIVE}
"""


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

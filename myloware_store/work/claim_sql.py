"""The statements about claims, one round trip each, in time that does not grow with the queue."""

from __future__ import annotations

__all__ = ["CLAIM", "DUE", "DUE_BY_TENANT", "DUE_BY_TYPE"]

# The function is in `schema/claim.sql`.
CLAIM = """
SELECT * FROM claim_work_items(
    %(n)s, %(agent_id)s, %(lease)s, %(attempt_ids)s::uuid[], %(types)s::text[], %(tenants)s::text[], %(fair)s,
    %(since)s::timestamptz[], %(behind)s::uuid[], %(known_types)s::text[]
)
"""

_PRIORITIES = "(VALUES ('URGENT'::priority), ('HIGH'), ('MEDIUM'), ('LOW'))"
# No item's time is NULL: asking for NULLS FIRST leaves the planner no index but the one of the tenant or type.
_OLDEST = "ORDER BY w.available_at NULLS FIRST, w.id"
_OF_TENANT = """
    w.tenant_id = t.name AND w.type::text = ANY (COALESCE(%(types)s::text[], %(known_types)s::text[]))
"""


def _due(names: str, match: str, order: str = _OLDEST) -> str:
    """Ask for the seconds until the first item can be claimed: one look into an index for each name and priority."""
    return f"""
SELECT min(extract(epoch FROM first.available_at - statement_timestamp()))::float8
FROM {names} AS t (name) CROSS JOIN {_PRIORITIES} AS lane (priority) CROSS JOIN LATERAL (
    SELECT w.available_at FROM work_items AS w
    WHERE {match} AND w.status = 'QUEUED' AND w.priority = lane.priority AND w.attempt_count < w.max_attempts
    {order}
    LIMIT 1
) AS first
"""


# Their indexes are those of the claims.
DUE = _due("(VALUES (NULL))", "w.type::text = ANY (%(known_types)s::text[])", "ORDER BY w.available_at, w.id")
DUE_BY_TYPE = _due("unnest(%(types)s::work_item_type[])", "w.type = t.name")
DUE_BY_TENANT = _due("unnest(%(tenants)s::text[])", _OF_TENANT)

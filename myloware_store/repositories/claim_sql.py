"""The statements that claim items, one round trip each, in time that does not grow with the queue.

An index gives the ready items of one priority in order, whatever is parked beside them until later. So all that follows
goes from one such range to the next, most urgent first, and stops as soon as it has enough: a LATERAL subquery under a
LIMIT is run no further than it has to. NO KEY UPDATE: a child row that someone is inserting does not make an item look
locked.
"""

from __future__ import annotations

__all__ = ["CLAIM", "CLAIM_BY_TENANT", "CLAIM_BY_TYPE", "CLAIM_FAIRLY", "DUE", "DUE_BY_TENANT", "DUE_BY_TYPE"]

_PRIORITIES = "(VALUES ('URGENT'::priority), ('HIGH'), ('MEDIUM'), ('LOW'))"
_READY = """w.status = 'QUEUED' AND w.priority = lane.priority AND w.available_at <= statement_timestamp()
            AND w.attempt_count < w.max_attempts"""
# No item's time is NULL: asking for NULLS FIRST leaves the planner no index but the one of the tenant or type. It would
# else take work_items_claim_idx where it hopes to meet a fitting item soon, and read past a million of others.
_OLDEST = "ORDER BY w.available_at NULLS FIRST, w.id"
_OF_TYPES = "(%(types)s::work_item_type[] IS NULL OR w.type = ANY (%(types)s::work_item_type[]))"

_CLAIM_READY = """
numbered AS (
    SELECT id, row_number() OVER () AS n FROM ready
),
claimed AS (
    UPDATE work_items AS w
    SET status = 'PROCESSING', attempt_count = w.attempt_count + 1, updated_at = statement_timestamp(),
        current_attempt_id = (%(attempt_ids)s::uuid[])[numbered.n]
    FROM numbered WHERE w.id = numbered.id
    RETURNING w.*
),
started AS (
    INSERT INTO attempts (id, tenant_id, work_item_id, agent_id, attempt_number, started_at, lease_expires_at)
    SELECT current_attempt_id, tenant_id, id, %(agent_id)s, attempt_count, statement_timestamp(),
        statement_timestamp() + %(lease)s * interval '1 second'
    FROM claimed
    RETURNING id, lease_expires_at
)
SELECT c.id, c.current_attempt_id, c.attempt_count, c.type, c.content, c.tenant_id, c.work_order_id,
    s.lease_expires_at
FROM claimed AS c JOIN started AS s ON s.id = c.current_attempt_id
ORDER BY c.priority DESC, c.available_at, c.id
"""

# Index: work_items_claim_idx.
CLAIM = f"""
WITH ready AS MATERIALIZED (
    SELECT r.id FROM {_PRIORITIES} AS lane (priority) CROSS JOIN LATERAL (
        SELECT w.id FROM work_items AS w
        WHERE {_READY}
        ORDER BY w.available_at, w.id
        LIMIT %(n)s
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS r
    LIMIT %(n)s
),
{_CLAIM_READY}
"""


def _by_lane(names: str, match: str) -> str:
    """Claim from several ranges a priority: see what each would give, then take from each what is due from it.

    Only what is taken is locked. Where others hold the first of a range, those that come after them are taken.
    """
    return f"""
WITH seen AS MATERIALIZED (
    SELECT lane.name, lane.priority, r.available_at, r.id
    FROM (SELECT * FROM unnest({names}) AS n (name) CROSS JOIN {_PRIORITIES} AS p (priority)) AS lane
    CROSS JOIN LATERAL (
        SELECT w.available_at, w.id FROM work_items AS w
        WHERE {match}
            AND {_READY}
        {_OLDEST}
        LIMIT %(n)s
    ) AS r
),
lane AS MATERIALIZED (
    SELECT name, priority, count(*) AS due
    FROM (SELECT * FROM seen ORDER BY priority DESC, available_at, id LIMIT %(n)s) AS first
    GROUP BY name, priority
),
ready AS MATERIALIZED (
    SELECT r.id FROM lane CROSS JOIN LATERAL (
        SELECT w.id FROM work_items AS w
        WHERE {match}
            AND {_READY}
        {_OLDEST}
        LIMIT lane.due
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS r
    LIMIT %(n)s
),
{_CLAIM_READY}
"""


# Index: work_items_claim_type_idx.
CLAIM_BY_TYPE = _by_lane("%(types)s::work_item_type[]", "w.type = lane.name")

# Index: work_items_claim_tenant_idx, which has the type, too: items of other types are passed over in it.
CLAIM_BY_TENANT = _by_lane("%(tenants)s::text[]", f"w.tenant_id = lane.name AND {_OF_TYPES}")

_OF_TENANT = f"w.tenant_id = t.name AND {_OF_TYPES}"

# Index: work_items_claim_tenant_idx, which the recursion goes through from one tenant to the next. Every tenant gets
# its share before anyone gets more; what some leave goes to others. The order of the tenants is drawn each time, so
# that also claims of one item each are shared out.
CLAIM_FAIRLY = f"""
WITH RECURSIVE found (name) AS (
    (
        SELECT tenant_id FROM work_items
        WHERE status = 'QUEUED' AND %(tenants)s::text[] IS NULL
        ORDER BY tenant_id LIMIT 1
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
    SELECT name FROM (SELECT name FROM found UNION SELECT unnest(%(tenants)s::text[])) AS t (name)
    WHERE name IS NOT NULL
    ORDER BY random()
),
sharing AS MATERIALIZED (
    SELECT name, (%(n)s + count(*) OVER () - 1) / count(*) OVER () AS share
    FROM (
        SELECT t.name FROM drawn AS t CROSS JOIN LATERAL (
            SELECT FROM {_PRIORITIES} AS lane (priority) CROSS JOIN LATERAL (
                SELECT FROM work_items AS w
                WHERE {_OF_TENANT}
                    AND {_READY}
                {_OLDEST}
                LIMIT 1
            ) AS r
            LIMIT 1
        ) AS any_ready
        LIMIT %(n)s
    ) AS t
),
shared AS MATERIALIZED (
    SELECT r.id FROM sharing AS t CROSS JOIN LATERAL (
        SELECT r.id FROM {_PRIORITIES} AS lane (priority) CROSS JOIN LATERAL (
            SELECT w.id FROM work_items AS w
            WHERE {_OF_TENANT}
                AND {_READY}
            {_OLDEST}
            LIMIT t.share
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS r
        LIMIT t.share
    ) AS r
    LIMIT %(n)s
),
others AS MATERIALIZED (
    SELECT r.id FROM drawn AS t CROSS JOIN {_PRIORITIES} AS lane (priority) CROSS JOIN LATERAL (
        SELECT w.id FROM work_items AS w
        WHERE {_OF_TENANT}
            AND {_READY}
            AND w.id <> ALL (SELECT id FROM shared)
        {_OLDEST}
        LIMIT %(n)s
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS r
    LIMIT %(n)s - (SELECT count(*) FROM shared)
),
ready AS MATERIALIZED (
    (SELECT id FROM shared UNION ALL SELECT id FROM others) LIMIT %(n)s
),
{_CLAIM_READY}
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
DUE = _due("(VALUES (NULL))", "true", "ORDER BY w.available_at, w.id")
DUE_BY_TYPE = _due("unnest(%(types)s::work_item_type[])", "w.type = t.name")
DUE_BY_TENANT = _due("unnest(%(tenants)s::text[])", _OF_TENANT)

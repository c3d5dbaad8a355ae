"""The functions and triggers that keep the promises no constraint can: transitions, roll-up, append-only tables."""

from __future__ import annotations

from myloware_store.schema.claim_function import CLAIM_WORK_ITEMS
from myloware_store.schema.work_functions import FINISH_WORK_ITEMS, KEPT_PLANS, SUBMIT_WORK_ORDER

__all__ = ["FUNCTIONS", "TRIGGERS", "TRIGGER_FUNCTIONS"]

# convert_to() is only stable, since it looks encodings up by name; for UTF8 the answer never changes.
CONTENT_SHA256 = """
CREATE FUNCTION content_sha256(content text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(convert_to(content, 'UTF8'))
"""

# A tsvector ends at 1 MB: of a text with more different words the beginning is searched.
CONTENT_SEARCH = r"""
CREATE FUNCTION content_search(content text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    -- The parser looks ahead to the end of a run without blanks, or of a comment, again for each piece of it.
    content := regexp_replace(replace(content, '<!--', ' '), '[^[:space:]]{255}', E'\\& ', 'g');
    LOOP
        BEGIN
            RETURN to_tsvector('pg_catalog.english', content);
        EXCEPTION WHEN program_limit_exceeded THEN
            content := left(content, length(content) / 2);
        END;
    END LOOP;
END
$$
"""

REFUSE_TRANSITION = """
CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = TG_TABLE_NAME || ' cannot move from ' || OLD.status::text || ' to ' || NEW.status::text;
END
$$
"""

REQUIRE_CAUSE = """
CREATE FUNCTION require_cause() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A failed item is queued again by the replay of its dead letter only, a queued one fails only when its order
    -- is cancelled.
    IF (CASE NEW.status
        WHEN 'QUEUED' THEN NOT EXISTS (
            SELECT FROM dead_letters
            WHERE tenant_id = NEW.tenant_id AND work_item_id = NEW.id AND replayed_at >= OLD.processed_at
        )
        ELSE NOT EXISTS (
            SELECT FROM work_orders WHERE id = NEW.work_order_id AND cancelled_at = NEW.processed_at
        )
    END) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
            MESSAGE = 'work_items cannot move from ' || OLD.status::text || ' to ' || NEW.status::text
                || CASE NEW.status
                    WHEN 'QUEUED' THEN ' except by replaying its dead letter' ELSE ' except by cancelling its order'
                END;
    END IF;
    RETURN NULL;
END
$$
"""

REFUSE_CHANGE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = TG_TABLE_NAME || ' is append-only';
END
$$
"""

REFUSE_COUNT = """
CREATE FUNCTION work_orders_refuse_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = 'open_items and failed_items of an order follow its items';
END
$$
"""

START_COUNT = """
CREATE FUNCTION work_orders_start_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Counted are the items as they come in, also those of an order that comes back from a dump.
    NEW.open_items := 0;
    NEW.failed_items := 0;
    RETURN NEW;
END
$$
"""

INHERIT_PRIORITY = """
CREATE FUNCTION work_items_inherit_priority() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT priority INTO NEW.priority FROM work_orders
    WHERE tenant_id = NEW.tenant_id AND id = NEW.work_order_id;
    -- Where there is no such order, the foreign key says so.
    NEW.priority := COALESCE(NEW.priority, 'MEDIUM');
    RETURN NEW;
END
$$
"""

ROLL_UP = f"""
CREATE FUNCTION work_items_roll_up() RETURNS trigger LANGUAGE plpgsql
{KEPT_PLANS}
SET enable_nestloop = off
AS $$
DECLARE
    ids uuid[];
    opened int[];
    failures int[];
    moves bool[];
    latest timestamptz[];
    claimable bool;
    released bool;
BEGIN
    -- TRUNCATE fires this too, and leaves no order with an item.
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE work_orders SET open_items = 0, failed_items = 0, updated_at = now()
        WHERE open_items <> 0 OR failed_items <> 0;
        RETURN NULL;
    END IF;

    -- Per order: by how much its open and failed items change, whether an item has left the queue, and whether one
    -- can be claimed.
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(d.moved), array_agg(d.latest),
            bool_or(d.ready)
        INTO ids, opened, failures, moves, latest, claimable
        FROM (
            SELECT work_order_id AS id,
                count(*) FILTER (WHERE status IN ('QUEUED', 'PROCESSING')) AS open,
                count(*) FILTER (WHERE status = 'FAILED') AS failed,
                bool_or(status <> 'QUEUED') AS moved,
                -- Items that come back from a dump are no change of today.
                max(created_at) AS latest,
                bool_or(status = 'QUEUED' AND available_at <= statement_timestamp()) AS ready
            FROM new_rows GROUP BY work_order_id
        ) AS d;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(false)
        INTO ids, opened, failures, moves
        FROM (
            SELECT work_order_id AS id,
                -count(*) FILTER (WHERE status IN ('QUEUED', 'PROCESSING')) AS open,
                -count(*) FILTER (WHERE status = 'FAILED') AS failed
            FROM old_rows GROUP BY work_order_id
        ) AS d;
    ELSE
        SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(d.moved), bool_or(d.ready),
            bool_or(d.free)
        INTO ids, opened, failures, moves, claimable, released
        FROM (
            SELECT work_order_id AS id, sum(open) AS open, sum(failed) AS failed, bool_or(moved) AS moved,
                bool_or(ready) AS ready, bool_or(free) AS free
            FROM (
                SELECT work_order_id,
                    (status IN ('QUEUED', 'PROCESSING'))::int AS open,
                    (status = 'FAILED')::int AS failed,
                    status <> 'QUEUED' AS moved,
                    status = 'QUEUED' AND available_at <= statement_timestamp() AS ready,
                    status <> 'PROCESSING' OR awaiting_approval AS free
                FROM new_rows
                UNION ALL
                SELECT work_order_id,
                    -(status IN ('QUEUED', 'PROCESSING'))::int, -(status = 'FAILED')::int, false, false, false
                FROM old_rows
            ) AS changes
            GROUP BY work_order_id
        ) AS d;
        -- The functions end an attempt in the statement that moves its item. After an UPDATE by hand it is still
        -- open, and would stop the item's next claim.
        IF released THEN
            UPDATE attempts AS a
            SET status = CASE
                    WHEN a.lease_expires_at <= statement_timestamp() THEN 'TIMEOUT' ELSE 'FAILED'
                END::attempt_status,
                error = 'its item was moved by hand', finished_at = statement_timestamp(),
                updated_at = statement_timestamp(),
                duration_ms = least(
                    greatest(0, extract(epoch FROM statement_timestamp() - a.started_at) * 1000), 2147483647
                )
            WHERE a.finished_at IS NULL AND a.work_item_id = ANY (
                ARRAY(SELECT id FROM new_rows WHERE status <> 'PROCESSING' OR awaiting_approval)
            );
        END IF;
    END IF;
    IF ids IS NULL THEN
        RETURN NULL;
    END IF;

    -- Waiting workers hold this lock shared. Where none does there is nobody to tell, and no commit has to wait
    -- for the lock that NOTIFY takes; whoever begins to wait gets it once this transaction can be seen.
    IF claimable AND NOT pg_try_advisory_xact_lock(1836674167, hashtext(TG_TABLE_SCHEMA)) THEN
        PERFORM pg_notify('myloware_work', TG_TABLE_SCHEMA);
    END IF;

    -- Always in the order of their ids, so that two statements never wait for each other. What a DELETE leaves is
    -- looked at when the order is locked.
    IF cardinality(ids) > 1 OR TG_OP = 'DELETE' THEN
        PERFORM FROM work_orders AS o JOIN unnest(ids, opened, failures, moves) AS d (id, open, failed, moved)
            ON d.id = o.id
        WHERE o.id = ANY (ids)
            AND (TG_OP <> 'UPDATE' OR d.open <> 0 OR d.failed <> 0 OR (d.moved AND o.status = 'PENDING'))
        ORDER BY o.id FOR NO KEY UPDATE OF o;
    END IF;
    UPDATE work_orders AS o
    SET open_items = o.open_items + d.open,
        failed_items = o.failed_items + d.failed,
        updated_at = CASE WHEN TG_OP = 'INSERT' THEN greatest(o.updated_at, least(d.latest, now())) ELSE now() END,
        status = CASE
            WHEN o.open_items + d.open > 0 AND o.status = 'PENDING' AND NOT d.moved THEN 'PENDING'
            WHEN o.open_items + d.open > 0 THEN 'PROCESSING'
            -- An order that lost its last item stays as it was.
            WHEN TG_OP <> 'INSERT' AND NOT EXISTS (SELECT FROM work_items WHERE work_order_id = o.id OFFSET 0)
                THEN o.status
            WHEN o.failed_items + d.failed > 0 THEN 'FAILED'
            ELSE 'COMPLETED'
        END::work_order_status
    FROM unnest(ids, opened, failures, moves, latest) AS d (id, open, failed, moved, latest)
    WHERE o.id = ANY (ids) AND o.id = d.id
        AND (TG_OP <> 'UPDATE' OR d.open <> 0 OR d.failed <> 0 OR (d.moved AND o.status = 'PENDING'));
    RETURN NULL;
END
$$
"""

FOLLOW_HAND = """
CREATE FUNCTION work_items_follow_hand() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    decided CONSTANT bool := EXISTS (
        SELECT FROM approval_events
        WHERE work_item_id = NEW.id
            AND (NEW.status, decision) IN (('COMPLETED', 'APPROVED'), ('FAILED', 'REJECTED'))
    ) OR EXISTS (
        SELECT FROM work_orders WHERE id = NEW.work_order_id AND cancelled_at = NEW.processed_at
    );
BEGIN
    IF NEW.status = 'QUEUED' THEN
        -- An item is claimed only while it has tries left.
        UPDATE work_items SET max_attempts = attempt_count + 1 WHERE id = NEW.id AND attempt_count >= max_attempts;
    ELSIF OLD.awaiting_approval AND NOT decided THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
            MESSAGE = 'work_items cannot move from PROCESSING to ' || NEW.status::text || ' without a decision';
    ELSIF NEW.status = 'FAILED' AND NOT decided THEN
        -- The way back is the replay of a letter.
        INSERT INTO dead_letters (tenant_id, source, event_type, payload, error, retry_count, work_item_id)
        SELECT NEW.tenant_id, 'work_items', NEW.type::text,
            jsonb_build_object(
                'work_item_id', NEW.id, 'attempt_id', NEW.current_attempt_id, 'content', NEW.content
            ),
            'the item was failed by hand', greatest(NEW.attempt_count - 1, 0), NEW.id
        ON CONFLICT (work_item_id) WHERE replayed_at IS NULL DO NOTHING;
    END IF;
    RETURN NULL;
END
$$
"""

FUNCTIONS = (
    CONTENT_SHA256,
    CONTENT_SEARCH,
    REFUSE_TRANSITION,
    REQUIRE_CAUSE,
    REFUSE_CHANGE,
    REFUSE_COUNT,
    START_COUNT,
    INHERIT_PRIORITY,
    ROLL_UP,
    FOLLOW_HAND,
    SUBMIT_WORK_ORDER,
    CLAIM_WORK_ITEMS,
    FINISH_WORK_ITEMS,
)
"""The statements that create the functions."""

TRIGGER_FUNCTIONS = (
    "refuse_transition",
    "require_cause",
    "refuse_change",
    "work_orders_refuse_count",
    "work_orders_start_count",
    "work_items_inherit_priority",
    "work_items_roll_up",
    "work_items_follow_hand",
)
"""The names of those that triggers call."""

# Guards of a transition are AFTER triggers with a condition: a legal move calls no function, and no BEFORE UPDATE row
# trigger makes PostgreSQL compute an item's tsvector again.
TRIGGERS = (
    """
    CREATE TRIGGER work_items_priority BEFORE INSERT ON work_items
    FOR EACH ROW WHEN (NEW.priority IS NULL) EXECUTE FUNCTION work_items_inherit_priority()
    """,
    """
    CREATE TRIGGER work_items_transition AFTER UPDATE OF status ON work_items
    FOR EACH ROW WHEN (
        (OLD.status = 'QUEUED' AND NEW.status = 'COMPLETED')
        OR (OLD.status = 'COMPLETED' AND NEW.status <> 'COMPLETED')
        OR (OLD.status = 'FAILED' AND NEW.status IN ('PROCESSING', 'COMPLETED'))
    ) EXECUTE FUNCTION refuse_transition()
    """,
    """
    CREATE TRIGGER work_items_replay AFTER UPDATE OF status ON work_items
    FOR EACH ROW WHEN (OLD.status = 'FAILED' AND NEW.status = 'QUEUED') EXECUTE FUNCTION require_cause()
    """,
    """
    CREATE TRIGGER work_items_cancel AFTER UPDATE OF status ON work_items
    FOR EACH ROW WHEN (OLD.status = 'QUEUED' AND NEW.status = 'FAILED') EXECUTE FUNCTION require_cause()
    """,
    """
    CREATE TRIGGER work_items_by_hand AFTER UPDATE OF status, awaiting_approval ON work_items
    FOR EACH ROW WHEN (
        (OLD.awaiting_approval AND NOT NEW.awaiting_approval)
        OR (OLD.status = 'PROCESSING' AND NEW.status = 'FAILED')
        OR (OLD.status = 'PROCESSING' AND NEW.status = 'QUEUED' AND NEW.attempt_count >= NEW.max_attempts)
    ) EXECUTE FUNCTION work_items_follow_hand()
    """,
    """
    CREATE TRIGGER attempts_transition AFTER UPDATE OF status ON attempts
    FOR EACH ROW WHEN (OLD.status <> 'STARTED' AND NEW.status <> OLD.status) EXECUTE FUNCTION refuse_transition()
    """,
    # The roll-up itself (depth 1) may also complete an order whose items came in finished.
    """
    CREATE TRIGGER work_orders_transition AFTER UPDATE OF status ON work_orders
    FOR EACH ROW WHEN (
        pg_trigger_depth() = 0 AND OLD.status <> NEW.status AND NOT (
            (OLD.status = 'PENDING' AND NEW.status = 'PROCESSING')
            OR (OLD.status = 'PROCESSING' AND NEW.status IN ('COMPLETED', 'FAILED'))
            OR (OLD.status IN ('COMPLETED', 'FAILED') AND NEW.status = 'PROCESSING')
        )
    ) EXECUTE FUNCTION refuse_transition()
    """,
    """
    CREATE TRIGGER work_orders_start_count BEFORE INSERT ON work_orders
    FOR EACH ROW WHEN (NEW.open_items <> 0 OR NEW.failed_items <> 0) EXECUTE FUNCTION work_orders_start_count()
    """,
    """
    CREATE TRIGGER work_orders_count AFTER UPDATE OF open_items, failed_items ON work_orders
    FOR EACH ROW WHEN (
        pg_trigger_depth() = 0 AND (OLD.open_items <> NEW.open_items OR OLD.failed_items <> NEW.failed_items)
    ) EXECUTE FUNCTION work_orders_refuse_count()
    """,
    """
    CREATE TRIGGER runs_transition AFTER UPDATE OF status ON runs
    FOR EACH ROW WHEN (
        (OLD.status IN ('COMPLETED', 'FAILED') AND NEW.status <> OLD.status)
        OR (OLD.status = 'PROCESSING' AND NEW.status = 'PENDING')
    ) EXECUTE FUNCTION refuse_transition()
    """,
    """
    CREATE TRIGGER work_items_roll_up_insert AFTER INSERT ON work_items
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up()
    """,
    """
    CREATE TRIGGER work_items_roll_up_update AFTER UPDATE ON work_items
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up()
    """,
    """
    CREATE TRIGGER work_items_roll_up_delete AFTER DELETE ON work_items
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up()
    """,
    """
    CREATE TRIGGER work_items_roll_up_truncate AFTER TRUNCATE ON work_items
    FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up()
    """,
    # A cascade from a deleted order runs inside a trigger of its own (depth 1) and passes.
    """
    CREATE TRIGGER approval_events_append_only BEFORE UPDATE OR DELETE ON approval_events
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
)
"""The statements that create the triggers."""

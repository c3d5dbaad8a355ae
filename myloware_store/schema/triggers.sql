-- Guards of transitions are AFTER triggers with a condition: a legal move calls no function, and there is no BEFORE
-- UPDATE row trigger, which would make PostgreSQL compute an item's tsvector again.

CREATE TRIGGER work_items_priority BEFORE INSERT ON work_items
FOR EACH ROW WHEN (NEW.priority IS NULL) EXECUTE FUNCTION work_items_inherit_priority();

CREATE TRIGGER work_items_transition AFTER UPDATE OF status ON work_items
FOR EACH ROW WHEN (
    (OLD.status = 'QUEUED' AND NEW.status = 'COMPLETED')
    OR (OLD.status = 'COMPLETED' AND NEW.status <> 'COMPLETED')
    OR (OLD.status = 'FAILED' AND NEW.status IN ('PROCESSING', 'COMPLETED'))
) EXECUTE FUNCTION refuse_transition();

CREATE TRIGGER work_items_replay AFTER UPDATE OF status ON work_items
FOR EACH ROW WHEN (OLD.status = 'FAILED' AND NEW.status = 'QUEUED') EXECUTE FUNCTION require_cause();

CREATE TRIGGER work_items_cancel AFTER UPDATE OF status ON work_items
FOR EACH ROW WHEN (OLD.status = 'QUEUED' AND NEW.status = 'FAILED') EXECUTE FUNCTION require_cause();

CREATE TRIGGER work_items_by_hand AFTER UPDATE OF status, awaiting_approval ON work_items
FOR EACH ROW WHEN (
    (OLD.awaiting_approval AND NOT NEW.awaiting_approval)
    OR (OLD.status = 'PROCESSING' AND NEW.status = 'FAILED')
    OR (OLD.status = 'PROCESSING' AND NEW.status = 'QUEUED' AND NEW.attempt_count >= NEW.max_attempts)
) EXECUTE FUNCTION work_items_follow_hand();

CREATE TRIGGER attempts_transition AFTER UPDATE OF status ON attempts
FOR EACH ROW WHEN (OLD.status <> 'STARTED' AND NEW.status <> OLD.status) EXECUTE FUNCTION refuse_transition();

-- The roll-up itself (depth 1) may also complete an order whose items were inserted as finished.
CREATE TRIGGER work_orders_transition AFTER UPDATE OF status ON work_orders
FOR EACH ROW WHEN (
    pg_trigger_depth() = 0 AND OLD.status <> NEW.status AND NOT (
        (OLD.status = 'PENDING' AND NEW.status = 'PROCESSING')
        OR (OLD.status = 'PROCESSING' AND NEW.status IN ('COMPLETED', 'FAILED'))
        OR (OLD.status IN ('COMPLETED', 'FAILED') AND NEW.status = 'PROCESSING')
    )
) EXECUTE FUNCTION refuse_transition();

CREATE TRIGGER work_orders_start_count BEFORE INSERT ON work_orders
FOR EACH ROW WHEN (NEW.open_items <> 0 OR NEW.failed_items <> 0) EXECUTE FUNCTION work_orders_start_count();

CREATE TRIGGER work_orders_count AFTER UPDATE OF open_items, failed_items ON work_orders
FOR EACH ROW WHEN (
    pg_trigger_depth() = 0 AND (OLD.open_items <> NEW.open_items OR OLD.failed_items <> NEW.failed_items)
) EXECUTE FUNCTION work_orders_refuse_count();

CREATE TRIGGER work_orders_cancel AFTER UPDATE OF cancelled_at ON work_orders
FOR EACH ROW WHEN (OLD.cancelled_at IS NULL AND NEW.cancelled_at IS NOT NULL)
EXECUTE FUNCTION work_orders_cancel_items();

CREATE TRIGGER work_items_cancel_item AFTER UPDATE OF cancelled_at ON work_items
FOR EACH ROW WHEN (
    NEW.status IN ('QUEUED', 'PROCESSING') AND NEW.cancelled_at IS NOT NULL
    AND NEW.cancelled_at IS DISTINCT FROM OLD.cancelled_at
) EXECUTE FUNCTION work_items_cancel_item();

CREATE TRIGGER runs_transition AFTER UPDATE OF status ON runs
FOR EACH ROW WHEN (
    (OLD.status IN ('COMPLETED', 'FAILED') AND NEW.status <> OLD.status)
    OR (OLD.status = 'PROCESSING' AND NEW.status = 'PENDING')
) EXECUTE FUNCTION refuse_transition();

CREATE TRIGGER work_items_roll_up_insert AFTER INSERT ON work_items
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up();

CREATE TRIGGER work_items_roll_up_update AFTER UPDATE ON work_items
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up();

CREATE TRIGGER work_items_roll_up_delete AFTER DELETE ON work_items
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up();

CREATE TRIGGER work_items_roll_up_truncate AFTER TRUNCATE ON work_items
FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up();

-- A cascade from a deleted order runs inside its own trigger (depth 1), and is allowed.
CREATE TRIGGER approval_events_append_only BEFORE UPDATE OR DELETE ON approval_events
FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change();

CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE ON audit_logs
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

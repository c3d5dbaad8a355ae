-- What a statement's triggers and checks cost is their conditions, which PostgreSQL reads and prepares anew for every
-- statement. So there is one guard for each table, an AFTER trigger whose condition is false for the moves of claim and
-- finish.
--
-- `myloware.counts` is the depth in triggers (0 outside of any) of the function that is writing, if it is one of those
-- that update an order's counters and status themselves; they restore what it was before (no SET clause: only a superuser
-- can give a function one for a parameter of this kind). What triggers write inside them, one level deeper, is counted as
-- elsewhere, unless it is written by such a function again. Whoever sets it by hand has to count by hand; `validate` finds
-- orders whose counters do not agree with their items.

CREATE TRIGGER work_items_priority BEFORE INSERT ON work_items
FOR EACH ROW WHEN (NEW.priority IS NULL) EXECUTE FUNCTION work_items_inherit_priority();

CREATE TRIGGER work_items_guard AFTER UPDATE OF status, awaiting_approval ON work_items
FOR EACH ROW WHEN (
    (OLD.awaiting_approval AND NOT NEW.awaiting_approval)
    OR (OLD.status <> NEW.status AND (
        OLD.status IN ('COMPLETED', 'FAILED') OR NEW.status = 'FAILED'
        OR (OLD.status = 'QUEUED' AND NEW.status = 'COMPLETED')
        OR (NEW.status = 'QUEUED' AND NEW.attempt_count >= NEW.max_attempts)
    ))
) EXECUTE FUNCTION work_items_guard();

CREATE TRIGGER attempts_transition AFTER UPDATE OF status ON attempts
FOR EACH ROW WHEN (OLD.status <> 'STARTED' AND NEW.status <> OLD.status) EXECUTE FUNCTION refuse_transition();

-- The roll-up itself (depth 1) may also complete an order whose items were inserted as finished.
CREATE TRIGGER work_orders_guard AFTER UPDATE OF status, open_items, failed_items ON work_orders
FOR EACH ROW WHEN (pg_trigger_depth() = 0 AND current_setting('myloware.counts', true) IS DISTINCT FROM '0')
EXECUTE FUNCTION work_orders_guard();

CREATE TRIGGER work_orders_start_count BEFORE INSERT ON work_orders
FOR EACH ROW WHEN (
    (NEW.open_items <> 0 OR NEW.failed_items <> 0)
    AND current_setting('myloware.counts', true) IS DISTINCT FROM pg_trigger_depth()::text
) EXECUTE FUNCTION work_orders_start_count();

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
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
WHEN (current_setting('myloware.counts', true) IS DISTINCT FROM pg_trigger_depth()::text)
EXECUTE FUNCTION work_items_roll_up();

CREATE TRIGGER work_items_roll_up_update AFTER UPDATE ON work_items
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
WHEN (current_setting('myloware.counts', true) IS DISTINCT FROM pg_trigger_depth()::text)
EXECUTE FUNCTION work_items_roll_up();

CREATE TRIGGER work_items_roll_up_delete AFTER DELETE ON work_items
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up();

CREATE TRIGGER work_items_roll_up_truncate AFTER TRUNCATE ON work_items
FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up();

-- A cascade from a deleted order runs inside its own trigger (depth 1), and is allowed.
CREATE TRIGGER approval_events_append_only BEFORE UPDATE OR DELETE ON approval_events
FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change();

CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE ON audit_logs
FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE ON audit_seals
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A line of a dump comes with its epoch.
CREATE TRIGGER audit_logs_stamp BEFORE INSERT ON audit_logs
FOR EACH ROW WHEN (NEW.epoch < 0) EXECUTE FUNCTION audit_stamp();

-- What is audited: row by row, without secret and bulky columns, or by ids only. work_items and attempts are the ledger of
-- the work themselves.
DO $$
DECLARE
    audited record;
BEGIN
    FOR audited IN
        SELECT * FROM (VALUES
            ('approval_events', ''),
            ('capabilities', ''),
            ('connectors', 'config'),
            ('dead_letters', 'payload'),
            ('runs', 'context'),
            ('schemas', 'schema_definition'),
            ('tool_capabilities', ''),
            ('tools', 'schema'),
            ('workflow_templates', 'workflow_definition')
        ) AS t (name, hidden)
    LOOP
        EXECUTE 'CREATE TRIGGER ' || audited.name || '_audit_insert AFTER INSERT ON ' || audited.name
            || ' REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('
            || quote_literal(audited.hidden) || ')';
        EXECUTE 'CREATE TRIGGER ' || audited.name || '_audit_update AFTER UPDATE ON ' || audited.name
            || ' REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('
            || quote_literal(audited.hidden) || ')';
        EXECUTE 'CREATE TRIGGER ' || audited.name || '_audit_delete AFTER DELETE ON ' || audited.name
            || ' REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('
            || quote_literal(audited.hidden) || ')';
        EXECUTE 'CREATE TRIGGER ' || audited.name || '_audit_truncate AFTER TRUNCATE ON ' || audited.name
            || ' FOR EACH STATEMENT EXECUTE FUNCTION audit_ids()';
    END LOOP;
END
$$;

CREATE TRIGGER work_orders_audit_insert AFTER INSERT ON work_orders
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_ids();

CREATE TRIGGER work_orders_audit_delete AFTER DELETE ON work_orders
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_ids();

CREATE TRIGGER work_orders_audit_truncate AFTER TRUNCATE ON work_orders
FOR EACH STATEMENT EXECUTE FUNCTION audit_ids();

CREATE TRIGGER mem_docs_audit_delete AFTER DELETE ON mem_docs
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_ids();

CREATE TRIGGER mem_docs_audit_truncate AFTER TRUNCATE ON mem_docs
FOR EACH STATEMENT EXECUTE FUNCTION audit_ids();

CREATE TRIGGER mem_docs_guard AFTER INSERT OR UPDATE OF tenant_id, document_id ON mem_docs
FOR EACH ROW WHEN (NEW.document_id IS NOT NULL) EXECUTE FUNCTION mem_docs_guard();

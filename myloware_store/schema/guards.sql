-- The rules that no constraint can enforce: transitions, causes, append-only tables, counters that nobody sets by hand.

CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = TG_TABLE_NAME || ' cannot move from ' || OLD.status::text || ' to ' || NEW.status::text;
END
$$;

-- Its trigger calls it for the moves that need a look; those of claim and finish need none.
CREATE FUNCTION work_items_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    move CONSTANT text := OLD.status::text || ' to ' || NEW.status::text;
    hint text := '';
BEGIN
    IF move = 'PROCESSING to QUEUED' THEN
        -- An item can be claimed only while it has tries left.
        UPDATE work_items SET max_attempts = attempt_count + 1 WHERE id = NEW.id AND attempt_count >= max_attempts;
        RETURN NULL;
    ELSIF OLD.status = 'PROCESSING' THEN
        IF EXISTS (
            SELECT FROM approval_events
            WHERE work_item_id = NEW.id
                AND (NEW.status, decision) IN (('COMPLETED', 'APPROVED'), ('FAILED', 'REJECTED'))
        ) OR (NEW.status = 'FAILED' AND NEW.cancelled_at = NEW.processed_at) THEN
            RETURN NULL;
        ELSIF OLD.awaiting_approval THEN
            hint := ' without a decision';
        ELSE
            -- Failed by hand: only the replay of a letter queues it again.
            INSERT INTO dead_letters (tenant_id, source, event_type, payload, error, retry_count, work_item_id)
            SELECT NEW.tenant_id, 'work_items', NEW.type::text,
                jsonb_build_object(
                    'work_item_id', NEW.id, 'attempt_id', NEW.current_attempt_id, 'content', NEW.content
                ),
                'the item was failed by hand', greatest(NEW.attempt_count - 1, 0), NEW.id
            ON CONFLICT (work_item_id) WHERE replayed_at IS NULL DO NOTHING;
            RETURN NULL;
        END IF;
    ELSIF move = 'FAILED to QUEUED' THEN
        IF EXISTS (
            SELECT FROM dead_letters
            WHERE tenant_id = NEW.tenant_id AND work_item_id = NEW.id AND replayed_at >= OLD.processed_at
        ) THEN
            RETURN NULL;
        END IF;
        hint := ' except by replaying its dead letter';
    ELSIF move = 'QUEUED to FAILED' THEN
        IF NEW.cancelled_at = NEW.processed_at THEN
            RETURN NULL;
        END IF;
        hint := ' except by cancelling it';
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = 'work_items cannot move from ' || move || hint;
END
$$;

CREATE FUNCTION work_orders_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.open_items <> NEW.open_items OR OLD.failed_items <> NEW.failed_items THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
            MESSAGE = 'open_items and failed_items of an order follow its items';
    ELSIF OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (
        ('PENDING', 'PROCESSING'), ('PROCESSING', 'COMPLETED'), ('PROCESSING', 'FAILED'),
        ('COMPLETED', 'PROCESSING'), ('FAILED', 'PROCESSING')
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
            MESSAGE = 'work_orders cannot move from ' || OLD.status::text || ' to ' || NEW.status::text;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = TG_TABLE_NAME || ' is append-only';
END
$$;

CREATE FUNCTION work_orders_start_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Items are counted as they are inserted, also when a dump is restored.
    NEW.open_items := 0;
    NEW.failed_items := 0;
    RETURN NEW;
END
$$;

CREATE FUNCTION work_items_inherit_priority() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT priority INTO NEW.priority FROM work_orders
    WHERE tenant_id = NEW.tenant_id AND id = NEW.work_order_id;
    -- If the order does not exist, the foreign key raises.
    NEW.priority := COALESCE(NEW.priority, 'MEDIUM');
    RETURN NEW;
END
$$;

CREATE FUNCTION work_orders_cancel_items() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- work.cancel() ends the items in the statement that marks their order. This order was marked by hand.
    UPDATE work_items
    SET status = 'FAILED', awaiting_approval = false, cancelled_at = NEW.cancelled_at,
        processed_at = NEW.cancelled_at, updated_at = statement_timestamp()
    WHERE work_order_id = NEW.id AND status IN ('QUEUED', 'PROCESSING');
    RETURN NULL;
END
$$;

CREATE FUNCTION work_items_cancel_item() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The same for an item.
    UPDATE work_items
    SET status = 'FAILED', awaiting_approval = false, processed_at = NEW.cancelled_at,
        updated_at = statement_timestamp()
    WHERE id = NEW.id;
    RETURN NULL;
END
$$;

-- A chunk belongs to the tenant of its document, which may come later in the same statement, as in the COPY of a dump.
CREATE FUNCTION mem_docs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM mem_docs WHERE id = NEW.document_id AND tenant_id = NEW.tenant_id) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'foreign_key_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'mem_docs_document_id_fkey',
            MESSAGE = 'the document of a chunk does not exist in its tenant';
    END IF;
    RETURN NULL;
END
$$;

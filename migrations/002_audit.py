# ruff: noqa: E501
"""Audit every action by triggers, and seal the lines.

The code of the version before works on: its lines get what is new by default and by trigger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import peewee
    from peewee_migrate import Migrator

BACKWARD_COMPATIBLE = True

MIGRATE = (
    """
    -- squawk-ignore-file prefer-bigint-over-int
    SET LOCAL check_function_bodies = off
    """,
    """
    CREATE OR REPLACE FUNCTION audit_id()
     RETURNS uuid
     LANGUAGE sql
    RETURN (encode(set_bit(set_bit(OVERLAY(uuid_send(gen_random_uuid()) PLACING
        SUBSTRING(int8send((floor((EXTRACT(epoch FROM clock_timestamp()) * (1000)::numeric)))::bigint) FROM 3) FROM 1
        FOR 6), (52)::bigint, 1), (53)::bigint, 1), 'hex'::text))::uuid
    """,
    """
    CREATE OR REPLACE FUNCTION audit_epoch()
     RETURNS integer
     LANGUAGE plpgsql
    AS $function$
DECLARE
    clock CONSTANT regclass := 'audit_seals_epoch_seq';
    epoch int;
BEGIN
    LOOP
        epoch := COALESCE(pg_sequence_last_value(clock), 0);
        PERFORM pg_advisory_xact_lock_shared(clock::oid::int, epoch);
        IF epoch = COALESCE(pg_sequence_last_value(clock), 0) THEN
            RETURN epoch;
        END IF;
    END LOOP;
END
$function$
    """,
    """
    CREATE OR REPLACE FUNCTION audit_rows()
     RETURNS trigger
     LANGUAGE plpgsql
     SECURITY DEFINER
     SET jit TO 'off'
    AS $function$
DECLARE
    hidden CONSTANT text[] := TG_ARGV;
    who CONSTANT text := left(COALESCE(NULLIF(current_setting('myloware.actor', true), ''), session_user), 255);
    epoch CONSTANT int := audit_epoch();
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), COALESCE(j ->> 'tenant_id', '*'), who, 'insert', TG_TABLE_NAME,
            COALESCE(j ->> 'id', (j ->> 'tool_id') || ' ' || (j ->> 'capability_id')),
            jsonb_build_object('after', j - hidden), inet_client_addr(), 'database', session_user, epoch
        FROM (SELECT to_jsonb(r) AS j FROM new_rows AS r) AS n;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), COALESCE(j ->> 'tenant_id', '*'), who, 'delete', TG_TABLE_NAME,
            COALESCE(j ->> 'id', (j ->> 'tool_id') || ' ' || (j ->> 'capability_id')),
            jsonb_build_object('before', j - hidden), inet_client_addr(), 'database', session_user, epoch
        FROM (SELECT to_jsonb(r) AS j FROM old_rows AS r) AS o;
    ELSE
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), COALESCE(j ->> 'tenant_id', '*'), who, 'update', TG_TABLE_NAME,
            COALESCE(j ->> 'id', (j ->> 'tool_id') || ' ' || (j ->> 'capability_id')),
            jsonb_build_object('before', COALESCE(before, '{}'), 'after', COALESCE(after, '{}'))
                || CASE WHEN unseen IS NULL THEN '{}' ELSE jsonb_build_object('hidden', unseen) END,
            inet_client_addr(), 'database', session_user, epoch
        FROM (
            SELECT COALESCE(n.j, o.j) AS j, c.*
            FROM (SELECT to_jsonb(r) AS j FROM old_rows AS r) AS o
            -- A row whose key or tenant was changed has a line for what it was, and one for what it is.
            FULL JOIN (SELECT to_jsonb(r) AS j FROM new_rows AS r) AS n
                ON COALESCE(o.j ->> 'id', (o.j ->> 'tool_id') || ' ' || (o.j ->> 'capability_id'))
                    = COALESCE(n.j ->> 'id', (n.j ->> 'tool_id') || ' ' || (n.j ->> 'capability_id'))
                AND COALESCE(o.j ->> 'tenant_id', '*') = COALESCE(n.j ->> 'tenant_id', '*')
            CROSS JOIN LATERAL (
                SELECT jsonb_object_agg(key, o.j -> key) FILTER (WHERE key <> ALL (hidden)) AS before,
                    jsonb_object_agg(key, n.j -> key) FILTER (WHERE key <> ALL (hidden)) AS after,
                    jsonb_agg(key) FILTER (WHERE key = ANY (hidden)) AS unseen,
                    -- A health check that finds what the one before found is no action.
                    bool_or(key <> 'last_health_check') AS changed
                FROM jsonb_object_keys(COALESCE(n.j, o.j)) AS _ (key)
                WHERE key <> 'updated_at' AND (o.j -> key) IS DISTINCT FROM (n.j -> key)
            ) AS c
            WHERE c.changed
        ) AS changes;
    END IF;
    RETURN NULL;
END
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION audit_rows() SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    "REVOKE EXECUTE ON FUNCTION audit_rows() FROM PUBLIC",
    """
    CREATE OR REPLACE FUNCTION audit_ids()
     RETURNS trigger
     LANGUAGE plpgsql
     SECURITY DEFINER
     SET jit TO 'off'
    AS $function$
DECLARE
    who CONSTANT text := left(COALESCE(NULLIF(current_setting('myloware.actor', true), ''), session_user), 255);
    epoch CONSTANT int := audit_epoch();
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, ip_address, source, db_role, epoch)
        VALUES (
            audit_id(), '*', who, 'truncate', TG_TABLE_NAME, '*', inet_client_addr(), 'database', session_user, epoch
        );
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), tenant_id, who, 'insert', TG_TABLE_NAME,
            CASE WHEN count(*) = 1 THEN min(id::text) ELSE '*' END,
            CASE WHEN count(*) = 1 THEN '{}' ELSE jsonb_build_object('ids', jsonb_agg(id)) END,
            inet_client_addr(), 'database', session_user, epoch
        FROM (
            SELECT tenant_id, id, (row_number() OVER (PARTITION BY tenant_id) - 1) / 1000 AS part FROM new_rows
        ) AS numbered
        GROUP BY tenant_id, part;
    ELSE
        INSERT INTO audit_logs
            (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address, source, db_role, epoch)
        SELECT audit_id(), tenant_id, who, 'delete', TG_TABLE_NAME,
            CASE WHEN count(*) = 1 THEN min(id::text) ELSE '*' END,
            CASE WHEN count(*) = 1 THEN '{}' ELSE jsonb_build_object('ids', jsonb_agg(id)) END,
            inet_client_addr(), 'database', session_user, epoch
        FROM (
            SELECT tenant_id, id, (row_number() OVER (PARTITION BY tenant_id) - 1) / 1000 AS part FROM old_rows
        ) AS numbered
        GROUP BY tenant_id, part;
    END IF;
    RETURN NULL;
END
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION audit_ids() SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    "REVOKE EXECUTE ON FUNCTION audit_ids() FROM PUBLIC",
    """
    CREATE OR REPLACE FUNCTION audit_stamp()
     RETURNS trigger
     LANGUAGE plpgsql
     SECURITY DEFINER
    AS $function$
BEGIN
    -- `verify` believes such a line: it says what was pruned.
    IF NEW.resource_type = 'audit_logs' AND NOT has_table_privilege(
        COALESCE(NULLIF(current_setting('role'), 'none')::name, session_user), 'audit_logs', 'DELETE'
    ) THEN
        RAISE EXCEPTION 'only a role that may prune audit_logs may record it' USING ERRCODE = 'insufficient_privilege';
    END IF;
    NEW.epoch := audit_epoch();
    NEW.db_role := session_user;
    RETURN NEW;
END
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION audit_stamp() SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    "REVOKE EXECUTE ON FUNCTION audit_stamp() FROM PUBLIC",
    """
    CREATE OR REPLACE FUNCTION audit_refuse_change()
     RETURNS trigger
     LANGUAGE plpgsql
    AS $function$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('myloware.audit_prune', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
        MESSAGE = TG_TABLE_NAME || ' is append-only';
END
$function$
    """,
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION audit_refuse_change() SET search_path = '
            || quote_ident(current_schema()) || ', pg_temp';
    END $$
    """,
    r"""
    CREATE TABLE audit_seals (
        id uuid DEFAULT gen_random_uuid() NOT NULL,
        created_at timestamp with time zone DEFAULT now() NOT NULL,
        tenant_id name_text NOT NULL,
        number integer NOT NULL,
        epoch integer GENERATED BY DEFAULT AS IDENTITY NOT NULL,
        last_id uuid NOT NULL,
        line_count integer NOT NULL,
        lines bytea DEFAULT '\x'::bytea NOT NULL,
        form integer DEFAULT 1 NOT NULL,
        previous_hash text,
        hash text NOT NULL,
        CONSTRAINT audit_seals_pkey PRIMARY KEY (id),
        CONSTRAINT audit_seals_line_count_check CHECK ((line_count >= 1)),
        CONSTRAINT audit_seals_tenant_id_number_key UNIQUE (tenant_id, number)
    )
    """,
    """
    COMMENT ON TABLE audit_seals IS
        'A seal on the next lines of a tenant''s audit trail, by epoch and id. Append-only. Each seal contains the hash of the one before. `store.audit` makes and verifies them.'
    """,
    "COMMENT ON COLUMN audit_seals.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN audit_seals.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN audit_seals.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN audit_seals.number IS 'Its place in the tenant''s chain, from 1.'",
    "COMMENT ON COLUMN audit_seals.epoch IS 'The epoch of the last line. Its sequence is the clock of the epochs.'",
    "COMMENT ON COLUMN audit_seals.last_id IS 'The id of the last line.'",
    "COMMENT ON COLUMN audit_seals.line_count IS 'How many lines it is for.'",
    "COMMENT ON COLUMN audit_seals.lines IS 'For each line its id (16 bytes) and SHA-256 (32 bytes).'",
    "COMMENT ON COLUMN audit_seals.form IS 'The version of the form in which lines are hashed.'",
    "COMMENT ON COLUMN audit_seals.previous_hash IS 'The hash of the tenant''s seal before.'",
    "COMMENT ON COLUMN audit_seals.hash IS 'SHA-256 of all other columns, in hexadecimal digits.'",
    "ALTER TABLE audit_logs ADD COLUMN source text DEFAULT 'application'::text NOT NULL",
    "COMMENT ON COLUMN audit_logs.source IS '`database` if a trigger wrote the line, else `application`.'",
    "ALTER TABLE audit_logs ADD COLUMN db_role text",
    "COMMENT ON COLUMN audit_logs.db_role IS 'The database role that was logged in; set by a trigger.'",
    "ALTER TABLE audit_logs ADD COLUMN epoch integer DEFAULT 0 NOT NULL",
    # Lines that are there belong to the epoch before the first sealing. The trigger gives new ones theirs.
    "ALTER TABLE audit_logs ALTER COLUMN epoch SET DEFAULT -1",
    "COMMENT ON COLUMN audit_logs.epoch IS 'How many sealings there were before; set by a trigger.'",
    """
    CREATE TRIGGER work_orders_audit_delete AFTER DELETE ON work_orders REFERENCING OLD TABLE AS old_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_ids()
    """,
    """
    CREATE TRIGGER work_orders_audit_insert AFTER INSERT ON work_orders REFERENCING NEW TABLE AS new_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_ids()
    """,
    """
    CREATE TRIGGER work_orders_audit_truncate AFTER TRUNCATE ON work_orders FOR EACH STATEMENT EXECUTE FUNCTION
        audit_ids()
    """,
    """
    CREATE TRIGGER mem_docs_audit_delete AFTER DELETE ON mem_docs REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
        EXECUTE FUNCTION audit_ids()
    """,
    """
    CREATE TRIGGER mem_docs_audit_truncate AFTER TRUNCATE ON mem_docs FOR EACH STATEMENT EXECUTE FUNCTION audit_ids()
    """,
    """
    CREATE TRIGGER approval_events_audit_delete AFTER DELETE ON approval_events REFERENCING OLD TABLE AS old_rows FOR
        EACH STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER approval_events_audit_insert AFTER INSERT ON approval_events REFERENCING NEW TABLE AS new_rows FOR
        EACH STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER approval_events_audit_truncate AFTER TRUNCATE ON approval_events FOR EACH STATEMENT EXECUTE FUNCTION
        audit_ids()
    """,
    """
    CREATE TRIGGER approval_events_audit_update AFTER UPDATE ON approval_events REFERENCING OLD TABLE AS old_rows NEW
        TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER dead_letters_audit_delete AFTER DELETE ON dead_letters REFERENCING OLD TABLE AS old_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_rows('payload')
    """,
    """
    CREATE TRIGGER dead_letters_audit_insert AFTER INSERT ON dead_letters REFERENCING NEW TABLE AS new_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_rows('payload')
    """,
    """
    CREATE TRIGGER dead_letters_audit_truncate AFTER TRUNCATE ON dead_letters FOR EACH STATEMENT EXECUTE FUNCTION
        audit_ids()
    """,
    """
    CREATE TRIGGER dead_letters_audit_update AFTER UPDATE ON dead_letters REFERENCING OLD TABLE AS old_rows NEW TABLE
        AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('payload')
    """,
    """
    CREATE TRIGGER connectors_audit_delete AFTER DELETE ON connectors REFERENCING OLD TABLE AS old_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_rows('config')
    """,
    """
    CREATE TRIGGER connectors_audit_insert AFTER INSERT ON connectors REFERENCING NEW TABLE AS new_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_rows('config')
    """,
    """
    CREATE TRIGGER connectors_audit_truncate AFTER TRUNCATE ON connectors FOR EACH STATEMENT EXECUTE FUNCTION
        audit_ids()
    """,
    """
    CREATE TRIGGER connectors_audit_update AFTER UPDATE ON connectors REFERENCING OLD TABLE AS old_rows NEW TABLE AS
        new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('config')
    """,
    """
    CREATE TRIGGER tools_audit_delete AFTER DELETE ON tools REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
        EXECUTE FUNCTION audit_rows('schema')
    """,
    """
    CREATE TRIGGER tools_audit_insert AFTER INSERT ON tools REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
        EXECUTE FUNCTION audit_rows('schema')
    """,
    "CREATE TRIGGER tools_audit_truncate AFTER TRUNCATE ON tools FOR EACH STATEMENT EXECUTE FUNCTION audit_ids()",
    """
    CREATE TRIGGER tools_audit_update AFTER UPDATE ON tools REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR
        EACH STATEMENT EXECUTE FUNCTION audit_rows('schema')
    """,
    """
    CREATE TRIGGER capabilities_audit_delete AFTER DELETE ON capabilities REFERENCING OLD TABLE AS old_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER capabilities_audit_insert AFTER INSERT ON capabilities REFERENCING NEW TABLE AS new_rows FOR EACH
        STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER capabilities_audit_truncate AFTER TRUNCATE ON capabilities FOR EACH STATEMENT EXECUTE FUNCTION
        audit_ids()
    """,
    """
    CREATE TRIGGER capabilities_audit_update AFTER UPDATE ON capabilities REFERENCING OLD TABLE AS old_rows NEW TABLE
        AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER tool_capabilities_audit_delete AFTER DELETE ON tool_capabilities REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER tool_capabilities_audit_insert AFTER INSERT ON tool_capabilities REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER tool_capabilities_audit_truncate AFTER TRUNCATE ON tool_capabilities FOR EACH STATEMENT EXECUTE
        FUNCTION audit_ids()
    """,
    """
    CREATE TRIGGER tool_capabilities_audit_update AFTER UPDATE ON tool_capabilities REFERENCING OLD TABLE AS old_rows
        NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('')
    """,
    """
    CREATE TRIGGER schemas_audit_delete AFTER DELETE ON schemas REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
        EXECUTE FUNCTION audit_rows('schema_definition')
    """,
    """
    CREATE TRIGGER schemas_audit_insert AFTER INSERT ON schemas REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
        EXECUTE FUNCTION audit_rows('schema_definition')
    """,
    "CREATE TRIGGER schemas_audit_truncate AFTER TRUNCATE ON schemas FOR EACH STATEMENT EXECUTE FUNCTION audit_ids()",
    """
    CREATE TRIGGER schemas_audit_update AFTER UPDATE ON schemas REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('schema_definition')
    """,
    """
    CREATE TRIGGER workflow_templates_audit_delete AFTER DELETE ON workflow_templates REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('workflow_definition')
    """,
    """
    CREATE TRIGGER workflow_templates_audit_insert AFTER INSERT ON workflow_templates REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('workflow_definition')
    """,
    """
    CREATE TRIGGER workflow_templates_audit_truncate AFTER TRUNCATE ON workflow_templates FOR EACH STATEMENT EXECUTE
        FUNCTION audit_ids()
    """,
    """
    CREATE TRIGGER workflow_templates_audit_update AFTER UPDATE ON workflow_templates REFERENCING OLD TABLE AS old_rows
        NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit_rows('workflow_definition')
    """,
    """
    CREATE TRIGGER runs_audit_delete AFTER DELETE ON runs REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE
        FUNCTION audit_rows('context')
    """,
    """
    CREATE TRIGGER runs_audit_insert AFTER INSERT ON runs REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE
        FUNCTION audit_rows('context')
    """,
    "CREATE TRIGGER runs_audit_truncate AFTER TRUNCATE ON runs FOR EACH STATEMENT EXECUTE FUNCTION audit_ids()",
    """
    CREATE TRIGGER runs_audit_update AFTER UPDATE ON runs REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR
        EACH STATEMENT EXECUTE FUNCTION audit_rows('context')
    """,
    """
    CREATE OR REPLACE TRIGGER audit_logs_append_only BEFORE DELETE OR UPDATE ON audit_logs FOR EACH STATEMENT EXECUTE
        FUNCTION audit_refuse_change()
    """,
    """
    CREATE TRIGGER audit_logs_stamp BEFORE INSERT ON audit_logs FOR EACH ROW WHEN (new.epoch < 0) EXECUTE FUNCTION
        audit_stamp()
    """,
    """
    CREATE TRIGGER audit_seals_append_only BEFORE DELETE OR UPDATE ON audit_seals FOR EACH STATEMENT EXECUTE FUNCTION
        refuse_change()
    """,
)

ROLLBACK = (
    "DROP TRIGGER audit_seals_append_only ON audit_seals",
    "DROP TRIGGER audit_logs_stamp ON audit_logs",
    """
    CREATE OR REPLACE TRIGGER audit_logs_append_only BEFORE DELETE OR UPDATE ON audit_logs FOR EACH STATEMENT EXECUTE
        FUNCTION refuse_change()
    """,
    "DROP TRIGGER runs_audit_update ON runs",
    "DROP TRIGGER runs_audit_truncate ON runs",
    "DROP TRIGGER runs_audit_insert ON runs",
    "DROP TRIGGER runs_audit_delete ON runs",
    "DROP TRIGGER workflow_templates_audit_update ON workflow_templates",
    "DROP TRIGGER workflow_templates_audit_truncate ON workflow_templates",
    "DROP TRIGGER workflow_templates_audit_insert ON workflow_templates",
    "DROP TRIGGER workflow_templates_audit_delete ON workflow_templates",
    "DROP TRIGGER schemas_audit_update ON schemas",
    "DROP TRIGGER schemas_audit_truncate ON schemas",
    "DROP TRIGGER schemas_audit_insert ON schemas",
    "DROP TRIGGER schemas_audit_delete ON schemas",
    "DROP TRIGGER tool_capabilities_audit_update ON tool_capabilities",
    "DROP TRIGGER tool_capabilities_audit_truncate ON tool_capabilities",
    "DROP TRIGGER tool_capabilities_audit_insert ON tool_capabilities",
    "DROP TRIGGER tool_capabilities_audit_delete ON tool_capabilities",
    "DROP TRIGGER capabilities_audit_update ON capabilities",
    "DROP TRIGGER capabilities_audit_truncate ON capabilities",
    "DROP TRIGGER capabilities_audit_insert ON capabilities",
    "DROP TRIGGER capabilities_audit_delete ON capabilities",
    "DROP TRIGGER tools_audit_update ON tools",
    "DROP TRIGGER tools_audit_truncate ON tools",
    "DROP TRIGGER tools_audit_insert ON tools",
    "DROP TRIGGER tools_audit_delete ON tools",
    "DROP TRIGGER connectors_audit_update ON connectors",
    "DROP TRIGGER connectors_audit_truncate ON connectors",
    "DROP TRIGGER connectors_audit_insert ON connectors",
    "DROP TRIGGER connectors_audit_delete ON connectors",
    "DROP TRIGGER dead_letters_audit_update ON dead_letters",
    "DROP TRIGGER dead_letters_audit_truncate ON dead_letters",
    "DROP TRIGGER dead_letters_audit_insert ON dead_letters",
    "DROP TRIGGER dead_letters_audit_delete ON dead_letters",
    "DROP TRIGGER approval_events_audit_update ON approval_events",
    "DROP TRIGGER approval_events_audit_truncate ON approval_events",
    "DROP TRIGGER approval_events_audit_insert ON approval_events",
    "DROP TRIGGER approval_events_audit_delete ON approval_events",
    "DROP TRIGGER mem_docs_audit_truncate ON mem_docs",
    "DROP TRIGGER mem_docs_audit_delete ON mem_docs",
    "DROP TRIGGER work_orders_audit_truncate ON work_orders",
    "DROP TRIGGER work_orders_audit_insert ON work_orders",
    "DROP TRIGGER work_orders_audit_delete ON work_orders",
    "ALTER TABLE audit_logs DROP COLUMN epoch",
    "ALTER TABLE audit_logs DROP COLUMN db_role",
    "ALTER TABLE audit_logs DROP COLUMN source",
    "DROP TABLE audit_seals",
    "DROP ROUTINE audit_refuse_change()",
    "DROP ROUTINE audit_stamp()",
    "DROP ROUTINE audit_ids()",
    "DROP ROUTINE audit_rows()",
    "DROP ROUTINE audit_epoch()",
    "DROP ROUTINE audit_id()",
)


def migrate(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Apply it."""
    for statement in MIGRATE:
        migrator.sql(statement)


def rollback(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Undo it."""
    for statement in ROLLBACK:
        migrator.sql(statement)

-- name: tables
-- Every table of the store that belongs to tenants: whether row-level security is on and forced, the policy of ours, and
-- other policies. The names are those of a database that is migrated.
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
    (
        SELECT concat_ws(
            ' ', p.polcmd::text, CASE WHEN p.polpermissive THEN 'PERMISSIVE' END,
            'USING', pg_get_expr(p.polqual, c.oid), 'WITH CHECK', pg_get_expr(p.polwithcheck, c.oid)
        )
        FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = 'tenant_isolation'
    ),
    ARRAY(
        SELECT CASE r.oid WHEN 0 THEN 'public' ELSE r.oid::regrole::text END
        FROM pg_policy AS p CROSS JOIN unnest(p.polroles) AS r (oid)
        WHERE p.polrelid = c.oid AND p.polname = 'tenant_isolation'
        ORDER BY 1
    ),
    ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid AND polname <> 'tenant_isolation' ORDER BY 1)
FROM pg_class AS c
WHERE c.relnamespace = %(home)s AND c.relname = ANY (%(tables)s)
    AND EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id' AND NOT attisdropped
    )
ORDER BY c.relname

-- name: rights
-- What a role that the policies bind cannot do, or can do although it must not.
SELECT format('%%s cannot call %%s', quote_ident(r.rolname), p.oid::regprocedure)
FROM pg_proc AS p CROSS JOIN pg_roles AS r
WHERE p.pronamespace = %(home)s AND p.prosecdef AND p.prorettype <> 'trigger'::regtype
    AND r.rolname = %(app)s AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
UNION ALL
SELECT format('everybody can call %%s', p.oid::regprocedure)
FROM pg_proc AS p
WHERE p.pronamespace = %(home)s AND p.prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')
UNION ALL
SELECT format('%%s is not bound: it is, or may become, a superuser, a role with BYPASSRLS, or the owner', quote_ident(r.rolname))
FROM pg_roles AS r
WHERE r.rolname IN (%(app)s, %(readonly)s)
    AND EXISTS (
        SELECT FROM pg_roles AS m
        WHERE pg_has_role(r.oid, m.oid, 'MEMBER')
            AND (
                m.rolsuper OR m.rolbypassrls
                OR EXISTS (
                    SELECT FROM pg_class AS c
                    WHERE c.relnamespace = %(home)s AND c.relname = ANY (%(tables)s) AND c.relowner = m.oid
                )
            )
    )
UNION ALL
SELECT format('%%s may create functions and operators in the schema, which functions with the owner''s rights would use', quote_ident(r.rolname))
FROM pg_roles AS r
WHERE r.rolname IN (%(app)s, %(readonly)s) AND has_schema_privilege(r.oid, %(home)s::oid, 'CREATE')
UNION ALL
SELECT format('%%s is bound: ALTER ROLE %%s BYPASSRLS', quote_ident(r.rolname), quote_ident(r.rolname))
FROM pg_roles AS r
WHERE r.rolname = %(worker)s AND NOT (r.rolsuper OR r.rolbypassrls)
    AND NOT EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.relnamespace = %(home)s AND c.relname = ANY (%(tables)s) AND pg_has_role(r.oid, c.relowner, 'USAGE')
    )
UNION ALL
-- The default privileges of the owner give them with a table or function that is created anew.
SELECT format('%%s may change the audit trail: run `myloware-store roles --apply`', quote_ident(r.rolname))
FROM pg_roles AS r
WHERE r.rolname = %(app)s
    AND (
        EXISTS (
            SELECT FROM pg_class AS c CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
            WHERE c.relnamespace = %(home)s AND c.relname IN ('audit_logs', 'audit_seals')
                AND has_table_privilege(r.oid, c.oid, p.privilege)
        )
        OR EXISTS (
            SELECT FROM pg_proc AS p
            WHERE p.pronamespace = %(home)s AND p.prosecdef AND p.prorettype = 'trigger'::regtype
                AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
        )
    )

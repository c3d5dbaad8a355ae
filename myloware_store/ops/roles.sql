-- What is missing of the roles, as SQL. The names are the parameters `owner`, `app`, `worker` and `readonly`.

-- name: create
SELECT format('CREATE ROLE %%I LOGIN', role) FROM unnest(ARRAY[%(owner)s, %(app)s, %(worker)s, %(readonly)s]) AS given (role)
WHERE to_regrole(quote_ident(role)) IS NULL

-- name: attributes
-- Members of the owner see the rows of all tenants, too.
SELECT format('ALTER ROLE %%I BYPASSRLS', rolname) FROM pg_roles AS r
WHERE rolname = %(worker)s AND NOT (rolbypassrls OR rolsuper OR pg_has_role(oid, to_regrole(quote_ident(%(owner)s)), 'USAGE'))
UNION ALL
SELECT format('ALTER ROLE %%I %%s', rolname, string_agg('NO' || attribute, ' '))
FROM pg_roles CROSS JOIN LATERAL (
    VALUES ('SUPERUSER', rolsuper), ('BYPASSRLS', rolbypassrls), ('CREATEROLE', rolcreaterole), ('REPLICATION', rolreplication)
) AS a (attribute, given)
WHERE rolname IN (%(app)s, %(readonly)s) AND given
GROUP BY rolname

-- name: memberships
-- The caller must be a member of the owner, to give it objects. Workers run handlers under the role of services. Nobody
-- else may take another of these roles.
SELECT format('REVOKE %%I FROM %%I', taken.rolname, taker.rolname)
FROM pg_auth_members AS m JOIN pg_roles AS taken ON taken.oid = m.roleid JOIN pg_roles AS taker ON taker.oid = m.member
WHERE (taken.rolname IN (%(owner)s, %(worker)s) AND taker.rolname IN (%(app)s, %(readonly)s))
    OR (taken.rolname = %(app)s AND taker.rolname = %(readonly)s)
GROUP BY taken.rolname, taker.rolname
UNION ALL
SELECT format('GRANT %%I TO CURRENT_USER', r.rolname)
FROM pg_roles AS r WHERE r.rolname = %(owner)s AND NOT pg_has_role(r.oid, 'USAGE')
UNION ALL
SELECT format('GRANT %%I TO %%I', %(app)s, r.rolname)
FROM pg_roles AS r WHERE r.rolname = %(worker)s AND NOT pg_has_role(r.oid, to_regrole(quote_ident(%(app)s)), 'MEMBER')

-- name: owner
SELECT format('GRANT USAGE, CREATE ON SCHEMA %%s TO %%I', %(home)s::oid::regnamespace, %(owner)s)
WHERE NOT (has_schema_privilege(%(owner)s, %(home)s::oid, 'USAGE') AND has_schema_privilege(%(owner)s, %(home)s::oid, 'CREATE'))
UNION ALL
-- Functions with the owner's rights would use an operator that somebody creates there.
SELECT format(
    'REVOKE CREATE ON SCHEMA %%s FROM %%s', n.oid::regnamespace,
    CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE e.grantee::regrole::text END
)
FROM pg_namespace AS n CROSS JOIN aclexplode(n.nspacl) AS e LEFT JOIN pg_roles AS r ON r.oid = e.grantee
WHERE n.oid = %(home)s AND e.privilege_type = 'CREATE' AND (e.grantee = 0 OR r.rolname IN (%(app)s, %(worker)s, %(readonly)s))
UNION ALL
SELECT format('ALTER TABLE %%s OWNER TO %%I', c.oid::regclass, %(owner)s)
FROM pg_class AS c
WHERE c.relnamespace = %(home)s AND c.relname = ANY (%(tables)s) AND c.relowner::regrole::text <> quote_ident(%(owner)s)
UNION ALL
SELECT format('ALTER FUNCTION %%s OWNER TO %%I', p.oid::regprocedure, %(owner)s)
FROM pg_proc AS p
WHERE p.pronamespace = %(home)s AND p.proname = ANY (%(functions)s) AND p.proowner::regrole::text <> quote_ident(%(owner)s)
UNION ALL
SELECT format('ALTER TYPE %%s OWNER TO %%I', t.oid::regtype, %(owner)s)
FROM pg_type AS t
WHERE t.typnamespace = %(home)s AND t.typname = ANY (%(types)s) AND t.typowner::regrole::text <> quote_ident(%(owner)s)

-- name: grants
-- Of append-only tables and the history of migrations, services may not change rows; nor may anybody but the owner empty
-- a table or add triggers.
WITH wanted (role, relation, privileges) AS (
    SELECT given.role, c.oid,
        CASE
            WHEN given.role = %(readonly)s OR c.relname IN (%(history)s, 'audit_logs', 'audit_seals') THEN ARRAY['SELECT']
            WHEN kept.always THEN ARRAY['SELECT', 'INSERT']
            ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']
        END
    FROM pg_class AS c
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
            WHERE t.tgrelid = c.oid AND p.proname LIKE '%%refuse_change'
        )
    ) AS kept (always)
    CROSS JOIN unnest(ARRAY[%(app)s, %(readonly)s]) AS given (role)
    WHERE c.relnamespace = %(home)s AND c.relname = ANY (%(tables)s)
)
SELECT format('GRANT USAGE ON SCHEMA %%s TO %%I', n.oid::regnamespace, given.role)
FROM unnest(ARRAY[%(app)s, %(worker)s, %(readonly)s, %(owner)s]) AS given (role)
CROSS JOIN pg_namespace AS n
WHERE (n.oid = %(home)s OR n.oid = (SELECT extnamespace FROM pg_extension WHERE extname = 'vector'))
    AND NOT has_schema_privilege(given.role, n.oid, 'USAGE')
UNION ALL
(
    SELECT format('GRANT %%s ON %%s TO %%I', string_agg(p.privilege, ', '), w.relation::regclass, w.role)
    FROM wanted AS w CROSS JOIN unnest(w.privileges) AS p (privilege)
    WHERE NOT has_table_privilege(w.role, w.relation, p.privilege)
    GROUP BY w.relation, w.role
    ORDER BY w.role, w.relation::regclass::text
)
UNION ALL
SELECT format('REVOKE %%s ON %%s FROM %%I', string_agg(p.privilege, ', '), w.relation::regclass, w.role)
FROM wanted AS w
CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p (privilege)
WHERE p.privilege <> ALL (w.privileges) AND has_table_privilege(w.role, w.relation, p.privilege)
GROUP BY w.relation, w.role
UNION ALL
-- In the audit trail, services may add lines, but not say who wrote them and when; workers seal it.
SELECT format(
    'GRANT INSERT (id, tenant_id, user_id, action, resource_type, resource_id, details, ip_address) ON %%s TO %%I',
    c.oid::regclass, %(app)s
)
FROM pg_class AS c
WHERE c.relnamespace = %(home)s AND c.relname = 'audit_logs'
    AND (NOT has_column_privilege(%(app)s, c.oid, 'details', 'INSERT') OR has_table_privilege(%(app)s, c.oid, 'INSERT'))
UNION ALL
-- A right of their own: what they have as members of `app` is revoked above.
SELECT format('GRANT INSERT ON %%s TO %%I', c.oid::regclass, %(worker)s)
FROM pg_class AS c
WHERE c.relnamespace = %(home)s AND c.relname = 'audit_seals' AND NOT EXISTS (
    SELECT FROM aclexplode(c.relacl) AS e
    WHERE e.grantee::regrole::text = quote_ident(%(worker)s) AND e.privilege_type = 'INSERT'
)
UNION ALL
SELECT format('GRANT USAGE ON SEQUENCE %%s TO %%I', c.oid::regclass, %(worker)s)
FROM pg_class AS c
WHERE c.relnamespace = %(home)s AND c.relname = 'audit_seals_epoch_seq' AND NOT has_sequence_privilege(%(worker)s, c.oid, 'USAGE')
UNION ALL
SELECT format('GRANT EXECUTE ON FUNCTION %%s TO %%I', p.oid::regprocedure, %(app)s)
FROM pg_proc AS p
WHERE p.pronamespace = %(home)s AND p.proname = ANY (%(functions)s) AND p.prorettype <> 'trigger'::regtype
    AND NOT has_function_privilege(%(app)s, p.oid, 'EXECUTE')
UNION ALL
-- With the function of a trigger, a temporary table could write lines of the audit trail. Triggers run without this right.
SELECT format('REVOKE EXECUTE ON FUNCTION %%s FROM %%I', p.oid::regprocedure, %(app)s)
FROM pg_proc AS p
WHERE p.pronamespace = %(home)s AND p.proname = ANY (%(functions)s) AND p.prorettype = 'trigger'::regtype AND p.prosecdef
    AND has_function_privilege(%(app)s, p.oid, 'EXECUTE')
UNION ALL
-- Tables and functions of later migrations.
SELECT format(
    'ALTER DEFAULT PRIVILEGES FOR ROLE %%I IN SCHEMA %%s GRANT %%s TO %%I', %(owner)s, %(home)s::oid::regnamespace, d.granted, d.role
)
FROM (
    VALUES ('r', 'SELECT, INSERT, UPDATE, DELETE ON TABLES', %(app)s), ('r', 'SELECT ON TABLES', %(readonly)s),
        ('f', 'EXECUTE ON FUNCTIONS', %(app)s)
) AS d (kind, granted, role)
WHERE NOT EXISTS (
    SELECT FROM pg_default_acl AS a CROSS JOIN aclexplode(a.defaclacl) AS e
    WHERE a.defaclrole::regrole::text = quote_ident(%(owner)s) AND a.defaclnamespace = %(home)s AND a.defaclobjtype::text = d.kind
        AND e.grantee::regrole::text = quote_ident(d.role)
)

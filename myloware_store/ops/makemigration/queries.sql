-- The definitions of objects in a schema as statements that can be run, by the keys of `ops.catalog`.

-- name: order
-- Objects in the order of their creation.
SELECT CASE t.typtype WHEN 'e' THEN 'enum ' ELSE 'domain ' END || t.typname, t.oid
FROM pg_type AS t WHERE t.typnamespace = %(schema)s AND t.typtype IN ('e', 'd')
UNION ALL
SELECT format('function %%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)), p.oid
FROM pg_proc AS p WHERE p.pronamespace = %(schema)s
UNION ALL
SELECT 'table ' || c.relname, c.oid FROM pg_class AS c WHERE c.relnamespace = %(schema)s AND c.relkind = 'r'
ORDER BY 2

-- name: names
-- Names as they stand in SQL.
SELECT name, quote_ident(name)
FROM (
    SELECT relname AS name FROM pg_class WHERE relnamespace = %(schema)s
    UNION SELECT typname FROM pg_type WHERE typnamespace = %(schema)s
    UNION SELECT proname FROM pg_proc WHERE pronamespace = %(schema)s
    UNION SELECT conname FROM pg_constraint WHERE connamespace = %(schema)s
    UNION
    SELECT attname FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid WHERE relnamespace = %(schema)s
    UNION
    SELECT tgname FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = %(schema)s
) AS named

-- name: enums
SELECT 'enum ' || t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
FROM pg_type AS t JOIN pg_enum AS e ON e.enumtypid = t.oid
WHERE t.typnamespace = %(schema)s
GROUP BY t.oid

-- name: domains
SELECT 'domain ' || t.typname, format_type(t.typbasetype, t.typtypmod)
    || string_agg(' ' || pg_get_constraintdef(c.oid), '' ORDER BY c.conname)
FROM pg_type AS t JOIN pg_constraint AS c ON c.contypid = t.oid
WHERE t.typnamespace = %(schema)s
GROUP BY t.oid

-- name: functions
SELECT format('function %%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)),
    pg_get_functiondef(p.oid),
    format('%%I(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)),
    pg_get_function_result(p.oid)
FROM pg_proc AS p
WHERE p.pronamespace = %(schema)s AND p.prokind IN ('f', 'p')
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')

-- name: columns
SELECT format('column %%s.%%s', c.relname, a.attname),
    quote_ident(a.attname),
    format_type(a.atttypid, a.atttypmod),
    CASE WHEN t.typname = 'vector' AND a.attstorage = 'p' THEN 'PLAIN' END,
    CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END,
    CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END,
    CASE a.attgenerated WHEN 's' THEN 'STORED' WHEN 'v' THEN 'VIRTUAL' END,
    pg_get_expr(d.adbin, d.adrelid),
    a.attnotnull,
    EXISTS (
        SELECT FROM pg_depend AS p JOIN pg_class AS s ON s.oid = p.objid AND s.relkind = 'S'
        WHERE p.classid = 'pg_class'::regclass AND p.refobjid = c.oid AND p.refobjsubid = a.attnum AND p.deptype = 'a'
    )
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = %(schema)s AND c.relkind = 'r'
ORDER BY c.oid, a.attnum

-- name: constraints
SELECT format('constraint %%s.%%s', c.relname, o.conname), o.contype, pg_get_constraintdef(o.oid),
    CASE WHEN o.contype IN ('p', 'u') THEN pg_get_indexdef(o.conindid, 0, true) END,
    (SELECT relname FROM pg_class WHERE oid = o.confrelid),
    CASE WHEN o.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN o.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
FROM pg_constraint AS o JOIN pg_class AS c ON c.oid = o.conrelid
WHERE c.relnamespace = %(schema)s AND o.contype NOT IN ('n', 't')

-- name: indexes
SELECT format('index %%s.%%s', c.relname, i.relname), pg_get_indexdef(x.indexrelid, 0, true)
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_class AS c ON c.oid = x.indrelid
WHERE c.relnamespace = %(schema)s

-- name: triggers
SELECT format('trigger %%s.%%s', c.relname, t.tgname), pg_get_triggerdef(t.oid, true)
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.relnamespace = %(schema)s

-- name: uses
-- The columns and functions that objects use.
WITH objects AS (
    SELECT 'pg_class'::regclass AS class, x.indexrelid AS oid, format('index %%s.%%s', c.relname, i.relname) AS key
    FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_class AS c ON c.oid = x.indrelid
    WHERE c.relnamespace = %(schema)s
    UNION ALL
    SELECT 'pg_constraint'::regclass, o.oid, format('constraint %%s.%%s', c.relname, o.conname)
    FROM pg_constraint AS o JOIN pg_class AS c ON c.oid = o.conrelid WHERE c.relnamespace = %(schema)s
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, format('trigger %%s.%%s', c.relname, t.tgname)
    FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid WHERE c.relnamespace = %(schema)s
    UNION ALL
    SELECT 'pg_attrdef'::regclass, d.oid, format('column %%s.%%s', c.relname, a.attname)
    FROM pg_attrdef AS d JOIN pg_class AS c ON c.oid = d.adrelid
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.adnum
    WHERE c.relnamespace = %(schema)s AND a.attgenerated <> ''
)
SELECT o.key, COALESCE(
    format('column %%s.%%s', c.relname, a.attname),
    format('function %%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid))
)
FROM objects AS o
JOIN pg_depend AS d ON d.classid = o.class AND d.objid = o.oid
LEFT JOIN pg_attribute AS a ON d.refclassid = 'pg_class'::regclass AND a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    AND d.refobjsubid > 0
LEFT JOIN pg_class AS c ON c.oid = a.attrelid AND c.relnamespace = %(schema)s
LEFT JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid AND p.pronamespace = %(schema)s
WHERE c.oid IS NOT NULL OR p.oid IS NOT NULL

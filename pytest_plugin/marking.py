"""What makes a test database able to put itself back: a copy of its rows, marks of what was written, one function.

Every table gets a statement trigger that advances a sequence of its own, and DDL another one: a sequence keeps what a
rollback takes back, and any session can advance it at once. Rows are told apart by the transaction that wrote them:
all that a test wrote has a younger `xmin` than the copy (PostgreSQL manual, "System Columns"), so that no row needs to
be compared. `restore` deletes what is younger and inserts what is missing, in the tables that were written.

All of it lies in the schema `myloware_test`, beside the triggers named `myloware_test_mark`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

__all__ = ["mark_database", "unmark_database"]

_SCHEMA = """
    CREATE SCHEMA myloware_test;

    CREATE SEQUENCE myloware_test.ddl;

    CREATE TABLE myloware_test.made AS SELECT count(*) AS large_objects FROM pg_largeobject_metadata;

    -- Every table with the sequence that its writes advance and how many rows its copy has, which is the table
    -- copy_<number>. A tree of partitions or of inheritance has one sequence, since triggers fire for the table that a
    -- statement names.
    CREATE TABLE myloware_test.tables (
        number integer PRIMARY KEY,
        source regclass NOT NULL,
        marker regclass NOT NULL,
        rows bigint NOT NULL
    );

    CREATE FUNCTION myloware_test.mark() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        PERFORM pg_catalog.nextval(TG_ARGV[0]::pg_catalog.oid::pg_catalog.regclass);
        RETURN NULL;
    END
    $$;

    -- What concerns temporary objects only ends with its session.
    CREATE FUNCTION myloware_test.note_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_catalog.pg_event_trigger_ddl_commands()
            WHERE schema_name IS NULL OR schema_name NOT IN ('pg_temp', 'myloware_test')
        ) THEN
            PERFORM pg_catalog.nextval('myloware_test.ddl');
        END IF;
    END
    $$;

    CREATE FUNCTION myloware_test.note_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_catalog.pg_event_trigger_dropped_objects()
            WHERE NOT is_temporary AND schema_name IS DISTINCT FROM 'myloware_test'
        ) THEN
            PERFORM pg_catalog.nextval('myloware_test.ddl');
        END IF;
    END
    $$;

    -- The other sessions on the database.
    CREATE FUNCTION myloware_test.sessions() RETURNS SETOF integer LANGUAGE sql AS $$
        SELECT pid FROM pg_stat_get_activity(NULL)
        WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    $$;

    -- Whether there was a change that putting back rows does not undo.
    CREATE FUNCTION myloware_test.altered() RETURNS boolean LANGUAGE sql AS $$
        SELECT pg_sequence_last_value('myloware_test.ddl') IS NOT NULL
            OR (SELECT count(*) FROM pg_largeobject_metadata) <> (SELECT large_objects FROM myloware_test.made)
            OR EXISTS (
                SELECT FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
                WHERE d.datname = current_database()
            )
    $$;

    CREATE FUNCTION myloware_test.written() RETURNS boolean LANGUAGE sql AS $$
        SELECT myloware_test.altered()
            OR EXISTS (SELECT FROM myloware_test.tables WHERE pg_sequence_last_value(marker) IS NOT NULL)
    $$;

    -- Take the copies that were taken at a depth for those below again, and what differs for written.
    CREATE FUNCTION myloware_test.leave(depth integer) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        t record;
        n bigint;
    BEGIN
        FOR t IN SELECT * FROM myloware_test.tables LOOP
            IF to_regclass(format('myloware_test.below_%s_%s', depth, t.number)) IS NOT NULL THEN
                EXECUTE format('DROP TABLE myloware_test.copy_%s', t.number);
                EXECUTE format('ALTER TABLE myloware_test.below_%s_%s RENAME TO copy_%2$s', depth, t.number);
                EXECUTE format('SELECT count(*) FROM myloware_test.copy_%s', t.number) INTO n;
                UPDATE myloware_test.tables SET rows = n WHERE number = t.number;
                PERFORM nextval(t.marker);
            END IF;
        END LOOP;
        DELETE FROM myloware_test.sequences AS s WHERE s.depth = leave.depth;
    END
    $$;
    """

# Tables of users, by oid: name, insertable columns, condition that a row `a` is the row `s` of the copy, root of the
# tree. A key whose types are an extension's is not used: what `=` means for them depends on the search path.
_TABLES = """
    WITH RECURSIVE trees (relid, root) AS (
        SELECT c.oid, c.oid FROM pg_class AS c
        WHERE c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
        UNION
        SELECT i.inhrelid, t.root FROM trees AS t JOIN pg_inherits AS i ON i.inhparent = t.relid
    )
    SELECT
        c.oid::int8,
        format('%I.%I', n.nspname, c.relname),
        c.relkind = 'r',
        min(t.root)::int8,
        (
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
            FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        ),
        (
            SELECT string_agg(format('a.%1$I = s.%1$I', a.attname), ' AND ')
            FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
            WHERE x.indrelid = c.oid AND x.indisprimary
            HAVING bool_and(EXISTS (
                SELECT FROM pg_type WHERE oid = a.atttypid AND typnamespace = 'pg_catalog'::regnamespace
            ))
        ),
        (
            SELECT string_agg(quote_ident(a.attname), ', ')
            FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
            WHERE x.indrelid = c.oid AND x.indisprimary
        )
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN trees AS t ON t.relid = c.oid
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'myloware_test')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    GROUP BY c.oid, n.nspname
    ORDER BY c.oid
    """

_SEQUENCES = """
    SELECT c.oid::int8, format('%I.%I', n.nspname, c.relname)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'myloware_test')
    ORDER BY c.oid
    """

_EVENTS = """
    CREATE EVENT TRIGGER myloware_test_ddl ON ddl_command_end EXECUTE FUNCTION myloware_test.note_ddl();
    ALTER EVENT TRIGGER myloware_test_ddl ENABLE ALWAYS;
    CREATE EVENT TRIGGER myloware_test_drop ON sql_drop EXECUTE FUNCTION myloware_test.note_drop();
    ALTER EVENT TRIGGER myloware_test_drop ENABLE ALWAYS;
    """


class _Table(NamedTuple):
    oid: int
    name: str
    plain: bool  # holds rows itself, as a partitioned table does not
    root: int
    columns: str | None
    same_key: str | None
    key: str | None


def mark_database(run: cursor) -> None:
    """Make a database able to put itself back to how it is now; the role must be a superuser.

    It then has these functions, all in the schema `myloware_test`:

    - `restore(baseline xid, spared integer[])` ends the other sessions but the spared ones, and says how many there
      were; if there were none, whether something was `altered` that it cannot put back; and if nothing was, it puts
      back what was written since the transaction `baseline`, and gives the next baseline;
    - `accept(depth integer)` takes the rows and sequences as they are for those to put back, keeping what was so
      before in a place for that depth, and gives the next baseline; `leave(depth integer)` goes back to that, and
      wants to be followed by a `restore` with the baseline of that time;
    - `altered()` says whether there was a change that rows do not show, `written()` whether there was any but of
      sequences.

    Only a session in `session_replication_role = replica` may restore: there, rows move without their triggers.
    """
    run.execute(_TABLES)
    tables = [_Table(*row) for row in run.fetchall()]
    run.execute(_SEQUENCES)
    sequences = run.fetchall()
    run.execute(_SCHEMA)
    markers: dict[int, int] = {}
    for table in tables:
        if table.root not in markers:
            markers[table.root] = _make_marker(run, len(markers) + 1)
        run.execute(_mark_statement(table, markers[table.root]))
    kept = [table for table in tables if table.plain and table.columns]
    for number, table in enumerate(kept, 1):
        _copy(run, number, table, markers[table.root])
    run.execute(
        f"CREATE TABLE myloware_test.sequences AS SELECT 0 AS depth, s.* FROM ({_sequence_states(sequences)}) AS s"
    )
    run.execute(_functions(kept, [markers[table.root] for table in kept], sequences))
    run.execute(_EVENTS)


def unmark_database(run: cursor) -> None:
    """Take all that `mark_database` has made out of a database again."""
    run.execute("DROP SCHEMA myloware_test CASCADE")


def _make_marker(run: cursor, number: int) -> int:
    run.execute(f"CREATE SEQUENCE myloware_test.marker_{number}")
    run.execute(f"SELECT 'myloware_test.marker_{number}'::regclass::oid::int8")
    row: tuple[int] = run.fetchone()  # type: ignore[assignment]  # a SELECT of one row
    return row[0]


def _mark_statement(table: _Table, marker: int) -> str:
    return f"""
        CREATE TRIGGER myloware_test_mark BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table.name}
        FOR EACH STATEMENT EXECUTE FUNCTION myloware_test.mark('{marker}');
        ALTER TABLE {table.name} ENABLE ALWAYS TRIGGER myloware_test_mark
        """


def _copy(run: cursor, number: int, table: _Table, marker: int) -> None:
    copy = f"myloware_test.copy_{number}"
    run.execute(f"CREATE TABLE {copy} AS SELECT * FROM ONLY {table.name}")
    run.execute(f"INSERT INTO myloware_test.tables SELECT {number}, {table.oid}, {marker}, count(*) FROM {copy}")
    if table.same_key:
        run.execute(f"ALTER TABLE {copy} ADD PRIMARY KEY ({table.key})")
    run.execute(f"ANALYZE {copy}")


def _functions(tables: list[_Table], markers: list[int], sequences: list[tuple[int, str]]) -> str:
    """Write the functions whose statements stand ready in the session that calls them, planned once."""
    numbered = list(enumerate(zip(tables, markers, strict=True), 1))
    now = _sequence_states(sequences)
    changed = "(now.last_value, now.is_called) IS DISTINCT FROM (k.last_value, k.is_called)"
    # After all else, since a sequence forgets nothing when what came before it fails.
    forget = """
            PERFORM setval(marker, 1, false) FROM (
                SELECT DISTINCT marker FROM myloware_test.tables WHERE pg_sequence_last_value(marker) IS NOT NULL
            ) AS m;"""
    return f"""
        CREATE FUNCTION myloware_test.restore(
            baseline xid, spared integer[], OUT ended bigint, OUT altered boolean, OUT next xid
        ) LANGUAGE plpgsql AS $body$
        BEGIN
            IF current_setting('session_replication_role') <> 'replica' THEN
                RAISE EXCEPTION 'rows are put back without their triggers: SET session_replication_role = replica';
            END IF;
            next := baseline;
            SELECT count(pg_terminate_backend(s.pid)) INTO ended
            FROM myloware_test.sessions() AS s (pid) WHERE s.pid <> ALL (spared);
            altered := ended = 0 AND myloware_test.altered();
            IF ended > 0 OR altered THEN
                RETURN;
            END IF;
            {"".join(_restore_table(number, table, marker) for number, (table, marker) in numbered)}
            PERFORM setval(k.oid::regclass, k.last_value, k.is_called)
            FROM myloware_test.sequences AS k JOIN ({now}) AS now USING (oid)
            WHERE k.depth = (SELECT max(s.depth) FROM myloware_test.sequences AS s) AND {changed};
            {forget}
            next := COALESCE(pg_current_xact_id_if_assigned()::xid, baseline);
        END
        $body$;

        CREATE FUNCTION myloware_test.accept(depth integer) RETURNS xid LANGUAGE plpgsql AS $body$
        DECLARE
            t record;
            n bigint;
        BEGIN
            FOR t IN SELECT * FROM myloware_test.tables WHERE pg_sequence_last_value(marker) IS NOT NULL LOOP
                IF to_regclass(format('myloware_test.below_%s_%s', depth, t.number)) IS NULL THEN
                    EXECUTE format('ALTER TABLE myloware_test.copy_%s RENAME TO below_%s_%1$s', t.number, depth);
                    EXECUTE format(
                        'CREATE TABLE myloware_test.copy_%s (LIKE myloware_test.below_%s_%1$s INCLUDING INDEXES)',
                        t.number, depth
                    );
                ELSE
                    EXECUTE format('TRUNCATE myloware_test.copy_%s', t.number);
                END IF;
                EXECUTE format('INSERT INTO myloware_test.copy_%s SELECT * FROM ONLY %s', t.number, t.source);
                GET DIAGNOSTICS n = ROW_COUNT;
                UPDATE myloware_test.tables SET rows = n WHERE number = t.number;
            END LOOP;
            DELETE FROM myloware_test.sequences AS s WHERE s.depth = accept.depth;
            INSERT INTO myloware_test.sequences SELECT accept.depth, now.* FROM ({now}) AS now;
            {forget}
            RETURN pg_current_xact_id()::xid;
        END
        $body$;
        """


def _restore_table(number: int, table: _Table, marker: int) -> str:
    name, columns, copy = table.name, table.columns, f"myloware_test.copy_{number}"
    insert = f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {copy} AS s"
    if table.same_key:
        put_back = f"""
                DELETE FROM ONLY {name} AS a WHERE age(a.xmin) < age(baseline);
                IF (SELECT count(*) FROM ONLY {name})
                    <> (SELECT t.rows FROM myloware_test.tables AS t WHERE t.number = {number})
                THEN
                    {insert} WHERE NOT EXISTS (SELECT FROM ONLY {name} AS a WHERE {table.same_key});
                END IF;"""
    else:
        put_back = f"""
                DELETE FROM ONLY {name};
                {insert};"""
    return f"""
            IF pg_sequence_last_value({marker}) IS NOT NULL THEN{put_back}
            END IF;"""


def _sequence_states(sequences: list[tuple[int, str]]) -> str:
    nothing = "SELECT 0::oid AS oid, 0::int8 AS last_value, false AS is_called WHERE false"
    states = (f"SELECT {oid}::oid, last_value, is_called FROM {name}" for oid, name in sequences)
    return " UNION ALL ".join([nothing, *states])

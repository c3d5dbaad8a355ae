"""Make a database able to restore itself: a copy of its rows, marks of writes, and one function.

Every table gets a statement trigger that advances a sequence of its own, and DDL advances another one. A rollback does
not undo `nextval`, and other sessions see it at once. The transaction that wrote a row identifies it: rows written by a
test have a younger `xmin` than the copy (PostgreSQL manual, "System Columns"), so that no row needs to be compared. In
the tables that were written, `restore` deletes the younger rows and inserts the missing ones.

Everything is in the schema `myloware_test`, except the triggers, which are named `myloware_test_mark`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg2.extensions import cursor

__all__ = ["mark_database", "unmark_database"]

_MARKS = Path(__file__).with_name("marks.sql")
_GUARDS = Path(__file__).with_name("guards.sql")

# Tables, by oid: name, whether it holds rows itself (a partitioned one does not), its tree, columns to insert into,
# columns of the key, whether it has triggers or rules that would fire during a restore. A key whose types are an
# extension's is not used: the meaning of `=` for them depends on the search path.
_TABLES = """
    WITH RECURSIVE trees (relid, member) AS (
        SELECT oid, oid FROM pg_class WHERE relkind IN ('r', 'p')
        UNION
        SELECT t.relid, CASE t.member WHEN i.inhparent THEN i.inhrelid ELSE i.inhparent END
        FROM trees AS t JOIN pg_inherits AS i ON t.member IN (i.inhparent, i.inhrelid)
    )
    SELECT
        c.oid::int8,
        format('%I.%I', n.nspname, c.relname),
        c.relkind = 'r',
        (SELECT min(member) FROM trees WHERE relid = c.oid)::int8,
        (
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
            FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        ),
        (
            SELECT array_agg(quote_ident(a.attname))
            FROM pg_index AS x JOIN pg_attribute AS a
                ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey[0:x.indnkeyatts - 1])
            WHERE x.indrelid = c.oid AND x.indisprimary
            HAVING bool_and(EXISTS (
                SELECT FROM pg_type WHERE oid = a.atttypid AND typnamespace = 'pg_catalog'::regnamespace
            ))
        ),
        EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled IN ('A', 'R'))
            OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid AND ev_enabled IN ('A', 'R'))
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'myloware_test')
    ORDER BY c.oid
    """

_SEQUENCES = """
    SELECT c.oid::int8, format('%I.%I', n.nspname, c.relname)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'myloware_test')
    ORDER BY c.oid
    """


class _Table(NamedTuple):
    oid: int
    name: str
    plain: bool
    tree: int
    columns: str | None
    key: list[str] | None
    triggered: bool

    @property
    def restorable(self) -> bool:
        """Whether its rows can be put back as they were."""
        return not self.triggered and (self.columns is not None or not self.plain)


def mark_database(run: cursor) -> None:
    """Make a database able to return to its present state; the role must be a superuser.

    It then has these functions, all in the schema `myloware_test`:

    - `restore(baseline xid, spared integer[])` returns (ended, altered, next). It ends the other sessions, except
      spared ones without uncommitted writes, and returns their number. If there were none, it returns whether there was
      a change that it cannot undo. If not, it undoes the writes since the transaction `baseline`, and returns the next
      baseline.
    - `accept(depth integer)` makes the present rows and sequences the ones to return to, keeps the former ones for
      `leave`, and returns the next baseline. `leave(depth integer)` returns to those; call `restore` next, with the
      baseline of that time.
    - `altered()` returns whether there was a change that restoring rows does not undo.

    Only a session with `session_replication_role = replica` can restore: it moves rows without firing triggers.
    """
    run.execute(_TABLES)
    tables = [_Table(*row) for row in run.fetchall()]
    run.execute(_SEQUENCES)
    sequences = run.fetchall()
    run.execute(_MARKS.read_text(encoding="utf-8"))
    # Triggers fire for the table that a statement names: a tree of partitions or of inheritance has one marker. Writes
    # that cannot be undone count as DDL.
    markers = {table.tree: _oid(run, "ddl") for table in tables if not table.restorable}
    for table in tables:
        if table.tree not in markers:
            name = f"marker_{len(markers) + 1}"
            run.execute(f"CREATE SEQUENCE myloware_test.{name}")
            markers[table.tree] = _oid(run, name)
        run.execute(f"""
            CREATE TRIGGER myloware_test_mark BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table.name}
            FOR EACH STATEMENT EXECUTE FUNCTION myloware_test.mark('{markers[table.tree]}');
            ALTER TABLE {table.name} ENABLE ALWAYS TRIGGER myloware_test_mark
            """)
    copied = [table for table in tables if table.plain and table.columns is not None]
    steps = []
    for number, table in enumerate(copied, 1):
        _copy(run, number, table, markers[table.tree])
        steps.append(_restore_table(number, table, markers[table.tree]))
    states = _sequence_states(sequences)
    run.execute(f"CREATE TABLE myloware_test.sequences AS SELECT 0 AS depth, s.* FROM ({states}) AS s")
    run.execute(_functions("".join(steps), states))
    run.execute(_GUARDS.read_text(encoding="utf-8"))


def unmark_database(run: cursor) -> None:
    """Undo `mark_database`."""
    run.execute("DROP SCHEMA myloware_test CASCADE")


def _oid(run: cursor, sequence: str) -> int:
    run.execute(f"SELECT 'myloware_test.{sequence}'::regclass::oid::int8")
    ((oid,),) = run.fetchall()
    return int(oid)


def _copy(run: cursor, number: int, table: _Table, marker: int) -> None:
    copy = f"myloware_test.copy_{number}"
    run.execute(f"CREATE TABLE {copy} AS SELECT * FROM ONLY {table.name}")
    run.execute(f"INSERT INTO myloware_test.tables SELECT {number}, {table.oid}, {marker}, count(*) FROM {copy}")
    if table.key:
        run.execute(f"ALTER TABLE {copy} ADD PRIMARY KEY ({', '.join(table.key)})")
    run.execute(f"ANALYZE {copy}")


def _restore_table(number: int, table: _Table, marker: int) -> str:
    name, columns = table.name, table.columns
    insert = (
        f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM myloware_test.copy_{number} AS s"
    )
    if table.key:
        same_key = " AND ".join(f"a.{column} = s.{column}" for column in table.key)
        put_back = f"""
                DELETE FROM ONLY {name} AS a WHERE age(a.xmin) < age(myloware_baseline);
                IF (SELECT count(*) FROM ONLY {name})
                    <> (SELECT t.rows FROM myloware_test.tables AS t WHERE t.number = {number})
                THEN
                    {insert} WHERE NOT EXISTS (SELECT FROM ONLY {name} AS a WHERE {same_key});
                END IF;"""
    else:
        put_back = f"""
                DELETE FROM ONLY {name};
                {insert};"""
    return f"""
            IF pg_sequence_last_value({marker}) IS NOT NULL THEN{put_back}
            END IF;"""


def _sequence_states(sequences: Iterable[tuple[int, str]]) -> str:
    """Write a query of the states of sequences."""
    nothing = "SELECT 0::oid AS oid, 0::int8 AS last_value, false AS is_called WHERE false"
    states = (f"SELECT {oid}::oid, last_value, is_called FROM {name}" for oid, name in sequences)
    return " UNION ALL ".join([nothing, *states])


def _functions(restore_tables: str, sequence_states: str) -> str:
    """Write the functions that name every table: a session plans their statements once."""
    # After everything else: if an earlier step fails, a sequence keeps what it counted.
    forget = """
            PERFORM setval(marker, 1, false) FROM (
                SELECT DISTINCT marker FROM myloware_test.tables WHERE pg_sequence_last_value(marker) IS NOT NULL
            ) AS m;"""
    return f"""
        CREATE FUNCTION myloware_test.restore(
            myloware_baseline xid, myloware_spared integer[],
            OUT myloware_ended bigint, OUT myloware_altered boolean, OUT myloware_next xid
        ) LANGUAGE plpgsql AS $myloware_test$
        BEGIN
            IF current_setting('session_replication_role') <> 'replica' THEN
                RAISE EXCEPTION 'restoring must fire no triggers: SET session_replication_role = replica';
            END IF;
            myloware_next := myloware_baseline;
            SELECT count(pg_terminate_backend(s.pid)) INTO myloware_ended
            FROM myloware_test.sessions() AS s WHERE s.writing OR s.pid <> ALL (myloware_spared);
            myloware_altered := myloware_ended = 0 AND myloware_test.altered();
            IF myloware_ended > 0 OR myloware_altered THEN
                RETURN;
            END IF;
            {restore_tables}
            PERFORM setval(k.oid::regclass, k.last_value, k.is_called)
            FROM myloware_test.sequences AS k JOIN ({sequence_states}) AS now USING (oid)
            WHERE k.depth = (SELECT max(s.depth) FROM myloware_test.sequences AS s)
                AND (now.last_value, now.is_called) IS DISTINCT FROM (k.last_value, k.is_called);
            {forget}
            myloware_next := COALESCE(pg_current_xact_id_if_assigned()::xid, myloware_baseline);
        END
        $myloware_test$;

        CREATE FUNCTION myloware_test.accept(depth integer) RETURNS xid LANGUAGE plpgsql AS $myloware_test$
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
            INSERT INTO myloware_test.sequences SELECT accept.depth, now.* FROM ({sequence_states}) AS now;
            {forget}
            RETURN pg_current_xact_id()::xid;
        END
        $myloware_test$;
        """

"""What makes a test database able to put itself back: a copy of its rows, marks of what was written, one function.

Every table gets a statement trigger that advances a sequence of its own, and DDL another one: a sequence keeps what a
rollback takes back, and any session can advance it at once. Rows are told apart by the transaction that wrote them:
all that a test wrote has a younger `xmin` than the copy (PostgreSQL manual, "System Columns"), so that no row needs to
be compared. `restore` deletes what is younger and inserts what is missing, in the tables that were written.

All of it lies in the schema `myloware_test`, beside the triggers named `myloware_test_mark`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .restoring import EVENTS, GUARDS, SCHEMA, Copied, functions, sequence_states

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

__all__ = ["mark_database", "unmark_database"]

# Tables, by oid: name, whether it holds rows itself (a partitioned one does not), its tree, columns to insert into,
# columns of the key, whether it has triggers or rules that would fire while rows are put back. A key whose types are an
# extension's is not used: what `=` means for them depends on the search path.
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
    def same_key(self) -> str | None:
        """The condition that a row `a` of it is the row `s` of the copy."""
        return " AND ".join(f"a.{column} = s.{column}" for column in self.key) if self.key else None

    @property
    def restorable(self) -> bool:
        """Whether its rows can be put back as they were."""
        return not self.triggered and (self.columns is not None or not self.plain)


def mark_database(run: cursor) -> None:
    """Make a database able to put itself back to how it is now; the role must be a superuser.

    It then has these functions, all in the schema `myloware_test`:

    - `restore(baseline xid, spared integer[])` gives (ended, altered, next). It ends the other sessions but the spared
      ones, also those if they have written without a commit, and says how many there were; if there were none, whether
      something was altered that it cannot put back; and if nothing was, it puts back what was written since the
      transaction `baseline`, and gives the next baseline;
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
    run.execute(SCHEMA)
    # Triggers fire for the table that a statement names: a tree of partitions or of inheritance has one marker. Writes
    # that cannot be taken back count as DDL.
    markers = {table.tree: _sequence(run, "ddl") for table in tables if not table.restorable}
    copied: list[Copied] = []
    for table in tables:
        if table.tree not in markers:
            markers[table.tree] = _sequence(run, f"marker_{len(markers) + 1}", new=True)
        run.execute(_mark_statement(table, markers[table.tree]))
    for table in tables:
        if table.plain and table.columns is not None:
            copied.append(Copied(len(copied) + 1, table.name, table.columns, table.same_key, markers[table.tree]))
            _copy(run, copied[-1], table)
    run.execute(
        f"CREATE TABLE myloware_test.sequences AS SELECT 0 AS depth, s.* FROM ({sequence_states(sequences)}) AS s"
    )
    run.execute(functions(copied, sequences))
    run.execute(GUARDS)
    run.execute(EVENTS)


def unmark_database(run: cursor) -> None:
    """Take all that `mark_database` has made out of a database again."""
    run.execute("DROP SCHEMA myloware_test CASCADE")


def _sequence(run: cursor, name: str, *, new: bool = False) -> int:
    if new:
        run.execute(f"CREATE SEQUENCE myloware_test.{name}")
    run.execute(f"SELECT 'myloware_test.{name}'::regclass::oid::int8")
    row: tuple[int] = run.fetchone()  # type: ignore[assignment]  # a SELECT of one row
    return row[0]


def _mark_statement(table: _Table, marker: int) -> str:
    return f"""
        CREATE TRIGGER myloware_test_mark BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table.name}
        FOR EACH STATEMENT EXECUTE FUNCTION myloware_test.mark('{marker}');
        ALTER TABLE {table.name} ENABLE ALWAYS TRIGGER myloware_test_mark
        """


def _copy(run: cursor, copied: Copied, table: _Table) -> None:
    copy = f"myloware_test.copy_{copied.number}"
    run.execute(f"CREATE TABLE {copy} AS SELECT * FROM ONLY {table.name}")
    run.execute(
        f"INSERT INTO myloware_test.tables SELECT {copied.number}, {table.oid}, {copied.marker}, count(*) FROM {copy}"
    )
    if table.key:
        run.execute(f"ALTER TABLE {copy} ADD PRIMARY KEY ({', '.join(table.key)})")
    run.execute(f"ANALYZE {copy}")

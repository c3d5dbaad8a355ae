"""Examine a running database: what is wrong or will be, how one sees it, and the command that mends it.

`validate` compares the schema; this looks at health. Most checks are one statement of `doctor.sql` each, whose rows are
findings.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import UUID

import attrs

from myloware_store.core.errors import ConnectionFailed, DatabaseFault
from myloware_store.core.sql import queries_beside
from myloware_store.memory.index.plan import COMMAND, LEAST_ROWS, make_plan, read_status
from myloware_store.memory.index.state import INDEX_NAME, read_state
from myloware_store.ops.catalog import EMBEDDING_INDEX, expected_catalog, find_home, split_key
from myloware_store.ops.history import require_database
from myloware_store.ops.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from myloware_store.db.database import StoreDatabase

__all__ = ["Examination", "Finding", "Unseen", "examine"]

Severity = Literal["critical", "warning", "info"]

_sql = queries_beside(__file__, "doctor.sql")

_MIB, _HOUR, _DAY = 1024**2, 3600, 86400
LIMITS: Mapping[str, float] = {
    "connections": 0.1,  # of the connections: fewer left are gone with the next deploy
    "transaction": _HOUR,  # seconds; longer than a dump or a build usually takes
    "service": 300,  # seconds since the login; a migration hardly takes as long
    "idle": 300,  # seconds in an open transaction; no program thinks for so long
    "waiting": 10,  # seconds for a lock; requests time out soon after
    "prepared": 300,  # seconds; a coordinator decides within moments
    "wal": 1024 * _MIB,  # bytes that a slot or a standby may be behind; more fills disks
    "lag": 60,  # seconds that a standby may be behind
    "behind": 16 * _MIB,  # bytes that a standby may have received and not replayed: a segment of WAL
    "xids": 1_000_000_000,  # five times the age at which autovacuum freezes by itself; half of the possible ones
    "dead": 10_000,  # rows; fewer cost nothing
    "vacuumed": 600,  # seconds since the last vacuum; autovacuum looks every minute
    "bloat": 100 * _MIB,  # bytes of free space
    "small": 8 * _MIB,  # bytes; reading a smaller table or keeping a smaller index costs little
    "unused": 7 * _DAY,  # seconds of statistics; some jobs run once a week
    "large": 100_000,  # rows; reading them all takes tens of milliseconds
    "scans": 24,  # of a large table a day
    "buffers": 0.25,  # of shared_buffers; the server caches no more of a scan
    "lease": 300,  # seconds; a worker reaps every 10
    "queue": _HOUR,  # seconds
    "letter": _DAY,  # seconds
    "unindexed": 600,  # seconds; a worker indexes every 10
    "expired": _HOUR,  # seconds; a worker prunes every 10
    "most": 10_000,  # rows that are counted
}
"""From which values on the checks report something."""

_LIMIT = """
SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '1s';
SET LOCAL jit = off; SET LOCAL work_mem = '64MB'
"""
"""No check runs longer, or waits longer for a lock, such as a migration's. With 4 MB of memory, a million items are
counted in 1.7 seconds; with this, in half a second."""

_OF_SERVER = (
    "extension",
    "locale",
    "settings",
    "connections",
    "transactions",
    "locks",
    "prepared_transactions",
    "replication_slots",
    "replication",
    "wraparound",
    "owner_logins",
)
_OF_CATALOG = (
    "vacuum",
    "bloat",
    "invalid_indexes",
    "duplicate_indexes",
    "unused_indexes",
    "foreign_keys",
    "constraints",
    "row_security",
)
_OF_TABLES = (
    "sequential_scans",
    "leases",
    "queue",
    "dead_letters",
    "unindexed",
    "expired",
    "counters",
)
_DENIED = "42501"
_FAULTS = {
    "MW002": (
        "row-level security is enforced, and shows this role no rows without a tenant",
        "run this as the owner of the tables, or as the role of workers",
    ),
    "55P03": ("somebody has held a lock on a table for a second", "see the findings of `locks`, or look again"),
    "57014": (
        "it did not end within five seconds",
        "look again when the server is less busy; myloware-store recount takes all the time that it needs",
    ),
}
_NO_VECTOR = ("extension vector", "")
_SHOWN = 5  # names of differences


@attrs.frozen
class Finding:
    """Something that is wrong, or will be.

    Attributes:
        check: The check that found it, such as `locks`.
        severity: `critical` if data or service are in danger, `warning` if something has to be done, `info` if it is
            worth knowing.
        subject: The object, such as `work_items` or `server process 4711`.
        evidence: What was seen, with its numbers.
        remedy: The command or the SQL that mends it; a sentence if it takes a decision.
    """

    check: str
    severity: Severity
    subject: str
    evidence: str
    remedy: str


@attrs.frozen
class Unseen:
    """Something that could not be examined.

    Attributes:
        check: The check that could not look.
        reason: Why.
        remedy: The GRANT or setting that would show it.
    """

    check: str
    reason: str
    remedy: str


@attrs.frozen
class Examination:
    """The result of `examine`.

    Attributes:
        findings: The findings, those of the greatest severity first.
        unseen: What could not be seen.
        sound: The checks that saw everything and found nothing.
        recounted: The orders whose counters were corrected, with `fix=True`.
    """

    findings: tuple[Finding, ...]
    unseen: tuple[Unseen, ...]
    sound: tuple[str, ...]
    recounted: tuple[UUID, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether there is no finding but of severity `info`; there may be something unseen."""
        return all(finding.severity == "info" for finding in self.findings)


def examine(database: StoreDatabase, *, fix: bool = False) -> Examination:
    """Look for everything that is wrong with a running database, or soon will be.

    It covers the server as far as it affects the store, the schema, and the state of the work and the memory of all
    tenants. It writes nothing without `fix`, works on a standby and through PgBouncer, and takes less than a second
    on most databases. No check runs longer than five seconds, or waits longer than one for a lock: what it could not
    see is listed, as is what the role has no right to see.

    Args:
        database: The database. Its schema is found as by `validate`.
        fix: Whether to correct orders whose counters do not agree with their items, as `Work.recount` does.

    Returns:
        The findings with their severity, evidence and remedy, and what could not be seen.

    Raises:
        InvalidInput: That is not a database.
        ConnectionFailed: The server cannot be reached.
        DatabaseFault: With `fix`: the role may not write, or the server is a standby.
    """
    require_database(database)
    seen: dict[str, list[Finding | Unseen]] = {}
    recounted: tuple[UUID, ...] = ()
    with database.unit():
        home = find_home(database)
        ours = [split_key(key)[2] for key in expected_catalog() if key.startswith("index ")]
        embedded = database.settings.embedded
        given = {**LIMITS, "home": home.oid if home else 0, "ours": ours, "embedded": embedded}
        for check in _OF_SERVER:
            seen[check] = _guarded(database, check, partial(_select, database, check, given))
        seen["schema"] = _guarded(database, "schema", partial(_select, database, "schema", given))
        if not seen["schema"]:
            seen["schema"] = _guarded(database, "schema", partial(_compare, database))
            for check in _OF_CATALOG + _OF_TABLES:
                seen[check] = _guarded(database, check, partial(_select, database, check, given))
            seen["vector_index"] = _guarded(database, "vector_index", partial(_examine_index, database))
            if fix and any(isinstance(one, Finding) for one in seen["counters"]):
                with database.atomic():
                    database.execute_sql("SET LOCAL lock_timeout = '30s'")
                    recounted = tuple(order for (order,) in database.execute_sql(_sql("recount")).fetchall())
                seen["counters"] = _guarded(database, "counters", partial(_select, database, "counters", given))
    found = [one for looked in seen.values() for one in looked]
    ranks = get_args(Severity)
    return Examination(
        findings=tuple(
            sorted((one for one in found if isinstance(one, Finding)), key=lambda one: ranks.index(one.severity))
        ),
        unseen=tuple(one for one in found if isinstance(one, Unseen)),
        sound=tuple(check for check, looked in seen.items() if not looked),
        recounted=recounted,
    )


def _guarded(
    database: StoreDatabase, check: str, look: Callable[[], Iterable[Finding | Unseen]]
) -> list[Finding | Unseen]:
    """Return what a check saw; a failure is something unseen, and spoils neither other checks nor a transaction."""
    try:
        with database.atomic() as block:
            database.execute_sql(_LIMIT)
            looked = list(look())
            block.rollback()  # restores the settings in the caller's transaction
    except ConnectionFailed:
        raise
    except DatabaseFault as fault:
        return [_unseen(database, check, fault)]
    return looked


def _unseen(database: StoreDatabase, check: str, fault: DatabaseFault) -> Unseen:
    if fault.sqlstate == _DENIED and (home := find_home(database)):
        (grants,) = database.execute_sql(_sql("grants"), (home.schema,)).fetchone()
        return Unseen(check, str(fault), grants)
    return Unseen(check, *_FAULTS.get(fault.sqlstate, (str(fault), "myloware-store validate")))


def _select(database: StoreDatabase, check: str, given: Mapping[str, Any]) -> Iterator[Finding | Unseen]:
    if check in _OF_CATALOG:  # names in another schema are qualified: psql knows nothing of the path in our URL
        database.execute_sql("SET LOCAL search_path = public")
    for severity, subject, evidence, remedy in database.execute_sql(_sql(check), given).fetchall():
        if severity == "unseen":
            yield Unseen(check, evidence, remedy)
        else:
            yield Finding(check, severity, subject, evidence, remedy)


def _compare(database: StoreDatabase) -> Iterator[Finding]:
    different = []
    home = find_home(database)
    path = f"SET search_path = {home.schema}; " if home and home.schema != "public" else ""
    for one in validate(database, counts=False).findings:
        key, actual = f"{one.kind} {one.name}", one.actual or ""  # other checks report some of them
        if one.kind == "index" and one.actual is None and key != EMBEDDING_INDEX:
            create = expected_catalog()[key].replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
            yield Finding("schema", "warning", one.name, "this index is missing", f"{path}{create};")
        elif not (key == EMBEDDING_INDEX or actual.endswith((" INVALID", " NOT VALID")) or (key, actual) == _NO_VECTOR):
            different.append(one)
    if different:
        names = ", ".join(one.name for one in different[:_SHOWN]) + (", ..." if len(different) > _SHOWN else "")
        told = f"{len(different)} difference(s) from the schema that this version expects: {names}"
        remedies = {one.remedy for one in different}
        remedy = remedies.pop() if len(remedies) == 1 else "myloware-store validate"
        yield Finding("schema", "critical", "schema", told, remedy)


def _examine_index(database: StoreDatabase) -> Iterator[Finding]:
    state = read_state(database)
    plan, reason = make_plan(database, state, LEAST_ROWS, state.target_recall)
    status = read_status(database, state, LEAST_ROWS)
    if status.builder:  # it is being mended
        return
    if plan is not None:
        yield Finding("vector_index", "info" if state.usable else "warning", INDEX_NAME, reason, COMMAND)
    elif not state.usable and status.rows_now >= LEAST_ROWS:
        swap = "myloware-store index swap hnsw"
        yield Finding("vector_index", "warning", INDEX_NAME, f"searches compare all documents: {reason}", swap)
    for name in status.leftovers:
        yield Finding(
            "vector_index", "warning", name, "a build that was killed left it behind; it slows writes", COMMAND
        )

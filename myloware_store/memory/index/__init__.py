"""The vector index of the memory: its status, and the commands that build, tune and measure it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any

import attrs

from myloware_store.core.arguments import as_choice, as_count, as_number
from myloware_store.core.errors import DatabaseFault, InvalidInput, VectorIndexError
from myloware_store.memory.index.build import build_index, drop_leftovers, find_leftovers, record
from myloware_store.memory.index.plan import COMMAND, LEAST_ROWS, has_too_few_lists, make_plan, read_status
from myloware_store.memory.index.recall import KS, PARAMETERS, calibrate, draw, score
from myloware_store.memory.index.report import IndexChange, IndexStatus, RecallMeasurement
from myloware_store.memory.index.session import open_session
from myloware_store.memory.index.state import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.db.database import StoreDatabase
    from myloware_store.memory.index.recall import Query
    from myloware_store.memory.index.session import IndexSession, Progress
    from myloware_store.memory.index.state import IndexState, IndexStates, Method

__all__ = ["MemoryIndex"]

_SAMPLE, _TARGET = 64, 0.95


class MemoryIndex:
    """The vector index of the memory documents of all tenants.

    Searches are right whatever its state; it only decides how fast they are. Building and measuring run on a separate
    connection, and do not block readers or writers.

    Args:
        database: The open database.
        states: The state of the index that searches keep.

    Attributes:
        least_rows: The fewest rows with an embedding for which `ensure` builds an index; by default 5,000.
        sample: How many queries to measure a recall with; by default 64, for a standard error of about .013.
    """

    def __init__(self, database: StoreDatabase, states: IndexStates) -> None:
        self._db = database
        self._states = states
        self.least_rows = LEAST_ROWS
        self.sample = _SAMPLE

    def status(self) -> IndexStatus:
        """Return the status of the index, and whether searches use it. This reads only catalogs and a few rows."""
        with self._db.unit():
            return read_status(self._db, self._states.refresh(), self.least_rows)

    def ensure(self, target_recall: float = _TARGET, *, progress: Progress | None = None) -> IndexChange:
        """Build, tune or re-measure the index if needed. Run it after a large load, and regularly.

        It builds an index that is missing, invalid, or was never built on the data. It rebuilds one that the table has
        outgrown, or that cannot reach the target any more. It measures and tunes one whose rows have changed, or whose
        recall was measured below the target. It drops the remains of killed builds. It does not build for fewer rows
        than `least_rows`: searches then compare all vectors. If another process is working on the index, it waits.

        Args:
            target_recall: The share of the exact answer to find at k = 10, 100 and 500, from 0.5 to 1.
            progress: Called with the current step, how many of its parts are done, and of how many (None if not known).

        Returns:
            The steps taken, the reason, and the index now.

        Raises:
            InvalidInput: The target is out of its bounds, or a transaction is open, for which the build would wait.
            VectorIndexError: The role does not own the table, the connection goes through PgBouncer or to a standby,
                or the build failed; the index in use stayed as it was.
            ConnectionFailed: The connection was lost; run it again.
        """
        return self._ensured(as_number(target_recall, "target_recall", least=0.5, most=1), progress, waits=True)

    def tend(self, *, progress: Progress | None = None) -> IndexChange:
        """Do what `ensure` does, to the target that it had the last time; by default 0.95.

        Workers, and stores on the embedded server, call it in the background.

        Args:
            progress: As for `ensure`.

        Returns:
            The steps taken, the reason, and the index now.

        Raises:
            InvalidInput: A transaction is open.
            VectorIndexError: As for `ensure`, and if somebody else is working on the index: it does not wait.
            ConnectionFailed: The connection was lost; run it again.
        """
        return self._ensured(None, progress, waits=False)

    def rebuild(self, *, progress: Progress | None = None) -> IndexChange:
        """Rebuild the index, of the same kind, and measure it.

        Args:
            progress: As for `ensure`.

        Returns:
            The steps taken, the reason, and the index now.

        Raises:
            InvalidInput: A transaction is open.
            VectorIndexError: As for `ensure`.
            ConnectionFailed: The connection was lost; run it again.
        """
        return self._made(None, "it was asked for", "rebuild", progress)

    def swap(self, method: Method, *, progress: Progress | None = None) -> IndexChange:
        """Rebuild the index as the given kind, and measure it.

        Args:
            method: `hnsw` or `ivfflat`.
            progress: As for `ensure`.

        Returns:
            The steps taken, the reason, and the index now.

        Raises:
            InvalidInput: The method is not one of the two, or a transaction is open.
            VectorIndexError: As for `ensure`.
            ConnectionFailed: The connection was lost; run it again.
        """
        as_choice(method, METHODS, "method")
        return self._made(method, f"{method} was asked for", "swap", progress)

    def measure_recall(self, sample: int | None = None, *, progress: Progress | None = None) -> RecallMeasurement:
        """Measure the recall of searches for the 10 nearest rows through the index, and store it with the index.

        It may be low if no search uses the index (`status().used`), as in a small memory: searches are exact then.
        Queries are stored vectors with noise added. The exact answers take one pass over the table.

        Args:
            sample: How many queries (10 to 10,000); by default the attribute `sample`.
            progress: As for `ensure`.

        Returns:
            The recall, with a 95 % confidence interval.

        Raises:
            InvalidInput: The sample is out of its bounds, or a transaction is open.
            VectorIndexError: There is no valid index, or no row with an embedding.
        """
        count = as_count(self.sample if sample is None else sample, "sample", least=10, most=10_000)
        self._refuse_transaction("measure_recall")
        state = self._states.refresh()
        if state.method is None or not state.valid:
            raise VectorIndexError(f"there is no valid vector index to measure: run `{COMMAND}`")
        tell = progress or _silent
        (queries,) = draw(self._db, count, lambda done: tell("Searching exactly", done, None), k=KS[0])
        if not queries:
            raise VectorIndexError("there is nothing to measure: no document has an embedding")
        default = max(1, round((state.lists or 1) ** 0.5)) if state.method == "ivfflat" else 40
        tuning = state.tuning_for(KS[0]) or default
        found = score(self._db, state, queries, tuning, KS[0])
        (now,) = self._db.execute_sql("SELECT clock_timestamp()").fetchone()
        measured = attrs.evolve(
            state, recall=found.recall, sample=len(queries), measured_at=now, measured_rows=state.live_rows
        )
        return RecallMeasurement(
            k=KS[0],
            recall=found.recall,
            low=max(0.0, found.recall - 1.96 * found.error),
            high=min(1.0, found.recall + 1.96 * found.error),
            sample=len(queries),
            tuning=tuning,
            measured_at=now.astimezone(UTC),
            recorded=bool(state.rows and state.tunings) and self._recorded(measured),
        )

    def _ensured(self, target: float | None, progress: Progress | None, *, waits: bool) -> IndexChange:
        self._refuse_transaction("ensure")
        with self._db.unit():
            plan, reason = self._plan(self._states.refresh(), target)
            idle = plan is None and not find_leftovers(self._db)
        if idle:
            return IndexChange((), reason, self.status())
        with self._session("ensure", progress, waits=waits) as session:
            actions = [f"dropped {name}" for name in drop_leftovers(session)]
            state = self._states.refresh()
            plan, reason = self._plan(state, target)
            target = target or state.target_recall or _TARGET
            if plan == "measure" and has_too_few_lists(session, state):
                plan, reason = "build", f"it was built over {state.rows} rows, less than half of those there are now"
            elif plan == "measure" and not self._tuned(session, state, target, actions):
                plan, reason = "build", f"{reason}; its recall has gone"
            if plan == "build":
                self._build(session, state.method or "ivfflat", target, actions)
        return IndexChange(tuple(actions), reason, self.status())

    def _plan(self, state: IndexState, target: float | None) -> tuple[str | None, str]:
        return make_plan(self._db, state, self.least_rows, target)

    def _made(self, method: Method | None, reason: str, name: str, progress: Progress | None) -> IndexChange:
        with self._session(name, progress) as session:
            actions = [f"dropped {leftover}" for leftover in drop_leftovers(session)]
            state = self._states.refresh()
            self._build(session, method or state.method or "ivfflat", state.target_recall or _TARGET, actions)
        return IndexChange(tuple(actions), reason, self.status())

    def _build(self, session: IndexSession, method: Method, target: float, actions: list[str]) -> None:
        groups = self._drawn(session)  # beforehand: the exact answers do not depend on the index
        state = build_index(session, method, target)
        self._states.forget()
        actions.append(f"built {method} over {state.rows} rows")
        self._measured(session, state, groups, target, actions)
        drop_leftovers(session)

    def _tuned(self, session: IndexSession, state: IndexState, target: float, actions: list[str]) -> bool:
        """Measure and tune the index alone: it has to find rows added since the last time as well as the others.

        From then on, searches through ivfflat compare only newer rows exactly. So it waits for what was written before
        and cannot be seen yet.
        """
        (now,) = session.execute_sql("SELECT clock_timestamp()").fetchone()
        session.wait_for_writers()
        groups = self._drawn(session, state.measured_at or state.built_at)
        moved = attrs.evolve(state, fresh_since=now if state.method == "ivfflat" else None)
        return self._measured(session, moved, groups, target, actions, keep=False)

    def _measured(
        self,
        session: IndexSession,
        state: IndexState,
        groups: list[list[Query]],
        target: float,
        actions: list[str],
        *,
        keep: bool = True,
    ) -> bool:
        """Find the tuning and store the measurement; return False if the target cannot be met."""
        if not any(groups):
            return True
        tunings, recall = calibrate(session, state, groups, target, lambda done: session.tell("Measuring", done, None))
        met = bool(tunings)
        if not met and not keep:
            return False
        (now,) = session.execute_sql("SELECT clock_timestamp()").fetchone()
        measured = attrs.evolve(
            state,
            tunings=tunings,
            target_recall=target,
            recall=recall,
            sample=sum(map(len, groups)),
            measured_at=now,
            measured_rows=state.live_rows,
        )
        record(session, measured)
        self._states.refresh()
        missed = ", below the target: searches stay exact"
        tuned = f" with {PARAMETERS[state.method or '']} = {tunings[0][1]}" if met else missed
        actions.append(f"measured a recall of {recall:.3f} at k = {KS[0]}{tuned}")
        return met

    def _drawn(self, session: IndexSession, *since: Any) -> list[list[Query]]:
        return draw(
            session,
            self.sample,
            lambda done: session.tell("Searching exactly", done, None),
            since=(None, *since),
        )

    def _recorded(self, state: IndexState) -> bool:
        try:
            record(self._db, state)
        except DatabaseFault:  # a standby, or a role that does not own the table
            return False
        self._states.refresh()
        return True

    @contextmanager
    def _session(self, name: str, progress: Progress | None, *, waits: bool = True) -> Iterator[IndexSession]:
        self._refuse_transaction(name)
        try:
            with open_session(self._db, progress or _silent, waits=waits) as session:
                yield session
        finally:
            self._states.forget()

    def _refuse_transaction(self, name: str) -> None:
        if self._db.transaction_open():
            raise InvalidInput(f"index.{name}: a transaction is open, which it would wait for; call it outside of one")


def _silent(_what: str, _done: int, _total: int | None) -> None:
    """Ignore the progress."""

"""Claims: items taken, held, and given up, each ending fenced by the attempt that holds the item."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_count, as_flag, as_name, as_seconds
from myloware_store.core.enums import WorkItemType
from myloware_store.core.errors import LeaseLost
from myloware_store.core.results import Claim, Outcome
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json, read_label
from myloware_store.work.horizon import Horizon, Horizons
from myloware_store.work.rows import as_claims, as_outcomes, error_text, fence, paired
from myloware_store.work.waiting import KNOWN_TYPES, Waiting, wanted

if TYPE_CHECKING:
    from collections.abc import Hashable

    from myloware_store.db.database import StoreDatabase

__all__ = ["Claims"]

_sql = queries_beside(__file__)

_SHORTEST_LEASE = 0.001
_LARGEST_BATCH = 1000


class Claims(Waiting):
    """What an agent does with items."""

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._horizons = Horizons()

    def claim(
        self,
        agent_id: str,
        n: int = 1,
        *,
        types: Iterable[WorkItemType | str] | None = None,
        tenants: Iterable[str] | None = None,
        lease: float = 60.0,
        fair: bool = False,
    ) -> list[Claim]:
        """Take up to n items, urgent ones first, then the oldest; no two claims get the same item.

        Of items that others give back, or store with an earlier time than their own, it may learn some seconds late.

        Args:
            agent_id: Who will work on them.
            n: Most items to take (1 to 1000).
            types: Only items of these types, by default of all that this version knows.
            tenants: Only items of these tenants; under a tenant in force it can only narrow.
            lease: Seconds until the items are taken back unless `heartbeat` extends them.
            fair: Share the batch among the tenants with work that is ready, whatever its priority: each gets n divided
                by their number before any gets more, and which of them go first is drawn each time.

        Returns:
            The claims, in the order in which to work on them; empty where nothing is ready.

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        count = as_count(n, "n", most=_LARGEST_BATCH)
        values: dict[str, Any] = {
            "agent_id": as_name(agent_id, "agent_id"),
            "n": count,
            "attempt_ids": [str(uuid7()) for _ in range(count)],
            **wanted(types, tenants),
            "known_types": KNOWN_TYPES,
            "lease": as_seconds(lease, "lease", least=_SHORTEST_LEASE),
            "fair": as_flag(fair, "fair"),
        }
        rows = self._claimed(values, None if fair else (str(values["types"]), str(values["tenants"])))
        return [
            Claim(
                item_id=item_id,
                attempt_id=attempt_id,
                attempt_number=number,
                type=read_label(WorkItemType, kind),
                content=content,
                tenant_id=tenant_id,
                work_order_id=order_id,
                lease_expires_at=expires.astimezone(UTC),
            )
            for item_id, attempt_id, number, kind, content, tenant_id, order_id, expires, *_ in rows
        ]

    def _claimed(self, values: dict[str, Any], kind: Hashable | None) -> list[tuple[Any, ...]]:
        """Claim from where claims of this kind have come to; from the front of the queue where the kind is None."""
        horizon = Horizon() if kind is None else self._horizons.get(kind)
        begin = time.monotonic()
        rows = self._rows(_sql("claim"), {**values, **horizon.as_parameters()})
        # What a transaction claims comes back where it is rolled back.
        if kind is not None and rows and not self._db.transaction_open():
            item_id, *_, expires, priority, available_at = rows[-1]
            self._horizons.move(
                kind,
                horizon,
                (priority, (available_at, item_id)),
                full=len(rows) == values["n"],
                now=expires - timedelta(seconds=values["lease"]),
                seconds=time.monotonic() - begin,
            )
        return rows

    def heartbeat(self, claims: Iterable[Claim], lease: float = 60.0) -> set[UUID]:
        """Extend the leases of claims that still hold their items.

        Args:
            claims: What `claim` returned.
            lease: Seconds from now.

        Returns:
            The ids of the items that are still held; the others are lost to this worker.
        """
        held = as_claims(claims)
        values = {
            "attempt_ids": [str(claim.attempt_id) for claim in held],
            "lease": as_seconds(lease, "lease", least=_SHORTEST_LEASE),
        }
        return {item_id for (item_id,) in self._rows(_sql("heartbeat"), values)}

    def finish(self, claims: Iterable[Claim], results: Sequence[Any], *, gate: bool = False) -> set[UUID]:
        """Store results and complete the items, as far as these claims still hold them.

        A second call with the same claims (a reply was lost) is accepted again and changes nothing, not even the
        result; one that says something else of the gate is refused.

        Args:
            claims: What `claim` returned.
            results: One JSON value a claim, 4 MiB at most each.
            gate: Park the items until `approvals.decide` instead of completing them.

        Returns:
            The ids of the items that were accepted.

        Raises:
            InvalidInput: The numbers of claims and results differ, or a result is not JSON; nothing was written.
            LeaseLost: Inside the caller's transaction, where a claim no longer holds its item; none was accepted.
        """
        held = as_claims(claims)
        outputs = [dump_json(result, f"results[{n}]") for n, result in enumerate(paired(results, held, "results"))]
        return self._end(_sql("finish"), held, {"outputs": outputs, "gate": as_flag(gate, "gate")})

    def fail(
        self,
        claims: Iterable[Claim],
        errors: Sequence[BaseException | str],
        *,
        retry: bool = True,
        delay: float | None = None,
    ) -> dict[UUID, Outcome]:
        """End attempts that went wrong: queue the items again, or bury those that have no tries left.

        A second call with the same claims and errors (a reply was lost) is accepted again, until somebody claims the
        items anew, and changes nothing, whatever it says of trying again.

        Args:
            claims: What `claim` returned.
            errors: One exception or text a claim; stored as text, shortened where it is very long.
            retry: False where trying again is of no use: the items fail for good at once.
            delay: Seconds until the items can be claimed again, by default 2 ** tries, an hour at most, each
                multiplied by a random number from 0.5 to 1.5 so that failures that came together part.

        Returns:
            For each item that was accepted, what became of it.

        Raises:
            InvalidInput: The numbers of claims and errors differ.
            LeaseLost: Inside the caller's transaction, where a claim no longer holds its item; none was accepted.
        """
        held = as_claims(claims)
        whole = self._db.transaction_open()
        told = [error_text(error) for error in paired(errors, held, "errors")]
        options = {
            "retry": as_flag(retry, "retry"),
            "delay": None if delay is None else as_seconds(delay, "delay"),
            "whole": whole,
        }

        def values(batch: Sequence[tuple[Claim, str]]) -> dict[str, Any]:
            claims = [claim for claim, _ in batch]
            letters = [str(uuid7()) for _ in batch]
            return {**fence(claims), "errors": [error for _, error in batch], "letter_ids": letters, **options}

        given = [*zip(held, told, strict=True)]
        rows = self._rows(_sql("fail"), values(given))
        if len(rows) < len(held):
            before = self._rows(_sql("failed_before"), values(given))
            known = {row[0] for row in before}
            if before and whole:
                rows = self._rows(_sql("fail"), values([one for one in given if one[0].item_id not in known]))
            rows += before
        _refuse_lost(held, {row[0] for row in rows}, whole=whole)
        return as_outcomes(rows)

    def release(self, claims: Iterable[Claim], *, delay: float | None = None) -> set[UUID]:
        """Give items back that were not worked on: they are queued again where they were, and no try is used up.

        The attempts are forgotten, as if they had never been started. A second call with the same claims (a reply was
        lost) is accepted again while the items wait.

        Args:
            claims: What `claim` returned.
            delay: Seconds until the items can be claimed again; by default at once, before younger ones.

        Returns:
            The ids of the items that were given back.

        Raises:
            LeaseLost: Inside the caller's transaction, where a claim no longer holds its item; none was given back.
        """
        released = self._end(
            _sql("release"), as_claims(claims), {"delay": None if delay is None else as_seconds(delay, "delay")}
        )
        self._horizons.forget()
        return released

    def reap(self, limit: int = 100) -> dict[UUID, Outcome]:
        """Take back items whose lease has run out: queue them again, or bury those that have no tries left.

        Args:
            limit: Most items to take back in this call (1 to 1000).

        Returns:
            For each item that was taken back, what became of it.
        """
        count = as_count(limit, "limit", most=_LARGEST_BATCH)
        values = {"limit": count, "letter_ids": [str(uuid7()) for _ in range(count)], "delay": None}
        return as_outcomes(self._rows(_sql("reap"), values))

    def _end(self, statement: str, held: Sequence[Claim], values: dict[str, Any]) -> set[UUID]:
        """Run a statement that says the same when it is made again, and return the items that it accepted.

        Args:
            statement: It accepts what it accepted before, too, and all or nothing where it is to.
            held: The claims.
            values: More parameters.
        """
        whole = self._db.transaction_open()
        given = {**fence(held), **values, "whole": whole}
        accepted = {item_id for (item_id,) in self._rows(statement, given)}
        if len(accepted) < len(held):
            # A first call that was still under way may have ended some of them since this one began.
            now = {item_id for (item_id,) in self._rows(statement, given)}
            accepted = now if whole else accepted | now
        _refuse_lost(held, accepted, whole=whole)
        return accepted


def _refuse_lost(claims: Sequence[Claim], accepted: set[UUID], *, whole: bool) -> None:
    """Raise LeaseLost where a batch was to be accepted as a whole, and some claims hold their items no longer.

    That is so inside the caller's transaction: what belongs together is stored together.
    """
    lost = {claim.item_id for claim in claims} - accepted
    if lost and whole:
        raise LeaseLost(
            f"these claims hold their items no longer (the lease ran out, or the attempt has ended); drop what was done"
            f" for them, another worker may have them: {', '.join(sorted(map(str, lost)))}"
        )

"""The audit trail: who did what, and the seals that show whether anybody changed it since."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from peewee import Tuple
from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_callable, as_count, as_list, as_name, as_object, as_seconds
from myloware_store.core.errors import InvalidInput
from myloware_store.core.results import AuditFinding, AuditHead, AuditReport
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import is_uuid
from myloware_store.db.tenancy import current_tenant
from myloware_store.orm.repository import Repository, writer
from myloware_store.orm.scalars import as_instant
from myloware_store.platform.models import AuditLog

__all__ = ["Audit"]

_LINES = 1000
"""How many lines a seal is for at most; it holds 48 bytes for each."""
_SEALS = 20
_SHOWN = 10
"""How many lines of one seal are named."""
_ID, _ENTRY = 16, 48

_queries = queries_beside(__file__, "audit.sql")


def _sql(name: str) -> str:
    """Return a statement with its fragments."""
    text = _queries(name)
    for part in ("in_seal", "line_hash", "seal_hash"):
        text = text.replace(f"{{{part}}}", _queries(part))
    return text


class Audit(Repository):
    """The audit trail. Triggers write a line for every action on the tables that docs/audit.md lists.

    Seals make later changes evident: each holds the hashes of a tenant's next lines, and the hash of the seal before.
    """

    def record(
        self,
        action: str,
        resource_type: str,
        resource_id: UUID | str,
        *,
        user_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        ip_address: str | None = None,
    ) -> AuditLog:
        """Store one audit line, which cannot be changed. Inside a transaction it is committed with the rest.

        Args:
            action: The action, such as `report.read`.
            resource_type: The type of the resource.
            resource_id: The id of the resource.
            user_id: Who did it; by default the actor in force, else `system`.
            details: More about it, a JSON object.
            ip_address: The address of the client, IPv4 or IPv6.

        Returns:
            The stored line; its `source` is `application`.

        Raises:
            InvalidInput: An argument cannot be stored.
        """
        tenant, actor = writer()
        return self._create(
            AuditLog,
            tenant_id=tenant,
            user_id=actor if user_id is None else user_id,
            action=as_name(action, "action"),
            resource_type=as_name(resource_type, "resource_type"),
            resource_id=str(resource_id) if is_uuid(resource_id) else as_name(resource_id, "resource_id"),
            details=as_object(details, "details"),
            ip_address=ip_address,
        )

    def list(
        self,
        *,
        tenant_id: str | None = None,
        resource_type: str | None = None,
        resource_id: UUID | str | None = None,
        action: str | None = None,
        user_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: AuditLog | UUID | str | None = None,
        limit: int = 100,
    ) -> builtins.list[AuditLog]:
        """Return audit lines, newest first.

        Within a tenant every filter uses an index, except for `resource_id` without `resource_type`.

        Args:
            tenant_id: Only lines of this tenant; `*` for tables that tenants share.
            resource_type: Only lines about this type of resource. For lines of triggers, the name of the table.
            resource_id: Only lines about this resource.
            action: Only lines about this action.
            user_id: Only lines of this user or service.
            since: Only lines recorded at this time or later, an aware datetime.
            until: Only lines recorded before this time, an aware datetime.
            after: Only lines that follow this one in the result, a line or its id; to continue where a call ended.
            limit: Most lines to return (1 to 100,000).

        Raises:
            InvalidInput: An argument is out of its bounds.
            NotFound: There is no line `after`.
        """
        # Index: audit_logs_tenant_id_created_at_idx, and audit_logs_<resource, action, user_id>_idx.
        query = self._select(AuditLog)
        names = {
            AuditLog.tenant_id: tenant_id,
            AuditLog.action: action,
            AuditLog.user_id: user_id,
            AuditLog.resource_type: resource_type,
        }
        for field, name in names.items():
            if name is not None:
                query = query.where(field == as_name(name, field.name))
        if since is not None:
            query = query.where(AuditLog.created_at >= as_instant(since, "since"))
        if until is not None:
            query = query.where(AuditLog.created_at < as_instant(until, "until"))
        if resource_id is not None:
            wanted = str(resource_id) if is_uuid(resource_id) else as_name(resource_id, "resource_id")
            query = query.where(AuditLog.resource_id == wanted)
        if after is not None:
            line = after if isinstance(after, AuditLog) else self._find(AuditLog, after, "after")
            query = query.where(Tuple(AuditLog.created_at, AuditLog.id) < Tuple(line.created_at, line.id))
        newest_first = query.order_by(AuditLog.created_at.desc(), AuditLog.id.desc())
        return [*newest_first.limit(as_count(limit, "limit"))]

    def seal(self, *, every: float = 0.0) -> int:
        """Seal the lines that have none yet, of every tenant, or of the one in force.

        A line is sealed once all transactions that may still write lines before it have ended. Call it from time to
        time; a `Worker` does. Any number of calls may run at once. If one is interrupted, the next continues it.

        Args:
            every: Leave out tenants whose newest seal is younger than so many seconds.

        Returns:
            How many lines were sealed.

        Raises:
            InvalidInput: A transaction is open: the lines of a call are sealed in several.
        """
        self._require_no_transaction("seal")
        seconds = as_seconds(every, "every")
        tenants = [tenant for tenant in self.tenants() if self._one("has_unsealed", of=tenant, every=seconds)]
        if not tenants:
            return 0
        finished = self._one("finished_epoch", epoch=self._one("begin_epoch"))
        sealed = 0
        for tenant in tenants:
            found = True
            while found:
                values = {"of": tenant, "finished": finished, "most": _LINES, "id": str(uuid7())}
                ((found, stored),) = self._rows(_sql("seal"), values)
                sealed += found if stored else 0
        return sealed

    def heads(self) -> builtins.list[AuditHead]:
        """Return the newest seal of every tenant, or of the one in force.

        Keep them where nobody who can change the database can change them: `verify` compares with them.
        """
        rows = self._rows(_sql("heads"), {"tenants": self.tenants()}, reads=True)
        return [AuditHead(tenant, number, digest) for tenant, number, digest, _ in rows]

    def verify(
        self, *, heads: Iterable[AuditHead] = (), progress: Callable[..., object] = lambda *_: None
    ) -> AuditReport:
        """Compare the lines of every tenant, or of the one in force, with their seals.

        This finds a line that was edited, deleted or inserted, and a seal that was changed or deleted. Only `heads`
        that were kept elsewhere show that the newest seals were deleted with their lines, or that all was replaced.

        Args:
            heads: What `heads()` returned before. Those of other tenants than the one in force are left out.
            progress: Called with the current step, the tenants done, and all tenants.

        Returns:
            What was compared, and the differences.

        Raises:
            InvalidInput: A head is not an `AuditHead`, or `progress` cannot be called.
        """
        as_callable(progress, "progress")
        kept: dict[str, builtins.list[AuditHead]] = {}
        for head in as_list(heads, "heads", AuditHead):
            if not isinstance(head, AuditHead):
                raise InvalidInput(f"heads: {type(head).__name__} is not an AuditHead")
            if current_tenant() in (None, head.tenant_id):
                kept.setdefault(head.tenant_id, []).append(head)
        tenants = sorted({*self.tenants(), *kept})
        seals = lines = unsealed = 0
        pruned: dict[str, int] = {}
        findings: builtins.list[AuditFinding] = []
        for done, tenant in enumerate(tenants):
            progress("Verifying", done, len(tenants))
            if through := self._one("pruned_to", of=tenant):
                pruned[tenant] = through
            number, before = 0, None
            hashes: dict[int, str] = {}
            expected = kept.get(tenant, [])
            for row in self._seals(tenant):
                number, before, (count, found) = row[0], row[1], self._examine(tenant, row, number, before, through)
                findings += found
                seals, lines = seals + 1, lines + count
                if any(number == head.number for head in expected):
                    hashes[number] = row[1]
            for head in expected:
                if (found_hash := hashes.get(head.number)) != head.hash:
                    what = "is missing: the trail was truncated or replaced" if found_hash is None else "is another one"
                    findings.append(
                        AuditFinding(tenant, "head", head.number, None, f"the seal that was exported {what}")
                    )
            unsealed += self._one("count_unsealed", of=tenant)
        return AuditReport(len(tenants), seals, lines, unsealed, pruned, tuple(findings))

    def prune(self, before: datetime) -> int:
        """Delete the lines that were sealed before a time, in whole seals. The seals stay, and with them the chain.

        Every batch is a transaction of its own, with an audit line about it. Lines without a seal stay.

        Args:
            before: The time, an aware datetime.

        Returns:
            How many lines were deleted.

        Raises:
            InvalidInput: `before` is not an aware datetime, or a transaction is open.
        """
        instant = as_instant(before, "before")
        self._require_no_transaction("prune")
        deleted = 0
        for tenant in self.tenants():
            after = self._one("pruned_to", of=tenant)
            while seal := self._one("prunable", of=tenant, after=after, before=instant, most=_SEALS):
                deleted += self._db.transact(partial(self._delete, tenant, after, seal, instant))
                after = seal
        return deleted

    def _delete(self, tenant: str, after: int, seal: int, before: datetime) -> int:
        """Delete the lines of the seals behind one up to another, and record it."""
        self._db.execute_sql("SET LOCAL myloware.audit_prune = 'on'")
        gone: int = self._one("prune", of=tenant, after=after, seal=seal)
        self._db.execute_sql("SET LOCAL myloware.audit_prune = 'off'")
        self._create(
            AuditLog,
            tenant_id=tenant,
            user_id=writer()[1],
            action="prune",
            resource_type="audit_logs",
            resource_id="*",
            details={"seal": seal, "lines": gone, "before": before.isoformat()},
        )
        return gone

    def _require_no_transaction(self, name: str) -> None:
        if self._db.transaction_open():
            raise InvalidInput(f"{name}: it makes transactions of its own; commit first")

    def tenants(self) -> builtins.list[str]:
        """Return the tenants that have lines or seals, or the one in force."""
        return [tenant for (tenant,) in self._rows(_sql("tenants"), {}, reads=True)]

    def _one(self, name: str, **values: Any) -> Any:
        ((value,),) = self._rows(_sql(name), values)
        return value

    def _seals(self, tenant: str) -> Iterator[tuple[Any, ...]]:
        number = 0
        tuned = {"jit": "off"}  # the plan of many lines looks dear enough for it
        while rows := self._db.execute_tuned(
            tuned, _sql("check_seals"), {"of": tenant, "after": number, "most": _SEALS}
        ).fetchall():
            yield from rows
            number = rows[-1][0]

    def _examine(
        self, tenant: str, row: tuple[Any, ...], last: int, before: str | None, pruned: int
    ) -> tuple[int, builtins.list[AuditFinding]]:
        """Return how many lines of a seal are there, and what is wrong with them and it."""
        number, _, previous, intact, count, same = row
        findings = []
        if number != last + 1:
            gap = f"{last + 1}" if number == last + 2 else f"{last + 1} to {number - 1}"
            findings.append(AuditFinding(tenant, "seal", last + 1, None, f"seal {gap} is missing"))
        elif previous != before:
            findings.append(AuditFinding(tenant, "seal", number, None, f"seal {number} does not follow the one before"))
        if not intact:
            findings.append(AuditFinding(tenant, "seal", number, None, f"seal {number} was changed"))
        # A seal that was changed proves nothing about its lines; those of another may have been pruned in between.
        elif not same and (count or (number > pruned and number > self._one("pruned_to", of=tenant))):
            findings += self._compare(tenant, number)
        return count, findings

    def _compare(self, tenant: str, number: int) -> builtins.list[AuditFinding]:
        """Name the lines that differ from their seal."""
        values = {"of": tenant, "number": number, "most": 2 * _LINES}
        rows = self._rows(_sql("compare_seal"), values)
        if not rows:
            return []
        blob, there = bytes(rows[0][0]), [bytes(entry) for entry in rows[0][1]]
        sealed = {blob[at : at + _ID]: blob[at + _ID : at + _ENTRY] for at in range(0, len(blob), _ENTRY)}
        found = {entry[:_ID]: entry[_ID:] for entry in there}
        different = [
            *(("missing", key) for key in sealed.keys() - found.keys()),
            *(("inserted", key) for key in found.keys() - sealed.keys()),
            *(("edited", key) for key in sealed.keys() & found.keys() if sealed[key] != found[key]),
        ]
        verbs = {"missing": "was deleted", "inserted": "was inserted", "edited": "was edited"}
        named = [
            AuditFinding(tenant, kind, number, UUID(bytes=key), f"line {UUID(bytes=key)} {verbs[kind]}")
            for kind, key in sorted(different, key=lambda one: one[1])
        ]
        if len(named) > _SHOWN:
            more = f"and {len(named) - _SHOWN} more of its {len(sealed)} lines"
            return [*named[:_SHOWN], AuditFinding(tenant, named[-1].kind, number, None, more)]
        return named

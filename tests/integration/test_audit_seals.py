"""Seals on the audit trail: what a superuser changes is found; what only happens at the same time is not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from myloware_store import AuditHead, AuditLog, AuditSeal, Worker
from myloware_store.core.errors import InvalidInput
from myloware_store.platform import audit as module
from myloware_store.platform.heads import read_heads, sign_heads
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

FUTURE = timedelta(days=1)


def record(store: Store, tenant: str, *names: str) -> None:
    """Record actions of a tenant."""
    with store.tenant(tenant):
        for name in names:
            store.audit.record("read", "report", name)


def as_superuser(store: Store, *statements: str) -> None:
    """Run statements without triggers, as somebody who covers their traces would."""
    with store.db.atomic():
        store.db.execute_sql("SET LOCAL session_replication_role = replica")
        for statement in statements:
            store.db.execute_sql(statement)


def found(store: Store, *heads: AuditHead) -> list[tuple[str, str, int]]:
    """Return tenant, kind and seal of the findings."""
    return [(one.tenant_id, one.kind, one.seal) for one in store.audit.verify(heads=heads).findings]


@pytest.fixture
def sealed(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store with three seals of two lines of acme, and one of globex."""
    monkeypatch.setattr(module, "_LINES", 2)
    for names in ("ab", "cd", "ef"):
        record(myloware, "acme", *names)
        myloware.audit.seal()
    record(myloware, "globex", "g")
    myloware.audit.seal()
    return myloware


def line(store: Store, name: str) -> AuditLog:
    """Return the line about a report."""
    return AuditLog.get(AuditLog.resource_id == name)


def test_what_nobody_changed_is_intact(sealed: Store) -> None:
    """Lines without a seal are counted; every tenant has a chain of its own."""
    record(sealed, "acme", "later")
    report = sealed.audit.verify()

    assert (True, 2, 4, 7, 1) == (report.intact, report.tenants, report.seals, report.lines, report.unsealed)
    assert [("acme", 3), ("globex", 1)] == [(head.tenant_id, head.number) for head in sealed.audit.heads()]
    assert 1 == sealed.audit.seal()
    assert 0 == sealed.audit.seal()
    assert sealed.audit.verify().intact


COLUMNS = {
    "id": "gen_random_uuid()",
    "created_at": "created_at - interval '1 microsecond'",
    "tenant_id": "'globex'",
    "ip_address": "'10.0.0.1'",
    "details": """'{"a": 1}'""",
    "db_role": "NULL",
    "epoch": "epoch + 1",
}


def test_an_edit_of_any_column_is_found(sealed: Store) -> None:
    """With the tenant and the line; the test knows all columns there are."""
    edited = line(sealed, "c")
    for field in AuditLog._meta.sorted_fields:
        with sealed.db.atomic() as block:
            value = COLUMNS.get(field.name, f"{field.column_name} || 'x'")
            as_superuser(sealed, f"UPDATE audit_logs SET {field.column_name} = {value} WHERE id = '{edited.id}'")
            findings = sealed.audit.verify().findings
            assert ("acme", 2, edited.id) in [(one.tenant_id, one.seal, one.line_id) for one in findings], field.name
            block.rollback()
    assert sealed.audit.verify().intact


def test_a_deletion_is_found(sealed: Store) -> None:
    """In the middle, and of a whole seal's lines."""
    gone = line(sealed, "c")
    as_superuser(sealed, f"DELETE FROM audit_logs WHERE id = '{gone.id}'")
    (finding,) = sealed.audit.verify().findings
    assert ("acme", "missing", 2, gone.id) == attrs.astuple(finding)[:4]
    assert f"line {gone.id} was deleted" == finding.message

    sealed.db.execute_sql("TRUNCATE audit_logs")
    assert {("acme", "missing", n) for n in (1, 2, 3)} | {("globex", "missing", 1)} == set(found(sealed))


def test_an_insertion_into_a_sealed_range_is_found(sealed: Store) -> None:
    """Before the first line, also with an epoch that no line gets, between two, or in front of a seal."""
    for epoch, seal in ((-(2**31), 1), (0, 1), (1, 2), (2, 3)):
        with sealed.db.atomic() as block:
            as_superuser(
                sealed,
                "INSERT INTO audit_logs (id, epoch, tenant_id, user_id, action, resource_type, resource_id)"
                f" VALUES ('00000000-0000-0000-0000-00000000000{seal}', {epoch}, 'acme', 'x', 'x', 'x', 'x')",
            )
            (finding,) = sealed.audit.verify().findings
            assert ("acme", "inserted", seal) == (finding.tenant_id, finding.kind, finding.seal)
            assert f"00000000-0000-0000-0000-00000000000{seal}" == str(finding.line_id)
            block.rollback()


def test_a_seal_that_was_changed_or_deleted_is_found(sealed: Store) -> None:
    """Every column is in its hash, and every seal has the hash of the one before."""
    values = {"created_at": "now()", "id": "gen_random_uuid()", "lines": "lines || 'x'::bytea", "last_id": "id"}
    for field in AuditSeal._meta.sorted_fields:
        kind = "text" if field.column_name in {"hash", "previous_hash"} else "integer"
        value = values.get(field.name, f"COALESCE({field.column_name} || '0', '')" if kind == "text" else None)
        value = value or ("'globex2'" if field.name == "tenant_id" else f"{field.column_name} + 10")
        with sealed.db.atomic() as block:
            as_superuser(sealed, f"UPDATE audit_seals SET {field.column_name} = {value} WHERE number = 2")
            assert "seal" in [kind for _, kind, _ in found(sealed)], field.name
            block.rollback()
    as_superuser(sealed, "DELETE FROM audit_seals WHERE number = 2")
    assert ("acme", "seal", 2) in found(sealed)


def test_a_truncated_tail_and_a_replaced_trail_need_heads_kept_elsewhere(sealed: Store) -> None:
    """What was sealed anew is consistent in itself; the exported heads are not in it."""
    heads = sealed.audit.heads()
    as_superuser(
        sealed,
        "DELETE FROM audit_logs WHERE resource_id IN ('e', 'f')",
        "DELETE FROM audit_seals WHERE tenant_id = 'acme' AND number = 3",
    )
    assert [] == found(sealed)
    assert [("acme", "head", 3)] == found(sealed, *heads)
    record(sealed, "acme", "x", "y")
    sealed.audit.seal()
    assert [("acme", "head", 3)] == found(sealed, *heads)

    sealed.db.execute_sql("TRUNCATE audit_logs, audit_seals")
    assert [("acme", "head", 3), ("globex", "head", 1)] == found(sealed, *heads)
    with sealed.tenant("globex"):
        assert [("globex", "head", 1)] == found(sealed, *heads)


def test_all_heads_of_a_tenant_are_compared(sealed: Store) -> None:
    """Those of several files, in any order: an older one does not hide that a newer one is missing."""
    first = [AuditHead("acme", 1, AuditSeal.get(tenant_id="acme", number=1).hash)]
    newest = sealed.audit.heads()
    as_superuser(sealed, "DELETE FROM audit_seals WHERE number > 2")

    assert [("acme", "head", 3)] == found(sealed, *newest[:1], *first)


def test_a_clock_that_goes_back_does_not_stop_the_seals(sealed: Store) -> None:
    """The newest seal is of a time to come then."""
    as_superuser(sealed, "UPDATE audit_seals SET created_at = created_at + interval '1 hour'")
    record(sealed, "acme", "x")

    assert 1 == sealed.audit.seal(every=60)


def test_heads_of_today_are_found_tomorrow(sealed: Store) -> None:
    """The chain has grown, and been pruned, since."""
    heads = sealed.audit.heads()
    record(sealed, "acme", "x")
    sealed.audit.seal()
    sealed.audit.prune(datetime.now(UTC) + FUTURE)

    assert [] == found(sealed, *heads)


def test_the_hash_does_not_depend_on_settings(sealed: Store) -> None:
    """Of the session, such as its time zone."""
    with sealed.db.atomic():
        sealed.db.execute_sql("SET LOCAL timezone = 'Asia/Kathmandu'; SET LOCAL datestyle = 'German, DMY'")
        sealed.db.execute_sql("SET LOCAL bytea_output = 'escape'; SET LOCAL intervalstyle = 'sql_standard'")
        assert sealed.audit.verify().intact


def test_a_line_of_a_long_transaction_waits_and_keeps_its_place(myloware: Store) -> None:
    """Lines that others commit meanwhile are sealed when it has ended; nothing slips into a seal."""
    wrote, go = threading.Event(), threading.Event()

    def long_transaction() -> None:
        with myloware.db.atomic():
            record(myloware, "acme", "first")
            wrote.set()
            assert go.wait(60)
            record(myloware, "acme", "third")

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(long_transaction)
        assert wrote.wait(60)
        record(myloware, "acme", "second")
        assert (0, 1) == (myloware.audit.seal(), myloware.audit.verify().unsealed)
        record(myloware, "acme", "fourth")
        go.set()
        running.result()
    assert 4 == myloware.audit.seal()

    assert myloware.audit.verify().intact
    order = AuditLog.select(AuditLog.resource_id).order_by(AuditLog.epoch, AuditLog.id).tuples()
    assert ["first", "second", "fourth", "third"] == [name for (name,) in order]


def test_sealers_and_writers_at_once_seal_every_line_once(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sealers, four writers, and small seals."""
    monkeypatch.setattr(module, "_LINES", 3)
    writing = threading.Event()

    def write(number: int) -> None:
        for n in range(25):
            with myloware.db.atomic():
                record(myloware, f"tenant-{n % 2}", f"{number}-{n}", f"{number}-{n}-more")

    def seal() -> int:
        sealed = 0
        while not writing.is_set():
            sealed += myloware.audit.seal()
        return sealed

    with ThreadPoolExecutor(6) as pool:
        sealers = [pool.submit(seal) for _ in range(2)]
        list(pool.map(write, range(4)))
        writing.set()
        sealed = sum(sealer.result() for sealer in sealers) + myloware.audit.seal()

    report = myloware.audit.verify()
    assert (True, 200, 200, 0) == (report.intact, sealed, report.lines, report.unsealed)


def test_an_interrupted_sealing_is_continued(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seal is a transaction of its own."""
    monkeypatch.setattr(module, "_LINES", 2)
    record(myloware, "acme", *"abcde")
    rows, calls = myloware.audit._rows, []

    def interrupted(sql: str, *arguments: Any, **options: Any) -> Any:
        calls.append(sql)
        if sum("INSERT INTO audit_seals" in call for call in calls) == 2:
            raise KeyboardInterrupt
        return rows(sql, *arguments, **options)

    monkeypatch.setattr(myloware.audit, "_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        myloware.audit.seal()
    monkeypatch.setattr(myloware.audit, "_rows", rows)

    assert [(2,)] == list(AuditSeal.select(AuditSeal.line_count).tuples())
    assert 3 == myloware.audit.seal()
    assert myloware.audit.verify().intact


def test_whole_old_seals_are_pruned_and_the_chain_stays(sealed: Store) -> None:
    """The trail says so itself; what is edited afterwards is found as before."""
    until_time = AuditSeal.get(AuditSeal.tenant_id == "acme", AuditSeal.number == 3).created_at
    with sealed.tenant("acme", actor="kim"):
        assert 4 == sealed.audit.prune(until_time)
    assert 0 == sealed.audit.prune(until_time)

    (told,) = sealed.audit.list(action="prune")
    assert ("acme", "kim", "audit_logs") == (told.tenant_id, told.user_id, told.resource_type)
    assert {"seal": 2, "lines": 4, "before": until_time.isoformat()} == told.details
    assert ["e", "f"] == sorted(one.resource_id for one in sealed.audit.list(tenant_id="acme", action="read"))
    report = sealed.audit.verify()
    assert (True, {"acme": 2}, 4, 3) == (report.intact, report.pruned, report.seals, report.lines)

    sealed.audit.seal()
    sealed.audit.prune(datetime.now(UTC) + FUTURE)
    assert sealed.audit.verify().intact
    as_superuser(sealed, "DELETE FROM audit_logs WHERE action = 'prune' AND tenant_id = 'acme'")
    assert ("acme", "missing", 1) in found(sealed)


def test_what_is_not_sealed_is_not_pruned(myloware: Store) -> None:
    """Nothing would show that it was there."""
    record(myloware, "acme", "a")

    assert 0 == myloware.audit.prune(datetime.now(UTC) + FUTURE)
    assert 1 == AuditLog.select().count()


def test_verify_refuses_what_is_no_head_and_cannot_be_called(myloware: Store) -> None:
    """As everywhere."""
    with pytest.raises(InvalidInput, match="progress: str cannot be called"):
        myloware.audit.verify(progress="")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="heads: str is not an AuditHead"):
        myloware.audit.verify(heads=[""])  # type: ignore[list-item]


@pytest.mark.parametrize("act", [lambda audit: audit.seal(), lambda audit: audit.prune(datetime.now(UTC))])
def test_they_need_transactions_of_their_own(myloware: Store, act: Callable[[Any], object]) -> None:
    """In a caller's transaction, a seal could lack what others have committed before."""
    with myloware.db.atomic(), pytest.raises(InvalidInput, match="transactions of its own"):
        act(myloware.audit)


def test_a_worker_seals(myloware: Store) -> None:
    """Beside its other upkeep, while it has nothing to do."""
    record(myloware, "acme", "a")
    worker = Worker(myloware, lambda _: None, reap_every=0.02, threads=1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run)
        until(lambda: AuditSeal.select().count())
        worker.stop()
        running.result()
    assert myloware.audit.verify().intact


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    """Return a private and a public Ed25519 key in PEM."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key, pem = ed25519.Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_signed_heads_are_read_and_changed_ones_refused(keys: tuple[bytes, bytes]) -> None:
    """Also a file of another kind, a key of another kind, and heads that somebody else signed."""
    heads = [AuditHead("acme", 3, "ab" * 32), AuditHead("größe", 1, "cd" * 32)]
    private, public = keys
    data = sign_heads(heads, private)

    assert heads == read_heads(data, public)
    for wrong in (
        data.replace(b'"number": 3', b'"number": 2'),
        b"{}",
        b"[]",
        b"\xff",
        data.replace(b"signature", b"x"),
    ):
        with pytest.raises(InvalidInput, match="signed with this key"):
            read_heads(wrong, public)
    with pytest.raises(InvalidInput, match="private key is not an Ed25519"):
        sign_heads(heads, public)
    with pytest.raises(InvalidInput, match="public key is not an Ed25519"):
        read_heads(data, private)

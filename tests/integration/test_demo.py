"""The main job on documents that nobody here wrote: everything is stored, everything is answered for."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from myloware_store import (
    ApprovalEvent,
    Attempt,
    AttemptStatus,
    AuditLog,
    DeadLetter,
    EvalResult,
    HashingEmbedder,
    InvalidInput,
    InvalidVector,
    MemDoc,
    Run,
    Store,
    StoreError,
    WorkItem,
    WorkItemStatus,
    WorkItemType,
    WorkOrder,
    WorkOrderStatus,
)
from myloware_store.demo import TENANT, DemoReport, run_demo
from myloware_store.demo.reading import BUNDLED, Document, Reading, Skipped, guess_type, read_documents
from myloware_store.models import MODELS
from myloware_store.seed import seed

TABLES = [model._meta.table_name for model in MODELS]


def texts(*contents: str) -> Reading:
    """Return documents of these texts, as if they had been read."""
    return Reading(
        tuple(
            Document(Path(f"{number}.txt"), f"{number}.txt", text, guess_type("", text))
            for number, text in enumerate(contents, 1)
        ),
        (),
    )


def all_rows(store: Store) -> dict[str, list[Any]]:
    """Return every row that does not belong to the tenant of the demonstration."""
    sql = "SELECT t::text FROM {} AS t WHERE to_jsonb(t) ->> 'tenant_id' IS DISTINCT FROM 'demo' ORDER BY 1"
    return {table: list(store.db.execute_sql(sql.format(table)).fetchall()) for table in TABLES}


def own_counts(report: DemoReport) -> dict[str, int]:
    """Count the rows of the report's order through the models."""
    items = WorkItem.select(WorkItem.id).where(WorkItem.work_order == report.order_id)
    return {
        "work_orders": WorkOrder.select().where(WorkOrder.id == report.order_id).count(),
        "work_items": items.count(),
        "attempts": Attempt.select().where(Attempt.work_item.in_(items)).count(),
        "runs": Run.select().where(Run.work_order == report.order_id).count(),
        "mem_docs": MemDoc.select().where(MemDoc.work_item.in_(items)).count(),
        "approval_events": ApprovalEvent.select().where(ApprovalEvent.work_item.in_(items)).count(),
        "eval_results": EvalResult.select().where(EvalResult.work_item.in_(items)).count(),
        "dead_letters": DeadLetter.select().count(),
        "audit_logs": AuditLog.select().where(AuditLog.source == "application").count(),
    }


def test_the_whole_life(myloware: Store) -> None:
    """The bundled documents go through every step, and the report matches the database."""
    report = run_demo(myloware, read_documents(BUNDLED))
    order = WorkOrder.get_by_id(report.order_id)
    statuses = {item.name: (item.status, item.attempts) for item in report.items}

    assert (report.status, order.status, order.tenant_id) == (
        WorkOrderStatus.COMPLETED,
        WorkOrderStatus.COMPLETED,
        TENANT,
    )
    assert report.counts == own_counts(report)
    assert [table for table, count in report.counts.items() if count == 0] == []
    assert report.retried is not None
    assert statuses.pop(report.retried[0]) == (WorkItemStatus.COMPLETED, 2)
    assert set(statuses.values()) == {(WorkItemStatus.COMPLETED, 1)}
    assert report.approved == "brightwater-print-bw-7731.txt"
    assert Run.get_by_id(report.run_id).status == WorkOrderStatus.COMPLETED
    (letter_id,) = report.dead_letter_ids
    assert DeadLetter.get_by_id(letter_id).error.startswith("simulated")


def test_what_is_stored(myloware: Store) -> None:
    """Results are what was read, the failed attempt has its error, memory its vectors, actions audit lines."""
    report = run_demo(myloware, read_documents(BUNDLED))
    failed = Attempt.get(Attempt.status == AttemptStatus.FAILED)
    invoice = next(item for item in report.items if item.name == report.approved)
    actions = {(line.user_id, line.action) for line in AuditLog.select().where(AuditLog.source == "application")}

    assert {"title", "words", "key_words"} == invoice.result.keys()
    assert invoice.result["title"].startswith("Brightwater")
    assert WorkItem.get_by_id(invoice.item_id).result == invoice.result
    assert failed.error == f"TimeoutError: {report.retried[1]}" if report.retried else False
    assert MemDoc.select().where(MemDoc.embedding.is_null()).count() == 0
    assert actions == {
        ("demo", "work_order.submit"),
        ("demo", "work_item.fail"),
        ("demo-agent", "work_item.finish"),
        ("demo", "approval.decide"),
    }


def test_answers(myloware: Store) -> None:
    """The best passage for a question is one of the document that answers it, in each language."""
    reading = read_documents(BUNDLED)
    best = {
        query: run_demo(myloware, reading, query=query).passages[0].document
        for query in (
            "What is the late fee on overdue invoices?",
            "duplicate payment of a supplier invoice",
            "why is the barcode wrong on the chutney labels?",
            "Wie hoch ist die Mahngebühr?",
            "pénalités de retard de paiement",
            "百貨店の催事はいつですか",
        )
    }

    assert list(best.values()) == [
        "invoice-harbor-pine-hp-2025-0142.txt",
        "ticket-4408-supplier-paid-twice.txt",
        "barcode-on-pear-chutney-does-not-scan.md",
        "rechnung-kaltenbach-2025-0318.txt",
        "facture-moulin-bleu-f2025-067.txt",
        "shuho-osaka-2025-w11.md",
    ]


def test_other_tenants_are_not_touched(myloware: Store) -> None:
    """Only rows of tenant demo are written: other rows, including the shared catalogue, stay unchanged."""
    seed(myloware.db)
    before = all_rows(myloware)
    report = run_demo(myloware, read_documents(BUNDLED))

    assert all_rows(myloware) == before
    assert report.counts["work_items"] == 14
    assert {passage.document for passage in report.passages} <= {item.name for item in report.items}


def test_one_document(myloware: Store) -> None:
    """A single document fails, is tried again, and waits for approval."""
    report = run_demo(myloware, texts("One line without any sign of what it is"), query="line")

    assert [(item.status, item.attempts) for item in report.items] == [(WorkItemStatus.COMPLETED, 2)]
    assert report.retried == ("1.txt", "simulated: the model did not answer in time")
    assert report.approved == "1.txt"
    assert [passage.document for passage in report.passages] == ["1.txt"]


def test_strange_documents(myloware: Store) -> None:
    """Documents of any shape are worked on, more different words than the full-text index has room for included."""
    reading = texts(
        "?!",
        "\N{PILE OF POO}" * 50,
        "x",
        "a\x01b\x1b[0m\x7f control characters",
        "\u202eright to left\u202c \ufeff \u200b",
        "word" * 50_000,
        "line\n" * 20_000,
        "很" * 20_000,
        "%s %(name)s {} ' \" \\ ; DROP TABLE work_items; --",
        " ".join(f"{number:x}-{number + 7:x}" for number in range(80_000)),
        "prose about nothing in particular " * 25_000,
        "x",
    )
    report = run_demo(myloware, reading, query="prose")

    assert {item.status for item in report.items} == {WorkItemStatus.COMPLETED}
    assert [item.name for item in report.items] == [f"{number}.txt" for number in range(1, 12)]
    assert [(each.name, each.reason) for each in report.skipped] == [("12.txt", "the same text as 3.txt")]
    assert report.passages[0].document == "11.txt"


@pytest.mark.parametrize("kind", list(WorkItemType))
def test_documents_of_one_type(myloware: Store, kind: WorkItemType) -> None:
    """Documents that are all of one type are worked on like any others."""
    documents = [Document(Path(name), name, f"document {name}", kind) for name in "abc"]
    report = run_demo(myloware, Reading(tuple(documents), ()))

    assert [(item.name, item.type, item.status) for item in report.items] == [
        (name, kind, WorkItemStatus.COMPLETED) for name in "abc"
    ]


def test_five_hundred_documents(myloware: Store) -> None:
    """Many documents are worked on, in several batches."""
    report = run_demo(myloware, texts(*(f"Ticket {n}: the printer of room {n} is broken" for n in range(500))))

    assert report.status == WorkOrderStatus.COMPLETED
    assert report.counts["work_items"] == report.counts["eval_results"] == report.counts["mem_docs"] == 500
    assert report.counts["attempts"] == 501


def test_files_that_gave_no_document(myloware: Store) -> None:
    """Each file that could not be read is a dead letter, and nothing needs to be made up."""
    skipped = (Skipped("scan.txt", "looks like binary data"), Skipped("void.txt", "empty"))
    report = run_demo(myloware, Reading(texts("Invoice 7").documents, skipped))
    stored = [DeadLetter.get_by_id(letter_id) for letter_id in report.dead_letter_ids]
    letters = [(letter.payload["name"], letter.error) for letter in stored]

    assert report.skipped == skipped
    assert letters == [("scan.txt", "looks like binary data"), ("void.txt", "empty")]
    assert report.counts["dead_letters"] == 2


def test_a_question_that_nothing_answers(myloware: Store) -> None:
    """Unrelated passages are not answers, even if there are no others."""
    reading = texts("The printer on the second floor is out of toner.", "Invoice 7 for twelve crates of pears.")

    assert run_demo(myloware, reading, query="zymurgy").passages == ()
    assert [passage.document for passage in run_demo(myloware, reading, query="toner").passages] == ["1.txt"]


def test_a_second_run(myloware: Store) -> None:
    """A second run makes an order of its own, and memory holds every passage once."""
    first = run_demo(myloware, read_documents(BUNDLED))
    second = run_demo(myloware, read_documents(BUNDLED))

    assert first.order_id != second.order_id
    assert first.counts == second.counts
    assert MemDoc.select().count() == second.counts["mem_docs"]
    assert [passage.content for passage in second.passages] == [passage.content for passage in first.passages]


def test_a_busy_tenant(myloware: Store) -> None:
    """Work of others in the tenant, waiting, held or failed, does not get in the way, and is not lost."""
    with myloware.tenant(TENANT):
        waiting = myloware.work.submit(
            [{"type": "INVOICE", "content": f"other {n}"} for n in range(30)], priority="URGENT"
        )
        held = myloware.work.claim("other-agent", 5)
        myloware.memory.upsert([{"type": "KNOWLEDGE", "content": "late fee", "embedding": [1.0] * 1536}])
    report = run_demo(myloware, texts("Invoice A", "Ticket B", "Status report C"))

    assert report.status == WorkOrderStatus.COMPLETED
    assert {item.status for item in report.items} == {WorkItemStatus.COMPLETED}
    assert report.counts["work_items"] == 3
    left = {item.status for item in myloware.work.items(waiting.id)}
    assert left <= {WorkItemStatus.QUEUED, WorkItemStatus.PROCESSING, WorkItemStatus.COMPLETED}
    assert len(myloware.work.finish(held, [None] * 5)) == 5


def test_two_at_once(myloware: Store) -> None:
    """Two runs on the same documents at the same time both end, whichever of them does the work."""
    reading = read_documents(BUNDLED)
    reports: list[DemoReport] = []
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait(60)
        reports.append(run_demo(myloware, reading))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert [report.status for report in reports] == [WorkOrderStatus.COMPLETED] * 2
    assert {item.status for report in reports for item in report.items} == {WorkItemStatus.COMPLETED}
    assert MemDoc.select().count() == 40


def at_stage(wanted: str, act: Callable[[], Any]) -> Callable[[str, int, int], None]:
    """Return a progress callback that acts once, when a stage is reported for the first time."""
    seen: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == wanted and stage not in seen:
            act()
        seen.append(stage)

    return progress


def test_a_worker_that_never_ends(myloware: Store) -> None:
    """Items that another worker holds are waited for, then reported by a typed error; the run is recorded as failed."""
    steal = at_stage("submitted", lambda: myloware.work.claim("thief", 2, lease=600))

    with pytest.raises(StoreError, match="another worker of tenant demo holds 2 items"):
        run_demo(myloware, texts("A", "B", "C"), patience=0.2, progress=steal)

    assert [run.status for run in Run.select()] == [WorkOrderStatus.FAILED]


def test_a_worker_that_is_faster(myloware: Store) -> None:
    """Items that another worker finishes are its own: nothing is said to have failed or been approved."""

    def take_all() -> None:
        myloware.work.finish(myloware.work.claim("helper", 10), ["by the helper", "by the helper"])

    report = run_demo(myloware, texts("A", "B"), progress=at_stage("submitted", take_all))

    assert [item.result for item in report.items] == ["by the helper", "by the helper"]
    assert (report.retried, report.approved) == (None, None)
    assert report.counts["approval_events"] == 0


def test_a_person_that_is_faster(myloware: Store) -> None:
    """A decision that a person makes meanwhile stands."""

    def reject() -> None:
        for item in myloware.approvals.pending():
            myloware.approvals.decide(item.id, approver_id="me", decision="REJECTED", policy_version="mine")

    report = run_demo(myloware, texts("A"), progress=at_stage("processed", reject))

    assert report.approved is None
    assert report.status == WorkOrderStatus.FAILED
    assert [event.approver_id for event in ApprovalEvent.select()] == ["me"]


def test_a_lease_that_runs_out(myloware: Store) -> None:
    """An agent that is too slow loses its claim, writes nothing for it, and works on the item again."""
    calls: list[int] = []

    def slow(several: Sequence[str]) -> Any:
        calls.append(len(several))
        if len(calls) == 2:  # after the query: the one document whose first attempt was not made to fail
            Attempt.update(lease_expires_at=datetime(2025, 1, 1, tzinfo=UTC)).where(
                Attempt.status == AttemptStatus.STARTED
            ).execute()
        return HashingEmbedder()(several)

    report = run_demo(myloware, texts("A", "B"), embedder=slow)
    by_item = Attempt.select().order_by(Attempt.attempt_number)
    ends = {
        item.name: [attempt.status for attempt in by_item.where(Attempt.work_item == item.item_id)]
        for item in report.items
    }

    assert ends == {
        "1.txt": [AttemptStatus.TIMEOUT, AttemptStatus.COMPLETED],
        "2.txt": [AttemptStatus.FAILED, AttemptStatus.COMPLETED],
    }
    assert report.counts["eval_results"] == report.counts["mem_docs"] == 2


def test_progress(myloware: Store) -> None:
    """Progress is reported for each stage, and never exceeds the total."""
    told: list[tuple[str, int, int]] = []
    run_demo(myloware, texts(*map(str, range(45))), progress=lambda *step: told.append(step))

    assert told[0] == ("submitted", 45, 45)
    assert [stage for stage, _, _ in told[1:]] == ["processed"] * (len(told) - 2) + ["approved"]
    assert [done for _, done, _ in told[1:-1]] == sorted(done for _, done, _ in told[1:-1])
    assert told[-2:] == [("processed", 45, 45), ("approved", 1, 1)]


@pytest.mark.parametrize(
    ("reading", "arguments", "error", "message"),
    [
        (Reading((), ()), {}, InvalidInput, "none was given"),
        (Reading((), (Skipped("a.txt", "empty"),)), {}, InvalidInput, "a.txt: empty"),
        (texts("A"), {"query": " "}, InvalidInput, "query"),
        (texts("A"), {"query": None}, InvalidInput, "query"),
        (texts("A"), {"answers": 0}, InvalidInput, "answers"),
        (texts("A"), {"embedder": lambda several: np.zeros((len(several), 3))}, InvalidVector, "embedder"),
        (texts("A"), {"embedder": lambda several: np.zeros((len(several), 1536))}, InvalidVector, "are zero"),
        (texts("A\x00B"), {}, InvalidInput, "NUL"),
    ],
)
def test_bad_input(
    myloware: Store, reading: Reading, arguments: dict[str, Any], error: type[StoreError], message: str
) -> None:
    """Unusable arguments raise one typed error, and nothing is written."""
    with pytest.raises(error, match=message):
        run_demo(myloware, reading, **arguments)

    assert [table for table in TABLES if myloware.db.execute_sql(f"SELECT FROM {table}").fetchall()] == []

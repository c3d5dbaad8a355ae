"""Schemas of documents: versions, the one that is active, and what they refuse, on a real database."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import (
    InvalidDocument,
    InvalidInput,
    NotFound,
    Schema,
    TransactionConflict,
    VersionConflict,
    WorkItemType,
)
from myloware_store.core.sql import queries_beside
from myloware_store.platform import schemas
from myloware_store.platform.schemas import Schemas

if TYPE_CHECKING:
    from collections.abc import Callable

    from myloware_store import Store

_sql = queries_beside(schemas.__file__)

INVOICE = {
    "type": "object",
    "properties": {"number": {"type": "string"}, "total": {"type": "number", "minimum": 0}},
    "required": ["number", "total"],
    "additionalProperties": False,
}


def race(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return, or raise, when all begin at once."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001  the test says which it expects
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [*pool.map(run, calls)]


def active(name: str = "invoice") -> list[str]:
    """The versions of a name that are active."""
    return [schema.version for schema in Schema.select().where(Schema.name == name, Schema.is_active)]


def test_a_version_is_registered_once(myloware: Store) -> None:
    """The same again returns the first, active or not; with other contents it is a conflict."""
    first = myloware.schemas.register("invoice", "1", "INVOICE", INVOICE)
    assert ("invoice", "1", "INVOICE", INVOICE, False) == (
        first.name,
        first.version,
        first.document_type,
        first.schema_definition,
        first.is_active,
    )
    myloware.schemas.activate("invoice", "1")
    again = myloware.schemas.register("invoice", "1", "INVOICE", dict(reversed(INVOICE.items())))
    assert (first.id, True) == (again.id, again.is_active)
    for kind, definition in ((WorkItemType.TICKET, INVOICE), (WorkItemType.INVOICE, {"const": True})):
        with pytest.raises(VersionConflict, match="invoice 1 was registered before"):
            myloware.schemas.register("invoice", "1", kind, definition)
    assert INVOICE == Schema.get_by_id(first.id).schema_definition


def test_true_is_not_one(myloware: Store) -> None:
    """As Python would have it: a definition is the same where PostgreSQL says so."""
    myloware.schemas.register("flag", "1", "INVOICE", {"const": True})
    with pytest.raises(VersionConflict):
        myloware.schemas.register("flag", "1", "INVOICE", {"const": 1})


def test_racing_registrations_make_one(myloware: Store) -> None:
    """All get the same row; of those with another definition all but the winners' learn it."""
    same = race([lambda: myloware.schemas.register("invoice", "1", "INVOICE", INVOICE)] * 6)
    assert 1 == len({schema.id for schema in same}) == Schema.select().where(Schema.name == "invoice").count()
    others = race([lambda n=n: myloware.schemas.register("ticket", "1", "TICKET", {"const": n}) for n in range(6)])  # type: ignore[misc]
    assert 5 == sum(isinstance(outcome, VersionConflict) for outcome in others)


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ({"type": "nope"}, r"\$\.type"),
        ({"pattern": "("}, "regex"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "https://schemas.example/invoice"}, "not fetched"),
        ({"$ref": "#"}, "circle"),
        ({"$schema": "https://schemas.example/draft"}, "draft"),
        ({"$schema": ["no", "text"]}, "draft"),
        ({"const": float("nan")}, "NaN"),
        ({"const": {1}}, "not JSON"),
        ([], "not a JSON object"),
        (None, "not a JSON object"),
    ],
)
def test_what_is_no_schema_is_refused(myloware: Store, definition: Any, reason: str) -> None:
    """By one typed error, and nothing is stored."""
    with pytest.raises(InvalidInput, match=reason):
        myloware.schemas.register("invoice", "1", "INVOICE", definition)
    assert Schema.get_or_none(Schema.name == "invoice") is None


def test_a_schema_is_for_a_type_of_work_items(myloware: Store) -> None:
    """One of a type that is misspelt would check nothing."""
    for wrong in ("FOO", "invoice", "", None, 1):
        with pytest.raises(InvalidInput, match=r"document_type: .* is not one of INVOICE, TICKET, STATUS_REPORT"):
            myloware.schemas.register("n", "1", wrong, {})  # type: ignore[arg-type]
    assert "TICKET" == myloware.schemas.register("n", "1", WorkItemType.TICKET, {}).document_type


def test_names_are_checked(myloware: Store) -> None:
    """Blank ones, long ones and those that are none."""
    for names in (
        ("", "1", "TICKET"),
        ("n", " ", "TICKET"),
        ("n" * 256, "1", "TICKET"),
        (None, "1", "TICKET"),
        ("n", 1, "TICKET"),
    ):
        with pytest.raises(InvalidInput):
            myloware.schemas.register(*names, {})  # type: ignore[call-arg]


def test_one_version_is_active(myloware: Store) -> None:
    """Activating another retires it; a version that is not there changes nothing; deactivating leaves none."""
    for version in ("1", "2"):
        myloware.schemas.register("invoice", version, "INVOICE", INVOICE)
    assert [] == active()
    assert (True, "1") == ((first := myloware.schemas.activate("invoice", "1")).is_active, first.version)
    assert first.updated_at == myloware.schemas.activate("invoice", "1").updated_at
    myloware.schemas.activate("invoice", "2")
    assert ["2"] == active()
    assert Schema.get_by_id(first.id).updated_at > first.updated_at
    for name, version in (("invoice", "3"), ("none", "1")):
        with pytest.raises(NotFound, match=f"{name} {version}"):
            myloware.schemas.activate(name, version)
    assert ["2"] == active()
    assert [True, False] == [myloware.schemas.deactivate("invoice") for _ in range(2)]
    assert [] == active()


def test_exactly_one_is_active_however_many_race(myloware: Store) -> None:
    """Every activation succeeds, one after the other, and one version is active in the end."""
    versions = [str(n) for n in range(8)]
    for version in versions:
        myloware.schemas.register("invoice", version, "INVOICE", INVOICE)
    for _ in range(5):
        outcomes = race([lambda v=v: myloware.schemas.activate("invoice", v) for v in versions])  # type: ignore[misc]
        assert versions == [schema.version for schema in outcomes]
        assert 1 == len(active())


def test_registrations_and_activations_race(myloware: Store) -> None:
    """Rows that appear in the middle of an activation do not make it fail."""

    def add(n: int) -> Schema:
        myloware.schemas.register("invoice", str(n), "INVOICE", INVOICE)
        return myloware.schemas.activate("invoice", str(n))

    for n in range(0, 40, 8):
        outcomes = race([lambda m=m: add(m) for m in range(n, n + 8)])  # type: ignore[misc]
        assert [str(m) for m in range(n, n + 8)] == [schema.version for schema in outcomes]
        assert 1 == len(active())


def test_an_unseen_activation_is_a_conflict_inside_a_transaction(myloware: Store) -> None:
    """One that a transaction's snapshot cannot see makes it run again, as `transact` does."""
    for version in ("1", "2"):
        myloware.schemas.register("invoice", version, "INVOICE", INVOICE)
    with myloware.db.atomic("REPEATABLE READ"):
        assert [] == active()
        with ThreadPoolExecutor(1) as other:
            other.submit(myloware.schemas.activate, "invoice", "1").result()
        with pytest.raises(TransactionConflict), myloware.db.atomic():
            myloware.schemas.activate("invoice", "2")
    assert ["1"] == active()


def test_the_refused_second_active_row_is_a_conflict(myloware: Store) -> None:
    """What the unique index refuses is tried again outside of a transaction, and says so inside of one."""
    with pytest.raises(TransactionConflict) as caught:
        myloware.schemas._named(
            "INSERT INTO schemas (name, version, document_type, schema_definition, is_active)"
            " VALUES ('n', '1', 'T', '{}', true), ('n', '2', 'T', '{}', true)",
            {},
            contested="schemas_active_idx",
        )
    assert "40001" == caught.value.sqlstate
    assert "FOR NO KEY UPDATE" in _sql("activate")


def test_versions_are_listed(myloware: Store) -> None:
    """By name, the newest first, narrowed as asked."""
    for name, version, kind in (("a", "1", "TICKET"), ("a", "2", "TICKET"), ("b", "1", "STATUS_REPORT")):
        myloware.schemas.register(name, version, WorkItemType(kind), {})
    myloware.schemas.activate("a", "1")

    def listed(**options: Any) -> list[tuple[str, str]]:
        return [(schema.name, schema.version) for schema in myloware.schemas.list(**options)]

    assert [("a", "2"), ("a", "1"), ("b", "1")] == [row for row in listed() if row[0] in {"a", "b"}]
    assert [("a", "2")] == listed(name="a", active=False)
    assert [("a", "1")] == listed(document_type="TICKET", active=True)
    assert 1 == len(listed(limit=1))
    for bad in ({"active": 1}, {"limit": 0}, {"name": ""}):
        with pytest.raises(InvalidInput):
            listed(**bad)


@pytest.fixture
def strict(myloware: Store) -> Schemas:
    """A store whose invoices must fit."""
    myloware.schemas.register("invoice", "1", "INVOICE", INVOICE)
    myloware.schemas.activate("invoice", "1")
    return myloware.schemas


def test_without_a_schema_everything_passes(myloware: Store) -> None:
    """Nothing is read as JSON, also where there is a version that is not active."""
    myloware.schemas.register("invoice", "1", "INVOICE", INVOICE)
    myloware.schemas.validate("INVOICE", "Invoice 17")
    myloware.schemas.check_documents([])


def test_documents_are_checked(strict: Schemas) -> None:
    """A good one passes, others of other types too; each problem names document, place and rule, and no value."""
    strict.validate("INVOICE", '{"number": "17", "total": 9.5}')
    strict.validate("TICKET", "The printer is on fire")
    with pytest.raises(InvalidDocument) as caught:
        strict.check_documents(
            [
                ("TICKET", "text"),
                ("INVOICE", '{"number": 98765, "total": -1}'),
                ("INVOICE", "Invoice secret"),
                ("INVOICE", '{"number": "1", "paid": "secret"}'),
            ]
        )
    told = [(problem.document, problem.schema, problem.path) for problem in caught.value.problems]
    assert [
        (1, "invoice 1", "$.number"),
        (1, "invoice 1", "$.total"),
        (2, "invoice 1", "$"),
        (3, "invoice 1", "$"),
        (3, "invoice 1", "$"),
    ] == sorted(told)
    message = str(caught.value)
    assert 'document 1, invoice 1, $.number: not kept: type "string"' in message
    assert "minimum 0" in message
    assert "not JSON" in message
    assert "'total' is a required property" in message
    assert "'paid' was unexpected" in message
    assert "secret" not in message
    assert "98765" not in message
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (message, caught.value.problems) == (str(copy), copy.problems)


def test_the_first_twenty_problems_are_told(strict: Schemas) -> None:
    """However many there are, and however long the names of keys."""
    with pytest.raises(InvalidDocument, match="there may be more") as caught:
        strict.check_documents([("INVOICE", "{}")] * 1000)
    assert 20 == len(caught.value.problems)
    with pytest.raises(InvalidDocument) as caught:
        strict.validate("INVOICE", '{"number": "1", "total": 1, "%s": 1}' % ("k" * 500_000))
    assert 1000 > len(str(caught.value))


@pytest.mark.parametrize("content", ["NaN", '{"total": Infinity}', "[" * 100_000, "", '{"a": 1,}', "\ufeff{}"])
def test_what_is_not_json_is_a_problem(strict: Schemas, content: str) -> None:
    """Neither a crash nor a pass."""
    with pytest.raises(InvalidDocument, match="not JSON"):
        strict.check_documents([("INVOICE", content)])


def test_a_document_that_leads_the_schema_in_a_circle(myloware: Store) -> None:
    """Is a problem of that document."""
    myloware.schemas.register("loop", "1", "TICKET", {"properties": {"a": {"$ref": "#/properties/a"}}})
    myloware.schemas.activate("loop", "1")
    myloware.schemas.validate("TICKET", '{"b": 1}')
    with pytest.raises(InvalidDocument, match="too deeply"):
        myloware.schemas.validate("TICKET", '{"a": 1}')


def test_every_active_name_must_be_satisfied(strict: Schemas) -> None:
    """Where two names are active for one type of document."""
    strict.register("numbering", "1", "INVOICE", {"properties": {"number": {"pattern": "^RE-"}}})
    strict.activate("numbering", "1")
    strict.validate("INVOICE", '{"number": "RE-1", "total": 1}')
    with pytest.raises(InvalidDocument, match="numbering 1"):
        strict.validate("INVOICE", '{"number": "1", "total": 1}')
    with pytest.raises(InvalidDocument, match="invoice 1"):
        strict.validate("INVOICE", '{"number": "RE-1"}')


def test_an_activation_elsewhere_counts_at_once(myloware: Store, strict: Schemas) -> None:
    """Another process's is seen by the next check, and so is a change of the definition by SQL."""
    other = Schemas(myloware.db)
    document = '{"number": "1", "total": 1}'
    strict.validate("INVOICE", document)
    other.register("invoice", "2", "INVOICE", {"required": ["currency"]})
    other.activate("invoice", "2")
    with pytest.raises(InvalidDocument, match="'currency' is a required"):
        strict.validate("INVOICE", document)
    myloware.db.execute_sql("UPDATE schemas SET schema_definition = '{}' WHERE name = 'invoice'")
    strict.validate("INVOICE", document)
    other.deactivate("invoice")
    strict.validate("INVOICE", "no JSON")


def test_a_definition_that_changes_inside_a_transaction_counts(myloware: Store, strict: Schemas) -> None:
    """Also after it was checked with, and again after a savepoint was rolled back."""
    with myloware.db.atomic():
        schema = Schema.get(Schema.name == "invoice", Schema.is_active)
        for wanted in ("a", "b", "c"):
            schema.schema_definition = {"required": [wanted]}
            schema.save()
            strict.validate("INVOICE", f'{{"{wanted}": 1}}')
        with myloware.db.atomic() as savepoint:
            strict.deactivate("invoice")
            strict.validate("INVOICE", "no JSON")
            savepoint.rollback()
        with pytest.raises(InvalidDocument, match="'c' is a required"):
            strict.validate("INVOICE", "{}")


def test_a_rolled_back_activation_counts_nowhere(myloware: Store, strict: Schemas) -> None:
    """The transaction itself sees it until then."""
    strict.register("invoice", "2", "INVOICE", {"required": ["currency"]})
    document = '{"number": "1", "total": 1}'
    with myloware.db.atomic() as block:
        strict.activate("invoice", "2")
        with pytest.raises(InvalidDocument):
            strict.validate("INVOICE", document)
        block.rollback()
    strict.validate("INVOICE", document)
    assert ["1"] == active()


def test_a_check_is_one_query_and_definitions_travel_once(myloware: Store, strict: Schemas) -> None:
    """Also for many documents of several types, and with more schemas than are kept ready."""
    asked: list[str] = []
    rows = strict._definitions._rows

    def counted(sql: str, parameters: Any, **options: Any) -> Any:
        asked.append(sql)
        return rows(sql, parameters, **options)

    strict._definitions._rows = counted  # type: ignore[method-assign]
    documents = [("INVOICE", '{"number": "1", "total": 1}'), ("TICKET", "x")] * 50
    strict.check_documents(documents)
    assert [_sql("active_schemas"), _sql("active_definitions")] == asked
    strict.check_documents(documents)
    assert [_sql("active_schemas")] == asked[2:]
    for n in range(120):
        Schema.create(name=f"n{n}", version="1", document_type=f"N{n}", schema_definition={}, is_active=True)
    strict.check_documents([(f"N{n}", "1") for n in range(120)])
    Schema.create(name="n0a", version="1", document_type="N0", schema_definition={}, is_active=True)
    strict.check_documents([("N0", "1")])
    assert 2 == len(strict._definitions._kept)
    with pytest.raises(InvalidDocument):
        strict.check_documents([*documents, ("INVOICE", "{}")])


def test_an_active_definition_that_is_no_schema_is_told(myloware: Store) -> None:
    """Whoever stored it went past `register`."""
    Schema.create(name="bad", version="1", document_type="BAD", schema_definition={"type": "x"}, is_active=True)
    with pytest.raises(InvalidInput, match="schema bad 1"):
        myloware.schemas.validate("BAD", "{}")


def test_a_document_is_text(strict: Schemas) -> None:
    """Anything else is refused before SQL."""
    for kind, content in (("INVOICE", {}), ("INVOICE", None), ("", "x"), (None, "x")):
        with pytest.raises(InvalidInput):
            strict.validate(kind, content)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="not a list"):
        strict.check_documents("INVOICE")  # type: ignore[arg-type]
    for pair in (7, None, ("INVOICE",), "IN", ("INVOICE", "{}", 1)):
        with pytest.raises(InvalidInput, match=r"documents\[0\]"):
            strict.check_documents([pair])  # type: ignore[list-item]

"""Schemas of documents: registered in versions, one active a name, and what is submitted checked against them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import count, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_enum, as_list, as_name
from myloware_store.core.enums import WorkItemType
from myloware_store.core.errors import DocumentProblem, InvalidDocument, InvalidInput, NotFound, VersionConflict
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json, require_text, shown
from myloware_store.platform.json_schemas import as_json_schema, broken_rules, compiled
from myloware_store.platform.models import Schema
from myloware_store.platform.versions import Versions

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

    from myloware_store.db.database import StoreDatabase

__all__ = ["ActiveSchemas", "Schemas"]

_sql = queries_beside(__file__)

_MOST_PROBLEMS = 20
_MOST_KEPT = 100


@attrs.frozen
class _Active:
    """An active schema, ready to check documents with."""

    document_type: str
    title: str
    validator: Validator


@attrs.frozen
class ActiveSchemas:
    """The active schemas for some types of documents, as they were when the database was asked.

    Attributes:
        stamps: One a schema, in their order: what `submit_work_order` compares.
    """

    stamps: tuple[str, ...] = ()
    _schemas: tuple[_Active, ...] = ()

    def check(self, documents: Iterable[tuple[str, str]]) -> None:
        """Check documents against them.

        Raises:
            InvalidDocument: A document is not JSON though its type has an active schema, or breaks rules of one.
        """
        by_type: dict[str, list[_Active]] = {}
        for schema in sorted(self._schemas, key=attrgetter("title")):
            by_type.setdefault(schema.document_type, []).append(schema)
        found = (
            DocumentProblem(document=place, schema=schema.title, path=path, message=message)
            for place, (kind, content) in enumerate(documents)
            for schema in by_type.get(kind, ())
            for path, message in broken_rules(schema.validator, content)
        )
        problems = tuple(islice(found, _MOST_PROBLEMS))
        if problems:
            more = "; there may be more" if len(problems) == _MOST_PROBLEMS else ""
            raise InvalidDocument(f"{'; '.join(map(str, problems))}{more}", problems)


class Schemas(Versions[Schema]):
    """JSON Schemas for types of documents; all tenants share them."""

    _model = Schema

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._kept: dict[str, _Active] = {}

    def register(
        self, name: str, version: str, document_type: WorkItemType | str, schema_definition: Mapping[str, Any]
    ) -> Schema:
        """Store a version of a schema, not active yet.

        Args:
            name: What the schema is called.
            version: Which version of it, any text.
            document_type: The type of the work items it is for.
            schema_definition: A JSON Schema, of the draft that its `$schema` names, else of draft 2020-12; 4 MiB at
                most. A `$ref` leads to a place inside of it: nothing is ever fetched.

        Returns:
            The stored version. The same again returns the first, active or not.

        Raises:
            InvalidInput: It is no valid JSON Schema, or a name cannot be stored.
            VersionConflict: The version was registered before, with another definition or for another type.
        """
        values = {
            "id": str(uuid7()),
            "name": as_name(name, "name"),
            "version": as_name(version, "version"),
            "document_type": as_enum(document_type, WorkItemType, "document_type").value,
            "definition": dump_json(as_json_schema(schema_definition, "schema_definition"), "schema_definition"),
        }
        rows = self._stored(Schema, _sql("register_schema"), values)
        if not rows:
            raise VersionConflict(
                f"schema {name} {version} was registered before, with another definition or document type: register"
                " what has changed as another version"
            )
        return rows[0]

    def activate(self, name: str, version: str) -> Schema:
        """Make a version the active one of its name; however many race, there is exactly one.

        What is submitted from now on, by any process, is checked against it.

        Args:
            name: The schema.
            version: The version to be the active one.

        Raises:
            NotFound: There is no such version; the one that was active still is.
        """
        values = {"name": as_name(name, "name"), "version": as_name(version, "version")}
        rows = self._activate("name = %(name)s AND version = %(version)s", values)
        if not rows:
            raise NotFound(f"there is no schema {name} {version}: register it first")
        return rows[0]

    def validate(self, document_type: str, content: str) -> None:
        """Check a document against the active schemas for its type.

        Args:
            document_type: Its type, such as `INVOICE`.
            content: The document. It is read as JSON only where there is an active schema for its type; without one
                everything passes.

        Raises:
            InvalidDocument: It is not JSON, or breaks rules of the schema.
        """
        self.check_documents([(document_type, content)])

    def check_documents(self, documents: Iterable[tuple[str, str]]) -> None:
        """Check documents against the active schemas for their types, by one small query for all of them.

        What is active is asked of the database every time, so that an activation counts for every process as soon as it
        is committed; a definition that is new to this store is read by a second query, and compiled once. Inside a
        transaction it is what the transaction sees. Where several names are active for a type, a document must fit each
        of them. `format` is not checked (it is an annotation), and of a key that comes twice the last one counts.

        Args:
            documents: Pairs of a document type and the document's text.

        Raises:
            InvalidDocument: A document is not JSON though its type has an active schema, or breaks rules of one. It
                lists the first 20 problems, and quotes no values.
            InvalidInput: An active schema that was stored in another way is no valid JSON Schema.
        """
        given = [
            (as_name(kind, "document_type"), require_text(text, "content"))
            for kind, text in map(_pair, as_list(documents, "documents"), count())
        ]
        self.active({kind for kind, _ in given}).check(given)

    def active(self, types: Collection[str]) -> ActiveSchemas:
        """Ask for the active schemas of some types of documents.

        Args:
            types: The types.

        Returns:
            What documents of these types can be checked against.

        Raises:
            InvalidInput: One that was stored in another way than by `register` is no valid JSON Schema.
        """
        if not types:
            return ActiveSchemas()
        asked = {"document_types": sorted(types)}
        kept = self._kept
        stamps = [stamp for (stamp,) in self._rows(_sql("active_schemas"), asked, reads=True)]
        if any(stamp not in kept for stamp in stamps):
            rows = self._rows(_sql("active_definitions"), asked, reads=True)
            used = {stamp: kept.get(stamp) or _ready(*told) for stamp, *told in rows}
            kept = {**kept, **used} if len(kept) < _MOST_KEPT else used
            self._kept, stamps = kept, [*used]
        stamps.sort()
        return ActiveSchemas(tuple(stamps), tuple(kept[stamp] for stamp in stamps))


def _pair(document: Any, n: int) -> tuple[Any, Any]:
    if not isinstance(document, tuple | list) or len(document) != 2:  # noqa: PLR2004  a type and a text
        raise InvalidInput(f"documents[{n}]: {shown(document)} is not a pair of a type and a text")
    return document[0], document[1]


def _ready(document_type: str, name: str, version: str, definition: str) -> _Active:
    title = f"{name} {version}"
    return _Active(document_type, title, compiled(orjson.loads(definition), f"schema {title}"))

"""JSON Schemas of documents: versions of a name, one at most active, and the check of documents against them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import count, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from uuid_utils.compat import uuid7

from myloware_store.core.arguments import as_choice, as_list, as_name
from myloware_store.core.enums import ConnectorType, ConnectorTypeLabel, WorkItemType, WorkItemTypeLabel
from myloware_store.core.errors import DocumentProblem, InvalidDocument, InvalidInput, NotFound, VersionConflict
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import dump_json, require_text, shown
from myloware_store.orm.repository import Repository
from myloware_store.platform.json_schemas import as_json_schema, broken_rules, compiled
from myloware_store.platform.models import Schema
from myloware_store.platform.versions import Versions

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

    from myloware_store.db.database import StoreDatabase

__all__ = ["ActiveSchemas", "Definitions", "Schemas"]

_sql = queries_beside(__file__)

_MOST_PROBLEMS = 20
_MOST_KEPT = 100


@attrs.frozen
class _Active:
    """An active schema, compiled."""

    document_type: str
    title: str
    validator: Validator


@attrs.frozen
class ActiveSchemas:
    """The active schemas for some types of documents, at the time of the query.

    Attributes:
        stamps: One for each schema, in their order, for `submit_work_order` to compare.
    """

    stamps: tuple[str, ...] = ()
    _schemas: tuple[_Active, ...] = ()

    def check(self, documents: Iterable[tuple[str, str]]) -> None:
        """Check documents against them.

        Raises:
            InvalidDocument: A document is not JSON although its type has an active schema, or violates a schema.
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


class Definitions(Repository):
    """The definitions of schemas, each compiled once."""

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._kept: dict[str, _Active] = {}

    def active(self, types: Collection[str]) -> ActiveSchemas:
        """Return the active schemas for some types of documents.

        Args:
            types: The types.

        Raises:
            InvalidInput: A schema was not stored by `register` and is not a valid JSON Schema.
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


class Schemas(Versions[Schema]):
    """JSON Schemas for types of documents; all tenants share them."""

    _model = Schema

    def __init__(self, database: StoreDatabase) -> None:
        super().__init__(database)
        self._definitions = Definitions(database)

    def register(
        self,
        name: str,
        version: str,
        document_type: WorkItemType | WorkItemTypeLabel | ConnectorType | ConnectorTypeLabel,
        schema_definition: Mapping[str, Any],
    ) -> Schema:
        """Store a version of a schema, not active yet.

        Args:
            name: The name of the schema.
            version: The version, any text.
            document_type: The type of work items that it is for; or a type of connectors, for which it declares with
                `writeOnly: true` or `format: password` which values of a config are secrets. Nothing else of it is
                applied to configs.
            schema_definition: A JSON Schema of the draft that its `$schema` names, by default of draft 2020-12; 4 MiB
                at most. A `$ref` must refer to a part of it: nothing is ever fetched.

        Returns:
            The stored version. Registering the same again returns the first, active or not.

        Raises:
            InvalidInput: It is not a valid JSON Schema, or another argument cannot be stored.
            VersionConflict: The version was registered before, with another definition or type.
        """
        values = {
            "id": str(uuid7()),
            "name": as_name(name, "name"),
            "version": as_name(version, "version"),
            "document_type": str(as_choice(document_type, (*WorkItemType, *ConnectorType), "document_type")),
            "definition": dump_json(as_json_schema(schema_definition, "schema_definition"), "schema_definition"),
        }
        rows = self._stored(Schema, _sql("register_schema"), values)
        if not rows:
            raise VersionConflict(
                f"schema {name} {version} was registered before, with another definition or document type: register"
                " the change as another version"
            )
        return rows[0]

    def activate(self, name: str, version: str) -> Schema:
        """Make a version the active one of its name. Concurrent calls leave exactly one active.

        From now on all processes check submitted documents against it.

        Args:
            name: The name of the schema.
            version: The version to activate.

        Returns:
            The version as stored.

        Raises:
            InvalidInput: An argument is not such a text.
            NotFound: The version does not exist; the active one stays active.
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
            content: The document. It is parsed as JSON only if its type has an active schema; otherwise every document
                is valid.

        Raises:
            InvalidDocument: It is not JSON, or violates a schema.
        """
        self.check_documents([(document_type, content)])

    def check_documents(self, documents: Iterable[tuple[str, str]]) -> None:
        """Check documents against the active schemas for their types, with one small query for all of them.

        The query reads which schemas are active, so an activation takes effect in every process as soon as it is
        committed. Definitions that are new to this store are read by a second query, and compiled once. If several
        names are active for a type, a document must match each of them. `format` is not checked (it is an annotation);
        of duplicate keys the last one counts.

        Args:
            documents: Pairs of a document type and the document's text.

        Raises:
            InvalidDocument: A document is not JSON although its type has an active schema, or violates a schema. The
                error lists the first 20 problems, without values.
            InvalidInput: An active schema was not stored by `register` and is not a valid JSON Schema.
        """
        given = [
            (as_name(kind, "document_type"), require_text(text, "content"))
            for kind, text in map(_pair, as_list(documents, "documents"), count())
        ]
        self._definitions.active({kind for kind, _ in given}).check(given)


def _pair(document: Any, n: int) -> tuple[Any, Any]:
    if not isinstance(document, tuple | list) or len(document) != 2:  # noqa: PLR2004  a type and a text
        raise InvalidInput(f"documents[{n}]: {shown(document)} is not a pair of a type and a text")
    return document[0], document[1]


def _ready(document_type: str, name: str, version: str, definition: str) -> _Active:
    title = f"{name} {version}"
    return _Active(document_type, title, compiled(orjson.loads(definition), f"schema {title}"))

"""JSON Schemas: which of them can be used, and which rules of one a document breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from myloware_store.core.arguments import require_object
from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import dump_json

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ["as_json_schema", "broken_rules", "compiled"]

_MOST_CHARS = 200
# What jsonschema says of these names keys and quotes no value.
_NAMING = {"required", "dependentRequired", "dependencies", "additionalProperties", "unevaluatedProperties"}


def as_json_schema(value: Any, name: str) -> dict[str, Any]:
    """Return a JSON Schema that documents can be checked with, or raise InvalidInput."""
    schema = require_object(value, name)
    dump_json(schema, name)
    compiled(schema, name)
    return schema


def compiled(schema: dict[str, Any], name: str) -> Validator:
    """Return what checks documents against a JSON Schema: of the draft that `$schema` names, else draft 2020-12.

    A `$ref` leads to a place in the schema itself or to one of the drafts; nothing is ever fetched.

    Raises:
        InvalidInput: It is no valid JSON Schema, its draft is not known, or a `$ref` leads nowhere or in a circle.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    draft: Any = schema.get("$schema", Draft202012Validator.META_SCHEMA["$schema"])
    unknown: Any = None
    kind = validator_for({"$schema": draft}, default=unknown) if isinstance(draft, str) else None
    if kind is None:
        raise InvalidInput(f"{name}: $schema names no draft of JSON Schema that is known")
    try:
        kind.check_schema(schema)
        resource = specification_with(draft).create_resource(schema)
        _require_resolvable(resource, REGISTRY.resolver_with_root(resource))
        validator: Validator = kind(schema, registry=REGISTRY)  # the default one fetches what it does not know
        validator.is_valid(None)
    except SchemaError as error:
        reason = f"{_short(error.json_path)}: {_short(error.message)}"
    except Unresolvable as error:
        reason = f"$ref {_short(error.ref)!r} leads nowhere; schemas are not fetched"
    except RecursionError:
        reason = "it is nested too deeply, or a $ref leads in a circle"
    else:
        return validator
    raise InvalidInput(f"{name}: not a valid JSON Schema: {reason}")


def broken_rules(validator: Validator, content: str) -> Iterator[tuple[str, str]]:
    """Give the path and the rule of everything in a document that does not fit; they quote no value of it."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        yield "$", f"not JSON: {error}"
        return
    try:
        for broken in validator.iter_errors(document):
            yield _short(broken.json_path), _rule(broken)
    except RecursionError:
        yield "$", "nested too deeply for the schema"


def _rule(error: Any) -> str:
    if error.validator in _NAMING:
        return _short(error.message)
    if error.validator is None:
        return "nothing is allowed here"
    return f"not kept: {error.validator} {_short(orjson.dumps(error.validator_value).decode())}"


def _require_resolvable(resource: Any, resolver: Any) -> None:
    contents = resource.contents
    if isinstance(contents, Mapping) and isinstance(contents.get("$ref"), str):
        resolver.lookup(contents["$ref"])
    for part in resource.subresources():
        _require_resolvable(part, resolver.in_subresource(part))


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}..."

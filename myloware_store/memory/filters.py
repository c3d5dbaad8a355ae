"""Filters over memory documents, compiled to SQL in which every value is a parameter.

A filter maps keys to conditions, all of which must hold: `{"type": "CONTEXT", "metadata.amount": {"gt": 10}}`.

- Keys: `type`, `work_item_id`, `created_at`, `updated_at`, `expires_at`, `embedding_model`, `document_id` (of chunks),
  `tenant_id` and `metadata.<path>`, whose path consists of object keys. If one of them holds a dot, the path is a
  tuple: `("metadata", "dc.title")`.
- Conditions: a value (`eq`), a list (`in`), or a mapping of operators that must all hold: `eq`, `ne`, `gt`, `gte`,
  `lt`, `lte`, `in`, `exists`, and on metadata `contains`, `any`, `all`. The times are compared with aware datetimes or
  ISO texts with an offset; the other columns have no order. A time in the metadata is text.
- `and` and `or` take a list of filters, `not` takes one.

Every filter is true or false for every document, and `not` is its complement. So `ne` is exactly not `eq`, and true if
the path is missing. Values compare only with values of their own kind: numbers as numbers (10 equals 10.0, 9 is less
than 10), text by code points, independent of the database's collation. `gt` and the other orders are false for missing
values and values of another kind. None matches null and missing values; `exists` matches any value, null included.
Equality compares scalars, and never looks into a list: `contains` is true if there is a list at the path that holds the
value, `any` if it holds one of the values, `all` if it holds all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import attrs

from myloware_store.core.arguments import as_enum, as_flag, as_time, as_uuid
from myloware_store.core.enums import MemDocType
from myloware_store.core.errors import InvalidInput
from myloware_store.core.values import MAX_NAME_CHARS, dump_json, require_text, shown

__all__ = ["TEXT_CHARS", "Condition", "compile_filter", "ordered_value", "path_keys", "scope"]

MAX_CONDITIONS = 1_000
"""Most comparisons in one filter, every value of an `in` counted."""
MAX_DEPTH = 16
"""How deeply `and`, `or` and `not` may be nested, and how many keys a path may have."""
_MAX_BYTES = 64 * 1024  # of one value

TEXT_CHARS = 200
"""How many characters of a text `ordered_value` has, so that it always fits into an index."""

_TRUE, _FALSE = "TRUE", "FALSE"
_ORDERS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_OPERATORS = ("eq", "ne", *_ORDERS, "in", "exists", "contains", "any", "all")
# The types of the columns.
_COLUMNS = {
    "type": "mem_doc_type",
    "work_item_id": "uuid",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "expires_at": "timestamptz",
    "embedding_model": "text",
    "document_id": "uuid",
    "tenant_id": "text",
}
_METADATA = "metadata."


@attrs.frozen
class Condition:
    """A boolean SQL expression over `mem_docs AS m`, for a WHERE: NULL counts as false.

    Attributes:
        sql: The expression; `TRUE` if every document meets it.
        parameters: Its values, named `f0`, `f1`... and `tenant`.
    """

    sql: str
    parameters: dict[str, Any]


def compile_filter(
    filter: Mapping[Any, Any] | None,  # noqa: A002  the settled name
    *,
    into_lists: bool = False,
) -> Condition:
    """Compile a filter.

    Args:
        filter: The filter, as described in this module; every document meets None and `{}`.
        into_lists: Whether equality looks into lists, too, to find out whether that was meant. The parameters are then
            named `l0`, `l1`...

    Returns:
        The condition, without the tenant in force: see `scope`. Equality on metadata and `contains` are written
        `metadata @> ...`, which the index `mem_docs_metadata_idx` serves.

    Raises:
        InvalidInput: A key, operator or value is not valid, or the filter has more than 1,000 comparisons or is nested
            deeper than 16.
    """
    compiler = _Compiler(into_lists=into_lists)
    sql = compiler.all_of({} if filter is None else filter, "filter", negated=False, depth=0)
    return Condition(sql, compiler.parameters)


def scope(condition: Condition, tenant: str | None) -> Condition:
    """Narrow a condition to the tenant in force, if any, by a plain equality, which an index can serve."""
    if tenant is None:
        return condition
    sql = _joined("AND", ["m.tenant_id = %(tenant)s", condition.sql])
    return Condition(sql, {**condition.parameters, "tenant": tenant})


def path_keys(given: Any, keys: Sequence[Any], name: str) -> list[str]:
    """Return the keys of a path in the metadata, or raise InvalidInput."""
    checked = [require_text(key, name) for key in keys]
    if not 0 < len(checked) <= MAX_DEPTH or not all(0 < len(key) <= MAX_NAME_CHARS for key in checked):
        raise InvalidInput(
            f"{name}: {shown(given)} is not metadata.<path> of 1 to {MAX_DEPTH} keys,"
            f" none empty or longer than {MAX_NAME_CHARS} characters"
        )
    return checked


def ordered_value(there: str, kind: str) -> str:
    """Return the expression that filters compare by order, and which an index can hold; NULL for other kinds.

    A CASE, because the server may otherwise compare before it checks the kind.

    Args:
        there: The expression of the value at a path.
        kind: `number`, or `text`, of which it has the first 200 characters.
    """
    if kind == "number":
        return f"CASE jsonb_typeof({there}) WHEN 'number' THEN {there} END"
    return f"left({_text(there)}, {TEXT_CHARS})"


def _text(there: str) -> str:
    return f"CASE jsonb_typeof({there}) WHEN 'string' THEN {there} #>> '{{}}' END"


class _Compiler:
    """Compiles one filter. Negations are pushed down to the comparisons, because NOT of a NULL is NULL in SQL."""

    def __init__(self, *, into_lists: bool) -> None:
        self.into_lists = into_lists
        self.parameters: dict[str, Any] = {}
        self._left = MAX_CONDITIONS

    def all_of(self, given: Any, name: str, *, negated: bool, depth: int) -> str:
        """Compile a mapping of keys to conditions."""
        if not isinstance(given, Mapping):
            raise InvalidInput(f"{name}: {type(given).__name__} is not a mapping")
        if depth > MAX_DEPTH:
            raise InvalidInput(f"{name}: it is nested deeper than {MAX_DEPTH}")
        parts = [self._entry(key, value, name, negated=negated, depth=depth) for key, value in given.items()]
        return _joined("OR" if negated else "AND", parts)

    def _entry(self, key: Any, value: Any, name: str, *, negated: bool, depth: int) -> str:
        if key in ("and", "or"):
            if isinstance(value, str | bytes) or not isinstance(value, Sequence):
                raise InvalidInput(f"{name}.{key}: {type(value).__name__} is not a list of filters")
            parts = [
                self.all_of(part, f"{name}.{key}[{i}]", negated=negated, depth=depth + 1)
                for i, part in enumerate(value)
            ]
            return _joined("AND" if (key == "and") is not negated else "OR", parts)
        if key == "not":
            return self.all_of(value, f"{name}.not", negated=not negated, depth=depth + 1)
        if isinstance(key, str) and key in _COLUMNS:
            target: _Column | _Path = _Column(self, key, f"{name}.{key}")
        elif isinstance(key, str) and key.startswith(_METADATA):
            target = _Path(self, key, key.split(".")[1:], name)
        elif isinstance(key, tuple) and key[:1] == ("metadata",):
            target = _Path(self, key, key[1:], name)
        else:
            known = ", ".join((*_COLUMNS, "metadata.<path>", "(metadata, key, ...)", "and", "or", "not"))
            way = '; write metadata.a for {"metadata": {"a": ...}}' if key == "metadata" else ""
            raise InvalidInput(f"{name}: unknown key {shown(key)}; the keys are {known}{way}")
        parts = [
            _negated(part) if negate is not negated else part
            for part, negate in (self._operation(target, *one) for one in _operations(target.name, value))
        ]
        return _joined("OR" if negated else "AND", parts)

    def _operation(self, target: _Column | _Path, operator: str, value: Any) -> tuple[str, bool]:
        """Compile one comparison, and return whether to negate it."""
        if operator == "exists":
            return target.exists(), not as_flag(value, f"{target.name}.exists")
        if operator in ("in", "any", "all") and (
            isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | set | frozenset)
        ):
            raise InvalidInput(f"{target.name}.{operator}: {type(value).__name__} is not a list")
        if operator in ("contains", "all"):
            return target.holds_all([value] if operator == "contains" else list(value)), False
        if operator == "any":
            return _joined("OR", [target.holds_all([one]) for one in value]), False
        if operator == "in":
            parts = [target.is_null()] if any(one is None for one in value) else []
            parts += target.equals_any([one for one in value if one is not None])
            return _joined("OR", parts), False
        if operator in _ORDERS:
            return target.ordered(_ORDERS[operator], value), False
        equal = [target.is_null()] if value is None else target.equals_any([value])
        return _joined("OR", equal), operator == "ne"

    def spend(self, comparisons: int) -> None:
        """Count comparisons, up to the limit."""
        self._left -= comparisons
        if self._left < 0:
            raise InvalidInput(f"filter: it has more than {MAX_CONDITIONS} comparisons")

    def bind(self, value: Any) -> str:
        """Bind a value, and return its placeholder."""
        name = f"{'l' if self.into_lists else 'f'}{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"


class _Column:
    """Comparisons of a column."""

    def __init__(self, compiler: _Compiler, key: str, name: str) -> None:
        self.name = name
        self._key = key
        self._compiler = compiler
        self._sql = f"m.{key}"

    def exists(self) -> str:
        self._compiler.spend(1)
        return f"{self._sql} IS NOT NULL"

    def is_null(self) -> str:
        self._compiler.spend(1)
        return f"{self._sql} IS NULL"

    def equals_any(self, values: list[Any]) -> list[str]:
        if not values:
            return []
        self._compiler.spend(len(values))
        sent = [self._value(value) for value in values]
        kind = _COLUMNS[self._key]
        if len(sent) == 1:
            return [f"{self._sql} = {self._compiler.bind(sent[0])}::{kind}"]
        return [f"{self._sql} = ANY ({self._compiler.bind(sent)}::{kind}[])"]

    def ordered(self, operator: str, value: Any) -> str:
        if _COLUMNS[self._key] != "timestamptz":
            raise InvalidInput(f"{self.name}: it has no order; its operators are eq, ne, in and exists")
        self._compiler.spend(1)
        return f"{self._sql} {operator} {self._compiler.bind(self._value(value))}::timestamptz"

    def holds_all(self, values: list[Any]) -> str:
        del values
        raise InvalidInput(f"{self.name}: contains, any and all are for lists in the metadata; use in")

    def _value(self, value: Any) -> str:
        if self._key == "type":
            return as_enum(value, MemDocType, self.name).value
        if _COLUMNS[self._key] == "uuid":
            return str(as_uuid(value, self.name))
        if _COLUMNS[self._key] == "text":
            return require_text(value, self.name, max_chars=MAX_NAME_CHARS)
        return as_time(value, self.name)


class _Path:
    """Comparisons of the value at a path of the metadata."""

    def __init__(self, compiler: _Compiler, given: str | tuple[Any, ...], keys: Sequence[Any], name: str) -> None:
        self._keys = path_keys(given, keys, name)
        self.name = f"{name}.{given}"
        self._compiler = compiler

    def exists(self) -> str:
        return f"{self._there()} IS NOT NULL"

    def is_null(self) -> str:
        return f"COALESCE({self._there()}, 'null') = 'null'"

    def equals_any(self, values: list[Any]) -> list[str]:
        return [self._equals(value) for value in values]

    def ordered(self, operator: str, value: Any) -> str:
        there, sent = self._there(), self._scalar(value)
        if isinstance(value, bool):
            raise InvalidInput(f"{self.name}: booleans have no order; their operators are eq, ne, in and exists")
        if not isinstance(value, str):
            return f"{ordered_value(there, 'number')} {operator} {self._compiler.bind(sent)}::jsonb"
        # An index has the beginnings only. In the order of code points, texts come in the order of their beginnings.
        beginning, whole = self._compiler.bind(value[:TEXT_CHARS]), self._compiler.bind(value)
        return (
            f'({ordered_value(there, "text")} COLLATE "C" {operator[0]}= {beginning}::text'
            f' AND {_text(there)} COLLATE "C" {operator} {whole}::text)'
        )

    def _equals(self, value: Any) -> str:
        self._compiler.spend(1)
        equals = self._contains(self._scalar(value))
        if self._compiler.into_lists:
            return f"({equals} OR {self._contains(f'[{self._scalar(value)}]')})"
        return equals

    def holds_all(self, values: list[Any]) -> str:
        self._compiler.spend(max(1, len(values)))
        return self._contains(f"[{','.join(map(self._scalar, values))}]")

    def _contains(self, sent: str) -> str:
        for key in reversed(self._keys):
            sent = f"{{{dump_json(key, self.name)}:{sent}}}"
        return f"m.metadata @> {self._compiler.bind(sent)}::jsonb"

    def _there(self) -> str:
        """Return the value at the path; unlike with `#>`, a key does not match in a list."""
        self._compiler.spend(1)
        return "(m.metadata" + "".join(f" -> {self._compiler.bind(key)}::text" for key in self._keys) + ")"

    def _scalar(self, value: Any) -> str:
        if not isinstance(value, str | int | float):
            way = "; write a time as the ISO text that is stored" if isinstance(value, date) else ""
            raise InvalidInput(f"{self.name}: {shown(value)} is neither text, a number nor a boolean{way}")
        return dump_json(value, self.name, max_bytes=_MAX_BYTES)


def _operations(name: str, value: Any) -> list[tuple[str, Any]]:
    """Return the operators of a condition with their values."""
    if isinstance(value, Mapping):
        unknown = [shown(operator) for operator in value if operator not in _OPERATORS]
        if unknown or not value:
            wrong = f"unknown operator {', '.join(unknown)}" if unknown else "no operator"
            way = '; for {"metadata.a": {"b": ...}} write metadata.a.b' if "metadata" in name else ""
            raise InvalidInput(f"{name}: {wrong}; the operators are {', '.join(_OPERATORS)}{way}")
        return list(value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return [("in", value)]
    return [("eq", value)]


def _joined(word: str, parts: list[str]) -> str:
    """Join expressions by AND or OR; no expressions are TRUE under AND and FALSE under OR."""
    neutral, absorbing = (_TRUE, _FALSE) if word == "AND" else (_FALSE, _TRUE)
    if absorbing in parts:
        return absorbing
    parts = [part for part in parts if part != neutral]
    if len(parts) <= 1:
        return parts[0] if parts else neutral
    return "(" + f" {word} ".join(parts) + ")"


def _negated(sql: str) -> str:
    constants = {_TRUE: _FALSE, _FALSE: _TRUE}
    return constants.get(sql) or f"({sql}) IS NOT TRUE"

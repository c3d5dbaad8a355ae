"""The steps from one schema to another, in an order that works, each with its inverse.

Phases are migrations: new labels of enums must be committed before they are used, and what scans a table or builds an
index on it must not run in the transaction that locks it.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING

import attrs

from myloware_store.ops.catalog import split_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.ops.makemigration.objects import Column, Objects

__all__ = ["Difference", "Phase", "Step", "compare"]

_EXPAND = 'docs/schema-evolution.md, "Rename and retype"'
_CONSTANT = re.compile(r"now\(\)|CURRENT_\w+|'(?:[^']|'')*'(?:::[\w\" ()\[\].,]+)?|[^(]*")
"""Defaults that PostgreSQL evaluates once for all rows of a table."""
_LENGTH = re.compile(r"^(character|bit)(?: varying)?\(\d+\)")


class Phase(IntEnum):
    """The migrations that a difference is written as, in their order."""

    LABELS = 0
    MAIN = 1
    INDEXES = 2
    VALIDATE = 3


@attrs.frozen
class Step:
    """Statements, those that undo them, and what the reviewer must know.

    A rollback runs the `down` of all steps, the last one first.
    """

    phase: Phase
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    review: tuple[str, ...] = ()


@attrs.frozen
class Difference:
    """The steps, and the differences that no step removes: the objects, with the reason."""

    steps: tuple[Step, ...]
    unexpressed: dict[str, str]


def compare(old: Objects, new: Objects) -> Difference:
    """Return the steps that lead from one schema to another."""
    comparison = _Comparison(old, new)
    steps = [*comparison.steps()]
    return Difference(tuple(sorted(steps, key=lambda step: step.phase)), comparison.unexpressed)


class _Comparison:
    def __init__(self, old: Objects, new: Objects) -> None:
        self.old, self.new = old, new
        self.unexpressed = dict(_inexpressible(old, new))
        refused = {split_key(key)[1] for key in self.unexpressed if key.startswith("table ")}
        keys = [*new.catalog, *(key for key in old.catalog if key not in new.catalog)]
        for key in keys:
            if split_key(key)[1] in refused and old.catalog.get(key) != new.catalog.get(key):
                self.unexpressed.setdefault(key, "nothing of its table was written")
        self.keys = [key for key in keys if key not in self.unexpressed]
        self.added = [key for key in self.keys if key not in old.catalog]
        self.removed = [key for key in self.keys if key not in new.catalog]
        self.changed = [key for key in self.keys if _differs(key, old, new)]
        self.new_tables = {split_key(key)[1] for key in self.added if key.startswith("table ")}
        self.old_tables = {split_key(key)[1] for key in self.removed if key.startswith("table ")}
        columns = [key for key in self.changed if key.startswith("column ")]
        self.retyped = {key for key in columns if old.columns[key].full_type != new.columns[key].full_type}
        self.retyped = {key for key in self.retyped if not new.columns[key].generated}
        computed = [key for key, column in old.columns.items() if column.generated and key in new.catalog]
        self.made_anew = [
            key
            for key in computed
            if key in columns or (key in self.keys and old.uses.get(key, frozenset()) & self.retyped)
        ]
        self.gone = {*self.made_anew, *(key for key in self.removed if key.startswith("column "))}
        self.replaced = {key for key in self.changed if key.startswith("function ") and self._needs_drop(key)}
        # Of tables in both: what is dropped at first, and made again later if it is still wanted.
        self.dropped = [key for key in old.catalog if self._is_in_the_way(key)]
        different = [key for key in [*self.added, *self.changed] if key.startswith("constraint ")]
        self.late_keys = {split_key(key)[1] for key in different if self._is_late(key)}

    def steps(self) -> Iterator[Step]:
        yield from self._labels()
        for kind in ("trigger", "constraint", "index"):
            yield from (self._drop(key) for key in reversed(self.dropped) if key.startswith(f"{kind} "))
        yield from (Step(Phase.MAIN, (self._drop_column(key),), self._column(self.old, key)) for key in self.made_anew)
        yield from self._made()
        yield from self._altered()
        yield from self._constrained(waiting=False)
        yield from self._triggered()
        yield from self._commented()
        yield from self._gone()
        yield from self._indexed()
        yield from self._finished()
        yield from self._constrained(waiting=True)
        yield from self._validations(waiting=True)

    def _name(self, raw: str) -> str:
        return self.new.names.get(raw) or self.old.names[raw]

    def _both(self, key: str) -> bool:
        """Whether the table of an object exists before and after."""
        return split_key(key)[1] not in self.new_tables | self.old_tables

    def _needs_drop(self, key: str) -> bool:
        return self.old.functions[key].result != self.new.functions[key].result

    def _is_in_the_way(self, key: str) -> bool:
        kind = split_key(key)[0]
        if kind not in {"trigger", "constraint", "index"} or key in self.unexpressed or not self._both(key):
            return False
        uses = self.old.uses.get(key, frozenset())
        lost = bool(uses & self.gone) or (kind == "trigger" and bool(uses & (self.retyped | self.replaced)))
        is_different = key in self.removed or key in self.changed
        if kind == "index":
            return lost or (is_different and bool(uses & self.retyped))
        if kind == "trigger" and key in self.changed:
            return lost or "CONSTRAINT" in {
                self.old.triggers[key].split()[1],
                self.new.triggers[key].split()[1],
            }
        return lost or is_different

    def _is_late(self, key: str) -> bool:
        return self.new.constraints[key].kind in {"p", "u"} and self._both(key)

    def _labels(self) -> Iterator[Step]:
        for key in self.changed:
            if not key.startswith("enum "):
                continue
            kept, name = set(self.old.enums[key]), self._name(split_key(key)[2])
            labels = self.new.enums[key]
            up = []
            for place, label in enumerate(labels):
                if label in kept:
                    continue
                where = (
                    f" AFTER {_literal(labels[place - 1])}" if place else f" BEFORE {_literal(self.old.enums[key][0])}"
                )
                up.append(f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {_literal(label)}{where}")
            stay = _literal(f"the labels of {name} stay: PostgreSQL cannot drop them")
            yield Step(
                Phase.LABELS,
                tuple(up),
                (f"DO $$ BEGIN RAISE NOTICE USING MESSAGE = {stay}; END $$",),
                (f"deploy code that reads the new labels of {name} before code that writes them",),
            )

    def _drop(self, key: str) -> Step:
        kind, table, name = split_key(key)
        statement = f"ALTER TABLE {self._name(table)} DROP CONSTRAINT {self._name(name)}"
        if kind == "trigger":
            statement = f"DROP TRIGGER {self._name(name)} ON {self._name(table)}"
        elif kind == "index":
            statement = f"DROP INDEX {self._name(name)}"
        note = f"{kind} {table}.{name} is dropped: code must not rely on it any more"
        return Step(Phase.MAIN, (statement,), (self._create(self.old, key),), (note,) if key in self.removed else ())

    def _create(self, objects: Objects, key: str, *, valid: bool = True) -> str:
        kind, table, name = split_key(key)
        if kind == "trigger":
            return objects.triggers[key]
        if kind == "index":
            return objects.indexes[key]
        definition = objects.constraints[key].sql
        if not valid and "NOT VALID" not in definition:
            definition += " NOT VALID"
        return f"ALTER TABLE {self._name(table)} ADD CONSTRAINT {self._name(name)} {definition}"

    def _made(self) -> Iterator[Step]:
        """Types, functions and tables, new or changed, in the order of their creation."""
        left = [key for key in self.removed if key.startswith("function ")]
        self.dropped_early: set[str] = set()
        for key in self.new.order:
            kind, _, name = split_key(key)
            if key in self.unexpressed or key not in self.new.catalog:
                continue
            if key in self.added and kind == "enum":
                labels = ", ".join(map(_literal, self.new.enums[key]))
                yield Step(
                    Phase.MAIN,
                    (f"CREATE TYPE {self._name(name)} AS ENUM ({labels})",),
                    (f"DROP TYPE {self._name(name)}",),
                )
            elif key in self.added and kind == "domain":
                yield Step(
                    Phase.MAIN,
                    (f"CREATE DOMAIN {self._name(name)} AS {self.new.domains[key]}",),
                    (f"DROP DOMAIN {self._name(name)}",),
                )
            elif key in self.added and kind == "function":
                for same in [other for other in left if other.partition("(")[0] == key.partition("(")[0]]:
                    yield self._drop_function(same)
                    self.dropped_early.add(same)
                    left.remove(same)
                function = self.new.functions[key]
                yield Step(Phase.MAIN, function.create, (f"DROP ROUTINE {function.signature}",))
            elif key in self.changed and kind == "function":
                yield from self._change_function(key)
            elif key in self.added and kind == "table":
                yield Step(Phase.MAIN, tuple(self._table(self.new, name)), (f"DROP TABLE {self._name(name)}",))

    def _drop_function(self, key: str) -> Step:
        function = self.old.functions[key]
        note = f"{function.signature} is dropped: code must not call it any more"
        return Step(Phase.MAIN, (f"DROP ROUTINE {function.signature}",), function.create, (note,))

    def _change_function(self, key: str) -> Iterator[Step]:
        before, after = self.old.functions[key], self.new.functions[key]
        users = [user for user, used in self.new.uses.items() if key in used and not user.startswith("trigger ")]
        review = tuple(f"{user} uses {before.signature}: rebuild it if results change" for user in users)
        if key in self.replaced:
            drop = f"DROP ROUTINE {before.signature}"
            yield Step(Phase.MAIN, (drop, *after.create), (drop, *before.create), review)
        else:
            yield Step(Phase.MAIN, after.create, before.create, review)

    def _table(self, objects: Objects, table: str) -> Iterator[str]:
        """Return the statements that create a table with all that belongs to it but triggers."""
        columns = objects.of_table("column", table)
        lines = [objects.columns[key].sql for key in columns]
        for key in objects.of_table("constraint", table):
            if objects is self.new and self._waits(key):
                continue
            lines.append(f"CONSTRAINT {self._name(split_key(key)[2])} {objects.constraints[key].sql}")
        kind = objects.catalog[f"table {table}"]
        unlogged = "UNLOGGED " if kind.startswith("UNLOGGED") else ""
        body = ",\n    ".join(lines)
        yield f"CREATE {unlogged}TABLE {self._name(table)} (\n    {body}\n)" + _option(kind, " WITH ({})")
        for key in columns:
            if storage := objects.columns[key].storage:
                yield f"ALTER TABLE {self._name(table)} ALTER COLUMN {objects.columns[key].name} SET STORAGE {storage}"
        for key in objects.of_table("index", table):
            yield objects.indexes[key]
        for key in objects.of_table("comment", table):
            yield self._comment(objects, key)

    def _comment(self, objects: Objects, key: str) -> str:
        _, table, column = split_key(key)
        what = f"COLUMN {self._name(table)}.{self._name(column)}" if "." in key else f"TABLE {self._name(table)}"
        return f"COMMENT ON {what} IS {_literal(objects.catalog[key]) if key in objects.catalog else 'NULL'}"

    def _commented(self) -> Iterator[Step]:
        """The comments that do not come or go with their table or column."""
        moved = {f"comment {key[7:]}" for key in {*self.added, *self.gone} if key.startswith("column ")}
        for key in [*self.added, *self.removed, *self.changed]:
            if key.startswith("comment ") and key not in moved and self._both(key):
                yield Step(Phase.MAIN, (self._comment(self.new, key),), (self._comment(self.old, key),))

    def _drop_column(self, key: str) -> str:
        _, table, column = split_key(key)
        return f"ALTER TABLE {self._name(table)} DROP COLUMN {self._name(column)}"

    def _column(self, objects: Objects, key: str) -> tuple[str, ...]:
        """Return the statements that add a column."""
        table, column = self._name(split_key(key)[1]), objects.columns[key]
        comment = key.replace("column ", "comment ", 1)
        statements = [f"ALTER TABLE {table} ADD COLUMN {column.sql}"]
        if column.storage:
            statements.append(f"ALTER TABLE {table} ALTER COLUMN {column.name} SET STORAGE {column.storage}")
        if comment in objects.catalog:
            statements.append(self._comment(objects, comment))
        return tuple(statements)

    def _altered(self) -> Iterator[Step]:
        for key in self.changed:
            if key.startswith("table "):
                yield self._change_options(key)
        for key in self.added:
            if key.startswith("column ") and self._both(key):
                yield self._add_column(key)
        for key in self.changed:
            if key.startswith("column ") and key not in self.made_anew:
                yield from self._change_column(key)
        for key in self.made_anew:
            _, table, column = split_key(key)
            review = f"{table}.{column} is computed again: that rewrites the table, and nobody reads it meanwhile"
            yield Step(Phase.MAIN, self._column(self.new, key), (self._drop_column(key),), (review,))

    def _change_options(self, key: str) -> Step:
        def statement(objects: Objects) -> str:
            option = _option(objects.catalog[key], "SET ({})") or "RESET (toast_tuple_target)"
            return f"ALTER TABLE {self._name(split_key(key)[2])} {option}"

        return Step(Phase.MAIN, (statement(self.new),), (statement(self.old),))

    def _add_column(self, key: str) -> Step:
        _, raw, _ = split_key(key)
        column = self.new.columns[key]
        review = []
        if column.not_null and column.default is None and not column.identity:
            review.append(
                f"{raw}.{column.name} is NOT NULL without a default: this fails on a table with rows. Give it a"
                " default, or add it as nullable, fill it in batches, and make it NOT NULL with the next migration"
            )
        domain = any(
            column.type == self._name(split_key(key)[2]) for key in self.new.catalog if key.startswith("domain ")
        )
        if domain or column.generated == "STORED" or column.identity or column.serial or _is_volatile(column):
            review.append(f"adding {raw}.{column.name} rewrites the table, and nobody reads it meanwhile")
        for other in self.removed:
            if (
                other.startswith("column ")
                and split_key(other)[1] == raw
                and self.old.columns[other].type == column.type
            ):
                old = self.old.columns[other].name
                review.append(f"if {column.name} is {old} renamed, its data would be lost: see {_EXPAND}")
        return Step(Phase.MAIN, self._column(self.new, key), (self._drop_column(key),), tuple(review))

    def _change_column(self, key: str) -> Iterator[Step]:
        before, after = self.old.columns[key], self.new.columns[key]
        _, raw, _ = split_key(key)
        alter = f"ALTER TABLE {self._name(raw)} ALTER COLUMN {after.name}"
        if key in self.retyped:
            yield self._retype(alter, raw, before, after)
        elif before.default != after.default:
            yield Step(Phase.MAIN, (alter + _default(after),), (alter + _default(before),))
        if before.storage != after.storage:
            move, back = (f"{alter} SET STORAGE {column.storage or 'EXTERNAL'}" for column in (after, before))
            yield Step(Phase.MAIN, (move,), (back,), ("rows move to the new storage when they are next written",))
        if before.not_null and not after.not_null:
            yield Step(Phase.MAIN, (f"{alter} DROP NOT NULL",), (f"{alter} SET NOT NULL",))
        elif after.not_null and not before.not_null:
            yield self._check_not_null(key)

    def _retype(self, alter: str, table: str, before: Column, after: Column) -> Step:
        def statements(old: Column, new: Column) -> tuple[str, ...]:
            unlimited = _LENGTH.sub(r"\1 varying", new.type)  # `::varchar(3)` would cut, where the column refuses
            change = f"{alter} TYPE {new.full_type} USING {new.name}::{unlimited}"
            drop = (f"{alter} DROP DEFAULT",) if old.default is not None else ()
            default = (f"{alter}{_default(new)}",) if new.default is not None else ()
            return (*drop, change, *default)

        review = (
            f"a new type of {table}.{after.name} may round values, and rewrites the table unless the types are stored"
        )
        review += f" alike; nobody reads it meanwhile: for a big table see {_EXPAND}"
        if "vector" in {before.type.partition("(")[0], after.type.partition("(")[0]}:
            review = (
                f"embeddings of {before.type} cannot become {after.type}: this fails on a table with any. Add a second"
                " column, embed the documents again, and drop the first one"
            )
        return Step(Phase.MAIN, statements(before, after), statements(after, before), (review,))

    def _is_set(self, key: str) -> tuple[str, str]:
        """Return the table of a column, and the name of the check that it is not null, as they stand in SQL."""
        _, table, column = split_key(key)
        name = re.sub(r"\W", "_", f"{table}_{column}").lower()[:50] + "_is_set"
        return self._name(table), name if name[0].isalpha() or name[0] == "_" else f"_{name}"

    def _check_not_null(self, key: str) -> Step:
        table, check = self._is_set(key)
        column = self.new.columns[key].name
        return Step(
            Phase.MAIN,
            (f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID",),
            (f"ALTER TABLE {table} DROP CONSTRAINT {check}",),
            (f"{split_key(key)[1]}.{column} becomes NOT NULL: fill the rows that lack it before the next migration",),
        )

    def _waits(self, key: str) -> bool:
        """Whether a foreign key refers to a table that gets a unique key, which it may need, in the next migration."""
        return self.new.constraints[key].parent in self.late_keys

    def _added_again(self, kind: str) -> list[str]:
        """Return what is to be created on existing tables, new, changed or because it was in the way."""
        again = {key for key in self.dropped if key in self.new.catalog}
        wanted = {*self.added, *self.changed, *again}
        return [key for key in self.new.catalog if key in wanted and key.startswith(f"{kind} ")]

    def _constrained(self, *, waiting: bool) -> Iterator[Step]:
        phase = Phase.INDEXES if waiting else Phase.MAIN
        for key in self._added_again("constraint"):
            if self._waits(key) != waiting or not (waiting or self._both(key)) or self._is_late(key):
                continue
            _, table, name = split_key(key)
            drop = (f"ALTER TABLE {self._name(table)} DROP CONSTRAINT {self._name(name)}",)
            if self.new.constraints[key].kind in {"c", "f"}:
                review = (f"rows that break {table}.{name} make the next migration fail: find them before",)
                yield Step(phase, (self._create(self.new, key, valid=False),), drop, review)
            else:  # an exclusion constraint: there is no other way
                review = (f"{table}.{name} builds an index, and nobody writes to {table} meanwhile",)
                yield Step(phase, (self._create(self.new, key),), drop, review)

    def _validations(self, *, waiting: bool) -> Iterator[Step]:
        for key in self._added_again("constraint"):
            _, table, name = split_key(key)
            checked = self.new.constraints[key].kind in {"c", "f"} and (waiting or self._both(key))
            if checked and self._waits(key) == waiting:
                phase = Phase.VALIDATE if waiting else Phase.INDEXES
                yield _validate(phase, self._name(table), self._name(name), self._create(self.new, key, valid=False))

    def _becoming_set(self) -> list[str]:
        return [
            key
            for key in self.changed
            if key.startswith("column ")
            and key not in self.made_anew
            and self.new.columns[key].not_null
            and not self.old.columns[key].not_null
        ]

    def _triggered(self) -> Iterator[Step]:
        for key in self._added_again("trigger"):
            _, table, name = split_key(key)
            create = self.new.triggers[key]
            if key in self.dropped or key in self.added:
                yield Step(Phase.MAIN, (create,), (f"DROP TRIGGER {self._name(name)} ON {self._name(table)}",))
            else:
                yield Step(Phase.MAIN, (_or_replace(create),), (_or_replace(self.old.triggers[key]),))

    def _gone(self) -> Iterator[Step]:
        for key in reversed(self.removed):
            if key.startswith("column ") and self._both(key):
                note = (
                    f"the data of {key.removeprefix('column ')} are lost, and a rollback does not bring them back:"
                    " first deploy code that does not use it"
                )
                column = self.old.columns[key]
                if column.not_null and column.default is None:
                    note += f". With rows, a rollback fails: {column.name} is NOT NULL and has no default"
                yield Step(Phase.MAIN, (self._drop_column(key),), self._column(self.old, key), (note,))
        removed = set(self.removed)
        order = [key for key in reversed(self.old.order) if key in removed and key not in self.dropped_early]
        for kind in ("table", "function", "domain", "enum"):
            for key in order:
                if key.startswith(f"{kind} "):
                    yield self._drop_whole(key)

    def _drop_whole(self, key: str) -> Step:
        kind, _, raw = split_key(key)
        if kind == "function":
            return self._drop_function(key)
        name = self._name(raw)
        if kind == "domain":
            return Step(Phase.MAIN, (f"DROP DOMAIN {name}",), (f"CREATE DOMAIN {name} AS {self.old.domains[key]}",))
        if kind == "enum":
            labels = ", ".join(map(_literal, self.old.enums[key]))
            return Step(Phase.MAIN, (f"DROP TYPE {name}",), (f"CREATE TYPE {name} AS ENUM ({labels})",))
        triggers = [self.old.triggers[each] for each in self.old.of_table("trigger", raw)]
        note = f"the rows of {raw} are lost, and a rollback does not bring them back: first deploy code without it"
        return Step(Phase.MAIN, (f"DROP TABLE {name}",), (*self._table(self.old, raw), *triggers), (note,))

    def _indexed(self) -> Iterator[Step]:
        for key in self.keys:
            if not key.startswith("index ") or not self._both(key):
                continue
            was, wanted = key in self.old.catalog, key in self.new.catalog
            is_gone = key in self.dropped
            if was and not is_gone and key not in self.removed and key not in self.changed:
                continue
            drop = f"DROP INDEX CONCURRENTLY IF EXISTS {self._name(split_key(key)[2])}"
            up, down, review = [], [], []
            if was and not is_gone:
                up.append(drop)
                down.append(_concurrently(self.old.indexes[key]))
                name = key.removeprefix("index ")
                review.append(
                    f"until {name} is built again, queries do without it"
                    if wanted
                    else f"index {name} is dropped: no query should need it any more, nor an ON CONFLICT"
                )
            if wanted:
                up.append(_concurrently(self.new.indexes[key]))
                down.insert(0, drop)
            if up:
                yield Step(Phase.INDEXES, tuple(up), tuple(down), tuple(review))

    def _finished(self) -> Iterator[Step]:
        """Scan first, under a weak lock; then use what the scans and builds have shown."""
        yield from self._validations(waiting=False)
        checks = {key: self._check_not_null(key) for key in self._becoming_set()}
        for key, step in checks.items():
            yield _validate(Phase.INDEXES, *self._is_set(key), *step.up)
        for key, step in checks.items():
            alter = f"ALTER TABLE {self._is_set(key)[0]} ALTER COLUMN {self.new.columns[key].name}"
            drop = f"-- squawk-ignore ban-drop-constraint\n{step.down[0]}"  # it has done its work
            yield Step(Phase.INDEXES, (f"{alter} SET NOT NULL", drop), (f"{alter} DROP NOT NULL", *step.up))
        for key in self._added_again("constraint"):
            if not self._both(key) or not self._is_late(key):
                continue
            _, raw, name = split_key(key)
            constraint, table = self.new.constraints[key], self._name(raw)
            kind = "PRIMARY KEY" if constraint.kind == "p" else "UNIQUE"
            index = f"USING INDEX {self._name(name)}{constraint.deferral}"
            yield Step(
                Phase.INDEXES,
                (
                    _concurrently(constraint.index or ""),
                    f"ALTER TABLE {table} ADD CONSTRAINT {self._name(name)} {kind} {index}",
                ),
                (f"ALTER TABLE {table} DROP CONSTRAINT {self._name(name)}",),
                (f"{raw}.{name} fails if rows have equal values",),
            )


def _validate(phase: Phase, table: str, constraint: str, add: str) -> Step:
    alter = f"ALTER TABLE {table}"
    return Step(phase, (f"{alter} VALIDATE CONSTRAINT {constraint}",), (f"{alter} DROP CONSTRAINT {constraint}", add))


def _differs(key: str, old: Objects, new: Objects) -> bool:
    return key in old.catalog and key in new.catalog and old.catalog[key] != new.catalog[key]


def _inexpressible(old: Objects, new: Objects) -> Iterator[tuple[str, str]]:
    """Return the differences that need a hand, each with the reason."""
    for key in [*new.catalog, *(key for key in old.catalog if key not in new.catalog)]:
        before, after = old.catalog.get(key), new.catalog.get(key)
        if before != after and (reason := _why_not(key, before, after, old, new)):
            yield key, reason


def _why_not(key: str, before: str | None, after: str | None, old: Objects, new: Objects) -> str | None:
    kind = split_key(key)[0]
    if kind == "table":
        return _why_not_table(before, after)
    switched = kind in {"constraint", "trigger"} and re.search(r" (DISABLED|ENABLED \w)$", after or before or "")
    if kind in {"rule", "child"} or switched:
        return "rules, child tables, and triggers and constraints that are switched off are not written"
    return _why_not_change(kind, key, old, new) if before and after else None


def _why_not_table(before: str | None, after: str | None) -> str | None:
    kinds = {each.partition(" WITH (")[0] for each in (before, after) if each}
    if not kinds <= {"TABLE", "UNLOGGED TABLE"}:
        return "it is no plain table, or has row-level security"
    return "a table becomes logged or unlogged: ALTER TABLE ... SET rewrites it" if len(kinds) > 1 else None


def _why_not_change(kind: str, key: str, old: Objects, new: Objects) -> str | None:
    if kind == "domain":
        return "a domain changed: ALTER DOMAIN, with NOT VALID and VALIDATE CONSTRAINT"
    if kind == "enum" and [label for label in new.enums[key] if label in old.enums[key]] != old.enums[key]:
        return "a label is removed, renamed or moved: PostgreSQL cannot; make a new type, and move the columns to it"
    if kind == "column":
        was, wanted = old.columns[key], new.columns[key]
        if (was.identity, was.serial) != (wanted.identity, wanted.serial):
            return "a column gets or loses its own sequence"
        if bool(was.generated) != bool(wanted.generated):
            return "a plain column becomes a generated one, or the reverse"
    return None


def _option(definition: str, template: str) -> str:
    found = re.search(r" WITH \((toast_tuple_target=\d+)\)", definition)
    return template.format(found[1].replace("=", " = ")) if found else ""


def _default(column: Column) -> str:
    return " DROP DEFAULT" if column.default is None else f" SET DEFAULT {column.default}"


def _is_volatile(column: Column) -> bool:
    return column.default is not None and _CONSTANT.fullmatch(column.default) is None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _concurrently(index: str) -> str:
    return index.replace("INDEX ", "INDEX CONCURRENTLY IF NOT EXISTS ", 1)


def _or_replace(trigger: str) -> str:
    return trigger.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1)

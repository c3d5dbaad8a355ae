"""What became of the writes of instances in transactions: the server knows, whichever way each transaction ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from peewee import SQL

__all__ = ["MARKS", "Write", "outcomes", "take_marks"]

MARKS = (SQL("pg_current_xact_id()::text::bigint").alias("_top"), SQL("xmin::text::bigint").alias("_xmin"))
"""What a statement returns besides its columns: the transaction, and the savepoint's own id that the row bears."""

_OUTCOMES = """
SELECT id::text, pg_xact_status(id), pg_current_xact_id_if_assigned()::text
FROM unnest(%s::text[]::xid8[]) AS id
"""


@attrs.define
class Write:
    """What one transaction or savepoint did to an instance, as far as a rollback has to undo it.

    Attributes:
        top: The transaction; an instance keeps a `Write` by the id of the savepoint.
        stored: Whether the row was stored before.
        names: The fields that were written.
        before: The values before of the fields that the server returned, `...` for none.
    """

    top: str
    stored: bool
    names: set[str] = attrs.field(factory=set)
    before: dict[str, Any] = attrs.field(factory=dict)


def take_marks(row: dict[str, Any]) -> tuple[str, str] | None:
    """Take `MARKS` out of a returned row: the ids of the transaction and of the savepoint, None where not asked for."""
    if "_top" not in row:
        return None
    top, xmin = row.pop("_top"), row.pop("_xmin")
    # xmin has the lower 32 bits of an id that is not less than the transaction's.
    return str(top), str(top + (xmin - top) % 2**32)


def outcomes(database: Any, writes: Iterable[Mapping[str, Write]]) -> dict[str, bool | None]:
    """Tell of each id whether its transaction was committed; None where it is this very one, and open.

    A transaction that is open elsewhere, such as one whose connection was lost a moment ago, counts as not committed:
    writing again then waits for its end, and fails loudly where it was committed in spite of all.
    """
    tops = {xid: write.top for known in writes for xid, write in known.items()}
    if not tops:
        return {}
    rows = database.execute_sql(_OUTCOMES, (list(tops),)).fetchall()
    return {
        xid: None if status == "in progress" and current == tops[xid] else status == "committed"
        for xid, status, current in rows
    }

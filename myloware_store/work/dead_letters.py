"""Dead letters: events that failed for good, kept until somebody replays them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from myloware_store.core.arguments import as_count, as_flag, as_name, as_uuids
from myloware_store.core.errors import ConstraintViolation, InvalidInput, UniqueKeyConflict
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import require_text
from myloware_store.db.tenancy import tenant_scope
from myloware_store.db.transactions import require_plain
from myloware_store.orm.repository import Repository, writer
from myloware_store.work.models import DeadLetter

__all__ = ["DeadLetters"]

_sql = queries_beside(__file__)


class DeadLetters(Repository):
    """Failed events, of this store's items and of other sources."""

    def record(self, source: str, event_type: str, payload: Any, error: str) -> DeadLetter:
        """Store an event from outside that failed for good.

        Args:
            source: Where it came from, such as a queue or a webhook.
            event_type: The type of the event.
            payload: The event, any JSON value, 4 MiB at most.
            error: Why it failed.

        Returns:
            The stored letter.

        Raises:
            InvalidInput: An argument cannot be stored.
        """
        from psycopg2.extras import Json

        tenant, _ = writer()
        return self._create(
            DeadLetter,
            tenant_id=tenant,
            source=as_name(source, "source"),
            event_type=as_name(event_type, "event_type"),
            # None itself would be a missing value rather than JSON's null.
            payload=Json(None) if payload is None else payload,
            error=require_text(error, "error"),
        )

    def replay(
        self,
        ids: Iterable[UUID | str] | UUID | str,
        *,
        by: str,
        extra_attempts: int = 3,
        handler: Callable[[DeadLetter], object] | None = None,
    ) -> set[UUID]:
        """Queue the items of dead letters again; each letter is replayed once, however many callers replay it.

        Letters without an item (from other sources, or of items that were pruned) are passed to the handler, each in a
        transaction of its own with the letter's tenant in force. The handler's writes to this store are committed with
        the replay. If the handler raises, its letter is not replayed, and the letters after it are not tried. If the
        process is killed, the letter is not replayed either, so effects of the handler elsewhere may happen twice.

        These letters are left as they are: letters without an item, if there is no handler; letters that another
        caller is replaying; and letters whose item has not failed.

        Args:
            ids: The letters.
            by: Who replays them.
            extra_attempts: How many more tries each item gets (1 to 1000).
            handler: A plain function, called with each letter that has no item.

        Returns:
            The ids of the letters that this call replayed.

        Raises:
            InvalidInput: An argument is out of its bounds, or no letter has an item and there is no handler; nothing
                was replayed.
            UniqueKeyConflict: The orders of two of the items have the same `unique_key`, or another order with it is
                open; nothing was replayed.
        """
        letter_ids = as_uuids(ids, "ids")
        values = {
            "ids": letter_ids,
            "by": as_name(by, "by"),
            "extra_attempts": as_count(extra_attempts, "extra_attempts", most=1000),
        }
        if handler is not None:
            require_plain(handler, "handler")
        try:
            replayed = {letter_id for (letter_id,) in self._rows(_sql("replay"), values)}
        except ConstraintViolation as refused:
            if refused.constraint != "work_orders_unique_key_idx":
                raise
            raise UniqueKeyConflict(
                "replay: another order with the same unique_key is open; replay this letter when it has ended"
            ) from None
        if handler is None:
            if not replayed and self._rows(_sql("need_handler"), {"ids": letter_ids}, reads=True) == [(True,)]:
                raise InvalidInput("handler: none of these letters has an item to queue again; give a handler for them")
        else:
            for letter_id in letter_ids:
                replayed |= self._hand_over(letter_id, by, handler)
        return replayed

    def _hand_over(self, letter_id: str, by: str, handler: Callable[[DeadLetter], object]) -> set[UUID]:
        with self._db.atomic():
            for letter in self._stored(DeadLetter, _sql("hand_over"), {"id": letter_id, "by": by}):
                with tenant_scope(letter.tenant_id, by):
                    handler(letter)
                return {letter.id}
        return set()

    def list(self, *, replayed: bool = False, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, newest first.

        Args:
            replayed: Whether to return replayed letters instead of open ones.
            limit: Most letters to return (1 to 100,000).

        Raises:
            InvalidInput: An argument is out of its bounds.
        """
        query = self._select(DeadLetter).where(DeadLetter.replayed_at.is_null(not as_flag(replayed, "replayed")))
        newest_first = query.order_by(DeadLetter.created_at.desc(), DeadLetter.id.desc())
        return [*newest_first.limit(as_count(limit, "limit"))]

"""Dead letters: events that failed for good, kept until someone replays them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from myloware_store.core.arguments import as_count, as_flag, as_name, as_uuids
from myloware_store.core.errors import InvalidInput
from myloware_store.core.sql import queries_beside
from myloware_store.core.values import require_text
from myloware_store.db.tenancy import tenant_scope
from myloware_store.db.transactions import require_plain
from myloware_store.orm.repository import Repository, writer
from myloware_store.work.models import DeadLetter

__all__ = ["DeadLetters"]

_sql = queries_beside(__file__)


class DeadLetters(Repository):
    """Failed events, of this store's items and of sources outside it."""

    def record(self, source: str, event_type: str, payload: Any, error: str) -> DeadLetter:
        """Store an event from outside that failed for good.

        Args:
            source: Where it came from, such as a queue or a webhook.
            event_type: What it was.
            payload: The event, any JSON value, 4 MiB at most.
            error: Why it failed.

        Raises:
            InvalidInput: One of them cannot be stored.
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
        """Queue the items of dead letters again; each letter is replayed once, however many press the button.

        Letters without an item, from outside sources or of items that were pruned, go to the handler, if there is one,
        each in a transaction of its own with the letter's tenant in force: what the handler stores here is committed
        with the replay. Where it raises, that letter is not replayed, and the ones after it are not tried. A process
        that is killed meanwhile has not replayed it either: what the handler does elsewhere may then be done twice.

        Left as they are: letters without an item among others where there is no handler, letters that someone else is
        handing over, and those whose item has not failed.

        Args:
            ids: The letters.
            by: Who replays them.
            extra_attempts: How many more tries each item gets (1 to 1000).
            handler: What to do with a letter that has no item: a plain function.

        Returns:
            The ids of the letters that this call replayed.

        Raises:
            InvalidInput: An argument cannot be used, or none of the letters has an item and there is no handler;
                nothing was replayed.
        """
        letter_ids = as_uuids(ids, "ids")
        values = {
            "ids": letter_ids,
            "by": as_name(by, "by"),
            "extra_attempts": as_count(extra_attempts, "extra_attempts", most=1000),
        }
        if handler is not None:
            require_plain(handler, "handler")
        replayed = {letter_id for (letter_id,) in self._rows(_sql("replay"), values)}
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
        """Return dead letters, the newest first.

        Args:
            replayed: Whether to return those that were replayed, instead of those that were not.
            limit: Most letters to return (1 to 100,000).
        """
        query = self._select(DeadLetter).where(DeadLetter.replayed_at.is_null(not as_flag(replayed, "replayed")))
        newest_first = query.order_by(DeadLetter.created_at.desc(), DeadLetter.id.desc())
        return [*newest_first.limit(as_count(limit, "limit"))]

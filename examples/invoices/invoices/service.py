"""Takes invoices in, reads them, and keeps what is due."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import peewee

from invoices.models import Payment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from myloware_store import Claim, Store, WorkOrder

_INVOICE = re.compile(
    r"invoice\s+(?P<number>[\w-]+).*?(?P<amount>\d+\.\d\d)\s+(?P<currency>[A-Z]{3})", re.IGNORECASE | re.DOTALL
)


class InvoiceService:
    """The service, on an open store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def receive(self, texts: Sequence[str], *, mail: str) -> WorkOrder:
        """Take in the invoices of a mail; the same mail again changes nothing."""
        items = [{"type": "INVOICE", "content": text} for text in texts]
        return self.store.work.submit(items, created_by="mail", idempotency_key=mail)

    def work(self, agent: str, n: int = 10) -> int:
        """Work on up to n invoices that wait, and give how many there were."""
        claims = self.store.work.claim(agent, n, types=["INVOICE"])
        for claim in claims:
            try:
                self.store.transact(partial(self._book, claim, agent))
            except (ValueError, peewee.IntegrityError) as error:
                self.store.work.fail([claim], [error], retry=False)
        return len(claims)

    def due(self) -> dict[str, Decimal]:
        """Give what is due, by currency."""
        total = peewee.fn.sum(Payment.amount)
        query = Payment.select(Payment.currency, total).group_by(Payment.currency).order_by(Payment.currency)
        return dict(query.tuples())

    def _book(self, claim: Claim, agent: str) -> None:
        """Store the result, the payment and the audit line: all of them, or none."""
        found = _INVOICE.search(claim.content)
        if found is None:
            raise ValueError("there is no number and amount in it")
        self.store.work.finish([claim], [found.groupdict()])
        Payment.create(
            number=found["number"],
            work_item_id=claim.item_id,
            currency=found["currency"],
            amount=Decimal(found["amount"]),
        )
        self.store.audit.record("payment.book", "work_item", claim.item_id, user_id=agent)

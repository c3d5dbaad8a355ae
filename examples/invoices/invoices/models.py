"""The service's own table: payments that are due."""

from __future__ import annotations

import peewee

from myloware_store.db.proxy import proxy


class Payment(peewee.Model):
    """What one invoice asks for."""

    number = peewee.TextField(primary_key=True)
    work_item_id = peewee.UUIDField(constraints=[peewee.SQL("REFERENCES work_items ON DELETE CASCADE")])
    currency = peewee.TextField()
    amount = peewee.DecimalField(max_digits=12, decimal_places=2, constraints=[peewee.Check("amount >= 0")])

    class Meta:
        """It lies in the database that the store is open on."""

        database = proxy
        table_name = "payments"
